"""Peers that read slowly or not at all, and peers that fall silent, in memory and virtual time."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest
import trio
import trio.testing
from invariants import contained
from raw_peer import (
    CLOSE,
    CREATED,
    DELTA,
    PING,
    PONG,
    TEXT,
    Peer,
    PeerDialer,
    close_frame,
    completed,
    created,
    event,
    frame,
    line,
    session_over,
)
from trio.testing import MockClock

import engine

MIB = 1024 * 1024
PATIENT = engine.Timeouts(start=None, send=None, first_event=None, idle=None)


# --- while a large request is on its way ---


async def test_a_slow_upload_keeps_neither_pings_nor_events_waiting(autojump_clock: MockClock) -> None:
    pongs_due: list[bytes] = []
    tail: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()

        async def speak() -> None:
            await trio.sleep(1)
            await peer.send(CREATED)
            for number in range(20):
                pongs_due.append(b"%d" % number)
                await peer.send(frame(b"%d" % number, PING))
                await peer.send(DELTA)
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            while len(peer.received) < 15 * MIB:
                peer.received += await peer.stream.receive_some(256 * 1024)
                await trio.sleep(0.2)
        upload = await peer.next_frame()
        assert upload is not None
        assert (upload[0], len(upload[1]) > 15 * MIB) == (TEXT, True)
        while len(tail) < 20:
            got = await peer.next_frame()
            assert got is not None
            tail.append(got)
        await peer.send(completed("fine"))
        await peer.until_gone()

    async with contained() as held, session_over(held, script, timeouts=PATIENT) as session:
        arrived = []
        async with session.turn("x" * (15 * MIB + 1000)) as turn:
            async for each in turn:
                if isinstance(each, engine.TextDelta):
                    arrived.append(held.elapsed)
        assert turn.message.text == "fine"
    assert arrived == pytest.approx([1 + number / 2 for number in range(20)], abs=0.01)
    assert tail == [(PONG, payload) for payload in pongs_due]


async def test_a_peer_that_never_reads_costs_exactly_the_send_budget(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with contained(within=7) as held:
        async with session_over(held, script, timeouts=engine.Timeouts(send=7)) as session:
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("x" * MIB)
            assert (caught.value.phase, held.elapsed) == ("send", 7)
            assert caught.value.delivery is engine.Delivery.AMBIGUOUS


async def test_leaving_while_the_peer_does_not_read_takes_no_time(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with contained(within=1) as held:
        with trio.move_on_after(1) as scope:
            async with session_over(held, script) as session:
                await session.ask("x" * MIB)
        assert scope.cancelled_caught


@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_a_peer_that_turns_away_from_an_upload_is_heard_out(autojump_clock: MockClock, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stream.receive_some(1000)
        await trio.sleep(1)
        await peer.send(frame("", PING) + close_frame(1009, "too big"))
        if ending == "reset":
            peer.reset()

    async with contained(within=1) as held, session_over(held, script) as session:
        with pytest.raises(engine.ConnectionLost) as caught:
            await session.ask("x" * MIB)
        assert (caught.value.close_code, caught.value.close_reason) == (1009, "too big")


@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_a_peer_that_vanishes_during_an_upload_is_a_loss(autojump_clock: MockClock, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stream.receive_some(1000)
        if ending == "reset":
            peer.reset()

    async with contained(within=0.2) as held, session_over(held, script) as session:
        with pytest.raises(engine.ConnectionLost) as caught:
            await session.ask("x" * MIB)
        assert caught.value.close_code == 1006
        assert caught.value.delivery is engine.Delivery.AMBIGUOUS


async def test_an_error_during_an_upload_is_told_at_once(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stream.receive_some(1000)
        await peer.send(event(type="error", status=400, error={"code": "too_long", "type": "invalid_request_error"}))
        await peer.swallow()

    async with contained(within=0) as held, session_over(held, script, capacity=5000) as session:
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("x" * MIB)
        assert caught.value.code == "too_long"


# --- the outbox ---


async def test_a_cancelled_sender_sends_whole_messages_in_order(autojump_clock: MockClock) -> None:
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (got := await peer.next_frame()) is not None:
            received.append(got[1])

    async with contained(within=2) as held, trio.open_nursery() as nursery:
        whole = line(held, script, capacity=100)
        nursery.start_soon(whole.run)
        await whole.opened.wait()

        async def send(number: int) -> None:
            with trio.CancelScope() as scope:
                scope.cancel(reason="the caller has left")
                assert await whole.socket.send(f"{number}" * 500) is not None

        async with trio.open_nursery() as senders:
            for number in range(10):
                senders.start_soon(send, number)
        while len(received) < 10:
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(received) == [b"%d" % number * 500 for number in range(10)]
        whole.socket.close()


async def test_pings_without_end_from_a_peer_that_does_not_read_fill_the_outbox(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        while True:
            await peer.send(frame("x" * 125, PING))

    async with contained(within=0) as held:
        whole = line(held, script, capacity=2000, max_outbox_bytes=20_000)
        await whole.run()
        assert type(whole.error) is engine.ConnectionLost
        assert "outbox" in str(whole.error)
        assert whole.error.close_code == 1006


async def test_a_request_over_the_outbox_limit_goes_out_on_one_connection(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        for number in range(2):
            await peer.request()
            await peer.send(frame("", PING) + created(number) + completed("fine", number))
        await peer.until_gone()

    async with contained(within=0) as held:
        dialer = PeerDialer(held, script)
        async with session_over(held, dialer=dialer, limits=engine.Limits(max_outbox_bytes=100)) as session:
            assert (await session.ask("x" * 1000)).text == "fine"
            assert (await session.ask("x" * 1000)).text == "fine"
        assert dialer.dials == 1


# --- pings ---


class Silent:
    """A peer that answers one request, or none, and then does what it is told."""

    def __init__(self, *, answers: int = 0) -> None:
        self.answers = answers
        self.pings: list[float] = []

    async def __call__(self, peer: Peer) -> None:
        await peer.accept()
        for _ in range(self.answers):
            await peer.request()
            await peer.send(completed("fine"))
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.also, peer)
            while (got := await peer.next_frame()) is not None:
                if got[0] == PING:
                    self.pings.append(trio.current_time() - start)
            nursery.cancel_scope.cancel(reason="the client is gone")

    async def also(self, peer: Peer) -> None:
        """Do nothing."""


async def test_a_ping_unanswered_ends_the_connection_to_the_second(autojump_clock: MockClock) -> None:
    peer = Silent()
    async with contained(within=50) as held, session_over(held, peer, timeouts=PATIENT) as session:
        with pytest.raises(engine.ConnectionLost) as caught:
            await session.ask("hi")
        assert held.elapsed == 50
        assert caught.value.close_code == 1006
        assert caught.value.delivery is engine.Delivery.AMBIGUOUS
    assert peer.pings == [30]


async def test_an_idle_connection_is_pinged_too(autojump_clock: MockClock) -> None:
    peer = Silent(answers=1)
    limits = engine.Limits(ping_interval=10, ping_timeout=3)
    async with contained(within=14) as held, session_over(held, peer, limits=limits) as session:
        await session.ask("hi")
        await trio.sleep(12.9)
        assert session.connected
        await trio.sleep(0.2)
        assert not session.connected
        assert session.statistics().connections == ()
    assert peer.pings == [10]


async def test_half_a_message_at_the_last_moment_voids_the_deadline(autojump_clock: MockClock) -> None:
    class OneByte(Silent):
        async def also(self, peer: Peer) -> None:
            await trio.sleep(49.9)
            await peer.send(DELTA[:1])

    peer = OneByte()
    async with contained(within=80) as held, session_over(held, peer, timeouts=PATIENT) as session:
        with pytest.raises(engine.ConnectionLost):
            await session.ask("hi")
        assert held.elapsed == 80
    assert peer.pings == [30, 60]


async def test_pongs_keep_a_silent_turn_alive(autojump_clock: MockClock) -> None:
    class Pongs(Silent):
        async def __call__(self, peer: Peer) -> None:
            await peer.accept()
            while (got := await peer.next_frame()) is not None:
                if got[0] == PING:
                    self.pings.append(trio.current_time())
                    await trio.sleep(19.9)
                    await peer.send(frame(got[1], PONG))
                if len(self.pings) == 10:
                    await peer.send(completed("late"))
                    await peer.until_gone()

    peer = Pongs()
    async with contained() as held, session_over(held, peer, timeouts=PATIENT) as session:
        assert (await session.ask("hi")).text == "late"
    assert len(peer.pings) == 10


async def test_answered_pings_are_not_further_apart_than_their_interval(autojump_clock: MockClock) -> None:
    class Pongs(Silent):
        async def __call__(self, peer: Peer) -> None:
            await peer.accept()
            await peer.request()
            start = trio.current_time()
            for delay in (0, 3.9, 0, 6, 0):
                assert await peer.next_frame() == (PING, ANY)
                self.pings.append(trio.current_time() - start)
                await trio.sleep(delay)
                await peer.send(frame(b"", PONG))
            await peer.until_gone()

    peer = Pongs()
    limits = engine.Limits(ping_interval=4, ping_timeout=20)
    async with contained() as held, session_over(held, peer, limits=limits, timeouts=PATIENT) as session:
        with pytest.raises(engine.ConnectionLost):
            await session.ask("hi")
        assert peer.pings == [4, 8, 12, 16, 24]  # the answer to that at 16 came at 22
        assert held.elapsed == 28 + 20


async def test_pongs_are_no_progress_of_a_turn(autojump_clock: MockClock) -> None:
    class Pongs(Silent):
        async def __call__(self, peer: Peer) -> None:
            await peer.accept()
            await peer.request()
            await peer.send(CREATED)
            while True:
                await peer.send(frame("", PONG) + frame("", PING))
                await trio.sleep(1)

    async with contained(within=42) as held:
        async with session_over(held, Pongs(), timeouts=engine.Timeouts(idle=40)) as session:
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("hi")
            assert (caught.value.phase, held.elapsed) == ("idle", 40)


async def test_nothing_is_pinged_while_a_request_is_on_its_way(autojump_clock: MockClock) -> None:
    opcodes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while len(peer.received) < 990_000:
            await trio.sleep(10)
            peer.received += await peer.stream.receive_some(80_000)
        got = await peer.next_frame()
        assert got is not None
        opcodes.append(got[0])
        await peer.send(completed("fine"))
        await peer.until_gone()
        opcodes.extend(peer.frames[1:])

    async with contained() as held:
        async with session_over(held, script, timeouts=PATIENT, capacity=50_000) as session:
            assert (await session.ask("x" * 1_000_000)).text == "fine"
            assert held.elapsed > 90
    await trio.testing.wait_all_tasks_blocked()
    assert opcodes == [TEXT, CLOSE]


async def test_without_an_interval_nothing_is_pinged(autojump_clock: MockClock) -> None:
    peer = Silent(answers=1)
    limits = engine.Limits(ping_interval=None, idle_lifetime=None)
    async with contained() as held, session_over(held, peer, limits=limits) as session:
        await session.ask("hi")
        await trio.sleep(80_000)
        assert session.connected
    assert peer.pings == []


async def test_waiting_for_a_pong_ends_with_it_with_its_time_or_with_the_connection(
    autojump_clock: MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.next_frame()
        got = await peer.next_frame()
        assert got is not None
        await trio.sleep(1)
        await peer.send(frame(got[1], PONG))
        await peer.next_frame()
        await trio.sleep(1)

    async with contained(within=6) as held, trio.open_nursery() as nursery:
        whole = line(held, script)
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        resting = tasks_in(nursery)
        whole.socket.ping(2)
        await trio.sleep(1.9)
        assert tasks_in(nursery) == resting + 1
        await trio.sleep(0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks_in(nursery) == resting
        whole.socket.ping(60)
        await trio.sleep(1.5)
        assert tasks_in(nursery) == resting
        whole.socket.ping(60)
        await trio.sleep(0.5)
        assert whole.failures == []
    assert isinstance(whole.error, engine.ConnectionLost)
    assert held.elapsed == 4.5


def tasks_in(nursery: trio.Nursery) -> int:
    """How many tasks run in a nursery, and in the nurseries of those."""
    return sum(1 + sum(map(tasks_in, task.child_nurseries)) for task in nursery.child_tasks)


async def test_a_connection_that_dies_while_a_ping_waits_is_a_loss_at_once(autojump_clock: MockClock) -> None:
    class Dying(Silent):
        async def also(self, peer: Peer) -> None:
            await trio.sleep(35)
            peer.reset()

    peer: Any = Dying()
    async with contained(within=35) as held, session_over(held, peer, timeouts=PATIENT) as session:
        with pytest.raises(engine.ConnectionLost):
            await session.ask("hi")
        assert held.elapsed == 35
