"""The ends of turns and sessions: by their callers, by budgets, by release."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from benchmarks.cases import Case, Contestant, Measure, Scenario
from benchmarks.frames import EVENTS_AROUND
from benchmarks.scenarios.sizes import CEILING, CPU, EVENTS, Size, lineup, pick

__all__ = ["cancellation", "release", "timeouts"]


def cancellation(size: Size) -> Scenario:
    """Control back, and the next turn."""
    measures = (
        Measure("back_ms", "control back", "ms", "lower"),
        Measure("back_p99_ms", "p99", "ms", "lower"),
        Measure("next_first_event_ms", "next turn's first event", "ms", "lower"),
        Measure("right", "own answers", "", "right"),
        Measure("of", "of", "", "right"),
    )
    times = pick(size, 1, 2, 10)

    def contestants(rest: float, names: Sequence[str]) -> tuple[Contestant, ...]:
        common: dict[str, Any] = {
            "job": "cancel",
            "params": {"times": times, "rest": rest},
            "server": "simulator",
            "seeded": True,
        }
        found = [
            Contestant(label=f"engine, {policy}", peer="engine", options={"on_cancel": policy}, **common)
            for policy in ("close", "drain", "new_lane")
        ]
        for name in names:
            found.append(Contestant(label=name, peer=name, **common))
            if name not in {"openai-agents", "openai-http"}:
                found.append(Contestant(label=f"{name}, reopened", peer=name, options={"reopen": True}, **common))
        return tuple(found)

    names = ("trio-websocket", "websockets-asyncio", "openai-connect", "openai-session", "openai-agents", "openai-http")
    at_once = pick(size, 3, 100, 1000)
    slow = "paced-250-40"
    many = tuple(
        evolve(each, params={"concurrent": at_once}, model=slow)
        for each in lineup(("engine", *names[:4]), "cancel_at_once")
    )
    bare = Contestant(
        label="bare Trio tasks",
        peer="trio.sleep",
        job="cancel_bare",
        params={"concurrent": at_once, "times": 3},
        server="none",
    )
    back = (
        *measures[:2],
        Measure("back_max_ms", "max", "ms", "lower"),
    )
    later = Case(
        name="next-turn-later",
        title="Cancel, and ask again 0.1 s later, when a replacement may be open",
        contestants=contestants(0.1, names[:3]),
        measures=measures,
        baseline="trio-websocket, reopened",
        rounds=5,
    )
    return Scenario(
        "cancellation",
        "Cancellation",
        "A turn is cancelled in mid-answer, then another question is asked on the same client, and it is checked whose "
        "answer that one gets. Used as they come, clients that share one lane give the second question what is left of "
        "the first answer; closing and opening the client again (*reopened*) is what their users have to do. The "
        "server is the simulator.",
        (
            Case(
                name="next-turn",
                title="Cancel, and ask again at once",
                contestants=contestants(0.0, names),
                measures=measures,
                baseline="trio-websocket, reopened",
                rounds=pick(size, 1, 1, 5),
            ),
            *(() if size == "quick" else (later,)),
            Case(
                name="at-once",
                title=f"{at_once:,} turns cancelled in one instant",
                contestants=(bare, *many),
                measures=back,
                baseline="bare Trio tasks",
            ),
        ),
    )


def timeouts(size: Size) -> Scenario:
    """The lateness with which budgets end a turn, and their cost."""
    measures = (
        Measure("late_p50_ms", "late, median", "ms", "lower"),
        Measure("late_p99_ms", "p99", "ms", "lower"),
        Measure("late_max_ms", "max", "ms", "lower"),
        Measure("over_beside", "p99 ÷ that of sleeps beside", "×", "right"),
    )
    cases = []
    for concurrent in pick(size, (2,), (50,), (1, 100, 1000)):
        found = [
            Contestant(
                label="bare trio.sleep",
                peer="trio.sleep",
                job="sleeps",
                params={"concurrent": concurrent},
                server="none",
                seeded=True,
            )
        ]
        phases = ("queue", "start", "connect", "first_event", "idle", "turn")
        for phase, collecting in itertools.product(phases, (True, False)):
            if size == "quick" and phase in {"start", "queue", "connect", "idle"}:
                continue
            if not collecting and concurrent < 1000:
                continue
            found.append(
                Contestant(
                    label=f"engine, {phase}" + ("" if collecting else ", no collection"),
                    peer="engine",
                    job="internals.budgets",
                    params={"phase": phase, "concurrent": concurrent, "collecting": collecting},
                    path="hang" if phase == "connect" else "v1",
                    seeded=True,
                )
            )
        for name in ("engine", "trio-websocket", "openai-connect"):
            found.append(
                Contestant(
                    label=f"{name}, the caller's own deadline",
                    peer=name,
                    job="deadlines",
                    params={"concurrent": concurrent},
                    model="silence",
                    seeded=True,
                )
            )
        cases.append(
            Case(
                name=f"late-{concurrent}",
                title=f"{concurrent:,} turn{'s' * (concurrent > 1)} whose server has fallen silent",
                contestants=tuple(found),
                measures=measures,
                baseline="bare trio.sleep",
                rounds=pick(size, 1, 1, 5),
            )
        )
    names = ("queue", "start", "connect", "send", "first_event", "idle", "turn")
    count = pick(size, 20, 1000, 5000)
    params = {"sessions": 1, "events": count + EVENTS_AROUND, "turns": pick(size, 1, 1, 3)}
    model = f"deltas-300-{count}"
    cases.append(
        Case(
            name="arming",
            title="One stream of deltas, with and without budgets",
            contestants=tuple(
                Contestant(
                    label=label,
                    peer="engine",
                    job="throughput",
                    params=params,
                    model=model,
                    options={"timeouts": dict.fromkeys(names, seconds)},
                )
                for label, seconds in (("no budgets", None), ("every budget", 60.0))
            ),
            measures=(EVENTS, CPU),
            baseline="no budgets",
        )
    )
    return Scenario(
        "timeouts",
        "Budgets",
        "How much later than asked a budget gives control back, counted from when it began to run, while that many "
        "turns wait in the same process. Beginnings and ends are spread out. As many tasks that only sleep wake beside "
        "the turns, in the same process: the last column divides by their lateness. In a process with a thousand "
        "sessions one run of Python's collector of garbage takes a fifth of a second, and whatever is due meanwhile is "
        "late by that, sleeps as well; rows with *no collection* leave it out.",
        tuple(cases),
    )


def release(size: Size) -> Scenario:
    """Time until sockets are gone."""
    measures = (
        Measure("release_ms", "released", "ms", "lower"),
        Measure("cpu_ms", "processor time", "ms", "lower"),
        Measure("sockets_left", "sockets left", "", "right"),
        Measure("raised", "exceptions", "", "right"),
    )
    names: tuple[str, ...] = (
        "engine",
        CEILING,
        "websockets-asyncio",
        "openai-connect",
        "openai-session",
        "openai-agents",
    )
    cases = []
    names = names[:4] if size == "quick" else names
    for sessions in pick(size, (2,), (20,), (1, 100, 1000)):
        for path, what, burden in (
            ("v1", "healthy", 0),
            ("silent", "silent", 0),
            ("stuck", "stuck, with an unsent request of 4 MB each", 4_000_000),
        ):
            if (size == "tiny" and path != "v1") or (burden and sessions > 100):
                continue
            if size == "quick" and burden:
                continue
            title = f"{sessions:,} session{'s' * (sessions > 1)}, the peer is {what}"
            found = lineup(
                names,
                "release",
                params={"sessions": sessions, "patience": pick(size, 4.0, 4.0, 10.0), "burden": burden},
                path=path,
            )
            if path != "v1":
                quicker = evolve(found[0], label="engine, close=0.5", options={"timeouts": {"close": 0.5}})
                found = (found[0], quicker, *found[1:])
            cases.append(
                Case(
                    name=f"release-{path}-{sessions}".replace("-v1-", "-healthy-"),
                    title=title,
                    contestants=found,
                    measures=measures,
                    baseline=CEILING,
                    rounds=pick(size, 1, 1, 3),
                    fresh=path != "v1" and size == "full",
                    seconds=60,
                )
            )
    return Scenario(
        "release",
        "Release",
        "All clients of a process are closed in the same instant, each with a patience of 2 s for the closing "
        "handshake where it can be set. A *silent* peer never answers a Close frame; a *stuck* one has stopped "
        "reading while a request is being sent. What has not ended after 10 s is given up. "
        "Exceptions that a client raises on being closed count as its way of ending.",
        tuple(cases),
    )
