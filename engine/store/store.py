"""A store of conversations, and the block in which it is open."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Literal, Unpack

import trio

from engine.conversation.loop_settings import Approve, OnRound, Prepare
from engine.registry import Engine
from engine.settings.fields import SessionFields, spelled_out
from engine.settings.turn_options import TurnOptions
from engine.store import operations
from engine.store.codec import Codec
from engine.store.database import Connection
from engine.store.errors import SessionHeld
from engine.store.group import Group
from engine.store.opening import Kept, Opening, Terms
from engine.store.places import connection_to
from engine.store.records import HeldBy, SessionRecord
from engine.values.checks import check_name, wrong_type
from engine.values.messages import AnyTool
from engine.values.problems import ConfigurationError

__all__ = ["Store", "open_store"]

_SHORTEST_LEASE: Final = 0.5


class Store:
    """Conversations that outlive this process, and are held by one process at a time. Got from `open_store`."""

    def __init__(self, group: Group, nursery: trio.Nursery, *, lease: float, owner: str, codec: Codec | None) -> None:
        self._group = group
        self._nursery = nursery
        self._lease = lease
        self._owner = owner
        self._codec = codec
        self._kept = Kept()

    def __repr__(self) -> str:
        return f"<Store used by {self._owner!r}>"

    @spelled_out
    def open(
        self,
        eng: Engine,
        session_id: str,
        *,
        instructions: str | None = None,
        tools: Iterable[AnyTool] = (),
        options: TurnOptions | None = None,
        wait: float = 20.0,
        retain: float | None = None,
        max_rounds: int = 16,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        on_round: OnRound | None = None,
        prepare: Prepare | None = None,
        **fields: Unpack[SessionFields],
    ) -> Opening:
        """Hold a session and go on with its conversation: ``async with store.open(engine, "user-42") as chat``.

        While the block runs, no other process and no other block has the session. Leaving it gives the session back;
        the engine's session of that id stays, with its connection, for the next block.

        Args:
            eng: The engine that asks.
            session_id: The session's id, in the store and in the engine.
            instructions: Instructions for the whole conversation.
            tools: Tools that the model may call.
            options: The requests' options.
            wait: Seconds to wait for the session while another holds it.
            retain: Seconds that the session is kept after its last change; None keeps it until it is forgotten.
            max_rounds: As for `engine.Session.conversation`, and so are those below.
            max_concurrent_tools: The most calls of one response that run at the same time.
            tool_timeout: Seconds for each call.
            approve: Asked before a call is run.
            on_round: Told of each round when it is complete.
            prepare: Given the context before each request, and returns the one that is sent. What is stored stays.
            fields: Keywords of `engine.Engine.session`, where the session is started here.

        Raises:
            ConfigurationError: something given is wrong; ``field`` names it.
        """
        if not isinstance(eng, Engine):
            raise wrong_type("eng", eng, "an Engine")
        check_name("session id", session_id)
        return Opening(
            self._group,
            self._nursery,
            self._kept,
            eng,
            session_id,
            terms=Terms(owner=self._owner, seconds=self._lease, wait=wait, retain=retain, codec=self._codec),
            fields=fields,
            conversation={
                "instructions": instructions,
                "tools": tuple(tools),
                "options": options,
                "max_rounds": max_rounds,
                "max_concurrent_tools": max_concurrent_tools,
                "tool_timeout": tool_timeout,
                "approve": approve,
                "on_round": on_round,
                "prepare": prepare,
            },
        )

    async def sessions(self) -> tuple[SessionRecord, ...]:
        """Return what is known of each stored session, the one that changed last first. No content.

        Raises:
            StoreUnavailable: the database is out of reach.

        Cancelling only stops waiting.
        """
        return await self._group.do(operations.listed)

    async def release(self, session_id: str) -> bool:
        """End the lease of a session, whichever process holds it; returns whether there is such a session.

        For sessions whose process is known to be gone, where waiting for the end of the lease is too long. A holder
        that is alive after all loses its lease at its next step.

        Raises:
            StoreUnavailable: the database is out of reach.

        If cancelled, it may be ended all the same.
        """
        return await self._group.do(lambda database: operations.free(database, session_id))

    async def forget(self, session_id: str, *, force: bool = False) -> bool:
        """Remove a session with its transcript; returns whether there was one.

        Args:
            session_id: The session's id.
            force: Whether to remove it also while it is held; its holder then loses its lease.

        Raises:
            SessionHeld: it is held, and ``force`` is not set.
            StoreUnavailable: the database is out of reach.

        If cancelled, it may be removed all the same.
        """
        found = await self._group.do(lambda database: operations.forget(database, session_id, force=force))
        if isinstance(found, HeldBy):
            raise SessionHeld(session_id, found.owner, found.seconds)
        return found

    async def prune(self, *, before: float | None = None) -> tuple[str, ...]:
        """Remove the sessions whose retention is over, and those that did not change since ``before``.

        Returns their ids. Sessions that are held stay.

        Args:
            before: Seconds since the epoch.

        Raises:
            ConfigurationError: ``before`` is something else.
            StoreUnavailable: the database is out of reach.

        If cancelled, they may be removed all the same.
        """
        if before is not None and (isinstance(before, bool) or not isinstance(before, int | float)):
            raise wrong_type("before", before, "a number of seconds since the epoch")
        return await self._group.do(lambda database: operations.prune(database, before=before))

    async def migrate(self) -> None:
        """Bring the tables to this version.

        Opening the store has done it already; this is for programs that only prepare a database.

        Raises:
            StoreUnavailable: the database is out of reach.

        If cancelled, it may be done all the same.
        """
        await self._group.do(lambda database: None)


class open_store:  # noqa: N801 - read as a function: async with open_store(...) as store
    """Open a store: ``async with open_store("sqlite:///sessions.db") as store``.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, or ``postgresql://…`` (needs the ``postgres``
            extra). SQLite serves the processes of one machine, and must not lie on a network file system. For any other
            database a `Connection` to it, which `engine.testing.StoreSuite` tries.
        lease: Seconds after which a process that does not answer any more loses its sessions. On a machine that is
            busy a short lease is lost without need.
        codec: The codec of the transcripts; None keeps them as text.
        owner: The name of this process, for those who wait for what it holds; host and process number by default.

    Raises:
        ConfigurationError: something given is wrong; ``field`` names it.
    """

    def __init__(
        self, url: str | Connection, *, lease: float = 30.0, codec: Codec | None = None, owner: str | None = None
    ) -> None:
        self._group = Group(url if isinstance(url, Connection) else connection_to(url))
        if isinstance(lease, bool) or not isinstance(lease, int | float) or not _SHORTEST_LEASE <= lease < 86_400:
            raise ConfigurationError("lease", f"must be a number of seconds from {_SHORTEST_LEASE:g} to a day")
        if owner is not None:
            check_name("owner", owner)
        self._lease = float(lease)
        self._codec = codec
        self._owner = owner or f"{socket.gethostname()}:{os.getpid()}:{int(time.time())}"
        self._manager: Any = None
        self._nursery: trio.Nursery | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Store:
        """Open the database, making the tables where there are none.

        Raises:
            StoreUnavailable: it cannot be opened.

        If cancelled, it is closed again.
        """
        if self._manager is not None:
            raise RuntimeError("a store can be opened only once")
        # Entered and left by hand, so that the block's exception never becomes part of a group.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._group.run)
        store = Store(self._group, self._nursery, lease=self._lease, owner=self._owner, codec=self._codec)
        try:
            await store.migrate()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return store

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Do what waits, and close the database. Takes a bounded time; cannot be cut short."""
        assert self._nursery is not None
        self._group.close()
        # Writes that were asked for are made even if the block is cancelled; for a bounded time.
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.deadline = trio.current_time() + _LAST_SECONDS
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is not None:
                raise KeyboardInterrupt from None
            raise
        return False


_LAST_SECONDS: Final = 10.0
"""The seconds that waiting work may take when the block is left."""
