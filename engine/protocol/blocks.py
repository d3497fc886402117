"""Items of a response → the blocks of a message, with all that a replay needs of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve

from engine.values.messages import AssistantBlock, OutputItem, Refusal, Text, Thinking, ToolCall
from engine.wire.items import CustomToolCallItem, FunctionCallItem, Item, MessageItem, ReasoningItem
from engine.wire.parts import ContentPart, OutputText, PlainText, RefusalPart

__all__ = [
    "SECTION_BREAK",
    "annotations_of",
    "call_block",
    "extra_of",
    "filled",
    "is_nameable",
    "is_replayable",
    "logprobs_of",
    "refusal_block",
    "section_text",
    "text_block",
    "thinking_block",
]

_Call: TypeAlias = FunctionCallItem | CustomToolCallItem

SECTION_BREAK: Final = "\n\n"
"""What stands between the sections of reasoning."""

_CALL_MEMBERS: Final = frozenset({"type", "id", "status", "call_id", "name", "arguments", "input"})

# Members that blocks have attributes for, or that say nothing once the response has ended.
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "message": frozenset({"type", "id", "status", "role", "phase", "content"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content", "encrypted_content"}),
    "function_call": _CALL_MEMBERS,
    "custom_tool_call": _CALL_MEMBERS,
}


def extra_of(item: Item | None) -> Mapping[str, Any]:
    """What an item says that its blocks have no attributes for; nothing for an item that is kept whole."""
    members = _MEMBERS.get(item.type) if item is not None else None
    if item is None or members is None:
        return {}
    return {name: value for name, value in item.raw.items() if value is not None and name not in members}


def filled(block: AssistantBlock, text: str) -> AssistantBlock:
    """The block with another text, or a call with other arguments."""
    match block:
        case Text() | Thinking():
            return evolve(block, text=text)
        case Refusal():
            return evolve(block, refusal=text)
        case ToolCall():
            return evolve(block, arguments=_arguments(block.kind, text), raw_arguments=text)
        case OutputItem():
            return block


# --- messages


def text_block(item: MessageItem, part: OutputText | PlainText | str) -> Text:
    """A text of a message; one whose content is a string has that alone."""
    extra = extra_of(item)
    match part:
        case str():
            return Text(part, item.phase, item.id, extra=extra)
        case PlainText():
            return Text(part.text, item.phase, item.id, extra=extra)
        case OutputText():
            weighed = logprobs_of(part)
            return Text(part.text, item.phase, item.id, annotations_of(part), logprobs=weighed, extra=extra)


def refusal_block(item: MessageItem, part: RefusalPart) -> Refusal:
    """A refusal in a message."""
    return Refusal(part.refusal, item.id, item.phase, extra=extra_of(item))


def annotations_of(part: OutputText) -> tuple[Mapping[str, Any], ...]:
    """The citations as the server sent them."""
    return tuple(annotation.raw for annotation in part.annotations)


def logprobs_of(part: OutputText) -> tuple[Mapping[str, Any], ...]:
    """The log probabilities, where they were asked for."""
    return tuple(each for each in part.logprobs or () if isinstance(each, dict))


# --- reasoning


def thinking_block(item: ReasoningItem, text: str) -> Thinking:
    """Reasoning, signed with what a replay needs of it."""
    kept: dict[str, Any] = {"type": item.type}
    if item.id is not None and item.id.startswith("rs_"):
        kept["id"] = item.id
    for name in ("summary", "content", "encrypted_content"):
        value = item.raw.get(name)
        if value:
            kept[name] = value
    return Thinking(text, json.dumps(kept, ensure_ascii=False, separators=(",", ":")), extra=extra_of(item))


def section_text(parts: Iterable[ContentPart]) -> str:
    """The sections of a summary or of reasoning text, as one text."""
    texts = (part.raw.get("text") for part in parts)
    return SECTION_BREAK.join(text for text in texts if isinstance(text, str) and text)


# --- calls


def call_block(item: _Call, raw: str = "") -> ToolCall:
    """A call, with its arguments as the model wrote them."""
    kind: Literal["function", "custom"] = "function" if isinstance(item, FunctionCallItem) else "custom"
    identity = f"{item.call_id}|{item.id}" if item.id else item.call_id
    return ToolCall(identity, item.name, _arguments(kind, raw), raw, kind, extra=extra_of(item))


def _arguments(kind: str, raw: str) -> Mapping[str, Any]:
    arguments: Any = None
    if kind == "function":
        try:
            arguments = json.loads(raw)
        except (ValueError, RecursionError):
            arguments = None  # the raw text tells the caller what the model wrote
    return arguments if isinstance(arguments, dict) else {}


def is_nameable(item: _Call) -> bool:
    """Whether a call says what is called, and how its result will find it."""
    return bool(item.name and item.call_id.partition("|")[0].strip())


def is_replayable(item: Item) -> bool:
    """Whether an item without a block of its own is worth keeping: not an empty message, nor a call without a name."""
    if isinstance(item, MessageItem):
        return bool(item.content)
    return item.type not in {"function_call", "custom_tool_call"}
