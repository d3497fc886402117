"""Answers as they come: events a second, latencies, and timers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Case, Contestant, Measure, Scenario
from benchmarks.frames import BRIEF_EVENTS_AROUND, EVENTS_AROUND
from benchmarks.scenarios.sizes import BARE, CEILING, CPU, EVENTS, SOCKETS, STREAMING, Size, lineup, pick

__all__ = ["fairness", "latency", "throughput"]


def throughput(size: Size) -> Scenario:
    """Events a second."""

    def case(
        name: str,
        title: str,
        names: Sequence[str],
        event: int,
        count: int,
        sessions: int = 1,
        *,
        tls: bool = False,
        brief: bool = False,
        keeping: bool = False,
        fresh: bool = False,
    ) -> Case:
        turns = pick(size, 1, 1, 3)
        around = BRIEF_EVENTS_AROUND if brief else EVENTS_AROUND
        params = {"sessions": sessions, "events": count + around, "turns": turns}
        model = f"{'brief' if brief else 'deltas'}-{event}-{count}"
        options = {"keeping": True} if keeping else {}
        return Case(
            name=name,
            title=title,
            contestants=lineup(names, "throughput", params=params, tls=tls, model=model, options=options),
            measures=(CPU, EVENTS),
            baseline=CEILING,
            fresh=fresh,
            rounds=5 if fresh else None,
        )

    count = pick(size, 20, 1000, 5000)
    kept = "Bare libraries put the text together too"
    cases = [
        case("deltas", "One stream of deltas of 300 bytes", STREAMING, 300, count),
        case("deltas-tls", "The same over TLS", SOCKETS, 300, count, tls=True),
        case("brief", f"The same, and the end repeats nothing. {kept}", BARE, 300, count, brief=True, keeping=True),
        case("events-6k", "One stream of events of 6 KB", STREAMING, 6000, count // 5),
        case(
            "brief-6k",
            f"The same, and the end repeats nothing. {kept}",
            BARE,
            6000,
            count // 5,
            brief=True,
            keeping=True,
        ),
    ]
    if size == "full":
        title = f"One stream of events of 64 KB. {kept}"
        cases.append(case("events-64k", title, BARE, 64_000, count // 50, keeping=True, fresh=True))
    for sessions in pick(size, (2,), (10, 50), (10, 100, 1000)):
        each = pick(size, 5, max(2000 // sessions, 20), max(20_000 // sessions, 40))
        title = f"{sessions:,} sessions at once, deltas of 300 bytes"
        cases.append(case(f"sessions-{sessions}", title, SOCKETS, 300, each, sessions))
    return Scenario(
        "throughput",
        "Throughput",
        "Events are read as fast as they come, from a server in a process of its own that replays bytes. Ratios are to "
        "trio-websocket with `json.loads`, which gives untyped dictionaries and no message. Over HTTP the peers read "
        "server-sent events. Processor time stands first: it is steady where time on the clock is not.",
        tuple(cases),
    )


def fairness(size: Size) -> Scenario:
    """The lateness of timers beside loud connections."""
    events = pick(size, 20, 500, 2000)
    model, seconds = f"deltas-300-{events}", pick(size, 0.1, 1.0, 5.0)
    names = ("engine", "engine-ask", "trio-websocket", "websockets-trio", "websockets-asyncio")
    return Scenario(
        "fairness",
        "Fairness",
        "A timer of a millisecond, again and again, in a process whose other connections bring answers as fast as they "
        "can. What it is late by is what everything else in the process waits.",
        tuple(
            Case(
                name=f"loud-{sockets}",
                title=f"{sockets:,} loud connection{'s' * (sockets > 1)}, deltas of 300 bytes",
                contestants=lineup(
                    names,
                    "loud",
                    params={"sockets": sockets, "events": events + EVENTS_AROUND, "seconds": seconds},
                    model=model,
                ),
                measures=(
                    Measure("late_p50_ms", "late, median", "ms", "lower"),
                    Measure("late_p99_ms", "p99", "ms", "lower"),
                    Measure("late_max_ms", "max", "ms", "lower"),
                    CPU,
                ),
                baseline=CEILING,
                rounds=pick(size, 1, 2, 5),
            )
            for sockets in pick(size, (2,), (1, 10, 100), (1, 10, 100))
        ),
    )


def latency(size: Size) -> Scenario:
    """Short turns, connection set-up, and runs of tools over slow lines."""
    per_turn = Measure("us_per_turn", "one turn", "µs", "lower")
    cpu_per_turn = Measure("cpu_us_per_turn", "processor time", "µs/turn", "lower")
    first = Measure("first_event_ms", "first event", "ms", "lower")
    whole = Measure("whole_ms", "whole", "ms", "lower")
    cpu_whole = Measure("cpu_ms", "processor time", "ms", "lower")
    seconds = Measure("seconds", "whole run", "s", "lower")
    cases = [
        Case(
            name="short-turns",
            title="Short turns, one after the other, on one connection",
            contestants=lineup(STREAMING, "turns", params={"count": pick(size, 3, 100, 500)}),
            measures=(cpu_per_turn, per_turn),
            baseline=CEILING,
        ),
        *(
            Case(
                name=f"http-turns{'-tls' if tls else ''}",
                title=f"Short turns over HTTP{' and TLS' if tls else ''}, on a kept connection or a new one each",
                contestants=(
                    *lineup(names, "turns", params={"count": pick(size, 3, 100, 500)}, tls=tls),
                    Contestant(
                        label="engine-sse, a connection each",
                        peer="engine-sse",
                        job="fresh_turns",
                        params={"count": pick(size, 3, 50, 200)},
                        tls=tls,
                    ),
                ),
                measures=(cpu_per_turn, per_turn),
                baseline="httpx-sse",
            )
            for tls in (False, True)
            for names in (("engine-sse", "httpx-sse", "openai-http"),)
        ),
        *(
            Case(
                name=f"short-turns-rtt-{line}",
                title=f"The same over a line with {line} ms round trips",
                contestants=lineup(STREAMING, "turns", params={"count": pick(size, 3, 3, 30)}, path=f"rtt{line}"),
                measures=(per_turn,),
                baseline=CEILING,
                rounds=3,
            )
            for line in pick(size, (), (20,), (20,))
        ),
        *(
            Case(
                name=f"first-turn{'-tls' if tls else ''}",
                title=f"A connection {'over TLS' if tls else ''} for one short turn, from nothing to closed".replace(
                    "  ", " "
                ),
                contestants=lineup(
                    SOCKETS if tls else STREAMING, "setup", params={"count": pick(size, 1, 5, 20)}, tls=tls
                ),
                measures=(cpu_whole, first, whole),
                baseline=CEILING,
            )
            for tls in (False, True)
        ),
    ]
    lines = pick(size, ((0, 2),), ((0, 20), (20, 10)), ((0, 20), (0, 50), (20, 20), (20, 50), (100, 20), (100, 50)))
    for milliseconds, calls in lines:
        run: dict[str, Any] = {
            "job": "tools",
            "params": {"count": calls, "size": 2000},
            "path": f"rtt{milliseconds}",
            "model": f"tools-{calls}-200",
        }
        cases.append(
            Case(
                name=f"tools-{calls}-rtt-{milliseconds}",
                title=f"A run of {calls} tool calls over a line with {milliseconds} ms round trips",
                contestants=(
                    Contestant(label="engine, deltas", peer="engine", **run),
                    Contestant(label="engine, full input", peer="engine", options={"full": True}, **run),
                    Contestant(label="engine-sse", peer="engine-sse", **run),
                    Contestant(label="openai-connect, deltas", peer="openai-connect", **run),
                    Contestant(label="openai-http", peer="openai-http", **run),
                ),
                measures=(seconds,),
                baseline="openai-http",
                rounds=3,
            )
        )
    return Scenario(
        "latency",
        "Latency of turns",
        "A short turn has nine events. Lines are simulated by the server, which waits a round trip before it answers, "
        "one more on a new connection, and receives 20 Mbit/s. The model itself takes no time, so what a server saves "
        "by holding the conversation is not in these figures: only the line and the client are.",
        tuple(cases),
    )
