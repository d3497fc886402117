"""The lanes of a session on one connection: what each is called there, and what the server holds for it."""

from __future__ import annotations

from collections.abc import Iterator

from engine.protocol.chain import Chain

__all__ = ["Channel", "Channels"]


class Channel:
    """One lane on one connection.

    Attributes:
        name: The ``stream_id`` of its requests; None for the connection's default.
        chain: What the server holds.
        requests: Requests sent over it, warm-ups included.
    """

    __slots__ = ("chain", "name", "requests")

    def __init__(self, name: str | None) -> None:
        self.name: str | None = name
        self.chain: Chain = Chain()
        self.requests: int = 0


class Channels:
    """The channels of one connection, and the names that it has left to give.

    Args:
        max_names: How many names the server takes in a connection's life; 0 where it knows no names.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._named = 0
        self._default_given = False
        self._channels: dict[str | None, Channel] = {}

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    @property
    def names_left(self) -> int:
        """How many more names can be given."""
        return self._max_names - self._named

    def of(self, lane: str | None) -> Channel:
        """Return the channel of a lane. The first lane has the connection's default."""
        channel = self._channels.get(lane)
        if channel is None:
            channel = self._channels[lane] = Channel(self._name() if self._default_given else None)
            self._default_given = True
        return channel

    def renew(self, lane: str | None) -> None:
        """Give a lane a channel that was never used."""
        self._channels[lane] = Channel(self._name())
        self._default_given = True

    def _name(self) -> str:
        assert self.names_left > 0, "the connection has no name left"
        self._named += 1
        return f"lane-{self._named}"
