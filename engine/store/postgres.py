"""A store in a PostgreSQL database, through psycopg in a thread; needs the ``postgres`` extra.

psycopg's own asynchronous connection runs on asyncio, so the synchronous one is used, by one thread at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from engine.store.operations import migrate
from engine.store.transactions import Transactions

__all__ = ["Postgres"]

_CONNECT_SECONDS: Final = 10
_STATEMENT_MILLISECONDS: Final = 10_000
_DEAD_PEER_MILLISECONDS: Final = 10_000
_MIGRATION_LOCK: Final = 0x5E55104E
"""The key of the advisory lock under which tables are made."""


class Postgres(Transactions):
    """A connection to one database, made again when it was lost. Used by one thread at a time, not always the same."""

    now = "extract(epoch from clock_timestamp())::float8"  # now() is the time at which the transaction began
    binary = "BYTEA"
    real = "DOUBLE PRECISION"
    big = "BIGINT"

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement inside the transaction, and return its rows."""
        assert self._connection is not None
        try:
            cursor = self._connection.execute(statement.replace("?", "%s"), parameters)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.close()  # a standby: the next connection may lead to the server that took over
            raise
        return cursor.fetchall() if cursor.description is not None else []

    def connect(self) -> None:
        """Connect where there is no connection that works, making the tables where there are none."""
        if self._connection is not None:
            if not self._connection.broken:
                return
            self.close()
        own = conninfo_to_dict(self._url).get("options") or ""  # such as a search_path; ours come after it
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,  # a pooler may give each transaction another connection of its own
            connect_timeout=_CONNECT_SECONDS,
            tcp_user_timeout=_DEAD_PEER_MILLISECONDS,
            options=f"{own} -c statement_timeout={_STATEMENT_MILLISECONDS} -c timezone=UTC",
            application_name="trio-session-engine",
        )
        try:
            self._connection = connection
            self.begin()
            self.execute("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))
            migrate(self)
            self.commit()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def begin(self) -> None:
        """Begin a transaction."""
        self.execute("BEGIN")

    def rollback(self) -> None:
        """Undo the transaction, if there is one; a connection that cannot is closed."""
        try:
            if self._connection is not None and not self._connection.broken:
                self.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def unavailable(self, error: BaseException) -> bool:
        """Whether an error says that the database is out of reach, not that a statement is wrong."""
        # 54: a limit of the server's that this statement goes beyond, and no other one would
        ours = isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("54")
        away = psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction
        return isinstance(error, away) and not ours

    def reason(self, error: BaseException) -> str:
        """Return the server's words, if there was one; libpq's own words may hold a part of the URL."""
        return (error.diag.message_primary or "") if isinstance(error, psycopg.Error) else ""

    def passing(self, error: BaseException) -> bool:
        """Whether trying once more, over a new connection if need be, may help."""
        return self.unavailable(error)
