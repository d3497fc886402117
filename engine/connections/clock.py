"""The actions due on a connection by the time: a ping, its replacement, its end of life, closing it where it is unused.

Silence of a turn is not among them; see `engine.turns.watch`. Readers only note times in here, which costs nothing per
event; the connection's own task sleeps until something may be due, and looks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import frozen

from engine.settings.limits import ResolvedLimits
from engine.transport.socket import Traffic

__all__ = ["Alarms", "Clock"]

# The last part of a connection's lifetime, in which its replacement is dialled: 5 of 55 minutes.
_REPLACED_BEFORE: Final = 1 / 11


@frozen
class Alarms:
    """The actions of a clock when the time has come.

    Attributes:
        ping: Ping the peer, and give the pong that many seconds.
        on_unanswered_ping: The peer sent no byte within that many seconds after a ping.
        on_unused: No turn has used the connection for its idle lifetime.
        on_ageing: The connection will soon have reached its lifetime.
        on_aged: It has reached it.
    """

    ping: Callable[[float], None]
    on_unanswered_ping: Callable[[float], None]
    on_unused: Callable[[], None]
    on_ageing: Callable[[], None]
    on_aged: Callable[[], None]


class Clock:
    """The times of one connection.

    Attributes:
        opened_at: The time when it was opened; infinite before that.
        last_decoded: The time when the last message came.
        idle_since: Since when nothing is in progress on it.
        standing_by: Whether it waits to replace another: until then it is not idle, however long that takes.
    """

    def __init__(self, limits: ResolvedLimits, traffic: Traffic) -> None:
        self._limits = limits
        self._traffic = traffic
        self._ageing_told = False
        self._ping: tuple[float, int] | None = None
        self._last_ping = -math.inf
        self.opened_at: float = math.inf
        self.last_decoded: float = -math.inf
        self.idle_since: float = math.inf
        self.standing_by: bool = False

    def open(self, now: float) -> None:
        """Begin."""
        self.opened_at = self.idle_since = self.last_decoded = now

    def take_over(self, idle_since: float) -> float:
        """Stand by no longer, in place of a connection that was idle since then; return `unused_at`."""
        self.standing_by, self.idle_since = False, idle_since
        return self.unused_at

    @property
    def unused_at(self) -> float:
        """The time when it will have been unused for too long, if nothing uses it."""
        return self.idle_since + self._limits.idle_lifetime

    def due(self, now: float, alarms: Alarms, *, busy: bool) -> float:
        """Do what is due, and say when to look again. ``busy``: whether a response is in progress."""
        return min(
            self._check_ping(now, alarms),
            self._check_use(now, alarms, busy=busy),
            self._check_age(now, alarms),
        )

    def _check_ping(self, now: float, alarms: Alarms) -> float:
        interval, allowed = self._limits.ping_interval, self._limits.ping_timeout
        if self._ping is not None:
            sent_at, received_then = self._ping
            if self._traffic.bytes_received != received_then:
                self._ping = None  # any byte shows that the peer lives
            elif sent_at + allowed <= now:
                alarms.on_unanswered_ping(allowed)
                return math.inf
            else:
                return min(sent_at + allowed, now + interval)
        due = max(self.last_decoded, self._last_ping) + interval
        if due > now:
            return due
        if self._traffic.outbox_bytes:
            return now + interval  # the peer is still taking in a request: its silence means nothing
        self._ping = (now, self._traffic.bytes_received)
        self._last_ping = now
        alarms.ping(allowed)
        return now + min(allowed, interval)  # a pong comes without a word, and then the next is due

    def _check_use(self, now: float, alarms: Alarms, *, busy: bool) -> float:
        if busy or self.standing_by:
            return now + self._limits.idle_lifetime
        if self.unused_at <= now:
            alarms.on_unused()
            return math.inf
        return self.unused_at

    def _check_age(self, now: float, alarms: Alarms) -> float:
        lifetime = self._limits.connection_lifetime
        told = self.opened_at + lifetime * (1 - _REPLACED_BEFORE)
        if now < told:
            return told
        if not self._ageing_told:
            self._ageing_told = True
            alarms.on_ageing()
        end = self.opened_at + lifetime
        if now < end:
            return end
        alarms.on_aged()
        return math.inf  # where a turn is running, at the next dispatch
