"""Lines that are typed on a terminal while an answer comes."""

from __future__ import annotations

import codecs
import os
import select
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

__all__ = ["Listener"]

_CHUNK: Final = 4096


class Listener:
    """A block in which whole lines are handed to a function as they are typed, in a thread of its own.

    The terminal is as the line editor leaves it: it shows what is typed, and a line is there with its Enter. What is
    typed of the next one stays in the terminal, for the editor.

    Args:
        descriptor: The terminal's file descriptor.
        on_line: The function. What it raises ends the listening.
    """

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._thread = threading.Thread(target=self._listen, name="engine.cli.listener", daemon=True)

    def __enter__(self) -> Listener:
        """Begin to listen, where a terminal can be waited for: on Windows it cannot."""
        self._stopped, self._stop = os.pipe()
        if sys.platform != "win32":
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, once a line that is being handed on has been."""
        os.write(self._stop, b".")
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._stop)
        os.close(self._stopped)

    def _listen(self) -> None:
        decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
        while True:
            ready, _, _ = select.select([self._descriptor, self._stopped], [], [])
            if self._stopped in ready:
                return
            data = os.read(self._descriptor, _CHUNK)
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            for line in lines:
                self._on_line(line)
            if not data:  # the terminal is gone, or Ctrl-D was typed
                return
