"""The common part of commands that serve: saying that they are ready, and ending.

Without click, so that a test server needs nothing but the library.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import ipaddress
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import trio

from engine.simulator.front import serve_backend

if TYPE_CHECKING:
    from engine.simulator.front import Backend

__all__ = [
    "PORT_IN_USE",
    "PROBLEMS",
    "Parser",
    "ServingFailed",
    "add_process_options",
    "announce",
    "check_host",
    "log_header",
    "open_log",
    "run_command",
    "serve",
    "serve_front",
    "version",
]

PORT_IN_USE: Final = 3
PROBLEMS: Final = 4
_MISUSED: Final = 2


class ServingFailed(Exception):
    """The command cannot go on.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: int = _MISUSED) -> None:
        super().__init__(message)
        self.code = code


def version() -> str:
    """Return the version of the library."""
    try:
        return importlib.metadata.version("trio-session-engine")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise ServingFailed(f"{message}; try {self.prog} --help")


def run_command(parser: Parser, arguments: Sequence[str], command: Callable[[argparse.Namespace], int]) -> int:
    """Run a command on its arguments and return the exit code, having told in one line what cannot be used."""
    try:
        return command(parser.parse_args(list(arguments)))
    except SystemExit:
        return 0  # help has been shown
    except (ServingFailed, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.code if isinstance(error, ServingFailed) else _MISUSED
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}", file=sys.stderr)
        return _MISUSED


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a program that starts the server finds it, and ends it."""
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="the port; 0 picks a free one (default: 0)")
    parser.add_argument("--allow-remote", action="store_true", help="listen on an address that others can reach")
    parser.add_argument("--json", action="store_true", help="print JSON, the first line when the server is ready")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="write the ready line into this file too")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input ends")
    parser.add_argument("--redact", action="append", default=[], metavar="REGEX", help="what is never written to files")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def check_host(given: argparse.Namespace) -> None:
    """Refuse to listen where others can reach it, unless that is wanted.

    Raises:
        ServingFailed: it is not.
    """
    if given.allow_remote or given.host == "localhost":
        return
    try:
        if ipaddress.ip_address(given.host).is_loopback:
            return
    except ValueError:
        pass
    raise ServingFailed("it listens on loopback addresses only, unless --allow-remote is given")


def announce(arguments: argparse.Namespace, ready: Mapping[str, Any], words: str) -> None:
    """Say that the server is there: as JSON or in words, and in the ready file, which appears whole or not at all."""
    line = json.dumps({"event": "ready", "pid": os.getpid(), **ready})
    if arguments.ready_file is not None:
        path: Path = arguments.ready_file
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(line + "\n")
        os.replace(file.name, path)
    print(line if arguments.json else words, flush=True)


def serve(arguments: argparse.Namespace, program: Callable[[], Awaitable[int]]) -> int:
    """Run a server until a signal, or the end of standard input, and return the exit code.

    SIGINT ends it from every shell, also one that starts programs in the background with that signal ignored.
    """

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


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
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
        raise ServingFailed(f"cannot listen on {given.host} port {given.port}", PORT_IN_USE) from group


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
