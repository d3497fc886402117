"""JSON text to events and back.

Text is read strictly (RFC 8259): ``NaN`` and ``Infinity``, which Python's parser would admit, are refused both ways. A
number too large for a double still reads as an infinity, and an object that holds one cannot be written again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from engine.wire import account_events, control_events, json_text, tool_events  # noqa: F401  # their classes register themselves
from engine.wire.base import DRIFT, JsonObject, WireObject, attach
from engine.wire.bundles import objects_in
from engine.wire.events import Chunks, ServerEvent, UnknownEvent, server_events
from engine.wire.requests import (
    ClientEvent,
    CreateText,
    ResponseCreate,
    ResponseInject,
    ResponseSteer,
    UnknownClientEvent,
    structure_client_event,
)
from engine.wire.text import well_formed

__all__ = [
    "SERVER_EVENT_CLASSES",
    "Malformation",
    "MalformedFrame",
    "decode",
    "decode_client_event",
    "decode_object",
    "encode",
    "encode_create",
    "parse_object",
    "read_frame",
    "read_frames",
]

Malformation: TypeAlias = Literal["not JSON", "not an object", "no type", "nested too deep"]


class MalformedFrame(Exception):
    """A frame is no event at all. The peer broke the protocol; nothing of what it sent is in the text.

    Attributes:
        reason: The fault in it.
    """

    def __init__(self, reason: Malformation) -> None:
        super().__init__(reason)
        self.reason: Final[Malformation] = reason


SERVER_EVENT_CLASSES: Final[Mapping[str, type[ServerEvent]]] = server_events.classes
"""The class of every known event type."""


_read_quickly: Final = json_text.read_quickly
_ready: Final = server_events.ready


def parse_object(text: str) -> JsonObject:
    """Read text that is to be one JSON object.

    Raises:
        MalformedFrame: It is not.
    """
    value = _parsed(text)
    if isinstance(value, str):
        raise MalformedFrame(value)
    return value


def _parsed(text: str) -> JsonObject | Malformation:
    # Not raised here: a parser's error holds the whole document, and as a context would carry it along.
    try:
        value = json_text.read(text)
    except ValueError:
        return "not JSON"
    except RecursionError:
        return "nested too deep"
    if value.__class__ is dict:
        return value
    return "not an object"


def decode(text: str) -> ServerEvent:
    """Read one frame, or the data of one SSE event.

    Raises:
        MalformedFrame: It is no JSON object with a type. Unknown types and shapes are no errors but `UnknownEvent`.
    """
    return decode_object(read_frame(text))


def read_frame(text: str) -> JsonObject:
    """Read the object of one frame, which `decode_object` then gives its class; of several, a batch.

    Raises:
        MalformedFrame: It is none.
    """
    raw = _read_quickly(text)
    if raw.__class__ is dict:
        return raw
    value = _parsed(text)
    if isinstance(value, str):
        objects = objects_in(text)
        if not objects:
            raise MalformedFrame(value)
        value = objects[0] if len(objects) == 1 else {"chunks": objects}
    return value


def read_frames(texts: Sequence[str]) -> list[JsonObject | None]:
    """Read the objects of frames that came together; None in place of one that `read_frame` has to look at."""
    return [raw if raw.__class__ is dict else None for raw in json_text.read_all(texts)]


def decode_object(raw: JsonObject) -> ServerEvent:
    """Give a parsed event its class. The object is kept, not copied.

    An object without a type is an error when it has an ``error`` or a ``detail``, and a batch when it has ``chunks``.

    Raises:
        MalformedFrame: It has no type and is neither.
    """
    try:
        return _ready[raw["type"]](raw)  # what was met before
    except DRIFT:
        pass
    event = server_events(raw, raw.get("type"))
    if event.__class__ is UnknownEvent and (not event.type or "chunks" in raw or raw.get("object") == "error"):
        return _decode_irregular(raw)
    return event


def _decode_irregular(raw: JsonObject) -> ServerEvent:
    if _is_batch(raw):
        batch = Chunks(tuple(_flatten(raw)))
        attach(batch, raw)
        return batch
    if _is_error(raw):
        return server_events(raw, "error")
    event = server_events(raw, raw.get("type"))
    if event.type:
        return event
    raise MalformedFrame("no type")


def _is_error(raw: JsonObject) -> bool:
    """Whether an object of no known type is an error: by the member that holds one, or by what it calls itself."""
    if raw.get("object") == "error":
        return True
    if raw.get("type") is not None:
        return False
    return isinstance(raw.get("error"), dict | str) or any(
        isinstance(raw.get(name), str | list) for name in ("detail", "errors")
    )


def _is_batch(raw: JsonObject) -> bool:
    wire_type = raw.get("type")
    return isinstance(raw.get("chunks"), list) and not (
        isinstance(wire_type, str) and wire_type in SERVER_EVENT_CLASSES
    )


def _flatten(batch: JsonObject) -> Iterator[ServerEvent]:
    # By a stack rather than by recursion: how deep batches nest is the peer's choice.
    pending = [batch]
    while pending:
        raw = pending.pop()
        if _is_batch(raw):
            pending.extend(each for each in reversed(raw["chunks"]) if isinstance(each, dict))
            continue
        with suppress(MalformedFrame):
            yield decode_object(raw)


def decode_client_event(text: str) -> ClientEvent:
    """Read what a client sent.

    Raises:
        MalformedFrame: It is no JSON object. Unknown types and shapes are `UnknownClientEvent`.
    """
    return structure_client_event(parse_object(text))


def _plain(value: Any) -> Any:
    if isinstance(value, WireObject):
        return value.raw
    if isinstance(value, ResponseCreate | ResponseSteer | ResponseInject | UnknownClientEvent):
        return value.to_wire()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)


def encode_create(body: Mapping[str, Any]) -> CreateText:
    """Write a request body in the pieces it is sent in.

    Raises:
        TypeError: Something in it has no JSON form.
        ValueError: Something in it is not finite, or contains itself.
        RecursionError: It is nested too deep.
    """
    given = body.get("input")
    members = encode({name: value for name, value in body.items() if name != "input"})[1:-1]
    if isinstance(given, list):
        # Items that are no objects are for the server to refuse.
        return CreateText(members, tuple(encode({"": item})[4:-1] for item in given))
    return CreateText(members, None, encode({"": given})[4:-1] if "input" in body else None)


def encode(value: WireObject | ClientEvent | Mapping[str, Any]) -> str:
    """Write an event, an item, a part, a request or a plain mapping as compact JSON.

    What was decoded is written with every member it came with, known or not. The text can always be sent as UTF-8, and
    is JSON to strict parsers too: half a character is written as U+FFFD.

    Raises:
        TypeError: Something in it has no JSON form.
        ValueError: Something in it is not finite, or contains itself.
    """
    return well_formed(_encoder.encode(value))
