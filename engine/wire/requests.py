"""Client events: what a client may send on the socket, and the HTTP body of the same request.

Names and shapes are those of the Responses API reference. Reprs never show a payload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import Attribute, field, frozen

from engine.wire.base import JsonObject

__all__ = [
    "ClientEvent",
    "CreateText",
    "ResponseCreate",
    "ResponseInject",
    "ResponseSteer",
    "UnknownClientEvent",
    "is_stream_id",
    "structure_client_event",
]

SOCKET_ONLY: Final = ("type", "stream_id", "generate")
"""Members of ``response.create`` that the HTTP request does not have."""

_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,256}")


def is_stream_id(value: object) -> bool:
    """Whether a lane may be named so: 1 to 256 letters, digits, underscores, dots and hyphens (Responses API)."""
    return isinstance(value, str) and _STREAM_ID.fullmatch(value) is not None


def _without_socket_members(_: Any, attribute: Attribute[Any], body: Mapping[str, Any]) -> None:
    for name in SOCKET_ONLY:
        if name in body:
            raise ValueError(f"{name!r} does not belong in the {attribute.name}")


@frozen
class ResponseCreate:
    """Asks for a response.

    Attributes:
        body: The members of the HTTP request: ``model``, ``input``, ``tools``, …
        stream_id: The lane; None for the default lane.
        generate: False prepares the model's state without output; None leaves the server's default, true.
    """

    body: Mapping[str, Any] = field(repr=False, validator=_without_socket_members)
    stream_id: str | None = None
    generate: bool | None = None

    def to_wire(self) -> JsonObject:
        """Give the socket's form: one flat object, ``type`` first."""
        wire: JsonObject = {"type": "response.create"}
        if self.stream_id is not None:
            wire["stream_id"] = self.stream_id
        if self.generate is not None:
            wire["generate"] = self.generate
        wire.update(self.body)
        return wire

    def http_body(self) -> JsonObject:
        """Give the form for a streamed HTTP POST, which has neither lanes nor ``generate``."""
        return {**self.body, "stream": True}


@frozen
class CreateText:
    """A request body as JSON text, in pieces: written once, in its caller's task, and put together when it is sent.

    Which lane it travels on, and how much of its input the server holds already, is known only then.

    Attributes:
        members: The members of the body other than ``input``, without the braces.
        items: The items of the input; None when the input is no list.
        input: The input as a whole, where it is no list; None when there is none.
    """

    members: str = field(repr=False)
    items: tuple[str, ...] | None = field(repr=False)
    input: str | None = field(default=None, repr=False)

    def frame(
        self,
        *,
        stream_id: str | None = None,
        generate: bool | None = None,
        previous_response_id: str | None = None,
        skip: int = 0,
    ) -> str:
        """Give the text of a ``response.create``.

        Args:
            stream_id: The lane; None for the default lane.
            generate: False for a warm-up, which has no input.
            previous_response_id: The response it continues.
            skip: The number of items to leave out.
        """
        parts = ['"type":"response.create"']
        if stream_id is not None:
            parts.append(f'"stream_id":{json.dumps(stream_id)}')
        if generate is not None:
            parts.append(f'"generate":{json.dumps(generate)}')
        if previous_response_id is not None:
            parts.append(f'"previous_response_id":{json.dumps(previous_response_id)}')
        if self.members:
            parts.append(self.members)
        if generate is False:
            parts.append('"input":[]')
        else:
            parts += self._input(skip)
        return f"{{{','.join(parts)}}}"

    def http_body(self, *, stream: bool = False) -> str:
        """Give the text of the same request's body over HTTP; ``stream`` asks for server-sent events."""
        parts = ['"stream":true'] if stream else []
        if self.members:
            parts.append(self.members)
        return f"{{{','.join(parts + self._input())}}}"

    def _input(self, skip: int = 0) -> list[str]:
        if self.items is not None:
            return [f'"input":[{",".join(self.items[skip:])}]']
        return [] if self.input is None else [f'"input":{self.input}']


@frozen
class ResponseSteer:
    """Adds input to a response that is running.

    Attributes:
        previous_response_id: The response to steer.
        input: User messages, or text that stands for one.
        extra: Members beyond these; a server must refuse the request for them.
    """

    previous_response_id: str
    input: str | Sequence[Any] = field(repr=False)
    extra: Mapping[str, Any] = field(factory=dict, repr=False)

    def to_wire(self) -> JsonObject:
        """Give the socket's form, ``type`` first."""
        return {
            "type": "response.steer",
            "previous_response_id": self.previous_response_id,
            "input": self.input,
            **self.extra,
        }


@frozen
class ResponseInject:
    """Hands tool outputs to a response whose agents wait for them (multi-agent beta).

    Attributes:
        response_id: The response.
        input: The items.
        extra: Members beyond these; a server must refuse the request for them.
    """

    response_id: str
    input: Sequence[Any] = field(repr=False)
    extra: Mapping[str, Any] = field(factory=dict, repr=False)

    def to_wire(self) -> JsonObject:
        """Give the socket's form, ``type`` first."""
        return {"type": "response.inject", "response_id": self.response_id, "input": self.input, **self.extra}


@frozen
class UnknownClientEvent:
    """A client event of a type, or in a shape, that this version does not know.

    Attributes:
        raw: The parsed object.
    """

    raw: JsonObject = field(repr=False)

    @property
    def type(self) -> str:
        """The wire type, ``""`` when there is none."""
        value = self.raw.get("type")
        return value if isinstance(value, str) else ""

    def to_wire(self) -> JsonObject:
        """Give the object back."""
        return self.raw


ClientEvent: TypeAlias = ResponseCreate | ResponseSteer | ResponseInject | UnknownClientEvent


def structure_client_event(raw: JsonObject) -> ClientEvent:
    """Give a client event its class.

    A name that is no valid lane is kept: refusing it is the server's business. A null ``stream_id`` or ``generate``
    means the same as none, and is not kept.
    """
    members = dict(raw)
    match members.pop("type", None):
        case "response.create":
            stream_id = members.pop("stream_id", None)
            generate = members.pop("generate", None)
            if isinstance(stream_id, str | None) and isinstance(generate, bool | None):
                return ResponseCreate(members, stream_id, generate)
        case "response.steer":
            target = members.pop("previous_response_id", None)
            value = members.pop("input", None)
            if isinstance(target, str) and isinstance(value, str | list):
                return ResponseSteer(target, value, members)
        case "response.inject":
            target = members.pop("response_id", None)
            value = members.pop("input", None)
            if isinstance(target, str) and isinstance(value, list):
                return ResponseInject(target, value, members)
    return UnknownClientEvent(raw)
