"""Jobs that only this library can do, or that need no connection: budgets, what things weigh, decoding."""

from __future__ import annotations

import functools
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from typing import Any, Final, cast

import trio
import trio.testing

import engine
from benchmarks.frames import event_texts
from benchmarks.jobs import Result, lateness, resident
from benchmarks.loops import Loop
from benchmarks.peers import Peer, Target
from benchmarks.peers.ours import endpoint_of, options_of

__all__ = ["KINDS", "budgets", "buffered", "decoding", "idle_sessions", "open_sessions", "starting"]

_clock: Final = time.perf_counter
_MODELS: Final = {"first_event": "mute", "start": "mute"}


# --- budgets ---------------------------------------------------------------------------------------------------------


async def budgets(
    loop: Loop, peer: Peer, target: Target, *, phase: str, concurrent: int, seed: int, collecting: bool = True
) -> Result:
    """The lateness with which one budget ends ``concurrent`` turns, counted from when it began to run.

    As many tasks that only sleep wake beside them, in the same process, which shows what is the process's lateness and
    what the budget's. Without ``collecting`` the collector of garbage rests meanwhile.
    """
    rng = random.Random(seed)
    late: list[float] = []
    beside: list[float] = []
    stuck = engine.TurnOptions(model=_MODELS.get(phase, "silence"))

    async def one(session: engine.Session) -> None:
        seconds = 0.2 + concurrent / 500 + rng.random() * 0.5
        await trio.sleep(rng.random() * concurrent / 500)  # beginning a thousand at once is not what is measured
        async with AsyncExitStack() as stack:
            if phase == "queue":
                await stack.enter_async_context(session.turn("Stay.", stuck))
            started = _clock()
            try:
                async with session.turn("Hello.", stuck, timeouts=engine.Timeouts(**{phase: seconds})) as turn:
                    await turn.wait()
            except engine.TurnError as error:
                elapsed = _clock() - started
                spent = error.report.seconds if error.report is not None else None
                before = sum(getattr(spent, step) or 0.0 for step in _BEFORE[phase])
                late.append((elapsed - before - seconds) * 1e3)

    async def sleeper() -> None:
        seconds = 0.2 + concurrent / 500 + rng.random() * 0.5
        await trio.sleep(rng.random() * concurrent / 500)
        started = _clock()
        await trio.sleep(seconds)
        beside.append((_clock() - started - seconds) * 1e3)

    # Nothing is tried again, nor over HTTP: a budget's end is the turn's.
    async with engine.open_engine(
        endpoint_of(target),
        model="answer",
        timeouts=engine.Timeouts(close=0),
        transport=engine.Transport.WEBSOCKET,
        retry=engine.RetryPolicy(max_dispatches=1, back_off=()),
    ) as eng:
        sessions = [await eng.session(f"s-{number}") for number in range(concurrent)]
        if phase != "connect":  # connecting a thousand is not what is measured
            for session in sessions:
                await session.ask("Hello.")
        with nullcontext() if collecting else _uncollected():
            async with trio.open_nursery() as nursery:
                for session in sessions:
                    nursery.start_soon(one, session)
                    nursery.start_soon(sleeper)
    assert len(late) == concurrent
    found = lateness(late)
    return found | {"over_beside": found["late_p99_ms"] / lateness(beside)["late_p99_ms"]}


@contextmanager
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_BEFORE: Final = {
    "queue": (),
    "turn": (),
    "start": ("queue",),
    "connect": ("queue",),
    "first_event": ("queue", "connect", "send"),
    "idle": ("queue", "connect", "send", "first_event"),
}
"""The steps of a turn before a budget begins to run."""


# --- start -----------------------------------------------------------------------------------------------------------

_PROGRAMS: Final = {
    "empty": "",
    "bare": "import trio, trio_websocket",
    "package": "import engine",
    "openai": "import openai",
    "turn": """
import trio
import engine

async def main():
    endpoint = engine.Endpoint({base_url!r}, "sk-benchmark", profile="openai")
    async with engine.open_session(endpoint, model="answer") as session:
        await session.ask("Hello.")

trio.run(main)
""",
}


async def starting(loop: Loop, peer: Peer, target: Target, *, program: str, times: int) -> Result:
    """Milliseconds of processor time that a program takes in a fresh interpreter, beyond what an empty one takes."""
    import resource  # not on every system

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    without = "".join(f"import sys; sys.modules[{module!r}] = None\n" for module in peer.without)
    text = without + _PROGRAMS[program].format(base_url=target.base_url)

    def taken(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory(prefix="benchmarks-") as compiled:
        environment["PYTHONPYCACHEPREFIX"] = compiled
        taken(text)  # which compiles the modules
        found = statistics.median(taken(text) for _ in range(times))
        empty = statistics.median(taken(_PROGRAMS["empty"]) for _ in range(times))
    return {"cpu_ms": (found - empty) * 1e3}


# --- weight ----------------------------------------------------------------------------------------------------------


async def idle_sessions(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """KiB for a session that has no connection."""
    async with engine.open_engine(endpoint_of(target), model=target.model, **options_of(target)) as eng:
        for number in range(20):
            await eng.session(f"first-{number}")
        await trio.testing.wait_all_tasks_blocked()
        before = resident()
        for number in range(count):
            await eng.session(f"idle-{number}")
        await trio.testing.wait_all_tasks_blocked()
        grown = resident() - before
    return {"kib_each": grown / count / 1024}


async def open_sessions(loop: Loop, peer: Peer, target: Target, *, count: int) -> Result:
    """KiB for a session with an open connection that has served a short turn; one engine holds them all."""
    async with engine.open_engine(endpoint_of(target), model=target.model, **options_of(target)) as eng:
        before = 0
        for number in range(20 + count):
            if number == 20:
                before = resident()
            await (await eng.session(f"open-{number}")).ask("Hello.")
        await trio.sleep(0.1)
        grown = resident() - before
    return {"kib_each": grown / count / 1024}


async def buffered(loop: Loop, peer: Peer, target: Target, *, turns: int, events: int) -> Result:
    """KiB for a thousand events that nobody has read yet, the session and its socket not counted."""
    async with engine.open_engine(endpoint_of(target), model="answer") as eng:
        sessions = [await eng.session(f"s-{number}") for number in range(turns)]
        for session in sessions:
            await session.ask("Hello.")
        before = resident()
        async with AsyncExitStack() as stack:
            for session in sessions:
                turn = await stack.enter_async_context(session.turn("Go on.", engine.TurnOptions(model=target.model)))
                # Nothing says when it has ended, and `wait` would drop what is to be counted.
                while turn.partial.stop_reason is None:  # noqa: ASYNC110
                    await trio.sleep(0.002)
            grown = resident() - before
    return {"kib_per_1000": grown / (turns * events / 1000) / 1024}


# --- decoding --------------------------------------------------------------------------------------------------------


def _texts() -> dict[str, str]:
    message = event_texts("deltas-300-40")
    call = event_texts("tools-1-300", calling=True)
    thought = {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "output_index": 0}
    error = {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "It is gone."}
    return {
        "response.created": message[0],
        "output_item.added": message[2],
        "content_part.added": message[3],
        "output_text.delta": message[4],
        "output_text.done": message[-4],
        "output_item.done": message[-2],
        "response.completed": message[-1],
        "arguments.delta": call[3],
        "arguments.done": call[4],
        "reasoning_summary.delta": json.dumps(thought | {"summary_index": 0, "delta": "so ", "sequence_number": 4}),
        "error": json.dumps({"type": "error", "status": 400, "error": error | {"param": None}}),
        "unknown": json.dumps({"type": "response.of_the_future", "sequence_number": 9, "words": ["a", "b"]}),
    }


KINDS: Final = tuple(_texts())
"""The event kinds that are decoded."""


def _decoder(peer: Peer) -> Callable[[str], Any]:
    if peer.name == "json.loads":
        return json.loads
    if peer.name == "openai-connect":
        from openai.resources.responses.responses import AsyncResponsesConnection

        # Reading an event needs nothing of the connection it is a method of.
        return functools.partial(AsyncResponsesConnection.parse_event, cast("Any", None))
    from engine.wire.codec import decode

    return decode


async def decoding(loop: Loop, peer: Peer, target: Target, *, kind: str, times: int) -> Result:
    """Microseconds to decode one event of a kind."""
    text = _texts()[kind]
    decode = _decoder(peer)
    for _ in range(min(times, 50)):
        decode(text)
    gc.collect()
    started = _clock()
    for _ in range(times):
        decode(text)
    await loop.sleep(0)
    return {"us_each": (_clock() - started) / times * 1e6}
