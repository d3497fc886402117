"""How POSTs are turned away, what streams look like from odd servers, and what the server executed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import h11
import pytest
import trio
import trio.testing
from sim_peer import KEY, HttpAnswer, connect, fetch, kinds, post, stream, text_of
from trio.testing import MockClock

from engine.simulator import (
    Abandon,
    Abort,
    Accept,
    Answer,
    Close,
    Comment,
    Completed,
    Created,
    CutMidFrame,
    Delay,
    Error,
    Event,
    Failed,
    Garbage,
    Gate,
    HangUp,
    Ignore,
    Incomplete,
    Keepalive,
    Mute,
    Quirks,
    Raw,
    Reject,
    Say,
    SayDelta,
    Script,
    Simulator,
    Stall,
    WrongJson,
    open_simulator,
)
from engine.wire.sse import SseDecoder


async def slices(sim: Simulator, **body: Any) -> list[bytes]:
    """POST for a stream and return its body in the chunks it was sent in."""
    raw = await sim.dialer.open_tcp("x", 1)
    content = json.dumps({"model": "m", "input": "hi", "stream": True, **body}).encode()
    head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: %d\r\n\r\n"
    await raw.send_all(head % len(content) + content)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    found: list[bytes] = []
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await raw.receive_some())  # type: ignore[arg-type]
        elif isinstance(event, h11.Data):
            if event.chunk_start:
                found.append(b"")
            found[-1] += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            await raw.aclose()
            return found


def decoded(answer: HttpAnswer) -> list[dict[str, Any]]:
    return [json.loads(each.data) for each in SseDecoder(1 << 20).feed(answer.content) if each.data != "[DONE]"]


# --- turning away ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (None, "application/json", b'"code": "server_is_overloaded"'),
        ({"error": {"message": "m"}}, "application/json", b'{"error": {"message": "m"}}'),
        ("<html>gateway</html>", "text/html", b"<html>gateway</html>"),
        (b"", "text/plain", b""),
    ],
)
async def test_a_refused_post(autojump_clock: MockClock, framing: Any, body: Any, kind: str, expected: bytes) -> None:
    refusal = Reject(503, {"Content-Type": kind, "retry-after": "7"}, body=body, framing=framing, delay=3)
    async with open_simulator(in_memory=True, post=[refusal]) as sim:
        start = trio.current_time()
        answer = await post(sim)
        assert trio.current_time() - start == pytest.approx(3)
        assert (answer.status, answer.headers["content-type"], answer.headers["retry-after"]) == (503, kind, "7")
        assert expected in answer.content
        assert (answer.content == b"") == (expected == b"")
        assert text_of((await post(sim, "2+2")).json) == "4"
        await trio.testing.wait_all_tasks_blocked()
        assert [record.refusals for record in sim.connections] == [[503], []]
        assert [record.closed_by for record in sim.connections] == ["server", "client"]
        assert (len(sim.requests), sim.executed) == (1, 1)


@pytest.mark.parametrize("step", [HangUp(), HangUp(delay=2), HangUp(reset=True), Garbage(b"\x00 no HTTP")])
async def test_a_post_without_an_answer(autojump_clock: MockClock, step: Any) -> None:
    async with open_simulator(in_memory=True) as sim:
        sim.every_post = step
        for _ in range(2):
            assert (await post(sim)).status == 0
        await trio.testing.wait_all_tasks_blocked()
        assert [record.refusals for record in sim.connections] == [[None], [None]]
        assert sim.connections[0].closed_by == "server"
        assert sim.open_connections == []
        assert (sim.requests, sim.executed) == ([], 0)


async def test_a_post_that_is_ignored(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, post=Ignore()) as sim:
        with trio.move_on_after(1000) as scope:
            await post(sim)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert (sim.connections[0].closed_by, sim.connections[0].refusals) == ("client", [None])
        assert sim.requests == []


async def test_a_post_that_is_accepted_with_other_header_fields(autojump_clock: MockClock) -> None:
    accept = Accept(headers={"Content-Type": "text/plain", "x-extra": "1"}, delay=2)
    async with open_simulator(in_memory=True, post=accept) as sim:
        start = trio.current_time()
        for answer in (await stream(sim), await post(sim)):
            assert (answer.headers["content-type"], answer.headers["x-extra"]) == ("text/plain", "1")
        assert trio.current_time() - start == pytest.approx(4)


async def test_a_stream_that_breaks_off_after_its_head(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, post=Accept(close_code=1006)) as sim:
        answer = await stream(sim)
        assert (answer.status, answer.content, answer.complete) == (200, b"", False)
        await trio.testing.wait_all_tasks_blocked()
        assert (sim.connections[0].refusals, sim.connections[0].closed_by, sim.executed) == ([200], "server", 0)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_post_that_is_executed_in_silence(autojump_clock: MockClock, streams: bool) -> None:
    async with open_simulator(in_memory=True, post=Accept(mute=True)) as sim:
        with trio.move_on_after(1000) as scope:
            await post(sim, stream=streams)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        (record,) = sim.requests
        assert (record.status, record.executed, record.output_sent) == ("completed", True, False)
        assert (sim.connections[0].bytes_out, sim.connections[0].closed_by) == (0, "client")


async def test_a_muted_refusal_is_silent_too(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, post=Accept(mute=True)) as sim:
        with trio.move_on_after(1000) as scope:
            await post(sim, unheard_of=1)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert (sim.requests[0].status, sim.connections[0].bytes_out, sim.open_connections) == ("rejected", 0, [])


async def test_posts_and_upgrades_have_a_queue_each(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, post=[Reject(500)], handshake=[Accept(), Reject(426)]) as sim:
        async with connect(sim) as peer:
            await peer.ask()
        # What is not a request for a response is no business of the queue's.
        for path in ("/v1/responses/input_tokens", "/v1/responses/compact"):
            assert (await fetch(sim, "POST", path, {"model": "m", "input": "x"})).status == 200
        assert (await post(sim)).status == 500
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": "x" * 22 + "=="}
        assert (await fetch(sim, "GET", "/v1/responses", headers=upgrade)).status == 426
        assert sim.connections[-1].refusals == [sim.connections[-1].handshake_status] == [426]


@pytest.mark.parametrize(("content", "key", "status"), [(b"{", KEY, 400), (b"x" * 2000, KEY, 413), (b"{}", None, 401)])
async def test_what_is_no_request_is_no_record(
    autojump_clock: MockClock, content: bytes, key: bytes | None, status: int
) -> None:
    async with open_simulator(in_memory=True, max_http_bytes=1000) as sim:
        assert (await fetch(sim, "POST", "/v1/responses", content, key=key)).status == status
        assert (sim.connections[0].refusals, sim.requests) == ([status], [])


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", "/responses", KEY, 404),
        ("POST", "/v1/chat/completions", KEY, 404),
        ("GET", "/v1/models", None, 401),
        ("GET", "/v1/responses", KEY, 426),
        ("PUT", "/v1/responses", KEY, 405),
    ],
)
async def test_what_is_turned_away_is_noted_wherever_it_went(
    autojump_clock: MockClock, method: str, path: str, key: str | None, status: int
) -> None:
    async with open_simulator(in_memory=True) as sim:
        assert (await fetch(sim, method, path, b"{}", key=key)).status == status
        assert (sim.connections[0].refusals, sim.connections[0].path) == ([status], path)


# --- what was executed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "status", "executed", "output"),
    [
        ("answer", "completed", True, True),
        ([Created(), Completed()], "completed", True, False),
        ([Incomplete()], "incomplete", True, False),
        ([Error(429)], "rejected", False, False),
        ([Delay(1), Keepalive(), Comment(), Error(429)], "rejected", False, False),
        ([Created(), Error(500)], "error", True, False),
        ([SayDelta("x"), Error(500)], "error", True, True),
        ([Created(), Failed()], "failed", True, False),
        ([Abort()], "lost", True, False),
        ([Created(), Close()], "lost", True, False),
        ([Created(), CutMidFrame()], "lost", True, False),
        ([Event({"type": "response.output_text.delta", "delta": "x"}), Abort()], "lost", True, True),
        ([Created(), Raw('{"type":"response.output_text.delta"}'), Abort()], "lost", True, False),
        ([Created(), Abandon()], "abandoned", True, False),
        ([Created(), Mute(), Say("unheard"), Completed()], "completed", True, False),
    ],
)
@pytest.mark.parametrize("over", ["websocket", "stream"])
async def test_what_the_server_executed(
    autojump_clock: MockClock, over: str, steps: Any, status: str, executed: bool, output: bool
) -> None:
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim:
        with trio.move_on_after(100):
            if over == "stream":
                await stream(sim, check=False, metadata={"n": "17"})
            else:
                async with connect(sim, check=False) as peer:
                    await peer.create(metadata={"n": "17"})
                    await peer.closed()
        await trio.testing.wait_all_tasks_blocked()
        (record,) = sim.requests
        assert (record.status, record.executed, record.output_sent) == (status, executed, output)
        assert sim.executed == executed
        assert sim.executed_by("n") == ({"17": [record]} if executed else {})


async def test_refused_requests_are_not_executed(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        assert (await post(sim, previous_response_id="resp_gone")).status == 400
        async with connect(sim) as peer:
            await peer.turn(previous_response_id="resp_gone")
        assert [(record.status, record.executed) for record in sim.requests] == [("rejected", False)] * 2


async def test_a_queued_request_is_not_executed_yet(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), Gate(gate), Say("a")]])
    async with open_simulator(in_memory=True, brain=brain, max_active=1) as sim, connect(sim) as peer:
        await peer.create()
        await peer.create(stream_id="other")
        await peer.until("response.queued")
        assert (sim.executed, len(sim.requests)) == (1, 2)
        gate.set()
        await peer.until("response.completed")
        await peer.until("response.completed")
        assert sim.executed == 2


async def test_a_steered_continuation_is_part_of_its_request(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), Gate(gate), Say("a"), Say("b")], "c"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create(metadata={"n": "1"})
        created = await peer.recv()
        steer = {"type": "response.steer", "previous_response_id": created["response"]["id"], "input": "also"}
        await peer.send(steer)
        await peer.until("response.steer.accepted")
        gate.set()
        await peer.until("response.incomplete")
        await peer.until("response.completed")
        assert len(sim.requests) == 2
        assert (sim.executed, len(sim.executed_by("n")["1"])) == (1, 1)


async def test_counting_outlives_the_records(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, remembered=2) as sim:
        for number in range(5):
            await post(sim, metadata={"n": str(number)})
        assert (len(sim.requests), sim.executed) == (2, 5)
        assert list(sim.executed_by("n")) == ["3", "4"]
        assert sim.executed_by("m") == {}


async def test_output_of_a_plain_answer_is_sent_with_it(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    async with open_simulator(in_memory=True, brain=Script([[Say("a"), Gate(gate)], [Created()]])) as sim:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, sim)
            await trio.testing.wait_all_tasks_blocked()
            assert not sim.requests[0].output_sent
            gate.set()
        await post(sim)
        assert [record.output_sent for record in sim.requests] == [True, False]


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [True, False])
async def test_a_silent_server_sends_no_end_either(autojump_clock: MockClock, streams: bool) -> None:
    brain = Script([[Created(), Mute(), Say("unheard"), WrongJson(), Completed()], [Mute(), Error(500)]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        for _ in range(2):
            with trio.move_on_after(1000) as scope:
                await post(sim, stream=streams)
            assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert [record.closed_by for record in sim.connections] == ["client", "client"]
        assert (sim.connections[1].bytes_out, sim.connections[0].bytes_out > 0) == (0, streams)


async def test_an_error_after_the_head_is_an_event(autojump_clock: MockClock) -> None:
    brain = Script([[Keepalive(), Error(429, "rate_limit_exceeded")], [Comment("x"), Error(503)]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        answer = await stream(sim, check=False)
        assert (answer.status, answer.complete, kinds(answer.events)) == (200, True, ["keepalive", "error"])
        assert answer.events[1]["code"] == "rate_limit_exceeded"
        assert kinds((await stream(sim)).events) == ["error"]


async def test_where_a_wait_is_told(autojump_clock: MockClock) -> None:
    wait = {"retry-after": "7"}
    brain = Script([[Error(429, headers=wait)], [Created(), Error(429, headers=wait)]] * 2)
    async with open_simulator(in_memory=True, brain=brain, quirks=Quirks(errors="nested")) as sim:
        assert (await stream(sim)).headers["retry-after"] == "7"
        assert (await stream(sim, check=False)).events[-1]["error"]["headers"] == wait
        async with connect(sim) as peer:
            for _ in range(2):
                assert (await peer.turn())[-1]["error"]["headers"] == wait


async def test_faults_of_plain_answers(autojump_clock: MockClock) -> None:
    brain = Script([[WrongJson()], [Created(), Raw("<html>")], [CutMidFrame()], [Created(), Close()], [Abort()]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        answers = [await post(sim) for _ in range(5)]
        assert [(answer.status, answer.complete) for answer in answers] == [
            (200, True), (200, True), (200, False), (0, False), (0, False),
        ]  # fmt: skip
        assert answers[0].content == WrongJson().text.encode()
        assert answers[1].content == b"<html>"
        assert answers[2].content.startswith(b'{"type":"response.output_text.delta"')
        await trio.testing.wait_all_tasks_blocked()
        assert {record.status for record in sim.requests} == {"lost"}


async def test_a_request_whose_connection_the_test_drops_is_lost(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, sim)
            await trio.testing.wait_all_tasks_blocked()
            sim.abort()
        assert sim.requests[0].status == "lost"


# --- streams of odd servers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(data_lines=True),
        Quirks(space=False),
        Quirks(event_names=False),
        Quirks(newline="\r\n", data_lines=True, comments=True, space=False),
        Quirks(newline="\r", slice_bytes=7),
    ],
    ids=str,
)
async def test_odd_streams_hold_the_same_events(autojump_clock: MockClock, quirks: Quirks) -> None:
    async with open_simulator(in_memory=True, quirks=quirks, brain=Script(["é\u2028😀"])) as sim:
        answer = await stream(sim, check=False)
        events = decoded(answer)
        assert kinds(events)[0] == "created"
        assert kinds(events)[-1] == "completed"
        assert text_of(events[-1]["response"]) == "é\u2028😀"
        assert (b"event" in answer.content.split(b":")[0]) == (quirks.event_names and not quirks.comments)
        assert (answer.content.count(b"data:") > 3 * len(events)) == quirks.data_lines
        assert (b"data: {" in answer.content) == quirks.space


async def test_a_stream_torn_inside_characters(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, quirks=Quirks(slice_bytes=3), brain=Script(["😀" * 3])) as sim:
        parts = await slices(sim)
        assert {len(part) for part in parts} <= {1, 2, 3}
        torn = 0
        for one, other in pairwise(parts):
            torn += bool(one[-1] & 0x80 and other[0] & 0xC0 == 0x80)
        assert torn
        decoder = SseDecoder(1 << 20)
        events = [json.loads(event.data) for part in parts for event in decoder.feed(part)]
        assert text_of(events[-1]["response"]) == "😀" * 3


async def test_keepalives_do_not_get_into_the_slices(autojump_clock: MockClock) -> None:
    brain = Script([[Say("word " * 50, pause=1.0)]])
    async with open_simulator(in_memory=True, quirks=Quirks(slice_bytes=5, keepalive=1.0), brain=brain) as sim:
        assert kinds(decoded(await stream(sim, check=False))).count("keepalive") > 20


@pytest.mark.parametrize("done", [True, False])
async def test_a_stream_whose_last_event_is_not_ended(autojump_clock: MockClock, done: bool) -> None:
    quirks = Quirks(unterminated=True, done_marker=done)
    async with open_simulator(in_memory=True, quirks=quirks) as sim:
        answer = await stream(sim)
        assert answer.complete
        assert answer.content.endswith(b"}\n" if not done else b"data: [DONE]\n")
        assert (kinds(decoded(answer))[-1] == "completed") is done


async def test_an_event_after_the_terminal_ends_it(autojump_clock: MockClock) -> None:
    brain = Script([[Say("a"), Completed(), Keepalive()]])
    async with open_simulator(in_memory=True, quirks=Quirks(unterminated=True), brain=brain) as sim:
        assert kinds(decoded(await stream(sim, check=False)))[-2:] == ["completed", "keepalive"]


async def test_a_server_that_never_streams(autojump_clock: MockClock) -> None:
    brain = Script([Answer("a", delay=9)])
    async with open_simulator(in_memory=True, quirks=Quirks(never_streams=True, keepalive=1.0), brain=brain) as sim:
        answer = await post(sim, stream=True)
        assert answer.headers["content-type"] == "application/json"
        assert text_of(answer.json) == "a"
        assert sim.requests[0].output_sent
