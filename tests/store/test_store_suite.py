"""The suite for stores of every kind, on the two that come with the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import PostgresServer

from engine.store import Connection
from engine.store.places import connection_to
from engine.testing import StoreSuite


class TestSQLite(StoreSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._url = f"sqlite:///{tmp_path}/sessions.db"

    def connect(self) -> Connection:
        return connection_to(self._url)


class TestPostgres(StoreSuite):
    @pytest.fixture(autouse=True)
    def _place(self, postgres: PostgresServer) -> None:
        self._url = postgres.empty()

    def connect(self) -> Connection:
        return connection_to(self._url)
