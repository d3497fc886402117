"""The breaker, on a clock of the test's own."""

from __future__ import annotations

import pytest

from engine.protocol.breaker import Breaker, BreakerState
from engine.settings.profiles import OPENAI


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("host", threshold=2, cooldown=60, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.begin()
        breaker.failed()


def test_it_opens_on_the_second_failure_in_a_row(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    assert (breaker.state, breaker.objection, breaker.failures) == (BreakerState.CLOSED, None, 1)
    fail(breaker)
    assert (breaker.state, breaker.failures, breaker.remaining) == (BreakerState.OPEN, 2, 60)
    assert breaker.objection is not None
    clock.now += 59
    assert (breaker.state, breaker.remaining) == (BreakerState.OPEN, 1)


@pytest.mark.parametrize("between", [Breaker.connected, Breaker.answered])
def test_whatever_shows_that_the_server_is_there_begins_the_count_anew(breaker: Breaker, between: object) -> None:
    fail(breaker)
    between(breaker)  # type: ignore[operator]
    fail(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_a_try_that_says_nothing_of_the_server_does_not_count(breaker: Breaker) -> None:
    fail(breaker)
    breaker.given_up(breaker.begin())
    assert breaker.failures == 1
    fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_one_try_at_a_time_after_the_pause(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now += 60
    assert (breaker.state, breaker.objection) == (BreakerState.HALF_OPEN, None)
    probe = breaker.begin()
    assert breaker.objection is not None
    other = breaker.begin()  # by somebody who does not ask
    breaker.given_up(other)
    assert breaker.objection is not None
    breaker.given_up(probe)
    assert breaker.objection is None


def test_the_try_decides(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    clock.now += 60
    fail(breaker)
    assert (breaker.state, breaker.remaining) == (BreakerState.OPEN, 60)
    clock.now += 60
    assert breaker.objection is None
    breaker.begin()
    breaker.connected()
    assert (breaker.state, breaker.failures, breaker.objection) == (BreakerState.CLOSED, 0, None)


def test_that_there_is_no_websocket_is_remembered_until_reset(breaker: Breaker, clock: Clock) -> None:
    breaker.answered("no WebSocket there")
    assert (breaker.state, breaker.objection) == (BreakerState.CLOSED, "no WebSocket there")
    clock.now += 10_000
    breaker.answered()
    assert breaker.objection == "no WebSocket there"
    breaker.reset()
    assert breaker.objection is None


def test_a_reset_closes_it(breaker: Breaker) -> None:
    fail(breaker, 5)
    breaker.reset()
    assert (breaker.state, breaker.failures, breaker.remaining, breaker.objection) == (BreakerState.CLOSED, 0, 0, None)


def test_whether_it_labels_its_answers_is_remembered_until_reset(breaker: Breaker) -> None:
    breaker.labels.disprove()
    breaker.connected()
    breaker.answered()
    assert not breaker.labels.named(OPENAI)
    breaker.reset()
    assert breaker.labels.named(OPENAI)


def test_its_repr_names_the_server(breaker: Breaker) -> None:
    assert repr(breaker) == "<Breaker of host, 0 failures in a row>"
