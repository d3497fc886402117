"""Over either transport, whatever a server does to its events: every call runs once, and its result finds it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from distortions import INDEXES, NAMES, ORDERS, essence, well_formed
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import Abandon, Answer, Event, Raw, Script, Stall

THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "let me add"}]}
TEXT = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Adding.", "annotations": []}],
}


def called(number: int, **members: Any) -> dict[str, Any]:
    call = {"type": "function_call", "call_id": f"call_{number}", "name": "add", "arguments": f'{{"a":{number}}}'}
    return {"id": f"fc_{number}", "status": "completed", **call, **members}


ITEMS = [THOUGHT, TEXT, called(1), called(2)]
HABITS = dict.fromkeys(
    [
        *((names, "positions as they are", "all events, in order") for names in NAMES),
        *(("ids as they are", indexes, "all events, in order") for indexes in INDEXES),
        *(("ids as they are", "positions as they are", order) for order in ORDERS),
        ("ids renewed in every event", "positions in items grow with events", "everything but deltas twice"),
    ]
)


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
@pytest.mark.parametrize("habits", HABITS, ids=", ".join)
async def test_every_call_runs_once(
    autojump_clock: MockClock, habits: tuple[str, str, str], transport: engine.Transport
) -> None:
    names, indexes, order = habits
    stream = well_formed(ITEMS)
    for habit in (NAMES[names], INDEXES[indexes], ORDERS[order]):
        stream = habit.apply(stream, random.Random(7))
    ran: list[int] = []

    def add(a: int) -> int:
        """Add."""
        ran.append(a)
        return a + 1

    script = Script([[*map(Event, stream), Abandon()], Answer("Done.")])
    async with session_to(script, transport=transport) as (session, sim):
        reply = await session.run("go", tools=[engine.FunctionTool(add)])
        assert reply.text == "Done."
        assert sorted(ran) == [1, 2]
        given = sim.requests[1].input
    outputs = {item["call_id"]: item["output"] for item in given if item["type"] == "function_call_output"}
    assert outputs == {"call_1": "2", "call_2": "3"}
    assert sum(item["type"] == "function_call_output" for item in given) == 2


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
@pytest.mark.parametrize(
    "calls",
    [
        [called(1, call_id=None), called(2, call_id=None)],
        [called(1, call_id=""), called(2, call_id="")],
        [called(1, call_id="call_0"), called(2, call_id="call_0")],
        [called(1, call_id=None, id=None), called(2, call_id=None, id=None)],
        [called(1, arguments={"a": 1}), called(2, arguments={"a": 2})],
        [called(1, call_id="c|1"), called(2, call_id="c|2")],
    ],
    ids=["no call ids", "blank call ids", "one call id", "no ids at all", "arguments as objects", "ids with a stroke"],
)
async def test_calls_without_usable_ids(
    autojump_clock: MockClock, calls: list[dict[str, Any]], transport: engine.Transport
) -> None:
    ran: list[int] = []

    def add(a: int) -> int:
        """Add."""
        ran.append(a)
        return a + 1

    events = [
        {"type": "response.output_item.done", "output_index": place, "item": call} for place, call in enumerate(calls)
    ]
    response = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": calls}
    created = {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    stream: list[dict[str, Any]] = [created, *events, {"type": "response.completed", "response": response}]
    script = Script([[*map(Event, stream), Abandon()], Answer("Done.")])
    async with session_to(script, transport=transport) as (session, sim):
        await session.run("go", tools=[engine.FunctionTool(add)])
        assert sorted(ran) == [1, 2]
        given = sim.requests[1].input
        continued = sim.requests[1].previous_response_id is not None
    asked = [item["call_id"] for item in given if item["type"] == "function_call"]
    answered = [item["call_id"] for item in given if item["type"] == "function_call_output"]
    assert len(set(answered)) == 2
    assert asked == ([] if continued else answered)
    assert not continued or answered == [call["call_id"] for call in calls]  # made ids are not what the server holds


async def test_what_was_odd_is_counted_and_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    call = called(1, call_id=None, arguments={"a": 1})
    response = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": [call, call]}
    created = {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    stream: list[dict[str, Any]] = [
        created,
        {"type": "response.output_text.delta"},
        {"type": "response.completed", "response": response},
    ]
    with caplog.at_level("INFO", logger="engine.connection"):
        async with session_to(Script([[*map(Event, stream), Abandon()]] * 2)) as (session, _):
            for _ in range(2):
                reply = await session.ask("go")
                assert len(reply.tool_calls) == 1
            (connection,) = session.statistics().connections
    told = [record for record in caplog.records if "of what the server said" in record.message]
    assert connection.odd == 8
    assert [record.levelname for record in told] == ["WARNING"]
    assert "repaired, repeated, unreadable" in told[0].message


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
async def test_a_budget_that_ran_out_says_what_came_meanwhile(
    autojump_clock: MockClock, transport: engine.Transport
) -> None:
    created = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
    script = Script([[Event(created), Raw("[]"), Raw("no JSON"), Stall()]])
    async with session_to(script, transport=transport, timeouts=engine.Timeouts(idle=3)) as (session, _):
        with pytest.raises(engine.TurnTimeout, match="idle budget of 3 s ran out; meanwhile 2 frames were dropped or"):
            await session.ask("go")


def test_the_essence_of_a_message_has_no_names() -> None:
    first, second = (engine.AssistantMessage([engine.Text("a", item_id=name)]) for name in ("msg_1", "msg_2"))
    assert essence(first) == essence(second)


@pytest.mark.parametrize(("output", "odd"), [([None, 3, "x", [], TEXT], 4), (TEXT, 1), (None, 0), ([TEXT], 0)])
async def test_output_that_is_none_is_counted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, output: Any, odd: int
) -> None:
    response = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": output}
    created = {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    done = {"type": "response.output_item.done", "output_index": 0, "item": TEXT}
    script = Script(
        [[Event(created), Event(done), Event({"type": "response.completed", "response": response}), Abandon()]]
    )
    async with session_to(script) as (session, _):
        assert (await session.ask("go")).text == "Adding."
        (connection,) = session.statistics().connections
    assert connection.odd == odd
    assert ("unreadable" in caplog.text) == (odd > 0)
