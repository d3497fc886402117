"""The dispatcher of one turn: which link its next attempt goes over, and how much of the input it has to carry."""

from __future__ import annotations

import logging
import math
from typing import Final

from engine.connections.attempt import Attempt, Origin, Sink
from engine.connections.link import Link
from engine.connections.warm_up import WarmUp
from engine.connections.websocket_link import WebSocketLink
from engine.protocol.chain import Plan
from engine.protocol.failures import Failure, TooLarge
from engine.protocol.recovery import Decision, Remedy
from engine.settings.levels import Settings
from engine.turns.lane import Lane
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline
from engine.values.choices import Delivery, Transport

__all__ = ["ON_THE_SAME", "Dispatcher"]

_logger = logging.getLogger("engine.turn")

ON_THE_SAME: Final[dict[Remedy, str]] = {
    Remedy.SAME_CONNECTION: "the server no longer held the previous response",
    Remedy.UNSEALED: "the server could not read sealed reasoning",
}
"""Remedies that need nothing but the connection there is → why the request is whole then."""


class Dispatcher:
    """Finds the link for each attempt of a turn, and makes the attempt for it.

    Args:
        lane: The turn's lane.
        submission: The turn's request.
        settings: The turn's settings.
        timeline: Its budgets, of which ``connect`` is the dispatcher's.

    Attributes:
        joined: The newest link whose dial it has waited for.
        again: Whether the next attempt is the last one, sent again where that was refused.
    """

    def __init__(self, lane: Lane, submission: Submission, settings: Settings, timeline: Timeline) -> None:
        self.joined: WebSocketLink | None = None
        self.again: bool = False
        self._lane = lane
        self._pool = lane.pool
        self._submission = submission
        self._settings = settings
        self._timeline = timeline
        self._barred: Lane | None = None  # the parent that waits until the server has begun to generate this
        self._warm_up: WarmUp | None = None
        self._full_because: str | None = None

    @property
    def room(self) -> float:
        """Bytes by which a later request may be larger than this one; infinite where it could go over HTTP."""
        over_websocket = self._settings.transport is Transport.WEBSOCKET
        return self._settings.limits.max_request_bytes - self._submission.size if over_websocket else math.inf

    @property
    def oversized(self) -> TooLarge | None:
        """The reason why the request cannot go over a WebSocket, if what the server holds does not make it shorter."""
        size, limit = self._submission.size, self._settings.limits.max_request_bytes
        lane = self._lane
        if size <= limit or self._pool.may_continue(lane.name, self._submission.body, lane.stored):
            return None
        return TooLarge(size, limit)

    async def link(self, transport: Transport) -> Link | Failure:
        """Return the link that there is, or what stands in the way. Cancelling only stops waiting for a dial."""
        if transport is Transport.WEBSOCKET and (oversized := self.oversized) is not None:
            return oversized
        return await self._pool.link(
            self._lane.name,
            transport,
            connect=self._settings.timeouts.connect,
            cautious=self._settings.transport is Transport.AUTO,
            on_joined=self._on_joined,
        )

    def _on_joined(self, link: WebSocketLink) -> None:
        """It waits for a dial, whose clock may have been running for a while."""
        self.joined = link
        self._timeline.start("connect", link.started_at)

    def too_slow(self, seconds: float) -> Failure:
        """Say what keeps the dial that it waits for from being over after so many seconds."""
        assert self.joined is not None
        return self.joined.too_slow(seconds)

    async def prepare(self, link: Link, origin: Origin) -> bool:
        """Whether the next attempt may go over a link; False where another look at the links is needed.

        A fresh connection is warmed up before, if that is wanted. Cancelling only stops waiting for that.
        """
        lane, submission = self._lane, self._submission
        if submission.warm_up and link.fresh(lane.name):
            warm_up = self._settings.timeouts.warm_up
            self._warm_up = self._pool.warm_up(link, origin, submission.body, submission.text, warm_up)
            submission.warm_up = False  # once per turn: one that kills its connection must not do so again
        warming = link.warming(lane.name)
        if warming is not None:
            await warming.wait()
            return False
        return link.prepare(lane.name, again=self.again)

    def give_place_back(self, holder: object) -> None:
        """Let another turn have the place; a warm-up that goes on without its turn keeps it until its end."""
        if self._warm_up is None or not self._warm_up.take_place(self._pool.places, holder):
            self._pool.places.give_back(holder)

    def attempt(self, link: Link, origin: Origin, number: int, sink: Sink) -> Attempt | TooLarge:
        """Make the next attempt, written for a link that is prepared."""
        submission, lane, limit = self._submission, self._lane, self._settings.limits.max_request_bytes
        barring = self._bar_parent(link)
        if self._full_because is not None and link.transport is Transport.WEBSOCKET:
            plan = Plan(full_because=self._full_because)
        else:
            plan = link.plan(lane.name, submission.body, stored=lane.stored)
        attempt = Attempt(
            origin,
            number,
            link.write(lane.name, submission.text, plan),
            plan,
            body=submission.body,
            patience=self._settings.timeouts.connect,
            sink=sink,
            text_format=submission.text_format,
        )
        if link.transport is Transport.WEBSOCKET and attempt.size > limit:
            return TooLarge(attempt.size, limit)
        if barring:
            attempt.on_begun = self.lift_bar
        return attempt

    def _bar_parent(self, link: Link) -> bool:
        """Let a fork's first request continue what its parent has there, and hold the parent back meanwhile.

        The parent's next request would make the server forget it, unless that is stored. Where a turn of the parent has
        its lane already, it may be on its way at any time, and nothing is held back any more.
        """
        lane, parent, held = self._lane, self._lane.parent, self._lane.held
        if parent is not None and held is not None and not held.stored:
            goes_on = self._full_because is not None or parent.active is not None
            if not goes_on and link.adopt(lane.name, held, parent=parent.name):
                self._barred = parent
                parent.bar(self)
                return True
        self.lift_bar()
        return False

    def lift_bar(self) -> None:
        """The server has begun to generate, or never will: the parent of a fork may go on."""
        barred, self._barred = self._barred, None
        if barred is not None:
            barred.lift(self)

    def follow(self, decision: Decision, failed: Attempt | None) -> None:
        """Let the next attempt differ from the one that failed as a decision wants it."""
        # A request that was refused in band, and whole, leaves its connection as good as it was.
        refused = failed is not None and failed.exchange.delivery is Delivery.REJECTED
        self.again = decision.remedy in ON_THE_SAME or (decision.remedy is Remedy.RETRY_AFTER and refused)
        if decision.remedy in ON_THE_SAME:
            self._full_because = ON_THE_SAME[decision.remedy]
            self._lane.stored = None
        if decision.remedy is Remedy.UNSEALED:
            self._unseal()

    def _unseal(self) -> None:
        """Leave the sealed reasoning out, now and in every later turn of the session."""
        refused = self._lane.refused_seals.add(self._submission.body)
        self._lane.counters.refused_seals += refused
        _logger.warning("sealed reasoning that the server cannot read is left out from now on: %d items", refused)
        self._submission.leave_out(self._lane.refused_seals)
        self._submission.encode()
