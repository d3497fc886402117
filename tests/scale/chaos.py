"""Turns over a network and a server that both fail by chance, and an account of what was sent and executed.

::

    python -m tests.scale.chaos [--turns 2000] [--seed 0] [--transport auto] [--resend-ambiguous 1] [--lanes 0]
        [--habits item_ids=renewed,events=late | --every-habit]

Everything is in memory and in virtual time. Between the engine and the simulator are a `FaultInjector` and, nearer to
the engine, a `Witness` that reads which requests the engine wrote and how much of each passed. After the last turn the
three books are compared: what the reports say, what the witness saw, what the server's records say. For every turn:

- It ended within its budget, with its own answer, or with one `TurnError`, and then what had arrived is of its answer.
- requests executed <= requests that arrived <= requests that passed whole <= requests written <= `report.attempts`
  <= `RetryPolicy.max_dispatches`. In words: nothing is sent in secret, and the account never says too little.
- Where output was seen, that response's request is the last of the turn's that the server knows, and the only one with
  its id: nothing is sent again after output.
- Of what was executed, and not ended by the server's own word, there is at most one, and one more for each
  ``resend_ambiguous``.
- NOT_SENT: nothing arrived. REJECTED: nothing was executed. ACCEPTED: something was.

And in all: what passed whole is what arrived, and the POSTs that were turned away; no more is missing than was on its
way in connections that were reset. What was attempted and not written whole was cut off by the network, or was still
in the outbox of a connection that ended.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import attrs
import trio
import trio.testing

import engine
from engine.simulator import (
    Abort,
    Accept,
    Asked,
    Close,
    Created,
    CutMidFrame,
    Delay,
    Error,
    Failed,
    FaultInjector,
    Garbage,
    Handshake,
    HangUp,
    Ignore,
    InjectedStream,
    Keepalive,
    Mute,
    Quirks,
    RandomFaults,
    Reject,
    RequestRecord,
    Say,
    SayDelta,
    Simulator,
    SimulatorDialer,
    Stall,
    Step,
    WrongJson,
    open_simulator,
)
from engine.simulator.distortions import Events, Indexes, ItemIds, ResponseIds

__all__ = ["Chaos", "Tally", "chaos"]

SESSIONS = 6
CALLERS = 12
TURN = 60.0
BUDGETS = engine.Timeouts(
    queue=60, start=40, connect=5, send=5, first_event=8, idle=8, turn=TURN, drain=1, close=0.5, warm_up=2
)
FORKS = 0.2
"""How likely a turn is a fork's."""
GOOD = 0.6
"""How likely the server behaves."""


# --- what is asked, and how it is answered ---------------------------------------------------------------------------


def answer(nonce: str) -> str:
    """The one right answer."""
    return f"the answer to {nonce} and to nothing else"


def turned_away(rng: random.Random) -> Handshake:
    """How an upgrade or a POST is answered."""
    if rng.random() < 0.8:
        return Accept(delay=rng.random() * 0.2)
    wait = {"retry-after": "1"}
    return rng.choice(
        [
            Reject(500),
            Reject(503, headers=wait),
            Reject(429, headers=wait),
            Reject(502, {"content-type": "text/html"}, "<html>bad gateway</html>", "chunked"),
            HangUp(),
            HangUp(reset=True),
            Garbage(),
            Ignore(),
            Accept(close_code=1006),
            Accept(mute=True),
        ]
    )


def reply(asked: Asked, rng: random.Random) -> list[Step]:
    """The server's side of a request: an answer, or a fault before, within or after the output."""
    whole = answer(asked.last_user_text)
    if rng.random() < GOOD:
        return [Delay(rng.random()), Say(whole, size=3, pause=rng.random() * 0.1)]
    fault = rng.choice(
        [
            [Error(500)],
            [Error(429, "rate_limit_exceeded", headers={"retry-after": "1"})],
            [Error(503, "server_is_overloaded")],
            [Failed()],
            [Failed("rate_limit_exceeded")],
            [Close(1011)],
            [Close(1012)],
            [Close(1001)],
            [Abort()],
            [Abort(reset=True)],
            [CutMidFrame()],
            [Stall()],
            [Mute()],
            [WrongJson()],
            [Keepalive(), Delay(3), Keepalive()],
        ]
    )
    steps: list[Step] = []
    rest: Step = Say(whole)
    if rng.random() < 0.7:
        steps.append(Created())
        if rng.random() < 0.4:
            steps.append(SayDelta(whole[:9]))
            rest = SayDelta(whole[9:])
    return [*steps, Delay(rng.random()), *fault, rest]  # type: ignore[misc]


# --- between the engine and the network ------------------------------------------------------------------------------


@attrs.define
class Written:
    """A request that the engine began to write.

    Attributes:
        tag: The turn it belongs to; None where too little of it was written to tell.
        start: Its first byte's place among all that was written to the connection.
        end: The place behind its last; None where it was not written to its end.
    """

    tag: str | None
    start: int
    end: int | None


class Witness(SimulatorDialer):
    """Keeps what is written to each connection, before the network touches it."""

    def __init__(self, injector: FaultInjector) -> None:
        self._injector = injector
        self.streams: list[WitnessedStream] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        stream = await self._injector.open_tcp(host, port)
        assert isinstance(stream, InjectedStream)
        self.streams.append(WitnessedStream(stream))
        return self.streams[-1]


class WitnessedStream(trio.abc.Stream):
    """One connection of a witness."""

    def __init__(self, stream: InjectedStream) -> None:
        self.below = stream
        self.written = bytearray()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.below.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.below.aclose()

    def requests(self) -> list[Written]:
        """The requests that were written, whole or in part."""
        data = bytes(self.written)
        head = data.find(b"\r\n\r\n") + 4
        if head < 4:
            return []
        if data.startswith(b"POST"):
            return list(_posts(data))
        return list(_frames(data, head))


def _posts(data: bytes) -> Any:
    start = 0
    while (head := data.find(b"\r\n\r\n", start) + 4) >= 4:
        fields = data[start:head].lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in fields if line.startswith(b"content-l"))
        end = head + length
        yield Written(_tag(data[head:end]), start, end if len(data) >= end else None)
        start = end


def _frames(data: bytes, place: int) -> Any:
    # A client's frames (RFC 6455 section 5.2): masked, and ours are never fragmented.
    while place + 2 <= len(data):
        start, kind, size = place, data[place] & 0x0F, data[place + 1] & 0x7F
        place += 2
        if size >= 126:
            extra = 2 if size == 126 else 8
            size = int.from_bytes(data[place : place + extra], "big")
            place += extra
        mask, payload = data[place : place + 4], data[place + 4 : place + 4 + size]
        place += 4 + size
        if kind == 1:
            key = (mask * (len(payload) // 4 + 1))[: len(payload)]
            text = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
            yield Written(_tag(text), start, place if place <= len(data) else None)


def _tag(body: bytes) -> str | None:
    try:
        tag: str = json.loads(body)["metadata"]["n"]
    except ValueError:
        return None
    return tag


# --- the run ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Chaos:
    """How it is run."""

    turns: int = 2000
    seed: int = 0
    transport: engine.Transport = engine.Transport.AUTO
    resend_ambiguous: int = 1
    max_dispatches: int = 3
    lanes: int = 0
    """Lanes of each session, forks of them apart; 0 for the session's own alone."""
    quirks: Quirks = attrs.field(factory=Quirks)

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self.quirks, field.name)}"
            for field in attrs.fields(Quirks)
            if getattr(self.quirks, field.name) != getattr(Quirks(), field.name)
        ]
        named = [str(self.transport), f"seed {self.seed}", f"{self.max_dispatches} dispatches"]
        return " ".join([*named, f"{self.resend_ambiguous} at a risk", f"{self.lanes} lanes", *changed])


@attrs.frozen
class Ended:
    """How a turn ended. ``shown`` is what its events added up to; None where nobody looked at them."""

    nonce: str
    error: engine.TurnError | None
    shown: str | None
    text: str
    report: engine.TurnReport
    elapsed: float


@attrs.define
class Tally:
    """What became of it all. ``wrong`` is what must not have happened."""

    outcomes: Counter[str] = attrs.field(factory=Counter)
    books: Counter[str] = attrs.field(factory=Counter)
    injected: Counter[str] = attrs.field(factory=Counter)
    wrong: list[str] = attrs.field(factory=list)
    virtual_seconds: float = 0.0
    seconds: float = 0.0


async def take_turn(eng: engine.Engine, plan: Chaos, nonce: str, rng: random.Random) -> Ended:
    """One turn of one caller."""
    session = await eng.session(f"s{rng.randrange(SESSIONS)}")
    if plan.lanes == 0:
        return await take_turn_on(session, nonce, rng)
    lane = session.lane(f"lane {rng.randrange(plan.lanes)}")
    if rng.random() < FORKS:
        async with lane.fork(f"fork for {nonce}") as fork:
            return await take_turn_on(fork, nonce, rng)
    return await take_turn_on(lane, nonce, rng)


async def take_turn_on(lane: engine.Session | engine.Lane, nonce: str, rng: random.Random) -> Ended:
    """One turn of one caller on a lane."""
    started = trio.current_time()
    turn = lane.turn(nonce, engine.TurnOptions(metadata={"n": nonce}))
    error = None
    shown = "" if rng.random() < 0.5 else None
    try:
        async with turn:
            if shown is None:
                await turn.wait()
            else:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        shown += event.delta
    except engine.TurnError as caught:
        error = caught
    elapsed = trio.current_time() - started
    return Ended(nonce, error, shown, turn.partial.text, turn.report, elapsed)


async def play(plan: Chaos, sim: Simulator, witness: Witness) -> list[Ended]:
    """Take all turns, several at once."""
    nonces = iter(range(plan.turns))
    ended: list[Ended] = []
    jitter = random.Random(plan.seed)
    retry = engine.RetryPolicy(
        max_dispatches=plan.max_dispatches, resend_ambiguous=plan.resend_ambiguous, jitter=jitter.random
    )
    async with engine.open_engine(
        sim.endpoint, model="m", timeouts=BUDGETS, dialer=witness, retry=retry, transport=plan.transport
    ) as eng:

        async def call() -> None:
            for number in nonces:
                rng = random.Random(f"{plan.seed} {number}")
                ended.append(await take_turn(eng, plan, f"n{number}", rng))
                await trio.sleep(rng.random() * 2)
                if rng.random() < 0.02:
                    await eng.release(f"s{rng.randrange(SESSIONS)}")

        async with trio.open_nursery() as callers:
            for _ in range(CALLERS):
                callers.start_soon(call)
    return ended


async def chaos(plan: Chaos) -> Tally:
    """Run it and compare the books. Needs a `trio.testing.MockClock` that jumps by itself."""
    tally = Tally()
    started, virtual = time.perf_counter(), trio.current_time()
    server = random.Random(f"{plan.seed} server")
    gate = random.Random(f"{plan.seed} gate")
    async with open_simulator(
        in_memory=True,
        brain=lambda asked: reply(asked, server),
        handshake=[turned_away(gate) for _ in range(3 * plan.turns)],
        post=[turned_away(gate) for _ in range(3 * plan.turns)],
        remembered=10 * plan.turns,
        quirks=plan.quirks,
    ) as sim:
        injector = FaultInjector(sim.dialer, RandomFaults(), seed=plan.seed)
        witness = Witness(injector)
        ended = await play(plan, sim, witness)
        await trio.sleep(1)  # the server reads what is still on its way
        for each in injector.log:
            tally.injected[each.what] += 1
        audit(plan, ended, sim, witness, tally)
    tally.virtual_seconds = trio.current_time() - virtual
    tally.seconds = time.perf_counter() - started
    return tally


# --- comparing the books ---------------------------------------------------------------------------------------------


def audit(plan: Chaos, ended: list[Ended], sim: Simulator, witness: Witness, tally: Tally) -> None:
    """Find everything that must not have happened."""
    if len({each.nonce for each in ended}) != plan.turns:
        tally.wrong.append(f"{len(ended)} turns ended")
    tally.wrong += [f"the simulator: {error!r}" for error in sim.errors]
    open_streams = [stream for stream in witness.streams if not stream.below.closed]
    if open_streams:
        tally.wrong.append(f"{len(open_streams)} connections were left open")
    arrived: dict[str | None, list[RequestRecord]] = {}
    for record in sim.requests:
        arrived.setdefault(record.tag("n"), []).append(record)
    written, passed, lost_at_most = books_of(witness)
    for each in ended:
        tally.outcomes["answered" if each.error is None else type(each.error).__name__] += 1
        for complaint in complaints(plan, each, arrived.get(each.nonce, [])):
            tally.wrong.append(f"{each.nonce}: {complaint}")
        counts = [
            sum(record.executed for record in arrived.get(each.nonce, [])),
            len(arrived.get(each.nonce, [])),
            passed[each.nonce],
            written[each.nonce],
            each.report.attempts,
            plan.max_dispatches,
        ]
        if counts != sorted(counts):
            tally.wrong.append(f"{each.nonce}: the books do not agree: {counts}")
    if sim.executed != sum(record.executed for record in sim.requests):
        tally.wrong.append("the server's own count is another")
    attempts = sum(each.report.attempts for each in ended)
    refused = sum(len(record.refusals) for record in sim.connections if record.transport == "http")
    tally.books |= Counter(
        {
            "attempts": attempts,
            "written": written.total(),
            "passed whole": passed.total(),
            "POSTs turned away": refused,
            "arrived": len(sim.requests),
            "executed": sim.executed,
            "turns sent again": sum(each.report.attempts > 1 for each in ended),
            "turns over HTTP": sum(each.report.transport == "sse" for each in ended),
        }
    )
    if not 0 <= passed.total() - len(sim.requests) - refused <= lost_at_most:
        tally.wrong.append(f"of what passed, something is missing; {lost_at_most} can have been lost: {tally.books}")


def books_of(witness: Witness) -> tuple[Counter[str], Counter[str], int]:
    """Return what was written and what passed, for each turn, and how much of it a reset can have overtaken."""
    written: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    lost_at_most = 0
    for stream in witness.streams:
        for request in stream.requests():
            if request.tag is None:
                continue
            written[request.tag] += 1
            if request.end is not None and request.end <= stream.below.sent:
                passed[request.tag] += 1
                lost_at_most += stream.below.ending == "reset"
    return written, passed, lost_at_most


def complaints(plan: Chaos, ended: Ended, records: list[RequestRecord]) -> list[str]:
    """Say what is wrong with a turn, as the caller and the server saw it."""
    found: list[str] = []
    whole, error, report = answer(ended.nonce), ended.error, ended.report
    if ended.elapsed > TURN + 1e-6:
        found.append(f"took {ended.elapsed:g} s")
    if not whole.startswith(ended.text) or (error is None and ended.text != whole):
        found.append(f"has another's answer: {ended.text!r}")
    if ended.shown is not None and ended.shown != ended.text:
        found.append(f"showed {ended.shown!r} and has {ended.text!r}")
    executed = [record for record in records if record.executed]
    if error is not None and error.report != report:
        found.append("has two reports")
    delivery = report.delivery
    if delivery is engine.Delivery.NOT_SENT and records:
        found.append("is said not to have been sent, and arrived")
    if delivery is engine.Delivery.REJECTED and executed:
        found.append("is said to have been rejected, and was executed")
    if delivery is engine.Delivery.ACCEPTED and not executed:
        found.append("is said to have been accepted, and was not executed")
    if ended.text:
        records = sorted(records, key=as_written)
        named = plan.quirks.response_ids is None  # else the id that the report has is none of the server's
        seen = [record for record in records if record.response_id == report.response_id] if named else records[-1:]
        if [record.output_sent for record in seen] != [True] or records[-1] is not seen[0]:
            found.append(f"showed output of {len(seen)} responses, or was sent again after it")
    # A response that the server itself has called failed may be asked for again without risk.
    at_risk = [record for record in executed if record.status not in {"failed", "error"}]
    risks = plan.resend_ambiguous if plan.transport is engine.Transport.AUTO else 0
    if len(at_risk) > 1 + risks:
        found.append(f"was executed {len(at_risk)} times, at most {1 + risks} are allowed")
    return found


def as_written(record: RequestRecord) -> tuple[bool, int, int]:
    """Order requests as they were written: what was sent first can arrive last, where it came on another connection.

    A turn goes to HTTP after WebSockets, and from a WebSocket to one that was opened later.
    """
    over_http = record.transport == "http"
    return over_http, 0 if over_http else record.connection_id, record.number


def habits() -> Iterator[Quirks]:
    """Every habit of servers that nearly keep to the protocol, one at a time, then several together.

    Without deltas that come twice: what is shown meanwhile cannot be right then, only the finished text.
    """
    events = tuple(value for value in get_args(Events) if value != "deltas_twice")
    values = {
        "item_ids": get_args(ItemIds),
        "response_ids": get_args(ResponseIds),
        "indexes": get_args(Indexes),
        "events": events,
    }
    for name, known in values.items():
        yield from (Quirks(**{name: value}) for value in known)
    rng = random.Random(0)
    for _ in range(24):
        yield Quirks(**{name: rng.choice(known) for name, known in values.items()})


def main() -> None:
    """Run it in full and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transport", choices=["auto", "websocket", "sse"], default="auto")
    parser.add_argument("--resend-ambiguous", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=0)
    parser.add_argument("--habits", default="")
    parser.add_argument("--every-habit", action="store_true")
    arguments = parser.parse_args()
    chosen: Any = dict(habit.split("=") for habit in arguments.habits.split(",") if habit)
    wrong = 0
    for quirks in habits() if arguments.every_habit else [Quirks(**chosen)]:
        plan = Chaos(
            arguments.turns,
            arguments.seed,
            engine.Transport(arguments.transport),
            arguments.resend_ambiguous,
            lanes=arguments.lanes,
            quirks=quirks,
        )
        tally = trio.run(chaos, plan, clock=trio.testing.MockClock(autojump_threshold=0))
        print(f"{plan}: {plan.turns} turns, {tally.virtual_seconds:.0f} s of virtual time in {tally.seconds:.1f} s")
        for title, counts in (("turns", tally.outcomes), ("network", tally.injected), ("books", tally.books)):
            print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        print(f"wrong: {len(tally.wrong)}", *tally.wrong[:20], sep="\n  ")
        wrong += len(tally.wrong)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
