"""SQLite: a file that is locked, full, damaged, or on a machine whose clock jumps."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from engine import Engine, open_engine
from engine.simulator import Simulator, open_simulator
from engine.store import Connection, LeaseLost, SessionHeld, Store, StoreUnavailable, open_store
from engine.store.sqlite import SQLite


@asynccontextmanager
async def opened(store: str | Connection) -> AsyncIterator[tuple[Simulator, Engine, Store]]:
    async with (
        open_simulator(in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(store) as found,
    ):
        yield sim, eng, found


class Small(SQLite):
    """A file on a disk that is full at so many pages."""

    pages = 40

    def begin(self) -> None:
        self.execute(f"PRAGMA max_page_count = {self.pages}")
        super().begin()


async def test_a_full_disk_loses_nothing(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 30
    disk = Small(str(tmp_path / "sessions.db"))
    async with opened(disk) as (sim, eng, store), store.open(eng, "u") as chat:
        await chat.send("What is 1+1?", key="1")
        long = f"What is 2+2?{' ' * 400_000}"
        with pytest.raises(StoreUnavailable, match="full"):
            await chat.send(long, key="2")
        disk.pages = 1000
        assert (await chat.send(long, key="2")).text == "4"
        assert (await chat.send("What is 3+3?", key="3")).text == "6"
        assert len(chat.messages) == 6
        (record,) = await store.sessions()
        assert (record.rows, record.interrupted) == (3, False)
    assert len(sim.requests) == 4  # the answer that found no room was asked for again, and the gate had counted it


async def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with opened(f"sqlite:///{path}") as (_, eng, store), store.open(eng, "u") as chat:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        async def unlock() -> None:
            await trio.sleep(0.3)
            other.execute("ROLLBACK")
            other.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(unlock)
            assert (await chat.send("What is 1+1?")).text == "2"


async def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database at all, but long enough to be taken for one " * 20)
    with pytest.raises(StoreUnavailable, match="not a database"):
        async with open_store(f"sqlite:///{tmp_path}/notes.txt"):
            pass


class Ahead(SQLite):
    now = f"({SQLite.now} + 3600.0)"


class Behind(SQLite):
    now = f"({SQLite.now} - 3600.0)"


async def test_a_clock_that_jumps_ahead_ends_leases_and_lets_no_two_send(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    async with opened(SQLite(path)) as (sim, eng, store):
        with pytest.raises(LeaseLost):
            async with store.open(eng, "u") as chat:
                async with opened(Ahead(path)) as (_, other, ahead), ahead.open(other, "u", wait=0) as taken:
                    assert (await taken.send("What is 1+1?")).text == "2"
                    await chat.send("What is 2+2?")
        assert sim.requests == []


async def test_a_clock_that_is_set_back_keeps_leases_and_they_can_be_ended(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    async with opened(SQLite(path)) as (_, eng, store), opened(Behind(path)) as (_, other, behind):
        with pytest.raises(LeaseLost):
            async with store.open(eng, "u") as chat:  # and its process dies, as far as the other can tell
                with pytest.raises(SessionHeld) as caught:
                    async with behind.open(other, "u", wait=0):
                        pass
                assert caught.value.seconds > 3600
                assert await behind.release("u")
                async with behind.open(other, "u", wait=0) as taken:
                    assert (await taken.send("What is 1+1?")).text == "2"
                await chat.send("What is 2+2?")
