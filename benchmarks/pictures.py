"""Pictures of a run: one SVG for each scenario, with a bar for each contestant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.story import story_of
from benchmarks.tables import shown

__all__ = ["draw", "picture_of"]

_OURS: Final = "#0b6e99"
_OTHERS: Final = "#b8c4cc"
_CEILING: Final = "#7a8a94"
_LOGARITHMIC_FROM: Final = 40.0
_COLUMNS: Final = 2
# The same results give the same bytes.
_SETTINGS: Final = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 8.0, "font.family": "sans-serif"}


def draw(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write the picture that tells the story, and one of every scenario that has something to show."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    story = story_of(result)
    if story is not None:
        written.append(directory / "story.svg")
        written[0].write_text(story, encoding="utf-8")
    for scenario in result["scenarios"]:
        with mpl.rc_context(_SETTINGS):
            figure = picture_of(scenario)
            if figure is not None:
                path = directory / f"{scenario['name']}.svg"
                figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
                text = path.read_text(encoding="utf-8")
                path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")
                written.append(path)
    return written


def picture_of(scenario: dict[str, Any]) -> Figure | None:
    """All cases of a scenario that compare something, side by side; None where there are none."""
    cases = [case for case in scenario["cases"] if len(_bars(case)) > 1]
    if not cases:
        return None
    rows = -(-len(cases) // _COLUMNS)
    columns = min(_COLUMNS, len(cases))
    tallest = max(len(_bars(case)) for case in cases)
    figure = Figure(figsize=(5.2 * columns, rows * (0.9 + 0.2 * tallest)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number < len(cases):
            _fill(axes, cases[number])
        else:
            axes.set_axis_off()
    return figure


def _bars(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    key = case["measures"][0]["key"]
    return [(row["label"], row["figures"][key]) for row in case["rows"] if row["figures"][key] is not None]


def _fill(axes: Axes, case: dict[str, Any]) -> None:
    measure = case["measures"][0]
    bars = _bars(case)[::-1]
    values = [figure["median"] for _, figure in bars]
    spread = [
        [max(figure["median"] - figure["low"], 0.0) for _, figure in bars],
        [max(figure["high"] - figure["median"], 0.0) for _, figure in bars],
    ]
    axes.barh(
        range(len(bars)),
        values,
        xerr=spread,
        color=[_colour(label, case["baseline"]) for label, _ in bars],
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        height=0.7,
    )
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) and max(values) / min(positive) > _LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 2, max(values) * 6)
    elif max(values) > 0:
        axes.set_xlim(0, max(values) * 1.35)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter())
    for place, (_, figure) in enumerate(bars):
        ratio = f"  ({figure['ratio']:.2f} ×)" if "ratio" in figure else ""
        axes.text(figure["high"], place, f" {shown(figure['median'])}{ratio}", va="center", fontsize=7)
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    for place, (label, _) in enumerate(bars):
        _note_wrong_answers(axes, case, label, place)
    axes.set_title(case["title"], fontsize=8.5, loc="left")
    unit = f", {measure['unit']}" if measure["unit"] else ""
    direction = {"higher": "more is better", "lower": "less is better"}.get(measure["better"], "")
    axes.set_xlabel(f"{measure['title']}{unit}{' · ' + direction if direction else ''}", fontsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)


def _note_wrong_answers(axes: Axes, case: dict[str, Any], label: str, place: int) -> None:
    figures = next(row["figures"] for row in case["rows"] if row["label"] == label)
    right, of = figures.get("right"), figures.get("of")
    if right is not None and of is not None and sum(right["samples"]) < sum(of["samples"]):
        words = f"{sum(right['samples']):.0f} of {sum(of['samples']):.0f} answers are its own"
        axes.text(
            0.99,
            place,
            words,
            va="center",
            ha="right",
            fontsize=7,
            color="#b3261e",
            transform=axes.get_yaxis_transform(),
        )


def _colour(label: str, baseline: str | None) -> str:
    if label.startswith("engine"):
        return _OURS
    return _CEILING if label == baseline else _OTHERS
