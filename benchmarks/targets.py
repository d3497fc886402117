"""The targets: ratios within one run, looked up in its results."""

from __future__ import annotations

from typing import Any, Final, Literal

from attrs import frozen

__all__ = ["TARGETS", "Found", "Target", "found"]


@frozen
class Target:
    """One aim.

    Attributes:
        aim: The words of it.
        scenario: The scenario that measures it.
        case: In which table; where the size decides its name, how the name begins, and the last such table counts.
        label: In which row.
        measure: In which column.
        relation: Whether the figure should be at least, or at most, so much.
        bound: The value that it must not miss.
        figure: Whether the ratio or the figure itself counts.
        why: The reason, where it is known to be missed.
    """

    aim: str
    scenario: str
    case: str
    label: str
    measure: str
    relation: Literal["≥", "≤"]
    bound: float
    figure: Literal["ratio", "median"] = "ratio"
    why: str = ""

    def reached_by(self, value: float) -> bool:
        """Return whether a value reaches it."""
        return value >= self.bound if self.relation == "≥" else value <= self.bound


@frozen
class Found:
    """The value of a target in a run; None where the run has none."""

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


_CPU: Final = "cpu_us_per_event"

_SHORT_TURN: Final = (
    "of a turn of nine events trio-websocket and `json.loads` give nine dictionaries; here queueing, budgets, the plan "
    "of the request, routing, the assembly of the message and the account of the turn come on top: some 800 function "
    "calls, none of them dear"
)
_LOUD: Final = (
    "batches take a millisecond of each step of the event loop, but the beginnings and ends of a hundred turns are "
    "shared out by nothing"
)
_RELEASE: Final = "a session has more tasks and more objects than a bare socket, and each is ended and freed by itself"
_MANY: Final = "an answer has 200 events there, or fewer: half of the time is the turn's own, as with the short turn"


def _events(what: str, case: str, *, why: str = "", **bounds: float) -> tuple[Target, ...]:
    """Targets of the processor time of an event, by contestant."""
    names = {"ask": "engine-ask", "iterated": "engine", "fast_ask": "engine-fast-ask", "fast": "engine-fast"}
    words = {"ask": "`ask`", "iterated": "iterated", "fast_ask": "`fast`, `ask`", "fast": "`fast`, iterated"}
    return tuple(
        Target(f"{what}, {words[key]}", "throughput", case, names[key], _CPU, "≤", bound, why=why)
        for key, bound in bounds.items()
    )


TARGETS: Final = (
    *_events("processor time of an event of 300 bytes", "deltas", ask=0.16, iterated=0.24, fast_ask=0.11, fast=0.19),
    *_events("the same of 6 KB, the end repeats nothing", "brief-6k", ask=0.45, iterated=0.45),
    *_events("the same of 6 KB, the end repeats everything", "events-6k", ask=0.72, iterated=0.72),
    *_events("the same of 64 KB", "events-64k", ask=1.1, iterated=1.1),
    *_events("the same of 300 bytes, 10 sessions", "sessions-10", ask=0.16, iterated=0.25),
    *_events("processor time of an event, 100 sessions", "sessions-100", ask=0.25, iterated=0.38, why=_MANY),
    *_events("processor time of an event, 1,000 sessions", "sessions-1000", ask=0.55, iterated=0.72, why=_MANY),
    Target("the same over HTTP, iterated", "throughput", "deltas", "engine-sse", _CPU, "≤", 1.0),
    Target(
        "processor time of a short turn, `ask`",
        "latency",
        "short-turns",
        "engine-ask",
        "cpu_us_per_turn",
        "≤",
        1.2,
        why=_SHORT_TURN,
    ),
    Target("the same over HTTP", "latency", "http-turns", "engine-sse", "cpu_us_per_turn", "≤", 1.3),
    Target("a short turn over a line of 20 ms", "latency", "short-turns-rtt-20", "engine", "us_per_turn", "≤", 1.15),
    Target("the start of a program with a first turn", "start", "imports", "engine, a first turn", "cpu_ms", "≤", 2.5),
    Target("`import engine`", "start", "imports", "engine, imported", "cpu_ms", "≤", 0.2),
    Target(
        "ms that timers are late beside 100 loud connections, p99",
        "fairness",
        "loud-100",
        "engine",
        "late_p99_ms",
        "≤",
        5.0,
        "median",
        _LOUD,
    ),
    Target(
        "release of 1,000 healthy sessions",
        "release",
        "release-healthy-1000",
        "engine",
        "cpu_ms",
        "≤",
        1.3,
        why=_RELEASE,
    ),
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
