"""What errors are about, and the waits that servers ask for in words."""

from __future__ import annotations

import pytest

from engine.protocol.faults import CLOSE_CODES, CODES, STATUSES, TYPES, Fault, close_code, fault_of
from engine.protocol.refusals import rejection, wait_in_words
from engine.wire.codec import decode
from engine.wire.control_events import ErrorEvent


@pytest.mark.parametrize(
    ("status", "code", "kind", "fault"),
    [
        (401, None, None, Fault.CREDENTIALS),
        (401, "rate_limit_exceeded", None, Fault.CREDENTIALS),
        (None, "invalid_api_key", None, Fault.CREDENTIALS),
        (None, None, "authentication_error", Fault.CREDENTIALS),
        (400, None, "authentication_error", Fault.CREDENTIALS),
        (429, None, None, Fault.RATE),
        (429, "who_knows", None, Fault.RATE),
        (400, None, "rate_limit_error", Fault.RATE),
        (503, "slow_down", None, Fault.RATE),
        (429, "insufficient_quota", "insufficient_quota", Fault.QUOTA),
        (429, "rate_limit_exceeded", "insufficient_quota", Fault.QUOTA),
        (402, None, None, Fault.QUOTA),
        (500, None, None, Fault.SERVER),
        (529, None, None, Fault.SERVER),
        (None, None, "server_error", Fault.SERVER),
        (400, "invalid_value", "server_error", Fault.REQUEST),  # a status says more than a type
        (400, "server_error", None, Fault.SERVER),  # and a code more than a status
        (403, None, None, Fault.REQUEST),
        (418, None, None, Fault.REQUEST),
        (None, "who_knows", None, None),
        (None, None, None, None),
    ],
)
def test_what_an_error_is_about(status: int | None, code: str | None, kind: str | None, fault: Fault | None) -> None:
    assert fault_of(status, code, kind) is fault


@pytest.mark.parametrize("code", CODES)
def test_every_code_counts_whatever_the_status(code: str) -> None:
    for status in (None, 400, 500):
        assert fault_of(status, code, None) is CODES[code]


def test_every_type_and_status_counts() -> None:
    assert {kind: fault_of(None, None, kind) for kind in TYPES} == TYPES
    assert {status: fault_of(status, None, None) for status in STATUSES} == STATUSES


def test_every_close_code_of_the_protocol_is_known() -> None:
    assert sorted(CLOSE_CODES) == list(range(1000, 1016))
    assert not close_code(4321).curable
    assert close_code(1006).curable


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.898s. Visit …", 1.898),
        ("try again in 28ms", 0.028),
        ("Try again in 35 seconds.", 35.0),
        ("please try again in 2 s", 2.0),
        ("try again in 5 minutes", None),
        ("try again in s", None),
        ("try again later", None),
        ("", None),
        ("x" * 5000 + "try again in 1s", None),
    ],
)
def test_the_wait_that_words_ask_for(words: str, seconds: float | None) -> None:
    assert wait_in_words(words) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        ('{"type":"error","status":429,"error":{"message":"try again in 3s","code":"rate_limit_exceeded"}}', 3.0),
        ('{"type":"error","status":429,"error":{"message":"try again in 3s","headers":{"retry-after":"5"}}}', 5.0),
        ('{"type":"error","status":429,"headers":{"retry-after-ms":"250"},"error":{"message":"x"}}', 0.25),
        ('{"type":"error","status":500,"error":{"message":"try again in 3s"}}', None),
    ],
)
def test_the_wait_that_an_error_event_asks_for(event: str, seconds: float | None) -> None:
    decoded = decode(event)
    assert isinstance(decoded, ErrorEvent)
    assert rejection(decoded).retry_after == seconds
