"""The recovery table, row by row and transport by transport, and the numbers that bound it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.protocol.failures import (
    Broken,
    Closed,
    Expired,
    Failed,
    Failure,
    Lost,
    Mismatched,
    Overflowed,
    RequestRefused,
    TooLarge,
    Unreachable,
    UpgradeRefused,
    Violated,
    WebSocketBarred,
)
from engine.protocol.faults import Fault
from engine.protocol.recovery import TABLE, Recovery, Remedy, Setback, counts_as_outage, lacks_websocket
from engine.settings.levels import merge
from engine.settings.retry import DEFAULT_RETRY, RetryPolicy
from engine.values.choices import Delivery, Transport

AUTO, WEBSOCKET, SSE = Transport.AUTO, Transport.WEBSOCKET, Transport.SSE
SAME, NEW, BACK_OFF = Remedy.SAME_CONNECTION, Remedy.NEW_CONNECTION, Remedy.BACK_OFF
ASKED, KEY, HTTP = Remedy.RETRY_AFTER, Remedy.FRESH_KEY, Remedy.FALL_BACK
UNSENT, AMBIGUOUS, ACCEPTED, REJECTED = Delivery.NOT_SENT, Delivery.AMBIGUOUS, Delivery.ACCEPTED, Delivery.REJECTED


def rejected(
    status: int | None, code: str | None = None, kind: str | None = None, wait: float | None = None
) -> RequestRefused:
    return RequestRefused(status, code, kind, None, "", wait)


LIMIT = rejected(400, "websocket_connection_limit_reached")
MISS = rejected(400, "previous_response_not_found")

# For each row: a failure that it fits, and what is done about it, again and again, until it is raised.
ROWS: dict[str, tuple[Setback, dict[Transport, list[Remedy]]]] = {
    "anything after output": (
        Setback(Lost("gone"), delivery=ACCEPTED, output_seen=True),
        {AUTO: [], WEBSOCKET: [], SSE: []},
    ),
    "anything after a steer": (
        Setback(Lost("gone"), delivery=ACCEPTED, steered=True),
        {AUTO: [], WEBSOCKET: [], SSE: []},
    ),
    "content filter or policy": (
        Setback(Failed("content_filter"), delivery=ACCEPTED),
        {AUTO: [], WEBSOCKET: [], SSE: []},
    ),
    "breaker open, or no WebSocket there": (Setback(WebSocketBarred("open")), {AUTO: [HTTP], WEBSOCKET: [], SSE: []}),
    "the api_key function failed": (Setback(Unreachable("credentials", "x")), {AUTO: [], WEBSOCKET: [], SSE: []}),
    "upgrade 401": (Setback(UpgradeRefused(401)), {AUTO: [KEY, HTTP], WEBSOCKET: [KEY], SSE: []}),
    "upgrade 404, 405, 426": (Setback(UpgradeRefused(426)), {AUTO: [HTTP], WEBSOCKET: [], SSE: []}),
    "upgrade 429": (
        Setback(UpgradeRefused(429, (("Retry-After", "2"),))),
        {AUTO: [ASKED, ASKED, HTTP], WEBSOCKET: [ASKED, ASKED], SSE: []},
    ),
    "upgrade 5xx": (Setback(UpgradeRefused(503)), {AUTO: [HTTP], WEBSOCKET: [BACK_OFF] * 5, SSE: []}),
    "upgrade 400, 403, or any other status": (Setback(UpgradeRefused(403)), {AUTO: [HTTP], WEBSOCKET: [], SSE: []}),
    "no WebSocket came about": (
        Setback(Unreachable("tcp", "refused")),
        {AUTO: [HTTP], WEBSOCKET: [BACK_OFF] * 5, SSE: []},
    ),
    "no HTTP connection came about": (
        Setback(Unreachable("tcp", "refused"), transport=SSE),
        {AUTO: [], WEBSOCKET: [], SSE: [BACK_OFF] * 5},
    ),
    "request too large for the WebSocket": (Setback(TooLarge(2, 1)), {AUTO: [HTTP], WEBSOCKET: [], SSE: []}),
    "previous_response_not_found": (
        Setback(MISS, delivery=REJECTED, continued=True),
        {AUTO: [SAME], WEBSOCKET: [SAME], SSE: []},
    ),
    "invalid_encrypted_content": (
        Setback(rejected(400, "invalid_encrypted_content"), delivery=REJECTED, sealed=True),
        {AUTO: [Remedy.UNSEALED], WEBSOCKET: [Remedy.UNSEALED], SSE: [Remedy.UNSEALED]},
    ),
    "stream_id not known, or no name left": (
        Setback(RequestRefused(400, "unknown_parameter", None, "stream_id"), delivery=REJECTED),
        {AUTO: [NEW], WEBSOCKET: [NEW], SSE: []},
    ),
    "websocket_connection_limit_reached": (
        Setback(LIMIT, delivery=REJECTED),
        {AUTO: [NEW], WEBSOCKET: [NEW], SSE: []},
    ),
    "401 over HTTP": (
        Setback(rejected(401, "invalid_api_key"), transport=SSE, delivery=REJECTED),
        {AUTO: [KEY], WEBSOCKET: [], SSE: [KEY]},
    ),
    "quota used up": (
        Setback(rejected(429, "insufficient_quota", wait=1.0), delivery=REJECTED),
        {AUTO: [], WEBSOCKET: [], SSE: []},
    ),
    "rate limit": (
        Setback(rejected(429, "rate_limit_exceeded", wait=1.0), delivery=REJECTED),
        {AUTO: [ASKED] * 2, WEBSOCKET: [ASKED] * 2, SSE: [ASKED] * 2},
    ),
    "the server failed": (
        Setback(rejected(503), delivery=REJECTED),
        {AUTO: [BACK_OFF, HTTP], WEBSOCKET: [BACK_OFF], SSE: [BACK_OFF]},
    ),
    "any other refusal or failed response": (
        Setback(rejected(400, "invalid_prompt"), delivery=REJECTED),
        {AUTO: [], WEBSOCKET: [], SSE: []},
    ),
    "closed with 1009": (Setback(Lost("big", 1009), delivery=REJECTED), {AUTO: [HTTP], WEBSOCKET: [], SSE: []}),
    "lost before anything was sent": (
        Setback(Lost("ended as it opened", 1008)),
        {AUTO: [HTTP], WEBSOCKET: [BACK_OFF] * 5, SSE: [BACK_OFF] * 5},
    ),
    "closed with a code that will come again": (
        Setback(Lost("policy", 1008), delivery=AMBIGUOUS),
        {AUTO: [HTTP], WEBSOCKET: [], SSE: []},
    ),
    "lost before output": (Setback(Lost("reset"), delivery=ACCEPTED), {AUTO: [NEW], WEBSOCKET: [], SSE: []}),
    "no first event": (
        Setback(Expired("first_event", 30), delivery=AMBIGUOUS),
        {AUTO: [HTTP], WEBSOCKET: [], SSE: []},
    ),
    "anything else": (Setback(Expired("idle", 30), delivery=ACCEPTED), {AUTO: [], WEBSOCKET: [], SSE: []}),
}


def recovery(transport: Transport, *, renewable_key: bool = True, **numbers: Any) -> Recovery:
    policy = merge(DEFAULT_RETRY, RetryPolicy(**{"jitter": lambda: 1.0, **numbers}), "retry")
    return Recovery(transport, policy, renewable_key=renewable_key)


def course(recovery: Recovery, setback: Setback, *, left: float = 1000.0) -> list[Remedy]:
    """What is done about the same failure again and again."""
    remedies: list[Remedy] = []
    while (decision := recovery.decide(setback, left=left)).remedy is not None:
        remedies.append(decision.remedy)
        assert len(remedies) < 20
    return remedies


def test_every_row_has_its_case() -> None:
    assert set(ROWS) == {row.name for row in TABLE}
    assert all(set(courses) == set(Transport) for _, courses in ROWS.values())


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, transport: Transport) -> None:
    setback, courses = ROWS[name]
    assert next(row.name for row in TABLE if row.fits(setback)) == name
    assert course(recovery(transport), setback) == courses[transport]


@pytest.mark.parametrize(
    ("failure", "row"),
    [
        *((UpgradeRefused(status), "upgrade 404, 405, 426") for status in (404, 405, 426)),
        *((UpgradeRefused(status), "upgrade 5xx") for status in (500, 502, 503, 504, 599)),
        *(
            (UpgradeRefused(status), "upgrade 400, 403, or any other status")
            for status in (200, 302, 400, 402, 403, 451)
        ),
        *(
            (Unreachable(stage, "x"), "no WebSocket came about")
            for stage in ("dns", "tcp", "tls", "upgrade", "timeout")
        ),
        (rejected(401, "invalid_api_key"), "any other refusal or failed response"),
        (rejected(404, "model_not_found"), "any other refusal or failed response"),
        (rejected(None), "any other refusal or failed response"),
        (rejected(409, "response_already_in_flight"), "any other refusal or failed response"),
        (rejected(402), "quota used up"),
        (rejected(429, None, "insufficient_quota"), "quota used up"),
        (rejected(503, "slow_down"), "rate limit"),
        (rejected(None, "server_is_overloaded"), "the server failed"),
        (rejected(None, None, "service_unavailable_error"), "the server failed"),
        (Failed(None), "the server failed"),
        (Failed("server_error"), "the server failed"),
        (Failed("rate_limit_exceeded"), "rate limit"),
        (Failed("invalid_prompt"), "any other refusal or failed response"),
        (Failed("cancelled"), "any other refusal or failed response"),
        (Failed("cyber_policy"), "content filter or policy"),
        (LIMIT, "websocket_connection_limit_reached"),
        (MISS, "any other refusal or failed response"),  # of a request that continued nothing of ours
        (Violated("x"), "anything else"),
        (Closed("x"), "anything else"),
        (Broken(ValueError()), "anything else"),
        (Overflowed(1, 1), "anything else"),
        (Mismatched(ValueError()), "anything else"),
        *((Expired(phase, 1), "anything else") for phase in ("start", "turn", "send", "idle", "queue")),
    ],
)
def test_which_row_fits(failure: Failure, row: str) -> None:
    assert next(each.name for each in TABLE if each.fits(Setback(failure))) == row


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015])
def test_close_codes_that_another_connection_may_cure(code: int) -> None:
    setback = Setback(Lost("x", code), delivery=AMBIGUOUS)
    assert course(recovery(AUTO), setback) == [NEW]
    assert course(recovery(WEBSOCKET), setback) == []


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4001, 4999])
def test_close_codes_that_will_come_again(code: int) -> None:
    setback = Setback(Lost("x", code), delivery=AMBIGUOUS)
    assert course(recovery(AUTO), setback) == [HTTP]
    assert course(recovery(WEBSOCKET), setback) == []


def test_an_untyped_refusal_of_a_continuation_is_taken_for_a_cache_miss() -> None:
    vague = rejected(None, None, "api_error")
    assert course(recovery(AUTO), Setback(vague, continued=True, untyped=True, delivery=REJECTED)) == [SAME]
    assert course(recovery(AUTO), Setback(vague, continued=True, delivery=REJECTED)) == []
    assert course(recovery(AUTO), Setback(vague, untyped=True, delivery=REJECTED)) == []


@pytest.mark.parametrize(
    ("status", "code", "param", "message"),
    [
        (400, None, "previous_response_id", "Unsupported parameter."),
        (400, "unsupported_parameter", "previous_response_id", ""),
        (404, "404", "response_id", "Response with id 'resp_1' not found."),
        (404, "404", None, "Response with id 'resp_1' not found."),
        (400, None, None, "Previous response with id 'resp_1' not found."),
        (400, "invalid_request_error", None, "previous_response_id is only supported on Responses WebSocket v2"),
        (None, None, None, "The response resp_1 does not exist"),
        (403, None, None, "Forbidden. This response id was not issued by this proxy"),
    ],
)
def test_a_continuation_that_is_refused_in_other_words_is_sent_whole(
    status: int | None, code: str | None, param: str | None, message: str
) -> None:
    refused = RequestRefused(status, code, None, param, message)
    for transport in (AUTO, WEBSOCKET):
        assert course(recovery(transport), Setback(refused, continued=True, delivery=REJECTED)) == [SAME]
        assert course(recovery(transport), Setback(refused, delivery=REJECTED)) == []
    begun = Setback(refused, continued=True, delivery=ACCEPTED, output_seen=True)
    assert course(recovery(AUTO), begun) == []


def test_a_continuation_may_be_refused_by_a_response_that_failed() -> None:
    failed = Failed("invalid_request_error", message="Previous response with id 'resp_1' not found.")
    assert course(recovery(AUTO), Setback(failed, continued=True, delivery=REJECTED))[0] is SAME
    assert SAME not in course(recovery(AUTO), Setback(failed, continued=True, delivery=ACCEPTED))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "invalid_value", "The input is wrong."),
        (404, "model_not_found", "The model does not exist."),
        (429, "rate_limit_exceeded", "previous_response_id"),
        (401, None, "previous_response_id"),
        (400, "content_filter", "previous_response_id"),
        (400, None, "response. " + "x" * 3000 + " not found"),
    ],
)
def test_other_refusals_of_a_continuation_stay_what_they_are(status: int, code: str | None, message: str) -> None:
    refused = RequestRefused(status, code, None, None, message)
    assert SAME not in course(recovery(AUTO), Setback(refused, continued=True, delivery=REJECTED))


# --- the rule above the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", [AMBIGUOUS, ACCEPTED])
@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("name", ROWS)
def test_what_may_be_running_is_sent_again_in_auto_only_and_as_often_as_allowed(
    name: str, transport: Transport, delivery: Delivery
) -> None:
    setback, _ = ROWS[name]
    if (isinstance(setback.failure, Failed) or setback.fault is Fault.CONNECTION_LIMIT) and delivery is ACCEPTED:
        return  # the server said that it is over
    if setback.fault is Fault.CACHE_MISS:
        return  # it had nothing to begin with
    doubtful = Setback(setback.failure, setback.transport, delivery, setback.output_seen, setback.continued)
    assert doubtful.risky
    assert course(recovery(transport, resend_ambiguous=0), doubtful) == []
    assert len(course(recovery(transport, resend_ambiguous=1), doubtful)) <= (transport is AUTO)


def test_more_than_one_resend_can_be_allowed() -> None:
    lost = Setback(Lost("x"), delivery=AMBIGUOUS)
    assert course(recovery(AUTO, resend_ambiguous=3), lost) == [NEW] * 3


def test_silence_and_loss_share_the_resends() -> None:
    tried = recovery(AUTO)
    assert tried.decide(Setback(Lost("x"), delivery=AMBIGUOUS), left=100).remedy is NEW
    assert tried.decide(Setback(Expired("first_event", 1), delivery=AMBIGUOUS), left=100).remedy is None


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("name", ROWS)
def test_no_more_dispatches_than_allowed(name: str, transport: Transport) -> None:
    spent = recovery(transport, max_dispatches=2)
    spent.dispatches = 2
    assert course(spent, ROWS[name][0]) == []


def test_back_off_is_jittered_and_grows() -> None:
    parts = iter([1.0, 0.5, 0.25, 0.0, 1.0])
    tried = recovery(WEBSOCKET, jitter=lambda: next(parts))
    setback = Setback(UpgradeRefused(503))
    assert [tried.decide(setback, left=1000).wait for _ in range(6)] == [1, 1, 1, 0, 16, 0]


def test_a_back_off_longer_than_what_is_left_is_none() -> None:
    assert recovery(WEBSOCKET).decide(Setback(UpgradeRefused(503)), left=0.9).remedy is None
    assert recovery(WEBSOCKET).decide(Setback(UpgradeRefused(503)), left=1.1).remedy is BACK_OFF


def test_without_time_left_nothing_is_tried() -> None:
    for setback, _ in ROWS.values():
        assert recovery(AUTO).decide(setback, left=0.0).remedy is None


def test_a_server_that_asks_for_too_long_a_wait_is_left_alone() -> None:
    asking = Setback(UpgradeRefused(429, (("retry-after", "61"),)))
    assert recovery(AUTO).decide(asking, left=60).remedy is HTTP
    assert recovery(WEBSOCKET).decide(asking, left=60).remedy is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ((("Retry-After", "2"),), 2.0),
        ((("retry-after-ms", "1500"), ("retry-after", "9")), 1.5),
        ((("retry-after", "Thu, 01 Jan 2026 00:00:05 GMT"), ("date", "Thu, 01 Jan 2026 00:00:02 GMT")), 3.0),
        ((("retry-after", "0"),), 0.0),
    ],
)
def test_the_wait_a_server_asks_for(headers: Any, wait: float) -> None:
    decision = recovery(WEBSOCKET).decide(Setback(UpgradeRefused(429, headers)), left=60)
    assert (decision.remedy, decision.wait) == (ASKED, wait)


def test_without_a_wait_asked_for_there_is_none() -> None:
    assert recovery(WEBSOCKET).decide(Setback(UpgradeRefused(429)), left=60).remedy is None
    assert recovery(AUTO).decide(Setback(rejected(429)), left=60).remedy is None


def test_without_a_function_there_is_no_fresh_key() -> None:
    assert course(recovery(AUTO, renewable_key=False), Setback(UpgradeRefused(401))) == [HTTP]
    assert course(recovery(WEBSOCKET, renewable_key=False), Setback(UpgradeRefused(401))) == []


def test_a_key_is_refreshed_once_over_all_transports() -> None:
    tried = recovery(AUTO)
    assert course(tried, Setback(UpgradeRefused(401))) == [KEY, HTTP]
    assert course(tried, Setback(rejected(401), transport=SSE, delivery=REJECTED)) == []


def test_a_turn_that_went_over_http_says_why_and_stays_there() -> None:
    tried = recovery(AUTO)
    assert (tried.transport, tried.fallback_reason) == (WEBSOCKET, None)
    tried.decide(Setback(UpgradeRefused(426)), left=60)
    assert tried.transport is SSE
    assert tried.fallback_reason == "the server answered the WebSocket upgrade with status 426"
    assert course(tried, Setback(rejected(500), transport=SSE, delivery=REJECTED)) == [BACK_OFF]


def test_nothing_the_server_said_is_in_the_reason() -> None:
    tried = recovery(AUTO)
    tried.decide(Setback(rejected(500, "server_error", "server_error")), left=60)
    tried.decide(Setback(RequestRefused(500, "se cret", None, "se cret", "se cret")), left=60)
    assert tried.fallback_reason is not None
    assert "cret" not in tried.fallback_reason


# --- the breaker's view ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        (UpgradeRefused(503), True),
        (UpgradeRefused(500), True),
        (UpgradeRefused(401), False),
        (UpgradeRefused(429), False),
        (UpgradeRefused(426), False),
        (Unreachable("tcp", "x"), True),
        (Unreachable("timeout", "x"), True),
        (Unreachable("upgrade", "x"), True),
        (Unreachable("dns", "x"), False),
        (Unreachable("tls", "x"), False),
        (Unreachable("proxy", "x"), False),
        (Unreachable("credentials", "x"), False),
        (Lost("x"), False),
        (Expired("connect", 1), False),
        (Closed("x"), False),
    ],
)
def test_what_counts_as_an_outage(failure: Failure, counts: bool) -> None:
    assert counts_as_outage(failure) is counts


def test_what_shows_that_there_is_no_websocket() -> None:
    assert [status for status in range(300, 600) if lacks_websocket(UpgradeRefused(status))] == [404, 405, 426]
    assert not lacks_websocket(Unreachable("tcp", "x"))
