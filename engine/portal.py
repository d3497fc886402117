"""A thread that runs Trio, for programs that do not: calls go in, results and exceptions come out.

Like anyio's blocking portal, with three things that callers of an engine need and it does not give: a call runs in the
context variables of its caller, also when that is an asyncio task; a cancelled call is waited for; and an exit or an
interrupt that a function raises is its caller's, rather than the end of the thread.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, TypeVar

import trio

__all__ = ["Block", "Portal"]

T = TypeVar("T")

_PATIENCE: Final = 10.0
"""Seconds that an interrupted caller waits for the end of its call; every call of the engine's is quicker."""


class Portal:
    """One Trio thread, which lives as long as the handle that it was started for. Safe from every thread.

    Args:
        owner: That handle, as errors name it.
    """

    def __init__(self, owner: str = "what it belongs to") -> None:
        self.owner: str = owner
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._process = 0
        self._at_exit: Callable[[], None] = self.stop

    def start(self, at_exit: Callable[[], None]) -> None:
        """Start the thread. ``at_exit`` closes what is open in it, should that still be so when the program ends."""
        started: concurrent.futures.Future[tuple[trio.Nursery, trio.lowlevel.TrioToken]] = concurrent.futures.Future()
        # A daemon, since the interpreter waits for every other thread before it calls what is to be done at the end.
        thread = threading.Thread(target=_host, args=(started,), name="trio portal", daemon=True)
        self._process = os.getpid()
        thread.start()
        self._nursery, self._token = started.result()
        self._thread = thread
        self._at_exit = at_exit
        atexit.register(at_exit)

    def stop(self) -> None:
        """End the thread, cancelling what still runs there; once is enough."""
        thread, self._thread = self._thread, None
        if thread is None or self._nursery is None or self._token is None:
            return
        atexit.unregister(self._at_exit)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        thread.join()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._process == os.getpid()

    @property
    def _inside(self) -> bool:
        return threading.current_thread() is self._thread

    def closed(self) -> Exception:
        """Return what a call raises that comes too late."""
        return RuntimeError(f"{self.owner} was closed")

    def read(self, function: Callable[[], T]) -> T:
        """Call a synchronous function in the Trio thread and return its result; once that has ended, call it here."""
        if self._inside or not self.running:
            return function()
        try:
            return trio.from_thread.run_sync(function, trio_token=self._token)
        except trio.RunFinishedError:
            return function()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the Trio thread and return its result. An interrupt cancels it."""
        call = _Call(function)
        self._submit(call)
        try:
            return self._result(call)
        except BaseException:
            if not call.outcome.done():  # interrupted while waiting
                self._cancel(call)
                concurrent.futures.wait([call.outcome], _PATIENCE)
            raise

    async def run_from_asyncio(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the Trio thread. Cancelling the task cancels it there, and waits for that."""
        import asyncio  # programs without it need not load it

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        call = _Call(function)

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed, and with it all that waited
                loop.call_soon_threadsafe(ended.set)

        call.outcome.add_done_callback(tell)
        self._submit(call)
        try:
            await ended.wait()
        except asyncio.CancelledError:
            self._cancel(call)
            await ended.wait()
            raise
        return self._result(call)

    def _submit(self, call: _Call[Any]) -> None:
        if self._process not in {0, os.getpid()}:
            raise RuntimeError("it was opened before the process forked, and its thread did not come along")
        if self._inside:
            raise RuntimeError("this is called by Trio itself, which cannot wait for it: use a plain function instead")
        if self._token is None or self._nursery is None or self._thread is None:
            raise self.closed()
        context, nursery = contextvars.copy_context(), self._nursery

        def start() -> None:
            context.run(nursery.start_soon, call.run)

        try:
            self._token.run_sync_soon(start)
        except trio.RunFinishedError:
            raise self.closed() from None

    def _cancel(self, call: _Call[Any]) -> None:
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call.cancel)

    def _result(self, call: _Call[T]) -> T:
        try:
            return call.outcome.result()
        except concurrent.futures.CancelledError:
            raise self.closed() from None

    def block(self, manager: AbstractAsyncContextManager[T]) -> Block[T]:
        """Return ``manager`` as a block that a task of the thread enters and leaves."""
        if self._nursery is None:
            raise self.closed()
        return Block(manager, self._nursery)

    def hosted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what Trio runs in place of a function of the caller's."""
        return function


def _host(started: concurrent.futures.Future[tuple[trio.Nursery, trio.lowlevel.TrioToken]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            started.set_result((nursery, trio.lowlevel.current_trio_token()))
            await trio.sleep_forever()

    try:
        trio.run(main)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


class _Call(Generic[T]):
    """An async function on its way into the Trio thread, under way there, or done."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope = trio.CancelScope()
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    async def run(self) -> None:
        """Run it, in a task of its own. Raises nothing but the cancellation of the whole thread."""
        try:
            with self._scope:
                value = await self._function()
                self.outcome.set_result(value)
                return
        except trio.Cancelled:
            raise
        except BaseException as error:
            self.outcome.set_exception(error)
        finally:
            if self.outcome.cancel():  # it is false of one that has a result
                self.outcome.set_running_or_notify_cancel()

    def cancel(self) -> None:
        """Cancel it, or what has become of it."""
        self._scope.cancel(reason="its caller stopped waiting")


class Block(Generic[T]):
    """An ``async with`` block that a task of its own is inside of, from `enter` until `leave`.

    Both are for the Trio thread. A nursery has to be left by the task that entered it, and every call comes in as
    another task.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T], nursery: trio.Nursery) -> None:
        self._manager = manager
        self._nursery = nursery
        self._entered = trio.Event()
        self._leave = trio.Event()
        self._left = trio.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None

    async def enter(self) -> T:
        """Enter the block. If cancelled, it is left."""
        self._nursery.start_soon(self._live)
        try:
            await self._entered.wait()
        except trio.Cancelled:
            self._leave.set()
            raise
        if self._error is not None:
            raise self._error
        return self._value[0]

    async def leave(self) -> None:
        """Leave the block and wait until that is done. Cancelling stops waiting; the leaving goes on."""
        self._leave.set()
        await self._left.wait()
        if self._error is not None:
            raise self._error

    async def _live(self) -> None:
        try:
            async with self._manager as value:
                self._value.append(value)
                self._entered.set()
                await self._leave.wait()
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._error = error
        finally:
            self._entered.set()
            self._left.set()
