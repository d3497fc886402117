"""What reaches the wire, and what is refused before anything does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import engine
from engine.simulator import open_simulator


async def body_of(context: str | engine.Context, options: engine.TurnOptions | None = None) -> dict[str, Any]:
    """Return the body a turn put on the wire."""
    async with open_simulator(in_memory=True, accept_parameters=["anything"]) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            await session.ask(context, options)
        return dict(sim.requests[0].body)


async def test_unset_fields_are_absent(autojump_clock: MockClock) -> None:
    assert await body_of("hi") == {
        "type": "response.create",
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "store": False,
    }


async def test_every_option_travels_under_its_wire_name(autojump_clock: MockClock) -> None:
    tool = engine.Tool("add", "Add numbers.", {"properties": {"a": {"type": "number"}}}, strict=False)
    options = engine.TurnOptions(
        model="other",
        temperature=0.0,
        top_p=0.5,
        max_output_tokens=1000,
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning_effort="low",
        reasoning_summary="auto",
        text_verbosity="low",
        text_format={"type": "text"},
        store=True,
        include=["reasoning.encrypted_content"],
        service_tier="default",
        truncation="auto",
        metadata={"a": "b"},
        prompt_cache_key="k",
        safety_identifier="s",
        context_management=[{"type": "compaction", "compact_threshold": 1000}],
        extra={"anything": [1, None]},
    )
    body = await body_of(engine.Context([engine.UserMessage("hi")], instructions="be brief", tools=[tool]), options)
    assert body == {
        "type": "response.create",
        "model": "other",
        "instructions": "be brief",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "name": "add",
                "description": "Add numbers.",
                "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
                "strict": False,
            }
        ],
        "temperature": 0.0,
        "top_p": 0.5,
        "max_output_tokens": 1000,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "store": True,
        "include": ["reasoning.encrypted_content"],
        "service_tier": "default",
        "truncation": "auto",
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "anything": [1, None],
    }


async def test_the_payload_hook_sees_and_may_change_the_full_body(autojump_clock: MockClock) -> None:
    def in_place(body: dict[str, Any]) -> None:
        body["temperature"] = 0.3

    async def another(body: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(1)
        return {**body, "top_p": 0.1}

    assert (await body_of("hi", engine.TurnOptions(payload_hook=in_place)))["temperature"] == 0.3
    assert (await body_of("hi", engine.TurnOptions(payload_hook=another)))["top_p"] == 0.1


async def test_an_exception_of_the_hook_passes_through_and_nothing_is_sent(autojump_clock: MockClock) -> None:
    def broken(body: dict[str, Any]) -> None:
        raise LookupError("mine")

    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            with pytest.raises(LookupError, match="mine"):
                await session.ask("hi", engine.TurnOptions(payload_hook=broken))
            assert (await session.ask("still works")).text == "still works"
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"extra": {"anything": object()}}, "request['anything']"),
        ({"extra": {"anything": float("nan")}}, "request['anything']"),
        ({"payload_hook": lambda body: 3}, "payload_hook"),
        ({"payload_hook": lambda body: {**body, "generate": False}}, "request['generate']"),
        ({"tool_choice": "unknown"}, "tool_choice"),
    ],
)
async def test_a_request_that_cannot_be_sent_is_told_before_any_connection(
    autojump_clock: MockClock, options: dict[str, Any], field: str
) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            with pytest.raises(engine.ConfigurationError) as caught:
                await session.ask("hi", engine.TurnOptions(**options))
        assert field in str(caught.value)
        assert sim.connections == []


async def test_a_request_over_the_limit_is_not_sent(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        limits = engine.Limits(max_request_bytes=500)
        async with engine.open_session(
            sim.endpoint, model="m", dialer=sim.dialer, limits=limits, transport=engine.Transport.WEBSOCKET
        ) as session:
            with pytest.raises(engine.RequestTooLarge) as caught:
                await session.ask("x" * 1000)
            assert sim.connections == []
            assert caught.value.limit == 500
            assert caught.value.size > 1000
            assert caught.value.delivery is engine.Delivery.NOT_SENT
            assert (await session.ask("short")).text == "short"
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"timeouts": engine.Timeouts(), "transport": "http"}, "transport"),
        ({"on_cancel": "shut"}, "on_cancel"),
        ({"retry": engine.Timeouts()}, "retry"),
    ],
)
async def test_bad_session_options_are_told_before_any_connection(
    autojump_clock: MockClock, arguments: dict[str, Any], field: str
) -> None:
    async with open_simulator(in_memory=True) as sim:
        with pytest.raises(engine.ConfigurationError) as caught:
            async with engine.open_session(sim.endpoint, dialer=sim.dialer, **{"model": "m", **arguments}) as session:
                await session.ask("hi")
        assert caught.value.field == field
        assert sim.connections == []


async def test_a_prompt_must_be_one(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            with pytest.raises(engine.ConfigurationError, match="prompt"):
                await session.ask(["hi"])  # type: ignore[list-item]
            with pytest.raises(engine.ConfigurationError, match="options"):
                await session.ask("hi", {"temperature": 1})  # type: ignore[arg-type]
        assert sim.connections == []


async def test_the_handshake_carries_the_credentials_and_the_callers_headers(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, api_key="sk-right") as sim:
        endpoint = engine.Endpoint(
            sim.endpoint.base_url, "sk-right", headers={"X-Mine": "yes"}, organization="org", project="proj"
        )
        async with engine.open_session(endpoint, model="m", dialer=sim.dialer) as session:
            await session.ask("hi")
        headers = sim.connections[0].headers
    assert sim.connections[0].authorization == "Bearer sk-right"
    assert headers["x-mine"] == "yes"
    assert headers["openai-organization"] == "org"
    assert headers["openai-project"] == "proj"
    assert headers["host"] == "simulator.invalid"
    assert headers["user-agent"].startswith("trio-session-engine")


async def test_a_wrong_key_is_an_authentication_failure(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, api_key="sk-right") as sim:
        endpoint = engine.Endpoint(sim.endpoint.base_url, "sk-wrong")
        only = engine.Transport.WEBSOCKET
        async with engine.open_session(endpoint, model="m", dialer=sim.dialer, transport=only) as session:
            with pytest.raises(engine.AuthenticationFailed) as caught:
                await session.ask("hi")
    assert caught.value.status == 401
    assert caught.value.delivery is engine.Delivery.NOT_SENT
    assert "sk-wrong" not in repr(caught.value) + str(caught.value)


async def test_a_tool_follow_up_reaches_the_tools_output(autojump_clock: MockClock) -> None:
    tool = engine.Tool("add", "Add.", {"properties": {"a": {"type": "number"}}})
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            first = engine.Context([engine.UserMessage("add it")], tools=[tool])
            reply = await session.ask(first, engine.TurnOptions(tool_choice="required"))
            call = reply.tool_calls[0]
            assert call.name == "add"
            assert call.id == f"{call.call_id}|{call.item_id}"
            second = engine.Context([*first.messages, reply, engine.ToolResult(call.id, "the sum is 7")], tools=[tool])
            assert "the sum is 7" in (await session.ask(second)).text
        assert len(sim.connections) == 1


async def test_a_hook_that_never_returns_is_bounded_by_the_turn(autojump_clock: MockClock) -> None:
    async def stuck(body: dict[str, Any]) -> None:
        await trio.sleep_forever()

    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            start = trio.current_time()
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("hi", engine.TurnOptions(payload_hook=stuck), timeouts=engine.Timeouts(turn=5))
            assert trio.current_time() - start == 5
            assert caught.value.phase == "turn"
            assert caught.value.delivery is engine.Delivery.NOT_SENT
            assert (await session.ask("hi")).text == "hi"


async def test_a_slow_hook_does_not_use_up_the_waiting_time(autojump_clock: MockClock) -> None:
    async def slow(body: dict[str, Any]) -> None:
        await trio.sleep(100)

    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            options = engine.TurnOptions(payload_hook=slow)
            assert (await session.ask("hi", options, timeouts=engine.Timeouts(queue=0))).text == "hi"
