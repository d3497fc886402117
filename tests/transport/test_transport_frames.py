"""Messages cut below trio-websocket are those that trio-websocket alone would give, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_peer import BINARY, CONTINUATION, PING, PONG, close_frame, frame
from twins import HEAD, Happening, Snapshot, lives, slices

from engine.transport.frames import FrameCutter

A, B, C = frame("A"), frame("B"), frame("C")
HALF = "é".encode()[:1]
REST = "é".encode()[1:]


@frozen
class Case:
    """Bytes behind the acceptance, and what becomes of them: messages, Pongs, and the code, or None if it is open."""

    data: bytes
    messages: Sequence[str | bytes] = ()
    code: int | None = None
    pongs: int = 0
    limit: int = 1 << 20


def first(payload: bytes | str) -> bytes:
    return frame(payload, fin=False)


def middle(payload: bytes | str) -> bytes:
    return frame(payload, CONTINUATION, fin=False)


def last(payload: bytes | str) -> bytes:
    return frame(payload, CONTINUATION)


CASES = {
    "fragments, then a text": Case(first("A1") + last("A2") + B, ["A1A2", "B"]),
    "three fragments": Case(first("a") + middle("b") + last("c"), ["abc"]),
    "a Ping between fragments": Case(first("A1") + frame("p", PING) + last("A2") + B, ["A1A2", "B"], pongs=1),
    "a character over fragments": Case(first(HALF) + frame("", PING) + last(REST) + B, ["é", "B"], pongs=1),
    "binary": Case(frame(b"\xff\x00", BINARY) + B, [b"\xff\x00", "B"]),
    "binary in fragments": Case(frame(b"\xff", BINARY, fin=False) + last(b"\x00") + B, [b"\xff\x00", "B"]),
    "binary and many texts": Case(A + frame(b"\xff", BINARY) + B * 20, ["A", b"\xff", *["B"] * 20]),
    "a reserved bit": Case(A + frame("x", rsv=4) + B, ["A"], 1002),
    "a Ping that is too long": Case(A + frame("x" * 126, PING) + B, ["A"], 1002),
    "a lone continuation": Case(A + last("x") + B, ["A"], 1002),
    "a lone continuation without an end": Case(A + middle("x") + B, ["A"], 1002),
    "a Ping without FIN": Case(A + b"\x09\x00" + B, ["A"], 1002),
    "a Pong without FIN": Case(A + b"\x0a\x00" + B, ["A"], 1002),
    "a text inside fragments": Case(A + first("x") + B + C, ["A"], 1002),
    "a begun text inside fragments": Case(A + first("x") + first("y") + C, ["A"], 1002),
    "a binary inside fragments": Case(A + first("x") + frame("y", BINARY) + C, ["A"], 1002),
    "an unknown opcode": Case(A + frame("x", 7) + B, ["A"], 1002),
    "an unknown opcode, at once": Case(A + b"\x83\x7e", ["A"], 1002),
    "an unknown opcode, not yet": Case(A + b"\x83", ["A"]),
    "a short length in two bytes": Case(A + b"\x81\x7e\x00\x05abcde" + B, ["A"], 1002),
    "65,535 in eight bytes": Case(A + b"\x81\x7f" + (65535).to_bytes(8) + B, ["A"], 1002),
    "a length with its most significant bit": Case(A + b"\x81\x7f\x80" + bytes(7) + B, ["A"], 1002),
    "masked": Case(A + b"\x81\x81\x01\x02\x03\x04a" + B, ["A"], 1002),
    "masked, before its length": Case(A + b"\x81\xfe", ["A"]),
    "a masked Ping": Case(A + b"\x89\x80\x01\x02\x03\x04" + B, ["A"], 1002),
    "a reserved bit, before its length": Case(A + b"\xc1\x7f", ["A"]),
    "not UTF-8": Case(A + frame(b"\xff\xff") + B, ["A"], 1007),
    "half a character": Case(A + frame(HALF) + B, ["A"], 1007),
    "half a character and an empty end": Case(A + first(HALF) + last("") + B, ["A"], 1007),
    "a surrogate": Case(A + frame(b"\xed\xa0\x80") + B, ["A"], 1007),
    "not UTF-8, in an unfinished frame": Case(A + b"\x81\x05ab\xff", ["A"], 1007),
    "not UTF-8, in an unfinished frame of a later fragment": Case(A + first("é") + b"\x00\x09ab\xffcd", ["A"], 1007),
    "not UTF-8, after a finished fragment": Case(A + first("ab" + "é" * 90) + last(b"c\xff") + B, ["A"], 1007),
    "characters within the limit that are bytes over it": Case(frame("é" * 200) + B, ["é" * 200, "B"], limit=300),
    "characters over the limit": Case(A + frame("x" * 400) + B, ["A"], 1009, limit=300),
    "fragments over the limit": Case(A + first("x" * 200) + last("x" * 200) + B, ["A"], 1009, limit=300),
    "fragments within the limit": Case(first("x" * 200) + last("x" * 100) + B, ["x" * 300, "B"], limit=300),
    "each within the limit": Case(frame("x" * 200) + frame("x" * 200), ["x" * 200] * 2, limit=300),
    "2**40 announced": Case(A + b"\x81\x7f" + (2**40).to_bytes(8) + b"x" * 301, ["A"], 1009, limit=300),
    "2**40 announced, and few come": Case(A + b"\x81\x7f" + (2**40).to_bytes(8) + b"x" * 30, ["A"], limit=300),
    "a second one over the limit": Case(A + frame("x" * 400) + frame("y" * 400) + B, ["A"], 1009, limit=300),
    "a Close and a text": Case(A + close_frame(1001, "bye") + B, ["A"], 1001),
    "a Close inside fragments": Case(A + first("x") + close_frame(1012) + last("y"), ["A"], 1012),
    "a Close of one byte": Case(A + frame("x", 8) + B, ["A"], 1002),
    "a Close with a bad reason": Case(A + frame(b"\x03\xe8\xff", 8) + B, ["A"], 1007),
    "a Close without a code": Case(A + close_frame(None), ["A"], 1005),
    "half a Close": Case(A + close_frame(1000)[:3], ["A"]),
    "empty fragments and an empty text": Case(first("") + middle("") + last("") + frame("") + B, ["", "", "B"]),
    "Pings of 0 and 125, a Pong": Case(frame("", PING) + frame("x" * 125, PING) + frame("", PONG) + A, "A", pongs=2),
    "text and Ping in turn": Case((A + frame("p", PING)) * 30, ["A"] * 30, pongs=30),
    "a length in two bytes": Case(frame("é" * 100) + frame("x" * 126), ["é" * 100, "x" * 126]),
    "every character width": Case(frame("aé€😀" * 3) + first("😀€") + last("éa"), ["aé€😀" * 3, "😀€éa"]),
}  # fmt: skip


def compare(happenings: Sequence[Happening], limit: int = 1 << 20) -> Snapshot:
    """Check that both twins fare alike, step by step; returns how they ended."""
    alone, behind = lives(happenings, limit=limit)
    ours = happenings.index("close") if "close" in happenings else len(happenings)
    for number, (expected, got) in enumerate(zip(alone, behind, strict=True)):
        if number > ours:
            # While a Close frame of ours is under way, a message may count or not.
            shorter, longer = sorted((expected.messages, got.messages), key=len)
            assert longer[: len(shorter)] == shorter
            assert (got.sent, got.closed, got.raised, got.shut) == (
                expected.sent, expected.closed, expected.raised, expected.shut
            ), (number, happenings)  # fmt: skip
        else:
            assert got == expected, (number, happenings)
    return behind[-1]


def check(case: Case, happenings: Sequence[Happening]) -> None:
    end = compare(happenings, case.limit)
    assert list(end.messages) == list(case.messages)
    assert (end.closed[0] if end.closed is not None else None) == case.code
    assert sum(first == 0x8A for first, _ in end.sent) == case.pongs


@pytest.mark.parametrize("name", CASES)
def test_hard_streams_in_one_piece_and_byte_by_byte(name: str) -> None:
    data = CASES[name].data
    check(CASES[name], [HEAD, data])
    check(CASES[name], [HEAD + data])
    check(CASES[name], [HEAD, *slices(data, range(len(data)))])


@pytest.mark.parametrize("name", CASES)
def test_hard_streams_torn_anywhere(name: str) -> None:
    data = CASES[name].data
    for place in range(1, min(len(data), 40)):
        check(CASES[name], [HEAD, *slices(data, [place])])
    for place in range(2, min(len(data), 40), 5):
        check(CASES[name], [HEAD, *slices(data, [place, place + 1, place + 3])])


STREAM = A + first("B") + frame("p", PING) + last("é!") + frame("x" * 130) + C
PLACES = [*range(26), 90, *range(len(STREAM) - 4, len(STREAM) + 1)]


@pytest.mark.parametrize("happening", ["end", "reset", "cancel", "close", "ping"])
def test_something_else_happens_at_every_byte(happening: Happening) -> None:
    for place in PLACES:
        before, after = STREAM[:place], STREAM[place:]
        compare([HEAD + before, happening])
        if happening in {"close", "ping"} and after:
            compare([HEAD + before, happening, after, close_frame(1000)])
            compare([HEAD + before, happening, *slices(after, range(0, len(after), 3)), "end"])


def test_a_close_of_ours_and_what_comes_after() -> None:
    for after in (A, first("x") + last("y"), A + frame("x", 7), frame("p", PING), frame("x" * 400), frame("b", BINARY)):
        for ending in ([], [close_frame(1000)], ["end"]):
            end = compare([HEAD + B, "close", after, *ending], limit=300)
            assert end.messages[:1] == ("B",)


def test_an_acceptance_torn_at_every_byte() -> None:
    (opened,), _ = lives([HEAD])
    assert opened.opened
    head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
    for behind in (b"", A + first("B"), close_frame(1013), frame(b"x", 7), frame(b"\xff")):
        for place in range(0, len(head), 3):
            compare(
                [head[:place], head[place:] + b"wrong\r\n\r\n" + behind]
                if place
                else [head + b"wrong\r\n\r\n" + behind]
            )
        compare([HEAD + behind[:1], behind[1:]] if behind[1:] else [HEAD + behind])


def test_nothing_counts_behind_an_acceptance_that_is_wrong() -> None:
    head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
    end = compare([head + B])
    assert (end.opened, end.messages, end.raised) == (False, (), ("LocalProtocolError",))


# --- any bytes -------------------------------------------------------------------------------------------------------

_PAYLOADS = st.one_of(
    st.sampled_from([b"", b"a", "é€😀".encode(), HALF, REST, b"\xff", b"\xed\xa0\x80", b"x" * 130]),
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=8),
)
_FRAMES = st.one_of(
    _PAYLOADS.map(frame),
    st.text(max_size=20).map(frame),
    st.builds(frame, _PAYLOADS, st.sampled_from([0, 1, 1, 2, 8, 9, 10, 3]), fin=st.booleans()),
    st.builds(frame, _PAYLOADS, st.sampled_from([0, 1, 9]), fin=st.booleans(), rsv=st.sampled_from([0, 0, 0, 4])),
    st.builds(close_frame, st.sampled_from([1000, 1001, 1005, 999, 4000, None])),
    st.binary(min_size=1, max_size=4),
    st.sampled_from([first("ab"), last("cd"), middle(HALF), last(REST), frame("", PING), frame("é" * 70)]),
)
_OTHERS = st.sampled_from(["close", "end", "reset", "cancel", "ping"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_FRAMES, max_size=8).map(b"".join),
    st.lists(st.integers(1, 200), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), _OTHERS), max_size=2),
    st.sampled_from([5, 100, 1 << 20]),
    st.booleans(),
)
@example(first("a") + last(HALF) + frame("b"), [4], [], 1 << 20, False)
@example(first("aé") + last("é" * 60) + frame("b"), [9, 12], [], 100, True)
def test_any_bytes_in_any_slices(
    data: bytes, places: list[int], others: list[tuple[int, Happening]], limit: int, together: bool
) -> None:
    happenings: list[Happening] = list(slices(data, places)) if data else []
    if together and happenings:
        happenings[0] = HEAD + happenings[0]  # type: ignore[operator]
    else:
        happenings.insert(0, HEAD)
    ended = False
    for place, other in others:
        if not (ended and other == "end"):
            happenings.insert(1 + place, other)
        ended = ended or other == "end"
    compare(happenings, limit)


def test_nothing_that_is_held_is_held_as_bytes() -> None:
    cutter = FrameCutter(1 << 30)
    size = 5_000_000
    texts, passed = cutter.feed(b"\x81\x7f" + size.to_bytes(8))
    for _ in range(size // 50_000):
        assert (texts, passed) == ([], b"")
        texts, passed = cutter.feed(b"x" * 50_000)
    assert (texts, passed) == (["x" * size], b"")
    assert not cutter.ended
    assert cutter.feed(b"\x89\x7dabc") == ([], b"")
    assert cutter.feed(b"x" * 122) == ([], b"\x89\x7dabc" + b"x" * 122)
