"""The work that a batch has done already, in a store: no prompt is answered twice, whichever process asks."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Final, Literal, TypeAlias, get_args

import trio

from engine.conversation.rounds import Round
from engine.store import operations
from engine.store.gate import Gate
from engine.store.lease import Lease, take
from engine.store.records import Kind
from engine.store.store import Store
from engine.store.transcript import digest_of, round_row, sealed, transcript_of
from engine.values.checks import check_name, wrong_type
from engine.values.messages import AssistantMessage, Context
from engine.values.problems import ConfigurationError
from engine.values.reports import TurnReport

__all__ = ["Entry", "Ledger", "OnInterrupted", "open_ledger"]

OnInterrupted: TypeAlias = Literal["resend", "refuse"]

_WAIT_LEASES: Final = 2.0
"""The leases to wait for a prompt that another process is at work on: after one, a dead process has lost it."""


class Ledger:
    """The answers of one batch. Got from `open_ledger`."""

    def __init__(self, store: Store, name: str, on_interrupted: OnInterrupted) -> None:
        self._store = store
        self._name = name
        self._prefix = name.replace("%", "%25").replace("/", "%2F")  # keys are paths sometimes, and have strokes too
        self._on_interrupted = on_interrupted

    def __repr__(self) -> str:
        return f"<Ledger {self._name!r}>"

    @property
    def refuses(self) -> bool:
        """Whether what was begun and has no known outcome is not asked again."""
        return self._on_interrupted == "refuse"

    def entry(self, key: str, prompt: Context) -> Entry:
        """Return the entry of a prompt: ``async with ledger.entry(key, prompt) as entry``.

        Raises:
            ConfigurationError: the key is too long, together with the batch's name.
        """
        session = f"{self._prefix}/{key}"
        check_name(f"items[{key!r}]", session)
        return Entry(self._store, session, key, prompt, self._on_interrupted)


class Entry:
    """One prompt of a ledger, held while the block runs: no other process is at work on it.

    Attributes:
        known: The answer, where there is one already.
    """

    def __init__(self, store: Store, session: str, key: str, prompt: Context, on_interrupted: OnInterrupted) -> None:
        self.known: AssistantMessage | None = None
        self._store = store
        self._session = session
        self._key = key
        self._prompt = prompt.messages
        self._digest = digest_of(prompt)
        self._on_interrupted = on_interrupted
        self._lease: Lease | None = None
        self._gate: Gate | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Entry:
        """Hold the entry, waiting for a process that is at work on it.

        Raises:
            ConfigurationError: the key is another prompt's.
            SessionHeld: another process was at work on it for two leases.
            TurnInterrupted: it was begun, its outcome is unknown, and the ledger refuses to begin it once more.
            StoreError: the store is out of reach, or what stands there cannot be read.

        If cancelled, the entry is free.
        """
        store = self._store
        self._lease = lease = await take(
            store._group,
            store._nursery,
            self._session,
            owner=store._owner,
            seconds=store._lease,
            wait=store._lease * _WAIT_LEASES,
        )
        try:
            if lease.head:
                self.known = await self._read(lease)
            elif (intent := lease.begun.of(self._key)) is not None:
                self._compare(intent.digest)
            self._gate = Gate(
                lease,
                key=self._key,
                digest=self._digest,
                allowed=0 if self._on_interrupted == "refuse" else math.inf,
            )
            if self.known is None:
                self._gate.check()
        except BaseException:
            lease.give_up()
            raise
        lease.scope.__enter__()
        return self

    async def _read(self, lease: Lease) -> AssistantMessage:
        rows = await self._store._group.do(lambda database: operations.read(database, self._session, after=0))
        transcript = transcript_of(self._session, rows, self._store._codec, first=1, last=lease.head)
        self._compare(transcript.digest)
        return transcript.answer

    def _compare(self, digest: str | None) -> None:
        if digest != self._digest:
            raise ConfigurationError(f"items[{self._key!r}]", "has the key of another prompt")

    @property
    def gate(self) -> Gate:
        """Stands before each dispatch of the prompt."""
        assert self._gate is not None
        return self._gate

    async def answered(self, message: AssistantMessage, report: TurnReport) -> None:
        """Write down the answer.

        Raises:
            LeaseLost: another process has the prompt by now.
            StoreUnavailable: the store is out of reach; whether it was written is not known.

        If cancelled, it may be written all the same.
        """
        lease, store = self._lease, self._store
        assert lease is not None
        data = round_row(self._prompt, Round(message, (), report), self._digest, self.gate.dispatches)
        await lease.write(lambda number: sealed(self._session, number, Kind.ROUND, self._key, True, data, store._codec))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Let others at the entry.

        Raises:
            LeaseLost: the lease was lost while the block ran, and the block was cancelled because of that.

        Has no checkpoint otherwise: the store is told without waiting.
        """
        lease = self._lease
        assert lease is not None
        lease.scope.__exit__(exc_type, exc, traceback)
        lease.give_up()
        if lease.scope.cancelled_caught:
            raise lease.lose("it was not renewed in time")
        return False


class open_ledger:  # noqa: N801 - read as a function: async with open_ledger(...) as ledger
    """Open the ledger of a batch: ``async with open_ledger(store, "batch-7") as ledger``.

    Args:
        store: The store that it is kept in.
        name: The batch's name. Entries of one name belong together, whichever process writes them.
        on_interrupted: The way with prompts that were begun and have no known outcome, since their process died:
            ``"resend"`` asks again, so that each prompt is answered, and some may be executed twice; ``"refuse"`` gives
            `engine.store.TurnInterrupted`, so that none is executed twice, and some have no answer.

    Raises:
        ConfigurationError: something given is wrong; ``field`` names it.
    """

    def __init__(self, store: Store, name: str, *, on_interrupted: OnInterrupted = "resend") -> None:
        if not isinstance(store, Store):
            raise wrong_type("store", store, "a Store")
        check_name("name", name)
        if on_interrupted not in get_args(OnInterrupted):
            raise ConfigurationError("on_interrupted", 'must be "resend" or "refuse"')
        self._ledger = Ledger(store, name, on_interrupted)

    async def __aenter__(self) -> Ledger:
        """Return the ledger. If cancelled, nothing happens."""
        await trio.lowlevel.checkpoint()
        return self._ledger

    async def __aexit__(self, *raised: object) -> Literal[False]:
        """Leave it; what was written is in the store."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return False
