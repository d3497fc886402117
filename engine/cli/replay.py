"""``session-engine simulate --replay``: answer as a cassette did."""

from __future__ import annotations

import argparse
import json
import sys

import trio

from engine.cli.arguments import ServingFailed
from engine.cli.serving import PROBLEMS, say, serve_front
from engine.simulator.cassette import Cassette, CassetteError, parse_cassette
from engine.simulator.frame_log import Redaction
from engine.simulator.player import Player

__all__ = ["load", "replay"]


def load(given: argparse.Namespace) -> Cassette:
    """Read the cassette.

    Raises:
        ServingFailed: it cannot be read.
    """
    try:
        with open(given.replay, encoding="utf-8") as file:
            return parse_cassette(file, str(given.replay))
    except CassetteError as error:
        raise ServingFailed(str(error)) from None


async def replay(given: argparse.Namespace, cassette: Cassette) -> int:
    """Serve until cancelled."""
    strict, speed = given.match != "order", given.speed or 0.0
    player = Player(cassette, strict=strict, speed=speed, redaction=Redaction(given.redact))
    root = next((each.path.removesuffix("/responses") for each in cassette.exchanges), "/v1")
    words = f"It answers as {given.replay} does, {len(cassette.exchanges)} requests. End it with Ctrl-C."
    try:
        await serve_front(given, player, root, words, {"replay": str(given.replay)})
    finally:
        problems = player.problems() if given.verify else []
        for problem in problems:
            say(json.dumps({"event": "problem", "problem": problem}), sys.stderr)
        given.verdict = PROBLEMS if problems else 0
    await trio.lowlevel.checkpoint()
    return 0
