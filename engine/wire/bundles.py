"""Frames that hold more or other than one JSON object, and can be read all the same.

The Responses API sends one object in a text frame, and in the data of an SSE event. Servers and relays in front of it
have been seen to put a byte order mark before it, to send several objects in one frame, as a list or one a line, and to
pass the lines of an SSE stream on as they are.
"""

from __future__ import annotations

from typing import Any, Final

from engine.wire import json_text

__all__ = ["objects_in"]

_MARK: Final = "\ufeff"
_FIELDS: Final = ("event:", "id:", "retry:", ":")
_DONE: Final = "[DONE]"


def objects_in(text: str) -> list[dict[str, Any]]:
    """Return the events of a frame that is not one object, in order; none where any part of it is something else."""
    text = text.removeprefix(_MARK)
    whole = _read(text)
    values = whole if isinstance(whole, list) else [whole] if whole is not None else _of_lines(text)
    return values if all(isinstance(value, dict) and ("type" in value or "error" in value) for value in values) else []


def _of_lines(text: str) -> list[Any]:
    values: list[Any] = []
    for line in text.split("\n"):
        line = line.strip()
        if not line or line.startswith(_FIELDS):
            continue
        line = line.removeprefix("data:").strip()
        if line == _DONE:
            continue
        value = _read(line)
        if value is None:
            return []
        values.append(value)
    return values


def _read(text: str) -> Any:
    """Return a value; None for what is no JSON, and for null, which is as little of use."""
    try:
        return json_text.read(text)
    except (ValueError, RecursionError):
        return None
