"""Random callers against a random server: whatever they do to each other, the promises hold.

A scenario is plain data drawn by hypothesis: what several callers do with several sessions, what the server does with
each request, and when the engine is left. It is played against the simulator in memory and in virtual time, and Trio's
scheduler is seeded by hypothesis too, so a scenario always plays the same way.

To replay a failure, run the test again: continuous integration draws the same scenarios every time, and hypothesis
prints the smallest scenario that fails. To look further, with fresh seeds and as many scenarios as wanted::

    PROPERTY_EXAMPLES=5000 pytest -m slow tests/properties/test_property_sessions.py --timeout=0 --hypothesis-seed=7

The same seed plays the same run again, and a failure prints its ``@reproduce_failure`` line besides. With
``PROPERTY_UNSHRUNK=1`` it is reported as found, which is quicker.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from wsproto.utilities import LocalProtocolError

import engine
from engine.instruments import ConnectionInfo, RequestInfo, TurnEndInfo, TurnStartInfo
from engine.settings.levels import merge
from engine.settings.timeouts import DEFAULT_TIMEOUTS
from engine.simulator import (
    Abandon,
    Abort,
    Accept,
    Asked,
    Binary,
    Close,
    Completed,
    Created,
    CutMidFrame,
    Delay,
    Error,
    Event,
    Failed,
    Garbage,
    HangUp,
    Ignore,
    Incomplete,
    Keepalive,
    Late,
    MemoryStream,
    Mute,
    Ping,
    Quirks,
    Reject,
    Say,
    SayDelta,
    Simulator,
    Stage,
    Stall,
    Step,
    Think,
    WrongJson,
    open_simulator,
)

pytestmark = pytest.mark.slow

_EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
_PHASES = [Phase.explicit, Phase.generate] if os.environ.get("PROPERTY_UNSHRUNK") else list(Phase)

PROFILE = settings(
    max_examples=_EXAMPLES or 200,
    derandomize=not _EXAMPLES,
    deadline=None,
    phases=_PHASES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

ENGINE_BUDGETS: Final = engine.Timeouts(
    queue=20, start=12, connect=4, send=4, first_event=6, idle=8, turn=None, drain=2, warm_up=3
)
LIMITS: Final = engine.Limits(ping_interval=5, ping_timeout=3, idle_lifetime=30, connection_lifetime=120)
TICK: Final = 1e-6
BULK: Final = 400_000
"""More than a connection buffers, so that a peer that does not read holds the sender up."""


# --- what the server does with a request -----------------------------------------------------------------------------


@attrs.frozen
class Ghost:
    """Something of this response after its end, and before the next request on its channel has arrived.

    What comes still later cannot be told from the next response's events: ids prove nothing.
    """

    kind: str

    async def perform(self, stage: Stage) -> None:
        if not (stage.finished and stage.output) or self._is_past(stage.world, stage):
            return
        match self.kind:
            case "delta":
                where = {"item_id": stage.output[-1]["id"], "output_index": 0, "content_index": 0}
                await stage.emit("response.output_text.delta", **where, delta="ghost", logprobs=[])
            case "terminal":
                await stage.emit("response.completed", response=stage.snapshot("completed"))
            case _:
                await stage.emit("response.in_progress", response=stage.snapshot("in_progress"))

    @staticmethod
    def _is_past(world: Any, stage: Stage) -> bool:
        where = (stage.record.connection_id, stage.record.stream_id)
        return any(
            (record.connection_id, record.stream_id) == where and record.number > stage.record.number
            for record in world.requests
        )


@attrs.frozen
class Unheard(Step):
    """The connection reads no more; where it happened is noted, for its server can no longer tell when it ends."""

    connections: set[int]

    async def perform(self, stage: Stage) -> None:
        self.connections.add(stage.record.connection_id)
        stage.outlet.deafen()
        await trio.lowlevel.checkpoint()


@attrs.frozen
class Plan:
    """What the server does with one request.

    Attributes:
        opening: Steps before the text.
        words: How many words the answer has.
        pause: Seconds between them.
        fault: The name of what goes wrong, None for nothing.
        at: After how many words.
        late: What comes after the end, and how long after the beginning.
    """

    opening: str | None
    words: int
    pause: float
    fault: str | None
    at: int
    late: tuple[str, float] | None

    @property
    def seconds(self) -> float:
        """How long the server may take, silence for ever apart."""
        return 1 + (self.words + 2) * self.pause + 2

    def steps(self, nonce: str, deaf: set[int]) -> list[Step]:
        """Return the simulator's steps."""
        steps: list[Step] = [*OPENINGS[self.opening]]
        if self.late is not None and self.fault != "abandoned":
            steps.append(Late([Ghost(self.late[0])], after=self.late[1]))  # type: ignore[list-item]
        if self.fault is None:
            return [*steps, Say(answer(nonce, self.words), pause=self.pause)]
        words = answer(nonce, self.words).split(" ")
        for number, word in enumerate(words):
            if number == self.at:
                steps += [Unheard(deaf)] if self.fault == "deaf" else FAULTS[self.fault]
                if self.fault in ENDINGS:
                    return steps
            steps.append(SayDelta(word if number == 0 else f" {word}"))
            if self.pause:
                steps.append(Delay(self.pause))
        return steps


def answer(nonce: str, words: int) -> str:
    """The one right answer to the prompt with that nonce."""
    return " ".join(f"{nonce}.{number}" for number in range(words))


OPENINGS: Final[dict[str | None, list[Step]]] = {
    None: [],
    "wait": [Delay(1)],
    "created": [Created(), Delay(1)],
    "think": [Think("Let me see.")],
    "keepalive": [Keepalive(), Created(), Keepalive()],
}

FAULTS: Final[dict[str, list[Step]]] = {
    "stall": [Stall()],
    "cut": [CutMidFrame()],
    "close": [Close(1011, "going")],
    "close normally": [Close(1000)],
    "abort": [Abort()],
    "reset": [Abort(reset=True)],
    "failed": [Failed()],
    "error": [Error(500)],
    "refused": [Error(400, "invalid_prompt", "x", "invalid_request_error")],
    "rate limit": [Error(429, "rate_limit_exceeded", "x", "rate_limit_error", headers={"retry-after": "1"})],
    "limit": [Error(400, "websocket_connection_limit_reached", "x", "invalid_request_error")],
    "incomplete": [Incomplete()],
    "filtered": [Incomplete("content_filter")],
    "early end": [Completed()],
    "abandoned": [Abandon()],
    "malformed": [WrongJson()],
    "unknown": [Event({"type": "response.of_the_future", "delta": "ghost"})],
    "binary": [Binary()],
    "mute": [Mute()],
    "frozen": [Mute(frozen=True)],
    "ping": [Ping()],
    "pause": [Delay(2)],
    "deaf": [],
}

ENDINGS: Final = frozenset(
    {"failed", "error", "refused", "rate limit", "limit", "incomplete", "filtered", "early end", "abandoned"}
)
"""Faults after which the server says no more of the response: the wire has nothing to tell a rest of it by."""

HARMLESS: Final = frozenset({"malformed", "unknown", "ping", "pause"})
"""Faults after which the answer is whole all the same."""

OUT_OF_THE_BLUE: Final[tuple[dict[str, Any], ...]] = (
    {"type": "codex.rate_limits"},
    {"type": "response.output_text.delta", "delta": "ghost", "stream_id": "never-used", "sequence_number": 0},
    {"type": "error", "status": 500, "error": {"type": "server_error", "message": "x"}, "stream_id": "never-used"},
)
"""Events nobody asked for. Others of the default lane cannot be told from those of its response in progress."""

HANDSHAKES: Final = (
    Accept(delay=1),
    Accept(mute=True),
    Accept(close_code=1006),
    Accept(close_code=1013),
    Reject(503),
    Reject(401),
    Reject(429, framing="none", linger=9),
    HangUp(),
    HangUp(delay=2),
    Ignore(),
    Garbage(),
)

WARM_UPS: Final[tuple[list[Step], ...]] = ([], [Delay(2)], [Stall()], [Abort()], [Error(400)], [SayDelta("ghost")])


# --- what callers do -------------------------------------------------------------------------------------------------


@attrs.frozen
class Take:
    """One turn.

    Attributes:
        session: Which session.
        plan: What the server does with it.
        how: How the answer is read.
        count: Events read by those who read some.
        patience: Seconds until the caller's own scope is cancelled, None for never.
        policy: What becomes of the connection of a turn left early.
        budgets: Budgets of the turn's own.
        warm_up: Whether a fresh connection is prepared first.
        bulk: Whether the request is larger than what the connection buffers.
        tight: Whether the turn holds few events only.
    """

    session: str
    plan: Plan
    how: str
    count: int
    patience: float | None
    policy: engine.OnCancel
    budgets: dict[str, float]
    warm_up: bool
    bulk: bool
    tight: bool


@attrs.frozen
class Sleep:
    """Nothing for a while."""

    seconds: float


@attrs.frozen
class Release:
    """Release a session, waiting for it at most so long."""

    session: str
    patience: float


@attrs.frozen
class Disturb:
    """The server does something that nobody asked for."""

    what: str


@attrs.frozen
class Handshake:
    """The next upgrade is answered like this."""

    answer: Any


Move = Take | Sleep | Release | Disturb | Handshake


@attrs.frozen
class Scenario:
    """Everything that happens.

    Attributes:
        callers: The moves of each caller.
        warm_ups: What the server does with the warm-ups, one after the other.
        close: The engine's ``close`` budget.
        policy: The engine's policy.
        leave_at: When the engine is left although callers are still busy; None once they are done.
        keepalive: The interval of the server's keepalives.
        multiplexing: Whether the endpoint is taken for one that has lanes.
    """

    callers: list[list[Move]]
    warm_ups: list[int]
    close: float
    policy: engine.OnCancel
    leave_at: float | None
    keepalive: float | None
    multiplexing: bool


def weighted(*weights: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Draw from strategies in the given proportions, which `hypothesis.strategies.one_of` does not have."""
    return st.sampled_from([strategy for weight, strategy in weights for _ in range(weight)]).flatmap(lambda each: each)


def mostly(usual: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw the usual value three times in four."""
    return weighted((3, st.just(usual)), (1, other))


SESSIONS: Final = ("red", "blue")
MOMENTS: Final = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 9.0])
POLICIES: Final = st.sampled_from(engine.OnCancel)

PLANS: Final = st.builds(
    Plan,
    opening=mostly(None, st.sampled_from(sorted(filter(None, OPENINGS)))),
    words=st.integers(1, 5),
    pause=mostly(0.0, st.sampled_from([0.25, 1.0])),
    fault=weighted((1, st.none()), (1, st.sampled_from(sorted(FAULTS)))),
    at=st.integers(0, 4),
    late=mostly(None, st.tuples(st.sampled_from(["delta", "terminal", "progress"]), MOMENTS)),
).map(lambda plan: attrs.evolve(plan, at=min(plan.at, plan.words - 1)))

BUDGETS: Final = st.dictionaries(
    st.sampled_from(["queue", "start", "connect", "send", "first_event", "idle", "turn", "drain", "warm_up"]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.0]),
    min_size=1,
    max_size=3,
)

HOWS: Final = ("wait", "read", "slowly", "some", "at once", "raise", "later", "ask")

RARELY: Final = mostly(False, st.booleans())

TAKES: Final = st.builds(
    Take,
    session=st.sampled_from(SESSIONS),
    plan=PLANS,
    how=st.sampled_from(HOWS),
    count=st.integers(0, 6),
    patience=mostly(None, MOMENTS),
    policy=POLICIES,
    budgets=mostly({}, BUDGETS),
    warm_up=RARELY,
    bulk=mostly(False, RARELY),
    tight=RARELY,
)

MOVES: Final = weighted(
    (14, TAKES),
    (3, st.builds(Sleep, MOMENTS)),
    (2, st.builds(Release, st.sampled_from(SESSIONS), MOMENTS)),
    (1, st.builds(Disturb, st.sampled_from(["abort", "close", "event", "refuse"]))),
    (1, st.builds(Handshake, st.sampled_from(HANDSHAKES))),
)

SCENARIOS: Final = st.builds(
    Scenario,
    callers=st.lists(st.lists(MOVES, min_size=1, max_size=9), min_size=1, max_size=5),
    warm_ups=st.lists(st.integers(0, len(WARM_UPS) - 1), max_size=3),
    close=st.sampled_from([0.0, 1.0, 2.0]),
    policy=POLICIES,
    leave_at=mostly(None, MOMENTS),
    keepalive=mostly(None, st.just(1.0)),
    multiplexing=st.booleans(),
)


# --- the world -------------------------------------------------------------------------------------------------------


class Watching:
    """A dialer that remembers the streams it opened."""

    def __init__(self, dialer: Any) -> None:
        self.dialer = dialer
        self.streams: list[Watched] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        stream = Watched(await self.dialer.open_tcp(host, port))
        self.streams.append(stream)
        return stream

    async def start_tls(self, stream: trio.abc.Stream, **_: object) -> trio.abc.Stream:
        raise AssertionError("there is no TLS here")


class Watched(trio.abc.Stream):
    """A stream that remembers whether it was closed."""

    def __init__(self, inner: MemoryStream) -> None:
        self.inner = inner
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


class TasksBelow(trio.abc.Instrument):
    """The living tasks of one task's nurseries, and of theirs."""

    def __init__(self, top: trio.lowlevel.Task) -> None:
        self.top = top
        self.alive: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        above = task.parent_nursery
        while above is not None:
            if above.parent_task is self.top:
                self.alive.add(task)
                return
            above = above.parent_task.parent_nursery

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.alive.discard(task)


class Ledger(engine.Instrument):
    """Counts what the engine says of itself."""

    def __init__(self) -> None:
        self.turns_started = 0
        self.turns_ended = 0
        self.connections_opened = 0
        self.connections_closed = 0
        self.sent = 0

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        self.connections_opened += 1

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        self.connections_closed += 1

    def turn_started(self, info: TurnStartInfo, /) -> None:
        self.turns_started += 1

    def request_sent(self, info: RequestInfo, /) -> None:
        self.sent += 1

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        self.turns_ended += 1


@attrs.define(eq=False)
class Taken:
    """What became of one turn."""

    nonce: str
    take: Take
    session: engine.Session
    budgets: engine.Timeouts
    entered_at: float
    turn: engine.Turn | None = None
    answered: bool = False
    error: engine.TurnError | None = None

    @property
    def report(self) -> engine.TurnReport | None:
        return self.turn.report if self.turn is not None else self.error.report if self.error is not None else None

    @property
    def granted(self) -> bool:
        if self.report is None:
            return self.answered
        return self.report.seconds.queue is not None


class CallersOwnError(Exception):
    """What a caller raises inside a turn's block."""


class World:
    """A scenario while it is played."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.plans: dict[str, Plan] = {}
        self.taken: list[Taken] = []
        self.deaf: set[int] = set()
        self.sessions: list[engine.Session] = []
        self.newest: dict[str, engine.Session] = {}
        self.ledger = Ledger()
        self.trace: list[str] = []
        self.heartbeat = False
        self.steps = 0
        # Keepalives keep a turn from being idle, so nothing but its own budget ends one that the server never ends.
        self.budgets = attrs.evolve(
            ENGINE_BUDGETS, close=scenario.close, turn=None if scenario.keepalive is None else 60.0
        )
        self.warm_ups = iter([WARM_UPS[number] for number in scenario.warm_ups])
        self.sim: Simulator
        self.eng: engine.Engine

    # The simulator's brain:

    @property
    def brain(self) -> Any:
        return Brain(self)

    def note(self, text: str) -> None:
        self.trace.append(f"{trio.current_time():.3f} {text}")

    # --- playing ---

    async def play(self) -> None:
        scenario = self.scenario
        quirks = Quirks(keepalive=scenario.keepalive)
        profile = "openai" if scenario.multiplexing else "generic"
        async with open_simulator(
            in_memory=True, brain=self.brain, quirks=quirks, seed=0, endpoint_options={"profile": profile}
        ) as self.sim:
            dialer = Watching(self.sim.dialer)
            async with trio.open_nursery() as world:
                await world.start(self._beat)
                leave = trio.Event()
                left = trio.Event()
                self.eng = await world.start(self._host, dialer, leave, left)
                async with trio.open_nursery() as callers:
                    for moves in scenario.callers:
                        callers.start_soon(self._call, moves)
                    if scenario.leave_at is not None:
                        await trio.sleep(scenario.leave_at)
                        leave.set()
                leave.set()
                await left.wait()
                self._check_end(dialer)
                await trio.sleep(10)  # the server may be in the middle of a pause
                open_here = {record.id for record in self.sim.open_connections}
                assert open_here <= self.deaf, f"still open: {self.sim.open_connections}"
                assert self.heartbeat, "a sibling task was cancelled"
                world.cancel_scope.cancel(reason="played")
        self._check_requests()
        # A Ping that meets the simulator's own Close frame (trio-websocket's issue 184) is no fault of anybody's here.
        assert [error for error in self.sim.errors if not isinstance(error, LocalProtocolError)] == []

    async def _beat(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.heartbeat = True
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.heartbeat = False

    async def _host(
        self, dialer: Any, leave: trio.Event, left: trio.Event, *, task_status: trio.TaskStatus[engine.Engine]
    ) -> None:
        tasks = TasksBelow(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(tasks)
        try:
            async with engine.open_engine(
                self.sim.endpoint,
                model="m",
                dialer=dialer,
                timeouts=self.budgets,
                limits=LIMITS,
                on_cancel=self.scenario.policy,
                instruments=[self.ledger],
                transport=engine.Transport.WEBSOCKET,
                retry=engine.RetryPolicy(max_dispatches=1, back_off=()),
            ) as eng:
                task_status.started(eng)
                await leave.wait()
                started = trio.current_time()
            took = trio.current_time() - started
            assert took <= self.scenario.close + 0.5 + 0.0005 * len(SESSIONS) + TICK, f"leaving took {took} s"
            assert not tasks.alive, f"tasks left: {sorted(task.name for task in tasks.alive)}"
        finally:
            trio.lowlevel.remove_instrument(tasks)
        self.note("engine left")
        left.set()

    async def _call(self, moves: list[Move]) -> None:
        for move in moves:
            match move:
                case Take():
                    await self._take(move)
                case Sleep(seconds):
                    await trio.sleep(seconds)
                case Release(session, patience):
                    await self._release(session, patience)
                case Disturb(what):
                    self._disturb(what)
                case Handshake(reply):
                    self.sim.handshakes.append(reply)
            self.steps += 1
            self._check_step()

    async def _release(self, session: str, patience: float) -> None:
        started = trio.current_time()
        with trio.move_on_after(patience):
            known = await self.eng.release(session)
            self.note(f"released {session}: {known}")
        took = trio.current_time() - started
        assert took <= min(patience, self.scenario.close + 0.5) + TICK, f"releasing took {took} s"

    def _disturb(self, what: str) -> None:
        match what:
            case "abort":
                self.sim.abort()
            case "close":
                self.sim.close(1001, "going away")
            case "event":
                for each in OUT_OF_THE_BLUE:
                    self.sim.push(each)
            case "refuse":
                self.sim.dialer.refusals += 1  # type: ignore[attr-defined]

    async def _session(self, session_id: str, *, after: engine.Session | None = None) -> engine.Session:
        """The session of that id, started if there is none or if the newest is the one that has ended."""
        newest = self.newest.get(session_id)
        if newest is None or newest is after:
            fresh = await self.eng.session(session_id)
            if self.newest.get(session_id) is newest:  # nobody was faster
                self.newest[session_id] = fresh
                self.sessions.append(fresh)
        return self.newest[session_id]

    async def _take(self, take: Take) -> None:
        nonce = f"n{len(self.plans)}"
        self.plans[nonce] = take.plan
        session = None
        for _ in range(2):  # where the session is released before the turn's time comes, its successor takes it
            try:
                session = await self._session(take.session, after=session)
            except engine.SessionClosed:
                assert self.scenario.leave_at is not None, "the engine was not left"
                self.note(f"{nonce} too late")
                return
            if await self._turn(nonce, take, session):
                return

    async def _turn(self, nonce: str, take: Take, session: engine.Session) -> bool:
        """Play one turn; False if the session took no more turns."""
        budgets = engine.Timeouts(**take.budgets)
        taken = Taken(
            nonce,
            take,
            session,
            attrs.evolve(self.budgets, **take.budgets),
            trio.current_time(),
        )
        arguments: dict[str, Any] = {
            "options": engine.TurnOptions(warm_up=take.warm_up),
            "timeouts": budgets,
            "on_cancel": take.policy,
            "limits": engine.Limits(buffer_events=3) if take.tight else None,
        }
        prompt = nonce + (" " + "x" * BULK if take.bulk else "")
        patience = math.inf if take.patience is None else take.patience
        if take.how == "ask":
            patience = math.inf  # a cancelled ask leaves nothing to tell whether it was granted
        with trio.move_on_after(patience) as scope:
            try:
                if take.how == "ask":
                    message = await session.ask(prompt, **arguments)
                    taken.answered = True
                    self._check_answer(taken, message)
                else:
                    taken.turn = session.turn(prompt, **arguments)
                    async with entered(taken.turn) as turn:
                        await self._read(taken, turn)
            except engine.TurnError as error:
                taken.error = error
            except CallersOwnError:
                pass
        taken.answered = taken.answered or _has_message(taken.turn)
        took = trio.current_time() - taken.entered_at
        assert took <= patience + TICK, f"{nonce} held its caller up for {took} s"
        if isinstance(taken.error, engine.SessionClosed) and not taken.granted:
            assert taken.error.delivery is engine.Delivery.NOT_SENT
            return False
        self.taken.append(taken)
        outcome = "answer" if taken.answered else type(taken.error).__name__ if taken.error is not None else "left"
        phase = getattr(taken.error, "phase", "")
        event(f"{outcome} {phase}".strip())
        self.note(
            f"{nonce} {take.session} {take.how}: {outcome} {phase} {'cancelled' if scope.cancelled_caught else ''}"
        )
        self._check_turn(taken)
        return True

    async def _read(self, taken: Taken, turn: engine.Turn) -> None:
        take = taken.take
        how = take.how
        if how == "at once":
            return
        if how == "later":
            await trio.sleep(take.count * 0.5)
        if how in {"wait", "later"}:
            self._check_answer(taken, await turn.wait())
            return
        seen: list[Any] = []
        try:
            async for each in turn:
                seen.append(each)
                if how in {"some", "raise"} and len(seen) > take.count:
                    if how == "raise":
                        raise CallersOwnError
                    return
                if how == "slowly":
                    await trio.sleep(0.25)
        except engine.TurnError as error:
            with pytest.raises(type(error)) as again:
                await anext(turn)
            if again.value is not error:
                raise AssertionError("another failure the second time") from error
            raise
        finally:
            self._check_events(taken, seen)
        self._check_answer(taken, turn.message)

    # --- what must hold ---

    def _check_events(self, taken: Taken, seen: list[Any]) -> None:
        if seen:
            assert isinstance(seen[0], engine.TurnStarted)
            assert not any(isinstance(each, engine.TurnStarted) for each in seen[1:])
        text = "".join(each.delta for each in seen if isinstance(each, engine.TextDelta))
        self._check_text(taken, text)

    def _check_text(self, taken: Taken, text: str) -> None:
        whole = answer(taken.nonce, taken.take.plan.words)
        assert whole.startswith(text), f"{taken.nonce} was shown {text!r}"

    def _check_answer(self, taken: Taken, message: engine.AssistantMessage) -> None:
        plan = taken.take.plan
        self._check_text(taken, message.text)
        if plan.fault is None or plan.fault in HARMLESS:
            assert message.text == answer(taken.nonce, plan.words)
        (request,) = self._requests(taken.nonce)
        assert message.response_id == request.response_id

    def _requests(self, nonce: str) -> list[Any]:
        return [
            request
            for request in self.sim.requests
            if request.body.get("generate") is not False and request.input[0]["content"].split(" ")[0] == nonce
        ]

    def _check_turn(self, taken: Taken) -> None:
        """What holds for each turn once its caller is done with it."""
        error, report = taken.error, taken.report
        budgets = merge(DEFAULT_TIMEOUTS, taken.budgets, "timeouts")
        if error is not None:
            assert type(error).__mro__[1:].count(engine.TurnError) == 1
            assert isinstance(error.delivery, engine.Delivery)
            assert error.report is not None
            assert error.report.delivery is error.delivery
            self._check_text(taken, error.partial.text if error.partial is not None else "")
        if taken.turn is not None:
            self._check_text(taken, taken.turn.partial.text)
        if report is None:
            return
        seconds = report.seconds
        assert report.attempts <= 1
        if seconds.queue is not None:
            assert seconds.queue <= budgets.queue + TICK
        if seconds.total is None:  # entered, and cancelled before it was queued
            return
        granted = seconds.queue or 0.0
        connected = granted + (seconds.connect or 0.0)
        sent = connected + (seconds.send or 0.0)
        assert seconds.total <= budgets.turn + TICK
        if seconds.first_event is not None:
            assert sent + seconds.first_event <= granted + budgets.start + TICK
            limit = granted + budgets.start + taken.take.plan.seconds + budgets.idle
            limit = limit if self.scenario.keepalive is None else math.inf
        else:
            limit = granted + (budgets.start if taken.granted else budgets.queue)
        assert seconds.total <= limit + TICK, f"{taken.nonce} took {seconds.total} s, {limit} s are allowed"
        if report.attempts and seconds.send is None:
            assert seconds.total <= connected + budgets.send + TICK
        elif report.attempts and seconds.first_event is None:
            assert seconds.total <= sent + budgets.first_event + TICK
        if isinstance(error, engine.TurnTimeout):
            budget = getattr(budgets, error.phase)
            assert math.isfinite(budget)
            assert error.seconds == budget
            since = {
                "turn": 0.0,
                "queue": 0.0,
                "start": granted,
                "send": connected,
                "first_event": sent,
            }
            if error.phase == "idle":
                assert seconds.first_event is not None
                assert seconds.total >= sent + seconds.first_event + budget - TICK
            else:
                assert abs(seconds.total - since[error.phase] - budget) <= TICK, f"{taken.nonce}: {error} at {seconds}"

    def _check_step(self) -> None:
        """What holds at every moment."""
        assert self.heartbeat, "a sibling task was cancelled"
        for session in self.sessions:
            numbers = session.statistics()
            ended = numbers.turns_completed + numbers.turns_failed + numbers.turns_abandoned
            assert numbers.turns_started == ended + numbers.active
            assert numbers.active in {0, 1}
            assert numbers.queued <= len(self.scenario.callers)
            assert len(numbers.connections) <= 7, numbers.connections

    def _check_end(self, dialer: Watching) -> None:
        """What holds when the engine was left."""
        assert [stream for stream in dialer.streams if not stream.closed] == []
        for session in self.sessions:
            numbers = session.statistics()
            mine = [taken for taken in self.taken if taken.session is session and taken.granted]
            assert numbers.connections == ()
            assert (numbers.active, numbers.queued) == (0, 0)
            assert numbers.turns_started == len(mine)
            assert numbers.turns_completed == sum(taken.answered for taken in mine)
            assert numbers.turns_failed == sum(_failed(taken) for taken in mine)
        assert self.ledger.turns_started == self.ledger.turns_ended == sum(taken.granted for taken in self.taken)
        assert self.ledger.connections_closed >= self.ledger.connections_opened

    def _check_requests(self) -> None:
        """What the server must have seen, and must not have seen."""
        for taken in self.taken:
            requests = self._requests(taken.nonce)
            assert len(requests) <= 1, f"{taken.nonce} was sent twice"
            report = taken.report
            delivery = report.delivery if report is not None else None
            if delivery is engine.Delivery.NOT_SENT:
                assert requests == [], f"{taken.nonce} was sent after all"
            elif delivery is engine.Delivery.ACCEPTED or taken.answered:
                assert len(requests) == 1


class Brain:
    """Answers each request by the plan of its nonce."""

    warm_ups = True

    def __init__(self, world: World) -> None:
        self.world = world

    def reply(self, asked: Asked) -> list[Step]:
        if not asked.generate:
            return next(self.world.warm_ups, [])
        nonce = asked.last_user_text.split(" ")[0]
        return self.world.plans[nonce].steps(nonce, self.world.deaf)


@asynccontextmanager
async def entered(turn: engine.Turn) -> AsyncIterator[engine.Turn]:
    """The turn's block, which must be left without a checkpoint."""
    await turn.__aenter__()
    try:
        yield turn
    finally:
        with trio.testing.assert_no_checkpoints():
            await turn.__aexit__(None, None, None)


def _has_message(turn: engine.Turn | None) -> bool:
    return turn is not None and _outcome(lambda: turn.message) is None


def _failed(taken: Taken) -> bool:
    turn = taken.turn
    if turn is None:
        return taken.error is not None
    return isinstance(_outcome(lambda: turn.message), engine.TurnError)


def _outcome(look: Callable[[], Any]) -> Exception | None:
    try:
        look()
    except (RuntimeError, engine.TurnError) as error:
        return error
    return None


def play(scenario: Scenario) -> World:
    """Play a scenario to its end; a world that hangs is a failure too."""

    async def main() -> World:
        world = World(scenario)
        try:
            with trio.fail_after(3600):
                await world.play()
        except BaseException as error:
            error.add_note("\n".join(world.trace))
            raise
        return world

    return trio.run(main, clock=MockClock(autojump_threshold=0))


# --- the tests -------------------------------------------------------------------------------------------------------


def scenario(*callers: list[Move], **differently: Any) -> Scenario:
    """A scenario in which nothing is out of the ordinary but what is given."""
    ordinary: dict[str, Any] = {"warm_ups": [], "close": 0.0, "policy": engine.OnCancel.CLOSE, "leave_at": None}
    return Scenario(list(callers), **{**ordinary, "keepalive": None, "multiplexing": False, **differently})


def take(plan: Plan | None = None, how: str = "wait", **differently: Any) -> Take:
    """An ordinary turn, apart from what is given."""
    ordinary: dict[str, Any] = {"session": "red", "count": 0, "patience": None, "policy": engine.OnCancel.CLOSE}
    ordinary |= {"budgets": {}, "warm_up": False, "bulk": False, "tight": False}
    return Take(plan=plan or Plan(None, 1, 0.0, None, 0, None), how=how, **{**ordinary, **differently})


# Found here once:
LAST_EVENTS_OVERFLOW: Final = scenario([take(Plan("wait", 1, 0.0, None, 0, None), "slowly", tight=True)], keepalive=1.0)
LATE_OUTPUT_MEETS_THE_NEXT_RESPONSE: Final = scenario(
    [take(Plan(None, 2, 0.0, None, 1, ("delta", 0.5))), take(Plan("created", 4, 0.0, None, 0, None))]
)
LATE_OUTPUT_OF_A_DRAINED_RESPONSE: Final = scenario(
    [
        take(Plan(None, 3, 0.25, None, 1, ("delta", 1.5)), "some", count=3, policy=engine.OnCancel.DRAIN),
        take(Plan("created", 4, 0.5, None, 0, None)),
    ]
)


@example(scenario=LAST_EVENTS_OVERFLOW, scheduling=None)
@example(scenario=LATE_OUTPUT_MEETS_THE_NEXT_RESPONSE, scheduling=None)
@example(scenario=LATE_OUTPUT_OF_A_DRAINED_RESPONSE, scheduling=None)
@given(scenario=SCENARIOS, scheduling=st.random_module())
@PROFILE
def test_no_answer_goes_astray_and_nothing_is_left_behind(scenario: Scenario, scheduling: object) -> None:
    """See the module's docstring for how to replay a failure and how to run longer."""
    play(scenario)
