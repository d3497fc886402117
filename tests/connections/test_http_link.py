"""Turns over HTTP with server-sent events: the same events, budgets, errors and leaving as over WebSocket."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import trio
import trio.testing
from invariants import said
from sessions import session_with
from trio.testing import MockClock

import engine
from engine import Delivery, RetryPolicy, Timeouts, Transport
from engine.instruments import EventInfo, FallbackInfo, RequestInfo, RetryInfo
from engine.simulator import (
    Abort,
    Accept,
    Answer,
    Call,
    Close,
    Created,
    CutMidFrame,
    Deaf,
    Delay,
    Error,
    Garbage,
    HangUp,
    Ignore,
    Incomplete,
    Keepalive,
    Mute,
    Oversized,
    Quirks,
    Raw,
    Reject,
    Say,
    SayDelta,
    Script,
    Stall,
    Think,
    WrongJson,
    open_simulator,
)

ONCE = RetryPolicy(max_dispatches=1, back_off=())


session_to = session_with(transport=Transport.SSE, retry=ONCE)


async def events_of(session: engine.Session, prompt: Any = "hi", **options: Any) -> tuple[list[Any], engine.Turn]:
    async with session.turn(prompt, **options) as turn:
        return [event async for event in turn], turn


async def failure(session: engine.Session, **options: Any) -> Any:
    with pytest.raises(engine.TurnError) as caught:
        await session.ask("hi", **options)
    return caught.value


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# --- the same as over WebSocket --------------------------------------------------------------------------------------

ANSWERS: list[Any] = [
    Answer("two plus two is four"),
    [Think(["first", "second"]), Say("so", phase="commentary"), Say("it is", phase="final_answer")],
    [Call("look", {"at": "it"}), Call("look", {"at": "that"})],
    [SayDelta("cut"), Incomplete("max_output_tokens")],
]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_the_same_events_and_message(autojump_clock: MockClock, answer: Any) -> None:
    tools = [engine.Tool("look", "Look.", {"type": "object"}, strict=False)]
    context = engine.Context([engine.UserMessage("hi")], tools=tools)
    seen = []
    for transport in (Transport.WEBSOCKET, Transport.SSE):
        brain = Script([answer])
        async with session_to(brain, transport=transport) as (session, _):
            events, turn = await events_of(session, context)
            said = [getattr(event, "delta", None) for event in events]
            words = ("text", "phase", "name", "raw_arguments")
            content = [[getattr(block, word, None) for word in words] for block in turn.message.content]
            seen.append((kinds(events), said, content, turn.message.stop_reason, turn.message.usage))
            assert turn.report.transport == transport.value
            assert isinstance(events[-1], engine.TurnDone)
            assert events[-1].message is turn.message
    assert seen[0] == seen[1]


async def test_the_request_is_the_same_but_for_what_belongs_to_the_socket(autojump_clock: MockClock) -> None:
    options = engine.TurnOptions(temperature=0.5, metadata={"a": "b"}, max_output_tokens=100, reasoning_effort="low")
    bodies = []
    for transport in (Transport.WEBSOCKET, Transport.SSE):
        async with session_to(Script([Answer("x")]), transport=transport) as (session, sim):
            await session.ask("hi", options)
            bodies.append(dict(sim.requests[0].body))
    over_socket, over_http = bodies
    assert over_http.pop("stream") is True
    assert over_socket.pop("type") == "response.create"
    assert over_http == over_socket


async def test_every_request_is_whole_and_says_so(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("one"), Answer("two")])) as (session, sim):
        chat = session.conversation()
        await chat.send("first")
        async with session.turn(engine.Context([*chat.messages, engine.UserMessage("second")])) as turn:
            await turn.wait()
        assert not turn.report.continued
        assert turn.report.full_because == "every request over HTTP is whole"
        assert len(sim.requests[1].input) == 3
        assert "previous_response_id" not in sim.requests[1].body
        assert len(sim.connections) == 1
        assert turn.report.bytes_sent == sim.requests[1].size
        assert turn.report.connection_reused


async def test_its_report(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Delay(2), Created(), Delay(3), Say("x")]])) as (session, _):
        async with session.turn("hi") as turn:
            await turn.wait()
    report = turn.report
    assert (report.transport, report.attempts, report.delivery) == ("sse", 1, Delivery.ACCEPTED)
    assert (report.seconds.first_event, report.seconds.total) == (2, 5)
    assert report.fallback_reason is None
    assert report.response_id == turn.message.response_id


async def test_a_tool_loop_goes_over_it(autojump_clock: MockClock) -> None:
    def look(at: str) -> str:
        """Look."""
        return f"seen {at}"

    async with session_to(Script([[Call("look", {"at": "it"})], Answer("done")])) as (session, sim):
        reply = await session.run("go", [engine.FunctionTool(look)])
        assert reply.text == "done"
        assert [item["type"] for item in sim.requests[1].input] == ["message", "function_call", "function_call_output"]


async def test_a_transport_is_a_turns_own(autojump_clock: MockClock) -> None:
    async with session_to(transport=Transport.AUTO) as (session, sim):
        await session.ask("1")
        await session.ask("2", transport=Transport.SSE)
        await session.ask("3")
        assert [request.transport for request in sim.requests] == ["websocket", "http", "websocket"]
        assert len([each for each in sim.connections if each.transport == "websocket"]) == 1


async def test_what_went_over_http_extends_what_the_socket_holds(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("one"), Answer("two"), Answer("three")]), transport=Transport.AUTO) as (
        session,
        sim,
    ):
        chat = session.conversation()
        await chat.send("1")
        aside = session.conversation(messages=chat.messages, transport=Transport.SSE)
        await aside.send("2")
        async with session.turn(engine.Context([*aside.messages, engine.UserMessage("3")])) as turn:
            await turn.wait()
        assert turn.report.continued
        assert len(sim.requests[2].input) == 3
        assert turn.message.response_id is not None
        assert len(sim.history(turn.message.response_id)) == 6


# --- framing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(newline="\r\n"),
        Quirks(newline="\r"),
        Quirks(comments=True),
        Quirks(event_names=False),
        Quirks(space=False),
        Quirks(data_lines=True),
        Quirks(slice_bytes=1),
        Quirks(slice_bytes=7, newline="\r\n"),
        Quirks(done_marker=True),
        Quirks(keepalive=0.5),
        Quirks(set_up_events=False),
        Quirks(terminal_output="null"),
        Quirks(done="instead"),
        Quirks(done="also"),
        Quirks(chunks=3),
        Quirks(never_streams=True),
        Quirks(codex_events=True),
    ],
    ids=str,
)
async def test_however_it_is_framed(autojump_clock: MockClock, quirks: Quirks) -> None:
    text = "line\u2028separator\u2029 next\u0085line and 🌍"
    async with session_to(Script([[Say(text, pause=0.2)]]), sim_options={"quirks": quirks}) as (session, _):
        assert (await session.ask("hi")).text == text


async def test_a_stream_whose_last_event_is_not_ended_is_a_loss(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("x")]), sim_options={"quirks": Quirks(unterminated=True)}) as (session, _):
        error = await failure(session)
        assert type(error) is engine.ConnectionLost
        assert error.partial is not None
        assert error.partial.text == "x"


async def test_garbage_between_the_events_is_dropped(autojump_clock: MockClock) -> None:
    steps = [Created(), WrongJson(), Raw("[1, 2]"), Raw("null"), Raw('{"type": "never.heard.of"}'), Say("fine")]
    async with session_to(Script([steps])) as (session, _):
        assert (await session.ask("hi")).text == "fine"


async def test_an_event_that_is_too_large_is_a_violation(autojump_clock: MockClock) -> None:
    limits = engine.Limits(max_message_bytes=10_000)
    async with session_to(Script([[Oversized(20_000)], Answer("next")]), limits=limits) as (session, sim):
        error = await failure(session)
        assert type(error) is engine.ProtocolViolation
        assert "10000 bytes" in str(error)
        assert (await session.ask("again")).text == "next"
        assert not sim.connections[0].open


# --- errors before the stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "code", "message"),
    [
        (Reject(400, body={"error": {"message": "bad", "type": "invalid_request_error", "code": "c", "param": None}}),
         engine.RequestRejected, "c", "bad"),
        (Reject(400, body={"message": "flat", "code": "d"}), engine.RequestRejected, "d", "flat"),
        (Reject(403, body="<html><body>no</body></html>"), engine.RequestRejected, None, ""),
        (Reject(404, body=b""), engine.RequestRejected, None, ""),
        (Reject(401, body=b""), engine.AuthenticationFailed, None, ""),
        (Reject(429, body=b"", headers={"retry-after": "100"}), engine.RateLimited, None, ""),
        (Reject(503, body="busy", framing="chunked"), engine.RequestRejected, None, "busy"),
        (Reject(500, body="cut", framing="none"), engine.RequestRejected, None, "cut"),
        (Reject(302, headers={"location": "http://elsewhere.invalid/"}), engine.RequestRejected, None, None),
    ],
)  # fmt: skip
async def test_refused(
    autojump_clock: MockClock, answer: Any, kind: Any, code: str | None, message: str | None
) -> None:
    async with session_to(sim_options={"post": [answer]}) as (session, sim):
        error = await failure(session)
        assert type(error) is kind
        assert (error.status, error.code) == (answer.status, code)
        assert message is None or error.message == message
        assert error.delivery is Delivery.REJECTED
        assert error.report is not None
        assert (error.report.transport, error.report.attempts) == ("sse", 1)
        if isinstance(error, engine.RateLimited):
            assert error.retry_after == 100
        assert sim.executed == 0
        await session.ask("the next turn is answered")


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateway_does_not_know_whether_the_server_had_begun(autojump_clock: MockClock, status: int) -> None:
    posts = {"post": [Reject(status, body="<html>")]}
    async with session_to(sim_options=posts, retry=None) as (session, _):
        error = await failure(session)
        assert error.delivery is Delivery.AMBIGUOUS
        assert error.report is not None
        assert error.report.attempts == 1  # in AUTO only
    handshakes = {"handshake": Reject(426), **posts}
    async with session_to(sim_options=handshakes, retry=None, transport=Transport.AUTO) as (session, _):
        async with session.turn("hi") as turn:
            await turn.wait()
        assert turn.report.attempts == 2


@pytest.mark.parametrize(
    ("answer", "kind", "delivery"),
    [
        (HangUp(), engine.ConnectionLost, Delivery.AMBIGUOUS),
        (Garbage(), engine.ConnectFailed, Delivery.AMBIGUOUS),
        (Ignore(), engine.TurnTimeout, Delivery.AMBIGUOUS),
    ],
)
async def test_not_answered(autojump_clock: MockClock, answer: Any, kind: Any, delivery: Delivery) -> None:
    async with session_to(sim_options={"post": [answer]}) as (session, sim):
        error = await failure(session)
        assert type(error) is kind
        assert error.delivery is delivery
        await trio.testing.wait_all_tasks_blocked()
        assert not sim.connections[0].open


async def test_an_answer_that_is_no_stream(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("whole")]), sim_options={"quirks": Quirks(never_streams=True)}) as (
        session,
        _,
    ):
        events, turn = await events_of(session)
        assert turn.message.text == "whole"
        assert kinds(events)[0] == "TurnStarted"


WHOLE_ANSWER = {"id": "resp_1", "status": "completed", "output": [{"role": "assistant", "content": "whole"}]}
REFUSAL = {"error": {"message": "bad", "code": "c"}}


def plain(body: Any, media_type: str, text: str | None = None) -> Reject:
    text = json.dumps(body) if text is None else text
    return Reject(200, body=text.encode(), headers={"content-type": media_type})


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream", "text/event-stream; charset=utf-8"])
@pytest.mark.parametrize("mark", ["", "\ufeff", " \r\n"])
async def test_plain_json_is_read_whatever_its_media_type(
    autojump_clock: MockClock, media_type: str, mark: str
) -> None:
    bodies = [
        {**WHOLE_ANSWER, "object": "response"},
        WHOLE_ANSWER,
        {"type": "response.completed", "response": WHOLE_ANSWER},
        [{"type": "response.created", "response": {}}, {"type": "response.completed", "response": WHOLE_ANSWER}],
        REFUSAL,
        [REFUSAL],
        {"type": "response.failed", "error": REFUSAL["error"]},
    ]
    posts = [plain(None, media_type, mark + json.dumps(each)) for each in bodies]
    async with session_to(sim_options={"post": posts}) as (session, _):
        for _ in bodies[:4]:
            assert (await session.ask("hi")).text == "whole"
        for kind in (engine.RequestRejected, engine.RequestRejected, engine.ResponseFailed):
            error = await failure(session)
            assert (type(error), error.code, error.message) == (kind, "c", "bad")
            assert error.delivery is Delivery.REJECTED


async def test_an_error_in_a_field_of_its_own_is_read(autojump_clock: MockClock) -> None:
    post = plain(None, "text/event-stream", f"error: {json.dumps(REFUSAL)}\n\n")
    async with session_to(sim_options={"post": [post]}) as (session, _):
        error = await failure(session)
        assert (type(error), error.code, error.message) == (engine.RequestRejected, "c", "bad")


# --- errors inside it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Abort(), Close(1011), CutMidFrame()])
async def test_an_early_end_is_a_loss_with_the_partial(autojump_clock: MockClock, ending: Any) -> None:
    async with session_to(Script([[SayDelta("so far"), ending], Answer("next")])) as (session, _):
        error = await failure(session)
        assert type(error) is engine.ConnectionLost
        assert error.delivery is Delivery.ACCEPTED
        assert error.partial is not None
        assert error.partial.text == "so far"
        assert (await session.ask("again")).text == "next"


async def test_done_without_a_terminal_is_a_loss(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("so far"), Raw("[DONE]"), Stall()]])) as (session, _):
        error = await failure(session)
        assert type(error) is engine.ConnectionLost


@pytest.mark.parametrize("shape", ["flat", "nested", "untyped"])
async def test_an_error_inside_the_stream(autojump_clock: MockClock, shape: Any) -> None:
    script = Script([[Created(), Error(500, "server_error", "secret words", "server_error")], Answer("next")])
    async with session_to(script, sim_options={"quirks": Quirks(errors=shape)}) as (session, _):
        error = await failure(session)
        assert type(error) is engine.ResponseFailed
        assert error.message == "secret words"
        assert "secret" not in said(error)
        assert (await session.ask("again")).text == "next"


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "sim_options", "turn", "took", "delivery"),
    [
        ("first_event", {}, [Stall()], 6, Delivery.AMBIGUOUS),
        ("first_event", {"post": [Ignore()]}, None, 6, Delivery.AMBIGUOUS),
        ("start", {"post": [Accept(delay=100)]}, None, 9, Delivery.AMBIGUOUS),
        ("idle", {}, [Created(), Delay(3), SayDelta("x"), Stall()], 3 + 5, Delivery.ACCEPTED),
        ("idle", {}, [Created(), Mute(), Stall()], 5, Delivery.ACCEPTED),
        ("turn", {}, [Created(), *[SayDelta("x"), Delay(3)] * 10], 20, Delivery.ACCEPTED),
    ],
)
async def test_budget(
    autojump_clock: MockClock, phase: str, sim_options: Any, turn: Any, took: float | None, delivery: Any
) -> None:
    budgets: dict[str, Any] = {"first_event": 6, "start": 9, "idle": 5, "turn": 20, "connect": 4, "send": 3}
    if phase == "start":
        budgets["first_event"] = None
    async with session_to(Script([turn] if turn else []), sim_options=sim_options) as (session, sim):
        begun = trio.current_time()
        error = await failure(session, timeouts=Timeouts(**budgets))
        assert trio.current_time() - begun == took
        assert type(error) is engine.TurnTimeout
        assert (error.phase, error.delivery) == (phase, delivery)
        await trio.sleep(100)  # the server may be in the middle of a pause
        assert not sim.connections[0].open


async def test_keepalives_are_progress_and_comments_are_not(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Delay(4), Keepalive(), Delay(4), Say("there")]])
    async with session_to(script) as (session, _):
        assert (await session.ask("hi", timeouts=Timeouts(idle=5))).text == "there"


async def test_connecting_has_its_budget(autojump_clock: MockClock) -> None:
    async def slow_key() -> str:
        await trio.sleep(100)
        return "sk"

    async with open_simulator(in_memory=True) as sim:
        endpoint = engine.Endpoint(sim.base_url, slow_key)
        async with engine.open_session(
            endpoint, model="m", dialer=sim.dialer, transport=Transport.SSE, retry=ONCE, timeouts=Timeouts(connect=4)
        ) as session:
            begun = trio.current_time()
            error = await failure(session)
            assert trio.current_time() - begun == 4
            assert (type(error), error.stage) == (engine.ConnectFailed, "timeout")
            assert error.delivery is Delivery.NOT_SENT


async def test_sending_has_its_budget(autojump_clock: MockClock) -> None:
    class NotReading:
        """Takes a little of a request and no more."""

        def __init__(self, dialer: Any) -> None:
            self.dialer = dialer

        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            client, self.server = engine.simulator.memory_stream_pair(capacity=10_000)
            return client

        async def start_tls(self, stream: Any, **arguments: Any) -> Any:
            raise NotImplementedError

    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(
            sim.endpoint, model="m", dialer=NotReading(sim.dialer), transport=Transport.SSE, retry=ONCE
        ) as session:
            begun = trio.current_time()
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("x" * 100_000, timeouts=Timeouts(send=3))
            assert trio.current_time() - begun == 3
            assert (caught.value.phase, caught.value.delivery) == ("send", Delivery.AMBIGUOUS)


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_leaving_closes_the_stream_at_once(autojump_clock: MockClock, policy: engine.OnCancel) -> None:
    script = Script([[SayDelta("old"), Delay(3), Say("rest")], Answer("new")])
    async with session_to(script, on_cancel=policy) as (session, sim):
        async with session.turn("1") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
            begun = trio.current_time()
        assert turn.partial.text == "old"
        async with session.turn("2") as second:
            assert (await second.wait()).text == "new"
        assert trio.current_time() == begun
        assert not sim.connections[0].open
        assert sim.requests[0].status == "lost"


async def test_a_deadline_of_the_callers_stays_the_callers(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()], Answer("next")])) as (session, _):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(2):
                await session.ask("1")
        assert (await session.ask("2")).text == "next"


async def test_a_consumer_that_falls_behind_loses_its_turn_only(autojump_clock: MockClock) -> None:
    limits = engine.Limits(buffer_events=10)
    async with session_to(
        Script([[Say("word " * 50, pause=0.001), Delay(1), Say("x")], Answer("next")]), limits=limits
    ) as (
        session,
        _,
    ):
        async with session.turn("1") as turn:
            await trio.sleep(1)
            with pytest.raises(engine.BufferOverflow):
                async for _event in turn:
                    pass
        assert (await session.ask("2")).text == "next"


async def test_releasing_fails_the_turn_and_closes_the_stream(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[SayDelta("so"), Stall()]])) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer, transport=Transport.SSE) as eng:
            session = await eng.session("a")
            async with session.turn("hi") as turn:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        break
                await eng.release("a")
                await trio.testing.wait_all_tasks_blocked()
                assert not sim.connections[0].open
                with pytest.raises(engine.SessionClosed) as caught:
                    await turn.wait()
            assert caught.value.partial is not None
            assert caught.value.partial.text == "so"


async def test_a_turn_over_http_dials_no_socket_ahead(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("x"), Stall()], Answer("y")])) as (session, sim):
        with trio.move_on_after(1):
            await session.ask("1", engine.TurnOptions(warm_up=True))
        assert not await session.warm_up("2")
        await session.ask("3")
        assert [connection.transport for connection in sim.connections] == ["http", "http"]
        assert not session.connected


# --- going over to it ------------------------------------------------------------------------------------------------


class Seen(engine.Instrument):
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def retry(self, info: RetryInfo, /) -> None:
        self.told.append(("retry", info.reason, info.seconds))

    def fallback(self, info: FallbackInfo, /) -> None:
        self.told.append(("fallback", info.reason))

    def request_sent(self, info: RequestInfo, /) -> None:
        self.told.append(("sent", info.connection, info.size))

    def event_received(self, info: EventInfo, /) -> None:
        if self.told[-1] != "event":  # type: ignore[comparison-overlap]
            self.told.append("event")  # type: ignore[arg-type]


async def test_one_sequence_of_events_over_both(autojump_clock: MockClock) -> None:
    seen = Seen()
    script = Script([[Created(), Close(1008)], Answer("there")])
    async with session_to(script, transport=Transport.AUTO, retry=None, instruments=[seen]) as (session, sim):
        events, turn = await events_of(session)
        assert kinds(events).count("TurnStarted") == 1
        assert events[0].response_id == turn.message.response_id == sim.requests[1].response_id
        assert [request.transport for request in sim.requests] == ["websocket", "http"]
        assert json.dumps(sim.requests[1].body).count("stream_id") == 0
        assert turn.report.fallback_reason == "the server closed the connection with code 1008"
        first, second = (request.size for request in sim.requests)
        assert seen.told == [
            ("sent", 1, first), "event", ("fallback", turn.report.fallback_reason), ("sent", 0, second), "event",
        ]  # fmt: skip
        numbers = session.statistics()
        assert (numbers.fallbacks, numbers.retries) == (1, 0)


async def test_the_time_spent_is_named_when_the_start_runs_out(autojump_clock: MockClock) -> None:
    async with session_to(
        sim_options={"handshake": [Reject(403)], "post": [Ignore()]},
        transport=Transport.AUTO,
        retry=None,
        timeouts=Timeouts(start=7, first_event=None),
    ) as (session, _):
        error = await failure(session)
        assert (type(error), error.phase) == (engine.TurnTimeout, "start")
        assert isinstance(error.__cause__, engine.ConnectFailed)
        assert error.__cause__.status == 403
        assert error.delivery is Delivery.AMBIGUOUS


async def test_an_earlier_attempt_that_may_be_running_is_not_forgotten(autojump_clock: MockClock) -> None:
    # Lost, sent again over HTTP, and refused there: nobody knows what became of the first.
    script = Script([[Close(1008)]])
    options = {"sim_options": {"post": [Reject(400)]}, "transport": Transport.AUTO, "retry": None}
    async with session_to(script, **options) as (session, _):
        error = await failure(session)
        assert type(error) is engine.RequestRejected
        assert error.delivery is Delivery.AMBIGUOUS
        assert error.report is not None
        assert error.report.attempts == 2


async def test_a_large_history_still_continues_over_the_socket(autojump_clock: MockClock) -> None:
    limits = engine.Limits(max_request_bytes=5_000)
    async with session_to(Script([Answer("x" * 6_000), Answer("two"), Answer("three")]), limits=limits,
                          transport=Transport.AUTO) as (session, sim):  # fmt: skip
        chat = session.conversation()
        await chat.send("1")
        await chat.send("2")  # over the limit, were it sent whole
        assert [request.transport for request in sim.requests] == ["websocket", "websocket"]
        sim.abort()
        await trio.sleep(1)
        await chat.send("3")  # which it must be now
        assert [request.transport for request in sim.requests] == ["websocket", "websocket", "http"]


async def test_a_deaf_server_of_both(autojump_clock: MockClock) -> None:
    script = Script([[Deaf(), Created(), Say("heard")]])
    async with session_to(script) as (session, _):
        assert (await session.ask("hi")).text == "heard"


async def test_the_way_over_http_is_the_base_urls(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([Answer("there")])) as sim:
        endpoint = engine.Endpoint(sim.base_url, "sk", websocket_url=sim.websocket_url + "-elsewhere")
        async with engine.open_session(endpoint, model="m", dialer=sim.dialer) as session:
            async with session.turn("hi") as turn:
                assert (await turn.wait()).text == "there"
        assert [connection.path for connection in sim.connections] == ["/v1/responses-elsewhere", "/v1/responses"]
        assert "404" in (turn.report.fallback_reason or "")


async def test_what_is_asked_is_the_same_in_every_attempt(autojump_clock: MockClock) -> None:
    asked = []

    async def hook(body: dict[str, Any]) -> None:
        asked.append(body)

    script = Script([[Error(503)], [Error(503)], Answer("at last")])
    options = engine.TurnOptions(metadata={"turn": "17"}, payload_hook=hook)
    async with session_to(script, transport=Transport.AUTO, retry=None) as (session, sim):
        async with session.turn("hi", options) as turn:
            assert (await turn.wait()).text == "at last"
        assert turn.report.attempts == 3
        assert len(asked) == 1  # the hook runs once, whatever is tried
        bodies = [{**request.body, "type": None, "stream": None} for request in sim.requests]
        assert bodies[0] == bodies[1] == bodies[2]
        assert bodies[0]["metadata"] == {"turn": "17"}
        assert [request.transport for request in sim.requests] == ["websocket", "websocket", "http"]


# --- answers that are nearly streams


def stream_of(*events: tuple[str, str]) -> bytes:
    return "".join(f"event: {name}\ndata: {data}\n\n" for name, data in events).encode()


RESPONSE: Final = {
    "id": "r", "object": "response", "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "fine"}]}],
}  # fmt: skip
BEGUN: Final = json.dumps({"type": "response.created", "response": {"id": "r", "status": "in_progress"}})
ENDED: Final = json.dumps({"type": "response.completed", "response": RESPONSE})
STREAM: Final = stream_of(("response.created", BEGUN), ("response.completed", ENDED))
NAMED: Final = stream_of(("response.completed", json.dumps({"response": RESPONSE})))


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/plain; charset=utf-8", STREAM),
        ("text/html", b"\xef\xbb\xbf" + STREAM),
        ("application/octet-stream", b": hello\n\n" + STREAM),
        ("application/json", STREAM),
        ("application/x-ndjson", f"{BEGUN}\n{ENDED}\n".encode()),
        ("application/json", f"[{BEGUN}, {ENDED}]".encode()),
        ("text/event-stream", NAMED),
    ],
    ids=["plain text", "HTML", "bytes", "JSON in name", "a line each", "a list", "types in names"],
)
async def test_an_answer_that_is_nearly_a_stream(autojump_clock: MockClock, media_type: str, body: bytes) -> None:
    post = Reject(200, {"content-type": media_type}, body)
    async with session_to(sim_options={"post": post}, transport=engine.Transport.SSE) as (session, _):
        assert (await session.ask("go")).text == "fine"


@pytest.mark.parametrize(
    ("media_type", "body", "words"),
    [
        ("text/html", b"<html>log in</html>", "something else than a stream"),
        ("application/json", b'{"object": "chat.completion", "choices": []}', "neither a response nor an error"),
        ("application/json", json.dumps({**RESPONSE, "status": "queued"}).encode(), "has not ended"),
    ],
    ids=["HTML", "another API's", "a response in the background"],
)
async def test_an_answer_that_is_none(autojump_clock: MockClock, media_type: str, body: bytes, words: str) -> None:
    post = Reject(200, {"content-type": media_type}, body)
    async with session_to(sim_options={"post": post}, transport=engine.Transport.SSE) as (session, _):
        with pytest.raises(engine.ProtocolViolation, match=words):
            await session.ask("go")


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        ('{"message": "boom", "code": "bad_value"}', "bad_value", "boom"),
        ('{"type": "overloaded", "message": "boom"}', None, "boom"),
        ('{"error": {"message": "boom", "code": "bad_value"}}', "bad_value", "boom"),
        ("boom", None, "boom"),
    ],
)
async def test_an_error_whose_name_says_so(
    autojump_clock: MockClock, data: str, code: str | None, message: str
) -> None:
    post = Reject(200, {"content-type": "text/event-stream"}, stream_of(("error", data)))
    async with session_to(sim_options={"post": post}, transport=engine.Transport.SSE) as (session, _):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("go")
        assert (caught.value.code, caught.value.message) == (code, message)
