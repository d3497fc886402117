"""The links of one session: the one in use, its replacement, those that still have to close, and the one over HTTP.

It decides what a turn is sent over and learns from what becomes of a dial; it never sees a turn.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import evolve

from engine.connections.attempt import Origin
from engine.connections.gates import EndpointGates
from engine.connections.link import Link
from engine.connections.link_states import LinkState
from engine.connections.places import Places, Room
from engine.connections.tasks import Tasks
from engine.connections.warm_up import WarmUp
from engine.connections.websocket_link import WebSocketLink
from engine.instruments import Instruments, RotationInfo
from engine.protocol.breaker import Breaker
from engine.protocol.chain import Chain, HeldResponse
from engine.protocol.failures import Failure, Unreachable, UpgradeRefused, WebSocketBarred
from engine.protocol.faults import TOO_MANY_REQUESTS
from engine.protocol.recovery import asked_wait, counts_as_outage, forbids_websocket, lacks_websocket
from engine.settings.endpoint import Endpoint
from engine.settings.levels import Settings
from engine.transport.dial import Dialer
from engine.transport.socket import SocketFactory
from engine.transport.websocket import WebSocket
from engine.values.choices import Transport
from engine.values.statistics import ConnectionStatistics
from engine.wire.requests import CreateText

if TYPE_CHECKING:
    from engine.connections.http_link import HttpLink

__all__ = ["Pool"]

_logger = logging.getLogger("engine.connection")

_MAX_RETIRING: Final = 4
_RETIRING: Final = frozenset({LinkState.RETIRING, LinkState.CALLED_OFF, LinkState.FAILED})


class Pool:
    """Links to one server.

    Args:
        session: The session's id.
        tasks: The nursery that links live in.
        endpoint: The server.
        dialer: Opens streams.
        breaker: The breaker of that server.
        gates: The gates that hold turns while that server limits their rate.
        settings: The settings of links.
        instruments: The hooks that are told of them.
        make_socket: Makes the sockets of links over WebSocket.
    """

    def __init__(
        self,
        session: str,
        tasks: Tasks,
        *,
        endpoint: Endpoint,
        dialer: Dialer,
        breaker: Breaker,
        gates: EndpointGates,
        settings: Settings,
        instruments: Instruments,
        make_socket: SocketFactory = WebSocket,
    ) -> None:
        self._session = session
        self._tasks = tasks
        self._endpoint = endpoint
        self._dialer = dialer
        self._breaker = breaker
        self.gates: EndpointGates = gates
        self._settings = settings
        self._instruments = instruments
        self._make_socket = make_socket
        self._current: dict[str | None, WebSocketLink] = {}  # by lane, or under None for all of them
        self._next: dict[WebSocketLink, WebSocketLink] = {}  # the replacement of each, while one stands by
        self._links: dict[WebSocketLink, tuple[Breaker, int]] = {}  # and whose try it was
        self._http: HttpLink | None = None
        self._reconnected = 0
        self._dialled = 0
        self.opened: int = 0
        self._room = Room(endpoint.server, breaker.labels, settings.limits.max_connections)
        self.places: Places = Places(self._room)

    def _slot(self, lane: str | None) -> str | None:
        """Return the slot of a lane's connection; one of its own, from when it could not share, is used up first."""
        return None if self._room.shared and lane not in self._current else lane

    # --- what turns ask ---

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint of the requests."""
        return self._endpoint

    @property
    def connected(self) -> bool:
        """Whether a turn dispatched now would find an open connection, as far as can be told."""
        return any(link.usable for link in self._current.values())

    def must_dial(self, lane: str | None) -> bool:
        """Whether a turn of a lane would find neither a connection nor a dial under way."""
        link = self._current_for(lane)
        return link is None or not (link.usable or link.state is LinkState.DIALLING)

    def may_continue(self, lane: str | None, body: Mapping[str, Any], stored: HeldResponse | None) -> bool:
        """Whether the server is known to hold what a request would continue, on the connection there is."""
        link = self._current.get(self._slot(lane))
        if link is not None and link.usable and link.make_room(lane):
            plan = link.plan(lane, body, stored=stored)
        else:
            plan = Chain().plan(body, server=self._room.server, stored=stored)
        return plan.previous_response_id is not None

    async def link(
        self,
        lane: str | None,
        transport: Transport,
        *,
        connect: float,
        cautious: bool = False,
        on_joined: Callable[[WebSocketLink], None] | None = None,
    ) -> Link | Failure:
        """Return what an attempt can be sent over; or why there is nothing.

        Args:
            lane: The lane whose attempt it is.
            transport: `Transport.WEBSOCKET` or `Transport.SSE`.
            connect: Seconds for the dial, if one has to be started.
            cautious: Whether to start none where it would probably fail.
            on_joined: Called before waiting for a dial.

        Cancelling stops waiting; a dial goes on for the next one that needs it.
        """
        if transport is Transport.SSE:
            return await self.http()
        return await self.websocket(lane, connect=connect, cautious=cautious, on_joined=on_joined)

    async def http(self) -> HttpLink | Failure:
        """Return the link over HTTP, made when it is first needed."""
        self._tasks.check_caller()
        if not self._tasks.alive:
            await trio.lowlevel.checkpoint()
            return self._tasks.ending
        if self._http is None:
            from engine.connections.http_link import HttpLink  # and with it httpx, which few sessions need

            self._http = HttpLink(
                self._endpoint, self._dialer, limits=self._settings.limits, instruments=self._instruments
            )
            self._tasks.start(self._http.run, endless=True)
        link = self._http
        await link.started.wait()
        return link if link.usable else self._tasks.ending

    async def websocket(
        self,
        lane: str | None,
        *,
        connect: float,
        cautious: bool,
        on_joined: Callable[[WebSocketLink], None] | None = None,
    ) -> WebSocketLink | Failure:
        """Return an open WebSocket, joining the dial under way or starting one; or why there is none. See `link`.

        A connection that ends as soon as it is open is a failure to connect: dialling on would hammer a server that
        accepts every connection and serves none.
        """
        self._reconnected = 0
        waited_for: WebSocketLink | None = None
        while True:
            current = self._current_for(lane)
            if current is not None and current.state is LinkState.OPEN:
                if current is waited_for and not current.usable:
                    await current.ended.wait()  # it is about to say why
                    return current.ending
                if not current.usable:
                    current.retire("the socket is gone")
                elif current.age(trio.current_time()) >= self._settings.limits.connection_lifetime:
                    self._rotate(current)
                elif current.named and not self._room.named:
                    current.retire("the server does not say which lane it answers")
                elif not current.make_room(lane):
                    current.retire("it has no name left for another lane")
                else:
                    return current
                continue
            if current is None:
                if not self._tasks.alive:
                    return self._tasks.ending
                if cautious and (objection := self._objection()) is not None:
                    return WebSocketBarred(objection)
                current = self._current[self._slot(lane)] = self._dial(connect)
            if on_joined is not None:
                on_joined(current)
            await current.dial_done.wait()
            failure = current.failure
            if current.state is LinkState.CALLED_OFF:
                continue  # there may be another, or another place to dial
            if failure is None:
                waited_for = current
            elif not _hasty(failure) or current.patience >= connect:
                return failure  # else it was begun by a turn with less patience than this one

    def _current_for(self, lane: str | None) -> WebSocketLink | None:
        """Return the connection of a lane. Where there are no more to be had, one that is idle changes lanes."""
        slot = self._slot(lane)
        current = self._current.get(slot)
        if current is not None:
            return current
        if self._room.shared:
            choice = [each for each, link in self._current.items() if link.usable and link.named]
        elif len(self._current) >= self._settings.limits.max_connections:
            # One on which the rest of an abandoned response is still to come is not idle. Since there is a place, one
            # that is dialled may be waited for by no turn any more.
            choice = [each for each, link in self._current.items() if link.usable and link.idle_since < math.inf]
            choice = choice or [each for each, link in self._current.items() if link.state is LinkState.DIALLING]
        else:
            return None
        if choice:
            longest = min(choice, key=lambda each: self._current[each].idle_since)
            current = self._current[slot] = self._current.pop(longest)
        return current

    def _objection(self) -> str | None:
        """Return the reason why no WebSocket should be tried; None where one may."""
        return self._breaker.objection if self._room.server.websocket else "this kind of server has no WebSocket"

    def note_answer(self, link: Link, fell_back_on: Failure | None) -> None:
        """Learn from an answer; ``fell_back_on`` is the failure for which its turn had gone over to HTTP."""
        if link.endpoint is self._endpoint and forbids_websocket(fell_back_on):
            self._breaker.forbidden()

    def dial_ahead(self, lane: str | None = None) -> None:
        """Have a connection ready for a lane's next turn, unless one is, or it would probably come to nothing."""
        transport = self._settings.transport
        unwise = transport is Transport.SSE or (transport is Transport.AUTO and self._objection() is not None)
        unwise = unwise or self.gates.upgrades is not None
        if self._current_for(lane) is None and self._tasks.alive and not unwise:
            self._current[self._slot(lane)] = self._dial(self._settings.timeouts.connect)

    @trio.lowlevel.enable_ki_protection
    def warm_up(self, link: Link, origin: Origin, body: Mapping[str, Any], text: CreateText, seconds: float) -> WarmUp:
        """Prepare a fresh connection, in a task that outlives the turn that asked for it."""
        warm_up = WarmUp(link, origin, body, text, seconds)
        link.begin_warm_up(origin.lane)
        self._tasks.start(warm_up.run, endless=True)
        return warm_up

    # --- what the session asks ---

    @trio.lowlevel.enable_ki_protection
    def change_endpoint(self, endpoint: Endpoint, dialer: Dialer, breaker: Breaker, gates: EndpointGates) -> None:
        """Go elsewhere, or with another key: what is connected serves the turns that are on it, and no other."""
        self._endpoint, self._dialer, self._breaker, self.gates = endpoint, dialer, breaker, gates
        self._room = self.places.room = Room(endpoint.server, breaker.labels, self._settings.limits.max_connections)
        http, self._http = self._http, None
        for link in (*self._next.values(), *self._current.values(), http):
            if link is not None:
                link.retire("the endpoint was changed")
        self._current.clear()

    def close(self) -> None:
        """Begin to close every WebSocket, whatever is in progress: a cancellation does not reach them."""
        for link in tuple(self._links):
            link.close()

    def statistics(self) -> tuple[ConnectionStatistics, ...]:
        """Counters of the connections that exist, the current one first."""
        current = tuple(self._current.values())
        return tuple(each.statistics() for each in (*current, *(each for each in self._links if each not in current)))

    # --- dialling ---

    @trio.lowlevel.enable_ki_protection
    def _dial(self, connect: float) -> WebSocketLink:
        self._dialled += 1
        link = WebSocketLink(
            self._dialled,
            session=self._session,
            endpoint=self._endpoint,
            dialer=self._dialer,
            make_socket=self._make_socket,
            timeouts=evolve(self._settings.timeouts, connect=connect),
            limits=self._settings.limits,
            labels=self._breaker.labels,
            instruments=self._instruments,
            on_change=self._on_change,
            on_ageing=self._on_ageing,
            on_aged=self._rotate,
        )
        self._links[link] = (self._breaker, self._breaker.begin())
        self._tasks.start(link.run)
        return link

    def _rotate(self, link: WebSocketLink) -> None:
        """Go over to the replacement."""
        age = link.age(trio.current_time())
        _logger.info("connection %d of a session takes no new turns: it is %.0f s old", link.number, age)
        self._instruments.emit("rotation", RotationInfo(session=self._session, connection=link.number, seconds=age))
        link.retire("it has reached its lifetime")

    def _on_ageing(self, link: WebSocketLink) -> None:
        """Dial the replacement of a link that will soon have reached its lifetime."""
        if link in self._current.values() and link not in self._next and self._tasks.alive:
            self._next[link] = self._dial(self._settings.timeouts.connect)
            self._next[link].stand_by()

    # --- what links tell ---

    def _on_change(self, link: WebSocketLink, before: LinkState) -> None:
        if before is LinkState.DIALLING:
            self._learn(link)
        match link.state:
            case LinkState.RETIRING | LinkState.CALLED_OFF | LinkState.FAILED:
                self._replace(link)
            case LinkState.CLOSED:
                self._forget(link)

    def _learn(self, link: WebSocketLink) -> None:
        """Tell the breaker what became of a dial."""
        breaker, number = self._links[link]
        failure = link.failure
        if link.state is LinkState.OPEN:
            self.opened += 1
            breaker.connected()
        elif failure is not None and counts_as_outage(failure):
            breaker.failed()
        elif isinstance(failure, UpgradeRefused):
            if failure.status == TOO_MANY_REQUESTS and (wait := asked_wait(failure)) is not None:
                self.gates.upgrades_limited(wait)
            no_websocket = f"the server has no WebSocket: it answered the upgrade with status {failure.status}"
            breaker.answered(no_websocket if lacks_websocket(failure) else None)
        else:
            breaker.given_up(number)

    def _replace(self, link: WebSocketLink) -> None:
        """Offer a link no more; too many that will not end are cut short."""
        for replaced, following in tuple(self._next.items()):
            if following is link:
                del self._next[replaced]
        replacement = self._next.pop(link, None)
        for slot, current in tuple(self._current.items()):
            if current is link:
                del self._current[slot]
                if replacement is not None:
                    self._current[slot] = replacement
                    replacement.take_over(link.idle_since)
        retiring = [each for each in self._links if each.state in _RETIRING and not each.busy]
        for oldest in retiring[:-_MAX_RETIRING]:
            oldest.abort("too many connections were waiting to close")

    def _forget(self, link: WebSocketLink) -> None:
        """A link's socket is gone."""
        del self._links[link]
        if link.broke_unused and self._settings.retry.eager_reconnect and self._tasks.alive:
            self._tasks.start(self._reconnect, endless=True)

    async def _reconnect(self) -> None:
        """Replace a link that ended unused: the first time at once, then backing off, until a turn comes."""
        retry = self._settings.retry
        while not self._current and self._reconnected <= len(retry.back_off):
            number, self._reconnected = self._reconnected, self._reconnected + 1
            await trio.sleep(retry.wait(number - 1) if number else 0)
            if self._current:
                return
            self.dial_ahead()
            link = self._current.get(self._slot(None))
            if link is None:
                return
            await link.dial_done.wait()
            if link.failure is None:
                return


def _hasty(failure: Failure) -> bool:
    return isinstance(failure, Unreachable) and failure.stage == "timeout"
