"""Behind a real nginx, over loopback: what passes, what is cut, limited or refused, and what becomes of the turns."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from invariants import contained
from nginx import Nginx, forwarded, nginx
from raw_peer import WatchedTcpDialer

import engine
from engine import Delivery, Limits, RetryPolicy, TextDelta, Timeouts, Transport
from engine.connections.breakers import BreakerState
from engine.instruments import ConnectionInfo
from engine.simulator import Abort, Accept, Created, Gate, HangUp, Ignore, Script, Simulator, open_simulator
from engine.simulator import SayDelta as Say

SOON = 20.0
"""Seconds on the real clock that are never reached unless something hangs."""

AUTO, WEBSOCKET, SSE = Transport.AUTO, Transport.WEBSOCKET, Transport.SSE
AT_ONCE = RetryPolicy(jitter=lambda: 0.0)
"""Tries again as often as by default, and waits for nothing."""

SUM = "What is 2+2?"

CUT = "proxy_read_timeout 1s;"
"""nginx ends a connection on which nothing has passed for that long. Its default is 60 s."""


class CountingDialer(WatchedTcpDialer):
    """Counts the connections that were made."""

    dials = 0

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        self.dials += 1
        return await super().open_tcp(host, port)


class Watcher(engine.Instrument):
    """Tells when connections of a session come and go."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = trio.Event()

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        self._note(info.session, "opened")

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        self._note(info.session, "closed")

    def _note(self, session: str, what: str) -> None:
        self.seen.append((session, what))
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, session: str, *course: str) -> None:
        """Wait until all this has become of a session's connections."""
        while [what for each, what in self.seen if each == session][: len(course)] != list(course):
            await self._changed.wait()


@attrs.frozen
class Site:
    """An engine, the nginx that it goes through, and the simulator behind it."""

    eng: engine.Engine
    proxy: Nginx
    sim: Simulator
    dialer: CountingDialer
    watcher: Watcher

    @property
    def breaker(self) -> Any:
        (breaker,) = self.eng.breakers.values()
        return breaker


@asynccontextmanager
async def site(
    directory: Path,
    location: Callable[[int], str] = forwarded,
    *,
    blocks: Callable[[int, int], str] = lambda port, behind: "",
    main: str = "",
    simulator: Any = None,
    trusting: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Site]:
    """Run all of it for the length of a block, in which nothing hangs and behind which nothing is left."""
    with trio.fail_after(SOON):
        async with contained() as held, open_simulator(**(simulator or {})) as sim:
            blocks = functools.partial(blocks, behind=sim.port)  # type: ignore[call-arg]
            with nginx(directory, location(sim.port), blocks=blocks, main=main) as proxy:
                dialer, watcher = CountingDialer(held), Watcher()
                url = f"http{'s' if trusting else ''}://127.0.0.1:{proxy.port}/v1"
                there = attrs.evolve(sim.endpoint, base_url=url, ssl_context=trusting)
                options = {"retry": AT_ONCE, "instruments": [watcher], **options}
                async with engine.open_engine(there, model="m", dialer=dialer, **options) as eng:
                    yield Site(eng, proxy, sim, dialer, watcher)
            assert sim.errors == []


async def tried(session: engine.Session, prompt: str = SUM, **options: Any) -> Any:
    """Have one turn; return its report, or its error. An answer is the simulator's, whole."""
    try:
        async with session.turn(prompt, **options) as turn:
            assert (await turn.wait()).text == ("4" if prompt.startswith(SUM) else prompt)
            return turn.report
    except engine.TurnError as error:
        return error


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    while not condition():  # noqa: ASYNC110 - what other programs do sets no event
        await trio.sleep(0.005)


def answered(report: Any, transport: str, attempts: int = 1) -> None:
    assert isinstance(report, engine.TurnReport), report
    assert (report.transport, report.attempts) == (transport, attempts)


def lost(error: Any, delivery: Delivery = Delivery.AMBIGUOUS, attempts: int = 1) -> None:
    assert type(error) is engine.ConnectionLost
    assert error.close_code == 1006  # nginx says no goodbye
    assert (error.delivery, error.report.attempts) == (delivery, attempts)  # type: ignore[union-attr]


def refused(error: Any, status: int, delivery: Delivery = Delivery.REJECTED, attempts: int = 1) -> None:
    assert type(error) is engine.RequestRejected
    assert error.status == status
    assert (error.code, error.type, error.message) == (None, None, ""), "a page for people is no message"
    assert (error.delivery, error.report.attempts) == (delivery, attempts)  # type: ignore[union-attr]
    assert f"status: {status}" in str(error)


# --- what passes -----------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
SNIPPET = (DOCS / "network.md").read_text("utf-8").split("```nginx\n")[1].split("```")[0]


def in_pieces(*gates: trio.Event) -> Script:
    """Answers that halt before their second delta until their gates are open."""
    return Script([[Say("so"), Gate(gate), Say(" far")] for gate in gates])


async def test_the_settings_of_the_documentation(tmp_path: Path) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "all.pem")

    def blocks(port: int, behind: int) -> str:
        changes = {
            "443": f"127.0.0.1:{port}",
            "10.0.0.5:8000": f"127.0.0.1:{behind}",
            "/etc/nginx/llm.pem": f"{tmp_path}/all.pem",
            "/etc/nginx/llm-key.pem": f"{tmp_path}/all.pem",
        }
        text = SNIPPET
        for said, meant in changes.items():
            assert text.count(said) == 1
            text = text.replace(said, meant)
        return text

    async with site(tmp_path, lambda port: "", blocks=blocks, trusting=trusting) as at:
        session = await at.eng.session("s")
        for transport, expected in ((AUTO, "websocket"), (WEBSOCKET, "websocket"), (SSE, "sse")):
            gate = trio.Event()
            at.sim.brain = in_pieces(gate)
            async with session.turn("go on", transport=transport) as turn:
                async for event in turn:
                    if isinstance(event, TextDelta):
                        gate.set()  # it has come before the next was sent
                answered(turn.report, expected)
            assert turn.message.text == "so far"
            answered(await tried(session, SUM + " " * 2_000_000, transport=transport), expected)
        assert {each.authorization for each in at.sim.connections} == {f"Bearer {at.sim.api_key}"}
        assert len([each for each in at.sim.connections if each.transport == "websocket"]) == 1


BUFFERED = functools.partial(forwarded, buffering="on", version="1.0")
"""nginx's defaults. Chunks of HTTP/1.1 are passed on as they come, whatever is said about buffering."""


@pytest.mark.parametrize("location", [forwarded, BUFFERED], ids=["off", "on"])
async def test_deltas_over_http_and_buffering(location: Callable[[int], str], tmp_path: Path) -> None:
    """With nginx's default they come late, but whole; unless the server says in its answer that they may not."""
    buffered = location is not forwarded
    gates = [trio.Event(), trio.Event()]
    async with site(tmp_path, location, transport=SSE, simulator={"brain": in_pieces(*gates)}) as at:
        one, other = await at.eng.session("one"), await at.eng.session("other")
        async with one.turn("go on") as late:
            await until(lambda: bool(at.sim.requests) and at.sim.requests[0].output_sent)
            at.sim.every_post = Accept(headers={"X-Accel-Buffering": "no"})
            async with other.turn("go on") as early:
                async for event in early:
                    if isinstance(event, TextDelta):
                        assert late.partial.text == ("" if buffered else "so")  # its first came to nginx before
                        gates[1].set()
            gates[0].set()
            deltas = [event.delta async for event in late if isinstance(event, TextDelta)]
        assert deltas == ["so", " far"]
        answered(late.report, "sse")


async def test_buffering_uses_up_the_budget_for_the_first_event(tmp_path: Path) -> None:
    gate = trio.Event()
    async with site(tmp_path, BUFFERED, transport=SSE, simulator={"brain": in_pieces(gate)}) as at:
        error = await tried(await at.eng.session("s"), timeouts=Timeouts(first_event=0.5))
        assert type(error) is engine.TurnTimeout
        assert (error.phase, error.delivery) == ("first_event", Delivery.AMBIGUOUS)
        assert at.sim.requests[0].output_sent


# --- what is cut -----------------------------------------------------------------------------------------------------


async def test_idle_connections_are_cut(tmp_path: Path) -> None:
    async with site(tmp_path, functools.partial(forwarded, further=CUT)) as at:
        eager = await at.eng.session("eager", retry=RetryPolicy(eager_reconnect=True))
        pinging = await at.eng.session("pinging", limits=Limits(ping_interval=0.2))
        lazy = await at.eng.session("lazy")
        sessions = [pinging, eager, lazy]
        for session in sessions:
            answered(await tried(session), "websocket")
        await at.watcher.until("lazy", "opened", "closed")
        await at.watcher.until("eager", "opened", "closed", "opened")
        assert [session.connected for session in sessions] == [True, True, False]
        assert len(at.sim.connections) == 4
        reports = [await tried(session) for session in sessions]
        for report in reports:
            answered(report, "websocket")
        assert [report.connection_reused for report in reports] == [True, False, False]
        assert len(at.sim.connections) == 5


async def test_silent_turns_are_cut(tmp_path: Path) -> None:
    never, gate = trio.Event(), trio.Event()
    silent = {"auto", "websocket", "http"}

    def brain(asked: Any) -> Any:
        name = asked.last_user_text
        if name in silent:
            silent.discard(name)
            return [Gate(never)]
        if name == "pinged":
            return [Gate(gate), Say(name)]
        return [Say("so"), Gate(never)] if "output" in name else name

    results: dict[str, Any] = {}

    async def have(name: str, transport: Transport, **options: Any) -> None:
        results[name] = await tried(await at.eng.session(name, **options), name, transport=transport)
        if len(results) == 5:
            gate.set()

    simulator = {"brain": brain}
    async with site(tmp_path, functools.partial(forwarded, further=CUT), simulator=simulator) as at:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(have, "pinged", AUTO, limits=Limits(ping_interval=0.2)))
            for name, transport in {
                "auto": AUTO,
                "websocket": WEBSOCKET,
                "http": SSE,
                "output": AUTO,
                "output over http": SSE,
            }.items():
                nursery.start_soon(have, name, transport)
        answered(results["pinged"], "websocket")
        answered(results["auto"], "websocket", attempts=2)
        lost(results["websocket"])
        refused(results["http"], 504, Delivery.AMBIGUOUS)
        for name in ("output", "output over http"):
            lost(results[name], Delivery.ACCEPTED)
            assert results[name].partial.text == "so"
        assert at.sim.executed == 7  # every attempt, and none of nginx's own


async def test_silence_over_http_before_the_answer(tmp_path: Path) -> None:
    """nginx answers in the server's stead, and cannot know what the server did: another risk that only AUTO takes."""
    cut = "proxy_read_timeout 500ms; if ($http_upgrade) { return 426; }"
    posts = [Accept(mute=True), HangUp(), HangUp(), Accept(), HangUp(), Accept(mute=True), HangUp()]
    async with site(tmp_path, functools.partial(forwarded, further=cut), simulator={"post": posts}) as at:
        session = await at.eng.session("s")
        refused(await tried(session, transport=SSE), 504, Delivery.AMBIGUOUS)
        refused(await tried(session, transport=SSE), 502, Delivery.AMBIGUOUS)
        report = await tried(session)
        answered(report, "sse", attempts=2)
        assert "426" in report.fallback_reason
        refused(await tried(session), 504, Delivery.AMBIGUOUS, attempts=2)
        unwilling = await tried(session, retry=RetryPolicy(resend_ambiguous=0))
        refused(unwilling, 502, Delivery.AMBIGUOUS)
        assert not at.sim.posts
        assert len(at.sim.connections) == 7  # one for each attempt


@pytest.mark.parametrize("risk", ["", "proxy_next_upstream error non_idempotent;"], ids=["default", "non_idempotent"])
async def test_requests_that_nginx_repeats(risk: str, tmp_path: Path) -> None:
    """It tries another server with an upgrade, and with a request only where it was told to: then in secret."""

    def blocks(port: int, behind: int) -> str:
        return "upstream servers {" + f" server 127.0.0.1:{behind} max_fails=0;" * 2 + "}"

    def location(port: int) -> str:
        return forwarded(port, risk).replace(f"127.0.0.1:{port}", "servers")

    simulator = {"handshake": [HangUp()], "post": [HangUp()]}
    async with site(tmp_path, location, blocks=blocks, simulator=simulator) as at:
        session = await at.eng.session("s")
        answered(await tried(session), "websocket")
        outcome = await tried(session, transport=SSE)
        if risk:
            answered(outcome, "sse")
        else:
            refused(outcome, 502, Delivery.AMBIGUOUS)
        assert not at.sim.posts


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_whose_end_is_missing(version: str, tmp_path: Path) -> None:
    """Over HTTP/1.0 nginx cannot tell that it is, and ends its own properly."""
    location = functools.partial(forwarded, version=version)
    simulator = {"brain": Script([[Say("so"), Abort()], [Created(), Abort()]])}
    async with site(tmp_path, location, transport=SSE, simulator=simulator) as at:
        session = await at.eng.session("s")
        error = await tried(session)
        assert type(error) is engine.ConnectionLost
        assert (error.delivery, error.partial.text) == (Delivery.ACCEPTED, "so")  # type: ignore[union-attr]
        assert type(await tried(session)) is engine.ConnectionLost
        answered(await tried(session), "sse")


# --- what is limited -------------------------------------------------------------------------------------------------


async def test_bodies_are_limited(tmp_path: Path) -> None:
    """That is about HTTP: what goes over a WebSocket is no body."""
    async with site(tmp_path, functools.partial(forwarded, further="client_max_body_size 10k;")) as at:
        session = await at.eng.session("s")
        for size in (20_000, 4_000_000):  # one that was sent before the answer came, and one that was not
            prompt = SUM + " " * size
            refused(await tried(session, prompt, transport=SSE), 413)
            answered(await tried(session, prompt), "websocket")
            error = await tried(session, prompt, limits=Limits(max_request_bytes=10_000))
            refused(error, 413)
            assert error.report.fallback_reason is not None
        answered(await tried(session, transport=SSE), "sse")
        assert [each.transport for each in at.sim.requests] == ["websocket", "websocket", "http"]


# --- what is refused -------------------------------------------------------------------------------------------------


def refusing(status: int) -> Callable[[int], str]:
    return functools.partial(forwarded, further=f"if ($http_upgrade) {{ return {status}; }}")


@pytest.mark.parametrize("status", [403, 404, 405, 426, 500, 503])
async def test_an_upgrade_that_nginx_refuses(status: int, tmp_path: Path) -> None:
    async with site(tmp_path, refusing(status)) as at:
        session = await at.eng.session("s")
        report = await tried(session)
        answered(report, "sse")
        assert report.fallback_reason == f"the server answered the WebSocket upgrade with status {status}"
        sticky = status in {404, 405, 426}
        assert (at.breaker.no_websocket is not None) == sticky
        assert at.breaker.failures == (1 if status >= 500 else 0)
        before = at.dialer.dials
        again = await tried(await at.eng.session("another"))
        answered(again, "sse")
        assert ("has no WebSocket" in again.fallback_reason) == sticky
        # A 403 is remembered, too, once the same key was good enough for HTTP.
        assert at.dialer.dials - before == (1 if sticky or status == 403 else 2)
        error = await tried(session, transport=WEBSOCKET, retry=RetryPolicy(back_off=()))
        assert type(error) is engine.ConnectFailed
        assert (error.status, error.stage, error.delivery) == (status, "upgrade", Delivery.NOT_SENT)
        assert error.body.startswith(b"<html>") or status == 426
        before = at.dialer.dials
        answered(await tried(session, transport=SSE), "sse")
        assert at.dialer.dials == before  # the connection of the turn before serves again
        assert {each.transport for each in at.sim.connections} == {"http"}
        if sticky:
            at.proxy.configure(forwarded(at.sim.port))
            await at.proxy.reload()
            assert "has no WebSocket" in (await tried(session)).fallback_reason
            at.eng.breakers.reset()
            answered(await tried(session), "websocket")


@pytest.mark.parametrize("status", [403, 503])
async def test_pages_for_everything(status: int, tmp_path: Path) -> None:
    async with site(tmp_path, lambda port: f"return {status};") as at:
        session = await at.eng.session("s")
        attempts = 2 if status == 503 else 1
        for transport in (AUTO, SSE):
            refused(await tried(session, transport=transport), status, attempts=attempts)
        assert at.sim.connections == []


async def test_a_server_that_is_down(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        async with site(tmp_path, lambda _: forwarded(port)) as at:
            session = await at.eng.session("s")
            for expected in ("status 502", "status 502", "breaker is open"):
                error = await tried(session)
                refused(error, 502, Delivery.AMBIGUOUS, attempts=2)
                assert expected in error.report.fallback_reason
            assert at.breaker.state is BreakerState.OPEN
            refused(await tried(session, transport=SSE), 502, Delivery.AMBIGUOUS)
            before = at.dialer.dials
            error = await tried(session, transport=WEBSOCKET)
            assert type(error) is engine.ConnectFailed
            assert (error.status, error.delivery) == (502, Delivery.NOT_SENT)
            assert at.dialer.dials - before == 1 + 5
            at.proxy.configure(forwarded(at.sim.port))
            await at.proxy.reload()
            answered(await tried(session, transport=WEBSOCKET), "websocket")
            assert at.breaker.state is BreakerState.CLOSED  # type: ignore[comparison-overlap]


async def test_an_upgrade_that_the_server_does_not_answer(tmp_path: Path) -> None:
    location = functools.partial(forwarded, further="proxy_read_timeout 500ms;")
    async with site(tmp_path, location, simulator={"handshake": [Ignore()]}) as at:
        report = await tried(await at.eng.session("s"))
        answered(report, "sse")
        assert report.fallback_reason.endswith("status 504")


async def test_upgrades_that_are_not_passed_on(tmp_path: Path) -> None:
    """What is most often forgotten: the server sees a plain GET, and says what it thinks of it."""
    async with site(tmp_path, lambda port: f"proxy_pass http://127.0.0.1:{port}; proxy_buffering off;") as at:
        session = await at.eng.session("s")
        report = await tried(session)
        answered(report, "sse")
        assert report.fallback_reason == "the server answered the WebSocket upgrade with status 426"
        assert at.breaker.no_websocket is not None
        error = await tried(session, transport=WEBSOCKET)
        assert type(error) is engine.ConnectFailed
        assert error.status == 426
        assert b"upgrade" in error.body
        answered(await tried(session, transport=SSE), "sse")


# --- being replaced --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [AUTO, SSE])
async def test_a_reload_with_a_turn_in_flight(transport: Transport, tmp_path: Path) -> None:
    gate = trio.Event()
    async with site(tmp_path, transport=transport, simulator={"brain": in_pieces(gate)}) as at:
        session = await at.eng.session("s")
        async with session.turn("go on") as turn:
            async for event in turn:
                if isinstance(event, TextDelta) and not gate.is_set():
                    at.proxy.configure("return 403;")
                    await at.proxy.reload()
                    gate.set()
            assert turn.message.text == "so far"
            assert turn.report.attempts == 1
        if transport is AUTO:
            assert (await tried(session)).connection_reused  # the old worker lives as long as this connection
            await at.eng.release("s")
            session = await at.eng.session("s")
        refused(await tried(session), 403)


async def test_a_reload_that_does_not_wait(tmp_path: Path) -> None:
    never = trio.Event()
    simulator = {"brain": Script([[Gate(never)], "4", [Say("so"), Gate(never)]])}
    async with site(tmp_path, main="worker_shutdown_timeout 100ms;", simulator=simulator) as at:
        session = await at.eng.session("s")
        async with session.turn(SUM) as turn:
            await until(lambda: at.sim.executed == 1)
            await at.proxy.reload()
            await turn.wait()
            answered(turn.report, "websocket", attempts=2)
        async with session.turn(SUM) as turn:
            await until(lambda: turn.partial.text == "so")
            await at.proxy.reload()
            with pytest.raises(engine.ConnectionLost) as caught:
                await turn.wait()
            lost(caught.value, Delivery.ACCEPTED)
            assert turn.partial.text == "so"


@pytest.mark.parametrize("over", ["websocket", "http"])
async def test_a_stop_with_a_turn_in_flight(over: str, tmp_path: Path) -> None:
    """While nginx is gone, connections wait in line here; where they are refused, see the next test."""
    never = trio.Event()
    simulator = {"brain": Script([[Gate(never)], "4", [Gate(never)], [Say("so"), Gate(never)]])}
    location = forwarded if over == "websocket" else refusing(426)
    only, answering = (WEBSOCKET, "websocket") if over == "websocket" else (SSE, "sse")
    async with site(tmp_path, location, simulator=simulator) as at:
        session = await at.eng.session("s")

        async def interrupted(count: int, text: str = "", transport: Transport = AUTO) -> Any:
            async with session.turn(SUM, transport=transport) as turn:
                await until(lambda: at.sim.executed == count and turn.partial.text == text)
                at.proxy.stop()
                at.proxy.start()
                try:
                    await turn.wait()
                except engine.TurnError as error:
                    return error
                return turn.report

        answered(await interrupted(1), answering, attempts=2)
        lost(await interrupted(3, transport=only))
        error = await interrupted(4, "so")
        lost(error, Delivery.ACCEPTED)
        assert error.partial.text == "so"
        answered(await tried(session), answering)
        assert at.sim.executed == 5


async def test_a_stop_for_good(tmp_path: Path) -> None:
    simulator = {"brain": Script([[Gate(trio.Event())]])}
    async with site(tmp_path, simulator=simulator) as at:
        session = await at.eng.session("s")
        async with session.turn(SUM) as turn:
            await until(lambda: at.sim.executed == 1)
            at.proxy.listener.close()
            at.proxy.stop()
            with pytest.raises(engine.ConnectFailed) as caught:
                await turn.wait()
        assert (caught.value.stage, caught.value.report.attempts) == ("tcp", 1)  # type: ignore[union-attr]
        assert caught.value.delivery is Delivery.AMBIGUOUS
        error = await tried(session)
        assert type(error) is engine.ConnectFailed
        assert error.delivery is Delivery.NOT_SENT
