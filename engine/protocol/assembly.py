"""Wire events of one response → the caller's turn events and the final `AssistantMessage`.

What is authoritative (Responses API): the item of ``output_item.done`` over the deltas before it, and the terminal
event's ``output`` for items that were never reported done. Deltas are still shown as they come. Which item an event is
about is said in `slots`; within an item, parts begin where the server says so or with the first delta, and are matched
by order: their positions are hints. What only one of several words on an item has is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve

from engine.protocol.blocks import (
    SECTION_BREAK,
    Call,
    annotations_of,
    call_block,
    call_id_of,
    call_text,
    content_key,
    extra_of,
    fuller,
    fuller_block,
    is_replayable,
    logprobs_of,
    reasoning_texts,
    spoken_blocks,
    thinking_block,
)
from engine.protocol.draft import Draft, Section, delta, ended, started
from engine.protocol.shortcut import Shortcut
from engine.protocol.slots import Slot, Slots, position
from engine.values.messages import (
    AssistantBlock,
    AssistantMessage,
    OutputItem,
    Refusal,
    StopReason,
    Text,
    Thinking,
)
from engine.values.turn_events import TurnEvent
from engine.values.usage import Usage
from engine.wire import events as wire
from engine.wire.codec import SERVER_EVENT_CLASSES
from engine.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    ReasoningItem,
    structure_item,
)
from engine.wire.parts import InputText, OutputText, PlainText, ReasoningText, RefusalPart, SummaryText
from engine.wire.response import ResponseObject
from engine.wire.text import well_formed, well_formed_value
from engine.wire.usage import usage_from

__all__ = ["Assembly", "Oddity", "made_call_id"]

Oddity: TypeAlias = Literal["repeated", "contradicted", "repaired", "unreadable"]
"""The oddities of the server's words."""

_Spoken: TypeAlias = Literal["text", "refusal"]

_CALLS: Final = (FunctionCallItem, CustomToolCallItem)


def made_call_id() -> str:
    """Make an id that no other call has."""
    return f"call_{token_hex(12)}"


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
        as_held: Whether the message says what the server holds. A call whose id was made is not found there.
    """

    def __init__(self, *, made_call_id: Callable[[], str] = made_call_id, after: Assembly | None = None) -> None:
        self._made_call_id: Callable[[], str] = made_call_id if after is None else after._made_call_id
        self._slots = Slots()
        self._drafts: list[Draft] = []  # what was shown, in order
        self._first: int = 0 if after is None else after._first + len(after._drafts)  # the index of its first block
        self._call_ids: set[str] = set() if after is None else after._call_ids
        self._events: list[TurnEvent] = []
        self._response_id: str | None = None
        self._model: str | None = None
        self._stored: bool | None = None
        self._usage: Usage | None = None
        self._cut = False
        self._grown: Draft | None = None
        self.shortcut: Shortcut | None = None
        self.oddities: Final[Counter[Oddity]] = Counter()
        self.as_held: bool = True

    # --- what is known so far ---

    def partial(self) -> AssistantMessage | None:
        """The part of the answer that has arrived, None when nothing has."""
        if not self._drafts:
            return None
        return self._message(None)

    def message(self) -> AssistantMessage:
        """The whole answer. Only after `finish`."""
        message = self._message("length" if self._cut else "stop")
        return evolve(message, stop_reason="tool_use") if message.unanswered and not self._cut else message

    def _message(self, reason: StopReason | None) -> AssistantMessage:
        return AssistantMessage(
            tuple(draft.snapshot() for draft in self._drafts),
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
        self._events = []
        self._grown = self.shortcut = None
        handler(self, event)
        if self._grown is not None:
            self._shorten(event, self._grown)
        return self._events

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
        self._events = []
        self.shortcut = None
        if response is not None:
            self._learn(response)
            incomplete = incomplete or response.status == "incomplete"
            self._cut = incomplete and response.incomplete_reason not in _HANDED_ON
            self._settle(response.output or ())
        for slot in list(self._slots):
            if not slot.done:
                self._leave(slot)
        if response is not None:
            self._take_aside(response)
        return self._events

    def _settle(self, told: Sequence[Item]) -> None:
        """Finish the items that the terminal event lists and that are not finished yet."""
        if self._slots.told_again(told):
            return
        output = [_whole(item) for item in told]
        for item, slot in zip(output, self._slots.matched(output), strict=True):
            if slot is None:
                self._finish_item(self._slots.open(item.type, item.id, None), item)
            elif slot.done:
                self._enrich(slot, item)
            else:
                self._finish_item(slot, item)

    def _leave(self, slot: Slot) -> None:
        """End an item of which the server never said that it is finished, with what it said of it."""
        item = slot.item
        if item is None:
            if self._show(slot, whole=True):
                for draft in slot.drafts:
                    self._end(draft)
            return
        self._finish_item(slot, item, left=True)

    def _take_aside(self, response: ResponseObject) -> None:
        """Take the text from beside the items, where a server has it there alone."""
        text = response.raw.get("output_text")
        if not isinstance(text, str) or not text or any(draft.kind != "item" for draft in self._drafts):
            return
        self.oddities["repaired"] += 1
        draft = Draft("text", Text(""))
        self._begin(draft)
        self._complete(draft, Text(well_formed(text)), well_formed(text))

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
        item, index = _whole(event.item), position(event.raw, "output_index")
        slot = self._slots.of_announcement(item, index)
        if slot is None:
            slot = self._slots.open(item.type, item.id, index, announced=True)
        slot.announced = True
        slot.item = _joined(slot.item, item)
        self._slots.name(slot, item.id)
        if isinstance(item, _CALLS):
            if not slot.drafts:
                slot.drafts.append(Draft("call", OutputItem({})))
            self._show(slot)

    def _item_done(self, event: wire.OutputItemDone) -> None:
        if event.item is None:
            return
        item, index = _whole(event.item), position(event.raw, "output_index")
        slot = self._slots.of_finished(item, index) or self._slots.open(item.type, item.id, index)
        self._finish_item(slot, item, index)

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
                if draft is not None and isinstance(draft.block, Text):
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
            draft = self._new_part(slot, "text", hint)
            self._show(slot)
        if draft is not None and isinstance(draft.block, Text) and annotation.raw not in draft.block.annotations:
            draft.block = evolve(draft.block, annotations=(*draft.block.annotations, annotation.raw))

    def _slot(self, event: wire.OutputEvent, kind: str, *, grows: bool = False) -> Slot:
        """The item that an event speaks of."""
        item_id, index = event.item_id or None, position(event.raw, "output_index")
        slot = self._slots.of_part(kind, item_id, index, grows=grows)
        return slot if slot is not None else self._slots.open(kind, item_id, index)

    def _open_part(self, event: wire.ContentEvent, kind: _Spoken) -> None:
        slot = self._slot(event, "message")
        if slot.done:
            return
        hint = position(event.raw, "content_index")
        last = slot.drafts[-1] if slot.drafts else None
        again = last is not None and last.kind == kind and not last.closed and hint in {None, last.hint}
        if not again:
            self._new_part(slot, kind, hint)
        if last is None:  # a later part is shown with its first text: it may be one that the server only counts anew
            self._show(slot)

    def _new_part(self, slot: Slot, kind: _Spoken, hint: int | None) -> Draft:
        item_id = (slot.item.id if slot.item is not None else None) or next(iter(slot.ids), None)
        extra = extra_of(slot.item)
        block = Text("", slot.phase, item_id, extra=extra)
        draft = Draft(kind, block if kind == "text" else Refusal("", item_id, slot.phase, extra=extra), hint=hint)
        slot.drafts.append(draft)
        return draft

    def _say(self, event: wire.ContentEvent, kind: _Spoken, text: str) -> None:
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
                draft = self._new_part(slot, kind, hint)
        self._write(slot, draft, text)

    def _say_all(self, event: wire.ContentEvent, kind: _Spoken, text: str) -> Draft | None:
        """Take the whole text of a part, and return its block."""
        slot, hint, text = self._slot(event, "message"), position(event.raw, "content_index"), well_formed(text)
        parts = [each for each in slot.drafts if each.kind == kind]
        opened = [each for each in parts if not each.closed]
        draft = next((each for each in opened if each.hint == hint), None)
        draft = draft or next((each for each in opened if text.startswith(each.written)), None)
        draft = draft or (opened[-1] if opened else None)
        if draft is None:
            known = [each for each in parts if each.hint == hint or each.written == text]
            if known or slot.done:
                return known[0] if known else None
            draft = self._new_part(slot, kind, hint)
        if not draft.ended:
            self._catch_up(slot, draft, text)
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
        slot = self._slot(event, "reasoning")
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
        self._write(slot, draft, text)

    def _go_on(self, slot: Slot, draft: Draft) -> None:
        """Put the break before a section that was announced and is about to be written."""
        if draft.announced:
            draft.announced = False
            if draft.begin_section():
                self._tell(slot, draft, SECTION_BREAK)

    def _close_section(self, slot: Slot, draft: Draft, text: str, hint: int | None) -> None:
        if draft.closed or draft.announced:
            earlier = draft.hint == hint if draft.closed else False
            if earlier or text == draft.present or text in draft.written.split(SECTION_BREAK):
                return
            draft.hint, draft.announced = hint, True
            self._go_on(slot, draft)
        rest = draft.rewrite_section(text)
        if rest:
            self._tell(slot, draft, rest)
        draft.closed = text == draft.present

    # --- calls ---

    def _call_delta(self, event: wire.FunctionCallArgumentsDelta | wire.CustomToolCallInputDelta) -> None:
        slot = self._call_slot(event, custom=isinstance(event, wire.CustomToolCallInputDelta), grows=True)
        if not slot.done:
            self._write(slot, slot.drafts[0], event.delta)

    def _arguments_done(self, event: wire.FunctionCallArgumentsDone) -> None:
        self._call_told(event, event.arguments, custom=False)

    def _input_done(self, event: wire.CustomToolCallInputDone) -> None:
        self._call_told(event, event.input, custom=True)

    def _call_slot(self, event: wire.OutputEvent, *, custom: bool, grows: bool = False) -> Slot:
        slot = self._slot(event, "custom_tool_call" if custom else "function_call", grows=grows)
        if not slot.drafts:
            slot.drafts.append(Draft("call", OutputItem({})))
        return slot

    def _call_told(self, event: wire.OutputEvent, text: str, *, custom: bool) -> None:
        slot = self._call_slot(event, custom=custom)
        if not slot.done and text.strip():
            self._catch_up(slot, slot.drafts[0], well_formed(text))
            slot.drafts[0].closed = True

    def _named_call(self, slot: Slot, item: Call) -> str:
        """The id by which a call's result will find it: once told it stays, and no other call has it."""
        if not slot.call_id:
            given = call_id_of(item)
            slot.call_id = given if given and given not in self._call_ids else self._made_call_id()
            self._call_ids.add(slot.call_id)
            if slot.call_id != item.call_id:
                self.oddities["repaired"] += 1
                self.as_held = False
        return slot.call_id

    # --- blocks ---

    def _is_shown(self, slot: Slot) -> bool:
        return any(draft.index is not None for draft in slot.drafts)

    def _show(self, slot: Slot, *, whole: bool = False) -> bool:
        """Show what was written of an item, unless it may still turn out to be an earlier one told again.

        Args:
            slot: The item.
            whole: Whether no more will come of it.
        """
        if not self._is_shown(slot) and self._waits(slot, whole=whole):
            return False
        last = max((number for number, draft in enumerate(slot.drafts) if draft.written), default=0)
        for draft in slot.drafts[: last + 1]:
            if draft.index is None:
                self._begin(draft)
        return True

    def _waits(self, slot: Slot, *, whole: bool) -> bool:
        if slot.drafts and slot.drafts[0].kind == "call":
            item = slot.item
            if not isinstance(item, _CALLS) or not item.name:
                return True  # a call that is not introduced yet
            given = call_id_of(item)
            if not whole and (not given or given in self._call_ids):
                return True
            slot.drafts[0].block = call_block(item, self._named_call(slot, item))
            return False
        said = slot.written
        fitting = (
            each for each in self._slots.like(slot) if None in (each.phase, slot.phase) or each.phase == slot.phase
        )
        if whole:
            return bool(said) and any(each.written == said for each in fitting)
        return any(each.written.startswith(said) for each in fitting)

    def _begin(self, draft: Draft) -> None:
        draft.index = self._first + len(self._drafts)
        self._drafts.append(draft)
        self._events.append(started(draft))
        if draft.written:
            self._events.append(delta(draft, draft.written))

    def _write(self, slot: Slot, draft: Draft, text: str) -> None:
        self._grown = draft
        text = draft.write(text)
        if text or draft.index is None:
            self._tell(slot, draft, text)

    def _tell(self, slot: Slot, draft: Draft, text: str) -> None:
        """Tell the caller of text that was written, and of all that was held back with it."""
        if draft.index is None:
            self._show(slot)
        elif text:
            self._events.append(delta(draft, text))

    def _catch_up(self, slot: Slot, draft: Draft, text: str) -> None:
        """Take a block's whole text and show what its deltas left out."""
        self._tell(slot, draft, draft.rewrite(text))

    def _complete(self, draft: Draft, block: AssistantBlock, text: str) -> None:
        """Give a block its authoritative content, show what its deltas left out, and end it."""
        rest = draft.rewrite(text)
        if rest:
            self._events.append(delta(draft, rest))
        self._end(draft, block)

    def _end(self, draft: Draft, whole: AssistantBlock | None = None) -> None:
        if draft.ended or draft.index is None:
            return
        if whole is None:
            rest = draft.rest()
            if rest:
                self._events.append(delta(draft, rest))
        draft.block = fuller_block(draft.block, whole) if whole is not None else draft.snapshot()
        draft.ended = True
        self._events.append(ended(draft))

    # --- finished items ---

    def _finish_item(self, slot: Slot, item: Item, index: int | None = None, *, left: bool = False) -> None:
        """Take an item as it is in the end.

        Args:
            slot: The item as it was told so far.
            item: The last word on it.
            index: The position in that word; None where it has none.
            left: Whether the server never said that it is finished: what it said of it at first is the last word.
        """
        item = _joined(slot.item, item) if not left else item
        slot.item = item
        key = content_key(item)
        same = None if self._is_shown(slot) else self._slots.repeated(item, slot, index, key)
        if same is not None:
            self.oddities["repeated"] += 1
            slot.repeat = True
            self._enrich(same, item)
            self._slots.close(slot, item, index, key)
            return
        match item:
            case MessageItem():
                self._finish_message(slot, item)
            case ReasoningItem():
                self._finish_reasoning(slot, item, left=left)
            case FunctionCallItem() | CustomToolCallItem():
                self._finish_call(slot, item)
        for draft in slot.drafts:
            self._end(draft)
        if not self._is_shown(slot):
            if left or not is_replayable(item):
                self.oddities["unreadable"] += item.type in _CALL_TYPES
            else:
                kept = Draft("item", OutputItem(item.raw), index=self._first + len(self._drafts), ended=True)
                slot.drafts = [kept]
                self._drafts.append(kept)
        self._slots.close(slot, item, index, key)

    def _finish_message(self, slot: Slot, item: MessageItem) -> None:
        blocks = spoken_blocks(item)
        if not isinstance(item.content, str) and len(blocks) < len(item.content) and blocks:
            self.oddities["unreadable"] += len(item.content) - len(blocks)
        kinds: dict[type[AssistantBlock], _Spoken] = {Text: "text", Refusal: "refusal"}
        drafts = {kind: [each for each in slot.drafts if each.kind == kind] for kind in kinds.values()}
        beyond = ""  # text that was shown with a part and belongs to those after it
        for block in blocks:
            text = block.text if isinstance(block, Text) else block.refusal
            known = drafts[kinds[type(block)]]
            draft = known.pop(0) if known else self._new_part(slot, kinds[type(block)], None)
            if draft.index is None:
                self._begin(draft)
            written = draft.written
            if beyond and not written:
                shown = beyond if text.startswith(beyond) else text if beyond.startswith(text) else ""
                draft.write(shown)
                beyond = beyond[len(shown) :] if shown else ""
            elif not known and len(written) > len(text) and written.startswith(text):
                beyond = written[len(text) :]
            self._complete(draft, block, text)
        said = "".join(block.text if isinstance(block, Text) else block.refusal for block in blocks)
        for draft in (each for rest in drafts.values() for each in rest):
            if draft.written and draft.written in said:
                draft.rewrite("")  # a finished part has it
            elif draft.written and draft.index is None:
                self._begin(draft)

    def _finish_reasoning(self, slot: Slot, item: ReasoningItem, *, left: bool) -> None:
        summary, content = reasoning_texts(item)
        draft = slot.drafts[0] if slot.drafts else None
        shown = draft.section if draft is not None else None
        text = (content or summary) if shown == "content" else (summary or content)
        text = text or (draft.written if draft is not None else "")
        if not text:
            return
        if draft is None:
            draft = Draft("thinking", Thinking("", extra=extra_of(item)))
            slot.drafts.append(draft)
        if draft.index is None:
            self._begin(draft)
        # Only the finished item has all that a replay needs.
        self._complete(draft, Thinking(text, extra=extra_of(item)) if left else thinking_block(item, text), text)

    def _finish_call(self, slot: Slot, item: Call) -> None:
        if not item.name:
            return
        if not slot.drafts:
            slot.drafts.append(Draft("call", OutputItem({})))
        draft = slot.drafts[0]
        self._show(slot, whole=True)
        text = call_text(item)
        if not text.strip() and (draft.written or isinstance(item, FunctionCallItem)):
            text = draft.written or "{}"
        if not isinstance(item.raw.get("arguments", item.raw.get("input")), str):
            self.oddities["repaired"] += 1
        self._complete(draft, call_block(item, self._named_call(slot, item), text), text)

    def _enrich(self, slot: Slot, item: Item) -> None:
        """Add to a finished item what only another word on it has."""
        if slot.disagrees(item):
            self.oddities["contradicted"] += 1
            return
        known = slot.item
        if known is None:
            return
        whole = fuller(item.raw, known.raw)
        if isinstance(item, MessageItem):
            for kind in (Text, Refusal):
                ours = [draft for draft in slot.drafts if isinstance(draft.block, kind)]
                theirs = [block for block in spoken_blocks(item) if isinstance(block, kind)]
                for draft, block in zip(ours, theirs, strict=False):
                    draft.block = fuller_block(block, draft.block)
        elif whole is not known.raw:
            for draft in slot.drafts:
                if isinstance(draft.block, OutputItem):
                    draft.block = OutputItem(whole)
                elif isinstance(draft.block, Thinking) and isinstance(known, ReasoningItem):
                    draft.block = thinking_block(_as_reasoning(whole), draft.block.text)


def _as_reasoning(raw: dict[str, Any]) -> ReasoningItem:
    item = structure_item(raw)
    assert isinstance(item, ReasoningItem)
    return item


def _whole(item: Item) -> Item:
    """The item with all its text well-formed."""
    raw = well_formed_value(item.raw)
    return item if raw is item.raw else structure_item(raw)


def _joined(early: Item | None, late: Item) -> Item:
    """The item as it is now, with what only an earlier word of it has."""
    if early is None or early.type != late.type:
        return late
    raw = fuller(early.raw, late.raw, without=_UNFINISHED)
    return late if raw is late.raw else structure_item(raw)


# Members of an item that say nothing before it is finished.
_UNFINISHED: Final = frozenset({"status", "encrypted_content"})

_CALL_TYPES: Final = frozenset({"function_call", "custom_tool_call"})

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
