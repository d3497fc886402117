"""Whatever a server does to the events of a response, the message is the one that the service would have given."""

from __future__ import annotations

import random
from typing import Any

import pytest
from distortions import INDEXES, NAMES, ORDERS, essence, well_formed
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol.assembly import Assembly
from engine.values.blocks import OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage
from engine.values.turn_events import TextDelta, ThinkingDelta, ToolCallDelta
from engine.wire.codec import decode_object
from engine.wire.events import TerminalEvent

CITED = {"type": "url_citation", "url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}


def spoken(number: int, *texts: str, **members: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": [CITED] if number == 1 else []} for text in texts]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": parts,
        **members,
    }


def thought(number: int, *texts: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"id": f"rs_{number}", "type": "reasoning", "summary": summary, "encrypted_content": f"sealed {number}"}


def reasoned(number: int, text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": f"rs_{number}", "type": "reasoning", "summary": [], "content": content}


def called(number: int, arguments: str) -> dict[str, Any]:
    call = {"type": "function_call", "call_id": f"call_{number}", "name": "add", "arguments": arguments}
    return {"id": f"fc_{number}", "status": "completed", **call}


def custom(number: int, text: str) -> dict[str, Any]:
    call = {"type": "custom_tool_call", "call_id": f"call_{number}", "name": "shell", "input": text}
    return {"id": f"ctc_{number}", "status": "completed", **call}


def searched(number: int) -> dict[str, Any]:
    action = {"type": "search", "query": f"what is {number}"}
    return {"id": f"ws_{number}", "type": "web_search_call", "status": "completed", "action": action}


RESPONSES: dict[str, list[dict[str, Any]]] = {
    "one text": [spoken(0, "It is a bit longer.")],
    "reasoning, text, call": [thought(0, "think hard"), spoken(1, "hello there"), called(2, '{"a":1}')],
    "reasoning in its own words": [reasoned(0, "It is a bit longer."), spoken(1, "Done and dusted.")],
    "two sections": [thought(0, "First of all", "Secondly"), spoken(1, "Ready.")],
    "two texts": [spoken(0, "On my way.", phase="commentary"), spoken(1, "Here it is.", phase="final_answer")],
    "two calls of one name": [called(0, '{"a":1}'), called(1, '{"a":2}')],
    "two calls of one name and arguments": [called(0, '{"a":1}'), called(1, '{"a":1}')],
    "everything": [
        thought(0, "why not"), searched(1), spoken(2, "as it is"), called(3, "{}"), custom(4, "ls -l"), searched(5),
        spoken(6, "and so on"),
    ],
    "a refusal": [{**spoken(0), "content": [{"type": "refusal", "refusal": "I cannot do that."}]}],
}  # fmt: skip


def read(stream: list[dict[str, Any]]) -> tuple[AssistantMessage, list[Any]]:
    assembly, shown = Assembly(), []
    for raw in stream:
        event = decode_object(raw)
        if isinstance(event, TerminalEvent):
            shown += assembly.finish(event.response)
        else:
            shown += assembly.feed(event)
    return assembly.message(), shown


def text_of(block: Any) -> str:
    match block:
        case Text() | Thinking():
            return block.text
        case Refusal():
            return block.refusal
        case ToolCall():
            return block.raw_arguments
    raise AssertionError


def check(items: list[dict[str, Any]], names: str, indexes: str, order: str, seed: int) -> None:
    chance = random.Random(seed)
    habits = [NAMES[names], INDEXES[indexes], ORDERS[order]]
    stream = well_formed(items)
    expected, _ = read(stream)
    for habit in habits:
        stream = habit.apply(stream, chance)
    message, shown = read(stream)
    assert essence(message) == essence(expected)
    if all(habit.ids for habit in habits) and sum(not habit.done for habit in habits) < 2:
        assert message == expected
    if all(habit.live for habit in habits):
        deltas = [each for each in shown if isinstance(each, TextDelta | ThinkingDelta | ToolCallDelta)]
        for number, block in enumerate(message.content):
            if not isinstance(block, OutputItem):
                assert "".join(each.delta for each in deltas if each.index == number) == text_of(block)


def readable(names: str, indexes: str, order: str) -> bool:
    """Whether a reader could tell the items apart: by ids, by positions, or by announcements and ends in order."""
    plain = order in {
        "all events, in order", "an empty terminal", "parts not finished",
        "everything but deltas twice", "citations late",
    }  # fmt: skip
    if order in {"announcements of parts late", "deltas late"} and indexes == "positions in items grow with events":
        return False  # a part that begins, at another position, after text
    if order == "parts not finished" and indexes in {
        "no position in items", "no position at all", "every position in items 0", "every position in items 1",
        "positions as text",
    }:  # fmt: skip
        return False  # a part that is announced a second time
    return plain or not (NAMES[names].announced and INDEXES[indexes].announced)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("names", NAMES)
def test_one_habit_of_each_kind(names: str, order: str) -> None:
    for items in RESPONSES.values():
        hosted = any(item["type"] == "web_search_call" for item in items)
        if hosted and order == "items finished only in the terminal":
            continue  # what shows nothing has its place from where it is finished
        for indexes in INDEXES:
            if readable(names, indexes, order):
                check(items, names, indexes, order, seed=7)


phrases = st.text(st.characters(codec="utf-8"), min_size=3, max_size=12)
makers = st.sampled_from([spoken, thought, reasoned, called, custom, searched])


@st.composite
def responses(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Items of a response, of which no two say the same."""
    made = draw(st.lists(st.tuples(makers, phrases), max_size=5))
    return [
        make(number) if make is searched else make(number, f"{number} {text}")  # type: ignore[operator]
        for number, (make, text) in enumerate(made)
    ]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    responses(), st.sampled_from(sorted(NAMES)), st.sampled_from(sorted(INDEXES)), st.sampled_from(sorted(ORDERS)),
    st.integers(0, 2**32),
)  # fmt: skip
def test_any_response(items: list[dict[str, Any]], names: str, indexes: str, order: str, seed: int) -> None:
    hosted = any(item["type"] == "web_search_call" for item in items)
    if readable(names, indexes, order) and not (hosted and order == "items finished only in the terminal"):
        check(items, names, indexes, order, seed)
