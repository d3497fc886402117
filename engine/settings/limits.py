"""Limits: how much to hold, and how long to keep it."""

from __future__ import annotations

import math
from typing import ClassVar, Final

from attrs import field, frozen

from engine.settings.timeouts import Seconds
from engine.values.checks import given, optional, seconds, whole
from engine.values.choices import UNSET, Unset
from engine.values.shown import changed_only

__all__ = ["DEFAULT_LIMITS", "Limits", "ResolvedLimits"]


_COUNT: Final = given(whole(1))
# A connection that is over as soon as it is open would be dialled again for ever.
_SPAN: Final = given(optional(seconds(positive=True)))


@frozen(kw_only=True)
class Limits:
    """The limits on what is held, and for how long; what is not given is decided further out.

    A single turn can set ``max_request_bytes``, ``buffer_events`` and ``buffer_bytes``; the others are about the
    connection, which is the session's.

    Attributes:
        max_message_bytes: The largest message accepted from the server. Default 64 MiB.
        max_request_bytes: The largest request sent over WebSocket. Default 16 MiB, where servers were seen to refuse.
        max_outbox_bytes: Bytes waiting for a slow peer before the connection is given up. Default 64 MiB.
        buffer_events: Events that a turn's consumer may leave lying when more arrive. Default 16,384.
        buffer_bytes: Bytes of text those events may hold together. Default 32 MiB.
        connection_lifetime: Seconds after which a connection takes no new turns. Default 3,300 (55 min), since the
            server ends it at 60 min.
        idle_lifetime: Seconds without a turn after which the connection is closed; the next turn opens another.
            None keeps it. Default 300.
        ping_interval: Seconds of silence before the peer is pinged; None never pings. Default 30.
        ping_timeout: Seconds to wait for any byte after a ping before the connection is given up. Default 20.
        max_connections: Connections a session may have at a time, where its server takes one request at a time on each.
            Default 4.
        session_idle: Seconds without a turn after which an engine releases a session that it was asked for by id; one
            that was opened for a block is kept. Default None: it never does.
    """

    _section: ClassVar[str] = "limits"

    max_message_bytes: int | Unset = field(default=UNSET, validator=_COUNT)
    max_request_bytes: int | Unset = field(default=UNSET, validator=_COUNT)
    max_outbox_bytes: int | Unset = field(default=UNSET, validator=_COUNT)
    buffer_events: int | Unset = field(default=UNSET, validator=_COUNT)
    buffer_bytes: int | Unset = field(default=UNSET, validator=_COUNT)
    connection_lifetime: Seconds = field(default=UNSET, validator=_SPAN)
    idle_lifetime: Seconds = field(default=UNSET, validator=_SPAN)
    ping_interval: Seconds = field(default=UNSET, validator=_SPAN)
    ping_timeout: Seconds = field(default=UNSET, validator=_SPAN)
    max_connections: int | Unset = field(default=UNSET, validator=_COUNT)
    session_idle: Seconds = field(default=UNSET, validator=_SPAN)

    def __repr__(self) -> str:
        return changed_only(self)


@frozen(kw_only=True)
class ResolvedLimits:
    """Every limit; seconds are infinite where there is none."""

    max_message_bytes: int
    max_request_bytes: int
    max_outbox_bytes: int
    buffer_events: int
    buffer_bytes: int
    connection_lifetime: float
    idle_lifetime: float
    ping_interval: float
    ping_timeout: float
    max_connections: int
    session_idle: float


_MIB: Final = 1024 * 1024

DEFAULT_LIMITS: Final = ResolvedLimits(
    max_message_bytes=64 * _MIB,
    max_request_bytes=16 * _MIB,
    max_outbox_bytes=64 * _MIB,
    buffer_events=16_384,
    buffer_bytes=32 * _MIB,
    connection_lifetime=3300.0,
    idle_lifetime=300.0,
    ping_interval=30.0,
    ping_timeout=20.0,
    max_connections=4,
    session_idle=math.inf,
)
