"""Whether it is worth trying to open a WebSocket to a server, by what became of the last tries.

Two failures to connect in a row open the breaker; while it is open, turns with another way do not try. Then one try is
let through at a time, and its success closes the breaker. What a server has been found not to have, a WebSocket at all
or labels on what it answers to named lanes, is remembered until `Breaker.reset`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from engine.protocol.labels import Labels

__all__ = ["Breaker", "BreakerState"]


class BreakerState(Enum):
    """The answers of a breaker to those who ask."""

    CLOSED = "closed"
    """Every turn may try."""
    OPEN = "open"
    """No try is allowed."""
    HALF_OPEN = "half_open"
    """One turn may, and the others wait for its outcome."""


class Breaker:
    """The breaker of one server and credential.

    Attributes:
        server: The server as it may be shown: its host, and its port where that is not the default.
        failures: Failures to connect in a row.
        no_websocket: The reason for taking the server to have no WebSocket; None as long as that was not found out.
        labels: Whether it answers on the lane that a request names.
    """

    def __init__(self, server: str, *, threshold: int, cooldown: float, clock: Callable[[], float]) -> None:
        self.server = server
        self.failures: int = 0
        self.no_websocket: str | None = None
        self.labels: Labels = Labels()
        self._threshold = threshold
        self._cooldown = cooldown
        self._clock = clock
        self._opened_at: float | None = None
        self._forbidden_until = -math.inf
        self._tries = 0
        self._probe: int | None = None

    def __repr__(self) -> str:
        return f"<Breaker of {self.server}, {self.failures} failures in a row>"

    @property
    def state(self) -> BreakerState:
        """The breaker's state now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.remaining > 0 else BreakerState.HALF_OPEN

    @property
    def remaining(self) -> float:
        """Seconds until a connection is tried again; 0 where it may be tried now."""
        if self._opened_at is None:
            return 0.0
        return max(self._opened_at + self._cooldown - self._clock(), 0.0)

    @property
    def objection(self) -> str | None:
        """The reason not to try now; None where a try is allowed."""
        if self.no_websocket is not None:
            return self.no_websocket
        if self._clock() < self._forbidden_until:
            return "the server refused the WebSocket upgrade with status 403, and HTTP worked"
        if self.state is BreakerState.OPEN:
            return "the breaker is open: the last connections to the server failed"
        if self.state is BreakerState.HALF_OPEN and self._probe is not None:
            return "the breaker is half open: another connection to the server is being tried"
        return None

    def reset(self) -> None:
        """Forget everything: let every turn try."""
        self.labels.forget()
        self.connected()

    def _close(self) -> None:
        self.failures = 0
        self._opened_at = None
        self._probe = None

    # --- what becomes of a try ---

    def begin(self) -> int:
        """Note that a try begins; returns its number."""
        self._tries += 1
        if self._probe is None and self.state is BreakerState.HALF_OPEN:
            self._probe = self._tries
        return self._tries

    def connected(self) -> None:
        """A try led to a connection."""
        self.no_websocket = None
        self._forbidden_until = -math.inf
        self._close()

    def answered(self, no_websocket: str | None = None) -> None:
        """A try was refused, so the server is there; and it said, where that is given, that it has no WebSocket."""
        self._close()
        self.no_websocket = no_websocket or self.no_websocket

    def forbidden(self) -> None:
        """A try was refused with 403, and HTTP worked with the same key: for a while no WebSocket is worth a try."""
        self._forbidden_until = self._clock() + self._cooldown

    def failed(self) -> None:
        """A try failed because the server was not there, or not able to serve."""
        self.failures += 1
        self._probe = None
        if self.failures >= self._threshold:
            self._opened_at = self._clock()

    def given_up(self, number: int) -> None:
        """The end of a try was not waited for, or it failed for a reason that says nothing of the server."""
        if self._probe == number:
            self._probe = None
