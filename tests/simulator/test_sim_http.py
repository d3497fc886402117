"""The HTTP side: streams, plain answers, stored responses, refusals."""

from __future__ import annotations

import json
from typing import Any

import h11
import pytest
import trio
import trio.testing
from openai.types.responses import CompactedResponse, Response
from sim_peer import FUNCTION, check_event, connect, fetch, kinds, post, request, stream, text_of
from trio.testing import MockClock

from engine.simulator import (
    Abort,
    Answer,
    Binary,
    Call,
    Close,
    Comment,
    Created,
    CutMidFrame,
    Delay,
    Error,
    Event,
    Failed,
    Incomplete,
    Keepalive,
    Ping,
    Quirks,
    Raw,
    Refuse,
    Say,
    SayDelta,
    Script,
    Stall,
    Think,
    WrongJson,
    open_simulator,
)


async def test_a_streamed_turn(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        answer = await stream(sim, "2+2", reasoning={"summary": "auto"})
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.complete
        assert kinds(answer.events)[:2] == ["created", "in_progress"]
        assert kinds(answer.events)[-1] == "completed"
        assert [event["sequence_number"] for event in answer.events] == list(range(len(answer.events)))
        assert text_of(answer.events[-1]["response"]) == "4"
        for block in answer.content.decode().strip().split("\n\n"):
            name, data = block.split("\n")
            assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]
        assert b"[DONE]" not in answer.content
        (record,) = sim.requests
        assert (record.transport, record.status, record.stream_id) == ("http", "completed", None)
        assert sim.history(record.response_id or "")


async def test_every_kind_of_content_over_http(autojump_clock: MockClock) -> None:
    note = {"type": "url_citation", "url": "http://x", "title": "t", "start_index": 0, "end_index": 1}
    brain = Script(
        [
            [Think(["a", "b"], text="raw"), Say("hi", annotations=[note], phase="final_answer"), Refuse("no")],
            [Say("x"), Incomplete("content_filter")],
            [Say("x"), Failed("rate_limit_exceeded", "slow")],
            [Created(), Error(503, "server_is_overloaded")],
            [Event({"type": "response.in_progress", "response": {}})],
        ]
    )
    async with open_simulator(in_memory=True, brain=brain) as sim:
        assert kinds((await stream(sim)).events)[-1] == "completed"
        assert kinds((await stream(sim)).events)[-1] == "incomplete"
        assert kinds((await stream(sim)).events)[-1] == "failed"
        last = (await stream(sim)).events[-1]
        assert (last["type"], last["code"]) == ("error", "server_is_overloaded")
        assert [record.status for record in sim.requests] == ["completed", "incomplete", "failed", "error"]


async def test_a_plain_answer(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        answer = await post(sim, "2+2")
        assert answer.status == 200
        Response.model_validate(answer.json)
        assert text_of(answer.json) == "4"
        tool = await post(sim, "x", tools=[FUNCTION], tool_choice="required")
        output = {"type": "function_call_output", "call_id": tool.json["output"][0]["call_id"], "output": "ok"}
        again = await post(sim, [output], previous_response_id=tool.json["id"])
        assert text_of(again.json) == "ok"


@pytest.mark.parametrize(
    ("steps", "status", "code"),
    [
        (
            [Error(429, "rate_limit_exceeded", type="rate_limit_error", headers={"retry-after": "7"})],
            429,
            "rate_limit_exceeded",
        ),
        ([Created(), Error(500)], 500, "server_error"),
        ([Failed("rate_limit_exceeded")], 429, "rate_limit_exceeded"),
        ([Failed("invalid_prompt")], 400, "invalid_prompt"),
    ],
)
async def test_failures_of_a_plain_answer(autojump_clock: MockClock, steps: list[Any], status: int, code: str) -> None:
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim:
        answer = await post(sim)
        assert (answer.status, answer.error["code"]) == (status, code)


async def test_an_error_before_the_start_is_a_status(autojump_clock: MockClock) -> None:
    brain = Script([[Error(429, "rate_limit_exceeded", headers={"retry-after": "7"})]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        answer = await stream(sim, check=False)
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "7"
        assert sim.requests[0].status == "rejected"


async def test_the_connection_is_kept_for_further_requests(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        body = json.dumps({"model": "m", "input": "2+2", "stream": True}).encode()
        for _ in range(3):
            assert (await request(raw, "POST", "/v1/responses", body)).complete
        assert (await request(raw, "GET", "/nowhere")).status == 404
        assert len(sim.connections) == 1
        await raw.aclose()


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        body = json.dumps({"model": "m", "input": "one"}).encode()
        head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: %d\r\n\r\n"
        await raw.send_all((head % len(body) + body) * 2)
        client = h11.Connection(h11.CLIENT)
        received = b""
        while received.count(b'"object":"response"') < 2:
            received += await raw.receive_some()
        assert client is not None
        assert len(sim.requests) == 2


async def test_a_client_that_leaves_is_noticed(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:
        with trio.move_on_after(5):
            await stream(sim)
        await trio.testing.wait_all_tasks_blocked()
        assert sim.requests[0].status == "lost"
        assert sim.connections[0].closed_by == "client"
        assert sim.open_connections == []


@pytest.mark.parametrize("fault", [CutMidFrame(), Close(), Abort(), Abort(reset=True)])
async def test_a_stream_that_ends_early(autojump_clock: MockClock, fault: Any) -> None:
    brain = Script([[Created(), SayDelta("a"), Delay(1), fault]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        answer = await stream(sim, check=False)
        assert answer.status == 200
        assert not answer.complete
        await trio.testing.wait_all_tasks_blocked()
        assert (sim.requests[0].status, sim.connections[0].closed_by) == ("lost", "server")


async def test_other_faults_on_a_stream(autojump_clock: MockClock) -> None:
    steps = [Created(), Keepalive(), WrongJson(), Raw("{}"), Ping(), Comment("here"), Binary(b"\xff"), Raw("a\nb")]
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim:
        content = (await stream(sim, check=False)).content
        blocks = content.split(b"\n\n")
        assert blocks[1].startswith(b'event: keepalive\ndata: {"type":"keepalive"')
        assert blocks[2] == f"data: {WrongJson().text}".encode()
        assert blocks[3:7] == [b"data: {}", b": here", b"data: \xff", b"data: a\ndata: b"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_stream_quirks(autojump_clock: MockClock, newline: Any) -> None:
    quirks = Quirks(done_marker=True, newline=newline, comments=True, keepalive=1.0)
    async with open_simulator(in_memory=True, quirks=quirks, brain=Script([Answer("a b", delay=2.5)])) as sim:
        answer = await stream(sim, check=False)
        assert answer.data[-1] == "[DONE]"
        assert answer.content.startswith(b": simulated" + newline.encode())
        assert kinds(answer.events).count("keepalive") == 2


@pytest.mark.parametrize("errors", ["nested", "flat"])
async def test_error_events_in_both_shapes(autojump_clock: MockClock, errors: Any) -> None:
    brain = Script([[Created(), Error(500)]])
    async with open_simulator(in_memory=True, quirks=Quirks(errors=errors), brain=brain) as sim:
        event = (await stream(sim, check=False)).events[-1]
        assert ("error" in event) == (errors == "nested")
        check_event(event, websocket=errors == "nested")


async def test_stored_responses_can_be_fetched_listed_and_deleted(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        kept = await peer.ask("one")
        unkept = await peer.ask("two", store=False)
        path = f"/v1/responses/{kept['id']}"
        assert (await fetch(sim, "GET", path)).json == sim.response(kept["id"])
        items = (await fetch(sim, "GET", path + "/input_items")).json
        assert items["data"][0]["content"][0]["text"] == "one"
        assert (await fetch(sim, "GET", f"/v1/responses/{unkept['id']}")).status == 404
        assert (await fetch(sim, "POST", path + "/cancel")).status == 400
        assert (await fetch(sim, "DELETE", path)).json["deleted"] is True
        assert (await fetch(sim, "DELETE", path)).status == 404
        assert (await fetch(sim, "PUT", path)).status == 405


async def test_compaction_and_counting(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        items = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        answer = await fetch(sim, "POST", "/v1/responses/compact", {"model": "m", "input": items})
        # The service returns user messages here, which its own declared type of output items does not have.
        own = [item for item in answer.json["output"] if item["type"] != "message"]
        CompactedResponse.model_validate(answer.json | {"output": own})
        assert [item["type"] for item in answer.json["output"]] == ["message", "compaction"]
        again = await post(sim, [*answer.json["output"], {"role": "user", "content": "2+2"}])
        assert text_of(again.json) == "4"
        count = await fetch(sim, "POST", "/v1/responses/input_tokens", {"model": "m", "input": "a b c"})
        assert count.json["input_tokens"] > 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses", 426),
        ("PUT", "/v1/responses", 405),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/", 404),
        ("POST", "/v1/responsesx", 404),
    ],
)
async def test_other_requests(autojump_clock: MockClock, method: str, path: str, status: int) -> None:
    async with open_simulator(in_memory=True) as sim:
        answer = await fetch(sim, method, path, {})
        assert answer.status == status
        assert answer.error["message"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_bodies_that_are_no_request(autojump_clock: MockClock, content: bytes) -> None:
    async with open_simulator(in_memory=True) as sim:
        assert (await fetch(sim, "POST", "/v1/responses", content)).status == 400


async def test_a_body_above_the_limit(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, max_http_bytes=1000) as sim:
        assert (await fetch(sim, "POST", "/v1/responses", b"x" * 2000)).status == 413


async def test_http_takes_more_than_the_websocket(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, max_message_bytes=1000, brain=Script(["ok"])) as sim:
        assert text_of((await post(sim, "x" * 5000)).json) == "ok"


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01 TLS?\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["binary", "short", "long", "no host"],
)
async def test_heads_that_are_not_http(autojump_clock: MockClock, head: bytes) -> None:
    async with open_simulator(in_memory=True) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        await raw.send_all(head)
        assert (await raw.receive_some()).startswith(b"HTTP/1.1 4")
        await raw.aclose()
        assert sim.errors == []


async def test_silent_and_half_heads_time_out(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        for head in (b"", b"POST /v1/resp"):
            raw = await sim.dialer.open_tcp("x", 1)
            await raw.send_all(head)
            assert await raw.receive_some() == b""
            await raw.aclose()
        assert sim.errors == []


async def test_expect_continue(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        raw = await sim.dialer.open_tcp("x", 1)
        body = json.dumps({"model": "m", "input": "2+2"}).encode()
        head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\nexpect: 100-continue\r\n"
        await raw.send_all(head + b"content-length: %d\r\n\r\n" % len(body))
        assert (await raw.receive_some()).startswith(b"HTTP/1.1 100")
        await raw.send_all(body)
        assert (await raw.receive_some()).startswith(b"HTTP/1.1 200")
        await raw.aclose()


@pytest.mark.parametrize("key", [None, b"Bearer wrong", b"Bearer", b"Basic abc"])
async def test_wrong_keys_over_http(autojump_clock: MockClock, key: bytes | None) -> None:
    async with open_simulator(in_memory=True, api_key="sk-right") as sim:
        answer = await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": "x"}, key=key)
        assert answer.status == 401
        assert "wrong" not in answer.content.decode()
        right = await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": "x"}, key=b"Bearer sk-right")
        assert right.status == 200


async def test_a_tool_call_is_streamed(autojump_clock: MockClock) -> None:
    brain = Script([[Call("add", {"a": 1, "b": 2}, call_id="call_x"), Call("add", "{}")]])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        events = (await stream(sim, tools=[FUNCTION])).events
        deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
        assert "".join(deltas) == '{"a":1,"b":2}{}'
        assert [item["call_id"] == "call_x" for item in events[-1]["response"]["output"]] == [True, False]
