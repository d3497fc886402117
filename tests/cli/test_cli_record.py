"""``record`` between clients and a server, and ``simulate --replay`` in the server's place afterwards."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import ConnectFailed, Endpoint, RetryPolicy, Transport, TurnError, blocking
from engine.cli.record import Progress
from engine.simulator import Abort, Close, Delay, Error, Reject, Say, SayDelta, Script
from engine.simulator.cassette import CassetteError, difference, parse_cassette
from engine.simulator.frame_log import FrameLog
from engine.testing import RunningSimulator, run_simulator

Start = Callable[..., Any]
KEY = "sk-this-key-is-in-no-cassette"


@pytest.fixture
def server() -> Iterator[RunningSimulator]:
    with run_simulator(api_key=KEY) as simulator:
        yield simulator


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


def launch(start: Start, *arguments: object) -> tuple[Any, str]:
    process = start(*map(str, arguments), "--json")
    process.wait_for(b"\n")
    return process, json.loads(bytes(process.stdout).split(b"\n")[0])["base_url"]


def end(process: Any, code: int = 0) -> None:
    process.interrupt()
    assert process.end() == code


def opened(base_url: str, **options: Any) -> blocking.Opener[blocking.Session]:
    return blocking.open_session(Endpoint(base_url, KEY, profile="openai"), model="gpt-5.4", **options)


def talk(base_url: str) -> list[str]:
    """Two turns over a WebSocket, of which the second continues the first, and one over HTTP."""
    with opened(base_url) as session:
        chat = session.conversation(instructions="Be brief")
        said = [chat.send("What is 2+2?").text, chat.send(f"and the key {KEY}").text]
        said.append(session.ask("over HTTP", transport=Transport.SSE).text)
    body = {"model": "gpt-5.4", "input": "plain hidden-77"}
    answer = httpx.post(f"{base_url}/responses", json=body, headers={"authorization": f"Bearer {KEY}", "cookie": "a=b"})
    return [*said, answer.json()["output"][0]["content"][0]["text"]]


def test_what_was_recorded_is_replayed(start: Start, server: RunningSimulator, cassette: Path) -> None:
    arguments = ("--upstream", server.base_url, "--cassette", cassette, "--redact", "hidden-[0-9]+")
    process, base_url = launch(start, "record", *arguments)
    said = talk(base_url)
    assert said == ["4", f"and the key {KEY}", "over HTTP", "plain hidden-77"]
    end(process)

    text = cassette.read_text()
    for secret in (KEY, "hidden-77", "cookie"):
        assert secret not in text
    assert "Be brief" in text

    before = len(server.requests)
    for match in ("strict", "order"):
        process, base_url = launch(
            start, "simulate", "--replay", cassette, "--match", match, "--verify", "--redact", "hidden-[0-9]+"
        )
        replayed = talk(base_url)
        assert replayed == ["4", "and the key (removed)", "over HTTP", "plain (removed)"]
        end(process)
    assert len(server.requests) == before


def test_what_is_not_in_the_cassette_is_an_error(start: Start, server: RunningSimulator, cassette: Path) -> None:
    process, base_url = launch(start, "record", "--upstream", server.base_url, "--cassette", cassette)
    with opened(base_url) as session:
        session.ask("recorded")
    end(process)
    process, base_url = launch(start, "simulate", "--replay", cassette, "--verify")
    with opened(base_url) as session:
        with pytest.raises(TurnError) as caught:
            session.ask("another", transport=Transport.WEBSOCKET)
        assert "not_in_cassette" in repr(caught.value)
        assert session.ask("recorded").text == "recorded"
        body = {"model": "m", "input": "x"}
        answer = httpx.post(f"{base_url}/responses", json=body, headers={"authorization": "Bearer any"})
        assert answer.status_code == 404
        assert "no further request over http" in answer.json()["error"]["message"]
    end(process, 4)
    assert b"differs at input[0].content" in process.stderr


def test_endings_are_replayed_too(start: Start, server: RunningSimulator, cassette: Path) -> None:
    server.brain = Script([[SayDelta("half"), Close(1012, "restart")], [SayDelta("half"), Abort()], [Error(429)]])

    def failures(base_url: str) -> list[str]:
        told = []
        for text in ("one", "two", "three"):
            with opened(base_url) as session:
                with pytest.raises(TurnError) as caught:
                    session.ask(text, transport=Transport.WEBSOCKET)
                error = caught.value
                partial = "" if error.partial is None else error.partial.text
                told.append(f"{type(error).__name__} {getattr(error, 'close_code', None)} {partial}")
        return told

    process, base_url = launch(start, "record", "--upstream", server.base_url, "--cassette", cassette)
    recorded = failures(base_url)
    end(process)
    assert recorded[0] == "ConnectionLost 1012 half"
    process, base_url = launch(start, "simulate", "--replay", cassette)
    assert failures(base_url)[:2] == recorded[:2]
    end(process)


def test_a_refused_upgrade_is_replayed(start: Start, cassette: Path) -> None:
    with run_simulator(handshake=[Reject(426)]) as server:
        process, base_url = launch(start, "record", "--upstream", server.base_url, "--cassette", cassette)
        with opened(base_url) as session:
            assert session.ask("hello").text == "hello"
        end(process)
    process, base_url = launch(start, "simulate", "--replay", cassette, "--verify")
    with opened(base_url) as session, session.turn("hello") as turn:
        assert turn.wait().text == "hello"
        assert turn.report.transport == "sse"
    end(process)


def test_a_server_that_is_not_there(start: Start, cassette: Path, closed_port: int) -> None:
    process, base_url = launch(
        start, "record", "--upstream", f"http://127.0.0.1:{closed_port}/v1", "--cassette", cassette
    )
    answer = httpx.post(f"{base_url}/responses", json={}, headers={"authorization": "Bearer any"})
    assert answer.status_code == 502
    told = f"The upstream http://127.0.0.1:{closed_port} cannot be reached: "
    assert answer.json()["error"]["message"].startswith(told)
    with opened(base_url, transport="websocket") as session, pytest.raises(ConnectFailed) as caught:
        session.ask("hello", retry=RetryPolicy(back_off=[]))
    assert caught.value.status == 502
    assert f"{told}connecting to 127.0.0.1:{closed_port} failed: connection refused.".encode() in caught.value.body
    end(process)
    assert process.stderr.decode().count(told) >= 2


def test_timing_is_kept_on_request(start: Start, server: RunningSimulator, cassette: Path) -> None:
    server.brain = Script([[Say("first"), Delay(0.3), Say("second")]])
    process, base_url = launch(start, "record", "--upstream", server.base_url, "--cassette", cassette)
    with opened(base_url) as session:
        session.ask("x")
    end(process)
    (exchange,) = parse_cassette(cassette.read_text().splitlines()).exchanges
    assert max(part.after for part in exchange.parts) >= 300
    process, base_url = launch(start, "simulate", "--replay", cassette, "--speed", 1)
    with opened(base_url) as session, session.turn("x") as turn:
        turn.wait()
        assert turn.report.seconds.total is not None
        assert turn.report.seconds.total >= 0.3
    end(process)


def test_a_log_of_the_simulator_is_a_cassette(start: Start, cassette: Path) -> None:
    process, base_url = launch(start, "simulate", "--log", cassette)
    with opened(base_url) as session:
        assert session.ask("What is 2+2?").text == "4"
        assert session.ask("hello", transport=Transport.SSE).text == "hello"
    end(process)
    process, base_url = launch(start, "simulate", "--replay", cassette, "--verify")
    with opened(base_url) as session:
        assert session.ask("What is 2+2?").text == "4"
        assert session.ask("hello", transport=Transport.SSE).text == "hello"
    end(process)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ('{"cassette": 9}', ":1: this is no cassette of version 1"),
        ('{"cassette": 1}\n{', ":2: this is no line of a cassette"),
        ('{"cassette": 1}\n{"at": 1}', ":2: this is no line of a cassette"),
    ],
)
def test_files_that_are_no_cassettes(start: Start, cassette: Path, text: str, told: str) -> None:
    with pytest.raises(CassetteError, match=told):
        parse_cassette(text.splitlines())
    cassette.write_text(text)
    process = start("simulate", "--replay", str(cassette))
    assert process.end() == 2
    assert told in process.stderr.decode()


def test_where_two_requests_differ() -> None:
    recorded = {"model": "m", "input": [{"content": "a"}], "metadata": {"run": "1"}}
    assert difference(recorded, recorded | {"metadata": {"run": "2"}, "stream_id": "x"}) is None
    assert difference(recorded, recorded | {"input": [{"content": "b"}]}) == ("input", 0, "content")
    assert difference(recorded, recorded | {"input": []}) == ("input", 0)
    assert difference(recorded, recorded | {"temperature": 1}) == ("temperature",)


# --- what a terminal shows


def test_progress_is_one_line_that_is_brought_up_to_date() -> None:
    log, terminal = FrameLog(io.StringIO()), io.StringIO()
    progress = Progress(log, terminal)
    progress.show()
    assert terminal.getvalue() == ""
    log.opened(0, None, {"method": "GET", "path": "/v1/responses", "headers": {}})
    progress.show()
    log.received(0, '{"type": "response.create"}')
    log.sent(0, '{"type": "response.created"}')
    progress.show()
    progress.show()
    progress.end()
    first, second, third = terminal.getvalue().split("\r\x1b[K")
    assert first == ""
    assert second.startswith("1 opened, 0 in, 0 out, 0.")
    assert third.startswith("1 opened, 1 in, 1 out, 0.")
    assert third.endswith(" kB written\n")


def test_progress_is_shown_on_a_terminal(start: Start, server: RunningSimulator, cassette: Path) -> None:
    master, slave = os.openpty()
    process = start("record", "--upstream", server.base_url, "--cassette", str(cassette), stderr=slave)
    os.close(slave)
    try:
        process.wait_for(b"Ctrl-C")
        base_url = bytes(process.stdout).split()[0].decode()
        with opened(base_url, transport=Transport.SSE) as session:
            session.ask("hello")
        seen = b""
        while b"1 opened, 1 in" not in seen:
            seen += os.read(master, 4096)
        end(process)
        # what is left in the terminal ends with the line
        seen += os.read(master, 4096)
        assert seen.endswith(b"kB written\r\n")
    finally:
        os.close(master)
