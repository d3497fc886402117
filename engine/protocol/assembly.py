"""Wire events of one response → the caller's turn events and the final `AssistantMessage`.

What is authoritative (Responses API): the item of ``output_item.done`` over the deltas before it, and the terminal
event's ``output`` for items that were never reported done. Deltas are still shown as they come. Servers leave out
set-up events and some leave ``output`` empty, so a block begins at whatever first speaks of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import define, evolve, field

from engine.protocol.blocks import (
    SECTION_BREAK,
    annotations_of,
    call_block,
    extra_of,
    filled,
    is_nameable,
    is_replayable,
    logprobs_of,
    refusal_block,
    section_text,
    text_block,
    thinking_block,
)
from engine.values.messages import (
    AssistantBlock,
    AssistantMessage,
    OutputItem,
    Refusal,
    StopReason,
    Text,
    Thinking,
    ToolCall,
)
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
    TurnEvent,
)
from engine.values.usage import Usage
from engine.wire import events as wire
from engine.wire.items import CallItem, CustomToolCallItem, FunctionCallItem, Item, MessageItem, ReasoningItem
from engine.wire.parts import OutputText, PlainText, ReasoningText, RefusalPart, SummaryText
from engine.wire.response import ResponseObject
from engine.wire.usage import usage_from

__all__ = ["Assembly"]

Kind: TypeAlias = Literal["text", "refusal", "thinking", "call"]
_Key: TypeAlias = tuple[int, Kind, int]
_Section: TypeAlias = tuple[Literal["summary", "content"], int]


@define(eq=False)
class _Growing:
    """A block that is still being written.

    Attributes:
        index: Its place in the message.
        kind: What it is, and so which deltas it has.
        block: What is known of it apart from the text; the whole block once it has ended.
        pieces: The text so far.
        ended: Whether it is complete.
        section: Of reasoning: which part of the item is being written.
        section_start: Of reasoning: how many pieces belong to earlier sections.
    """

    index: int
    kind: Kind
    block: AssistantBlock
    pieces: list[str] = field(factory=list)
    ended: bool = False
    section: _Section | None = None
    section_start: int = 0

    @property
    def written(self) -> str:
        return "".join(self.pieces)

    def snapshot(self) -> AssistantBlock:
        """The block with what has been written so far."""
        if self.ended:
            return self.block
        return filled(self.block, self.written)


class Assembly:
    """Builds one response. Feed it every event of the response in order, then ask for the message.

    Blocks stand in the order in which the response first spoke of them, which is the order of its items unless a
    server writes several at once. A block ends with its item: until then its phase and citations may change.
    """

    def __init__(self) -> None:
        self._blocks: list[_Growing] = []
        self._by_key: dict[_Key, _Growing] = {}
        self._items: dict[int, Item] = {}
        self._ids: dict[int, str] = {}
        self._done: set[int] = set()
        self._events: list[TurnEvent] = []
        self._response_id: str | None = None
        self._model: str | None = None
        self._stored: bool | None = None
        self._usage: Usage | None = None
        self._cut = False

    # --- what is known so far ---

    @property
    def item_ids(self) -> frozenset[str]:
        """The ids of the items seen."""
        return frozenset(self._ids.values())

    def partial(self) -> AssistantMessage | None:
        """What has arrived of the answer, None when nothing has."""
        if not self._blocks:
            return None
        return self._message(None)

    def message(self) -> AssistantMessage:
        """The whole answer. Only after `finish`."""
        message = self._message("length" if self._cut else "stop")
        return evolve(message, stop_reason="tool_use") if message.unanswered and not self._cut else message

    def _message(self, reason: StopReason | None) -> AssistantMessage:
        return AssistantMessage(
            tuple(growing.snapshot() for growing in self._blocks),
            stop_reason=reason,
            usage=self._usage,
            model=self._model,
            response_id=self._response_id,
            stored=self._stored,
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

    def finish(self, response: ResponseObject | None, *, incomplete: bool = False) -> list[TurnEvent]:
        """Take the terminal event's response and return the events that were still owed.

        Args:
            response: The response; None where the terminal has none.
            incomplete: Whether the terminal says that the response was cut short.
        """
        self._events = []
        if response is not None:
            self._learn(response)
            incomplete = incomplete or response.status == "incomplete"
            self._cut = incomplete and response.incomplete_reason not in _HANDED_ON
            self._settle(response.output or ())
        for growing in self._blocks:
            self._end(growing)
        return self._events

    def _settle(self, output: Iterable[Item]) -> None:
        """Finish the items that the terminal event lists and that are not finished yet."""
        unmatched = sorted({*self._items, *(key[0] for key in self._by_key)})
        listed: set[str] = set()
        for position, item in enumerate(output):
            if item.id is not None and item.id in listed:
                continue
            listed.update({item.id} if item.id is not None else ())
            known = self._place_of(item, position, unmatched)
            if known is not None:
                unmatched.remove(known)
            if known not in self._done:
                self._finish_item(self._unused() if known is None else known, item)

    def _place_of(self, item: Item, position: int, unmatched: list[int]) -> int | None:
        """Where an item of the terminal's list was seen before: ids tell, else its type and its place in the list."""
        if item.id is not None:
            for index in unmatched:
                if self._ids.get(index) == item.id:
                    return index
        alike = [index for index in unmatched if self._may_be(index, item)]
        return position if position in alike else next(iter(alike), None)

    def _may_be(self, index: int, item: Item) -> bool:
        """Whether ``item`` can be what was seen at ``index``."""
        known = self._items.get(index)
        if item.id is not None and index in self._ids:
            return self._ids[index] == item.id
        if isinstance(item, CallItem) and isinstance(known, CallItem):
            return known.call_id == item.call_id
        if known is not None:
            return known.type == item.type
        return any(key[0] == index and item.type == _ITEM_TYPES.get(key[1]) for key in self._by_key)

    def _unused(self) -> int:
        """An index that no event will speak of."""
        return min((0, *self._items, *(key[0] for key in self._by_key))) - 1

    def _learn(self, response: ResponseObject) -> None:
        self._response_id = response.id or self._response_id
        self._model = response.model or self._model
        self._stored = self._stored if response.store is None else response.store
        self._usage = usage_from(response.usage) or self._usage

    def _opened(self, event: wire.LifecycleEvent) -> None:
        self._learn(event.response)

    def _item_added(self, event: wire.OutputItemAdded) -> None:
        item = event.item
        if item is None or event.output_index in self._done:
            return
        self._seen(event.output_index, item)
        self._call(event.output_index)

    def _item_done(self, event: wire.OutputItemDone) -> None:
        index, item = event.output_index, event.item
        if item is None:
            return
        if index not in self._done:
            self._finish_item(index, item)
        elif not any(self._may_be(each, item) for each in self._done):
            self._finish_item(self._unused(), item)  # a server that counts wrongly: another item at the same index

    def _part_added(self, event: wire.ContentPartAdded) -> None:
        match event.part:
            case OutputText() | PlainText():
                self._spoken(event, "text", event.content_index)
            case RefusalPart():
                self._spoken(event, "refusal", event.content_index)

    def _part_done(self, event: wire.ContentPartDone) -> None:
        match event.part:
            case OutputText() as part:
                growing = self._say_all(event, "text", part.text)
                if growing is not None and isinstance(growing.block, Text):
                    growing.block = evolve(growing.block, annotations=annotations_of(part), logprobs=logprobs_of(part))
            case PlainText() as part:
                self._say_all(event, "text", part.text)
            case RefusalPart() as part:
                self._say_all(event, "refusal", part.refusal)
            case ReasoningText() as part:
                self._think(event, ("content", event.content_index), part.text, whole=True)

    def _text_delta(self, event: wire.OutputTextDelta) -> None:
        growing = self._by_key.get((event.output_index, "text", event.content_index))
        if growing is None:
            growing = self._spoken(event, "text", event.content_index)
        if growing is not None and not growing.ended:
            growing.pieces.append(event.delta)
            self._events.append(TextDelta(growing.index, event.delta))

    def _refusal_delta(self, event: wire.RefusalDelta) -> None:
        growing = self._spoken(event, "refusal", event.content_index)
        if growing is not None:
            self._write(growing, event.delta)

    def _text_done(self, event: wire.OutputTextDone) -> None:
        self._say_all(event, "text", event.text)

    def _refusal_done(self, event: wire.RefusalDone) -> None:
        self._say_all(event, "refusal", event.refusal)

    def _annotated(self, event: wire.OutputTextAnnotationAdded) -> None:
        annotation = event.annotation
        growing = self._spoken(event, "text", event.content_index) if annotation is not None else None
        if annotation is not None and growing is not None and isinstance(growing.block, Text):
            growing.block = evolve(growing.block, annotations=(*growing.block.annotations, annotation.raw))

    def _summary_delta(self, event: wire.ReasoningSummaryTextDelta) -> None:
        self._think(event, ("summary", event.summary_index), event.delta)

    def _summary_done(self, event: wire.ReasoningSummaryTextDone) -> None:
        self._think(event, ("summary", event.summary_index), event.text, whole=True)

    def _summary_part_done(self, event: wire.ReasoningSummaryPartDone) -> None:
        if isinstance(event.part, SummaryText):
            self._think(event, ("summary", event.summary_index), event.part.text, whole=True)

    def _reasoning_delta(self, event: wire.ReasoningTextDelta) -> None:
        self._think(event, ("content", event.content_index), event.delta)

    def _reasoning_done(self, event: wire.ReasoningTextDone) -> None:
        self._think(event, ("content", event.content_index), event.text, whole=True)

    def _call_delta(self, event: wire.FunctionCallArgumentsDelta | wire.CustomToolCallInputDelta) -> None:
        growing = self._call(event.output_index)
        if growing is not None and not growing.ended:
            self._write(growing, event.delta)

    def _arguments_done(self, event: wire.FunctionCallArgumentsDone) -> None:
        self._catch_up(self._call(event.output_index), event.arguments)

    def _input_done(self, event: wire.CustomToolCallInputDone) -> None:
        self._catch_up(self._call(event.output_index), event.input)

    # --- blocks ---

    def _seen(self, index: int, item: Item) -> None:
        self._items[index] = item
        if item.id is not None:
            self._ids[index] = item.id

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

    def _spoken(self, event: wire.OutputEvent, kind: Literal["text", "refusal"], part: int) -> _Growing | None:
        """The text or refusal an event speaks of; None where its item is finished."""
        if event.output_index in self._done:
            return None
        key: _Key = (event.output_index, kind, part)
        growing = self._by_key.get(key)
        if growing is None:
            if event.item_id is not None:
                self._ids.setdefault(event.output_index, event.item_id)
            growing = self._begin_spoken(key)
        return growing

    def _begin_spoken(self, key: _Key) -> _Growing:
        item = self._items.get(key[0])
        item_id = self._ids.get(key[0])
        phase = item.phase if isinstance(item, MessageItem) else None
        extra = extra_of(item)
        if key[1] == "text":
            return self._begin(key, Text("", phase, item_id, extra=extra))
        return self._begin(key, Refusal("", item_id, phase, extra=extra))

    def _call(self, output_index: int) -> _Growing | None:
        key: _Key = (output_index, "call", 0)
        growing = self._by_key.get(key)
        if growing is not None:
            return growing
        item = self._items.get(output_index)
        if not isinstance(item, FunctionCallItem | CustomToolCallItem) or not is_nameable(item):
            return None  # arguments of a call that is not introduced yet: the finished item has them all
        return self._begin(key, call_block(item))

    def _write(self, growing: _Growing, text: str) -> None:
        growing.pieces.append(text)
        self._events.append(_DELTAS[growing.kind](growing.index, text))

    def _say_all(self, event: wire.ContentEvent, kind: Literal["text", "refusal"], text: str) -> _Growing | None:
        growing = self._spoken(event, kind, event.content_index)
        self._catch_up(growing, text)
        return growing

    def _catch_up(self, growing: _Growing | None, text: str) -> None:
        """Take a block's whole text and show what its deltas left out."""
        if growing is None or growing.ended:
            return
        written = growing.written
        if not text.startswith(written):
            growing.pieces = [text]  # the whole text counts; what was shown cannot be taken back
        elif len(text) > len(written):
            self._write(growing, text[len(written) :])

    def _think(self, event: wire.OutputEvent, section: _Section, text: str, *, whole: bool = False) -> None:
        """Show reasoning. Where a server sends both a summary and the text itself, the first to come is shown."""
        key: _Key = (event.output_index, "thinking", 0)
        growing = self._by_key.get(key)
        if growing is None:
            if not text or event.output_index in self._done:
                return
            if event.item_id is not None:
                self._ids.setdefault(event.output_index, event.item_id)
            growing = self._begin(key, Thinking("", extra=extra_of(self._items.get(event.output_index))))
        if growing.ended or (growing.section is not None and growing.section[0] != section[0]):
            return
        if growing.section != section:
            if whole and growing.section is not None and section < growing.section:
                return  # the end of a section after the next has begun
            growing.section, growing.section_start = section, len(growing.pieces)
        if whole:
            written = "".join(growing.pieces[growing.section_start :])
            text = text[len(written) :] if text.startswith(written) else ""
        if not text:
            return
        if 0 < growing.section_start == len(growing.pieces):
            growing.section_start += 1
            self._write(growing, SECTION_BREAK)
        self._write(growing, text)

    def _complete(self, growing: _Growing, block: AssistantBlock, text: str) -> None:
        """Give a block its authoritative content, show what its deltas left out, and end it."""
        self._catch_up(growing, text)
        self._end(growing, block)

    def _end(self, growing: _Growing, whole: AssistantBlock | None = None) -> None:
        if growing.ended:
            return
        growing.block = whole or growing.snapshot()
        growing.ended = True
        match growing.block:
            case Text() | Refusal() as block:
                self._events.append(TextEnded(growing.index, block))
            case Thinking() as block:
                self._events.append(ThinkingEnded(growing.index, block))
            case ToolCall() as block:
                self._events.append(ToolCallEnded(growing.index, block))

    # --- finished items ---

    def _finish_item(self, index: int, item: Item) -> None:
        self._seen(index, item)
        match item:
            case MessageItem():
                self._finish_message(index, item)
            case ReasoningItem():
                self._finish_reasoning(index, item)
            case FunctionCallItem() | CustomToolCallItem() if is_nameable(item):
                growing = self._call(index)
                assert growing is not None
                raw = item.arguments if isinstance(item, FunctionCallItem) else item.input
                raw = raw or growing.written
                self._complete(growing, call_block(item, raw), raw)
        begun = [growing for key, growing in self._by_key.items() if key[0] == index]
        for growing in begun:
            self._end(growing)
        if not begun and is_replayable(item):
            self._blocks.append(_Growing(len(self._blocks), "text", OutputItem(item.raw), ended=True))
        self._done.add(index)

    def _finish_message(self, index: int, item: MessageItem) -> None:
        content = item.content
        if isinstance(content, str):
            if content:
                self._finish_text(index, 0, text_block(item, content))
            return
        for number, part in enumerate(content):
            match part:
                case OutputText() | PlainText():
                    self._finish_text(index, number, text_block(item, part))
                case RefusalPart():
                    key: _Key = (index, "refusal", number)
                    growing = self._by_key.get(key) or self._begin_spoken(key)
                    self._complete(growing, refusal_block(item, part), part.refusal)

    def _finish_text(self, index: int, number: int, block: Text) -> None:
        key: _Key = (index, "text", number)
        self._complete(self._by_key.get(key) or self._begin_spoken(key), block, block.text)

    def _finish_reasoning(self, index: int, item: ReasoningItem) -> None:
        key: _Key = (index, "thinking", 0)
        growing = self._by_key.get(key)
        shown = growing.section[0] if growing is not None and growing.section is not None else None
        summary, content = section_text(item.summary), section_text(item.content)
        text = (content or summary) if shown == "content" else (summary or content)
        if growing is None:
            if not text:
                return
            growing = self._begin(key, Thinking("", extra=extra_of(item)))
        text = text or growing.written
        self._complete(growing, thinking_block(item, text), text)


# Reasons of an incomplete response that hand over to a successor instead of cutting the answer short.
_HANDED_ON: Final = frozenset({"steered", "interrupted"})

# What kind of item a block seen only through its deltas belongs to.
_ITEM_TYPES: Final[Mapping[Kind, str]] = {"text": "message", "refusal": "message", "thinking": "reasoning"}

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
    wire.OutputTextDone: Assembly._text_done,
    wire.OutputTextAnnotationAdded: Assembly._annotated,
    wire.RefusalDelta: Assembly._refusal_delta,
    wire.RefusalDone: Assembly._refusal_done,
    wire.ReasoningSummaryTextDelta: Assembly._summary_delta,
    wire.ReasoningSummaryTextDone: Assembly._summary_done,
    wire.ReasoningSummaryPartDone: Assembly._summary_part_done,
    wire.ReasoningTextDelta: Assembly._reasoning_delta,
    wire.ReasoningTextDone: Assembly._reasoning_done,
    wire.FunctionCallArgumentsDelta: Assembly._call_delta,
    wire.FunctionCallArgumentsDone: Assembly._arguments_done,
    wire.CustomToolCallInputDelta: Assembly._call_delta,
    wire.CustomToolCallInputDone: Assembly._input_done,
}
