"""What becomes of a turn whose attempt fails: every row of the table, over every transport, against the simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
from sessions import session_with
from trio.testing import MockClock

import engine
from engine import Delivery, Limits, RetryPolicy, Timeouts, Transport
from engine.protocol.recovery import TABLE
from engine.simulator import (
    Abort,
    Accept,
    Close,
    Created,
    CutMidFrame,
    Delay,
    Echo,
    Error,
    Failed,
    HangUp,
    Ignore,
    Incomplete,
    Mute,
    Raw,
    Reject,
    Say,
    SayDelta,
    Script,
    Stall,
)

AUTO, WEBSOCKET, SSE = Transport.AUTO, Transport.WEBSOCKET, Transport.SSE
WHOLE: Final = RetryPolicy(jitter=lambda: 1.0)  # every back-off takes its whole time


class Keys:
    """Gives one key after the other, then the last for ever."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        return self.keys[min(self.asked, len(self.keys)) - 1]


async def no_key() -> str:
    raise OSError("the vault is closed")


session_to = session_with(retry=WHOLE)


# --- every row of the table ------------------------------------------------------------------------------------------


@attrs.frozen
class End:
    """How a turn ends: the transport of its answer, or its error; how often it was sent; after how many seconds."""

    result: str | type[engine.TurnError]
    attempts: int = 1
    seconds: float = 0.0
    delivery: Delivery | None = None


@attrs.frozen
class Case:
    """A row: what the server does to the first requests, and how the turn ends for each transport."""

    row: str
    ends: tuple[End, End, End]  # AUTO, WEBSOCKET, SSE
    turns: tuple[Any, ...] = ()
    sim: Mapping[str, Any] = {}
    refusals: int = 0
    key: Callable[[], Any] = lambda: None
    options: Mapping[str, Any] = {}
    prompt: str = "hello"


ON_WEBSOCKET, ON_HTTP = End("websocket"), End("sse")
KEYED: Final = {"api_key": "sk-right"}

CASES: Final = [
    Case(
        "anything after output",
        (End(engine.ConnectionLost, delivery=Delivery.ACCEPTED),) * 3,
        turns=([SayDelta("so"), CutMidFrame()],),
    ),
    Case(
        "content filter or policy",
        (End(engine.ResponseFailed, delivery=Delivery.ACCEPTED),) * 3,
        turns=([Created(), Incomplete("content_filter")],),
    ),
    Case(
        "breaker open, or no WebSocket there",
        (ON_HTTP, ON_WEBSOCKET, ON_HTTP),
        sim={"endpoint_options": {"profile": engine.Profile("plain", websocket=False)}},
    ),
    Case(
        "the api_key function failed",
        (End(engine.ConnectFailed, 0, delivery=Delivery.NOT_SENT),) * 3,
        key=lambda: no_key,
    ),
    Case(
        "upgrade 401", (ON_WEBSOCKET, ON_WEBSOCKET, End("sse", 2)), sim=KEYED, key=lambda: Keys("sk-stale", "sk-right")
    ),
    Case(
        "upgrade 401",
        (ON_HTTP, End(engine.AuthenticationFailed, 0), ON_HTTP),
        sim={"handshake": [Reject(401)]},
    ),
    Case(
        "upgrade 404, 405, 426",
        (ON_HTTP, End(engine.ConnectFailed, 0), ON_HTTP),
        sim={"handshake": [Reject(426)]},
    ),
    Case(
        "upgrade 429",
        (End("websocket", seconds=3), End("websocket", seconds=3), ON_HTTP),
        sim={"handshake": [Reject(429, headers={"Retry-After": "3"})]},
    ),
    Case("upgrade 429", (ON_HTTP, End(engine.ConnectFailed, 0), ON_HTTP), sim={"handshake": [Reject(429)]}),
    Case(
        "upgrade 5xx",
        (ON_HTTP, End("websocket", seconds=1 + 2), ON_HTTP),
        sim={"handshake": [Reject(503), Reject(500)]},
    ),
    Case(
        "upgrade 5xx",
        (ON_HTTP, End(engine.ConnectFailed, 0, seconds=1 + 2 + 4 + 8 + 16), ON_HTTP),
        sim={"handshake": Reject(503)},
    ),
    Case(
        "upgrade 400, 403, or any other status",
        (ON_HTTP, End(engine.ConnectFailed, 0), ON_HTTP),
        sim={"handshake": [Reject(403)]},
    ),
    Case(
        "upgrade 400, 403, or any other status",
        (ON_HTTP, End(engine.ConnectFailed, 0), ON_HTTP),
        sim={"handshake": [Reject(307, headers={"location": "https://elsewhere.invalid/v1/responses"})]},
    ),
    Case(
        "no WebSocket came about",
        (ON_HTTP, End("websocket", seconds=1), End("sse", seconds=1)),
        refusals=1,
    ),
    Case(
        "no WebSocket came about",
        (End("sse", seconds=10), End("websocket", seconds=10 + 1), ON_HTTP),
        sim={"handshake": [Ignore()]},
    ),
    Case("no WebSocket came about", (ON_HTTP, End("websocket", seconds=1), ON_HTTP), sim={"handshake": [HangUp()]}),
    Case(
        "no HTTP connection came about",
        (End(engine.ConnectFailed, 0), End("websocket", seconds=1 + 2), End("sse", seconds=1 + 2)),
        refusals=2,
    ),
    Case(
        "request too large for the WebSocket",
        (ON_HTTP, End(engine.RequestTooLarge, 0), ON_HTTP),
        options={"limits": Limits(max_request_bytes=500)},
        prompt="x" * 1000,
    ),
    Case(
        "stream_id not known, or no name left",
        (End("websocket", 2), End("websocket", 2), End(engine.RequestRejected, delivery=Delivery.REJECTED)),
        turns=([Error(400, "unknown_parameter", type="invalid_request_error", param="stream_id")],),
    ),
    Case(
        "websocket_connection_limit_reached",
        (
            End("websocket", 2, seconds=5),
            End(engine.RequestRejected, seconds=5, delivery=Delivery.ACCEPTED),
            End("sse", seconds=8),
        ),
        turns=([Created(), Delay(8), Say("hello")],),
        sim={"connection_lifetime": 5.0},
    ),
    Case(
        "401 over HTTP",
        (ON_HTTP, End(engine.AuthenticationFailed, 0), End("sse", 2)),
        sim={**KEYED, "handshake": Reject(401)},
        key=lambda: Keys("sk-stale", "sk-right"),
    ),
    Case(
        "401 over HTTP",
        (
            End(engine.AuthenticationFailed, 1, delivery=Delivery.REJECTED),
            End(engine.AuthenticationFailed, 0),
            End(engine.AuthenticationFailed, 2, delivery=Delivery.REJECTED),
        ),
        sim=KEYED,
        key=lambda: Keys("sk-stale"),
    ),
    Case(
        "quota used up",
        (End(engine.RateLimited, delivery=Delivery.REJECTED),) * 3,
        turns=([Error(429, "insufficient_quota", type="insufficient_quota", headers={"retry-after": "1"})],),
    ),
    Case(
        "rate limit",
        (End("websocket", 3, seconds=2 + 3), End("websocket", 3, seconds=2 + 3), End("sse", 3, seconds=2 + 3)),
        turns=(
            [Error(429, "rate_limit_exceeded", type="rate_limit_error", headers={"retry-after": "2"})],
            [Error(429, "rate_limit_exceeded", type="rate_limit_error", headers={"retry-after": "3"})],
        ),
    ),
    Case(
        "rate limit",
        (End("websocket", 2, seconds=1.5), End(engine.ResponseFailed), End(engine.ResponseFailed)),
        turns=([Created(), Failed("rate_limit_exceeded", "Please try again in 1.5s.")],),
    ),
    Case("rate limit", (End(engine.RateLimited),) * 3, turns=([Error(429, "rate_limit_exceeded")],)),
    Case(
        "the server failed",
        (End("websocket", 2, seconds=1), End("websocket", 2, seconds=1), End("sse", 2, seconds=1)),
        turns=([Error(503, "server_is_overloaded", type="service_unavailable_error")],),
    ),
    Case(
        "the server failed",
        (End("websocket", 2, seconds=1), End(engine.ResponseFailed), End(engine.ResponseFailed)),
        turns=([Created(), Failed("server_error")],),
    ),
    Case(
        "any other refusal or failed response",
        (End(engine.RequestRejected, delivery=Delivery.REJECTED),) * 3,
        turns=([Error(400, "context_length_exceeded")],),
    ),
    Case(
        "closed with 1009",
        (End("sse", 2), End(engine.ConnectionLost, delivery=Delivery.REJECTED), End(engine.ConnectionLost)),
        turns=([Close(1009)],),
    ),
    Case(
        "closed with a code that will come again",
        (End("sse", 2), End(engine.ConnectionLost, delivery=Delivery.AMBIGUOUS), End(engine.ConnectionLost)),
        turns=([Close(1008)],),
    ),
    Case(
        "lost before output",
        (End("websocket", 2), End(engine.ConnectionLost, delivery=Delivery.ACCEPTED), End(engine.ConnectionLost)),
        turns=([Created(), Close(1012)],),
    ),
    Case(
        "lost before output",
        (
            End("websocket", 2),
            End(engine.ConnectionLost, delivery=Delivery.AMBIGUOUS),
            End(engine.ConnectionLost, delivery=Delivery.AMBIGUOUS),
        ),
        turns=([Abort()],),
    ),
    Case(
        "no first event",
        (End("sse", 2, seconds=30), End(engine.TurnTimeout, 1, 30), End(engine.TurnTimeout, 1, 30)),
        turns=([Mute(), Stall()],),
    ),
    Case(
        "anything else",
        (End(engine.TurnTimeout, 1, 7, delivery=Delivery.ACCEPTED),) * 3,
        turns=([Created(), Stall()],),
        options={"timeouts": Timeouts(idle=7)},
    ),
]


def test_every_row_is_met() -> None:
    elsewhere = {
        "previous_response_not_found",  # in the tests of continuation
        "invalid_encrypted_content",  # below: it takes reasoning in the prompt
        "anything after a steer",  # in the tests of steering
        "lost before anything was sent",  # in the tests of the transport: its peer ends what it has just accepted
    }
    assert {case.row for case in CASES} | elsewhere == {row.name for row in TABLE}


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
@pytest.mark.parametrize("case", CASES, ids=[f"{number} {case.row}" for number, case in enumerate(CASES)])
async def test_row(autojump_clock: MockClock, case: Case, transport: Transport) -> None:
    end = case.ends[list(Transport).index(transport)]
    brain = Script(case.turns, then=Echo())
    async with session_to(brain, sim_options=case.sim, key=case.key(), transport=transport, **case.options) as (
        session,
        sim,
    ):
        sim.dialer.refusals = case.refusals  # type: ignore[attr-defined]
        begun = trio.current_time()
        events: list[Any] = []
        error: engine.TurnError | None = None
        async with (
            session.turn(case.prompt)
            if end.result is not engine.RequestTooLarge
            else refused(session, case.prompt) as turn
        ):
            try:
                async for event in turn:
                    events.append(event)
            except engine.TurnError as failed:
                error = failed
        report = turn.report
        assert trio.current_time() - begun == pytest.approx(end.seconds, abs=0.01)
        assert report.attempts == end.attempts
        assert sum(isinstance(event, engine.TurnStarted) for event in events) <= 1
        if isinstance(end.result, str):
            assert error is None
            assert (turn.message.text, report.transport) == (case.prompt, end.result)
            assert (report.fallback_reason is not None) == (transport is AUTO and end.result == "sse")
            assert isinstance(events[0], engine.TurnStarted)
        else:
            assert type(error) is end.result
            assert end.delivery in {None, error.delivery}
            assert error.report == report
        assert len(sim.requests) <= 3
        numbers = session.statistics()
        assert numbers.fallbacks == (report.fallback_reason is not None)
        assert numbers.retries + numbers.fallbacks >= report.attempts - 1
        if case.row != "the api_key function failed" and not isinstance(error, engine.AuthenticationFailed):
            sim.handshakes.clear()
            sim.every_handshake = Accept()
            assert (await session.ask("next")).text == "next"


@asynccontextmanager
async def refused(session: engine.Session, prompt: str) -> AsyncIterator[Any]:
    """Stand in for a turn whose block cannot be entered."""

    class Refused:
        report = engine.TurnReport()

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            raise self.error  # type: ignore[attr-defined]

    turn = Refused()
    with pytest.raises(engine.RequestTooLarge) as caught:
        await session.ask(prompt)
    turn.error = caught.value  # type: ignore[attr-defined]
    turn.report = caught.value.report  # type: ignore[assignment]
    yield turn


async def test_an_error_that_may_be_anybodys_ends_no_response_for_sure(autojump_clock: MockClock) -> None:
    """It ends the connection, and what runs on it may go on all the same."""
    left = [[Created(), Delay(2), Say("")], [Created(), Stall()]]
    error = Raw('{"type":"error","status":500,"error":{"type":"server_error","code":"server_error","message":""}}')
    brain = Script([*left, [Created(), Delay(3), error, Stall()]], then=Echo())
    async with session_to(brain, transport=WEBSOCKET, on_cancel=engine.OnCancel.NEW_LANE) as (session, sim):
        for _ in left:  # so that the third is not the only one in progress, and nothing is on the default lane
            with trio.move_on_after(1):
                await session.ask("hello")
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("hello")
        assert caught.value.delivery is Delivery.ACCEPTED
        assert len(sim.requests) == 3


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
async def test_a_jitter_that_raises_ends_the_turn(autojump_clock: MockClock, transport: Transport) -> None:
    def jitter() -> float:
        raise ZeroDivisionError

    brain = Script([[Error(503, "server_error")]], then=Echo())
    async with session_to(brain, transport=transport, retry=RetryPolicy(jitter=jitter)) as (session, sim):
        with trio.fail_after(1), pytest.raises(engine.SessionClosed) as caught:
            await session.ask("hello")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert (await session.ask("next")).text == "next"
        assert len(sim.connections) <= (2 if transport is SSE else 1)


@pytest.mark.parametrize(
    ("failing", "transport"),
    [
        ([Error(503, "server_is_overloaded", type="service_unavailable_error")], WEBSOCKET),
        ([Created(), Failed("server_error")], AUTO),
        ([Created(), Failed("rate_limit_exceeded", "Please try again in 1s.")], AUTO),
    ],
    ids=["refused", "failed", "failed for its pace"],
)
async def test_what_failed_is_sent_over_another_connection(
    autojump_clock: MockClock, failing: Any, transport: Transport
) -> None:
    async with session_to(Script([failing], then=Echo()), transport=transport) as (session, sim):
        async with session.turn("hello") as turn:
            assert (await turn.wait()).text == "hello"
        assert not turn.report.connection_reused
        assert [len(connection.requests) for connection in sim.connections] == [1, 1]
        assert (await session.ask("next")).text == "next"
        assert [connection.open for connection in sim.connections] == [False, True]


async def test_a_rate_limit_told_in_band_keeps_the_connection(autojump_clock: MockClock) -> None:
    slow_down = [Error(429, "rate_limit_exceeded", headers={"retry-after": "1"})]
    async with session_to(Script(["one", slow_down], then=Echo())) as (session, sim):
        chat = session.conversation()
        await chat.send("first")
        assert (await chat.send("second")).text == "second"
        assert [len(connection.requests) for connection in sim.connections] == [3]
        assert [request.body.get("previous_response_id") is not None for request in sim.requests] == [
            False,
            True,
            False,
        ]


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
@pytest.mark.parametrize("failing", [[Created(), Failed("server_error")], [Created(), Close(1012)], [Abort()]])
async def test_what_the_server_may_have_begun_is_begun_once_where_that_is_asked(
    autojump_clock: MockClock, failing: Any, transport: Transport
) -> None:
    never = RetryPolicy(jitter=lambda: 1.0, resend_ambiguous=0)
    async with session_to(Script([failing], then=Echo()), transport=transport, retry=never) as (session, sim):
        with pytest.raises(engine.TurnError):
            await session.ask("hello")
        assert len(sim.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 529])
@pytest.mark.parametrize("transport", [WEBSOCKET, SSE], ids=lambda transport: transport.value)
async def test_a_server_that_says_how_long_is_not_asked_earlier(
    autojump_clock: MockClock, status: int, transport: Transport
) -> None:
    refusal = [Reject(status, headers={"Retry-After": "7"})]
    where = "post" if transport is SSE else "handshake"
    async with session_to(sim_options={where: refusal}, transport=transport) as (session, _):
        begun = trio.current_time()
        assert (await session.ask("hello")).text == "hello"
        assert trio.current_time() - begun == 7


async def test_an_upgrade_forbidden_where_http_works_is_not_tried_again_for_a_while(autojump_clock: MockClock) -> None:
    async with session_to(sim_options={"handshake": Reject(403)}) as (session, sim):
        for _ in range(3):
            await session.ask("hello")
        assert sum(len(connection.refusals) for connection in sim.connections) == 1
        await trio.sleep(60)
        await session.ask("hello")
        assert sum(len(connection.refusals) for connection in sim.connections) == 2


@pytest.mark.parametrize("policy", list(engine.OnCancel), ids=lambda policy: policy.value)
async def test_a_silent_connection_is_closed_under_every_policy(
    autojump_clock: MockClock, policy: engine.OnCancel
) -> None:
    async with session_to(Script([[Mute(), Stall()]], then=Echo()), on_cancel=policy) as (session, sim):
        assert (await session.ask("hello")).text == "hello"
        await trio.sleep(1)
        assert not sim.connections[0].open


async def test_a_limit_told_to_a_request_that_waits_refuses_it(autojump_clock: MockClock) -> None:
    limit = Error(400, "websocket_connection_limit_reached", type="invalid_request_error")
    async with session_to(Script([[limit, Stall()]], then=Echo()), transport=WEBSOCKET) as (session, sim):
        async with session.turn("hello") as turn:
            assert (await turn.wait()).text == "hello"
        assert turn.report.attempts == 2
        assert len(sim.connections) == 2


async def test_a_server_that_fails_in_several_ways_is_tried_no_more_often(autojump_clock: MockClock) -> None:
    ways = [Reject(503), HangUp()] * 6
    async with session_to(Echo(), sim_options={"handshake": ways}, transport=WEBSOCKET) as (session, sim):
        begun = trio.current_time()
        with pytest.raises(engine.ConnectFailed):
            await session.ask("hello")
        assert trio.current_time() - begun == 1 + 2 + 4 + 8 + 16
        assert len(sim.connections) == 6


async def test_the_report_of_what_could_not_be_sent(autojump_clock: MockClock) -> None:
    async with session_to(Echo()) as (session, sim):
        sim.dialer.refusals = 2  # type: ignore[attr-defined]
        with pytest.raises(engine.ConnectFailed) as caught:
            await session.ask("hello")
        assert caught.value.report is not None
        assert (caught.value.report.attempts, caught.value.report.bytes_sent) == (0, 0)


async def test_the_report_of_what_went_over_a_used_connection_and_then_over_http(autojump_clock: MockClock) -> None:
    async with session_to(Script([Say("one"), [Mute(), Stall()]], then=Echo())) as (session, _):
        await session.ask("hello")
        async with session.turn("again") as turn:
            await turn.wait()
        assert (turn.report.transport, turn.report.attempts, turn.report.connection_reused) == ("sse", 2, False)


async def test_a_server_that_accepts_and_hangs_up_for_its_policy(autojump_clock: MockClock) -> None:
    async with session_to(Echo(), sim_options={"handshake": Accept(close_code=1008)}) as (session, sim):
        async with session.turn("hello") as turn:
            assert (await turn.wait()).text == "hello"
        # Nothing is sent on a socket that ends as it opens.
        assert (turn.report.transport, turn.report.attempts) == ("sse", 1)
        assert [request.transport for request in sim.requests] == ["http"]


async def test_a_turn_dials_again_where_a_dial_was_begun_with_less_patience(autojump_clock: MockClock) -> None:
    handshakes = {"handshake": [Ignore(), Accept(delay=3)]}
    async with session_to(Echo(), sim_options=handshakes, transport=WEBSOCKET) as (session, sim):
        with trio.move_on_after(1):
            await session.ask("impatient", timeouts=Timeouts(connect=2))
        async with session.turn("patient") as turn:
            assert (await turn.wait()).text == "patient"
        assert turn.report.seconds.connect == pytest.approx(1 + 3)
        assert len(sim.connections) == 2


async def test_a_wait_beyond_the_turns_own_budget_raises_what_failed(autojump_clock: MockClock) -> None:
    async with session_to(sim_options={"handshake": Reject(503)}, transport=WEBSOCKET) as (session, _):
        begun = trio.current_time()
        with pytest.raises(engine.ConnectFailed) as caught:
            await session.ask("hi", timeouts=Timeouts(turn=2.5))
        assert (caught.value.status, trio.current_time() - begun) == (503, 1)  # the next wait would take 2 s


# --- sealed reasoning ------------------------------------------------------------------------------------------------


def sealed(name: str) -> engine.Thinking:
    item = {"type": "reasoning", "id": f"rs_{name}", "summary": [], "encrypted_content": f"seal of {name}"}
    return engine.Thinking("", json.dumps(item))


def with_reasoning() -> list[engine.Message]:
    """A transcript of two answers, the first with sealed reasoning and a call; ids are those of a stored response."""
    call = engine.ToolCall("call_1|fc_1", "weather", {}, "{}")
    return [
        engine.UserMessage("one"),
        engine.AssistantMessage((sealed("a"), engine.Text("first", item_id="msg_1"), call)),
        engine.ToolResult("call_1", "fine"),
        engine.AssistantMessage((engine.Text("second", item_id="msg_2"),)),
        engine.UserMessage("two"),
    ]


UNREADABLE: Final = [Error(400, "invalid_encrypted_content", message="The content of a could not be verified.")]
WEATHER: Final = engine.Tool("weather", "", {"type": "object", "properties": {}})


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
async def test_reasoning_that_the_server_cannot_read_is_left_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, transport: Transport
) -> None:
    caplog.set_level("WARNING", "engine")
    async with session_to(Script([UNREADABLE], then=Echo()), transport=transport) as (session, sim):
        messages = with_reasoning()
        async with session.turn(messages, tools=[WEATHER], store=True) as turn:
            answer = await turn.wait()
        assert (answer.text, turn.report.attempts, turn.report.fallback_reason) == ("two", 2, None)
        refused, healed = (request.body["input"] for request in sim.requests)
        assert [item.get("id") for item in refused] == [None, "rs_a", "msg_1", "fc_1", None, "msg_2", None]
        assert [item["type"] for item in healed] == [item["type"] for item in refused if item["type"] != "reasoning"]
        assert [item.get("id") for item in healed] == [None, None, None, None, "msg_2", None]
        assert session.statistics().refused_seals == 1
        assert len(sim.connections) == 1
        # What was refused once is not sent again; what another server sealed since is.
        messages += [attrs.evolve(answer, content=(sealed("b"), *answer.content)), engine.UserMessage("three")]
        assert (await session.ask(messages, tools=[WEATHER], store=True)).text == "three"
        async with session.turn(messages, tools=[WEATHER], store=True) as turn:
            await turn.wait()
        assert turn.report.attempts == 1
        assert len(sim.requests) == 4
        seals = [item.get("encrypted_content") for item in sim.requests[3].body["input"] if item["type"] == "reasoning"]
        assert seals == ["seal of b"]
    said = [record.getMessage() for record in caplog.records if record.name == "engine.turn"]
    assert said == ["sealed reasoning that the server cannot read is left out from now on: 1 items"]


async def test_a_turn_after_a_healed_one_continues_it(autojump_clock: MockClock) -> None:
    async with session_to(Script([UNREADABLE], then=Echo())) as (session, sim):
        messages = with_reasoning()
        messages.append(await session.ask(messages, tools=[WEATHER]))
        async with session.turn([*messages, engine.UserMessage("three")], tools=[WEATHER]) as turn:
            await turn.wait()
        assert turn.report.continued
        assert [len(connection.requests) for connection in sim.connections] == [3]


async def test_reasoning_is_left_out_once(autojump_clock: MockClock) -> None:
    async with session_to(Script([UNREADABLE, UNREADABLE], then=Echo()), transport=SSE) as (session, sim):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask(with_reasoning(), tools=[WEATHER])
        assert caught.value.code == "invalid_encrypted_content"
        assert len(sim.requests) == 2


async def test_a_refusal_of_reasoning_told_again_is_no_word_about_a_request_without_any(
    autojump_clock: MockClock,
) -> None:
    again = Raw('{"type":"error","status":400,"error":{"code":"invalid_encrypted_content","message":""}}')
    async with session_to(Script([UNREADABLE, [again, Say("fine")]]), transport=WEBSOCKET) as (session, sim):
        assert (await session.ask(with_reasoning(), tools=[WEATHER])).text == "fine"
        assert len(sim.connections) == 1


async def test_a_compaction_that_the_server_cannot_read_either_is_no_repeat(autojump_clock: MockClock) -> None:
    compaction = engine.OutputItem({"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"})
    async with session_to(Script([UNREADABLE, UNREADABLE]), transport=WEBSOCKET) as (session, sim):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask([compaction, *with_reasoning()], tools=[WEATHER])
        assert caught.value.code == "invalid_encrypted_content"
        assert len(sim.requests) == 2


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
async def test_a_compaction_that_the_server_cannot_read_is_the_turns_failure(
    autojump_clock: MockClock, transport: Transport
) -> None:
    compaction = engine.OutputItem({"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"})
    async with session_to(Script([UNREADABLE], then=Echo()), transport=transport) as (session, sim):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask([compaction, engine.UserMessage("two")])
        assert caught.value.code == "invalid_encrypted_content"
        assert len(sim.requests) == 1
        assert session.statistics().refused_seals == 0


async def test_what_is_forgotten_while_a_request_waits_at_the_server_is_sent_whole(autojump_clock: MockClock) -> None:
    """``response.queued`` accepts a request; what it continues may be gone all the same when its turn comes."""
    script = Script(["first", [Delay(2), Say("busy")]], then=Echo())
    async with session_to(script, sim_options={"max_active": 1}, transport=WEBSOCKET) as (session, sim):
        chat = session.conversation()
        await chat.send("first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lane("other").ask, "busy")
            await trio.sleep(1)
            nursery.start_soon(chat.send, "second")
            await trio.sleep(0.5)
            sim.forget()
        assert chat.messages[-1].text == "second"  # type: ignore[union-attr]
        assert [request.error_code for request in sim.requests] == [None, None, "previous_response_not_found", None]
        assert [len(request.input) for request in sim.requests] == [1, 1, 1, 3]
        assert len(sim.connections) == 1


@pytest.mark.parametrize("code", ["404", None, "bad_request"])
async def test_a_continuation_that_is_refused_in_words_is_sent_whole(
    autojump_clock: MockClock, code: str | None
) -> None:
    refusal = Error(404, code, "Response with id 'resp_1' not found.", "invalid_request_error")
    script = Script(["first", [refusal]], then=Echo())
    async with session_to(script, transport=WEBSOCKET) as (session, sim):
        chat = session.conversation()
        await chat.send("first")
        assert (await chat.send("second")).text == "second"
        assert [request.previous_response_id is not None for request in sim.requests] == [False, True, False]
        assert [len(request.input) for request in sim.requests] == [1, 1, 3]
        assert len(sim.connections) == 1
