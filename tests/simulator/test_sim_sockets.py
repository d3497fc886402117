"""The server's own WebSocket: frames, compression, batches, text that is no text."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from sim_peer import connect, fetch, kinds, text_of
from trio.testing import MockClock
from wsproto import ConnectionType, WSConnection, events
from wsproto.extensions import PerMessageDeflate

from engine.simulator import (
    Accept,
    Answer,
    CutMidFrame,
    Delay,
    Echo,
    Ping,
    Say,
    SayDelta,
    Script,
    Simulator,
    Stall,
    open_simulator,
)
from engine.simulator.memory import MemoryStream

# --- compression -----------------------------------------------------------------------------------------------------


class Compressing:
    """A client that offers permessage-deflate, over its own framing."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.extension = PerMessageDeflate()
        self.connection = WSConnection(ConnectionType.CLIENT)
        self.received = 0
        self.text = ""
        self.waiting: deque[events.Event] = deque()

    async def open(self) -> None:
        request = events.Request(
            host="simulator",
            target="/v1/responses",
            extensions=[self.extension],
            extra_headers=[(b"authorization", b"Bearer x")],
        )
        await self.stream.send_all(self.connection.send(request))
        assert isinstance(await self.next_event(), events.AcceptConnection)

    async def next_event(self) -> events.Event:
        while not self.waiting:
            data = bytes(await self.stream.receive_some())
            self.received += len(data)
            self.connection.receive_data(data or None)
            self.waiting.extend(self.connection.events())
        return self.waiting.popleft()

    async def turn(self, text: str) -> list[dict[str, Any]]:
        create = json.dumps({"type": "response.create", "model": "m", "input": text})
        await self.stream.send_all(self.connection.send(events.TextMessage(data=create)))
        found: list[dict[str, Any]] = []
        while True:
            event = await self.next_event()
            assert isinstance(event, events.TextMessage), event
            self.text += event.data
            if event.message_finished:
                found.append(json.loads(self.text))
                self.text = ""
                if found[-1]["type"] in {"response.completed", "error"}:
                    return found


@asynccontextmanager
async def compressing(sim: Simulator) -> AsyncIterator[Compressing]:
    stream = await sim.dialer.open_tcp(sim.host, sim.port)
    try:
        client = Compressing(stream)
        await client.open()
        yield client
    finally:
        await trio.aclose_forcefully(stream)


async def test_messages_are_compressed_where_the_client_offers_it() -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim, compressing(sim) as client:
        assert client.extension.enabled()
        for _ in range(2):  # the second with the first one's window
            found = await client.turn("word " * 2000)
            assert text_of(found[-1]["response"]) == "word " * 2000
        sent = sum(len(json.dumps(event)) for event in found) * 2
        assert client.received < sent / 5
        assert sim.requests[0].size > 10_000


async def test_nothing_is_compressed_where_the_server_does_not_agree() -> None:
    async with open_simulator(in_memory=True, compress=False) as sim, compressing(sim) as client:
        assert not client.extension.enabled()
        assert text_of((await client.turn("a"))[-1]["response"]) == "a"


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what was written to in-memory connections, in order."""
    sizes: list[int] = []
    send_all = MemoryStream.send_all

    async def counted(self: MemoryStream, data: bytes) -> None:
        sizes.append(len(data))
        await send_all(self, data)

    monkeypatch.setattr(MemoryStream, "send_all", counted)
    return sizes


@pytest.mark.parametrize(("batch", "most"), [(1, 1000), (32, 40)])
async def test_events_that_are_ready_leave_together(writes: list[int], batch: int, most: int) -> None:
    script = Script([Say("word " * 500)])
    async with open_simulator(in_memory=True, brain=script, events_per_write=batch) as sim, connect(sim) as peer:
        writes.clear()
        found = await peer.turn()
        assert len(found) > 500
        assert len(writes) < most
        assert [event["sequence_number"] for event in found] == list(range(len(found)))


async def test_streams_leave_together_too(writes: list[int]) -> None:
    async with open_simulator(in_memory=True, brain=Script([Say("word " * 500)])) as sim:
        answer = await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": "x", "stream": True})
        assert len(answer.events) > 500
        assert len(writes) < 50


async def test_what_is_ready_does_not_wait_for_what_is_not(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("a"), Delay(10), SayDelta("b"), Stall()]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        await peer.create()
        began = trio.current_time()
        await peer.until("response.output_text.delta")
        assert trio.current_time() == began
        await peer.until("response.output_text.delta")
        assert trio.current_time() == began + 10


async def test_a_cut_comes_after_what_was_ready(autojump_clock: MockClock) -> None:
    script = Script([[Say("a b c"), CutMidFrame()]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        await peer.create()
        found = await peer.until("response.output_item.done")
        assert kinds(found).count("output_text.delta") == 3
        assert (await peer.closed()).code == 1006


async def test_a_slow_reader_holds_the_script_back(autojump_clock: MockClock) -> None:
    script = Script([Answer("word " * 20_000)])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim, check=False) as peer:
        await peer.create()
        await trio.sleep(10)
        assert sim.connections[0].bytes_out < 1_000_000
        assert len(await peer.until("response.completed")) > 20_000


async def test_pings_overtake_what_waits(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Ping(), Stall()]])) as sim, connect(sim) as peer:
        await peer.create()
        with trio.fail_after(5):
            await peer.socket.ping()
        # trio-websocket breaks when a Ping of the peer's meets its own Close frame: let that one be answered first.
        await trio.testing.wait_all_tasks_blocked()


async def test_a_close_comes_with_the_upgrade_in_one_write(writes: list[int]) -> None:
    async with open_simulator(in_memory=True, handshake=Accept(close_code=1008)) as sim:
        stream = await sim.dialer.open_tcp(sim.host, sim.port)
        await stream.send_all(
            b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"authorization: Bearer x\r\n\r\n"
        )
        assert (await stream.receive_some()).endswith(b"\r\n\r\n\x88\x02\x03\xf0")
        await trio.aclose_forcefully(stream)


# --- text that is no text --------------------------------------------------------------------------------------------

HALF = '{"type":"response.create","model":"m","input":"half \\ud83d"}'
WHOLE = '{"type":"response.create","model":"m","input":"whole \\ud83d\\ude00"}'


async def test_half_a_surrogate_pair_is_refused_and_harms_nothing_else() -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim, connect(sim) as peer:
        await peer.send(HALF)
        refused = await peer.recv()
        assert (refused["status"], refused["error"]["code"]) == (400, "invalid_json")
        await peer.send(WHOLE)
        assert text_of((await peer.until("response.completed"))[-1]["response"]) == "whole 😀"
        for body, status in ((HALF, 400), (WHOLE, 200)):
            content = body.replace('"type":"response.create",', "").encode()
            assert (await fetch(sim, "POST", "/v1/responses", content)).status == status
        assert sim.errors == []


async def test_numbers_that_are_no_json_are_refused() -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        await peer.send('{"type":"response.create","model":"m","input":"x","temperature":NaN}')
        assert (await peer.recv())["error"]["code"] == "invalid_json"


async def test_a_script_may_tear_a_character() -> None:
    script = Script([[SayDelta("\ud83d"), SayDelta("\ude00 whole")]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim, check=False) as peer:
        deltas = [event["delta"] for event in await peer.turn() if event["type"].endswith("text.delta")]
        assert deltas == ["\ud83d", "\ude00 whole"]


# --- what taps hear --------------------------------------------------------------------------------------------------


async def test_taps_hear_everything(autojump_clock: MockClock) -> None:
    heard: list[tuple[str, Any]] = []
    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        sim.taps.append(lambda record, kind, payload: heard.append((kind, payload)))
        async with connect(sim) as peer:
            found = await peer.turn("hi")
        answer = await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": "x", "stream": True})
        await fetch(sim, "GET", "/v1/models")
    told = [kind for kind, _ in heard]
    assert told[:3] == ["open", "answer", "in"]
    assert [json.loads(payload) for kind, payload in heard[: told.index("end")] if kind == "out"] == found
    assert b"".join(payload for kind, payload in heard[told.index("end") :] if kind == "out").startswith(answer.content)
    assert (told.count("open"), told.count("end")) == (3, 3)
