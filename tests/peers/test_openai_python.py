"""The official Python client against the simulator: both transports, lanes, its strict accumulators, its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
import trio
from openai import AsyncOpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketAccumulator,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
)
from pydantic import BaseModel

from engine.simulator import (
    Answer,
    Created,
    Error,
    Refuse,
    Reject,
    Say,
    Script,
    Simulator,
    Think,
    open_simulator,
)

FUNCTION: Any = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "strict": False,
}
LIMITS = ResponsesWebSocketLimits(
    max_lanes=8,
    max_events_per_lane=1000,
    max_events=4000,
    max_bytes_per_lane=1 << 24,
    max_bytes=1 << 25,
    max_response_bytes=None,
)


async def drive(sim: Simulator, work: Callable[[AsyncOpenAI], Awaitable[None]], **options: Any) -> None:
    """Run ``work`` with a client of its own in an asyncio loop in a thread."""

    async def main() -> None:
        settings: dict[str, Any] = {"base_url": sim.base_url, "api_key": sim.api_key, "max_retries": 0, "timeout": 20}
        async with AsyncOpenAI(**settings | options) as client:
            async with asyncio.timeout(20):
                await work(client)

    await trio.to_thread.run_sync(asyncio.run, main())
    assert sim.errors == []


def _call(response: Any) -> Any:
    (call,) = [item for item in response.output if item.type == "function_call"]
    return call


def _output(call: Any, text: str) -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


async def test_the_raw_connection() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with client.responses.connect() as connection:
            await connection.response.create(model="m", input="What is 2+2?", reasoning={"summary": "auto"})
            events = []
            async for event in connection:
                events.append(event)
                if event.type == "response.completed":
                    assert event.response.output_text == "4"
                    break
            assert [event.sequence_number for event in events] == list(range(len(events)))
            await connection.response.create(model="m", input="x", previous_response_id="resp_gone")
            failed = await connection.recv()
            assert failed.type == "error"
            assert failed.error.code == "previous_response_not_found"

    async with open_simulator() as sim:
        await drive(sim, work)
        (record,) = sim.connections
        assert record.transport == "websocket"
        assert record.authorization == f"Bearer {sim.api_key}"


async def test_lanes_of_its_session() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with (
            client.responses.connect(websocket_connection_options={"max_size": None}) as connection,
            AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
        ):
            one, two = session.lane("one"), session.lane("two")
            await one.send({"type": "response.create", "model": "m", "input": "1+1"})
            await two.send({"type": "response.create", "model": "m", "input": "2+2"})
            first = await one.get_final_response()
            assert first.output_text == "2"
            assert (await two.get_final_response()).output_text == "4"
            # A fork of the first lane's response on the second.
            await two.send({"type": "response.create", "model": "m", "input": "3+3", "previous_response_id": first.id})
            assert (await two.get_final_response()).output_text == "6"
            await one.send({"type": "response.create", "model": "m", "input": "x", "temperature": 7})
            with pytest.raises(ResponsesWebSocketError):
                await one.get_final_response()

    async with open_simulator() as sim:
        await drive(sim, work)
        assert sim.connections[0].lanes == ["one", "two"]


async def test_a_tool_turn_on_a_lane_with_its_accumulator() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with (
            client.responses.connect(websocket_connection_options={"max_size": None}) as connection,
            AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
        ):
            lane = session.lane("tools")
            accumulator = ResponsesWebSocketAccumulator()

            async def turn(**body: Any) -> Any:
                await lane.send({"type": "response.create", "model": "m", "tools": [FUNCTION], **body})  # type: ignore[arg-type]
                while True:
                    event = await lane.recv()
                    accumulator.add_event(event)
                    if event.type in {"response.completed", "response.failed", "response.incomplete", "error"}:
                        response = accumulator.get_final_response()
                        accumulator.snapshot()
                        accumulator.detailed_snapshot()
                        accumulator.reset()
                        return response

            first = await turn(input="add", tool_choice="required", reasoning={"effort": "low", "summary": "auto"})
            call = _call(first)
            assert call.name == "add"
            second = await turn(input=[_output(call, "eleven")], previous_response_id=first.id)
            assert second.output_text == "eleven"

    async with open_simulator() as sim:
        await drive(sim, work)
        assert len(sim.connections) == 1


async def test_a_stream_over_http() -> None:
    async def work(client: AsyncOpenAI) -> None:
        kinds = []
        stream = await client.responses.create(model="m", input="2+2", stream=True)
        async for event in stream:
            kinds.append(event.type)
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"

    async with open_simulator() as sim:
        await drive(sim, work)


class Sum(BaseModel):
    answer: int
    why: str


async def test_the_strict_accumulator_over_http() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with client.responses.stream(model="m", input="add", tools=[FUNCTION], tool_choice="required") as stream:
            async for _ in stream:
                pass
            first = await stream.get_final_response()
        call = _call(first)
        assert set(json.loads(call.arguments)) == {"a"}
        async with client.responses.stream(
            model="m",
            input=[_output(call, "eleven")],
            previous_response_id=first.id,
            tools=[FUNCTION],
            reasoning={"effort": "low", "summary": "auto"},
        ) as stream:
            async for _ in stream:
                pass
            assert (await stream.get_final_response()).output_text == "eleven"
        async with client.responses.stream(model="m", input="6*7", text_format=Sum) as stream:
            async for _ in stream:
                pass
            parsed = (await stream.get_final_response()).output_parsed
            assert parsed is not None
            assert parsed.answer == 42

    async with open_simulator() as sim:
        await drive(sim, work)


async def test_scripted_content_passes_the_strict_accumulator() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with client.responses.stream(model="m", input="x") as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert [item.type for item in final.output] == ["reasoning", "message", "message", "message"]

    brain = Script([[Think(["a", "b"], text="raw"), Say("c", phase="commentary"), Refuse("d"), Say("e")]])
    async with open_simulator(brain=brain) as sim:
        await drive(sim, work)


async def test_plain_calls_and_stored_responses() -> None:
    async def work(client: AsyncOpenAI) -> None:
        made = await client.responses.create(model="m", input="2+2")
        assert made.output_text == "4"
        assert made.usage is not None
        again = await client.responses.retrieve(made.id)
        assert again.output == made.output
        items = await client.responses.input_items.list(made.id)
        assert len(items.data) == 1
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        compacted = await client.responses.compact(model="m", input="remember")
        assert compacted.output[-1].type == "compaction"
        counted = await client.responses.input_tokens.count(model="m", input="one two")
        assert counted.input_tokens > 0

    async with open_simulator() as sim:
        await drive(sim, work)
        # One connection is reused for all of it.
        assert len(sim.connections) == 1


async def test_errors_become_its_exceptions() -> None:
    async def work(client: AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.responses.create(model="m", input="x", temperature=9)
        assert (bad.value.code, bad.value.param) == ("decimal_above_max_value", "temperature")
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="m", input="x")
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="x")
        stream = await client.responses.create(model="m", input="x", stream=True)
        last = None
        async for event in stream:
            last = event
        assert last is not None
        assert last.type == "error"

    turns: list[Any] = [[Error(429, "rate_limit_exceeded")], [Error(503)], [Created(), Error(500)]]
    async with open_simulator(brain=Script(turns)) as sim:
        await drive(sim, work)


async def test_its_retries_over_http() -> None:
    async def work(client: AsyncOpenAI) -> None:
        assert (await client.responses.create(model="m", input="x")).output_text == "fine"

    async with open_simulator(brain=Script([[Error(503, headers={"retry-after-ms": "1"})], "fine"])) as sim:
        await drive(sim, work, max_retries=1)
        assert [record.status for record in sim.requests] == ["rejected", "completed"]


async def test_wrong_keys_on_both_transports() -> None:
    async def work(client: AsyncOpenAI) -> None:
        with pytest.raises(openai.AuthenticationError):
            await client.responses.create(model="m", input="x")
        with pytest.raises(Exception, match="401"):
            async with client.responses.connect():
                pass

    async with open_simulator(api_key="sk-right") as sim:
        await drive(sim, work, api_key="sk-wrong")
        assert [record.handshake_status for record in sim.connections] == [None, 401]


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_refused_upgrades(framing: Any) -> None:
    async def work(client: AsyncOpenAI) -> None:
        with pytest.raises(Exception, match="426"):
            async with client.responses.connect():
                pass

    async with open_simulator(handshake=Reject(426, framing=framing)) as sim:
        await drive(sim, work)


async def test_a_long_answer_with_large_frames() -> None:
    async def work(client: AsyncOpenAI) -> None:
        async with client.responses.connect(websocket_connection_options={"max_size": None}) as connection:
            await connection.response.create(model="m", input="x" * 1_000_000)
            async for event in connection:
                if event.type == "response.completed":
                    assert len(event.response.output_text) == 3_000_000
                    break

    async with open_simulator(brain=Script([Answer("word " * 600_000, size=100_000)])) as sim:
        await drive(sim, work)
