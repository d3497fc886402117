"""Where the examples find a model: at the service if OPENAI_API_KEY is set, else in a simulator inside the program."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Dialer, Endpoint
from engine.simulator import Script, open_simulator

__all__ = ["MODEL", "server"]

MODEL = os.environ.get("OPENAI_MODEL", "gpt-5.4")


@asynccontextmanager
async def server(brain: Script | None = None) -> AsyncIterator[tuple[Endpoint, Dialer | None]]:
    """An endpoint, and what dials it; ``brain`` is what the simulator answers instead of calculating."""
    if os.environ.get("OPENAI_API_KEY"):
        yield Endpoint.from_env(), None
    else:
        async with open_simulator(in_memory=True, brain=brain) as sim:
            yield sim.endpoint, sim.dialer
