"""Through real proxies, over loopback: turns, logins, refusals, and no descriptor left."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from invariants import contained, said
from proxy_peer import tried
from raw_peer import Peer, WatchedTcpDialer, serve
from real_proxies import PASSWORD, USER, RealProxy, running

import engine
from engine.simulator import open_simulator

SOON = 20.0
"""Seconds on the real clock that are never reached unless something hangs."""

PROGRAMS = ["tinyproxy", "microsocks"]
TRANSPORTS = ["websocket", "http", "sse"]
ProxyOf = Callable[..., RealProxy]


def proxied(endpoint: engine.Endpoint, proxy: Any) -> engine.Endpoint:
    return attrs.evolve(endpoint, proxy=proxy)


def refused(error: object, proxy: RealProxy, *words: str) -> None:
    assert type(error) is engine.ConnectFailed
    assert (error.stage, error.status) == ("proxy", None)
    assert error.delivery is engine.Delivery.NOT_SENT
    assert f"proxy 127.0.0.1:{proxy.port} " in str(error)
    assert any(each in str(error) for each in words)
    assert PASSWORD not in said(error)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("login", ["", f"{USER}:{PASSWORD}"], ids=["open", "login"])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_exchange(program: str, login: str, transport: str, proxy_of: ProxyOf) -> None:
    proxy = proxy_of(program, login=bool(login))
    async with contained(within=SOON) as held, open_simulator() as sim:
        endpoint = proxied(sim.endpoint, proxy.url(login))
        assert await tried(transport, endpoint, dialer=WatchedTcpDialer(held)) in {"4", "compacted"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("login", ["", f"{USER}:another"], ids=["none", "another"])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_login_that_is_not_accepted(program: str, login: str, transport: str, proxy_of: ProxyOf) -> None:
    proxy = proxy_of(program, login=True)
    async with contained(within=SOON) as held, open_simulator() as sim:
        endpoint = proxied(sim.endpoint, proxy.url(login))
        error = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
        refused(error, proxy, "status 407", "status 401", "none of the ways to log in", "did not accept the user name")
        assert sim.connections == sim.requests == []  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_server_that_the_proxy_does_not_reach(program: str, transport: str, proxy_of: ProxyOf) -> None:
    proxy = proxy_of(program)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with contained(within=SOON) as held:
            endpoint = engine.Endpoint(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", proxy=proxy.url())
            error = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
            refused(error, proxy, "answered CONNECT with status 5", "refused: connection refused")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_proxy_that_goes_down_is_not_passed_by(program: str, tmp_path: Path) -> None:
    with running(program, tmp_path) as proxy:
        async with contained(within=SOON) as held, open_simulator() as sim:
            endpoint = proxied(sim.endpoint, proxy.url())
            assert await tried("websocket", endpoint, dialer=WatchedTcpDialer(held)) == "4"
            proxy.process.kill()
            proxy.process.wait(SOON)
            seen = len(sim.connections)
            for transport in TRANSPORTS:
                error = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
                refused(error, proxy, "could not be reached")
            assert len(sim.connections) == seen


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("program", "variable"), [("tinyproxy", "http_proxy"), ("microsocks", "ALL_PROXY")])
async def test_the_proxy_of_the_environment(
    program: str, variable: str, transport: str, proxy_of: ProxyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = proxy_of(program, login=True)
    async with contained(within=SOON), open_simulator() as sim:
        monkeypatch.setenv(variable, proxy.url())
        refused(await tried(transport, sim.endpoint), proxy, "status 407", "none of the ways to log in")
        monkeypatch.setenv(variable, proxy.url(f"{USER}:{PASSWORD}"))
        assert await tried(transport, sim.endpoint) in {"4", "compacted"}


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_dial_given_up_while_the_proxy_is_silent(scheme: str) -> None:
    async def silent(peer: Peer) -> None:
        await peer.stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    asked = trio.Event()
    async with contained(within=SOON) as held:
        port = await serve(held, silent)
        endpoint = engine.Endpoint("http://api.test/v1", proxy=f"{scheme}://127.0.0.1:{port}")
        for transport in TRANSPORTS:
            asked = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tried, transport, endpoint)
                await asked.wait()
                nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_program_that_is_missing_fails_where_it_may_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ENGINE_TEST_PROXIES", "required")
    with pytest.raises(pytest.fail.Exception, match="not installed"), running("tinyproxy", tmp_path):
        pass
    monkeypatch.delenv("ENGINE_TEST_PROXIES")
    with pytest.raises(pytest.skip.Exception, match="not installed"), running("microsocks", tmp_path):
        pass
