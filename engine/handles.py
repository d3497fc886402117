"""Objects of the engine's as programs see them that do not run Trio: what `engine.blocking` and `engine.aio` share.

A handle holds one object of the engine's and has its methods; each is called in the Trio thread. Arguments and results
are plain values, but for functions of the caller's, which Trio gets in a form that it can run.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import attrs

import engine
from engine.portal import Portal
from engine.schemas.function_tool import as_tool
from engine.turns.texts import Texts

if TYPE_CHECKING:
    from engine.connections.breakers import Breakers
    from engine.conversation.rounds import Progress
    from engine.values.messages import Message
    from engine.values.turn_events import TurnEvent

__all__ = [
    "ConversationFacts",
    "EngineFacts",
    "Handle",
    "LaneFacts",
    "ReplyFacts",
    "SessionFacts",
    "Streamed",
    "TurnFacts",
    "bound",
    "making",
    "mirrored",
    "reading",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
H = TypeVar("H", bound="Handle[Any]")


class Handle(Generic[T]):
    """An object of the engine's; every method runs in the Trio thread."""

    def __init__(self, portal: Portal, inner: T) -> None:
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)


def mirrored(method: T) -> Callable[[Callable[..., object]], T]:
    """Put a method of the engine's, as it is on this side, in the place of its declaration."""
    return lambda declaration: method


def reading(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return a synchronous method of the engine's as a method of a `Handle`."""

    @functools.wraps(method)
    def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._portal.read(bound(self, method, args, kwargs))

    return wrapper


def making(method: Callable[Concatenate[S, P], Any], kind: type[H]) -> Callable[Concatenate[Any, P], H]:
    """Return a synchronous method that makes an object as one that makes a `Handle` of it."""

    @functools.wraps(method)
    def wrapper(self: Handle[Any], /, *args: P.args, **kwargs: P.kwargs) -> H:
        return kind(self._portal, self._portal.read(bound(self, method, args, kwargs)))

    return wrapper


# --- functions of the caller's ---------------------------------------------------------------------------------------

_Host = Callable[[Callable[..., Any]], Callable[..., Any]]
_AT_ONCE: Final = 64
"""Events that come over in one go."""
_FUNCTIONS: Final = frozenset({"approve", "on_round", "prepare", "payload_hook"})


def bound(
    handle: Handle[Any], method: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], R]:
    """Return ``method`` with its object and arguments, functions among them in the form that Trio can run."""
    host = handle._portal.hosted
    names = [*inspect.signature(method).parameters][1:] if args else []
    positional = [hosted(name, value, host) for name, value in zip(names, args, strict=False)]
    named = {name: hosted(name, value, host) for name, value in kwargs.items()}
    return functools.partial(method, handle._inner, *positional, *args[len(positional) :], **named)


def hosted(name: str, value: Any, host: _Host) -> Any:
    """Return the argument ``name`` with every function that it is or holds replaced."""
    if name in _FUNCTIONS and callable(value):
        return host(value)
    if name == "journal" and value is not None and not type(value).__module__.startswith("engine."):
        return _Journal(value, host)
    if name == "tools" and isinstance(value, Iterable):
        return [_tool(each, host) for each in value]
    if not attrs.has(type(value)):
        return value
    changes: dict[str, Any] = {}
    for field in ("payload_hook", "api_key", "headers"):
        held = getattr(value, field, None)
        if callable(held):
            changes[field] = host(held)
    if isinstance(value, engine.Context) and value.tools:
        changes["tools"] = [_tool(each, host) for each in value.tools]
    return attrs.evolve(value, **changes) if changes else value


class _Journal:
    """A journal of the caller's: its methods are functions of the caller's, too."""

    def __init__(self, journal: Any, host: _Host) -> None:
        self._journal = journal
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return self._host(getattr(self._journal, name))


def _tool(value: Any, host: _Host) -> Any:
    if callable(value) or isinstance(value, engine.FunctionTool):
        value = as_tool(value)
    return value.hosted(host) if isinstance(value, engine.FunctionTool) else value


# --- what is entered, read and left ----------------------------------------------------------------------------------


class Streamed(Handle[T]):
    """A turn or a reply. Its methods are for the Trio thread."""

    def __init__(self, portal: Portal, inner: T) -> None:
        super().__init__(portal, inner)
        self._events: deque[TurnEvent] = deque()
        self._inside = False

    async def _enter(self) -> None:
        inner: Any = self._inner
        await inner.__aenter__()
        self._inside = True

    async def _leave(self) -> None:
        if self._inside:
            self._inside = False
            inner: Any = self._inner
            await inner.__aexit__(None, None, None)

    async def _take(self) -> None:
        """Keep the next event, so that it is not lost with a caller that has stopped waiting; and what is there, too.

        Every way into the Trio thread and back costs more than many events do.
        """
        inner: Any = self._inner
        self._events.append(await anext(inner))
        while getattr(inner, "ready", False) and len(self._events) < _AT_ONCE:
            try:
                self._events.append(await anext(inner))
            except (StopAsyncIteration, engine.TurnError):
                return  # it comes again, when it is asked for


# --- what can be read at any time ------------------------------------------------------------------------------------


class TurnFacts(Streamed[engine.Turn]):
    """The attributes of a turn."""

    @property
    def message(self) -> engine.AssistantMessage:
        """The whole answer; see `engine.Turn.message`."""
        return self._portal.read(lambda: self._inner.message)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole answer as a transcript has it; see `engine.Turn.messages`."""
        return self._portal.read(lambda: self._inner.messages)

    @property
    def partial(self) -> engine.AssistantMessage:
        """The part of the answer that has arrived; see `engine.Turn.partial`."""
        return self._portal.read(lambda: self._inner.partial)

    @property
    def ready(self) -> bool:
        """Whether the next event is there, or the end; then reading it waits for nothing."""
        return bool(self._events) or self._portal.read(lambda: self._inner.ready)

    @property
    def report(self) -> engine.TurnReport:
        """The turn's report at this moment."""
        return self._portal.read(lambda: self._inner.report)

    def texts(self) -> Texts:
        """The answer's words as they come. Everything else is passed over."""
        return Texts(self)


class ReplyFacts(Streamed[engine.Reply]):
    """The attributes of a reply."""

    @property
    def message(self) -> engine.AssistantMessage:
        """The last response; see `engine.Reply.message`."""
        return self._portal.read(lambda: self._inner.message)

    @property
    def partial(self) -> engine.AssistantMessage:
        """The part of the response that has arrived; see `engine.Reply.partial`."""
        return self._portal.read(lambda: self._inner.partial)

    @property
    def ready(self) -> bool:
        """Whether the next event is there; then reading it waits for nothing."""
        return bool(self._events) or self._portal.read(lambda: self._inner.ready)

    @property
    def report(self) -> engine.TurnReport:
        """The report of the last request at this moment."""
        return self._portal.read(lambda: self._inner.report)

    def texts(self) -> Texts:
        """The answer's words as they come. Tools run as when events are read."""
        return Texts(self)


class ConversationFacts(Handle[engine.Conversation]):
    """The attributes of a conversation."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript, oldest first; see `engine.Conversation.messages`."""
        return self._portal.read(lambda: self._inner.messages)

    @property
    def context(self) -> engine.Context:
        """The transcript with the instructions and tools of the conversation."""
        return self._portal.read(lambda: self._inner.context)

    @property
    def rounds(self) -> tuple[engine.Round, ...]:
        """Every complete round of every prompt, oldest first."""
        return self._portal.read(lambda: self._inner.rounds)

    @mirrored(reading(engine.Conversation.snapshot))
    def snapshot(self) -> None:
        """See `engine.Conversation.snapshot`."""

    @property
    def usage(self) -> engine.Usage:
        """Tokens of all responses that came."""
        return self._portal.read(lambda: self._inner.usage)

    @property
    def interrupted(self) -> Progress | None:
        """A prompt that was begun and has not been answered; see `engine.Conversation.interrupted`."""
        return self._portal.read(lambda: self._inner.interrupted)

    @property
    def unanswered(self) -> tuple[engine.ToolCall, ...]:
        """The calls of the last response that wait for the caller's results."""
        return self._portal.read(lambda: self._inner.unanswered)


class LaneFacts(Handle[engine.Lane]):
    """The attributes of a lane."""

    @property
    def name(self) -> str:
        """Its name in the session."""
        return self._inner.name

    @mirrored(reading(engine.Lane.statistics))
    def statistics(self) -> None:
        """See `engine.Lane.statistics`."""


class SessionFacts(Handle[engine.Session]):
    """The attributes of a session."""

    @property
    def id(self) -> str:
        """The session's id in its engine."""
        return self._inner.id

    @property
    def connected(self) -> bool:
        """Whether a turn started now would find an open connection, as far as can be told."""
        return self._portal.read(lambda: self._inner.connected)

    @mirrored(reading(engine.Session.snapshot))
    def snapshot(self) -> None:
        """See `engine.Session.snapshot`."""

    @mirrored(reading(engine.Session.statistics))
    def statistics(self) -> None:
        """See `engine.Session.statistics`."""


class EngineFacts(Handle[engine.Engine]):
    """The attributes of an engine."""

    @property
    def breakers(self) -> Breakers:
        """Whether servers are worth trying a WebSocket with."""
        return self._inner.breakers

    @property
    def endpoint(self) -> engine.Endpoint:
        """The endpoint of the sessions."""
        return self._inner.endpoint

    @mirrored(reading(engine.Engine.change_endpoint))
    def change_endpoint(self) -> None:
        """See `engine.Engine.change_endpoint`."""

    @mirrored(reading(engine.Engine.has_session))
    def has_session(self) -> None:
        """See `engine.Engine.has_session`."""

    @mirrored(reading(engine.Engine.statistics))
    def statistics(self) -> None:
        """See `engine.Engine.statistics`."""

    def __contains__(self, session_id: object) -> bool:
        return self._portal.read(lambda: session_id in self._inner)

    def __iter__(self) -> Iterator[str]:
        return self._portal.read(lambda: iter(tuple(self._inner)))

    def __len__(self) -> int:
        return self._portal.read(lambda: len(self._inner))
