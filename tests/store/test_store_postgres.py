"""PostgreSQL: a server that crashes, connections that are cut."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
import trio
from databases import PostgresServer

from engine import Engine, open_engine
from engine.simulator import Asked, Delay, Simulator, open_simulator
from engine.store import StoredConversation, StoreError, StoreUnavailable, open_store

LONG = 0.2


class Slow:
    """Answers in its own time, and says when it begins."""

    def __init__(self) -> None:
        self.begun = trio.Event()

    def __call__(self, asked: Asked) -> list[Any]:
        self.begun.set()
        return [Delay(LONG), asked.last_user_text.upper()]


@asynccontextmanager
async def chatting(url: str, brain: Any) -> AsyncIterator[tuple[Simulator, Engine, StoredConversation]]:
    async with (
        open_simulator(in_memory=True, brain=brain) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(url, lease=60) as store,
        store.open(eng, "u") as chat,
    ):
        yield sim, eng, chat


async def test_a_server_that_crashes_loses_nothing(postgres: PostgresServer) -> None:
    """It goes down while an answer is on its way, and is back within the lease."""
    url, brain = postgres.empty(), Slow()
    async with chatting(url, brain) as (sim, _, chat):
        await chat.send("one", key="1")
        brain.begun = trio.Event()

        async def crash() -> None:
            await brain.begun.wait()
            await trio.to_thread.run_sync(postgres.stop, "immediate")
            await trio.to_thread.run_sync(postgres.start)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            # The answer is there, and is written as soon as there is a database: it is not asked for again.
            assert (await chat.send("two", key="2")).text == "TWO"
        async with open_store(url, owner="another") as other:
            (record,) = await other.sessions()
            assert (record.rows, record.interrupted) == (2, False)
        assert (await chat.send("three", key="3")).text == "THREE"
    assert len(sim.requests) == 3


@pytest.mark.parametrize("moment", ["before", "while the answer is on its way"])
async def test_a_connection_that_is_cut_is_made_again(postgres: PostgresServer, moment: str) -> None:
    url, brain = postgres.empty(), Slow()
    async with chatting(url, brain) as (sim, _, chat):
        if moment == "before":
            brain.begun.set()
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                await brain.begun.wait()
                assert await trio.to_thread.run_sync(postgres.cut)

            if moment == "before":
                await cut()
            else:
                nursery.start_soon(cut)
            assert (await chat.send("one", key="1")).text == "ONE"
        assert (await chat.send("two", key="2")).text == "TWO"
    assert len(sim.requests) == 2


async def test_a_server_that_is_not_there_is_said_to_be_so_without_the_password() -> None:
    url = "postgresql://worker:secret@/postgres?host=/nonexistent"
    with pytest.raises(StoreUnavailable) as caught:
        async with open_store(url):
            pass
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


async def test_options_of_the_url_hold(postgres: PostgresServer) -> None:
    url = postgres.empty()
    async with open_store(url):
        with psycopg.connect(url) as connection:
            statement = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
            assert connection.execute(statement).fetchone() != (0,)
            assert connection.execute("SELECT to_regclass('public.engine_tokens')").fetchone() == (None,)


async def test_a_statement_beyond_a_limit_fails_alone(postgres: PostgresServer) -> None:
    """PostgreSQL calls it an operational error; it is no outage, and its transaction is of other statements too."""
    async with open_store(postgres.empty()) as store:

        def too_long(database: Any) -> None:
            database.execute(
                "INSERT INTO engine_tokens (session, token) SELECT string_agg(md5(n::text), ''), 1 "
                "FROM generate_series(1, 1000) AS n"
            )

        found: list[str] = []

        async def fail() -> None:
            with pytest.raises(StoreError, match="refused") as caught:
                await store._group.do(too_long)
            assert not isinstance(caught.value, StoreUnavailable)
            found.append("refused")

        async def look() -> None:
            await store.sessions()
            found.append("looked")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(look)
        assert sorted(found) == ["looked", "refused"]


@contextmanager
def role(postgres: PostgresServer, url: str, rights: str) -> Iterator[str]:
    """A role of a test's own, and the URL with it."""
    name, schema = f"role_{next(NUMBERS)}", url.rpartition("%3D")[2]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN {rights}".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}".encode())
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {name}".encode())
        yield re.sub("user=[^&]*", f"user={name}", url)
        connection.execute(f"DROP OWNED BY {name}".encode())
        connection.execute(f"DROP ROLE {name}".encode())


NUMBERS = itertools.count()


async def test_a_process_without_the_right_to_make_tables_uses_those_that_are_there(postgres: PostgresServer) -> None:
    url = postgres.empty()
    async with open_store(url):
        pass
    with role(postgres, url, "") as own:
        async with chatting(own, Slow()) as (_, _, chat):
            assert (await chat.send("one")).text == "ONE"


async def test_a_server_that_only_reads_is_away_until_another_takes_over(postgres: PostgresServer) -> None:
    with role(postgres, postgres.empty(), "SUPERUSER") as own:
        name = own.partition("user=")[2].partition("&")[0]

        def only_reads(state: str) -> None:
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                connection.execute(f"ALTER ROLE {name} SET default_transaction_read_only = {state}".encode())

        async with chatting(own, Slow()) as (sim, _, chat):
            only_reads("on")
            assert postgres.cut()
            with pytest.raises(StoreUnavailable, match="read-only"):
                await chat.send("one", key="1")
            only_reads("off")
            assert (await chat.send("one", key="1")).text == "ONE"
        assert len(sim.requests) == 1
