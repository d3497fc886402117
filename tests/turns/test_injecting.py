"""Outputs handed to a response that runs (the beta of several agents): taken, too late, refused, or lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import Abort, AwaitOutputs, Call, Delay, Echo, Event, Say, SayDelta, Script, Stall

BETA: dict[str, Any] = {"endpoint_options": {"profile": "openai-multi-agent"}}
session_to = session_with(sim_options=BETA)
ADD = engine.Tool("add", "Add.", {"type": "object", "properties": {}}, strict=False)
PROMPT = engine.Context([engine.UserMessage("Add.")], tools=[ADD])


def calls(*names: str) -> list[Any]:
    return [SayDelta("I add. "), *(Call("add", {}, call_id=name) for name in names)]


async def called(turn: engine.Turn, times: int = 1) -> list[engine.ToolCall]:
    """Read on until so many calls have come."""
    found: list[engine.ToolCall] = []
    async for event in turn:
        if isinstance(event, engine.ToolCallEnded):
            found.append(event.block)
            if len(found) == times:
                break
    return found


@pytest.mark.parametrize("named", [False, True])
async def test_outputs_resume_a_response_that_waits(autojump_clock: MockClock, named: bool) -> None:
    script = Script([[*calls("c1", "c2"), AwaitOutputs(), Say("Three.")]], then=Echo())
    async with session_to(script) as (session, sim):
        lane = session.lane("agents") if named else session
        async with lane.turn(PROMPT) as turn:
            one, two = await called(turn, 2)
            assert await turn.inject(engine.ToolResult(one.id, "1"))
            assert await turn.inject([engine.ToolResult(two.id, "2")])
            rest = [event async for event in turn]
        assert isinstance(rest[-1], engine.TurnDone)
        assert rest[-1].reason == "stop"  # its calls were answered
        assert turn.message.text == "I add. Three."
        assert [sent["input"][0]["output"] for sent in sim.connections[0].injects] == ["1", "2"]
        assert "openai-beta" in sim.connections[0].headers
        # What the server holds now has the outputs in places that are not known here: the next request is whole.
        results = [engine.ToolResult(call.id, "3") for call in (one, two)]
        async with lane.turn(
            engine.Context([*PROMPT.messages, turn.message, *results, engine.UserMessage("so")])
        ) as so:
            await so.wait()
        assert not so.report.continued
        assert so.message.text == "so"


async def test_what_comes_too_late_belongs_into_the_next_request(autojump_clock: MockClock) -> None:
    async with session_to(Script([[*calls("c1"), Delay(1)]], then=Echo())) as (session, sim):
        async with session.turn(PROMPT) as turn:
            (call,) = await called(turn)
            await turn.wait()
            assert turn.message.stop_reason == "tool_use"
            assert not await turn.inject(engine.ToolResult(call.id, "3"))
        assert sim.connections[0].injects == []


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ({"type": "response.inject.created"}, True),
        ({"type": "response.inject.failed", "error": {"code": "response_already_completed", "message": "x"}}, False),
    ],
)
async def test_an_acknowledgement_after_the_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], taken: bool
) -> None:
    async def swallow(self: Any, event: dict[str, Any]) -> None:
        self.record.injects.append(event)

        async def later() -> None:
            await self.send_event({**answer, "response_id": event["response_id"], "input": event["input"]})

        self.later(3, later)

    monkeypatch.setattr("engine.simulator.websocket.WebSocket._take_inject", swallow)
    async with session_to(Script([[*calls("c1"), Delay(1), Say("It ends.")]], then=Echo())) as (session, _):
        async with session.turn(PROMPT) as turn:
            (call,) = await called(turn)
            assert await turn.inject(engine.ToolResult(call.id, "3")) is taken
            assert trio.current_time() == pytest.approx(3)
            assert turn.message.text == "I add. It ends."
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections[0].dropped == 0


async def test_what_the_server_refuses_is_an_error_and_the_turn_goes_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, event: dict[str, Any]) -> None:
        error = {"code": "response_not_found", "message": "x"}
        failed = {"type": "response.inject.failed", "response_id": event["response_id"], "input": event["input"]}
        await self.send_event({**failed, "error": error})

    monkeypatch.setattr("engine.simulator.websocket.WebSocket._take_inject", refuse)
    async with session_to(Script([[*calls("c1"), Delay(1), Say("On.")]], then=Echo())) as (session, _):
        async with session.turn(PROMPT) as turn:
            (call,) = await called(turn)
            with pytest.raises(engine.RequestRejected) as caught:
                await turn.inject(engine.ToolResult(call.id, "3"))
            assert (caught.value.code, caught.value.delivery) == ("response_not_found", engine.Delivery.REJECTED)
            assert (await turn.wait()).text == "I add. On."


async def test_an_injection_that_the_schema_does_not_allow_ends_the_connection(autojump_clock: MockClock) -> None:
    """The server answers with an error and closes (Responses API over WebSocket, ``response.inject``)."""
    async with session_to(Script([[*calls("c1"), AwaitOutputs()]], then=Echo()), transport="websocket") as (
        session,
        sim,
    ):
        async with session.turn(PROMPT) as turn:
            await called(turn)
            with pytest.raises(engine.TurnError):
                await turn.inject(engine.ToolResult("another", "3"))
            with pytest.raises(engine.ResponseFailed):
                await turn.wait()
        assert (await session.ask("next")).text == "next"
        assert len(sim.connections) == 2


async def test_a_connection_that_is_lost_leaves_it_in_doubt(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(self: Any, event: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("engine.simulator.websocket.WebSocket._take_inject", swallow)
    async with session_to(Script([[*calls("c1"), Delay(1), Abort()]], then=Echo())) as (session, _):
        async with session.turn(PROMPT) as turn:
            (call,) = await called(turn)
            with pytest.raises(engine.ConnectionLost):
                await turn.inject(engine.ToolResult(call.id, "3"))
            assert trio.current_time() == pytest.approx(1)


async def test_an_answer_that_never_comes(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def swallow(self: Any, event: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("engine.simulator.websocket.WebSocket._take_inject", swallow)
    async with session_to(Script([[*calls("c1"), Stall()]])) as (session, _):
        async with session.turn(PROMPT, timeouts=engine.Timeouts(first_event=2)) as turn:
            (call,) = await called(turn)
            with pytest.raises(engine.TurnTimeout):
                await turn.inject(engine.ToolResult(call.id, "3"))
            assert trio.current_time() == pytest.approx(2)


async def test_what_is_wrong_is_said_before_anything_is_sent(autojump_clock: MockClock) -> None:
    async with session_to(Script([[*calls("c1"), AwaitOutputs(), Say("x")]])) as (session, sim):
        async with session.turn(PROMPT) as turn:
            with pytest.raises(RuntimeError, match="no response runs"):
                await turn.inject(engine.ToolResult("c1", "3"))
            (call,) = await called(turn)
            with pytest.raises(engine.ConfigurationError, match="empty"):
                await turn.inject([])
            with pytest.raises(engine.ConfigurationError, match=r"results\[0\]"):
                await turn.inject([engine.UserMessage("x")])  # type: ignore[list-item]
            for output in (float("nan"), object()):
                unwritable = engine.OutputItem({"type": "function_call_output", "call_id": "c1", "output": output})
                with pytest.raises(engine.ConfigurationError, match=r"results\[1\]: cannot be written as JSON"):
                    await turn.inject([engine.ToolResult(call.id, "3"), unwritable])
            assert sim.connections[0].injects == []
            assert await turn.inject(engine.ToolResult(call.id, "3"))
            await turn.wait()


async def test_other_profiles_have_no_such_beta(autojump_clock: MockClock) -> None:
    async with session_with()(Script([[*calls("c1"), Delay(1)]])) as (session, sim):
        async with session.turn(PROMPT) as turn:
            (call,) = await called(turn)
            with pytest.raises(engine.ConfigurationError, match="profile: openai has no beta"):
                await turn.inject(engine.ToolResult(call.id, "3"))
            await turn.wait()
        assert sim.connections[0].injects == []


async def test_an_acknowledgement_of_nothing_is_dropped(autojump_clock: MockClock) -> None:
    stray = Event({"type": "response.inject.created", "response_id": "resp_none"})
    async with session_to(Script([[stray, Say("fine")]])) as (session, _):
        assert (await session.ask("x")).text == "fine"
        assert session.statistics().connections[0].dropped == 1
