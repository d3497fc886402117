"""Bytes of a stream to events: the standard's rules, any slicing, bounded memory, linear time."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from engine.wire.sse import OversizedEvent, SseDecoder, SseEvent

same_examples = settings(derandomize=True, deadline=None, max_examples=200)

# What streams are made of, in pieces small enough for every combination to turn up.
PIECES = [
    b"data", b"event", b"id", b"retry", b"dat", b":", b": ", b" ", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"a",
    b'{"k":1}', b"[DONE]", b"7", "é\u2028😀".encode(), b"\xc2\x85", b"\xef\xbb\xbf", b"\xff", b"\xe2\x82",
    b"\x00", b"\x0b\x0c\x1c",
]  # fmt: skip
streams = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


def decode(*chunks: bytes, limit: int = 1 << 20) -> list[SseEvent]:
    decoder = SseDecoder(limit)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def outcome(chunks: list[bytes], limit: int) -> tuple[list[SseEvent], bool]:
    """What a stream comes to: its events, and whether it was too long."""
    decoder = SseDecoder(limit)
    events: list[SseEvent] = []
    for chunk in chunks:
        try:
            events += decoder.feed(chunk)
        except OversizedEvent as error:
            return events + list(error.before), True
    return events, False


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", "a")]),
        (b"event: x\ndata: a\n\n", [("x", "a")]),
        (b"data: a\nevent: x\n\ndata: b\n\n", [("x", "a"), ("message", "b")]),
        (b"event: x\nevent: y\ndata: a\n\n", [("y", "a")]),
        (b"event: x\nevent\ndata: a\n\n", [("message", "a")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [("message", "a"), ("message", "b"), ("message", "c")]),
        (b"data: a\n\rdata: b\r\n\n", [("message", "a"), ("message", "b")]),
        # One space after the colon belongs to the field's syntax, a second to its value.
        (b"data:a\n\ndata:  b \n\ndata:\tc\n\n", [("message", "a"), ("message", " b "), ("message", "\tc")]),
        (b"data: a\ndata:b\ndata\ndata:\n\n", [("message", "a\nb\n\n")]),
        (b"data\n\n", [("message", "")]),
        (b"data:\n\n", [("message", "")]),
        (b": hello\n\n:\n\ndata: a\n: in between\ndata: b\n\n", [("message", "a\nb")]),
        (b"event: ping\n\ndata: a\n\n", [("message", "a")]),
        (b"id: 7\nretry: 10\nnonsense: x\nnonsense\ndata: a\n\n", [("message", "a")]),
        (b"Data: a\ndatax: b\n data: c\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
        (b"\xef\xbb\xbf\n\xef\xbb\xbfdata: a\n\n", []),
        (b"\n\n\r\r\n\n", []),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"data: a\r\n", []),
        (b"data: a\n\ndata: b\n", [("message", "a")]),
        ("data: é\u2028\u2029\u0085\x0b\x0c\x1cz\n\n".encode(), [("message", "é\u2028\u2029\u0085\x0b\x0c\x1cz")]),
        (b"data: \xff\xe2\x82\n\n", [("message", "\ufffd\ufffd")]),
        (b"data: a:b: c\n\n", [("message", "a:b: c")]),
        (b"data: [DONE]\n\n", [("message", "[DONE]")]),
    ],
)
def test_the_rules_of_the_standard(stream: bytes, expected: list[tuple[str, str]]) -> None:
    events = [SseEvent(*each) for each in expected]
    assert decode(stream) == events
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_an_event_is_given_with_the_byte_that_ends_it() -> None:
    decoder = SseDecoder(100)
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n\r") == [SseEvent("message", "a")]
    # The rest of the CRLF is not a further line, whenever it comes.
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: b\n\n") == [SseEvent("message", "b")]


def test_data_is_not_shown() -> None:
    assert "secret" not in repr(decode(b"data: secret\n\n"))


@same_examples
@given(streams, st.lists(st.integers(0, 200), max_size=12))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10])
def test_any_slicing_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    whole = decode(stream)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert decode(*(stream[start:end] for start, end in pairwise(edges))) == whole
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == whole


@same_examples
@given(streams, st.integers(0, 12), st.lists(st.integers(0, 100), max_size=6))
@example(b"data: a\n\n" * 3 + b":" * 20, 12, [30])
def test_any_slicing_finds_the_same_event_too_long(stream: bytes, limit: int, cuts: list[int]) -> None:
    whole = outcome([stream], limit)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert outcome([stream[start:end] for start, end in pairwise(edges)], limit) == whole
    assert outcome([stream[at : at + 1] for at in range(len(stream))], limit) == whole


@same_examples
@given(streams)
def test_the_official_client_finds_the_same_events(stream: bytes) -> None:
    # Where that decoder differs from the standard: it fails on what is not UTF-8, keeps a byte order mark, and gives
    # events that have no data. An id or a retry alone makes an event for it, so these are left out.
    stream = b"".join(piece for piece in stream.split(b"\xef\xbb\xbf"))
    text = stream.decode("utf-8", "ignore").replace("id", "x").replace("retry", "y").encode()
    theirs = [(each.event or "message", each.data) for each in SSEDecoder().iter_bytes(iter([text]))]
    ours = [(each.event, each.data) for each in decode(text)]
    assert [each for each in ours if each[1]] == [each for each in theirs if each[1]]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 95,
        b"x" * 101,
        b":" + b"x" * 100,
        b"data: " + b"x" * 95 + b"\n\n",
        b"data:\n" * 21,
        b"data\n" * 26,
        b"event: " + b"x" * 50 + b"\ndata: " + b"x" * 50,
    ],
)
def test_what_is_too_long_is_refused(stream: bytes) -> None:
    before = [SseEvent("message", "a")]
    assert outcome([b"data: a\n\n" + stream], 100) == (before, True)
    decoder = SseDecoder(100)
    with pytest.raises(OversizedEvent) as caught:
        decoder.feed(b"data: a\n\n" + stream)
    assert (caught.value.limit, caught.value.before) == (100, tuple(before))
    assert "xx" not in str(caught.value)
    with pytest.raises(OversizedEvent):
        decoder.feed(b"data: b\n\n")


def test_the_bound_is_for_one_event() -> None:
    event = b"data: " + b"x" * 94 + b"\n\n"
    assert len(decode(event * 10, limit=100)) == 10
    assert len(decode((b":" + b"x" * 99 + b"\n") * 10 + event, limit=100)) == 1


@pytest.mark.parametrize("piece", [b"x", b"data:\n", b"data\r", b"event: x\n", b":x\n", b"xy\n", b"id: 1\r\n"])
def test_memory_stays_within_the_bound(piece: bytes) -> None:
    limit = 64 * 1024
    decoder = SseDecoder(limit)
    tracemalloc.start()
    try:
        for _ in range(4 * limit // len(piece)):
            decoder.feed(piece)
    except OversizedEvent:
        pass
    finally:
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # A list entry for each of the shortest data lines is the worst.
    assert peak < 4 * limit


def test_a_long_event_in_small_chunks_takes_linear_time() -> None:
    def seconds(length: int) -> float:
        chunks = [b"data: ", *[b"x" * 100] * (length // 100), b"\n\n"]
        decoder = SseDecoder(1 << 30)
        start = time.process_time()
        found = sum(len(decoder.feed(chunk)) for chunk in chunks)
        spent = time.process_time() - start
        assert found == 1
        return spent

    # 64 times the bytes take 64 times as long, and several thousand times where every chunk copies what came before.
    assert seconds(64 * 32_000) < 640 * min(seconds(32_000) for _ in range(5))
