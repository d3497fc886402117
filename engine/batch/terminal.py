"""The progress of a batch on a terminal: one line that is written over."""

from __future__ import annotations

import contextlib
import sys
from typing import Final, TextIO

from engine.batch.results import BatchProgress

__all__ = ["ProgressLine"]

_ON_A_TERMINAL: Final = 0.1
_ELSEWHERE: Final = 30.0
"""Seconds between two lines; a log wants few of them."""


class ProgressLine:
    """Shows how far a batch has got: ``open_batch(engine, items, progress=ProgressLine())``.

    On a terminal it is one line, written over at most ten times a second; elsewhere a line every half minute.

    Args:
        stream: The stream to write to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._overwrites = self._stream.isatty()
        self._next_at = 0.0
        self._width = 0

    def __call__(self, progress: BatchProgress) -> None:
        """Show it, unless the last time was a moment ago."""
        if not progress.over and progress.seconds < self._next_at:
            return
        self._next_at = progress.seconds + (_ON_A_TERMINAL if self._overwrites else _ELSEWHERE)
        line = _line(progress)
        padded, self._width = line.ljust(self._width), len(line)
        text = f"\r{padded}" if self._overwrites else line
        if progress.over or not self._overwrites:
            text += "\n"
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone ends no batch
            self._stream.write(text)
            self._stream.flush()


def _line(progress: BatchProgress) -> str:
    done = progress.done
    total = "" if progress.total is None else f" of {progress.total:,}"
    parts = [f"{done:,}{total} done"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.seconds > 0 and done:
        rate = done / progress.seconds
        parts.append(f"{rate:,.1f}/s")
        if progress.total is not None and not progress.over:
            parts.append(f"{_clock((progress.total - done) / rate)} left")
    if progress.over:
        parts.append(f"in {_clock(progress.seconds)}")
    if progress.usage is not None and progress.usage.total_tokens:
        parts.append(f"{progress.usage.total_tokens:,} tokens")
    if progress.pause > 0:
        parts.append(f"held by a rate limit for {_clock(progress.pause)}")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
