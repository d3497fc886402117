"""What instruments are told of the tools that a loop runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio
from sessions import session_to
from talking import outputs
from trio.testing import MockClock

import engine
from engine.instruments import ToolEndInfo, ToolStartInfo
from engine.simulator import Answer, Call, Script

SPAN: ContextVar[str] = ContextVar("span", default="none")


class Watching(engine.Instrument):
    def __init__(self) -> None:
        self.started: list[ToolStartInfo] = []
        self.ended: list[ToolEndInfo] = []

    def tool_started(self, info: ToolStartInfo, /) -> None:
        self.started.append(info)
        SPAN.set(info.call_id)

    def tool_ended(self, info: ToolEndInfo, /) -> None:
        assert SPAN.get() == info.call_id
        self.ended.append(info)


async def work(seconds: float) -> str:
    await trio.sleep(seconds)
    return SPAN.get()


def fails() -> str:
    raise ValueError("no such thing")


async def test_a_tool_runs_inside_what_the_hook_has_set(autojump_clock: MockClock) -> None:
    calls = [Call("work", {"seconds": 3}, "call_a"), Call("work", {"seconds": 1}, "call_b")]
    watching = Watching()
    async with session_to(Script([calls, Answer("done")]), instruments=[watching]) as (session, sim):
        await session.run("go", [work])
        assert outputs(sim) == ["call_a", "call_b"]
    assert {(info.session, info.lane, info.name) for info in watching.started} == {("default", None, "work")}
    assert [info.call_id for info in watching.ended] == ["call_b", "call_a"]
    assert [info.seconds for info in watching.ended] == pytest.approx([1, 3])
    assert [info.result and info.result.text for info in watching.ended] == ["call_b", "call_a"]
    assert "3" not in repr(watching.started[0].arguments) or "3" not in repr(watching.started[0])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (Call("fails", {}, "call_a"), ValueError),
        (Call("work", {"seconds": "long"}, "call_a"), ValueError),
        (Call("work", {"seconds": 60}, "call_a"), None),
    ],
)
async def test_failures_of_tools(call: Call, error: Any, autojump_clock: MockClock) -> None:
    watching = Watching()
    async with session_to(Script([[call], Answer("done")]), instruments=[watching]) as (session, _):
        await session.run("go", [work, fails], tool_timeout=5)
    (info,) = watching.ended
    assert info.result is not None
    assert info.result.is_error
    assert info.error is None if error is None else isinstance(info.error, error)


async def test_a_cancelled_tool_is_told_as_such(autojump_clock: MockClock) -> None:
    watching = Watching()
    async with session_to(Script([[Call("work", {"seconds": 60}, "call_a")]]), instruments=[watching]) as (session, _):
        with trio.move_on_after(5):
            await session.run("go", [work])
    (info,) = watching.ended
    assert info.result is None
    assert isinstance(info.error, trio.Cancelled)


async def test_calls_that_do_not_run_are_not_told(autojump_clock: MockClock) -> None:
    watching = Watching()
    brain = Script([[Call("fails"), Call("nothing")], Answer("done")])
    async with session_to(brain, instruments=[watching]) as (session, _):
        await session.run("go", [fails], approve=lambda call: "no")
    assert not watching.started
    assert not watching.ended
