"""What a peer may do on an open connection, in memory and virtual time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from invariants import contained, said
from raw_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CREATED,
    DELTA,
    KEY,
    PING,
    PONG,
    TEXT,
    Line,
    Peer,
    PeerDialer,
    ScriptFor,
    close_frame,
    completed,
    created,
    event,
    frame,
    line,
    session_over,
)
from trio.testing import MockClock

import engine

MASK = b"\x01\x02\x03\x04"


def saying(data: bytes, *, then_read: bool = True) -> ScriptFor:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send(data)
        if then_read:
            await peer.until_gone()

    return script


async def live(script: ScriptFor, *, within: float = 0, **options: Any) -> Line:
    """Live a whole line that the peer ends; return it."""
    async with contained(within=within) as held:
        whole = line(held, script, **options)
        await whole.run()
        assert len(whole.failures) == 1
        assert KEY not in said(whole.error)
    return whole


# --- violations of RFC 6455 ---


@pytest.mark.parametrize(
    "data",
    {
        "a binary message that is no text": frame(b"\x00\xff", BINARY),
        "invalid UTF-8": frame(b'{"type": "\xff\xfe"}'),
        "UTF-8 that ends too early": frame(b"\xe2\x82"),
        "a surrogate": frame(b"\xed\xa0\x80"),
        "a masked frame": frame("{}", mask=MASK),
        "a reserved opcode": frame("", 3),
        "a reserved control opcode": frame("", 11),
        "a reserved bit": frame("{}", rsv=4),
        "a fragmented ping": frame("x", PING, fin=False),
        "a fragmented close": frame(b"\x03\xe8", CLOSE, fin=False),
        "a ping that is too long": frame("x" * 126, PING),
        "a continuation of nothing": frame("x", CONTINUATION),
        "a text inside another": frame("x", fin=False) + frame("y"),
        "a length in more bytes than needed": bytes([0x81, 126, 0, 1]) + b"x",
        "a length of 2**63": bytes([0x81, 127]) + b"\x80" + bytes(7),
        "a close with one byte": frame("x", CLOSE),
        "a close with code 999": close_frame(999),
        "a close with code 1005": close_frame(1005),
        "a close with code 2999": close_frame(2999),
        "a close with a reason that is not UTF-8": frame(b"\x03\xe8\xff", CLOSE),
    }.values(),
    ids=lambda data: data[:8].hex(),
)
@pytest.mark.parametrize("then_read", [True, False])
async def test_a_violation_ends_the_connection_and_is_told_as_one(
    autojump_clock: MockClock, data: bytes, then_read: bool
) -> None:
    whole = await live(saying(frame('"before"') + data, then_read=then_read))
    assert type(whole.error) is engine.ProtocolViolation
    assert whole.messages == ['"before"']


@pytest.mark.parametrize("code", [1002, 1007, 1009])
async def test_a_peer_that_complains_of_a_violation_is_a_loss(autojump_clock: MockClock, code: int) -> None:
    whole = await live(saying(close_frame(code, "your fault")))
    assert type(whole.error) is engine.ConnectionLost
    assert (whole.error.close_code, whole.error.close_reason) == (code, "your fault")


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_message_over_the_limit_is_a_violation(autojump_clock: MockClock, pieces: int) -> None:
    frames = [frame("x" * 1000, TEXT if n == 0 else CONTINUATION, fin=n == pieces - 1) for n in range(pieces)]
    whole = await live(saying(b"".join(frames)), max_message_bytes=1000 * pieces - 1)
    assert type(whole.error) is engine.ProtocolViolation
    assert str(1000 * pieces - 1) in str(whole.error)
    whole = await live(saying(b"".join(frames) + close_frame()), max_message_bytes=1000 * pieces)
    assert len(whole.messages) == 1


@pytest.mark.parametrize("count", [1, 16, 64, 65, 130, 400])
async def test_messages_that_come_together_are_handed_on_together(autojump_clock: MockClock, count: int) -> None:
    data = b"".join(frame(b"%d" % number, TEXT) for number in range(count))
    batches: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send(data)
        await trio.sleep(1)
        await peer.send(frame(b"alone", TEXT))
        await peer.until_gone()

    async with contained(within=1.5) as held, trio.open_nursery() as nursery:
        whole = line(held, script, received=lambda texts: batches.append(len(texts)))
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        await trio.sleep(0.5)
        assert sum(batches) == count
        assert max(batches) <= 64
        assert len(batches) == -(-count // 64)
        await trio.sleep(1)
        assert batches[-1] == 1
        whole.socket.close()
    assert whole.messages == [*map(str, range(count)), "alone"]


@pytest.mark.parametrize("pieces", [1, 2])
async def test_binary_messages_that_hold_text_are_read(autojump_clock: MockClock, pieces: int) -> None:
    text = '{"type": "é"}'
    data = frame(text, BINARY)
    if pieces == 2:  # within the é, and with a Ping between
        data = frame(text.encode()[:11], BINARY, fin=False) + frame("", PING)
        data += frame(text.encode()[11:], CONTINUATION)
    whole = await live(saying(frame("before") + data + frame("behind") + close_frame()))
    assert whole.messages == ["before", text, "behind"]


async def test_a_turn_over_binary_messages(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        for number in (1, 2):
            await peer.request()
            for each in (created(number), completed("fine", number)):
                await peer.send(bytes([0x82]) + each[1:])
        await peer.until_gone()

    async with contained(within=0) as held, session_over(held, script) as session:
        assert (await session.ask("hi")).text == "fine"
        assert (await session.ask("hi")).text == "fine"


async def test_a_receiver_that_raises_is_a_broken_session(autojump_clock: MockClock) -> None:
    def refuse(texts: object) -> None:
        raise LookupError("a defect")

    whole = await live(saying(frame(b"hi", TEXT)), received=refuse)
    assert isinstance(whole.error.__cause__, LookupError)


async def test_a_message_without_end_is_cut_at_the_limit(autojump_clock: MockClock) -> None:
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.accept()
        await peer.send(frame("x", fin=False))
        while True:
            await peer.send(frame("x" * 10_000, CONTINUATION, fin=False))
            sent += 10_000

    whole = await live(flood, max_message_bytes=100_000)
    assert type(whole.error) is engine.ProtocolViolation
    assert sent < 1_000_000


async def test_a_peer_that_quotes_another_limit_complains_of_us(autojump_clock: MockClock) -> None:
    whole = await live(saying(close_frame(1009, "Exceeded maximum message size: 1048576 bytes")))
    assert type(whole.error) is engine.ConnectionLost
    assert whole.error.close_code == 1009


# --- legal, if unusual ---


async def test_what_is_legal_is_understood(autojump_clock: MockClock) -> None:
    text = "Ünï €𝄞"
    raw = text.encode()
    data = (
        frame("", TEXT)
        + frame(raw[:5], fin=False)
        + frame("ping", PING)
        + frame("", CONTINUATION, fin=False)
        + frame("unasked for", PONG)
        + frame(raw[5:], CONTINUATION)
        + frame("x" * 125)
        + frame("x" * 126)
        + frame("x" * 65536)
        + frame("", PING)
    )
    pongs = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        for start in range(300):
            await peer.send(data[start : start + 1])
            await trio.testing.wait_all_tasks_blocked()
        await peer.send(data[300:])
        for _ in range(2):
            pongs.append(await peer.next_frame())
        await peer.send(close_frame(None))
        assert await peer.next_frame() == (CLOSE, b"")
        await peer.until_gone()

    whole = await live(script)
    assert whole.messages == ["", text, "x" * 125, "x" * 126, "x" * 65536]
    assert pongs == [(PONG, b"ping"), (PONG, b"")]
    assert (whole.error.close_code, whole.error.close_reason) == (1005, None)


# --- losses ---

CODES = [1000, 1001, 1003, 1008, 1009, 1011, 1012, 1013, 3000, 4000, 4999]


@pytest.mark.parametrize("code", CODES)
async def test_a_close_frame_is_a_loss_with_its_code_and_reason(autojump_clock: MockClock, code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send(frame("1") + close_frame(code, "secret words"))
        got = await peer.next_frame()
        assert got is not None
        assert got[0] == CLOSE
        await trio.sleep_forever()  # TCP stays open: ending it is the client's part

    whole = await live(script)
    assert whole.messages == ["1"]
    error = whole.error
    assert type(error) is engine.ConnectionLost
    assert (error.close_code, error.close_reason) == (code, "secret words")
    assert type(error.close_code) is int
    assert "secret" not in said(error)
    assert "secret" not in repr(whole.failures)


@pytest.mark.parametrize("ending", ["end", "reset"])
@pytest.mark.parametrize("cut", [0, 1, 3, 60])
async def test_a_stream_cut_anywhere_is_a_loss(autojump_clock: MockClock, cut: int, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send(frame("whole") + frame("x" * 200)[:cut])
        if ending == "reset":
            peer.reset()

    whole = await live(script)
    assert whole.messages == ["whole"]
    assert type(whole.error) is engine.ConnectionLost
    assert (whole.error.close_code, whole.error.close_reason) == (1006, None)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("ending", [*CODES, "end", "reset", "cut"])
async def test_a_turn_is_told_of_its_loss(autojump_clock: MockClock, ending: Any, started: bool) -> None:
    async def lose(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        if started:
            await peer.send(CREATED + DELTA)
        if ending == "reset":
            peer.reset()
        elif ending == "cut":
            await peer.send(DELTA[:20])
        elif ending != "end":
            await peer.send(close_frame(ending, "secret words"))
            await peer.until_gone()

    async def serve(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send(CREATED + completed("fine"))
        await peer.until_gone()

    async with contained(within=0) as held, session_over(held, lose, serve) as session:
        with pytest.raises(engine.ConnectionLost) as caught:
            await session.ask("hi")
        error = caught.value
        code = ending if isinstance(ending, int) else 1006
        assert (error.close_code, error.close_reason) == (code, None if code == 1006 else "secret words")
        unheard = engine.Delivery.REJECTED if ending == 1009 else engine.Delivery.AMBIGUOUS
        assert error.delivery is (engine.Delivery.ACCEPTED if started else unheard)
        assert (error.partial.text if error.partial else None) == ("par" if started else None)
        assert "secret" not in said(error)
        assert KEY not in said(error)
        assert held.elapsed == 0
        assert (await session.ask("again")).text == "fine"


@pytest.mark.parametrize("code", [1006, 1008, 1013])
async def test_a_connection_that_ends_as_it_opens_is_dialled_again(autojump_clock: MockClock, code: int) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.accept(close_frame(code, "") if code != 1006 else b"")

    async def serve(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send(CREATED + completed("fine"))
        await peer.until_gone()

    policy = engine.RetryPolicy(jitter=lambda: 1.0)
    async with contained() as held, session_over(held, hang_up, hang_up, serve, retry=policy) as session:
        async with session.turn("hi") as turn:
            assert (await turn.wait()).text == "fine"
        assert turn.report.attempts == 1
        assert held.elapsed == 1 + 2


# --- messages that are no events ---


@pytest.mark.parametrize(
    "message",
    ["not json", "", '{"type": "response.created"', "[1]", "3", "{}", '{"type": 3}', "[" * 100_000, '{"a":' * 100_000],
    ids=lambda message: message[:10],
)
async def test_a_malformed_message_is_counted_and_costs_nobody_an_answer(
    autojump_clock: MockClock, message: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        for number in range(2):
            await peer.request()
            await peer.send(frame(message) + created(number) + frame(message) + completed("fine", number))
        await peer.until_gone()

    async with contained(within=0) as held:
        dialer = PeerDialer(held, script)
        async with session_over(held, dialer=dialer) as session:
            assert (await session.ask("hi")).text == "fine"
            (connection,) = session.statistics().connections
            assert connection.malformed == 2
            assert (connection.state, connection.in_flight) == ("open", 0)
            assert (await session.ask("hi")).text == "fine"
            assert dialer.dials == 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    "data",
    [frame(b"\xfe", BINARY), frame(b"\xff"), frame("{}", mask=MASK), frame("", 3), frame("x" * 5000)],
    ids=["binary", "UTF-8", "masked", "opcode", "size"],
)
async def test_a_turn_is_told_of_a_violation(autojump_clock: MockClock, data: bytes, started: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send((CREATED + DELTA if started else b"") + data)
        await peer.until_gone()

    limits = engine.Limits(max_message_bytes=4000)
    async with contained(within=0) as held, session_over(held, script, limits=limits) as session:
        with pytest.raises(engine.ProtocolViolation) as caught:
            await session.ask("hi")
        assert caught.value.delivery is (engine.Delivery.ACCEPTED if started else engine.Delivery.AMBIGUOUS)
        assert (caught.value.partial.text if caught.value.partial else None) == ("par" if started else None)


@pytest.mark.parametrize("behind", [b"", close_frame(1008)])
async def test_an_error_right_behind_the_acceptance_reaches_the_turn(autojump_clock: MockClock, behind: bytes) -> None:
    async def script(peer: Peer) -> None:
        refusal = {"code": "invalid_api_key", "type": "invalid_request_error", "message": "secret words"}
        await peer.accept(event(type="error", status=401, error=refusal) + behind)
        await peer.until_gone()

    for _ in range(10):  # how far the request has got by then is the scheduler's choice
        async with contained(within=0) as held, session_over(held, script) as session:
            with pytest.raises(engine.AuthenticationFailed):
                await session.ask("hi")
            assert held.elapsed == 0


async def test_random_bytes_never_break_more_than_their_connection(autojump_clock: MockClock) -> None:
    for number in range(100):
        noise = random.Random(number).randbytes(300)
        async with contained(within=0) as held:
            whole = line(held, saying(noise))
            with trio.move_on_after(0):
                await whole.run()
            if whole.failures:
                assert type(whole.error) in {engine.ProtocolViolation, engine.ConnectionLost}
