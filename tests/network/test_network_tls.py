"""Certificates and names, over real TLS, directly and through a real proxy, for both transports."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trustme
from invariants import contained, said
from proxy_peer import tried
from raw_peer import KEY, Peer, WatchedTcpDialer, serve
from real_proxies import RealProxy

import engine
from engine.simulator import open_simulator

SOON = 20.0
"""Seconds on the real clock that are never reached unless something hangs."""

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()
GOOD = AUTHORITY.issue_cert("127.0.0.1", "localhost", "api.test")


def serving(certificate: trustme.LeafCert, version: ssl.TLSVersion | None = None, *, ask: bool = False) -> Any:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ask:
        CLIENTS.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def trusting(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


TRUSTING = trusting()


@pytest.fixture(params=["directly", "through a proxy"])
def proxy(request: pytest.FixtureRequest, proxy_of: Callable[..., RealProxy]) -> str | None:
    return None if request.param == "directly" else proxy_of("tinyproxy").url()


@pytest.fixture(params=["websocket", "http", "sse"])
def transport(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def met(
    server: ssl.SSLContext, transport: str, proxy: str | None, *, host: str = "127.0.0.1", **options: Any
) -> Any:
    """Have an exchange with a simulator behind TLS; return what came of it."""
    options.setdefault("ssl_context", TRUSTING)
    async with contained(within=SOON) as held, open_simulator(ssl_context=server) as sim:
        endpoint = engine.Endpoint(f"https://{host}:{sim.port}/v1", KEY, proxy=proxy, **options)
        outcome = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
        assert isinstance(outcome, str) or not sim.requests
    return outcome


def refused(error: Any, words: str) -> None:
    assert type(error) is engine.ConnectFailed
    assert (error.stage, error.status) == ("tls", None)
    assert error.delivery is engine.Delivery.NOT_SENT
    assert words in str(error)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert KEY not in said(error)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_good_certificate(version: ssl.TLSVersion, transport: str, proxy: str | None) -> None:
    assert await met(serving(GOOD, version), transport, proxy) in {"4", "compacted"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (AUTHORITY.issue_cert("other.test"), "is not valid for '127.0.0.1'"),
        (AUTHORITY.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=LONG_AGO), "certificate has expired"),
        (trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer certificate"),
    ],
    ids=["another name", "expired", "unknown authority"],
)
async def test_a_bad_certificate(
    certificate: trustme.LeafCert, words: str, version: ssl.TLSVersion, transport: str, proxy: str | None
) -> None:
    error = await met(serving(certificate, version), transport, proxy)
    refused(error, words)
    assert str(error).startswith("the TLS handshake with 127.0.0.1:")
    assert ": the certificate was not accepted (" in str(error)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_without_a_context_of_its_own_an_endpoint_verifies(transport: str, proxy: str | None) -> None:
    refused(await met(serving(GOOD), transport, proxy, ssl_context=None), "the certificate was not accepted")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_certificate_that_is_asked_for(
    version: ssl.TLSVersion, transport: str, proxy: str | None
) -> None:
    ours = trusting(CLIENTS.issue_cert("client.test"))
    assert await met(serving(GOOD, version, ask=True), transport, proxy, ssl_context=ours) in {"4", "compacted"}


def objecting(context: ssl.SSLContext) -> Callable[[Peer], Any]:
    """A server that tells why it ends a handshake. Trio's SSLStream goes without a word."""

    async def script(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                await peer.send(outgoing.read())
                data = await peer.stream.receive_some()
                if not data:
                    return
                incoming.write(data)
            except ssl.SSLError:
                await peer.send(outgoing.read())
                return
            else:
                pytest.fail("the handshake must not succeed")

    return script


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("given", [False, True], ids=["none", "another authority's"])
async def test_a_client_certificate_that_is_missed(
    given: bool, version: ssl.TLSVersion, transport: str, proxy: str | None
) -> None:
    ours = trusting(AUTHORITY.issue_cert("client.test")) if given else TRUSTING
    async with contained(within=SOON) as held:
        port = await serve(held, objecting(serving(GOOD, version, ask=True)))
        endpoint = engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, ssl_context=ours, proxy=proxy)
        error = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
    refused(error, "alert")
    if version is ssl.TLSVersion.TLSv1_3 and not given:
        assert str(error).endswith("certificate required, the server asks for a client certificate")


@pytest.mark.parametrize(
    ("host", "name", "seen"),
    [("localhost", None, "localhost"), ("127.0.0.1", None, None), ("127.0.0.1", "api.test", "api.test")],
)
async def test_the_name_that_the_server_sees(
    host: str, name: str | None, seen: str | None, transport: str, proxy: str | None
) -> None:
    names: list[str | None] = []
    server = serving(GOOD)
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    assert await met(server, transport, proxy, host=host, server_hostname=name) in {"4", "compacted"}
    assert set(names) == {seen}


async def test_the_name_that_is_given_is_the_one_that_is_verified(transport: str, proxy: str | None) -> None:
    error = await met(serving(GOOD), transport, proxy, server_hostname="another.test")
    refused(error, "is not valid for 'another.test'")


async def test_the_host_field_stays_the_urls(transport: str, proxy: str | None) -> None:
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.read_head()
        heads.append(peer.head.decode().lower())
        await peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await peer.swallow()

    async with contained(within=SOON) as held:
        port = await serve(held, script, serving(GOOD))
        endpoint = engine.Endpoint(
            f"https://127.0.0.1:{port}/v1", KEY, ssl_context=TRUSTING, server_hostname="api.test", proxy=proxy
        )
        await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
        assert f"\r\nhost: 127.0.0.1:{port}\r\n" in heads[0]
        assert "api.test" not in heads[0]


async def test_a_server_without_tls(transport: str, proxy: str | None) -> None:
    async with contained(within=SOON) as held, open_simulator() as sim:
        endpoint = engine.Endpoint(f"https://127.0.0.1:{sim.port}/v1", KEY, proxy=proxy)
        refused(await tried(transport, endpoint, dialer=WatchedTcpDialer(held)), "failed: ")


async def test_a_server_that_breaks_tls_later_is_another_failure(transport: str, proxy: str | None) -> None:
    """Not every alert is an answer to our certificate, and what was sent by then may have been read."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.stream.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        await peer.swallow()

    async with contained(within=SOON) as held:
        port = await serve(held, script, serving(GOOD))
        endpoint = engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, ssl_context=TRUSTING, proxy=proxy)
        error = await tried(transport, endpoint, dialer=WatchedTcpDialer(held))
        if transport == "websocket":
            assert isinstance(error, engine.ConnectFailed)
            assert error.stage == "upgrade"
        else:
            assert isinstance(error, engine.ConnectionLost)
            assert error.delivery is engine.Delivery.AMBIGUOUS


async def test_a_server_that_is_silent(transport: str, proxy: str | None) -> None:
    async def silent(peer: Peer) -> None:
        await peer.stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    asked = trio.Event()
    async with contained(within=SOON) as held:
        port = await serve(held, silent)
        endpoint = engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, proxy=proxy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tried, transport, endpoint)
            await asked.wait()
            nursery.cancel_scope.cancel(reason="seen enough")
