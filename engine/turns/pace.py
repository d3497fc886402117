"""The pace of one turn: how it waits while the server limits the rate, and makes the turns of other sessions wait."""

from __future__ import annotations

import trio

from engine.connections.gates import Gate
from engine.connections.pool import Pool
from engine.protocol.failures import Failed, RequestRefused, Throttled, UpgradeRefused, WebSocketBarred
from engine.protocol.faults import TOO_MANY_REQUESTS, Fault
from engine.protocol.recovery import Setback
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline
from engine.values.choices import Transport

__all__ = ["Pace"]


class Pace:
    """A turn's way through the gates of its server and key: of new WebSockets, and of its model.

    Args:
        lane: The name of its lane.
        pool: The links that it is sent over.
        submission: The turn's request.
        timeline: Its budgets, of which ``start`` has to cover the wait.
    """

    def __init__(self, lane: str | None, pool: Pool, submission: Submission, timeline: Timeline) -> None:
        self._lane = lane
        self._pool = pool
        self._submission = submission
        self._timeline = timeline
        self._dialling: Gate | None = None  # where it waits for a connection, or has gone first
        self._sending: Gate | None = None  # and where for its turn to send

    async def wait(self, transport: Transport, *, cautious: bool) -> Throttled | WebSocketBarred | None:
        """Wait out a limit that any turn of the engine has met; returns it at once if it is longer than ``start``.

        Cancelling takes the turn out of the queue.

        Args:
            transport: The transport that it goes over, `Transport.WEBSOCKET` or `Transport.SSE`.
            cautious: Whether it would rather go over HTTP than wait in vain for a connection.
        """
        gates = self._pool.gates
        gate = gates.upgrades if transport is Transport.WEBSOCKET else None
        if gate is not None and self._pool.must_dial(self._lane) and not gate.rule.is_tried_by(self):
            if (seconds := self._too_long(gate)) is not None:
                barred = f"the server limits the rate of connections for {seconds:.3g} s more"
                return WebSocketBarred(barred) if cautious else Throttled(seconds)
            self._dialling = gate
            await gate.wait(self)
        gate = gates.of(self._submission.model)
        if gate is not None and not gate.rule.is_tried_by(self):
            if (seconds := self._too_long(gate)) is not None:
                return Throttled(seconds)
            self._sending = gate
            await gate.wait(self)
        return None

    def _too_long(self, gate: Gate) -> float | None:
        """Return how long a gate stays closed, where that is longer than ``start``."""
        remaining = gate.rule.remaining
        return remaining if 0 < remaining >= self._timeline.left_to_start(trio.current_time()) else None

    def connected(self) -> None:
        """There is a connection."""
        gate, self._dialling = self._dialling, None
        if gate is not None:
            gate.accepted(self)

    def accepted(self) -> None:
        """The server has begun with the turn."""
        gate, self._sending = self._sending, None
        if gate is not None:
            gate.accepted(self)

    def failed(self, setback: Setback) -> bool:
        """An attempt failed; returns whether a gate holds the turn now, together with all others."""
        failure, held = setback.failure, False
        if setback.fault is Fault.RATE and isinstance(failure, RequestRefused | Failed):
            wait = failure.retry_after
            held = wait is not None and self._pool.gates.limited(self._submission.model, wait)
        elif isinstance(failure, UpgradeRefused) and failure.status == TOO_MANY_REQUESTS:
            gate = self._pool.gates.upgrades  # closed when the dial failed
            held = gate is not None and gate.rule.remaining > 0
        self.end()
        return held

    def end(self) -> None:
        """The turn is over, or its attempt: no other has to wait for it."""
        gates, self._dialling, self._sending = (self._dialling, self._sending), None, None
        for gate in gates:
            if gate is not None:
                gate.left(self)
