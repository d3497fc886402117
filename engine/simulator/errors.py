"""The service's wording of errors: what belongs to a code, and what to a status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs

from .wire import ApiError

__all__ = ["api_error", "reason_phrase"]


@attrs.frozen
class _Kind:
    status: int
    type: str
    message: str
    param: str | None = None


_INVALID: Final = "invalid_request_error"
_QUOTA: Final = "insufficient_quota"

_BY_CODE: Final[Mapping[str, _Kind]] = {
    "invalid_api_key": _Kind(401, _INVALID, "Incorrect API key provided."),
    "ip_not_authorized": _Kind(401, _INVALID, "Requests from this address are not allowed by the project."),
    "unsupported_country": _Kind(403, _INVALID, "Country, region, or territory not supported."),
    "model_not_found": _Kind(404, _INVALID, "The model does not exist or you do not have access to it.", "model"),
    "previous_response_not_found": _Kind(400, _INVALID, "The previous response was not found.", "previous_response_id"),
    "context_length_exceeded": _Kind(400, _INVALID, "The input exceeds the context window of this model.", "input"),
    "invalid_encrypted_content": _Kind(
        400, _INVALID, "The encrypted content of a reasoning item could not be verified.", "input"
    ),
    "invalid_prompt": _Kind(400, _INVALID, "The prompt was refused."),
    "invalid_service_tier": _Kind(400, _INVALID, "The service tier is not available.", "service_tier"),
    "content_filter": _Kind(400, _INVALID, "The content was filtered."),
    "invalid_stream_id": _Kind(400, _INVALID, "The stream_id is not valid.", "stream_id"),
    "websocket_stream_limit_reached": _Kind(
        400, _INVALID, "This connection has used up its named streams.", "stream_id"
    ),
    "websocket_connection_limit_reached": _Kind(400, _INVALID, "This connection has reached its limit."),
    "rate_limit_exceeded": _Kind(429, "rate_limit_error", "Rate limit reached for requests."),
    "slow_down": _Kind(429, "rate_limit_error", "The request rate rose too quickly. Slow down."),
    "usage_limit_reached": _Kind(429, "usage_limit_reached", "The usage limit has been reached."),
    "insufficient_quota": _Kind(429, _QUOTA, "The current quota is used up. Check the plan and billing details."),
    "credit_balance_exhausted": _Kind(429, _QUOTA, "The credit balance is used up."),
    "organization_spend_limit_exceeded": _Kind(429, _QUOTA, "The organization's spend limit has been reached."),
    "project_spend_limit_exceeded": _Kind(429, _QUOTA, "The project's spend limit has been reached."),
    "organization_usage_limit_exceeded": _Kind(429, _QUOTA, "The organization's usage limit has been reached."),
    "server_error": _Kind(500, "server_error", "The server had an error while processing the request."),
    "server_is_overloaded": _Kind(503, "service_unavailable_error", "The server is overloaded. Try again later."),
}
_BY_STATUS: Final[Mapping[int, str | None]] = {
    401: "invalid_api_key",
    403: "unsupported_country",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_is_overloaded",
}


def _family(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 503:
        return "service_unavailable_error"
    return "server_error" if status >= 500 else _INVALID


def api_error(
    status: int | None = None,
    code: str | int | None = None,
    message: str | None = None,
    *,
    type: str | None = None,  # noqa: A002 - the wire's name
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    coded: bool = True,
) -> ApiError:
    """Return an error in which everything that was not given is what the service says with the rest.

    Args:
        status: The HTTP status; None takes the code's, or 500.
        code: The code; None takes the status's usual one.
        message: The text; None takes the code's, else a plain one.
        type: The error's family; None derives it.
        param: The parameter at fault; None takes the code's.
        headers: Header fields that go with it.
        coded: False sends null for a code of None.
    """
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    if status is None:
        status = 500 if kind is None else kind.status
    if code is None and coded:
        code = _BY_STATUS.get(status)
        kind = None if code is None else _BY_CODE[code]
    if kind is None or kind.status != status:
        # The status decides on the family where the code is unknown, or comes with another status than usual.
        kind = _Kind(status, _family(status), message or "The request failed.", None if kind is None else kind.param)
    return ApiError(
        status,
        code,
        kind.message if message is None else message,
        kind.param if param is None else param,
        kind.type if type is None else type,
        {} if headers is None else headers,
    )


def reason_phrase(status: int) -> str:
    """Return the registered phrase of an HTTP status (RFC 9110 section 15); empty where there is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
