"""The core of a session: the nursery that owns its links and its running turns, its lanes, and its pool of links.

Cancelling the nursery is how a session is released. Other tasks change its state only through plain methods that run to
their end between two checkpoints, so no lock is needed.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Mapping
from typing import Any

import trio

from engine.connections.attempt import Origin
from engine.connections.gates import EndpointGates
from engine.connections.link import Link
from engine.connections.places import PlaceWait
from engine.connections.pool import Pool
from engine.connections.tasks import Tasks
from engine.instruments import Instruments
from engine.protocol.breaker import Breaker
from engine.protocol.failures import Broken, Closed, Failure
from engine.protocol.seals import RefusedSeals
from engine.settings.endpoint import Endpoint
from engine.settings.levels import Settings
from engine.transport.dial import Dialer
from engine.transport.socket import SocketFactory
from engine.transport.websocket import WebSocket
from engine.turns.lane import Counters, Lane
from engine.values.choices import Transport
from engine.values.problems import ConfigurationError
from engine.values.statistics import SessionStatistics
from engine.values.usage import Usage
from engine.wire.requests import CreateText

__all__ = ["SessionCore"]


class SessionCore:
    """One session at work.

    Args:
        owner: The block that it cannot outlive, as errors name it.

    Attributes:
        id: The session's id in its engine.
        settings: The settings of its turns.
        pool: Its links.
        started: Set when it can take turns.
        finished: Set when its last socket is gone.
    """

    def __init__(
        self,
        session_id: str,
        *,
        endpoint: Endpoint,
        dialer: Dialer,
        settings: Settings,
        breaker: Breaker,
        gates: EndpointGates,
        instruments: Instruments,
        make_socket: SocketFactory = WebSocket,
        owner: str = "engine",
    ) -> None:
        self.id: str = session_id
        self.settings: Settings = settings
        self.started: trio.Event = trio.Event()
        self.finished: trio.Event = trio.Event()
        self._closing = trio.Event()
        self._tasks = Tasks()
        self._owner = owner
        self.pool: Pool = Pool(
            session_id,
            self._tasks,
            endpoint=endpoint,
            dialer=dialer,
            breaker=breaker,
            gates=gates,
            settings=settings,
            instruments=instruments,
            make_socket=make_socket,
        )
        self._instruments = instruments
        self._numbers = itertools.count(1)
        self._idle_since = trio.current_time()  # when it was made, or the last turn of a lane that was forgotten ended
        self._lanes: dict[str | None, Lane] = {}
        self._refused_seals = RefusedSeals()
        self._past = Counters()  # of lanes that were forgotten

    # --- life ---

    @property
    def failure(self) -> Failure | None:
        """The reason why it takes no more turns; None while it does."""
        return self._tasks.failure

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Live until `close` or a cancellation, then until every socket is gone. Never raises an `Exception`.

        Cancelling it releases the session: connections close within their bounds.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._tasks.open(nursery)
                self.started.set()
                try:
                    await self._closing.wait()  # so that it ends by itself: unwinding a cancellation costs far more
                finally:
                    self.close(f"the {self._owner} was left")
        except* Exception as group:
            self._tasks.abort(Broken(group), "the session broke")
        finally:
            self._tasks.forget()
            self.started.set()
            self.finished.set()

    @trio.lowlevel.enable_ki_protection
    def close(self, reason: str) -> None:
        """Fail every turn and begin to close every connection. Idempotent, and returns at once; see `finished`."""
        if not self._closing.is_set():
            self._closing.set()
            self._tasks.close(Closed(reason), reason)
            for lane in tuple(self._lanes.values()):
                lane.fail(self._tasks.ending)
            self.pool.close()

    def shut(self, reason: str) -> None:
        """Take no new turns; those that were entered go on."""
        self._tasks.shut = Closed(reason)

    @property
    def busy(self) -> bool:
        """Whether a turn was entered that has not ended."""
        return any(lane.busy for lane in self._lanes.values())

    @property
    def idle_since(self) -> float:
        """The time when its last turn ended, or when it was made."""
        return max((self._idle_since, *(lane.idle_since for lane in self._lanes.values())))

    async def until_idle(self) -> None:
        """Wait until no turn is under way. Cancelling only stops waiting."""
        await trio.lowlevel.checkpoint()
        while self.busy:
            for lane in tuple(self._lanes.values()):
                await lane.until_idle()

    # --- lanes ---

    def lane(self, name: str | None = None) -> Lane:
        """Return the lane of that name, made when it is first asked for; without a name, the session's own."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(
                name,
                session=self.id,
                pool=self.pool,
                instruments=self._instruments,
                numbers=self._numbers,
                tasks=self._tasks,
                refused_seals=self._refused_seals,
            )
        return lane

    def fork(self, parent: Lane, name: str) -> Lane:
        """Return a new lane that begins where another one is now.

        Raises:
            ConfigurationError: a lane of that name exists; or what led to the other one is not known.
        """
        if name in self._lanes:
            raise ConfigurationError("lane", f"{name!r} exists already, and cannot become a fork")
        lane = self.lane(name)
        try:
            lane.fork_of(parent)
        except ConfigurationError:
            del self._lanes[name]
            raise
        return lane

    @trio.lowlevel.enable_ki_protection
    def forget(self, lane: Lane) -> None:
        """End a lane: its turns fail, and its name is free."""
        last = trio.current_time() if lane.busy else lane.idle_since
        lane.failure = lane.failure or Closed("the lane was left")
        lane.fail(lane.failure)
        if self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]
            self._past.add(lane.counters)
            self._idle_since = max(self._idle_since, last)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes there are."""
        return tuple(self._lanes.values())

    async def warm_up(self, lane: Lane, body: Mapping[str, Any], text: CreateText, settings: Settings) -> bool:
        """Open a connection and let the server prepare for a request; returns whether it is prepared.

        Takes the ``queue``, ``connect`` and ``warm_up`` budgets at most. Cancelling stops waiting; the warm-up goes on.
        """
        if lane.failure is not None:
            await trio.lowlevel.checkpoint()
            return False
        places, timeouts = self.pool.places, settings.timeouts
        place = PlaceWait(trio.current_time() + timeouts.queue)
        places.ask(place)
        try:
            return await place.wait() and await self._warm_up(lane, body, text, settings, place)
        finally:
            places.give_back(place)

    async def _warm_up(
        self, lane: Lane, body: Mapping[str, Any], text: CreateText, settings: Settings, place: PlaceWait
    ) -> bool:
        timeouts = settings.timeouts
        link: Link | Failure | None = None
        with trio.move_on_after(timeouts.connect):
            link = await self.pool.link(
                lane.name,
                Transport.WEBSOCKET,
                connect=timeouts.connect,
                cautious=settings.transport is Transport.AUTO,
            )
        if link is None or isinstance(link, Failure) or not link.fresh(lane.name):
            await trio.lowlevel.checkpoint()
            return False
        origin = Origin(self.id, lane.name, 0, settings.model, contextvars.copy_context(), self._instruments)
        warm_up = self.pool.warm_up(link, origin, body, text, timeouts.warm_up)
        warm_up.take_place(self.pool.places, place)
        await warm_up.finished.wait()
        if warm_up.answered:
            lane.warmed_up(warm_up.held)
        return warm_up.answered

    @property
    def connected(self) -> bool:
        """Whether a turn dispatched now would find an open connection, as far as can be told."""
        return self.failure is None and self.pool.connected

    @trio.lowlevel.enable_ki_protection
    def change_endpoint(self, endpoint: Endpoint, dialer: Dialer, breaker: Breaker, gates: EndpointGates) -> None:
        """Go elsewhere, or with another key: what is connected serves the turns that are on it, and no other."""
        for lane in self._lanes.values():
            lane.stored = None
        self.pool.change_endpoint(endpoint, dialer, breaker, gates)

    def statistics(self) -> SessionStatistics:
        """Counters at this moment."""
        lanes = tuple(self._lanes.values())
        counters = (*(lane.counters for lane in lanes), self._past)
        return SessionStatistics(
            queued=sum(lane.queued for lane in lanes),
            active=sum(each.active for each in counters),
            turns_started=sum(each.started for each in counters),
            turns_completed=sum(each.completed for each in counters),
            turns_failed=sum(each.failed for each in counters),
            turns_abandoned=sum(each.abandoned for each in counters),
            retries=sum(each.retries for each in counters),
            fallbacks=sum(each.fallbacks for each in counters),
            refused_seals=sum(each.refused_seals for each in counters),
            usage=sum((each.usage for each in counters), Usage()),
            connections_opened=self.pool.opened,
            connections=self.pool.statistics(),
        )
