"""Counters of connections, sessions and engines at one moment."""

from __future__ import annotations

from attrs import frozen

from engine.values.usage import Usage

__all__ = ["ConnectionStatistics", "EngineStatistics", "LaneStatistics", "SessionStatistics"]


@frozen(kw_only=True)
class ConnectionStatistics:
    """One connection at one moment.

    Attributes:
        state: ``"dialling"``, ``"open"``, ``"retiring"`` or ``"closed"``.
        requests: Requests handed to it.
        in_flight: Requests whose response has not ended.
        bytes_sent: Bytes passed to the operating system, framing included.
        bytes_received: Bytes received, framing included.
        events: Frames decoded.
        dropped: Events dropped because they belonged to no live turn.
        malformed: Frames dropped because they were not a JSON object with a type.
        odd: Times that an answer said something again, otherwise, or in a shape that was repaired or unreadable.
        outbox_bytes: Bytes waiting to be sent.
        retired_because: The reason for taking no new turns; None while it takes them.
    """

    state: str
    requests: int
    in_flight: int
    bytes_sent: int
    bytes_received: int
    events: int
    dropped: int
    malformed: int
    odd: int = 0
    outbox_bytes: int
    retired_because: str | None


@frozen(kw_only=True)
class LaneStatistics:
    """One lane at one moment.

    Attributes:
        queued: Turns waiting for the lane.
        active: Turns that have it, and have not ended: at most one.
        turns_started: Turns begun so far.
        turns_completed: Of those, how many ended with an answer.
        turns_failed: Of those, how many ended with an error.
        turns_abandoned: Of those, how many were left before they ended.
        retries: The number of times that a turn was tried again.
        fallbacks: The number of turns that went over HTTP because WebSocket would not do.
        refused_seals: The number of sealed pieces of reasoning that the server could not read; they are left out since.
        usage: Tokens of the turns that ended with an answer.
    """

    queued: int
    active: int
    turns_started: int
    turns_completed: int
    turns_failed: int
    turns_abandoned: int
    retries: int
    fallbacks: int
    refused_seals: int
    usage: Usage


@frozen(kw_only=True)
class SessionStatistics:
    """One session at one moment.

    Attributes:
        queued: Turns waiting for a lane.
        active: Turns granted and not yet ended.
        turns_started: Turns granted so far.
        turns_completed: Of those, how many ended with an answer.
        turns_failed: Of those, how many ended with an error.
        turns_abandoned: Of those, how many were left before they ended.
        retries: The number of times that a turn was tried again.
        fallbacks: The number of turns that went over HTTP because WebSocket would not do.
        refused_seals: The number of sealed pieces of reasoning that the server could not read; they are left out since.
        usage: Tokens of the turns that ended with an answer.
        connections_opened: Connections opened so far.
        connections: The connections that exist now, the current one first.
    """

    queued: int
    active: int
    turns_started: int
    turns_completed: int
    turns_failed: int
    turns_abandoned: int
    retries: int
    fallbacks: int
    refused_seals: int
    usage: Usage
    connections_opened: int
    connections: tuple[ConnectionStatistics, ...]


@frozen(kw_only=True)
class EngineStatistics:
    """One engine at one moment.

    Attributes:
        sessions: Statistics of each registered session, by id.
        closing: Sessions released whose sockets are still being closed.
    """

    sessions: dict[str, SessionStatistics]
    closing: int

    @property
    def usage(self) -> Usage:
        """Tokens of the turns of all registered sessions that ended with an answer."""
        return sum((each.usage for each in self.sessions.values()), Usage())
