"""The lease of one session: renewed while the session is held, and a deadline for the work that relies on it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Final

import trio

from engine.store import operations
from engine.store.errors import LeaseLost, SessionHeld, StoreUnavailable
from engine.store.group import LONGEST_TRY, Group
from engine.store.records import Begun, Claim, HeldBy, Kind, NewRow, Taken

__all__ = ["Lease", "take"]

_logger = logging.getLogger("engine.store")

_MARGIN: Final = 0.1
"""The part of a lease that the holder does not use: clocks run at different rates, and a cancellation takes time."""
_RENEWED_AT: Final = 1 / 3
_SAID_AGAIN: Final = 1 / 20
"""The part of a lease after which a row that the database did not take is said again."""
_NOT_SURE: Final = "whether an earlier row was written is not known yet"
_LOOKS: Final = 0.05
_LONGEST_LOOK: Final = 1.0


class Lease:
    """A session that this process holds.

    Attributes:
        claim: The proof of it.
        head: The number of the newest row that this process knows of.
        base: The number of the row where reading begins.
        written: The fence of the newest row.
        begun: The prompts that are begun and not answered, as far as this process knows.
        scope: Cancelled when the lease is lost, and at the latest when it would be over.
        lost: The reason for its loss; None while it is held.
        sure: Whether it is known what the newest row is.
    """

    def __init__(self, group: Group, taken: Taken, *, seconds: float, asked_at: float) -> None:
        self.claim: Claim = taken.claim
        self.head: int = taken.head
        self.base: int = taken.base
        self.written: int = taken.written
        self.begun: Begun = taken.begun
        self.lost: str | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self._group = group
        self._seconds = seconds
        self._given_up = trio.Event()
        self.sure: bool = True
        self._moved = trio.Event()  # set, and replaced, when the newest row changes
        self._reserved = 0  # the highest number that a row under way has
        self._prolong(asked_at)

    def _prolong(self, asked_at: float) -> None:
        """Reckon from before the store was asked: it may have answered late, and never early."""
        self._renewed_at = asked_at
        self.scope.deadline = asked_at + self._seconds * (1 - _MARGIN)

    def lose(self, why: str) -> LeaseLost:
        """Stop the work that relies on it, and return the error that says so."""
        if self.lost is None:
            self.lost = why
            _logger.warning("a lease was lost: %s", why)
        self.scope.cancel(reason="the lease was lost")
        return LeaseLost(self.claim.session, self.lost)

    def check(self) -> None:
        """Raise `LeaseLost` if it was lost, or is over by this process's clock.

        Raises:
            RuntimeError: it was given up: the block that held it was left.
        """
        if self._given_up.is_set():
            raise RuntimeError("the block that held the session was left: open it again")
        if self.lost is not None:
            raise LeaseLost(self.claim.session, self.lost)
        if trio.current_time() >= self.scope.deadline:
            raise self.lose("it was not renewed in time")

    async def keep(self) -> None:
        """Renew it until `give_up`, or until it is lost. Runs in the store's nursery.

        Cancelling stops renewing.
        """
        while self.lost is None:
            with trio.move_on_at(self._renewed_at + self._seconds * _RENEWED_AT):
                await self._given_up.wait()
            if self._given_up.is_set():
                return
            asked_at = trio.current_time()
            try:
                renewed = await self._group.do(
                    lambda database: operations.renew(database, self.claim, lease=self._seconds)
                )
            except StoreUnavailable:
                with trio.move_on_after(self._seconds * _RENEWED_AT / 4):  # the deadline decides in the end
                    await self._given_up.wait()
                continue
            if self._given_up.is_set():
                return
            if not renewed:
                self.lose("another process took it over")
                return
            self._prolong(asked_at)

    def give_up(self) -> trio.Event:
        """Let the next one in. Returns at once; the event is set when the store was told.

        Raises nothing for what the store says: in the worst case the lease ends by itself.
        """
        self._given_up.set()
        try:
            return self._group.post(lambda database: operations.release(database, self.claim))
        except StoreUnavailable:
            _logger.info("a lease could not be given up; it ends by itself")
            return self._given_up

    # --- what relies on it ---

    async def begin(self, *, key: str, digest: str, attempts: int) -> None:
        """Note that a request of a prompt is about to leave, with which ``attempts`` may be at work.

        Raises:
            LeaseLost: the session is another's by now; nothing may be sent.
            StoreUnavailable: the store is out of reach; nothing may be sent.

        If cancelled, the request may be noted all the same.
        """
        self.check()
        dispatch = uuid.uuid4().hex
        asked_at = trio.current_time()
        begun = await self._group.do(
            lambda database: operations.begin(
                database,
                self.claim,
                head=self.head,
                key=key,
                digest=digest,
                attempts=attempts,
                dispatch=dispatch,
                lease=self._seconds,
            ),
            on_settled=self._begun,
        )
        if begun is None:
            raise self.lose("another process went on with the session")
        self._prolong(asked_at)
        self.check()

    def _begun(self, begun: Begun | None) -> None:
        if begun is not None:
            self.begun = begun

    async def settle(self, before: Begun) -> None:
        """Put back what stood there before requests that are known not to be at work.

        If cancelled, it may be put back all the same.
        """
        head = self.head

        def known(settled: bool) -> None:
            if settled:
                self.begun = before

        settled = await self._group.do(
            lambda database: operations.settle(database, self.claim, head=head, before=before), on_settled=known
        )
        if not settled:
            raise self.lose("another process went on with the session")

    @property
    def newest(self) -> tuple[int, int]:
        """The number and the fence of the newest row."""
        return self.head, self.written

    def found(self, head: int) -> None:
        """The store was asked, and this is the number of its newest row."""
        if head != self.head:  # written under this lease: no other process could
            self.written = self.claim.token
        self.head, self.sure, self._reserved = head, True, 0

    async def write(self, row: Callable[[int], NewRow], *, retain: float | None = None) -> None:
        """Write a row behind the others.

        Args:
            row: Makes the row for the number that it will have.
            retain: Seconds that the session is kept from now on; None changes nothing.

        Raises:
            LeaseLost: the session is another's by now; nothing was written.
            StoreUnavailable: the store was out of reach for most of a lease; whether it was written is not known.

        If cancelled, it may be written all the same; ``head`` tells as soon as it is known.
        """
        self.check()
        if not self.sure:
            raise StoreUnavailable(_NOT_SURE)
        # Tools that run side by side write side by side: each row has its number from here on.
        before, self._reserved = max(self._reserved, self.head), max(self._reserved, self.head) + 1
        new, asked_at = row(before + 1), trio.current_time()

        def written(head: int | None) -> None:
            if head is None:
                return
            self.head, self.written = head, self.claim.token
            self._prolong(asked_at)
            if new.kind is Kind.REPLACE:
                self.base = head
            self.begun = operations.begun_after(self.begun, new)
            self._move()

        head: int | None = None
        try:
            head = await self._committed(new, before, retain, written)
        finally:
            if head is None:
                self.sure = False
                self._move()
        if head is None:
            raise self.lose("another process went on with the session")

    async def _committed(
        self, new: NewRow, before: int, retain: float | None, on_settled: Callable[[int | None], None]
    ) -> int | None:
        """Commit a row, and say it again for as long as a lease lasts: what it holds has been paid for."""
        until = self.scope.deadline  # renewals may succeed where a row finds no room
        while True:
            try:
                return await self._group.do(
                    lambda database: operations.commit(
                        database, self.claim, [new], head=before, lease=self._seconds, retain=retain
                    ),
                    on_settled=on_settled,
                )
            except StoreUnavailable:
                wait = self._seconds * _SAID_AGAIN
                if self._group.closing or trio.current_time() + wait + LONGEST_TRY >= until:
                    raise
                await trio.sleep(wait)
                await self._settled_up_to(before)

    async def _settled_up_to(self, number: int) -> None:
        """Wait until the rows of this process up to a number are in the store: they are said again first."""
        while self.sure and self.head < number:
            await self._moved.wait()
        if not self.sure:
            raise StoreUnavailable(_NOT_SURE)

    def _move(self) -> None:
        moved, self._moved = self._moved, trio.Event()
        moved.set()


async def take(group: Group, nursery: trio.Nursery, session: str, *, owner: str, seconds: float, wait: float) -> Lease:
    """Acquire a session, waiting for its holder.

    Args:
        group: Asks the store.
        nursery: The nursery that the lease is renewed in.
        session: The session's id.
        owner: The name of this process.
        seconds: The length of a lease, in seconds.
        wait: Seconds to wait for the session.

    Raises:
        SessionHeld: it was held all the time.
        StoreUnavailable: the store is out of reach.

    If cancelled, a session that was acquired meanwhile is given up again.
    """
    nonce = uuid.uuid4().hex
    until = trio.current_time() + wait
    pause = _LOOKS

    while True:
        asked_at = trio.current_time()
        arrived: list[Taken | HeldBy] = []
        try:
            found = await group.do(
                lambda database: operations.acquire(database, session, owner=owner, nonce=nonce, lease=seconds),
                on_settled=arrived.append,
            )
        except trio.Cancelled:
            _give_back(group, session, owner=owner, nonce=nonce)
            raise
        if isinstance(found, Taken):
            lease = Lease(group, found, seconds=seconds, asked_at=asked_at)
            nursery.start_soon(lease.keep)
            return lease
        now = trio.current_time()
        if now >= until:
            raise SessionHeld(session, found.owner, found.seconds)
        await trio.sleep(min(pause, until - now, max(found.seconds, _LOOKS)))
        pause = min(pause * 2, _LONGEST_LOOK)


def _give_back(group: Group, session: str, *, owner: str, nonce: str) -> None:
    """Release what may have been acquired for a caller that is gone."""
    try:
        group.post(lambda database: operations.give_back(database, session, owner=owner, nonce=nonce))
    except StoreUnavailable:
        _logger.info("a lease could not be given up; it ends by itself")
