"""Dialling through proxies, in memory and virtual time: what they are asked, and what goes wrong there."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trustme
from invariants import Held, contained, said
from proxy_peer import GRANTED, Net, connect, dialled, socks, tried
from raw_peer import KEY, Peer, ScriptFor, line, play
from trio.testing import MockClock

import engine
from engine.simulator import open_simulator
from engine.transport.dial import default_ssl_context
from engine.transport.proxy import ProxyDialer, dialer_to

WORDS = "words-of-the-proxys-own"
PASSWORD = "word-that-nobody-may-see"
TRANSPORTS = ["websocket", "http"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def served(authority: trustme.CA) -> ssl.SSLContext:
    return serving(authority, "api.test", "proxy.test")


def secured(script: ScriptFor, context: ssl.SSLContext) -> ScriptFor:
    """A script behind TLS."""

    async def secure(peer: Peer) -> None:
        stream = trio.SSLStream(peer.stream, context, server_side=True, https_compatible=True)
        await play(script, stream)

    return secure


def endpoint(proxy: str | None = "http://proxy.test:3128", base_url: str = "http://api.test/v1") -> engine.Endpoint:
    return engine.Endpoint(base_url, KEY, proxy=proxy)


# --- tunnels ---


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://proxy.test:3128", ("proxy.test", 3128)),
        (f"http://user:{PASSWORD}@proxy.test", ("proxy.test", 80)),
        ("https://proxy.test", ("proxy.test", 443)),
        ("socks5h://proxy.test", ("proxy.test", 1080)),
        (f"socks5h://user:{PASSWORD}@[::1]:1", ("::1", 1)),
    ],
)
async def test_a_session_through_a_proxy(
    autojump_clock: MockClock,
    transport: str,
    tls: bool,
    url: str,
    address: tuple[str, int],
    served: ssl.SSLContext,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.transport.proxy.default_ssl_context", lambda: trusting)  # that of https:// proxies
    heads: list[str] = []
    asked: list[bytes] = []
    async with contained(within=2) as held, open_simulator(in_memory=True, ssl_context=served if tls else None) as sim:

        async def onward() -> Any:
            return await sim.dialer.open_tcp("", 0)

        if url.startswith("socks"):
            script = socks(onward, asked, login=f"user:{PASSWORD}".encode() if "@" in url else None)
        else:
            script = connect(onward, heads)
        net = Net(held, secured(script, served) if url.startswith("https") else script)
        where = engine.Endpoint(
            "https://api.test/v1" if tls else "http://api.test:8080/v1", KEY, proxy=url, ssl_context=trusting
        )
        assert await tried(transport, where, dialer=net) in {"4", "compacted"}
        assert set(net.addresses) == {address}
        assert [name for name in net.names if name != "proxy.test"] == ["api.test"] * tls * len(net.addresses)
    port = 443 if tls else 8080
    if url.startswith("socks"):
        assert set(asked) == {b"api.test" + port.to_bytes(2)}
    else:
        lines = heads[0].split("\r\n")
        assert lines[:2] == [f"CONNECT api.test:{port} HTTP/1.1", f"Host: api.test:{port}"]
        authorization = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        assert (f"Proxy-Authorization: Basic {authorization}" in lines) is ("@" in url)
        assert KEY not in heads[0]


async def test_credentials_go_out_as_the_bytes_that_were_meant(autojump_clock: MockClock) -> None:
    heads: list[str] = []

    async def nothing(peer: Peer) -> None:
        await peer.swallow()

    async with contained() as held:
        net = Net(held, connect(nothing, heads))
        stream = await dialled(endpoint("http://%C3%BCser:p%40ss%3A%20w%2Frd@proxy.test"), net)
        await stream.aclose()
    assert f"Basic {base64.b64encode('üser:p@ss: w/rd'.encode()).decode()}\r\n" in heads[0]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://proxy.test", "CONNECT [::1]:8080 HTTP/1.1"),
        ("socks5://proxy.test", b"\0" * 15 + b"\1" + (8080).to_bytes(2)),
    ],
)
async def test_servers_by_address(autojump_clock: MockClock, url: str, asked: str | bytes) -> None:
    heads: list[Any] = []

    async def nothing(peer: Peer) -> None:
        await peer.swallow()

    async with contained() as held:
        net = Net(held, connect(nothing, heads) if url.startswith("http") else socks(nothing, heads))
        stream = await dialled(engine.Endpoint("http://[::1]:8080/v1", proxy=url), net)
        await stream.aclose()
    first = heads[0].split("\r\n")[0] if isinstance(heads[0], str) else heads[0]
    assert first == asked


class Resolver(trio.abc.HostnameResolver):
    """Knows one address for every name, or none."""

    def __init__(self, address: str | None) -> None:
        self.address = address

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_who_resolves_the_servers_name(autojump_clock: MockClock) -> None:
    async def nothing(peer: Peer) -> None:
        await peer.swallow()

    async def fourth(peer: Peer) -> None:
        request = await peer.stream.receive_some(100)
        asked.append(request[2:])
        await peer.send(b"\0\x5a" + bytes(6))
        await peer.swallow()

    trio.socket.set_custom_hostname_resolver(Resolver("10.1.2.3"))
    asked: list[bytes] = []
    port, address = (80).to_bytes(2), bytes([10, 1, 2, 3])
    for url, script, expected in [
        ("socks5://proxy.test", socks(nothing, asked), address + port),
        ("socks5h://proxy.test", socks(nothing, asked), b"api.test" + port),
        ("socks4://me@proxy.test", fourth, port + address + b"me\0"),
        ("socks4a://proxy.test", fourth, port + b"\0\0\0\1\0api.test\0"),
    ]:
        async with contained() as held:
            stream = await dialled(endpoint(url), Net(held, script))
            await stream.aclose()
        assert asked.pop() == expected


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_whose_name_nobody_knows(autojump_clock: MockClock, transport: str) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(None))
    async with contained(within=2) as held:
        error = await tried(transport, endpoint("socks5://proxy.test"), dialer=Net(held, socks(lambda: None)))  # type: ignore[arg-type]
        assert isinstance(error, engine.ConnectFailed)
        assert (error.stage, str(error)) == ("dns", "the host name of api.test could not be resolved")


@pytest.mark.parametrize(
    "parts",
    [
        [bytes([byte]) for byte in GRANTED],
        [b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", GRANTED],
        [b"HTTP/1.0 200 OK\n\n"],
        [b"HTTP/1.1 200\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + 15_000 * b"x", b"\r\n\r\n"],
    ],
    ids=["byte by byte", "interim", "bare line feeds", "without a reason", "long"],
)
async def test_answers_of_a_proxy_in_any_form(autojump_clock: MockClock, parts: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        for part in parts:
            await peer.send(part)
            await trio.testing.wait_all_tasks_blocked()
        assert await peer.stream.receive_some() == b"hello"
        await peer.send(b"welcome")
        await peer.swallow()

    async with contained() as held:
        stream = await dialled(endpoint(), Net(held, script))
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"welcome"
        await stream.aclose()


async def test_what_a_socks_server_says_in_a_hurry_is_not_lost(autojump_clock: MockClock) -> None:
    """Unlike the answer to CONNECT, that of SOCKS has a length, so what follows is left where it is."""

    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(b"\5\0")
        await peer.stream.receive_some(100)
        await peer.send(b"\5\0\0\3\4name\0\1" + b"first")
        await peer.swallow()

    async with contained() as held:
        stream = await dialled(endpoint("socks5h://proxy.test"), Net(held, script))
        assert await stream.receive_some() == b"first"
        await stream.aclose()


# --- what goes wrong ---


def answering(*answers: bytes | None) -> ScriptFor:
    """Answers whatever is sent, then stays. An empty answer: hangs up without being asked; None: when asked."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            if answer != b"":
                await peer.stream.receive_some(65536)
            if not answer:
                return
            await peer.send(answer)
        await peer.swallow()

    return script


async def resetting(peer: Peer) -> None:
    await peer.stream.receive_some(65536)
    peer.reset()
    await trio.sleep_forever()  # an end that is closed after all looks like one that was never reset


async def gone(peer: Peer) -> None:
    peer.reset()
    await trio.sleep_forever()


async def endless(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await peer.send(b"X: " + 1000 * b"y" + b"\r\n")


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} {WORDS}\r\nProxy-Authenticate: {WORDS}\r\nContent-Length: 5\r\n\r\n{WORDS}".encode()


NONSENSE = "gave an answer that makes no sense"
NO_HTTP = "does not answer in HTTP"
ENDED = "closed the connection before it had answered"
BROKE = "broke before it had answered"
HTTP_FAULTS: list[tuple[ScriptFor, str]] = [
    (answering(status(407)), "answered CONNECT with status 407 (Proxy Authentication Required)"),
    (answering(status(403)), "answered CONNECT with status 403 (Forbidden)"),
    (answering(status(502)), "answered CONNECT with status 502 (Bad Gateway)"),
    (answering(status(599)), "answered CONNECT with status 599"),
    (answering(status(302)), "answered CONNECT with status 302 (Found)"),
    (answering(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered CONNECT with status 204 (No Content)"),
    (answering(GRANTED + b"HTTP/1.1 101 " + WORDS.encode()), "sent more than the answer to CONNECT"),
    (answering(f"SSH-2.0-{WORDS}\r\n".encode()), NO_HTTP),
    (answering(f"HTTP/2 200 {WORDS}\r\n\r\n".encode()), NO_HTTP),
    (answering(f"HTTP/1.1 2000 {WORDS}\r\n\r\n".encode()), NO_HTTP),
    (answering("HTTP/1.1 ２００ OK\r\n\r\n".encode()), NO_HTTP),
    (answering(b"\r\n\r\n"), NO_HTTP),
    (answering(b"\x15\x03\x01\x00\x02\x02\x16"), NO_HTTP),
    (endless, NO_HTTP),
    (answering(None), ENDED),
    (answering(b"HTTP/1.1 200 OK\r\n", b""), ENDED),
    (resetting, BROKE),
    (gone, BROKE),
]
SOCKS5_FAULTS: list[tuple[ScriptFor, str]] = [
    (answering(b"\5\xff"), "accepts none of the ways to log in that it was offered"),
    (answering(b"\5\2", b"\1\1"), "did not accept the user name and password"),
    (answering(b"\5\0", b"\5\1\0"), "refused: general socks server failure"),
    (answering(b"\5\0", b"\5\2\0"), "refused: connection not allowed by ruleset"),
    (answering(b"\5\0", b"\5\3\0"), "refused: network unreachable"),
    (answering(b"\5\0", b"\5\4\0"), "refused: host unreachable"),
    (answering(b"\5\0", b"\5\5\0\1" + bytes(6)), "refused: connection refused by destination host"),
    (answering(b"\5\0", b"\5\x09\0"), NONSENSE),
    (answering(b"\5\0", b"\5\0\1"), NONSENSE),
    (answering(b"\5\0", b"\5\0\0\7"), NONSENSE),
    (answering(b"\5\0", b"\5\0\0\3\4\xff\xff\xff\xff\0\0"), NONSENSE),
    (answering(b"\5\0", b"\4\0\0"), NONSENSE),
    (answering(b"\5\1"), NONSENSE),
    (answering(b"\5\7"), NONSENSE),
    (answering(b"\5\2", b"\2\0"), NONSENSE),
    (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), NONSENSE),
    (answering(None), ENDED),
    (answering(b"\5", b""), ENDED),
    (answering(b"\5\0", None), ENDED),
    (answering(b"\5\2", None), ENDED),
    (answering(b"\5\0", b"\5\0\0\1", b""), ENDED),
    (resetting, BROKE),
    (gone, BROKE),
]
SOCKS4_FAULTS: list[tuple[ScriptFor, str]] = [
    (answering(b"\0\x5b" + bytes(6)), "refused: request rejected or failed"),
    (answering(b"\0\x01" + bytes(6)), NONSENSE),
    (answering(b"\5\x5a" + bytes(6)), NONSENSE),
    (answering(b"\0\x5a", b""), ENDED),
]
FAULTS = [
    pytest.param(f"{scheme}://{login}proxy.test:3128", script, words, id=f"{scheme}-{number}-{words[:20]}")
    for scheme, login, faults in [
        ("http", f"user:{PASSWORD}@", HTTP_FAULTS),
        ("socks5h", f"user:{PASSWORD}@", SOCKS5_FAULTS),
        ("socks4a", "user@", SOCKS4_FAULTS),
    ]
    for number, (script, words) in enumerate(faults)
]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("proxy", "script", "words"), FAULTS)
async def test_what_a_proxy_can_do_to_us(
    autojump_clock: MockClock, transport: str, proxy: str, script: ScriptFor, words: str
) -> None:
    async with contained(within=2) as held:
        net = Net(held, script)
        error = await tried(transport, endpoint(proxy), dialer=net)
        assert type(error) is engine.ConnectFailed
        assert (error.stage, error.status, error.headers, error.body) == ("proxy", None, (), b"")
        assert error.delivery is engine.Delivery.NOT_SENT
        assert str(error).startswith("connecting to api.test failed: the ")
        assert "proxy proxy.test:3128 " in str(error)
        assert words in str(error)
        for secret in (WORDS, PASSWORD, KEY, base64.b64encode(f"user:{PASSWORD}".encode()).decode()):
            assert secret not in said(error)
        assert set(net.addresses) == {("proxy.test", 3128)}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ConnectionRefusedError("no"), "the proxy proxy.test:3128 could not be reached"),
        (trio.BrokenResourceError("no"), "the proxy proxy.test:3128 could not be reached"),
        (socket.gaierror(socket.EAI_NONAME, "no"), "the host name of the proxy proxy.test:3128 could not be resolved"),
        (UnicodeError("no"), "the host name of the proxy proxy.test:3128 could not be resolved"),
    ],
)
async def test_a_proxy_that_is_down_is_not_passed_by(
    autojump_clock: MockClock, transport: str, failure: Exception, words: str
) -> None:
    class Down(Net):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            self.addresses.append((host, port))
            await trio.lowlevel.checkpoint()
            raise failure

    async with contained(within=2) as held:
        net = Down(held)
        error = await tried(transport, endpoint(f"http://user:{PASSWORD}@proxy.test:3128"), dialer=net)
        assert isinstance(error, engine.ConnectFailed)
        assert (error.stage, str(error)) == ("proxy", f"connecting to api.test failed: {words}")
        assert error.__cause__ is failure
        assert PASSWORD not in said(error)
        assert set(net.addresses) == {("proxy.test", 3128)}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_dialer_with_a_bug_is_not_taken_for_a_proxy(autojump_clock: MockClock, transport: str) -> None:
    class Mistaken(Net):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

    async with contained(within=2) as held:
        error = await tried(transport, endpoint(), dialer=Mistaken(held))
        assert isinstance(error, engine.ConnectFailed)
        assert error.stage == "tcp"
        assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("url", "answers"),
    [
        ("http://proxy.test:3128", []),
        ("http://proxy.test:3128", [b"HTTP/1.1 200 OK\r\n"]),
        ("http://proxy.test:3128", [b"HTTP/1.1 100 Continue\r\n\r\n"]),
        ("https://proxy.test:3128", []),
        ("socks5h://u:p@proxy.test:3128", []),
        ("socks5h://u:p@proxy.test:3128", [b"\5\2"]),
        ("socks5h://u:p@proxy.test:3128", [b"\5\2", b"\1\0"]),
        ("socks5h://u:p@proxy.test:3128", [b"\5\2", b"\1\0", b"\5\0\0\1"]),
    ],
)
async def test_a_silent_proxy_costs_the_connect_budget(
    autojump_clock: MockClock, url: str, answers: list[bytes]
) -> None:
    async with contained(within=3) as held:
        net = Net(held, answering(*answers))
        attempt = line(held, dialer=dialer_to(endpoint(url), net), url="ws://api.test/v1/responses", connect=3)
        await attempt.run()
        assert (attempt.error.stage, attempt.failed_at) == ("timeout", 3)
        assert str(attempt.error) == "connecting to api.test through the proxy proxy.test:3128 took longer than 3 s"
    async with contained(within=3) as held:
        net = Net(held, answering(*answers))
        timeouts = engine.Timeouts(connect=3)
        error = await tried("http", endpoint(url), dialer=net, timeouts=timeouts)
        assert isinstance(error, engine.ConnectFailed)
        assert error.stage == "timeout"
        assert "through the proxy proxy.test:3128 took longer than 3 s" in str(error)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_proxy_without_a_certificate_we_trust(
    autojump_clock: MockClock, transport: str, authority: trustme.CA, served: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """The endpoint's own context is not for the proxy, which would be shown the client certificate in it."""

    async def never(peer: Peer) -> None:
        await peer.read_head()
        pytest.fail("must not be asked")

    where = attrs.evolve(endpoint("https://proxy.test:3128"), ssl_context=trusting)
    async with contained(within=2) as held:
        error = await tried(transport, where, dialer=Net(held, secured(never, served)))
        assert isinstance(error, engine.ConnectFailed)
        assert error.stage == "proxy"
        assert "the TLS handshake with the proxy proxy.test:3128 failed: the certificate was not accepted" in str(error)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("script", "words"), [(resetting, "failed"), (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "failed: ")]
)
async def test_a_proxy_that_does_not_speak_tls(
    autojump_clock: MockClock, transport: str, script: ScriptFor, words: str
) -> None:
    async with contained(within=2) as held:
        error = await tried(transport, endpoint("https://proxy.test:3128"), dialer=Net(held, script))
        assert isinstance(error, engine.ConnectFailed)
        assert error.stage == "proxy"
        assert f"the TLS handshake with the proxy proxy.test:3128 {words}" in str(error)


# --- who is asked ---


async def test_a_dialer_that_is_given_is_not_led_by_the_environment(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense")
    async with open_simulator(in_memory=True) as sim:
        assert await tried("websocket", sim.endpoint, dialer=sim.dialer) == "4"
        assert await tried("http", sim.endpoint, dialer=sim.dialer) == "compacted"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_servers_that_are_exempt_are_reached_directly(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with contained() as held, open_simulator() as sim:
            monkeypatch.setenv("HTTP_PROXY", down)
            error = await tried(transport, sim.endpoint)
            assert isinstance(error, engine.ConnectFailed)
            assert error.stage == "proxy"
            assert await tried(transport, attrs.evolve(sim.endpoint, proxy=None)) in {"4", "compacted"}
            monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
            assert await tried(transport, sim.endpoint) in {"4", "compacted"}
            error = await tried(transport, attrs.evolve(sim.endpoint, proxy=down))  # NO_PROXY says nothing of this one
            assert isinstance(error, engine.ConnectFailed)
            assert error.stage == "proxy"
            assert held.elapsed < 30


async def test_each_url_of_an_endpoint_has_its_own_proxy(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://one.test:1")
    monkeypatch.setenv("HTTP_PROXY", "http://two.test:2")
    monkeypatch.setenv("NO_PROXY", "exempt.test")
    both = engine.Endpoint("http://api.test/v1", websocket_url="wss://api.test/socket")
    routes = dialer_to(both, None)
    assert isinstance(routes, ProxyDialer)
    assert {address: str(proxy) for address, proxy in routes.routes.items()} == {
        ("api.test", 443): "one.test:1",
        ("api.test", 80): "two.test:2",
    }
    half = engine.Endpoint("http://exempt.test/v1", websocket_url="wss://api.test/socket")
    routes = dialer_to(half, None)
    assert isinstance(routes, ProxyDialer)
    assert routes.routes["exempt.test", 80] is None
    assert not isinstance(dialer_to(engine.Endpoint("http://exempt.test/v1"), None), ProxyDialer)
    assert not isinstance(dialer_to(engine.Endpoint("http://api.test/v1", proxy=None), None), ProxyDialer)


async def test_a_server_that_nobody_decided_about_is_not_reached(autojump_clock: MockClock) -> None:
    async with contained() as held:
        net = Net(held, connect(lambda: None))  # type: ignore[arg-type]
        dialer = dialer_to(endpoint(), net)
        with pytest.raises(OSError, match="not decided"):
            await dialer.open_tcp("elsewhere.test", 80)
        assert net.dials == 0


async def test_a_half_exempt_endpoint_goes_both_ways(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.swallow()

    async with contained() as held:
        net = Net(held, script)
        dialer = ProxyDialer(net, {("api.test", 80): None})
        await (await dialer.open_tcp("api.test", 80)).aclose()
        assert net.addresses == [("api.test", 80)]


# --- leaving ---


class Steps(trio.abc.Instrument):
    """Cancels a scope before one step of any task."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="struck")


async def swept(run: Callable[[Held], Awaitable[object]], *, every: int = 1) -> int:
    """Cancel at one step after the other, until there are none left; return about how many there were."""
    for step in range(1, 5000, every):
        async with contained(within=2) as held:
            with trio.CancelScope() as scope:
                steps = Steps(step, scope)
                trio.lowlevel.add_instrument(steps)
                try:
                    await run(held)
                finally:
                    trio.lowlevel.remove_instrument(steps)
        if steps.left > 0:
            return step
    raise AssertionError


@pytest.mark.parametrize(
    ("url", "tls", "least"),
    [
        ("http://u:p@proxy.test", False, 8),
        ("http://u:p@proxy.test", True, 18),
        ("https://proxy.test", True, 35),
        ("socks5://u:p@proxy.test", True, 30),
        ("socks4://proxy.test", False, 8),
    ],
)
async def test_a_dial_cancelled_at_any_step_leaves_nothing(
    autojump_clock: MockClock,
    url: str,
    tls: bool,
    least: int,
    served: ssl.SSLContext,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.transport.proxy.default_ssl_context", lambda: trusting)
    trio.socket.set_custom_hostname_resolver(Resolver("10.1.2.3"))

    async def server(peer: Peer) -> None:
        if tls:
            await secured(Peer.swallow, served)(peer)
        else:
            await peer.swallow()

    async def fourth(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(b"\0\x5a" + bytes(6))
        await server(peer)

    def script() -> ScriptFor:
        if url.startswith("socks5"):
            return socks(server, login=b"u:p")
        if url.startswith("socks4"):
            return fourth
        return secured(connect(server), served) if url.startswith("https") else connect(server)

    async def run(held: Held) -> None:
        stream = await dialled(endpoint(url), Net(held, script()), trusting if tls else None)
        await trio.aclose_forcefully(stream)

    assert await swept(run) > least


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_exchange_cancelled_at_many_steps_leaves_nothing(autojump_clock: MockClock, transport: str) -> None:
    async def run(held: Held) -> None:
        async with open_simulator(in_memory=True) as sim:

            async def onward() -> Any:
                return await sim.dialer.open_tcp("", 0)

            net = Net(held, connect(onward))
            assert await tried(transport, endpoint(), dialer=net) in {"4", "compacted"}

    assert await swept(run, every=2) > 40


# --- redirections ---


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("proxy", [None, "http://proxy.test:3128"], ids=["directly", "through a proxy"])
@pytest.mark.parametrize("code", [302, 307, 308])
@pytest.mark.parametrize("target", ["http://elsewhere.test/v1", "wss://elsewhere.test:9/", "//elsewhere.test/"])
async def test_nobody_is_followed_elsewhere(
    autojump_clock: MockClock, transport: str, proxy: str | None, code: int, target: str
) -> None:
    heads: list[str] = []

    async def server(peer: Peer) -> None:
        await peer.read_head()
        assert KEY in peer.head.decode()
        await peer.send(f"HTTP/1.1 {code} Go\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        await peer.swallow()

    async with contained(within=2) as held:
        net = Net(held, server if proxy is None else connect(server, heads))
        error = await tried(transport, endpoint(proxy), dialer=net)
        assert isinstance(error, engine.ConnectFailed | engine.RequestRejected)
        assert error.status == code
        assert set(net.addresses) == {("api.test", 80) if proxy is None else ("proxy.test", 3128)}
        assert all("elsewhere" not in head for head in heads)


def test_one_context_is_shared() -> None:
    assert default_ssl_context() is default_ssl_context()
