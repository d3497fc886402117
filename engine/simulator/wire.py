"""The output of the server: ids, Response objects, usage, errors. Plain dicts, built without the client's classes."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

__all__ = [
    "NOT_JSON",
    "ApiError",
    "Ids",
    "Item",
    "count_tokens",
    "dumps",
    "error_event",
    "finished_logprob",
    "loads",
    "logprobs",
    "pieces",
    "rate_limits_event",
    "response_object",
    "tokens_of",
    "usage_object",
]

Item: TypeAlias = dict[str, Any]
"""One input or output item as JSON."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


_ASCII_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_LONE_SURROGATE: Final = re.compile("\\\\u[dD][89a-fA-F]")


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and the infinities are no JSON, though Python reads them


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)

NOT_JSON: Final = object()
"""The result of `loads` for text that no strict reader takes."""


def dumps(value: object) -> str:
    """Return compact JSON text; half a surrogate pair, which a script may ask for, is escaped."""
    text = _ENCODER.encode(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _ASCII_ENCODER.encode(value)
    return text


def loads(text: str | bytes) -> Any:
    """Return the value of JSON text, or `NOT_JSON`: for broken text, and for text with half a surrogate pair in it."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = _DECODER.decode(text)
        if _LONE_SURROGATE.search(text):
            _ENCODER.encode(value).encode()
    except (ValueError, RecursionError):
        return NOT_JSON
    return value


class Ids:
    """Unique identifiers with the documented prefixes, reproducible from a seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - names, not secrets
        self._count = 0

    def new(self, prefix: str) -> str:
        """Return an id such as ``resp_00000001…``; the counter makes it unique, the rest makes it opaque."""
        self._count += 1
        if prefix == "steer":
            return f"steer_{self._count:08x}{self._random.getrandbits(96):024x}"
        return f"{prefix}_{self._count:08x}{self._random.getrandbits(160):040x}"

    def opaque(self, text: str) -> str:
        """Return a stand-in for encrypted reasoning: unreadable to people, different each time."""
        salt = self._random.getrandbits(64).to_bytes(8, "big")
        mixed = bytes(byte ^ salt[index % 8] for index, byte in enumerate(text.encode()))
        return "gAAAAA" + base64.urlsafe_b64encode(salt + mixed).decode()

    @property
    def rng(self) -> random.Random:
        """The generator, for what is random and has to be the same with the same seed."""
        return self._random

    def padding(self) -> str:
        """Return a short random string such as streamed deltas carry to hide their length."""
        return f"{self._random.getrandbits(64):016x}"[: self._random.randrange(4, 16)]


# --- tokens ----------------------------------------------------------------------------------------------------------

_PIECE: Final = re.compile(r"\s*\S{1,8}|\s+\Z", re.ASCII)


def pieces(text: str) -> list[str]:
    """Split ``text`` into what one delta carries: one token each, joined again they are the text."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    """Return how many tokens ``text`` has for this server."""
    return len(_PIECE.findall(text))


def logprobs(text: str, alternatives: int) -> list[dict[str, Any]]:
    """Return the log probabilities of a text's tokens as deltas carry them; made up, and always the same."""
    entries = []
    for token in pieces(text):
        likely = {"token": token, "logprob": -len(token) / 100}
        others = [{"token": f"{token}{number}", "logprob": -float(number)} for number in range(1, alternatives)]
        entries.append({**likely, "top_logprobs": [likely, *others] if alternatives else []})
    return entries


def finished_logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry as finished parts carry it: with the bytes of its tokens."""
    alternatives = [finished_logprob(other) for other in entry.get("top_logprobs") or ()]
    shape = {"token": entry["token"], "bytes": list(entry["token"].encode()), "logprob": entry["logprob"]}
    return shape | {"top_logprobs": alternatives} if "top_logprobs" in entry else shape


def tokens_of(items: Iterable[object]) -> int:
    """Return the tokens of items: four for each, and those of every string in them except opaque bodies."""
    total = 0
    stack: list[object] = list(items)
    total += 4 * len(stack)
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            total += count_tokens(value)
        elif isinstance(value, Mapping):
            stack.extend(
                part for key, part in value.items() if key not in {"encrypted_content", "id", "type", "status"}
            )
        elif isinstance(value, Sequence):
            stack.extend(value)
    return total


def usage_object(*, prompt: int, cached: int, answer: int, reasoning: int) -> dict[str, Any]:
    """Return the ``usage`` of a finished response."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": prompt - cached},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + answer,
    }


# --- errors ----------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class ApiError(Exception):
    """A request that the server refuses, or a failure it reports.

    Attributes:
        status: HTTP status, also what the WebSocket frame carries.
        code: The machine-readable code; None where the service sends null.
        message: The text for people.
        param: The parameter at fault.
        type: The error family.
        headers: Header fields sent along (HTTP), or inside the error (WebSocket).
        omit_param: Leave ``param`` out instead of sending null, as the connection-wide errors do.
    """

    status: int
    code: str | int | None
    message: str
    param: str | None = None
    type: str = "invalid_request_error"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    omit_param: bool = False

    def __str__(self) -> str:
        return f"{self.status} {self.code or self.type}"

    def body(self) -> dict[str, Any]:
        """Return the ``error`` object."""
        body: dict[str, Any] = {"type": self.type, "code": self.code, "message": self.message}
        if not self.omit_param:
            body["param"] = self.param
        return body


def error_event(error: ApiError, *, sequence: int | None = None) -> dict[str, Any]:
    """Return the nested ``error`` event, the form of the WebSocket."""
    event: dict[str, Any] = {"type": "error", "status": error.status}
    if sequence is not None:
        event["sequence_number"] = sequence
    event["error"] = error.body()
    if error.headers:
        event["error"]["headers"] = dict(error.headers)
    return event


def rate_limits_event() -> dict[str, Any]:
    """Return the event in which the plan route tells how much of the account is used."""
    window = {"used_percent": 12.5, "window_minutes": 300, "reset_after_seconds": 600, "reset_at": 1790000000}
    return {
        "type": "codex.rate_limits",
        "plan_type": "pro",
        "rate_limits": {"allowed": True, "limit_reached": False, "primary": window, "secondary": None},
        "code_review_rate_limits": None,
        "additional_rate_limits": None,
    }


# --- responses -------------------------------------------------------------------------------------------------------


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return dict(tool)
    return {"description": None, "parameters": {}, "strict": True} | dict(tool)


def response_object(
    body: Mapping[str, Any], *, response_id: str, created_at: int, status: str, output: Sequence[Item]
) -> dict[str, Any]:
    """Return a Response as the service writes it: every setting of the request, defaults filled in."""
    text = dict(body.get("text") or {})
    reasoning = dict(body.get("reasoning") or {})
    conversation = body.get("conversation")
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": status,
        "access_programs": body.get("access_programs"),
        "background": body.get("background") is True,
        "completed_at": None,
        "conversation": {"id": conversation} if isinstance(conversation, str) else conversation,
        "error": None,
        "frequency_penalty": 0.0,
        "image": None,
        "incomplete_details": None,
        "input_transformations": [],
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata") or {},
        "model": body.get("model") or "gpt-5.4",
        "moderation": None,
        "output": [dict(item) for item in output],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "presence_penalty": 0.0,
        "previous_response_id": body.get("previous_response_id"),
        "prompt": body.get("prompt"),
        "prompt_cache_diagnostics": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_options": None,
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": {"effort": None, "summary": None} | reasoning,
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": _service_tier(body.get("service_tier")),
        "store": body.get("store") is not False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": {"format": {"type": "text"}, "verbosity": "medium"}
        | {key: value for key, value in text.items() if value is not None},
        "tool_choice": body.get("tool_choice") or "auto",
        "tool_usage": None,
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
    }


def _service_tier(asked: object) -> object:
    if asked is None or asked == "auto":
        return "default"
    return "priority" if asked == "fast" else asked
