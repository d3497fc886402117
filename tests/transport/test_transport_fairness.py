"""Loud sockets share each step of the event loop, and none of them is forgotten."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from raw_peer import PING, frame
from trio.testing import MockClock

from engine.transport.fairness import Meter, meter
from engine.transport.inlet import Inlet

BUDGET = 0.001


class Rounds(trio.abc.Instrument):
    """Adds up what is spent between two looks at the network."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.each: list[float] = []

    def before_io_wait(self, timeout: float) -> None:
        if self.spent:
            self.each.append(self.spent)
        self.spent = 0.0


async def loud(shared: Meter, rounds: Rounds, seconds: Sequence[float], done: list[int], number: int) -> None:
    for each in seconds:
        try:
            await shared.admit()
            rounds.spent += each
            shared.spent(each)
            done.append(number)
        finally:
            await shared.leave()


@pytest.mark.parametrize("batch", [0.00001, 0.0002, 0.0009, 0.005])
async def test_a_step_of_the_loop_is_not_spent_on_messages_alone(autojump_clock: MockClock, batch: float) -> None:
    rounds, done = Rounds(), list[int]()
    trio.lowlevel.add_instrument(rounds)
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(loud, meter(), rounds, [batch] * 10, done, number)
    trio.lowlevel.remove_instrument(rounds)
    assert len(done) == 600
    assert max(rounds.each) <= 3 * BUDGET + 2 * batch
    assert trio.current_time() == 0


async def cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel(reason="as the test says")


async def within(
    scope: trio.CancelScope, shared: Meter, rounds: Rounds, seconds: list[float], done: list[int], number: int
) -> None:
    with scope:
        await loud(shared, rounds, seconds, done, number)


@pytest.mark.parametrize("seed", range(60))
async def test_none_is_forgotten_whoever_is_cancelled(autojump_clock: MockClock, seed: int) -> None:
    chance = random.Random(seed)
    shared, rounds, done = Meter(), Rounds(), list[int]()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for number in range(30):
                scope = trio.CancelScope()
                costs = [chance.choice([0.0001, 0.002]) for _ in range(5)]
                nursery.start_soon(within, scope, shared, rounds, costs, done, number)
                if number % 3 == 0:
                    nursery.start_soon(cancel_after, scope, chance.randrange(12))
    assert [done.count(number) for number in range(30) if number % 3] == [5] * 20


async def test_the_meter_is_one_for_all(autojump_clock: MockClock) -> None:
    assert meter() is meter()


# --- the inlet ---


def texts(count: int) -> bytes:
    return b"".join(frame(f"{number:0100}") for number in range(count))


async def test_little_is_taken_at_once_however_full_the_meter_is(autojump_clock: MockClock) -> None:
    batches: list[int] = []
    inlet = Inlet(1 << 20, lambda batch: batches.append(len(batch)), lambda: False)
    inlet.open()
    meter().spent(100)
    taking = inlet.feed(texts(30) + frame("p", PING), dropping=False)
    with pytest.raises(StopIteration) as stopped:
        taking.send(None)
    assert stopped.value.value == frame("p", PING)
    assert batches == [30]


async def test_much_lets_the_loop_come_round_between_its_batches(autojump_clock: MockClock) -> None:
    batches: list[int] = []
    rounds = Rounds()

    def take(batch: Sequence[str]) -> None:
        batches.append(len(batch))
        meter().spent(BUDGET)
        rounds.spent += 1

    inlet = Inlet(1 << 20, take, lambda: False)
    inlet.open()
    trio.lowlevel.add_instrument(rounds)
    assert await inlet.feed(texts(200) + frame("p", PING), dropping=False) == frame("p", PING)
    await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(rounds)
    assert batches == [64, 64, 64, 8]
    assert rounds.each == [1, 1, 1, 1]


async def test_nothing_is_handed_on_before_the_opening_nor_after_the_end(autojump_clock: MockClock) -> None:
    taken: list[str] = []
    over = False
    inlet = Inlet(1 << 20, taken.extend, lambda: over)
    await inlet.feed(frame("a") + frame("b"), dropping=False)
    assert taken == []
    inlet.open()
    assert taken == ["a", "b"]
    await inlet.feed(frame("c"), dropping=True)
    await inlet.feed(frame("d"), dropping=False)
    over = True
    await inlet.feed(frame("e"), dropping=False)
    assert taken == ["a", "b", "d"]


async def test_cancelled_between_two_batches_the_rest_counts_only_if_asked_for(autojump_clock: MockClock) -> None:
    taken: list[str] = []
    inlet = Inlet(1 << 20, taken.extend, lambda: False)
    inlet.open()
    with trio.CancelScope() as scope:

        def take(batch: Sequence[str]) -> None:
            taken.extend(batch)
            meter().spent(BUDGET)
            scope.cancel(reason="as the test says")

        inlet._on_texts = take
        await inlet.feed(texts(200), dropping=False)
    assert scope.cancelled_caught
    assert len(taken) == 64
    inlet.flush()
    assert [int(text) for text in taken] == list(range(200))


async def test_a_batch_that_brings_about_the_end_is_the_last(autojump_clock: MockClock) -> None:
    taken: list[str] = []
    inlet = Inlet(1 << 20, taken.extend, lambda: bool(taken))
    inlet.open()
    await inlet.feed(texts(200), dropping=False)
    assert len(taken) == 64
    inlet.flush()
    assert len(taken) == 64
