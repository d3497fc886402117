"""Hooks into what the library does, for metrics and tracing, and the records that they are given.

Hooks cost one truth test when nothing listens. They run in the context (`contextvars`) of the caller whose turn they
speak of, where there is one, so a trace started around ``session.turn`` continues in them.

Every hook is given one record. Records may get more fields, never fewer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from engine.values.choices import Transport
from engine.values.messages import ToolResult
from engine.values.problems import ConfigurationError
from engine.values.reports import TurnReport
from engine.values.shown import size_only
from engine.wire.events import ServerEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextvars import Context

__all__ = [
    "ConnectionInfo",
    "EventInfo",
    "FallbackInfo",
    "Instrument",
    "RequestInfo",
    "RetryInfo",
    "RotationInfo",
    "ServerEvent",
    "ToolEndInfo",
    "ToolStartInfo",
    "TurnEndInfo",
    "TurnStartInfo",
]

_logger = logging.getLogger("engine.instruments")


@frozen(kw_only=True)
class TurnStartInfo:
    """A turn was granted its lane.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session, from 1.
        model: The model that is asked.
        server: Host, and port where it is not the usual one, of the server.
    """

    session: str
    lane: str | None
    turn: int
    model: str | None
    server: str


@frozen(kw_only=True)
class TurnEndInfo:
    """A turn ended: with an answer, with an error, or, where there is neither, by being left.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session.
        attempt: The number of attempts; 0 where nothing was sent.
        model: The model that was asked.
        report: The report on it.
        error: The reason for having no answer; None where it has one, or was left.
        answered: Whether it has an answer.
    """

    session: str
    lane: str | None
    turn: int
    attempt: int
    model: str | None
    report: TurnReport
    error: Exception | None
    answered: bool


@frozen(kw_only=True)
class RequestInfo:
    """A request was handed to a connection.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session.
        attempt: The attempt's number within the turn, from 1.
        model: The model that is asked.
        connection: The connection's number in its session; 0 where it goes over HTTP.
        transport: The transport that it goes over.
        size: Bytes of the request, as UTF-8.
    """

    session: str
    lane: str | None
    turn: int
    attempt: int
    model: str | None
    connection: int
    transport: Transport
    size: int


@frozen(kw_only=True)
class EventInfo:
    """A server event reached a turn.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session.
        attempt: The number of the attempt that it belongs to, from 1.
        model: The model that is asked.
        event: The event, as the wire has it. It holds the reply: take care what you do with it.
    """

    session: str
    lane: str | None
    turn: int
    attempt: int
    model: str | None
    event: ServerEvent = field(repr=lambda event: type(event).__name__)


@frozen(kw_only=True)
class RetryInfo:
    """A turn is tried again.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session.
        attempt: The number of the attempt that failed, from 1; 0 where nothing had been sent.
        model: The model that is asked.
        reason: The row of the recovery table.
        seconds: The wait before, in seconds.
    """

    session: str
    lane: str | None
    turn: int
    attempt: int
    model: str | None
    reason: str
    seconds: float


@frozen(kw_only=True)
class FallbackInfo:
    """A turn goes over HTTP, because WebSocket would not do.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session.
        attempt: The number of the attempt that failed, from 1; 0 where nothing had been sent.
        model: The model that is asked.
        reason: The reason why WebSocket would not do.
    """

    session: str
    lane: str | None
    turn: int
    attempt: int
    model: str | None
    reason: str


@frozen(kw_only=True)
class ConnectionInfo:
    """A connection is ready, or closed and its socket gone.

    Attributes:
        session: The session's id.
        connection: The connection's number in its session, from 1.
        seconds: Seconds that dialling took; of one that is closed, seconds since dialling began.
        reason: The reason for closing it; None for one that is ready.
    """

    session: str
    connection: int
    seconds: float
    reason: str | None = None


@frozen(kw_only=True)
class RotationInfo:
    """A connection takes no new turns because of its age.

    Attributes:
        session: The session's id.
        connection: The connection's number in its session.
        seconds: Its age.
    """

    session: str
    connection: int
    seconds: float


@frozen(kw_only=True)
class ToolStartInfo:
    """A tool is about to run.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        call_id: The id that pairs the call with its output.
        name: The tool's name.
        arguments: The model's arguments.
    """

    session: str
    lane: str | None
    call_id: str
    name: str
    arguments: Mapping[str, Any] = field(repr=size_only)


@frozen(kw_only=True)
class ToolEndInfo:
    """A tool has run.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        call_id: The id that pairs the call with its output.
        name: The tool's name.
        seconds: Seconds that it took.
        result: The result that the model is told; None where it was cancelled.
        error: The exception that it raised; None where it raised none.
    """

    session: str
    lane: str | None
    call_id: str
    name: str
    seconds: float
    result: ToolResult | None
    error: BaseException | None = field(repr=lambda error: type(error).__name__)


class Instrument:
    """Derive from this and override the hooks you want.

    Hooks are plain functions and must not block. One that raises is logged once and not called again.
    """

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        """A connection is ready."""

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        """A connection is closed and its socket gone."""

    def rotation(self, info: RotationInfo, /) -> None:
        """A connection takes no new turns because of its age."""

    def turn_started(self, info: TurnStartInfo, /) -> None:
        """A turn was granted its lane."""

    def request_sent(self, info: RequestInfo, /) -> None:
        """A request was handed to a connection."""

    def retry(self, info: RetryInfo, /) -> None:
        """A turn is tried again."""

    def fallback(self, info: FallbackInfo, /) -> None:
        """A turn goes over HTTP, because WebSocket would not do."""

    def event_received(self, info: EventInfo, /) -> None:
        """A server event reached a turn. It holds the reply: take care what you do with it."""

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        """A turn ended: with an answer, with an error, or by being left."""

    def tool_started(self, info: ToolStartInfo, /) -> None:
        """A tool is about to run, in this task."""

    def tool_ended(self, info: ToolEndInfo, /) -> None:
        """A tool has run, in this task."""


HOOKS: Final = tuple(name for name in vars(Instrument) if not name.startswith("_"))


class Instruments:
    """The instruments of one engine, sorted by the hooks they override."""

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._listeners: dict[str, list[Instrument]] = {}
        if isinstance(instruments, Instrument):
            raise ConfigurationError("instruments", "is one Instrument, not a sequence of them")
        for number, instrument in enumerate(instruments):
            if not isinstance(instrument, Instrument):
                raise ConfigurationError(f"instruments[{number}]", "is no Instrument")
            for name in HOOKS:
                if getattr(type(instrument), name) is not getattr(Instrument, name):
                    self._listeners.setdefault(name, []).append(instrument)

    def wants(self, hook: str) -> bool:
        """Whether ``hook`` is overridden: only then is its record worth making."""
        return bool(self._listeners.get(hook))

    def emit(self, hook: str, info: object, context: Context | None = None) -> None:
        """Call ``hook`` of every instrument that overrides it, within ``context`` if there is one."""
        for instrument in tuple(self._listeners.get(hook, ())):
            function = getattr(instrument, hook)
            try:
                if context is None:
                    function(info)
                else:
                    context.run(function, info)
            except Exception as error:  # an observer's mistake must not become the observed turn's failure
                if not self._disable(hook, instrument):
                    continue
                # The traceback would show the frames' values, and those hold replies.
                _logger.error(
                    "%s.%s raised %s and will not be called again",
                    type(instrument).__name__,
                    hook,
                    type(error).__name__,
                )

    def _disable(self, hook: str, instrument: Instrument) -> bool:
        """Call a hook no more; False if it was disabled already, by a failure inside its own call."""
        listeners = self._listeners[hook]
        remaining = [each for each in listeners if each is not instrument]
        self._listeners[hook] = remaining
        return len(remaining) < len(listeners)


def __dir__() -> list[str]:
    return sorted(__all__)
