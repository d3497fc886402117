from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import PostgresServer, missing, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    reason = missing()
    if reason is not None:
        if os.environ.get("ENGINE_TEST_POSTGRES") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    pytest.importorskip("psycopg")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty()
