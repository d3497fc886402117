"""Items of a response → the blocks of a message, with all that a replay needs of them.

Known items in odd shapes are repaired here: text in place of a list of parts, an object in place of its JSON text, a
call without a usable id.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve

from engine.values.blocks import AssistantBlock, OutputItem, Refusal, Text, Thinking, ToolCall
from engine.wire.items import CustomToolCallItem, FunctionCallItem, Item, MessageItem, ReasoningItem, structure_item
from engine.wire.parts import ContentPart, InputText, OutputText, PlainText, RefusalPart
from engine.wire.text import well_formed_value

__all__ = [
    "SECTION_BREAK",
    "Call",
    "annotations_of",
    "call_block",
    "call_id_of",
    "call_text",
    "content_key",
    "extra_of",
    "filled",
    "fuller",
    "fuller_block",
    "is_replayable",
    "logprobs_of",
    "reasoning_texts",
    "spoken_blocks",
    "thinking_block",
    "unwrapped_arguments",
    "well_formed_item",
]

Call: TypeAlias = FunctionCallItem | CustomToolCallItem
"""A call that the caller's own code answers."""

SECTION_BREAK: Final = "\n\n"
"""The text between the sections of reasoning."""

_CALL_MEMBERS: Final = frozenset({"type", "id", "status", "call_id", "name", "arguments", "input"})

# Types of parts that are words.
_WORDS: Final = frozenset({"output_text", "text", "input_text", "refusal", ""})

# Members that blocks have attributes for, or that say nothing once the response has ended.
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "message": frozenset({"type", "id", "status", "role", "phase", "content"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content", "encrypted_content"}),
    "function_call": _CALL_MEMBERS,
    "custom_tool_call": _CALL_MEMBERS,
}


def extra_of(item: Item | None) -> Mapping[str, Any]:
    """Return the members of an item that its blocks have no attributes for; nothing for an item that is kept whole."""
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


def spoken_blocks(item: MessageItem) -> list[Text | Refusal]:
    """The texts and refusals of a message, in order; parts of any other kind give none."""
    content, extra = item.content, extra_of(item)
    if isinstance(content, str):
        return [Text(content, item.phase, item.id, extra=extra)] if content else []
    blocks: list[Text | Refusal] = []
    for part in content:
        match part:
            case OutputText():
                weighed = logprobs_of(part)
                blocks.append(Text(part.text, item.phase, item.id, annotations_of(part), logprobs=weighed, extra=extra))
            case PlainText() | InputText():
                blocks.append(Text(part.text, item.phase, item.id, extra=extra))
            case RefusalPart():
                blocks.append(Refusal(part.refusal, item.id, item.phase, extra=extra))
    return blocks


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


def reasoning_texts(item: ReasoningItem) -> tuple[str, str]:
    """The summary and the reasoning text, the sections of each as one text."""
    return _section_text(item.raw.get("summary"), item.summary), _section_text(item.raw.get("content"), item.content)


def _section_text(given: Any, parts: Iterable[ContentPart]) -> str:
    if isinstance(given, str):
        return given
    texts = (part.raw.get("text") for part in parts)
    return SECTION_BREAK.join(text for text in texts if isinstance(text, str) and text)


# --- calls


def call_block(item: Call, call_id: str, text: str = "") -> ToolCall:
    """A call, with its arguments as the model wrote them."""
    kind: Literal["function", "custom"] = "function" if isinstance(item, FunctionCallItem) else "custom"
    identity = f"{call_id}|{item.id}" if item.id else call_id
    return ToolCall(identity, item.name, _arguments(kind, text), text, kind, extra=extra_of(item))


def call_text(item: Call) -> str:
    """The arguments or the input of a call; ``""`` where the item does not say."""
    return item.arguments if isinstance(item, FunctionCallItem) else item.input


def unwrapped_arguments(text: str) -> str:
    """Return the arguments that a server wrote as JSON text twice, and an empty object for null; else the text itself.

    Models write their arguments as a string, and the parsers of servers write that as one once more.
    """
    beginning = text.lstrip()[:1]
    if beginning == "n":
        return "{}" if text.strip() == "null" else text
    if beginning != '"':
        return text
    try:
        inner = json.loads(text)
    except ValueError:
        return text
    return inner if _arguments("function", inner) or inner.strip() == "{}" else text


def call_id_of(item: Call) -> str:
    """Return the id that pairs the call with its output: its call id, else its item's; ``""`` where neither will do.

    A stroke cannot stand in it: `ToolCall.id` has one between the two ids.
    """
    for each in (item.call_id, item.id or ""):
        if each.strip() and "|" not in each:
            return each
    return ""


def _arguments(kind: str, raw: str) -> Mapping[str, Any]:
    arguments: Any = None
    if kind == "function":
        try:
            arguments = json.loads(raw)
        except (ValueError, RecursionError):
            arguments = None  # the raw text tells the caller what the model wrote
    return well_formed_value(arguments) if isinstance(arguments, dict) else {}


# --- one item, told several times


def is_replayable(item: Item) -> bool:
    """Whether an item without a block of its own is worth keeping: not an empty message, nor a call without a name.

    A message whose parts are text or refusals without their words is empty, and the service takes none like that back.
    """
    if isinstance(item, MessageItem):
        content = item.content
        return bool(content) if isinstance(content, str) else any(part.type not in _WORDS for part in content)
    return item.type not in {"function_call", "custom_tool_call"}


def content_key(item: Item) -> Hashable:
    """Return an item's content, apart from its id, its status, and what servers add here and leave out there."""
    match item:
        case MessageItem():
            return ("message", item.agent_name, *_said(item))
        case FunctionCallItem() | CustomToolCallItem():
            return (item.type, item.call_id, item.name, _canonical_text(call_text(item)))
        case ReasoningItem():
            return ("reasoning", item.agent_name, *reasoning_texts(item), item.encrypted_content)
    rest = {name: value for name, value in item.raw.items() if name not in {"id", "status"}}
    return (item.type, _canonical(rest))


def _said(item: MessageItem) -> Iterator[tuple[type, str]]:
    """The words of a message, as its blocks would have them."""
    content = item.content
    if isinstance(content, str):
        if content:
            yield Text, content
        return
    for part in content:
        match part:
            case OutputText() | PlainText() | InputText():
                yield Text, part.text
            case RefusalPart():
                yield Refusal, part.refusal


def _canonical_text(text: str) -> str:
    try:
        return _canonical(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _canonical(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return ""


def fuller(early: Mapping[str, Any], late: dict[str, Any], *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Join two tellings of one item: the later word counts, where it says anything.

    Args:
        early: The item as it was told first.
        late: The item as it was told last.
        without: Members of ``early`` that count for nothing.
    """
    kept = {
        name: value
        for name, value in early.items()
        if name not in without and value not in _NOTHING and late.get(name) in _NOTHING
    }
    return {**late, **kept} if kept else late


def fuller_block(early: AssistantBlock, late: AssistantBlock) -> AssistantBlock:
    """The later of two words on one block, with what only the earlier one has beside the text."""
    match early, late:
        case Text(), Text() if early.phase or early.annotations or early.logprobs:
            return evolve(
                late,
                phase=late.phase or early.phase,
                annotations=late.annotations or early.annotations,
                logprobs=late.logprobs or early.logprobs,
            )
        case Refusal(), Refusal() if early.phase:
            return evolve(late, phase=late.phase or early.phase)
    return late


_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})


def well_formed_item(item: Item) -> Item:
    """The item with all its text well-formed."""
    raw = well_formed_value(item.raw)
    return item if raw is item.raw else structure_item(raw)
