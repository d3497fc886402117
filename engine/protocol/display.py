"""The blocks of one response as the caller is shown them: begun, grown, ended, and the events that say so.

What was shown cannot be taken back. So what may still turn out to be an earlier item told again is held back, and the
id of a call stays once it was told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from secrets import token_hex
from typing import Final, Literal, TypeAlias

from engine.protocol.blocks import Call, call_block, call_id_of, fuller_block
from engine.protocol.draft import Draft, delta, ended, started
from engine.protocol.slots import Slot, Slots
from engine.values.blocks import AssistantBlock, OutputItem
from engine.values.turn_events import TurnEvent
from engine.wire.items import CustomToolCallItem, FunctionCallItem, Item

__all__ = ["Display", "Oddity", "made_call_id"]

Oddity: TypeAlias = Literal["repeated", "contradicted", "repaired", "unreadable"]
"""The oddities of the server's words."""

_CALLS: Final = (FunctionCallItem, CustomToolCallItem)


def made_call_id() -> str:
    """Make an id that no other call has."""
    return f"call_{token_hex(12)}"


class Display:
    """The part of one response that its caller was shown.

    Args:
        slots: The response's items.
        oddities: The count of oddities, to which repaired calls are added.
        made_call_id: Makes the id of a call that has none of its own.
        after: The display of the response before it, where both are one answer: its blocks are counted on.

    Attributes:
        drafts: The blocks, in the order in which they were shown.
        events: The events that are owed to the caller.
        grown: The block that the present event has written to; None while it has to none.
        as_held: Whether the blocks are what the server holds. A call whose id was made is not found there.
    """

    def __init__(
        self,
        slots: Slots,
        oddities: Counter[Oddity],
        made_call_id: Callable[[], str],
        *,
        after: Display | None,
    ) -> None:
        self._slots = slots
        self._oddities = oddities
        self._made_call_id: Callable[[], str] = made_call_id if after is None else after._made_call_id
        self._first: int = 0 if after is None else after._first + len(after.drafts)  # the index of its first block
        self._call_ids: set[str] = set() if after is None else after._call_ids
        self.drafts: list[Draft] = []
        self.events: list[TurnEvent] = []
        self.grown: Draft | None = None
        self.as_held: bool = True

    def is_shown(self, slot: Slot) -> bool:
        """Whether anything of an item was shown."""
        return any(draft.index is not None for draft in slot.drafts)

    def show(self, slot: Slot, *, whole: bool = False) -> bool:
        """Show what was written of an item, unless it may still turn out to be an earlier one told again.

        Args:
            slot: The item.
            whole: Whether no more will come of it.
        """
        if not self.is_shown(slot) and self._waits(slot, whole=whole):
            return False
        last = max((number for number, draft in enumerate(slot.drafts) if draft.written), default=0)
        for draft in slot.drafts[: last + 1]:
            if draft.index is None:
                self.begin(draft)
        return True

    def _waits(self, slot: Slot, *, whole: bool) -> bool:
        if slot.drafts and slot.drafts[0].kind == "call":
            item = slot.item
            if not isinstance(item, _CALLS) or not item.name:
                return True  # a call that is not introduced yet
            given = call_id_of(item)
            if not whole and (not given or given in self._call_ids):
                return True
            slot.drafts[0].block = call_block(item, self.named_call(slot, item))
            return False
        said = slot.written
        fitting = (
            each for each in self._slots.like(slot) if None in (each.phase, slot.phase) or each.phase == slot.phase
        )
        if whole:
            return bool(said) and any(each.written == said for each in fitting)
        return any(each.written.startswith(said) for each in fitting)

    def begin(self, draft: Draft) -> None:
        """Show a block, with what was written of it."""
        draft.index = self._first + len(self.drafts)
        self.drafts.append(draft)
        self.events.append(started(draft))
        if draft.written:
            self.events.append(delta(draft, draft.written))

    def write(self, slot: Slot, draft: Draft, text: str) -> None:
        """Take more of a block's text, and show it."""
        self.grown = draft
        text = draft.write(text)
        if text or draft.index is None:
            self.tell(slot, draft, text)

    def tell(self, slot: Slot, draft: Draft, text: str) -> None:
        """Tell the caller of text that was written, and of all that was held back with it."""
        if draft.index is None:
            self.show(slot)
        elif text:
            self.events.append(delta(draft, text))

    def catch_up(self, slot: Slot, draft: Draft, text: str) -> None:
        """Take a block's whole text and show what its deltas left out."""
        self.tell(slot, draft, draft.rewrite(text))

    def complete(self, draft: Draft, block: AssistantBlock, text: str) -> None:
        """Give a block its authoritative content, show what its deltas left out, and end it."""
        rest = draft.rewrite(text)
        if rest:
            self.events.append(delta(draft, rest))
        self.end(draft, block)

    def keep(self, slot: Slot, item: Item) -> None:
        """Keep an item whole in the place of a block; the caller is told nothing of it."""
        kept = Draft("item", OutputItem(item.raw), index=self._first + len(self.drafts), ended=True)
        slot.drafts = [kept]
        self.drafts.append(kept)

    def end(self, draft: Draft, whole: AssistantBlock | None = None) -> None:
        """End a block that is shown, with its content where that is known."""
        if draft.ended or draft.index is None:
            return
        if whole is None:
            rest = draft.rest()
            if rest:
                self.events.append(delta(draft, rest))
        draft.block = fuller_block(draft.block, whole) if whole is not None else draft.snapshot()
        draft.ended = True
        self.events.append(ended(draft))

    def named_call(self, slot: Slot, item: Call) -> str:
        """The id by which a call's result will find it: once told it stays, and no other call has it."""
        if not slot.call_id:
            given = call_id_of(item)
            slot.call_id = given if given and given not in self._call_ids else self._made_call_id()
            self._call_ids.add(slot.call_id)
            if slot.call_id != item.call_id:
                self._oddities["repaired"] += 1
                self.as_held = False
        return slot.call_id
