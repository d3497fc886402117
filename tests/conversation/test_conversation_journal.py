"""The journal of a tool loop, and crashes at each of its points."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
from sessions import session_to
from talking import tool
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Asked, Call, Created, Say, Script, open_simulator


class Crash(BaseException):
    """The process ends here."""


class Book:
    """Writes the conversation down at each step, and crashes where it was told to.

    Args:
        disk: What outlives a crash.
        crash_at: At which step, counted over all processes; None for none.
        written: Whether the step that crashes is written down before.
    """

    def __init__(self, disk: Disk, crash_at: int | None = None, *, written: bool = True) -> None:
        self.disk = disk
        self.crash_at = crash_at
        self.written = written
        self.chat: engine.Conversation | None = None

    async def _step(self, *said: Any) -> None:
        self.disk.steps.append(said)
        crash = len(self.disk.steps) == self.crash_at
        if crash and not self.written:
            raise Crash
        await trio.sleep(0.1)  # on its way to the disk
        assert self.chat is not None
        self.disk.text = json.dumps(self.chat.snapshot())
        self.disk.done.append(said[0])
        if crash:
            raise Crash

    async def sending(self, prompt: tuple[engine.Message, ...], context: engine.Context) -> None:
        await self._step("sending", prompt, context)

    async def answered(self, response: engine.AssistantMessage) -> None:
        await self._step("answered", response)

    async def tool_done(self, call: engine.ToolCall, output: engine.ToolResult) -> None:
        await self._step("tool_done", call, output)

    async def round(self, done: engine.Round) -> None:
        await self._step("round", done)


class Disk:
    def __init__(self) -> None:
        self.text: str | None = None
        self.steps: list[tuple[Any, ...]] = []
        self.done: list[str] = []


class _Working:
    """Calls two tools, then one, then tells what they gave."""

    def reply(self, asked: Asked) -> list[Any]:
        given = [item["output"] for item in asked.items if item["type"] == "function_call_output"]
        match len(given):
            case 0:
                return [Created(), Call("work", {"text": "a"}, "call_a"), Call("work", {"text": "b"}, "call_b")]
            case 2:
                return [Created(), Call("work", {"text": "c"}, "call_c")]
        return [Created(), Say(" ".join(given))]


async def _process(sim: Any, disk: Disk, book: Book, ran: list[str], streamed: bool) -> str:
    async def work(text: str) -> str:
        ran.append(text)
        await trio.sleep(0.5)
        return f"did {text}"

    async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
        resume = None if disk.text is None else json.loads(disk.text)
        chat = book.chat = session.conversation(tools=[tool(work)], journal=book, resume=resume)
        prompt: Any = "go" if resume is None else []
        if not streamed:
            return (await chat.send(prompt)).text
        async with chat.stream(prompt) as reply:
            async for _ in reply:
                pass
        return reply.message.text


async def _steps(streamed: bool) -> tuple[list[str], list[str]]:
    disk, ran = Disk(), list[str]()
    async with open_simulator(in_memory=True, brain=_Working()) as sim:
        assert await _process(sim, disk, Book(disk), ran, streamed) == "did a did b did c"
    return [step[0] for step in disk.steps], ran


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_steps_come_in_order(streamed: bool, autojump_clock: MockClock) -> None:
    steps, ran = await _steps(streamed)
    assert steps == [
        *("sending", "answered", "tool_done", "tool_done", "round"),
        *("sending", "answered", "tool_done", "round"),
        *("sending", "answered", "round"),
    ]
    assert sorted(ran) == ["a", "b", "c"]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("at", range(1, 13))
async def test_a_crash_at_each_step(at: int, written: bool, streamed: bool, autojump_clock: MockClock) -> None:
    disk, ran = Disk(), list[str]()
    async with open_simulator(in_memory=True, brain=_Working()) as sim:
        with pytest.raises(Crash):
            await _process(sim, disk, Book(disk, at, written=written), ran, streamed)
        before, requests = len(ran), len(sim.requests)
        stored = _outputs(disk.text)
        assert disk.done.count("tool_done") <= len(stored)  # one that came at the same time may be there as well
        answered = disk.done.count("answered")
        assert await _process(sim, disk, Book(disk), ran, streamed) == "did a did b did c"
        assert sorted(ran[before:]) == sorted({"a", "b", "c"} - stored)
        assert len(sim.requests) == requests + 3 - answered  # no stored response is asked for again
        assert _outputs(disk.text) == {"a", "b", "c"}


def _outputs(text: str | None) -> set[str]:
    """The tools whose outputs are in a snapshot."""
    if text is None:
        return set()
    data = json.loads(text)
    results = [*data["messages"], *(data["interrupted"] or {"results": []})["results"]]
    return {result["call_id"].removeprefix("call_") for result in results if result["kind"] == "tool_result"}


@pytest.mark.parametrize("point", ["sending", "answered", "tool_done", "round"])
async def test_what_a_journal_raises_ends_the_loop(point: str, autojump_clock: MockClock) -> None:
    class Full(Exception):
        pass

    class Filling(Book):
        full = True

        async def _step(self, *said: Any) -> None:
            if said[0] == point and self.full:
                self.full = False
                raise Full
            await super()._step(*said)

    async with session_to(_Working()) as (session, sim):
        book = Filling(Disk())
        chat = book.chat = session.conversation(tools=[tool(work)], journal=book)
        with pytest.raises(Full):
            await chat.send("go")
        assert chat.messages == ()
        assert chat.interrupted is not None
        assert (chat.interrupted.response is None) is (point in ("sending", "answered"))
        assert (await chat.send([])).text == "did a did b did c"
        assert len(chat.messages) == 8 - 1
        assert len(sim.requests) == (3 if point != "answered" else 4)


async def work(text: str) -> str:
    await trio.sleep(0.5)
    return f"did {text}"


async def test_the_transcript_never_runs_ahead_of_the_journal(autojump_clock: MockClock) -> None:
    lengths: list[int] = []

    class Watching(Book):
        async def round(self, done: engine.Round) -> None:
            assert self.chat is not None
            lengths.append(len(self.chat.messages))

    async with session_to(_Working()) as (session, _):
        book = Watching(Disk())
        chat = book.chat = session.conversation(tools=[tool(work)], journal=book)
        await chat.send("go")
    assert lengths == [0, 4, 6]


async def test_a_cancelled_journal_leaves_the_step_undone(autojump_clock: MockClock) -> None:
    async with session_to(_Working()) as (session, _):
        book = Book(Disk())
        chat = book.chat = session.conversation(tools=[tool(work)], journal=book)
        with trio.move_on_after(0.65):
            await chat.send("go")  # sending 0.1, answered 0.1 (0.2), tools 0.5 (0.7)
        assert chat.interrupted is not None
        assert not chat.interrupted.results
        assert (await chat.send([])).text == "did a did b did c"


async def test_refusals_are_told_too(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with session_to(Script([[Call("look"), Call("nothing")], Answer("fine")])) as (session, _):
        book = Book(disk)
        chat = book.chat = session.conversation(tools=[tool(look)], journal=book, approve=lambda call: False)
        await chat.send("go")
    told = [
        step[2].text if hasattr(step[2], "text") else step[2].content for step in disk.steps if step[0] == "tool_done"
    ]
    assert len(told) == 2


def look() -> str:
    return "seen"


async def test_run_takes_a_journal_too(autojump_clock: MockClock) -> None:
    told: list[str] = []

    class Telling:
        async def sending(self, prompt: Any, context: Any) -> None:
            told.append(f"sending {len(prompt)} of {len(context.messages)}")

        async def answered(self, response: Any) -> None:
            told.append(response.stop_reason)

        async def tool_done(self, call: Any, output: Any) -> None:
            told.append(call.name)

        async def round(self, done: Any) -> None:
            told.append(f"round of {len(done.results)}")

    async with session_to(Script([[Call("look")], Answer("fine")])) as (session, _):
        await session.run("go", [look], journal=Telling())
    assert told == ["sending 1 of 1", "tool_use", "look", "round of 1", "sending 0 of 3", "stop", "round of 0"]


async def test_what_is_no_journal(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        with pytest.raises(engine.ConfigurationError, match="journal: is a list, which has no method sending"):
            session.conversation(journal=[])  # type: ignore[arg-type]


async def test_outputs_that_do_not_fit_are_told_as_they_came(autojump_clock: MockClock) -> None:
    disk = Disk()
    limits = engine.Limits(max_request_bytes=5000)

    def much() -> str:
        return "x" * 6000

    async with session_to(Script([[Call("much")], Answer("fine")]), transport="websocket", limits=limits) as (
        session,
        _,
    ):
        book = Book(disk)
        chat = book.chat = session.conversation(tools=[much], journal=book)
        await chat.send("go")
        (done,) = [step[1] for step in disk.steps if step[0] == "round"][:1]
        (told,) = [step[2] for step in disk.steps if step[0] == "tool_done"]
        assert not told.is_error
        assert done.results[0].is_error
        assert attrs.evolve(done.results[0], content=told.content, is_error=False) == told
