"""Servers that nearly keep to the protocol: what each habit does to the wire, and that it can still be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import trio
from sessions import session_to
from sim_peer import FUNCTION, connect, kinds, post, stream, text_of
from trio.testing import MockClock

import engine
from engine.simulator import Call, Created, Quirks, Say, Script, Step, Think, open_simulator
from engine.simulator.distortions import Arguments, CallIds, Events, Indexes, ItemIds, ResponseIds

TURN: list[Step] = [Think("I add."), Say("Let me add. "), Call("add", {"a": 1, "b": 2}, call_id="call_9"), Say("Done.")]
HABITS = [
    (member, value)
    for member, values in (
        ("item_ids", ItemIds), ("response_ids", ResponseIds), ("indexes", Indexes), ("call_ids", CallIds),
        ("arguments", Arguments), ("events", Events),
    )
    for value in get_args(values)
]  # fmt: skip


async def told(**quirks: Any) -> list[dict[str, Any]]:
    """Return the events of one response on a WebSocket; those of a stream must be alike."""
    options: dict[str, Any] = {"in_memory": True, "seed": 5, "quirks": Quirks(obfuscation=False, **quirks)}
    async with open_simulator(brain=Script([TURN]), **options) as sim, connect(sim, check=False) as peer:
        events = await peer.turn()
    async with open_simulator(brain=Script([TURN]), **options) as sim:
        streamed = (await stream(sim, check=False)).events
    assert sorted(kinds(streamed)) == sorted(kinds(events))
    return events


def item_ids(events: list[dict[str, Any]]) -> list[Any]:
    return [event["item_id"] for event in events if "item_id" in event]


def last_ids(events: list[dict[str, Any]]) -> list[Any]:
    return [item["id"] for item in events[-1]["response"]["output"]]


def response_ids(events: list[dict[str, Any]]) -> set[Any]:
    return {event["response"]["id"] for event in events if "response" in event}


WIRE: dict[tuple[str, str], Callable[[list[dict[str, Any]], list[dict[str, Any]]], bool]] = {
    ("item_ids", "renewed"): lambda new, old: len(set(item_ids(new))) == len(item_ids(new)),
    ("item_ids", "renewed_at_the_end"): lambda new, old: (
        item_ids(new) == item_ids(old) and not set(last_ids(new)) & set(last_ids(old))
    ),
    ("item_ids", "swapped_at_the_end"): lambda new, old: last_ids(new) == last_ids(old)[1:] + last_ids(old)[:1],
    ("item_ids", "empty"): lambda new, old: {*item_ids(new), *last_ids(new)} == {""},
    ("item_ids", "null"): lambda new, old: {*item_ids(new), *last_ids(new)} == {None},
    ("item_ids", "one_for_all"): lambda new, old: len({*item_ids(new), *last_ids(new)}) == 1,
    ("response_ids", "renewed"): lambda new, old: len(response_ids(new)) == 3,
    ("response_ids", "one_for_all"): lambda new, old: response_ids(new) == {"resp_1"},
    ("response_ids", "empty"): lambda new, old: response_ids(new) == {""},
    ("indexes", "missing"): lambda new, old: not any("output_index" in event for event in new),
    ("indexes", "constant"): lambda new, old: {event.get("output_index", 0) for event in new} == {0},
    ("indexes", "growing"): lambda new, old: len({event.get("output_index") for event in new}) > len(new) - 4,
    ("indexes", "shifted"): lambda new, old: {event.get("output_index") for event in new} == {None, 1, 2, 3, 4},
    ("call_ids", "missing"): lambda new, old: "call_id" not in new[-1]["response"]["output"][2],
    ("call_ids", "one_for_all"): lambda new, old: new[-1]["response"]["output"][2]["call_id"] == "call_1",
    ("arguments", "object"): lambda new, old: new[-1]["response"]["output"][2]["arguments"] == {"a": 1, "b": 2},
    ("arguments", "null"): lambda new, old: new[-1]["response"]["output"][2]["arguments"] is None,
    ("arguments", "empty"): lambda new, old: new[-1]["response"]["output"][2]["arguments"] == "",
    ("events", "twice"): lambda new, old: kinds(new).count("output_item.done") == 8,
    ("events", "deltas_twice"): lambda new, old: (
        kinds(new).count("output_text.delta") == 2 * kinds(old).count("output_text.delta")
    ),
    ("events", "late"): lambda new, old: kinds(new) != kinds(old) and sorted(kinds(new)) == sorted(kinds(old)),
    ("events", "items_unannounced"): lambda new, old: "output_item.added" not in kinds(new),
    ("events", "done_only"): lambda new, old: not [kind for kind in kinds(new) if kind.endswith("delta")],
    ("events", "deltas_only"): lambda new, old: (
        not [kind for kind in kinds(new) if kind.endswith("done")] and last_ids(new) == []
    ),
    ("events", "items_done_only"): lambda new, old: (
        set(kinds(new)) == {"created", "in_progress", "output_item.done", "completed"} and last_ids(new) == []
    ),
    ("events", "terminal_only"): lambda new, old: kinds(new) == ["created", "in_progress", "completed"],
}


@pytest.mark.parametrize(("member", "value"), HABITS)
async def test_what_a_habit_does_to_the_wire(member: str, value: str) -> None:
    events, kept = await told(**{member: value}), await told()
    assert WIRE[member, value](events, kept)
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert kinds(events)[-1] == "completed"
    assert not WIRE[member, value](kept, kept)


@pytest.mark.parametrize(("member", "value"), HABITS)
async def test_the_server_itself_is_not_confused(member: str, value: str) -> None:
    quirks = Quirks(**{member: value})  # type: ignore[arg-type]
    async with open_simulator(in_memory=True, brain=Script([TURN] * 2), quirks=quirks) as sim:
        for streams in (True, False):
            answer = await post(sim, stream=streams)
            assert answer.complete
        for record in sim.requests:
            output = sim.response(record.response_id or "")["output"]
            assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "message"]
            assert output[2]["call_id"] == "call_9"
        if member != "response_ids":
            assert text_of(answer.json) == "Let me add. Done."


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
@pytest.mark.parametrize(("member", "value"), HABITS)
async def test_a_careful_reader_reads_it_all_the_same(
    autojump_clock: MockClock, member: str, value: str, transport: engine.Transport
) -> None:
    quirks = Quirks(**{member: value})  # type: ignore[arg-type]
    script = Script([TURN, [Created(), Say("Next.")], [Created(), Say("Last.")]])
    async with session_to(script, sim_options={"quirks": quirks}, transport=transport) as (session, sim):
        message = await session.ask("hi", tools=[FUNCTION])
        assert message.text == "Let me add. Done."
        (call,) = message.tool_calls
        assert call.name == "add"
        if member != "arguments" or value == "object":
            assert call.arguments == {"a": 1, "b": 2}
        assert (await session.ask("more")).text == "Next."
        assert (await session.ask("more")).text == "Last."
        assert len(sim.requests) == 3
        assert len(sim.connections) == 1
        assert trio.current_time() == 0


@pytest.mark.parametrize("item_ids", ["renewed", "empty", "null", "one_for_all"])
@pytest.mark.parametrize("indexes", ["missing", "growing", "shifted"])
@pytest.mark.parametrize("events", ["items_unannounced", "late"])
async def test_text_comes_once_where_neither_names_nor_positions_say_what_an_event_is_about(
    autojump_clock: MockClock, item_ids: Any, indexes: Any, events: Any
) -> None:
    quirks = Quirks(item_ids=item_ids, indexes=indexes, events=events)
    script = Script([[Say("one and ", size=1), Say("two", size=1)]])
    async with session_to(script, sim_options={"quirks": quirks}) as (session, _):
        async with session.turn("hi") as turn:
            shown = "".join([text async for text in turn.texts()])
        assert (turn.message.text, shown) == ("one and two", "one and two")


@pytest.mark.parametrize("item_ids", [None, *get_args(ItemIds)])
@pytest.mark.parametrize("call_ids", [None, *get_args(CallIds)])
@pytest.mark.parametrize("indexes", ["missing", "growing"])
@pytest.mark.parametrize("events", ["late", "twice", "items_unannounced", "items_done_only"])
async def test_every_call_is_there_once_where_little_else_can_be_relied_on(
    autojump_clock: MockClock, item_ids: Any, call_ids: Any, indexes: Any, events: Any
) -> None:
    quirks = Quirks(item_ids=item_ids, call_ids=call_ids, indexes=indexes, events=events)
    turn: list[Step] = [Think("I add."), Call("add", {"a": 1}, call_id="call_1"), Say("And."), Call("add", {"a": 2})]
    async with session_to(Script([turn]), sim_options={"quirks": quirks}) as (session, _):
        message = await session.ask("hi", tools=[FUNCTION])
    assert [call.arguments for call in message.tool_calls] == [{"a": 1}, {"a": 2}]
    assert message.text == "And."
    if (
        events != "twice" or item_ids != "renewed"
    ):  # two thoughts may say the same, and nothing tells that these are one
        assert "".join(block.text for block in message.thinking) == "I add."


@pytest.mark.parametrize(
    "habits", [{"call_ids": "one_for_all"}, {"call_ids": "missing", "item_ids": "empty"}], ids=["one id", "no ids"]
)
async def test_calls_that_are_told_by_their_deltas_only(autojump_clock: MockClock, habits: dict[str, Any]) -> None:
    turn: list[Step] = [Call("add", {"a": 1}), Call("add", {"a": 2})]
    quirks = Quirks(events="deltas_only", **habits)
    async with session_to(Script([turn]), sim_options={"quirks": quirks}) as (session, _):
        message = await session.ask("hi", tools=[FUNCTION])
    assert [call.arguments for call in message.tool_calls] == [{"a": 1}, {"a": 2}]
