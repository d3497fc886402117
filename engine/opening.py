"""The opening of an engine or a session: a block that owns all tasks in it."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Unpack

import trio

from engine.connections.home import Home
from engine.groups import worst_of
from engine.instruments import Instrument, Instruments
from engine.registry import Engine
from engine.session import Session
from engine.settings.endpoint import Endpoint, check_endpoint
from engine.settings.fields import SessionFields, check_names, spelled_out
from engine.settings.levels import defaults_for
from engine.transport.dial import Dialer
from engine.transport.proxy import dialer_to

__all__ = ["open_engine", "open_session"]


class open_engine:  # noqa: N801 - read as a function: async with open_engine(...) as engine
    """Open an engine: ``async with open_engine(endpoint, model=...) as engine``.

    When the block is left, for whatever reason, every session is released, all at the same time, and every socket is
    gone; exceptions of the block's own pass through untouched.

    Args:
        endpoint: The server.
        instruments: Observers.
        dialer: Opens streams; the network by default, through the proxies that the environment names. One that is
            given dials everything, an `Endpoint.proxy` too, and then the environment names none.
        fields: Settings of its sessions, field by field over the defaults; see `engine.SessionFields`.

    Raises:
        ConfigurationError: something given is wrong, or, on entering the block, a proxy that the environment names;
            ``field`` names it.
    """

    _owner = "engine"  # as errors name the block

    @spelled_out
    def __init__(
        self,
        endpoint: Endpoint,
        *,
        instruments: Iterable[Instrument] = (),
        dialer: Dialer | None = None,
        **fields: Unpack[SessionFields],
    ) -> None:
        check_names("open_engine", fields, SessionFields.__annotations__)
        check_endpoint(endpoint)
        self._endpoint = endpoint
        self._settings = defaults_for(endpoint).merged(**fields)
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
            RuntimeError: Trio is not running here.
        """
        if self._manager is not None:
            raise RuntimeError("an engine can be opened only once")
        Home()  # or say where it could be opened
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
            owner=self._owner,
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
        worst: BaseException | None = None
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # Sessions record every `Exception` themselves, so this is what a caller's function raised to end the
            # program, an interrupt, or only cancellation; it comes out as itself.
            worst = worst_of(group)
        if isinstance(worst, KeyboardInterrupt):
            raise KeyboardInterrupt
        if worst is not None and not isinstance(worst, trio.Cancelled):
            raise worst
        if exc is None:
            await trio.lowlevel.checkpoint_if_cancelled()  # where the tasks were cancelled, so is this block
        return False


class _SessionsEngine(open_engine):
    """An engine that its users see nothing of but its session."""

    _owner = "session"


class open_session:  # noqa: N801 - read as a function: async with open_session(...) as session
    """Open an engine with one session: ``async with open_session(endpoint, model=...) as session``.

    Takes the arguments of `open_engine`, and ends as it does.
    """

    @spelled_out
    def __init__(
        self,
        endpoint: Endpoint,
        *,
        instruments: Iterable[Instrument] = (),
        dialer: Dialer | None = None,
        **fields: Unpack[SessionFields],
    ) -> None:
        check_names("open_session", fields, SessionFields.__annotations__)
        self._opener = _SessionsEngine(endpoint, instruments=instruments, dialer=dialer, **fields)

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
