"""The output of a turn: text, JSON lines, and its report as a table."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol, TypeAlias

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text as Cell

from engine.cli.errors import one_line
from engine.cli.terminal import Outlet, Terminal
from engine.values.blocks import Text
from engine.values.reports import TurnReport
from engine.values.turn_events import TextDelta, TextStarted, TurnDone, TurnEvent
from engine.values.usage import Usage

__all__ = ["JsonView", "Pieces", "TextView", "View", "plain", "report_table"]


Pieces: TypeAlias = "list[tuple[Outlet, str]]"


class View(Protocol):
    """Decides what of a turn is shown, and where."""

    def render(self, event: TurnEvent) -> Pieces:
        """Return what to write for an event, in order."""
        ...

    def end(self) -> Pieces:
        """Return what to write when a turn has ended, well or not."""
        ...


class TextView:
    """Shows the answer on standard output, and what the model marks as commentary on standard error."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._commentary: set[int] = set()
        self._open: Outlet | None = None

    def render(self, event: TurnEvent) -> Pieces:
        """Return what to write for an event: deltas as they come, blocks on lines of their own."""
        match event:
            case TextStarted(index=index, block=block):
                if isinstance(block, Text) and block.phase == "commentary":
                    self._commentary.add(index)
                return self._end_line()
            case TextDelta(index=index, delta=delta) if delta:
                outlet = self._terminal.aside if index in self._commentary else self._terminal.output
                self._open = None if delta.endswith("\n") else outlet
                return [(outlet, delta)]
            case TurnDone(reason="length"):
                return [
                    *self._end_line(),
                    (self._terminal.aside, "The answer was cut at the limit of output tokens.\n"),
                ]
            case _:
                return []

    def end(self) -> Pieces:
        """Return the end of the line that is open, and be ready for another turn."""
        self._commentary.clear()
        return self._end_line()

    def _end_line(self) -> Pieces:
        outlet, self._open = self._open, None
        return [] if outlet is None else [(outlet, "\n")]


class JsonView:
    """Writes every event as one line of JSON, in ASCII, so that nothing in it can act on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def render(self, event: TurnEvent) -> Pieces:
        """Return the event's line."""
        return [(self._terminal.output, json.dumps(plain(event), separators=(",", ":")) + "\n")]

    def end(self) -> Pieces:
        """Return nothing: every line is complete."""
        return []


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it; records become objects with their ``type`` first."""
    if attrs.has(type(value)):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower()
        fields = {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return {"type": name, **fields}
    if isinstance(value, Mapping):
        return {str(key): plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(content) for content in value]
    return value.value if isinstance(value, Enum) else value


def report_table(report: TurnReport) -> str:
    """Return what is known of a turn as a table."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, content in _rows(report):
        table.add_row(Cell(name), Cell(one_line(content)))
    # Not printed by rich itself: it ends the process when the reader is gone.
    text = io.StringIO()
    Console(file=text, width=shutil.get_terminal_size((100, 24)).columns).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _rows(report: TurnReport) -> list[tuple[str, str]]:
    rows = []
    for field in attrs.fields(TurnReport):
        value = getattr(report, field.name)
        if value is None or value in ((), {}) or field.name == "seconds":
            continue
        match value:
            case Usage():
                counted = {each.name: getattr(value, each.name) for each in attrs.fields(Usage)}
                value = ", ".join(f"{count} {name[:-7].replace('_', ' ')}" for name, count in counted.items() if count)
            case Mapping():
                value = ", ".join(value)  # what header fields say is not for the screen
            case Enum():
                value = value.value
            case bool():
                value = "yes" if value else "no"
        rows.append((field.name.replace("_", " "), str(value)))
    for phase, seconds in attrs.asdict(report.seconds).items():
        if seconds is not None:
            rows.append((f"seconds, {phase.replace('_', ' ')}", f"{seconds:.3f}"))
    return rows
