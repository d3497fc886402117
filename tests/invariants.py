"""What must hold after whatever a peer or a caller does, checked around a block of a test.

::

    async with contained(within=12.5) as held:
        stream = held.watch(client_end)         # must be closed when the block is left
        held.outside.start_soon(peer, server_end)
        ...

When the block is left, `contained` fails the test unless

- every task that was started below the block's own task has exited, those of ``held.outside`` apart;
- every watched stream is closed, a socket by its own file descriptor, so that no reference count helped;
- no more than ``within`` seconds have passed on Trio's clock;
- nothing escaped as a stray `trio.Cancelled`: one whose scope is not cancelled, which ends the tasks around it and then
  vanishes; a sibling task that was there before must still be alive;
- once the tasks in ``held.outside`` are gone too, the process has the sockets it had before, with the cyclic garbage
  collector switched off the whole time.

Tests expect failures with `pytest.raises` inside the block, which also shows that one plain exception was raised and
no group.
"""

from __future__ import annotations

import gc
import math
import os
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

__all__ = ["Held", "contained", "open_sockets", "said"]

_DESCRIPTORS = Path("/proc/self/fd")


def open_sockets() -> set[str]:
    """The sockets this process has open; empty where the system does not tell."""
    sockets = set()
    for entry in os.listdir(_DESCRIPTORS) if _DESCRIPTORS.exists() else ():
        try:
            target = os.readlink(_DESCRIPTORS / entry)
        except OSError:  # the one that listed the directory
            continue
        if target.startswith("socket:"):
            sockets.add(target)
    return sockets


def said(error: BaseException) -> str:
    """Everything an exception shows of itself: text, repr, arguments, and the traceback with its causes."""
    return "\n".join([str(error), repr(error), repr(error.args), *traceback.format_exception(error)])


class _TasksBelow(trio.abc.Instrument):
    """The tasks started below one task, those below one of its nurseries apart, that have not exited."""

    def __init__(self, top: trio.lowlevel.Task, outside: trio.Nursery) -> None:
        self.top = top
        self.outside = outside
        self.alive: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.alive.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.alive.discard(task)

    @property
    def left(self) -> list[str]:
        """Their names, as of now: `trio.Nursery.start` moves tasks between nurseries."""
        return sorted(task.name for task in self.alive if self._is_below(task))

    def _is_below(self, task: trio.lowlevel.Task) -> bool:
        above: trio.lowlevel.Task | None = task
        while above is not None and above is not self.top:
            nursery = above.parent_nursery
            above = None if nursery is None or nursery is self.outside else nursery.parent_task
        return above is self.top


@attrs.define
class Held:
    """What a block works with.

    Attributes:
        outside: For peers, and for whatever else lives longer than the block; cancelled behind it.
        started_at: When the block was entered, on Trio's clock.
    """

    outside: trio.Nursery
    started_at: float
    _streams: list[Any] = attrs.field(factory=list)

    def watch(self, stream: Any) -> Any:
        """Remember a stream that must be closed when the block is left, and return it."""
        self._streams.append(stream)
        return stream

    @property
    def elapsed(self) -> float:
        """Seconds since the block was entered, on Trio's clock."""
        return trio.current_time() - self.started_at

    @property
    def still_open(self) -> list[Any]:
        """The watched streams that nobody closed."""
        return [stream for stream in self._streams if _is_open(stream)]


def _is_open(stream: Any) -> bool:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        return stream.socket.fileno() != -1
    closed: bool = stream.closed
    return not closed


@asynccontextmanager
async def contained(*, within: float = math.inf) -> AsyncIterator[Held]:
    """Run a block and check what this module promises. ``within``: seconds the block may take, on Trio's clock."""
    collecting = gc.isenabled()
    gc.disable()
    before = open_sockets()
    sibling_lives = True

    async def sibling() -> None:
        nonlocal sibling_lives
        try:
            await trio.sleep_forever()
        finally:
            sibling_lives = False

    try:
        async with trio.open_nursery() as outside:
            outside.start_soon(sibling)
            await trio.lowlevel.checkpoint()
            tasks = _TasksBelow(trio.lowlevel.current_task(), outside)
            held = Held(outside, trio.current_time())
            trio.lowlevel.add_instrument(tasks)
            try:
                yield held
            except trio.Cancelled:
                assert trio.current_effective_deadline() == -math.inf, "a Cancelled escaped from its scope"
                raise
            finally:
                trio.lowlevel.remove_instrument(tasks)
            elapsed = held.elapsed
            assert tasks.left == []
            assert not held.still_open, f"streams left open: {held.still_open}"
            assert elapsed <= within + 1e-6, f"took {elapsed:g} s, {within:g} s are allowed"
            await trio.lowlevel.checkpoint()
            assert sibling_lives, "a sibling task was cancelled"
            outside.cancel_scope.cancel(reason="the block is over")
        left = open_sockets() - before
        assert not left, f"sockets left open: {left}"
    finally:
        if collecting:
            gc.enable()
