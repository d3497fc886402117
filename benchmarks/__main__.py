"""``python -m benchmarks``: run them, show them, keep them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cases import Case, Scenario, contestants_of
from benchmarks.figures import run_case
from benchmarks.machine import machine_facts
from benchmarks.peers import PEERS
from benchmarks.quiet import Watch, busy
from benchmarks.scenarios import SCENARIOS, Size, scenarios
from benchmarks.stage import Stage
from benchmarks.tables import table_of

__all__ = ["main", "run"]

RESULTS = Path(__file__).parent / "results"
_ROUNDS = {"tiny": 1, "quick": 1, "full": 7}
_WARM_UP = {"tiny": 0, "quick": 0, "full": 1}


def _played(case: Case, rounds: int, warm_up: int) -> int:
    return len(case.contestants) * (min(rounds, case.rounds or rounds) + warm_up)


async def run(
    chosen: list[Scenario],
    *,
    rounds: int,
    warm_up: int,
    seed: int,
    pythons: dict[str, str],
    console: Console,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Run scenarios; hand on after each all that is known, as plain data. If cancelled, all processes end."""
    total = sum(_played(case, rounds, warm_up) for scenario in chosen for case in scenario.cases)
    before = machine_facts()
    whole = Watch()
    found = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    async with Stage(pythons) as stage:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=total)
            played = 0

            def step() -> None:
                nonlocal played
                played += 1
                progress.advance(task)

            first = [
                each.peer
                for scenario in chosen
                for case in scenario.cases
                if not case.fresh
                for each in case.contestants
            ]
            await stage.prepare(dict.fromkeys(first))
            for scenario in chosen:
                cases = []
                for case in scenario.cases:
                    progress.update(task, description=f"{scenario.name}: {case.name}")
                    if not console.is_terminal:  # where no bar is shown
                        console.print(f"{played} of {total} samples taken, now {scenario.name}: {case.name}")
                    began, beside = trio.current_time(), Watch()
                    done = await run_case(
                        case,
                        stage.take,
                        rounds=rounds,
                        seed=seed,
                        warm_up=warm_up,
                        step=step,
                    )
                    done |= {"seconds": round(trio.current_time() - began, 1), "others": round(beside.share(), 3)}
                    cases.append(done)
                    progress.console.print(table_of(done))
                found.append({"name": scenario.name, "title": scenario.title, "text": scenario.text, "cases": cases})
                versions = dict(sorted(stage.versions.items()))
                facts = before | {"load_average_after": machine_facts()["load_average"], "peers": versions}
                facts["others"] = round(whole.share(), 3)
                keep({"machine": facts, "rounds": rounds, "warm_up": warm_up, "seed": seed, "scenarios": found})


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", "size", flag_value="quick", help="Small sizes and one round: under a minute in all.")
@click.option("--size", "size", type=click.Choice(["tiny", "quick", "full"]), default="full", show_default=True)
@click.option(
    "--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this one; repeatable."
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice([peer.name for peer in PEERS]),
    help="Only this one; repeatable.",
)
@click.option("--case", "cases", multiple=True, metavar="CASE", help="Only the case of this name; repeatable.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds that count; 7 unless --quick.")
@click.option("--seed", type=int, default=20260101, show_default=True, help="For all that is random.")
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="PEER=PATH",
    help="The interpreter of a peer that needs other packages than this one has; repeatable.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Where the JSON file goes.")
def main(
    size: Size,
    names: tuple[str, ...],
    peers: tuple[str, ...],
    cases: tuple[str, ...],
    rounds: int | None,
    seed: int,
    pythons: tuple[str, ...],
    output: Path | None,
) -> None:
    """Measure this library beside others, over loopback only.

    Prints tables and writes a JSON file, from which `python -m benchmarks.page` makes docs/benchmarks.md.
    """
    console = Console()
    chosen = _narrowed(scenarios(size, names), cases, peers)
    path = output or RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(result: dict[str, Any]) -> None:
        text = json.dumps(result | {"size": size}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")

    trio.run(
        lambda: run(
            chosen,
            rounds=rounds or _ROUNDS[size],
            warm_up=_WARM_UP[size],
            seed=seed,
            pythons=_pairs(pythons),
            console=console,
            keep=keep,
        )
    )
    console.print(f"Written to {path}", soft_wrap=True)
    others = json.loads(path.read_text(encoding="utf-8"))["machine"]["others"]
    if busy(others):
        console.print(
            f"The machine was busy: other programs took {others:.0%} of its processors meanwhile.", style="red"
        )


def _narrowed(chosen: list[Scenario], names: tuple[str, ...], peers: tuple[str, ...]) -> list[Scenario]:
    from attrs import evolve

    unknown = set(names) - {case.name for scenario in chosen for case in scenario.cases}
    if unknown:
        raise click.UsageError(f"no case is called {', '.join(sorted(unknown))}")
    narrowed = []
    for scenario in chosen:
        wanted = [case for case in scenario.cases if not names or case.name in names]
        cases = [kept for case in wanted if (kept := contestants_of(case, peers)) is not None]
        if cases:
            narrowed.append(evolve(scenario, cases=tuple(cases)))
    if not narrowed:
        raise click.UsageError("none of these peers takes part in any of these scenarios")
    return narrowed


def _pairs(pythons: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(each.partition("=")[::2] for each in pythons)
    unknown = set(pairs) - {peer.name for peer in PEERS}
    if unknown or "" in pairs.values():
        raise click.UsageError("--python takes PEER=PATH")
    return pairs


if __name__ == "__main__":
    sys.exit(main())
