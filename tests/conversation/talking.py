"""What the tests of conversations share: a session to a scripted server, tools, and a look at what the server got."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import engine
from engine.schemas.function_tool import FunctionTool
from engine.simulator import Simulator, open_simulator

__all__ = ["answers", "outputs", "session_to", "tool"]


@asynccontextmanager
async def session_to(brain: Any = None, **options: Any) -> AsyncIterator[tuple[engine.Session, Simulator]]:
    async with open_simulator(in_memory=True, brain=brain) as sim:
        options.setdefault("model", "gpt-test")
        async with engine.open_session(sim.endpoint, dialer=sim.dialer, **options) as session:
            yield session, sim
        assert sim.errors == []


def tool(function: Callable[..., Any], *, timeout: float | None = None) -> FunctionTool:
    """Make a tool of a function, called as the function is."""
    return FunctionTool(function, timeout=timeout)


def outputs(sim: Simulator, request: int = -1) -> list[str]:
    """The tool outputs at the end of a request's input."""
    return [item["output"] for item in answers(sim, request)]


def answers(sim: Simulator, request: int = -1) -> list[Any]:
    """The items at the end of a request's input that answer calls."""
    found: list[Any] = []
    for item in reversed(sim.requests[request].body["input"]):
        if not item["type"].endswith("call_output"):
            break
        found.append(item)
    return found[::-1]
