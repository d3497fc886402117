"""Conversations as JSON text and back."""

from __future__ import annotations

import functools
import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_messages import mappings, messages, names, texts

from engine import (
    AssistantMessage,
    ConfigurationError,
    Context,
    DeveloperMessage,
    File,
    FunctionTool,
    Image,
    OutputItem,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from engine.transcript import from_json, to_json

same_examples = settings(derandomize=True, deadline=None, max_examples=150)

tools = st.builds(Tool, names, st.none() | texts, mappings, st.sampled_from([None, True, False])) | mappings
contexts = st.builds(
    Context,
    st.lists(messages, max_size=4),
    instructions=st.none() | texts,
    tools=st.lists(tools, max_size=2),
)

WHOLE = Context(
    [
        UserMessage([Text("Hi"), Image("https://x/y.png", detail="low"), File("file_1")]),
        DeveloperMessage("Be brief"),
        AssistantMessage(
            [
                Thinking("why", '{"type":"reasoning","id":"rs_1"}'),
                Text("Looking", "commentary", "msg_1", [{"type": "url_citation", "url": "u"}]),
                ToolCall("call_1|fc_1", "add", {"a": 1}, '{"a": 1}', extra={"namespace": "math"}),
                ToolCall("call_2", "sh", {}, "ls", "custom"),
                Refusal("No", "msg_2", "final_answer", extra={"agent": {"agent_name": "/root"}}),
                OutputItem({"type": "web_search_call", "id": "ws_1", "action": {"queries": ["x", None]}}),
            ],
            stop_reason="tool_use",
            usage=Usage(3, 2, 5, 0),
            model="m",
            response_id="resp_1",
        ),
        ToolResult("call_1", [Text("3"), Image(file_id="file_2")], is_error=True),
        ToolResult("call_2", "x", kind="custom"),
    ],
    instructions="Do",
    tools=[Tool("add", "adds", {"type": "object"}, True), {"type": "web_search"}],
)


@same_examples
@given(contexts)
def test_every_context_comes_back_equal(context: Context) -> None:
    text = to_json(context)
    assert text.isascii()
    assert from_json(text) == context
    assert to_json(from_json(text)) == text
    assert from_json(to_json(iter(context.messages))) == Context(context.messages)


def test_a_whole_conversation() -> None:
    again = from_json(to_json(WHOLE))
    assert again == WHOLE
    assert isinstance(again.messages[2], AssistantMessage)
    assert [call.id for call in again.messages[2].tool_calls] == ["call_1|fc_1", "call_2"]


def test_what_it_looks_like() -> None:
    context = Context([UserMessage("Hi"), AssistantMessage("Yes", model="m")], tools=[{"type": "web_search"}])
    assert json.loads(to_json(context)) == {
        "kind": "context",
        "version": 1,
        "instructions": None,
        "tools": [{"kind": "wire", "tool": {"type": "web_search"}}],
        "messages": [
            {"kind": "user", "content": [{"kind": "text", "text": "Hi"}]},
            {"kind": "assistant", "content": [{"kind": "text", "text": "Yes"}], "model": "m"},
        ],
    }


def test_every_kind_of_value_was_tried() -> None:
    written = to_json(WHOLE)
    for kind in (
        "user", "developer", "assistant", "tool_result", "text", "thinking", "tool_call", "refusal", "item", "image",
        "file", "function", "wire",
    ):  # fmt: skip
        assert f'"kind":"{kind}"' in written


def test_functions_and_parsed_answers_are_left_behind() -> None:
    def add(a: int) -> int:
        return a

    tool = FunctionTool(add)
    context = Context([AssistantMessage("1", parsed=object())], tools=[tool])
    again = from_json(to_json(context))
    assert again.tools == (tool.tool,)
    assert again.messages == context.messages
    assert again.messages[0].parsed is None  # type: ignore[union-attr]


def changed(change: Any) -> str:
    whole = json.loads(to_json(WHOLE))
    change(whole)
    return json.dumps(whole)


def change_at(path: tuple[Any, ...], value: Any, whole: Any) -> None:
    for step in path[:-1]:
        whole = whole[step]
    if value is ...:
        del whole[path[-1]]
    else:
        whole[path[-1]] = value


def at(*path: Any, value: Any) -> Any:
    return functools.partial(change_at, path, value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (at("kind", value="letter"), "transcript"),
        (at("version", value=2), "transcript.version"),
        (at("version", value=...), "transcript.version"),
        (at("later", value=1), "transcript.later"),
        (at("instructions", value=3), "transcript.instructions"),
        (at("messages", value={}), "transcript.messages"),
        (at("messages", 0, value="Hi"), "transcript.messages[0]"),
        (at("messages", 0, "kind", value="system"), "transcript.messages[0].kind"),
        (at("messages", 0, "kind", value=["user"]), "transcript.messages[0].kind"),
        (at("messages", 0, "kind", value="text"), "transcript.messages[0].kind"),
        (at("messages", 0, "content", value="Hi"), "transcript.messages[0].content"),
        (at("messages", 0, "content", 0, "kind", value="thinking"), "transcript.messages[0].content[0].kind"),
        (at("messages", 0, "content", 0, "text", value=None), "transcript.messages[0].content[0].text"),
        (at("messages", 0, "content", 0, "colour", value=1), "transcript.messages[0].content[0].colour"),
        (at("messages", 0, "content", 2, "file_id", value=...), "transcript.messages[0].content[2]"),
        (at("messages", 2, "usage", "input_tokens", value="3"), "transcript.messages[2].usage.input_tokens"),
        (at("messages", 2, "stop_reason", value="x"), "transcript.messages[2].stop_reason"),
        (at("messages", 2, "content", 3, "tool_kind", value="x"), "transcript.messages[2].content[3].kind"),
        (at("messages", 2, "content", 5, "item", value=[]), "transcript.messages[2].content[5].item"),
        (at("tools", 0, "kind", value="hosted"), "transcript.tools[0].kind"),
        (at("tools", 0, "name", value=""), "transcript.tools[0]"),
        (at("tools", 1, "tool", value=3), "transcript.tools[1]"),
    ],
)
def test_what_is_not_known_is_refused_by_its_path(change: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_json(changed(change))
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "s3cret", "[]", "null", '"s3cret"', '{"kind": NaN}', "[" * 100_000])
def test_what_is_no_transcript(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_json(text)
    assert caught.value.field == "transcript"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [object(), float("nan"), {1, 2}.__iter__(), b"x".__iter__()], ids=lambda value: type(value).__name__
)
def test_what_json_cannot_say(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        to_json([AssistantMessage([ToolCall("c", "f", {"a": value})])])
    assert caught.value.__context__ is None


def test_every_attribute_of_every_value_is_written() -> None:
    """A field that is added later is written too, unless it is named here."""
    left_behind = {("AssistantMessage", "parsed")}
    for message in WHOLE.messages:
        for value in (message, *(getattr(message, "content", ()))):
            for attribute in attrs.fields(type(value)):
                if (type(value).__name__, attribute.name) in left_behind:
                    continue
                assert attribute.eq, (value, attribute.name)  # the comparisons above would miss it
