"""Whose an event is, and what becomes of one request: no answer is ever shown as another's."""

from __future__ import annotations

from typing import Any

import pytest

from engine.protocol.exchange import Exchange
from engine.protocol.failures import Failed, RequestRefused, Violated
from engine.protocol.refusals import rejection
from engine.protocol.routing import Router, Unlabelled, Verdict
from engine.values.choices import Delivery
from engine.values.messages import AssistantMessage
from engine.values.turn_events import TextDelta, TextEnded, TextStarted, TurnDone, TurnStarted
from engine.wire.account_events import AccountEvent
from engine.wire.codec import SERVER_EVENT_CLASSES, decode_object
from engine.wire.control_events import ErrorEvent
from engine.wire.events import ServerEvent


def event(wire_type: str, **members: Any) -> ServerEvent:
    return decode_object({"type": wire_type, **members})


def lifecycle(wire_type: str, response_id: str | None = "resp_1", **members: Any) -> ServerEvent:
    lane = {"stream_id": members.pop("stream_id")} if "stream_id" in members else {}
    named = {"id": response_id} if response_id is not None else {}
    return event(f"response.{wire_type}", response={**named, **members}, **lane)


def delta(text: str = "Hi", **members: Any) -> ServerEvent:
    return event("response.output_text.delta", output_index=0, content_index=0, delta=text, **members)


def error(code: str | None = None, **members: Any) -> ErrorEvent:
    nested = {name: members.pop(name) for name in ("message", "param", "headers") if name in members}
    kind = members.pop("kind", "invalid_request_error")
    made = event("error", error={"type": kind, "code": code, **nested}, **members)
    assert isinstance(made, ErrorEvent)
    return made


def message(text: str, name: str = "msg_1") -> dict[str, Any]:
    return {
        "type": "message", "id": name, "role": "assistant", "content": [{"type": "output_text", "text": text}]
    }  # fmt: skip


def sent(lane: str | None = None) -> Exchange:
    exchange = Exchange(lane)
    exchange.dispatched()
    return exchange


def routed(*lanes: str | None) -> tuple[Router, list[Exchange]]:
    router = Router()
    exchanges = [sent(lane) for lane in lanes]
    for exchange in exchanges:
        router.begin(exchange)
    return router, exchanges


# --- rule 1: the account's events are the connection's


@pytest.mark.parametrize(
    "wire_type", sorted(name for name, cls in SERVER_EVENT_CLASSES.items() if issubclass(cls, AccountEvent))
)
@pytest.mark.parametrize("lanes", [(), (None,), (None, "a")])
def test_account_events_are_the_connection_s(wire_type: str, lanes: tuple[str | None, ...]) -> None:
    router, _ = routed(*lanes)
    assert router.route(event(wire_type)) is Verdict.CONNECTION
    assert router.route(event(wire_type, stream_id="a")) is Verdict.CONNECTION


# --- rule 2: the connection limit


@pytest.mark.parametrize("lanes", [(), (None,), ("a",), (None, "a")])
def test_the_connection_limit_is_the_connection_s(lanes: tuple[str | None, ...]) -> None:
    router, _ = routed(*lanes)
    assert router.route(error("websocket_connection_limit_reached")) is Verdict.LIMIT
    assert router.route(event("error", code="websocket_connection_limit_reached")) is Verdict.LIMIT
    assert router.route(error("connection_expiring")) is Verdict.LIMIT


def test_other_limits_are_their_lane_s() -> None:
    router, (exchange,) = routed("a")
    assert router.route(error("websocket_stream_limit_reached", stream_id="a")) is exchange


# --- rule 3: lanes


def test_named_lanes() -> None:
    router, (main, a, b) = routed(None, "a", "b")
    for lane, exchange in ((None, main), ("a", a), ("b", b)):
        named = {"stream_id": lane} if lane is not None else {}
        assert router.route(lifecycle("created", f"resp_{lane}", **named)) is exchange
        assert router.route(delta(**named)) is exchange
        assert router.route(error("x", **named)) is exchange
    assert router.route(delta(stream_id="c")) is Verdict.DROPPED
    assert router.route(error("x", stream_id="c")) is Verdict.DROPPED
    assert router.route(event("hologram", stream_id="c")) is Verdict.DROPPED


# --- rule 4: events without a lane


@pytest.mark.parametrize(
    ("lanes", "target"),
    [((), Verdict.FATAL), ((None,), 0), (("a",), 0), ((None, "a"), 0), (("a", "b"), Verdict.FATAL)],
)
def test_an_error_without_a_lane(lanes: tuple[str | None, ...], target: int | Verdict) -> None:
    router, exchanges = routed(*lanes)
    assert router.route(error("boom")) is (target if isinstance(target, Verdict) else exchanges[target])


@pytest.mark.parametrize("lanes", [("a",), ("a", "b")])
def test_events_without_a_lane_while_only_named_ones_are_in_flight(lanes: tuple[str, ...]) -> None:
    router, exchanges = routed(*lanes)
    for each in (lifecycle("created"), delta(), lifecycle("completed")):
        assert router.route(each) == Unlabelled(tuple(exchanges))
    assert router.route(event("response.hologram")) is Verdict.DROPPED
    assert router.route(event("hologram")) is Verdict.CONNECTION


def test_what_the_default_lane_says_again_is_not_taken_for_a_named_one() -> None:
    router, (main, a) = routed(None, "a")
    router.route(lifecycle("created"))
    router.route(lifecycle("completed"))
    router.end(main)
    assert router.route(lifecycle("completed")) is Verdict.DROPPED
    assert router.route(delta()) is Verdict.STRAY
    assert router.route(lifecycle("created")) == Unlabelled((a,))


def test_after_one_event_with_its_label_the_others_without_are_the_default_lane_s() -> None:
    router, (main, a) = routed(None, "a")
    router.route(lifecycle("created"))
    router.route(lifecycle("completed"))
    router.end(main)
    assert router.route(lifecycle("created", stream_id="a")) is a
    assert router.route(delta()) is Verdict.STRAY


def test_an_error_after_its_turn_went_to_nobody_else() -> None:
    router, (main, a) = routed(None, "a")
    router.end(main)
    assert router.route(error("late", stream_id="a")) is a
    router.end(a)
    assert router.route(error("late")) is Verdict.FATAL
    assert router.route(error("late", stream_id="a")) is Verdict.DROPPED  # the refusal, said again


# --- rule 5, late events: see test_routing


def test_a_lane_is_spared_its_neighbour_s_past() -> None:
    router, (left, other) = routed("a", "b")
    left.abandoned = True
    router.end(left)
    assert router.route(delta(stream_id="b")) is other


# --- rule 6: events when nothing is in flight


@pytest.mark.parametrize(
    ("stray", "verdict"),
    [
        (delta(), Verdict.STRAY),
        (lifecycle("created", "resp_2"), Verdict.STRAY),
        (lifecycle("completed", "resp_2"), Verdict.DROPPED),
        (lifecycle("in_progress"), Verdict.STRAY),
        (event("response.hologram"), Verdict.STRAY),
        (event("hologram"), Verdict.CONNECTION),
        (lifecycle("completed"), Verdict.DROPPED),
        (lifecycle("done"), Verdict.DROPPED),
        (event("keepalive"), Verdict.CONNECTION),
        (error("x"), Verdict.FATAL),
    ],
)
def test_events_after_the_end(stray: ServerEvent, verdict: Verdict) -> None:
    router, (exchange,) = routed(None)
    for each in (lifecycle("created"), lifecycle("completed")):
        assert router.route(each) is exchange
        exchange.receive(each)
    router.end(exchange)
    assert router.route(stray) is verdict
    assert router.in_flight == 0


def test_a_lane_serves_one_request_at_a_time() -> None:
    router, (exchange,) = routed(None)
    with pytest.raises(AssertionError):
        router.begin(sent())
    assert list(router.exchanges()) == [exchange]
    router.end(exchange)
    router.end(exchange)
    assert (router.in_flight, list(router.exchanges())) == (0, [])


# --- delivery and outcome


def test_delivery_from_start_to_end() -> None:
    exchange = Exchange()
    seen = [exchange.delivery]
    exchange.dispatched()
    seen.append(exchange.delivery)
    assert exchange.receive(lifecycle("created")) == []
    seen.append(exchange.delivery)
    assert seen == [Delivery.NOT_SENT, Delivery.AMBIGUOUS, Delivery.ACCEPTED]
    assert exchange.response_id == "resp_1"
    assert not exchange.output_seen
    assert exchange.partial() is None


@pytest.mark.parametrize("first", [delta(), event("hologram"), event("response.inject.created", response_id="r")])
def test_any_event_of_the_turn_shows_that_it_was_accepted(first: ServerEvent) -> None:
    exchange = sent()
    exchange.receive(first)
    assert exchange.delivery is Delivery.ACCEPTED


def test_a_failure_before_any_beginning_is_a_refusal() -> None:
    exchange = sent()
    assert exchange.receive(lifecycle("failed", error={"code": "previous_response_not_found"})) == []
    assert exchange.delivery is Delivery.REJECTED
    assert exchange.outcome == Failed("previous_response_not_found", None, "resp_1")


def test_a_greeting_accepts_nothing() -> None:
    router, (exchange,) = routed(None)
    assert router.route(event("session.created", session={})) is Verdict.CONNECTION
    assert router.route(error("invalid_api_key")) is exchange
    exchange.receive(error("invalid_api_key"))
    assert exchange.delivery is Delivery.REJECTED


def test_the_start_is_told_with_the_first_output_and_once() -> None:
    exchange = sent()
    for quiet in (lifecycle("queued"), lifecycle("created"), lifecycle("in_progress"), event("hologram")):
        assert exchange.receive(quiet) == []
    first = exchange.receive(delta("H"))
    assert [type(each) for each in first] == [TurnStarted, TextStarted, TextDelta]
    assert first[0] == TurnStarted("resp_1")
    assert exchange.output_seen
    assert exchange.receive(delta("i")) == [TextDelta(0, "i")]
    last = exchange.receive(lifecycle("completed", output=[message("Hi")], status="completed"))
    assert [type(each) for each in last] == [TextEnded, TurnDone]
    assert isinstance(exchange.outcome, AssistantMessage)
    assert last[-1] == TurnDone("stop", exchange.outcome)


def test_a_response_without_output_starts_at_its_end() -> None:
    exchange = sent()
    events = exchange.receive(lifecycle("completed", output=[]))
    assert [type(each) for each in events] == [TurnStarted, TurnDone]
    assert exchange.output_seen


def test_output_before_the_id_is_known() -> None:
    exchange = sent()
    assert exchange.receive(delta())[0] == TurnStarted(None)


@pytest.mark.parametrize("wire_type", ["completed", "done"])
def test_both_names_of_the_good_end(wire_type: str) -> None:
    exchange = sent()
    exchange.receive(lifecycle(wire_type, output=[message("Hi")]))
    assert isinstance(exchange.outcome, AssistantMessage)
    assert exchange.outcome.text == "Hi"


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (
            error("model_not_found", status=404, param="model", message="no such thing"),
            RequestRefused(404, "model_not_found", "invalid_request_error", "model", "no such thing"),
        ),
        (event("error", code="bad", message="no", param=None), RequestRefused(None, "bad", None, None, "no")),
        (
            decode_object({"error": {"message": "no", "type": "api_error"}}),
            RequestRefused(None, None, "api_error", None, "no"),
        ),
        (event("error", error="no"), RequestRefused(None, None, None, None, "no")),
        (event("error"), RequestRefused(None, None, None, None, "")),
        (
            error("slow_down", status_code=429, headers={"Retry-After": "2"}),
            RequestRefused(429, "slow_down", "invalid_request_error", None, "", 2.0),
        ),
    ],
)
def test_an_error_before_anything_rejects(refusal: ServerEvent, expected: RequestRefused) -> None:
    exchange = sent()
    assert exchange.receive(refusal) == []
    assert exchange.delivery is Delivery.REJECTED
    assert exchange.outcome == expected
    assert not exchange.output_seen


@pytest.mark.parametrize(
    ("headers", "beside", "expected"),
    [
        ({}, {}, None),
        ({"retry-after": "7"}, {}, 7.0),
        ({"retry-after": 7}, {}, 7.0),
        ({}, {"Retry-After": "0.5"}, 0.5),
        ({"retry-after": "3", "retry-after-ms": "1500"}, {}, 1.5),
        ({"retry-after": "3", "retry-after-ms": "soon"}, {}, 3.0),
        ({"retry-after": "0"}, {}, 0.0),
        ({"retry-after": "-1"}, {}, None),
        ({"retry-after": "nan"}, {}, None),
        ({"retry-after": "inf"}, {}, None),
        ({"retry-after": "soon"}, {}, None),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, {}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, {}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, {}, None),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00"}, {}, None),
        ({"retry-after": "Fri, 20 Nov 99999 12:00:30 GMT", "date": "today"}, {}, None),
    ],
)
def test_when_to_try_again(headers: dict[str, Any], beside: dict[str, str], expected: float | None) -> None:
    made = event("error", headers=beside, error={"code": "slow_down", "headers": headers})
    assert isinstance(made, ErrorEvent)
    assert rejection(made).retry_after == expected


def test_an_error_after_the_start_is_a_failure() -> None:
    exchange = sent()
    exchange.receive(lifecycle("created"))
    assert exchange.receive(error("server_error", kind="server_error", message="oh")) == []
    assert exchange.delivery is Delivery.ACCEPTED
    assert exchange.outcome == Failed("server_error", "server_error", "resp_1", "oh")


def test_a_failure_after_output_ends_what_was_begun() -> None:
    exchange = sent()
    exchange.receive(delta("Hi"))
    assert [type(each) for each in exchange.receive(error("server_error"))] == [TextEnded]
    partial = exchange.partial()
    assert partial is not None
    assert (partial.text, partial.stop_reason) == ("Hi", None)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (
            lifecycle("failed", status="failed", error={"code": "server_error", "message": "oh", "type": "t"}),
            Failed("server_error", "t", "resp_1", "oh"),
        ),
        (lifecycle("failed", error=None), Failed(None, None, "resp_1")),
        (lifecycle("failed", error="it broke"), Failed(None, None, "resp_1", "it broke")),
        (lifecycle("failed", error=["it", "broke"]), Failed(None, None, "resp_1", "it; broke")),
        (lifecycle("failed", error={"code": 3, "message": []}), Failed("3", None, "resp_1")),
        (
            lifecycle("failed", error={"code": 429, "message": "try again in 2s"}),
            Failed("429", None, "resp_1", "try again in 2s", status=429, retry_after=2.0),
        ),
        (lifecycle("failed", status="cancelled"), Failed("cancelled", None, "resp_1")),
        (lifecycle("completed", status="cancelled"), Failed("cancelled", None, "resp_1")),
        (lifecycle("done", status="failed", error={"code": "x"}), Failed("x", None, "resp_1")),
        (
            lifecycle("incomplete", incomplete_details={"reason": "content_filter"}),
            Failed("content_filter", None, "resp_1"),
        ),
        (
            lifecycle("done", status="incomplete", incomplete_details={"reason": "content_filter"}),
            Failed("content_filter", None, "resp_1"),
        ),
        (event("response.cancelled"), Failed("cancelled", None, "resp_1")),
        (event("response.cancelled", response={"id": "resp_1", "error": None}), Failed("cancelled", None, "resp_1")),
        (event("response.error"), Failed(None, None, "resp_1")),
        (event("response.error", error={"code": "x", "message": "oh"}), Failed("x", None, "resp_1", "oh")),
        (event("response.error", response={"error": {"type": "t"}}), Failed(None, "t", "resp_1")),
        *(
            (event(f"response.{name}"), Violated(f"the event response.{name} held no response"))
            for name in ("completed", "done", "incomplete")
        ),
        (event("response.failed"), Failed(None, None, "resp_1")),
        (event("response.failed", error={"code": "x", "message": "oh"}), Failed("x", None, "resp_1", "oh")),
        (event("response.failed", response=None, error="oh"), Failed(None, None, "resp_1", "oh")),
        (
            event("response.failed", response={"id": "resp_1", "error": None}, error={"code": "x"}),
            Failed("x", None, "resp_1"),
        ),
        (
            lifecycle("completed", status="completed", output=[], error={"code": "x", "message": "oh"}),
            Failed("x", None, "resp_1", "oh"),
        ),
        (event("response.completed", response=None), Violated("the event response.completed held no response")),
    ],
)
def test_bad_ends(end: ServerEvent, outcome: Failed | Violated) -> None:
    exchange = sent()
    exchange.receive(lifecycle("created"))
    assert exchange.receive(end) == []
    assert exchange.outcome == outcome
    assert exchange.delivery is Delivery.ACCEPTED


def test_an_answer_beside_an_error_is_an_answer() -> None:
    exchange = sent()
    exchange.receive(delta("Hi"))
    exchange.receive(lifecycle("completed", error={"code": "x"}))
    assert isinstance(exchange.outcome, AssistantMessage)
    assert exchange.outcome.text == "Hi"


@pytest.mark.parametrize("members", [{}, {"response": None}, {"response": {"error": None}}])
def test_a_failure_that_comes_first_is_a_refusal(members: dict[str, Any]) -> None:
    exchange = sent()
    exchange.receive(event("response.failed", error={"code": "x", "message": "oh"}, **members))
    assert exchange.outcome == Failed("x", None, None, "oh")
    assert exchange.delivery is Delivery.REJECTED


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("max_output_tokens", "length"), ("something_new", "length"), (None, "length"), ("steered", "stop")],
)
@pytest.mark.parametrize("named_by", ["type", "status"])
def test_an_incomplete_response_is_an_answer(reason: str | None, expected: str, named_by: str) -> None:
    exchange = sent()
    details = {"reason": reason} if reason is not None else None
    end = (
        lifecycle("incomplete", incomplete_details=details)
        if named_by == "type"
        else lifecycle("done", status="incomplete", incomplete_details=details)
    )
    events = exchange.receive(end)
    assert isinstance(exchange.outcome, AssistantMessage)
    assert exchange.outcome.stop_reason == expected
    assert isinstance(events[-1], TurnDone)


# --- a turn that was left


def test_what_arrived_of_an_abandoned_response_stays_as_it_was() -> None:
    router, (exchange,) = routed(None)
    for each in (lifecycle("created"), delta("One", item_id="msg_1")):
        exchange.receive(each)
    exchange.abandoned = True
    whole = exchange.partial()
    assert whole is not None
    assert whole.text == "One"
    for each in (delta(" two", item_id="msg_1"), lifecycle("completed", output=[message("One two")], usage={})):
        assert router.route(each) is exchange
        assert exchange.receive(each) == []
        assert exchange.partial() == whole
    assert isinstance(exchange.outcome, AssistantMessage)
    assert not exchange.continuable


@pytest.mark.parametrize("begun", [None, lifecycle("created"), delta(item_id="msg_1")])
@pytest.mark.parametrize("before", [False, True])
def test_an_error_ends_an_abandoned_request(begun: ServerEvent | None, before: bool) -> None:
    router, (exchange,) = routed(None)
    exchange.abandoned = not before
    if begun is not None:
        assert router.route(begun) is exchange
        exchange.receive(begun)
    exchange.abandoned = True
    assert router.route(error("server_error")) is exchange
    assert exchange.receive(error("server_error")) == []
    assert isinstance(exchange.outcome, RequestRefused if begun is None else Failed)
    assert exchange.delivery is (Delivery.REJECTED if begun is None else Delivery.ACCEPTED)
