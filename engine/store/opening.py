"""The block in which a stored conversation is held."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal

import trio
from attrs import Attribute, field, frozen

from engine.conversation.conversation import Conversation
from engine.conversation.journal import Journal
from engine.registry import Engine
from engine.session import Session
from engine.store.codec import Codec
from engine.store.conversation import Open, StoredConversation, read_transcript
from engine.store.group import Group
from engine.store.lease import Lease, take
from engine.store.transcript import Transcript
from engine.turns.work import BeforeDispatch
from engine.values.messages import Message
from engine.values.problems import ConfigurationError

__all__ = ["Kept", "Opening", "Terms"]

_MOST_KEPT: Final = 1024


def _seconds(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None and attribute.name == "retain":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(attribute.name, "must be a number of seconds, 0 or more")


@frozen(kw_only=True)
class Terms:
    """The terms on which a session is held.

    Attributes:
        owner: The name of this process.
        seconds: The length of a lease, in seconds.
        wait: Seconds to wait for the session.
        retain: Seconds that it is kept after its last change; None keeps it.
        codec: The codec of its rows.
    """

    owner: str
    seconds: float
    wait: float = field(validator=_seconds)
    retain: float | None = field(validator=_seconds)
    codec: Codec | None


class Kept:
    """The rows in memory of sessions that this process held last, by the number and the fence of their newest row.

    Where that is still the newest row in the store, no other process went on with it, and nothing has to be read. The
    number alone would not do: a session that was forgotten and made anew may have as many rows.
    """

    def __init__(self) -> None:
        self._transcripts: OrderedDict[str, tuple[tuple[int, int], Transcript]] = OrderedDict()

    def of(self, session: str, newest: tuple[int, int]) -> Transcript | None:
        """Return the transcript that ends with a row."""
        found, transcript = self._transcripts.pop(session, (None, Transcript()))
        return transcript if found == newest else None

    def keep(self, session: str, newest: tuple[int, int], transcript: Transcript) -> None:
        """Keep a transcript; those that were not used for long make room."""
        self._transcripts[session] = (newest, transcript)
        while len(self._transcripts) > _MOST_KEPT:
            self._transcripts.popitem(last=False)


class Opening:
    """``async with store.open(...) as chat``. Made by `engine.store.Store.open`."""

    def __init__(
        self,
        group: Group,
        nursery: trio.Nursery,
        kept: Kept,
        eng: Engine,
        session_id: str,
        *,
        terms: Terms,
        fields: Mapping[str, Any],
        conversation: Mapping[str, Any],
    ) -> None:
        self._group = group
        self._nursery = nursery
        self._kept = kept
        self._engine = eng
        self._session_id = session_id
        self._terms = terms
        self._fields: Any = fields
        self._conversation: Any = conversation
        self._lease: Lease | None = None
        self._chat: StoredConversation | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> StoredConversation:
        """Acquire the session, waiting for it, and read its transcript if this process does not have it.

        Raises:
            ConfigurationError: the engine's session of that id lives with other options, or something given is wrong.
            SessionHeld: another process held it all the time.
            SessionClosed: the engine was left.
            StoreError: a row cannot be read.
            StoreUnavailable: the store is out of reach.

        If cancelled, the session is given back.
        """
        if self._lease is not None:
            raise RuntimeError("a stored conversation can be opened only once; open it again")
        session = await self._engine.session(self._session_id, **self._fields)
        terms = self._terms
        lease = self._lease = await take(
            self._group,
            self._nursery,
            self._session_id,
            owner=terms.owner,
            seconds=terms.seconds,
            wait=terms.wait,
        )
        try:
            transcript = self._kept.of(self._session_id, lease.newest)
            if transcript is None:
                transcript = await read_transcript(self._group, lease, terms.codec)
            opened = Open(
                start=self._starter(session), settings=session._settings, retain=terms.retain, codec=terms.codec
            )
            self._chat = StoredConversation(self._group, lease, transcript, opened)
        except BaseException:
            lease.give_up()
            raise
        # Entered by hand: it ends in `__aexit__`, and is the innermost scope of the block.
        lease.scope.__enter__()
        return self._chat

    def _starter(self, session: Session) -> Callable[[tuple[Message, ...], Journal, BeforeDispatch], Conversation]:
        def start(messages: tuple[Message, ...], journal: Journal, gate: BeforeDispatch) -> Conversation:
            return session._gated(gate).conversation(messages=messages, journal=journal, **self._conversation)

        return start

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Give the session back.

        Raises:
            LeaseLost: the lease was lost while the block ran, and the block was cancelled because of that.

        If cancelled, the session is given back all the same.
        """
        lease, chat = self._lease, self._chat
        assert lease is not None
        assert chat is not None
        lease.scope.__exit__(exc_type, exc, traceback)
        if lease.lost is None and (kept := chat.kept) is not None:
            self._kept.keep(self._session_id, lease.newest, kept)
        given_up = lease.give_up()
        if lease.scope.cancelled_caught:
            raise lease.lose("it was not renewed in time")
        await given_up.wait()
        return False
