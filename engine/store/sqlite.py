"""A store in one SQLite file. Not for network file systems: their locks are not to be trusted."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from engine.store.operations import migrate
from engine.store.transactions import Transactions
from engine.values.problems import ConfigurationError

__all__ = ["SQLite"]

_OLDEST: Final = (3, 35)
"""The first version that knows RETURNING."""
_BUSY_SECONDS: Final = 5.0
"""The time that a write waits for those of other processes."""


class SQLite(Transactions):
    """A connection to one file. Used by one thread at a time, not always the same one."""

    now = "((julianday('now') - 2440587.5) * 86400.0)"
    binary = "BLOB"
    real = "REAL"
    big = "INTEGER"

    def __init__(self, path: str) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise ConfigurationError("url", f"needs SQLite {oldest}, and this Python has {sqlite3.sqlite_version}")
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement inside the transaction, and return its rows."""
        assert self._connection is not None
        return self._connection.execute(statement, parameters).fetchall()

    def connect(self) -> None:
        """Open the file, making it and its tables where there are none."""
        if self._connection is not None:
            return
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a loss of power
            self._connection = connection
            self.begin()
            migrate(self)
            self.commit()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def begin(self) -> None:
        """Begin a transaction that will write: no other process writes until it ends."""
        self.execute("BEGIN IMMEDIATE")

    def rollback(self) -> None:
        """Undo the transaction, if there is one; a connection that cannot is closed."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def unavailable(self, error: BaseException) -> bool:
        """Whether an error says that the database is out of reach, not that a statement is wrong."""
        if not isinstance(error, sqlite3.DatabaseError):
            return False
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            return False
        return (
            getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
        )  # for example, that there is no such table

    def reason(self, error: BaseException) -> str:
        """Return SQLite's words, for example that the disk is full."""
        return str(error) if isinstance(error, sqlite3.Error) else ""

    def passing(self, error: BaseException) -> bool:
        """Whether trying once more may help."""
        return isinstance(error, sqlite3.OperationalError)
