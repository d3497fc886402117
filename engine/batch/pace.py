"""The pace of a batch: one pause for all its prompts while the server limits their rate.

A turn waits out a limit as long as its ``start`` budget lasts, and fails then. A batch has more time: without a pause
all its prompts would fail one after the other, within seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from engine.batch.results import BatchResult
from engine.connections.gates import Gate
from engine.protocol.faults import TOO_MANY_REQUESTS, Fault, fault_of
from engine.protocol.rate_gate import RateGate
from engine.protocol.refusals import retry_after
from engine.settings.retry import ResolvedRetry
from engine.values.errors import ConnectFailed, RateLimited

__all__ = ["Pace"]

_LONGEST_BACK_OFF: Final = 60.0


class Pace:
    """Holds all prompts of a batch while a limit lasts that is longer than a turn waits; then lets one try.

    Args:
        patience: Seconds, from the last answer on, for which prompts are held; then they fail with the limit.
        policy: The waits where the server does not say how long.
    """

    def __init__(self, patience: float, policy: ResolvedRetry) -> None:
        self._patience = patience
        self._policy = policy
        self._gate: Gate | None = None
        self._since: float | None = None  # the first refusal after the last answer
        self._pauses = 0

    @property
    def pause(self) -> float:
        """Seconds until the next prompt leaves; 0 where none is held."""
        return self._gate.rule.remaining if self._gate is not None else 0.0

    async def answer(self, ask: Callable[[], Awaitable[BatchResult]]) -> BatchResult:
        """Ask until the answer is something else than a limit of the rate, or patience is at its end.

        Cancelling leaves the queue of those that wait.
        """
        turn = object()
        while True:
            gate = self._gate
            if gate is not None:
                await gate.wait(turn)
            try:
                result = await ask()
            except BaseException:
                self._over(gate, turn)
                raise
            if not self._is_held(result):
                self._over(gate, turn, answered=result.message is not None and not result.known)
                return result

    def _is_held(self, result: BatchResult) -> bool:
        wait = _asked_wait(result.error)
        if wait is None:
            return False
        now = trio.current_time()
        self._since = now if self._since is None else self._since
        if wait < 0:
            waits = self._policy.back_off or (_LONGEST_BACK_OFF,)
            wait = min(waits[min(self._pauses, len(waits) - 1)], _LONGEST_BACK_OFF)
        if now + wait - self._since > self._patience:
            return False
        if self.pause == 0:
            self._pauses += 1  # others that were under way meet the same limit
        if self._gate is None:
            self._gate = Gate(RateGate(clock=trio.current_time, jitter=self._policy.jitter))
        self._gate.limited(wait)
        return True

    def _over(self, gate: Gate | None, turn: object, *, answered: bool = False) -> None:
        if answered:
            self._since, self._pauses = None, 0
        if gate is None:
            return
        if answered:
            gate.accepted(turn)
        else:
            gate.left(turn)
        if gate.rule.is_over and self._gate is gate:
            self._gate = None


def _asked_wait(error: Exception | None) -> float | None:
    """Return the seconds that the server asks to wait, negative where it does not say; None for any other error."""
    if isinstance(error, RateLimited):
        if fault_of(error.status, error.code, error.type) is Fault.QUOTA:
            return None
        return -1.0 if error.retry_after is None else error.retry_after
    if isinstance(error, ConnectFailed) and error.status == TOO_MANY_REQUESTS:
        wait = retry_after(dict(error.headers))
        return -1.0 if wait is None else wait
    return None
