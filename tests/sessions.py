"""How most tests begin: with a session to a simulator, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs

import engine
from engine.simulator import Simulator, open_simulator

__all__ = ["SessionTo", "session_to", "session_with"]

SessionTo = Callable[..., AbstractAsyncContextManager[tuple[engine.Session, Simulator]]]


@asynccontextmanager
async def session_to(
    brain: Any = None, *, sim_options: Mapping[str, Any] = {}, key: Any = None, **options: Any
) -> AsyncIterator[tuple[engine.Session, Simulator]]:
    """Open a session to a simulator in memory, and check in the end that its brain made no mistake.

    Args:
        brain: Who answers, as for ``open_simulator``.
        sim_options: Further arguments of ``open_simulator``.
        key: The API key, or a function that gives it, in place of the simulator's own.
        options: Arguments of ``open_session``.
    """
    async with open_simulator(in_memory=True, brain=brain, **sim_options) as sim:
        endpoint = sim.endpoint if key is None else attrs.evolve(sim.endpoint, api_key=key)
        async with engine.open_session(endpoint, **{"model": "gpt-test", "dialer": sim.dialer, **options}) as session:
            yield session, sim
        assert sim.errors == []


def session_with(**options: Any) -> SessionTo:
    """Bind what all sessions of a file share; what a call gives goes before it."""
    return partial(session_to, **options)
