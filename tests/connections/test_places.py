"""Places: how many there are, who has one, and who waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.connections.places import Places, PlaceWait, Room
from engine.protocol.labels import Labels
from engine.settings.profiles import Profile


class Seeker:
    """Something that wants a place."""

    def __init__(self, deadline: float = float("inf")) -> None:
        self.deadline = deadline
        self.since: float | None = None

    def overdue(self, now: float) -> bool:
        return self.deadline <= now

    def on_place(self, now: float) -> None:
        assert self.since is None, "it has one"
        self.since = now


def places(number: int) -> Places:
    return Places(Room(Profile("p", multiplexing=True, proven=True, max_active=number), Labels(), connections=1))


async def test_first_come_first_served(mock_clock: MockClock) -> None:
    there = places(2)
    seekers = [Seeker() for _ in range(5)]
    for seeker in seekers:
        there.ask(seeker)
    assert [seeker.since for seeker in seekers] == [0, 0, None, None, None]
    assert (there.number, there.taken, there.waiting) == (2, 2, 3)
    there.give_back(seekers[3])  # it waits no longer
    mock_clock.jump(1)
    there.give_back(seekers[1])
    there.give_back(seekers[1])
    assert [seeker.since for seeker in seekers] == [0, 0, 1, None, None]
    there.give_back(seekers[0])
    assert [seeker.since for seeker in seekers] == [0, 0, 1, None, 1]
    assert (there.taken, there.waiting) == (2, 0)


async def test_a_place_that_is_passed_on_is_its_heirs_to_give_back() -> None:
    there = places(1)
    first, second, heir = Seeker(), Seeker(), object()
    there.ask(first)
    there.ask(second)
    there.pass_on(first, heir)
    there.give_back(first)
    assert (there.taken, there.waiting) == (1, 1)
    there.give_back(heir)
    assert second.since is not None
    there.pass_on(first, heir)  # it has none to pass on
    assert there.taken == 1


async def test_one_that_waited_too_long_is_passed_over(mock_clock: MockClock) -> None:
    there = places(1)
    first, late, fit = Seeker(), Seeker(deadline=1), Seeker()
    for seeker in (first, late, fit):
        there.ask(seeker)
    mock_clock.jump(1)
    there.give_back(first)
    assert (late.since, fit.since) == (None, 1)


async def test_their_number_follows_what_is_known_of_the_server() -> None:
    labels = Labels()
    there = Places(Room(Profile("p", multiplexing=True, max_active=3), labels, connections=2))
    seekers = [Seeker() for _ in range(5)]
    for seeker in seekers:
        there.ask(seeker)
    assert (there.number, there.taken) == (2, 2)
    labels.prove()
    there.give_back(seekers[0])
    assert (there.number, there.taken) == (3, 3)
    labels.disprove()
    there.give_back(seekers[1])
    assert (there.number, there.taken, there.waiting) == (2, 2, 1)
    there.give_back(seekers[2])
    assert (there.taken, there.waiting) == (2, 0)


@pytest.mark.parametrize("free", [True, False])
async def test_waiting_for_one(autojump_clock: MockClock, free: bool) -> None:
    there = places(1)
    holder, wait = Seeker(), PlaceWait(trio.current_time() + 5)
    there.ask(holder)
    there.ask(wait)
    if free:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_give_back_later, there, holder)
            assert await wait.wait()
        assert await wait.wait()
    else:
        assert not await wait.wait()
        there.give_back(wait)
    assert trio.current_time() == pytest.approx(1 if free else 5)
    assert there.waiting == 0


async def _give_back_later(there: Places, holder: object) -> None:
    await trio.sleep(1)
    there.give_back(holder)
