"""The larger programs of the documentation: each runs as its page says, and does what it is there to show."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import hypercorn.config
import hypercorn.trio
import pytest
import trio
import trio.testing
from sessions import session_to

import engine
from docs import examples
from docs.examples import agent, chat_server, fan_out, web_events
from engine.instruments import TurnEndInfo
from engine.simulator import Answer, Created, Delay, Say, Script, Simulator, Stall, When, open_simulator

ROOT = Path(__file__).parent.parent
FOLDER = Path(examples.__file__).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:hypercorn", "default::DeprecationWarning:mcp")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"docs.examples.{name}", *arguments]


def run(name: str, *arguments: str, typed: str = "") -> str:
    """Run an example as a user does, and return what it prints."""
    done = subprocess.run(
        command(name, *arguments), input=typed, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


async def until_left(sim: Simulator) -> None:
    with trio.fail_after(5):
        while sim.open_connections:
            await trio.lowlevel.checkpoint()


def test_every_example_is_in_the_page_and_runs_here() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8") + (ROOT / "tests/batch/test_batch_dask.py").read_text("utf-8")
    for path in FOLDER.glob("*.py"):
        if path.stem not in {"__init__", "offline"}:
            assert f"{{literalinclude}} examples/{path.name}" in page
            assert f"| [`{path.stem}`]" in page
            assert re.search(rf"\b{path.stem}\b", here)


# --- the chat server ---


async def test_a_line_is_answered_and_another_one_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, trio.open_nursery() as nursery:
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng:
            theirs, ours = trio.testing.memory_stream_pair()
            nursery.start_soon(chat_server.serve, eng, ours)
            for prompt, answer in (("What is 2+2?", b"4\n"), ("And 3+4?", b"7\n")):
                await theirs.send_all(prompt.encode() + b"\n")
                assert await read_line(theirs) == answer
            await theirs.aclose()
            await until_left(sim)
            assert list(eng) == []


async def test_hanging_up_cancels_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    brain = Script([[Created(), Say("Once upon a time"), Stall()]])
    async with open_simulator(in_memory=True, brain=brain) as sim, trio.open_nursery() as nursery:
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng:
            theirs, ours = trio.testing.memory_stream_pair()
            nursery.start_soon(chat_server.serve, eng, ours)
            await theirs.send_all(b"Tell me a story.\n")
            await theirs.receive_some()
            await theirs.aclose()
            await until_left(sim)


async def test_what_fails_is_told_and_the_line_stays(autojump_clock: trio.testing.MockClock) -> None:
    brain = Script([When(text="fail").then([engine.simulator.Failed("server_error")])])
    async with open_simulator(in_memory=True, brain=brain) as sim, trio.open_nursery() as nursery:
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng:
            theirs, ours = trio.testing.memory_stream_pair()
            nursery.start_soon(chat_server.serve, eng, ours)
            await theirs.send_all(b"fail\nWhat is 2+2?\n")
            assert (await read_line(theirs)).startswith(b"[")
            assert await read_line(theirs) == b"4\n"
            await theirs.aclose()


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    with trio.fail_after(20):
        while not line.endswith(b"\n"):
            line += await stream.receive_some(1)
    return line


# --- the web handler ---


async def test_an_answer_comes_as_server_sent_events() -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng:
            response = await web_events.web(eng).test_client().get("/ask?prompt=What is 2%2B2?")
            assert response.mimetype == "text/event-stream"
            assert await response.get_data(as_text=True) == 'data: "4"\n\nevent: done\ndata: {}\n\n'


class Left(engine.Instrument):
    """Whether a turn was left before its end."""

    def __init__(self) -> None:
        self.happened = trio.Event()

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        if not info.answered and info.error is None:
            self.happened.set()


async def test_a_browser_that_goes_away_cancels_the_turn() -> None:
    brain = Script([[Created(), Say("Once upon a time"), Stall()], Answer("Here.")])
    left = Left()
    async with open_simulator(in_memory=True, brain=brain) as sim:
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer, instruments=[left]) as eng:
            async with trio.open_nursery() as nursery:
                config = hypercorn.config.Config.from_mapping(bind=["127.0.0.1:0"], errorlog=None)
                serve = functools.partial(hypercorn.trio.serve, web_events.web(eng), config)
                (url,) = await nursery.start(serve)
                browser = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
                await browser.send_all(b"GET /ask?prompt=story HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received = b""
                while b"Once" not in received:
                    received += await browser.receive_some()
                await browser.aclose()
                with trio.fail_after(5):
                    await left.happened.wait()
                session = await eng.session("anyone")
                assert (await session.ask("Are you there?")).text == "Here."
                nursery.cancel_scope.cancel(reason="the test has ended")


def test_a_conversation_survives_the_worker_that_has_it() -> None:
    first, second, third, again, requests = run("web_workers").splitlines()
    assert [line.split()[:2] for line in (first, second, third)] == [["2", "(2"], ["4", "(4"], ["6", "(6"]]
    assert first.split()[-1] == second.split()[-1] != third.split()[-1]
    assert again == third
    assert requests == "3 requests"  # what was answered was not asked again


# --- the others ---


def test_an_agent_asks_before_it_writes(tmp_path: Path) -> None:
    printed = subprocess.run(
        command("agent"),
        input="y\n",
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        check=True,
        timeout=50,
    ).stdout
    assert "Your day is planned." in printed
    assert (tmp_path / "today.txt").read_text() == agent.TEXT


@pytest.mark.parametrize("typed", ["n\n", ""], ids=["no", "no user"])
def test_an_agent_that_may_not_write_does_not(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    trio.run(agent.main, "Plan my day.", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_note_is_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        agent.Notes(tmp_path).read_note("../secret")


def test_many_questions_are_answered() -> None:
    printed = run("fan_out").splitlines()
    assert printed[:-2] == [str(number + 1) for number in range(20)]
    assert printed[-2] == "4"


async def test_one_failure_leaves_the_other_questions_alone(autojump_clock: trio.testing.MockClock) -> None:
    brain = Script([When(text="fail").then([engine.simulator.Failed("server_error")], times=9)])
    async with session_to(brain, retry=engine.RetryPolicy(resend_ambiguous=0)) as (session, sim):
        failed, answered = await fan_out.answers(session, ["fail", "What is 2+2?"])
        assert isinstance(failed, engine.TurnError)
        assert answered == "4"
        assert len(sim.connections) == 1


async def test_the_first_answer_counts(autojump_clock: trio.testing.MockClock) -> None:
    slow = [Created(), Delay(30), Say("slow")]
    brain = Script([When(instructions="quick").then("quick"), When(instructions="slow").then(slow)])
    async with session_to(brain) as (session, _):
        began = trio.current_time()
        assert await fan_out.first(session, "Which?", ["slow", "quick"]) == "quick"
        assert trio.current_time() - began < 5


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_service_that_is_told_to_stop_stops_in_order() -> None:
    with subprocess.Popen(command("graceful_shutdown"), cwd=ROOT, env=ENVIRONMENT, text=True, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert printed.count("was told to stop") == 3
    assert "all turns ended" in printed


@pytest.mark.parametrize("place", ["inside", "process"])
def test_the_tools_of_an_mcp_server_are_run(place: str) -> None:
    server = [sys.executable, "-c", "from docs.examples.mcp_tools import own; own().run()"]
    assert run("mcp_tools", *(server if place == "process" else [])) == "Take an umbrella.\n"
