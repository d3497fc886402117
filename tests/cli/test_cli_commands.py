"""Commands and options, run in this process against a simulator."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from engine.cli import main
from engine.cli.errors import redact
from engine.simulator import Answer, Completed, Error, Failed, Incomplete, Refuse, Say, Script, Simulator, Think

KEY = "sk-not-to-be-shown"
NOTICE = "the built-in simulator answers"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def command(*arguments: str, stdin: str | bytes = b"", key: str | None = None) -> Result:
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        read, write = os.pipe()
        os.write(write, stdin.encode() if isinstance(stdin, str) else stdin)
        os.close(write)
        with os.fdopen(read) as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stream)
            code = main(arguments)
        captured = capfd.readouterr()
        assert KEY not in captured.out + captured.err
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return command


def one_error(result: Result, code: int = 1) -> str:
    lines = [line for line in result.err.splitlines() if NOTICE not in line]
    assert result.code == code
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


# --- ask -------------------------------------------------------------------------------------------------------------


def test_without_a_key_the_simulator_answers_and_says_so(run: Run) -> None:
    result = run("ask", "What is 2+2?")
    assert result == (0, "4\n", result.err)
    assert NOTICE in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("prompt", ["What is 20+3?", "What is 20+3?\r\n"])
def test_a_prompt_can_come_from_standard_input(run: Run, prompt: str) -> None:
    assert run("ask", "-", stdin=prompt).out == "23\n"


def test_standard_input_need_not_be_utf_8(run: Run) -> None:
    assert run("ask", "-", stdin=b"caf\xe9").out == "caf\ufffd\n"


@pytest.mark.parametrize("arguments", [("ask", " "), ("ask", "-")])
def test_an_empty_prompt_is_a_misuse(run: Run, arguments: Sequence[str]) -> None:
    assert one_error(run(*arguments), 2) == "Error: the prompt is empty"


def test_options_reach_the_server(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(api_key=KEY)
    options = ("--model", "other", "--temperature", "0.5", "--transport", "websocket", "--timeout", "20")
    result = run("ask", "hi", "--base-url", simulator.base_url, *options, key=KEY)
    assert result == (0, "hi\n", "")
    (request,) = simulator.requests
    assert (request.body["model"], request.body["temperature"]) == ("other", 0.5)


@pytest.mark.parametrize(("profile", "transport"), [("http", "http"), ("generic", "websocket")])
def test_the_profile_of_a_server_can_be_given(
    run: Run, simulated: Callable[..., Simulator], profile: str, transport: str
) -> None:
    simulator = simulated()
    asked = run("ask", "hi", "--base-url", simulator.base_url, "--profile", profile, key=KEY)
    said = run("chat", "--base-url", simulator.base_url, "--profile", profile, stdin="hi\n", key=KEY)
    assert asked == said == (0, "hi\n", "")
    assert [request.transport for request in simulator.requests] == [transport] * 2
    found = run("doctor", "--base-url", simulator.base_url, "--profile", profile, key=KEY)
    assert f"servers of the profile {profile} take no input" in found.out


@pytest.mark.parametrize("command", [("ask", "hi"), ("chat",), ("doctor",)])
def test_a_profile_without_a_server(run: Run, command: tuple[str, ...]) -> None:
    assert "--profile needs a server" in one_error(run(*command, "--profile", "xai"), 2)


def test_without_a_key_none_is_sent(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated()
    error = one_error(run("ask", "hi", "--base-url", simulator.base_url))
    assert error.startswith("Error: AuthenticationFailed: ")
    assert simulator.connections[0].authorization is None


def test_the_base_url_can_come_from_the_environment(
    run: Run, simulated: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", simulated().base_url)
    assert run("ask", "hi", key=KEY) == (0, "hi\n", "")


def test_json_prints_one_event_per_line(run: Run) -> None:
    result = run("ask", "ünd \x1b[31m", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert result.out.isascii()
    assert "\x1b" not in result.out
    assert [events[0]["type"], events[1]["type"], events[-1]["type"]] == ["turn_started", "text_started", "turn_done"]
    assert "".join(event["delta"] for event in events if event["type"] == "text_delta") == "ünd \x1b[31m"
    assert events[-1]["message"]["content"][0]["text"] == "ünd \x1b[31m"


def test_report_goes_to_standard_error(run: Run) -> None:
    result = run("ask", "hi", "--report")
    assert result.out == "hi\n"
    rows = dict(line.split(maxsplit=1) for line in result.err.splitlines()[1:])
    assert rows["transport"].strip() == "websocket"
    assert rows["attempts"].strip() == "1"
    assert "seconds, total" in result.err


def test_a_failed_turn_is_reported_too(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(brain=Script([[Say("so far"), Failed("server_error", "broke")]]))
    result = run("ask", "hi", "--report", "--base-url", simulator.base_url, key=KEY)
    assert (result.code, result.out) == (1, "so far\n")
    assert "delivery" in result.err
    assert result.err.splitlines()[-1].startswith("Error: ResponseFailed: ")


def test_blocks_stand_on_lines_of_their_own_and_commentary_aside(run: Run, simulated: Callable[..., Simulator]) -> None:
    answer = [Think("hidden"), Say("looking", phase="commentary"), Say("one\n"), Say("two"), Refuse("no"), Completed()]
    simulator = simulated(brain=Script([answer]))
    assert run("ask", "hi", "--base-url", simulator.base_url, key=KEY) == (0, "one\ntwo\nno\n", "looking\n")


def test_a_cut_answer_is_called_cut(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(brain=Script([[Say("half"), Incomplete()]]))
    result = run("ask", "hi", "--base-url", simulator.base_url, key=KEY)
    assert (result.code, result.out) == (0, "half\n")
    assert result.err == "The answer was cut at the limit of output tokens.\n"


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        (KEY, f"[{KEY}{KEY}]", "[(key)(key)]"),
        ("k", "the key k is unknown", "the key (key) is unknown"),
        ("x.", "x. x.y x.", "(key) x.y (key)"),
        (None, "any", "any"),
    ],
)
def test_a_key_is_taken_out_and_a_letter_is_not(key: str | None, text: str, shown: str) -> None:
    assert redact(text, key) == shown


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_the_servers_own_words_are_told_in_one_line_without_the_key(
    run: Run, simulated: Callable[..., Simulator]
) -> None:
    words = f"The key {KEY}\nis \x1b[31mbad\x00 " + "x" * 500
    simulator = simulated(brain=Script([[Error(400, "invalid_value", words)]]))
    error = one_error(run("ask", "hi", "--base-url", simulator.base_url, key=KEY))
    assert error.startswith("Error: RequestRejected: ")
    assert "The key (key) is [31mbad xxx" in error
    assert error.endswith("x…")
    assert len(error) < 450


def test_a_refused_key_is_not_shown(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(api_key="sk-another")
    assert "AuthenticationFailed" in one_error(run("ask", "hi", "--base-url", simulator.base_url, key=KEY))


def test_an_unusable_key_is_not_shown(run: Run) -> None:
    assert one_error(run("ask", "hi", key=KEY + "\n")).startswith("Error: api_key: holds a line break")


def test_nobody_listens(run: Run, closed_port: int) -> None:
    assert "ConnectFailed" in one_error(run("ask", "hi", "--base-url", f"http://127.0.0.1:{closed_port}/v1"))


@pytest.mark.parametrize(("given", "taken"), [("sse", "sse"), ("websocket", "websocket"), ("auto", "websocket")])
def test_the_transport(run: Run, given: str, taken: str) -> None:
    result = run("ask", "hi", "--transport", given, "--report")
    assert result.out == "hi\n"
    assert re.search(rf"^transport +{taken}", result.err, re.MULTILINE)


def test_the_timeout_bounds_the_turn(run: Run) -> None:
    assert "TurnTimeout" in one_error(run("ask", "hi", "--timeout", "0.000001"))


def test_an_output_that_cannot_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert one_error(run("ask", "hi")) == "Error: No space left on device"


def test_streams_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["ask", "hi", "--report"]) == 0
    assert main(["ask", "-"]) == 2
    assert main(["chat"]) == 0


def test_streams_need_no_descriptor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 1+2?\nWhat is 3+3?"))
    assert main(["chat"]) == 0
    assert capsys.readouterr().out == "3\n6\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ask",),
        ("ask", "a", "b"),
        ("ask", "--no-such-option", "a"),
        ("ask", "--transport", "pigeon", "a"),
        ("ask", "--profile", "pigeon", "a"),
        ("ask", "--timeout", "0", "a"),
        ("ask", "--timeout", "nan", "a"),
        ("ask", "--temperature", "inf", "a"),
        ("ask", "--base-url", "ftp://example.com", "a"),
        ("ask", "--base-url", "http://user:secret@example.com", "a"),
        ("chat", "a"),
        ("simulate", "--port", "65536"),
        ("no-such-command",),
    ],
)
def test_wrong_arguments(run: Run, arguments: Sequence[str]) -> None:
    error = one_error(run(*arguments), 2)
    assert "--help" in error
    assert "secret" not in error


@pytest.mark.parametrize("arguments", [("--help",), ("ask", "-h"), ("chat", "-h"), ("simulate", "-h"), ("--version",)])
def test_help_and_version(run: Run, arguments: Sequence[str]) -> None:
    result = run(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_the_extra_the_command_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("engine.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(module + ".")]:
        monkeypatch.setitem(sys.modules, name, None)
    result = run("ask", "hi")
    assert result.code == 1
    install = "python -m pip install 'trio-session-engine[cli]'"
    assert result.err == f"The command line, but for simulate and record, needs {module}: {install}\n"


# --- chat ------------------------------------------------------------------------------------------------------------


def sent(simulator: Simulator, number: int) -> list[tuple[str, Any]]:
    return [(item["role"], item["content"]) for item in simulator.requests[number].body["input"]]


def test_chat_keeps_the_transcript(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated()
    lines = "What is 3+4?\r\n\n  \nand then?\nWhat is 1+1?\n/quit\nnever sent\n"
    result = run("chat", "--base-url", simulator.base_url, stdin=lines, key=KEY)
    assert result == (0, "7\nand then?\n2\n", "")
    held = simulator.history(simulator.requests[2].response_id or "")
    assert [item["role"] for item in held] == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert "and then?" in json.dumps(held[2])
    assert len(sent(simulator, 2)) == 1  # the rest is at the server already
    assert len(simulator.connections) == 1


def test_chat_ends_with_its_input(run: Run) -> None:
    result = run("chat", stdin="What is 3+4?\nlast line without its end")
    assert (result.code, result.out) == (0, "7\nlast line without its end\n")
    assert NOTICE in result.err


def test_chat_over_a_pipe_ends_at_a_failure(run: Run, simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(brain=Script([Answer("fine"), [Error(400, "invalid_value", "no")], Answer("never")]))
    result = run("chat", "--base-url", simulator.base_url, stdin="a\nb\nc\n", key=KEY)
    assert result.out == "fine\n"
    assert "RequestRejected" in one_error(result)
    assert len(simulator.requests) == 2


def test_chat_takes_the_options_of_ask(run: Run) -> None:
    result = run("chat", "--json", "--report", stdin="a\nb\n")
    assert [json.loads(line)["type"] for line in result.out.splitlines()].count("turn_done") == 2
    assert result.err.count("seconds, total") == 2


# --- simulate --------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(run: Run, simulated: Callable[..., Simulator]) -> None:
    port = simulated().port
    error = one_error(run("simulate", "--port", str(port)), 3)
    assert error == f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use; --port 0 picks a free one"
