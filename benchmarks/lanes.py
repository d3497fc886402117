"""Lanes side by side: sixteen on one socket against a socket for each, and beside one whose consumer has stopped."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from typing import Final

import trio

import engine
from benchmarks.jobs import Result, resident
from benchmarks.loops import Loop
from benchmarks.peers import Peer, Target
from benchmarks.peers.ours import endpoint_of

__all__ = ["side_by_side", "weight"]

_clock: Final = time.perf_counter


async def _lanes(eng: engine.Engine, lanes: int, *, shared: bool, group: int = 0) -> list[engine.Session | engine.Lane]:
    """Lanes of one session, or as many sessions."""
    if not shared:
        return [await eng.session(f"{group} {number}") for number in range(lanes)]
    session = await eng.session(f"{group}")
    return [session.lane(f"{number}") for number in range(lanes)]


def _open(target: Target) -> engine.open_engine:
    return engine.open_engine(endpoint_of(target), model=target.model, transport="websocket", on_cancel="new_lane")


async def side_by_side(
    loop: Loop, peer: Peer, target: Target, *, lanes: int, events: int, turns: int, shared: bool, stopped: bool = False
) -> Result:
    """Events a second, and the slowest answer, of ``lanes`` that ask and read at once.

    Args:
        loop: Unused.
        peer: Unused.
        target: The server.
        lanes: Their number.
        events: Events of one answer.
        turns: Turns of each.
        shared: Whether they share a connection.
        stopped: Whether one lane more has answers that nothing reads, and overflows again and again.
    """
    slowest = 0.0

    async def read(lane: engine.Session | engine.Lane, times: int) -> None:
        nonlocal slowest
        for _ in range(times):
            started = _clock()
            async with lane.turn("Go on.") as turn:
                async for _ in turn:
                    pass
            slowest = max(slowest, _clock() - started)

    async def overflow(lane: engine.Session | engine.Lane) -> None:
        while True:
            with suppress(engine.BufferOverflow):
                async with lane.turn("Go on.", limits=engine.Limits(buffer_events=64)) as turn:
                    await anext(turn)
                    await trio.sleep(0.02)
                    await turn.wait()

    async def read_all(times: int) -> None:
        async with trio.open_nursery() as nursery:
            for lane in those:
                nursery.start_soon(read, lane, times)

    async with _open(target) as eng, trio.open_nursery() as beside:
        those = await _lanes(eng, lanes, shared=shared)
        await read_all(1)
        if stopped:
            beside.start_soon(overflow, (await _lanes(eng, lanes + 1, shared=shared))[-1])
        gc.collect()
        slowest = 0.0
        started, cpu = _clock(), time.process_time()
        await read_all(turns)
        cpu, seconds = time.process_time() - cpu, _clock() - started
        beside.cancel_scope.cancel(reason="all is measured")
    total = lanes * turns * events
    return {
        "cpu_us_per_event": cpu / total * 1e6,
        "events_per_second": total / seconds,
        "slowest_ms": slowest * 1e3,
    }


async def weight(loop: Loop, peer: Peer, target: Target, *, lanes: int, groups: int, shared: bool) -> Result:
    """KiB for a group of ``lanes`` that have each had a short answer, over so many groups."""
    async with _open(target) as eng:

        async def answered(group: int) -> None:
            async with trio.open_nursery() as nursery:
                for lane in await _lanes(eng, lanes, shared=shared, group=group):
                    nursery.start_soon(lane.ask, "Hello.")

        await answered(0)
        before = resident()
        for group in range(1, groups + 1):
            await answered(group)
        await trio.sleep(0.1)
        return {"kib_each": (resident() - before) / groups / 1024}
