"""Budgets: which of them runs out first, and what it is called."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol.budgets import Budgets
from engine.protocol.failures import Expired
from engine.settings.timeouts import Phase, ResolvedTimeouts

PHASES = tuple(attrs.fields_dict(ResolvedTimeouts))


def budgets(**seconds: float) -> Budgets:
    return Budgets(ResolvedTimeouts(**{name: seconds.get(name, math.inf) for name in PHASES}))


def test_nothing_runs() -> None:
    made = budgets(turn=1)
    assert made.deadline == math.inf
    assert made.expired(math.inf) is None
    made.stop("turn", "queue")
    assert made.deadline == math.inf


def test_the_earliest_wins() -> None:
    made = budgets(turn=10, start=5, send=2)
    for phase in ("turn", "start", "send"):
        made.start(phase, 100.0)
    assert made.deadline == 102.0
    assert made.expired(101.999) is None
    assert made.expired(102.0) == Expired("send", 2.0)
    assert made.expired(1000.0) == Expired("send", 2.0)


@pytest.mark.parametrize(
    ("phases", "named"),
    [
        (("send", "turn"), "turn"),
        (("start", "turn"), "turn"),
        (("connect", "start"), "start"),
        (("queue", "turn", "start"), "turn"),
        (("first_event",), "first_event"),
    ],
)
def test_ties_name_the_most_general(phases: tuple[Phase, ...], named: str) -> None:
    for order in (phases, phases[::-1]):
        made = budgets(**dict.fromkeys(phases, 3.0))
        for phase in order:
            made.start(phase, 0.0)
        assert made.expired(3.0) == Expired(named, 3.0)


def test_budgets_started_at_different_times_may_tie() -> None:
    made = budgets(turn=10, send=4)
    made.start("turn", 0.0)
    made.start("send", 6.0)
    assert made.expired(10.0) == Expired("turn", 10.0)


def test_no_limit() -> None:
    made = budgets(turn=math.inf)
    made.start("turn", 0.0)
    assert made.deadline == math.inf
    assert made.expired(1e300) is None


def test_a_budget_of_nothing() -> None:
    made = budgets(queue=0)
    made.start("queue", 7.0)
    assert made.expired(7.0) == Expired("queue", 0.0)


def test_starting_again() -> None:
    made = budgets(send=3, turn=100)
    made.start("turn", 0.0)
    made.start("send", 0.0)
    made.start("send", 2.0)
    assert made.deadline == 5.0
    assert made.expired(3.0) is None
    made.start("send", 1.0)
    assert made.deadline == 4.0


def test_stopping() -> None:
    made = budgets(send=3, start=5, turn=100)
    for phase in ("send", "start", "turn"):
        made.start(phase, 0.0)
    made.stop("send", "idle")
    assert made.deadline == 5.0
    made.stop("start", "send")
    assert made.deadline == 100.0
    made.stop("turn")
    assert made.deadline == math.inf
    assert made.expired(math.inf) is None


steps = st.lists(st.tuples(st.booleans(), st.sampled_from(PHASES), st.integers(0, 5)), max_size=12)


@settings(derandomize=True, deadline=None)
@given(st.fixed_dictionaries({name: st.just(math.inf) | st.integers(0, 5) for name in PHASES}), steps)
def test_against_a_model(seconds: dict[str, float], changes: list[tuple[bool, Phase, int]]) -> None:
    made = budgets(**seconds)
    running: dict[str, float] = {}
    now = 0
    for begins, phase, later in changes:
        now += later
        length = seconds[phase]
        if begins:
            made.start(phase, now)
            running[phase] = now + length
        else:
            made.stop(phase)
            running.pop(phase, None)
        assert made.deadline == min(running.values(), default=math.inf)
        expired = made.expired(now)
        assert (expired is not None) == (made.deadline <= now)
        if expired is not None:
            tied = {name for name, end in running.items() if end == made.deadline}
            assert expired.phase in tied
            assert expired.phase == "turn" or "turn" not in tied
            assert expired.phase in {"turn", "start"} or "start" not in tied
            assert expired.seconds == seconds[expired.phase]
