"""The costs of being there: memory, start, and the decoding of one event."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case, Contestant, Measure, Scenario, Server
from benchmarks.internals import KINDS
from benchmarks.scenarios.sizes import Size, lineup, pick

__all__ = ["codec", "memory", "start"]


def memory(size: Size) -> Scenario:
    """Memory of sessions, turns and transcripts."""
    each = (Measure("kib_each", "each", "KiB", "lower"),)
    count = pick(size, 3, 50, 500)
    turns = pick(size, 4, 200, 10_000)
    names: tuple[str, ...] = ("trio-stream", "trio-websocket", "websockets-asyncio", "openai-connect", "openai-session")
    names = names if size == "full" else names[:2]

    def opened(tls: bool) -> tuple[Contestant, ...]:
        common: dict[str, Any] = {"params": {"count": count}, "tls": tls}
        ours = Contestant(label="engine", peer="engine", job="internals.open_sessions", **common)
        return (ours, *lineup(names, "memory_open", **common))

    rounds = pick(size, 1, 1, 3)
    buffered = {"turns": pick(size, 1, 5, 20), "events": pick(size, 100, 1000, 2000)}
    return Scenario(
        "memory",
        "Memory",
        "Resident memory of a fresh process, before and after, divided by the number of things.",
        (
            Case(
                name="idle",
                title="A session without a connection",
                contestants=(
                    Contestant(
                        label="engine", peer="engine", job="internals.idle_sessions", params={"count": count * 2}
                    ),
                ),
                measures=each,
                fresh=True,
                rounds=rounds,
            ),
            *(
                Case(
                    name=f"open{'-tls' if tls else ''}",
                    title=f"An open connection{' over TLS' if tls else ''} that has served a short turn",
                    contestants=opened(tls),
                    measures=each,
                    baseline="trio-stream",
                    fresh=True,
                    rounds=rounds,
                )
                for tls in (False, True)
            ),
            Case(
                name="buffered",
                title="A thousand events of 300 bytes that nobody has read yet",
                contestants=(
                    Contestant(
                        label="engine",
                        peer="engine",
                        job="internals.buffered",
                        params=buffered,
                        model=f"deltas-300-{buffered['events']}",
                    ),
                ),
                measures=(Measure("kib_per_1000", "a thousand", "KiB", "lower"),),
                fresh=True,
                rounds=rounds,
            ),
            Case(
                name="growth",
                title=f"Growth over {turns:,} turns on one connection",
                contestants=lineup(
                    ("engine", "trio-websocket", "openai-connect"), "memory_growth", params={"turns": turns}
                ),
                measures=(Measure("kib_grown", "grown", "KiB", "right"),),
                fresh=True,
                rounds=rounds,
            ),
        ),
    )


def start(size: Size) -> Scenario:
    """The cost of a program before its first answer."""
    programs: tuple[tuple[str, str, str, Server], ...] = (
        ("trio and trio-websocket", "trio-websocket", "bare", "none"),
        ("engine, imported", "engine", "package", "none"),
        ("engine, a first turn", "engine", "turn", "replay"),
        ("engine-fast, a first turn", "engine-fast", "turn", "replay"),
        ("openai-python, imported", "openai-connect", "openai", "none"),
    )
    return Scenario(
        "start",
        "Start",
        "A fresh interpreter runs a program, and what an empty program takes is subtracted. Its modules are compiled "
        "already. A first turn imports what it needs, connects, and asks.",
        (
            Case(
                name="imports",
                title="What a program's start takes",
                contestants=tuple(
                    Contestant(
                        label=label,
                        peer=peer,
                        job="internals.starting",
                        params={"program": program, "times": pick(size, 1, 3, 5)},
                        server=server,
                    )
                    for label, peer, program, server in programs
                ),
                measures=(Measure("cpu_ms", "processor time", "ms", "lower"),),
                baseline="trio and trio-websocket",
            ),
        ),
    )


def codec(size: Size) -> Scenario:
    """The cost of decoding one event."""
    times = pick(size, 5, 500, 5000)
    return Scenario(
        "codec",
        "Decoding",
        "Text to a typed event, without any socket, against `json.loads` alone and against openai-python.",
        tuple(
            Case(
                name=kind,
                title=kind,
                contestants=tuple(
                    Contestant(
                        label=name,
                        peer=name,
                        job="internals.decoding",
                        params={"kind": kind, "times": times},
                        server="none",
                    )
                    for name in ("json.loads", "engine", "openai-connect")
                ),
                measures=(Measure("us_each", "one event", "µs", "lower"),),
                baseline="json.loads",
            )
            for kind in (KINDS if size != "quick" else ("output_text.delta", "output_item.done", "response.completed"))
        ),
    )
