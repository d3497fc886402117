"""The scenarios: every case that is measured, in three sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.cases import Scenario
from benchmarks.scenarios.costs import codec, memory, start
from benchmarks.scenarios.crowds import batches, lanes
from benchmarks.scenarios.endings import cancellation, release, timeouts
from benchmarks.scenarios.sizes import Size
from benchmarks.scenarios.streams import fairness, latency, throughput

__all__ = ["SCENARIOS", "Size", "scenarios"]

SCENARIOS: Final[dict[str, Callable[[Size], Scenario]]] = {
    each.__name__: each
    for each in (throughput, fairness, latency, start, cancellation, timeouts, release, memory, codec, lanes, batches)
}


def scenarios(size: Size, names: Sequence[str] = ()) -> list[Scenario]:
    """The scenarios of a size; all, or the named ones in their own order."""
    return [make(size) for name, make in SCENARIOS.items() if not names or name in names]
