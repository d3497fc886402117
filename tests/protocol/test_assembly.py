"""Events of one response to turn events and the final message, whatever a server leaves out."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol.assembly import Assembly
from engine.values.blocks import OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage
from engine.values.turn_events import (
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
)
from engine.values.usage import Usage
from engine.wire.codec import SERVER_EVENT_CLASSES, decode, decode_object
from engine.wire.events import TERMINALS, LifecycleEvent, TerminalEvent
from engine.wire.response import structure_response
from engine.wire.usage import usage_from

STARTED = (TextStarted, ThinkingStarted, ToolCallStarted)
DELTA = (TextDelta, ThinkingDelta, ToolCallDelta)
ENDED = (TextEnded, ThinkingEnded, ToolCallEnded)

same_examples = settings(derandomize=True, deadline=None, max_examples=120)


def event(wire_type: str, index: int = 0, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{wire_type}", "output_index": index, **members}


def text_delta(delta: str, index: int = 0, part: int = 0, **members: Any) -> dict[str, Any]:
    return event("output_text.delta", index, content_index=part, delta=delta, **members)


def added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return event("output_item.added", index, item=item)


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return event("output_item.done", index, item=item)


def message(*content: dict[str, Any] | str, id: str | None = "msg_1", **members: Any) -> dict[str, Any]:  # noqa: A002
    parts = [output_text(part) if isinstance(part, str) else part for part in content]
    item = {"type": "message", "role": "assistant", "content": parts, **members}
    return {**item, "id": id} if id is not None else item


def output_text(text: str, annotations: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations or []}


def refusal(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def reasoning(*summary: str, id: str = "rs_1", **members: Any) -> dict[str, Any]:  # noqa: A002
    sections = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": id, "summary": sections, **members}


def call(arguments: str, name: str = "add", id: str | None = "fc_1", call_id: str = "call_1") -> dict[str, Any]:  # noqa: A002
    item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return {**item, "id": id} if id is not None else item


def custom(text: str, name: str = "shell", id: str = "ctc_1", call_id: str = "call_2") -> dict[str, Any]:  # noqa: A002
    return {"type": "custom_tool_call", "id": id, "call_id": call_id, "name": name, "input": text}


SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}


class Watched:
    """An assembly, and what came out of it, checked as it comes."""

    def __init__(self) -> None:
        self.assembly = Assembly()
        self.events: list[Any] = []
        self._before: tuple[Any, ...] = ()

    def feed(self, *raws: dict[str, Any]) -> list[Any]:
        shown = []
        for raw in raws:
            wire_event = decode_object(raw)
            assert not isinstance(wire_event, TerminalEvent)
            shown += self.assembly.feed(wire_event)
            self._check_partial()
        self.events += shown
        return shown

    def finish(self, output: Any = (), **members: Any) -> AssistantMessage:
        raw = {"id": "resp_1", "status": "completed", "model": "m-1", **members}
        if output != ():
            raw["output"] = output
        self.events += self.assembly.finish(structure_response(raw))
        answer = self.assembly.message()
        check_stream(self.events, answer)
        return answer

    def _check_partial(self) -> None:
        partial = self.assembly.partial()
        content = partial.content if partial is not None else ()
        assert partial is None or partial.stop_reason is None
        assert [type(block) for block in content[: len(self._before)]] == [type(block) for block in self._before]
        self._before = content

    @property
    def deltas(self) -> list[str]:
        return [each.delta for each in self.events if isinstance(each, DELTA)]


def check_stream(events: list[Any], answer: AssistantMessage) -> None:
    """Each block is started once, then written, then ended once with what the message holds."""
    opened: list[int] = []
    closed: list[int] = []
    for each in events:
        if isinstance(each, STARTED):
            assert each.index not in opened
            opened.append(each.index)
        elif isinstance(each, DELTA):
            assert each.index in opened
            assert each.index not in closed
        else:
            assert isinstance(each, ENDED)
            assert each.index in opened
            assert each.index not in closed
            assert bare(answer.content[each.index]) == bare(each.block)
            closed.append(each.index)
    silent = [number for number, block in enumerate(answer.content) if isinstance(block, OutputItem)]
    assert opened == sorted(opened)
    assert sorted(closed) == sorted(opened)
    assert sorted(opened + silent) == list(range(len(answer.content)))


def bare(block: Any) -> Any:
    """A block without what a later word on its item may still add."""
    return evolve(block, annotations=(), logprobs=()) if isinstance(block, Text) else block


def written(block: Any) -> str:
    match block:
        case Text() | Thinking():
            return block.text
        case Refusal():
            return block.refusal
        case ToolCall():
            return block.raw_arguments
        case _:
            raise AssertionError


def from_terminal(output: Any, **members: Any) -> AssistantMessage:
    return Watched().finish(output, **members)


# --- one block of each kind


def test_text_from_first_delta_to_end() -> None:
    watched = Watched()
    item = message(id="msg_1", status="in_progress", phase="final_answer")
    begun = watched.feed(
        added(item), event("content_part.added", item_id="msg_1", content_index=0, part=output_text(""))
    )
    assert begun == [TextStarted(0, Text("", "final_answer", "msg_1"))]
    assert watched.feed(text_delta("Hel"), text_delta("lo")) == [TextDelta(0, "Hel"), TextDelta(0, "lo")]
    assert watched.assembly.partial() == AssistantMessage((Text("Hello", "final_answer", "msg_1"),))
    assert watched.feed(
        event("output_text.done", content_index=0, text="Hello"),
        event("content_part.done", content_index=0, part=output_text("Hello")),
    ) == []  # fmt: skip
    whole = message("Hello", phase="final_answer")
    assert watched.feed(done(whole)) == [TextEnded(0, Text("Hello", "final_answer", "msg_1"))]
    answer = watched.finish([whole])
    assert (answer.text, answer.phase, answer.stop_reason) == ("Hello", "final_answer", "stop")
    assert (answer.model, answer.response_id) == ("m-1", "resp_1")


def test_a_refusal_streams_as_text() -> None:
    watched = Watched()
    watched.feed(
        event("refusal.delta", content_index=0, delta="I can"), event("refusal.delta", content_index=0, delta="not")
    )
    answer = watched.finish([message(refusal("I cannot"))])
    assert watched.deltas == ["I can", "not"]
    assert answer.refusal == "I cannot"
    assert answer.text == ""
    assert answer.content == (Refusal("I cannot", "msg_1"),)


def test_summary_sections_are_joined_by_a_blank_line() -> None:
    watched = Watched()
    for section, text in enumerate(("First", "Second")):
        for piece in (text[:2], text[2:]):
            watched.feed(event("reasoning_summary_text.delta", summary_index=section, delta=piece))
        watched.feed(
            event("reasoning_summary_text.done", summary_index=section, text=text),
            event("reasoning_summary_part.done", summary_index=section, part={"type": "summary_text", "text": text}),
        )
    item = reasoning("First", "Second", encrypted_content="opaque")
    watched.feed(done(item))
    answer = watched.finish([item])
    assert "".join(watched.deltas) == "First\n\nSecond"
    (thinking,) = answer.thinking
    assert thinking.text == "First\n\nSecond"
    assert json.loads(thinking.signature or "") == {
        "type": "reasoning", "id": "rs_1", "summary": item["summary"], "encrypted_content": "opaque"
    }  # fmt: skip


def test_reasoning_text_where_there_is_no_summary() -> None:
    parts = [{"type": "reasoning_text", "text": text} for text in ("Let me", "see")]
    watched = Watched()
    watched.feed(
        event("reasoning_text.delta", content_index=0, delta="Let"),
        event("reasoning_text.done", content_index=0, text="Let me"),
        event("content_part.done", content_index=1, part=parts[1]),
    )
    answer = watched.finish([reasoning(content=parts)])
    assert answer.thinking[0].text == "".join(watched.deltas) == "Let me\n\nsee"
    assert json.loads(answer.thinking[0].signature or "")["content"] == parts


@pytest.mark.parametrize("first", ["summary", "content"])
def test_of_summary_and_text_the_first_to_come_is_shown(first: str) -> None:
    summary = event("reasoning_summary_text.delta", summary_index=0, delta="short")
    content = event("reasoning_text.delta", content_index=0, delta="long and winding")
    item = reasoning("short", content=[{"type": "reasoning_text", "text": "long and winding"}])
    watched = Watched()
    watched.feed(*((summary, content) if first == "summary" else (content, summary)), done(item))
    assert watched.finish([item]).thinking[0].text == ("short" if first == "summary" else "long and winding")
    assert from_terminal([item]).thinking[0].text == "short"


def test_empty_sections_leave_no_blank_lines() -> None:
    watched = Watched()
    watched.feed(
        event("reasoning_summary_text.delta", summary_index=0, delta=""),
        event("reasoning_summary_text.done", summary_index=0, text=""),
        event("reasoning_summary_text.delta", summary_index=1, delta=""),
        event("reasoning_summary_text.delta", summary_index=1, delta="b"),
    )
    assert watched.finish([reasoning("", "b")]).thinking[0].text == "".join(watched.deltas) == "b"


def test_the_late_end_of_an_earlier_section_is_not_shown_again() -> None:
    watched = Watched()
    watched.feed(
        event("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""}),
        event("reasoning_summary_text.delta", summary_index=0, delta="a"),
        event("reasoning_summary_part.added", summary_index=1, part={"type": "summary_text", "text": ""}),
        event("reasoning_summary_text.delta", summary_index=1, delta="b"),
        event("reasoning_summary_text.done", summary_index=0, text="a"),
        event("reasoning_summary_text.done", summary_index=1, text="bc"),
    )
    assert watched.finish([reasoning("a", "bc")]).thinking[0].text == "".join(watched.deltas) == "a\n\nbc"


def test_a_section_begins_unannounced_where_positions_are_steady() -> None:
    watched = Watched()
    for number, piece in enumerate("abcd"):
        watched.feed(event("reasoning_summary_text.delta", summary_index=number // 2, delta=piece))
    assert watched.finish([reasoning("ab", "cd")]).thinking[0].text == "".join(watched.deltas) == "ab\n\ncd"


def test_sections_that_nothing_parts_are_parted_in_the_end() -> None:
    watched = Watched()
    watched.feed(
        event("reasoning_summary_text.delta", summary_index=0, delta="a"),
        event("reasoning_summary_text.delta", summary_index=1, delta="b"),
        event("reasoning_summary_text.done", summary_index=0, text="a"),
        event("reasoning_summary_text.done", summary_index=1, text="bc"),
    )
    assert watched.deltas == ["a", "b", "c"]
    assert watched.finish([reasoning("a", "bc")]).thinking[0].text == "a\n\nbc"
    assert watched.deltas == ["a", "b", "c"]


def test_a_function_call() -> None:
    watched = Watched()
    assert watched.feed(added(call(""))) == [ToolCallStarted(0, ToolCall("call_1|fc_1", "add"))]
    watched.feed(
        event("function_call_arguments.delta", item_id="fc_1", delta='{"a"'),
        event("function_call_arguments.delta", item_id="fc_1", delta=":1}"),
        event("function_call_arguments.done", item_id="fc_1", arguments='{"a":1}'),
    )
    assert watched.feed(done(call('{"a":1}'))) == [
        ToolCallEnded(0, ToolCall("call_1|fc_1", "add", {"a": 1}, '{"a":1}'))
    ]  # fmt: skip
    answer = watched.finish([call('{"a":1}')])
    assert answer.stop_reason == "tool_use"
    assert answer.tool_calls[0].call_id == "call_1"


def test_a_custom_tool_call_takes_free_text() -> None:
    watched = Watched()
    watched.feed(
        added(custom("")),
        event("custom_tool_call_input.delta", delta="ls "),
        event("custom_tool_call_input.done", input="ls -l"),
    )
    answer = watched.finish([custom("ls -l")])
    assert answer.tool_calls == (ToolCall("call_2|ctc_1", "shell", {}, "ls -l", "custom"),)
    assert watched.deltas == ["ls ", "-l"]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "raw",
    [
        '{"a":',
        "[1]",
        "nul",
        '"text"',
        '"[1]"',
        '"{"',
        r'"\"{}\""',
        "7",
        "[" * 100_000,
        "1" * 5000,
        "\ufffd",
        '{"a":1} trailing',
    ],
)
def test_arguments_that_are_no_object_are_kept_as_they_are(raw: str) -> None:
    (made,) = from_terminal([call(raw)]).tool_calls
    assert made.arguments == {}
    assert made.raw_arguments == raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (json.dumps('{"a": 1}'), '{"a": 1}'),
        (" " + json.dumps(" {} ") + "\n", " {} "),
        (json.dumps('{"a": "\\ud83d\\ude00"}'), '{"a": "\\ud83d\\ude00"}'),
        ("null", "{}"),
        (" null ", "{}"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_arguments_that_were_written_as_text_twice_are_unwrapped(raw: str, expected: str, streamed: bool) -> None:
    watched = Watched()
    if streamed:
        watched.feed(added(call("")), event("function_call_arguments.delta", delta=raw), done(call(raw)))
    (made,) = watched.finish([call(raw)]).tool_calls
    assert (made.arguments, made.raw_arguments) == (json.loads(expected), expected)
    assert watched.assembly.oddities == {"repaired": 1}
    assert type(watched.events[-1]) is ToolCallEnded


def test_arguments_the_finished_item_leaves_out_are_those_of_the_deltas() -> None:
    watched = Watched()
    watched.feed(added(call("")), event("function_call_arguments.delta", delta='{"a":1}'), done(call("")))
    assert watched.finish([]).tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_the_end_of_the_arguments_may_name_the_call(announced: bool, finished: bool) -> None:
    watched = Watched()
    if announced:
        watched.feed(added(call("", name="")))
    watched.feed(
        event("function_call_arguments.delta", item_id="fc_1", delta='{"a"'),
        event("function_call_arguments.delta", item_id="fc_1", delta=":1}"),
        event("function_call_arguments.done", item_id="fc_1", call_id="call_1", name="add", arguments='{"a":1}'),
    )
    (made,) = watched.finish([call('{"a":1}')] if finished else []).tool_calls
    assert made == ToolCall("call_1|fc_1", "add", {"a": 1}, '{"a":1}')
    assert [type(each) for each in watched.events] == [ToolCallStarted, ToolCallDelta, ToolCallEnded]
    assert not watched.assembly.oddities


def test_a_call_that_stays_without_a_name_is_counted() -> None:
    watched = Watched()
    watched.feed(event("function_call_arguments.delta", item_id="fc_1", delta="{}"))
    assert watched.finish([]).content == ()
    assert watched.assembly.oddities == {"unreadable": 1}


@pytest.mark.parametrize(
    ("part", "oddities"),
    [
        ({"type": "output_text", "text": None, "annotations": None}, {}),
        ({"type": "refusal", "refusal": None}, {}),
        ({"type": "output_text"}, {}),
        ({"type": "output_text", "text": {"value": "hi"}}, {"unreadable": 1}),
    ],
)
def test_a_message_of_parts_without_words_is_empty(part: dict[str, Any], oddities: dict[str, int]) -> None:
    watched = Watched()
    assert watched.finish([{**message(), "content": [part]}]).content == ()
    assert watched.assembly.oddities == oddities


def test_a_message_of_other_parts_is_kept() -> None:
    item = {**message(), "content": [{"type": "output_audio", "data": "AA=="}, {"type": "output_text", "text": None}]}
    assert Watched().finish([item]).content == (OutputItem(item),)


def test_an_empty_message_that_says_something_else_is_counted() -> None:
    watched = Watched()
    calls = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    assert watched.finish([{**message(), "content": None, "tool_calls": calls}]).content == ()
    assert watched.assembly.oddities == {"unreadable": 1}


def test_a_call_without_item_id() -> None:
    assert from_terminal([call("{}", id=None)]).tool_calls[0].id == "call_1"


@pytest.mark.parametrize(
    "item",
    [
        call("{}", name=""),
        {"type": "function_call", "call_id": "call_1", "arguments": "{}"},
        custom("x", name=""),
        message(),
        message(id=None),
    ],
)
def test_items_of_no_use_are_dropped(item: dict[str, Any]) -> None:
    answer = from_terminal([item])
    assert answer.content == ()
    assert answer.stop_reason == "stop"


def test_hosted_and_unknown_items_are_kept_in_order() -> None:
    odd = {"type": "hologram", "id": "h_1", "beams": 3}
    output = [reasoning("why"), SEARCH, message("a"), odd, message("b", id="msg_2")]
    watched = Watched()
    watched.feed(*(done(item, index) for index, item in enumerate(output)))
    answer = watched.finish(output)
    assert answer == from_terminal(output)
    assert [type(block) for block in answer.content] == [Thinking, OutputItem, Text, OutputItem, Text]
    assert [block.item for block in answer.content if isinstance(block, OutputItem)] == [SEARCH, odd]


def test_reasoning_without_text_is_kept_for_replay() -> None:
    item = reasoning(encrypted_content="opaque")
    watched = Watched()
    watched.feed(added(reasoning()), event("reasoning_summary_text.done", summary_index=0, text=""))
    assert watched.assembly.partial() is None
    assert watched.feed(done(item)) == []
    assert watched.finish([item]).content == (OutputItem(item),)


def test_encrypted_content_comes_from_the_finished_item_only() -> None:
    watched = Watched()
    watched.feed(
        added(reasoning(encrypted_content="half")), event("reasoning_summary_text.delta", summary_index=0, delta="so")
    )
    unfinished = Watched()
    unfinished.feed(
        added(reasoning(encrypted_content="half")), event("reasoning_summary_text.delta", summary_index=0, delta="so")
    )
    watched.feed(done(reasoning("so", encrypted_content="whole")))
    signature = watched.finish(None).thinking[0].signature
    assert json.loads(signature or "")["encrypted_content"] == "whole"
    assert unfinished.finish(None).thinking == (Thinking("so"),)


def test_only_ids_of_reasoning_items_are_signed() -> None:
    assert "id" not in json.loads(from_terminal([reasoning("x", id="made-up")]).thinking[0].signature or "")


def test_a_message_whose_content_is_a_string() -> None:
    assert from_terminal([{**message(phase="final_answer"), "content": "Hi"}]).content == (
        Text("Hi", "final_answer", "msg_1"),
    )


def test_text_parts_of_another_name() -> None:
    watched = Watched()
    part = {"type": "text", "text": "Hi"}
    watched.feed(
        event("content_part.added", content_index=0, part={"type": "text", "text": ""}),
        event("content_part.done", content_index=0, part=part),
    )
    assert watched.finish([message(part)]).text == "Hi"


def test_a_message_of_unknown_parts_is_kept_whole() -> None:
    item = message({"type": "output_audio", "data": "…"})
    assert from_terminal([item]).content == (OutputItem(item),)


def test_several_parts_in_one_message() -> None:
    item = message("one", refusal("no"), "two")
    watched = Watched()
    watched.feed(
        text_delta("one"), event("refusal.delta", content_index=1, delta="no"), text_delta("two", part=2), done(item)
    )
    answer = watched.finish([item])
    assert answer.content == (Text("one", None, "msg_1"), Refusal("no", "msg_1"), Text("two", None, "msg_1"))


@pytest.mark.parametrize("unfinished", ["", "two", "tw"])
def test_the_end_of_a_part_said_in_two_events_is_none_of_an_earlier_part(unfinished: str) -> None:
    watched = Watched()
    watched.feed(text_delta("one"), event("output_text.done", text="one", content_index=0))
    watched.feed(event("content_part.added", part=output_text(""), content_index=1))
    if unfinished:
        watched.feed(text_delta(unfinished, part=1))
    watched.feed(event("content_part.added", part=output_text(""), content_index=2), text_delta("three", part=2))
    watched.feed(event("output_text.done", text="three", content_index=2))
    watched.feed(event("content_part.done", part=output_text("three"), content_index=2))
    answer = watched.finish([message("one", "two", "three")])
    assert [block.text for block in answer.content if isinstance(block, Text)] == ["one", "two", "three"]


CITATION = {"type": "url_citation", "url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}


def test_annotations() -> None:
    other = {"type": "file_path", "file_id": "f", "index": 0}
    item = message(output_text("Hi", [CITATION, other]))
    streamed = Watched()
    streamed.feed(text_delta("Hi"))
    for each in (CITATION, other):
        streamed.feed(event("output_text.annotation.added", content_index=0, annotation=each))
    streamed.feed(event("output_text.annotation.added", content_index=0))
    answer = streamed.finish(None)
    assert answer.content == (Text("Hi", None, None, (CITATION, other)),)
    assert from_terminal([item]).content == (Text("Hi", None, "msg_1", (CITATION, other)),)
    part = Watched()
    part.feed(event("content_part.done", content_index=0, part=output_text("Hi", [CITATION])))
    assert part.finish(None).content == (Text("Hi", None, None, (CITATION,)),)


# --- what servers leave out, repeat or contradict


def test_a_block_changes_no_more_once_it_has_ended() -> None:
    watched = Watched()
    watched.feed(event("content_part.done", content_index=0, part=output_text("Hi")))
    item = message(output_text("Hi", [CITATION]), phase="final_answer")
    watched.feed(
        done(item),
        text_delta("!"),
        event("refusal.delta", content_index=0, delta="no"),
        event("output_text.done", content_index=0, text="Other"),
        event("content_part.done", content_index=0, part=output_text("Other")),
        event("content_part.added", content_index=3, part=output_text("")),
        event("output_text.annotation.added", content_index=0, annotation=CITATION),
        done(item),
    )
    assert watched.finish([item]).content == (Text("Hi", "final_answer", "msg_1", (CITATION,)),)


def test_one_id_with_two_texts_is_two_messages() -> None:
    watched = Watched()
    watched.feed(done(message("One")), done(message("Two")))
    assert watched.finish([message("One"), message("Two")]).text == "OneTwo"
    assert from_terminal([message("One"), message("Two")]).text == "OneTwo"


def test_events_of_a_finished_call() -> None:
    watched = Watched()
    watched.feed(
        added(call("")),
        done(call("{}")),
        event("function_call_arguments.delta", delta="x"),
        event("function_call_arguments.done", arguments='{"b":2}'),
        done(call('{"b":2}')),
    )
    assert watched.finish([call("{}")]).tool_calls[0].raw_arguments == "{}"


@pytest.mark.parametrize(
    ("raws", "content"),
    [
        ([event("output_text.done", content_index=0, text="Hi")], (Text("Hi"),)),
        ([event("content_part.done", content_index=0, part=output_text("Hi"))], (Text("Hi"),)),
        ([event("refusal.done", content_index=0, refusal="No")], (Refusal("No"),)),
        ([event("content_part.done", content_index=0, part=refusal("No"))], (Refusal("No"),)),
        ([event("reasoning_text.done", content_index=0, text="hm")], (Thinking("hm"),)),
        ([event("reasoning_summary_text.done", summary_index=0, text="hm")], (Thinking("hm"),)),
        (
            [event("reasoning_summary_part.done", summary_index=0, part={"type": "summary_text", "text": "hm"})],
            (Thinking("hm"),),
        ),
        (
            [added(call("")), event("function_call_arguments.done", arguments="{}")],
            (ToolCall("call_1|fc_1", "add", {}, "{}"),),
        ),
        (
            [added(custom("")), event("custom_tool_call_input.done", input="ls")],
            (ToolCall("call_2|ctc_1", "shell", {}, "ls", "custom"),),
        ),
        ([text_delta("Hi", item_id="msg_9")], (Text("Hi", None, "msg_9"),)),
    ],
)
@pytest.mark.parametrize("output", [(), None, [], "nonsense"])
def test_an_answer_is_rebuilt_from_whatever_told_it(raws: list[Any], content: tuple[Any, ...], output: Any) -> None:
    watched = Watched()
    watched.feed(*raws)
    answer = watched.finish(output)
    assert answer.content == content
    assert [written(block) for block in content] == ["".join(watched.deltas)]


@pytest.mark.parametrize("output", [(), None, [], "nonsense"])
def test_an_empty_terminal_leaves_the_finished_items(output: Any) -> None:
    items = [reasoning("why", encrypted_content="x"), SEARCH, message("a"), call("{}"), custom("ls")]
    watched = Watched()
    watched.feed(*(done(item, index) for index, item in enumerate(items)))
    assert watched.finish(output) == from_terminal(items)


def test_the_terminal_brings_items_that_were_never_reported() -> None:
    items = [message("a"), message("b", id="msg_2"), call("{}"), SEARCH]
    watched = Watched()
    watched.feed(done(items[0]))
    assert watched.finish(items) == from_terminal(items)


def test_the_terminal_completes_items_that_were_never_finished() -> None:
    items = [message("abc"), call('{"a":1}')]
    watched = Watched()
    watched.feed(text_delta("ab"), added(call(""), 1), event("function_call_arguments.delta", 1, delta='{"a"'))
    assert watched.finish(items) == from_terminal(items)
    assert watched.deltas == ["ab", '{"a"', "c", ":1}"]


@pytest.mark.parametrize("with_ids", [True, False])
def test_gaps_between_output_indices(with_ids: bool) -> None:
    names = ["msg_1", "msg_2"] if with_ids else [None, None]
    items = [message("a", id=names[0]), message("b", id=names[1])]
    watched = Watched()
    watched.feed(
        event("output_item.added", 0, item=None),
        done(items[0], 3),
        text_delta("b", 7),
        event("output_item.done", 8, item=None),
    )
    answer = watched.finish(items)
    assert [block.text for block in answer.content if isinstance(block, Text)] == ["a", "b"]
    assert answer == from_terminal(items)


def test_ids_that_only_the_terminal_has() -> None:
    watched = Watched()
    watched.feed(done(message("a", id=None)), done(call("{}", id=None), 1))
    answer = watched.finish([message("a"), call("{}")])
    assert answer.content == (Text("a"), ToolCall("call_1", "add", {}, "{}"))


def test_calls_are_told_apart_by_their_call_id() -> None:
    first, second = call("{}", id=None), call("{}", id=None, call_id="call_9")
    watched = Watched()
    watched.feed(done(second, 1))
    assert [made.id for made in watched.finish([first, second]).tool_calls] == ["call_9", "call_1"]


def test_a_terminal_that_lists_an_item_twice() -> None:
    assert from_terminal([message("a"), message("a")]).text == "a"


def test_a_server_that_puts_every_item_at_index_0() -> None:
    items = [reasoning("hm"), message("a"), call("{}")]
    watched = Watched()
    watched.feed(*(done(item) for item in items), done(items[1]))
    assert watched.finish(None) == from_terminal(items)
    again = Watched()
    again.feed(*(done(item) for item in items))
    assert again.finish(items) == from_terminal(items)


def test_interleaved_items_keep_the_order_in_which_they_began() -> None:
    first, second = message("ab"), message("cd", id="msg_2")
    watched = Watched()
    watched.feed(
        text_delta("c", 1, item_id="msg_2"), text_delta("a", 0, item_id="msg_1"), text_delta("d", 1), text_delta("b", 0)
    )
    answer = watched.finish([first, second])
    assert [block.text for block in answer.content if isinstance(block, Text)] == ["cd", "ab"]
    assert [(each.index, each.delta) for each in watched.events if isinstance(each, TextDelta)] == [
        (0, "c"), (1, "a"), (0, "d"), (1, "b")
    ]  # fmt: skip


def test_what_the_finished_item_says_counts() -> None:
    watched = Watched()
    watched.feed(text_delta("Helo"), done(message("Hello")))
    assert watched.finish(None).text == "Hello"
    assert watched.deltas == ["Helo"]


def test_a_message_that_shows_what_its_finished_item_lacks() -> None:
    watched = Watched()
    ended = watched.feed(text_delta("Hi"), done(message()))
    assert ended[-1] == TextEnded(0, Text("Hi"))
    assert watched.finish(None).text == "Hi"


def test_model_and_id_from_wherever_they_were_told() -> None:
    watched = Watched()
    watched.feed(
        {"type": "response.created", "response": {"id": "resp_7", "model": "m-7", "usage": {"input_tokens": 3}}}
    )
    watched.events += watched.assembly.finish(structure_response({}))
    answer = watched.assembly.message()
    assert (answer.response_id, answer.model, answer.usage) == ("resp_7", "m-7", Usage(input_tokens=3))


def test_no_terminal_at_all() -> None:
    watched = Watched()
    watched.feed(text_delta("Hi"), added(call(""), 1))
    watched.events += watched.assembly.finish(None)
    partial = watched.assembly.partial()
    assert partial is not None
    check_stream(watched.events, partial)
    assert partial.stop_reason is None
    assert partial.text == "Hi"


# --- why it ended


@pytest.mark.parametrize(
    ("status", "reason", "with_call", "expected"),
    [
        ("completed", None, False, "stop"),
        ("completed", None, True, "tool_use"),
        (None, None, False, "stop"),
        ("queued", None, False, "stop"),
        ("incomplete", "max_output_tokens", False, "length"),
        ("incomplete", "max_output_tokens", True, "length"),
        ("incomplete", "max_tokens", False, "length"),
        ("incomplete", "something_new", False, "length"),
        ("incomplete", None, False, "length"),
        ("incomplete", "steered", False, "stop"),
        ("incomplete", "steered", True, "tool_use"),
        ("incomplete", "interrupted", False, "stop"),
        ("completed", "max_output_tokens", False, "stop"),
    ],
)
def test_stop_reason(status: str | None, reason: str | None, with_call: bool, expected: str) -> None:
    output = [message("a"), *([call("{}")] if with_call else [])]
    details = {"reason": reason} if reason is not None else None
    assert from_terminal(output, status=status, incomplete_details=details).stop_reason == expected


def test_an_incomplete_terminal_whose_response_does_not_say_so() -> None:
    assembly = Assembly()
    assembly.finish(structure_response({"output": [message("a")]}), incomplete=True)
    assert assembly.message().stop_reason == "length"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": None, "output_tokens": -1, "total_tokens": True, "input_tokens_details": []}, None),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, Usage(0, 0, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4, 7)),
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 0}, Usage(3, 4, 7)),
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 9}, Usage(3, 4, 9)),
        ({"input_tokens": 3}, Usage(input_tokens=3)),
        ({"total_tokens": 0}, Usage(total_tokens=0)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4, 7)),
        ({"input_tokens": 3.0, "output_tokens": 4.0, "total_tokens": 7.0}, Usage(3, 4, 7)),
        ({"input_tokens": 3.5, "output_tokens": 1e400}, None),
        ({"input_tokens": "3", "prompt_tokens": 5}, Usage(input_tokens=5)),
        ({"input_tokens": 3.5, "output_tokens": math.inf}, None),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "total_tokens": 15,
                "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(10, 5, 15, 8, 2, 4),
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 1}},
            Usage(cached_tokens=0, reasoning_tokens=1),
        ),
        (
            {"input_tokens": 1, "input_tokens_details": {"cached_tokens": -1, "cache_write_tokens": False}},
            Usage(input_tokens=1),
        ),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert usage_from(usage) == expected
    assert from_terminal([], usage=usage).usage == expected


# --- any response, however it is told

phrases = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
phases = st.sampled_from([None, "commentary", "final_answer"])
citations = st.lists(st.just(CITATION), max_size=1)


def parts(number: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """The parts of one message. No two messages and no two parts say the same: they would be taken for one."""

    def numbered(drawn: list[tuple[bool, str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
        return [
            output_text(f"{text}{number}.{place}", cited) if is_text else refusal(f"{text}{number}.{place}")
            for place, (is_text, text, cited) in enumerate(drawn)
        ]

    return st.lists(st.tuples(st.booleans(), phrases, citations), min_size=1, max_size=3).map(numbered)


@st.composite
def responses(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Output items as a server would list them."""
    items: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 5))):
        match draw(st.sampled_from(["message", "summary", "content", "sealed", "function", "custom", "hosted"])):
            case "message":
                item = message(*draw(parts(number)), id=f"msg_{number}", phase=draw(phases))
            case "summary":
                texts = draw(st.lists(phrases, min_size=1, max_size=3))
                item = reasoning(*(f"{text}{number}" for text in texts), id=f"rs_{number}")
            case "content":
                texts = draw(st.lists(phrases, min_size=1, max_size=2))
                content = [{"type": "reasoning_text", "text": f"{text}{number}"} for text in texts]
                item = reasoning(id=f"rs_{number}", content=content)
            case "sealed":
                item = reasoning(id=f"rs_{number}", encrypted_content=f"sealed {number}")
            case "function":
                arguments = draw(st.sampled_from(['{"a":1}', '{"a":', "x"]))
                item = call(arguments, id=draw(st.sampled_from([f"fc_{number}", None])), call_id=f"call_{number}")
            case "custom":
                item = custom(draw(phrases), id=f"ctc_{number}", call_id=f"call_{number}")
            case _:
                item = {**SEARCH, "id": f"ws_{number}"}
        items.append(item)
    return items


def chunks(chance: random.Random, text: str) -> list[str]:
    cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def told(chance: random.Random, item: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """The events of one item, set-up events left out at random, deltas cut and left out at random."""

    def maybe(*raws: dict[str, Any]) -> list[dict[str, Any]]:
        return list(raws) if chance.random() < 0.6 else []

    def deltas(wire_type: str, text: str, **where: Any) -> list[dict[str, Any]]:
        return [event(wire_type, index, delta=piece, **where) for piece in chunks(chance, text)]

    where: dict[str, Any] = {"item_id": item["id"]} if "id" in item and chance.random() < 0.5 else {}
    blank: dict[str, Any] = {**item, "status": "in_progress"}
    blank |= {name: [] for name in ("content", "summary") if name in item}
    blank |= {name: "" for name in ("arguments", "input") if name in item}
    raws = maybe(added(blank, index))
    match item["type"]:
        case "message":
            for number, part in enumerate(item["content"]):
                place = {**where, "content_index": number}
                kind, name = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
                words = maybe(event("content_part.added", index, part={**part, name: ""}, **place))
                words += maybe(*deltas(f"{kind}.delta", part[name], **place))
                words += maybe(event(f"{kind}.done", index, **{name: part[name]}, **place))
                # A part that nothing told of would come after those that were shown.
                finished = event("content_part.done", index, part=part, **place)
                raws += words + (maybe(finished) if words else [finished])
        case "reasoning":
            for number, part in enumerate(item["summary"]):
                place = {**where, "summary_index": number}
                raws += deltas("reasoning_summary_text.delta", part["text"], **place)
                raws += maybe(event("reasoning_summary_text.done", index, text=part["text"], **place))
                raws += maybe(event("reasoning_summary_part.done", index, part=part, **place))
            for number, part in enumerate(item.get("content", ())):
                place = {**where, "content_index": number}
                raws += deltas("reasoning_text.delta", part["text"], **place)
                raws += maybe(event("reasoning_text.done", index, text=part["text"], **place))
        case "function_call":
            raws += maybe(*deltas("function_call_arguments.delta", item["arguments"], **where))
            raws += maybe(event("function_call_arguments.done", index, arguments=item["arguments"], **where))
        case "custom_tool_call":
            raws += maybe(*deltas("custom_tool_call_input.delta", item["input"], **where))
            raws += maybe(event("custom_tool_call_input.done", index, input=item["input"], **where))
    return raws


@same_examples
@given(responses(), st.randoms(use_true_random=False), st.sampled_from(["all", "rebuilt", "terminal"]))
def test_however_it_is_told_the_message_is_the_same(
    items: list[dict[str, Any]], chance: random.Random, finished_by: str
) -> None:
    watched = Watched()
    gap = chance.randrange(2)
    for place, item in enumerate(items):
        index = place * (1 + gap) + gap
        shown = watched.feed(*told(chance, item, index))
        if finished_by != "terminal" or not shown:  # what showed nothing has its place from where it is reported
            watched.feed(*[done(item, index)] * (1 + chance.randrange(2)))
    answer = watched.finish(chance.choice([None, []]) if finished_by == "rebuilt" else items)
    expected = from_terminal(items)
    if finished_by == "terminal":  # parts that nothing told of come last
        assert len(answer.content) == len(expected.content)
        assert all(block in answer.content for block in expected.content)
    else:
        assert answer == expected
    shown = [each for each in watched.events if isinstance(each, DELTA)]
    blocks = [(number, block) for number, block in enumerate(answer.content) if not isinstance(block, OutputItem)]
    deltas = "".join(each.delta for number, _ in blocks for each in shown if each.index == number)
    texts = "".join(written(block) for _, block in blocks)
    if any(len(item.get("content", ())) > 1 for item in items):
        return  # what is told of one part may have been shown as another's
    # Where nothing announces its sections, reasoning is shown without breaks.
    assert deltas.replace("\n\n", "") == texts.replace("\n\n", "")


any_index = st.integers(-1, 3)
any_text = st.text(max_size=4)
any_part = st.one_of(
    st.builds(output_text, any_text),
    st.builds(refusal, any_text),
    st.builds(lambda text: {"type": "reasoning_text", "text": text}, any_text),
    st.builds(lambda text: {"type": "summary_text", "text": text}, any_text),
    st.builds(lambda text: {"type": "text", "text": text}, any_text),
    st.just({"type": "hologram"}),
)
ids = st.sampled_from([None, "msg_1", "rs_1", "fc_1"])
any_item = st.one_of(
    st.none(),
    st.builds(lambda content, name: message(*content, id=name), st.lists(any_part, max_size=3), ids),
    st.builds(lambda summary, content: reasoning(*summary, content=content), st.lists(any_text), st.lists(any_part)),
    st.builds(call, any_text, st.sampled_from(["", "add"]), ids, st.sampled_from(["", "call_1", "call_2"])),
    st.builds(custom, any_text),
    st.just(SEARCH),
    st.just({"type": "hologram"}),
)
any_event = st.builds(
    lambda wire_type, index, place, text, part, item, name: {
        "type": wire_type,
        "output_index": index,
        "content_index": place,
        "summary_index": place,
        "command_index": place,
        "delta": text,
        "text": text,
        "refusal": text,
        "arguments": text,
        "input": text,
        "part": part,
        "item": item,
        "item_id": name,
        "annotation": CITATION,
        "response": {"id": "resp_1"},
        "response_id": "resp_1",
        "steer": {},
    },
    st.sampled_from(sorted(SERVER_EVENT_CLASSES)),
    any_index,
    any_index,
    any_text,
    any_part,
    any_item,
    ids,
)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.lists(any_event, max_size=25), st.lists(any_item.filter(bool), max_size=4))
def test_no_order_of_events_breaks_it(raws: list[dict[str, Any]], output: list[dict[str, Any]]) -> None:
    watched = Watched()
    for raw in raws:
        if not isinstance(decode_object(raw), TERMINALS):
            watched.feed(raw)
    watched.finish(output)


def test_events_that_are_nobody_s_business_are_ignored() -> None:
    assembly = Assembly()
    for raw in ({"type": "hologram"}, {"type": "response.output_text.delta"}, event("web_search_call.searching")):
        assert assembly.feed(decode(json.dumps(raw))) == []
    assert assembly.partial() is None


def test_a_lifecycle_event_is_no_output() -> None:
    created = decode_object({"type": "response.created", "response": {"id": "resp_1"}})
    assert isinstance(created, LifecycleEvent)
    assembly = Assembly()
    assert assembly.feed(created) == []
    assert assembly.partial() is None


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("depth", [3, 100_000])
def test_a_terminal_that_says_everything_again_adds_nothing(depth: int) -> None:
    def items() -> list[dict[str, Any]]:
        return [reasoning("a"), message("b", refusal("c")), call('{"d":1}'), {**SEARCH, "e": nested(depth)}]

    answers = []
    for output in ((), items()):
        watched = Watched()
        watched.feed(*(done(item, index) for index, item in enumerate(items())))
        answers.append(watched.finish(output))
        assert not watched.assembly.oddities
    assert [bare(block) for block in answers[0].content[:-1]] == [bare(block) for block in answers[1].content[:-1]]
    assert len(answers[0].content) == len(answers[1].content) == 5


def test_a_terminal_that_says_one_thing_more_is_looked_through() -> None:
    watched = Watched()
    watched.feed(done(reasoning("a")), done(message("b"), 1))
    cited = [{"type": "url_citation", "url": "u"}]
    answer = watched.finish([reasoning("a"), message(output_text("b", cited))])
    assert isinstance(answer.content[1], Text)
    assert answer.content[1].annotations == tuple(cited)
