"""The examination of the way to a server, and the command that shows it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trustme
from trio.testing import MockClock

import engine
from engine.cli.examination import Examination
from engine.cli.findings import NEEDS, Finding
from engine.simulator import (
    Abort,
    Accept,
    Close,
    Created,
    Delay,
    Error,
    Failed,
    Garbage,
    HangUp,
    Ignore,
    Quirks,
    Raw,
    Reject,
    Say,
    SayDelta,
    Simulator,
    Stall,
    open_simulator,
)

KEY = "sk-never-to-be-shown"
REFUSALS = [400, 401, 403, 404, 405, 426, 429, 500, 502, 503, 504]


async def examined(sim: Simulator, model: str = "gpt-5.4", **changes: Any) -> dict[str, Finding]:
    endpoint = attrs.evolve(sim.endpoint, api_key=KEY, **changes)
    told: list[Finding] = []

    async def tell(finding: Finding) -> None:
        told.append(finding)

    look = Examination(endpoint, model=model, patience=8, dialer=sim.dialer)
    findings = await look.run(tell)
    assert tuple(told) == findings
    assert [finding.step for finding in findings] == list(NEEDS)
    for finding in findings:
        assert (finding.seconds is None) == (finding.ok is None)
        assert finding.seconds is None or 0 <= finding.seconds <= 10
        assert finding.verdict
        assert "\n" not in finding.verdict
        assert KEY not in f"{finding.verdict}{finding.hint}"
    return {finding.step: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> list[str]:
    return [step for step, finding in findings.items() if finding.ok is False]


async def test_a_server_in_good_health(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        findings = await examined(sim)
        assert all(finding.ok for finding in findings.values()), findings
        assert "speaks WebSocket" in findings["upgrade"].verdict
        assert findings["lanes"].verdict == "two answers at once over one connection"
    assert sim.open_connections == []


def counting(asked: Any) -> Any:
    return [SayDelta("One, "), Delay(1), Say("two")] if "Count" in asked.last_user_text else "OK"


@pytest.mark.parametrize(
    ("model", "brain", "quirks", "words"),
    [
        ("gpt-6-astra", counting, Quirks(), "a running response took further input"),
        ("gpt-5.4", counting, Quirks(), "not offered for this model"),
        ("gpt-6-astra", counting, Quirks(steerable=()), "not offered for this model"),
        ("gpt-6-astra", "OK", Quirks(), "not tried: the answer was over before"),
    ],
)
async def test_whether_a_response_that_runs_takes_further_input(
    autojump_clock: MockClock, model: str, brain: Any, quirks: Quirks, words: str
) -> None:
    script = brain if callable(brain) else (lambda asked: brain)
    async with open_simulator(in_memory=True, brain=script, quirks=quirks) as sim:
        finding = (await examined(sim, model))["steering"]
    assert (finding.ok, finding.verdict) == (True, words)


async def test_a_kind_of_server_that_is_not_steered() -> None:
    async with open_simulator(in_memory=True) as sim:
        finding = (await examined(sim, profile="azure"))["steering"]
    assert finding.ok
    assert finding.verdict.startswith("not offered: servers of the profile azure")


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refused_upgrade(autojump_clock: MockClock, status: int) -> None:
    async with open_simulator(in_memory=True, handshake=Reject(status, body=f"not with {KEY}")) as sim:
        findings = await examined(sim)
    assert failed(findings) == ["upgrade"]
    assert str(status) in findings["upgrade"].verdict
    assert (findings["upgrade"].hint is None) == (status == 400)
    assert findings["first_event"].ok is findings["lanes"].ok is findings["steering"].ok is None
    assert findings["http"].ok


@pytest.mark.parametrize(
    ("handshake", "words"),
    [
        (HangUp(), "broke"),
        (HangUp(reset=True), "broke"),
        (Garbage(), "no HTTP"),
        (Garbage(b"SSH-2.0-OpenSSH_9.9\r\n"), "no HTTP"),
        (Ignore(), "longer than 8 s"),
    ],
    ids=["hangs up", "resets", "nonsense", "another protocol", "silence"],
)
async def test_no_answer_to_the_upgrade(autojump_clock: MockClock, handshake: Any, words: str) -> None:
    async with open_simulator(in_memory=True, handshake=handshake) as sim:
        findings = await examined(sim)
    assert failed(findings) == ["upgrade"]
    assert words in findings["upgrade"].verdict
    assert findings["upgrade"].hint


@pytest.mark.parametrize("handshake", [Accept(close_code=1008), Accept(close_code=1006), Accept(mute=True)], ids=str)
async def test_a_websocket_that_serves_nothing(autojump_clock: MockClock, handshake: Any) -> None:
    async with open_simulator(in_memory=True, handshake=handshake) as sim:
        findings = await examined(sim)
    assert failed(findings) == ["first_event"]
    assert findings["first_event"].hint
    assert findings["upgrade"].ok
    assert findings["http"].ok


@pytest.mark.parametrize("post", [*map(Reject, REFUSALS), HangUp(), Garbage(), Ignore(), Accept(mute=True)], ids=str)
async def test_no_http(autojump_clock: MockClock, post: Any) -> None:
    async with open_simulator(in_memory=True, post=post) as sim:
        findings = await examined(sim)
    assert failed(findings) == ["http"]
    assert findings["keep_alive"].ok is None
    assert findings["first_event"].ok


@pytest.mark.parametrize(
    "steps",
    [
        [Error(400, "model_not_found")],
        [Error(429, "rate_limit_exceeded", headers={"retry-after": "60"})],
        [Error(500, "server_error")],
        [Created(), Failed("server_error")],
        [Created(), Stall()],
        [Stall()],
        [Created(), Close(1011)],
        [Created(), Abort()],
        [Raw(f"no JSON, and {KEY}"), Abort()],
    ],
    ids=str,
)
async def test_a_turn_that_fails(autojump_clock: MockClock, steps: list[Any]) -> None:
    async with open_simulator(in_memory=True, brain=lambda asked: steps) as sim:
        findings = await examined(sim)
    assert failed(findings) == ["first_event", "http"]
    assert findings["first_event"].hint


async def test_a_server_without_lanes(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, quirks=Quirks(lanes=False)) as sim:
        findings = await examined(sim, profile="generic")
    assert failed(findings) == []
    assert "one response at a time" in findings["lanes"].verdict


async def test_a_refused_key(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, api_key="another") as sim:
        findings = await examined(sim)
    assert failed(findings) == ["upgrade", "http"]
    assert "OPENAI_API_KEY" in f"{findings['upgrade'].hint}"


async def test_leaving_closes_everything(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, handshake=Ignore()) as sim:
        with trio.move_on_after(3) as scope:
            await examined(sim)
        assert scope.cancelled_caught
        await trio.sleep(0.1)  # the server has to notice
        assert sim.open_connections == []


# --- over the network ------------------------------------------------------------------------------------------------


async def over_the_network(endpoint: engine.Endpoint) -> dict[str, Finding]:
    async def tell(finding: Finding) -> None:
        pass

    return {finding.step: finding for finding in await Examination(endpoint, model="m", patience=8).run(tell)}


async def test_nothing_listens(closed_port: int) -> None:
    findings = await over_the_network(engine.Endpoint(f"http://127.0.0.1:{closed_port}/v1", KEY))
    assert failed(findings) == ["tcp"]
    assert findings["tcp"].verdict == f"no connection to 127.0.0.1 port {closed_port} (Connection refused)"


async def test_a_name_that_does_not_exist() -> None:
    findings = await over_the_network(engine.Endpoint("http://nowhere.invalid/v1", KEY))
    assert failed(findings) == ["dns"]


async def test_a_proxy_that_is_not_there(closed_port: int) -> None:
    proxy = f"http://user:secret@127.0.0.1:{closed_port}"
    findings = await over_the_network(engine.Endpoint("http://nowhere.invalid/v1", KEY, proxy=proxy))
    assert findings["proxy"].verdict == f"through 127.0.0.1:{closed_port}"
    assert failed(findings) == ["tcp"]
    assert "secret" not in str(findings)


async def test_a_proxy_that_is_written_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:secret@proxy")
    findings = await over_the_network(engine.Endpoint("http://nowhere.invalid/v1", KEY))
    assert failed(findings) == ["proxy"]
    assert list(findings) == list(NEEDS)
    assert "secret" not in str(findings)


async def test_tls_and_whom_it_is_with() -> None:
    authority = trustme.CA(organization_name="Someone Trusted")
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with open_simulator(ssl_context=server) as sim:
        trusted = await over_the_network(attrs.evolve(sim.endpoint, ssl_context=client))
        unknown = await over_the_network(attrs.evolve(sim.endpoint, ssl_context=None))
        plain = await over_the_network(engine.Endpoint(sim.base_url.replace("https:", "http:"), KEY))
    assert failed(trusted) == []
    assert "TLSv1.3" in trusted["tls"].verdict
    assert "signed by Someone Trusted" in trusted["tls"].verdict
    assert failed(unknown) == ["tls"]
    assert "certificate was not accepted" in unknown["tls"].verdict
    assert "upgrade" in failed(plain)


async def test_no_tls_where_some_is_expected() -> None:
    async with open_simulator() as sim:
        findings = await over_the_network(engine.Endpoint(sim.base_url.replace("http:", "https:"), KEY))
    assert failed(findings) == ["tls"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_examines_the_simulator_where_there_is_no_key(start: Callable[..., Any]) -> None:
    process = start("doctor")
    assert process.end() == 0
    lines = [line for line in process.stdout.decode().splitlines() if line[0] != " "]
    assert [line.split()[:2] for line in lines] == [["ok", step] for step in NEEDS]
    assert b"simulator" in process.stderr


def test_the_command_gives_json_and_an_exit_code(start: Callable[..., Any], closed_port: int) -> None:
    process = start("doctor", "--json", "--base-url", f"http://127.0.0.1:{closed_port}/v1", key=KEY)
    assert process.end() == 1
    findings = json.loads(process.stdout)
    assert [list(finding) for finding in findings] == [["step", "ok", "seconds", "verdict", "hint"]] * len(NEEDS)
    assert [finding["step"] for finding in findings] == list(NEEDS)
    assert process.stderr == b"Error: tcp failed\n"
    assert KEY.encode() not in process.stdout + process.stderr
