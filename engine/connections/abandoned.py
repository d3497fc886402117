"""The abandoned responses of a connection: no turn waits for them, but they have not ended yet."""

from __future__ import annotations

import math

from engine.connections.attempt import Attempt
from engine.protocol.exchange import Exchange

__all__ = ["Abandoned"]


class Abandoned:
    """The attempts of one connection that were given up, until nothing of their responses can come any more.

    Args:
        patience: Seconds that a response may still take which was left to itself.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._attempts: dict[Exchange, Attempt] = {}
        self._give_up_at: dict[Exchange, float] = {}

    def add(self, attempt: Attempt) -> None:
        """Its response is still to end."""
        self._attempts[attempt.exchange] = attempt

    def bound(self, exchange: Exchange, now: float) -> float:
        """Leave a response to itself, on a lane of its own; return when it will have taken too long."""
        self._give_up_at[exchange] = now + self._patience
        return self._give_up_at[exchange]

    def end(self, exchange: Exchange) -> None:
        """Nothing of a response can come any more. Nothing happens where it was not abandoned."""
        self._give_up_at.pop(exchange, None)
        attempt = self._attempts.pop(exchange, None)
        if attempt is not None:
            attempt.end_drain()

    def end_all(self) -> None:
        """Nothing can come any more of any."""
        attempts, self._attempts = self._attempts, {}
        self._give_up_at.clear()
        for attempt in attempts.values():
            attempt.end_drain()

    @property
    def give_up_at(self) -> float:
        """The time when the first of those left to themselves has taken too long; infinite where there is none."""
        return min(self._give_up_at.values(), default=math.inf)

    def give_up(self) -> None:
        """Look after the time of those no longer: their connection closes."""
        self._give_up_at.clear()
