"""The jobs of contestants. Each runs in the contestant's own process and returns plain numbers."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, TypeAlias

from benchmarks.loops import Loop
from benchmarks.peers import Client, Peer, Target

__all__ = ["JOBS", "Job", "lateness"]

Result: TypeAlias = dict[str, Any]
Job: TypeAlias = Callable[..., Awaitable[Result]]

_clock: Final = time.perf_counter


def _nothing(_: str) -> None:
    pass


async def _open_all(loop: Loop, peer: Peer, target: Target, stack: AsyncExitStack, count: int) -> list[Client]:
    # One after the other: a scope that is entered in one task has to be left in it too.
    return [await stack.enter_async_context(peer.open(target)) for _ in range(count)]


def _nonce(rng: random.Random) -> str:
    return f"nonce-{rng.randrange(10**10):010d}"


# --- throughput and latency ------------------------------------------------------------------------------------------


async def throughput(loop: Loop, peer: Peer, target: Target, *, sessions: int, events: int, turns: int) -> Result:
    """Events a second: ``turns`` whole answers of ``events`` events on each of ``sessions`` connections at once."""
    async with AsyncExitStack() as stack:
        clients = await _open_all(loop, peer, target, stack, sessions)

        async def consume(client: Client, times: int) -> None:
            for _ in range(times):
                await client.turn("Go on.")

        await loop.gather([lambda client=client: consume(client, 1) for client in clients])  # type: ignore[misc]
        gc.collect()
        started = _clock()
        cpu = time.process_time()
        await loop.gather([lambda client=client: consume(client, turns) for client in clients])  # type: ignore[misc]
        cpu = time.process_time() - cpu
        seconds = _clock() - started
    total = sessions * turns * events
    return {"events_per_second": total / seconds, "cpu_us_per_event": cpu / total * 1e6}


async def turns(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """Microseconds for one short turn after the other on one connection."""
    async with peer.open(target) as client:
        for _ in range(min(count, 10)):
            await client.turn("Hello.")
        gc.collect()
        started = _clock()
        cpu = time.process_time()
        for _ in range(count):
            await client.turn("Hello.")
        cpu = time.process_time() - cpu
        return {"us_per_turn": (_clock() - started) / count * 1e6, "cpu_us_per_turn": cpu / count * 1e6}


async def fresh_turns(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """Microseconds for one short turn after the other, each on a client and a connection of its own."""
    started = cpu = 0.0
    for number in range(count + 5):
        if number == 5:
            gc.collect()
            started, cpu = _clock(), time.process_time()
        async with peer.open(target) as client:
            await client.turn("Hello.")
    cpu = time.process_time() - cpu
    return {"us_per_turn": (_clock() - started) / count * 1e6, "cpu_us_per_turn": cpu / count * 1e6}


async def setup(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """Milliseconds from nothing to the first event of an answer, and to the closed connection."""
    first, whole, used = [], [], []
    for _ in range(count):
        seen: list[float] = []
        started = _clock()
        cpu = time.process_time()
        async with peer.open(target) as client:
            await client.watch("Hello.", lambda _, seen=seen: seen.append(_clock()) if not seen else None)  # type: ignore[misc]
        whole.append((_clock() - started) * 1e3)
        used.append((time.process_time() - cpu) * 1e3)
        first.append((seen[0] - started) * 1e3)
    return {"first_event_ms": _median(first), "whole_ms": _median(whole), "cpu_ms": _median(used)}


async def tools(loop: Loop, peer: Peer, target: Target, *, count: int, size: int) -> Result:
    """Seconds for a run with ``count`` tool calls, the connection's set-up included."""
    started = _clock()
    async with peer.open(target) as client:
        requests = await client.tools(count, size)
        seconds = _clock() - started
    assert requests == count + 1, f"{requests} requests instead of {count + 1}"
    return {"seconds": seconds}


# --- cancellation ----------------------------------------------------------------------------------------------------


async def cancel(loop: Loop, peer: Peer, target: Target, *, times: int, rest: float, seed: int) -> Result:
    """Cancel a turn in mid-answer, take the next one on the same client, and see whose answer that is.

    Every time on a fresh client. The next turn comes ``rest`` seconds later; with ``reopen`` in the target's options
    the client is closed and another one opened in between.
    """
    rng = random.Random(seed)
    reopen = bool(target.options.get("reopen"))
    trials = []
    for _ in range(times):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(peer.open(target))
            await client.watch(_nonce(rng), _nothing)
            back = await _cancelled(loop, client, _nonce(rng))
            await loop.sleep(rest)
            resumed = _clock()
            if reopen:
                await stack.aclose()
                client = await stack.enter_async_context(peer.open(target))
            first, right = await _asked(loop, client, _nonce(rng))
            trials.append((back, first - resumed if first is not None else math.nan, right))
    back_ms = [back * 1e3 for back, _, _ in trials]
    first_ms = [first * 1e3 for _, first, _ in trials if not math.isnan(first)]
    return {
        "back_ms": _percentile(back_ms, 50),
        "back_p99_ms": _percentile(back_ms, 99),
        "next_first_event_ms": _percentile(first_ms, 50),
        "right": sum(right for _, _, right in trials),
        "of": times,
    }


async def _cancelled(loop: Loop, client: Client, nonce: str) -> float:
    """Cancel a turn once its answer is under way; the seconds until control was back."""
    running = loop.event()
    async with loop.group() as group:
        victim = group.start(lambda: client.watch(f"{nonce} at length", lambda text: running.set() if text else None))
        await running.wait()
        called = _clock()
        victim.cancel()
        await victim.wait()
    assert victim.back is not None
    return victim.back - called


async def _asked(loop: Loop, client: Client, nonce: str) -> tuple[float | None, bool]:
    """Take a turn; when its first event came, and whether its answer was the right one."""
    seen: list[float] = []
    text: list[str] = []

    def notice(piece: str) -> None:
        if not seen:
            seen.append(_clock())
        text.append(piece)

    with suppress(Exception):  # a client that raises here has not got the answer either
        if await loop.within(20, lambda: client.watch(nonce, notice)):
            return seen[0], "".join(text).strip() == nonce
    return seen[0] if seen else None, False


async def cancel_at_once(loop: Loop, peer: Peer, target: Target, *, concurrent: int) -> Result:
    """Cancel ``concurrent`` turns in one instant, and see when each has control back."""
    back: list[float] = []
    async with AsyncExitStack() as stack:
        clients = await _open_all(loop, peer, target, stack, concurrent)
        running = [loop.event() for _ in clients]

        async def watch(client: Client, event: Any) -> None:
            await client.watch("nonce-0000000001 at length", lambda text: event.set() if text else None)

        async with loop.group() as group:
            victims = [
                group.start(lambda client=client, event=event: watch(client, event))  # type: ignore[misc]
                for client, event in zip(clients, running, strict=True)
            ]
            for event in running:
                await event.wait()
            called = _clock()
            for victim in victims:
                victim.cancel()
            for victim in victims:
                await victim.wait()
        back = [(victim.back - called) * 1e3 for victim in victims if victim.back is not None]
    return {"back_ms": _percentile(back, 50), "back_p99_ms": _percentile(back, 99), "back_max_ms": max(back)}


async def cancel_bare(loop: Loop, peer: Peer, target: Target, *, concurrent: int, times: int) -> Result:
    """The same with tasks that only sleep: what the event loop itself takes."""
    back: list[float] = []
    for _ in range(times):
        async with loop.group() as group:
            victims = [group.start(lambda: loop.sleep(60)) for _ in range(concurrent)]
            await loop.sleep(0.02)
            called = _clock()
            for victim in victims:
                victim.cancel()
            for victim in victims:
                await victim.wait()
        back += [(victim.back - called) * 1e3 for victim in victims if victim.back is not None]
    return {"back_ms": _percentile(back, 50), "back_p99_ms": _percentile(back, 99), "back_max_ms": max(back)}


# --- time ------------------------------------------------------------------------------------------------------------


async def deadlines(loop: Loop, peer: Peer, target: Target, *, concurrent: int, seed: int) -> Result:
    """The lateness of control that a deadline of the caller's own gives back, around turns of a silent server."""
    rng = random.Random(seed)
    late: list[float] = []
    async with AsyncExitStack() as stack:
        clients = await _open_all(loop, peer, target, stack, concurrent)

        async def one(client: Client) -> None:
            seconds = 0.2 + concurrent / 500 + rng.random() * 0.5
            await loop.sleep(rng.random() * concurrent / 500)  # beginning a thousand at once is not what is measured
            started = _clock()
            await loop.within(seconds, lambda: client.watch("nonce-0000000001", _nothing))
            late.append((_clock() - started - seconds) * 1e3)

        await loop.gather([lambda client=client: one(client) for client in clients])  # type: ignore[misc]
    return lateness(late)


async def loud(loop: Loop, peer: Peer, target: Target, *, sockets: int, events: int, seconds: float) -> Result:
    """The lateness of a timer of a millisecond while so many connections bring whole answers as fast as they come."""
    late: list[float] = []
    turns = 0
    async with AsyncExitStack() as stack:
        clients = await _open_all(loop, peer, target, stack, sockets)

        async def consume(client: Client) -> None:
            nonlocal turns
            while _clock() < end:
                await client.turn("Go on.")
                turns += 1

        async def timer() -> None:
            while _clock() < end:
                due = _clock() + 0.001
                await loop.sleep(0.001)
                late.append((_clock() - due) * 1e3)

        gc.collect()
        cpu = time.process_time()
        end = _clock() + seconds
        await loop.gather([timer, *(lambda client=client: consume(client) for client in clients)])
        cpu = time.process_time() - cpu
    return {**lateness(late), "cpu_us_per_event": cpu / max(turns * events, 1) * 1e6}


async def sleeps(loop: Loop, peer: Peer, target: Target, *, concurrent: int, seed: int) -> Result:
    """The lateness of bare sleeps: the share of the event loop and of the machine."""
    rng = random.Random(seed)
    late: list[float] = []

    async def one() -> None:
        seconds = 0.2 + concurrent / 500 + rng.random() * 0.5
        await loop.sleep(rng.random() * concurrent / 500)
        started = _clock()
        await loop.sleep(seconds)
        late.append((_clock() - started - seconds) * 1e3)

    await loop.gather([one] * concurrent)
    return lateness(late)


def lateness(late: list[float]) -> Result:
    """Sum up how late deadlines were, in milliseconds."""
    return {"late_p50_ms": _percentile(late, 50), "late_p99_ms": _percentile(late, 99), "late_max_ms": max(late)}


# --- release ---------------------------------------------------------------------------------------------------------


async def release(loop: Loop, peer: Peer, target: Target, *, sessions: int, patience: float, burden: int = 0) -> Result:
    """Milliseconds until ``sessions`` clients are closed, all at the same time, and the sockets that are left then.

    Each has served a turn before. With a ``burden`` each also has a request under way of so many bytes.
    """
    before = sockets()
    waiting = raised = 0
    leaving = False
    all_wait, leave = loop.event(), loop.event()

    async def one() -> None:
        nonlocal waiting, raised
        try:
            async with peer.open(target) as client:
                await client.turn("Hello.")
                waiting += 1
                if waiting == sessions:
                    all_wait.set()
                if burden:
                    await client.watch("o" * burden, _nothing)
                await leave.wait()
        except Exception:
            if not leaving:
                raise
            raised += 1  # that, too, is a way of ending

    async def everyone() -> None:
        await loop.gather([one] * sessions)

    async with loop.group() as group:
        closing = group.start(everyone)
        await all_wait.wait()
        await loop.sleep(0.3)
        started = _clock()
        cpu = time.process_time()
        leaving = True
        if burden:
            closing.cancel()
        leave.set()
        in_time = await loop.within(patience, closing.wait)
        seconds = _clock() - started
        cpu = time.process_time() - cpu
        left = sockets() - before
        if not in_time:
            closing.cancel()
    return {"release_ms": seconds * 1e3, "cpu_ms": cpu * 1e3, "sockets_left": left, "raised": raised}


def sockets() -> int:
    """Sockets this process has open."""
    import psutil

    return len(psutil.Process().net_connections("inet"))


# --- memory ----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory this process holds."""
    import psutil

    gc.collect()
    return int(psutil.Process().memory_info().rss)


async def memory_open(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """KiB for one open connection that has served a short turn."""
    async with AsyncExitStack() as stack:
        for client in await _open_all(loop, peer, target, stack, 20):  # what the first ones load is not theirs
            await client.turn("Hello.")
        before = resident()
        clients = await _open_all(loop, peer, target, stack, count)
        for client in clients:
            await client.turn("Hello.")
        await loop.sleep(0.1)
        return {"kib_each": (resident() - before) / count / 1024}


async def memory_growth(loop: Loop, peer: Peer, target: Target, *, turns: int) -> Result:
    """KiB that the process grows over so many turns on one connection, after as many again divided by four."""
    async with peer.open(target) as client:
        for _ in range(turns // 4):
            await client.turn("Hello.")
        before = resident()
        for _ in range(turns):
            await client.turn("Hello.")
        return {"kib_grown": (resident() - before) / 1024}


# --- sums ------------------------------------------------------------------------------------------------------------


def _median(values: list[float]) -> float:
    return _percentile(values, 50)


def _percentile(values: list[float], percent: float) -> float:
    """The value that ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(percent) // 100) - 1))]


JOBS: Final[dict[str, Job]] = {
    job.__name__: job
    for job in (
        throughput,
        turns,
        fresh_turns,
        setup,
        tools,
        cancel,
        cancel_at_once,
        cancel_bare,
        deadlines,
        loud,
        sleeps,
        release,
        memory_open,
        memory_growth,
    )
}
