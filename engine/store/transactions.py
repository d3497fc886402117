"""The words of transactions that all SQL databases share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

__all__ = ["Transactions"]


class Transactions(ABC):
    """A connection that is told in SQL when a transaction ends, and of points inside it."""

    @abstractmethod
    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement inside the transaction, and return its rows."""

    def commit(self) -> None:
        """End the transaction; its changes are on the disk."""
        self.execute("COMMIT")

    def save(self) -> None:
        """Set a point inside the transaction to go back to."""
        self.execute("SAVEPOINT one")

    def keep(self) -> None:
        """Keep the changes since the point."""
        self.execute("RELEASE SAVEPOINT one")

    def undo(self) -> None:
        """Go back to the point."""
        self.execute("ROLLBACK TO SAVEPOINT one")
        self.execute("RELEASE SAVEPOINT one")
