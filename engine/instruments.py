"""Hooks into what the library does, for metrics and tracing.

Hooks cost one truth test when nobody listens. They run in the context (`contextvars`) of the caller whose turn they
speak of, where there is one, so a trace started around ``session.turn`` continues in them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from engine.values.problems import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import Context

    from engine.values.errors import TurnError
    from engine.values.reports import TurnReport
    from engine.wire.events import ServerEvent

__all__ = ["Instrument", "Instruments"]

_logger = logging.getLogger("engine.instruments")


class Instrument:
    """Derive from this and override the hooks you want. ``session`` is the session's id, ``connection`` a number.

    Hooks are plain functions and must not block. One that raises is logged once and not called again.
    """

    def connection_opened(self, session: str, connection: int, seconds: float) -> None:
        """A connection is ready; dialling it took ``seconds``."""

    def connection_closed(self, session: str, connection: int, reason: str) -> None:
        """A connection is closed and its socket gone."""

    def rotation(self, session: str, connection: int, age: float) -> None:
        """A connection of ``age`` seconds takes no new turns because of its age."""

    def turn_started(self, session: str) -> None:
        """A turn was granted its lane."""

    def request_sent(self, session: str, connection: int, size: int) -> None:
        """A request of ``size`` bytes was handed to a connection; to number 0 where it goes over HTTP."""

    def retry(self, session: str, reason: str, wait: float) -> None:
        """A turn is tried again after ``wait`` seconds; ``reason`` is the row of the recovery table."""

    def fallback(self, session: str, reason: str) -> None:
        """A turn goes over HTTP, because WebSocket would not do."""

    def event_received(self, session: str, event: ServerEvent) -> None:
        """A server event reached a turn. It holds the reply: take care what you do with it."""

    def turn_ended(self, session: str, report: TurnReport, error: TurnError | None) -> None:
        """A turn ended: with an answer, with ``error``, or, where the report says so, by being left."""


HOOKS: Final = tuple(name for name in vars(Instrument) if not name.startswith("_"))


class Instruments:
    """The instruments of one engine, sorted by the hooks they override."""

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._listeners: dict[str, list[Instrument]] = {name: [] for name in HOOKS}
        if isinstance(instruments, Instrument):
            raise ConfigurationError("instruments", "is one Instrument, not a sequence of them")
        for number, instrument in enumerate(instruments):
            if not isinstance(instrument, Instrument):
                raise ConfigurationError(f"instruments[{number}]", "is no Instrument")
            for name in HOOKS:
                if getattr(type(instrument), name) is not getattr(Instrument, name):
                    self._listeners[name].append(instrument)

    def wants(self, hook: str) -> bool:
        """Whether anybody overrides ``hook``."""
        return bool(self._listeners[hook])

    def emit(self, hook: str, *args: object, context: Context | None = None) -> None:
        """Call ``hook`` of everybody who overrides it, within ``context`` if there is one."""
        for instrument in tuple(self._listeners[hook]):
            function = getattr(instrument, hook)
            try:
                if context is None:
                    function(*args)
                else:
                    context.run(function, *args)
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
