"""The other work of the machine while something was measured."""

from __future__ import annotations

from typing import Final

import psutil

__all__ = ["BUSY_FROM", "Watch", "busy"]

BUSY_FROM: Final = 0.05
"""The share of a machine's processors from which on other programs disturb."""


class Watch:
    """Sees how much of the machine's processors other programs take, from when it is made."""

    def __init__(self) -> None:
        self._all, self._busy, self._own = _times()

    def share(self) -> float:
        """The share of all processors that other programs had since, between 0 and 1."""
        total, taken, own = _times()
        passed = total - self._all
        return min(max((taken - self._busy - (own - self._own)) / passed, 0.0), 1.0) if passed > 0 else 0.0


def _times() -> tuple[float, float, float]:
    """Seconds that all processors have had, have worked, and have worked for this program and those it started."""
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # What a virtual machine's guests take is counted as its user's as well.
    total = sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
    program = psutil.Process()
    own = 0.0
    for process in (program, *program.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has just ended
        own += sum((times.user, times.system, times.children_user, times.children_system))
    return total, total - idle, own


def busy(share: float | None) -> bool:
    """Whether a share is so large that figures are not to be trusted to a few percent."""
    return share is not None and share >= BUSY_FROM
