"""One thread that writes for all conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from engine.store.database import Database
from engine.store.errors import StoreError, StoreUnavailable
from engine.store.group import Group


class Away(Exception):
    """The database is out of reach."""


class Journal:
    """A connection that notes what is done to it."""

    now = "0.0"
    binary = real = big = ""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.open: list[str] = []
        self.failing: list[BaseException | None] = []
        self.closed = False

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.open.append(statement)
        return [(statement,)]

    def connect(self) -> None:
        pass

    def begin(self) -> None:
        self.open = []

    def commit(self) -> None:
        error = self.failing.pop(0) if self.failing else None
        if error is not None:
            raise error
        self.transactions.append(self.open)

    def rollback(self) -> None:
        self.open = []

    def save(self) -> None:
        self._before = list(self.open)

    def keep(self) -> None:
        pass

    def undo(self) -> None:
        self.open = self._before

    def close(self) -> None:
        self.closed = True

    def unavailable(self, error: BaseException) -> bool:
        return isinstance(error, Away)

    def passing(self, error: BaseException) -> bool:
        return isinstance(error, Away)

    def reason(self, error: BaseException) -> str:
        return str(error)


def say(word: str) -> Any:
    return lambda database: database.execute(word)[0][0]


async def test_what_comes_together_goes_together() -> None:
    connection = Journal()
    group = Group(connection)
    answers: dict[str, str] = {}

    async def ask(word: str) -> None:
        answers[word] = await group.do(say(word))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as asking:
            for number in range(10):
                asking.start_soon(ask, str(number))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(group.run)
        group.close()
    assert answers == {str(number): str(number) for number in range(10)}
    assert [sorted(each) for each in connection.transactions] == [[str(number) for number in range(10)]]
    assert connection.closed


async def test_what_fails_does_not_fail_its_group() -> None:
    connection = Journal()
    group = Group(connection)
    kept: list[str] = []

    def broken(database: Database) -> None:
        database.execute("half of it")
        raise ValueError("no")

    async def fail() -> None:
        with pytest.raises(StoreError, match=r"refused a change \(ValueError\)"):
            await group.do(broken)

    async def ask() -> None:
        kept.append(await group.do(say("kept")))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as asking:
            asking.start_soon(fail)
            asking.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(group.run)
        group.close()
    assert kept == ["kept"]
    assert connection.transactions == [["kept"]]


async def test_a_transaction_that_the_database_did_not_take_is_said_again(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 20  # faster, and still slow enough for a thread that has to wait for a processor
    connection = Journal()
    connection.failing = [Away(), Away()]
    group = Group(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        assert await group.do(say("a")) == "a"
        group.close()
    assert connection.transactions == [["a"]]


async def test_a_database_that_stays_away_is_an_error_of_every_caller(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 20  # faster, and still slow enough for a thread that has to wait for a processor
    connection = Journal()
    connection.failing = [Away() for _ in range(50)]
    group = Group(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        with pytest.raises(StoreUnavailable, match="out of reach: Away") as caught:
            await group.do(say("a"))
        assert isinstance(caught.value.__cause__, Away)
        connection.failing = []
        assert await group.do(say("b")) == "b"  # and it goes on when the database is back
        group.close()


async def test_an_error_that_will_not_pass_is_told_at_once() -> None:
    connection = Journal()
    connection.failing = [OSError("the disk is full")]
    group = Group(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await group.do(say("a"))
        group.close()
    assert connection.failing == []


async def test_what_a_caller_that_left_had_asked_for_is_settled() -> None:
    connection = Journal()
    group = Group(connection)
    settled: list[str] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(lambda: group.do(say("a"), on_settled=settled.append))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel(reason="the caller leaves")
    assert settled == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        group.close()
    assert settled == ["a"]
    assert connection.transactions == [["a"]]


async def test_after_the_end_nothing_is_taken_and_nothing_waits_for_ever() -> None:
    connection = Journal()
    group = Group(connection)

    async def ask() -> None:
        with pytest.raises(StoreUnavailable, match="closed"):
            await group.do(say("a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as running:
            running.cancel_scope.cancel(reason="the end")
            running.start_soon(group.run)
    with pytest.raises(StoreUnavailable, match="closed"):
        await group.do(say("b"))
    assert connection.closed
