"""Wire events of one response → the caller's turn events and the final `AssistantMessage`.

What is authoritative (Responses API): the item of ``output_item.done`` over the deltas before it, and the terminal
event's ``output`` for items that were never reported done. Deltas are still shown as they come. Which item an event is
about is said in `slots`; within an item, parts begin where the server says so or with the first delta, and are matched
by order: their positions are hints. What only one of several words on an item has is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from engine.protocol.blocks import (
    SECTION_BREAK,
    annotations_of,
    extra_of,
    fuller_block,
    logprobs_of,
    well_formed_item,
)
from engine.protocol.display import Display, Oddity, made_call_id
from engine.protocol.draft import Draft, Section
from engine.protocol.settlement import Settlement, joined
from engine.protocol.shortcut import Shortcut
from engine.protocol.slots import Slot, Slots, Spoken, position
from engine.values.blocks import OutputItem, Text, Thinking
from engine.values.messages import AssistantMessage, StopReason
from engine.values.turn_events import TurnEvent
from engine.values.usage import Usage
from engine.wire import events as wire
from engine.wire.codec import SERVER_EVENT_CLASSES
from engine.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    Item,
    structure_item,
)
from engine.wire.parts import InputText, OutputText, PlainText, ReasoningText, RefusalPart, SummaryText
from engine.wire.response import ResponseObject
from engine.wire.text import well_formed
from engine.wire.usage import usage_from

__all__ = ["Assembly"]

_CALLS: Final = (FunctionCallItem, CustomToolCallItem)


class Assembly:
    """Builds one response. Feed it every event of the response in order, then ask for the message.

    Blocks stand in the order in which the response first spoke of them, which is the order of its items unless a
    server writes several at once. A block ends with its item: until then its phase and citations may change.

    Args:
        made_call_id: Makes the id of a call that has none of its own.
        after: The response before it, where both are one answer: its blocks are counted on.

    Attributes:
        oddities: The number of oddities in the response, by kind: told again, told otherwise, in a shape that was
            repaired, or in one that nothing could be made of.
        shortcut: The way of the last event, where another of its kind can take it without further ado.
    """

    def __init__(self, *, made_call_id: Callable[[], str] = made_call_id, after: Assembly | None = None) -> None:
        self._slots = Slots()
        self.oddities: Final[Counter[Oddity]] = Counter()
        self._display: Display = Display(
            self._slots, self.oddities, made_call_id, after=None if after is None else after._display
        )
        self._settlement = Settlement(self._slots, self._display, self.oddities)
        self._response_id: str | None = None
        self._model: str | None = None
        self._stored: bool | None = None
        self._usage: Usage | None = None
        self._cut = False
        self.shortcut: Shortcut | None = None

    # --- what is known so far ---

    @property
    def as_held(self) -> bool:
        """Whether the message says what the server holds. A call whose id was made is not found there."""
        return self._display.as_held

    def partial(self) -> AssistantMessage | None:
        """The part of the answer that has arrived, None when nothing has."""
        if not self._display.drafts:
            return None
        return self._message(None)

    def message(self) -> AssistantMessage:
        """The whole answer. Only after `finish`."""
        message = self._message("length" if self._cut else "stop")
        return evolve(message, stop_reason="tool_use") if message.unanswered and not self._cut else message

    def _message(self, reason: StopReason | None) -> AssistantMessage:
        return AssistantMessage(
            tuple(draft.snapshot() for draft in self._display.drafts),
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
            if event.__class__ is wire.UnknownEvent and event.type in SERVER_EVENT_CLASSES:
                self.oddities["unreadable"] += 1
            return []
        self._display.events = []
        self._display.grown = self.shortcut = None
        handler(self, event)
        if self._display.grown is not None:
            self._shorten(event, self._display.grown)
        return self._display.events

    def _shorten(self, event: wire.ServerEvent, draft: Draft) -> None:
        raw = event.raw
        steady = draft.steady or draft.kind != "thinking"
        known = self._slots.knows(raw.get("item_id") or None, position(raw, "output_index"))
        if steady and known and draft.index is not None:
            self.shortcut = Shortcut(raw, draft)

    def finish(self, response: ResponseObject | None, *, incomplete: bool = False) -> list[TurnEvent]:
        """Take the terminal event's response and return the events that were still owed.

        Args:
            response: The response; None where the terminal has none.
            incomplete: Whether the terminal says that the response was cut short.
        """
        self._display.events = []
        self.shortcut = None
        if response is not None:
            self._learn(response)
            incomplete = incomplete or response.status == "incomplete"
            self._cut = incomplete and response.incomplete_reason not in _HANDED_ON
            told, items = response.raw.get("output"), response.output or ()
            unreadable = len(told) - len(items) if isinstance(told, list) else told is not None
            if unreadable:
                self.oddities["unreadable"] += unreadable
            self._settle(items)
        for slot in list(self._slots):
            if not slot.done:
                self._leave(slot)
        if response is not None:
            self._take_aside(response)
        return self._display.events

    def _settle(self, told: Sequence[Item]) -> None:
        """Finish the items that the terminal event lists and that are not finished yet."""
        if self._slots.told_again(told):
            return
        output = [well_formed_item(item) for item in told]
        for item, slot in zip(output, self._slots.matched(output), strict=True):
            if slot is None:
                self._settlement.finish(self._slots.open(item.type, item.id, None), item)
            elif slot.done:
                self._settlement.enrich(slot, item)
            else:
                self._settlement.finish(slot, item)

    def _leave(self, slot: Slot) -> None:
        """End an item of which the server never said that it is finished, with what it said of it."""
        item = slot.item
        if item is None:
            if self._display.show(slot, whole=True):
                for draft in slot.drafts:
                    self._display.end(draft)
            elif any(draft.kind == "call" for draft in slot.drafts):
                self.oddities["unreadable"] += 1
            return
        self._settlement.finish(slot, item, left=True)

    def _take_aside(self, response: ResponseObject) -> None:
        """Take the text from beside the items, where a server has it there alone."""
        text = response.raw.get("output_text")
        if not isinstance(text, str) or not text or any(draft.kind != "item" for draft in self._display.drafts):
            return
        self.oddities["repaired"] += 1
        draft = Draft("text", Text(""))
        self._display.begin(draft)
        self._display.complete(draft, Text(well_formed(text)), well_formed(text))

    def _learn(self, response: ResponseObject) -> None:
        self._response_id = response.id or self._response_id
        self._model = response.model or self._model
        self._stored = self._stored if response.store is None else response.store
        self._usage = usage_from(response.usage) or self._usage

    def _opened(self, event: wire.LifecycleEvent) -> None:
        self._learn(event.response)

    def _item_added(self, event: wire.OutputItemAdded) -> None:
        if event.item is None:
            return
        item, index = well_formed_item(event.item), position(event.raw, "output_index")
        slot = self._slots.of_announcement(item, index)
        if slot is None:
            slot = self._slots.open(item.type, item.id, index, announced=True)
        slot.announced = True
        slot.item = joined(slot.item, item)
        self._slots.name(slot, item.id)
        if isinstance(item, _CALLS):
            if not slot.drafts:
                slot.drafts.append(Draft("call", OutputItem({})))
            self._display.show(slot)

    def _item_done(self, event: wire.OutputItemDone) -> None:
        if event.item is None:
            return
        item, index = well_formed_item(event.item), position(event.raw, "output_index")
        slot = self._slots.of_finished(item, index) or self._slots.open(item.type, item.id, index)
        self._settlement.finish(slot, item, index)

    # --- parts of messages ---

    def _part_added(self, event: wire.ContentPartAdded) -> None:
        match event.part:
            case OutputText() | PlainText() | InputText():
                self._open_part(event, "text")
            case RefusalPart():
                self._open_part(event, "refusal")
            case ReasoningText():
                self._section_added(event, "content")

    def _part_done(self, event: wire.ContentPartDone) -> None:
        match event.part:
            case OutputText() as part:
                draft = self._say_all(event, "text", part.text)
                if draft is not None and isinstance(draft.block, Text) and (part.annotations or part.logprobs):
                    whole = evolve(draft.block, annotations=annotations_of(part), logprobs=logprobs_of(part))
                    draft.block = fuller_block(draft.block, whole)
            case PlainText() | InputText() as part:
                self._say_all(event, "text", part.text)
            case RefusalPart() as part:
                self._say_all(event, "refusal", part.refusal)
            case ReasoningText() as part:
                self._think(event, "content", part.text, whole=True)

    def _text_delta(self, event: wire.OutputTextDelta) -> None:
        self._say(event, "text", event.delta)

    def _refusal_delta(self, event: wire.RefusalDelta) -> None:
        self._say(event, "refusal", event.delta)

    def _text_done(self, event: wire.OutputTextDone) -> None:
        self._say_all(event, "text", event.text)

    def _refusal_done(self, event: wire.RefusalDone) -> None:
        self._say_all(event, "refusal", event.refusal)

    def _annotated(self, event: wire.OutputTextAnnotationAdded) -> None:
        annotation = event.annotation
        if annotation is None:
            return
        slot = self._slot(event, "message")
        hint = position(event.raw, "content_index")
        texts = [draft for draft in slot.drafts if draft.kind == "text"]
        draft = next((each for each in texts if each.hint == hint), texts[-1] if texts else None)
        if draft is None and not slot.done:
            draft = slot.new_part("text", hint)
            self._display.show(slot)
        if draft is not None and isinstance(draft.block, Text) and annotation.raw not in draft.block.annotations:
            draft.block = evolve(draft.block, annotations=(*draft.block.annotations, annotation.raw))

    def _slot(self, event: wire.OutputEvent, kind: str, *, grows: bool = False, begins: bool = False) -> Slot:
        """The item that an event speaks of."""
        item_id, index = event.item_id or None, position(event.raw, "output_index")
        slot = self._slots.of_part(kind, item_id, index, grows=grows, begins=begins)
        return slot if slot is not None else self._slots.open(kind, item_id, index)

    def _open_part(self, event: wire.ContentEvent, kind: Spoken) -> None:
        slot = self._slot(event, "message", begins=True)
        if slot.done:
            return
        slot.parted = True
        hint = position(event.raw, "content_index")
        last = slot.drafts[-1] if slot.drafts else None
        again = last is not None and last.kind == kind and not last.closed and hint in {None, last.hint}
        if not again:
            slot.new_part(kind, hint)
        if last is None:  # a later part is shown with its first text: it may be one that the server only counts anew
            self._display.show(slot)

    def _say(self, event: wire.ContentEvent, kind: Spoken, text: str) -> None:
        slot = self._slot(event, "message", grows=True)
        if slot.done:
            return
        drafts, hint = slot.drafts, position(event.raw, "content_index")
        draft = drafts[-1] if drafts else None
        if draft is None or draft.closed or draft.kind != kind or (draft.hint != hint and len(drafts) > 1):
            opened = [each for each in drafts if each.kind == kind and not each.closed]
            draft = next((each for each in opened if each.hint == hint), opened[-1] if opened else None)
            if draft is None:
                if any(each.kind == kind and each.hint == hint for each in drafts):
                    return  # more of a part whose whole text was told
                draft = slot.new_part(kind, hint)
        self._display.write(slot, draft, text)

    def _say_all(self, event: wire.ContentEvent, kind: Spoken, text: str) -> Draft | None:
        """Take the whole text of a part, and return its block."""
        text = well_formed(text)
        late = self._slots.ended_before("message", event, text) if self._slots.closed else None
        if late is not None:
            return late
        slot, hint = self._slot(event, "message"), position(event.raw, "content_index")
        parts = [each for each in slot.drafts if each.kind == kind]
        opened = [each for each in parts if not each.closed]
        draft = next((each for each in opened if each.hint == hint), None)
        if draft is None and hint is not None:
            again = next((each for each in parts if each.closed and (each.hint, each.written) == (hint, text)), None)
            if again is not None:  # its end, said in another event; an earlier part has had none yet
                return again
        draft = draft or next((each for each in opened if text.startswith(each.written)), None)
        draft = draft or (opened[-1] if opened else None)
        if draft is None:
            known = [each for each in parts if each.hint == hint or each.written == text]
            if known or slot.done:
                return known[0] if known else None
            draft = slot.new_part(kind, hint)
        if not draft.ended:
            self._display.catch_up(slot, draft, text)
            draft.closed = True
        return draft

    # --- reasoning ---

    def _summary_added(self, event: wire.ReasoningSummaryPartAdded) -> None:
        self._section_added(event, "summary")

    def _summary_delta(self, event: wire.ReasoningSummaryTextDelta) -> None:
        self._think(event, "summary", event.delta)

    def _summary_done(self, event: wire.ReasoningSummaryTextDone) -> None:
        self._think(event, "summary", event.text, whole=True)

    def _summary_part_done(self, event: wire.ReasoningSummaryPartDone) -> None:
        if isinstance(event.part, SummaryText | PlainText):
            self._think(event, "summary", event.part.text, whole=True)

    def _reasoning_delta(self, event: wire.ReasoningTextDelta) -> None:
        self._think(event, "content", event.delta)

    def _reasoning_done(self, event: wire.ReasoningTextDone) -> None:
        self._think(event, "content", event.text, whole=True)

    def _section_added(self, event: wire.OutputEvent, section: Section) -> None:
        slot = self._slot(event, "reasoning", begins=True)
        slot.parted = True
        draft = slot.drafts[0] if slot.drafts else None
        hint = position(event.raw, _SECTION_INDEX[section])
        if draft is not None and draft.section == section and (draft.closed or draft.hint != hint):
            draft.hint, draft.closed, draft.announced = hint, False, True

    def _think(self, event: wire.OutputEvent, section: Section, text: str, *, whole: bool = False) -> None:
        """Show reasoning. Where a server sends both a summary and the text itself, the first to come is shown."""
        slot = self._slot(event, "reasoning", grows=not whole)
        if slot.done or not text:
            return
        hint = position(event.raw, _SECTION_INDEX[section])
        if not slot.drafts:
            draft = Draft("thinking", Thinking("", extra=extra_of(slot.item)), section=section, hint=hint)
            slot.drafts.append(draft)
        draft = slot.drafts[0]
        if draft.section != section:
            return
        if whole:
            self._close_section(slot, draft, well_formed(text), hint)
            return
        if draft.closed and draft.hint == hint:
            return  # more of a section whose whole text was told
        if draft.closed or (draft.steady and draft.hint != hint):
            draft.hint, draft.announced, draft.closed = hint, True, False
        elif draft.hint == hint and draft.present:
            draft.steady = True
        self._go_on(slot, draft)
        self._display.write(slot, draft, text)

    def _go_on(self, slot: Slot, draft: Draft) -> None:
        """Put the break before a section that was announced and is about to be written."""
        if draft.announced:
            draft.announced = False
            if draft.begin_section():
                self._display.tell(slot, draft, SECTION_BREAK)

    def _close_section(self, slot: Slot, draft: Draft, text: str, hint: int | None) -> None:
        if draft.closed or draft.announced:
            earlier = draft.hint == hint if draft.closed else False
            if earlier or text == draft.present or text in draft.written.split(SECTION_BREAK):
                return
            draft.hint, draft.announced = hint, True
            self._go_on(slot, draft)
        rest = draft.rewrite_section(text)
        if rest:
            self._display.tell(slot, draft, rest)
        draft.closed = text == draft.present

    # --- calls ---

    def _call_delta(self, event: wire.FunctionCallArgumentsDelta | wire.CustomToolCallInputDelta) -> None:
        slot = self._call_slot(event, custom=isinstance(event, wire.CustomToolCallInputDelta), grows=True)
        if not slot.done:
            self._display.write(slot, slot.drafts[0], event.delta)

    def _arguments_done(self, event: wire.FunctionCallArgumentsDone) -> None:
        text, item = event.arguments, None
        if event.name:
            named = {"id": event.item_id, "call_id": event.call_id, "name": event.name, "arguments": text}
            item = structure_item({"type": "function_call", **named})
        self._call_told(event, text, custom=False, item=item)

    def _input_done(self, event: wire.CustomToolCallInputDone) -> None:
        self._call_told(event, event.input, custom=True)

    def _call_slot(self, event: wire.OutputEvent, *, custom: bool, grows: bool = False) -> Slot:
        slot = self._slot(event, "custom_tool_call" if custom else "function_call", grows=grows)
        if not slot.drafts:
            slot.drafts.append(Draft("call", OutputItem({})))
        return slot

    def _call_told(self, event: wire.OutputEvent, text: str, *, custom: bool, item: Item | None = None) -> None:
        text = well_formed(text)
        kind = "custom_tool_call" if custom else "function_call"
        if self._slots.closed and self._slots.ended_before(kind, event, text) is not None:
            return
        slot = self._call_slot(event, custom=custom)
        nameless = slot.item is None or (isinstance(slot.item, FunctionCallItem) and not slot.item.name)
        if item is not None and nameless and not slot.done:
            slot.item = joined(slot.item, item)
        if not slot.done and text.strip():
            self._display.catch_up(slot, slot.drafts[0], text)
            slot.drafts[0].closed = True


_SECTION_INDEX: Final[Mapping[Section, str]] = {"summary": "summary_index", "content": "content_index"}

# Reasons of an incomplete response that hand over to a successor instead of cutting the answer short.
_HANDED_ON: Final = frozenset({"steered", "interrupted"})

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
    wire.ReasoningSummaryPartAdded: Assembly._summary_added,
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
