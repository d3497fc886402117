"""The gate of one prompt: what the store is told before each of its requests leaves, and what it is told afterwards."""

from __future__ import annotations

import logging

from engine.store.errors import StoreUnavailable, TurnInterrupted
from engine.store.lease import Lease
from engine.values.choices import Delivery
from engine.values.errors import ResponseFailed, TurnError

__all__ = ["Gate"]

_logger = logging.getLogger("engine.store")


class Gate:
    """Stands before each dispatch of a prompt, resends included, and counts over all processes.

    A request counts from the moment it is let through. It counts no more when a row shows that it was answered, or when
    it is known that the server is not at work on it.

    Args:
        lease: The session.
        key: The prompt's key.
        digest: The prompt's hash.
        allowed: The number of requests of it that may be at work, beside the one that is let through.
    """

    def __init__(self, lease: Lease, *, key: str, digest: str, allowed: float) -> None:
        self.key: str = key
        self.digest: str = digest
        self._lease = lease
        self._allowed = allowed
        self._before = lease.begun
        self._risked = 0

    def answered(self) -> None:
        """Take all that was let through so far as answered: a row says so, or nothing was let through."""
        self._before, self._risked = self._lease.begun, 0

    @property
    def dispatches(self) -> int:
        """The number of the prompt's requests that were let through, over all processes."""
        intent = self._lease.begun.of(self.key)
        return intent.dispatches if intent is not None else 0

    def check(self, risked: int = 0) -> int:
        """Return how many requests may be at work; ``risked`` of them are this turn's own.

        Raises:
            TurnInterrupted: they are as many as may be, so that no other may leave.
        """
        at_work = self._at_work(risked)
        if at_work > self._allowed:
            raise TurnInterrupted(self.key, at_work)
        return at_work

    def _at_work(self, risked: int) -> int:
        before = self._before.of(self.key)
        return risked + (before.attempts if before is not None else 0)

    async def let_through(self, risked: int) -> None:
        """Note that a request is about to leave; ``risked`` earlier ones of the same turn may be at work.

        Raises:
            TurnInterrupted: too many may be at work; nothing may be sent.
            LeaseLost: the session is another's by now; nothing may be sent.
            StoreUnavailable: the store is out of reach; nothing may be sent.

        If cancelled, it may be noted all the same.
        """
        at_work = self.check(risked)
        self._risked = risked
        await self._lease.begin(key=self.key, digest=self.digest, attempts=at_work + 1)

    async def failed(self, error: TurnError) -> None:
        """The turn failed: where its last request is not at work for sure, it does not count.

        Raises:
            LeaseLost: the session is another's by now.

        If cancelled, the store may be told all the same.
        """
        if error.delivery in (Delivery.NOT_SENT, Delivery.REJECTED) and not self._risked:
            before = self._before
        elif error.delivery is Delivery.REJECTED or isinstance(error, ResponseFailed):
            before = self._lease.begun.with_attempts(self._at_work(self._risked))
        else:
            return
        try:
            await self._lease.settle(before)
        except StoreUnavailable:
            _logger.info("a prompt that was not delivered stays noted as begun: the store is out of reach")
