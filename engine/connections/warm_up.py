"""A warm-up: an exchange that makes the server prepare and generates nothing.

It runs in a task of its own and is never a turn: what it brings is thrown away, and a connection whose warm-up stays
unanswered is given up, so its late answer cannot be read as a turn's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import evolve

from engine.connections.attempt import Attempt, Origin
from engine.connections.link import Link
from engine.connections.places import Places
from engine.protocol.chain import HeldResponse, Plan
from engine.values.choices import OnCancel
from engine.wire.requests import CreateText

__all__ = ["WarmUp"]


class WarmUp:
    """One lane's warm-up on one connection.

    Args:
        link: The link that it goes over.
        origin: The session and lane that it is for.
        body: The body of the request it prepares for; its input is left out.
        text: The same as JSON text.
        seconds: The most seconds that it may take.

    Attributes:
        finished: Set when it is over, answered or not.
    """

    def __init__(self, link: Link, origin: Origin, body: Mapping[str, Any], text: CreateText, seconds: float) -> None:
        self._link = link
        self._seconds = seconds
        frame = link.write(origin.lane, text, Plan(), generate=False)
        self._attempt = Attempt(evolve(origin, turn=0), 1, frame, Plan(), body={**body, "input": []})
        self.finished: trio.Event = trio.Event()
        self._places: Places | None = None

    @property
    def held(self) -> HeldResponse | None:
        """The items that the server holds then, for a request that fits."""
        return self._attempt.held

    @property
    def answered(self) -> bool:
        """Whether the server is prepared."""
        return self._attempt.exchange.continuable

    async def run(self) -> None:
        """Send it and wait for its end. Never raises; cancelling it gives the connection up."""
        link, attempt = self._link, self._attempt
        try:
            with trio.move_on_after(self._seconds):
                if await link.carry(attempt):
                    await attempt.done.wait()
        finally:
            link.abandon(attempt, OnCancel.CLOSE, wanted=False)
            link.end_warm_up(attempt.origin.lane)
            self.finished.set()
            if self._places is not None:
                self._places.give_back(self)

    def take_place(self, places: Places, holder: object) -> bool:
        """Hold the place of what it was begun for until its own end; False where it has ended."""
        if self.finished.is_set():
            return False
        self._places = places
        places.pass_on(holder, self)
        return True
