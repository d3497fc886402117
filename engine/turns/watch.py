"""The watch over a turn's silence: `idle`, counted from the last event, `first_event` and `start`.

It says which budget has run out, where a process that was busy must not blame the server.
"""

from __future__ import annotations

from typing import Final

import trio

from engine.connections.attempt import Attempt
from engine.connections.link import Link
from engine.protocol.failures import Expired
from engine.turns.timeline import Timeline

__all__ = ["SILENCES", "Watch"]

SILENCES: Final = frozenset({"start", "first_event", "idle"})
"""Budgets that end a silence. What has come in and was not read yet, because the process was busy, is no silence."""

_LOOKS: Final = 8
_QUIET_LOOKS: Final = 2


class Watch:
    """Looks whether a turn's time is over.

    Args:
        timeline: Its budgets.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    async def expired(self, attempt: Attempt | None, link: Link | None) -> Expired | None:
        """Return the budget that ran out; None where none did, or where something had come in and was not read yet.

        Cancellation cannot interrupt it; it ends by itself after a few checkpoints.
        """
        expired = self._look(attempt)
        quiet = 0
        for _ in range(_LOOKS):
            if expired is None or expired.phase not in SILENCES or link is None or quiet == _QUIET_LOOKS:
                break
            received = link.bytes_received
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            expired = self._look(attempt)
            quiet = quiet + 1 if link.bytes_received == received else 0
        return expired

    def _look(self, attempt: Attempt | None) -> Expired | None:
        if attempt is not None and attempt.last_progress is not None:
            self._timeline.start("idle", attempt.last_progress)
        if attempt is not None and attempt.done.is_set():
            return None
        return self._timeline.expired(trio.current_time())
