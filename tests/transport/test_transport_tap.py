"""The tap alone: what it queues, what it passes on, and what it knows of both."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from raw_peer import CLOSE, PIPE_CAPACITY, PONG, PipeStream, close_frame, frame, pipe
from trio.testing import MockClock

from engine.protocol.failures import Failure, Lost
from engine.transport.inlet import Inlet
from engine.transport.socket import Traffic
from engine.transport.tap import Tap

ACCEPTANCE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


async def tapped(
    *, capacity: float = PIPE_CAPACITY, max_outbox_bytes: int = 1000, accepted: bool = True
) -> tuple[Tap, PipeStream, list[Failure]]:
    """A tap, the stream at the far end, and what the tap reports."""
    near, far = pipe()
    near.outgoing.capacity = capacity
    failures: list[Failure] = []
    tap = Tap(
        near,
        max_outbox_bytes=max_outbox_bytes,
        fail=failures.append,
        on_rest=lambda: None,
        inlet=Inlet(1000, lambda texts: None, lambda: False),
        traffic=Traffic(),
    )
    if accepted:
        await far.send_all(ACCEPTANCE)
        assert await tap.receive_some() == ACCEPTANCE
        tap.upgraded()
    return tap, far, failures


async def receive_exactly(stream: PipeStream, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += await stream.receive_some(length - len(data))
    return data


async def test_writing_never_waits_and_the_order_is_kept(autojump_clock: MockClock) -> None:
    tap, far, failures = await tapped(capacity=3)
    pieces = [bytes([65 + number]) * number for number in range(1, 10)]
    for piece in pieces:
        await tap.send_all(piece)
    whole = b"".join(pieces)
    assert tap.traffic.outbox_bytes == tap.traffic.bytes_queued == len(whole)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        assert await receive_exactly(far, len(whole)) == whole
        await tap.outbox.drained()
        assert (tap.traffic.outbox_bytes, tap.traffic.bytes_sent) == (0, len(whole))
        assert tap.clean
        nursery.cancel_scope.cancel(reason="seen enough")
    assert failures == []
    assert not tap.torn


async def test_what_was_queued_is_not_changed_by_its_sender(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped()
    data = bytearray(b"before")
    await tap.send_all(data)
    data[:] = b"after!"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        assert await receive_exactly(far, 6) == b"before"
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_it_is_told_when_a_write_is_reached_and_when_it_is_passed(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped(capacity=1)
    told: list[str] = []
    for name, length in (("one", 3), ("two", 4), ("three", 5)):
        await tap.send_all(b"x" * length)
        tap.outbox.follow(
            lambda name=name: told.append(f"{name}…"),  # type: ignore[misc]
            lambda name=name: told.append(name),  # type: ignore[misc]
        )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        after = {}
        for received in range(1, 13):
            await receive_exactly(far, 1)
            await trio.testing.wait_all_tasks_blocked()
            after[received] = told[-1]
        assert after == dict.fromkeys((1,), "one…") | dict.fromkeys((2, 3, 4, 5), "two…") | dict.fromkeys(
            (6, 7, 8, 9, 10), "three…"
        ) | dict.fromkeys((11, 12), "three")
        nursery.cancel_scope.cancel(reason="seen enough")
    assert told == ["one…", "one", "two…", "two", "three…", "three"]


async def test_a_large_write_before_is_not_counted_for_the_one_behind(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped(capacity=1000, max_outbox_bytes=1 << 20)
    reached: list[float] = []
    await tap.send_all(b"x" * 600_000)
    await tap.send_all(b"y")
    tap.outbox.follow(lambda: reached.append(trio.current_time()), lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        await trio.sleep(100)  # the peer does not read
        assert reached == []
        await receive_exactly(far, 600_001)
        await trio.testing.wait_all_tasks_blocked()
        assert reached == [100]
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_cancelled_sender_queues_nothing(autojump_clock: MockClock) -> None:
    tap, _, _ = await tapped()
    with trio.CancelScope() as scope:
        scope.cancel(reason="before")
        await tap.send_all(b"x")
    assert scope.cancelled_caught
    assert tap.traffic.bytes_queued == 0


async def test_a_sender_cancelled_later_takes_nothing_back(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped(capacity=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        with trio.CancelScope() as scope:
            await tap.send_all(b"abcdef")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel(reason="the pump is in the middle of it")
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert not tap.clean
        assert await receive_exactly(far, 6) == b"abcdef"
        await trio.testing.wait_all_tasks_blocked()
        assert tap.clean
        nursery.cancel_scope.cancel(reason="seen enough")


@pytest.mark.parametrize("blocked", [True, False])
async def test_a_pump_stopped_within_a_write_leaves_the_stream_torn(autojump_clock: MockClock, blocked: bool) -> None:
    tap, _, failures = await tapped(capacity=2 if blocked else 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        await tap.send_all(b"abcdef")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="now")
    assert tap.torn is blocked
    assert tap.clean is not blocked
    assert failures == []
    if blocked:
        with pytest.raises(trio.ClosedResourceError):
            await tap.send_all(frame("more"))


async def test_a_torn_tap_swallows_control_frames(autojump_clock: MockClock) -> None:
    tap, far, failures = await tapped(capacity=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        await tap.send_all(frame("x" * 100))
        await trio.testing.wait_all_tasks_blocked()
        far.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert tap.torn
        await tap.send_all(frame("", PONG))
        await tap.send_all(frame("", CLOSE))
        with pytest.raises(trio.ClosedResourceError):
            await tap.send_all(frame("data"))
        assert failures == []
        await trio.sleep(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(failure) for failure in failures] == [Lost]
        assert isinstance(failures[0].cause, trio.BrokenResourceError)  # type: ignore[union-attr]
    assert tap.traffic.bytes_queued == len(frame("x" * 100))


async def test_the_outbox_is_bounded(autojump_clock: MockClock) -> None:
    tap, _, failures = await tapped(max_outbox_bytes=10)
    await tap.send_all(b"1234567890")
    with pytest.raises(trio.BrokenResourceError):
        await tap.send_all(b"1")
    assert [type(failure) for failure in failures] == [Lost]
    assert tap.traffic.bytes_queued == 10


async def test_one_write_over_the_bound_may_go_alone(autojump_clock: MockClock) -> None:
    tap, far, failures = await tapped(max_outbox_bytes=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        for _ in range(3):
            await tap.send_all(b"a" * 100)
            assert await receive_exactly(far, 100) == b"a" * 100
            await tap.outbox.drained()
        nursery.cancel_scope.cancel(reason="seen enough")
    assert failures == []


async def test_it_knows_whether_a_close_frame_was_sent(autojump_clock: MockClock) -> None:
    tap, _, _ = await tapped(accepted=False)
    await tap.send_all(b"HTTP upgrade request: its first byte looks like a Close frame")
    assert not tap.close_sent
    tap, _, _ = await tapped()
    await tap.send_all(frame("x"))
    await tap.send_all(frame("x", PONG))
    assert not tap.close_sent
    await tap.send_all(close_frame())
    assert tap.close_sent


async def test_it_counts_what_arrives_and_when(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped()
    before = tap.traffic.bytes_received
    await trio.sleep(5)
    await far.send_all(b"abc")
    assert await tap.receive_some(2) == b"ab"
    assert tap.traffic.bytes_received - before == 2
    assert not tap.ended
    await far.aclose()
    assert await tap.receive_some() == b"c"
    assert await tap.receive_some() == b""
    assert tap.ended
    assert not tap.clean


async def test_a_reset_is_an_end(autojump_clock: MockClock) -> None:
    tap, far, failures = await tapped()
    far.reset()
    with pytest.raises(trio.BrokenResourceError):
        await tap.receive_some()
    assert tap.ended
    assert failures == []  # trio-websocket tells, after what came before


async def test_closed_by_the_library_it_refuses_and_leaves_the_stream_to_its_owner(autojump_clock: MockClock) -> None:
    tap, far, failures = await tapped()
    await tap.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await tap.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await tap.receive_some()
    assert not far.incoming.ended
    assert failures == []


async def test_its_repr_shows_no_address(autojump_clock: MockClock) -> None:
    tap, _, _ = await tapped()
    assert repr(tap) == "<Tap>"
    await tap.wait_send_all_might_not_block()


async def test_what_is_taken_back_never_leaves(autojump_clock: MockClock) -> None:
    tap, far, _ = await tapped()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.pump)
        await trio.testing.wait_all_tasks_blocked()
        await tap.send_all(b"kept")
        await tap.send_all(b"taken back")
        tap.outbox.retract()
        assert (tap.traffic.bytes_queued, tap.traffic.outbox_bytes) == (4, 4)
        await trio.testing.wait_all_tasks_blocked()
        await tap.send_all(b"!")
        assert await receive_exactly(far, 5) == b"kept!"
        assert tap.clean
        nursery.cancel_scope.cancel(reason="seen enough")
