"""The bad network: it does what the plan says, and is an honest stream otherwise."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme
from sim_peer import HttpAnswer, request, text_of
from trio.testing import MockClock

import engine
from engine.simulator import (
    Cut,
    FaultInjector,
    Faults,
    Injected,
    MemoryStream,
    RandomFaults,
    SimulatorDialer,
    TcpDialer,
    memory_stream_pair,
    open_simulator,
)

KINDS = ["reset", "eof", "stall"]


class Pairs(SimulatorDialer):
    """Dials streams whose other ends the test holds."""

    def __init__(self) -> None:
        self.peers: list[MemoryStream] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self.peers.append(theirs)
        return ours


@asynccontextmanager
async def connection(kind: str, faults: Faults) -> AsyncIterator[tuple[Any, trio.abc.Stream, FaultInjector]]:
    """A connection through an injector, in memory or over TCP: the client's end, the server's, the injector."""
    if kind == "memory":
        pairs = Pairs()
        injector = FaultInjector(pairs, [faults])
        ours = await injector.open_tcp("x", 1)
        theirs: trio.abc.Stream = pairs.peers[0]
    else:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        injector = FaultInjector(TcpDialer(), [faults])
        ours = await injector.open_tcp("127.0.0.1", listener.socket.getsockname()[1])
        theirs = await listener.accept()
        await listener.aclose()
    try:
        yield ours, theirs, injector
    finally:
        await trio.aclose_forcefully(ours)
        await trio.aclose_forcefully(theirs)


async def read(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    with trio.fail_after(1000):
        while len(data) < size:
            data += await stream.receive_some(size - len(data))
    return data


async def never(call: Any, *arguments: Any) -> None:
    with trio.move_on_after(1000) as scope:
        await call(*arguments)
    assert scope.cancelled_caught


# --- nothing injected ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "tcp"])
async def test_without_faults_it_is_the_stream_below(kind: str) -> None:
    async with connection(kind, Faults()) as (ours, theirs, injector):
        await ours.wait_send_all_might_not_block()
        await ours.send_all(b"ab")
        assert await read(theirs, 2) == b"ab"
        await theirs.send_all(b"cd")
        assert await read(ours, 2) == b"cd"
        assert (ours.sent, ours.received, ours.closed, ours.ending) == (2, 2, False, None)
        await theirs.aclose()
        assert await ours.receive_some() == b""
        assert await ours.receive_some() == b""
        await ours.aclose()
        assert [(each.what, each.sent, each.received) for each in injector.log] == [("connect", 0, 0), ("close", 2, 2)]
        for call in (ours.receive_some(), ours.send_all(b"x"), ours.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError):
                await call


async def test_the_stream_below_is_closed_even_by_a_cancelled_close() -> None:
    async with connection("memory", Faults()) as (ours, theirs, injector):
        await trio.aclose_forcefully(ours)
        assert await theirs.receive_some() == b""
        await ours.aclose()
        assert [each.what for each in injector.log] == ["connect", "close"]


async def test_a_cancelled_read_loses_nothing(autojump_clock: MockClock) -> None:
    async with connection("memory", Faults(receive_delay=5)) as (ours, theirs, _):
        await theirs.send_all(b"abc")
        with trio.move_on_after(1):
            await ours.receive_some()
        assert await ours.receive_some(2) == b"ab"
        assert await ours.receive_some(2) == b"c"


async def test_it_refuses_what_a_stream_refuses() -> None:
    async with connection("memory", Faults()) as (ours, theirs, _):
        with pytest.raises(ValueError, match="positive"):
            await ours.receive_some(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive_some)
            nursery.start_soon(ours.send_all, b"x" * 1_000_000)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ours.receive_some()
            with pytest.raises(trio.BusyResourceError):
                await ours.send_all(b"x")
            nursery.cancel_scope.cancel(reason="seen")
        with pytest.raises(TypeError):
            await ours.receive_some("1")
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x")


# --- dialling --------------------------------------------------------------------------------------------------------


async def test_dials_are_refused_or_hang(autojump_clock: MockClock) -> None:
    injector = FaultInjector(Pairs(), [Faults("refuse", dial_delay=2), Faults("hang"), Faults(dial_delay=3)])
    with pytest.raises(ConnectionRefusedError):
        await injector.open_tcp("x", 1)
    assert trio.current_time() == pytest.approx(2)
    await never(injector.open_tcp, "x", 1)
    async with await injector.open_tcp("x", 1), await injector.open_tcp("x", 1):
        assert trio.current_time() == pytest.approx(1005)
    assert injector.dials == 4
    assert [each.number for each in injector.streams] == [2, 3]
    assert [(each.connection, each.what) for each in injector.log[:4]] == [
        (0, "refuse"), (1, "hang"), (2, "connect"), (3, "connect"),
    ]  # fmt: skip
    assert injector.log[0] == Injected(0, "refuse", injector.log[0].time)


# --- slow and small --------------------------------------------------------------------------------------------------


async def test_latency_in_either_direction(autojump_clock: MockClock) -> None:
    async with connection("memory", Faults(send_delay=2, receive_delay=3)) as (ours, theirs, _):
        await ours.send_all(b"a")
        assert trio.current_time() == pytest.approx(2)
        await theirs.send_all(b"bc")
        assert await ours.receive_some() == b"bc"
        assert trio.current_time() == pytest.approx(5)


async def test_reads_and_writes_of_a_byte() -> None:
    async with connection("memory", Faults(receive_bytes=1)) as (ours, theirs, _):
        await theirs.send_all(b"abc")
        assert [await ours.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]

    class Watched(SimulatorDialer):
        writes = 0

        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, self.theirs = trio.testing.memory_stream_pair()
            deliver: Any = ours.send_stream.send_all_hook

            async def written() -> None:
                self.writes += 1
                await deliver()

            ours.send_stream.send_all_hook = written
            return ours

    dialer = Watched()
    async with await FaultInjector(dialer, [Faults(send_bytes=2)]).open_tcp("x", 1) as stream:
        await stream.send_all(b"abcde")
        assert await read(dialer.theirs, 5) == b"abcde"
        assert dialer.writes == 3


# --- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("sliced", [0, 1])
@pytest.mark.parametrize("cut", KINDS)
async def test_a_cut_while_receiving(autojump_clock: MockClock, cut: Any, at: int, sliced: int) -> None:
    faults = Faults(cut=Cut(cut, "receive", at), receive_bytes=sliced)
    async with connection("memory", faults) as (ours, theirs, injector):
        await theirs.send_all(b"abcdefgh")
        assert await read(ours, at) == b"abcdefgh"[:at]
        for _ in range(2):
            if cut == "reset":
                with pytest.raises(trio.BrokenResourceError):
                    await ours.receive_some()
            elif cut == "eof":
                assert await ours.receive_some() == b""
            else:
                await never(ours.receive_some)
        assert (ours.received, ours.ending) == (at, cut)
        assert [(each.what, each.received) for each in injector.log] == [("connect", 0), (cut, at)]
        # The other way is over as well.
        if cut == "stall":
            await ours.send_all(b"x")
            await never(theirs.receive_some)
        else:
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(b"x")
            if cut == "reset":
                with pytest.raises(trio.BrokenResourceError):
                    await theirs.receive_some()
            else:
                assert await theirs.receive_some() == b""


@pytest.mark.parametrize("at", [0, 1, 4, 8])
@pytest.mark.parametrize("cut", KINDS)
async def test_a_cut_while_sending(autojump_clock: MockClock, cut: Any, at: int) -> None:
    async with connection("memory", Faults(cut=Cut(cut, "send", at))) as (ours, theirs, injector):
        if cut == "stall" or at == 8:
            await ours.send_all(b"abcdefgh")
        else:
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(b"abcdefgh")
        assert (ours.sent, ours.ending) == (at, cut)
        assert [(each.what, each.sent) for each in injector.log] == [("connect", 0), (cut, at)]
        if cut != "reset":
            assert await read(theirs, at) == b"abcdefgh"[:at]
        if cut == "stall":
            await theirs.send_all(b"x")
            await never(ours.receive_some)
            await never(theirs.receive_some)
        elif cut == "eof":
            assert await theirs.receive_some() == b""
            assert await ours.receive_some() == b""
        else:
            for stream in (ours, theirs):
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()


@pytest.mark.parametrize("kind", ["memory", "tcp"])
@pytest.mark.parametrize("cut", ["reset", "eof"])
async def test_a_reader_learns_what_a_writer_brought_about(kind: str, cut: Any) -> None:
    async with connection(kind, Faults(cut=Cut(cut, "send", 2))) as (ours, theirs, _):
        seen: list[object] = []

        async def receive() -> None:
            try:
                seen.append(await ours.receive_some())
            except trio.BrokenResourceError:
                seen.append("broken")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(b"abc")
        assert seen == ["broken" if cut == "reset" else b""]
        if cut == "reset":
            with pytest.raises(trio.BrokenResourceError):
                await read(theirs, 3)  # over TCP, what has arrived may still be read
        else:
            assert await read(theirs, 2) == b"ab"
            assert await theirs.receive_some() == b""


async def test_a_stalled_connection_swallows_what_its_buffer_holds(autojump_clock: MockClock) -> None:
    async with connection("memory", Faults(cut=Cut("stall", "send", 3))) as (ours, theirs, _):
        for _ in range(4):
            await ours.send_all(b"x" * 60_000)
        await ours.wait_send_all_might_not_block()
        await never(ours.send_all, b"x" * 60_000)
        await never(ours.wait_send_all_might_not_block)
        assert await read(theirs, 3) == b"xxx"
        assert ours.sent == 3


@pytest.mark.parametrize("call", ["receive_some", "send_all"])
async def test_closing_wakes_whoever_waits_in_a_stall(autojump_clock: MockClock, call: str) -> None:
    async with connection("memory", Faults(cut=Cut("stall", "send"))) as (ours, theirs, _):
        await ours.send_all(b"x" * 200_000)
        arguments = [b"x" * 200_000] if call == "send_all" else []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await getattr(ours, call)(*arguments)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
        assert await theirs.receive_some() == b""


@pytest.mark.parametrize("sizes", [[1000], [1] * 40, [7, 3, 30]])
async def test_a_cut_inside_an_event(autojump_clock: MockClock, sizes: list[int]) -> None:
    stream = b'xx{"type":"response.one"}, {"type":"response.two"}'
    async with connection("memory", Faults(cut=Cut("eof", in_event=2))) as (ours, theirs, _):
        received = b""

        async def send() -> None:
            rest = stream
            for size in [*sizes, len(stream)]:
                await theirs.send_all(rest[:size])
                rest = rest[size:]
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(1000):
                while data := await ours.receive_some():
                    received += data
            nursery.cancel_scope.cancel(reason="seen")
        assert received == b'xx{"type":"response.one"}, {"type":"response.'


# --- under a client --------------------------------------------------------------------------------------------------


async def post(stream: trio.abc.Stream) -> HttpAnswer:
    return await request(stream, "POST", "/v1/responses", b'{"model":"m","input":"2+2","stream":true}')


async def test_a_stream_cut_inside_its_third_event(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        injector = FaultInjector(sim.dialer, [Faults(cut=Cut("reset", in_event=3)), Faults(receive_bytes=1)])
        async with await injector.open_tcp("x", 1) as stream:
            answer = await post(stream)
            assert (answer.status, answer.complete) == (200, False)
            assert answer.content.endswith(b'data: {"type":"response.')
            assert answer.content.count(b"data: ") == 3
        async with await injector.open_tcp("x", 1) as stream:
            answer = await post(stream)
            assert answer.complete
            assert text_of(answer.events[-1]["response"]) == "4"


@pytest.mark.parametrize("in_event", [1, 4])
async def test_a_frame_cut_in_its_middle(autojump_clock: MockClock, in_event: int) -> None:
    async with open_simulator(in_memory=True) as sim:
        injector = FaultInjector(sim.dialer, [Faults(cut=Cut("eof", in_event=in_event))])
        async with engine.open_session(
            sim.endpoint, model="m", dialer=injector, transport=engine.Transport.WEBSOCKET
        ) as session:
            with pytest.raises(engine.ConnectionLost) as caught:
                await session.ask("2+2")
            accepted = in_event > 1
            assert (caught.value.delivery is engine.Delivery.ACCEPTED) == accepted
            assert (await session.ask("2+2")).text == "4"
        assert injector.dials == 2


async def test_tls_over_a_bad_network(autojump_clock: MockClock) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("simulator.invalid").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with open_simulator(in_memory=True, ssl_context=context) as sim:
        injector = FaultInjector(sim.dialer, [Faults(receive_bytes=3, send_bytes=50), Faults(cut=Cut("reset", at=700))])
        stream = await injector.open_tcp("x", 1)
        stream = await injector.start_tls(stream, ssl_context=trusting, server_hostname="simulator.invalid")
        assert (await post(stream)).complete
        await trio.aclose_forcefully(stream)
        assert injector.streams[0].closed
        stream = await injector.open_tcp("x", 1)
        with pytest.raises(trio.BrokenResourceError):
            await injector.start_tls(stream, ssl_context=trusting, server_hostname="simulator.invalid")
        assert injector.streams[1].closed


# --- chance ----------------------------------------------------------------------------------------------------------


async def test_the_same_seed_gives_the_same_faults(autojump_clock: MockClock) -> None:
    async def play(seed: int) -> list[Faults]:
        injector = FaultInjector(Pairs(), RandomFaults(dial=0.0), seed=seed)
        for _ in range(30):
            await (await injector.open_tcp("x", 1)).aclose()
        return [stream.faults for stream in injector.streams]

    assert await play(1) == await play(1)
    assert await play(1) != await play(2)


def test_chance_knows_every_fault_and_none() -> None:
    rng = random.Random(0)
    plans = [RandomFaults()(rng, number) for number in range(500)]
    assert {plan.dial for plan in plans} == {"connect", "refuse", "hang"}
    assert {plan.cut.kind for plan in plans if plan.cut} == set(KINDS)
    assert {plan.cut.direction for plan in plans if plan.cut} == {"send", "receive"}
    assert any(plan.cut and plan.cut.in_event for plan in plans)
    assert any(plan.receive_bytes == 1 for plan in plans)
    assert any(plan.send_delay and plan.receive_delay for plan in plans)
    assert plans.count(Faults()) > 100
    calm = attrs.evolve(RandomFaults(), dial=0.0, cut=0.0, slow=0.0, sliced=0.0)
    assert {calm(rng, number) for number in range(100)} == {Faults()}
