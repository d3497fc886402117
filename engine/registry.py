"""The engine: one nursery that owns sessions, and the registry that finds them by id.

What changes the registry, or opens and closes the nursery, is protected from KeyboardInterrupt: that comes at the next
checkpoint, never between two statements of which the second must follow the first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack

import trio
from attrs import field, frozen

from engine.connections.breakers import Breakers
from engine.connections.gates import Gates
from engine.connections.home import Home
from engine.connections.request_parts import as_text, checked_method, checked_path
from engine.conversation.snapshot import Snapshot, session_from
from engine.instruments import Instruments
from engine.protocol.chain import HeldResponse
from engine.protocol.failures import Closed, Failure
from engine.session import Session
from engine.settings.endpoint import Endpoint, check_endpoint
from engine.settings.fields import SessionFields, check_names, spelled_out
from engine.settings.levels import Settings
from engine.settings.timeouts import Timeouts
from engine.transport.dial import Dialer
from engine.transport.proxy import dialer_to
from engine.turns.core import SessionCore
from engine.values.checks import check_name, check_seconds
from engine.values.choices import UNSET
from engine.values.errors import SessionClosed
from engine.values.problems import ConfigurationError
from engine.values.statistics import EngineStatistics

if TYPE_CHECKING:
    from engine.connections.http_link import HttpLink

__all__ = ["Engine"]

_logger = logging.getLogger("engine.registry")


@frozen
class _Entry:
    """A session: what works, and what callers hold.

    Attributes:
        core: The part that works.
        session: The part that callers hold.
        kept: Whether a block owns it, so that it is never released for being idle.
    """

    core: SessionCore = field(repr=False)
    session: Session
    kept: bool = False


class Engine:
    """Sessions by id. Got from `open_engine`.

    Not thread-safe: use `trio.from_thread`, or `engine.blocking`. A call from another thread, another run of Trio or
    another event loop is a RuntimeError at once.

    Attributes:
        breakers: Whether servers are worth trying a WebSocket with, by what became of the last tries; see
            `engine.Breakers`.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        endpoint: Endpoint,
        *,
        dialer: Dialer,
        opener: Dialer | None,
        settings: Settings,
        instruments: Instruments,
        owner: str = "engine",
    ) -> None:
        self._home = Home()
        self._nursery = nursery
        self._opener = opener
        self._endpoint = endpoint
        self._dialer = dialer
        self._settings = settings
        self._instruments = instruments
        self._owner = owner  # the block that nothing of it outlives, as errors name it
        self.breakers: Breakers = Breakers(settings.retry)
        self._gates = Gates(settings.retry)
        self.breakers.of(endpoint)
        self._entries: dict[str, _Entry] = {}
        self._closing: dict[str, list[SessionCore]] = {}
        self._shut_because: str | None = None
        self._link: HttpLink | None = None

    @trio.lowlevel.enable_ki_protection
    @spelled_out
    async def session(
        self, session_id: str, *, resume: Snapshot | None = None, **fields: Unpack[SessionFields]
    ) -> Session:
        """Return the session of that id, starting it if there is none. It lives until released.

        The same id gives the same object, as long as the session lives. No connection is made before the first turn.

        Args:
            session_id: Any string that is not empty, of at most 512 bytes as UTF-8, without NUL characters.
            resume: A session to go on with, as its `engine.Session.snapshot` wrote it, under this or another id. Its
                settings hold where none are given.
            fields: Settings of its turns, field by field over the engine's; see `engine.SessionFields`.

        Raises:
            ConfigurationError: it is no such id, a field is wrong, or the session lives with other options than those
                given, or lives and should be resumed. ``resume.…`` is a part of the snapshot that cannot be used.
            SessionClosed: the engine was left, or is being drained.

        If cancelled, a session that was being started stays registered.
        """
        settings, held = self._checked("session", session_id, resume, fields)
        entry = self._living(session_id)
        if entry is None:
            entry = self._start(session_id, settings, held)
        elif resume is not None:
            raise ConfigurationError("session id", f"{session_id!r} lives, and cannot be resumed; release it first")
        elif settings != entry.core.settings and any(value is not None for value in fields.values()):
            raise ConfigurationError("session id", f"{session_id!r} lives with other options; release it first")
        await entry.core.started.wait()
        return entry.session

    @spelled_out
    def open_session(
        self, session_id: str, *, resume: Snapshot | None = None, **fields: Unpack[SessionFields]
    ) -> AbstractAsyncContextManager[Session]:
        """Start a session for a block: ``async with engine.open_session("user-43") as session``.

        When the block is left it is released, as `release` does it, and its sockets are gone.

        Args:
            session_id: As for `session`, of no session that lives.
            resume: See `session`.
            fields: See `session`.

        Raises:
            ConfigurationError: the id, a field or the snapshot is wrong; or, on entering the block, a session of that
                id lives already.
            SessionClosed: on entering the block: the engine was left, or is being drained.
        """
        return _OpenedSession(self, session_id, *self._checked("open_session", session_id, resume, fields))

    def _checked(
        self, call: str, session_id: str, resume: Snapshot | None, fields: SessionFields
    ) -> tuple[Settings, Mapping[str, HeldResponse]]:
        """Return what would hold for a session, and what the server stores for it, if nothing asked for is wrong."""
        self._home.check()
        check_name("session id", session_id)
        check_names(call, fields, SessionFields.__annotations__)
        resumed: dict[str, Any] = {}
        held: Mapping[str, HeldResponse] = {}
        if resume is not None:
            resumed, held = session_from(resume, self._endpoint.websocket.hostname or "")
        return self._settings.merged(**resumed).merged(**fields), held

    def _living(self, session_id: str) -> _Entry | None:
        if self._shut_because is not None:
            raise SessionClosed(self._shut_because)
        entry = self._entries.get(session_id)
        if entry is not None and entry.core.failure is not None:
            self._retire(entry.core)  # it broke; its successor starts afresh
            return None
        return entry

    def _start(
        self, session_id: str, settings: Settings, held: Mapping[str, HeldResponse], *, kept: bool = False
    ) -> _Entry:
        core = SessionCore(
            session_id,
            endpoint=self._endpoint,
            dialer=self._dialer,
            settings=settings,
            breaker=self.breakers.of(self._endpoint),
            gates=self._gates.at(self._endpoint),
            instruments=self._instruments,
            owner=self._owner,
        )
        for name, stored in held.items():
            core.lane(name or None).stored = stored
        entry = self._entries[session_id] = _Entry(core, Session(core), kept)
        self._nursery.start_soon(self._host, entry)
        return entry

    def __repr__(self) -> str:
        return f"<Engine of {len(self)} sessions>"

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint of the sessions."""
        return self._endpoint

    @trio.lowlevel.enable_ki_protection
    def change_endpoint(self, endpoint: Endpoint) -> None:
        """Let every session go elsewhere, or with another key or other header fields.

        Returns at once. A turn that is on a connection ends there; the next one opens a new connection. What the old
        server holds is forgotten, transcripts are not. A lifetime of connections that came from the old server's
        profile stays.

        Raises:
            ConfigurationError: it is no `engine.Endpoint`, or the environment names a proxy for it that cannot be used.
        """
        self._home.check()
        check_endpoint(endpoint)
        self._dialer = dialer_to(endpoint, self._opener)
        self._endpoint = endpoint
        breaker = self.breakers.of(endpoint)
        for entry in self._entries.values():
            entry.core.change_endpoint(endpoint, self._dialer, breaker, self._gates.at(endpoint))

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = UNSET,
        query: Mapping[str, str] = MappingProxyType({}),
        timeouts: Timeouts | None = None,
    ) -> Any:
        """Send a request to any other route of the server: ``await engine.request("GET", "/models")``.

        It goes over HTTP with the engine's endpoint, key, header fields, proxy and limits, beside all sessions, and is
        never sent again.

        Args:
            method: Such as ``"GET"``.
            path: Below the endpoint's ``base_url``, such as ``"/models"``.
            json: The body, as what JSON can say; without it there is none.
            query: Parameters of the URL.
            timeouts: ``connect``, ``start`` and ``turn``, field by field over the engine's; the latter two both bound
                all of it.

        Returns:
            What the answer's JSON says; None for an empty answer.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: there is no such answer; its class and attributes say why.

        If cancelled, the request is given up and its connection closed, at once.
        """
        from engine.connections.side_request import SideRequest, as_json  # and with it httpx, which few engines need

        self._home.check()
        settings = self._settings.merged(timeouts=timeouts)
        request = SideRequest(
            checked_method(method),
            checked_path(path, query),
            None if json is UNSET else as_text(json),
            as_json,
            timeouts=settings.timeouts,
            max_bytes=settings.limits.max_message_bytes,
        )
        return await request.answer(self._http)

    async def _http(self) -> HttpLink | Failure:
        """Return the engine's own link over HTTP, made when it is first needed."""
        from engine.connections.http_link import HttpLink

        if self._shut_because is not None:
            await trio.lowlevel.checkpoint()
            return Closed(self._shut_because)
        link = self._link
        if link is None or link.endpoint is not self._endpoint:
            if link is not None:
                link.retire("the endpoint was changed")
            limits = self._settings.limits
            link = self._link = HttpLink(self._endpoint, self._dialer, limits=limits, instruments=self._instruments)
            self._nursery.start_soon(self._run_link, link)
        await link.started.wait()
        return link if link.usable else Closed(f"the {self._owner} was left")

    async def _run_link(self, link: HttpLink) -> None:
        try:
            await link.run()
        except Exception as error:
            _logger.error("the engine's own link broke: %s", type(error).__name__)

    def has_session(self, session_id: str) -> bool:
        """Whether ``session_id`` is registered, works, and has an open connection at this moment."""
        entry = self._entries.get(session_id)
        return entry is not None and entry.core.connected

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    @trio.lowlevel.enable_ki_protection
    async def release(self, session_id: str) -> bool:
        """Close the session of that id and wait until its sockets are gone; its turns fail with `SessionClosed`.

        Returns:
            Whether it was known, or still closing.

        The entry is gone at once: asking for the same id meanwhile starts a fresh session. Takes
        `Timeouts.close` and half a second at most. Cancelling stops waiting; the closing goes on.
        """
        self._home.check()
        entry = self._entries.get(session_id)
        if entry is not None:
            self._close(entry.core)
        closing = list(self._closing.get(session_id, ()))
        if not closing:
            await trio.lowlevel.checkpoint()
            return False
        for each in closing:
            await each.finished.wait()
        return True

    def _close(self, core: SessionCore) -> None:
        """Begin to close a session, which is none of the registry's from now on."""
        entry = self._entries.get(core.id)
        if entry is not None and entry.core is core:
            self._retire(core)
        core.close("the session was released")

    def _retire(self, core: SessionCore) -> None:
        """Take a session out of the registry; until its sockets are gone it counts as closing."""
        del self._entries[core.id]
        if not core.finished.is_set():
            self._closing.setdefault(core.id, []).append(core)

    async def _host(self, entry: _Entry) -> None:
        core = entry.core
        try:
            if entry.kept or math.isinf(core.settings.limits.session_idle):
                await core.run()
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._release_when_idle, core)
                    await core.run()
                    nursery.cancel_scope.cancel(reason="the session has ended")
        finally:
            remaining = self._closing.get(core.id, [])
            if core in remaining:
                remaining.remove(core)
            if not remaining:
                self._closing.pop(core.id, None)

    async def _release_when_idle(self, core: SessionCore) -> None:
        """Release a session that has had no turn for as long as its limits allow."""
        while True:
            await core.until_idle()
            due = core.idle_since + core.settings.limits.session_idle
            if not core.busy and trio.current_time() >= due:
                break
            await trio.sleep_until(due)
        _logger.info("a session is released: it has had no turn for %g s", core.settings.limits.session_idle)
        self._close(core)

    async def drain(self, grace: float) -> bool:
        """Take no new turns and no new sessions, let the turns under way end, then release every session.

        Args:
            grace: Seconds that the turns under way may take; those that take longer fail with `SessionClosed`.

        Returns:
            Whether all of them ended within that time.

        Takes ``grace``, `Timeouts.close` and half a second at most. The engine stays shut. If cancelled, sessions are
        not released, and turns under way go on.
        """
        self._home.check()
        check_seconds("grace", grace)
        self._shut_because = self._shut_because or "the engine was drained"
        cores = [entry.core for entry in self._entries.values()]
        for core in cores:
            core.shut(self._shut_because)
        with trio.move_on_after(grace):
            await trio.lowlevel.checkpoint()
            for core in cores:
                await core.until_idle()
        in_time = not any(core.busy for core in cores)
        for core in cores:
            self._close(core)
        for core in cores:
            await core.finished.wait()
        return in_time

    def _leave(self) -> None:
        self._shut_because = f"the {self._owner} was left"
        for entry in self._entries.values():
            entry.core.close(self._shut_because)
        if self._link is not None:  # sessions end by themselves
            self._nursery.cancel_scope.cancel(reason=self._shut_because)

    def statistics(self) -> EngineStatistics:
        """Counters at this moment."""
        return EngineStatistics(
            sessions={session_id: entry.core.statistics() for session_id, entry in self._entries.items()},
            closing=sum(len(cores) for cores in self._closing.values()),
        )


class _OpenedSession(AbstractAsyncContextManager[Session]):
    """A session for a block: ``async with engine.open_session("user-43") as session``."""

    def __init__(self, engine: Engine, session_id: str, settings: Settings, held: Mapping[str, HeldResponse]) -> None:
        self._engine = engine
        self._id = session_id
        self._settings = settings
        self._held = held
        self._core: SessionCore | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Session:
        """Start the session. Makes no connection.

        Raises:
            ConfigurationError: a session of that id lives already.
            SessionClosed: the engine was left, or is being drained.

        If cancelled, there is no session.
        """
        engine = self._engine
        engine._home.check()
        if self._core is not None:
            raise RuntimeError("a session can be opened only once: call engine.open_session again")
        if engine._living(self._id) is not None:
            raise ConfigurationError("session id", f"{self._id!r} lives already: engine.session returns it")
        entry = engine._start(self._id, self._settings, self._held, kept=True)
        self._core = entry.core
        try:
            await entry.core.started.wait()
        except BaseException:
            engine._close(entry.core)
            raise
        return entry.session

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Release the session and wait, within bounds, until its sockets are gone. Cannot be cut short."""
        assert self._core is not None
        self._engine._close(self._core)
        with trio.CancelScope(shield=True):  # closing has bounds of its own
            await self._core.finished.wait()
        if exc is None:
            await trio.lowlevel.checkpoint_if_cancelled()
        return False
