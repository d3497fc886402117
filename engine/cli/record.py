"""``session-engine record``: stand between a client and a server, and write down what passes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import urlsplit

import trio

from engine.cli.arguments import Parser, ServingFailed, add_process_options, check_host
from engine.cli.serving import log_header, open_log, run_command, serve, serve_front
from engine.simulator.frame_log import FrameLog, Redaction
from engine.testing.recorder import Recorder

__all__ = ["Progress", "main"]

_SHOWN_EVERY: Final = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 ended, 2 wrong arguments, 3 the port is in use."""
    parser = Parser(
        "session-engine record",
        description="Stand between clients and a server, over WebSocket and HTTP, until Ctrl-C, and write what passes"
        " into a cassette, which simulate --replay plays back. Keys, cookies and ids of organisations are left out;"
        " prompts and answers are not.",
    )
    add_process_options(parser)
    parser.add_argument(
        "--upstream",
        required=True,
        metavar="URL",
        help="the server to hand requests on to, such as https://api.openai.com/v1",
    )
    parser.add_argument(
        "--cassette",
        required=True,
        type=Path,
        metavar="FILE",
        help="the file to write, as JSON lines; one that is there is replaced",
    )
    return run_command(parser, arguments, _run)


def _run(given: argparse.Namespace) -> int:
    split = urlsplit(given.upstream)
    if split.scheme not in {"http", "https"} or not split.netloc or split.username is not None:
        raise ServingFailed("--upstream takes a URL such as https://api.openai.com/v1, without a user or password")
    check_host(given)
    return serve(given, lambda: _record(given, split.path.rstrip("/")))


async def _record(given: argparse.Namespace, root: str) -> int:
    with open_log(given.cassette) as file:
        header = log_header() | {"upstream": given.upstream}
        log = FrameLog(file, Redaction(given.redact), header=header)
        words = f"Everything goes to {given.upstream}, and is written to {given.cassette}. End it with Ctrl-C."
        told = {"cassette": str(given.cassette), "upstream": given.upstream}
        progress = Progress(log, sys.stderr)
        async with trio.open_nursery() as nursery:
            if sys.stderr.isatty() and not given.json:
                nursery.start_soon(progress.run)
            try:
                await serve_front(given, Recorder(given.upstream, log), root, words, told)
            finally:
                progress.end()
    return 0


class Progress:
    """One line on a terminal that tells what has been recorded so far.

    Args:
        log: The file that it is written to.
        terminal: The terminal that the line stands on.
    """

    def __init__(self, log: FrameLog, terminal: TextIO) -> None:
        self._log = log
        self._terminal = terminal
        self._shown = ""

    async def run(self) -> None:
        """Keep the line up to date until cancelled."""
        while True:
            self.show()
            await trio.sleep(_SHOWN_EVERY)

    def show(self) -> None:
        """Bring the line up to date."""
        counts = self._log.counts
        exchanges, came, went = (counts[kind] for kind in ("open", "in", "out"))
        line = f"{exchanges} opened, {came} in, {went} out, {self._log.size / 1000:.1f} kB written"
        if line != self._shown and exchanges:
            self._terminal.write(f"\r\x1b[K{line}")
            self._terminal.flush()
            self._shown = line

    def end(self) -> None:
        """Leave the line standing."""
        if self._shown:
            self.show()
            self._terminal.write("\n")
            self._terminal.flush()
            self._shown = ""
