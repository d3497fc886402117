"""What is measured: the cases of every scenario, in three sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve

from benchmarks.frames import BRIEF_EVENTS_AROUND, EVENTS_AROUND
from benchmarks.harness import Case, Contestant, Measure, Scenario, Server
from benchmarks.internals import KINDS

__all__ = ["SCENARIOS", "Size", "scenarios"]

Size: TypeAlias = Literal["tiny", "quick", "full"]
"""``tiny`` only shows that everything runs; ``quick`` ends within a minute; ``full`` is what is published."""

_STREAMING: Final = (
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
_SOCKETS: Final = (
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
_BARE: Final = (
    "engine",
    "engine-ask",
    "engine-fast",
    "engine-fast-ask",
    "trio-websocket",
    "websockets-trio",
    "websockets-asyncio",
)
_CEILING: Final = "trio-websocket"

_EVENTS: Final = Measure("events_per_second", "events", "/s", "higher")
_CPU: Final = Measure("cpu_us_per_event", "processor time", "µs/event", "lower")


def _each(names: Sequence[str], job: str, **options: Any) -> tuple[Contestant, ...]:
    return tuple(Contestant(label=name, peer=name, job=job, **options) for name in names)


def _pick(size: Size, tiny: Any, quick: Any, full: Any) -> Any:
    return {"tiny": tiny, "quick": quick, "full": full}[size]


# --- throughput ------------------------------------------------------------------------------------------------------


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
        turns = _pick(size, 1, 1, 3)
        around = BRIEF_EVENTS_AROUND if brief else EVENTS_AROUND
        params = {"sessions": sessions, "events": count + around, "turns": turns}
        model = f"{'brief' if brief else 'deltas'}-{event}-{count}"
        options = {"keeping": True} if keeping else {}
        return Case(
            name=name,
            title=title,
            contestants=_each(names, "throughput", params=params, tls=tls, model=model, options=options),
            measures=(_CPU, _EVENTS),
            baseline=_CEILING,
            fresh=fresh,
            rounds=5 if fresh else None,
        )

    count = _pick(size, 20, 1000, 5000)
    kept = "Bare libraries put the text together too"
    cases = [
        case("deltas", "One stream of deltas of 300 bytes", _STREAMING, 300, count),
        case("deltas-tls", "The same over TLS", _SOCKETS, 300, count, tls=True),
        case("brief", f"The same, and the end repeats nothing. {kept}", _BARE, 300, count, brief=True, keeping=True),
        case("events-6k", "One stream of events of 6 KB", _STREAMING, 6000, count // 5),
        case(
            "brief-6k",
            f"The same, and the end repeats nothing. {kept}",
            _BARE,
            6000,
            count // 5,
            brief=True,
            keeping=True,
        ),
    ]
    if size == "full":
        title = f"One stream of events of 64 KB. {kept}"
        cases.append(case("events-64k", title, _BARE, 64_000, count // 50, keeping=True, fresh=True))
    for sessions in _pick(size, (2,), (10, 50), (10, 100, 1000)):
        each = _pick(size, 5, max(2000 // sessions, 20), max(20_000 // sessions, 40))
        title = f"{sessions:,} sessions at once, deltas of 300 bytes"
        cases.append(case(f"sessions-{sessions}", title, _SOCKETS, 300, each, sessions))
    return Scenario(
        "throughput",
        "Throughput",
        "Events are read as fast as they come, from a server in a process of its own that replays bytes. Ratios are to "
        "trio-websocket with `json.loads`, which gives untyped dictionaries and no message. Over HTTP the peers read "
        "server-sent events. Processor time stands first: it is steady where time on the clock is not.",
        tuple(cases),
    )


# --- fairness --------------------------------------------------------------------------------------------------------


def fairness(size: Size) -> Scenario:
    """How late timers are beside loud connections."""
    events = _pick(size, 20, 500, 2000)
    model, seconds = f"deltas-300-{events}", _pick(size, 0.1, 1.0, 5.0)
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
                contestants=_each(
                    names,
                    "loud",
                    params={"sockets": sockets, "events": events + EVENTS_AROUND, "seconds": seconds},
                    model=model,
                ),
                measures=(
                    Measure("late_p50_ms", "late, median", "ms", "lower"),
                    Measure("late_p99_ms", "p99", "ms", "lower"),
                    Measure("late_max_ms", "max", "ms", "lower"),
                    _CPU,
                ),
                baseline=_CEILING,
                rounds=_pick(size, 1, 2, 5),
            )
            for sockets in _pick(size, (2,), (1, 10, 100), (1, 10, 100))
        ),
    )


# --- latency ---------------------------------------------------------------------------------------------------------


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
            contestants=_each(_STREAMING, "turns", params={"count": _pick(size, 3, 100, 500)}),
            measures=(cpu_per_turn, per_turn),
            baseline=_CEILING,
        ),
        *(
            Case(
                name=f"http-turns{'-tls' if tls else ''}",
                title=f"Short turns over HTTP{' and TLS' if tls else ''}, on a kept connection or a new one each",
                contestants=(
                    *_each(names, "turns", params={"count": _pick(size, 3, 100, 500)}, tls=tls),
                    Contestant(
                        label="engine-sse, a connection each",
                        peer="engine-sse",
                        job="fresh_turns",
                        params={"count": _pick(size, 3, 50, 200)},
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
                contestants=_each(_STREAMING, "turns", params={"count": _pick(size, 3, 3, 30)}, path=f"rtt{line}"),
                measures=(per_turn,),
                baseline=_CEILING,
                rounds=3,
            )
            for line in _pick(size, (), (20,), (20,))
        ),
        *(
            Case(
                name=f"first-turn{'-tls' if tls else ''}",
                title=f"A connection {'over TLS' if tls else ''} for one short turn, from nothing to closed".replace(
                    "  ", " "
                ),
                contestants=_each(
                    _SOCKETS if tls else _STREAMING, "setup", params={"count": _pick(size, 1, 5, 20)}, tls=tls
                ),
                measures=(cpu_whole, first, whole),
                baseline=_CEILING,
            )
            for tls in (False, True)
        ),
    ]
    lines = _pick(size, ((0, 2),), ((0, 20), (20, 10)), ((0, 20), (0, 50), (20, 20), (20, 50), (100, 20), (100, 50)))
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


# --- cancellation ----------------------------------------------------------------------------------------------------


def cancellation(size: Size) -> Scenario:
    """Control back, and the next turn."""
    measures = (
        Measure("back_ms", "control back", "ms", "lower"),
        Measure("back_p99_ms", "p99", "ms", "lower"),
        Measure("next_first_event_ms", "next turn's first event", "ms", "lower"),
        Measure("right", "own answers", "", "right"),
        Measure("of", "of", "", "right"),
    )
    times = _pick(size, 1, 2, 10)

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
    at_once = _pick(size, 3, 100, 1000)
    slow = "paced-250-40"
    many = tuple(
        evolve(each, params={"concurrent": at_once}, model=slow)
        for each in _each(("engine", *names[:4]), "cancel_at_once")
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
                rounds=_pick(size, 1, 1, 5),
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


# --- budgets ---------------------------------------------------------------------------------------------------------


def timeouts(size: Size) -> Scenario:
    """How late budgets end a turn, and what they cost."""
    measures = (
        Measure("late_p50_ms", "late, median", "ms", "lower"),
        Measure("late_p99_ms", "p99", "ms", "lower"),
        Measure("late_max_ms", "max", "ms", "lower"),
        Measure("over_beside", "p99 ÷ that of sleeps beside", "×", "right"),
    )
    cases = []
    for concurrent in _pick(size, (2,), (50,), (1, 100, 1000)):
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
                rounds=_pick(size, 1, 1, 5),
            )
        )
    names = ("queue", "start", "connect", "send", "first_event", "idle", "turn")
    count = _pick(size, 20, 1000, 5000)
    params = {"sessions": 1, "events": count + EVENTS_AROUND, "turns": _pick(size, 1, 1, 3)}
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
            measures=(_EVENTS, _CPU),
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


# --- release ---------------------------------------------------------------------------------------------------------


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
        _CEILING,
        "websockets-asyncio",
        "openai-connect",
        "openai-session",
        "openai-agents",
    )
    cases = []
    names = names[:4] if size == "quick" else names
    for sessions in _pick(size, (2,), (20,), (1, 100, 1000)):
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
            found = _each(
                names,
                "release",
                params={"sessions": sessions, "patience": _pick(size, 4.0, 4.0, 10.0), "burden": burden},
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
                    baseline=_CEILING,
                    rounds=_pick(size, 1, 1, 3),
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


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(size: Size) -> Scenario:
    """What things weigh."""
    each = (Measure("kib_each", "each", "KiB", "lower"),)
    count = _pick(size, 3, 50, 500)
    turns = _pick(size, 4, 200, 10_000)
    names: tuple[str, ...] = ("trio-stream", "trio-websocket", "websockets-asyncio", "openai-connect", "openai-session")
    names = names if size == "full" else names[:2]

    def opened(tls: bool) -> tuple[Contestant, ...]:
        common: dict[str, Any] = {"params": {"count": count}, "tls": tls}
        ours = Contestant(label="engine", peer="engine", job="internals.open_sessions", **common)
        return (ours, *_each(names, "memory_open", **common))

    rounds = _pick(size, 1, 1, 3)
    buffered = {"turns": _pick(size, 1, 5, 20), "events": _pick(size, 100, 1000, 2000)}
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
                contestants=_each(
                    ("engine", "trio-websocket", "openai-connect"), "memory_growth", params={"turns": turns}
                ),
                measures=(Measure("kib_grown", "grown", "KiB", "right"),),
                fresh=True,
                rounds=rounds,
            ),
        ),
    )


# --- start -----------------------------------------------------------------------------------------------------------


def start(size: Size) -> Scenario:
    """What a program pays before its first answer."""
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
                        params={"program": program, "times": _pick(size, 1, 3, 5)},
                        server=server,
                    )
                    for label, peer, program, server in programs
                ),
                measures=(Measure("cpu_ms", "processor time", "ms", "lower"),),
                baseline="trio and trio-websocket",
            ),
        ),
    )


# --- decoding --------------------------------------------------------------------------------------------------------


def codec(size: Size) -> Scenario:
    """What one event costs to decode."""
    times = _pick(size, 5, 500, 5000)
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


# --- lanes -----------------------------------------------------------------------------------------------------------


def lanes(size: Size) -> Scenario:
    """Lanes on one socket against sockets."""
    many, count, turns = _pick(size, 2, 16, 16), _pick(size, 40, 500, 2000), _pick(size, 1, 2, 5)
    slowest = Measure("slowest_ms", "slowest answer", "ms", "lower")
    sockets = f"{many} sockets"

    def contestants(job: str, **params: Any) -> tuple[Contestant, ...]:
        model = {} if job.endswith("weight") else {"model": f"deltas-300-{count}"}
        return tuple(
            Contestant(label=label, peer="engine", job=job, params={**params, "lanes": many, "shared": shared}, **model)  # type: ignore[arg-type]
            for label, shared in ((sockets, False), (f"{many} lanes on one socket", True))
        )

    running: dict[str, Any] = {"events": count + EVENTS_AROUND, "turns": turns}
    beside = Contestant(
        label=f"{many - 1} lanes on one socket, and one that is not read",
        peer="engine",
        job="lanes.side_by_side",
        params={**running, "lanes": many - 1, "shared": True, "stopped": True},
        model=f"deltas-300-{count}",
    )
    return Scenario(
        "lanes",
        "Lanes",
        "As many answers at once, each read event by event: as lanes that share one socket, a few events of each at a "
        "time, and over a socket for each. The load source sends as fast as it can.",
        (
            Case(
                name="side-by-side",
                title=f"{many} answers at once, deltas of 300 bytes",
                contestants=(*contestants("lanes.side_by_side", **running), beside),
                measures=(_CPU, _EVENTS, slowest),
                baseline=sockets,
            ),
            Case(
                name="weight",
                title=f"Memory of {many} that have each had a short answer",
                contestants=contestants("lanes.weight", groups=_pick(size, 1, 10, 40)),
                measures=(Measure("kib_each", "resident", "KiB", "lower"),),
                baseline=sockets,
                fresh=True,
                rounds=_pick(size, 1, 1, 3),
            ),
        ),
    )


# --- batches ---------------------------------------------------------------------------------------------------------


def batches(size: Size) -> Scenario:
    """Many prompts, over one process and several."""
    prompts = _pick(size, 8, 400, 4000)
    deltas = _pick(size, 3, 50, 200)

    def contestant(label: str, processes: int, **more: Any) -> Contestant:
        params = {"processes": processes, "prompts": prompts, "concurrency": 16, **more}
        return Contestant(label=label, peer="engine", job="batches.asking", params=params, model=f"deltas-300-{deltas}")

    return Scenario(
        "batches",
        "Batches",
        f"`open_batch` with 16 prompts under way in each process, answers of {deltas} deltas of 300 bytes that come as "
        "fast as they are read. Processor time is that of the processes that ask, all together: a second divided by it "
        "is what one core can ask and read.",
        (
            Case(
                name="processes",
                title="One process and several",
                contestants=tuple(
                    contestant(f"{number} process{'es' * (number > 1)}", number)
                    for number in _pick(size, (1, 2), (1, 2), (1, 2, 4))
                ),
                measures=(
                    Measure("cpu_us_per_prompt", "processor time", "µs/prompt", "lower"),
                    Measure("prompts_per_second", "prompts", "/s", "higher"),
                ),
                baseline="1 process",
            ),
            Case(
                name="ledger",
                title="With a ledger in SQLite",
                contestants=(
                    contestant("without", 1),
                    contestant("with a ledger", 1, ledger=True),
                ),
                measures=(
                    Measure("cpu_us_per_prompt", "processor time", "µs/prompt", "lower"),
                    Measure("prompts_per_second", "prompts", "/s", "higher"),
                ),
                baseline="without",
            ),
        ),
    )


SCENARIOS: Final[dict[str, Callable[[Size], Scenario]]] = {
    each.__name__: each
    for each in (throughput, fairness, latency, start, cancellation, timeouts, release, memory, codec, lanes, batches)
}


def scenarios(size: Size, names: Sequence[str] = ()) -> list[Scenario]:
    """The scenarios of a size; all, or the named ones in their own order."""
    return [make(size) for name, make in SCENARIOS.items() if not names or name in names]
