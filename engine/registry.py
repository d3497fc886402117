"""The engine: one nursery that owns sessions, and the registry that finds them by id.

What changes the registry, or opens and closes the nursery, is protected from KeyboardInterrupt: that comes at the next
checkpoint, never between two statements of which the second must follow the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Literal

import trio

from engine.connections.breakers import Breakers
from engine.conversation.snapshot import Snapshot, session_from
from engine.instruments import Instrument, Instruments
from engine.protocol.chain import Held
from engine.session import Session
from engine.settings.endpoint import Endpoint
from engine.settings.levels import Settings, defaults_for
from engine.settings.limits import Limits
from engine.settings.retry import RetryPolicy
from engine.settings.timeouts import Timeouts
from engine.transport.dial import Dialer
from engine.transport.proxy import dialer_to
from engine.turns.core import SessionCore
from engine.values.choices import OnCancel, Transport
from engine.values.errors import SessionClosed
from engine.values.problems import ConfigurationError
from engine.values.statistics import EngineStatistics

__all__ = ["Engine", "open_engine", "open_session"]


class Engine:
    """Sessions by id. Got from `open_engine`; not thread-safe: use `trio.from_thread`.

    Attributes:
        breakers: Whether servers are worth trying a WebSocket with, by what became of the last tries; see
            `engine.connections.breakers.Breakers`.
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
    ) -> None:
        self._nursery = nursery
        self._opener = opener
        self._endpoint = endpoint
        self._dialer = dialer
        self._settings = settings
        self._instruments = instruments
        self.breakers: Breakers = Breakers(settings.retry)
        self.breakers.of(endpoint)
        self._cores: dict[str, SessionCore] = {}
        self._closing: dict[str, list[SessionCore]] = {}
        self._left = False

    @trio.lowlevel.enable_ki_protection
    async def session(
        self,
        session_id: str,
        *,
        model: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
        resume: Snapshot | None = None,
    ) -> Session:
        """Return the session of that id, starting it if there is none. It lives until released.

        No connection is made before the first turn.

        Args:
            session_id: What to call it in this engine.
            model: The model of requests that name none.
            timeouts: Budgets, field by field over the engine's.
            limits: Limits, field by field over the engine's.
            retry: How often to try again, field by field over the engine's.
            on_cancel: What becomes of a connection whose turn was left early.
            transport: How requests travel.
            resume: A session to go on with, as its `engine.Session.snapshot` wrote it, under this or another id. Its
                settings hold where none are given.

        Raises:
            ConfigurationError: the id is empty, or the session lives with other options than the ones given, or lives
                and should be resumed. ``resume.…`` is a part of the snapshot that cannot be used.
            SessionClosed: the engine was left.

        If cancelled, a session that was being started stays registered.
        """
        if not isinstance(session_id, str) or not session_id:
            raise ConfigurationError("session id", "must be a string that is not empty")
        if self._left:
            raise SessionClosed("the engine was left")
        given: dict[str, Any] = {
            "model": model,
            "timeouts": timeouts,
            "limits": limits,
            "retry": retry,
            "on_cancel": on_cancel,
            "transport": transport,
        }
        resumed: dict[str, Any] = {}
        held: dict[str, Held] = {}
        if resume is not None:
            resumed, held = session_from(resume, self._endpoint.websocket.hostname or "")
        settings = self._settings.over(**resumed).over(**given)
        core = self._cores.get(session_id)
        if core is not None and core.failure is not None:
            self._retire(core)  # it broke; its successor starts afresh
            core = None
        if core is not None and resume is not None:
            raise ConfigurationError(f"session {session_id!r}", "lives, and cannot be resumed; release it first")
        if core is None:
            core = self._cores[session_id] = SessionCore(
                session_id,
                endpoint=self._endpoint,
                dialer=self._dialer,
                settings=settings,
                breaker=self.breakers.of(self._endpoint),
                instruments=self._instruments,
            )
            core.lane().stored = held.get("")
            self._nursery.start_soon(self._host, core)
        elif settings != core.settings and any(value is not None for value in given.values()):
            raise ConfigurationError(f"session {session_id!r}", "lives with other options; release it first")
        await core.started.wait()
        return Session(core)

    @property
    def endpoint(self) -> Endpoint:
        """Where sessions go."""
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
        _check_endpoint(endpoint)
        self._dialer = dialer_to(endpoint, self._opener)
        self._endpoint = endpoint
        breaker = self.breakers.of(endpoint)
        for core in self._cores.values():
            core.change_endpoint(endpoint, self._dialer, breaker)

    def has_session(self, session_id: str) -> bool:
        """Whether ``session_id`` is registered, works, and has an open connection at this moment."""
        core = self._cores.get(session_id)
        return core is not None and core.connected

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._cores

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._cores))

    def __len__(self) -> int:
        return len(self._cores)

    @trio.lowlevel.enable_ki_protection
    async def release(self, session_id: str) -> bool:
        """Close the session of that id and wait until its sockets are gone; its turns fail with `SessionClosed`.

        Returns:
            Whether it was known, or still closing.

        The entry is gone at once: asking for the same id meanwhile starts a fresh session. Takes
        `Timeouts.close` and half a second at most. Cancelling stops waiting; the closing goes on.
        """
        core = self._cores.get(session_id)
        if core is not None:
            self._retire(core)
            core.close("the session was released")
        closing = list(self._closing.get(session_id, ()))
        if not closing:
            await trio.lowlevel.checkpoint()
            return False
        for each in closing:
            await each.finished.wait()
        return True

    def _retire(self, core: SessionCore) -> None:
        """Take a core out of the registry; until its sockets are gone it counts as closing."""
        del self._cores[core.id]
        if not core.finished.is_set():
            self._closing.setdefault(core.id, []).append(core)

    async def _host(self, core: SessionCore) -> None:
        try:
            await core.run()
        finally:
            remaining = self._closing.get(core.id, [])
            if core in remaining:
                remaining.remove(core)
            if not remaining:
                self._closing.pop(core.id, None)

    def _leave(self) -> None:
        self._left = True
        for core in self._cores.values():
            core.close("the engine was left")

    def statistics(self) -> EngineStatistics:
        """Counters at this moment."""
        return EngineStatistics(
            sessions={session_id: core.statistics() for session_id, core in self._cores.items()},
            closing=sum(len(cores) for cores in self._closing.values()),
        )


def _check_endpoint(endpoint: object) -> None:
    if not isinstance(endpoint, Endpoint):
        raise ConfigurationError("endpoint", f"is a {type(endpoint).__name__}, not an Endpoint")


class open_engine:  # noqa: N801 - read as a function: async with open_engine(...) as engine
    """Open an engine: ``async with open_engine(endpoint, model=...) as engine``.

    When the block is left, for whatever reason, every session is released, all at the same time, and every socket is
    gone; exceptions of the block's own pass through untouched.

    Args:
        endpoint: The server.
        model: The model of sessions that name none.
        timeouts: Budgets, field by field over the defaults.
        limits: Limits, field by field over the defaults.
        retry: How often to try again, field by field over the defaults.
        on_cancel: What becomes of a connection whose turn was left early.
        transport: How requests travel.
        instruments: Observers.
        dialer: Opens streams; the network by default, through the proxies that the environment names. One that is
            given dials everything, an `Endpoint.proxy` too, and then the environment names none.

    Raises:
        ConfigurationError: something given is wrong, or, on entering the block, a proxy that the environment names;
            ``field`` names it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        model: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
        instruments: Iterable[Instrument] = (),
        dialer: Dialer | None = None,
    ) -> None:
        _check_endpoint(endpoint)
        self._endpoint = endpoint
        self._settings = defaults_for(endpoint).over(
            model=model, timeouts=timeouts, limits=limits, retry=retry, on_cancel=on_cancel, transport=transport
        )
        self._instruments = Instruments(instruments)
        self._dialer = dialer
        self._manager: Any = None
        self._nursery: trio.Nursery | None = None
        self._engine: Engine | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Engine:
        """Open the engine's nursery. Makes no connection.

        Raises:
            ConfigurationError: the environment names a proxy that cannot be used.
        """
        if self._manager is not None:
            raise RuntimeError("an engine can be opened only once")
        dialer = dialer_to(self._endpoint, self._dialer)
        # The nursery is entered and left by hand, so that the block's exception never becomes part of a group.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._engine = Engine(
            self._nursery,
            self._endpoint,
            dialer=dialer,
            opener=self._dialer,
            settings=self._settings,
            instruments=self._instruments,
        )
        return self._engine

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Release every session and wait, within bounds, until every socket is gone. Cannot be cut short."""
        assert self._engine is not None
        assert self._nursery is not None
        self._engine._leave()
        self._nursery.cancel_scope.cancel(reason="the engine was left")
        interrupted = False
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # Sessions record every `Exception` themselves, so this is an interrupt, an exit, or only cancellation.
            interrupted = group.subgroup(KeyboardInterrupt) is not None
            foreign = group.subgroup(lambda error: not isinstance(error, trio.Cancelled | KeyboardInterrupt))
            if foreign is not None and not interrupted:
                raise
        if interrupted:
            raise KeyboardInterrupt
        if exc is None:
            await trio.lowlevel.checkpoint_if_cancelled()  # where the tasks were cancelled, so is this block
        return False


class open_session:  # noqa: N801 - read as a function: async with open_session(...) as session
    """Open an engine with one session: ``async with open_session(endpoint, model=...) as session``.

    Takes the arguments of `open_engine`, and ends as it does.
    """

    def __init__(self, endpoint: Endpoint, *, model: str | None = None, **options: Any) -> None:
        self._opener = open_engine(endpoint, model=model, **options)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Session:
        """Open the engine and start its session. Makes no connection."""
        engine = await self._opener.__aenter__()
        try:
            return await engine.session("default")
        except BaseException as error:
            await self._opener.__aexit__(type(error), error, error.__traceback__)
            raise

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Release the session and wait, within bounds, until its sockets are gone. Cannot be cut short."""
        return await self._opener.__aexit__(exc_type, exc, traceback)
