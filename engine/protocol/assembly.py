"""Wire events of one response → the caller's turn events and the final `AssistantMessage`.

What is authoritative (Responses API): the item of ``output_item.done`` over the deltas before it, and the terminal
event's ``output`` for items that were never reported done. Deltas are still shown as they come. Servers leave out
set-up events and some leave ``output`` empty, so a block begins at whatever first speaks of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import define, field

from engine.messages import (
    AssistantBlock,
    AssistantMessage,
    OutputItem,
    Refusal,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from engine.protocol import events as wire
from engine.protocol.items import CustomToolCallItem, FunctionCallItem, Item, MessageItem, ReasoningItem
from engine.protocol.parts import ContentPart, OutputText, RefusalPart
from engine.protocol.response import ResponseObject
from engine.turn_events import (
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    TurnEvent,
)

__all__ = ["Assembly", "usage_from"]

_SECTION_BREAK: Final = "\n\n"

Kind: TypeAlias = Literal["text", "refusal", "thinking", "call"]
_Key: TypeAlias = tuple[int, Kind, int]


@define(eq=False)
class _Growing:
    """A block that is still being written."""

    index: int
    kind: Kind
    block: AssistantBlock
    pieces: list[str] = field(factory=list)
    ended: bool = False
    section: int | None = None

    @property
    def written(self) -> str:
        return "".join(self.pieces)

    def snapshot(self) -> AssistantBlock:
        """The block with what has been written so far."""
        if self.ended:
            return self.block
        return _filled(self.block, self.written)


def _filled(block: AssistantBlock, text: str) -> AssistantBlock:
    match block:
        case Text():
            return Text(text, block.phase, block.item_id, block.annotations)
        case Refusal():
            return Refusal(text, block.item_id)
        case Thinking():
            return Thinking(text, block.signature)
        case ToolCall():
            return _tool_call(block.id, block.name, text, block.kind)
        case OutputItem():
            return block


def _tool_call(call: str, name: str, raw: str, kind: Literal["function", "custom"]) -> ToolCall:
    arguments: Any = None
    if kind == "function":
        try:
            arguments = json.loads(raw)
        except (ValueError, RecursionError):
            arguments = None  # the raw text tells the caller what the model wrote
    return ToolCall(call, name, arguments if isinstance(arguments, dict) else {}, raw, kind)


class Assembly:
    """Builds one response. Feed it every event of the response in order, then ask for the message."""

    def __init__(self) -> None:
        self._blocks: list[_Growing] = []
        self._by_key: dict[_Key, _Growing] = {}
        self._items: dict[int, Item] = {}
        self._done: dict[int, str | None] = {}
        self._events: list[TurnEvent] = []
        self._response: ResponseObject | None = None

    # --- what is known so far ---

    @property
    def item_ids(self) -> frozenset[str]:
        """The ids of the items seen."""
        return frozenset(item.id for item in self._items.values() if item.id is not None)

    def partial(self) -> AssistantMessage | None:
        """What has arrived of the answer, None when nothing has."""
        if not self._blocks:
            return None
        return self._message(None)

    def message(self) -> AssistantMessage:
        """The whole answer. Only after `finish`."""
        return self._message(self.stop_reason())

    def stop_reason(self) -> StopReason:
        """Why the response ended, in the caller's terms."""
        response = self._response
        if response is not None and response.status == "incomplete" and response.incomplete_reason not in _HANDED_ON:
            return "length"
        if any(isinstance(growing.block, ToolCall) for growing in self._blocks):
            return "tool_use"
        return "stop"

    def _message(self, reason: StopReason | None) -> AssistantMessage:
        response = self._response
        return AssistantMessage(
            tuple(growing.snapshot() for growing in self._blocks),
            stop_reason=reason,
            usage=usage_from(response.usage) if response is not None else None,
            model=response.model if response is not None else None,
            response_id=response.id if response is not None else None,
        )

    # --- events ---

    def feed(self, event: wire.ServerEvent) -> list[TurnEvent]:
        """Take one event that is not a terminal and return what the caller should see of it, often nothing."""
        handler = _HANDLERS.get(event.__class__)
        if handler is None:
            return []
        self._events = []
        handler(self, event)
        return self._events

    def finish(self, response: ResponseObject | None) -> list[TurnEvent]:
        """Take the terminal event's response and return the events that were still owed."""
        self._events = []
        if response is not None:
            self._response = response
            for position, item in enumerate(response.output or ()):
                self._settle(position, item)
        for growing in self._blocks:
            self._end(growing)
        return self._events

    def _settle(self, position: int, item: Item) -> None:
        """Finish an item that the terminal event lists, unless it is finished already."""
        if item.id is not None:
            if item.id in self._done.values():
                return
            position = next((index for index, known in self._items.items() if known.id == item.id), position)
        if position in self._done:
            if item.id is None:
                return  # without an id, its place says that it is the same
            position = max((*self._items, *self._done)) + 1
        self._finish_item(position, item)

    def _opened(self, event: wire.LifecycleEvent) -> None:
        self._response = event.response

    def _item_added(self, event: wire.OutputItemAdded) -> None:
        item = event.item
        if item is None:
            return
        self._items[event.output_index] = item
        if isinstance(item, FunctionCallItem | CustomToolCallItem):
            self._call(event.output_index)

    def _item_done(self, event: wire.OutputItemDone) -> None:
        if event.item is not None and event.output_index not in self._done:
            self._finish_item(event.output_index, event.item)

    def _part_added(self, event: wire.ContentPartAdded) -> None:
        if isinstance(event.part, RefusalPart):
            self._spoken(event.output_index, "refusal", event.content_index)
        elif isinstance(event.part, OutputText):
            self._spoken(event.output_index, "text", event.content_index)

    def _part_done(self, event: wire.ContentPartDone) -> None:
        self._finish_part(event.output_index, event.content_index, event.part)

    def _text_delta(self, event: wire.OutputTextDelta) -> None:
        growing = self._by_key.get((event.output_index, "text", event.content_index))
        if growing is None:
            growing = self._spoken(event.output_index, "text", event.content_index)
        growing.pieces.append(event.delta)
        self._events.append(TextDelta(growing.index, event.delta))

    def _refusal_delta(self, event: wire.RefusalDelta) -> None:
        growing = self._spoken(event.output_index, "refusal", event.content_index)
        growing.pieces.append(event.delta)
        self._events.append(TextDelta(growing.index, event.delta))

    def _summary_delta(self, event: wire.ReasoningSummaryTextDelta) -> None:
        growing = self._thinking(event.output_index)
        if growing.section is not None and event.summary_index != growing.section:
            self._think(growing, _SECTION_BREAK)
        growing.section = event.summary_index
        self._think(growing, event.delta)

    def _reasoning_delta(self, event: wire.ReasoningTextDelta) -> None:
        growing = self._thinking(event.output_index)
        if growing.section is None:  # where a summary is sent too, the summary is what is shown
            self._think(growing, event.delta)

    def _think(self, growing: _Growing, text: str) -> None:
        growing.pieces.append(text)
        self._events.append(ThinkingDelta(growing.index, text))

    def _call_delta(self, event: wire.FunctionCallArgumentsDelta | wire.CustomToolCallInputDelta) -> None:
        growing = self._call(event.output_index)
        if growing is not None:
            growing.pieces.append(event.delta)
            self._events.append(ToolCallDelta(growing.index, event.delta))

    # --- blocks ---

    def _begin(self, key: _Key, block: AssistantBlock) -> _Growing:
        growing = _Growing(len(self._blocks), key[1], block)
        self._blocks.append(growing)
        self._by_key[key] = growing
        match block:
            case Text() | Refusal():
                self._events.append(TextStarted(growing.index, block))
            case Thinking():
                self._events.append(ThinkingStarted(growing.index, block))
            case ToolCall():
                self._events.append(ToolCallStarted(growing.index, block))
        return growing

    def _spoken(self, output_index: int, kind: Literal["text", "refusal"], part: int) -> _Growing:
        key: _Key = (output_index, kind, part)
        growing = self._by_key.get(key)
        if growing is None:
            item = self._items.get(output_index)
            item_id = item.id if item is not None else None
            phase = item.phase if isinstance(item, MessageItem) else None
            growing = self._begin(key, Text("", phase, item_id) if kind == "text" else Refusal("", item_id))
        return growing

    def _thinking(self, output_index: int) -> _Growing:
        key: _Key = (output_index, "thinking", 0)
        return self._by_key.get(key) or self._begin(key, Thinking(""))

    def _call(self, output_index: int) -> _Growing | None:
        key: _Key = (output_index, "call", 0)
        growing = self._by_key.get(key)
        if growing is not None:
            return growing
        item = self._items.get(output_index)
        if not isinstance(item, FunctionCallItem | CustomToolCallItem) or not item.name or not item.call_id:
            return None  # arguments of a call that is not introduced yet: the finished item has them all
        kind: Literal["function", "custom"] = "function" if isinstance(item, FunctionCallItem) else "custom"
        return self._begin(key, ToolCall(_call_identity(item), item.name, kind=kind))

    def _complete(self, growing: _Growing, block: AssistantBlock, text: str) -> None:
        """Give a block its authoritative content, show what its deltas left out, and end it."""
        if growing.ended:
            growing.block = block
            return
        missing = text.removeprefix(growing.written) if text.startswith(growing.written) else ""
        if missing:
            growing.pieces.append(missing)
            self._events.append(_DELTAS[growing.kind](growing.index, missing))
        growing.block = block
        self._end(growing, final=True)

    def _end(self, growing: _Growing, *, final: bool = False) -> None:
        if growing.ended:
            return
        if not final:
            growing.block = growing.snapshot()
        growing.ended = True
        match growing.block:
            case Text() | Refusal() as block:
                self._events.append(TextEnded(growing.index, block))
            case Thinking() as block:
                self._events.append(ThinkingEnded(growing.index, block))
            case ToolCall() as block:
                self._events.append(ToolCallEnded(growing.index, block))

    # --- finished items ---

    def _finish_item(self, output_index: int, item: Item) -> None:
        self._items[output_index] = item
        self._done[output_index] = item.id
        match item:
            case MessageItem():
                content = item.content
                for number, part in enumerate(() if isinstance(content, str) else content):
                    self._finish_part(output_index, number, part)
            case ReasoningItem():
                self._finish_reasoning(output_index, item)
            case FunctionCallItem() | CustomToolCallItem() if item.name and item.call_id:
                growing = self._call(output_index)
                assert growing is not None
                raw = item.arguments if isinstance(item, FunctionCallItem) else item.input
                raw = raw or growing.written
                kind: Literal["function", "custom"] = "function" if isinstance(item, FunctionCallItem) else "custom"
                self._complete(growing, _tool_call(_call_identity(item), item.name, raw, kind), raw)
            case _:
                self._keep(output_index, item)

    def _finish_part(self, output_index: int, number: int, part: ContentPart) -> None:
        item = self._items.get(output_index)
        item_id = item.id if item is not None else None
        match part:
            case OutputText():
                phase = item.phase if isinstance(item, MessageItem) else None
                annotations = tuple(annotation.raw for annotation in part.annotations)
                growing = self._spoken(output_index, "text", number)
                self._complete(growing, Text(part.text, phase, item_id, annotations), part.text)
            case RefusalPart():
                growing = self._spoken(output_index, "refusal", number)
                self._complete(growing, Refusal(part.refusal, item_id), part.refusal)

    def _finish_reasoning(self, output_index: int, item: ReasoningItem) -> None:
        text = _SECTION_BREAK.join(_texts(item.summary)) or _SECTION_BREAK.join(_texts(item.content))
        begun = self._by_key.get((output_index, "thinking", 0))
        if not text and begun is None:
            self._keep(output_index, item)  # nothing to show, and a replay may still need it
            return
        growing = begun or self._thinking(output_index)
        self._complete(growing, Thinking(text or growing.written, _signature(item)), text)

    def _keep(self, output_index: int, item: Item) -> None:
        self._blocks.append(_Growing(len(self._blocks), "text", OutputItem(item.raw), ended=True))


def _call_identity(item: FunctionCallItem | CustomToolCallItem) -> str:
    return f"{item.call_id}|{item.id}" if item.id else item.call_id


def _texts(parts: Iterable[ContentPart]) -> list[str]:
    texts = (part.raw.get("text") for part in parts)
    return [text for text in texts if isinstance(text, str) and text]


def _signature(item: ReasoningItem) -> str:
    """What a replay needs of a reasoning item, as JSON text."""
    kept: dict[str, Any] = {"type": item.type}
    if item.id is not None and item.id.startswith("rs_"):
        kept["id"] = item.id
    for name in ("summary", "content", "encrypted_content"):
        value = item.raw.get(name)
        if value:
            kept[name] = value
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def usage_from(usage: Mapping[str, Any] | None) -> Usage | None:
    """Read token counts in the Responses API's names or in those of older servers; None when there are none."""
    if not usage:
        return None
    received = _tokens(usage, "input_tokens", "prompt_tokens")
    produced = _tokens(usage, "output_tokens", "completion_tokens")
    total = _tokens(usage, "total_tokens")
    if not total and received is not None and produced is not None:
        total = received + produced
    read = _mapping(usage, "input_tokens_details", "prompt_tokens_details")
    written = _mapping(usage, "output_tokens_details", "completion_tokens_details")
    return Usage(
        input_tokens=received,
        output_tokens=produced,
        total_tokens=total,
        cached_tokens=_tokens(read, "cached_tokens"),
        cache_write_tokens=_tokens(read, "cache_write_tokens"),
        reasoning_tokens=_tokens(written, "reasoning_tokens"),
    )


def _tokens(holder: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = holder.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _mapping(holder: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        value = holder.get(name)
        if isinstance(value, Mapping):
            return value
    return {}


# Reasons of an incomplete response that hand over to a successor instead of cutting the answer short.
_HANDED_ON: Final = frozenset({"steered", "interrupted"})

_DELTAS: Final[Mapping[Kind, Callable[[int, str], TurnEvent]]] = {
    "text": TextDelta,
    "refusal": TextDelta,
    "thinking": ThinkingDelta,
    "call": ToolCallDelta,
}

_HANDLERS: Final[Mapping[type[wire.ServerEvent], Callable[[Assembly, Any], None]]] = {
    wire.ResponseCreated: Assembly._opened,
    wire.ResponseInProgress: Assembly._opened,
    wire.ResponseQueued: Assembly._opened,
    wire.OutputItemAdded: Assembly._item_added,
    wire.OutputItemDone: Assembly._item_done,
    wire.ContentPartAdded: Assembly._part_added,
    wire.ContentPartDone: Assembly._part_done,
    wire.OutputTextDelta: Assembly._text_delta,
    wire.RefusalDelta: Assembly._refusal_delta,
    wire.ReasoningSummaryTextDelta: Assembly._summary_delta,
    wire.ReasoningTextDelta: Assembly._reasoning_delta,
    wire.FunctionCallArgumentsDelta: Assembly._call_delta,
    wire.CustomToolCallInputDelta: Assembly._call_delta,
}
