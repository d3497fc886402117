"""Items, parts and annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.wire import parts
from engine.wire.codec import encode
from engine.wire.items import (
    ITEM_CLASSES,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OpaqueItem,
    ReasoningItem,
    UnknownItem,
    structure_item,
    structure_items,
)

SECRET = "s3cret"

EVERYTHING: dict[str, Any] = {
    "id": "id_1",
    "status": "completed",
    "call_id": "call_1",
    "name": "name",
    "role": "assistant",
    "content": [{"type": "output_text", "text": SECRET}],
    "summary": [{"type": "summary_text", "text": SECRET}],
    "arguments": SECRET,
    "input": SECRET,
    "output": SECRET,
    "action": {"secret": SECRET},
    "operation": {"secret": SECRET},
    "encrypted_content": SECRET,
    "approval_request_id": "mcpr_1",
    "agent": {"agent_name": "/root"},
    "unheard_of": {"kept": [1, None, 1.5]},
}


@pytest.mark.parametrize("wire_type", ITEM_CLASSES)
def test_every_item_type(wire_type: str) -> None:
    raw = {"type": wire_type, **EVERYTHING}
    item = structure_item(raw)
    assert type(item) is ITEM_CLASSES[wire_type]
    assert (item.type, item.id, item.status, item.agent_name) == (wire_type, "id_1", "completed", "/root")
    assert repr(item) == f"<{type(item).__name__} {wire_type!r}>"
    assert json.loads(encode(item)) == raw
    assert item == structure_item(dict(raw))


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "novelty"},
        {"type": ["message"]},
        {"type": 3, "role": "user"},
        {},
        {"id": "x", "call_id": "c"},
    ],
)
def test_what_is_not_known_is_kept(raw: dict[str, Any]) -> None:
    item = structure_item(raw)
    assert type(item) is UnknownItem
    assert json.loads(encode(item)) == raw


@pytest.mark.parametrize(
    ("raw", "call_id", "name"),
    [
        ({"type": "function_call", "call_id": "c"}, "c", ""),
        ({"type": "function_call", "call_id": None, "name": "n"}, "", "n"),
        ({"type": "custom_tool_call", "call_id": 3, "name": "n"}, "", "n"),
    ],
)
def test_a_call_may_lack_its_names(raw: dict[str, Any], call_id: str, name: str) -> None:
    item = structure_item(raw)
    assert isinstance(item, FunctionCallItem | CustomToolCallItem)
    assert (item.call_id, item.name) == (call_id, name)


@pytest.mark.parametrize("role", [None, 3, {}])
def test_a_message_may_lack_its_role(role: Any) -> None:
    item = structure_item({"type": "message", "role": role, "content": "hi"})
    assert isinstance(item, MessageItem)
    assert (item.role, item.text) == ("", "hi")


def test_types_may_be_left_out_of_messages_and_references() -> None:
    message = structure_item({"role": "user", "content": "hi"})
    assert isinstance(message, MessageItem)
    assert message.content == message.text == "hi"
    assert isinstance(structure_item({"id": "msg_1"}), OpaqueItem)
    assert isinstance(structure_item({"id": "msg_1", "type": None}), OpaqueItem)


def test_a_message_of_parts() -> None:
    message = structure_item(
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [
                {"type": "output_text", "text": "a"},
                {"type": "refusal", "refusal": "no"},
                {"type": "input_text", "text": "b"},
                {"type": "novelty", "text": "?"},
                "odd",
                {"text": "bare"},
                7,
            ],
        }
    )
    assert isinstance(message, MessageItem)
    assert message.phase == "commentary"
    assert message.text == "aboddbare"
    assert [type(part) for part in message.content] == [
        parts.OutputText,
        parts.RefusalPart,
        parts.InputText,
        parts.UnknownPart,
        parts.PlainText,
        parts.PlainText,
    ]


@pytest.mark.parametrize("content", [None, 3, [], [3]])
def test_content_that_is_no_content(content: Any) -> None:
    message = structure_item({"type": "message", "role": "assistant", "content": content})
    assert isinstance(message, MessageItem)
    assert message.content == ()
    assert message.text == ""


def test_reasoning() -> None:
    item = structure_item(
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "t"}],
            "encrypted_content": "e",
        }
    )
    assert isinstance(item, ReasoningItem)
    (summary,), (content,) = item.summary, item.content
    assert isinstance(summary, parts.SummaryText)
    assert isinstance(content, parts.ReasoningText)
    assert (summary.text, content.text, item.encrypted_content) == ("s", "t", "e")


def test_calls() -> None:
    call = structure_item(
        {"type": "function_call", "call_id": "c", "name": "n", "async": True, "caller": {"type": "direct"}}
    )
    assert isinstance(call, FunctionCallItem)
    assert (call.call_id, call.name, call.arguments, call.asynchronous) == ("c", "n", "", True)
    assert call.caller == {"type": "direct"}
    assert call.namespace is None
    custom = structure_item({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "text", "caller": 3})
    assert isinstance(custom, CustomToolCallItem)
    assert custom.input == "text"
    assert custom.caller is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"type": "output_text", "text": "t", "annotations": [], "logprobs": []}, parts.OutputText),
        ({"type": "refusal", "refusal": "r"}, parts.RefusalPart),
        ({"type": "reasoning_text", "text": "t"}, parts.ReasoningText),
        ({"type": "summary_text", "text": "t"}, parts.SummaryText),
        ({"type": "input_text", "text": "t"}, parts.InputText),
        ({"type": "input_image", "image_url": "data:,x", "detail": "low"}, parts.OpaquePart),
        ({"type": "input_file", "file_id": "f", "filename": "a.txt"}, parts.OpaquePart),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "mp3"}}, parts.OpaquePart),
        ({"type": "text", "text": "t"}, parts.PlainText),
        ({"type": "computer_screenshot", "file_id": "f"}, parts.OpaquePart),
        ({"type": "encrypted_content", "encrypted_content": "e"}, parts.OpaquePart),
        ({"type": "novelty"}, parts.UnknownPart),
        ({"type": "output_text", "text": None}, parts.UnknownPart),
        ({}, parts.UnknownPart),
    ],
)
def test_every_part(raw: dict[str, Any], expected: type[parts.ContentPart]) -> None:
    part = parts.structure_part(raw)
    assert type(part) is expected
    assert json.loads(encode(part)) == raw
    for name in raw.keys() - {"annotations"} if expected not in {parts.UnknownPart, parts.OpaquePart} else ():
        assert getattr(part, name) == raw[name]


@pytest.mark.parametrize("raw", [{"type": "url_citation", "url": "u", "start_index": 1}, {"type": "novelty"}, {}])
def test_annotations_are_kept_whole(raw: dict[str, Any]) -> None:
    text = parts.structure_part({"type": "output_text", "text": "t", "annotations": [raw, "odd"]})
    assert isinstance(text, parts.OutputText)
    (annotation,) = text.annotations
    assert annotation.raw is raw


@pytest.mark.parametrize("value", [None, "text", {}, 3])
def test_only_lists_hold_items(value: Any) -> None:
    assert structure_items(value) == ()
