"""The last word on the items of one response: what it makes of their blocks, and what an earlier word adds to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Final

from engine.protocol.blocks import (
    Call,
    call_block,
    call_text,
    content_key,
    extra_of,
    fuller,
    fuller_block,
    is_replayable,
    reasoning_texts,
    spoken_blocks,
    thinking_block,
    unwrapped_arguments,
)
from engine.protocol.display import Display, Oddity
from engine.protocol.draft import Draft
from engine.protocol.slots import Slot, Slots, Spoken
from engine.values.blocks import AssistantBlock, OutputItem, Refusal, Text, Thinking
from engine.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    ReasoningItem,
    structure_item,
)

__all__ = ["Settlement", "joined"]

# Members of an item that say nothing before it is finished.
_UNFINISHED: Final = frozenset({"status", "encrypted_content"})

_CALL_TYPES: Final = frozenset({"function_call", "custom_tool_call"})


class Settlement:
    """Finishes the items of one response.

    Args:
        slots: The items.
        display: The part of them that the caller was shown.
        oddities: The count of oddities, to which theirs are added.
    """

    def __init__(self, slots: Slots, display: Display, oddities: Counter[Oddity]) -> None:
        self._slots = slots
        self._display = display
        self._oddities = oddities

    def finish(self, slot: Slot, item: Item, index: int | None = None, *, left: bool = False) -> None:
        """Take an item as it is in the end.

        Args:
            slot: The item as it was told so far.
            item: The last word on it.
            index: The position in that word; None where it has none.
            left: Whether the server never said that it is finished: what it said of it at first is the last word.
        """
        item = joined(slot.item, item) if not left else item
        slot.item = item
        key: Hashable = content_key(item)
        if left:
            key = (key, slot.written)  # of what it says the item has nothing
        same = None if self._display.is_shown(slot) else self._slots.repeated(item, slot, index, key)
        if same is not None:
            self._oddities["repeated"] += 1
            slot.repeat = True
            self.enrich(same, item)
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
            self._display.end(draft)
        if not self._display.is_shown(slot):
            if not left and is_replayable(item):
                self._display.keep(slot, item)
            elif _says_something(item):
                self._oddities["unreadable"] += 1
        self._slots.close(slot, item, index, key)

    def _finish_message(self, slot: Slot, item: MessageItem) -> None:
        blocks = spoken_blocks(item)
        if not isinstance(item.content, str) and len(blocks) < len(item.content) and blocks:
            self._oddities["unreadable"] += len(item.content) - len(blocks)
        kinds: dict[type[AssistantBlock], Spoken] = {Text: "text", Refusal: "refusal"}
        drafts = {kind: [each for each in slot.drafts if each.kind == kind] for kind in kinds.values()}
        beyond = ""  # text that was shown with a part and belongs to those after it
        for block in blocks:
            text = block.text if isinstance(block, Text) else block.refusal
            known = drafts[kinds[type(block)]]
            draft = known.pop(0) if known else slot.new_part(kinds[type(block)], None)
            if draft.index is None:
                self._display.begin(draft)
            written = draft.written
            if beyond and not written:
                shown = beyond if text.startswith(beyond) else text if beyond.startswith(text) else ""
                draft.write(shown)
                beyond = beyond[len(shown) :] if shown else ""
            elif not known and len(written) > len(text) and written.startswith(text):
                beyond = written[len(text) :]
            self._display.complete(draft, block, text)
        said = "".join(block.text if isinstance(block, Text) else block.refusal for block in blocks)
        for draft in (each for rest in drafts.values() for each in rest):
            if draft.written and draft.written in said:
                draft.rewrite("")  # a finished part has it
            elif draft.written and draft.index is None:
                self._display.begin(draft)

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
            self._display.begin(draft)
        # Only the finished item has all that a replay needs.
        self._display.complete(
            draft, Thinking(text, extra=extra_of(item)) if left else thinking_block(item, text), text
        )

    def _finish_call(self, slot: Slot, item: Call) -> None:
        if not item.name:
            return
        if not slot.drafts:
            slot.drafts.append(Draft("call", OutputItem({})))
        draft = slot.drafts[0]
        self._display.show(slot, whole=True)
        text = call_text(item)
        if not text.strip() and (draft.written or isinstance(item, FunctionCallItem)):
            text = draft.written or "{}"
        given, text = text, unwrapped_arguments(text) if isinstance(item, FunctionCallItem) else text
        if given != text or not isinstance(item.raw.get("arguments", item.raw.get("input")), str):
            self._oddities["repaired"] += 1
        self._display.complete(draft, call_block(item, self._display.named_call(slot, item), text), text)

    def enrich(self, slot: Slot, item: Item) -> None:
        """Add to a finished item what only another word on it has."""
        if slot.disagrees(item):
            self._oddities["contradicted"] += 1
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


def _says_something(item: Item) -> bool:
    """Whether something is lost with an item that nothing was made of."""
    if item.type in _CALL_TYPES or extra_of(item):
        return True
    parts = item.content if isinstance(item, MessageItem) else ()
    return any(any(part.raw.get(name) for name in ("text", "refusal")) for part in parts if not isinstance(part, str))


def _as_reasoning(raw: dict[str, Any]) -> ReasoningItem:
    item = structure_item(raw)
    assert isinstance(item, ReasoningItem)
    return item


def joined(early: Item | None, late: Item) -> Item:
    """The item as it is now, with what only an earlier word of it has."""
    if early is None or early.type != late.type:
        return late
    raw = fuller(early.raw, late.raw, without=_UNFINISHED)
    return late if raw is late.raw else structure_item(raw)
