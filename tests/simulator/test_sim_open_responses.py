"""What anyone who implements Open Responses must be able to do: seventeen behaviours, each on the default brain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sim_peer import Peer, connect, fetch, kinds, post, stream, text_of

from engine.simulator import Simulator, open_simulator

RESOURCE = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "max_output_tokens",
    "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
"""Members that a Response must have, null or not."""

PICTURE = "data:image/png;base64,iVBORw0KGgo="
FORECAST: dict[str, Any] = {
    "type": "function",
    "name": "get_forecast",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
QUESTION = "Is there a forecast for Bergen?"


def user(text: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def whole(response: Mapping[str, Any], status: str = "completed") -> Mapping[str, Any]:
    """Return the response, if it has everything it must have."""
    assert set(response) >= RESOURCE
    assert response["status"] == status
    assert response["output"]
    assert response["usage"]["input_tokens_details"]["cached_tokens"] >= 0
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] >= 0
    for tool in response["tools"]:
        assert {"name", "description", "parameters", "strict"} <= set(tool)
    return response


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Simulator, Peer]]:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        yield sim, peer


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([user("Say hello.")], id="1 plain text"),
        pytest.param(
            [{"type": "message", "role": "system", "content": "Be kind."}, user("Hello?")], id="3 system prompt"
        ),
        pytest.param(
            [user([{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PICTURE}])],
            id="6 picture",
        ),
        pytest.param(
            [user("I am Ann."), {"type": "message", "role": "assistant", "content": "Hello Ann."}, user("Who am I?")],
            id="7 several turns",
        ),
    ],
)
async def test_what_is_asked_is_answered(given: Any) -> None:
    async with served() as (sim, _):
        told = whole((await post(sim, given)).json)
        (message,) = told["output"]
        (part,) = message["content"]
        assert (message["role"], message["status"], part["type"]) == ("assistant", "completed", "output_text")
        assert (part["annotations"], part["logprobs"]) == ([], [])


async def test_2_a_stream_tells_the_same_step_by_step() -> None:
    async with served() as (sim, _):
        events = (await stream(sim, [user("Count to five.")])).events
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        told = whole(events[-1]["response"])
        deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text_of(told)
        assert len(deltas) > 1


async def test_4_a_tool_is_called() -> None:
    async with served() as (sim, _):
        told = whole((await post(sim, [user(QUESTION)], tools=[FORECAST])).json)
        (call,) = told["output"]
        assert (call["type"], call["name"], call["status"]) == ("function_call", "get_forecast", "completed")


async def test_5_a_tool_is_called_in_a_stream() -> None:
    async with served() as (sim, _):
        events = (await stream(sim, [user(QUESTION)], tools=[FORECAST])).events
        whole(events[-1]["response"])
        told = kinds(events)
        assert told.index("output_item.added") < told.index("function_call_arguments.delta")
        assert told.index("function_call_arguments.done") < told.index("output_item.done")


async def test_8_a_tools_output_is_used() -> None:
    async with served() as (sim, _):
        (call,) = (await post(sim, [user(QUESTION)], tools=[FORECAST])).json["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        told = whole((await post(sim, [user(QUESTION), call, output], tools=[FORECAST])).json)
        assert text_of(told) == "rain"


async def test_9_a_response_is_continued_by_its_id() -> None:
    async with served() as (sim, _):
        first = (await post(sim, [user(QUESTION)], tools=[FORECAST])).json
        output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "sun"}
        told = whole((await post(sim, [output], previous_response_id=first["id"])).json)
        assert (told["previous_response_id"], text_of(told)) == (first["id"], "sun")


async def test_10_reasoning_comes_before_what_it_is_about() -> None:
    async with served() as (sim, _):
        told = whole((await post(sim, "Why?", reasoning={"effort": "low", "summary": "auto"})).json)
        assert [item["type"] for item in told["output"]] == ["reasoning", "message"]
        assert told["output"][0]["summary"]
        assert told["reasoning"]["effort"] == "low"


async def test_11_an_answer_fits_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    async with served() as (sim, _):
        form = {"type": "json_schema", "name": "sum", "schema": schema, "strict": True}
        told = whole((await post(sim, "What is 2+2?", text={"format": form})).json)
        assert text_of(told) == '{"n":4}'


async def test_12_a_limit_of_tokens_leaves_the_response_incomplete() -> None:
    async with served() as (sim, _):
        told = whole((await post(sim, "one two three four", max_output_tokens=2)).json, "incomplete")
        assert told["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_13_what_is_wrong_is_refused_with_its_name() -> None:
    async with served() as (sim, _):
        answer = await post(sim, "x", temperature=9)
        assert answer.status == 400
        assert {"message", "type", "param", "code"} <= set(answer.error)
        assert answer.error["param"] == "temperature"


async def test_14_a_socket_answers_like_a_stream() -> None:
    async with served() as (_, peer):
        events = await peer.turn([user("Hello.")])
        assert kinds(events)[:2] == ["created", "in_progress"]
        whole(events[-1]["response"])


async def test_15_a_socket_continues_what_is_not_stored() -> None:
    async with served() as (_, peer):
        first = await peer.ask("2+2", store=False)
        told = whole(await peer.ask("more", previous_response_id=first["id"], store=False))
        assert told["previous_response_id"] == first["id"]


async def test_16_what_is_not_stored_is_gone_with_its_socket() -> None:
    async with served() as (sim, peer):
        first = await peer.ask("2+2", store=False)
        async with connect(sim) as other:
            refused = (await other.turn("more", previous_response_id=first["id"]))[-1]
            assert (refused["status"], refused["error"]["code"]) == (400, "previous_response_not_found")
            whole(await other.ask("everything again"))


async def test_17_a_conversation_is_compacted_and_goes_on() -> None:
    async with served() as (sim, _):
        compacted = (await fetch(sim, "POST", "/v1/responses/compact", {"model": "m", "input": [user("hello")]})).json
        assert (compacted["object"], compacted["output"][-1]["type"]) == ("response.compaction", "compaction")
        whole((await post(sim, [*compacted["output"], user("go on")])).json)
