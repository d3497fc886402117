"""Callers that leave at any moment, in memory and virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from invariants import contained
from raw_peer import CREATED, DELTA, KEY, PING, Peer, PeerDialer, completed, created, frame, session_over
from trio.testing import MockClock

import engine


async def answer_all(peer: Peer) -> None:
    await peer.accept()
    number = 0
    while True:
        request = await peer.request()
        question = request["input"][0]["content"]
        await peer.send(created(number) + frame("", PING))
        await peer.send(completed(question, number))
        number += 1


async def never_close(peer: Peer) -> None:
    await peer.accept()
    await peer.request()
    await peer.send(CREATED + DELTA)
    await peer.until_gone(polite=False)


async def not_read(peer: Peer) -> None:
    await peer.accept()
    await trio.sleep_forever()


async def not_accept(peer: Peer) -> None:
    await peer.read_head()
    await trio.sleep_forever()


async def refuse_slowly(peer: Peer) -> None:
    await peer.refuse(b"HTTP/1.1 403 No\r\ncontent-length: 9\r\n\r\n")
    await trio.sleep_forever()


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel(reason="the caller leaves")


@pytest.mark.parametrize("steps", range(0, 90, 3))
async def test_a_session_cancelled_after_any_step_leaves_nothing(autojump_clock: MockClock, steps: int) -> None:
    for script in (answer_all, never_close, not_read):
        async with contained(within=2) as held:
            dialer = PeerDialer(held, script, capacity=400)
            with trio.CancelScope() as scope:
                held.outside.start_soon(cancel_after, steps, scope)
                async with session_over(held, dialer=dialer) as session:
                    for _ in range(3):
                        async with session.turn("x" * 300) as turn:
                            async for _ in turn:
                                pass
                    await trio.sleep_forever()
            assert scope.cancelled_caught


@pytest.mark.parametrize("steps", range(0, 60, 2))
async def test_a_turn_cancelled_after_any_step_is_never_seen_by_the_next(autojump_clock: MockClock, steps: int) -> None:
    async with contained(within=0) as held, session_over(held, answer_all) as session:
        with trio.CancelScope() as scope:
            held.outside.start_soon(cancel_after, steps, scope)
            await session.ask("the first question")
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert (await session.ask("the second question")).text == "the second question"


@pytest.mark.parametrize("script", [answer_all, never_close, not_read, not_accept, refuse_slowly])
@pytest.mark.parametrize("moment", [0.05, 0.1999, 0.2, 1.0, 10.0, 29.99])
async def test_a_session_cancelled_at_any_time_is_gone_within_the_close_budget(
    autojump_clock: MockClock, script: Any, moment: float
) -> None:
    async with contained(within=moment + 2) as held:
        with trio.move_on_after(moment) as scope:
            async with session_over(held, script, timeouts=engine.Timeouts(connect=None, start=None)) as session:
                try:
                    await session.ask("x" * 1_000_000)
                except engine.ConnectFailed:
                    assert script is refuse_slowly
                await trio.sleep_forever()
        assert scope.cancelled_caught


@pytest.mark.parametrize("steps", range(0, 40, 2))
async def test_cancelling_again_while_the_session_closes_changes_nothing(autojump_clock: MockClock, steps: int) -> None:
    async with contained(within=2) as held:
        with trio.CancelScope() as outer, trio.CancelScope() as scope:
            async with session_over(held, never_close) as session:
                async with session.turn("hi") as turn:
                    await anext(turn)
                    held.outside.start_soon(cancel_after, steps, outer)
                    scope.cancel(reason="the caller leaves")
        assert held.elapsed == 2
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_key_function_cancelled_anywhere_is_unwound(autojump_clock: MockClock, steps: int) -> None:
    entered = left = 0

    async def key() -> str:
        nonlocal entered, left
        entered += 1
        try:
            for _ in range(10):
                await trio.lowlevel.checkpoint()
        finally:
            left += 1
        return KEY

    endpoint = engine.Endpoint("ws://peer.test/v1", key)
    async with contained(within=2) as held:
        with trio.CancelScope() as scope:
            held.outside.start_soon(cancel_after, steps, scope)
            async with session_over(held, never_close, endpoint=endpoint) as session:
                await session.ask("hi")
        assert scope.cancelled_caught
        assert entered == left
