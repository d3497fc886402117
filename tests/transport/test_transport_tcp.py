"""The same promises over real sockets and real TLS: file descriptors, resets, certificates."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from invariants import Held, contained, open_sockets, said
from raw_peer import (
    CREATED,
    DELTA,
    KEY,
    Peer,
    PeerDialer,
    WatchedTcpDialer,
    close_frame,
    completed,
    created,
    frame,
    line,
    serve,
    session_over,
)
from trio.testing import MockClock

import engine
from engine.transport.dial import TcpDialer, default_ssl_context

MIB = 1024 * 1024
SOON = 5.0
"""Seconds on the real clock that are never reached unless something hangs."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that knows the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context with a good certificate."""
    return serving(authority.issue_cert("127.0.0.1"))


@pytest.fixture(params=["tcp", "tls"])
def secured(request: pytest.FixtureRequest, trusted: ssl.SSLContext) -> ssl.SSLContext | None:
    """The server's context, None for plain TCP."""
    return trusted if request.param == "tls" else None


async def session_over_tcp(
    held: Held, script: Any, secured: ssl.SSLContext | None, trusting: ssl.SSLContext, **options: Any
) -> engine.open_session:
    port = await serve(held, script, secured)
    scheme = "ws" if secured is None else "wss"
    endpoint = engine.Endpoint(
        "http://unused.test", KEY, websocket_url=f"{scheme}://127.0.0.1:{port}/", ssl_context=trusting
    )
    return session_over(held, endpoint=endpoint, dialer=WatchedTcpDialer(held), **options)


async def answer(peer: Peer) -> None:
    await peer.accept()
    for number in range(2):
        await peer.request()
        await peer.send(created(number) + completed("fine", number))
    await peer.until_gone()


async def test_a_session_leaves_no_socket_behind(secured: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    async with contained(within=SOON) as held:
        async with await session_over_tcp(held, answer, secured, trusting) as session:
            assert (await session.ask("hi")).text == "fine"
            assert (await session.ask("x" * MIB)).text == "fine"
            assert len(open_sockets()) >= 3


# --- refusals and resets at every stage ---


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def reset_after_the_request(peer: Peer) -> None:
    await peer.read_head()
    peer.reset()


async def reset_in_the_answer(peer: Peer) -> None:
    await peer.refuse(b"HTTP/1.1 101 Switching")
    peer.reset()


@pytest.mark.parametrize("script", [reset_at_once, reset_after_the_request, reset_in_the_answer])
async def test_a_reset_before_the_upgrade_is_told(script: Any) -> None:
    async with contained(within=SOON) as held:
        port = await serve(held, script)
        attempt = line(held, dialer=WatchedTcpDialer(held), url=f"ws://127.0.0.1:{port}/")
        await attempt.run()
        assert type(attempt.error) is engine.ConnectFailed
        assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)


async def reset_when_accepted(peer: Peer) -> None:
    await peer.accept()
    await peer.request()
    peer.reset()


async def reset_in_a_frame(peer: Peer) -> None:
    await peer.accept()
    await peer.request()
    await peer.send(CREATED + DELTA[:10])
    peer.reset()


async def reset_in_the_upload(peer: Peer) -> None:
    await peer.accept()
    await peer.stream.receive_some(100_000)
    peer.reset()


async def end_in_the_upload(peer: Peer) -> None:
    await peer.accept()
    await peer.stream.receive_some(100_000)


@pytest.mark.parametrize("script", [reset_when_accepted, reset_in_a_frame, reset_in_the_upload, end_in_the_upload])
async def test_a_reset_during_a_turn_is_a_loss(script: Any, trusting: ssl.SSLContext) -> None:
    async with contained(within=SOON) as held:
        async with await session_over_tcp(held, script, None, trusting) as session:
            with pytest.raises(engine.ConnectionLost) as caught:
                await session.ask("x" * 8 * MIB)
            assert caught.value.close_code == 1006
            assert KEY not in said(caught.value)


async def test_a_reset_of_an_idle_connection_costs_the_next_turn_nothing(trusting: ssl.SSLContext) -> None:
    reset = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send(completed("fine"))
        if not reset.is_set():
            peer.reset()
            reset.set()
        else:
            await peer.until_gone()

    async with contained(within=SOON) as held:
        async with await session_over_tcp(held, script, None, trusting) as session:
            assert (await session.ask("hi")).text == "fine"
            while session.connected:
                await trio.lowlevel.checkpoint()
            assert (await session.ask("hi")).text == "fine"


async def test_a_peer_that_turns_away_from_an_upload_is_heard_out(trusting: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stream.receive_some(100_000)
        await peer.send(close_frame(1009, "too big"))  # closing with unread data makes the system send an RST behind it

    async with contained(within=SOON) as held:
        async with await session_over_tcp(held, script, None, trusting) as session:
            with pytest.raises(engine.ConnectionLost) as caught:
                await session.ask("x" * 8 * MIB)
            assert caught.value.close_code == 1009


async def test_a_port_where_nobody_listens_is_told() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with contained(within=SOON) as held:
            url = f"ws://127.0.0.1:{bound.getsockname()[1]}/"
            attempt = line(held, dialer=WatchedTcpDialer(held), url=url)
            await attempt.run()
            assert type(attempt.error) is engine.ConnectFailed
            assert attempt.error.stage == "tcp"
            assert isinstance(attempt.error.__cause__, OSError)


@pytest.mark.parametrize("status", [401, 503])
async def test_a_refusal_leaves_no_socket_behind(
    status: int, secured: ssl.SSLContext | None, trusting: ssl.SSLContext
) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % status)
        await peer.until_gone()

    async with contained(within=SOON) as held:
        port = await serve(held, refuse, secured)
        url = f"{'ws' if secured is None else 'wss'}://127.0.0.1:{port}/"
        attempt = line(held, dialer=WatchedTcpDialer(held), url=url, ssl_context=trusting)
        await attempt.run()
        assert attempt.error.status == status


# --- closing ---


async def vanish(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()


async def vanish_with_a_reset(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    stream = peer.stream.transport_stream if isinstance(peer.stream, trio.SSLStream) else peer.stream
    Peer(stream).reset()


async def vanish_behind_a_close_frame(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    await peer.send(close_frame())


@pytest.mark.parametrize("script", [vanish, vanish_with_a_reset, vanish_behind_a_close_frame])
async def test_a_peer_gone_while_we_close_is_no_failure(
    script: Any, secured: ssl.SSLContext | None, trusting: ssl.SSLContext
) -> None:
    async with contained(within=SOON) as held, trio.open_nursery() as nursery:
        port = await serve(held, script, secured)
        url = f"{'ws' if secured is None else 'wss'}://127.0.0.1:{port}/"
        whole = line(held, dialer=WatchedTcpDialer(held), url=url, ssl_context=trusting, close=60)
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        whole.socket.close()
    assert whole.failures == []


async def test_a_budget_of_zero_aborts_at_once(secured: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.until_gone(polite=False)

    async with contained(within=SOON) as held, trio.open_nursery() as nursery:
        port = await serve(held, script, secured)
        url = f"{'ws' if secured is None else 'wss'}://127.0.0.1:{port}/"
        whole = line(held, dialer=WatchedTcpDialer(held), url=url, ssl_context=trusting, close=0)
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        whole.socket.close()


async def test_a_peer_that_stopped_reading_is_left_at_once(
    secured: ssl.SSLContext | None, trusting: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with contained(within=SOON) as held, trio.open_nursery() as nursery:
        port = await serve(held, script, secured)
        url = f"{'ws' if secured is None else 'wss'}://127.0.0.1:{port}/"
        whole = line(held, dialer=WatchedTcpDialer(held), url=url, ssl_context=trusting, close=60)
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        assert await whole.socket.send("x" * 16 * MIB) is not None
        await trio.testing.wait_all_tasks_blocked(0.01)
        whole.socket.close()
    assert whole.failures == []


# --- certificates ---

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "issue",
    [
        lambda authority: authority.issue_cert("other.test"),
        lambda authority: trustme.CA().issue_cert("127.0.0.1"),
        lambda authority: authority.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=LONG_AGO),
    ],
    ids=["another name", "unknown authority", "expired"],
)
async def test_a_certificate_that_does_not_verify_is_told_with_its_cause(
    issue: Callable[[trustme.CA], trustme.LeafCert], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async def never(peer: Peer) -> None:
        pytest.fail("the handshake must not succeed")

    async with contained(within=SOON) as held:
        port = await serve(held, never, serving(issue(authority)))
        attempt = line(
            held, dialer=WatchedTcpDialer(held), url=f"wss://127.0.0.1:{port}/", ssl_context=trusting, connect=60
        )
        await attempt.run()
        assert type(attempt.error) is engine.ConnectFailed
        assert (attempt.error.stage, attempt.error.status) == ("tls", None)
        assert isinstance(attempt.error.__cause__, ssl.SSLCertVerificationError)
        assert KEY not in said(attempt.error)


async def test_without_a_context_of_its_own_an_endpoint_verifies() -> None:
    async def never(peer: Peer) -> None:
        pytest.fail("the handshake must not succeed")

    async with contained(within=SOON) as held:
        port = await serve(held, never, serving(trustme.CA().issue_cert("127.0.0.1")))
        attempt = line(held, dialer=WatchedTcpDialer(held), url=f"wss://127.0.0.1:{port}/", connect=60)
        await attempt.run()
        assert isinstance(attempt.error.__cause__, ssl.SSLCertVerificationError)
    assert default_ssl_context() is default_ssl_context()


async def test_a_plain_server_behind_a_tls_url_is_told() -> None:
    async def plain(peer: Peer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.stream.receive_some()

    async with contained(within=SOON) as held:
        port = await serve(held, plain)
        attempt = line(held, dialer=WatchedTcpDialer(held), url=f"wss://127.0.0.1:{port}/", connect=60)
        await attempt.run()
        assert attempt.error.stage == "tls"
        assert isinstance(attempt.error.__cause__, ssl.SSLError)


async def test_cancelling_a_tls_handshake_closes_the_socket() -> None:
    async def silent(peer: Peer) -> None:
        await peer.stream.receive_some()
        go.set()
        await trio.sleep_forever()

    go = trio.Event()
    async with contained(within=SOON) as held:
        port = await serve(held, silent)
        attempt = line(held, dialer=WatchedTcpDialer(held), url=f"wss://127.0.0.1:{port}/", connect=60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt.run)
            await go.wait()
            nursery.cancel_scope.cancel(reason="seen enough")


# --- names ---


class Resolver(trio.abc.HostnameResolver):
    def __init__(self, *, hang: bool) -> None:
        self.hang = hang

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.hang:
            await trio.sleep_forever()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("hang", [False, True])
async def test_a_name_that_cannot_be_resolved_is_told(autojump_clock: MockClock, hang: bool) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(hang=hang))
    async with contained(within=3 if hang else 0) as held:
        attempt = line(held, dialer=TcpDialer(), url="ws://no-such-host.test/", connect=3)
        await attempt.run()
        assert type(attempt.error) is engine.ConnectFailed
        assert attempt.error.stage == ("timeout" if hang else "dns")
        assert isinstance(attempt.error.__cause__, socket.gaierror) is not hang


# --- TLS in virtual time ---


async def test_a_whole_session_runs_over_tls_in_memory(
    autojump_clock: MockClock, trusted: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        secure = trio.SSLStream(peer.stream, trusted, server_side=True, https_compatible=True)
        inner = Peer(secure)
        await inner.accept()
        await inner.request()
        await inner.send(frame("", 9) + completed("fine"))
        await inner.until_gone(polite=False)

    endpoint = engine.Endpoint("https://127.0.0.1/v1", KEY, ssl_context=trusting)
    async with contained(within=2) as held:
        async with session_over(held, endpoint=endpoint, dialer=PeerDialer(held, script)) as session:
            assert (await session.ask("hi")).text == "fine"
