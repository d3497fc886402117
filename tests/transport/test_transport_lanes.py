"""Lanes share the sending side of one socket: an upload on one of them is not held against the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from invariants import contained
from raw_peer import KEY, URL, Peer, PeerDialer, completed, created, frame, session_over
from trio.testing import MockClock

import engine

LANES = engine.Endpoint(
    "http://unused.test/v1", KEY, websocket_url=URL, profile=engine.Profile("lanes", multiplexing=True, proven=True)
)


def labelled(data: bytes, stream: str) -> bytes:
    """A frame of the service's with the name of a lane in it."""
    payload = data[4 if data[1] == 126 else 2 :]
    return frame(json.dumps({**json.loads(payload), "stream_id": stream}))


async def slow(peer: Peer) -> None:
    """Take what fits into the stream once a second, and answer each request when it is whole."""
    await peer.accept()
    receive = peer.stream.receive_some

    async def slowly(max_bytes: int) -> bytes:
        await trio.sleep(1)
        data: bytes = await receive(max_bytes)
        return data

    peer.stream.receive_some = slowly
    number = 0
    while (got := await peer.next_frame()) is not None:
        if got[0] == 1:
            number += 1
            body = json.loads(got[1])
            said = f"{len(body['input'][-1]['content'])} characters"
            stream = body["stream_id"]
            await peer.send(labelled(created(number), stream) + labelled(completed(said, number), stream))


async def unread(peer: Peer) -> None:
    await peer.accept()
    await trio.sleep_forever()


@pytest.mark.parametrize(("large", "capacity"), [(3_000_000, 100_000), (16 * 1024 * 1024 - 4096, 600_000)])
async def test_an_upload_expires_no_siblings_send(autojump_clock: MockClock, large: int, capacity: int) -> None:
    options: dict[str, Any] = {"endpoint": LANES, "capacity": capacity}
    async with contained() as held:
        async with session_over(held, slow, **options) as session:
            answers: dict[str, str] = {}

            async def ask(name: str, size: int, seconds: float) -> None:
                budgets = engine.Timeouts(send=seconds, first_event=seconds, start=100)
                answers[name] = (await session.lane(name).ask("x" * size, timeouts=budgets)).text

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "large", large, 50)
                await trio.sleep(5)
                for number in range(3):
                    nursery.start_soon(ask, f"small {number}", 10 + number, 8)
            assert trio.current_time() > 25  # so long the upload took
            assert answers == {"large": f"{large} characters"} | {
                f"small {number}": f"{10 + number} characters" for number in range(3)
            }


async def test_a_frame_that_is_stuck_fails_what_is_queued_behind_it(autojump_clock: MockClock) -> None:
    async with contained(within=12) as held:
        dialer = PeerDialer(held, unread, capacity=100_000)
        async with session_over(held, endpoint=LANES, dialer=dialer) as session:
            ended: dict[str, tuple[float, type[Exception]]] = {}

            async def ask(name: str, size: int, seconds: float) -> None:
                with pytest.raises(engine.TurnError) as caught:
                    await session.lane(name).ask("x" * size, timeouts=engine.Timeouts(send=seconds, start=60))
                ended[name] = trio.current_time(), type(caught.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "large", 3_000_000, 10)
                await trio.sleep(1)
                nursery.start_soon(ask, "small", 10, 30)
            assert ended == {"large": (10, engine.TurnTimeout), "small": (10, engine.ConnectionLost)}
            assert dialer.dials <= 2
