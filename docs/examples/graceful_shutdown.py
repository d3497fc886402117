"""A service that is told to stop: turns under way may end, nothing new begins, every socket is closed.

python -m docs.examples.graceful_shutdown  # then Ctrl-C, or kill
"""

from __future__ import annotations

import itertools
import signal

import trio

from docs.examples.offline import MODEL, server
from engine import Engine, SessionClosed, open_engine

GRACE = 10.0  # seconds; an orchestrator that kills after 30 leaves it room


async def work(engine: Engine, user: str) -> None:
    """Ask, and ask again, until the engine takes no more."""
    try:
        session = await engine.session(user)
        for number in itertools.count():
            reply = await session.ask(f"What is {number}+{number}?")
            print(user, reply.text, flush=True)
            await trio.sleep(0.2)
    except SessionClosed:
        print(user, "was told to stop", flush=True)


async def main() -> None:
    """Work until a signal comes, then stop in order."""
    async with (
        server() as (endpoint, dialer),
        open_engine(endpoint, model=MODEL, dialer=dialer) as engine,
        trio.open_nursery() as nursery,
    ):
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            for user in ("ada", "alan", "grace"):
                nursery.start_soon(work, engine, user)
            await anext(signals)
        ended = await engine.drain(grace=GRACE)
        print("all turns ended" if ended else "some turns were cut short", flush=True)


if __name__ == "__main__":
    trio.run(main)
