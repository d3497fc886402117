"""The engine without Trio and without ``await``: for threads, scripts, notebooks, and beside a running event loop.

::

    from engine.blocking import open_session

    with open_session(Endpoint.from_env(), model="gpt-5.4") as session:
        print(session.ask("What is 2+2?").text)
        with session.turn("Tell me a story") as turn:
            for event in turn:
                ...

Methods and arguments are those of `engine`; what is awaited there waits here. One Trio thread for each ``open_…`` does
the work, so a handle may be used from every thread, and from several at the same time. Ctrl-C while something is waited
for cancels it. Where a block is inconvenient, as across the cells of a notebook, there are ``opener.open()`` and
``opener.close()``; what is open when the program ends is closed then.

Your functions (tools, ``approve``, ``on_round``, …) run in worker threads: they may block, and may use the engine
themselves. An ``async`` one runs under Trio. Instruments are told in the Trio thread, and must not wait.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

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


class _Portal(Portal):
    def closed(self) -> Exception:
        return engine.SessionClosed(f"{self.owner} was closed")

    def hosted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)
        async def in_a_thread(*args: Any, **kwargs: Any) -> Any:
            run = functools.partial(function, *args, **kwargs)
            result = await trio.to_thread.run_sync(run, abandon_on_cancel=True)
            return await result if inspect.isawaitable(result) else result

        return in_a_thread


def _waiting(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """Return an async method of the engine's as one that waits."""

    @functools.wraps(method)
    def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._portal.run(bound(self, method, args, kwargs))

    return wrapper


def _obtaining(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, Any]], kind: type[H]
) -> Callable[Concatenate[Any, P], H]:
    """Return an async method that gets an object as one that waits, and returns a handle of it."""

    @functools.wraps(method)
    def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> H:
        return kind(self._portal, self._portal.run(bound(self, method, args, kwargs)))

    return wrapper


# --- turns and conversations -----------------------------------------------------------------------------------------


class Reading(Streamed[T]):
    """The block of a turn or a reply, and its events."""

    def __enter__(self) -> Self:
        """Wait for what stands before it in its lane or conversation. Interrupted, nothing was sent."""
        try:
            self._portal.run(self._enter)
        except BaseException:
            self._out()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave at once, whatever the state: a turn that has not ended is abandoned."""
        self._out()

    def _out(self) -> None:
        with contextlib.suppress(engine.SessionClosed):  # what it was a part of has been left before it
            self._portal.run(self._leave)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TurnEvent:
        """Return the next turn event, running the tools of a reply where they come first. Interrupted, none is lost.

        Raises:
            engine.TurnError: the turn failed; the same error again if asked again.
        """
        if not self._events:
            try:
                self._portal.run(self._take)
            except StopAsyncIteration:
                raise StopIteration from None
        return self._events.popleft()


class Turn(Reading[engine.Turn], TurnFacts):
    """A request and its answer: ``with session.turn(...) as turn``, then iterate, or call `wait`. See `engine.Turn`."""

    @mirrored(_waiting(engine.Turn.steer))
    def steer(self) -> None:
        """See `engine.Turn.steer`."""

    @mirrored(_waiting(engine.Turn.inject))
    def inject(self) -> None:
        """See `engine.Turn.inject`."""

    @mirrored(_waiting(engine.Turn.wait))
    def wait(self) -> None:
        """See `engine.Turn.wait`."""


class Reply(Reading[engine.Reply], ReplyFacts):
    """An answer that is read as it comes: ``with chat.stream(...) as reply``, then iterate. See `engine.Reply`."""

    @mirrored(_waiting(engine.Reply.steer))
    def steer(self) -> None:
        """See `engine.Reply.steer`."""


class Conversation(ConversationFacts):
    """Keeps a transcript and runs the tool loop. See `engine.Conversation`."""

    @mirrored(_waiting(engine.Conversation.send))
    def send(self) -> None:
        """See `engine.Conversation.send`."""

    @mirrored(making(engine.Conversation.stream, Reply))
    def stream(self) -> None:
        """See `engine.Conversation.stream`."""


# --- sessions and engines --------------------------------------------------------------------------------------------


class Calls(Handle[T]):
    """The calls that sessions and lanes have in common."""

    @mirrored(_waiting(engine.Session.ask))
    def ask(self) -> None:
        """See `engine.Session.ask`."""

    @mirrored(making(engine.Session.conversation, Conversation))
    def conversation(self) -> None:
        """See `engine.Session.conversation`."""

    @mirrored(_waiting(engine.Session.parse))
    def parse(self) -> None:
        """See `engine.Session.parse`."""

    @mirrored(_waiting(engine.Session.run))
    def run(self) -> None:
        """See `engine.Session.run`."""

    @mirrored(making(engine.Session.turn, Turn))
    def turn(self) -> None:
        """See `engine.Session.turn`."""

    @mirrored(_waiting(engine.Session.warm_up))
    def warm_up(self) -> None:
        """See `engine.Session.warm_up`."""


class Lane(Calls[engine.Lane], LaneFacts):
    """One of several conversations of a session, side by side on its connection. See `engine.Lane`.

    As a ``with`` block it ends its turns, and is forgotten, when that is left.
    """

    def fork(self, name: str) -> Lane:
        """Return a new lane that begins where this one is now; see `engine.Lane.fork`."""
        return Lane(self._portal, self._portal.read(lambda: self._inner.fork(name)))

    def __enter__(self) -> Lane:
        """Own the lane until the block is left.

        Raises:
            engine.ConfigurationError: another block owns it.
        """
        self._portal.run(self._inner.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End its turns and forget it."""
        with contextlib.suppress(engine.SessionClosed):  # the session has been left before it
            self._portal.run(self._inner.__aexit__)


class Session(Calls[engine.Session], SessionFacts):
    """A conversation partner with a connection of its own, kept open between turns. See `engine.Session`."""

    @mirrored(_waiting(engine.Session.compact))
    def compact(self) -> None:
        """See `engine.Session.compact`."""

    @mirrored(making(engine.Session.fork, Lane))
    def fork(self) -> None:
        """See `engine.Session.fork`."""

    @mirrored(making(engine.Session.lane, Lane))
    def lane(self) -> None:
        """See `engine.Session.lane`."""


class Opener(Generic[H]):
    """An engine or a session to be opened: a ``with`` block, or `open` and `close`."""

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

    def open(self) -> H:
        """Open it, to be ended by `close`. Makes no connection."""
        if self._portal is not None:
            raise RuntimeError("it can be opened only once")
        portal = self._portal = self._within or _Portal(f"the {self._kind.__name__.lower()}")
        manager = self._make(portal)
        if self._within is None:
            portal.start(at_exit=self._at_exit)
        try:
            self._block = portal.block(manager)
            return self._kind(portal, portal.run(self._block.enter))
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """Release every session of it and wait, within bounds, until their sockets are gone. Once is enough.

        What still waits in other threads fails with `engine.SessionClosed`.
        """
        if self._block is None or self._portal is None or not self._portal.running:
            return
        block, self._block = self._block, None
        try:
            self._portal.run(block.leave)
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

    def __enter__(self) -> H:
        """Open it."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


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

    @mirrored(_waiting(engine.Engine.release))
    def release(self) -> None:
        """See `engine.Engine.release`."""

    @mirrored(_waiting(engine.Engine.drain))
    def drain(self) -> None:
        """See `engine.Engine.drain`."""

    @mirrored(_waiting(engine.Engine.request))
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
