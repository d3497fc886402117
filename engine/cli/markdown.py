"""Markdown as it streams in: each block is laid out when it is whole, and what is being written is shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["Blocks"]

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")


class Blocks:
    """Cuts a text that comes in pieces into blocks: paragraphs, lists, tables, and whole fenced code (CommonMark 4.5).

    Laying out a block again and again while it grows would need the terminal to go back further than it can.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence: str | None = None

    @property
    def unfinished(self) -> str:
        """The text so far of the block that is being written."""
        return "".join([*self._lines, self._rest])

    def add(self, text: str) -> Iterator[str]:
        """Take a piece of the text and return the blocks that are whole now."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            yield from self._add_line(line + "\n")

    def end(self) -> Iterator[str]:
        """Return what is left."""
        if self._rest:
            self._lines.append(self._rest)
            self._rest = ""
        yield from self._cut()
        self._fence = None

    def _add_line(self, line: str) -> Iterator[str]:
        fence = _FENCE.match(line)
        if self._fence is not None:
            self._lines.append(line)
            closes = fence is not None and fence[1].startswith(self._fence) and not line[fence.end() :].strip(" `~\n")
            if closes:
                self._fence = None
                yield from self._cut()
            return
        if fence is not None:
            yield from self._cut()
            self._fence = fence[1]
            self._lines.append(line)
            return
        self._lines.append(line)
        if not line.strip():
            yield from self._cut()

    def _cut(self) -> Iterator[str]:
        block, self._lines = "".join(self._lines), []
        if block.strip():
            yield block
