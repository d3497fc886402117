"""The meaning of servers' error codes, error types and statuses: every one that is known, in one place.

The names are those of the Responses API reference and of servers that speak it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import frozen

__all__ = [
    "CLOSE_CODES",
    "CODES",
    "STATUSES",
    "TOO_MANY_REQUESTS",
    "TYPES",
    "CloseCode",
    "Fault",
    "close_code",
    "fault_of",
]


class Fault(Enum):
    """The subject of an error, and with that what could help."""

    CACHE_MISS = "the server no longer holds the response that the request continues"
    SEAL = "the server cannot read reasoning that it is said to have sealed"
    CONNECTION_LIMIT = "the server ends the connection's life"
    CREDENTIALS = "the credentials are not accepted"
    QUOTA = "the account has nothing left to spend"
    RATE = "too much was asked in too short a time"
    SERVER = "the server failed, or is overloaded"
    CONTENT = "a filter or a policy forbids the answer"
    REQUEST = "the request itself cannot be served"


CODES: Final[Mapping[str, Fault]] = {
    # Responses API, WebSocket mode
    "previous_response_not_found": Fault.CACHE_MISS,
    "websocket_connection_limit_reached": Fault.CONNECTION_LIMIT,
    "connection_expiring": Fault.CONNECTION_LIMIT,  # vLLM's word for it
    "invalid_stream_id": Fault.REQUEST,
    "websocket_stream_limit_reached": Fault.REQUEST,
    "concurrent_request": Fault.REQUEST,  # vLLM
    "response_already_in_flight": Fault.REQUEST,  # gateways
    "invalid_encrypted_content": Fault.SEAL,
    # credentials
    "invalid_api_key": Fault.CREDENTIALS,
    "incorrect_api_key_provided": Fault.CREDENTIALS,
    "invalid_authentication": Fault.CREDENTIALS,
    # spending
    "insufficient_quota": Fault.QUOTA,
    "usage_not_included": Fault.QUOTA,
    "usage_limit_reached": Fault.QUOTA,
    "credit_balance_exhausted": Fault.QUOTA,
    "organization_spend_limit_exceeded": Fault.QUOTA,
    "project_spend_limit_exceeded": Fault.QUOTA,
    "organization_usage_limit_exceeded": Fault.QUOTA,
    # pace
    "rate_limit_exceeded": Fault.RATE,
    "slow_down": Fault.RATE,  # with status 503 or 429
    # the server
    "server_error": Fault.SERVER,
    "server_is_overloaded": Fault.SERVER,
    "processing_error": Fault.SERVER,
    "vector_store_timeout": Fault.SERVER,
    # content
    "content_filter": Fault.CONTENT,
    "bio_policy": Fault.CONTENT,
    "cyber_policy": Fault.CONTENT,
    "misalignment_policy_violation": Fault.CONTENT,
    "image_content_policy_violation": Fault.CONTENT,
    # the request
    "cancelled": Fault.REQUEST,
    "context_length_exceeded": Fault.REQUEST,
    "data_residency_mismatch": Fault.REQUEST,
    "invalid_json": Fault.REQUEST,
    "invalid_prompt": Fault.REQUEST,
    "invalid_service_tier": Fault.REQUEST,
    "ip_not_authorized": Fault.REQUEST,
    "model_mismatch": Fault.REQUEST,
    "model_not_found": Fault.REQUEST,
    "unknown_event_type": Fault.REQUEST,
    "unsupported_country": Fault.REQUEST,
    "empty_image_file": Fault.REQUEST,
    "failed_to_download_image": Fault.REQUEST,
    "image_file_not_found": Fault.REQUEST,
    "image_file_too_large": Fault.REQUEST,
    "image_parse_error": Fault.REQUEST,
    "image_too_large": Fault.REQUEST,
    "image_too_small": Fault.REQUEST,
    "invalid_base64_image": Fault.REQUEST,
    "invalid_image": Fault.REQUEST,
    "invalid_image_format": Fault.REQUEST,
    "invalid_image_mode": Fault.REQUEST,
    "invalid_image_url": Fault.REQUEST,
    "unsupported_image_media_type": Fault.REQUEST,
}
"""Error codes, from ``error.code`` or ``response.error.code``."""

TYPES: Final[Mapping[str, Fault]] = {
    "authentication_error": Fault.CREDENTIALS,
    "insufficient_quota": Fault.QUOTA,
    "usage_limit_reached": Fault.QUOTA,
    "rate_limit_error": Fault.RATE,
    "too_many_requests": Fault.RATE,
    "server_error": Fault.SERVER,
    "service_unavailable_error": Fault.SERVER,
    "model_error": Fault.SERVER,
    "invalid_request_error": Fault.REQUEST,
    "invalid_request": Fault.REQUEST,
    "not_found": Fault.REQUEST,
}
"""Error types, from ``error.type``."""

TOO_MANY_REQUESTS: Final = 429

STATUSES: Final[Mapping[int, Fault]] = {
    400: Fault.REQUEST,
    401: Fault.CREDENTIALS,
    402: Fault.QUOTA,
    403: Fault.REQUEST,
    404: Fault.REQUEST,
    405: Fault.REQUEST,
    408: Fault.REQUEST,
    409: Fault.REQUEST,
    413: Fault.REQUEST,
    422: Fault.REQUEST,
    426: Fault.REQUEST,
    TOO_MANY_REQUESTS: Fault.RATE,
    500: Fault.SERVER,
    502: Fault.SERVER,
    503: Fault.SERVER,
    504: Fault.SERVER,
}
"""Statuses, of an HTTP answer or of an error event. Any other from 500 on is `Fault.SERVER`, the rest the request's."""


def fault_of(status: int | None, code: str | None, kind: str | None) -> Fault | None:
    """Say what an error is about.

    Args:
        status: Its HTTP status, or the equivalent in an error event.
        code: Its code.
        kind: Its type.

    Returns:
        The fault; None where nothing of it is known.
    """
    if status == 401:
        return Fault.CREDENTIALS
    by_code = CODES.get(code) if code is not None else None
    by_type = TYPES.get(kind) if kind is not None else None
    if Fault.QUOTA in (by_code, by_type):
        return Fault.QUOTA
    if by_code is not None:
        return by_code
    if by_type in {Fault.CREDENTIALS, Fault.RATE}:  # whatever status the server gave it
        return by_type
    return by_type if status is None else _by_status(status)


def _by_status(status: int) -> Fault:
    return STATUSES.get(status, Fault.SERVER if status >= 500 else Fault.REQUEST)


# --- close codes -----------------------------------------------------------------------------------------------------


@frozen
class CloseCode:
    """The meaning of a WebSocket close code (RFC 6455 section 7.4.1 and the IANA registry).

    Attributes:
        name: Its name.
        curable: Whether a new WebSocket may do better. Where not, the same would happen again.
    """

    name: str
    curable: bool


CLOSE_CODES: Final[Mapping[int, CloseCode]] = {
    1000: CloseCode("normal closure", curable=True),
    1001: CloseCode("going away", curable=True),
    1002: CloseCode("protocol error", curable=False),
    1003: CloseCode("unsupported data", curable=False),
    1004: CloseCode("reserved", curable=False),
    1005: CloseCode("no code", curable=True),
    1006: CloseCode("no Close frame", curable=True),
    1007: CloseCode("invalid data", curable=False),
    1008: CloseCode("policy violation", curable=False),
    1009: CloseCode("message too big", curable=False),
    1010: CloseCode("extension required", curable=False),
    1011: CloseCode("internal error", curable=True),
    1012: CloseCode("service restart", curable=True),
    1013: CloseCode("try again later", curable=True),
    1014: CloseCode("bad gateway", curable=True),
    1015: CloseCode("TLS failure", curable=True),
}
"""Every code of the protocol's own range. Those that a server chooses for itself, 3000 to 4999, are not curable."""

_OWN: Final = CloseCode("the server's own code", curable=False)


def close_code(code: int) -> CloseCode:
    """Look a code up; one that is not registered is the server's own."""
    return CLOSE_CODES.get(code, _OWN)
