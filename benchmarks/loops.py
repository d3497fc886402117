"""The two event loops behind one face, so that a job is written once for all peers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["AsyncioLoop", "Group", "Loop", "TrioLoop", "Victim"]

Thunk = Callable[[], Awaitable[Any]]


class Victim(Protocol):
    """A task that will be cancelled.

    Attributes:
        back: The time when its code had control again (`time.perf_counter`); None while it has not.
    """

    back: float | None

    def cancel(self) -> None:
        """Cancel it; returns at once."""
        ...

    async def wait(self) -> None:
        """Wait until it has ended."""
        ...


class Group(Protocol):
    """Tasks that end with a block."""

    def start(self, work: Thunk) -> Victim:
        """Start a task."""
        ...


class Event(Protocol):
    """Something to wait for."""

    def set(self) -> None:
        """Let go who waits."""
        ...

    async def wait(self) -> Any:
        """Wait for `set`."""
        ...


class Loop(Protocol):
    """An event loop, as far as jobs need to know it."""

    name: str

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """Run ``main`` in a loop of its own."""
        ...

    async def gather(self, work: Sequence[Thunk]) -> None:
        """Run all at once and wait for all."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        ...

    async def within(self, seconds: float, work: Thunk) -> bool:
        """Run ``work``, and say whether it ended by itself within ``seconds``."""
        ...

    def event(self) -> Event:
        """Make an event."""
        ...

    def group(self) -> AbstractAsyncContextManager[Group]:
        """Open a group of tasks."""
        ...


# --- trio ------------------------------------------------------------------------------------------------------------


class _TrioVictim:
    def __init__(self, work: Thunk) -> None:
        self._work = work
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.back: float | None = None

    async def run(self) -> None:
        with self._scope:
            try:
                await self._work()
            finally:
                self.back = time.perf_counter()
        self._ended.set()

    def cancel(self) -> None:
        self._scope.cancel(reason="the benchmark gave the turn up")

    async def wait(self) -> None:
        await self._ended.wait()


class _TrioGroup:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, work: Thunk) -> _TrioVictim:
        victim = _TrioVictim(work)
        self._nursery.start_soon(victim.run)
        return victim


class TrioLoop:
    """Trio."""

    name = "trio"

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return trio.run(main, strict_exception_groups=True)

    async def gather(self, work: Sequence[Thunk]) -> None:
        async with trio.open_nursery() as nursery:
            for each in work:
                nursery.start_soon(each)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def within(self, seconds: float, work: Thunk) -> bool:
        with trio.move_on_after(seconds) as scope:
            await work()
        return not scope.cancelled_caught

    def event(self) -> trio.Event:
        return trio.Event()

    @asynccontextmanager
    async def group(self) -> AsyncIterator[_TrioGroup]:
        async with trio.open_nursery() as nursery:
            yield _TrioGroup(nursery)


# --- asyncio ---------------------------------------------------------------------------------------------------------


class _AsyncioVictim:
    def __init__(self, work: Thunk) -> None:
        self._work = work
        self.back: float | None = None
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            self.back = time.perf_counter()

    def cancel(self) -> None:
        self._task.cancel()

    async def wait(self) -> None:
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


class _AsyncioGroup:
    def __init__(self) -> None:
        self.victims: list[_AsyncioVictim] = []

    def start(self, work: Thunk) -> _AsyncioVictim:
        victim = _AsyncioVictim(work)
        self.victims.append(victim)
        return victim


class AsyncioLoop:
    """asyncio."""

    name = "asyncio"

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        async def started() -> Any:
            return await main()

        return asyncio.run(started())

    async def gather(self, work: Sequence[Thunk]) -> None:
        await asyncio.gather(*(each() for each in work))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def within(self, seconds: float, work: Thunk) -> bool:
        try:
            async with asyncio.timeout(seconds) as scope:
                await work()
        except TimeoutError:
            if not scope.expired():
                raise
            return False
        return True

    def event(self) -> asyncio.Event:
        return asyncio.Event()

    @asynccontextmanager
    async def group(self) -> AsyncIterator[_AsyncioGroup]:
        group = _AsyncioGroup()
        yield group
        for victim in group.victims:
            await victim.wait()
