"""The notices of a connection: what logs and hooks are told of its life."""

from __future__ import annotations

import logging

import trio

from engine.instruments import ConnectionInfo, Instruments
from engine.protocol.failures import Failure

__all__ = ["Notices"]

_logger = logging.getLogger("engine.connection")


class Notices:
    """The hooks and log lines of one connection, whose dial begins now.

    Args:
        instruments: The hooks that are told.
        session: The session's id.
        number: The connection's number in it.

    Attributes:
        name: Its name in logs.
        started_at: The time when dialling began, on Trio's clock.
    """

    def __init__(self, instruments: Instruments, session: str, number: int) -> None:
        self.name: str = f"connection {number} of a session"
        self.started_at: float = trio.current_time()
        self._instruments = instruments
        self._session = session
        self._number = number

    def opened(self) -> None:
        """It is open."""
        _logger.debug("%s open", self.name)
        self._tell("connection_opened", None)

    def failed(self, failure: Failure) -> None:
        """It has failed."""
        _logger.info("%s failed: %s", self.name, type(failure).__name__)

    def closed(self, reason: str | None) -> None:
        """It is closed; the reason is why it took no more turns."""
        _logger.debug("%s closed", self.name)
        self._tell("connection_closed", reason)

    def _tell(self, hook: str, reason: str | None) -> None:
        seconds = trio.current_time() - self.started_at
        info = ConnectionInfo(session=self._session, connection=self._number, seconds=seconds, reason=reason)
        self._instruments.emit(hook, info)
