"""What an event costs on its way to the consumer, in function calls and task steps rather than in time.

A stream of deltas goes through a connection in memory, once through this library and once through the bare
trio-websocket with `json.loads`; short and long streams are told apart, so that only what each event adds is counted.
Whoever makes the way longer has to change a number here, and knows it.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket

import engine
from benchmarks.frames import EVENTS_AROUND, answer_for, personal
from benchmarks.peers.on_trio import BareSocket
from benchmarks.replay import upgrade_answer
from engine.connections.attempt import Attempt
from engine.simulator import open_simulator
from engine.transport.dial import TcpDialer
from engine.transport.fairness import Meter

LIBRARY = str(Path(engine.__file__).parent)
SHORT, LONG = 128, 640  # both fill whole rounds of the consumer's checkpoints
AT_ONCE = engine.Timeouts(close=0)  # the server in here answers no Close frame


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are counted, and what shares the event loop out by the clock would count more of them on a busy machine."""
    monkeypatch.setattr(Meter, "spent", lambda meter, seconds: None)


class Replaying(TcpDialer):
    """Dials a server in memory that answers every request with the same deltas."""

    def __init__(self, nursery: trio.Nursery, deltas: int) -> None:
        self._nursery = nursery
        self._answer = personal(answer_for(f"deltas-300-{deltas}", "websocket").head, 1, None)

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some()
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        await stream.send_all(upgrade_answer(key.partition(b":")[2].strip()))
        while await stream.receive_some():
            await stream.send_all(self._answer)
        await trio.sleep_forever()


class Steps(trio.abc.Instrument):
    """Counts task steps."""

    def __init__(self) -> None:
        self.taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += 1


class Cost:
    """Function calls of Python code: the library's own, all; and task steps."""

    def __init__(self) -> None:
        self.own = 0
        self.calls = 0
        self._steps = Steps()

    def __enter__(self) -> Cost:
        gc.disable()  # other libraries are called when it runs, which depends on the tests before
        trio.lowlevel.add_instrument(self._steps)
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()
        trio.lowlevel.remove_instrument(self._steps)

    def _count(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self.calls += 1
            self.own += frame.f_code.co_filename.startswith(LIBRARY)

    @property
    def steps(self) -> int:
        return self._steps.taken


async def iterate(dialer: Replaying) -> Cost:
    endpoint = engine.Endpoint("http://memory.invalid/v1")
    async with (
        engine.open_session(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE) as session,
        session.turn("Go on.") as turn,
    ):
        await turn.__anext__()  # connecting is not what is counted
        with Cost() as cost:
            async for _ in turn:
                pass
    return cost


async def ask(dialer: Replaying) -> Cost:
    endpoint = engine.Endpoint("http://memory.invalid/v1")
    async with engine.open_session(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE) as session:
        with Cost() as cost:
            await session.ask("Go on.")
    return cost


async def bare(dialer: Replaying) -> Cost:
    stream: Any = await dialer.open_tcp("memory.invalid", 80)
    async with trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(
            nursery, stream, "memory.invalid", "/v1/responses", receive_buffer_size=65536, message_queue_size=64
        )
        with Cost() as cost:
            await BareSocket(socket.send_message, socket.get_message, "m").turn("Go on.")
        nursery.cancel_scope.cancel(reason="counted")
    return cost


async def per_event(consume: Callable[[Replaying], Awaitable[Cost]]) -> tuple[float, float, float]:
    """What one more event costs: calls of the library's own functions, calls of any, task steps."""
    found = []
    for deltas in (LONG, SHORT, LONG):  # the first one warms up
        async with trio.open_nursery() as nursery:
            found.append(await consume(Replaying(nursery, deltas)))
            nursery.cancel_scope.cancel(reason="counted")
    _, short, long = found
    events = LONG - SHORT
    return (
        (long.own - short.own) / events,
        (long.calls - short.calls) / events,
        (long.steps - short.steps) / events,
    )


@pytest.mark.parametrize(
    ("consume", "own", "ratio", "most_steps"), [(ask, 0.7, 0.025, 0.045), (iterate, 6, 0.11, 0.055)]
)
async def test_an_event_costs_no_more_calls_and_steps_than_it_did(
    consume: Callable[[Replaying], Awaitable[Cost]], own: float, ratio: float, most_steps: float
) -> None:
    bare_own, bare_calls, _ = await per_event(bare)
    mine, calls, steps = await per_event(consume)
    assert bare_own == 0
    assert 0 < mine <= own
    assert calls / bare_calls <= ratio
    assert steps <= most_steps


async def test_a_short_turn_costs_no_more_calls_and_steps_than_it_did() -> None:
    endpoint, turns = engine.Endpoint("http://memory.invalid/v1"), 10
    async with trio.open_nursery() as nursery:
        dialer = Replaying(nursery, 1)
        async with engine.open_session(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE) as session:
            await session.ask("Go on.")
            with Cost() as cost:
                for _ in range(turns):
                    await session.ask("Go on.")
        nursery.cancel_scope.cancel(reason="counted")
    assert 0 < cost.own / turns <= 840
    assert cost.calls / turns <= 1700  # the server in memory is in it
    assert cost.steps / turns <= 17


async def test_a_release_costs_no_more_calls_and_steps_than_it_did() -> None:
    sessions = 10
    async with (
        open_simulator(in_memory=True) as simulator,
        engine.open_engine(simulator.endpoint, model="m", dialer=simulator.dialer) as eng,
    ):
        names = [str(number) for number in range(sessions)]
        for name in ("what is loaded on the way", *names):
            await (await eng.session(name)).ask("Go on.")
        await eng.release("what is loaded on the way")
        await trio.testing.wait_all_tasks_blocked()
        with Cost() as cost:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(eng.release, name)
        assert not any(eng.has_session(name) for name in names)
    # The server in memory is in it; it and the scheduler's order move the steps by one.
    assert 0 < cost.own / sessions <= 200
    assert cost.calls / sessions <= 1700  # 40 of them where coverage is measured
    assert cost.steps / sessions <= 28.2


@asynccontextmanager
async def idle_sessions(dialer: Replaying, count: int) -> AsyncIterator[None]:
    """Sessions that have had an answer, and keep their connections open."""
    endpoint = engine.Endpoint("http://memory.invalid/v1")
    async with engine.open_engine(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE) as eng:
        for number in range(count):
            await (await eng.session(str(number))).ask("Go on.")
        await trio.testing.wait_all_tasks_blocked()
        yield


@asynccontextmanager
async def idle_sockets(dialer: Replaying, count: int) -> AsyncIterator[None]:
    """The same of the bare trio-websocket."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            stream: Any = await dialer.open_tcp("memory.invalid", 80)
            socket = await trio_websocket.wrap_client_stream(
                nursery, stream, "memory.invalid", "/v1/responses", receive_buffer_size=65536, message_queue_size=64
            )
            await BareSocket(socket.send_message, socket.get_message, "m").turn("Go on.")
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel(reason="counted")


async def per_idle(
    opened: Callable[[Replaying, int], AbstractAsyncContextManager[None]], count: Callable[[], int]
) -> float:
    """How much ``count`` counts of one more open connection, the server's end included."""
    found = []
    for connections in (1, 1, 21):  # the first one warms up
        async with trio.open_nursery() as nursery:
            async with opened(Replaying(nursery, 1), connections):
                gc.collect()
                found.append(count())
            nursery.cancel_scope.cancel(reason="counted")
    return (found[2] - found[1]) / 20


async def test_an_idle_session_keeps_no_more_objects_than_it_did() -> None:
    """The garbage collector looks through all of them, again and again."""

    def objects() -> int:
        return len(gc.get_objects())

    bare_objects = await per_idle(idle_sockets, objects)
    assert 0 < await per_idle(idle_sessions, objects) - bare_objects <= 181


async def test_an_idle_session_weighs_no_more_than_it_did() -> None:
    tracemalloc.start()
    try:
        mine = await per_idle(idle_sessions, lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert 0 < mine / 1024 <= 55  # the server's end is in it


async def test_an_idle_session_keeps_nothing_of_its_last_request() -> None:
    def attempts() -> list[Attempt]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, Attempt)]

    others = attempts()  # of tests before this one, whose tracebacks pytest keeps
    async with trio.open_nursery() as nursery:
        async with idle_sessions(Replaying(nursery, 1), 1):
            assert all(any(each is other for other in others) for each in attempts())
        nursery.cancel_scope.cancel(reason="counted")


async def asked(session: engine.Session) -> None:
    await session.ask("Go on.")


async def iterated(session: engine.Session) -> None:
    async with session.turn("Go on.") as turn:
        async for _ in turn:
            pass


async def left(session: engine.Session) -> None:
    async with session.turn("Go on.") as turn:
        await turn.__anext__()


async def cancelled(session: engine.Session) -> None:
    with trio.CancelScope() as scope:
        async with session.turn("Go on.") as turn:
            await turn.__anext__()
            scope.cancel(reason="the caller has heard enough")
            await turn.wait()


@pytest.mark.parametrize("use", [asked, iterated, left, cancelled])
async def test_what_is_over_is_freed_without_the_collector_of_garbage(
    use: Callable[[engine.Session], Awaitable[None]],
) -> None:
    """Neither a turn nor a closed connection is part of a circle."""
    endpoint = engine.Endpoint("http://memory.invalid/v1")
    async with trio.open_nursery() as nursery:
        dialer = Replaying(nursery, 3)
        async with engine.open_engine(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE) as eng:
            for name in ("what is loaded on the way", "what counts"):
                gc.collect()
                gc.set_debug(gc.DEBUG_SAVEALL)
                try:
                    await use(await eng.session(name))
                    await eng.release(name)
                    await trio.testing.wait_all_tasks_blocked()
                    gc.collect()
                    found = [each for each in gc.garbage if type(each).__module__.startswith("engine.")]
                finally:
                    gc.set_debug(0)
                    gc.garbage.clear()
            assert [type(each).__name__ for each in found] == []
        nursery.cancel_scope.cancel(reason="counted")


@pytest.mark.parametrize("held", [8, 17, 31, 64])
async def test_a_reader_that_keeps_up_never_has_too_much(held: int) -> None:
    limits = engine.Limits(buffer_events=held)
    endpoint = engine.Endpoint("http://memory.invalid/v1")
    async with trio.open_nursery() as nursery:
        dialer = Replaying(nursery, LONG)
        async with engine.open_session(endpoint, model="m", dialer=dialer, timeouts=AT_ONCE, limits=limits) as session:
            async with session.turn("Go on.") as turn:
                assert sum([1 async for event in turn if isinstance(event, engine.TextDelta)]) == LONG
        nursery.cancel_scope.cancel(reason="counted")


async def test_a_turn_over_http_is_freed_as_well() -> None:
    async with (
        open_simulator(in_memory=True) as simulator,
        engine.open_session(
            simulator.endpoint, model="m", dialer=simulator.dialer, transport=engine.Transport.SSE
        ) as session,
    ):
        for _ in range(2):  # the first loads what is loaded on the way
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await session.ask("Go on.")
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                found = list(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
        assert [type(each).__name__ for each in found] == []


async def test_all_events_arrive() -> None:
    async with trio.open_nursery() as nursery:
        endpoint = engine.Endpoint("http://memory.invalid/v1")
        async with engine.open_session(
            endpoint, model="m", dialer=Replaying(nursery, SHORT), timeouts=AT_ONCE
        ) as session:
            async with session.turn("Go on.") as turn:
                deltas = [event async for event in turn if isinstance(event, engine.TextDelta)]
            assert turn.message.text == "".join(event.delta for event in deltas)
            assert len(deltas) == SHORT
            assert session.statistics().connections[0].events == SHORT + EVENTS_AROUND
        nursery.cancel_scope.cancel(reason="done")
