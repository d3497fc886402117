"""The session and its lanes as their users see them."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import trio

from engine.calls import Calls
from engine.conversation.prompts import Prompt, context_of
from engine.conversation.snapshot import Memory, Snapshot, session_snapshot
from engine.protocol.compaction import compacted, compaction_body
from engine.settings.fields import TurnFields, options_with, settings_with, spelled_out
from engine.settings.turn_options import TurnOptions
from engine.turns.submission import create_text
from engine.values.checks import check_name
from engine.values.messages import Context
from engine.values.problems import ConfigurationError
from engine.values.statistics import LaneStatistics, SessionStatistics

__all__ = ["Lane", "Session"]


class Lane(Calls):
    """One of several conversations of a session, side by side on its connection where the server can do that.

    Got from `Session.lane` or `fork`. Its turns are served one after the other, beside those of other lanes; it has a
    queue and a memory of its own at the server. ``async with session.lane("critic") as lane`` ends its turns, and
    forgets it, when the block is left.
    """

    def __repr__(self) -> str:
        return f"<Lane {self.name!r} of session {self._core.id!r}>"

    @property
    def name(self) -> str:
        """Its name in the session."""
        assert self._lane.name is not None
        return self._lane.name

    def fork(self, name: str) -> Lane:
        """Return a new lane that begins where this one is now, with its newest answer and everything that led to it.

        Until a turn of its own was answered, what it is asked is an addition to that. Sends nothing.

        Raises:
            ConfigurationError: it is no name, or a lane has it.
        """
        return Lane(self._core, lane=self._core.fork(self._lane, check_name("lane", name)))

    def statistics(self) -> LaneStatistics:
        """Counters at this moment."""
        return self._lane.statistics()

    async def __aenter__(self) -> Lane:
        """Own the lane until the block is left.

        Raises:
            ConfigurationError: another block owns it, or it has ended with its block.

        If cancelled, nothing happens.
        """
        await trio.lowlevel.checkpoint()
        if self._lane.failure is not None:
            raise ConfigurationError("lane", f"{self.name!r} was left: session.lane({self.name!r}) makes another")
        if self._lane.owned:
            raise ConfigurationError("lane", f"{self.name!r} belongs to another block")
        self._lane.owned = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """End its turns and forget it. Has no checkpoint; it returns at once."""
        self._core.forget(self._lane)


class Session(Calls):
    """A conversation partner with a connection of its own, kept open between turns.

    Got from `engine.open_session` or `engine.Engine.session`. Not thread-safe: use `trio.from_thread`.
    """

    def __repr__(self) -> str:
        return f"<Session {self.id!r}>"

    @property
    def id(self) -> str:
        """The session's id in its engine."""
        return self._core.id

    def lane(self, name: str) -> Lane:
        """Return the lane of that name, made when it is first asked for. Sends nothing.

        Turns of different lanes run side by side: as many as the server takes on one connection, or, where it takes one
        at a time, as `engine.Limits.max_connections` allows; more wait for a place, within the ``queue`` budget.

        Args:
            name: Any string that is not empty, of at most 512 bytes as UTF-8, without NUL characters.

        Raises:
            ConfigurationError: it is no such name.
        """
        return Lane(self._core, lane=self._core.lane(check_name("lane", name)))

    def fork(self, name: str) -> Lane:
        """Return a new lane that begins where the session's own one is now; see `Lane.fork`.

        Raises:
            ConfigurationError: it is no name, or a lane has it.
        """
        return Lane(self._core, lane=self._core.fork(self._lane, check_name("lane", name)))

    @property
    def connected(self) -> bool:
        """Whether a turn started now would find an open connection, as far as can be told."""
        return self._core.connected

    @spelled_out
    async def compact(
        self, prompt: Prompt, options: TurnOptions | None = None, **fields: Unpack[TurnFields]
    ) -> Context:
        """Have the server compact a conversation, and return what takes its place in the next turns.

        Goes over HTTP, beside the session's turns. Of the options count ``model``, ``prompt_cache_key`` and
        ``service_tier``. The result has the same instructions and tools, and holds what the server returned as it
        is: keep all of it, and append to it. The next turn with it is sent whole.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: the conversation was not compacted; its class and attributes say why.

        Takes the ``start`` budget at most. If cancelled, the request is given up and its connection closed, at once.
        """
        from engine.connections.side_request import SideRequest  # and with it httpx, which few sessions need

        self._lane.tasks.check_caller()
        settings = settings_with(self._settings, fields)
        given = context_of(prompt)
        body = compaction_body(given, options_with(options, fields, "compact"), model=settings.model)
        request = SideRequest(
            "POST",
            "/responses/compact",
            create_text(body).http_body(),
            partial(compacted, given),
            timeouts=settings.timeouts,
            max_bytes=settings.limits.max_message_bytes,
        )
        return await request.answer(self._core.pool.http)

    def snapshot(self) -> Snapshot:
        """Return the session as plain, JSON-able data, at any time: ``engine.session(id, resume=...)`` goes on with it.

        It holds the model, the settings, the server's host, and which responses the server stores, by lane. Transcripts
        are their conversations' to tell. There is no key, header or function in it.

        Raises:
            ConfigurationError: something in it has no JSON form.
        """
        lanes = {"": self._lane.stored} | {lane.name or "": lane.stored for lane in self._core.lanes}
        return session_snapshot(self._settings, Memory.of(self._lane).server, lanes)

    def statistics(self) -> SessionStatistics:
        """Counters at this moment."""
        return self._core.statistics()
