"""Standard streams that a Trio task can wait for, and leave."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
from typing import Final, TextIO

import trio

from engine.cli.errors import neutralise, one_line, redact

__all__ = ["Inlet", "Outlet", "Terminal"]

_CHUNK: Final = 65536


def _descriptor(stream: TextIO | None) -> int | None:
    """The file descriptor behind a stream; None for a stream that has none, such as one put there by a test."""
    try:
        return None if stream is None else stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another process that holds this terminal or pipe made it so
            select.select([], [descriptor], [])


def _write_or_give_up(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        _write_all(descriptor, data)


def _read_some(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:
            select.select([descriptor], [], [])


class Outlet:
    """A standard stream to write to.

    Its reader may stop reading, so each write waits in a thread, on the bare descriptor: Python's own stream
    would hold a lock there that the interpreter wants at shutdown.

    Args:
        stream: Python's own stream; None where the process was started without.
        optional: Whether it is no failure when it cannot be written.

    Attributes:
        is_terminal: Whether a person looks at it. What is written there has its control characters neutralised.
    """

    def __init__(self, stream: TextIO | None, *, optional: bool = False) -> None:
        self._optional = optional
        self._stream = stream
        self._fd = _descriptor(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self.is_terminal: bool = _is_terminal(stream)

    async def write(self, text: str) -> None:
        """Write ``text`` at once.

        If cancelled, part of it may have been written, or may yet be.

        Raises:
            BrokenPipeError: the reader is gone, and the stream is not optional.
            OSError: it cannot be written, for example because a disk is full, and is not optional.
        """
        if self.is_terminal:
            text = neutralise(text)
        if self._fd is not None:
            data = text.encode(self._encoding, "replace")
            write = _write_or_give_up if self._optional else _write_all
            await trio.to_thread.run_sync(write, self._fd, data, abandon_on_cancel=True)
            return
        if self._stream is not None:
            self._stream.write(text)
        await trio.lowlevel.checkpoint()


class Inlet:
    """Standard input, by lines or as a whole.

    Reads wait in a thread that is left behind when the wait is cancelled: that works for terminals, pipes and files
    alike, where waiting for readiness would not.

    Attributes:
        is_terminal: Whether a person types into it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._decoder = codecs.getincrementaldecoder(getattr(stream, "encoding", None) or "utf-8")("replace")
        self._held = ""
        self._ended = stream is None
        self.is_terminal: bool = _is_terminal(stream)

    async def _fill(self) -> None:
        if self._fd is None:
            assert self._stream is not None
            self._held += self._stream.read()
            self._ended = True
            await trio.lowlevel.checkpoint()
            return
        data = await trio.to_thread.run_sync(_read_some, self._fd, abandon_on_cancel=True)
        self._held += self._decoder.decode(data, final=not data)
        self._ended = not data

    async def line(self) -> str | None:
        """Return the next line without its end, None at the end of the input.

        If cancelled, input that arrives meanwhile may be lost.
        """
        await trio.lowlevel.checkpoint()
        while "\n" not in self._held and not self._ended:
            await self._fill()
        if not self._held:
            return None
        line, _, self._held = self._held.partition("\n")
        return line.removesuffix("\r")

    async def everything(self) -> str:
        """Return the rest of the input. If cancelled, input that arrives meanwhile may be lost."""
        await trio.lowlevel.checkpoint()
        while not self._ended:
            await self._fill()
        text, self._held = self._held, ""
        return text


class Terminal:
    """The three standard streams of a command.

    Attributes:
        input: Standard input.
        output: Standard output, which gets answers and nothing else.
        aside: Standard error, for what is not the answer.
        secret: The key, which is taken out of every notice.
    """

    def __init__(self) -> None:
        self.input: Inlet = Inlet(sys.stdin)
        self.output: Outlet = Outlet(sys.stdout)
        self.aside: Outlet = Outlet(sys.stderr, optional=True)
        self.secret: str | None = None

    def notice(self, text: str) -> None:
        """Say something on standard error, in one line."""
        if sys.stderr is None:
            return
        try:
            print(one_line(redact(text, self.secret)), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return  # the reader is gone, and there is nowhere left to say so
