"""Turns as their callers see them, in memory and in virtual time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from policies import ONE_WAY
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.instruments import ConnectionInfo, EventInfo, RequestInfo, TurnEndInfo, TurnStartInfo
from engine.simulator import (
    Answer,
    Call,
    Completed,
    Created,
    CutMidFrame,
    Delay,
    EndItem,
    Error,
    Failed,
    Gate,
    Incomplete,
    Keepalive,
    Late,
    Quirks,
    Refuse,
    Say,
    SayDelta,
    Script,
    Stall,
    Think,
    open_simulator,
)

session_to = session_with(**ONE_WAY)


async def test_ask_returns_the_whole_answer(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        reply = await session.ask("What is 2+2?")
    assert reply.text == "4"
    assert reply.stop_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == sum(filter(None, (reply.usage.input_tokens, reply.usage.output_tokens)))
    assert reply.response_id == sim.requests[0].response_id


async def test_a_turn_says_how_far_it_is() -> None:
    brain = Script([Answer("Hello"), [SayDelta("x"), Failed("server_error")], [Created(), Stall()]])
    async with session_to(brain) as (session, _):
        turn = session.turn("private")
        assert repr(turn) == "<Turn of session 'default', not entered>"
        async with turn:
            assert repr(turn) == "<Turn of session 'default', not answered yet>"
            await turn.wait()
        assert repr(turn) == "<Turn of session 'default', answered>"
        async with session.lane("critic").turn("private") as turn:
            with pytest.raises(engine.ResponseFailed):
                await turn.wait()
        assert repr(turn) == "<Turn of lane 'critic' of session 'default', failed: ResponseFailed>"
        async with session.turn("private") as turn:
            pass
        assert repr(turn) == "<Turn of session 'default', left>"


async def test_a_reply_says_how_far_it_is() -> None:
    async with session_to() as (session, _):
        reply = session.conversation().stream("private")
        assert repr(reply) == "<Reply, not entered>"
        async with reply:
            assert repr(reply) == "<Reply, not answered yet>"
            async for _event in reply:
                pass
        assert repr(reply) == "<Reply, answered>"
        async with session.conversation().stream("private") as reply:
            pass
        assert repr(reply) == "<Reply, left>"


async def test_a_turn_streams_events_that_add_up_to_its_message(autojump_clock: MockClock) -> None:
    brain = Script([[Think("Let me see."), Say("Hello there"), Call("look", {"at": 1})]])
    async with session_to(brain) as (session, _), session.turn("hi") as turn:
        events = [event async for event in turn]
    kinds = [
        type(event).__name__
        for event in events
        if not isinstance(event, (engine.TextDelta, engine.ThinkingDelta, engine.ToolCallDelta))
    ]
    assert kinds == [
        "TurnStarted",
        "ThinkingStarted",
        "ThinkingEnded",
        "TextStarted",
        "TextEnded",
        "ToolCallStarted",
        "ToolCallEnded",
        "TurnDone",
    ]
    done = events[-1]
    assert isinstance(done, engine.TurnDone)
    assert done.reason == "tool_use"
    assert done.message is turn.message
    seen: list[Any] = list(events)
    blocks: tuple[Any, ...] = turn.message.content
    for index, block in enumerate(blocks):
        deltas = "".join(e.delta for e in seen if hasattr(e, "delta") and e.index == index)
        ended = next(e.block for e in seen if type(e).__name__.endswith("Ended") and e.index == index)
        assert ended == block
        text = block.raw_arguments if isinstance(block, engine.ToolCall) else block.text
        assert deltas == text
    assert turn.message.tool_calls[0].arguments == {"at": 1}


async def test_two_turns_started_at_once_are_served_in_order_each_with_its_own_answer(
    autojump_clock: MockClock,
) -> None:
    async with session_to() as (session, sim):
        answers: dict[str, str] = {}

        async def ask(nonce: str) -> None:
            answers[nonce] = (await session.ask(nonce)).text

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, f"nonce-{number}")
    assert answers == {f"nonce-{n}": f"nonce-{n}" for n in range(8)}
    assert len(sim.connections) == 1
    spans = sorted((r.received_at, r.finished_at) for r in sim.requests)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))  # type: ignore[operator]


async def test_a_second_turn_nested_in_the_first_waits_and_is_then_served(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("first", pause=1.0), Answer("second")])) as (session, _):
        async with session.turn("1") as first, session.turn("2") as second:
            assert (await second.wait()).text == "second"
            assert (await first.wait()).text == "first"


async def test_refusals_stream_as_text_and_are_kept_apart(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Refuse("No.")]])) as (session, _), session.turn("hi") as turn:
        events = [event async for event in turn]
    assert "".join(e.delta for e in events if isinstance(e, engine.TextDelta)) == "No."
    assert turn.message.refusal == "No."
    assert turn.message.text == ""


async def test_an_answer_cut_by_the_token_limit_is_an_answer(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Say("half an"), Incomplete()]])) as (session, _):
        reply = await session.ask("hi")
    assert reply.stop_reason == "length"
    assert reply.text == "half an"


async def test_a_content_filter_is_a_failure_with_what_had_arrived(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("half"), Incomplete("content_filter")]])) as (session, _):
        with pytest.raises(engine.ResponseFailed) as caught:
            await session.ask("hi")
    assert caught.value.code == "content_filter"
    assert caught.value.delivery is engine.Delivery.ACCEPTED
    assert caught.value.partial is not None
    assert caught.value.partial.text == "half"


async def test_a_failed_response_is_told_with_its_code_and_the_session_goes_on(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Failed("server_error", "secret words")], Answer("fine")])) as (
        session,
        sim,
    ):
        with pytest.raises(engine.ResponseFailed) as caught:
            await session.ask("hi")
        assert caught.value.code == "server_error"
        assert caught.value.message == "secret words"
        assert "secret" not in str(caught.value)
        assert (await session.ask("again")).text == "fine"
    assert len(sim.connections) == 1


async def test_a_rejected_request_is_told_with_all_the_server_said(autojump_clock: MockClock) -> None:
    error = Error(404, "model_not_found", "no such model: x", "invalid_request_error", "model")
    async with session_to(Script([error, Answer("fine")])) as (session, sim):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("hi")
        rejected = caught.value
        assert (rejected.status, rejected.code, rejected.type, rejected.param) == (
            404,
            "model_not_found",
            "invalid_request_error",
            "model",
        )
        assert rejected.delivery is engine.Delivery.REJECTED
        assert rejected.partial is None
        assert rejected.report is not None
        assert rejected.report.attempts == 1
        assert (await session.ask("again")).text == "fine"
    assert len(sim.connections) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Error(401, "invalid_api_key", "x", "invalid_request_error"), engine.AuthenticationFailed),
        (Error(429, "rate_limit_exceeded", "x", "rate_limit_error", headers={"retry-after": "77"}), engine.RateLimited),
    ],
)
async def test_rejections_have_classes_of_their_own(
    autojump_clock: MockClock, error: Error, kind: type[engine.RequestRejected]
) -> None:
    async with session_to(Script([error])) as (session, _):
        with pytest.raises(kind) as caught:
            await session.ask("hi")
    assert type(caught.value) is kind
    if isinstance(caught.value, engine.RateLimited):
        assert caught.value.retry_after == 77.0


async def test_a_connection_cut_mid_answer_is_lost_with_the_partial_and_the_next_turn_has_a_new_one(
    autojump_clock: MockClock,
) -> None:
    async with session_to(Script([[SayDelta("par"), CutMidFrame()], Answer("whole")])) as (session, sim):
        with pytest.raises(engine.ConnectionLost) as caught:
            await session.ask("hi")
        assert caught.value.close_code == 1006
        assert caught.value.partial is not None
        assert caught.value.partial.text == "par"
        assert caught.value.delivery is engine.Delivery.ACCEPTED
        assert (await session.ask("again")).text == "whole"
    assert len(sim.connections) == 2


async def test_buffered_events_come_before_the_failure_and_the_failure_comes_again(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("a"), SayDelta("b"), CutMidFrame()]])) as (session, _):
        async with session.turn("hi") as turn:
            await trio.testing.wait_all_tasks_blocked()
            texts = []
            with pytest.raises(engine.ConnectionLost) as first:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        texts.append(event.delta)
            with pytest.raises(engine.ConnectionLost) as second:
                await anext(turn)
            with pytest.raises(engine.ConnectionLost):
                await turn.wait()
            with pytest.raises(engine.ConnectionLost):
                _ = turn.message
    assert texts == ["a", "b"]
    assert first.value is second.value


async def test_iterating_past_the_end_goes_on_ending(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _), session.turn("hi") as turn:
        assert len([event async for event in turn]) > 2
        assert [event async for event in turn] == []
        assert (await turn.wait()).text == "hi"


async def test_waiting_gives_the_message_without_buffering(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("x" * 400)]), limits=engine.Limits(buffer_events=5)) as (session, _):
        assert (await session.ask("hi")).text == "x" * 400


async def test_a_consumer_that_falls_behind_loses_its_turn_and_nobody_elses(autojump_clock: MockClock) -> None:
    script = Script([[step for _ in range(50) for step in (SayDelta("abc"), Delay(0.001))], Answer("fine")])
    async with session_to(script, limits=engine.Limits(buffer_events=10)) as (session, _):
        async with session.turn("hi") as turn:
            await trio.sleep(1)
            seen = []
            with pytest.raises(engine.BufferOverflow) as caught:
                async for event in turn:
                    seen.append(event)
        assert len(seen) == 12  # eleven had been left lying when the last one came
        assert caught.value.partial is not None
        assert (await session.ask("again")).text == "fine"


@pytest.mark.parametrize("together", [100, 400])
async def test_what_comes_at_once_is_not_held_against_a_consumer(autojump_clock: MockClock, together: int) -> None:
    script = Script([[SayDelta("abc") for _ in range(together)]])
    async with open_simulator(in_memory=True, brain=script, quirks=Quirks(chunks=1000)) as sim:
        limits = engine.Limits(buffer_events=10)
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer, limits=limits) as session:
            async with session.turn("hi") as turn:
                assert len([event async for event in turn]) > together


async def test_the_buffer_is_bounded_in_bytes_too(autojump_clock: MockClock) -> None:
    async with session_to(
        Script([[SayDelta("x" * 600), Delay(0.1), SayDelta("y" * 600), Delay(0.1), SayDelta("z"), Stall()]]),
        limits=engine.Limits(buffer_bytes=1000),
    ) as (session, _):
        async with session.turn("hi") as turn:
            await trio.sleep(1)
            with pytest.raises(engine.BufferOverflow):
                await turn.wait()


async def test_leaving_early_abandons_the_turn_and_the_next_gets_its_own_answer(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("old"), Delay(1), Say("old answer")], Answer("new")])) as (session, sim):
        async with session.turn("1") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
        assert turn.partial.text == "old"
        with pytest.raises(RuntimeError, match="not ended"):
            _ = turn.message
        assert (await session.ask("2")).text == "new"
        assert session.statistics().turns_abandoned == 1
    assert [r.status for r in sim.requests] == ["lost", "completed"]


async def test_a_turn_left_in_the_queue_never_reaches_the_server(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    async with session_to(Script([[Created(), Gate(gate), Say("first")], Answer("third")])) as (session, sim):
        async with session.turn("1") as first:
            with trio.move_on_after(5) as scope:
                async with session.turn("2"):
                    pytest.fail("the lane is taken")
            assert scope.cancelled_caught
            gate.set()
            assert (await first.wait()).text == "first"
        assert (await session.ask("3")).text == "third"
    assert [r.input[0]["content"] for r in sim.requests] == ["1", "3"]
    assert len(sim.connections) == 1


async def test_the_callers_exception_passes_through_untouched(autojump_clock: MockClock) -> None:
    mine = ValueError("mine")
    async with session_to(Script([[Created(), Stall()]])) as (session, _):
        with pytest.raises(ValueError, match="mine") as caught:
            async with session.turn("hi"):
                raise mine
    assert caught.value is mine
    with pytest.raises(ValueError, match="mine") as caught:
        async with session_to():
            raise mine
    assert caught.value is mine


async def test_the_callers_own_group_passes_through_untouched(autojump_clock: MockClock) -> None:
    mine = ExceptionGroup("mine", [ValueError("a")])
    with pytest.raises(ExceptionGroup) as caught:
        async with session_to(Script([[Created(), Stall()]])) as (session, _), session.turn("hi"):
            raise mine
    assert caught.value is mine


async def test_the_callers_own_deadline_keeps_its_meaning(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()], Answer("fine")])) as (session, _):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(3):
                await session.ask("hi")
        assert (await session.ask("again")).text == "fine"


async def test_misuse_of_a_turn_is_told(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()]])) as (session, _):
        turn = session.turn("hi")
        with pytest.raises(RuntimeError, match="enter the turn first"):
            await turn.wait()
        async with turn:
            with pytest.raises(RuntimeError, match="only once"):
                await turn.__aenter__()
            with pytest.raises(RuntimeError, match="not ended"):
                _ = turn.message
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, turn)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(turn)
                with pytest.raises(RuntimeError, match="another task"):
                    await turn.wait()
                nursery.cancel_scope.cancel(reason="seen enough")
        with pytest.raises(RuntimeError, match="was left"):
            await anext(turn)


async def test_late_events_after_the_terminal_retire_the_connection_before_the_next_turn(
    autojump_clock: MockClock,
) -> None:
    late = Late([SayDelta("ghost")], after=1)
    async with session_to(Script([[late, Say("first"), Completed()], Answer("second")])) as (session, sim):
        assert (await session.ask("1")).text == "first"
        await trio.sleep(5)
        assert (await session.ask("2")).text == "second"
    assert len(sim.connections) == 2


async def test_keepalives_are_no_output(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Keepalive(), Created(), Keepalive(), Say("ok"), EndItem()]])) as (session, _):
        async with session.turn("hi") as turn:
            events = [event async for event in turn]
    assert isinstance(events[0], engine.TurnStarted)
    assert turn.message.text == "ok"


async def test_the_report_says_what_happened(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Delay(2), Say("one")], [Delay(1), Say("two")]])) as (session, sim):
        async with session.turn("1") as first:
            await first.wait()
        async with session.turn("2") as second:
            await second.wait()
    assert first.report.transport == "websocket"
    assert (first.report.attempts, first.report.connection_reused) == (1, False)
    assert second.report.connection_reused
    assert first.report.bytes_sent == first.report.bytes_full == sim.requests[0].size
    assert first.report.response_id == sim.requests[0].response_id
    assert first.report.delivery is engine.Delivery.ACCEPTED
    assert first.report.fallback_reason is None
    assert first.report.seconds.first_event == 0
    assert first.report.seconds.total == 2
    assert second.report.seconds.first_event == 1


async def test_instruments_see_a_turn_from_end_to_end(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    class Watch(engine.Instrument):
        def connection_opened(self, info: ConnectionInfo, /) -> None:
            seen.append(f"opened {info.session} {info.connection}")

        def connection_closed(self, info: ConnectionInfo, /) -> None:
            seen.append(f"closed {info.connection}")

        def turn_started(self, info: TurnStartInfo, /) -> None:
            seen.append("started")

        def request_sent(self, info: RequestInfo, /) -> None:
            seen.append("sent")

        def event_received(self, info: EventInfo, /) -> None:
            seen.append(info.event.type)

        def turn_ended(self, info: TurnEndInfo, /) -> None:
            seen.append(f"ended {info.report.response_id is not None} {info.error}")

    async with session_to(Script([[Created(), SayDelta("a")]]), instruments=[Watch()]) as (session, _):
        await session.ask("hi")
    assert seen[:4] == ["started", "opened default 1", "sent", "response.created"]
    assert seen[-3:] == ["response.completed", "ended True None", "closed 1"]


async def test_statistics_are_a_frozen_record(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        before = session.statistics()
        assert (before.turns_started, before.connections_opened, before.connections) == (0, 0, ())
        await session.ask("hi")
        after = session.statistics()
    assert (after.turns_started, after.turns_completed, after.turns_failed, after.queued, after.active) == (
        1,
        1,
        0,
        0,
        0,
    )
    connection = after.connections[0]
    assert connection.state == "open"
    assert connection.requests == 1
    assert connection.in_flight == 0
    assert connection.bytes_sent > 0
    assert connection.events > 3
    with pytest.raises(AttributeError):
        after.queued = 3  # type: ignore[misc]


async def test_nothing_is_dialled_before_the_first_turn(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        await trio.sleep(10)
        assert sim.connections == []
        await session.ask("hi")
        assert len(sim.connections) == 1


async def test_an_idle_connection_is_closed_and_reopened_by_the_next_turn(autojump_clock: MockClock) -> None:
    async with session_to(limits=engine.Limits(idle_lifetime=60)) as (session, sim):
        await session.ask("1")
        await trio.sleep(59)
        assert session.connected
        await trio.sleep(2)
        assert not session.connected
        assert sim.open_connections == []
        assert (await session.ask("2")).text == "2"


async def test_an_old_connection_takes_no_new_turn(autojump_clock: MockClock) -> None:
    limits = engine.Limits(connection_lifetime=100, idle_lifetime=None)
    async with session_to(limits=limits) as (session, sim):
        await session.ask("1")
        await trio.sleep(101)
        assert (await session.ask("2")).text == "2"
        assert len(sim.connections) == 2
        assert len(sim.open_connections) == 1


async def test_a_session_released_while_a_turn_runs_fails_it_at_once(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[SayDelta("so far"), Stall()]])) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            session = await eng.session("a")
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(engine.SessionClosed) as caught:
                        await session.ask("hi")
                    assert caught.value.partial is not None
                    assert caught.value.partial.text == "so far"

                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                assert await eng.release("a")
            with pytest.raises(engine.SessionClosed):
                await session.ask("too late")


async def test_an_answer_that_comes_whole_is_not_lost_to_a_full_buffer(autojump_clock: MockClock) -> None:
    quirks = Quirks(chunks=64)
    seen = 0
    for limits in (engine.Limits(), engine.Limits(buffer_events=1)):
        async with open_simulator(in_memory=True, brain=Script([[SayDelta("a")]]), quirks=quirks) as sim:
            if seen:
                limits = engine.Limits(buffer_events=seen - 1)  # the last event of all is one too many
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer, limits=limits) as session:
                async with session.turn("hi") as turn:
                    await trio.sleep(1)
                    events = [event async for event in turn]
        assert isinstance(events[-1], engine.TurnDone)
        assert turn.message.text == "a"
        seen = len(events)


async def test_a_reader_whose_block_another_task_leaves_is_told(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()]])) as (session, _):
        turn = session.turn("hi")
        await turn.__aenter__()

        async def read() -> None:
            with pytest.raises(RuntimeError, match="was left"):
                await anext(turn)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await turn.__aexit__(None, None, None)


async def test_what_had_arrived_does_not_grow_after_the_turn_was_left(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("a"), Delay(1), SayDelta("b")]])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN) as (session, _):
        async with session.turn("hi") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
        await trio.sleep(5)
        assert turn.partial.text == "a"


async def test_a_broken_session_tells_its_turns_why(autojump_clock: MockClock) -> None:
    class Clumsy(engine.Endpoint):
        """An endpoint that breaks only when a connection is made."""

        @property
        def websocket(self) -> Any:
            if opened:
                raise ZeroDivisionError("a bug")
            return super().websocket

    opened = False

    async with open_simulator(in_memory=True) as sim:
        clumsy = Clumsy(sim.base_url, sim.api_key)
        async with engine.open_session(clumsy, model="m", dialer=sim.dialer) as session:
            opened = True
            with pytest.raises(engine.SessionClosed) as caught:
                await session.ask("hi")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
