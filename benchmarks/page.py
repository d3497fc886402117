"""``python -m benchmarks.page``: docs/benchmarks.md and its pictures, from the JSON file of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.peers import PEERS
from benchmarks.quiet import busy
from benchmarks.story import STORY
from benchmarks.tables import disturbed, markdown_of
from benchmarks.targets import found

__all__ = ["main", "newest", "page_of"]

ROOT = Path(__file__).parent.parent
_SIZES = {
    "tiny": "It only shows that everything runs; its figures mean nothing.",
    "quick": "It was a quick one, with small sizes: its figures are an indication only.",
    "full": "Medians are followed by the quartiles of all rounds.",
}

_INTRODUCTION = """`python -m benchmarks` measures this library beside other clients, over loopback. Contestants live in
processes of their own and take turns, round after round; what counts are ratios (×) of figures of the same round,
because a machine's speed changes from one minute to the next.
`benchmarks/README.md` says how it works and how to run it."""


def page_of(result: dict[str, Any], pictures: dict[str, str]) -> str:
    """The page as Markdown.

    Args:
        result: A run; with a ``note`` where there is something to say about how it came about.
        pictures: The address of each scenario's picture, by the scenario's name.
    """
    machine = result["machine"]
    warm_up = f", after {result['warm_up']} that did not count" if result["warm_up"] else ""
    parts = [
        "# Benchmarks",
        "<!-- Written by `python -m benchmarks.page`; changes made here are lost. -->",
        *([f"![{STORY}]({pictures['story']})"] if "story" in pictures else []),
        _INTRODUCTION,
        f"This run of {machine['at'][:10]}: rounds {result['rounds']}{warm_up}, seed {result['seed']}. "
        + _SIZES[result["size"]],
        *([result["note"]] if "note" in result else []),
        *([_disturbed(machine)] if busy(machine.get("others")) else []),
        "## What was aimed at",
        _targets(result),
        "## Contestants",
        _contestants(machine),
    ]
    for scenario in result["scenarios"]:
        parts += [f"## {scenario['title']}", scenario["text"]]
        if scenario["name"] in pictures:
            parts.append(f"![{scenario['title']}]({pictures[scenario['name']]})")
        for case in scenario["cases"]:
            parts += [f"### {case['title']}", *([f"*{note.strip()}*"] if (note := disturbed(case)) else [])]
            parts.append(markdown_of(case))
    parts += ["## The machine", _machine(machine)]
    return "\n\n".join(parts) + "\n"


def _disturbed(machine: dict[str, Any]) -> str:
    return (
        f"**The machine was busy**: other programs took {machine['others']:.0%} of its processors meanwhile. Ratios of "
        "processor time bear that; times on the clock, lateness above all, would be shorter on a quiet machine."
    )


def _targets(result: dict[str, Any]) -> str:
    lines = ["| aim | wanted | found | |", "| --- | ---: | ---: | --- |"]
    words = {True: "reached", False: "not reached", None: "not measured"}
    for each in found(result):
        unit = "\u00a0×" if each.target.figure == "ratio" else ""
        value = f"{each.value:.2f}{unit}" if each.value is not None else "–"
        wanted = f"{each.target.relation}\u00a0{each.target.bound:g}{unit}"
        lines.append(f"| {each.target.aim} | {wanted} | {value} | {words[each.reached]} |")
    missed = [each.target for each in found(result) if each.reached is False and each.target.why]
    if missed:
        lines += ["", "Why not:", "", *(f"- {each.aim}: {each.why}." for each in missed)]
    return "\n".join(lines)


def _contestants(machine: dict[str, Any]) -> str:
    lines = ["| name | is | runs on |", "| --- | --- | --- |"]
    lines += [f"| {peer.name} | {peer.what} | {peer.loop} |" for peer in PEERS if peer.wire != "none"]
    packages = machine["packages"] | {
        name.partition(": ")[2].replace("_", "-"): version for name, version in machine.get("peers", {}).items()
    }
    versions = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return "\n".join(lines) + f"\n\nVersions: {versions}."


def _machine(machine: dict[str, Any]) -> str:
    load, after = machine["load_average"], machine.get("load_average_after")
    facts = {
        "processor": f"{machine['processor']}, {machine['processors']} available",
        "system": f"{machine['system']}, {machine['machine']}",
        "Python": f"{machine['implementation']} {machine['python']}",
        "load average": f"{load:.2f} before, {after:.2f} after"
        if load is not None and after is not None
        else "unknown",
    }
    if "others" in machine:
        facts["other programs"] = f"{machine['others']:.0%} of the processors"
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {fact} |" for name, fact in facts.items())])


def newest(directory: Path) -> Path:
    """The last run that was kept."""
    kept = sorted(directory.glob("*.json"))
    if not kept:
        raise click.UsageError("there are no results yet; run python -m benchmarks first")
    return kept[-1]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("results", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--docs", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "docs", help="Where it goes.")
def main(results: Path | None, docs: Path) -> None:
    """Write the page and its pictures from RESULTS, or from the newest file in benchmarks/results."""
    from benchmarks.pictures import draw

    path = results or newest(Path(__file__).parent / "results")
    result = json.loads(path.read_text(encoding="utf-8"))
    drawn = draw(result, docs / "benchmarks")
    pictures = {each.stem: f"benchmarks/{each.name}" for each in drawn}
    page = docs / "benchmarks.md"
    page.write_text(page_of(result, pictures), encoding="utf-8")
    click.echo(f"Written: {page} and {len(drawn)} pictures")


if __name__ == "__main__":
    main()
