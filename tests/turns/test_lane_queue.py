"""A lane's queue: first come, first served, one at a time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.protocol.failures import Closed, Failure
from engine.turns.lane import LaneQueue


class Waiter:
    """A turn, as a lane sees it."""

    def __init__(self, deadline: float = float("inf")) -> None:
        self.deadline = deadline
        self.granted: list[float] = []
        self.failures: list[Failure] = []
        self.draining = False
        self.asked_to_stop = 0

    def overdue(self, now: float) -> bool:
        return self.deadline <= now

    def grant(self, now: float) -> None:
        self.granted.append(now)

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)

    def stop_draining(self) -> bool:
        self.asked_to_stop += 1
        return self.draining


def served(lane: LaneQueue) -> tuple[object, int]:
    """Who has the lane, and how many wait for it."""
    return lane.active, lane.queued


async def test_first_come_first_served(mock_clock: MockClock) -> None:
    lane = LaneQueue()
    first, second, third = waiters = [Waiter() for _ in range(3)]
    for waiter in waiters:
        lane.enqueue(waiter)
    assert served(lane) == (first, 2)
    start = trio.current_time()
    mock_clock.jump(5)
    lane.release(first)
    assert served(lane) == (second, 1)
    lane.release(second)
    lane.release(third)
    assert served(lane) == (None, 0)
    assert [waiter.granted for waiter in waiters] == [[start], [start + 5], [start + 5]]
    lane.enqueue(first)
    assert served(lane)[0] is first


async def test_only_the_active_turn_can_release() -> None:
    lane = LaneQueue()
    first, second = Waiter(), Waiter()
    lane.release(first)
    lane.enqueue(first)
    lane.enqueue(second)
    lane.release(second)
    assert served(lane) == (first, 1)
    lane.release(first)
    lane.release(first)
    assert served(lane)[0] is second


async def test_turns_that_waited_too_long_are_passed_over(mock_clock: MockClock) -> None:
    lane = LaneQueue()
    now = trio.current_time()
    active, late, exact, fit = Waiter(), Waiter(now + 1), Waiter(now + 2), Waiter(now + 3)
    for waiter in (active, late, exact, fit):
        lane.enqueue(waiter)
    mock_clock.jump(2)
    lane.release(active)
    assert served(lane)[0] is fit
    assert (late.granted, exact.granted, late.failures, lane.queued) == ([], [], [], 0)


async def test_a_turn_that_is_overdue_on_arrival() -> None:
    lane = LaneQueue()
    late = Waiter(trio.current_time())
    lane.enqueue(late)
    assert (lane.active, lane.queued, late.granted) == (None, 0, [])


async def test_leaving_the_queue() -> None:
    lane = LaneQueue()
    first, second, third = Waiter(), Waiter(), Waiter()
    for waiter in (first, second, third):
        lane.enqueue(waiter)
    lane.remove(second)
    lane.remove(second)
    lane.remove(first)
    assert served(lane) == (first, 1)
    lane.release(first)
    assert served(lane)[0] is third
    assert second.granted == []


async def test_the_first_in_the_queue_may_end_the_drain_of_a_response_that_nobody_wants() -> None:
    lane = LaneQueue()
    active, first, second = Waiter(), Waiter(), Waiter()
    lane.claim(first)
    for waiter in (active, first, second):
        lane.enqueue(waiter)
    lane.claim(first)
    lane.claim(second)
    assert served(lane) == (active, 2)
    assert active.asked_to_stop == 1
    active.draining = True
    lane.claim(second)
    assert served(lane) == (active, 2)
    lane.claim(first)
    assert served(lane) == (first, 1)
    lane.release(active)
    assert served(lane) == (first, 1)


async def test_failing_fails_all_and_grants_nobody() -> None:
    lane = LaneQueue()
    waiters = [Waiter() for _ in range(3)]
    for waiter in waiters:
        lane.enqueue(waiter)
    failure = Closed("the session was released")
    lane.fail(failure)
    assert [waiter.failures for waiter in waiters] == [[failure]] * 3
    assert [len(waiter.granted) for waiter in waiters] == [1, 0, 0]
    assert lane.queued == 0
    lane.release(waiters[0])
    assert served(lane)[0] is None
    lane.fail(failure)
    assert len(waiters[0].failures) == 1


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_turn_that_acts_while_it_is_failed(leaves: bool) -> None:
    lane = LaneQueue()

    class Hasty(Waiter):
        def fail(self, failure: Failure) -> None:
            super().fail(failure)
            if leaves:
                lane.remove(second)
            lane.release(self)

    first, second = Hasty(), Waiter()
    lane.enqueue(first)
    lane.enqueue(second)
    lane.fail(Closed("the session was released"))
    assert (len(first.failures), len(second.failures), second.granted) == (1, 1, [])
    assert served(lane) == (None, 0)
