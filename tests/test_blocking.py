"""The engine without Trio: what is got through `engine.blocking` is what Trio programs get."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from steps import Steered

from engine import (
    AssistantMessage,
    ConfigurationError,
    FunctionTool,
    Round,
    SessionClosed,
    SteerRejected,
    TextDelta,
    TurnDone,
    TurnError,
    UserMessage,
    blocking,
    tool,
)
from engine.simulator import Call, Error, Say, SayDelta, Script, Stall
from engine.testing import RunningSimulator, run_simulator

MODEL = "gpt-5.4"


@pytest.fixture
def server() -> Iterator[RunningSimulator]:
    with run_simulator() as simulator:
        yield simulator


@pytest.fixture
def session(server: RunningSimulator) -> Iterator[blocking.Session]:
    with blocking.open_session(server.endpoint, model=MODEL) as opened:
        yield opened


def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"rain in {city}"


def test_asks_streams_and_reports(session: blocking.Session) -> None:
    assert session.id == "default"
    assert not session.connected
    assert session.ask("What is 2+2?").text == "4"
    with session.turn("one two three") as turn:
        events = list(turn)
    assert "".join(event.delta for event in events if isinstance(event, TextDelta)) == "one two three"
    assert isinstance(events[-1], TurnDone)
    assert turn.message.text == turn.partial.text == "one two three"
    assert turn.report.connection_reused
    assert session.connected
    assert session.statistics().turns_completed == 2


def test_steering(server: RunningSimulator, session: blocking.Session) -> None:
    server.brain = Script([[SayDelta("one "), Steered(), SayDelta("two ")], [Say("three")]] * 2)
    with session.turn("count", model="gpt-6") as turn:
        next(turn)
        turn.steer("faster")
        assert turn.wait().text == "one two three"
        with pytest.raises(SteerRejected):
            turn.steer("too late")
    assert [type(each) for each in turn.messages] == [AssistantMessage, UserMessage, AssistantMessage]
    chat = session.conversation(model="gpt-6")
    with chat.stream("count") as reply:
        next(reply)
        reply.steer("faster")
        for _ in reply:
            pass
    assert len(chat.messages) == 4


def test_a_turn_left_early_is_never_seen_by_the_next(session: blocking.Session) -> None:
    for prompt in ("one two three four", "five six seven eight"):
        with session.turn(prompt) as turn:
            for event in turn:
                if isinstance(event, TextDelta):
                    break
    assert session.ask("nine ten").text == "nine ten"


def test_errors_are_the_engines_own(server: RunningSimulator, session: blocking.Session) -> None:
    with pytest.raises(ConfigurationError):
        session.ask(3)  # type: ignore[arg-type]
    server.brain = Script([Error(400, "bad", "no")])
    with pytest.raises(TurnError):
        session.ask("hello")
    with session.turn("hello"), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError


def test_tools_run_in_threads_and_may_use_the_engine(server: RunningSimulator, session: blocking.Session) -> None:
    told: list[int] = []

    def translate(text: str) -> str:
        """Translate."""
        told.append(threading.get_ident())
        return session.ask(text).text

    server.brain = Script([Call("translate", {"text": "hallo"}), "hello", "It is: hello"])
    rounds: list[Round] = []
    answer = session.run(
        "translate it",
        [FunctionTool(translate)],
        on_round=rounds.append,
        approve=lambda call: True,
    )
    assert answer.text == "It is: hello"
    assert len(rounds) == 2
    assert threading.get_ident() not in told


@tool(thread=True)
def marked(city: str) -> str:
    """Say what the weather is like."""
    return f"rain in {city}"


def plain(city: str) -> str:
    """Say what the weather is like."""
    return f"rain in {city}"


async def under_trio(city: str) -> str:
    """Say what the weather is like."""
    await trio.lowlevel.checkpoint()
    return f"rain in {city}"


@pytest.mark.parametrize("function", [marked, plain, under_trio])
def test_functions_are_tools_as_they_are(
    server: RunningSimulator, session: blocking.Session, function: Callable[..., Any]
) -> None:
    server.brain = Script([Call(function.__name__, {"city": "Bergen"})])
    assert session.run("weather?", [function]).text == "rain in Bergen"
    server.brain = Script([Call(function.__name__, {"city": "Oslo"})])
    assert session.conversation(tools=[function]).send("weather?").text == "rain in Oslo"


def test_a_tool_that_waits_for_its_own_conversation_is_told(
    server: RunningSimulator, session: blocking.Session
) -> None:
    def again() -> str:
        """Ask again."""
        return chat.send("and now?").text

    server.brain = Script([Call("again"), "fine"])
    chat = session.conversation(tools=[again])
    assert chat.send("go").text == "fine"
    assert "that sends to it" in str(server.requests[-1].body)


def test_conversations(server: RunningSimulator, session: blocking.Session) -> None:
    server.brain = Script([Call("weather", {"city": "Bergen"}), "Take an umbrella.", "You are welcome."])
    chat = session.conversation(instructions="Be brief", tools=[FunctionTool(weather)])
    assert chat.send("What is the weather in Bergen?").text == "Take an umbrella."
    with chat.stream("Thanks") as reply:
        assert [event.delta for event in reply if isinstance(event, TextDelta)] != []
    assert reply.message.text == "You are welcome."
    assert len(chat.messages) == 6
    assert chat.context.instructions == "Be brief"
    assert not chat.unanswered
    assert len(chat.rounds) == 3


def test_one_session_from_many_threads(session: blocking.Session) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: session.ask(f"say {number} again").text, range(40)))
    assert answers == [f"say {number} again" for number in range(40)]


def test_inside_a_running_event_loop(server: RunningSimulator) -> None:
    async def cell() -> str:
        opener = blocking.open_session(server.endpoint, model=MODEL)
        session = opener.open()
        try:
            return session.ask("What is 2+2?").text
        finally:
            opener.close()
            opener.close()

    assert asyncio.run(cell()) == "4"


def test_after_it_was_closed(server: RunningSimulator) -> None:
    with blocking.open_session(server.endpoint, model=MODEL) as session:
        with session.turn("one two") as turn:
            turn.wait()
    with pytest.raises(SessionClosed, match="the session was closed"):
        session.ask("hello")
    for late in (session.lane("late"), session.fork("later"), session.lane("late").fork("latest")):
        with pytest.raises(SessionClosed):
            late.ask("hello")
    assert turn.message.text == "one two"


def test_closing_ends_what_other_threads_wait_for(server: RunningSimulator) -> None:
    server.brain = Script([Stall()])
    opener = blocking.open_session(server.endpoint, model=MODEL)
    session = opener.open()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.ask, "hello")
        server.wait_for(1)
        opener.close()
        with pytest.raises(SessionClosed):
            waiting.result(30)


def test_lanes_beside_each_other(server: RunningSimulator, session: blocking.Session) -> None:
    with ThreadPoolExecutor(3) as pool, session.lane("critic") as critic:
        assert critic.name == "critic"
        lanes: list[Any] = [critic, session.lane("b"), session]
        answers = [pool.submit(lane.ask, f"say {n}") for n, lane in enumerate(lanes)]
        assert [answer.result(30).text for answer in answers] == ["say 0", "say 1", "say 2"]
        fork = critic.fork("second thoughts")
        assert fork.ask("What is 2+2?").text == "4"
        assert critic.statistics().turns_completed == 1
        with pytest.raises(ConfigurationError), session.lane("critic"):
            pass
    assert len({request.stream_id for request in server.requests}) >= 3


def test_an_engine_with_sessions(server: RunningSimulator) -> None:
    with blocking.open_engine(server.endpoint, model=MODEL) as running:
        first = running.session("a")
        assert first.ask("What is 1+1?").text == "2"
        assert "a" in running
        assert list(running) == ["a"]
        assert len(running) == 1
        assert running.has_session("a")
        assert running.endpoint == server.endpoint
        assert running.statistics().sessions["a"].turns_completed == 1
        assert running.release("a")
        assert not running.release("a")
        with running.open_session("b") as other:
            assert other.ask("What is 1+2?").text == "3"
        assert "b" not in running


def test_context_variables_of_the_caller_reach_tools(server: RunningSimulator, session: blocking.Session) -> None:
    name = contextvars.ContextVar("name", default="nothing")

    def who() -> str:
        """Say who asks."""
        return name.get()

    server.brain = Script([Call("who")])  # then what the tool returned is repeated
    name.set("ada")
    assert session.run("who?", [FunctionTool(who)]).text == "ada"


def test_what_is_called_by_trio_itself_cannot_wait(server: RunningSimulator, session: blocking.Session) -> None:
    async def inner() -> str:
        """Ask again."""
        return session.ask("hello").text

    server.brain = Script([Call("inner"), "done"])
    session.run("go", [FunctionTool(inner)])
    assert "called by Trio itself" in str(server.requests[-1].body)


INTERRUPTED = """
import _thread, sys, threading
from engine import Endpoint
from engine.blocking import open_session

with open_session(Endpoint(sys.argv[1], "sk-any"), model="gpt-5.4") as session:
    print("ready", flush=True)
    try:
        session.ask("hang")
    except KeyboardInterrupt:
        print("interrupted", session.statistics().turns_abandoned, flush=True)
    print(session.ask("What is 2+2?").text, flush=True)
"""


def test_an_interrupt_cancels_the_turn_and_no_more(server: RunningSimulator, tmp_path: Path) -> None:
    server.brain = Script([Stall()])
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.base_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server.wait_for(1)
    program.send_signal(signal.SIGINT)
    output, problems = program.communicate(timeout=30)
    assert output.split() == ["ready", "interrupted", "1", "4"], problems
    assert program.returncode == 0


UNCLOSED = """
import sys
from engine import Endpoint
from engine.blocking import open_session

session = open_session(Endpoint(sys.argv[1], "sk-any"), model="gpt-5.4").open()
print(session.ask("What is 2+2?").text)
"""


def test_what_was_left_open_is_closed_when_the_program_ends(server: RunningSimulator) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED, server.base_url], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")
    assert [record.close_code for record in server.connections if record.transport == "websocket"] == [1000]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_it_says_what_is_wrong(session: blocking.Session) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            session.ask("hello")
        except RuntimeError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "forked" in pipe.read()
