"""The simulator in a process of its own, for scenarios in which the server's behaviour matters: lanes, order, chains.

``python -m benchmarks.simulated`` prints one line of JSON that says where it listens, and serves until its standard
input ends. A question that ends in "at length" is answered for half a second or longer, any other at once. The answer
is the question's first word, so that everyone can tell whose answer it is.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from engine.simulator import Asked, Created, InProgress, Say, open_simulator

__all__ = ["main"]


def _answer(asked: Asked) -> Any:
    nonce, _, manner = asked.last_user_text.partition(" ")
    if manner == "at length":
        return [Created(), InProgress(), Say(f"{nonce} " * 25, size=4, pause=0.02)]
    return [Created(), InProgress(), Say(nonce, size=100)]


async def _serve() -> None:
    async with open_simulator(brain=_answer, remembered=100) as simulator:
        print(json.dumps({"plain": simulator.port}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    trio.run(_serve)


if __name__ == "__main__":
    main()
