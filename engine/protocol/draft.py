"""A block that is still being written: its text as it comes, and what of it can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias

from attrs import define, field

from engine.protocol.blocks import SECTION_BREAK, filled
from engine.values.blocks import AssistantBlock, OutputItem, Refusal, Text, Thinking, ToolCall
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
from engine.wire.text import Halves, is_well_formed

__all__ = ["Draft", "Kind", "Section", "delta", "deltas", "ended", "started"]

Kind: TypeAlias = Literal["text", "refusal", "thinking", "call", "item"]
Section: TypeAlias = Literal["summary", "content"]


@define(eq=False)
class Draft:
    """A block that is still being written.

    Attributes:
        kind: The block's kind, which decides on the deltas that it has.
        block: The block as far as it is known, apart from the text; the whole block once it has ended.
        index: Its place in the message; None while nothing of it was shown.
        hint: The position in its item that the server gave it first; None where it gave none.
        closed: Whether an event has given its whole text, or that of its present section.
        announced: Of reasoning: whether the server said that another section begins.
        steady: Of reasoning: whether two deltas of the present section had one position, so that another one counts.
        ended: Whether it is complete.
        section: Of reasoning: whether the summary or the text itself is shown.
    """

    kind: Kind
    block: AssistantBlock
    index: int | None = None
    hint: int | None = None
    closed: bool = False
    announced: bool = False
    steady: bool = False
    ended: bool = False
    section: Section | None = None
    _before: str = ""  # of reasoning: the sections before the present one, and the break after them
    _pieces: list[str] = field(factory=list)
    _halves: Halves = field(factory=Halves)

    @property
    def present(self) -> str:
        """The text so far; of reasoning, that of the present section."""
        pieces = self._pieces
        if len(pieces) > 1:
            pieces[:] = ["".join(pieces)]  # so that it is joined once, however often it is asked for
        return pieces[0] if pieces else ""

    @property
    def written(self) -> str:
        """The text so far."""
        return self._before + self.present if self._before else self.present

    def write(self, text: str) -> str:
        """Take more text, and return what of it is whole."""
        if self._halves.pending or not text.isascii():
            text = self._halves.join(text)
        if text:
            self._pieces.append(text)
        return text

    def extend(self, texts: list[str]) -> list[str]:
        """Take more text in pieces, and return what of each is whole."""
        whole = all(map(str.isascii, texts)) or is_well_formed("".join(texts))
        if self._halves.pending or not whole:
            texts = [self._halves.join(text) for text in texts]
        self._pieces += texts
        return texts

    def rewrite(self, text: str) -> str:
        """Take the whole text in place of what was written, and return what was not written yet.

        What was shown cannot be taken back: where it was something else, nothing is left to show.
        """
        before, written = self._before, self.written
        self._before = ""
        self._pieces = [text]
        self._halves = Halves()
        if text.startswith(written):
            return text[len(written) :]
        return _beyond(text, written) if before or SECTION_BREAK in text else ""

    def rewrite_section(self, text: str) -> str:
        """Take the whole text of the present section, and return what was not written yet."""
        present = self.present
        self._halves = Halves()
        if text.startswith(present):
            self._pieces = [text]
            return text[len(present) :]
        if text and present.startswith(text):  # the next section has begun unannounced
            self._before += text + SECTION_BREAK
            self._pieces = [present[len(text) :]]
            return ""
        return ""

    def begin_section(self) -> str:
        """Begin another section, and return the break to show between the two."""
        self.closed = self.steady = False
        if not self.present:
            return ""
        self._before += self.present + SECTION_BREAK
        self._pieces = []
        return SECTION_BREAK

    def rest(self) -> str:
        """Wait no longer for the other half of a character, and return what stands for it."""
        left = self._halves.rest()
        if left:
            self._pieces.append(left)
        return left

    def snapshot(self) -> AssistantBlock:
        """The block with what has been written so far."""
        return self.block if self.ended else filled(self.block, self.written)


def _beyond(text: str, written: str) -> str:
    """Return the part of a text beyond what was written, where that has fewer breaks between its sections."""
    left = written.replace(SECTION_BREAK, "")
    place = 0
    for section in text.split(SECTION_BREAK):
        if not left:
            break
        if len(left) < len(section):
            return text[place + len(left) :] if section.startswith(left) else ""
        if not left.startswith(section):
            return ""
        left = left[len(section) :]
        place += len(section) + len(SECTION_BREAK)
    return text[place - len(SECTION_BREAK) :] if not left and place <= len(text) else ""


def delta(draft: Draft, text: str) -> TurnEvent:
    """Say that a block has grown."""
    assert draft.index is not None
    return _DELTAS[draft.kind](draft.index, text)


def deltas(draft: Draft, texts: Iterable[str]) -> list[TurnEvent]:
    """Say that a block has grown piece by piece."""
    assert draft.index is not None
    make, index = _DELTAS[draft.kind], draft.index
    return [make(index, text) for text in texts if text]


def started(draft: Draft) -> TurnEvent:
    """Say that a block begins."""
    assert draft.index is not None
    match draft.block:
        case Text() | Refusal() as block:
            return TextStarted(draft.index, block)
        case Thinking() as block:
            return ThinkingStarted(draft.index, block)
        case ToolCall() as block:
            return ToolCallStarted(draft.index, block)
        case OutputItem():
            raise AssertionError("an item that is kept whole has no events")


def ended(draft: Draft) -> TurnEvent:
    """Say that a block is complete."""
    assert draft.index is not None
    match draft.block:
        case Text() | Refusal() as block:
            return TextEnded(draft.index, block)
        case Thinking() as block:
            return ThinkingEnded(draft.index, block)
        case ToolCall() as block:
            return ToolCallEnded(draft.index, block)
        case OutputItem():
            raise AssertionError("an item that is kept whole has no events")


_DELTAS: Final[Mapping[Kind, Callable[[int, str], TurnEvent]]] = {
    "text": TextDelta,
    "refusal": TextDelta,
    "thinking": ThinkingDelta,
    "call": ToolCallDelta,
}
