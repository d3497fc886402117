"""The same mishap on two clients: a question is given up while its answer runs, and another one is asked.

On the official client's raw connection the second question is given the first one's end, because nothing on the
default lane tells whose an event is. It is shown here as it behaves, so that the difference stays a fact.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from openai import AsyncOpenAI

import engine
from engine.simulator import Asked, Created, Delay, Say, Simulator, open_simulator


def slowly(asked: Asked) -> Any:
    """Begin at once, and say what was said after a moment."""
    return [Created(), Delay(0.2), Say(asked.last_user_text)]


async def second_answer_of_the_official_client(sim: Simulator) -> tuple[str, str]:
    """Return the text the second question was answered with, and the id of its response."""
    result: list[tuple[str, str]] = []

    async def main() -> None:
        async with AsyncOpenAI(base_url=sim.base_url, api_key=sim.api_key, max_retries=0, timeout=20) as client:
            async with asyncio.timeout(20), client.responses.connect() as connection:
                await connection.response.create(model="m", input="first nonce")

                async def read_to_the_end() -> None:
                    async for event in connection:
                        if event.type == "response.completed":
                            result.append((event.response.output_text, event.response.id))
                            return

                started = await connection.recv()
                assert started.type == "response.created"
                reading = asyncio.create_task(read_to_the_end())
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                await connection.response.create(model="m", input="second nonce")
                await read_to_the_end()

    await trio.to_thread.run_sync(asyncio.run, main())
    return result[-1]


async def test_the_official_raw_connection_answers_the_second_question_with_the_first_answer() -> None:
    async with open_simulator(brain=slowly) as sim:
        text, response_id = await second_answer_of_the_official_client(sim)
        assert text == "first nonce"
        assert response_id == sim.requests[0].response_id


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_ours_answers_the_second_question(policy: engine.OnCancel) -> None:
    async with open_simulator(brain=slowly) as sim:
        async with engine.open_session(sim.endpoint, model="m", on_cancel=policy) as session:
            async with session.turn("first nonce"):
                while not sim.requests:
                    await trio.lowlevel.checkpoint()
            reply = await session.ask("second nonce")
        assert reply.text == "second nonce"
        assert reply.response_id == sim.requests[1].response_id
