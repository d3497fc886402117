"""The errors of a store.

EngineError
├── StoreError               a store could not do what it was asked
│   ├── SessionHeld          another process holds the session
│   ├── LeaseLost            the session was this process's, and is not any more
│   └── StoreUnavailable     the database cannot be reached, is locked, or is full
└── TurnError
└── TurnInterrupted      a prompt was begun elsewhere, and may not be begun once more
"""

from __future__ import annotations

from engine.values.choices import Delivery
from engine.values.errors import TurnError
from engine.values.problems import EngineError

__all__ = ["LeaseLost", "SessionHeld", "StoreError", "StoreUnavailable", "TurnInterrupted"]


class StoreError(EngineError):
    """A store could not do what it was asked."""


class SessionHeld(StoreError):
    """Another process, or another block of this one, holds the session.

    Attributes:
        owner: Its name.
        seconds: Until its lease ends, unless it is renewed.
    """

    def __init__(self, session: str, owner: str, seconds: float) -> None:
        super().__init__(f"session {session!r} is held by {owner} for another {max(seconds, 0):.1f} s at least")
        self.owner = owner
        self.seconds = seconds


class LeaseLost(StoreError):
    """The lease of a session ended, or another took it over, while this process was still at work on it.

    What was committed stays. What was under way may have reached the server, and is not committed.
    """

    def __init__(self, session: str, why: str) -> None:
        super().__init__(f"the lease of session {session!r} was lost: {why}")


class StoreUnavailable(StoreError):
    """The database could not be reached, or refused; the cause says why. Whether a change was made is not known."""


class TurnInterrupted(TurnError):
    """A prompt was begun before, its outcome is unknown, and the retry policy does not allow to begin it once more.

    Attributes:
        key: The prompt's key.
        attempts: The number of its requests that were about to leave, over all processes.
    """

    def __init__(self, key: str, attempts: int) -> None:
        super().__init__(
            f"prompt {key!r} was begun {attempts} times without a known outcome; "
            "RetryPolicy.resend_ambiguous does not allow another",
            delivery=Delivery.AMBIGUOUS,
        )
        self.key = key
        self.attempts = attempts
