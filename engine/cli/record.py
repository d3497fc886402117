"""``session-engine record``: stand between a client and a server, and write down what passes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.cli.serving import (
    Parser,
    ServingFailed,
    add_process_options,
    check_host,
    log_header,
    open_log,
    run_command,
    serve,
    serve_front,
)
from engine.simulator.frame_log import FrameLog, Redaction
from engine.testing.recorder import Recorder

if TYPE_CHECKING:
    pass

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 ended, 2 wrong arguments, 3 the port is in use."""
    parser = Parser(
        "session-engine record",
        description="Hand requests on to a server, over WebSocket and HTTP, and write what passes into a cassette."
        " Keys, cookies and ids of organisations are not written; what is said is.",
    )
    add_process_options(parser)
    parser.add_argument(
        "--upstream", required=True, metavar="URL", help="the server, such as https://api.openai.com/v1"
    )
    parser.add_argument("--cassette", required=True, type=Path, metavar="FILE", help="where to write, as JSON lines")
    return run_command(parser, arguments, _run)


def _run(given: argparse.Namespace) -> int:
    split = urlsplit(given.upstream)
    if split.scheme not in {"http", "https"} or not split.netloc or split.username is not None:
        raise ServingFailed("the upstream is a URL such as https://api.openai.com/v1")
    check_host(given)
    return serve(given, lambda: _record(given, split.path.rstrip("/")))


async def _record(given: argparse.Namespace, root: str) -> int:
    with open_log(given.cassette) as file:
        header = log_header() | {"upstream": given.upstream}
        recorder = Recorder(given.upstream, FrameLog(file, Redaction(given.redact), header=header))
        words = f"Everything goes to {given.upstream}, and is written to {given.cassette}. End it with Ctrl-C."
        await serve_front(given, recorder, root, words, {"cassette": str(given.cassette), "upstream": given.upstream})
    return 0
