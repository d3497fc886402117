"""Faults, quirks, odd handshakes, and that nothing a client does harms others or the exit."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from sim_peer import FUNCTION, KEY, Peer, connect, kinds, post, request, stream, text_of
from trio.testing import MockClock

from engine.simulator import (
    Abandon,
    Abort,
    Accept,
    Answer,
    Binary,
    CallDelta,
    Close,
    Completed,
    Created,
    CutMidFrame,
    Deaf,
    Delay,
    Echo,
    EndItem,
    Error,
    Event,
    Failed,
    Garbage,
    Gate,
    HangUp,
    Ignore,
    Incomplete,
    InProgress,
    Keepalive,
    Late,
    MemoryDialer,
    Mute,
    Oversized,
    Ping,
    Quirks,
    Raw,
    RawItem,
    Refuse,
    Reject,
    Say,
    SayDelta,
    Script,
    Stall,
    ThinkDelta,
    WrongJson,
    memory_stream_pair,
    open_simulator,
)

# --- steps -----------------------------------------------------------------------------------------------------------


async def test_single_steps_make_a_turn(autojump_clock: MockClock) -> None:
    steps = [
        Created(),
        InProgress(),
        ThinkDelta("h"),
        ThinkDelta("m"),
        EndItem(),
        SayDelta("a"),
        SayDelta("b"),
        CallDelta('{"a"', name="add"),
        CallDelta(":1}", name="add"),
        Completed(),
    ]
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim, connect(sim) as peer:
        final = (await peer.turn())[-1]["response"]
        thought, message, call = final["output"]
        assert thought["summary"][0]["text"] == "hm"
        assert message["content"][0]["text"] == "ab"
        assert call["arguments"] == '{"a":1}'


async def test_a_refusal_and_any_other_item(autojump_clock: MockClock) -> None:
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    events = [{"type": "response.web_search_call.searching", "item_id": "ws_1"}]
    brain = Script([[RawItem(search, events), Refuse("I will not")]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        turn = await peer.turn()
        assert "web_search_call.searching" in kinds(turn)
        assert turn[-1]["response"]["output"][1]["content"] == [{"type": "refusal", "refusal": "I will not"}]


async def test_time_passes_where_the_script_says(autojump_clock: MockClock) -> None:
    brain = Script([[Created(), Delay(2), SayDelta("a"), Delay(3)], Answer("a b c", pause=1.5, delay=1)])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        start = trio.current_time()
        await peer.ask()
        assert trio.current_time() - start == pytest.approx(5)
        await peer.ask()
        assert trio.current_time() - start == pytest.approx(9)


async def test_a_gate_waits_for_the_test(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    async with open_simulator(in_memory=True, brain=Script([[Created(), Gate(gate)]])) as sim, connect(sim) as peer:
        await peer.create()
        assert (await peer.recv())["type"] == "response.created"
        gate.set()
        await peer.until("response.completed")


async def test_a_stalled_response_stays_open_and_answers_pings(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), SayDelta("a"), Stall()]])) as sim:
        async with connect(sim) as peer:
            await peer.create()
            await peer.until("response.output_text.delta")
            with trio.move_on_after(500) as scope:
                await peer.recv()
            assert scope.cancelled_caught
            with trio.fail_after(1):
                await peer.socket.ping()
        await trio.testing.wait_all_tasks_blocked()
        assert sim.requests[0].status == "lost"


async def test_a_frame_cut_in_the_middle(autojump_clock: MockClock) -> None:
    brain = Script([[Created(), CutMidFrame()]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        head = (
            b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
            b"authorization: Bearer x\r\n\r\n"
        )
        payload = json.dumps({"type": "response.create", "model": "m", "input": "x"}).encode()
        frame = bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload
        assert len(payload) < 126
        await raw.send_all(head + frame)
        received = b""
        while data := await raw.receive_some():
            received += data
        assert received.startswith(b"HTTP/1.1 101")
        tail = received[received.rindex(b'{"type":"response.output_text.delta"') :]
        assert not tail.endswith(b"}")
        await raw.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (sim.connections[0].close_code, sim.connections[0].closed_by) == (1006, "server")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 4000])
async def test_a_close_with_any_code(autojump_clock: MockClock, code: int) -> None:
    brain = Script([[Created(), Close(code, "because")]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create()
        reason = await peer.closed()
        assert (reason.code, reason.reason) == (code, "because")
        await trio.testing.wait_all_tasks_blocked()
        record = sim.connections[0]
        assert (record.close_code, record.close_reason, record.closed_by) == (code, "because", "server")


@pytest.mark.parametrize("fault", [Abort(), Abort(reset=True), Close(1006)])
@pytest.mark.parametrize("begun", [True, False])
async def test_an_abrupt_end(autojump_clock: MockClock, fault: Any, begun: bool) -> None:
    brain = Script([[*([Created()] if begun else []), fault]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create()
        assert (await peer.closed()).code == 1006
        await trio.testing.wait_all_tasks_blocked()
        assert sim.requests[0].status == "lost"


async def test_late_events_reach_into_the_next_turn(autojump_clock: MockClock) -> None:
    brain = Script([[Say("one"), Completed(), Late([SayDelta("late")], after=5)], [Created(), Delay(10), Say("two")]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        first = await peer.turn()
        second = await peer.turn()
        late = [event for event in second if event.get("delta") == "late"]
        assert late
        assert late[0]["sequence_number"] > first[-1]["sequence_number"]
        assert text_of(second[-1]["response"]) == "two"


async def test_events_after_the_terminal(autojump_clock: MockClock) -> None:
    brain = Script([[Say("one"), Completed(), Error(500), Completed()]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        assert kinds(await peer.turn())[-1] == "completed"
        assert (await peer.recv())["type"] == "error"
        assert (await peer.recv())["type"] == "response.completed"


async def test_a_turn_without_a_terminal(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Say("one"), Abandon(), Say("no")], "two"])) as sim:
        async with connect(sim) as peer:
            await peer.create()
            await peer.until("response.output_item.done")
            assert text_of(await peer.ask()) == "two"
        assert sim.requests[0].status == "abandoned"


async def test_frames_that_are_no_events(autojump_clock: MockClock) -> None:
    brain = Script(
        [[WrongJson(), Raw("null"), Binary(b"\x00\xff"), Keepalive(), Event({"type": "response.new"}), Ping()]]
    )
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim, check=False) as peer:
        await peer.create()
        frames = [await peer.socket.get_message() for _ in range(5)]
        assert frames[:3] == [WrongJson().text, "null", b"\x00\xff"]
        assert json.loads(frames[3])["type"] == "keepalive"
        assert json.loads(frames[4]) == {"type": "response.new", "sequence_number": 1}
        await peer.until("response.completed")


async def test_an_event_can_be_sent_exactly(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Event({"a": 1}, numbered=False)]])) as sim:
        async with connect(sim, check=False) as peer:
            await peer.create()
            assert await peer.recv() == {"a": 1}


async def test_an_oversized_frame(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Oversized(200_000)]])) as sim:
        async with connect(sim, size=100_000) as peer:
            await peer.create()
            assert (await peer.closed()).code == 1009


async def test_mute_reads_on_and_says_nothing(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Mute(), Say("unheard")]])) as sim:
        async with connect(sim) as peer:
            await peer.create()
            await peer.recv()
            await peer.create()
            with trio.move_on_after(100) as scope:
                await peer.recv()
            assert scope.cancelled_caught
            await peer.socket.ping()
            assert [record.status for record in sim.requests] == ["completed", "completed"]


async def test_frozen_answers_no_pings(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Mute(frozen=True)]])) as sim:
        async with connect(sim) as peer:
            await peer.create()
            await peer.recv()
            with trio.move_on_after(100) as scope:
                await peer.socket.ping()
            assert scope.cancelled_caught


async def test_deaf_stops_reading(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Deaf(), Stall()]])) as sim:
        async with connect(sim) as peer:
            await peer.create()
            await peer.recv()
            with trio.move_on_after(100) as scope:
                await peer.create("x" * 2_000_000)
            assert scope.cancelled_caught
            assert len(sim.requests) == 1


# --- quirks ----------------------------------------------------------------------------------------------------------


async def _quirky(quirks: Quirks, *turns: Any, **body: Any) -> list[dict[str, Any]]:
    async with open_simulator(in_memory=True, quirks=quirks, brain=Script(turns or ["a b"])) as sim:
        async with connect(sim, check=False) as peer:
            await peer.create(**body)
            events = []
            with trio.move_on_after(1000):
                while True:
                    events.append(await peer.recv())
            return events


async def test_error_shapes(autojump_clock: MockClock) -> None:
    fail = [Error(429, "slow_down", headers={"retry-after": "3"}, type="rate_limit_error")]
    (flat,) = await _quirky(Quirks(errors="flat"), fail, stream_id="a")
    assert (flat["code"], flat["status"], flat["stream_id"]) == ("slow_down", 429, "a")
    assert "error" not in flat
    (untyped,) = await _quirky(Quirks(errors="untyped"), fail)
    assert untyped == {"error": {"message": "The request rate rose too quickly. Slow down.", "type": "api_error"}}
    (alias,) = await _quirky(Quirks(status_code=True), fail)
    assert alias["status_code"] == 429
    assert "status" not in alias
    assert alias["error"]["headers"] == {"retry-after": "3"}
    (top,) = await _quirky(Quirks(error_headers="top"), fail)
    assert top["headers"] == {"retry-after": "3"}
    assert "headers" not in top["error"]


async def test_terminals_without_output_or_usage(autojump_clock: MockClock) -> None:
    for mode, expected in (("absent", ...), ("null", None), ("empty", [])):
        events = await _quirky(Quirks(terminal_output=mode))  # type: ignore[arg-type]
        assert events[-1]["response"].get("output", ...) == expected
    assert (await _quirky(Quirks(usage=False)))[-1]["response"]["usage"] is None
    assert "usage" not in (await _quirky(Quirks(usage="absent")))[-1]["response"]


async def test_missing_events_and_numbers(autojump_clock: MockClock) -> None:
    events = await _quirky(Quirks(set_up_events=False, in_progress=False, sequence_numbers=False))
    assert kinds(events) == [
        "created",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "output_item.done",
        "completed",
    ]
    assert all("sequence_number" not in event for event in events)


async def test_done_in_place_of_completed_or_after_it(autojump_clock: MockClock) -> None:
    assert kinds(await _quirky(Quirks(done="instead")))[-2:] == ["output_item.done", "done"]
    assert kinds(await _quirky(Quirks(done="also")))[-2:] == ["completed", "done"]


async def test_keepalives_and_private_events(autojump_clock: MockClock) -> None:
    events = await _quirky(Quirks(keepalive=10), Answer("a", delay=35))
    assert kinds(events).count("keepalive") == 3
    events = await _quirky(Quirks(codex_events=True), stream_id="a")
    assert kinds(events)[:3] == ["codex.rate_limits", "codex.response.metadata", "created"]
    assert "stream_id" not in events[0]
    assert kinds(events)[-1] == "metadata"


async def test_batches_and_binary_frames(autojump_clock: MockClock) -> None:
    frames = await _quirky(Quirks(chunks=4))
    assert all(set(frame) == {"chunks"} for frame in frames)
    assert [len(frame["chunks"]) for frame in frames[:-1]] == [4] * (len(frames) - 1)
    assert frames[-1]["chunks"][-1]["type"] == "response.completed"
    async with open_simulator(in_memory=True, quirks=Quirks(binary=True)) as sim, connect(sim) as peer:
        await peer.create()
        assert isinstance(await peer.socket.get_message(), bytes)


async def test_servers_without_lanes_or_with_one_response_at_a_time(autojump_clock: MockClock) -> None:
    (error,) = await _quirky(Quirks(lanes=False), stream_id="a")
    assert error["error"]["code"] == "unknown_parameter"
    quirks = Quirks(single_flight="response_already_in_flight", only_newest=True)
    brain = Script([[Created(), Delay(5)]])
    async with open_simulator(in_memory=True, quirks=quirks, brain=brain) as sim, connect(sim) as peer:
        await peer.create(store=False)
        await peer.until("response.created")
        (error,) = await peer.turn(stream_id="b")
        assert (error["status"], error["error"]["code"]) == (409, "response_already_in_flight")
        first = (await peer.until("response.completed"))[-1]["response"]
        await trio.testing.wait_all_tasks_blocked()
        await peer.ask(stream_id="b", store=False)
        (error,) = await peer.turn(previous_response_id=first["id"])
        assert error["error"]["code"] == "previous_response_not_found"


async def test_eviction_can_be_switched_off(autojump_clock: MockClock) -> None:
    quirks = Quirks(evict=False, obfuscation=False)
    async with open_simulator(in_memory=True, quirks=quirks, brain=Script(["p", [Error(500)]])) as sim:
        async with connect(sim) as peer:
            parent = await peer.ask(store=False)
            await peer.turn(previous_response_id=parent["id"])
            assert "obfuscation" not in (await peer.turn(previous_response_id=parent["id"]))[4]


# --- handshakes ------------------------------------------------------------------------------------------------------


async def _upgrade(sim: Any, path: str = "/v1/responses", **headers: str) -> bytes:
    """Return everything the server sends to an upgrade request within a minute."""
    raw = await sim.dialer.open_tcp("x", 1)
    fields = {
        "host": "x",
        "upgrade": "websocket",
        "connection": "keep-alive, Upgrade",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-version": "13",
        "authorization": "Bearer x",
        "content-type": "application/json",
        "sec-websocket-extensions": "permessage-deflate; client_max_window_bits",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value), "", ""]
    await raw.send_all("\r\n".join(lines).encode())
    received = b""
    with trio.move_on_after(60):
        while data := await raw.receive_some():
            received += data
        received += b"<end>"
    await raw.aclose()
    return received


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 405, 426, 429, 500, 503])
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_refusals(autojump_clock: MockClock, status: int, framing: Any) -> None:
    refusal = Reject(status, headers={"retry-after": "7"}, framing=framing)
    async with open_simulator(in_memory=True, handshake=refusal) as sim:
        answer = await _upgrade(sim)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"retry-after: 7" in answer
        assert (b"content-length" in answer) == (framing == "length")
        assert (b"0\r\n\r\n<end>" in answer) == (framing == "chunked")
        assert b'"error"' in answer
        assert answer.endswith(b"<end>")
        await trio.testing.wait_all_tasks_blocked()
        record = sim.connections[0]
        assert (record.handshake_status, record.closed_by, record.transport) == (status, "server", "websocket")


async def test_bodies_of_refusals_and_lingering(autojump_clock: MockClock) -> None:
    steps = [Reject(403, body=b""), Reject(502, body="<html>"), Reject(400, body={"detail": 1})]
    steps.append(Reject(401, framing="none", linger=600))
    async with open_simulator(in_memory=True, handshake=steps) as sim:
        assert b"content-length: 0\r\n\r\n<end>" in await _upgrade(sim)
        assert b"\r\n\r\n<html><end>" in await _upgrade(sim)
        assert b'\r\n\r\n{"detail": 1}<end>' in await _upgrade(sim)
        assert not (await _upgrade(sim)).endswith(b"<end>")
        assert (await _upgrade(sim)).startswith(b"HTTP/1.1 101")


async def test_other_ends_of_a_handshake(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        sim.handshakes += [
            HangUp(),
            Ignore(),
            Garbage(b"SSH-2.0\r\n"),
            Accept(delay=50, headers={"x-models-etag": "e"}),
        ]
        assert await _upgrade(sim) == b"<end>"
        assert await _upgrade(sim) == b""
        assert await _upgrade(sim) == b"SSH-2.0\r\n<end>"
        start = trio.current_time()
        accepted = await _upgrade(sim)
        assert accepted.startswith(b"HTTP/1.1 101")
        assert b"x-models-etag: e" in accepted
        assert trio.current_time() - start == pytest.approx(60)
        assert sim.errors == []


async def test_a_handshake_without_extension_or_protocol_in_its_answer(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, compress=False) as sim:
        answer = (await _upgrade(sim)).lower()
        assert b"sec-websocket-extensions" not in answer
        assert b"sec-websocket-protocol" not in answer


@pytest.mark.parametrize("code", [1008, 1013])
async def test_a_close_right_after_the_upgrade(autojump_clock: MockClock, code: int) -> None:
    async with open_simulator(in_memory=True, handshake=Accept(close_code=code)) as sim, connect(sim) as peer:
        assert (await peer.closed()).code == code


async def test_a_drop_right_after_the_upgrade(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, handshake=[Accept(close_code=1006)]) as sim:
        async with connect(sim) as peer:
            assert (await peer.closed()).code == 1006
        async with connect(sim) as peer:
            await peer.ask()


async def test_mute_after_the_upgrade(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, handshake=Accept(mute=True)) as sim, connect(sim) as peer:
        await peer.create()
        with trio.move_on_after(100) as scope:
            await peer.recv()
        assert scope.cancelled_caught
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"authorization": "", "api_key": "right"}, 101),
        ({"authorization": "Bearer right"}, 101),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_key": ""}, 400),
        ({"path": "/v1/other"}, 404),
        ({"path": "/v1/responses?api-version=x"}, 401),
    ],
)
async def test_upgrades_are_checked(autojump_clock: MockClock, headers: dict[str, str], status: int) -> None:
    async with open_simulator(in_memory=True, api_key="right") as sim:
        answer = await _upgrade(sim, **headers)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"wrong" not in answer
        assert sim.errors == []


@pytest.mark.parametrize("key", ["short", "!" * 24])
async def test_a_nonsense_key_ends_in_bounds(autojump_clock: MockClock, key: str) -> None:
    async with open_simulator(in_memory=True) as sim:
        await _upgrade(sim, sec_websocket_key=key)
        assert sim.errors == []


# --- steering --------------------------------------------------------------------------------------------------------


def _steer(target: str, value: Any = "also this") -> dict[str, Any]:
    return {"type": "response.steer", "previous_response_id": target, "input": value}


async def test_steering_interrupts_at_the_end_of_an_item_and_goes_on_by_itself(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), SayDelta("part"), Gate(gate), EndItem(), Say("never")], "steered"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create("first", stream_id="a", temperature=0.5)
        target = (await peer.recv())["response"]["id"]
        await peer.send(_steer(target))
        accepted = (await peer.until("response.steer.accepted"))[-1]
        assert accepted["steer"]["id"].startswith("steer_")
        assert accepted["stream_id"] == "a"
        gate.set()
        old = (await peer.until("response.incomplete"))[-1]["response"]
        assert old["incomplete_details"] == {"reason": "steered"}
        assert text_of(old) == "part"
        events = await peer.until("response.completed")
        assert events[0]["type"] == "response.created"
        assert {event["stream_id"] for event in events} == {"a"}
        new = events[-1]["response"]
        assert (new["previous_response_id"], new["temperature"]) == (target, 0.5)
        texts = [item["content"][0]["text"] for item in sim.history(new["id"])]
        assert texts == ["first", "part", "also this", "steered"]
        assert sim.requests[1].successor_of == target
        assert len(sim.connections[0].steers) == 1


async def test_steering_after_the_last_item_still_makes_a_successor(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Say("all"), Completed(), Gate(gate)], "more"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        done = (await peer.turn("x"))[-1]["response"]
        await peer.send(_steer(done["id"]))
        await peer.until("response.steer.accepted")
        gate.set()
        assert text_of((await peer.until("response.completed"))[-1]["response"]) == "more"


async def test_steering_waits_for_tool_output(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), CallDelta("{}", name="add"), Gate(gate), EndItem()], "done"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create("first", tools=[FUNCTION])
        target = (await peer.recv())["response"]["id"]
        message = {"role": "user", "content": [{"type": "input_text", "text": "also this"}]}
        await peer.send(_steer(target, [message]))
        await peer.until("response.steer.accepted")
        gate.set()
        await peer.until("response.completed")
        pending = await peer.recv()
        assert pending["type"] == "response.steer.pending"
        (stub,) = pending["required_input"]
        assert stub == {"type": "function_call_output", "call_id": sim.history(target)[1]["call_id"], "name": "add"}
        reply = await peer.ask([stub | {"output": "5"}], previous_response_id=target)
        types = [(item["type"], item.get("role")) for item in sim.history(reply["id"])]
        assert types[2:4] == [("message", "user"), ("function_call_output", None)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"previous_response_id": "resp_other"}, "response_not_found"),
        ({"previous_response_id": None}, "response_not_found"),
        ({"input": ""}, "invalid_input"),
        ({"input": []}, "invalid_input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "invalid_input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "invalid_input"),
        ({"stream_id": "a"}, "invalid_input"),
    ],
)
async def test_steering_that_is_refused(autojump_clock: MockClock, change: dict[str, Any], code: str) -> None:
    brain = Script([[Created(), Stall()]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim, check=False) as peer:
        await peer.create()
        target = (await peer.recv())["response"]["id"]
        await peer.send(_steer(target) | change)
        failed = await peer.recv()
        assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", code)


async def test_steering_of_ended_or_unable_responses(autojump_clock: MockClock) -> None:
    brain = Script(["a", [Created(), Stall()], [Created(), Failed()]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        ended = await peer.ask(stream_id="a")
        await peer.send(_steer(ended["id"]))
        assert (await peer.recv())["error"]["code"] == "response_already_completed"
        await peer.create(model="gpt-5.6", stream_id="b")
        old = (await peer.recv())["response"]["id"]
        await peer.send(_steer(old))
        assert (await peer.recv())["error"]["code"] == "steering_not_supported"


async def test_accepted_steering_comes_back_when_the_response_fails(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), SayDelta("x"), Gate(gate), Failed()]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create()
        target = (await peer.recv())["response"]["id"]
        for _ in range(33):
            await peer.send(_steer(target))
        answers = [(await peer.until("response.steer.accepted"))[-1] for _ in range(32)]
        assert (await peer.recv())["error"]["code"] == "too_many_pending_steers"
        gate.set()
        await peer.until("response.failed")
        failed = [await peer.recv() for _ in range(32)]
        assert [event["steer"]["id"] for event in failed] == [event["steer"]["id"] for event in answers]
        assert failed[0]["error"]["code"] == "successor_creation_failed"


# --- what tests can do, hostile peers, leaving ------------------------------------------------------------------------


async def test_tests_can_push_close_and_drop(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with connect(sim, check=False) as one, connect(sim) as two:
            assert sim.push({"type": "keepalive"}, connection=sim.connections[0]) == 1
            assert (await one.recv())["type"] == "keepalive"
            sim.close(1012, "restart", connection=sim.connections[0])
            assert (await one.closed()).code == 1012
            sim.abort()
            assert (await two.closed()).code == 1006
            await trio.testing.wait_all_tasks_blocked()
            assert sim.open_connections == []
            assert sim.push({"type": "keepalive"}) == 0


async def test_dials_can_be_refused(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        assert isinstance(sim.dialer, MemoryDialer)
        sim.dialer.refusals = 1
        with pytest.raises(ConnectionRefusedError):
            await sim.dialer.open_tcp("x", 1)
        await (await sim.dialer.open_tcp("x", 1)).aclose()
        assert sim.dialer.dials == 2
    with pytest.raises(ConnectionRefusedError):
        await sim.dialer.open_tcp("x", 1)


async def test_a_peer_that_does_not_read_blocks_nobody(autojump_clock: MockClock) -> None:
    brain = Script([[Oversized(1_000_000), Stall()], "quick"])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        async with connect(sim) as stuck:
            await stuck.create()
            await stuck.create()
            await trio.testing.wait_all_tasks_blocked()
            async with connect(sim) as other:
                assert text_of(await other.ask()) == "quick"


@pytest.mark.parametrize(
    "junk",
    [
        b"\x81\x02{}",  # not masked
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xfe\xff\xff" + b"\x00" * 100,
        b"\x88\x80\x00\x00\x00\x00\x81\x80\x00\x00\x00\x00",
        b"\x81\x82\x00\x00\x00\x00\xff\xfe",  # not UTF-8
        b"\x89\x80\x00\x00\x00\x00" * 1000,
    ],
    ids=["unmasked", "reserved", "half", "after close", "not text", "pings"],
)
async def test_protocol_violations_end_the_connection_only(autojump_clock: MockClock, junk: bytes) -> None:
    async with open_simulator(in_memory=True) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        head = (
            b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
            b"authorization: Bearer x\r\n\r\n"
        )
        await raw.send_all(head + junk)
        with trio.move_on_after(5):
            while await raw.receive_some():
                pass
        await raw.aclose()
        async with connect(sim) as peer:
            await peer.ask()
        assert sim.errors == []
        assert len(sim.open_connections) <= 1


async def test_what_the_block_raises_passes_unchanged(autojump_clock: MockClock) -> None:
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError):
        async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:
            raw = await sim.dialer.open_tcp("x", 1)
            await raw.send_all(b"GET /")
            raise OwnError
    with trio.move_on_after(1) as scope:
        async with open_simulator(in_memory=True):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_leaving_ends_stuck_clients_at_once(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Oversized(5_000_000)]] * 3)) as sim:
        streams = [await sim.dialer.open_tcp("x", 1) for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for raw in streams[:3]:
                socket = await trio_websocket.wrap_client_stream(
                    nursery,
                    raw,  # type: ignore[arg-type]
                    "x",
                    "/v1/responses",
                    extra_headers=[(b"authorization", KEY)],
                )
                await Peer(socket, check=False).create()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel(reason="leave them stuck")
        start = trio.current_time()
    assert trio.current_time() == start
    assert all(not record.open for record in sim.connections)
    for raw in streams:
        await raw.aclose()


def test_only_loopback_unless_asked() -> None:
    for host in ("0.0.0.0", "example.org", "::", "10.0.0.1"):
        with pytest.raises(ValueError, match="loopback"):
            open_simulator(host=host)
    for host in ("127.0.0.1", "::1", "localhost"):
        open_simulator(host=host)
    open_simulator(host="0.0.0.0", allow_remote=True)
    open_simulator(host="0.0.0.0", in_memory=True)


# --- the memory stream -----------------------------------------------------------------------------------------------


async def test_the_memory_stream_is_a_stream(autojump_clock: MockClock) -> None:
    async def make() -> tuple[Any, Any]:
        return memory_stream_pair(4096)

    async def clogged() -> tuple[Any, Any]:
        here, there = memory_stream_pair(16)
        await here.send_all(b"x" * 16)
        await there.send_all(b"x" * 16)
        return here, there

    await trio.testing.check_half_closeable_stream(make, clogged)


async def test_a_reset_loses_unread_data(autojump_clock: MockClock) -> None:
    here, there = memory_stream_pair()
    await here.send_all(b"data")
    here.abort()
    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()


# --- sockets and TLS: real time ---------------------------------------------------------------------------------------


async def test_both_transports_on_one_real_port() -> None:
    async with open_simulator() as sim:
        assert sim.port > 0
        assert sim.base_url == f"http://127.0.0.1:{sim.port}/v1"
        assert sim.websocket_url == f"ws://127.0.0.1:{sim.port}/v1/responses"
        async with connect(sim) as peer:
            assert text_of(await peer.ask("2+2")) == "4"
        assert (await stream(sim, "2+2")).complete
        assert [record.transport for record in sim.connections] == ["websocket", "http"]


async def test_the_endpoint_leads_to_the_server() -> None:
    async with open_simulator(in_memory=True, api_key="sk-x") as sim:
        endpoint = sim.endpoint
        assert (endpoint.base_url, endpoint.api_key) == (sim.base_url, "sk-x")
        assert (sim.host, sim.port) == ("127.0.0.1", 0)


async def test_stuck_sockets_do_not_delay_the_exit() -> None:
    async with open_simulator(brain=Script([[Oversized(20_000_000)]] * 2)) as sim:
        raws = [await sim.dialer.open_tcp(sim.host, sim.port) for _ in range(4)]
        body = json.dumps({"model": "m", "input": "x", "stream": True}).encode()
        head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: %d\r\n\r\n"
        for raw in raws[:2]:
            await raw.send_all(head % len(body) + body)
        await trio.testing.wait_all_tasks_blocked(0.05)
        limit = trio.current_time() + 10
    assert trio.current_time() < limit
    for raw in raws:
        await raw.aclose()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_dropped_socket_over_tcp(reset: bool) -> None:
    async with open_simulator(brain=Script([[Created(), Abort(reset=reset)]])) as sim, connect(sim) as peer:
        await peer.create()
        assert (await peer.closed()).code == 1006


async def test_a_message_too_big_over_tcp_is_told_so() -> None:
    async with open_simulator(max_message_bytes=1_000_000) as sim, connect(sim) as peer:
        await peer.create("x" * 5_000_000)
        assert (await peer.closed()).code == 1009


@pytest.mark.parametrize("in_memory", [True, False])
async def test_tls(in_memory: bool) -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", "simulator.invalid").configure_cert(server)
    authority.configure_trust(client)
    async with open_simulator(in_memory=in_memory, ssl_context=server) as sim:
        assert sim.base_url.startswith("https://")
        assert sim.websocket_url.startswith("wss://")
        name = "simulator.invalid" if in_memory else "127.0.0.1"
        raw = await sim.dialer.open_tcp(sim.host, sim.port)
        secure = await sim.dialer.start_tls(raw, ssl_context=client, server_hostname=name)
        body = json.dumps({"model": "m", "input": "2+2"}).encode()
        assert (await request(secure, "POST", "/v1/responses", body)).status == 200
        await secure.aclose()
        raw = await sim.dialer.open_tcp(sim.host, sim.port)
        with pytest.raises(trio.BrokenResourceError):
            await sim.dialer.start_tls(raw, ssl_context=client, server_hostname="other.invalid")
        plain = await sim.dialer.open_tcp(sim.host, sim.port)
        await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.move_on_after(5):
            while await plain.receive_some():
                pass
        await plain.aclose()
        assert sim.errors == []


async def test_a_taken_port_is_an_error() -> None:
    async with open_simulator() as sim:
        with pytest.raises(OSError, match=r".*"):
            async with open_simulator(port=sim.port):
                pass


async def test_incomplete_on_request(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Say("x"), Incomplete("content_filter")]])) as sim:
        assert (await post(sim)).json["incomplete_details"] == {"reason": "content_filter"}


ODD_EVENTS: list[dict[str, Any]] = [
    {"type": "response.completed"},
    {"type": "response.completed", "response": None},
    {"type": "response.completed", "response": {}},
    {"type": "response.failed"},
    {"type": "response.failed", "response": {"status": "failed", "error": "it broke"}},
    {"type": "error"},
    {"type": "error", "error": None},
    {"type": "error", "error": ["m"]},
    {"type": "error", "error": {}},
    {"type": "error", "status": "400"},
]


@pytest.mark.parametrize("event", ODD_EVENTS, ids=str)
@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(terminal_output="absent", usage="absent", errors="untyped"),
        Quirks(terminal_output="empty", usage=False, errors="flat", done="also", item_ids="renewed", indexes="shifted"),
    ],
    ids=["plain", "absent", "other"],
)
async def test_events_of_a_script_may_have_any_shape(
    autojump_clock: MockClock, event: dict[str, Any], quirks: Quirks
) -> None:
    script = Script([[Created(), Event(event), Abandon()]] * 3, then=Echo())
    async with open_simulator(in_memory=True, brain=script, quirks=quirks) as sim:
        async with connect(sim, check=False) as peer:
            await peer.create("odd")
            assert (await peer.recv())["type"] == "response.created"
            assert await peer.recv()
        assert (await stream(sim, check=False)).events
        await post(sim, stream=False)
        assert sim.errors == []
        assert (await post(sim, "hello", stream=False)).json["output"]
