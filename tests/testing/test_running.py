"""A simulator in a thread of its own: everything of it may be used from every thread."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import RetryPolicy, TurnError, blocking
from engine.simulator import Calculator, Gate, Quirks, Reject, Say, Script, Stall
from engine.testing import RunningSimulator, run_simulator


def ask(server: RunningSimulator, text: str, **further: Any) -> httpx.Response:
    body = {"model": "m", "input": text, **further}
    return httpx.post(f"{server.base_url}/responses", json=body, headers={"authorization": f"Bearer {server.api_key}"})


def said(answer: httpx.Response) -> str:
    return str(answer.json()["output"][0]["content"][0]["text"])


def test_it_answers_and_tells() -> None:
    with run_simulator(api_key="sk-right") as server:
        assert server.websocket_url.startswith("ws://127.0.0.1:")
        answer = ask(server, "What is 2+2?")
        assert said(answer) == "4"
        (request,) = server.wait_for(1)
        assert request.body["input"] == "What is 2+2?"
        assert server.requests.last is request
        assert server.requests.bodies == [request.body]
        assert [connection.transport for connection in server.connections] == ["http"]
        identity = answer.json()["id"]
        assert server.response(identity)["status"] == "completed"
        assert [item["role"] for item in server.history(identity)] == ["user", "assistant"]
        assert "Simulator at" in repr(server)
        server.reset()
        assert server.requests == []
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            server.wait_for(1, seconds=0.01)
        with pytest.raises(KeyError):
            server.response(identity)


def test_what_it_answers_can_be_changed_at_any_time() -> None:
    with run_simulator() as server:
        server.add("one", "two")
        assert [said(ask(server, "x")), said(ask(server, "x"))] == ["one", "two"]
        server.brain = Calculator()
        assert isinstance(server.brain, Calculator)
        server.quirks = Quirks(usage=False)
        assert server.quirks.usage is False
        assert ask(server, "x", stream=True).text.count('"usage":null') >= 1
        assert server.errors == []
        assert server.problems() == []


def test_connections_can_be_steered_from_outside() -> None:
    with run_simulator(brain=Script([[Say("before"), Gate("door"), Say(" after")]])) as server:
        with blocking.open_session(server.endpoint, model="m") as session, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(session.ask, "x")
            server.wait_for(1)
            server.open_gate("door")
            assert waiting.result(30).text == "before after"
            (connection,) = server.open_connections
            assert server.push({"type": "keepalive"}, connection=connection) == 1
            server.forget()
            assert session.ask("What is 2+2?").text == "4"
            server.brain = Script([[Stall()], [Stall()]])
            once = RetryPolicy(resend_ambiguous=0)
            for reset in (False, True):
                before = len(server.requests)
                failing = pool.submit(session.ask, "hang", retry=once, transport="websocket")
                server.wait_for(before + 1)
                if reset:
                    server.abort(reset=True)
                else:
                    server.close(1012)
                with pytest.raises(TurnError):
                    failing.result(30)


def test_it_complains_at_the_end_if_strict() -> None:
    with pytest.raises(AssertionError, match=r"turns\[0\] was never used"):
        with run_simulator(brain=Script(["never"], strict=True), strict=True):
            pass


def test_the_blocks_own_exception_is_the_one_that_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        with run_simulator(handshake=Reject(503)):
            raise ZeroDivisionError


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            run_simulator(port=taken.getsockname()[1]).__enter__()


def test_a_script_file(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"version": 1, "server": {"root": "/openai/v1"}, "rules": [{"reply": "one"}]}))
    with run_simulator(script=script) as server:
        server.add("later")
        assert server.base_url.endswith("/openai/v1")
        with blocking.open_session(server.endpoint, model="m") as session:
            assert session.ask("x").text == "one"
            assert session.ask("x").text == "one"
    script.write_text('{"version": 1,\n "rules": [{"replay": "one"}]}')
    with pytest.raises(ValueError, match=r"script\.json:2:\d+: .*'replay' .*'reply'"):
        run_simulator(script=script).__enter__()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="allow_remote"):
        run_simulator(host="0.0.0.0").__enter__()
