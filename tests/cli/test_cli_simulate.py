"""``simulate`` as programs of other languages use it: script files, the control route, a process that can be ended."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Endpoint, blocking
from engine.cli.serving import say
from engine.cli.simulate import main

ROOT = Path(__file__).parents[2]
PATIENCE = 30
Start = Callable[..., Any]


@pytest.fixture
def simulate(start: Start) -> Iterator[Callable[..., tuple[Any, dict[str, Any]]]]:
    """Start it, and return the process and its ready line."""

    def launch(*arguments: object, **options: Any) -> tuple[Any, dict[str, Any]]:
        process = start("simulate", "--json", *map(str, arguments), **options)
        process.wait_for(b"\n")
        return process, json.loads(bytes(process.stdout).split(b"\n")[0])

    return launch  # type: ignore[return-value]


def script(path: Path, **members: Any) -> Path:
    path.write_text(json.dumps({"version": 1, **members}))
    return path


def ask(ready: dict[str, Any], text: str, key: str = "sk-any") -> httpx.Response:
    body = {"model": "gpt-5.4", "input": text}
    return httpx.post(f"{ready['base_url']}/responses", json=body, headers={"authorization": f"Bearer {key}"})


def said(answer: httpx.Response) -> str:
    output = answer.json()["output"]
    return "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])


def control(ready: dict[str, Any], method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    fields = {"authorization": f"Bearer {ready['control_token']}"} | headers
    return httpx.request(method, f"{ready['control_url']}/{path}", json=body, headers=fields, timeout=PATIENCE)


def test_the_ready_line_and_the_end(simulate: Any, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    process, ready = simulate("--ready-file", ready_file)
    assert ready["event"] == "ready"
    assert ready["pid"] == process.popen.pid
    assert ready["ws_url"] == ready["base_url"].replace("http", "ws") + "/responses"
    assert ready["control_url"] is ready["control_token"] is ready["tls_ca"] is ready["script"] is None
    assert json.loads(ready_file.read_text()) == ready
    assert said(ask(ready, "What is 20+22?")) == "42"
    process.popen.send_signal(signal.SIGTERM)
    assert process.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_a_signal_that_the_shell_has_ignored(simulate: Any, number: int) -> None:
    process, _ = simulate(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.popen.send_signal(number)
    assert process.end() == 0


def test_it_ends_with_its_parent(simulate: Any) -> None:
    process, _ = simulate("--exit-with-parent", stdin=subprocess.PIPE)
    assert process.end() == 0


def test_it_runs_without_the_extra(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['click'] = sys.modules['rich'] = None"
    program = f"{hidden}; from engine.__main__ import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "simulate", "--json", "--exit-with-parent"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "ready"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_rules_of_a_script(simulate: Any, tmp_path: Path) -> None:
    process, ready = simulate("--script", ROOT / "docs" / "simulator-script.example.json")
    assert ready["base_url"].endswith("/v1")
    refused = ask(ready, "weather")
    assert refused.status_code == 401
    assert ask(ready, "busy", "sk-test").status_code == 429
    assert said(ask(ready, "busy", "sk-test")) == "Here you are."
    unknown = ask(ready, "nothing of that kind", "sk-test")
    assert unknown.status_code == 404
    assert "the nearest is" in unknown.json()["error"]["message"]
    other_root = ready | {"base_url": ready["base_url"].replace("/v1", "/backend-api/codex")}
    assert said(ask(other_root, "busy", "sk-test")) == "Here you are."
    process.interrupt()
    assert process.end() == 0


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            '{"version": 1,\n "rules": [{"reply": [{"sya": "x"}]}]}',
            ":2:24: rules[0].reply[0].sya: 'sya' is no step; did you mean 'say'?",
        ),
        (None, "No such file or directory"),
    ],
)  # fmt: skip
def test_a_script_with_a_mistake(start: Start, tmp_path: Path, source: str | None, told: str) -> None:
    path = tmp_path / "agent.json"
    if source is not None:
        path.write_text(source)
    process = start("simulate", "--script", str(path))
    assert process.end() == 2
    assert process.stderr.decode().startswith(f"Error: {path}:")
    assert told in process.stderr.decode()


def test_it_does_not_serve_others_unasked(start: Start) -> None:
    process = start("simulate", "--host", "0.0.0.0")
    assert process.end() == 2
    assert b"add --allow-remote" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "abc"], "a port is a number from 0 to 65535, not 'abc'"),
        (["--port", "65536"], "a port is a number from 0 to 65535, not '65536'"),
        (["--host", "nowhere.invalid"], "nowhere.invalid is not a loopback address"),
        (["--redact", "("], "'(' is not a regular expression"),
        (["--lifetime", "0"], "it has to be more than 0, not 0"),
        (["--lifetime", "soon"], "'soon' is not a number"),
        (["--replay", "x", "--speed", "-1"], "it has to be 0 or more, not -1"),
        (["--api-key", ""], "argument --api-key: it is empty"),
        (["--watch"], "--watch means nothing without --script"),
        (["--match", "order"], "--match means nothing without --replay"),
        (["--control-token", "x"], "--control-token means nothing without --control"),
        (["--tls-key", "x"], "--tls-key means nothing without --tls-cert"),
        (["--replay", "a.jsonl", "--script", "b.json"], "--script means nothing with --replay"),
        (["--replay", "a.jsonl", "--tls"], "--tls means nothing with --replay"),
        (["--tls-cert", "missing.pem"], "missing.pem: No such file or directory"),
        (["--tls-cert", __file__], f"{__file__} cannot be used for TLS"),
        (["--ready-file", "/missing/ready.json"], "/missing/ready.json: No such file or directory"),
        (["--quirk", "item_ids"], "--quirk item_ids needs a value: --quirk item_ids=…, one of renewed, "),
        (["--quirk", "chunks"], "--quirk chunks needs a value: --quirk chunks=…\n"),
        (["--quirk", "item_ids=renwed"], "did you mean 'renewed'?"),
        (["--quirk", "lane=false"], "did you mean 'lanes'?"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert told in err


def test_a_reader_that_has_gone_ends_no_server() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        say("request number=0", stream)
        say("request number=1", stream)
    say("request number=2", None)


def test_it_cannot_end_with_an_input_that_is_closed() -> None:
    command = [sys.executable, "-m", "engine", "simulate", "--exit-with-parent"]
    script = 'exec 0<&-; exec "$@"'
    ended = subprocess.run(["sh", "-c", script, "sh", *command], cwd=ROOT, capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 2
    assert ended.stderr == b"Error: --exit-with-parent needs a standard input, and that is closed\n"


def test_verify(simulate: Any, tmp_path: Path) -> None:
    path = script(tmp_path / "s.json", rules=[{"name": "wanted", "required": True, "reply": "x"}])
    process, _ = simulate("--script", path, "--verify")
    process.interrupt()
    assert process.end() == 4
    assert json.loads(process.stderr)["rule"] == "wanted"


def test_mistakes_in_what_the_control_route_is_asked(simulate: Any) -> None:
    _, ready = simulate("--control")
    told: list[tuple[str, str, Any, int, str]] = [
        ("GET", "request", None, 404, "there is no GET request; GET /__simulator lists what there is"),
        ("GET", "requests/7", None, 404, "there is no request 7"),
        ("GET", "requests?txt=a", None, 400, "txt: 'txt' is no member of the query; did you mean 'text'?"),
        ("POST", "rules", [], 400, "the body is an object with 'rules', which is an array"),
        ("POST", "rules", {"rules": [{"replay": "x"}]}, 400, "rules[0].replay: "),
        ("POST", "rules?frist=1", {"rules": []}, 400, "did you mean 'first'?"),
        ("POST", "rules?first=maybe", {"rules": []}, 400, "'first' is 1 or 0"),
        ("POST", "requests/wait", {"timeout": 5}, 400, "did you mean 'timeout_ms'?"),
        ("POST", "connections/0/abort", {"how": "gently"}, 400, "'how' is 'reset' or 'eof'"),
        ("POST", "connections/0/close", {"cod": 1000}, 400, "did you mean 'code'?"),
        ("POST", "reset?rule=1", None, 400, "did you mean 'rules'?"),
        ("PATCH", "server", {"seed": 1}, 400, "what can be changed while the server runs is 'quirks'"),
    ]
    for method, path, body, status, words in told:
        answer = control(ready, method, path, body)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text


def test_the_control_route_says_what_there_is(simulate: Any) -> None:
    _, ready = simulate("--control")
    routes = control(ready, "GET", "").json()["routes"]
    assert control(ready, "GET", "").json() == httpx.get(
        ready["control_url"], headers={"authorization": f"Bearer {ready['control_token']}"}
    ).json()  # fmt: skip
    for route in routes:
        method, path = route.split()
        body = {"timeout_ms": 0} if path == "requests/wait" else None
        assert f"there is no {method} " not in control(ready, method, path, body).text, route


def test_an_address_that_there_is_not(simulate: Any) -> None:
    _, ready = simulate("--root", "/v1", "--root", "/openai/v1")
    for path in ("/responses", "/__simulator/requests", "/openai/responses"):
        answer = httpx.post(ready["base_url"].removesuffix("/v1") + path, json={"model": "m", "input": "x"})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"].endswith("the API is under /v1 and /openai/v1.")


def test_the_control_route(simulate: Any, tmp_path: Path) -> None:
    path = script(
        tmp_path / "s.json",
        rules=[{"name": "hello", "when": {"text": "hello"}, "reply": "hi", "required": True}],
        otherwise={"brain": "fail"},
    )
    process, ready = simulate("--script", path, "--control")
    assert httpx.get(f"{ready['control_url']}/health").json()["status"] == "ok"
    assert httpx.get(f"{ready['control_url']}/requests").status_code == 401

    assert [rule["rule"] for rule in control(ready, "POST", "verify").json()] == ["hello"]
    assert said(ask(ready, "hello you")) == "hi"
    assert control(ready, "POST", "verify").status_code == 200

    rules = [{"when": {"text": "bye"}, "reply": "see you", "times": 1}]
    (added,) = control(ready, "POST", "rules?first=1", {"rules": rules}).json()["ids"]
    assert said(ask(ready, "bye")) == "see you"
    assert ask(ready, "bye").status_code == 404
    (unmatched,) = control(ready, "GET", "requests/unmatched").json()
    assert unmatched["text"] == "bye"
    assert {near["rule"]: near["missed"] for near in unmatched["near"]}["hello"] == ["text"]
    assert control(ready, "DELETE", f"rules/{added}").status_code == 200
    assert control(ready, "DELETE", f"rules/{added}").status_code == 404

    found = control(ready, "GET", "requests?text=hello").json()
    assert [(each["text"], each["transport"], each["rule"], each["status"]) for each in found] == [
        ("hello you", "json", "hello", "completed"),
    ]  # fmt: skip
    whole = control(ready, "GET", f"requests/{found[0]['number']}").json()
    assert whole["body"]["input"] == "hello you"
    (frame,) = whole["frames"]
    assert frame["json"]["output"][0]["content"][0]["text"] == "hi"
    assert frame["at"] >= 0
    assert len(control(ready, "GET", f"requests?after={found[0]['number']}").json()) == 2

    waited = control(ready, "POST", "requests/wait", {"count": 1, "when": {"text": "hello"}, "timeout_ms": 5000})
    assert waited.status_code == 200
    missed = control(ready, "POST", "requests/wait", {"count": 9, "timeout_ms": 1})
    assert (missed.status_code, len(missed.json())) == (408, 3)

    told = control(ready, "POST", "rules", {"rules": [{"reply": {"sya": "x"}}]})
    assert (told.status_code, "did you mean 'say'" in told.json()["error"]["message"]) == (400, True)
    assert control(ready, "GET", "nonsense").status_code == 404

    assert control(ready, "POST", "reset").status_code == 200
    assert control(ready, "GET", "requests").json() == []
    assert [rule["name"] for rule in control(ready, "GET", "rules").json()] == ["hello"]
    assert control(ready, "PUT", "rules", {"rules": [{"reply": "anything"}]}).status_code == 200
    assert said(ask(ready, "bye")) == "anything"
    assert control(ready, "DELETE", "rules").status_code == 200
    assert ask(ready, "bye").status_code == 404
    process.interrupt()
    assert process.end() == 0


def test_control_of_connections_and_gates(simulate: Any, tmp_path: Path) -> None:
    path = script(
        tmp_path / "s.json",
        rules=[{"when": {"text": "gate"}, "reply": [{"say": "before"}, {"gate": "door"}, {"say": " after"}]}],
    )
    process, ready = simulate("--script", path, "--control")
    with blocking.open_session(Endpoint(ready["base_url"], "sk-any", profile="openai"), model="m") as session:
        with session.turn("gate") as turn:
            next(turn)
            (connection,) = control(ready, "GET", "connections").json()
            assert (connection["transport"], connection["open"], connection["requests"]) == ("websocket", True, [0])
            assert control(ready, "POST", "gates/door/open").status_code == 200
            assert turn.wait().text == "before after"
        frames = control(ready, "GET", "requests/0").json()["frames"]
        kinds = [frame["json"]["type"] for frame in frames]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert [frame["at"] for frame in frames] == sorted(frame["at"] for frame in frames)
        number = connection["id"]
        assert control(ready, "POST", f"connections/{number}/events", {"type": "keepalive"}).status_code == 200
        assert control(ready, "POST", f"connections/{number}/close", {"code": 1012}).status_code == 200
        assert session.ask("What is 2+2?").text == "4"
        assert control(ready, "PATCH", "server", {"quirks": ["in_progress"]}).status_code == 200
        assert session.ask("What is 2+3?").text == "5"
        assert control(ready, "POST", "connections/99/abort").status_code == 404
    process.interrupt()
    assert process.end() == 0


def test_scopes_part_parallel_tests(simulate: Any, tmp_path: Path) -> None:
    path = script(
        tmp_path / "s.json",
        rules=[{"scope": "a", "reply": "of a"}, {"when": {"nth": 1}, "reply": "first"}, {"reply": "later"}],
    )
    process, ready = simulate("--script", path, "--control")

    def asked(scope: str | None) -> str:
        fields = {"authorization": "Bearer sk-any"} | ({"x-simulator-scope": scope} if scope else {})
        body = {"model": "m", "input": "x"}
        return said(httpx.post(f"{ready['base_url']}/responses", json=body, headers=fields))

    assert [asked("a"), asked("b"), asked(None), asked("b"), asked(None)] == [
        "of a",
        "first",
        "first",
        "later",
        "later",
    ]
    assert len(control(ready, "GET", "requests").json()) == 2
    assert len(control(ready, "GET", "requests", None, **{"x-simulator-scope": "b"}).json()) == 2
    process.interrupt()
    assert process.end() == 0


def test_the_script_is_read_again_when_it_changes(simulate: Any, tmp_path: Path) -> None:
    path = script(tmp_path / "s.json", rules=[{"reply": "old"}])
    process, ready = simulate("--script", path, "--watch")
    assert said(ask(ready, "x")) == "old"
    path.write_text("{")
    process.wait_for(b"the rules stay as they were", on="stderr")
    assert said(ask(ready, "x")) == "old"
    script(path, rules=[{"reply": "new"}])
    process.wait_for(b"was read again", on="stderr")
    assert said(ask(ready, "x")) == "new"
    process.interrupt()
    assert process.end() == 0


def test_every_frame_is_logged_and_no_key(simulate: Any, tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    process, ready = simulate("--log", path, "--redact", "hidden-[0-9]+")
    key = "sk-not-to-be-seen-anywhere"
    with blocking.open_session(Endpoint(ready["base_url"], key, profile="openai"), model="m") as session:
        session.ask(f"say hidden-42 and {key}")
    ask(ready, "hello", key)
    process.interrupt()
    assert process.end() == 0
    text = path.read_text()
    assert key not in text
    assert "hidden-42" not in text
    assert path.stat().st_mode & 0o777 == 0o600
    first, *lines = map(json.loads, text.splitlines())
    assert first["cassette"] == 1
    kinds = [(line["connection"], line["kind"]) for line in lines]
    assert kinds[:3] == [(0, "open"), (0, "answer"), (0, "in")]
    assert ("end", 1000) in {(line["kind"], line.get("code")) for line in lines}
    assert lines[2]["json"]["type"] == "response.create"
    events = [line["json"]["type"] for line in lines if line["kind"] == "out" and line["connection"] == 0]
    assert events[0] == "response.created"
    assert events[-1] == "response.completed"
    assert [line["kind"] for line in lines if line["connection"] == 1] == ["open", "in", "answer", "out", "end"]


@pytest.mark.parametrize("how", ["option", "script", "own"])
def test_tls(simulate: Any, tmp_path: Path, how: str) -> None:
    trustme = pytest.importorskip("trustme")
    arguments: list[object] = ["--tls"]
    if how == "script":
        arguments = ["--script", script(tmp_path / "s.json", server={"tls": "self-signed"})]
    elif how == "own":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        own = authority.issue_cert("127.0.0.1")
        own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
        arguments = ["--tls-cert", tmp_path / "own.pem"]
    process, ready = simulate(*arguments)
    assert ready["base_url"].startswith("https://")
    context = ssl.create_default_context(cafile=ready["tls_ca"] or str(tmp_path / "ca.pem"))
    answer = httpx.post(
        f"{ready['base_url']}/responses",
        json={"model": "m", "input": "What is 2+2?"},
        headers={"authorization": "Bearer sk-any"},
        verify=context,
    )
    assert said(answer) == "4"
    process.interrupt()
    assert process.end() == 0


def test_quirks_and_parameters_on_the_command_line(simulate: Any) -> None:
    process, ready = simulate(
        "--quirk", "usage=absent", "--accept-parameter", "seed", "--model", "m", "--root", "/openai/v1"
    )
    assert ready["base_url"].endswith("/openai/v1")
    body = {"model": "m", "input": "x", "seed": 3}
    answer = httpx.post(f"{ready['base_url']}/responses", json=body, headers={"authorization": "Bearer sk-any"})
    assert answer.status_code == 200
    body["model"] = "other"
    answer = httpx.post(f"{ready['base_url']}/responses", json=body, headers={"authorization": "Bearer sk-any"})
    assert answer.json()["error"]["code"] == "model_not_found"
    process.interrupt()
    assert process.end() == 0
