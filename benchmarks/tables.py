"""A case as a table: for the terminal, and in Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.quiet import busy

__all__ = ["cells_of", "disturbed", "markdown_of", "shown", "table_of"]


def shown(value: float) -> str:
    """A figure with three significant digits, and thousands apart."""
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{int(value):,}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size < 10 else f"{value:.1f}"


def cells_of(case: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The heading and the rows of a case; a ratio stands after each figure that has one."""
    heading = [""]
    for measure in case["measures"]:
        heading.append(f"{measure['title']}{', ' + measure['unit'] if measure['unit'] else ''}")
        if _has_ratios(case, measure["key"]):
            heading.append(f"× {case['baseline']}")
    rows = []
    for row in case["rows"]:
        cells = [row["label"]]
        for measure in case["measures"]:
            figure = row["figures"][measure["key"]]
            cells.append(_figure(figure) if figure is not None else "–")
            if _has_ratios(case, measure["key"]):
                cells.append(_ratio(figure) if figure is not None and "ratio" in figure else "–")
        if row.get("note"):
            cells[1] = row["note"]
        rows.append(cells)
    return heading, rows


def _has_ratios(case: dict[str, Any], key: str) -> bool:
    return any("ratio" in (row["figures"][key] or {}) for row in case["rows"])


def _figure(figure: dict[str, Any]) -> str:
    return _with_spread(figure["median"], figure["low"], figure["high"])


def _ratio(figure: dict[str, Any]) -> str:
    return _with_spread(figure["ratio"], figure["ratio_low"], figure["ratio_high"], digits=2)


def _with_spread(median: float, low: float, high: float, digits: int | None = None) -> str:
    def text(value: float) -> str:
        return shown(value) if digits is None or value >= 10 else f"{value:.{digits}f}"

    return text(median) if text(low) == text(high) else f"{text(median)} ({text(low)}–{text(high)})"


def disturbed(case: dict[str, Any]) -> str:
    """A note that other programs ran while a case was measured; nothing where none did."""
    others = case.get("others")
    return f" (other programs took {others:.0%} of the processors meanwhile)" if busy(others) else ""


def table_of(case: dict[str, Any]) -> Table:
    """A case for the terminal."""
    heading, rows = cells_of(case)
    table = Table(title=case["title"] + disturbed(case), title_justify="left", header_style="bold")
    for number, name in enumerate(heading):
        table.add_column(name, justify="left" if number == 0 else "right")
    for cells in rows:
        table.add_row(*cells, style="cyan" if cells[0].startswith("engine") else None)
    return table


def markdown_of(case: dict[str, Any]) -> str:
    """A case in Markdown."""
    heading, rows = cells_of(case)
    lines = ["| " + " | ".join(heading) + " |", "| --- |" + " ---: |" * (len(heading) - 1)]
    for cells in rows:
        label = f"**{cells[0]}**" if cells[0].startswith("engine") else cells[0]
        lines.append("| " + " | ".join([label, *(cell.replace("|", "\\|") for cell in cells[1:])]) + " |")
    return "\n".join(lines)
