"""From dialling to the upgrade, in memory and virtual time."""

from __future__ import annotations

import socket
import ssl
from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.testing
from invariants import Held, contained, said
from raw_peer import CLOSE, CREATED, KEY, Line, Peer, PeerDialer, ScriptFor, close_frame, event, frame, line, pipe
from trio.testing import MockClock

import engine
from engine.transport.dial import TcpDialer


async def fail_to_connect(script: ScriptFor, *, within: float, **options: Any) -> Line:
    """Live a whole line that never opens; return it."""
    async with contained(within=within) as held:
        attempt = line(held, script, **options)
        await attempt.run()
        assert attempt.opened_at is None
        assert KEY not in said(attempt.error)
    return attempt


async def silent(peer: Peer) -> None:
    await trio.sleep_forever()


# --- no answer ---


async def test_a_silent_peer_costs_exactly_the_connect_budget(autojump_clock: MockClock) -> None:
    attempt = await fail_to_connect(silent, within=10, connect=10)
    error = attempt.error
    assert type(error) is engine.ConnectFailed
    assert (error.stage, error.status, attempt.failed_at, attempt.ended_at) == ("timeout", None, 10, 10)


async def test_a_peer_that_reads_and_stays_silent_costs_exactly_the_connect_budget(autojump_clock: MockClock) -> None:
    async def read_on(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    attempt = await fail_to_connect(read_on, within=3, connect=3)
    assert (attempt.error.stage, attempt.error.status, attempt.ended_at) == ("timeout", None, 3)


async def test_the_budget_counts_from_the_dial_over_all_stages(autojump_clock: MockClock) -> None:
    class Slow(PeerDialer):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            await trio.sleep(2)
            return await super().open_tcp(host, port)

    async def key() -> str:
        await trio.sleep(1)
        return KEY

    async with contained(within=4) as held:
        attempt = line(held, dialer=Slow(held, silent), api_key=key, connect=4)
        await attempt.run()
        assert (attempt.error.stage, attempt.ended_at) == ("timeout", 4)


async def test_without_a_budget_a_slow_answer_is_waited_for(autojump_clock: MockClock) -> None:
    async def slow(peer: Peer) -> None:
        await trio.sleep(10_000)
        await peer.accept()
        await peer.until_gone()

    async with contained() as held, trio.open_nursery() as nursery:
        patient = line(held, slow, connect=float("inf"))
        nursery.start_soon(patient.run)
        await patient.opened.wait()
        assert patient.opened_at == 10_000
        patient.socket.close()


async def hang_up(peer: Peer) -> None:
    await peer.read_head()


async def hang_up_midway(peer: Peer) -> None:
    await peer.refuse(b"HTTP/1.1 101 Switch")


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def reset_after_the_request(peer: Peer) -> None:
    await peer.read_head()
    peer.reset()


async def reset_midway(peer: Peer) -> None:
    await peer.refuse(b"HTTP/1.1 101 Switch")
    peer.reset()


@pytest.mark.parametrize("script", [hang_up, hang_up_midway, reset_at_once, reset_after_the_request, reset_midway])
async def test_an_end_before_the_answer_is_told_at_once(autojump_clock: MockClock, script: ScriptFor) -> None:
    attempt = await fail_to_connect(script, within=0)
    assert type(attempt.error) is engine.ConnectFailed
    assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)


# --- refusals ---

REFUSALS = {
    "a length": b"content-length: 6\r\n\r\nsorry!",
    "no length, and the end of the stream": b"connection: close\r\n\r\nsorry!",
    "chunks": b"transfer-encoding: chunked\r\n\r\n2\r\nso\r\n4\r\nrry!\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426, 429, 503, 200, 302])
@pytest.mark.parametrize("framing", REFUSALS)
async def test_a_refusal_is_told_at_once_with_status_headers_and_body(
    autojump_clock: MockClock, status: int, framing: str
) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 %d Whatever\r\nRetry-After: 7\r\n" % status + REFUSALS[framing])
        if framing != "no length, and the end of the stream":
            await trio.sleep_forever()

    attempt = await fail_to_connect(refuse, within=0)
    error = attempt.error
    assert error.status == status
    if status == 401:
        assert type(error) is engine.AuthenticationFailed
        return
    assert type(error) is engine.ConnectFailed
    assert error.stage == "upgrade"
    assert ("retry-after", "7") in tuple(error.headers)
    assert error.body == b"sorry!"
    assert "sorry" not in str(error) + repr(error)


async def test_the_words_of_a_401_are_kept(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        body = b'{"error": {"message": "Wrong key.", "type": "invalid_request_error", "code": "invalid_api_key"}}'
        head = b"HTTP/1.1 401 No\r\nX-Request-Id: req_7\r\ncontent-length: %d\r\n\r\n" % len(body)
        await peer.refuse(head + body)
        await trio.sleep_forever()

    error = (await fail_to_connect(refuse, within=0)).error
    assert type(error) is engine.AuthenticationFailed
    assert (error.status, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")
    assert (error.message, error.request_id) == ("Wrong key.", "req_7")
    assert "invalid_api_key" in str(error)
    assert "Wrong" not in str(error) + repr(error)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: 100\r\n\r\n", b"so"),
        (b"transfer-encoding: chunked\r\n\r\n2\r\n", b"so"),
        (b"\r\n", b"so"),
        (b"content-length: 100\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("status", [401, 429])
async def test_a_body_that_comes_late_is_waited_for_a_fifth_of_a_second(
    autojump_clock: MockClock, framing: bytes, body: bytes, status: int
) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 %d No\r\n" % status + framing)
        await trio.sleep(0.1)
        await peer.send(body or b"")
        await trio.sleep(0.5)
        await peer.send(b"rry")
        await trio.sleep_forever()

    attempt = await fail_to_connect(refuse, within=0.2)
    assert attempt.failed_at == pytest.approx(0.2)
    assert attempt.error.status == status
    if status != 401:
        assert attempt.error.body == body


async def test_an_endless_body_is_cut(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 503 No\r\n\r\n")
        while True:
            await peer.send(b"x" * 4096)
            await trio.sleep(0.01)

    attempt = await fail_to_connect(refuse, within=0.2)
    assert attempt.error.status == 503
    assert attempt.error.body == b"x" * 16384
    assert attempt.failed_at == pytest.approx(0.03)  # enough is enough


async def test_a_body_that_trickles_for_ever_is_cut_by_time(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 503 No\r\n\r\n")
        while True:
            await peer.send(b"x")
            await trio.sleep(0.03)

    attempt = await fail_to_connect(refuse, within=0.2)
    assert attempt.error.body == b"x" * 7


async def test_a_refusal_at_the_very_end_of_the_budget_is_still_told(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep(9.9)
        await peer.send(b"HTTP/1.1 429 Slow down\r\ncontent-length: 9\r\n\r\nslo")
        await trio.sleep_forever()

    attempt = await fail_to_connect(refuse, within=10)
    assert (attempt.error.status, attempt.error.body) == (429, b"slo")


async def test_a_refusal_split_byte_by_byte_is_told(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_head()
        for byte in b"HTTP/1.1 403 Forbidden\r\nx: " + b"y" * 3000 + b"\r\ncontent-length: 2\r\n\r\nno":
            await peer.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep_forever()

    attempt = await fail_to_connect(refuse, within=0)
    assert (attempt.error.status, attempt.error.body) == (403, b"no")


async def test_a_refusal_with_bare_line_feeds_is_told(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.0 503 Busy\nretry-after: 3\n\n")

    attempt = await fail_to_connect(refuse, within=0)
    assert attempt.error.status == 503


async def test_a_refusal_whose_body_ends_in_a_reset_is_told(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 20\r\n\r\nhalf")
        peer.reset()

    attempt = await fail_to_connect(refuse, within=0)
    assert (attempt.error.status, attempt.error.body) == (403, b"half")


async def test_a_refusal_sent_before_the_request_was_read_is_told(autojump_clock: MockClock) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        peer.reset()

    attempt = await fail_to_connect(refuse, within=0.2)
    assert attempt.error.status == 403


# --- what is no answer to an upgrade ---


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\r\n\r\n", b"HTTX"])
@pytest.mark.parametrize("at_a_time", [1, 1000])
async def test_what_is_not_http_is_told_at_once(autojump_clock: MockClock, answer: bytes, at_a_time: int) -> None:
    async def babble(peer: Peer) -> None:
        await peer.read_head()
        for start in range(0, len(answer), at_a_time):
            await peer.send(answer[start : start + at_a_time])
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep_forever()

    attempt = await fail_to_connect(babble, within=0)
    assert type(attempt.error) is engine.ConnectFailed
    assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)
    assert "not HTTP" in str(attempt.error)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 ok\r\nno colon\r\n\r\n", b"HTTP/\r\n\r\n"])
async def test_a_broken_head_is_told_at_once(autojump_clock: MockClock, answer: bytes) -> None:
    async def babble(peer: Peer) -> None:
        await peer.refuse(answer)
        await trio.sleep_forever()

    attempt = await fail_to_connect(babble, within=0)
    assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"), "has a Sec-WebSocket-Accept that does not belong"),
        ((b"Sec-WebSocket-Accept: ", b"X-Accept: "), "has no Sec-WebSocket-Accept"),
        ((b"Upgrade: websocket\r\n", b""), "has no 'Upgrade: websocket'"),
        ((b"Connection: Upgrade\r\n", b"Connection: close\r\n"), "has no 'Connection: Upgrade'"),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), "names a subprotocol that was not asked for"),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "names an extension"),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"), "names a subprotocol"),
        ((b"\r\n\r\n", b"\r\nno colon\r\n\r\n"), "is not valid HTTP"),
    ],
)
async def test_an_acceptance_that_is_not_valid_is_told_at_once_with_what_is_wrong(
    autojump_clock: MockClock, change: tuple[bytes, bytes], words: str
) -> None:
    async def accept_wrongly(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(peer.acceptance().replace(*change))
        await trio.sleep_forever()

    attempt = await fail_to_connect(accept_wrongly, within=0)
    assert type(attempt.error) is engine.ConnectFailed
    assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)
    assert f"the server's answer to the upgrade {words}" in str(attempt.error)
    assert not isinstance(attempt.error.__cause__, BaseExceptionGroup)


@pytest.mark.parametrize("pause", [0, 0.001])
async def test_an_endless_head_is_cut(autojump_clock: MockClock, pause: float) -> None:
    sent = 0

    async def go_on(peer: Peer) -> None:
        nonlocal sent
        await peer.refuse(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(b"x: y\r\n" * 100)
            sent += 600
            await trio.sleep(pause)

    attempt = await fail_to_connect(go_on, within=1)
    assert (attempt.error.stage, attempt.error.status) == ("upgrade", None)
    assert sent < 1_000_000


async def test_endless_interim_answers_end_with_the_budget(autojump_clock: MockClock) -> None:
    async def go_on(peer: Peer) -> None:
        await peer.read_head()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await trio.sleep(0.5)

    attempt = await fail_to_connect(go_on, within=10)
    assert (attempt.error.stage, attempt.ended_at) == ("timeout", 10)


# --- acceptances in unusual pieces ---


async def open_and_close(held: Held, script: ScriptFor, *, messages: int) -> Line:
    opened = line(held, script)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.run)
        await opened.opened.wait()
        while len(opened.messages) < messages and not opened.failures:
            await trio.testing.wait_all_tasks_blocked()
        opened.socket.close()
    return opened


async def test_frames_in_the_segment_of_the_head_are_not_lost(autojump_clock: MockClock) -> None:
    async def accept(peer: Peer) -> None:
        await peer.accept(CREATED + frame("two") + frame("three")[:3])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(frame("three")[3:])
        await peer.until_gone()

    async with contained(within=2) as held:
        opened = await open_and_close(held, accept, messages=3)
        assert opened.messages[1:] == ["two", "three"]
        assert opened.failures == []


async def test_an_acceptance_split_byte_by_byte_is_an_acceptance(autojump_clock: MockClock) -> None:
    async def accept(peer: Peer) -> None:
        await peer.read_head()
        head = peer.acceptance().replace(b"\r\n\r\n", b"\r\nx-filler: " + b"y" * 2000 + b"\r\n\r\n")
        for byte in head + frame("one"):
            await peer.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await peer.until_gone()

    async with contained(within=2) as held:
        opened = await open_and_close(held, accept, messages=1)
        assert opened.messages == ["one"]
        assert dict(opened.socket.handshake_headers)["x-filler"] == "y" * 2000


@pytest.mark.parametrize("together", [True, False])
async def test_interim_answers_are_passed_over(autojump_clock: MockClock, together: bool) -> None:
    async def accept(peer: Peer) -> None:
        await peer.read_head()
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        if together:
            await peer.send(interim + peer.acceptance() + frame("one"))
        else:
            await peer.send(interim)
            await trio.sleep(1)
            await peer.send(peer.acceptance() + frame("one"))
        await peer.until_gone()

    async with contained(within=4) as held:
        opened = await open_and_close(held, accept, messages=1)
        assert opened.messages == ["one"]


@pytest.mark.parametrize("said_before", [b"", event(type="error", code="x")])
async def test_an_upgrade_and_a_close_in_one_segment_is_a_loss_told_after_what_was_said(
    autojump_clock: MockClock, said_before: bytes
) -> None:
    async def accept(peer: Peer) -> None:
        await peer.accept(said_before + close_frame(1008, "secret words"))
        await peer.until_gone()
        assert peer.frames == [CLOSE]

    async with contained(within=0) as held:
        brief = line(held, accept)
        await brief.run()
        assert len(brief.messages) == (1 if said_before else 0)
        assert type(brief.error) is engine.ConnectionLost
        assert (brief.error.close_code, brief.error.close_reason) == (1008, "secret words")


async def test_an_end_of_the_stream_behind_the_acceptance_is_a_loss(autojump_clock: MockClock) -> None:
    async def accept(peer: Peer) -> None:
        await peer.accept()

    async with contained(within=0) as held:
        brief = line(held, accept)
        await brief.run()
        assert type(brief.error) is engine.ConnectionLost
        assert brief.error.close_code == 1006


# --- before there is a stream ---


class Refusing(PeerDialer):
    """Fails where it is told to."""

    def __init__(self, held: Held, error: Exception) -> None:
        super().__init__(held, silent)
        self.error = error

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise self.error


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (socket.gaierror(-2, "Name or service not known"), "dns"),
        (UnicodeError("label too long"), "dns"),
        (ConnectionRefusedError(111, "refused"), "tcp"),
        (OSError("all attempts to connect failed"), "tcp"),
        (ZeroDivisionError("a bug in the dialer"), "tcp"),
        (ExceptionGroup("a bug in the dialer", [ValueError("x")]), "tcp"),
    ],
)
async def test_a_dial_that_fails_tells_its_stage_and_cause(
    autojump_clock: MockClock, error: Exception, stage: str
) -> None:
    async with contained(within=0) as held:
        attempt = line(held, dialer=Refusing(held, error))
        await attempt.run()
        assert type(attempt.error) is engine.ConnectFailed
        assert (attempt.error.stage, attempt.error.status) == (stage, None)
        assert attempt.error.__cause__ is error


async def test_a_context_that_cannot_be_used_leaves_no_stream_open(autojump_clock: MockClock) -> None:
    class Unusable(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            raise ValueError("server_hostname cannot start with a leading dot")

    async with contained(within=0) as held:
        context = Unusable(ssl.PROTOCOL_TLS_CLIENT)
        attempt = line(held, silent, url="wss://peer.test/", ssl_context=context)
        await attempt.run()
        assert attempt.error.stage == "tls"


@pytest.mark.parametrize("problem", ["context", "handshake", "cancelled"])
async def test_a_dialer_closes_the_stream_whose_tls_fails(autojump_clock: MockClock, problem: str) -> None:
    class Unusable(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            raise ValueError("server_hostname cannot start with a leading dot")

    context = (Unusable if problem == "context" else ssl.SSLContext)(ssl.PROTOCOL_TLS_CLIENT)
    async with contained(within=1) as held:
        near, far = pipe()
        held.watch(near)
        if problem == "handshake":
            await far.send_all(b"this is not TLS")
        with trio.move_on_after(1) as scope:
            with pytest.raises((ValueError, trio.BrokenResourceError)) if problem != "cancelled" else nullcontext():
                await TcpDialer().start_tls(near, ssl_context=context, server_hostname="peer.test")
        assert scope.cancelled_caught is (problem == "cancelled")


async def test_a_missing_default_context_leaves_no_stream_open(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> ssl.SSLContext:
        raise FileNotFoundError("no certificates here")

    monkeypatch.setattr("engine.transport.dial.default_ssl_context", broken)
    async with contained(within=0) as held:
        attempt = line(held, silent, url="wss://peer.test/")
        await attempt.run()
        assert attempt.error.stage == "tls"


async def test_a_peer_silent_in_the_tls_handshake_costs_exactly_the_connect_budget(autojump_clock: MockClock) -> None:
    attempt = await fail_to_connect(silent, within=10, url="wss://peer.test/")
    assert (attempt.error.stage, attempt.ended_at) == ("timeout", 10)


async def test_a_peer_that_does_not_speak_tls_is_told(autojump_clock: MockClock) -> None:
    async def plain(peer: Peer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    attempt = await fail_to_connect(plain, within=0, url="wss://peer.test/")
    assert attempt.error.stage == "tls"
    assert isinstance(attempt.error.__cause__, ssl.SSLError)


# --- the key ---


async def test_the_key_is_asked_for_at_every_dial_and_sent_in_its_header_only(autojump_clock: MockClock) -> None:
    heads: list[bytes] = []
    asked = 0

    async def key() -> str:
        nonlocal asked
        await trio.sleep(1)
        asked += 1
        return f"{KEY}-{asked}"

    async def refuse(peer: Peer) -> None:
        await peer.refuse(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
        heads.append(peer.head)

    async with contained(within=3) as held:
        for _ in range(3):
            await line(held, refuse, api_key=key).run()
    for number, head in enumerate(heads, 1):
        assert head.startswith(b"GET /v1/responses HTTP/1.1\r\n")
        assert head.count(KEY.encode()) == 1
        assert f"\r\nAuthorization: Bearer {KEY}-{number}\r\n".encode() in head


async def raises() -> str:
    raise LookupError("no key today")


async def raises_like_a_network() -> str:
    raise socket.gaierror(-2, "the token server is gone")


async def raises_a_group() -> str:
    raise ExceptionGroup("two token servers", [OSError("x"), ValueError("y")])


async def returns_crlf() -> str:
    return f"{KEY}\r\nX-Injected: 1"


async def returns_nothing() -> Any:
    return None


async def returns_bytes() -> Any:
    return KEY.encode()


@pytest.mark.parametrize(
    "key", [raises, raises_like_a_network, raises_a_group, returns_crlf, returns_nothing, returns_bytes]
)
async def test_a_key_that_cannot_be_had_fails_the_dial_and_shows_nowhere(
    autojump_clock: MockClock, key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with contained(within=0) as held:
        dialer = PeerDialer(held, silent)
        attempt = line(held, dialer=dialer, api_key=key)
        await attempt.run()
        assert type(attempt.error) is engine.ConnectFailed
        assert (attempt.error.stage, attempt.error.status) == ("credentials", None)
        assert KEY not in said(attempt.error) + repr(attempt.failures) + repr(attempt.endpoint) + caplog.text
        assert dialer.dials == 0


async def test_a_key_that_never_comes_costs_exactly_the_connect_budget(autojump_clock: MockClock) -> None:
    async def hangs() -> str:
        await trio.sleep_forever()
        raise AssertionError

    attempt = await fail_to_connect(silent, within=10, api_key=hangs)
    assert (attempt.error.stage, attempt.error.status, attempt.ended_at) == ("timeout", None, 10)


@pytest.mark.parametrize("moment", ["key", "dns", "tls", "upgrade", "refusal"])
async def test_cancelling_the_dial_leaves_nothing_open(autojump_clock: MockClock, moment: str) -> None:
    async def key() -> str:
        if moment == "key":
            await trio.sleep_forever()
        return KEY

    class Hanging(PeerDialer):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            if moment == "dns":
                await trio.sleep_forever()
            return await super().open_tcp(host, port)

    async def script(peer: Peer) -> None:
        if moment == "refusal":
            await peer.refuse(b"HTTP/1.1 503 No\r\ncontent-length: 100\r\n\r\n")
        await trio.sleep_forever()

    async with contained(within=0.1) as held:
        url = "wss://peer.test/" if moment == "tls" else "ws://peer.test/"
        attempt = line(held, dialer=Hanging(held, script), url=url, api_key=key)
        with trio.move_on_after(0.1) as scope:
            await attempt.run()
        assert scope.cancelled_caught
        assert attempt.failures == []


async def test_cancelled_before_it_began_it_dials_nothing(autojump_clock: MockClock) -> None:
    async with contained(within=0) as held:
        dialer = PeerDialer(held, silent)
        with trio.CancelScope() as scope:
            scope.cancel(reason="at once")
            await line(held, dialer=dialer).run()
        assert scope.cancelled_caught
        assert dialer.dials == 0


async def test_closing_while_dialling_or_upgrading_ends_at_once(autojump_clock: MockClock) -> None:
    async with contained(within=1) as held, trio.open_nursery() as nursery:
        waiting = line(held, silent)
        nursery.start_soon(waiting.run)
        await trio.sleep(1)
        waiting.socket.close()
    assert waiting.failures == []
