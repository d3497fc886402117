"""A warm-up: an exchange that makes the server prepare and generates nothing.

It runs in a task of its own and is never anybody's turn: what it brings is thrown away, and a connection whose
warm-up stays unanswered is given up, so its late answer cannot be read as a turn's.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from engine.connections.websocket_link import Connection
from engine.protocol.chain import Held
from engine.protocol.exchange import Exchange
from engine.protocol.failures import Failure
from engine.values.turn_events import TurnEvent
from engine.wire.requests import CreateText

__all__ = ["WarmUp"]


class WarmUp:
    """One connection's warm-up.

    Args:
        connection: Where it goes.
        body: The body of the request it prepares for; its input is left out.
        text: The same as JSON text.
        seconds: How long it may take.

    Attributes:
        finished: Set when it is over, answered or not.
    """

    def __init__(self, connection: Connection, body: Mapping[str, Any], text: CreateText, seconds: float) -> None:
        self._connection = connection
        self._body = body
        self._text = text
        self._seconds = seconds
        self._over = trio.Event()
        self.finished: trio.Event = trio.Event()
        self.exchange: Exchange = Exchange()
        self.idle: float = math.inf
        self.last_progress: float | None = None
        self.context: contextvars.Context = contextvars.copy_context()

    async def run(self) -> None:
        """Send it and wait for its end. Never raises; cancelling it gives the connection up."""
        connection = self._connection
        try:
            with trio.move_on_after(self._seconds):
                if await connection.dispatch(self, self._text.frame(stream_id=connection.lane, generate=False)):
                    await self._over.wait()
        finally:
            if connection.abandon(self):
                connection.retire("its warm-up was not answered in time")
            connection.warmed_up()
            self.finished.set()

    def passed(self, now: float) -> None:
        """Nothing waits for this."""

    def received(self, events: Sequence[TurnEvent], now: float) -> None:
        """Nobody is shown what a warm-up brings."""
        self.last_progress = now

    def wake(self) -> None:
        """Nobody reads its events."""

    def ended(self) -> None:
        """It was answered, well or not: either way the connection can be used."""
        if self.exchange.continuable and self.exchange.response_id is not None:
            self._connection.chain.arm(Held.after(self.exchange.response_id, {**self._body, "input": []}, ()))
        self._over.set()

    def fail(self, failure: Failure) -> None:
        """The connection failed; the turn that waits for it will see to that."""
        self._over.set()

    def drained(self) -> None:
        """Nothing waits for this."""
