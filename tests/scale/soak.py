"""Thousands of turns over loopback TCP in one process, with callers that leave and a server that fails.

::

    python -m tests.scale.soak [--turns 10000] [--seed 0]

Turns come in rounds. After each round every session is released and what the process holds is measured: descriptors,
tasks, memory. The engine and the server stay. Nothing of it may grow, and no turn may see another's answer.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import sys
import time
from collections import Counter
from typing import Any

import attrs
import trio
import trio.testing

import engine
from engine.simulator import (
    Abort,
    Asked,
    Close,
    Created,
    CutMidFrame,
    Error,
    Failed,
    Incomplete,
    Say,
    SayDelta,
    Simulator,
    Stall,
    Step,
    WrongJson,
    open_simulator,
)

__all__ = ["Sample", "Tally", "soak"]

SESSIONS = 16
CALLERS = 24
LEAVES = ("read on", "read on", "wait", "wait", "wait", "leave", "leave at once", "cancel")
FAULTS: dict[str, list[Step]] = {
    "stall": [Stall()],
    "cut": [CutMidFrame()],
    "close": [Close(1011)],
    "abort": [Abort(reset=True)],
    "failed": [Failed()],
    "error": [Error(500)],
    "filtered": [Incomplete("content_filter")],
    "malformed": [WrongJson()],
}
BUDGETS = engine.Timeouts(queue=30, start=30, connect=10, send=10, first_event=10, idle=0.05, drain=0.05, close=0.5)


@attrs.frozen
class Sample:
    """What the process holds after a round."""

    turns: int
    descriptors: int
    tasks: int
    blocks: int
    resident: int


@attrs.define
class Tally:
    """What became of the turns, and what the process held after each round."""

    outcomes: Counter[str] = attrs.field(factory=Counter)
    wrong: list[str] = attrs.field(factory=list)
    samples: list[Sample] = attrs.field(factory=list)
    connections: int = 0
    seconds: float = 0.0


class Tasks(trio.abc.Instrument):
    """Counts living tasks."""

    def __init__(self) -> None:
        self.living = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.living += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.living -= 1


def answer(nonce: str) -> str:
    """The one right answer."""
    return f"the answer to {nonce} and to nothing else"


def reply(asked: Asked) -> list[Step]:
    """The server's side: the fault is named in the prompt."""
    nonce, fault = asked.last_user_text.split(" ", 1)
    if fault == "none":
        return [Say(answer(nonce), size=2)]
    rest = [] if fault != "malformed" else [SayDelta(answer(nonce)[6:])]
    return [Created(), SayDelta(answer(nonce)[:6]), *FAULTS[fault], *rest]


async def take_turn(eng: engine.Engine, nonce: str, rng: random.Random, tally: Tally) -> None:
    """One turn of one caller, checked."""
    fault = "none" if rng.random() < 0.7 else rng.choice(list(FAULTS))
    how = rng.choice(LEAVES)
    session = await eng.session(f"s{rng.randrange(SESSIONS)}")
    policy = rng.choice(list(engine.OnCancel))
    turn = session.turn(f"{nonce} {fault}", engine.TurnOptions(warm_up=rng.random() < 0.05), on_cancel=policy)
    outcome = "left"
    try:
        with trio.CancelScope() as scope:
            if how == "cancel":
                scope.deadline = trio.current_time() + rng.random() * 0.02
            async with turn:
                if how in {"wait", "cancel"}:
                    await turn.wait()
                    outcome = "answered"
                elif how != "leave at once":
                    events = rng.randrange(1, 9) if how == "leave" else sys.maxsize
                    async for _ in turn:
                        events -= 1
                        if not events:
                            break
                    else:
                        outcome = "answered"
    except engine.TurnError as error:
        outcome = type(error).__name__
    tally.outcomes[outcome] += 1
    text = turn.partial.text
    whole = answer(nonce)
    if not whole.startswith(text) or (outcome == "answered" and text != whole):
        tally.wrong.append(f"{nonce} ({fault}, {how}): {text!r}")


async def play_round(eng: engine.Engine, first: int, count: int, rng: random.Random, tally: Tally) -> None:
    """So many turns, by several callers at once; some sessions are released under way."""
    nonces = iter(range(first, first + count))

    async def call() -> None:
        for number in nonces:
            await take_turn(eng, f"n{number}", rng, tally)
            if rng.random() < 0.02:
                await eng.release(f"s{rng.randrange(SESSIONS)}")

    async with trio.open_nursery() as callers:
        for _ in range(CALLERS):
            callers.start_soon(call)


async def settle(sim: Simulator) -> None:
    """Give the server the moment it takes to notice that its clients are gone."""
    with trio.fail_after(10):
        while sim.open_connections:  # noqa: ASYNC110 - the simulator has no event for it
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()  # a connection is off the server's list before its task has ended
    sim.connections.clear()  # the simulator keeps every record; so would its memory grow, not the engine's
    sim.requests.clear()


def measure(turns: int, tasks: Tasks) -> Sample:
    """Look at the process."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * resource.getpagesize()
    return Sample(turns, len(os.listdir("/proc/self/fd")), tasks.living, sys.getallocatedblocks(), resident)


async def soak(turns: int, *, rounds: int = 10, seed: int = 0, report: Any = None) -> Tally:
    """Play that many turns and tell what came of them."""
    tally = Tally()
    tasks = Tasks()
    trio.lowlevel.add_instrument(tasks)
    rng = random.Random(seed)
    started = time.perf_counter()
    try:
        async with open_simulator(brain=reply, remembered=64) as sim:
            async with engine.open_engine(
                sim.endpoint, model="m", timeouts=BUDGETS, transport=engine.Transport.WEBSOCKET
            ) as eng:
                for number in range(rounds):
                    count = turns // rounds
                    await play_round(eng, number * count, count, rng, tally)
                    async with trio.open_nursery() as releases:
                        for session_id in eng:
                            releases.start_soon(eng.release, session_id)
                    tally.connections += len(sim.connections)
                    await settle(sim)
                    tally.samples.append(measure((number + 1) * count, tasks))
                    if report is not None:
                        report(tally.samples[-1])
            if sim.errors:
                tally.wrong += [f"the simulator: {error!r}" for error in sim.errors]
    finally:
        trio.lowlevel.remove_instrument(tasks)
    tally.seconds = time.perf_counter() - started
    return tally


def main() -> None:
    """Run it in full and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    def show(sample: Sample) -> None:
        print(
            f"{sample.turns:6d} turns: {sample.descriptors} descriptors, {sample.tasks} tasks, "
            f"{sample.blocks} blocks, {sample.resident / 2**20:.1f} MiB resident",
            flush=True,
        )

    tally = trio.run(lambda: soak(arguments.turns, seed=arguments.seed, report=show))
    print(f"{sum(tally.outcomes.values())} turns over {tally.connections} connections in {tally.seconds:.1f} s")
    print(", ".join(f"{name} {count}" for name, count in tally.outcomes.most_common()))
    print(f"wrong answers: {len(tally.wrong)}", *tally.wrong[:10], sep="\n  ")
    raise SystemExit(bool(tally.wrong))


if __name__ == "__main__":
    main()
