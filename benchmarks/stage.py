"""The stage of a run: a server and a process for each contestant, and the lines that are spoken with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol

import trio

from benchmarks.cases import Case, Contestant, Skipped

__all__ = ["Child", "Lines", "Stage"]

_START_SECONDS: Final = 60.0


class Lines(Protocol):
    """A process, as far as a stage needs to know it."""

    async def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line of JSON and return the answer to it."""
        ...


class Child:
    """A process that answers lines of JSON with lines of JSON. Its first line comes unasked."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""

    @classmethod
    async def start(cls, module: str, *arguments: str, python: str) -> tuple[Child, dict[str, Any]]:
        """Start a module and return its first line too. If cancelled, the process is killed."""
        process = await trio.lowlevel.open_process(
            [python, "-W", "ignore", "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        child = cls(process)
        try:
            with trio.fail_after(_START_SECONDS):
                return child, await child._line()
        except BaseException:
            process.kill()
            raise

    async def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            trio.TooSlowError: there was none in time.
            EOFError: the process ended.

        If cancelled, the process cannot be asked again.
        """
        assert self._process.stdin is not None
        with trio.fail_after(seconds):
            await self._process.stdin.send_all(json.dumps(question).encode() + b"\n")
            return await self._line()

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            more = await self._process.stdout.receive_some()
            if not more:
                raise EOFError("the process ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self, *, patience: float = 3.0) -> None:
        """End the process, by force if it has not ended after ``patience`` seconds. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            assert self._process.stdin is not None
            await trio.aclose_forcefully(self._process.stdin)
            with trio.move_on_after(patience):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            if self._process.stdout is not None:
                await trio.aclose_forcefully(self._process.stdout)


class Stage:
    """The servers and the contestants' processes of a run; all end with the block.

    Args:
        pythons: Interpreters for contestants that need other packages than this one has, by peer.
    """

    def __init__(self, pythons: Mapping[str, str] | None = None) -> None:
        self._pythons = dict(pythons or {})
        self._servers: dict[str, tuple[Child, dict[str, Any]]] = {}
        self._workers: dict[str, Child] = {}
        self._missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    async def __aenter__(self) -> Stage:
        """Start nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process; takes a few seconds at most."""
        for child in (*self._workers.values(), *(child for child, _ in self._servers.values())):
            await child.end()

    async def prepare(self, peers: Collection[str]) -> None:
        """Start the processes of these peers, all at the same time."""
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._present, peer)

    async def _present(self, peer: str) -> None:
        with suppress(Skipped):  # its rows will say so
            await self._worker(peer)

    async def take(self, case: Case, contestant: Contestant, seed: int) -> Mapping[str, Any]:
        """Take one sample.

        Raises:
            Skipped: the contestant cannot run, or failed; the text says why.

        If cancelled, the contestant's process cannot be used again.
        """
        peer = contestant.peer
        if case.fresh:
            await self._dismiss(peer)
        worker = await self._worker(peer)
        params = dict(contestant.params) | ({"seed": seed} if contestant.seeded else {})
        question = {
            "peer_name": peer,
            "job": contestant.job,
            "target": await self._target(contestant),
            "params": params,
        }
        try:
            answer = await worker.ask(question, case.seconds)
        except (trio.TooSlowError, EOFError, trio.BrokenResourceError):
            await self._dismiss(peer, patience=0)
            raise Skipped(f"did not end within {case.seconds:g} s") from None
        if "error" in answer:
            raise Skipped(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def _worker(self, peer: str) -> Child:
        if peer in self._missing:
            raise Skipped(self._missing[peer])
        if peer not in self._workers:
            python = self._pythons.get(peer, sys.executable)
            child, hello = await Child.start("benchmarks.worker", peer, python=python)
            if hello["missing"] is not None:
                await child.end()
                self._missing[peer] = f"needs {hello['missing']}, which is not installed"
                raise Skipped(self._missing[peer])
            self._workers[peer] = child
            self.versions |= hello["versions"]
        return self._workers[peer]

    async def _dismiss(self, peer: str, *, patience: float = 3.0) -> None:
        worker = self._workers.pop(peer, None)
        if worker is not None:
            await worker.end(patience=patience)

    async def _target(self, contestant: Contestant) -> dict[str, Any]:
        if contestant.server == "none":
            return {}
        module = {"replay": "benchmarks.replay", "simulator": "benchmarks.simulated"}[contestant.server]
        if module not in self._servers:
            self._servers[module] = await Child.start(module, python=sys.executable)
        _, where = self._servers[module]
        prefix = "" if contestant.path == "v1" else f"/{contestant.path}"
        scheme, port = ("https", where["tls"]) if contestant.tls else ("http", where["plain"])
        return {
            "base_url": f"{scheme}://127.0.0.1:{port}{prefix}/v1",
            "model": contestant.model,
            "ca": where["ca"] if contestant.tls else None,
            "options": dict(contestant.options),
        }
