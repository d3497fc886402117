"""The engine under asyncio.

::

    from engine.aio import open_session

    async with open_session(Endpoint.from_env(), model="gpt-5.4") as session:
        print((await session.ask("What is 2+2?")).text)
        async with session.turn("Tell me a story") as turn:
            async for event in turn:
                ...

Methods and arguments are those of `engine`. One Trio thread for each ``open_…`` does the work; a handle is used from
the event loop that opened it. Cancelling an asyncio task cancels what it waits for, and waits until that is done;
``asyncio.timeout`` works as everywhere. Methods that are not awaited, as `Session.turn`, ask the Trio thread too, which
takes some tens of microseconds.

Your functions (tools, ``approve``, ``on_round``, …) run in the event loop, as if you had called them yourself: async
ones may use asyncio, plain ones must not block. Instruments are told in the Trio thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

import trio

import engine
from engine.handles import (
    ConversationFacts,
    EngineFacts,
    Handle,
    LaneFacts,
    ReplyFacts,
    SessionFacts,
    Streamed,
    TurnFacts,
    bound,
    hosted,
    making,
    mirrored,
)
from engine.portal import Block, Portal

if TYPE_CHECKING:
    from engine.values.turn_events import TurnEvent

__all__ = ["Conversation", "Engine", "Lane", "Reply", "Session", "Turn", "open_engine", "open_session"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
H = TypeVar("H", bound=Handle[Any])

_PATIENCE: Final = 5.0
"""Seconds that a cancelled function of the caller's has for its cleaning up before nothing waits for it any more."""


class _Portal(Portal):
    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._loop = asyncio.get_running_loop()

    def closed(self) -> Exception:
        return engine.SessionClosed(f"{self.owner} was closed")

    def hosted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def in_the_loop(*args: Any, **kwargs: Any) -> Any:
            return await _Guest(self._loop, functools.partial(function, *args, **kwargs)).run()

        return in_the_loop


class _Guest:
    """A function of the caller's under way in the caller's event loop, which a Trio task waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
        self._loop = loop
        self._function = function
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._called_off = False

    async def run(self) -> Any:
        """Run it and return its result. If cancelled, it is cancelled, and waited for within bounds."""
        self._loop.call_soon_threadsafe(self._begin)
        try:
            await self._ended.wait()
        except trio.Cancelled:
            self._loop.call_soon_threadsafe(self._call_off)
            with trio.move_on_after(_PATIENCE, shield=True):
                await self._ended.wait()
            raise
        assert self._task is not None
        if self._task.cancelled():
            raise RuntimeError("a function that was run in the event loop was cancelled there")
        return self._task.result()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._call(), context=self._context)
        self._task.add_done_callback(self._end)
        if self._called_off:
            self._task.cancel()

    def _call_off(self) -> None:
        self._called_off = True
        if self._task is not None:
            self._task.cancel()

    async def _call(self) -> Any:
        result = self._function()
        return await result if inspect.isawaitable(result) else result

    def _end(self, task: asyncio.Task[Any]) -> None:
        try:
            self._token.run_sync_soon(self._ended.set)
        except trio.RunFinishedError:
            task.cancelled() or task.exception()  # nothing is left that would look at it


def _awaited(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return an async method of the engine's as one for asyncio."""

    @functools.wraps(method)
    async def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._portal.run_from_asyncio(bound(self, method, args, kwargs))

    return wrapper


def _obtaining(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, Any]], kind: type[H]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, H]]:
    """Return an async method that gets an object as one that returns a handle of it."""

    @functools.wraps(method)
    async def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> H:
        return kind(self._portal, await self._portal.run_from_asyncio(bound(self, method, args, kwargs)))

    return wrapper


# --- turns and conversations -----------------------------------------------------------------------------------------


class Reading(Streamed[T]):
    """The block of a turn or a reply, and its events."""

    async def __aenter__(self) -> Self:
        """Wait for what stands before it in its lane or conversation. If cancelled, nothing was sent."""
        try:
            await self._portal.run_from_asyncio(self._enter)
        except BaseException:
            await self._out()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave at once, whatever the state: a turn that has not ended is abandoned."""
        await self._out()

    async def _out(self) -> None:
        with contextlib.suppress(engine.SessionClosed):  # what it was a part of has been left before it
            await self._portal.run_from_asyncio(self._leave)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next turn event, running the tools of a reply where they come first. Cancelling loses no event.

        Raises:
            engine.TurnError: the turn failed; the same error again if asked again.
        """
        if not self._events:
            await self._portal.run_from_asyncio(self._take)
        return self._events.popleft()


class Turn(Reading[engine.Turn], TurnFacts):
    """A request and its answer: ``async with session.turn(...) as turn``, then iterate, or await `wait`."""

    @mirrored(_awaited(engine.Turn.steer))
    def steer(self) -> None:
        """See `engine.Turn.steer`."""

    @mirrored(_awaited(engine.Turn.inject))
    def inject(self) -> None:
        """See `engine.Turn.inject`."""

    @mirrored(_awaited(engine.Turn.wait))
    def wait(self) -> None:
        """See `engine.Turn.wait`."""


class Reply(Reading[engine.Reply], ReplyFacts):
    """An answer that is read as it comes: ``async with chat.stream(...) as reply``, then iterate."""

    @mirrored(_awaited(engine.Reply.steer))
    def steer(self) -> None:
        """See `engine.Reply.steer`."""


class Conversation(ConversationFacts):
    """Keeps a transcript and runs the tool loop. See `engine.Conversation`."""

    @mirrored(_awaited(engine.Conversation.send))
    def send(self) -> None:
        """See `engine.Conversation.send`."""

    @mirrored(making(engine.Conversation.stream, Reply))
    def stream(self) -> None:
        """See `engine.Conversation.stream`."""


# --- sessions and engines --------------------------------------------------------------------------------------------


class Calls(Handle[T]):
    """The calls that sessions and lanes have in common."""

    @mirrored(_awaited(engine.Session.ask))
    def ask(self) -> None:
        """See `engine.Session.ask`."""

    @mirrored(making(engine.Session.conversation, Conversation))
    def conversation(self) -> None:
        """See `engine.Session.conversation`."""

    @mirrored(_awaited(engine.Session.parse))
    def parse(self) -> None:
        """See `engine.Session.parse`."""

    @mirrored(_awaited(engine.Session.run))
    def run(self) -> None:
        """See `engine.Session.run`."""

    @mirrored(making(engine.Session.turn, Turn))
    def turn(self) -> None:
        """See `engine.Session.turn`."""

    @mirrored(_awaited(engine.Session.warm_up))
    def warm_up(self) -> None:
        """See `engine.Session.warm_up`."""


class Lane(Calls[engine.Lane], LaneFacts):
    """One of several conversations of a session, side by side on its connection. See `engine.Lane`.

    As an ``async with`` block it ends its turns, and is forgotten, when that is left.
    """

    def fork(self, name: str) -> Lane:
        """Return a new lane that begins where this one is now; see `engine.Lane.fork`."""
        return Lane(self._portal, self._portal.read(lambda: self._inner.fork(name)))

    async def __aenter__(self) -> Lane:
        """Own the lane until the block is left.

        Raises:
            engine.ConfigurationError: another block owns it.
        """
        await self._portal.run_from_asyncio(self._inner.__aenter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End its turns and forget it."""
        with contextlib.suppress(engine.SessionClosed):  # the session has been left before it
            await self._portal.run_from_asyncio(self._inner.__aexit__)


class Session(Calls[engine.Session], SessionFacts):
    """A conversation partner with a connection of its own, kept open between turns. See `engine.Session`."""

    @mirrored(_awaited(engine.Session.compact))
    def compact(self) -> None:
        """See `engine.Session.compact`."""

    @mirrored(making(engine.Session.fork, Lane))
    def fork(self) -> None:
        """See `engine.Session.fork`."""

    @mirrored(making(engine.Session.lane, Lane))
    def lane(self) -> None:
        """See `engine.Session.lane`."""


class Opener(Generic[H]):
    """An engine or a session to be opened: an ``async with`` block, or `open` and `close`."""

    def __init__(
        self,
        make: Callable[[Portal], AbstractAsyncContextManager[Any]],
        kind: type[H],
        within: Portal | None = None,
    ) -> None:
        self._make = make
        self._kind = kind
        self._within = within  # a thread that runs already; else one of its own is started
        self._portal: Portal | None = None
        self._block: Block[Any] | None = None

    async def open(self) -> H:
        """Open it, to be ended by `close`. Makes no connection. If cancelled, nothing stays open."""
        if self._portal is not None:
            raise RuntimeError("it can be opened only once")
        portal = self._portal = self._within or _Portal(f"the {self._kind.__name__.lower()}")
        manager = self._make(portal)
        if self._within is None:
            portal.start(at_exit=self._at_exit)
        try:
            self._block = portal.block(manager)
            return self._kind(portal, await portal.run_from_asyncio(self._block.enter))
        except BaseException:
            self._stop()
            raise

    async def close(self) -> None:
        """Release every session of it and wait, within bounds, until their sockets are gone. Once is enough.

        Cancelling cuts the wait short: the sockets are dropped.
        """
        if self._block is None or self._portal is None or not self._portal.running:
            return
        block, self._block = self._block, None
        try:
            await self._portal.run_from_asyncio(block.leave)
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._within is None and self._portal is not None:
            self._portal.stop()

    def _at_exit(self) -> None:
        try:
            if self._block is not None and self._portal is not None:
                self._portal.run(self._block.leave)
        finally:
            self._stop()

    async def __aenter__(self) -> H:
        """Open it."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()


def _opening_within(
    method: Callable[Concatenate[S, P], AbstractAsyncContextManager[Any]], kind: type[H]
) -> Callable[Concatenate[Any, P], Opener[H]]:
    """Return what opens something of an engine's, in the engine's thread."""

    @functools.wraps(method)
    def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> Opener[H]:
        manager = self._portal.read(bound(self, method, args, kwargs))
        return Opener(lambda portal: manager, kind, self._portal)

    return wrapper


class Engine(EngineFacts):
    """Sessions by id. See `engine.Engine`."""

    @mirrored(_opening_within(engine.Engine.open_session, Session))
    def open_session(self) -> None:
        """See `engine.Engine.open_session`."""

    @mirrored(_awaited(engine.Engine.release))
    def release(self) -> None:
        """See `engine.Engine.release`."""

    @mirrored(_awaited(engine.Engine.drain))
    def drain(self) -> None:
        """See `engine.Engine.drain`."""

    @mirrored(_awaited(engine.Engine.request))
    def request(self) -> None:
        """See `engine.Engine.request`."""

    @mirrored(_obtaining(engine.Engine.session, Session))
    def session(self) -> None:
        """See `engine.Engine.session`."""


def _opening(manager: Callable[P, AbstractAsyncContextManager[Any]], kind: type[H]) -> Callable[P, Opener[H]]:
    """Return what opens ``manager`` in a thread of its own."""

    @functools.wraps(manager)
    def opener(*args: P.args, **kwargs: P.kwargs) -> Opener[H]:
        def make(portal: Portal) -> AbstractAsyncContextManager[Any]:
            fields: dict[str, Any] = {name: hosted(name, value, portal.hosted) for name, value in kwargs.items()}
            return manager(*(hosted("", value, portal.hosted) for value in args), **fields)

        return Opener(make, kind)

    return opener


@mirrored(_opening(engine.open_engine, Engine))
def open_engine() -> None:
    """See `engine.open_engine`."""


@mirrored(_opening(engine.open_session, Session))
def open_session() -> None:
    """See `engine.open_session`."""


def __dir__() -> list[str]:
    return sorted(__all__)
