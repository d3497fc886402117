"""HTTP over the dialer: whole answers, refusals, failures on the way, and nothing left open whatever happens."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trustme
from invariants import Held, contained, said
from raw_peer import Peer, PeerDialer, ScriptFor, WatchedTcpDialer, pipe, serve
from trio.testing import MockClock

import engine
from engine.protocol.failures import Broken, Failure, Lost, RequestRefused, Unreachable, Violated, to_error
from engine.transport.http import HttpClient, HttpRequest, whole_answer

KEY = "sk-http-0123456789"
TEXT = json.dumps({"model": "m", "input": "a prompt that nobody may see"})
PATH = "/responses/compact"
ENDPOINT = engine.Endpoint("http://peer.test/v1?api-version=1", KEY)


# --- peers ---


async def read_request(peer: Peer) -> bytes:
    """Read one request, and return its body."""
    await peer.read_head()
    fields = dict(line.lower().split(": ", 1) for line in peer.head.decode().split("\r\n")[1:] if line)
    length = int(fields["content-length"])
    while len(peer.received) < length:
        data = await peer.stream.receive_some(65536)
        if not data:
            raise trio.BrokenResourceError
        peer.received += data
    body = bytes(peer.received[:length])
    del peer.received[:length]
    return body


def answer(
    body: bytes | str = b"{}", status: int = 200, *headers: str, length: int | None = None, reason: str = "Any"
) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    fields = [f"Content-Length: {len(body) if length is None else length}", *headers]
    head = "\r\n".join([f"HTTP/1.1 {status} {reason}", *fields, "", ""])
    return head.encode() + body


def answering(*parts: bytes, pause: float = 0) -> ScriptFor:
    """Read the request, answer in parts, and stay until the client has left."""

    async def script(peer: Peer) -> None:
        await read_request(peer)
        for part in parts:
            await peer.send(part)
            await trio.sleep(pause)
        await peer.swallow()

    return script


def hanging_up(*parts: bytes) -> ScriptFor:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        for part in parts:
            await peer.send(part)

    return script


async def never(peer: Peer) -> None:
    await peer.swallow()


async def endless(peer: Peer) -> None:
    await read_request(peer)
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await peer.send(b"10000\r\n" + 65536 * b" " + b"\r\n")


async def exchange(
    dialer: Any, *, endpoint: engine.Endpoint = ENDPOINT, text: str = TEXT, max_bytes: int = 1 << 20, **options: Any
) -> tuple[bytes | Failure, HttpRequest]:
    async with HttpClient(endpoint, dialer) as client:
        post = client.post(PATH, text, **options)
        return await whole_answer(post, max_bytes=max_bytes), post


async def played(script: ScriptFor, *, within: float = 1.0, **options: Any) -> tuple[bytes | Failure, HttpRequest]:
    async with contained(within=within) as held:
        dialer = PeerDialer(held, script)
        outcome = await exchange(dialer, **options)
        assert dialer.dials == 1
    return outcome


# --- what is sent ---


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("wss://api.openai.com/v1/", "https://api.openai.com/v1/responses"),
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080/responses"),
        ("http://[::1]:1/a/b?api-version=2", "http://[::1]:1/a/b/responses?api-version=2"),
    ],
)
def test_the_url_of_a_request(base_url: str, url: str) -> None:
    endpoint = engine.Endpoint(base_url, websocket_url="wss://elsewhere.test/socket")
    assert endpoint.http_url("/responses") == url


async def test_what_a_request_carries(autojump_clock: MockClock) -> None:
    heads, bodies = [], []

    async def script(peer: Peer) -> None:
        bodies.append(await read_request(peer))
        heads.append(peer.head.decode())
        await peer.send(answer('{"fine": true}'))

    endpoint = engine.Endpoint(
        "ws://peer.test:8080/v1?api-version=1",
        KEY,
        headers={"X-Own": "value", "Accept": "ignored/ignored"},
        organization="org-1",
        project="proj-1",
    )
    outcome, post = await played(script, endpoint=endpoint)
    assert outcome == b'{"fine": true}'
    assert (post.sent, post.status) == (True, 200)
    assert bodies == [TEXT.encode()]
    first, *fields = heads[0].strip().split("\r\n")
    assert first == "POST /v1/responses/compact?api-version=1 HTTP/1.1"
    given = sorted(each.lower() for each in fields)
    for wanted in (
        f"authorization: bearer {KEY}",
        "host: peer.test:8080",
        "content-type: application/json",
        "accept: application/json",
        "accept-encoding: identity",
        "x-own: value",
        "openai-organization: org-1",
        "openai-project: proj-1",
        f"content-length: {len(TEXT)}",
    ):
        assert given.count(wanted) == 1, wanted
    assert sum(each.startswith("accept:") for each in given) == 1
    assert sum(each.startswith("user-agent: trio-session-engine") for each in given) == 1


async def test_no_key_no_cookie_and_no_connection_is_used_again(autojump_clock: MockClock) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        await read_request(peer)
        heads.append(peer.head.decode().lower())
        await peer.send(answer(b"{}", 200, "Set-Cookie: a=b; Path=/"))
        await peer.swallow()

    async with contained() as held:
        dialer = PeerDialer(held, script)
        async with HttpClient(engine.Endpoint("http://peer.test/v1"), dialer) as client:
            for number in range(1, 4):
                assert await whole_answer(client.post(PATH, "{}"), max_bytes=99) == b"{}"
                assert dialer.dials == number
                assert not held.still_open
    assert len(heads) == 3
    assert not any("cookie" in head or "authorization" in head for head in heads)


# --- answers ---


@pytest.mark.parametrize(
    "parts",
    [
        [answer('{"a": 1}')],
        [bytes([byte]) for byte in answer('{"a": 1}')],
        [b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n', b'5\r\n": 1}\r\n0\r\n\r\n'],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer('{"a": 1}')],
    ],
)
async def test_answers_in_any_framing(autojump_clock: MockClock, parts: list[bytes]) -> None:
    outcome, _ = await played(answering(*parts))
    assert outcome == b'{"a": 1}'


async def test_a_body_that_only_the_end_of_the_stream_ends(autojump_clock: MockClock) -> None:
    outcome, _ = await played(hanging_up(b'HTTP/1.1 200 OK\r\n\r\n{"a"', b": 1}"))
    assert outcome == b'{"a": 1}'


@pytest.mark.parametrize("size", [999, 1000])
async def test_the_largest_answer(autojump_clock: MockClock, size: int) -> None:
    outcome, post = await played(answering(answer(1000 * b" ")), max_bytes=size)
    if size == 1000:
        assert outcome == 1000 * b" "
    else:
        assert outcome == Violated("the server sent an answer over 999 bytes")
    assert post.status == 200


async def test_an_endless_answer_is_not_held(autojump_clock: MockClock) -> None:
    outcome, _ = await played(endless, max_bytes=300_000)
    assert outcome == Violated("the server sent an answer over 300000 bytes")


# --- answers that are packed ---


def bare(data: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-15)
    return deflating.compress(data) + deflating.flush()


PACKINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("gzip, identity", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    ("deflate", zlib.compress),
    ("deflate", bare),
    ("identity", bytes),
    ("", bytes),
    *((name, bytes) for name in ("none", "UTF-8", "aws-chunked, identity")),
]


@pytest.mark.parametrize(("coding", "pack"), PACKINGS)
@pytest.mark.parametrize("at_once", [True, False])
async def test_packed_answers_are_unpacked(
    autojump_clock: MockClock, coding: str, pack: Callable[[bytes], bytes], at_once: bool
) -> None:
    body = json.dumps({"a": "é" * 500}).encode()
    whole = answer(pack(body), 200, f"Content-Encoding: {coding}")
    outcome, _ = await played(answering(*([whole] if at_once else [bytes([each]) for each in whole])))
    assert outcome == body


async def test_a_packed_refusal_keeps_its_words(autojump_clock: MockClock) -> None:
    packed = answer(gzip.compress(json.dumps(SAYS).encode()), 400, "Content-Encoding: gzip")
    outcome, _ = await played(answering(packed))
    assert outcome == RequestRefused(400, "c", "t", "p", "No.")


async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_held(autojump_clock: MockClock) -> None:
    packed = answer(gzip.compress(bytes(200 << 20), 9), 200, "Content-Encoding: gzip")
    outcome, _ = await played(answering(packed), max_bytes=1 << 20)
    assert outcome == Violated(f"the server sent an answer over {1 << 20} bytes")


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        ("br", b"x", "with the content coding br, which was not asked for"),
        ("zstd, gzip", b"x", "with the content coding zstd, which was not asked for"),
        ("an evil\ttext", b"x", "with the content coding (not shown), which was not asked for"),
        ("gzip", b"not gzip at all", "the server sent a compressed answer that cannot be unpacked"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3], "the server ended its compressed answer before the end"),
    ],
)
async def test_what_cannot_be_unpacked_is_named(
    autojump_clock: MockClock, coding: str, body: bytes, words: str
) -> None:
    outcome, _ = await played(answering(answer(body, 200, f"Content-Encoding: {coding}")))
    assert isinstance(outcome, Violated | Lost)
    assert words in outcome.detail


# --- refusals ---


DATE = "Date: Fri, 20 Nov 2026 12:00:00 GMT"
SAYS = {"error": {"message": "No.", "type": "t", "param": "p", "code": "c"}}


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (answer(json.dumps(SAYS), 400), RequestRefused(400, "c", "t", "p", "No.")),
        (answer(json.dumps(SAYS), 401), RequestRefused(401, "c", "t", "p", "No.")),
        (answer("\ufeff" + json.dumps(SAYS), 400), RequestRefused(400, "c", "t", "p", "No.")),
        (answer(json.dumps([SAYS, {"error": "else"}]), 400), RequestRefused(400, "c", "t", "p", "No.")),
        (answer(f"event: error\ndata: {json.dumps(SAYS)}\n\n", 400), RequestRefused(400, "c", "t", "p", "No.")),
        (answer(json.dumps({"errors": [SAYS["error"]]}), 400), RequestRefused(400, "c", "t", "p", "No.")),
        (answer(json.dumps(SAYS), 429, "Retry-After: 7"), RequestRefused(429, "c", "t", "p", "No.", 7.0)),
        (answer(b"{}", 429, "retry-after: 7", "retry-after-ms: 1500"), RequestRefused(429, None, None, None, "", 1.5)),
        (
            answer(b"{}", 503, "Retry-After: Fri, 20 Nov 2026 12:00:30 GMT", DATE),
            RequestRefused(503, None, None, None, "", 30.0),
        ),
        (
            answer(b"{}", 503, "Retry-After: Fri, 20 Nov 2026 11:00:30 GMT", DATE),
            RequestRefused(503, None, None, None, "", 0.0),
        ),
        (answer(b"{}", 503, "Retry-After: soon"), RequestRefused(503, None, None, None)),
        (answer(b"<html><body>Bad gateway</body></html>", 502), RequestRefused(502, None, None, None)),
        (answer(b"", 500), RequestRefused(500, None, None, None)),
        (answer(b"upstream connect error", 503), RequestRefused(503, None, None, None, "upstream connect error")),
        (answer(b"no\r\nupstream\n", 503), RequestRefused(503, None, None, None, "no\r\nupstream")),
        (answer(b"\xff\x00\x01", 500), RequestRefused(500, None, None, None)),
        (answer(b"[1, 2]", 500), RequestRefused(500, None, None, None, "[1, 2]")),
        (
            answer('{"object": "error", "message": "No.", "type": "BadRequest", "param": null, "code": 400}', 400),
            RequestRefused(400, "400", "BadRequest", None, "No."),
        ),
        (answer('{"error": "No."}', 403), RequestRefused(403, None, None, None, "No.")),
        (answer(json.dumps(SAYS), 404, length=5000), RequestRefused(404, "c", "t", "p", "No.")),
        (b"HTTP/1.1 409 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", RequestRefused(409, None, None, None)),
        (answer(100_000 * b"x", 500), RequestRefused(500, None, None, None, 2000 * "x")),
    ],
)
async def test_refusals(autojump_clock: MockClock, refusal: bytes, expected: RequestRefused) -> None:
    outcome, post = await played(hanging_up(refusal))
    assert outcome == expected
    assert isinstance(outcome, RequestRefused)
    assert outcome.message == expected.message
    assert post.status == expected.status


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, engine.AuthenticationFailed), (429, engine.RateLimited), (500, engine.RequestRejected)],
)
async def test_the_error_of_a_refusal(autojump_clock: MockClock, status: int, kind: type[Exception]) -> None:
    outcome, _ = await played(answering(answer(b"{}", status, "Retry-After: 3")))
    assert not isinstance(outcome, bytes)
    error = to_error(outcome)
    assert type(error) is kind
    assert getattr(error, "retry_after", 3.0) == 3.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://elsewhere.test/v1", "/other", "http://[", "", "javascript:alert(1)"])
async def test_redirections_are_refusals(autojump_clock: MockClock, status: int, target: str) -> None:
    outcome, _ = await played(answering(answer(b"", status, f"Location: {target}")))
    assert outcome == RequestRefused(status, None, None, None)


async def test_a_refusal_is_told_although_its_body_never_ends(autojump_clock: MockClock) -> None:
    outcome, _ = await played(answering(answer('{"error"', 429, "Retry-After: 9", length=500)), within=1.0)
    assert outcome == RequestRefused(429, None, None, None, '{"error"', retry_after=9.0)


async def test_a_refusal_that_does_not_wait_for_the_whole_request(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer(json.dumps(SAYS), 413))

    outcome, post = await played(script, text=json.dumps("x" * (1 << 20)))
    assert isinstance(outcome, RequestRefused)
    assert outcome.status == post.status == 413


# --- broken answers ---


CUT = Lost("the server closed the connection before the answer had ended")
NOT_HTTP = Unreachable("http", "what answers at peer.test does not speak HTTP/1.1")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (hanging_up(), CUT),
        (hanging_up(b"HTTP/1.1 200 O"), CUT),
        (hanging_up(answer(b"{", length=10)), CUT),
        (hanging_up(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}"), CUT),
        (answering(b"220 mail.test ESMTP\r\n\r\n"), NOT_HTTP),
        (answering(b"HTTP/1.1 200 OK\r\n" + 200_000 * b"a"), NOT_HTTP),
        (answering(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"), NOT_HTTP),
        (
            answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnothing"),
            Violated("the server broke HTTP within its answer"),
        ),
        (answering(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), None),
    ],
)
async def test_broken_answers(autojump_clock: MockClock, script: ScriptFor, expected: Failure | None) -> None:
    outcome, post = await played(script)
    assert not isinstance(outcome, bytes)
    assert expected is None or outcome == expected
    assert post.sent
    assert "ESMTP" not in said(to_error(outcome))


@pytest.mark.parametrize("head", [b"", answer(b"{", length=10)])
async def test_a_reset(autojump_clock: MockClock, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        if head:
            await peer.send(head)
            await trio.sleep(0.1)
        peer.reset()
        await trio.sleep_forever()

    outcome, post = await played(script)
    assert isinstance(outcome, Lost)
    assert outcome.detail == "the connection broke before the answer had ended"
    assert isinstance(outcome.cause, trio.BrokenResourceError)
    assert post.sent


# --- on the way ---


class Failing:
    """A dialer whose step raises, or never ends."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()
        raise AssertionError

    async def start_tls(self, stream: trio.abc.Stream, **options: Any) -> trio.abc.Stream:
        raise NotImplementedError


def several() -> OSError:
    """What trio raises where several addresses were tried."""
    error = OSError("all attempts to connect failed")
    tried = OSError("something without a number"), ConnectionRefusedError(errno.ECONNREFUSED, "no")
    error.__cause__ = ExceptionGroup("several", tried)
    return error


@pytest.mark.parametrize(
    ("error", "stage", "detail"),
    [
        (socket.gaierror(-2, "no"), "dns", "the host name of peer.test could not be resolved"),
        (ConnectionRefusedError(111, "no"), "tcp", "connecting to peer.test failed: connection refused"),
        (OSError(errno.EHOSTUNREACH, "no"), "tcp", "connecting to peer.test failed: no route to the host"),
        (several(), "tcp", "connecting to peer.test failed: connection refused"),
        (OSError("all attempts failed"), "tcp", "connecting to peer.test failed"),
        (RuntimeError("a bug"), "tcp", "connecting to peer.test raised"),
    ],
)
async def test_nobody_is_there(autojump_clock: MockClock, error: Exception, stage: str, detail: str) -> None:
    async with contained(within=0):
        outcome, post = await exchange(Failing(error))
    assert outcome == Unreachable(stage, detail, error)
    assert (post.sent, post.status) == (False, None)


async def test_a_dial_has_an_end(autojump_clock: MockClock) -> None:
    async with contained(within=3):
        outcome, post = await exchange(Failing(None), connect=3)
    assert outcome == Unreachable("timeout", "connecting to peer.test took longer than 3 s", during="tcp")
    assert not post.sent


async def test_the_connect_budget_does_not_bound_the_answer(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        await trio.sleep(30)
        await peer.send(answer(b"{}"))

    outcome, _ = await played(script, within=30, connect=3)
    assert outcome == b"{}"


async def test_the_key_is_asked_for(autojump_clock: MockClock) -> None:
    asked = []

    async def key() -> str:
        await trio.sleep(1)
        asked.append(1)
        return f"{KEY}-{len(asked)}"

    heads = []

    async def script(peer: Peer) -> None:
        await read_request(peer)
        heads.append(peer.head.decode())
        await peer.send(answer())

    for _ in range(2):
        await played(script, endpoint=attrs.evolve(ENDPOINT, api_key=key))
    assert [f"{KEY}-{number + 1}\r\n" in head for number, head in enumerate(heads)] == [True, True]


async def _slow_key() -> str:
    await trio.sleep_forever()
    raise AssertionError


async def _bad_key() -> str:
    await trio.lowlevel.checkpoint()
    return f"{KEY}\r\nX-Injected: 1"


async def _raising_key() -> str:
    await trio.lowlevel.checkpoint()
    raise OSError("the vault is closed")


@pytest.mark.parametrize(
    ("key", "stage", "detail"),
    [
        (_slow_key, "timeout", "asking for the key of peer.test took longer than 3 s"),
        (_bad_key, "credentials", "the api_key function returned an unusable key"),
        (_raising_key, "credentials", "the api_key function raised"),
    ],
)
async def test_no_key(autojump_clock: MockClock, key: Callable[[], Awaitable[str]], stage: str, detail: str) -> None:
    async with contained(within=3) as held:
        dialer = PeerDialer(held, never)
        outcome, post = await exchange(dialer, endpoint=attrs.evolve(ENDPOINT, api_key=key), connect=3)
        assert dialer.dials == 0
    assert isinstance(outcome, Unreachable)
    assert (outcome.stage, outcome.detail) == (stage, detail)
    assert not post.sent
    assert KEY not in said(to_error(outcome))


async def test_a_url_that_httpx_does_not_take(autojump_clock: MockClock) -> None:
    endpoint = engine.Endpoint("http://peer.test/" + 70_000 * "a")
    async with contained(within=0) as held:
        outcome, _ = await exchange(PeerDialer(held, never), endpoint=endpoint)
    assert outcome == Unreachable("http", "the URL cannot be used for HTTP")


async def test_what_a_dialers_stream_raises_by_mistake(autojump_clock: MockClock) -> None:
    client, server = pipe()

    async def mistaken(data: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    client.send_all = mistaken  # type: ignore[method-assign]

    class Dialer(Failing):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return client

    outcome, _ = await exchange(Dialer(None))
    assert isinstance(outcome, Broken)
    assert isinstance(outcome.cause, ZeroDivisionError)
    assert client.closed
    await server.aclose()


# --- cancelling ---


class Steps(trio.abc.Instrument):
    """Cancels a scope before one step of any task."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="struck")


async def cancelled_at(step: int, held: Held, dialer: Any, **options: Any) -> bool:
    """Cancel an exchange at a step; return whether it was too late."""
    with trio.CancelScope() as scope:
        steps = Steps(step, scope)
        trio.lowlevel.add_instrument(steps)
        try:
            outcome, _ = await exchange(dialer, **options)
        finally:
            trio.lowlevel.remove_instrument(steps)
        assert outcome == b'{"a": 1}'
    assert not held.still_open
    return steps.left > 0


@pytest.mark.parametrize("shared", [False, True])
async def test_cancelled_at_any_step(autojump_clock: MockClock, shared: bool) -> None:
    """Also where the client goes on: nothing of a cancelled request stays with it."""
    script = answering(*(bytes([byte]) for byte in answer('{"a": 1}')))
    late = False
    for step in range(1, 1000):
        async with contained(within=1) as held:
            dialer = PeerDialer(held, script)
            if not shared:
                late = await cancelled_at(step, held, dialer)
            else:
                async with HttpClient(ENDPOINT, dialer) as client:
                    with trio.CancelScope() as scope:
                        steps = Steps(step, scope)
                        trio.lowlevel.add_instrument(steps)
                        try:
                            await whole_answer(client.post(PATH, TEXT), max_bytes=100)
                        finally:
                            trio.lowlevel.remove_instrument(steps)
                    late = steps.left > 0
                    assert not held.still_open
                    assert await whole_answer(client.post(PATH, TEXT), max_bytes=100) == b'{"a": 1}'
        if late:
            break
    assert late
    assert step > 30


@pytest.mark.parametrize(
    "script",
    [never, answering(), answering(answer(b"{", length=9)), endless],
    ids=["silent", "reads", "begins to answer", "endless"],
)
async def test_cancelled_while_the_peer_does_as_it_likes(autojump_clock: MockClock, script: ScriptFor) -> None:
    async with contained(within=5) as held:
        with trio.move_on_after(5) as scope:
            await exchange(PeerDialer(held, script), max_bytes=1 << 62 if script is not endless else 1 << 16)
        assert scope.cancelled_caught is (script is not endless)


async def test_a_peer_that_does_not_read(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep_forever()

    async with contained(within=5) as held:
        with trio.move_on_after(5) as scope:
            await exchange(PeerDialer(held, script), text=json.dumps("x" * (1 << 22)))
        assert scope.cancelled_caught


async def test_a_client_is_closed_under_its_requests(autojump_clock: MockClock) -> None:
    async with contained(within=0) as held:
        outcomes = []
        async with trio.open_nursery() as nursery:
            async with HttpClient(ENDPOINT, PeerDialer(held, never)) as client:

                async def ask() -> None:
                    outcomes.append(await whole_answer(client.post(PATH, TEXT), max_bytes=99))

                for _ in range(10):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
        assert [type(outcome) for outcome in outcomes] == 10 * [Lost]


async def test_many_cancelled_at_once_leave_the_pool_empty(autojump_clock: MockClock) -> None:
    async with contained(within=10) as held:
        dialer = PeerDialer(held, answering(answer(), pause=0.5))
        async with HttpClient(ENDPOINT, dialer) as client:

            async def ask(seconds: float) -> None:
                with trio.move_on_after(seconds):
                    await whole_answer(client.post(PATH, TEXT), max_bytes=99)

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(ask, number % 5 * 0.1)
            assert not held.still_open
            assert await whole_answer(client.post(PATH, TEXT), max_bytes=99) == b"{}"


# --- sockets and TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def tls_server(held: Held, script: ScriptFor, certificate: trustme.LeafCert, trusting: Any) -> engine.Endpoint:
    port = await serve(held, script, serving(certificate))
    return engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, ssl_context=trusting)


async def test_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    body = json.dumps("x" * 3_000_000)
    received = []

    async def script(peer: Peer) -> None:
        received.append(await read_request(peer))
        await peer.send(answer(body))
        await peer.swallow()

    async with contained() as held:
        endpoint = await tls_server(held, script, authority.issue_cert("127.0.0.1"), trusting)
        outcome, post = await exchange(
            WatchedTcpDialer(held), endpoint=endpoint, text=json.dumps("y" * 3_000_000), max_bytes=1 << 22, connect=20
        )
    assert outcome == body.encode()
    assert received == [json.dumps("y" * 3_000_000).encode()]
    assert post.status == 200


@pytest.mark.parametrize(
    "issue",
    [lambda _: trustme.CA().issue_cert("127.0.0.1"), lambda authority: authority.issue_cert("other.test")],
    ids=["of a stranger", "for another host"],
)
async def test_a_certificate_that_is_not_good(
    issue: Callable[[trustme.CA], trustme.LeafCert], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async with contained() as held:
        endpoint = await tls_server(held, never, issue(authority), trusting)
        outcome, post = await exchange(WatchedTcpDialer(held), endpoint=endpoint)
    assert isinstance(outcome, Unreachable)
    assert outcome.stage == "tls"
    assert isinstance(outcome.cause, ssl.SSLCertVerificationError)
    assert not post.sent


async def test_tls_that_never_comes_about(trusting: ssl.SSLContext) -> None:
    async with contained() as held:
        port = await serve(held, never)
        endpoint = engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, ssl_context=trusting)
        outcome, post = await exchange(WatchedTcpDialer(held), endpoint=endpoint, connect=0.2)
    words = f"the TLS handshake with 127.0.0.1:{port} took longer than 0.2 s"
    assert outcome == Unreachable("timeout", words, during="tls")
    assert not post.sent


async def test_nobody_listens(closed_port: int) -> None:
    async with contained() as held:
        endpoint = engine.Endpoint(f"http://127.0.0.1:{closed_port}/v1")
        outcome, _ = await exchange(WatchedTcpDialer(held), endpoint=endpoint)
    assert isinstance(outcome, Unreachable)
    assert outcome.stage == "tcp"
    assert outcome.detail.endswith("failed: connection refused")


async def test_the_endpoints_context_stays_as_it_is(
    authority: trustme.CA, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WebSocket uses it too."""

    class Untouched(ssl.SSLContext):
        def set_alpn_protocols(self, protocols: Any) -> None:
            raise AssertionError("the context was changed")

    context = Untouched(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    async with contained() as held:
        certificate = authority.issue_cert("127.0.0.1")
        endpoint = await tls_server(held, answering(answer()), certificate, context)
        outcome, _ = await exchange(WatchedTcpDialer(held), endpoint=endpoint)
    assert outcome == b"{}"


async def test_cancelled_at_a_sample_of_steps_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    late = False
    for step in (*range(1, 60), *range(60, 1000, 7)):
        async with contained() as held:
            endpoint = await tls_server(held, answering(answer('{"a": 1}')), certificate, trusting)
            late = await cancelled_at(step, held, WatchedTcpDialer(held), endpoint=endpoint)
        if late:
            break
    assert late


# --- what is shown ---


async def test_nothing_shows_what_passes(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, answering(answer(json.dumps(SAYS), 400, "X-Secret: sesame")))
        async with HttpClient(ENDPOINT, dialer) as client:
            post = client.post(PATH, TEXT)
            outcome = await whole_answer(post, max_bytes=99)
            shown = [repr(client), repr(post), repr(outcome), *map(repr, dialer.held._streams)]
    assert not isinstance(outcome, bytes)
    shown.append(said(to_error(outcome)))
    for secret in (KEY, "nobody may see", "sesame", "No.", "api-version"):
        assert not any(secret in each for each in shown), secret


async def test_nothing_of_it_is_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await played(answering(answer(b"{}", 200, "X-Secret: sesame")))
    shown = [record.getMessage() for record in caplog.records]
    for secret in ("api-version", "sesame", KEY, "nobody may see"):
        assert not any(secret in each for each in shown), secret
