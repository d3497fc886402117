"""What may be steered, and with what; which outputs a steered response waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from .requests import normalise_input
from .wire import Item

__all__ = ["STUBS", "Pending", "SteerError", "steer_items", "stub"]


@attrs.define(eq=False)
class Pending:
    """A steering submission that the server owns and has not committed yet."""

    steer_id: str
    items: list[Item]
    raw: Any


@attrs.define(eq=False)
class SteerError(Exception):
    """Steering that the server does not take, with the code and message of its refusal."""

    code: str
    message: str


STUBS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}


def stub(item: Item) -> Item:
    """Return the outline of the output that a call of the client's waits for."""
    stub = {"type": STUBS[item["type"]], "call_id": item["call_id"]}
    return stub | {"name": item["name"]} if item["type"] == "function_call" else stub


def steer_items(event: Mapping[str, Any]) -> list[Item]:
    """Return the input of a ``response.steer`` as items.

    Raises:
        SteerError: it is not what may be steered with.
    """
    value = event.get("input")
    if set(event) - {"type", "previous_response_id", "input"}:
        raise SteerError("invalid_input", "Steering takes 'previous_response_id' and 'input' only.")
    if isinstance(value, str) and value:
        return normalise_input(value)
    if not isinstance(value, list) or not value:
        raise SteerError("invalid_input", "Steering input is a non-empty string or array of user messages.")
    for entry in value:
        if (
            not isinstance(entry, dict)
            or set(entry) - {"type", "role", "content"}
            or entry.get("type", "message") != "message"
            or entry.get("role") != "user"
            or not isinstance(entry.get("content"), (str, list))
        ):
            raise SteerError("invalid_input", "Steering input consists of user messages only.")
    return normalise_input(cast("list[Item]", value))
