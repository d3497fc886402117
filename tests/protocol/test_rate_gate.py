"""The gate of a limited rate, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from engine.protocol.rate_gate import RateGate, RateGateState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> RateGate:
    gate = RateGate(clock=clock, jitter=lambda: 0.5)
    gate.limited(10)
    for turn in "abcd":
        gate.join(turn)
    return gate


def test_it_opens_to_one(gate: RateGate, clock: Clock) -> None:
    clock.now += 9.9
    assert not gate.admit("a")
    clock.now += 0.1
    assert not gate.admit("b")  # not its turn
    assert gate.admit("a")
    assert (gate.state, gate.opens_at, gate.admit("b")) == (RateGateState.TRYING, math.inf, False)


def test_then_spaced(gate: RateGate, clock: Clock) -> None:
    clock.now += 10
    gate.admit("a")
    gate.accepted("b")  # a turn from before
    assert gate.state is RateGateState.TRYING
    gate.accepted("a")
    for turn in "bcd":
        assert gate.admit(turn)
        assert gate.opens_at == clock.now + 0.25
        assert not gate.admit(str(gate.first))
        assert not gate.is_over
        clock.now += 0.25
    assert gate.is_over


def test_many_are_through_in_the_time_that_was_asked_for(clock: Clock) -> None:
    gate = RateGate(clock=clock, jitter=lambda: 0.5)
    gate.limited(1)
    for turn in range(1001):
        gate.join(turn)
    clock.now += 1
    gate.admit(0)
    gate.accepted(0)
    assert gate.admit(1)
    assert gate.opens_at == pytest.approx(clock.now + 0.001)


def test_another_refusal_holds_all_again(gate: RateGate, clock: Clock) -> None:
    clock.now += 10
    gate.admit("a")
    gate.limited(3)
    assert (gate.state, gate.remaining, gate.first) == (RateGateState.HOLDING, 3, "b")
    gate.limited(1)  # of two waits the longer one counts
    assert gate.remaining == 3


def test_the_next_one_tries_where_nothing_came_of_the_first(gate: RateGate, clock: Clock) -> None:
    clock.now += 10
    gate.admit("a")
    gate.left("a")
    gate.left("b")
    assert gate.admit("c")
    assert gate.state is RateGateState.TRYING
