"""Random walks of a conversation: prompts are answered, cancelled, left, written down and gone on with elsewhere."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
import trio
import trio.testing

import engine
from engine.simulator import Asked, Call, Created, Say, open_simulator


class _Working:
    """Calls up to three tools in each of up to two rounds, no two calls alike, then says what the last ones gave."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.numbers = itertools.count()

    def reply(self, asked: Asked) -> list[Any]:
        since = itertools.takewhile(lambda item: item.get("role") != "user", reversed(asked.items))
        rounds = sum(item["type"] == "function_call" for item in since)
        count = self.dice.choice([0, 1, 3]) if rounds < 4 else 0
        if count:
            return [Created(), *(Call("work", {"text": f"call {next(self.numbers)}"}) for _ in range(count))]
        return [Created(), Say("it is done", size=1, pause=0.1)]


class _Walk:
    def __init__(self, seed: int, sim: Any) -> None:
        self.dice = random.Random(seed)
        self.sim = sim
        self.running: set[str] = set()
        self.seen: set[str] = set()  # outputs that a conversation or a snapshot held
        self.runs: dict[str, int] = {}
        self.prompts = itertools.count()

    async def work(self, text: str) -> str:
        assert text not in self.seen, f"{text} ran although its output was there"
        assert text not in self.running, f"{text} runs twice at once"
        self.runs[text] = self.runs.get(text, 0) + 1
        self.running.add(text)
        try:
            await trio.sleep(self.dice.random())
        finally:
            self.running.discard(text)
        return f"did {text}"

    def note(self, chat: engine.Conversation) -> None:
        """Check the transcript, and remember which outputs are there."""
        calls: dict[str, str] = {}
        for message in chat.messages:
            if isinstance(message, engine.AssistantMessage):
                assert not calls, "calls without their outputs"
                calls = {call.call_id: call.arguments["text"] for call in message.tool_calls}
            elif isinstance(message, engine.ToolResult):
                text = calls.pop(message.call_id)
                assert message.text == f"did {text}"
                self.seen.add(text)
        assert not calls
        left = chat.interrupted
        if left is not None and left.response is not None:
            given = {call.call_id: call.arguments["text"] for call in left.response.tool_calls}
            self.seen |= {given[call_id] for call_id in left.results}

    async def process(self, kept: engine.Snapshot | None) -> engine.Snapshot:
        """One process: some prompts, then the snapshot that the next one begins with."""
        async with engine.open_session(self.sim.endpoint, model="m", dialer=self.sim.dialer) as session:
            chat = session.conversation(tools=[self.work], store=self.dice.random() < 0.5, resume=kept)
            if kept is not None:
                assert chat.snapshot()["messages"] == kept["messages"]
                assert chat.snapshot()["interrupted"] == kept["interrupted"]
            self.note(chat)
            for _ in range(3):
                await self.prompt(chat)
                assert not self.running
                self.note(chat)
            taken: list[engine.Snapshot] = []
            async with trio.open_nursery() as nursery:  # the process ends in the midst of something
                nursery.start_soon(self.prompt, chat)
                await trio.sleep(self.dice.random() * 2)
                taken.append(json.loads(json.dumps(chat.snapshot())))
                nursery.cancel_scope.cancel()
            return taken[0]

    async def prompt(self, chat: engine.Conversation) -> None:
        before = chat.messages
        prompt: Any = [] if chat.interrupted and self.dice.random() < 0.6 else f"prompt {next(self.prompts)}"
        patience = self.dice.choice([0.05, 0.3, 1, 2, 1000, 1000])
        with trio.move_on_after(patience) as scope:
            if self.dice.random() < 0.5:
                answer = await chat.send(prompt)
            else:
                async with chat.stream(prompt) as reply:
                    enough = self.dice.choice([1, 3, 10, 1000, 1000])
                    async for _ in first_of(reply, enough):
                        pass
                if enough < 1000:
                    return
                answer = reply.message
            assert answer.text == "it is done"
            assert chat.messages[-1] == answer
        assert chat.messages[: len(before)] == before
        if patience == 1000:
            assert not scope.cancelled_caught


class first_of:  # noqa: N801 - read as a function
    """The first few of what is yielded."""

    def __init__(self, events: Any, count: int) -> None:
        self.events, self.count = events, count

    def __aiter__(self) -> first_of:
        return self

    async def __anext__(self) -> Any:
        self.count -= 1
        if self.count < 0:
            raise StopAsyncIteration
        return await anext(self.events)


async def _walk(seed: int) -> int:
    async with open_simulator(in_memory=True, brain=_Working(random.Random(seed)), seed=seed) as sim:
        walk = _Walk(seed, sim)
        kept = None
        for _ in range(4):
            kept = await walk.process(kept)
            response = (kept["interrupted"] or {}).get("response")
            if response:
                calls = {each["id"].partition("|")[0]: each["arguments"]["text"] for each in _calls(response)}
                walk.seen |= {calls[result["call_id"]] for result in kept["interrupted"]["results"]}
        assert sim.errors == []
        return len(walk.runs)


def _calls(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in response.get("content", []) if block["kind"] == "tool_call"]


@pytest.mark.parametrize("start", range(0, 30, 10))
def test_random_walks(start: int) -> None:
    ran = 0
    for seed in range(start, start + 10):
        try:
            ran += trio.run(_walk, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert ran > 50
