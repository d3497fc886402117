"""Lanes beside the one that is struck: each has a turn of its own in progress, which ends in its own way.

Whatever happens to the others, a turn that is to be answered gets its own answer, one that is to expire or overflow
does just that, and every lane's next turn is answered: each prompt has a number that no other has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
import trio
import trio.testing
from stepping import SOON, Scenario, World

import engine
from engine import Lane, OnCancel

__all__ = ["SIZES", "crowd"]

SIZES: Final = (2, 4, 16)

_STARTED: Final = 3
"""Seconds within which all of them are in progress."""


class _Neighbour:
    """A lane with a turn in progress, from before the strike until after it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.lane: Lane = world.session.lane(f"neighbour {number}")
        self.started = trio.Event()
        self.over = trio.Event()
        self.text, self.gate = world.gated()

    async def run(self) -> None:
        try:
            await self.act()
            await self.next_turn()
        finally:
            self.started.set()
            self.over.set()

    async def act(self) -> None:
        """Be answered."""
        async with self.lane.turn(self.text) as turn:
            await anext(turn)
            self.started.set()
            assert (await turn.wait()).text == self.text, "another lane's answer"

    async def next_turn(self) -> None:
        text, begun = self.world.prompt(), trio.current_time()
        assert (await self.lane.ask(text)).text == text, "the answer of an earlier turn, or of another lane's"
        took = trio.current_time() - begun
        assert took <= SOON + (5 if self.world.policy is OnCancel.DRAIN else 0), f"the lane's next turn took {took:g} s"


class _Expires(_Neighbour):
    async def act(self) -> None:
        """Run out of time, at the moment when the others go on."""
        budgets = engine.Timeouts(turn=_STARTED - trio.current_time() + self.world.held.started_at)
        with pytest.raises(engine.TurnTimeout) as caught:
            async with self.lane.turn(self.text, timeouts=budgets) as turn:
                await anext(turn)
                self.started.set()
                await turn.wait()
        assert caught.value.phase == "turn"
        assert caught.value.partial is not None
        assert caught.value.partial.text in self.text


class _Overflows(_Neighbour):
    async def act(self) -> None:
        """Stop reading, until what has come is too much."""
        read: list[str] = []
        with pytest.raises(engine.BufferOverflow):
            async with self.lane.turn(self.text, limits=engine.Limits(buffer_events=3)) as turn:
                await anext(turn)
                self.started.set()
                await self.gate.wait()
                await trio.sleep(0.5)
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        read.append(event.delta)
        assert self.text.startswith("".join(read))


class _Forks(_Neighbour):
    async def act(self) -> None:
        """Fork while the parent is cancelled."""
        await self.next_turn()
        forks = [self.lane.fork(f"{self.lane.name}, {name}") for name in ("before", "after")]
        with trio.CancelScope() as scope:
            async with self.lane.turn(self.text) as turn:
                await anext(turn)
                self.started.set()
                await self.gate.wait()
                scope.cancel(reason="the parent is cancelled")
                await self._ask(forks[0])
        await self._ask(forks[1])
        await self._ask(forks[0])

    async def _ask(self, fork: Lane) -> None:
        text = self.world.prompt()
        assert (await fork.ask(text)).text == text, "the answer of another lane's turn"


_KINDS: Final[tuple[Callable[[World, int], _Neighbour], ...]] = (_Neighbour, _Expires, _Overflows, _Forks)


def crowd(size: int) -> Scenario:
    """A turn of one lane that is left, its next one, and one of its fork, with so many lanes in all."""

    async def act(world: World) -> None:
        mine = world.session.lane("mine")
        neighbours = [_KINDS[number % len(_KINDS)](world, number) for number in range(size - 1)]
        for neighbour in neighbours:
            world.held.outside.start_soon(neighbour.run)
        for neighbour in neighbours:
            await neighbour.started.wait()
            world.after.append(neighbour.over.wait)
        await trio.sleep_until(world.held.started_at + _STARTED - 0.2)
        world.arm()
        try:
            async with mine.turn(world.prompt()) as turn:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        for neighbour in neighbours:
                            neighbour.gate.set()
                        break
            text = world.prompt()
            assert (await mine.fork("mine, forked").ask(text)).text == text
            await _ask(world, mine)
        finally:
            with trio.CancelScope(shield=True):
                for neighbour in neighbours:
                    neighbour.gate.set()
                for neighbour in neighbours:
                    await neighbour.over.wait()
                await _ask(world, mine)

    async def before(world: World) -> None:
        await _ask(world, world.session.lane("mine"))
        await trio.testing.wait_all_tasks_blocked()

    return Scenario(f"{size} lanes", act, before, bystander=False)


async def _ask(world: World, lane: Lane) -> None:
    text = world.prompt()
    assert (await lane.ask(text)).text == text, "the answer of an earlier turn, or of another lane's"
