"""The places of a session: how many exchanges may be in progress at a time, abandoned ones included.

Where the server takes several requests on a connection, that is its own limit; where it takes one at a time, a place is
a connection. Those who find none wait, first come, first served, whatever their lane.
"""

from __future__ import annotations

from typing import Protocol

import trio
from attrs import frozen

from engine.protocol.labels import Labels
from engine.settings.profiles import Profile

__all__ = ["PlaceWait", "Places", "Room", "Seeker"]


class Seeker(Protocol):
    """A turn's work, as far as places need to know it."""

    def overdue(self, now: float) -> bool:
        """Whether its waiting time is over, although it was not told yet."""
        ...

    def on_place(self, now: float) -> None:
        """It has a place, until that is given back."""
        ...


@frozen
class Room:
    """The room that a session has with one server.

    Attributes:
        server: The kind of server.
        labels: Whether it answers on the lane that a request names.
        connections: The most connections that a session may have.
    """

    server: Profile
    labels: Labels
    connections: int

    @property
    def named(self) -> bool:
        """Whether requests of lanes name them."""
        return self.labels.named(self.server)

    @property
    def shared(self) -> bool:
        """Whether lanes share a connection. A server that takes one request at a time wants one for each."""
        return self.labels.shared(self.server)

    @property
    def places(self) -> int:
        """The number of exchanges that may be in progress at a time."""
        return self.server.max_active if self.shared else self.connections


class Places:
    """A number of places, and the queue for them. Leaving it costs the same however long it is.

    Attributes:
        room: The room for them.
    """

    def __init__(self, room: Room) -> None:
        self.room: Room = room
        self._taken: set[object] = set()
        self._waiting: dict[Seeker, None] = {}

    @property
    def number(self) -> int:
        """The number of places there are now."""
        return self.room.places

    @property
    def taken(self) -> int:
        """The number of places that are taken."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """The number of turns that wait for a place."""
        return len(self._waiting)

    def ask(self, seeker: Seeker) -> None:
        """Put a turn at the end of the queue; it may get a place at once."""
        self._waiting[seeker] = None
        self._serve()

    def give_back(self, holder: object) -> None:
        """Take a turn out of the queue, or its place back, if it has one."""
        self._waiting.pop(holder, None)  # type: ignore[call-overload]
        if holder in self._taken:
            self._taken.remove(holder)
            self._serve()

    def pass_on(self, holder: object, heir: object) -> None:
        """Let something else hold a place, until it is given back by that."""
        if holder in self._taken:
            self._taken.remove(holder)
            self._taken.add(heir)

    def _serve(self) -> None:
        now = trio.current_time()
        while self._waiting and len(self._taken) < self.room.places:
            seeker = next(iter(self._waiting))
            del self._waiting[seeker]
            if not seeker.overdue(now):
                self._taken.add(seeker)
                seeker.on_place(now)


class PlaceWait:
    """The wait for a place of something that is no turn.

    Args:
        deadline: The time when it has taken too long, on Trio's clock.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._granted = trio.Event()

    def overdue(self, now: float) -> bool:
        """Whether it has taken too long."""
        return self._deadline <= now

    def on_place(self, now: float) -> None:
        """There is a place, until it is given back."""
        self._granted.set()

    async def wait(self) -> bool:
        """Wait until there is one, and say whether there is. Cancelling only stops waiting."""
        if self._granted.is_set():
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            with trio.move_on_at(self._deadline):
                await self._granted.wait()
        return self._granted.is_set()
