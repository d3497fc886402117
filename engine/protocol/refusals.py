"""The refusals of a server: an error event, or an HTTP answer whose status is not one of success."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from attrs import evolve

from engine.protocol.context_words import code_of_error
from engine.protocol.failures import RequestRefused
from engine.protocol.faults import Fault, fault_of
from engine.wire.base import JsonObject, attach
from engine.wire.bundles import objects_in
from engine.wire.codec import MalformedFrame, parse_object
from engine.wire.control_events import ErrorEvent

__all__ = [
    "code_of",
    "lower_case",
    "refusal",
    "rejection",
    "request_id",
    "retry_after",
    "telling",
    "wait_asked_for",
    "wait_in_words",
]

_MAX_WORDS: Final = 2000


def rejection(event: ErrorEvent) -> RequestRefused:
    """Read an error event that refuses a request."""
    return RequestRefused(
        status=event.status,
        code=code_of(event),
        type=event.error_type,
        param=event.param,
        message=event.message or "",
        retry_after=wait_asked_for(event),
        request_id=request_id({name.lower(): value for name, value in event.headers.items()}),
    )


def code_of(event: ErrorEvent, *, status: int | None = None) -> str | None:
    """Return an error's code, the Responses API's own where the server has another for the same.

    Args:
        event: The error.
        status: The status of the HTTP answer that it is.
    """
    status = event.status if status is None else status
    return code_of_error(status=status, code=event.code, kind=event.error_type, message=event.message or "")


def wait_asked_for(event: ErrorEvent) -> float | None:
    """Read how many seconds an error event asks to wait: from its header fields or, where it has none, its words.

    Events on a socket rarely carry header fields; those that refuse for their number say "try again in 1.5s".
    """
    said = retry_after(event.headers)
    if said is not None or fault_of(event.status, event.code, event.error_type) is not Fault.RATE:
        return said
    return wait_in_words(event.message or "")


def wait_in_words(message: str) -> float | None:
    """Read how many seconds a message about a rate limit asks to wait; None where it does not say."""
    hint = _HINT.search(message[:_MAX_WORDS])
    return float(hint[1]) * _UNITS[hint[2].lower()] if hint is not None else None


_HINT: Final = re.compile(r"try again in (\d{1,6}(?:\.\d{1,6})?) ?(ms|milliseconds?|s|seconds?)\b", re.IGNORECASE)
_UNITS: Final = {
    "ms": 0.001,
    "millisecond": 0.001,
    "milliseconds": 0.001,
    "s": 1.0,
    "second": 1.0,
    "seconds": 1.0,
}


def refusal(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> RequestRefused:
    """Read an HTTP answer that refuses a request.

    Args:
        status: Its status.
        headers: Its header fields; of several with one name the first counts.
        body: The part of its body that has arrived. JSON in any of the shapes that servers use is understood, other
            text is kept as the message, and HTML, which comes from whatever stands before the server, is not.
    """
    fields = lower_case(headers)
    text = body.decode("utf-8", "replace").strip()
    raw = _object_of(text)
    if raw is None:
        words = "" if text.startswith("<") or "\0" in text or "\ufffd" in text else text[:_MAX_WORDS]
        code = code_of_error(status=status, code=None, kind=None, message=words)
        said = RequestRefused(status, code, None, None, words)
    else:
        event = ErrorEvent()
        attach(event, raw)
        said = evolve(rejection(event), code=code_of(event, status=status))
    if said.retry_after is None:
        said = evolve(said, retry_after=retry_after(fields))
    return evolve(said, status=status, request_id=request_id(fields))


def _object_of(text: str) -> JsonObject | None:
    """Read the object of a body, or the first of several: of a list, or of a stream's events."""
    try:
        return parse_object(text)
    except MalformedFrame:
        return next(iter(objects_in(text)), None)


def lower_case(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields by lower-case names; of several with one name the first counts."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), value)
    return fields


def telling(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the header fields that say how a server counts and works, from those with lower-case names."""
    return {name: value for name, value in headers.items() if name.startswith(_TELLING)}


_TELLING: Final = (
    "x-ratelimit-",
    "x-rate-limit-",
    "ratelimit",
    "retry-after",
    "openai-",
    "x-ms-",
    "azureml-",
    "cf-ray",
)


def request_id(headers: Mapping[str, str]) -> str | None:
    """Read the server's id of a request, from header fields with lower-case names."""
    return next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)


_REQUEST_IDS: Final = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait, from header fields with lower-case names."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return _until(headers)


def _until(headers: Mapping[str, str]) -> float | None:
    """Read a Retry-After that names a date, by the server's own clock (RFC 9110 section 10.2.3)."""
    try:
        wait = parsedate_to_datetime(headers["retry-after"]) - parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, OverflowError, TypeError):  # a TypeError where only one of them names a time zone
        return None
    return max(wait.total_seconds(), 0.0)
