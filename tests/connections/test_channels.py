"""Continuing what the server holds: deltas, reports, cache misses, and everything that breaks a chain."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from policies import ONE_WAY
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import (
    Accept,
    Answer,
    Call,
    Created,
    Delay,
    Echo,
    Error,
    Event,
    Incomplete,
    Quirks,
    Reject,
    Say,
    SayDelta,
    Script,
    Step,
    Think,
)

session_to = session_with(**ONE_WAY)


async def turn(
    session: engine.Session, messages: list[Any], options: engine.TurnOptions | None = None, **changes: Any
) -> tuple[engine.AssistantMessage, engine.TurnReport]:
    async with session.turn(engine.Context(messages, **changes), options) as running:
        return await running.wait(), running.report


async def test_a_follow_up_sends_only_what_is_new(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, first = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        reply, second = await turn(session, messages)
        messages += [reply, engine.UserMessage("three")]
        reply, third = await turn(session, messages)
    assert reply.text == "three"
    assert (first.continued, second.continued, third.continued) == (False, True, True)
    assert first.full_because == "nothing was sent on this connection and lane yet"
    assert second.full_because is None
    assert [request.previous_response_id for request in sim.requests] == [
        None,
        sim.requests[0].response_id,
        sim.requests[1].response_id,
    ]
    assert [len(request.input) for request in sim.requests] == [1, 1, 1]
    assert second.bytes_sent == sim.requests[1].size < second.bytes_full
    assert third.bytes_full > second.bytes_full
    assert third.bytes_sent < third.bytes_full


async def test_the_tool_follow_up_sends_the_result_alone(autojump_clock: MockClock) -> None:
    brain = Script([[Think("Hm."), Call("add", {"a": 1})], Answer("done")])
    async with session_to(brain) as (session, sim):
        messages: list[Any] = [engine.UserMessage("add")]
        tools = [engine.Tool("add", "Add.", {"properties": {"a": {"type": "number"}}})]
        reply, _ = await turn(session, messages, tools=tools)
        messages += [reply, engine.ToolResult(reply.tool_calls[0].id, "3")]
        reply, report = await turn(session, messages, tools=tools)
    assert reply.text == "done"
    assert report.continued
    call_id = reply and sim.history(sim.requests[0].response_id or "")[-1]["call_id"]
    assert list(sim.requests[1].input) == [{"type": "function_call_output", "call_id": call_id, "output": "3"}]
    assert len(sim.connections) == 1


async def test_an_unrelated_question_is_sent_whole_and_says_why(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        await session.ask("one")
        _, report = await turn(session, [engine.UserMessage("two")])
    assert not report.continued
    assert report.full_because == "input[0]"
    assert report.bytes_sent == report.bytes_full
    assert [request.previous_response_id for request in sim.requests] == [None, None]


async def test_the_field_that_broke_it_is_named(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        _, report = await turn(session, messages, engine.TurnOptions(model="other"))
    assert report.full_because == "model"


async def test_what_may_change_does_not_break_it(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        options = engine.TurnOptions(temperature=0.1, reasoning_effort="low", metadata={"a": "b"})
        _, report = await turn(session, messages, options, instructions="be brief", tools=[engine.Tool("t")])
    assert report.continued


@pytest.mark.parametrize(
    "broken",
    [
        [SayDelta("half"), Incomplete()],
        [Created(), Error(500)],
        [Error(400, "invalid_prompt", type="invalid_request_error")],
    ],
)
async def test_only_a_clean_end_can_be_continued(autojump_clock: MockClock, broken: Any) -> None:
    async with session_to(Script([Answer("one"), broken, Answer("three")])) as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with suppress(engine.TurnError):
            await turn(session, messages)
        _, report = await turn(session, messages)
    assert not report.continued
    assert report.full_because == "the previous response did not end cleanly"
    assert len(sim.connections) == 1


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_a_turn_that_was_left_breaks_it(autojump_clock: MockClock, policy: engine.OnCancel) -> None:
    script = Script([Answer("one"), [Created(), SayDelta("x"), Delay(1), Say("y")], Answer("three")])
    async with session_to(script, on_cancel=policy) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with trio.move_on_after(0.5):
            await turn(session, messages)
        reply, report = await turn(session, messages)
    assert reply.text == "three"
    assert not report.continued


async def test_a_turn_left_in_the_queue_breaks_nothing(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("one"), Answer("two", delay=5), Answer("three")])) as (session, _sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        async with session.turn(engine.Context(messages)) as second:
            with trio.move_on_after(1):
                await session.ask("left in the queue")
            messages += [await second.wait(), engine.UserMessage("three")]
        _, report = await turn(session, messages)
    assert report.continued


async def test_a_new_connection_starts_anew(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages)
        sim.abort()
        await trio.sleep(1)
        messages += [reply, engine.UserMessage("two")]
        reply, report = await turn(session, messages)
    assert reply.text == "two"
    assert report.full_because == "nothing was sent on this connection and lane yet"


async def test_a_stored_response_is_continued_on_another_connection(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        options = engine.TurnOptions(store=True)
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages, options)
        sim.abort()
        await trio.sleep(1)
        messages += [reply, engine.UserMessage("two")]
        reply, report = await turn(session, messages, options)
        assert reply.text == "two"
        assert report.continued
        messages += [reply, engine.UserMessage("three")]
        _, report = await turn(session, messages, engine.TurnOptions(store=False))
        assert report.full_because == "store"


@pytest.mark.parametrize("errors", ["nested", "flat"])
async def test_a_cache_miss_is_answered_with_the_whole_input_on_the_same_connection(
    autojump_clock: MockClock, errors: Any
) -> None:
    async with session_to(sim_options={"quirks": Quirks(errors=errors)}) as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages)
        sim.forget()
        messages += [reply, engine.UserMessage("two")]
        async with session.turn(engine.Context(messages)) as running:
            events = [type(event).__name__ async for event in running]
        report = running.report
        assert running.message.text == "two"
        assert events.count("TurnStarted") == 1
        assert report.attempts == 2
        assert not report.continued
        assert report.full_because == "the server no longer held the previous response"
        messages += [running.message, engine.UserMessage("three")]
        _, report = await turn(session, messages)
        assert report.continued
    assert len(sim.connections) == 1
    assert [request.error_code for request in sim.requests][1] == "previous_response_not_found"


async def test_the_resend_stays_within_the_start_budget(autojump_clock: MockClock) -> None:
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    script = Script([Answer("one"), [Delay(6), miss], [Delay(100), Say("late")]])
    async with session_to(script, timeouts=engine.Timeouts(start=10)) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        start = trio.current_time()
        with pytest.raises(engine.TurnTimeout) as caught:
            await turn(session, messages)
    assert caught.value.phase == "start"
    assert trio.current_time() - start >= 10
    assert caught.value.report is not None
    assert caught.value.report.attempts == 2


async def test_a_miss_that_is_told_twice_does_not_end_the_resend(autojump_clock: MockClock) -> None:
    failed = {"id": "resp_refused", "object": "response", "status": "failed", "error": {"code": "server_error"}}
    miss = [Error(400, "previous_response_not_found"), Event({"type": "response.failed", "response": failed})]
    async with session_to(Script([Answer("one"), miss], then=Echo())) as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        reply, report = await turn(session, messages)
    assert (reply.text, report.attempts) == ("two", 2)
    assert len(sim.requests) == 3


@pytest.mark.parametrize("late", [[], [Created()], [Created(), SayDelta("t")]], ids=["first", "announced", "begun"])
async def test_a_miss_that_is_told_again_is_no_word_about_the_resend(
    autojump_clock: MockClock, late: list[Step]
) -> None:
    """It names no response that could be missing, whether the second telling comes before its answer or amid it."""
    again = Event({"type": "error", "status": 400, "error": {"code": "previous_response_not_found"}})
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    async with session_to(Script([Answer("one"), miss, [*late, again, Say("two")]])) as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        reply, report = await turn(session, messages)
        (connection,) = session.statistics().connections
    assert reply.text.endswith("two")
    assert (report.attempts, connection.dropped, len(sim.connections)) == (2, 1, 1)


async def test_of_a_miss_only_one_repeat_is_dropped(autojump_clock: MockClock) -> None:
    again = Event({"type": "error", "status": 400, "error": {"code": "previous_response_not_found"}})
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    async with session_to(Script([Answer("one"), miss, [again, miss]])) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with pytest.raises(engine.RequestRejected) as caught:
            await turn(session, messages)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.report is not None
    assert caught.value.report.attempts == 2


async def test_a_miss_that_nothing_else_follows_is_silence(autojump_clock: MockClock) -> None:
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    script = Script([Answer("one"), miss, miss])
    async with session_to(script, transport=engine.Transport.WEBSOCKET) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with pytest.raises(engine.TurnTimeout, match="first_event budget of 30 s ran out; meanwhile 1 frame was"):
            await turn(session, messages)


async def test_what_the_server_holds_is_the_transcript(autojump_clock: MockClock) -> None:
    """Over many turns, with and without deltas, the server's history is the client's."""
    async with session_to() as (session, sim):
        messages: list[Any] = []
        for number in range(12):
            messages.append(engine.UserMessage(f"message {number}"))
            if number % 5 == 3:
                sim.abort()
                await trio.sleep(1)
            reply, report = await turn(session, messages)
            messages.append(reply)
            assert report.continued is (number % 5 not in {0, 3} or number in {5, 10})
            history = sim.history(reply.response_id or "")
            spoken = [
                item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in history
            ]
            assert spoken == [f"message {n // 2}" for n in range(2 * number + 2)]


async def test_the_chain_is_not_fooled_by_what_the_caller_does_to_its_own_values(autojump_clock: MockClock) -> None:
    body: dict[str, Any] = {"model": "m", "store": False, "input": [{"role": "user", "content": "a secret"}]}
    hook = engine.TurnOptions(payload_hook=lambda _: body)
    async with session_to() as (session, sim):
        async with session.turn("", hook) as first:
            reply = await first.wait()
        body["input"][0]["content"] = "redacted"
        body["input"] += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": "go on"}]
        async with session.turn("", hook) as second:
            await second.wait()
        assert second.report.full_because == "input[0]"
        assert "secret" not in str(sim.history(second.report.response_id or "")[0])


async def test_a_null_in_place_of_the_previous_response_asks_for_the_whole(autojump_clock: MockClock) -> None:
    options = engine.TurnOptions(payload_hook=lambda body: {**body, "previous_response_id": None})
    async with session_to() as (session, sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _ = await turn(session, messages, options)
        messages += [reply, engine.UserMessage("two")]
        _, report = await turn(session, messages, options)
    assert not report.continued
    assert len(sim.requests[1].input) == 3


async def test_a_turn_left_while_its_resend_waits_for_a_connection_frees_its_lane(autojump_clock: MockClock) -> None:
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    script = Script([Answer("one"), [Delay(5), miss], Answer("three")])
    handshakes = {"handshake": [Accept(), Accept(delay=100)]}
    async with session_to(
        script,
        sim_options=handshakes,
        limits=engine.Limits(connection_lifetime=3),
        timeouts=engine.Timeouts(connect=200, start=None),
    ) as (session, _sim):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with trio.move_on_after(20):
            await turn(session, messages)
        async with session.turn("three") as third:
            assert (await third.wait()).text == "three"
        assert third.report.seconds.queue == 0


async def test_a_resend_that_finds_no_connection_was_refused_and_not_unsent(autojump_clock: MockClock) -> None:
    miss = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    script = Script([Answer("one"), [Delay(5), miss]])
    handshakes = {"handshake": [Accept(), Reject(503), Reject(503)]}
    async with session_to(script, sim_options=handshakes, limits=engine.Limits(connection_lifetime=3)) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages)
        messages += [reply, engine.UserMessage("two")]
        with pytest.raises(engine.ConnectFailed) as caught:
            await turn(session, messages)
    assert caught.value.delivery is engine.Delivery.REJECTED


async def test_a_response_the_server_keeps_unasked_is_treated_as_kept(autojump_clock: MockClock) -> None:
    options = engine.TurnOptions(store=None)
    async with session_to(Script([[Think("Hm."), Say("one")], Answer("two")])) as (session, _):
        messages: list[Any] = [engine.UserMessage("one")]
        reply, _report = await turn(session, messages, options)
        messages += [reply, engine.UserMessage("two")]
        _, report = await turn(session, messages, options)
    assert report.continued
