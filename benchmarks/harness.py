"""Runs cases: contestants take turns, round after round, and what is claimed is the median of same-round ratios.

A machine's speed drifts from one minute to the next by more than the differences that matter. So a round lets every
contestant of a case run once, in an order that rotates, and a ratio divides two figures of the same round.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias

import trio
from attrs import field, frozen

from benchmarks.peers import peer_named

__all__ = [
    "Case",
    "Contestant",
    "Measure",
    "Scenario",
    "Server",
    "Skipped",
    "Stage",
    "Summary",
    "interleaved",
    "machine_facts",
    "run_case",
    "summary",
]

Better: TypeAlias = Literal["higher", "lower", "right"]
Server: TypeAlias = Literal["replay", "simulator", "none"]

_START_SECONDS: Final = 60.0


# --- what is run -----------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Contestant:
    """Who runs what against which server.

    Attributes:
        label: What the table calls it.
        peer: The peer's name.
        job: The job's name.
        params: The job's arguments.
        server: Which server it is run against.
        path: The first segment of the path, which tells the load source how to behave.
        tls: Whether over TLS.
        model: The answer that is asked for.
        options: What is asked of this peer beyond that.
        seeded: Whether the job takes a seed.
    """

    label: str
    peer: str
    job: str
    params: Mapping[str, Any] = field(factory=dict)
    server: Server = "replay"
    path: str = "v1"
    tls: bool = False
    model: str = "answer"
    options: Mapping[str, Any] = field(factory=dict)
    seeded: bool = False


@frozen
class Measure:
    """One figure of a job's result.

    Attributes:
        key: Its name in the result.
        title: Its name in the table.
        unit: Its unit; empty for a count.
        better: Which way is better; ``"right"`` for a count of successes, which has no ratio.
    """

    key: str
    title: str
    unit: str
    better: Better


@frozen(kw_only=True)
class Case:
    """One table.

    Attributes:
        name: Its short name.
        title: Its heading.
        contestants: Who takes part, in the order of the table.
        measures: The columns.
        baseline: The label of the contestant that ratios are taken to.
        fresh: Whether each sample gets a process of its own.
        rounds: At most so many rounds, for cases that take long; None for as many as asked for.
        seconds: How long one sample may take.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    measures: tuple[Measure, ...]
    baseline: str | None = None
    fresh: bool = False
    rounds: int | None = None
    seconds: float = 120.0


@frozen
class Scenario:
    """Cases that belong together."""

    name: str
    title: str
    text: str
    cases: tuple[Case, ...]


class Skipped(Exception):
    """A contestant cannot run here; the text says why."""


# --- figures ---------------------------------------------------------------------------------------------------------


@frozen
class Summary:
    """The median of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float


def summary(samples: Sequence[float]) -> Summary | None:
    """Sum up samples; those that are not numbers are left out, and None is all that is said of none."""
    found = sorted(sample for sample in samples if not math.isnan(sample))
    if not found:
        return None
    if len(found) == 1:
        return Summary(found[0], found[0], found[0])
    low, _, high = statistics.quantiles(found, n=4, method="inclusive")
    return Summary(statistics.median(found), low, high)


def interleaved(contestants: Sequence[Contestant], rounds: int) -> Iterator[tuple[int, Contestant]]:
    """The order of play: every contestant once a round, and each round begins with the next one."""
    for number in range(rounds):
        start = number % len(contestants)
        for contestant in (*contestants[start:], *contestants[:start]):
            yield number, contestant


def ratios(samples: Sequence[float | None], base: Sequence[float | None]) -> list[float]:
    """Same-round ratios, of the rounds in which both have a figure."""
    return [
        mine / other
        for mine, other in zip(samples, base, strict=True)
        if mine is not None and other is not None and other != 0 and not math.isnan(mine) and not math.isnan(other)
    ]


Take: TypeAlias = Callable[[Case, Contestant, int], Awaitable[Mapping[str, Any]]]
"""Takes one sample; the number is its seed."""


async def run_case(
    case: Case, take: Take, *, rounds: int, seed: int, warm_up: int = 0, step: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Play all rounds of a case and sum them up, as plain data. If cancelled, nothing is returned.

    Args:
        case: The case.
        take: Takes one sample.
        rounds: How many rounds count.
        seed: Every contestant of a round gets the same seed, and every round another one.
        warm_up: Rounds before those, which do not count.
        step: Called after each sample.
    """
    rounds = min(rounds, case.rounds or rounds)
    found: dict[str, list[Mapping[str, Any] | None]] = {each.label: [None] * rounds for each in case.contestants}
    notes: dict[str, str] = {}
    for number, contestant in interleaved(case.contestants, warm_up + rounds):
        if contestant.label not in notes:
            try:
                result = await take(case, contestant, seed + number)
            except Skipped as skipped:
                notes[contestant.label] = str(skipped)
            else:
                if number >= warm_up:
                    found[contestant.label][number - warm_up] = result
        step()
    rows = []
    for contestant in case.contestants:
        figures = {}
        for measure in case.measures:
            mine = _column(found[contestant.label], measure.key)
            base = _column(found[case.baseline], measure.key) if case.baseline in found else None
            figures[measure.key] = _figure(measure, mine, base)
        row: dict[str, Any] = {"label": contestant.label, "peer": contestant.peer, "figures": figures}
        if contestant.label in notes:
            row["note"] = notes[contestant.label]
        rows.append(row)
    return {
        "name": case.name,
        "title": case.title,
        "baseline": case.baseline,
        "rounds": rounds,
        "measures": [
            {"key": each.key, "title": each.title, "unit": each.unit, "better": each.better} for each in case.measures
        ],
        "rows": rows,
    }


def _column(results: Sequence[Mapping[str, Any] | None], key: str) -> list[float | None]:
    return [float(result[key]) if result is not None and key in result else None for result in results]


def _figure(measure: Measure, mine: list[float | None], base: list[float | None] | None) -> dict[str, Any] | None:
    samples = [sample for sample in mine if sample is not None and not math.isnan(sample)]
    summed = summary(samples)
    if summed is None:
        return None
    figure: dict[str, Any] = {
        "samples": samples,
        "median": summed.median,
        "low": summed.low,
        "high": summed.high,
    }
    ratio = summary(ratios(mine, base)) if base is not None and measure.better != "right" else None
    if ratio is not None:
        figure |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    return figure


# --- processes -------------------------------------------------------------------------------------------------------


class Lines(Protocol):
    """What the harness needs of a process."""

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


# --- the machine -----------------------------------------------------------------------------------------------------

_PACKAGES: Final = (
    "trio-session-engine",
    "trio",
    "trio-websocket",
    "wsproto",
    "httpx",
    "httpcore",
    "cattrs",
    "openai",
    "openai-agents",
    "websockets",
    "pydantic",
)


@functools.cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that take part, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine or its user."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load_average": load,
        "clock_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        "packages": package_versions(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as facts:
            names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def contestants_of(case: Case, names: Sequence[str]) -> Case | None:
    """The case with the named peers only, and its baseline; None when none of them takes part."""
    from attrs import evolve

    if not names:
        return case
    kept = tuple(
        each for each in case.contestants if each.peer in names or each.label in names or each.label == case.baseline
    )
    if all(each.label == case.baseline and each.peer not in names for each in kept):
        return None
    assert all(peer_named(each.peer) for each in kept)
    return evolve(case, contestants=kept)
