"""Many turns at once: lanes of one connection, and batches of prompts."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case, Contestant, Measure, Scenario
from benchmarks.frames import EVENTS_AROUND
from benchmarks.scenarios.sizes import CPU, EVENTS, Size, pick

__all__ = ["batches", "lanes"]


def lanes(size: Size) -> Scenario:
    """Lanes on one socket against sockets."""
    many, count, turns = pick(size, 2, 16, 16), pick(size, 40, 500, 2000), pick(size, 1, 2, 5)
    slowest = Measure("slowest_ms", "slowest answer", "ms", "lower")
    sockets = f"{many} sockets"

    def contestants(job: str, **params: Any) -> tuple[Contestant, ...]:
        model = {} if job.endswith("weight") else {"model": f"deltas-300-{count}"}
        return tuple(
            Contestant(label=label, peer="engine", job=job, params={**params, "lanes": many, "shared": shared}, **model)  # type: ignore[arg-type]
            for label, shared in ((sockets, False), (f"{many} lanes on one socket", True))
        )

    running: dict[str, Any] = {"events": count + EVENTS_AROUND, "turns": turns}
    beside = Contestant(
        label=f"{many - 1} lanes on one socket, and one that is not read",
        peer="engine",
        job="lanes.side_by_side",
        params={**running, "lanes": many - 1, "shared": True, "stopped": True},
        model=f"deltas-300-{count}",
    )
    return Scenario(
        "lanes",
        "Lanes",
        "As many answers at once, each read event by event: as lanes that share one socket, a few events of each at a "
        "time, and over a socket for each. The load source sends as fast as it can.",
        (
            Case(
                name="side-by-side",
                title=f"{many} answers at once, deltas of 300 bytes",
                contestants=(*contestants("lanes.side_by_side", **running), beside),
                measures=(CPU, EVENTS, slowest),
                baseline=sockets,
            ),
            Case(
                name="weight",
                title=f"Memory of {many} that have each had a short answer",
                contestants=contestants("lanes.weight", groups=pick(size, 1, 10, 40)),
                measures=(Measure("kib_each", "resident", "KiB", "lower"),),
                baseline=sockets,
                fresh=True,
                rounds=pick(size, 1, 1, 3),
            ),
        ),
    )


def batches(size: Size) -> Scenario:
    """Many prompts, over one process and several."""
    prompts = pick(size, 8, 400, 4000)
    deltas = pick(size, 3, 50, 200)

    def contestant(label: str, processes: int, **more: Any) -> Contestant:
        params = {"processes": processes, "prompts": prompts, "concurrency": 16, **more}
        return Contestant(label=label, peer="engine", job="batches.asking", params=params, model=f"deltas-300-{deltas}")

    return Scenario(
        "batches",
        "Batches",
        f"`open_batch` with 16 prompts under way in each process, answers of {deltas} deltas of 300 bytes that come as "
        "fast as they are read. Processor time is that of the processes that ask, all together: a second divided by it "
        "is what one core can ask and read.",
        (
            Case(
                name="processes",
                title="One process and several",
                contestants=tuple(
                    contestant(f"{number} process{'es' * (number > 1)}", number)
                    for number in pick(size, (1, 2), (1, 2), (1, 2, 4))
                ),
                measures=(
                    Measure("cpu_us_per_prompt", "processor time", "µs/prompt", "lower"),
                    Measure("prompts_per_second", "prompts", "/s", "higher"),
                ),
                baseline="1 process",
            ),
            Case(
                name="ledger",
                title="With a ledger in SQLite",
                contestants=(
                    contestant("without", 1),
                    contestant("with a ledger", 1, ledger=True),
                ),
                measures=(
                    Measure("cpu_us_per_prompt", "processor time", "µs/prompt", "lower"),
                    Measure("prompts_per_second", "prompts", "/s", "higher"),
                ),
                baseline="without",
            ),
        ),
    )
