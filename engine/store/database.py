"""A database, as far as a store needs to know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["Connection", "Database"]


class Database(Protocol):
    """A connection inside a transaction, and the few words in which databases differ.

    Attributes:
        now: The expression for seconds since the epoch; real time, not that of the transaction's beginning.
        binary: The type of a column of bytes.
        real: The type of a column of seconds.
        big: The type of a column of whole numbers.
    """

    now: str
    binary: str
    real: str
    big: str

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement whose parameters are written ``?``, and return its rows."""
        ...


@runtime_checkable
class Connection(Database, Protocol):
    """A connection to a database, used by one thread at a time. Its methods block, within bounds of their own."""

    def connect(self) -> None:
        """Connect, if there is no connection that works, and make the tables where there are none."""
        ...

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def commit(self) -> None:
        """End the transaction and wait for the disk."""
        ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one. Raises nothing."""
        ...

    def save(self) -> None:
        """Set a point inside the transaction."""
        ...

    def keep(self) -> None:
        """Keep what was done since the point."""
        ...

    def undo(self) -> None:
        """Go back to the point."""
        ...

    def close(self) -> None:
        """Close it. Raises nothing."""
        ...

    def unavailable(self, error: BaseException) -> bool:
        """Whether an error is the database's being out of reach."""
        ...

    def passing(self, error: BaseException) -> bool:
        """Whether trying again may help against an error."""
        ...

    def reason(self, error: BaseException) -> str:
        """Return the database's words about an error, without names, addresses and values; empty where it has none."""
        ...
