"""Strike a running turn at every scheduler step, and check what must hold after.

A *point* is the moment before one step of one task, whichever task that is: the caller's, the session's, a socket's or
the server's. A *trial* is one run of one `Scenario` that is struck at one point, by cancelling the caller or by
interrupting the process; a *sweep* is the trials at points 1, 2, 3 … up to the first that ends before its point has
come, so that none is left out, however the scheduler orders tasks within a tick.

After the strike every trial checks

- what `invariants.contained` promises: no task of the engine's left, no stream open, siblings alive, and no socket open
  with the garbage collector off;
- that only the caller's own cancellation came out, or the one `KeyboardInterrupt`, bare;
- that the next turn of the same session, begun at once, gets its own answer, and soon: every prompt has a number that
  no other has, and the server repeats the prompt;
- that a turn of another session, in flight the whole time, gets its own answer;
- that releasing the session and leaving the engine take no longer than they may;
- that the server too has seen every connection end.
"""

from __future__ import annotations

import dis
import functools
import itertools
import math
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable
from types import CodeType, FrameType
from typing import Any, Literal, TypeAlias

import attrs
import pytest
import trio
import trio.testing
import trio_websocket
from hypothesis import HealthCheck, Phase, given, settings, strategies
from invariants import Held, contained

import engine
from engine import Endpoint, Engine, Session, open_engine
from engine.simulator import (
    Call,
    Created,
    Delay,
    Gate,
    InProgress,
    Mute,
    Quirks,
    Say,
    SayDelta,
    Simulator,
    Stall,
    open_simulator,
)
from engine.transport.dial import TcpDialer

__all__ = [
    "Interruption",
    "Network",
    "Place",
    "Scenario",
    "Signals",
    "Steps",
    "World",
    "ask_once",
    "instructions",
    "interrupt",
    "nothing",
    "repeatable",
    "run",
    "signal_places",
    "sweep",
    "trial",
]

SOON = 2.0
"""Seconds within which the next turn must be answered where the server is alive."""

_BYSTANDER_EVERY = 6
"""A turn of another session is in flight in every sixth trial only: it doubles what a trial costs."""

Blow: TypeAlias = Literal["cancel", "interrupt"]


# --- when ------------------------------------------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks from `arm` on, and strikes before the one numbered ``at``.

    Attributes:
        reached: Points counted so far.
        struck: Whether the strike came.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.reached = 0
        self.struck = False
        self._strike: Callable[[], object] | None = None

    def arm(self, strike: Callable[[], object], servers: trio.Nursery) -> None:
        """Count from the next step on."""
        self._strike = strike

    def disarm(self) -> None:
        """Stop counting."""
        self._strike = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._strike is None:
            return
        self.reached += 1
        if self.reached == self.at:
            self.struck = True
            self._strike()


_TRACED = (str(engine.__path__[0]), str(trio_websocket.__path__[0]))
_SERVER = str(engine.simulator.__path__[0])

Place: TypeAlias = tuple[CodeType, int, bool]
"""A function, an offset in it, and whether the main task runs it."""


class Signals(trio.abc.Instrument):
    """Strikes between two instructions of the client's code: where CPython looks whether a signal has come.

    It looks when a function begins, when a function written in C has returned, and before a loop's next round, but
    neither on the way into an ``except`` or ``finally`` clause, nor when an ``await`` returns.

    Args:
        at: Where to strike: when the place is reached for the first time. None only takes note of places.

    Attributes:
        places: Every place that was reached, in order.
        struck: Whether the strike came.
    """

    def __init__(self, at: Place | None) -> None:
        self.at = at
        self.places: dict[Place, None] = {}
        self.struck = False
        self._strike: Callable[[], object] | None = None
        self._main: trio.lowlevel.Task | None = None
        self._servers: trio.Nursery | None = None
        self._task: trio.lowlevel.Task | None = None
        self._previous: dict[int, int] = {}
        self._earlier: Any = None

    def arm(self, strike: Callable[[], object], servers: trio.Nursery) -> None:
        """Watch from now on. Call it in the main task."""
        self._strike = strike
        self._main = self._task = trio.lowlevel.current_task()
        self._servers = servers
        self._earlier = sys.gettrace()
        sys.settrace(self._enter)

    def disarm(self) -> None:
        """Stop watching."""
        self._strike = None
        if self._main is not None:
            sys.settrace(self._earlier)  # again after a strike, which switches tracing off

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._task = task if self._strike is not None and not self._is_server(task) else None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._task = None

    def _is_server(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self._servers:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        if self._task is None:
            return None
        if frame.f_back is not None:
            self._previous.pop(id(frame.f_back), None)  # what it has called is no function written in C
        file = frame.f_code.co_filename
        if not file.startswith(_TRACED) or file.startswith(_SERVER):
            return None
        self._previous[id(frame)] = frame.f_lasti  # the instruction with which it begins, or goes on after an await
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            self._previous.pop(id(frame), None)
        if event != "opcode" or self._strike is None:
            return self._instruction
        previous = self._previous.get(id(frame))
        self._previous[id(frame)] = frame.f_lasti
        if previous not in _looks_for_signals(frame.f_code):
            return self._instruction
        place = (frame.f_code, frame.f_lasti, self._task is self._main)
        if place not in self.places:
            self.places[place] = None
            if place == self.at:
                self.struck = True
                strike = self._strike
                self.disarm()
                strike()
        return self._instruction


@functools.cache
def _looks_for_signals(code: CodeType) -> frozenset[int]:
    """The offsets of a function's instructions after which CPython looks for signals."""
    instructions = list(dis.get_instructions(code))
    return frozenset(
        each.offset
        for each, following in itertools.pairwise(instructions)
        # What is awaited was made by a function written in Python, whose beginning is yet to come.
        if (each.opname.startswith("CALL") and following.opname != "GET_AWAITABLE")
        or each.opname == "JUMP_BACKWARD"
        or (each.opname == "RESUME" and each.arg is not None and each.arg < 2)
    )


Interruption: TypeAlias = Steps | Signals


# --- where -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Network:
    """What is between the client and the server.

    Attributes:
        in_memory: Nothing but memory, and virtual time; otherwise loopback sockets and real time.
        server_tls: The server's context, where there is TLS.
        client_tls: The client's.
    """

    in_memory: bool = True
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None

    @property
    def close(self) -> float:
        """The ``close`` budget; short where time is real."""
        return 2.0 if self.in_memory else 0.1

    @property
    def bound(self) -> float:
        """Within how many seconds sockets are gone. Real time is no measure on a busy machine."""
        return self.close + 0.5 if self.in_memory else math.inf


class _Watched(trio.abc.Stream):
    """A memory stream that tells whether it was closed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.closed = False
        self.send_all = stream.send_all  # type: ignore[method-assign]
        self.receive_some = stream.receive_some  # type: ignore[assignment, method-assign]
        self.wait_send_all_might_not_block = stream.wait_send_all_might_not_block  # type: ignore[method-assign]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


class _WatchingDialer:
    """Hands every stream it opens to `Held.watch`."""

    def __init__(self, dialer: Any, held: Held, *, in_memory: bool) -> None:
        self._dialer = dialer
        self._held = held
        self._in_memory = in_memory

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        stream = await self._dialer.open_tcp(host, port)
        watched: trio.abc.Stream = self._held.watch(_Watched(stream) if self._in_memory else stream)
        return watched

    async def start_tls(self, stream: trio.abc.Stream, **options: Any) -> trio.abc.Stream:
        secured: trio.abc.Stream = await self._dialer.start_tls(stream, **options)
        return secured


# --- what ------------------------------------------------------------------------------------------------------------


def _pieces(text: str) -> list[str]:
    return [text[place : place + 4] for place in range(0, len(text), 4)]


class _Repeating:
    """A server that repeats the prompt in pieces; prompts may ask it to wait, to call a tool, or to fall silent."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.gates: dict[str, trio.Event] = {}
        self.failures: list[Any] = []

    def reply(self, asked: Any) -> list[Any]:
        if self.failures:
            return [self.failures.pop()]
        if asked.outputs:
            return [*self._begin(), Say(asked.outputs[-1]["output"], size=1, pause=self.pause), *self._wait()]
        text = asked.last_user_text
        if text.startswith("call"):
            return [*self._begin(), Call("look", {"prompt": text}, size=2, pause=self.pause), *self._wait()]
        if text.startswith("freeze"):
            return [*self._begin(), Say(text, size=1, pause=self.pause), *self._wait(), Mute(frozen=True), Stall()]
        if text in self.gates:
            rest = (step for piece in _pieces(text[4:]) for step in (SayDelta(piece), *self._wait()))
            return [*self._begin(), SayDelta(text[:4]), Gate(self.gates[text]), *rest]
        return [*self._begin(), InProgress(), *self._wait(), Say(text, size=1, pause=self.pause), *self._wait()]

    def _begin(self) -> list[Any]:
        return [Created(), *self._wait()]

    def _wait(self) -> list[Any]:
        # What is ready together is written together, and a batch is one step: events apart are what can be struck.
        return [Delay(self.pause)] if self.pause else []


@attrs.define
class World:
    """What a scenario acts in.

    Attributes:
        held: What outlives the engine.
        sim: The server.
        policy: What becomes of a connection whose turn was left.
        interruption: The strike to come.
        blow: What it does.
        engine: The engine; only where the scenario does not open its own.
        session: Its session ``a``, likewise.
        interrupts: How many `KeyboardInterrupt` came out of the engine.
        after: What to wait for when the engine has been left.
    """

    held: Held
    sim: Simulator
    brain: _Repeating
    network: Network
    policy: engine.OnCancel
    interruption: Interruption
    blow: Blow
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    interrupts: int = 0
    after: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list)
    own_engine: engine.Engine | None = None
    own_session: Session | None = None
    _numbers: Any = attrs.field(factory=lambda: itertools.count(1))

    @property
    def engine(self) -> Engine:
        assert self.own_engine is not None
        return self.own_engine

    @property
    def session(self) -> Session:
        assert self.own_session is not None
        return self.own_session

    def arm(self) -> None:
        """Count points from here on."""
        if self.blow == "cancel":
            self.interruption.arm(lambda: self.scope.cancel(reason="struck"), self.held.outside)
        else:
            self.interruption.arm(lambda: signal.raise_signal(signal.SIGINT), self.held.outside)

    def prompt(self, kind: str = "say") -> str:
        """Return a prompt like no other."""
        words = "and nothing else, one word after the other, and each of them, as it comes, is a step of its own"
        return f"{kind} number {next(self._numbers)} {words}"

    def gated(self) -> tuple[str, trio.Event]:
        """Return a prompt whose answer waits for the event."""
        text, gate = self.prompt(), trio.Event()
        self.brain.gates[text] = gate
        return text, gate

    def options(self) -> dict[str, Any]:
        dialer = self.sim.dialer if self.network.in_memory else TcpDialer()
        return {
            "model": "gpt-test",
            "dialer": _WatchingDialer(dialer, self.held, in_memory=self.network.in_memory),
            "on_cancel": self.policy,
            "timeouts": engine.Timeouts(close=self.network.close),
        }

    @property
    def endpoint(self) -> Endpoint:
        return attrs.evolve(self.sim.endpoint, ssl_context=self.network.client_tls)

    def open_engine(self) -> open_engine:
        return engine.open_engine(self.endpoint, **self.options())

    async def ask(self, session: Session | None = None, **options: Any) -> None:
        """Have one turn answered, and compare."""
        text = self.prompt()
        reply = await (session or self.session).ask(text, **options)
        assert reply.text == text, f"{reply.text!r} is the answer of another turn than {text!r}"

    async def ask_in_time(self, session: Session | None = None) -> None:
        """`ask`, and within `SOON` at that."""
        started = trio.current_time()
        await self.ask(session)
        took = trio.current_time() - started
        if not self.network.in_memory:
            return
        assert took <= SOON + (5 if self.policy is engine.OnCancel.DRAIN else 0), f"the next turn took {took:g} s"


async def nothing(world: World) -> None:
    """Need no preparation."""
    await trio.lowlevel.checkpoint()


async def ask_once(world: World) -> None:
    """Have a connection open, and the lane free."""
    await world.ask()
    await trio.testing.wait_all_tasks_blocked()


@attrs.frozen
class Scenario:
    """What is struck.

    Attributes:
        name: What tests call it.
        act: The code that is cancelled. It calls `World.arm`.
        before: What comes before, undisturbed.
        owns_engine: Whether ``act`` opens its engine itself.
        points: At how many points it can be struck, at least.
        policies: The cancel policies it makes sense with.
        bystander: Whether a turn of another session is in flight.
        quirks: The server's habits.
    """

    name: str
    act: Callable[[World], Awaitable[None]]
    before: Callable[[World], Awaitable[None]] = nothing
    owns_engine: bool = False
    points: int = 10
    policies: tuple[engine.OnCancel, ...] = tuple(engine.OnCancel)
    bystander: bool = True
    quirks: Quirks = attrs.field(factory=Quirks)


async def _served(outside: trio.Nursery, brain: _Repeating, network: Network, quirks: Quirks) -> Simulator:
    """Run a server outside. Not with ``start``, which would begin its task below the caller's."""
    running: list[Simulator] = []
    ready = trio.Event()

    async def serve() -> None:
        async with open_simulator(
            brain=brain,
            in_memory=network.in_memory,
            ssl_context=network.server_tls,
            seed=1,
            quirks=quirks,
            events_per_write=1,  # so that there is a step between any two events
        ) as sim:
            running.append(sim)
            ready.set()
            await trio.sleep_forever()

    outside.start_soon(serve)
    await ready.wait()
    return running[0]


async def trial(
    scenario: Scenario,
    policy: engine.OnCancel,
    interruption: Interruption,
    *,
    blow: Blow = "cancel",
    network: Network | None = None,
) -> World:
    """Run the scenario, struck where ``interruption`` says, and check everything that must hold afterwards."""
    network = network or Network()
    trio.lowlevel.add_instrument(interruption)
    async with contained() as held:
        brain = _Repeating(0.02 if network.in_memory else 0.001)
        sim = await _served(held.outside, brain, network, scenario.quirks)
        world = World(held, sim, brain, network, policy, interruption, blow)
        try:
            if scenario.owns_engine:
                await scenario.before(world)
                await _struck(scenario, world)
                async with world.open_engine() as world.own_engine:
                    await world.ask_in_time(await world.engine.session("a"))
            else:
                await _with_engine(scenario, world)
        except KeyboardInterrupt:  # a group would go on, and fail the test
            world.interrupts += 1
        finally:
            interruption.disarm()
        for wait in world.after:
            with trio.fail_after(5):
                await wait()
        assert world.interrupts == (interruption.struck and blow == "interrupt")
        await _all_seen_closed(sim, network)
        assert sim.errors == []
    return world


async def _struck(scenario: Scenario, world: World) -> None:
    finished = False
    try:
        with world.scope:
            await scenario.act(world)
            world.interruption.disarm()
            finished = True
            # an interrupt that nobody could be given yet is due at the next checkpoint
            await trio.lowlevel.checkpoint()
    except KeyboardInterrupt:
        world.interrupts += 1
    finally:
        world.interruption.disarm()
    assert finished or world.scope.cancelled_caught or world.interrupts, "something else cancelled the caller"


async def _with_engine(scenario: Scenario, world: World) -> None:
    async with world.open_engine() as world.own_engine:
        world.own_session = await world.engine.session("a")
        bystander = None
        if scenario.bystander:
            bystander = _Bystander(world, await world.engine.session("bystander"))
            world.held.outside.start_soon(bystander.run)
            await bystander.started.wait()
        await scenario.before(world)
        await _struck(scenario, world)
        if "a" not in world.engine:  # released
            world.own_session = await world.engine.session("a")
        await world.ask_in_time()
        if bystander is not None:
            await bystander.finish()
        started = trio.current_time()
        assert await world.engine.release("a")
        took = trio.current_time() - started
        assert took <= world.network.bound, f"release took {took:g} s"
        started = trio.current_time()
    took = trio.current_time() - started
    assert took <= world.network.bound, f"leaving the engine took {took:g} s"


class _Bystander:
    """A turn of another session, in flight the whole time."""

    def __init__(self, world: World, session: Session) -> None:
        self._world = world
        self._session = session
        self._text, self._gate = world.gated()
        self._done = trio.Event()
        self.started = trio.Event()

    async def run(self) -> None:
        try:
            async with self._session.turn(self._text) as turn:
                await anext(turn)
                self.started.set()
                assert (await turn.wait()).text == self._text, "another turn's answer"
        except engine.TurnError:
            assert self._world.blow == "interrupt"  # which may have ended the engine
        finally:
            self._done.set()

    async def finish(self) -> None:
        self._gate.set()
        await self._done.wait()


async def _all_seen_closed(sim: Simulator, network: Network) -> None:
    if network.in_memory:
        await trio.testing.wait_all_tasks_blocked()
    else:
        with trio.fail_after(5):
            while sim.open_connections:
                await trio.lowlevel.checkpoint()
    assert sim.open_connections == [], "the server still has a connection"


# --- sweeps ----------------------------------------------------------------------------------------------------------


def run(function: Callable[..., Awaitable[Any]], *args: Any, network: Network | None = None) -> Any:
    """`trio.run`, in virtual time unless the network is real."""
    virtual = network is None or network.in_memory
    return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0) if virtual else None)


def sweep(
    scenario: Scenario,
    policy: engine.OnCancel,
    *,
    blow: Blow = "cancel",
    network: Network | None = None,
    points: Iterable[int] | None = None,
) -> int:
    """Strike at one point after the other, in a run each, until one ends unstruck. Returns the points reached."""
    last = 0
    for at in itertools.count(1) if points is None else points:
        steps = Steps(at)
        chosen = attrs.evolve(scenario, bystander=at % _BYSTANDER_EVERY == 0)
        try:
            run(functools.partial(trial, chosen, policy, steps, blow=blow, network=network), network=network)
        except BaseException as error:
            error.add_note(f"struck at point {at} of {scenario.name!r} with {policy.name}")
            raise
        if not steps.struck:
            break
        last = at
    return last


def signal_places(scenario: Scenario, *, network: Network | None = None) -> list[Place]:
    """Where the scenario can be interrupted between two instructions, in the order in which it gets there."""
    # What is loaded when it is first used is reached once: the first time is not what counts.
    run(functools.partial(trial, scenario, engine.OnCancel.CLOSE, Steps(0), network=network), network=network)
    watching = Signals(None)
    run(functools.partial(trial, scenario, engine.OnCancel.CLOSE, watching, network=network), network=network)
    return list(watching.places)


def interrupt(
    scenario: Scenario, policy: engine.OnCancel, places: Iterable[Place], *, network: Network | None = None
) -> int:
    """Interrupt at one place after the other, in a run each. Returns how many were reached."""
    reached = 0
    for number, place in enumerate(places):
        signals = Signals(place)
        chosen = attrs.evolve(scenario, bystander=number % _BYSTANDER_EVERY == 0)
        try:
            run(functools.partial(trial, chosen, policy, signals, blow="interrupt", network=network), network=network)
        except BaseException as error:
            error.add_note(f"interrupted at instruction {place[1]} of {place[0].co_qualname} in {scenario.name!r}")
            raise
        reached += signals.struck
    return reached


def repeatable(test: Callable[..., None]) -> Callable[..., None]:
    """Seed Trio's scheduler, which Hypothesis knows of, so that a sweep goes the same way every time."""
    seeded = given(scheduling=strategies.random_module())(test)
    once = settings(
        max_examples=1,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    decorated: Callable[..., None] = once(seeded)
    return decorated


instructions = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython",
    reason="when an interpreter looks for signals is known here for CPython 3.11 only",
)
