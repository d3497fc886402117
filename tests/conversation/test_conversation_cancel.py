"""A prompt cancelled, or interrupted, at every scheduler step of its rounds."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest
import trio
import trio.testing
from invariants import contained
from stepping import Steps
from talking import tool

import engine
from engine.simulator import Asked, Call, Created, Say, open_simulator

pytestmark = pytest.mark.slow


class _Working:
    """Calls two tools for a prompt that asks for work, then tells what they gave; repeats every other prompt."""

    def reply(self, asked: Asked) -> list[Any]:
        if asked.outputs:
            return [Created(), Say(" ".join(item["output"] for item in asked.outputs), size=2, pause=0.01)]
        text = asked.last_user_text
        if text.startswith("work"):
            return [Created(), *(Call("work", {"text": f"{text} {part}"}) for part in "ab")]
        return [Created(), Say(text, size=1, pause=0.01)]


class _Worker:
    """A tool that knows how often it ran, and whether it runs."""

    def __init__(self) -> None:
        self.running = 0
        self.seen: list[str] = []

    async def work(self, text: str) -> str:
        self.seen.append(text)
        self.running += 1
        try:
            await trio.sleep(0.05)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0.01)
        finally:
            self.running -= 1
        return f"did {text}"


async def _send(chat: engine.Conversation, prompt: str) -> str:
    return (await chat.send(prompt)).text


async def _stream(chat: engine.Conversation, prompt: str) -> str:
    async with chat.stream(prompt) as reply:
        async for _ in reply:
            pass
    return reply.message.text


async def _trial(steps: Steps, policy: engine.OnCancel, way: Any, blow: str) -> None:
    trio.lowlevel.add_instrument(steps)
    worker = _Worker()
    interrupted = False
    async with contained() as held:
        async with (
            open_simulator(in_memory=True, brain=_Working(), seed=1) as sim,
            engine.open_session(sim.endpoint, model="gpt-test", dialer=sim.dialer, on_cancel=policy) as session,
        ):
            chat = session.conversation(tools=[tool(worker.work)])
            assert await way(chat, "number 1") == "number 1"
            before = chat.messages
            scope = trio.CancelScope()
            if blow == "cancel":
                steps.arm(lambda: scope.cancel(reason="struck"), held.outside)
            else:
                steps.arm(lambda: signal.raise_signal(signal.SIGINT), held.outside)
            answer = None
            try:
                with scope:
                    answer = await way(chat, "work number 2")
                    steps.disarm()
                    await trio.lowlevel.checkpoint()  # where an interrupt that nobody could be given yet is due
            except KeyboardInterrupt:
                interrupted = True
            finally:
                steps.disarm()
            assert worker.running == 0, "a tool runs on"
            assert len(worker.seen) == len(set(worker.seen)), "a tool ran twice"
            new = chat.messages[len(before) :]
            assert chat.messages[: len(before)] == before
            assert [type(message).__name__ for message in new] in (
                [],
                ["UserMessage", "AssistantMessage", "ToolResult", "ToolResult"],
                ["UserMessage", "AssistantMessage", "ToolResult", "ToolResult", "AssistantMessage"],
            )
            assert chat.unanswered == ()
            done = "did work number 2 a did work number 2 b"
            if answer is not None:
                assert answer == done
                assert len(new) == 5
            elif new:
                assert len(worker.seen) == 2
            if len(new) == 4:  # the outputs are there, and what the model says to them can still be had
                assert await way(chat, []) == done
            assert await way(chat, "number 3") == "number 3"
            assert await way(chat, "work number 4") == "did work number 4 a did work number 4 b"
            assert answer is not None or scope.cancelled_caught or interrupted, "something else cancelled the caller"
            assert interrupted == (steps.struck and blow == "interrupt")
    assert sim.errors == []


def _sweep(policy: engine.OnCancel, way: Any, blow: str, stride: int) -> int:
    for at in itertools.count(1, stride):
        steps = Steps(at)
        try:
            trio.run(_trial, steps, policy, way, blow, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseException as error:
            error.add_note(f"struck at step {at} with {policy.name}")
            raise
        if not steps.struck:
            return at - stride
    raise AssertionError


@pytest.mark.parametrize(
    ("policy", "way", "blow", "stride"),
    [
        (engine.OnCancel.CLOSE, _send, "cancel", 1),
        (engine.OnCancel.CLOSE, _send, "interrupt", 3),
        (engine.OnCancel.CLOSE, _stream, "cancel", 3),
        (engine.OnCancel.CLOSE, _stream, "interrupt", 7),
        (engine.OnCancel.DRAIN, _send, "cancel", 5),
        (engine.OnCancel.DRAIN, _stream, "interrupt", 7),
        (engine.OnCancel.NEW_LANE, _send, "cancel", 5),
        (engine.OnCancel.NEW_LANE, _stream, "interrupt", 7),
    ],
)
def test_a_prompt_struck_at_any_step(policy: engine.OnCancel, way: Any, blow: str, stride: int) -> None:
    """Every step where ``stride`` is 1; elsewhere the scheduler's own dice reach the steps in between over time."""
    assert _sweep(policy, way, blow, stride) > 60
