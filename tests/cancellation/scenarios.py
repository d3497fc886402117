"""What callers do, for `stepping` to strike."""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio
import trio.testing
from stepping import Scenario, World, ask_once, nothing

import engine
from engine import OnCancel, Transport
from engine.simulator import Error, HangUp, Quirks, Reject

__all__ = [
    "ALL",
    "ASK",
    "BACK_OFF",
    "CONNECT",
    "EXIT",
    "FALL_BACK",
    "LANES",
    "LEAVE",
    "LEAVE_FROZEN",
    "LEAVE_OVER_HTTP",
    "LIFE",
    "QUEUE",
    "RELEASE",
    "SEND_AGAIN",
    "STEER",
    "STEER_AND_LEAVE",
    "STEER_TOOLS",
    "STREAM",
    "STREAM_OVER_HTTP",
    "TOOLS",
    "WARM_UP",
]

STEERABLE = "gpt-6-test"
LOOK = engine.Tool("look", "Look.", {"type": "object", "properties": {"prompt": {"type": "string"}}}, strict=False)


async def _ask(world: World) -> None:
    world.arm()
    await world.ask()


async def _warm_up(world: World) -> None:
    world.arm()
    await world.ask(options=engine.TurnOptions(warm_up=True))


async def _stream(world: World) -> None:
    text = world.prompt()
    seen = []
    world.arm()
    async with world.session.turn(text) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                seen.append(event.delta)
    assert "".join(seen) == turn.message.text == text


async def _tools(world: World) -> None:
    """A turn that calls a tool, and the turn that brings its result."""
    question = engine.UserMessage(world.prompt("call"))
    world.arm()
    asked = await world.session.ask(engine.Context([question], tools=[LOOK]))
    (call,) = asked.tool_calls
    result = world.prompt("result")
    context = engine.Context([question, asked, engine.ToolResult(call.id, result)], tools=[LOOK])
    assert (await world.session.ask(context)).text == result


async def _queue(world: World) -> None:
    """A turn that waits for its lane, which another task has until after the wait began."""
    text, gate = world.gated()
    holding, done = trio.Event(), trio.Event()

    async def hold() -> None:
        try:
            async with world.session.turn(text) as turn:
                await anext(turn)
                holding.set()
                assert (await turn.wait()).text == text, "the turn that was ahead got another answer"
        except engine.TurnError:
            assert world.blow == "interrupt"  # which may have ended the engine
        finally:
            done.set()

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    world.held.outside.start_soon(hold)
    await holding.wait()
    world.held.outside.start_soon(let_go)
    world.after.append(done.wait)
    world.arm()
    await world.ask()


async def _lanes(world: World) -> None:
    """A turn of one lane, left after its first words, while those of two others are in progress beside it."""
    going = [world.gated() for _ in range(2)]
    done = [trio.Event() for _ in going]
    started = [trio.Event() for _ in going]

    async def beside(number: int) -> None:
        text, _ = going[number]
        try:
            async with world.session.lane(f"beside {number}").turn(text) as turn:
                await anext(turn)
                started[number].set()
                assert (await turn.wait()).text == text, "another lane got another answer"
        except engine.TurnError:
            assert world.blow == "interrupt"  # which may have ended the engine
        finally:
            done[number].set()

    for number in range(2):
        world.held.outside.start_soon(beside, number)
        await started[number].wait()
        world.after.append(done[number].wait)
    world.arm()
    try:
        async with world.session.lane("mine").turn(world.prompt()) as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
        await world.ask()
    finally:
        with trio.CancelScope(shield=True):
            for (_, gate), over in zip(going, done, strict=True):
                gate.set()
                await over.wait()


async def _steer(world: World) -> None:
    """A turn that is steered, and read until its successor has ended."""
    text, more = world.prompt(), world.prompt("more")
    world.arm()
    async with world.session.turn(text, model=STEERABLE) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                break
        await turn.steer(more)
        async for _ in turn:
            pass
    assert turn.message.text == text + more
    assert [type(each) for each in turn.messages] == [
        engine.AssistantMessage,
        engine.UserMessage,
        engine.AssistantMessage,
    ]


async def _steer_and_leave(world: World) -> None:
    """A turn that is steered and left before its successor has come, beside another lane's, and the one behind it."""
    beside, gate = world.gated()
    started, done = trio.Event(), trio.Event()

    async def hold() -> None:
        try:
            async with world.session.lane("beside").turn(beside) as turn:
                await anext(turn)
                started.set()
                assert (await turn.wait()).text == beside, "another lane got another answer"
        except engine.TurnError:
            assert world.blow == "interrupt"  # which may have ended the engine
        finally:
            done.set()

    world.held.outside.start_soon(hold)
    await started.wait()
    world.after.append(done.wait)
    world.arm()
    try:
        async with world.session.turn(world.prompt(), model=STEERABLE) as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
            await turn.steer(world.prompt("more"))
        await world.ask()
    finally:
        with trio.CancelScope(shield=True):
            gate.set()
            await done.wait()


async def _steer_tools(world: World) -> None:
    """A turn that calls a tool, steered meanwhile, and the turn that brings its result."""
    question = engine.UserMessage(world.prompt("call"))
    world.arm()
    context = engine.Context([question], tools=[LOOK])
    async with world.session.turn(context, model=STEERABLE) as turn:
        async for event in turn:
            if isinstance(event, engine.ToolCallStarted):
                break
        await turn.steer(world.prompt("more"))
        asked = await turn.wait()
    (call,) = asked.tool_calls
    result = world.prompt("result")
    context = engine.Context([question, *turn.messages, engine.ToolResult(call.id, result)], tools=[LOOK])
    assert (await world.session.ask(context, model=STEERABLE)).text == result


async def _leave(world: World) -> None:
    """A turn that is left after its first words, and the one behind it."""
    world.arm()
    async with world.session.turn(world.prompt()) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                break
    await world.ask()


async def _leave_frozen(world: World) -> None:
    """A turn that is left while the server has stopped sending and will not answer a Close frame."""
    world.arm()
    async with world.session.turn(world.prompt("freeze")) as turn:
        async for event in turn:
            if isinstance(event, engine.TextEnded):
                break
    await world.ask()


async def _release(world: World) -> None:
    """Release a session whose turn is in flight, on a server that will not answer a Close frame."""
    started, done = trio.Event(), trio.Event()

    async def hold() -> None:
        try:
            async with world.session.turn(world.prompt("freeze")) as turn:
                async for event in turn:
                    if isinstance(event, engine.TextEnded):
                        started.set()
        except engine.TurnError:
            pass
        finally:
            done.set()

    world.held.outside.start_soon(hold)
    await started.wait()
    world.after.append(done.wait)
    begun = trio.current_time()
    world.arm()
    await world.engine.release("a")
    assert trio.current_time() - begun <= world.network.bound


async def _stream_over_http(world: World) -> None:
    text = world.prompt()
    seen = []
    world.arm()
    async with world.session.turn(text, transport=Transport.SSE) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                seen.append(event.delta)
    assert "".join(seen) == turn.message.text == text


async def _leave_over_http(world: World) -> None:
    """A turn that is left while its stream goes on, and the one behind it."""
    world.arm()
    async with world.session.turn(world.prompt("freeze"), transport=Transport.SSE) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                break
    await world.ask(transport=Transport.SSE)


async def _fall_back(world: World) -> None:
    """A turn that finds no WebSocket and goes over HTTP."""
    world.sim.handshakes.append(Reject(503))
    world.arm()
    await world.ask()


async def _back_off(world: World) -> None:
    """A turn that waits before it tries again."""
    world.sim.handshakes.append(HangUp())
    world.arm()
    await world.ask(transport=Transport.WEBSOCKET, retry=engine.RetryPolicy(jitter=lambda: 1.0))


async def _send_again(world: World) -> None:
    """A turn whose first attempt the server fails."""
    world.brain.failures.append(Error(503))
    world.arm()
    await world.ask(retry=engine.RetryPolicy(jitter=lambda: 1.0))


async def _life(world: World) -> None:
    """A session's whole life: opened, connected, asked, closed."""
    world.arm()
    async with engine.open_session(world.endpoint, **world.options()) as session:
        await world.ask(session)


async def _exit(world: World) -> None:
    """Leave an engine of which one session is idle, one waits for its answer, and one dials."""
    done = trio.Event()

    async def hold(session: engine.Session, started: trio.Event) -> None:
        try:
            async with session.turn(world.prompt("freeze")) as turn:
                async for event in turn:
                    if isinstance(event, engine.TextEnded):
                        started.set()
        except engine.TurnError:
            pass
        finally:
            done.set()

    async def dial(session: engine.Session) -> None:
        with suppress(engine.TurnError):
            await world.ask(session)

    async with world.open_engine() as eng:
        await world.ask(await eng.session("idle"))
        started = trio.Event()
        world.held.outside.start_soon(hold, await eng.session("waits"), started)
        await started.wait()
        world.held.outside.start_soon(dial, await eng.session("dials"))
        world.after.append(done.wait)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        begun = trio.current_time()
        world.arm()
    assert trio.current_time() - begun <= world.network.bound


ASK = Scenario("ask", _ask, ask_once, points=80)
STREAM = Scenario("stream", _stream, ask_once, points=85)
TOOLS = Scenario("tools", _tools, ask_once, points=170)
QUEUE = Scenario("queue", _queue, points=120)
CONNECT = Scenario("connect", _ask, nothing, points=100)
WARM_UP = Scenario("warm-up", _warm_up, nothing, points=130)
LANES = Scenario("lanes", _lanes, ask_once, points=500)
STEER = Scenario("steer", _steer, ask_once, points=380)
STEER_AND_LEAVE = Scenario("steer and leave", _steer_and_leave, ask_once, points=600)
STEER_TOOLS = Scenario("steer tools", _steer_tools, ask_once, points=280)
LEAVE = Scenario("leave", _leave, ask_once, points=160)
LEAVE_FROZEN = Scenario(
    "leave frozen",
    _leave_frozen,
    ask_once,
    points=230,
    policies=(OnCancel.CLOSE, OnCancel.DRAIN),  # on a new lane of a frozen connection no turn is answered
)
RELEASE = Scenario("release", _release, ask_once, points=25)
LIFE = Scenario("life", _life, owns_engine=True, points=140)
EXIT = Scenario("exit", _exit, owns_engine=True, points=55)
# Over HTTP the cancel policy has nothing to decide.
STREAM_OVER_HTTP = Scenario("stream over http", _stream_over_http, points=70, policies=(OnCancel.CLOSE,))
LEAVE_OVER_HTTP = Scenario("leave over http", _leave_over_http, points=100, policies=(OnCancel.CLOSE,))
FALL_BACK = Scenario("fall back", _fall_back, points=80, policies=(OnCancel.CLOSE,))
BACK_OFF = Scenario("back off", _back_off, points=80, policies=(OnCancel.CLOSE,))
SEND_AGAIN = Scenario("send again", _send_again, ask_once, points=80, policies=(OnCancel.CLOSE,))
OVER_WEBSOCKET = (ASK, STREAM, TOOLS, QUEUE, LANES, CONNECT, WARM_UP, LEAVE, LEAVE_FROZEN, RELEASE, LIFE, EXIT)
STEERED = (STEER, STEER_AND_LEAVE, STEER_TOOLS)
RECOVERING = (STREAM_OVER_HTTP, LEAVE_OVER_HTTP, FALL_BACK, BACK_OFF, SEND_AGAIN)
# Servers that rename and renumber everything, say things late or not at all: what is left must be told from what comes.
RENAMING = Quirks(item_ids="renewed", response_ids="renewed", indexes="growing", events="late")
NAMELESS = Quirks(item_ids="one_for_all", response_ids="one_for_all", indexes="missing", events="deltas_only")
DISTORTED = (
    attrs.evolve(LEAVE, name="leave, renamed", quirks=RENAMING, policies=(OnCancel.DRAIN, OnCancel.NEW_LANE)),
    attrs.evolve(LEAVE_OVER_HTTP, name="leave over http, renamed", quirks=RENAMING),
    attrs.evolve(TOOLS, name="tools, nameless", quirks=NAMELESS, policies=(OnCancel.DRAIN,)),
)
ALL = (*OVER_WEBSOCKET, *STEERED, *RECOVERING, *DISTORTED)
