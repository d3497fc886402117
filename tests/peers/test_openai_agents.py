"""The official agents library against the simulator: its WebSocket session runs an agent with a tool."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import trio
from agents import Agent, ModelSettings, RunConfig, Runner, function_tool, responses_websocket_session
from openai import AsyncOpenAI
from openai.types.shared import Reasoning

from engine.simulator import Call, Echo, Script, Simulator, open_simulator


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def drive(sim: Simulator, work: Any) -> None:
    """Run ``work`` with a session in an asyncio loop in a thread."""

    async def main() -> None:
        async with asyncio.timeout(25):
            async with responses_websocket_session(api_key=sim.api_key, base_url=sim.base_url) as session:
                await work(session)

    await trio.to_thread.run_sync(asyncio.run, main())
    assert sim.errors == []


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tracing would upload to the real service.
    import agents

    agents.set_tracing_disabled(True)
    logging.getLogger("openai.agents").setLevel(logging.WARNING)


async def test_an_agent_runs_its_tool_on_one_socket() -> None:
    async def work(session: Any) -> None:
        agent = Agent(name="adder", instructions="Use the tool.", model="gpt-5.4", tools=[add])
        result = await session.run(agent, "What is 2 and 3? Use add.")
        assert result.final_output == "5"

    brain = Script([[Call("add", {"a": 2, "b": 3})]], then=Echo())
    async with open_simulator(brain=brain) as sim:
        await drive(sim, work)
        assert [record.transport for record in sim.connections] == ["websocket"]
        assert [record.status for record in sim.requests] == ["completed", "completed"]


async def test_an_agent_with_reasoning_and_streaming() -> None:
    async def work(session: Any) -> None:
        settings = ModelSettings(reasoning=Reasoning(effort="low", summary="auto"), store=False)
        agent = Agent(name="adder", model="gpt-5.4", tools=[add], model_settings=settings)
        result = session.run_streamed(agent, "please add 7 + 8")
        kinds = [event.type async for event in result.stream_events()]
        assert "raw_response_event" in kinds
        assert result.final_output
        again = await session.run(agent, [*result.to_input_list(), {"role": "user", "content": "2*2"}])
        assert again.final_output == "4"

    async with open_simulator() as sim:
        await drive(sim, work)
        assert len(sim.connections) == 1
        assert all(record.status == "completed" for record in sim.requests)


async def test_an_agent_over_http() -> None:
    async def main() -> None:
        from agents import OpenAIProvider

        agent = Agent(name="plain", model="gpt-5.4", tools=[add])
        # A client of its own: the one that its providers share otherwise is never closed, and outlives this event loop.
        async with asyncio.timeout(25), AsyncOpenAI(api_key=sim.api_key, base_url=sim.base_url) as client:
            provider = OpenAIProvider(openai_client=client, use_responses=True)
            config = RunConfig(model_provider=provider, tracing_disabled=True)
            result = await Runner.run(agent, "please add 7 + 8", run_config=config)
            await provider.aclose()
        assert result.final_output == "30"

    async with open_simulator() as sim:
        await trio.to_thread.run_sync(asyncio.run, main())
        assert {record.transport for record in sim.connections} == {"http"}
