"""The records of a store, and the results of its operations: frozen values, no I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import evolve, field, frozen

__all__ = ["Begun", "Claim", "HeldBy", "Intent", "Kind", "NewRow", "Row", "SessionRecord", "Taken"]


class Kind(StrEnum):
    """The kind of a session's row."""

    RESPONSE = "response"
    """A response whose calls are being run: the prompt, where it is the prompt's first, and the message."""
    RESULT = "result"
    """The output of one call of the response before it."""
    ROUND = "round"
    """A complete round: its messages, or nothing where the rows before it hold them."""
    REPLACE = "replace"
    """A transcript that stands in place of all rows before it."""


@frozen(kw_only=True)
class Claim:
    """The proof to the store that a session is held: every change names it.

    Attributes:
        session: The session's id.
        owner: The name of the process that holds it, for people to read.
        nonce: Made for this acquisition, so that asking twice with one nonce is asking once.
        token: Grows with each acquisition and never starts again: the fence.
    """

    session: str
    owner: str
    nonce: str
    token: int


@frozen(kw_only=True)
class Intent:
    """A prompt that was begun and is not answered yet.

    Attributes:
        key: The prompt's key.
        digest: A hash of the prompt, by which the same key with another prompt is noticed.
        begun_at: Seconds since the epoch, by the store's clock, of the first dispatch.
        attempts: The number of requests that were about to leave since the newest row, and may be at work.
        dispatches: The number of those that were about to leave since the prompt was begun, whatever became of them.
        dispatch: Made for the last of them, so that saying it twice counts once.
    """

    key: str
    digest: str
    begun_at: float
    attempts: int
    dispatches: int
    dispatch: str


@frozen(kw_only=True)
class Begun:
    """The prompts of a session that were begun and are not answered.

    Attributes:
        now: The newest of them; None where that was answered.
        earlier: Those that made way for another one, the newest hundred: their keys may be sent again.
    """

    now: Intent | None = None
    earlier: tuple[Intent, ...] = ()

    def of(self, key: str) -> Intent | None:
        """Return what is known of a prompt."""
        found = (self.now, *self.earlier)
        return next((each for each in found if each is not None and each.key == key), None)

    def with_newest(self, intent: Intent) -> Begun:
        """The same, with a prompt as the newest, whose earlier note it replaces."""
        others = (*self.earlier, self.now)
        left = tuple(each for each in others if each is not None and each.key != intent.key)
        return Begun(now=intent, earlier=left[-_MOST_EARLIER:])

    def without(self, key: str | None) -> Begun:
        """The same, when a prompt was answered."""
        now = None if self.now is None or self.now.key == key else self.now
        return Begun(now=now, earlier=tuple(each for each in self.earlier if each.key != key))

    def with_attempts(self, attempts: int) -> Begun:
        """The same, with as many requests of the newest that may be at work."""
        return self if self.now is None else evolve(self, now=evolve(self.now, attempts=attempts))


_MOST_EARLIER: Final = 100


@frozen(kw_only=True)
class Taken:
    """A session that was acquired.

    Attributes:
        claim: Proves it.
        head: The number of the newest row; 0 while there is none.
        base: The number of the newest `Kind.REPLACE` row, where reading begins; 0 while there is none.
        written: The fence of the newest row, which with its number tells it from every other; 0 while there is none.
        begun: The prompts that were begun and not answered.
    """

    claim: Claim
    head: int
    base: int
    written: int
    begun: Begun


@frozen(kw_only=True)
class HeldBy:
    """A session that another holds.

    Attributes:
        owner: The name of the process that holds it.
        seconds: Until its lease ends, unless it is renewed.
    """

    owner: str
    seconds: float


@frozen(kw_only=True)
class NewRow:
    """A row to be written.

    Attributes:
        kind: The kind of its content.
        prompt: The key of the prompt that it belongs to; None for `Kind.REPLACE`.
        last: Whether it answers the prompt.
        data: Its text, or bytes where a codec made them.
        key_id: The id of the codec's key; None for plain text.
    """

    kind: Kind
    prompt: str | None
    last: bool
    data: str | bytes = field(repr=False)
    key_id: str | None = None


@frozen(kw_only=True)
class Row:
    """A row as it was read, and not looked at yet; see `NewRow`.

    Attributes:
        number: Its place in the session, from 1.
    """

    number: int
    kind: str
    prompt: str | None
    last: bool
    data: str | bytes = field(repr=False)
    key_id: str | None


@frozen(kw_only=True)
class SessionRecord:
    """A session as `Store.sessions` lists it. Holds no content.

    Attributes:
        id: The session's id.
        owner: The holder's name, or the last holder's; None when it was released.
        expires_in: Seconds until its lease ends, negative when it has; None when it was released.
        rows: The number of its rows.
        updated: Seconds since the epoch of its last change.
        interrupted: Whether a prompt was begun and not answered.
    """

    id: str
    owner: str | None
    expires_in: float | None
    rows: int
    updated: float
    interrupted: bool
