"""The sizes of scenarios, and the peers and measures that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from benchmarks.cases import Contestant, Measure

__all__ = ["BARE", "CEILING", "CPU", "EVENTS", "SOCKETS", "STREAMING", "Size", "lineup", "pick"]

Size: TypeAlias = Literal["tiny", "quick", "full"]
"""``tiny`` only shows that everything runs; ``quick`` ends within a minute; ``full`` is what is published."""

STREAMING: Final = (
    "engine",
    "engine-ask",
    "engine-fast",
    "engine-fast-ask",
    "engine-sse",
    "trio-websocket",
    "websockets-trio",
    "websockets-asyncio",
    "openai-connect",
    "openai-session",
    "openai-agents",
    "openai-http",
    "httpx-sse",
)
SOCKETS: Final = (
    "engine",
    "engine-ask",
    "engine-fast",
    "engine-fast-ask",
    "trio-websocket",
    "websockets-trio",
    "websockets-asyncio",
    "openai-connect",
    "openai-session",
)
BARE: Final = (
    "engine",
    "engine-ask",
    "engine-fast",
    "engine-fast-ask",
    "trio-websocket",
    "websockets-trio",
    "websockets-asyncio",
)
CEILING: Final = "trio-websocket"

EVENTS: Final = Measure("events_per_second", "events", "/s", "higher")
CPU: Final = Measure("cpu_us_per_event", "processor time", "µs/event", "lower")


def lineup(names: Sequence[str], job: str, **options: Any) -> tuple[Contestant, ...]:
    """Return the named peers as the contestants of one job."""
    return tuple(Contestant(label=name, peer=name, job=job, **options) for name in names)


def pick(size: Size, tiny: Any, quick: Any, full: Any) -> Any:
    """Return the value of a size."""
    return {"tiny": tiny, "quick": quick, "full": full}[size]
