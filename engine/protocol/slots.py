"""The items of one response, and which of them a word of the server is about.

Servers name items by ids and by positions, and some of them have neither right: an id that is new in every event, one
for all items, none at all; a position that is missing, always 0, or counts events. So an id or a position that is
known proves that two words are about one item; one that is not known proves nothing, as long as an item is open that
the word may be about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, TypeAlias

from attrs import define, field

from engine.protocol.blocks import SECTION_BREAK, call_text, content_key, extra_of, reasoning_texts, spoken_blocks
from engine.protocol.draft import Draft
from engine.values.blocks import Refusal, Text
from engine.wire.base import JsonObject
from engine.wire.events import OutputEvent
from engine.wire.items import CustomToolCallItem, FunctionCallItem, Item, MessageItem, ReasoningItem

__all__ = ["Slot", "Slots", "Spoken", "position"]

Spoken: TypeAlias = Literal["text", "refusal"]
"""The kinds of a message's parts."""

_LOOKED_AT: Final = 16
"""The number of open items that a word without a known name is compared with."""


def position(raw: JsonObject, name: str) -> int | None:
    """A position in an event; None where it has none."""
    value = raw.get(name)
    return value if value.__class__ is int else None


@define(eq=False)
class Slot:
    """One item of a response, as far as it was told.

    Attributes:
        type: Its wire type.
        index: The position that the server gave it first; None where it gave none.
        announced: Whether the server said that the item begins.
        parted: Whether it said that a part of it begins.
        item: The item as far as it is known; None while only parts of it came.
        done: Whether the server said that the item is finished.
        done_at: The position that the server gave it last.
        call_id: Of a call: what pairs it with its output. Once told to the caller it stays.
        drafts: Its blocks, in the order of its parts.
        repeat: Whether it is an earlier item told again.
        key: Its content in canonical form, once it is finished.
    """

    type: str
    index: int | None = None
    announced: bool = False
    parted: bool = False
    item: Item | None = None
    done: bool = False
    done_at: int | None = None
    call_id: str = ""
    drafts: list[Draft] = field(factory=list)
    repeat: bool = False
    key: Hashable = None
    ids: set[str] = field(factory=set)

    @property
    def written(self) -> str:
        """The text of all its blocks."""
        drafts = self.drafts
        return drafts[0].written if len(drafts) == 1 else "".join(draft.written for draft in drafts)

    @property
    def phase(self) -> str | None:
        """Of a message, the phase as far as it is known."""
        return self.item.phase if isinstance(self.item, MessageItem) else None

    def new_part(self, kind: Spoken, hint: int | None) -> Draft:
        """Begin another part of a message."""
        item_id = (self.item.id if self.item is not None else None) or next(iter(self.ids), None)
        extra = extra_of(self.item)
        block = Text("", self.phase, item_id, extra=extra)
        draft = Draft(kind, block if kind == "text" else Refusal("", item_id, self.phase, extra=extra), hint=hint)
        self.drafts.append(draft)
        return draft

    def may_say(self, item: Item) -> bool:
        """Whether what was written of it is the beginning of what ``item`` says."""
        written = self.written
        return not written or any(
            text.startswith(written) or _bare(text).startswith(_bare(written)) for text in _texts(item)
        )

    def disagrees(self, item: Item) -> bool:
        """Whether both say something, and neither what the other one says."""
        written, said = self.written, _texts(item)
        if written in said:
            return False
        mine = _bare(written).strip()
        texts = [_bare(text).strip() for text in said]
        if not mine or not any(texts) or any(text and (text in mine or mine in text) for text in texts):
            return False
        return len(self.drafts) == 1 or not any(self._parts_are_in(text) for text in texts)

    def _parts_are_in(self, text: str) -> bool:
        """Whether a text has what was written of each part, in order; of some nothing may have been told."""
        end = 0
        for draft in self.drafts:
            start = text.find(_bare(draft.written).strip(), end)
            if start < 0:
                return False
            end = start + len(draft.written)
        return True

    def is_another_call(self, item: Item) -> bool:
        """Whether both are calls, and by their names not the same."""
        mine = self.item
        if not isinstance(item, FunctionCallItem | CustomToolCallItem) or not isinstance(mine, type(item)):
            return False
        return _differ(mine.call_id, item.call_id) or _differ(mine.name, item.name)


def _bare(text: str) -> str:
    """Text as it is compared: some servers have breaks between sections where others have none."""
    return text.replace(SECTION_BREAK, "")


def _differ(one: str, other: str) -> bool:
    return bool(one.strip() and other.strip()) and one != other


def _texts(item: Item) -> tuple[str, ...]:
    match item:
        case MessageItem():
            blocks = spoken_blocks(item)
            return ("".join(block.text if isinstance(block, Text) else block.refusal for block in blocks),)
        case ReasoningItem():
            return reasoning_texts(item)
        case FunctionCallItem() | CustomToolCallItem():
            return (call_text(item),)
    return ()


class Slots:
    """The items of one response.

    Attributes:
        closed: Whether any of them is finished.
    """

    def __init__(self) -> None:
        self.closed: bool = False
        self._all: list[Slot] = []
        self._open: dict[str, dict[int, Slot]] = {}  # by type, in order
        self._of_type: dict[str, list[Slot]] = {}
        self._by_id: dict[tuple[str, str], list[Slot]] = {}
        self._by_index: dict[tuple[str, int], Slot] = {}
        self._announces = False
        self._steady_ids: bool | None = None  # whether a second word on an item had the id of the first
        self._steady_indexes: bool | None = None  # the same of positions

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._all)

    def open(self, kind: str, item_id: str | None, index: int | None, *, announced: bool = False) -> Slot:
        """Take note of an item that was not heard of before."""
        slot = Slot(kind, index, announced)
        self._all.append(slot)
        self._of_type.setdefault(kind, []).append(slot)
        self._open.setdefault(kind, {})[id(slot)] = slot
        if index is not None:
            self._by_index[kind, index] = slot
        self.name(slot, item_id)
        self._announces = self._announces or announced
        return slot

    def name(self, slot: Slot, item_id: str | None) -> None:
        """Take note of an id by which the server speaks of an item."""
        if item_id and item_id not in slot.ids:
            slot.ids.add(item_id)
            self._by_id.setdefault((slot.type, item_id), []).append(slot)

    def close(self, slot: Slot, item: Item, index: int | None, key: Hashable) -> None:
        """Take note that an item is finished, with its `content_key`."""
        slot.item, slot.done, slot.key = item, True, key
        slot.done_at = index
        self.closed = True
        self.name(slot, item.id)
        self._open[slot.type].pop(id(slot), None)

    def latest_open(self, kind: str) -> Slot | None:
        """The item of this type that began last and is not finished."""
        opened = self._open.get(kind)
        return next(reversed(opened.values()), None) if opened else None

    def like(self, slot: Slot) -> Iterator[Slot]:
        """The last items of the same type, the latest first; none that is an earlier one told again."""
        latest = islice(reversed(self._of_type.get(slot.type, ())), 4 * _LOOKED_AT)
        return (each for each in latest if each is not slot and not each.repeat)

    def _named(self, kind: str, item_id: str | None, index: int | None) -> tuple[Slot | None, Slot | None]:
        """The open item and the finished one that an id and a position are known of."""
        named = self._by_id.get((kind, item_id), []) if item_id else []
        at = self._by_index.get((kind, index)) if index is not None else None
        unfinished = [slot for slot in named[-_LOOKED_AT:] if not slot.done]
        if unfinished:
            one_for_all = len(named) > 1 and at is not None and not at.done
            return (at if one_for_all else unfinished[-1]), None
        if at is not None and not at.done:
            return at, None
        return None, at if at is not None and (at in named or not named) else named[-1] if named else None

    def _learn(self, slot: Slot, item_id: str | None, index: int | None) -> None:
        """Take note of how a word names an item that is known: whether ids and positions can be relied on."""
        if item_id is not None and slot.ids:
            self._steady_ids = item_id in slot.ids and self._steady_ids is not False
        if index is not None and slot.index is not None:
            self._steady_indexes = index == slot.index and self._steady_indexes is not False
        self.name(slot, item_id)

    def knows(self, item_id: str | None, index: int | None) -> bool:
        """Whether another word with these names would teach nothing about the server's names."""
        return (item_id is None or self._steady_ids is not None) and (index is None or self._steady_indexes is not None)

    def _is_new(self, item_id: str | None, index: int | None) -> bool:
        """Whether a name that is not known is that of another item, from a server whose names can be relied on."""
        return bool((item_id and self._steady_ids) or (index is not None and self._steady_indexes))

    def of_part(
        self, kind: str, item_id: str | None, index: int | None, *, grows: bool, begins: bool = False
    ) -> Slot | None:
        """The item that a word about a part of it is about, which may be finished; None for one not heard of before.

        Args:
            kind: The wire type of items that have such parts.
            item_id: The id in the event.
            index: The position in the event.
            grows: Whether the word is more of a part, rather than its beginning or its end.
            begins: Whether it is its beginning.
        """
        unfinished, finished = self._named(kind, item_id, index)
        if unfinished is not None:
            self._learn(unfinished, item_id, index)
            return unfinished
        latest = self.latest_open(kind)
        # A server that announces its items, or their parts, would have announced this one.
        nameless = item_id is None and index is None
        expected = latest is not None and (latest.announced or (latest.parted and not begins))
        likely = latest is not None and (nameless or (expected and not self._is_new(item_id, index)))
        if latest is not None and likely and (not grows or (finished is None and not _is_whole(latest))):
            self._learn(latest, item_id, index)
            return latest
        if finished is not None and item_id is not None:
            known = item_id in finished.ids
            if known and not self._announces and finished.index != index:
                return None  # a server with one id for all its items
            if not known and self._steady_ids:
                return None  # a server with one position for all its items
        return finished

    def ended_before(self, kind: str, event: OutputEvent, text: str) -> Draft | None:
        """The part of a finished item whose end is told late, under another name; None where it is another part's."""
        item_id, index = event.item_id or None, position(event.raw, "output_index")
        named, finished_too = self._named(kind, item_id, index)
        shared = item_id is not None and len(self._by_id.get((kind, item_id), ())) > 1
        if (named is not None or finished_too is not None) and not shared:
            return None
        meant = named or self.latest_open(kind)
        if meant is not None and meant.written and text.startswith(meant.written):
            return None
        finished = (slot for slot in islice(reversed(self._of_type.get(kind, ())), _LOOKED_AT) if slot.done)
        drafts = (draft for slot in finished if not slot.repeat for draft in slot.drafts)
        return next((draft for draft in drafts if draft.written == text), None)

    def of_announcement(self, item: Item, index: int | None) -> Slot | None:
        """The open item that a server announces, where a word of it came before; None for a new one."""
        slot, _ = self._named(item.type, item.id, index)
        if slot is None and index is None:
            last = self._all[-1] if self._all else None
            if last is not None and not last.written and _announces_again(last, item):
                slot = last
            elif not item.id:
                slot = self.latest_open(item.type)
        if slot is None or slot.is_another_call(item):
            return None
        if not slot.announced or not slot.written:
            return slot
        elsewhere = None not in {index, slot.index} and index != slot.index
        return slot if item.id in slot.ids and not elsewhere else None

    def of_finished(self, item: Item, index: int | None) -> Slot | None:
        """The item that a server reports as finished; None for one not heard of before."""
        slot, _ = self._named(item.type, item.id, index)
        if slot is not None and not slot.is_another_call(item):
            sure = index is not None and slot.index == index
            sure = sure or (item.id in slot.ids and len(self._by_id[item.type, item.id or ""]) == 1)
            if sure or not slot.disagrees(item):
                return slot
        opened = list(self._open.get(item.type, {}).values())
        likely = [each for each in islice(opened, _LOOKED_AT) if not each.is_another_call(item) and each.may_say(item)]
        if isinstance(item, FunctionCallItem | CustomToolCallItem) and item.call_id:
            paired = [each for each in likely if _call_id(each) == item.call_id]
            likely = paired or [each for each in likely if not _call_id(each)]
        if not likely and len(opened) == 1 and not self._is_new(item.id, index):
            likely = [each for each in opened if each.announced and not each.is_another_call(item)]
        return max(likely, key=lambda each: len(each.written), default=None)

    def repeated(self, item: Item, slot: Slot, index: int | None, key: Hashable) -> Slot | None:
        """The finished item of which ``item``, told as ``slot``, is a repeat; ``key`` is its `content_key`.

        Messages and calls that say the same are one. Of other items two may say the same: there an id or a position
        has to prove it.
        """
        spoken = isinstance(item, MessageItem | FunctionCallItem | CustomToolCallItem)
        for each in self.like(slot):
            if each.key != key:
                continue
            names = {item.id} if item.id else set()
            proven = not names.isdisjoint(each.ids) or (index is not None and index in {each.index, each.done_at})
            nameless = not names and not each.ids and index is None
            if (spoken and each.phase == getattr(item, "phase", None)) or proven or nameless:
                return each
        return None

    def told_again(self, output: Sequence[Item]) -> bool:
        """Whether a terminal's list says of every item, word for word, what was said when it was finished."""
        told = [slot.item.raw for slot in self._all if slot.done and slot.item is not None and not slot.repeat]
        try:
            return len(told) == len(self._all) and told == [item.raw for item in output]
        except RecursionError:
            return False  # how deep values nest is the peer's choice

    def matched(self, output: Sequence[Item]) -> list[Slot | None]:
        """For each item of a terminal's list the one told before, None where there was none.

        The surest reasons count first, for all items, so that a weak one takes no item from a sure one.
        """
        left = [slot for slot in self._all if not slot.repeat]
        found: list[Slot | None] = [None] * len(output)
        keys = [content_key(item) for item in output]
        for reason in _REASONS:
            waiting: dict[Hashable, deque[Slot]] = {}
            for slot in left:
                for key in reason.of_slot(slot):
                    waiting.setdefault(key, deque()).append(slot)
            taken: set[int] = set()
            for number, item in enumerate(output):
                candidates = waiting.get(reason.of_item(item, keys[number])) if found[number] is None else None
                while candidates and id(candidates[0]) in taken:
                    candidates.popleft()
                free = (each for each in candidates or () if id(each) not in taken)
                match = next((each for each in islice(free, _LOOKED_AT) if reason.admits(each, item)), None)
                if match is not None:
                    found[number] = match
                    taken.add(id(match))
            left = [slot for slot in left if id(slot) not in taken]
        return found


def _announces_again(slot: Slot, item: Item) -> bool:
    """Whether an announcement differs from that of an open item in its id only."""
    if slot.item is None or slot.type != item.type or slot.done or not slot.announced:
        return False
    try:
        return {**slot.item.raw, "id": None} == {**item.raw, "id": None}
    except RecursionError:
        return False  # how deep values nest is the peer's choice


def _is_whole(slot: Slot) -> bool:
    return bool(slot.drafts) and slot.drafts[-1].closed


def _call_id(slot: Slot) -> str:
    return slot.item.call_id if isinstance(slot.item, FunctionCallItem | CustomToolCallItem) else ""


@define
class _Reason:
    """The reason why an item of a terminal's list is one told before."""

    of_slot: Callable[[Slot], Iterable[Hashable]]
    of_item: Callable[[Item, Hashable], Hashable]
    admits: Callable[[Slot, Item], bool]


def _always(_slot: Slot, _item: Item) -> bool:
    return True


def _pair(item: Item | None) -> Hashable:
    if isinstance(item, FunctionCallItem | CustomToolCallItem) and item.call_id.strip():
        return (item.type, item.call_id)
    return None


def _in_order(slot: Slot, item: Item) -> bool:
    """Whether type and order may pair them: a finished one stands for itself, the text of another must agree."""
    if slot.is_another_call(item):
        return False
    if slot.done:
        return not (item.id in slot.ids and slot.disagrees(item))
    return slot.may_say(item) or not slot.disagrees(item)


_REASONS: Final[tuple[_Reason, ...]] = (
    _Reason(  # one id, and what it says
        lambda slot: [(slot.type, name, slot.key) for name in slot.ids] if slot.done else (),
        lambda item, key: (item.type, item.id, key),
        _always,
    ),
    _Reason(lambda slot: (slot.key,) if slot.done else (), lambda _, key: key, _always),
    _Reason(  # one id, and the beginning of what it says
        lambda slot: [(slot.type, name) for name in slot.ids] if not slot.done and slot.written else (),
        lambda item, _: (item.type, item.id),
        lambda slot, item: slot.may_say(item) and not slot.is_another_call(item),
    ),
    _Reason(  # the beginning of what it says
        lambda slot: (slot.type,) if not slot.done and slot.written else (),
        lambda item, _: item.type,
        lambda slot, item: slot.may_say(item) and not slot.is_another_call(item),
    ),
    _Reason(  # one id
        lambda slot: [(slot.type, name) for name in slot.ids],
        lambda item, _: (item.type, item.id),
        lambda slot, item: not slot.is_another_call(item) and not (slot.done and slot.disagrees(item)),
    ),
    _Reason(  # one call id: the terminal's copy of a call may have other arguments
        lambda slot: (_pair(slot.item),) if _pair(slot.item) else (),
        lambda item, _: _pair(item),
        lambda slot, item: not slot.is_another_call(item),
    ),
    _Reason(lambda slot: (slot.type,), lambda item, _: item.type, _in_order),
)
