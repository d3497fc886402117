"""Steering a turn: what is accepted, what is applied, what comes back, and that a steered turn is one turn."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing
from policies import ONE_WAY
from sessions import session_with
from trio.testing import MockClock

import engine
from engine import Delivery, SteerRejected, Transport, TurnContinued, TurnDone, TurnOptions
from engine.simulator import (
    Call,
    Completed,
    Delay,
    Echo,
    EndItem,
    Error,
    Failed,
    Gate,
    RawItem,
    Reject,
    Say,
    SayDelta,
    Script,
)

session_to = session_with(model="gpt-6-astra")

LOOK = engine.Tool("look", "Look.", {"type": "object", "properties": {}}, strict=False)


def said(message: object) -> tuple[str, str]:
    match message:
        case engine.UserMessage(content=(engine.Text(text),)):
            return "user", text
        case engine.AssistantMessage():
            return "assistant", message.text
    return type(message).__name__, ""


def words(item: Any) -> str:
    content = item.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def until_text(turn: engine.Turn) -> None:
    async for event in turn:
        if isinstance(event, engine.TextDelta):
            return


# --- the three ways in which a steer is applied


async def test_a_steer_that_interrupts(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1), SayDelta("two "), EndItem(), Say("never")], [Say("three")]])
    async with session_to(script) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("faster")
            events = [event async for event in turn]
        (continued,) = [event for event in events if isinstance(event, TurnContinued)]
        first, _, last = turn.messages
        assert isinstance(first, engine.AssistantMessage)
        assert isinstance(last, engine.AssistantMessage)
        assert [said(each) for each in turn.messages] == [
            ("assistant", "one two "), ("user", "faster"), ("assistant", "three"),
        ]  # fmt: skip
        assert turn.message.text == "one two three"
        assert events[-1] == TurnDone("stop", turn.message)
        assert continued.response_id == last.response_id == turn.message.response_id == turn.report.response_id
        assert first.response_id not in {None, last.response_id}
        assert first.usage is not None
        assert last.usage is not None
        assert turn.message.usage == first.usage + last.usage == turn.report.usage
        assert session.statistics().usage == turn.message.usage
        assert turn.report.unapplied == ()
        assert turn.report.attempts == 1
        assert [each.index for each in events if isinstance(each, engine.TextStarted)] == [1]
        # What a conversation would say next is only what the server does not hold.
        context = engine.Context([engine.UserMessage("count"), *turn.messages, engine.UserMessage("more")])
        async with session.turn(context) as following:
            await following.wait()
        assert following.report.continued
        assert len(sim.requests[-1].input) == 1
        assert [each["role"] for each in sim.history(last.response_id or "")] == ["user", "assistant"] * 2
        assert len(sim.connections) == 1


async def test_a_steer_that_is_applied_after_a_clean_end(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1), SayDelta("two "), Completed()], [Say("three")]])
    async with session_to(script) as (session, _):
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("go on")
            message = await turn.wait()
        assert message.text == "one two three"
        assert [said(each)[0] for each in turn.messages] == ["assistant", "user", "assistant"]


@pytest.mark.parametrize("more", [False, True])
async def test_a_steer_that_waits_for_outputs(autojump_clock: MockClock, more: bool) -> None:
    script = Script([[SayDelta("I look. "), Delay(1), Call("look", {}, call_id="c1")], [Say("Seen.")]])
    async with session_to(script) as (session, sim):
        question = engine.UserMessage("look")
        async with session.turn(engine.Context([question], tools=[LOOK])) as turn:
            await until_text(turn)
            await turn.steer("closely")
            if more:
                await turn.steer(engine.UserMessage("and twice"))
            message = await turn.wait()
        assert message.stop_reason == "tool_use"
        steered = [("user", "closely"), ("user", "and twice")][: 1 + more]
        assert [said(each) for each in turn.messages] == [("assistant", "I look. "), *steered]
        assert turn.report.unapplied == ()
        context = engine.Context([question, *turn.messages, engine.ToolResult("c1", "a cat")], tools=[LOOK])
        async with session.turn(context) as following:
            assert (await following.wait()).text == "Seen."
        assert following.report.continued
        sent = [item["type"] for item in sim.connections[0].requests[-1].body["input"]]
        assert sent == ["function_call_output"], "the server has the rest"
        held = sim.history(following.message.response_id or "")
        assert [item["type"] for item in held[2:-1]] == [
            "function_call",
            *["message"] * (1 + more),
            "function_call_output",
        ]
        async with session.turn(
            engine.Context([*context.messages, following.message, engine.UserMessage("?")])
        ) as last:
            await last.wait()
        assert last.report.continued


async def test_what_waits_for_outputs_is_said_again_where_the_request_goes_whole(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("I look. "), Delay(1), Call("look", {}, call_id="c1")], [Say("Seen.")]])
    async with session_to(script) as (session, sim):
        question = engine.UserMessage("look")
        async with session.turn(engine.Context([question], tools=[LOOK])) as turn:
            await until_text(turn)
            await turn.steer("closely")
            await turn.wait()
        sim.abort()
        await trio.testing.wait_all_tasks_blocked()
        context = engine.Context([question, *turn.messages, engine.ToolResult("c1", "a cat")], tools=[LOOK])
        async with session.turn(context) as following:
            await following.wait()
        assert not following.report.continued
        roles = [item.get("role") or item["type"] for item in sim.requests[-1].input]
        assert roles == ["user", "assistant", "function_call", "user", "function_call_output"]


async def test_what_waits_for_outputs_is_not_said_twice_after_a_refusal(autojump_clock: MockClock) -> None:
    limited = Error(429, headers={"retry-after": "1"})
    script = Script([[SayDelta("I look. "), Delay(1), Call("look", {}, call_id="c1")], [limited], [Say("Seen.")]])
    async with session_to(script) as (session, sim):
        question = engine.UserMessage("look")
        async with session.turn(engine.Context([question], tools=[LOOK]), store=True) as turn:
            await until_text(turn)
            await turn.steer("closely")
            await turn.wait()
        context = engine.Context([question, *turn.messages, engine.ToolResult("c1", "a cat")], tools=[LOOK])
        async with session.turn(context, store=True) as following:
            await following.wait()
        assert following.report.attempts == 2
        held = sim.history(following.message.response_id or "")
        assert [item.get("content") for item in held].count("closely") <= 1
        texts = [part["text"] for item in held for part in item.get("content", ()) if isinstance(part, dict)]
        assert texts.count("closely") + [item.get("content") for item in held].count("closely") == 1


async def test_a_fork_says_what_waits_for_its_parent_only(autojump_clock: MockClock) -> None:
    script = Script(
        [[SayDelta("I look. "), Delay(1), Call("look", {}, call_id="c1")], [Say("Forked.")], [Say("Seen.")]]
    )
    async with session_to(script) as (session, sim):
        question = engine.UserMessage("look")
        async with session.turn(engine.Context([question], tools=[LOOK])) as turn:
            await until_text(turn)
            await turn.steer("closely")
            await turn.wait()
        result = engine.ToolResult("c1", "a cat")
        fork = session.fork("other")
        assert (await fork.ask(engine.Context([result], tools=[LOOK]))).text == "Forked."
        context = engine.Context([question, *turn.messages, result], tools=[LOOK])
        assert (await session.ask(context)).text == "Seen."
        for request in sim.requests[-2:]:
            held = sim.history(request.response_id or "")
            assert [words(item) for item in held].count("closely") == 1


# --- several


async def test_several_steers_and_one_for_the_successor(autojump_clock: MockClock) -> None:
    gates = [trio.Event(), trio.Event()]
    script = Script(
        [
            [SayDelta("one "), Gate(gates[0])],
            [SayDelta("two "), Gate(gates[1])],
            [Say("three")],
        ]
    )
    async with session_to(script) as (session, _):
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("a")
            gates[0].set()
            await until_text(turn)
            await turn.steer([engine.UserMessage("b"), engine.UserMessage("c")])
            gates[1].set()
            message = await turn.wait()
        assert message.text == "one two three"
        assert [said(each) for each in turn.messages] == [
            ("assistant", "one "), ("user", "a"), ("assistant", "two "), ("user", "b"), ("user", "c"),
            ("assistant", "three"),
        ]  # fmt: skip
        async with session.turn(engine.Context([engine.UserMessage("count"), *turn.messages])) as following:
            await following.wait()
        assert following.report.continued


async def test_of_two_steers_at_once_no_more_is_known_than_that_they_were_applied(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1)], [Say("two")]], then=Echo())
    async with session_to(script) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(turn.steer, "a")
                nursery.start_soon(turn.steer, "b")
            await turn.wait()
        assert sorted(said(each)[1] for each in turn.messages[1:3]) == ["a", "b"]
        # Whether the second has a successor of its own is not known: nothing of one can reach the next turn.
        assert (await session.ask("next")).text == "next"
        assert len({request.body.get("stream_id") for request in sim.requests}) == 2 or len(sim.connections) == 2


async def test_steers_reach_the_server_in_the_order_in_which_they_were_given(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1)], [Say("two")]])
    async with session_to(script) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            for number in range(5):
                await turn.steer(str(number))
            await turn.wait()
        assert [each["input"][0]["content"] for each in sim.connections[0].steers] == list("01234")
        assert [said(each)[1] for each in turn.messages[1:-1]] == list("01234")


async def test_a_steer_before_the_response_has_begun_waits_until_it_has(autojump_clock: MockClock) -> None:
    script = Script([[Delay(1), SayDelta("one "), Delay(1)], [Say("two")]])
    async with session_to(script) as (session, sim):
        async with session.turn("count") as turn:
            await turn.steer("at once")
            assert len(sim.connections[0].steers) == 1
            assert (await turn.wait()).text == "one two"


async def test_a_successor_before_any_output(autojump_clock: MockClock) -> None:
    script = Script([[RawItem({"type": "reasoning", "id": "rs_1", "summary": []}), Delay(1)], [Say("two")]])
    async with session_to(script) as (session, _):
        async with session.turn("count") as turn:
            await turn.steer("at once")
            events = [event async for event in turn]
        assert isinstance(events[0], engine.TurnStarted)
        assert isinstance(events[1], TurnContinued)
        assert events[0].response_id != events[1].response_id
        assert turn.message.text == "two"


async def test_on_a_lane_of_its_own_beside_another(autojump_clock: MockClock) -> None:
    def brain(asked: Any) -> Any:
        text = asked.last_user_text
        return [SayDelta(f"{text} "), Delay(2)] if len(text) == 1 else [Say(text)]

    async with session_to(brain) as (session, sim):

        async def talk(name: str) -> None:
            async with session.lane(name).turn(name) as turn:
                await until_text(turn)
                await turn.steer(f"more of {name}")
                assert (await turn.wait()).text == f"{name} more of {name}"

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(talk, name)
        assert len(sim.connections) == 1


async def test_a_steered_turn_is_freed_at_once(autojump_clock: MockClock) -> None:
    async def talk(session: engine.Session) -> weakref.ref[engine.AssistantMessage]:
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("more")
            return weakref.ref(await turn.wait())

    gc.disable()
    try:
        async with session_to(Script([[SayDelta("one "), Delay(1)], [Say("two")]])) as (session, _):
            message = await talk(session)
            await trio.testing.wait_all_tasks_blocked()
            assert message() is None
    finally:
        gc.enable()


# --- an answer with a format


async def test_the_value_of_a_steered_answer_is_its_last(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta('{"n": 1}'), Delay(1)], [Say('{"n": 2}')]])
    async with session_to(script) as (session, _):
        async with session.turn(
            "count", text_format={"type": "object", "properties": {"n": {"type": "integer"}}}
        ) as turn:
            await until_text(turn)
            await turn.steer("again")
            assert (await turn.wait()).parsed == {"n": 2}


# --- what is refused


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "input: is empty"),
        ([], "input: is empty"),
        (3, "input: is an int, not a string or messages of the user"),
        (b"x", "input: is a bytes"),
        ([engine.DeveloperMessage("x")], r"input\[0\]: is a DeveloperMessage, not a message of the user"),
        ([engine.UserMessage("x"), "y"], r"input\[1\]: is a str"),
        (engine.UserMessage(()), r"input\[0\]: has no content"),
    ],
)
async def test_what_a_turn_cannot_be_steered_with(given: Any, problem: str, autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)]])) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            with pytest.raises(engine.ConfigurationError, match=problem):
                await turn.steer(given)
            assert (await turn.wait()).text == "one "
        assert sim.connections[0].steers == []


async def test_input_that_is_too_large_is_not_sent(autojump_clock: MockClock) -> None:
    limits = engine.Limits(max_request_bytes=2_000)
    async with session_to(Script([[SayDelta("one "), Delay(1)]]), limits=limits) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            with pytest.raises(engine.RequestTooLarge) as caught:
                await turn.steer("x" * 3_000)
            assert caught.value.limit == 2_000
            assert (await turn.wait()).text == "one "
        assert sim.connections[0].steers == []


async def refused(turn: engine.Turn, code: str, words: str, *, sent: bool = False) -> None:
    with pytest.raises(SteerRejected, match=words) as caught:
        await turn.steer("more")
    assert caught.value.code == code
    assert caught.value.delivery is (Delivery.REJECTED if sent else Delivery.NOT_SENT)


async def test_a_turn_that_has_ended_is_not_steered() -> None:
    async with session_to() as (session, sim):
        async with session.turn("hello") as turn:
            await turn.wait()
            await refused(turn, "response_already_completed", "the turn has ended")
        await refused(turn, "response_already_completed", "the turn has ended")
        assert sim.connections[0].steers == []


async def test_a_turn_that_was_not_entered_is_not_steered() -> None:
    async with session_to() as (session, _):
        with pytest.raises(RuntimeError, match="enter the turn first"):
            await session.turn("hello").steer("more")


async def test_a_turn_that_has_failed_is_not_steered() -> None:
    async with session_to(Script([[Failed()]]), **ONE_WAY) as (session, _):
        async with session.turn("hello") as turn:
            with pytest.raises(engine.ResponseFailed):
                await turn.wait()
            await refused(turn, "response_already_completed", "the turn has ended")


async def test_a_turn_that_is_queued_is_not_steered(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(5)]], then=Echo())) as (session, sim):
        waiting = session.turn("two")

        async def second() -> None:
            async with waiting:
                await waiting.wait()

        async with trio.open_nursery() as nursery:
            async with session.turn("one") as turn:
                await until_text(turn)
                nursery.start_soon(second)
                await trio.testing.wait_all_tasks_blocked()
                await refused(waiting, "response_not_active", "waits for its lane")
                await turn.wait()
        assert sim.connections[0].steers == []


@pytest.mark.parametrize("fallen_back", [False, True])
async def test_over_http_a_turn_is_not_steered(autojump_clock: MockClock, fallen_back: bool) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)]])) as (session, sim):
        if fallen_back:
            sim.handshakes.append(Reject(503))
        transport = Transport.AUTO if fallen_back else Transport.SSE
        async with session.turn("count", transport=transport) as turn:
            # Before it has fallen back the steer waits for the response, and is refused then.
            await refused(turn, "steering_not_supported", "goes over HTTP")
            assert (await turn.wait()).text == "one "


async def test_a_server_whose_profile_has_no_steering_is_not_asked(autojump_clock: MockClock) -> None:
    plain = {"endpoint_options": {"profile": engine.Profile("plain")}}
    async with session_to(Script([[SayDelta("one "), Delay(1)]]), sim_options=plain) as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            await refused(turn, "steering_not_supported", "profile .plain. has no steering")
            assert (await turn.wait()).text == "one "
        assert sim.connections[0].steers == []


async def test_a_model_that_cannot_be_steered_says_so(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)]], then=Echo()), model="gpt-5.4") as (session, sim):
        async with session.turn("count") as turn:
            await until_text(turn)
            await refused(turn, "steering_not_supported", "code: steering_not_supported", sent=True)
            assert (await turn.wait()).text == "one "
        assert turn.report.unapplied == ()
        assert [said(each)[0] for each in turn.messages] == ["assistant"]
        assert (await session.ask("next")).text == "next"
        assert len(sim.connections) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"context_management": [{"type": "compaction", "compact_threshold": 10_000}]},
        {"conversation": "conv_1"},
    ],
)
async def test_a_request_that_cannot_be_steered_is_refused(autojump_clock: MockClock, options: Any) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)]])) as (session, sim):
        sim.conversations["conv_1"] = []
        async with session.turn("count", TurnOptions(**options)) as turn:
            await until_text(turn)
            await refused(turn, "steering_not_supported", "code", sent=True)
            await turn.wait()


async def test_more_steers_than_the_server_queues(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)], [Say("two")]])) as (session, _):
        async with session.turn("count") as turn:
            await until_text(turn)
            for number in range(32):
                await turn.steer(f"{number}")
            await refused(turn, "too_many_pending_steers", "code", sent=True)
            await turn.wait()
        assert len(turn.messages) == 34


async def test_a_turn_that_ends_as_soon_as_it_has_begun_is_not_steered() -> None:
    async with session_to(Script(["one"])) as (session, sim):
        async with session.turn("count") as turn:
            await refused(turn, "response_already_completed", "the turn has ended")
            assert (await turn.wait()).text == "one"
        assert sim.connections[0].steers == []
