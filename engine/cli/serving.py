"""The common part of commands that serve: saying that they are ready, and ending.

Without click, so that a test server needs nothing but the library.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.metadata
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TextIO

import trio

from engine.cli.arguments import MISUSED, Parser, ServingFailed
from engine.simulator.front import serve_backend

if TYPE_CHECKING:
    from engine.simulator.front import Backend

__all__ = [
    "PORT_IN_USE",
    "PROBLEMS",
    "announce",
    "cannot_listen",
    "log_header",
    "open_log",
    "run_command",
    "say",
    "serve",
    "serve_front",
    "version",
]

PORT_IN_USE: Final = 3
PROBLEMS: Final = 4
_UNHEARD: Final = 1


def version() -> str:
    """Return the version of the library."""
    try:
        return importlib.metadata.version("trio-session-engine")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def run_command(parser: Parser, arguments: Sequence[str], command: Callable[[argparse.Namespace], int]) -> int:
    """Run a command on its arguments and return the exit code, having told in one line what cannot be used."""
    try:
        return command(parser.parse_args(list(arguments)))
    except SystemExit:
        return 0  # help has been shown
    except (ServingFailed, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.code if isinstance(error, ServingFailed) else MISUSED
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}", file=sys.stderr)
        return MISUSED


def announce(arguments: argparse.Namespace, ready: Mapping[str, Any], words: str) -> None:
    """Say that the server is there: as JSON or in words, and in the ready file, which appears whole or not at all."""
    line = json.dumps({"event": "ready", "pid": os.getpid(), **ready})
    path: Path | None = arguments.ready_file
    try:
        if path is not None:
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
                file.write(line + "\n")
            os.replace(file.name, path)
    except OSError as error:
        raise ServingFailed(f"{path}: {error.strerror}") from None
    try:
        print(line if arguments.json else words, flush=True)
    except OSError as error:
        raise ServingFailed(f"standard output: {error.strerror}", _UNHEARD) from None


def say(line: str, stream: TextIO | None) -> None:
    """Print a line to a stream; one that is closed, or whose reader has gone, is no reason to end a server."""
    if stream is None:
        return
    try:
        print(line, file=stream, flush=True)
    except OSError:
        # The interpreter writes what is left at its end, and must not fail at that either.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def serve(arguments: argparse.Namespace, program: Callable[[], Awaitable[int]]) -> int:
    """Run a server until a signal, or the end of standard input, and return the exit code.

    SIGINT ends it from every shell, also one that starts programs in the background with that signal ignored.

    Raises:
        ServingFailed: it is to end with a standard input that is not there.
    """
    if arguments.exit_with_parent and sys.stdin is None:
        raise ServingFailed("--exit-with-parent needs a standard input, and that is closed")

    async def main() -> int:
        code = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_by_signal, nursery.cancel_scope)
            if arguments.exit_with_parent:
                nursery.start_soon(_end_with_input, nursery.cancel_scope)
            code = await program()
            nursery.cancel_scope.cancel(reason="the server has ended")
        return code

    error: BaseException
    try:
        return trio.run(main)
    except (OSError, ServingFailed) as one:
        error = one
    except BaseExceptionGroup as group:
        error = _first(group)
        if not isinstance(error, (OSError, ServingFailed)):
            raise
    print(f"Error: {error}", file=sys.stderr)
    return error.code if isinstance(error, ServingFailed) else 1


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _end_by_signal(
    scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
    scope.cancel(reason="a signal")


async def _end_with_input(scope: trio.CancelScope) -> None:
    def read() -> bytes:
        return os.read(sys.stdin.fileno(), 4096)

    while await trio.to_thread.run_sync(read, abandon_on_cancel=True):
        pass
    scope.cancel(reason="standard input has ended")


async def serve_front(given: argparse.Namespace, backend: Backend, root: str, words: str, told: dict[str, str]) -> None:
    """Serve a backend until cancelled, having said where."""

    def on_listening(port: int) -> None:
        host = f"[{given.host}]" if ":" in given.host else given.host
        base_url = f"http://{host}:{port}{root}"
        ready = {"base_url": base_url, "ws_url": f"ws{base_url.removeprefix('http')}/responses", "version": version()}
        announce(given, ready | told, f"{base_url}\n{words}")

    try:
        await serve_backend(backend, host=given.host, port=given.port, ssl_context=None, on_listening=on_listening)
    except* OSError as group:
        raise cannot_listen(given, group) from None


def cannot_listen(given: argparse.Namespace, error: BaseException) -> ServingFailed:
    """Return what is to be said of a port that cannot be listened on, in the system's words: Trio adds its own."""
    first = _first(error)
    cause = first.__cause__ if isinstance(first.__cause__, OSError) else first
    number = cause.errno if isinstance(cause, OSError) else None
    reason = str(first) if number is None else os.strerror(number)
    hint = "; --port 0 picks a free one" if number == errno.EADDRINUSE else ""
    return ServingFailed(f"cannot listen on {given.host} port {given.port}: {reason}{hint}", PORT_IN_USE)


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[IO[str]]:
    """Open a file for lines, which only its owner may read: bodies are in it.

    Raises:
        ServingFailed: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ServingFailed(f"{path}: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        yield file


def log_header() -> dict[str, Any]:
    """Return what the first line of a log says beside its version."""
    return {
        "program": f"trio-session-engine {version()}",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
