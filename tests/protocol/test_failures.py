"""Each way to fail is one exception, which says enough and nothing it must not."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest
from attrs import fields_dict

from engine.protocol.failures import (
    Broken,
    Closed,
    Expired,
    Failed,
    Failure,
    Lost,
    Overflowed,
    RequestRefused,
    SteerRefused,
    Throttled,
    TooLarge,
    Unreachable,
    UpgradeRefused,
    Violated,
    to_error,
)
from engine.values import errors
from engine.values.choices import Delivery
from engine.values.errors import (
    AuthenticationFailed,
    BufferOverflow,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ResponseFailed,
    SessionClosed,
    SteerRejected,
    TurnError,
    TurnTimeout,
)
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport

SECRET = "s3cret words of the server's"
CAUSE = OSError("cause")

CASES: list[tuple[Failure, type[TurnError], dict[str, Any]]] = [
    (Unreachable("dns", "the host name could not be resolved", CAUSE), ConnectFailed, {
        "stage": "dns", "status": None, "headers": (), "body": b"", "__cause__": CAUSE,
    }),
    (UpgradeRefused(503, (("x-token", SECRET),), SECRET.encode()), ConnectFailed, {
        "stage": "upgrade", "status": 503, "headers": (("x-token", SECRET),), "body": SECRET.encode(),
    }),
    (UpgradeRefused(429), ConnectFailed, {"status": 429}),
    (UpgradeRefused(401, (("x", SECRET),), SECRET.encode()), AuthenticationFailed, {"status": 401, "code": None}),
    (SteerRefused("response_not_active", "t", SECRET), SteerRejected, {
        "code": "response_not_active", "type": "t", "message": SECRET,
    }),
    (SteerRefused("response_not_active", barred="it waits"), SteerRejected, {
        "code": "response_not_active", "args": ("it waits",),
    }),
    (SteerRefused(SECRET), SteerRejected, {"code": SECRET}),
    (Lost("the peer closed", 1011, SECRET, CAUSE), ConnectionLost, {
        "close_code": 1011, "close_reason": SECRET, "__cause__": CAUSE,
    }),
    (Lost("reset"), ConnectionLost, {"close_code": 1006, "close_reason": None, "__cause__": None}),
    (Violated("a frame was too large"), ProtocolViolation, {}),
    (RequestRefused(400, "model_not_found", "invalid_request_error", "model", SECRET), RequestRejected, {
        "status": 400, "code": "model_not_found", "type": "invalid_request_error", "param": "model", "message": SECRET,
    }),
    (RequestRefused(None, None, None, None), RequestRejected, {"status": None, "code": None, "message": ""}),
    (RequestRefused(400, SECRET, SECRET, SECRET, SECRET), RequestRejected, {
        "code": SECRET, "type": SECRET, "param": SECRET,
    }),
    (RequestRefused(401, None, None, None), AuthenticationFailed, {"status": 401}),
    (RequestRefused(None, "invalid_api_key", None, None), AuthenticationFailed, {}),
    (RequestRefused(None, None, "authentication_error", None), AuthenticationFailed, {}),
    (RequestRefused(403, None, "permission_error", None), RequestRejected, {"status": 403}),
    (RequestRefused(429, None, None, None, retry_after=1.5), RateLimited, {"retry_after": 1.5}),
    (RequestRefused(None, "rate_limit_exceeded", None, None), RateLimited, {"retry_after": None}),
    (RequestRefused(None, "slow_down", None, None), RateLimited, {}),
    (RequestRefused(None, "insufficient_quota", None, None), RateLimited, {}),
    (RequestRefused(None, None, "usage_limit_reached", None), RateLimited, {}),
    (RequestRefused(None, None, "rate_limit_error", None), RateLimited, {}),
    (RequestRefused(500, "server_error", "server_error", None), RequestRejected, {"status": 500}),
    (Failed("server_error", "t", "resp_1", SECRET), ResponseFailed, {
        "code": "server_error", "type": "t", "response_id": "resp_1", "message": SECRET,
    }),
    (Failed(SECRET, SECRET, SECRET), ResponseFailed, {"code": SECRET, "type": SECRET}),
    (Failed(None), ResponseFailed, {"code": None, "type": None, "response_id": None, "message": ""}),
    (Expired("first_event", 30.0), TurnTimeout, {"phase": "first_event", "seconds": 30.0}),
    (TooLarge(20, 16), RequestTooLarge, {"size": 20, "limit": 16}),
    (Throttled(2.5), RateLimited, {"retry_after": 2.5}),
    (Overflowed(3, 4), BufferOverflow, {}),
    (Closed("the session was released"), SessionClosed, {"__cause__": None}),
    (Broken(ValueError(SECRET)), SessionClosed, {}),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "kind", "attributes"), CASES)
def test_each_failure_is_its_exception(failure: Failure, kind: type[TurnError], attributes: dict[str, Any]) -> None:
    error = to_error(failure)
    assert type(error) is kind
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert error.delivery is Delivery.NOT_SENT
    assert error.partial is None
    assert error.report is None
    assert str(error)
    assert to_error(failure) is not error


@pytest.mark.parametrize(("failure", "kind", "attributes"), CASES)
def test_no_text_holds_what_the_server_said(
    failure: Failure, kind: type[TurnError], attributes: dict[str, Any]
) -> None:
    error = to_error(failure)
    shown = [str(error), repr(error), repr(failure)]
    if not isinstance(failure, Broken):  # its cause is an exception of somebody else's, with a text of its own
        shown += traceback.format_exception(error)
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(("failure", "kind", "attributes"), CASES)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_exceptions_can_be_copied(
    failure: Failure, kind: type[TurnError], attributes: dict[str, Any], clone: Any
) -> None:
    error = to_error(failure)
    error.delivery = Delivery.ACCEPTED
    error.partial = AssistantMessage("so far", response_id="resp_1")
    error.report = TurnReport(attempts=2)
    twin = clone(error)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_a_rejection_without_reasons() -> None:
    assert (
        str(to_error(RequestRefused(None, None, None, None))) == "the server rejected the request (without saying why)"
    )


def test_what_a_rejection_says() -> None:
    error = to_error(RequestRefused(400, "bad_value", "invalid_request_error", "input[0].content"))
    assert str(error) == (
        "the server rejected the request "
        "(status: 400, code: bad_value, type: invalid_request_error, param: (not shown))"
    )  # fmt: skip


def test_every_attribute_of_a_failure_reaches_its_exception() -> None:
    for failure, kind, _ in CASES:
        error = to_error(failure)
        for name in fields_dict(type(failure)):
            if name not in {"detail", "cause", "reason"} and hasattr(kind(), name):
                assert getattr(error, name) == getattr(failure, name)


def test_every_exception_has_a_failure() -> None:
    made = {kind for _, kind, _ in CASES}
    named = {each for name in errors.__all__ if isinstance(each := getattr(errors, name), type)}
    assert {each for each in named if issubclass(each, TurnError)} - made == {TurnError}
