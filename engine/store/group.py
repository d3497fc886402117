"""One thread that writes for all conversations: what comes while a transaction runs goes into the next one.

A commit waits for the disk. With one transaction for each change a store would do as many changes a second as the disk
does waits; with one for all that have come in meanwhile it does many times as many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import trio

from engine.store.database import Connection, Database
from engine.store.errors import StoreError, StoreUnavailable

__all__ = ["LONGEST_TRY", "Group", "Operation"]

T = TypeVar("T")

Operation = Callable[[Database], T]
"""A change or a look, inside a transaction. It may be run more than once, and must then have the effect of once."""

_LARGEST_GROUP: Final = 256
_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds before a transaction that the database would not take is tried again."""
LONGEST_TRY: Final = sum(_WAITS)
"""Seconds after which one that it never took is an error, where it refuses at once."""
_LAST_SECONDS: Final = 5.0
"""The seconds that work under way may take when the store is closed."""


class _Entry(Generic[T]):
    """An operation that waits, and what came of it."""

    def __init__(self, operation: Operation[T], on_settled: Callable[[T], None] | None) -> None:
        self.operation = operation
        self.on_settled = on_settled
        self.done = trio.Event()
        self.value: T | None = None
        self.error: Exception | None = None


class Group:
    """Runs operations of many tasks in few transactions, in the order in which they were asked for.

    `run` has to be started in a nursery; what waits when it is cancelled gets `StoreUnavailable`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[_Entry[Any]] = []
        self._more = trio.Event()
        self._closing = False
        self._threads = trio.CapacityLimiter(1)

    @property
    def closing(self) -> bool:
        """Whether it takes nothing new."""
        return self._closing

    async def run(self) -> None:
        """Work until `close`, and then until all that waits is done. Cancelling abandons what is under way."""
        taken: list[_Entry[Any]] = []
        try:
            while True:
                if not self._waiting:
                    if self._closing:
                        return
                    self._more = trio.Event()
                    await self._more.wait()
                    continue
                taken, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
                await self._flush(taken)
                taken = []
        finally:
            self._closing = True
            for entry in (*taken, *self._waiting):
                if not entry.done.is_set():
                    entry.error = StoreUnavailable("the store was closed")
                    entry.done.set()
            self._waiting.clear()
            with trio.move_on_after(_LAST_SECONDS, shield=True):
                await trio.to_thread.run_sync(self._connection.close, limiter=self._threads, abandon_on_cancel=True)

    def close(self) -> None:
        """Take nothing new, and let `run` end when what waits is done."""
        self._closing = True
        self._more.set()

    async def do(self, operation: Operation[T], *, on_settled: Callable[[T], None] | None = None) -> T:
        """Run an operation and return what it returns, when its transaction is on the disk.

        Args:
            operation: The work to do. It must not raise for what may happen; that is what its value is for.
            on_settled: Called with the value as soon as it is known, also if the caller is gone by then.

        Raises:
            StoreUnavailable: the database is out of reach, or the store was closed.

        If cancelled, the operation may be done all the same; ``on_settled`` tells.
        """
        entry = self._post(operation, on_settled)
        await entry.done.wait()
        if entry.error is not None:
            raise entry.error
        return entry.value  # type: ignore[return-value] # T may be None

    def post(self, operation: Operation[T]) -> trio.Event:
        """Have an operation run without waiting for it; the event is set when it is done, or cannot be.

        Raises:
            StoreUnavailable: the store was closed.
        """
        return self._post(operation, None).done

    def _post(self, operation: Operation[T], on_settled: Callable[[T], None] | None) -> _Entry[T]:
        if self._closing:
            raise StoreUnavailable("the store was closed")
        entry: _Entry[T] = _Entry(operation, on_settled)
        self._waiting.append(entry)
        self._more.set()
        return entry

    async def _flush(self, entries: list[_Entry[Any]]) -> None:
        for wait in (*_WAITS, None):
            error = await trio.to_thread.run_sync(
                self._transact, entries, limiter=self._threads, abandon_on_cancel=True
            )
            if error is None:
                break
            if wait is None or not self._connection.passing(error):
                for entry in entries:
                    entry.error = (
                        error if isinstance(error, StoreError) else _out_of_reach(error, self._connection.reason(error))
                    )
                break
            await trio.sleep(wait)
        for entry in entries:
            if entry.error is None and entry.on_settled is not None:
                entry.on_settled(entry.value)
            entry.done.set()

    def _transact(self, entries: list[_Entry[Any]]) -> Exception | None:
        """Run operations in one transaction; returns why none of them is done. In the thread."""
        connection = self._connection
        try:
            connection.connect()
            connection.begin()
            for entry in entries:
                entry.error = None
                connection.save()
                try:
                    entry.value = entry.operation(connection)
                except Exception as error:
                    if connection.unavailable(error):
                        raise
                    connection.undo()
                    entry.error = error if isinstance(error, StoreError) else _refused(error)
                else:
                    connection.keep()
            connection.commit()
        except Exception as error:
            connection.rollback()
            for entry in entries:
                entry.error = None
            return error
        return None


def _refused(error: Exception) -> StoreError:
    """A statement that the database does not take, whenever it is said."""
    refused = StoreError(f"the database refused a change ({type(error).__name__})")
    refused.__cause__ = error
    return refused


def _out_of_reach(error: Exception, reason: str) -> StoreUnavailable:
    unavailable = StoreUnavailable(f"the database is out of reach: {reason or type(error).__name__}")
    unavailable.__cause__ = error
    return unavailable
