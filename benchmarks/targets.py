"""What is aimed at: ratios within one run, looked up in its results."""

from __future__ import annotations

from typing import Any, Final, Literal

from attrs import frozen

__all__ = ["TARGETS", "Found", "Target", "found"]


@frozen
class Target:
    """One aim.

    Attributes:
        aim: What it says.
        scenario: Where it is measured.
        case: In which table; where the size decides its name, how the name begins, and the last such table counts.
        label: In which row.
        measure: In which column.
        relation: Whether the figure should be at least, or at most, so much.
        bound: How much.
        figure: Whether the ratio or the figure itself counts.
    """

    aim: str
    scenario: str
    case: str
    label: str
    measure: str
    relation: Literal["≥", "≤"]
    bound: float
    figure: Literal["ratio", "median"] = "ratio"

    def reached_by(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.bound if self.relation == "≥" else value <= self.bound


@frozen
class Found:
    """What a run says of a target; no value where the run has none."""

    target: Target
    value: float | None

    @property
    def reached(self) -> bool | None:
        """Whether it was reached; None when it was not measured."""
        return None if self.value is None else self.target.reached_by(self.value)


_AGAINST: Final[tuple[tuple[str, str, Literal["ratio", "median"]], ...]] = (
    ("against sleeps beside the turns", "over_beside", "median"),
    ("against sleeps alone", "late_p99_ms", "ratio"),
)

TARGETS: Final = (
    Target("events a second of one stream, iterated", "throughput", "deltas", "engine", "events_per_second", "≥", 0.8),
    Target("the same with `ask`", "throughput", "deltas", "engine-ask", "events_per_second", "≥", 0.8),
    Target("events a second of 100 sessions", "throughput", "sessions-100", "engine", "events_per_second", "≥", 0.8),
    Target("a short turn on loopback", "latency", "short-turns", "engine", "us_per_turn", "≤", 1.15),
    Target("a short turn over a line of 20 ms", "latency", "short-turns-rtt-20", "engine", "us_per_turn", "≤", 1.15),
    Target("control back after a cancel, p99", "cancellation", "at-once", "engine", "back_p99_ms", "≤", 2.0),
    *(
        Target(
            f"lateness of `{phase}`, p99, {against}", "timeouts", "late-", f"engine, {phase}", measure, "≤", 2.0, figure
        )
        for against, measure, figure in _AGAINST
        for phase in ("queue", "start", "connect", "first_event", "idle", "turn")
    ),
    Target("KiB of a session with an open connection", "memory", "open", "engine", "kib_each", "≤", 48.0, "median"),
)


def found(result: dict[str, Any]) -> list[Found]:
    """Look every target up in a run."""
    return [Found(target, _value(result, target)) for target in TARGETS]


def _value(result: dict[str, Any], target: Target) -> float | None:
    cases = [
        case
        for scenario in result["scenarios"]
        if scenario["name"] == target.scenario
        for case in scenario["cases"]
        if case["name"] == target.case or (target.case.endswith("-") and case["name"].startswith(target.case))
    ]
    rows = [row for row in cases[-1]["rows"] if row["label"] == target.label] if cases else []
    figure = rows[0]["figures"].get(target.measure) if rows else None
    value = figure.get(target.figure) if figure is not None else None
    return float(value) if value is not None else None
