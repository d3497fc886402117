"""The pace of one turn: how it waits while the server limits the rate, and makes the turns of other sessions wait."""

from __future__ import annotations

import trio

from engine.connections.gates import Gate
from engine.connections.pool import Pool
from engine.protocol.failures import Failed, RequestRefused, Throttled
from engine.protocol.faults import Fault
from engine.protocol.recovery import Setback
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline

__all__ = ["Pace"]


class Pace:
    """A turn's way through the gate of its server, key and model.

    Args:
        pool: The links that it is sent over.
        submission: The turn's request.
        timeline: Its budgets, of which ``start`` has to cover the wait.
    """

    def __init__(self, pool: Pool, submission: Submission, timeline: Timeline) -> None:
        self._pool = pool
        self._submission = submission
        self._timeline = timeline
        self._gate: Gate | None = None  # where it waits, or has gone first

    async def wait(self) -> Throttled | None:
        """Wait out a limit that any turn of the engine has met; returns it at once if it is longer than ``start``.

        Cancelling takes the turn out of the queue.
        """
        gate = self._pool.gates.of(self._submission.model)
        if gate is None:
            return None
        remaining = gate.rule.remaining
        if remaining > 0 and remaining >= self._timeline.left_to_start(trio.current_time()):
            return Throttled(remaining)
        self._gate = gate
        await gate.wait(self)
        return None

    def accepted(self) -> None:
        """The server has begun with the turn."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.accepted(self)

    def failed(self, setback: Setback) -> bool:
        """An attempt failed; returns whether the gate holds the turn now, together with all others."""
        failure, held = setback.failure, False
        if setback.fault is Fault.RATE and isinstance(failure, RequestRefused | Failed):
            wait = failure.retry_after
            held = wait is not None and self._pool.gates.limited(self._submission.model, wait)
        self.end()
        return held

    def end(self) -> None:
        """The turn is over, or its attempt: no other has to wait for it."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.left(self)
