"""Connections that are kept for the next request, and those that must not be."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from invariants import Held, contained
from raw_peer import Peer, PeerDialer, ScriptFor, WatchedTcpDialer, completed, created, serve
from test_transport_http import ENDPOINT, KEY, PATH, TEXT, Steps, answer, read_request
from trio.testing import MockClock

import engine
from engine.protocol.failures import Failure, Lost, RequestRefused
from engine.transport.http import HttpClient, HttpRequest, whole_answer

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def numbered(number: int) -> bytes:
    return json.dumps({"number": number}).encode()


async def serving(peer: Peer) -> None:
    """Answer every request with its number on this connection."""
    number = 0
    while True:
        await read_request(peer)
        number += 1
        await peer.send(answer(numbered(number)))


def first_then_serving(*parts: bytes, pause: float = 0) -> ScriptFor:
    """Answer the first request with these parts and every other with its number."""

    async def script(peer: Peer) -> None:
        await read_request(peer)
        for part in parts:
            await peer.send(part)
            if pause:
                await trio.sleep(pause)
        await serving(peer)

    return script


@asynccontextmanager
async def client_of(held: Held, dialer: Any, **options: Any) -> AsyncIterator[HttpClient]:
    async with trio.open_nursery() as nursery:
        endpoint = options.pop("endpoint", ENDPOINT)
        async with HttpClient(endpoint, dialer, nursery=nursery, **options) as client:
            yield client
        nursery.cancel_scope.cancel(reason="the client is closed")


async def ask(client: HttpClient, text: str = TEXT) -> tuple[bytes | Failure, HttpRequest]:
    post = client.post(PATH, text)
    outcome = await whole_answer(post, max_bytes=1 << 20)
    await trio.testing.wait_all_tasks_blocked()
    return outcome, post


# --- what is kept ---


async def test_one_connection_serves_one_request_after_another(autojump_clock: MockClock) -> None:
    async with contained(within=50) as held:
        dialer = PeerDialer(held, serving)
        async with client_of(held, dialer) as client:
            for number in range(1, 6):
                outcome, post = await ask(client)
                assert outcome == numbered(number)
                assert post.reused is (number > 1)
                await trio.sleep(10)
            assert client.busy
        assert dialer.dials == 1
        assert not client.busy


async def test_requests_at_once_have_connections_of_their_own(autojump_clock: MockClock) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, serving)
        async with client_of(held, dialer) as client:
            for round_number in range(1, 4):
                outcomes: list[Any] = []

                async def one(outcomes: list[Any] = outcomes) -> None:
                    outcomes.append((await ask(client))[0])

                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(one)
                assert outcomes == [numbered(round_number)] * 5
        assert dialer.dials == 5


@pytest.mark.parametrize(
    ("fields", "kept_for"),
    [((), 300), (("Keep-Alive: timeout=20, max=100",), 19), (("Keep-Alive: max=100",), 300), (("keep-alive: x",), 300)],
)
async def test_how_long_one_is_kept(autojump_clock: MockClock, fields: tuple[str, ...], kept_for: float) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await read_request(peer)
            await peer.send(answer(b"{}", 200, *fields))

    for wait, reused in ((kept_for - 0.5, True), (kept_for + 0.5, False)):
        async with contained() as held:
            dialer = PeerDialer(held, script)
            async with client_of(held, dialer, idle_lifetime=300) as client:
                await ask(client)
                await trio.sleep(wait)
                assert bool(held.still_open) is reused
                assert (await ask(client))[1].reused is reused


@pytest.mark.parametrize(
    "first",
    [
        answer(b"{}", 200, "Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        answer(b"{}", 200, "Keep-Alive: timeout=1"),
        answer(b"{}") + b"HTTP/1.1 200 OK\r\n",
        answer(b"{}") + answer(b"another's"),
        answer(b"{}") + b"\r\n",
    ],
)
async def test_what_must_not_be_used_again_is_closed_at_once(autojump_clock: MockClock, first: bytes) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, first_then_serving(first), serving)
        async with client_of(held, dialer) as client:
            assert (await ask(client))[0] == b"{}"
            assert not held.still_open
            outcome, post = await ask(client)
            assert (outcome, post.reused) == (numbered(1), False)


# --- what happens while one is kept ---


@pytest.mark.parametrize("happening", ["end", "reset", "bytes", "a whole answer"])
@pytest.mark.parametrize("after", [0, 5])
async def test_whatever_comes_unasked_closes_it(autojump_clock: MockClock, happening: str, after: float) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        await peer.send(answer(b"{}"))
        await trio.sleep(after)
        match happening:
            case "end":
                return
            case "reset":
                peer.reset()
            case "bytes":
                await peer.send(b"x")
            case _:
                await peer.send(answer(b"another's"))
        await peer.swallow()

    async with contained() as held:
        dialer = PeerDialer(held, script, serving)
        async with client_of(held, dialer) as client:
            await ask(client)
            await trio.sleep(after)
            await trio.testing.wait_all_tasks_blocked()
            assert not held.still_open
            outcome, post = await ask(client)
            assert (outcome, post.reused, dialer.dials) == (numbered(1), False, 2)


async def test_what_comes_in_the_same_instant_as_the_next_request_closes_it(autojump_clock: MockClock) -> None:
    ready = trio.Event()

    async def script(peer: Peer) -> None:
        await read_request(peer)
        await peer.send(answer(b"{}"))
        await ready.wait()
        await peer.send(answer(b"another's"))
        await peer.swallow()

    for _ in range(20):  # whichever of the two tasks runs first
        ready = trio.Event()
        async with contained() as held:
            dialer = PeerDialer(held, script, serving)
            async with client_of(held, dialer) as client:
                await ask(client)
                ready.set()
                outcome, post = await ask(client)
                if post.reused:
                    assert outcome == b"another's"  # it came behind the request, as far as can be told
                    assert dialer.dials == 1
                else:
                    assert outcome == numbered(1)
                    assert dialer.dials == 2
                    assert len(held.still_open) == 1


@pytest.mark.parametrize("cancelled", [True, False])
async def test_nothing_stays_when_the_client_or_its_nursery_ends(autojump_clock: MockClock, cancelled: bool) -> None:
    async with contained() as held:
        async with trio.open_nursery() as nursery:
            client = HttpClient(ENDPOINT, PeerDialer(held, serving), nursery=nursery)
            await ask(client)
            assert len(held.still_open) == 1
            if cancelled:
                nursery.cancel_scope.cancel(reason="the nursery ends first")
            else:
                await client.aclose()
        assert not held.still_open
        await client.aclose()


# --- what is left of an answer ---


@asynccontextmanager
async def left_at_its_end(client: HttpClient) -> AsyncIterator[HttpRequest]:
    """Send a request, read the answer's first part, and have no need for more."""
    post = client.post(PATH, TEXT)
    async with post as got:
        assert await got.read() == b"terminal"
        got.release()
    yield post
    await trio.testing.wait_all_tasks_blocked()


async def test_the_end_of_an_answer_is_read_in_the_background(autojump_clock: MockClock) -> None:
    async with contained() as held:
        dialer = PeerDialer(
            held, first_then_serving(HEAD + chunk(b"terminal"), chunk(b"tail"), END, pause=0.2), serving
        )
        async with client_of(held, dialer) as client:
            async with left_at_its_end(client):
                outcome, post = await ask(client)  # a request that comes meanwhile takes another connection
                assert (outcome, post.reused, dialer.dials) == (numbered(1), False, 2)
            await trio.sleep(0.45)
            assert len(held.still_open) == 2
            outcome, post = await ask(client)
            assert (outcome, post.reused, dialer.dials) == (numbered(1), True, 2)


@pytest.mark.parametrize(
    "rest",
    [[], [chunk(b"x" * 70_000)], [b"nonsense\r\n"], [END + b"behind"]],
    ids=["never", "much", "nonsense", "more"],
)
async def test_an_answer_without_an_end_costs_its_connection_only(autojump_clock: MockClock, rest: list[bytes]) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, first_then_serving(HEAD + chunk(b"terminal"), *rest, pause=0.01), serving)
        async with client_of(held, dialer) as client:
            async with left_at_its_end(client):
                pass
            await trio.sleep(0.6)
            assert not held.still_open
            assert (await ask(client))[0] == numbered(1)


@pytest.mark.parametrize("how", ["left", "cancelled", "failed"])
async def test_one_that_is_left_before_the_end_is_closed_at_once(autojump_clock: MockClock, how: str) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, first_then_serving(HEAD + chunk(b"terminal"), END, pause=0.1), serving)
        async with client_of(held, dialer) as client:
            with trio.CancelScope() as scope:
                try:
                    async with client.post(PATH, TEXT) as got:
                        await got.read()
                        match how:
                            case "cancelled":
                                scope.cancel(reason="as the test says")
                                await trio.sleep_forever()
                            case "failed":
                                got.release()
                                raise ZeroDivisionError
                except ZeroDivisionError:
                    pass
            assert not held.still_open
            assert (await ask(client))[0] == numbered(1)


# --- a connection that turns out to be gone ---


async def test_an_end_before_a_byte_of_the_answer_is_ambiguous(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        await peer.send(answer(b"{}"))
        await read_request(peer)

    async with contained() as held, client_of(held, PeerDialer(held, script)) as client:
        await ask(client)
        outcome, post = await ask(client)
        assert isinstance(outcome, Lost)
        assert (post.reused, post.sent) == (True, True)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_request_that_was_not_written_to_its_end_was_not_sent(autojump_clock: MockClock, kept: bool) -> None:
    async def script(peer: Peer) -> None:
        if kept:
            await read_request(peer)
            await peer.send(answer(b"{}"))
        await peer.read_head()
        await trio.sleep(1)
        peer.reset()

    async with contained() as held, client_of(held, PeerDialer(held, script, capacity=1000)) as client:
        if kept:
            await ask(client, "x" * 100)
        outcome, post = await ask(client, "x" * 100_000)
        assert isinstance(outcome, Lost)
        assert (post.reused, post.sent) == (kept, not kept)


async def test_what_a_server_says_before_it_hangs_up_is_the_answer(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        await peer.send(answer(b"{}"))
        await peer.read_head()
        await peer.send(answer(b'{"error": {"code": "too_large"}}', 413))

    async with contained() as held, client_of(held, PeerDialer(held, script, capacity=1000)) as client:
        await ask(client, "x" * 100)
        outcome, post = await ask(client, "x" * 100_000)
        assert isinstance(outcome, RequestRefused)
        assert (outcome.status, outcome.code, post.sent) == (413, "too_large", True)
        assert not held.still_open


# --- no request sees another's bytes ---


def peculiar(number: int) -> ScriptFor:
    """Serve connection ``number``: each answer says which request it is for, in pieces with pauses between."""

    async def script(peer: Peer) -> None:
        while True:
            body = await read_request(peer)
            text = json.loads(body)["input"]
            for part in (HEAD, chunk(text.encode()), chunk(b"!"), END):
                await peer.send(part)
                await trio.sleep(0.01)

    return script


async def test_cancelled_at_any_step_of_any_request(autojump_clock: MockClock) -> None:
    """A request is cancelled at every step of the loop; those before and behind it get their own answers."""

    async def wanted(client: HttpClient, text: str) -> None:
        outcome, _ = await ask(client, json.dumps({"input": text}))
        assert outcome == f"{text}!".encode()

    late = False
    for step in range(1, 400):
        async with contained() as held:
            dialer = PeerDialer(held, peculiar(1))
            async with client_of(held, dialer) as client:
                await wanted(client, "first")
                with trio.CancelScope() as scope:
                    steps = Steps(step, scope)
                    trio.lowlevel.add_instrument(steps)
                    try:
                        await whole_answer(client.post(PATH, json.dumps({"input": "second"})), max_bytes=99)
                    finally:
                        trio.lowlevel.remove_instrument(steps)
                late = steps.left > 0
                await trio.testing.wait_all_tasks_blocked()
                assert len(held.still_open) <= 1
                for text in ("third", "fourth"):
                    await wanted(client, text)
                assert dialer.dials <= 2
        if late:
            break
    assert late
    assert step > 20


async def test_many_cancelled_at_random_leave_nothing_behind(autojump_clock: MockClock) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, peculiar(1))
        async with client_of(held, dialer) as client:

            async def one(number: int) -> None:
                for turn in range(5):
                    text = f"{number}-{turn}"
                    with trio.move_on_after(0.013 * ((number + turn) % 5)) as scope:
                        post = client.post(PATH, json.dumps({"input": text}))
                        assert await whole_answer(post, max_bytes=99) == f"{text}!".encode()
                    if not scope.cancelled_caught:
                        await trio.sleep(0.007)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(one, number)
            await trio.sleep(1)
            assert len(held.still_open) <= 20


async def test_reused_many_times_over_tls_without_losing_a_byte() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with contained() as held:
        port = await serve(held, peculiar_tls, server)
        endpoint = engine.Endpoint(f"https://127.0.0.1:{port}/v1", KEY, ssl_context=context)
        async with client_of(held, WatchedTcpDialer(held), endpoint=endpoint) as client:
            for number in range(200):
                post = client.post(PATH, json.dumps({"input": str(number)}))
                assert await whole_answer(post, max_bytes=99) == str(number).encode()
                assert post.reused is (number > 0)


async def peculiar_tls(peer: Peer) -> None:
    while True:
        body = await read_request(peer)
        await peer.send(answer(json.loads(body)["input"]))


# --- turns ---


def event_stream(*frames: bytes) -> bytes:
    texts = [data[4 if data[1] == 126 else 2 :] for data in frames]
    return b"".join(chunk(b"data: " + text + b"\n\n") for text in texts)


async def turns(peer: Peer) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    for number in range(1, 100):
        body = json.loads(await read_request(peer))
        said = body["input"][-1]["content"]
        await peer.send(head + event_stream(created(number), completed(said, number)))
        await trio.sleep(0.1)
        await peer.send(chunk(b"data: [DONE]\n\n") + END)


async def test_turns_over_http_use_one_connection(autojump_clock: MockClock) -> None:
    async with contained() as held:
        dialer = PeerDialer(held, turns)
        options: dict[str, Any] = {"dialer": dialer, "transport": engine.Transport.SSE, "model": "m"}
        async with engine.open_session(engine.Endpoint("http://peer.test/v1", KEY), **options) as session:
            for number in range(3):
                assert (await session.ask(f"turn {number}")).text == f"turn {number}"
                await trio.sleep(1)
            assert dialer.dials == 1
            texts = [(await session.ask(f"again {number}")).text for number in range(3)]
            assert texts == [f"again {number}" for number in range(3)]
            assert dialer.dials <= 4  # the end of an answer is still on its way when the next turn begins


IDLE = [
    b": ping\n\n",
    b":\n",
    b"\n",
    b"\r\n",
    b"event: ping\n\n",
    b"event: ping\ndata: \n\n",
    b'event: ping\r\ndata: {"cost": 0}\r\n\r\n',
    b"id: 7\n\n",
    b"retry: 500\n\n",
    b"data:\n\n",
    b"data: {}\n\n",
    b"data: null\n\n",
    b"data: ping\n\n",
    b'data: {"type": "ping"}\n\n',
    b'data: {"type": "heartbeat"}\n\n',
]


def commenting(*before: bytes, idle: bytes) -> ScriptFor:
    """Begin an answer, write what says nothing for half a minute, and end it."""

    async def script(peer: Peer) -> None:
        await read_request(peer)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await peer.send(head + event_stream(*before))
        for _ in range(5):
            await trio.sleep(6)
            await peer.send(chunk(idle))
        await peer.send(event_stream(completed("at last")) + END)
        await peer.swallow()

    return script


@pytest.mark.parametrize("idle", IDLE)
async def test_whatever_comes_is_progress_once_the_answer_has_begun(autojump_clock: MockClock, idle: bytes) -> None:
    options: dict[str, Any] = {"transport": engine.Transport.SSE, "model": "m"}
    async with contained() as held:
        dialer = PeerDialer(held, commenting(created(), idle=idle))
        budgets = engine.Timeouts(idle=10, first_event=10, start=60)
        endpoint = engine.Endpoint("http://peer.test/v1", KEY)
        async with engine.open_session(endpoint, dialer=dialer, timeouts=budgets, **options) as session:
            assert (await session.ask("?")).text == "at last"


@pytest.mark.parametrize("idle", IDLE)
async def test_what_says_nothing_is_no_first_event(autojump_clock: MockClock, idle: bytes) -> None:
    options: dict[str, Any] = {"transport": engine.Transport.SSE, "model": "m"}
    async with contained() as held:
        dialer = PeerDialer(held, commenting(idle=idle))
        budgets = engine.Timeouts(idle=10, first_event=10, start=60)
        endpoint = engine.Endpoint("http://peer.test/v1", KEY)
        async with engine.open_session(endpoint, dialer=dialer, timeouts=budgets, **options) as session:
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("?")
            assert caught.value.phase == "first_event"
