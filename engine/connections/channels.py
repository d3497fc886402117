"""The lanes of a session on one connection: what each is called there, and what the server holds for it."""

from __future__ import annotations

import trio

from engine.protocol.chain import Chain, HeldResponse, Plan
from engine.wire.requests import CreateText

__all__ = ["Channel", "Channels"]


class Channel:
    """One lane on one connection.

    Attributes:
        name: The ``stream_id`` of its requests; None for the connection's default.
        chain: The items that the server holds.
        requests: Requests sent over it, warm-ups included.
        warming: Set when its warm-up is over; None while none is under way.
        idle: Whether nothing is in progress on it, and its last response ended with an answer.
    """

    __slots__ = ("chain", "idle", "name", "requests", "warming")

    def __init__(self, name: str | None) -> None:
        self.name: str | None = name
        self.chain: Chain = Chain()
        self.requests: int = 0
        self.warming: trio.Event | None = None
        self.idle: bool = False

    @property
    def fresh(self) -> bool:
        """Whether a warm-up could help: nothing was ever sent over it."""
        return self.requests == 0 and self.warming is None

    def write(self, text: CreateText, plan: Plan, *, generate: bool | None) -> str:
        """Give a request its form on the wire."""
        return text.frame(
            stream_id=self.name, previous_response_id=plan.previous_response_id, skip=plan.skip, generate=generate
        )

    def begin_warm_up(self) -> None:
        """Hold the lane's turns back until `end_warm_up`."""
        self.warming = trio.Event()

    def end_warm_up(self) -> None:
        """Let the lane's turns through, whatever came of the warm-up."""
        warming, self.warming = self.warming, None
        if warming is not None:
            warming.set()


class Channels:
    """The channels of one connection, and the names that it has left to give.

    Args:
        max_names: The most names that the server takes in a connection's life; 0 where it knows no names, and the lane
            that uses the connection has its default.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._named = 0
        self._default_given = False
        self._channels: dict[str | None, Channel] = {}  # the one used last comes last

    @property
    def names_left(self) -> int:
        """The number of names that can still be given."""
        return self._max_names - self._named

    def of(self, lane: str | None) -> Channel:
        """Return the channel of a lane. The session's own lane has the connection's default, until it is renewed."""
        channel = self._channels.get(lane)
        if channel is None:
            if not self._max_names:
                self._channels.clear()
            channel = self._channels[lane] = Channel(self._name_for(lane))
        return channel

    def holds(self, lane: str | None, held: HeldResponse) -> bool:
        """Whether a response can be continued on the channel of a lane."""
        channel = self._channels.get(lane)
        return channel is not None and channel.chain.holds(held)

    def use(self, lane: str | None) -> Channel:
        """Return the channel of a lane, over which a request is about to go."""
        channel = self.of(lane)
        self._channels[lane] = self._channels.pop(lane)
        channel.requests += 1
        channel.idle = False
        return channel

    def renew(self, lane: str | None) -> None:
        """Give a lane a channel that was never used."""
        self._channels[lane] = Channel(self._name())
        self._default_given = True

    def make_room(self, lane: str | None) -> bool:
        """Whether a lane has a channel or can get one. The lane that was idle longest may have to give its name up."""
        if lane in self._channels or not self._max_names or self.names_left > 0 or self._is_default(lane):
            return True
        for each, channel in self._channels.items():
            if channel.idle and channel.name is not None:
                del self._channels[each]
                self._channels[lane] = Channel(channel.name)
                return True
        return False

    def _is_default(self, lane: str | None) -> bool:
        return lane is None and not self._default_given

    def _name_for(self, lane: str | None) -> str | None:
        if not self._max_names or self._is_default(lane):
            self._default_given = True
            return None
        return self._name()

    def _name(self) -> str:
        assert self.names_left > 0, "the connection has no name left"
        self._named += 1
        return f"lane-{self._named}"
