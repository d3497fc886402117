"""What the tests of conversations share: tools, and a look at what the server got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.schemas.function_tool import FunctionTool
from engine.simulator import Simulator

__all__ = ["answers", "outputs", "tool"]


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
