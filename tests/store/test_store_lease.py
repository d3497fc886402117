"""The lease of a session, over a database that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from engine.store import StoreUnavailable, operations
from engine.store.group import LONGEST_TRY, Group
from engine.store.lease import Lease, take
from engine.store.places import connection_to
from engine.store.records import Begun, Claim, Kind, NewRow, Taken
from engine.store.sqlite import SQLite


class Away(Exception):
    pass


class Ailing(SQLite):
    """A file that is out of reach for a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.away = False

    def begin(self) -> None:
        if self.away:
            raise Away
        super().begin()

    def unavailable(self, error: BaseException) -> bool:
        return isinstance(error, Away) or super().unavailable(error)

    def passing(self, error: BaseException) -> bool:
        return isinstance(error, Away) or super().passing(error)


@asynccontextmanager
async def leased(connection: Ailing, seconds: float = 30.0) -> AsyncIterator[Lease]:
    group = Group(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        yield await take(group, nursery, "s", owner="one", seconds=seconds, wait=0)
        connection.away = False
        nursery.cancel_scope.cancel()


@pytest.fixture
def connection(tmp_path: Path) -> Ailing:
    return Ailing(tmp_path / "sessions.db")


def row(number: int) -> NewRow:
    return NewRow(kind=Kind.RESULT, prompt="k", last=False, data=f"[{number}]")


async def test_rows_keep_their_order_when_they_are_said_again(
    connection: Ailing, mock_clock: trio.testing.MockClock
) -> None:
    """Outputs of tools that ran side by side: each has its number, and none may be said before those in front of it."""
    mock_clock.rate = 30
    async with leased(connection, 300) as lease:
        connection.away = True
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lease.write, row)
            await trio.sleep(12)  # longer than the group tries by itself
            connection.away = False
        assert (lease.head, lease.sure, lease.lost) == (20, True, None)
    other = connection_to(f"sqlite:///{connection._path}")
    other.connect()
    other.begin()
    assert [each.data for each in operations.read(other, "s", after=0)] == [f"[{number}]" for number in range(1, 21)]
    other.commit()
    other.close()


class Gone:
    """A group whose database is out of reach."""

    closing = False

    async def do(self, operation: Any, *, on_settled: Any = None) -> Any:
        await trio.sleep(LONGEST_TRY)
        raise StoreUnavailable("the database is out of reach")


async def test_a_database_that_stays_away_is_an_error_before_the_lease_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    claim = Claim(session="s", owner="one", nonce="n", token=1)
    taken = Taken(claim=claim, head=0, base=0, written=0, begun=Begun())
    lease = Lease(cast(Any, Gone()), taken, seconds=30.0, asked_at=trio.current_time())
    failed: list[float] = []

    async def write() -> None:
        with pytest.raises(StoreUnavailable):
            await lease.write(row)
        failed.append(trio.current_time())

    began = trio.current_time()
    with lease.scope:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(write)
    assert len(failed) == 3
    assert all(10 < at - began < 27 for at in failed)  # nine tenths of the lease
    with pytest.raises(StoreUnavailable, match="not known"):
        await lease.write(row)
