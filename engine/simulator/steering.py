"""Input for a response that runs: what it may be steered with, or have injected, and what the server answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from .items import check_item
from .requests import normalise_input
from .stage import Pending, Stage
from .waiting import answered_call, call_key, stub, unanswered
from .wire import ApiError, Item

__all__ = ["InjectError", "answer_inject", "answer_steer", "pending_event", "returned_event"]

_PENDING_STEERS: Final = 32


@attrs.define(eq=False)
class _SteerError(Exception):
    """Steering that the server does not take, with the code and message of its refusal."""

    code: str
    message: str


def answer_steer(event: Mapping[str, Any], stage: Stage | None, *, ended: bool) -> dict[str, Any]:
    """Take the input of a ``response.steer`` if it may be taken, and return the acknowledgement.

    Args:
        event: The client's event.
        stage: The response it names, where that runs on this connection.
        ended: Whether the response ran on this connection.
    """
    try:
        items = _steer_items(event)
        if stage is None:
            if ended:
                raise _SteerError("response_already_completed", "The response has already ended.")
            raise _SteerError("response_not_found", "There is no such response on this connection.")
        if not _steerable(stage):
            raise _SteerError("steering_not_supported", "This response cannot be steered.")
        if len(stage.steers) >= _PENDING_STEERS:
            raise _SteerError("too_many_pending_steers", "Too much steering input is waiting.")
    except _SteerError as error:
        target = event.get("previous_response_id")
        steer = {"previous_response_id": target if isinstance(target, str) else "", "input": event.get("input")}
        number = 0 if stage is None else stage.number()
        return _failed(number, steer, error.code, error.message)
    pending = Pending(stage.ids.new("steer"), items, event["input"])
    stage.steers.append(pending)
    return {
        "type": "response.steer.accepted",
        "sequence_number": stage.number(),
        "steer": {"id": pending.steer_id, "previous_response_id": stage.response_id},
    }


def _steerable(stage: Stage) -> bool:
    body = stage.asked.body
    return (
        stage.asked.model.startswith(stage.quirks.steerable)
        and not body.get("conversation")
        # Neither with automatic compaction, nor with several agents.
        and not body.get("context_management")
        and not (body.get("multi_agent") or {}).get("enabled")
    )


def _failed(number: int, steer: Mapping[str, Any], code: str, message: str) -> dict[str, Any]:
    return {
        "type": "response.steer.failed",
        "sequence_number": number,
        "steer": steer,
        "error": {"type": "invalid_request_error", "code": code, "message": message},
    }


def returned_event(stage: Stage, pending: Pending) -> dict[str, Any]:
    """Return the event that gives input back which was accepted and cannot be used any more."""
    steer = {"id": pending.steer_id, "previous_response_id": stage.response_id, "input": pending.raw}
    message = "The response ended before the input could be used."
    return _failed(stage.number(), steer, "successor_creation_failed", message)


def pending_event(stage: Stage, pending: Pending) -> dict[str, Any]:
    """Return the event that says which outputs of the client's calls the accepted input waits for."""
    stubs = [stub(item) for item in unanswered(stage.output)]
    return {
        "type": "response.steer.pending",
        "sequence_number": stage.number(),
        "steer": {"id": pending.steer_id, "previous_response_id": stage.response_id},
        "reason": "waiting_for_required_input",
        "required_input": [each for each in stubs if each is not None],
    }


def _steer_items(event: Mapping[str, Any]) -> list[Item]:
    value = event.get("input")
    if set(event) - {"type", "previous_response_id", "input"}:
        raise _SteerError("invalid_input", "Steering takes 'previous_response_id' and 'input' only.")
    if isinstance(value, str) and value:
        return normalise_input(value)
    if not isinstance(value, list) or not value:
        raise _SteerError("invalid_input", "Steering input is a non-empty string or array of user messages.")
    for entry in value:
        if (
            not isinstance(entry, dict)
            or set(entry) - {"type", "role", "content"}
            or entry.get("type", "message") != "message"
            or entry.get("role") != "user"
            or not isinstance(entry.get("content"), (str, list))
        ):
            raise _SteerError("invalid_input", "Steering input consists of user messages only.")
        try:
            check_item("input", entry, last=False)
        except ApiError as error:
            raise _SteerError("invalid_input", error.message) from None
    return normalise_input(cast("list[Item]", value))


# --- injected outputs ------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class InjectError(Exception):
    """An event that the schema of ``response.inject`` does not allow."""

    message: str
    param: str

    def __str__(self) -> str:
        return self.message


def answer_inject(event: Mapping[str, Any], stage: Stage | None, *, ended: bool) -> dict[str, Any]:
    """Take the outputs of a ``response.inject`` all together, or none of them, and return the acknowledgement.

    Args:
        event: The client's event.
        stage: The response it names, where that runs on this connection.
        ended: Whether the response ran on this connection.

    Raises:
        InjectError: the event has not the form it must have.
    """
    for name in event:
        if name not in {"type", "response_id", "input"}:
            raise InjectError(f"There is no parameter {name!r}.", name)
    if not isinstance(event.get("response_id"), str):
        raise InjectError("'response_id' takes a string.", "response_id")
    value = event.get("input")
    if not isinstance(value, list) or not value:
        raise InjectError("'input' takes a non-empty array.", "input")
    for index, entry in enumerate(value):
        try:
            check_item(f"input[{index}]", entry, last=False)
        except ApiError as error:
            raise InjectError(error.message, error.param or "input") from None
    items = normalise_input(value)
    if stage is None and ended:
        return _not_injected(event, 0, "response_already_completed", "The response has already ended.")
    if stage is None:
        return _not_injected(event, 0, "response_not_found", "There is no such response on this connection.")
    waiting = {call_key(item) for item in unanswered([*stage.output, *stage.injected])}
    answered = [answered_call(item) for item in items]
    if any(key is None or key not in waiting for key in answered) or len(set(answered)) < len(answered):
        raise InjectError("'input' takes outputs of calls that the response waits for.", "input")
    stage.inject(items)
    return {
        "type": "response.inject.created",
        "sequence_number": stage.number(),
        "response_id": stage.response_id,
    }


def _not_injected(event: Mapping[str, Any], number: int, code: str, message: str) -> dict[str, Any]:
    return {
        "type": "response.inject.failed",
        "sequence_number": number,
        "response_id": event["response_id"],
        "input": event["input"],
        "error": {"code": code, "message": message},
    }
