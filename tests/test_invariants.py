"""That the checks every other test relies on do catch what they are for."""

from __future__ import annotations

import socket

import outcome
import pytest
import trio
from invariants import contained
from raw_peer import pipe
from trio.testing import MockClock


async def failing(block: object) -> str:
    """Run a block that must not pass; return why it did not."""
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True) as caught:
        await block()  # type: ignore[operator]
    return str(caught.value.exceptions[0])


async def test_a_stream_left_open(autojump_clock: MockClock) -> None:
    async def block() -> None:
        async with contained() as held:
            held.watch(pipe()[0])

    assert "left open" in await failing(block)


async def test_time_over_the_bound(autojump_clock: MockClock) -> None:
    async def block() -> None:
        async with contained(within=1):
            await trio.sleep(1.5)

    assert "took 1.5 s" in await failing(block)


async def test_a_stray_cancelled(autojump_clock: MockClock) -> None:
    async def block() -> None:
        async with contained():
            with trio.CancelScope() as scope:
                scope.cancel(reason="to capture its exception")
                captured = await outcome.acapture(trio.sleep_forever)
            captured.unwrap()

    assert "escaped" in await failing(block)


async def test_a_socket_left_open() -> None:
    leaked: list[socket.socket] = []

    async def block() -> None:
        async with contained():
            leaked.append(socket.socket())

    with pytest.raises(AssertionError, match="sockets left open"):
        await block()
    leaked[0].close()
