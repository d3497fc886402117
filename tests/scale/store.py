"""A trial of the store: worker processes that are killed and frozen while they answer, and what must hold all the same.

    python -m tests.scale.store --rounds 800 --workers 4 --sessions 50 [--postgres]

Prompts go to worker processes at random, some of them to two at once, and some workers give up on theirs. Workers are
killed and frozen at random, and others take their place; a prompt whose worker died is given to another one, with the
same key. PostgreSQL's server crashes, and connections to it are cut. In the end the store is held against what
the server executed:

- no committed round is lost, none stands twice, and every prompt has its own answer;
- no two workers held one session at the same time: no fence was given twice, and those of a session never go back;
- the server never began a prompt more often than the store had noted beforehand.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field, frozen

from engine.simulator import Asked, Call, Delay, open_simulator
from engine.store import operations
from engine.store.places import connection_to
from engine.store.transcript import Transcript

if TYPE_CHECKING:
    from databases import PostgresServer

_WORKER = Path(__file__).with_name("store_worker.py")


@frozen(kw_only=True)
class Trial:
    """What is tried.

    Attributes:
        rounds: How many prompts.
        workers: How many processes at a time.
        sessions: How many sessions the prompts are of.
        seconds: How long it may take.
        seed: What the driver does follows from it; what the machine does, does not.
        lease: Seconds.
        doubled: The part of the prompts that goes to two workers at once.
        kills: One of so many prompts has a worker killed.
        freezes: One of so many has a worker frozen, past its lease.
        pause: Seconds between two prompts.
        given_up: The part of the prompts that a worker gives up on.
        crashes: One of so many has the database crash, where it is a server.
        cuts: One of so many has a connection to that cut.
    """

    rounds: int = 60
    workers: int = 4
    sessions: int = 10
    seconds: float = 60.0
    seed: int = 0
    lease: float = 3.0
    doubled: float = 0.15
    kills: int = 20
    freezes: int = 30
    pause: float = 0.02
    given_up: float = 0.05
    crashes: int = 100
    cuts: int = 40


@define
class Tally:
    """What came of it: empty lists are what is wanted."""

    answered: int = 0
    killed: int = 0
    frozen: int = 0
    crashed: int = 0
    cut: int = 0
    resent: int = 0
    errors: collections.Counter[str] = field(factory=collections.Counter)
    lost: list[str] = field(factory=list)
    doubled: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)
    unfenced: list[str] = field(factory=list)
    held_twice: list[str] = field(factory=list)
    secret: list[str] = field(factory=list)

    @property
    def violations(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.wrong, *self.unfenced, *self.held_twice, *self.secret]


class Brain:
    """Answers a prompt with its own key; every third one calls a tool first. Counts what it was asked."""

    def __init__(self) -> None:
        self.begun: collections.Counter[str] = collections.Counter()

    def __call__(self, asked: Asked) -> list[Any]:
        last = max(place for place, item in enumerate(asked.items) if item.get("role") == "user")
        key = _key_of(asked.items[last])
        self.begun[key] += 1
        called = any(item.get("type") == "function_call_output" for item in asked.items[last:])
        if _calls(key) and not called:
            return [Delay(_seconds(key)), Call("note", {"word": key})]
        return [Delay(_seconds(key)), f"answer to {key}"]


def _seconds(key: str) -> float:
    """The time that an answer takes: long enough for a worker to be killed meanwhile."""
    return 0.02 + int(key.removeprefix("k")) * 7 % 10 * 0.03


def _calls(key: str) -> bool:
    return int(key.removeprefix("k")) % 3 == 0


def _key_of(item: Mapping[str, Any]) -> str:
    content = item["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return str(text).rpartition(" ")[2]


class Worker:
    """A worker process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.given: dict[str, dict[str, Any]] = {}
        self.frozen = False


class Driver:
    """Gives prompts to workers, and disturbs them."""

    def __init__(self, trial: Trial, base_url: str, store_url: str, server: PostgresServer | None) -> None:
        self.trial = trial
        self._server = server
        self._crashing = trio.Lock()
        self._fences: set[tuple[str, int]] = set()
        self.tally = Tally()
        self._random = random.Random(trial.seed)
        self._base_url, self._store_url = base_url, store_url
        self._workers: list[Worker] = []
        self._answers: dict[str, str] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._more = trio.Event()
        self._over = trio.Event()
        self.tasks: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                for _ in range(self.trial.workers):
                    await self._start(nursery)
                for number in range(self.trial.rounds):
                    key = f"k{number}"
                    session = f"s{self._random.randrange(self.trial.sessions)}"
                    self.tasks[key] = self._waiting[key] = {
                        "session": session,
                        "key": key,
                        "prompt": f"please answer {key}",
                    }
                    await self._give(key)
                    if self._random.random() < self.trial.doubled:
                        await self._give(key)
                    await trio.sleep(self.trial.pause)
                    await self._disturb(nursery)
                while self._waiting:
                    self._more = trio.Event()
                    with trio.move_on_after(self.trial.lease):
                        await self._more.wait()
                        continue
                    for key in list(self._waiting):
                        if not any(key in worker.given for worker in self._workers):
                            await self._give(key)
            finally:
                self._over.set()
                for worker in self._workers:
                    worker.process.kill()  # and their listeners see the end, and wait for them

    async def _start(self, nursery: trio.Nursery) -> None:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_WORKER), self._base_url, self._store_url, str(self.trial.lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        worker = Worker(process)
        self._workers.append(worker)
        nursery.start_soon(self._listen, worker, nursery)

    async def _give(self, key: str) -> None:
        worker = self._random.choice([each for each in self._workers if not each.frozen] or self._workers)
        worker.given[key] = self.tasks[key]
        assert worker.process.stdin is not None
        task = dict(self.tasks[key])
        if self._random.random() < self.trial.given_up:
            task["patience"] = self._random.random() * 0.4
        try:
            await worker.process.stdin.send_all(json.dumps(task).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            worker.given.pop(key, None)

    async def _listen(self, worker: Worker, nursery: trio.Nursery) -> None:
        assert worker.process.stdout is not None
        rest = b""
        async for chunk in worker.process.stdout:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._heard(worker, json.loads(line))
        await worker.process.wait()
        assert worker.process.stdin is not None
        await worker.process.stdin.aclose()
        await worker.process.stdout.aclose()
        if worker in self._workers and not self._over.is_set():
            # It ended by itself: the database was away when it began.
            self._workers.remove(worker)
            await self._start(nursery)

    def _heard(self, worker: Worker, said: Mapping[str, Any]) -> None:
        if "held" in said:
            fence = (said["held"], said["token"])
            if fence in self._fences:
                self.tally.held_twice.append(f"{fence[0]}: fence {fence[1]} was given twice")
            self._fences.add(fence)
            return
        key = said["key"]
        worker.given.pop(key, None)
        if "answer" in said:
            self._answers[key] = said["answer"]
            self._waiting.pop(key, None)
            self._more.set()
        else:
            self.tally.errors[said["error"]] += 1
            if said["error"] == "TurnInterrupted":
                # The policy does not allow another attempt: its caller decides, and here gives it up.
                self._waiting.pop(key, None)
                self._more.set()

    async def _disturb(self, nursery: trio.Nursery) -> None:
        if self._random.randrange(self.trial.kills) == 0:
            worker = self._random.choice(self._workers)
            self._workers.remove(worker)
            worker.process.kill()
            self.tally.killed += 1
            await self._start(nursery)
        if self._random.randrange(self.trial.freezes) == 0:
            worker = self._random.choice(self._workers)
            if not worker.frozen:
                nursery.start_soon(self._freeze, worker)
        if self._server is not None:
            if self._random.randrange(self.trial.crashes) == 0 and not self._crashing.locked():
                nursery.start_soon(self._crash, self._server)
            if self._random.randrange(self.trial.cuts) == 0:
                nursery.start_soon(self._cut, self._server)

    async def _crash(self, server: PostgresServer) -> None:
        """End the database's server as a loss of power does, and start it again."""
        async with self._crashing:
            self.tally.crashed += 1
            await trio.to_thread.run_sync(server.stop, "immediate")
            await trio.to_thread.run_sync(server.start)

    async def _cut(self, server: PostgresServer) -> None:
        """End a connection of a worker's."""
        async with self._crashing:
            self.tally.cut += await trio.to_thread.run_sync(server.cut, self._random.random())

    async def _freeze(self, worker: Worker) -> None:
        worker.frozen = True
        self.tally.frozen += 1
        worker.process.send_signal(signal.SIGSTOP)
        with trio.move_on_after(self.trial.lease * 1.5):
            await self._over.wait()
        if worker.process.returncode is None:
            worker.process.send_signal(signal.SIGCONT)
        worker.frozen = False

    def check(self, executed: collections.Counter[str]) -> Tally:
        """Hold the store against what was asked and what was executed."""
        tally = self.tally
        connection = connection_to(self._store_url)
        connection.connect()
        connection.begin()
        answers: collections.Counter[str] = collections.Counter()
        noted: dict[str, int] = {}
        for record in operations.listed(connection):
            transcript = Transcript()
            tokens = [
                token
                for (token,) in connection.execute(
                    "SELECT token FROM engine_rounds WHERE session = ? ORDER BY number", (record.id,)
                )
            ]
            if tokens != sorted(tokens):
                tally.unfenced.append(f"{record.id}: fences {tokens}")
            for row in operations.read(connection, record.id, after=0):
                transcript = transcript.with_row(record.id, row, None)
                if row.last and row.prompt is not None:
                    answers[row.prompt] += 1
                    noted[row.prompt] = json.loads(row.data)["dispatches"]
                    text = getattr(transcript.messages[-1], "text", "")
                    if text != f"answer to {row.prompt}":
                        tally.wrong.append(f"{row.prompt}: {text}")
            (intent,) = connection.execute("SELECT intent FROM engine_sessions WHERE id = ?", (record.id,))[0]
            if intent is not None:
                known = json.loads(intent)
                for begun in filter(None, (known["now"], *known["earlier"])):
                    noted.setdefault(begun["key"], begun["dispatches"])
        connection.commit()
        connection.close()
        for key, text in self._answers.items():
            if answers[key] != 1:
                tally.lost.append(f"{key}: answered {text!r}, and stored {answers[key]} times")
        tally.doubled += [f"{key}: stored {count} times" for key, count in answers.items() if count > 1]
        for key, count in executed.items():
            if key in noted and count > noted[key]:
                tally.secret.append(f"{key}: executed {count} times, noted {noted[key]}")
            tally.resent += count > (2 if _calls(key) else 1)
        tally.answered = len(self._answers)
        return tally


async def trial(plan: Trial, store_url: str, server: PostgresServer | None = None) -> Tally:
    """Run a trial on a store that is empty.

    Args:
        plan: The trial.
        store_url: The store.
        server: The server of its database, which is to crash; None to leave the database alone.
    """
    brain = Brain()
    async with open_simulator(brain=brain) as sim:
        driver = Driver(plan, sim.endpoint.base_url, store_url, server)
        with trio.fail_after(plan.seconds):
            await driver.run()
        return driver.check(brain.begun)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lease", type=float, default=3)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of the trial's own, which crashes")
    given = vars(parser.parse_args())
    with contextlib.ExitStack() as stack:
        if given.pop("postgres"):
            sys.path.append(str(_WORKER.parents[1]))  # where the tests find what they share
            from databases import postgres_server

            server = stack.enter_context(postgres_server(durable=True))
            tally = trio.run(trial, Trial(**given), server.url, server)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            tally = trio.run(trial, Trial(**given), f"sqlite:///{folder}/trial.db")
    print(tally)
    return os.EX_OK if not tally.violations else 1


if __name__ == "__main__":
    sys.exit(main())
