"""Figures: contestants of a case take turns, round after round, and what is claimed is the median of same-round ratios.

A machine's speed drifts from one minute to the next by more than the differences that matter. So a round lets every
contestant of a case run once, in an order that rotates, and a ratio divides two figures of the same round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import frozen

from benchmarks.cases import Case, Contestant, Measure, Skipped

__all__ = ["Summary", "Take", "interleaved", "ratios", "run_case", "summary"]


@frozen
class Summary:
    """The median of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float


def summary(samples: Sequence[float]) -> Summary | None:
    """Sum up samples; those that are not numbers are left out, and None is all that is said of none."""
    found = sorted(sample for sample in samples if not math.isnan(sample))
    if not found:
        return None
    if len(found) == 1:
        return Summary(found[0], found[0], found[0])
    low, _, high = statistics.quantiles(found, n=4, method="inclusive")
    return Summary(statistics.median(found), low, high)


def interleaved(contestants: Sequence[Contestant], rounds: int) -> Iterator[tuple[int, Contestant]]:
    """The order of play: every contestant once a round, and each round begins with the next one."""
    for number in range(rounds):
        start = number % len(contestants)
        for contestant in (*contestants[start:], *contestants[:start]):
            yield number, contestant


def ratios(samples: Sequence[float | None], base: Sequence[float | None]) -> list[float]:
    """Same-round ratios, of the rounds in which both have a figure."""
    return [
        mine / other
        for mine, other in zip(samples, base, strict=True)
        if mine is not None and other is not None and other != 0 and not math.isnan(mine) and not math.isnan(other)
    ]


Take: TypeAlias = Callable[[Case, Contestant, int], Awaitable[Mapping[str, Any]]]
"""Takes one sample; the number is its seed."""


async def run_case(
    case: Case, take: Take, *, rounds: int, seed: int, warm_up: int = 0, step: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Play all rounds of a case and sum them up, as plain data. If cancelled, nothing is returned.

    Args:
        case: The case.
        take: Takes one sample.
        rounds: The number of rounds that count.
        seed: Every contestant of a round gets the same seed, and every round another one.
        warm_up: Rounds before those, which do not count.
        step: Called after each sample.
    """
    rounds = min(rounds, case.rounds or rounds)
    found: dict[str, list[Mapping[str, Any] | None]] = {each.label: [None] * rounds for each in case.contestants}
    notes: dict[str, str] = {}
    for number, contestant in interleaved(case.contestants, warm_up + rounds):
        if contestant.label not in notes:
            try:
                result = await take(case, contestant, seed + number)
            except Skipped as skipped:
                notes[contestant.label] = str(skipped)
            else:
                if number >= warm_up:
                    found[contestant.label][number - warm_up] = result
        step()
    rows = []
    for contestant in case.contestants:
        figures = {}
        for measure in case.measures:
            mine = _column(found[contestant.label], measure.key)
            base = _column(found[case.baseline], measure.key) if case.baseline in found else None
            figures[measure.key] = _figure(measure, mine, base)
        row: dict[str, Any] = {"label": contestant.label, "peer": contestant.peer, "figures": figures}
        if contestant.label in notes:
            row["note"] = notes[contestant.label]
        rows.append(row)
    return {
        "name": case.name,
        "title": case.title,
        "baseline": case.baseline,
        "rounds": rounds,
        "measures": [
            {"key": each.key, "title": each.title, "unit": each.unit, "better": each.better} for each in case.measures
        ],
        "rows": rows,
    }


def _column(results: Sequence[Mapping[str, Any] | None], key: str) -> list[float | None]:
    return [float(result[key]) if result is not None and key in result else None for result in results]


def _figure(measure: Measure, mine: list[float | None], base: list[float | None] | None) -> dict[str, Any] | None:
    samples = [sample for sample in mine if sample is not None and not math.isnan(sample)]
    summed = summary(samples)
    if summed is None:
        return None
    figure: dict[str, Any] = {
        "samples": samples,
        "median": summed.median,
        "low": summed.low,
        "high": summed.high,
    }
    ratio = summary(ratios(mine, base)) if base is not None and measure.better != "right" else None
    if ratio is not None:
        figure |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    return figure
