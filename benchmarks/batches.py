"""Many prompts: one process or several, with a ledger and without, and what each prompt costs.

``python -m benchmarks.batches`` is one of the processes: it takes its share as a line of JSON on standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

import engine
from benchmarks.loops import Loop
from benchmarks.peers import Peer, Target
from benchmarks.peers.ours import endpoint_of
from engine.batch import open_batch, open_ledger
from engine.store import open_store

__all__ = ["asking", "main"]


async def asking(
    loop: Loop, peer: Peer, target: Target, *, processes: int, prompts: int, concurrency: int, ledger: bool = False
) -> dict[str, float]:
    """Prompts a second of so many processes together, each with as many prompts under way."""
    with tempfile.TemporaryDirectory() as folder:
        share = {
            "target": attrs.asdict(target),
            "prompts": prompts // processes,
            "concurrency": concurrency,
            "store": f"sqlite:///{folder}/ledger.db" if ledger else None,
        }
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(_Worker(share | {"first": number * prompts}))
                for number in range(processes)
            ]
            for worker in workers:
                await worker.heard()  # it is connected
            began = time.perf_counter()
            for worker in workers:
                await worker.say("go")
            spent = [float(await worker.heard()) for worker in workers]
            seconds = time.perf_counter() - began
    count = prompts // processes * processes
    return {"prompts_per_second": count / seconds, "cpu_us_per_prompt": sum(spent) / count * 1e6}


class _Worker:
    """A process, spoken to by lines."""

    def __init__(self, share: dict[str, Any]) -> None:
        self._share = share
        self._rest = b""

    async def __aenter__(self) -> _Worker:
        command = [sys.executable, "-m", "benchmarks.batches"]
        self._process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        await self.say(json.dumps(self._share))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()

    async def say(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def heard(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            more = await self._process.stdout.receive_some()
            if not more:
                raise RuntimeError("a process of the batch has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


async def _share(share: dict[str, Any]) -> None:
    target = attrs.evolve(Target("", ""), **share["target"])
    first, count = share["first"], share["prompts"]

    def prompts(start: int, number: int) -> list[tuple[str, str]]:
        return [(f"p{each}", "Go on.") for each in range(start, start + number)]

    async with AsyncExitStack() as stack:
        eng = await stack.enter_async_context(engine.open_engine(endpoint_of(target), model=target.model))
        more: dict[str, Any] = {}
        if share["store"] is not None:
            store = await stack.enter_async_context(open_store(share["store"]))
            more["ledger"] = await stack.enter_async_context(open_ledger(store, "benchmark"))
        warm = prompts(first + count, share["concurrency"])
        async with open_batch(eng, warm, concurrency=share["concurrency"], **more) as results:
            async for result in results:
                assert result.message is not None
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        cpu = time.process_time()
        async with open_batch(eng, prompts(first, count), concurrency=share["concurrency"], **more) as results:
            answered = len([result async for result in results if result.message is not None])
        cpu = time.process_time() - cpu
        assert answered == count
        print(cpu, flush=True)


def main() -> None:
    """Ask a share of the prompts."""
    trio.run(_share, json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    main()
