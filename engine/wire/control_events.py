"""Server events that answer a client's steering, injection or interruption, and errors.

Steering and errors are in the Responses API reference, injection in its multi-agent beta; interruption has been seen on
the ChatGPT back end only.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire import json_text
from engine.wire.base import JsonObject, WireField, attach, header_fields
from engine.wire.events import OutputEvent, ServerEvent, server_events
from engine.wire.items import Item, structure_items

__all__ = [
    "ErrorEvent",
    "InjectCreated",
    "InjectFailed",
    "InterruptAccepted",
    "InterruptFailed",
    "OutputItemInterrupted",
    "SteerAccepted",
    "SteerEvent",
    "SteerFailed",
    "SteerPending",
]


@frozen(repr=False, eq=False)
class SteerEvent(ServerEvent):
    """The outcome of a steer.

    Attributes:
        steer: Its ``id`` (absent when it was refused before one was given), ``previous_response_id``, and on failure
            the ``input`` sent back.
    """

    steer: JsonObject

    @property
    def steer_id(self) -> str | None:
        """The id the server gave the submission."""
        value = self.steer.get("id")
        return value if isinstance(value, str) else None

    @property
    def previous_response_id(self) -> str | None:
        """The response that is being steered."""
        value = self.steer.get("previous_response_id")
        return value if isinstance(value, str) else None


@server_events.of("response.steer.accepted")
@frozen(repr=False, eq=False)
class SteerAccepted(SteerEvent):
    """The server queued the input and owns it; the successor's `ResponseCreated` commits it."""


@server_events.of("response.steer.pending")
@frozen(repr=False, eq=False)
class SteerPending(SteerEvent):
    """The input waits for the client, which fills the stubs in a new request.

    Attributes:
        reason: An open set; known is ``waiting_for_required_input``.
    """

    reason: ClassVar[WireField[str]] = WireField(str)

    @property
    def required_input(self) -> tuple[Item, ...]:
        """Stubs of the items the request must bring. A stub may be too bare for its class: go by its ``raw``."""
        return structure_items(self.raw.get("required_input"))


@server_events.of("response.steer.failed")
@frozen(repr=False, eq=False)
class SteerFailed(SteerEvent):
    """The input was not taken, or could not be committed after all."""

    @property
    def code(self) -> str | None:
        """The reason as a code, an open set; for example ``too_many_pending_steers``."""
        return _error_in(self.raw).code

    @property
    def error_type(self) -> str | None:
        """The error's class, for example ``invalid_request_error``."""
        return _error_in(self.raw).error_type

    @property
    def message(self) -> str | None:
        """The reason in words."""
        return _error_in(self.raw).message


@server_events.of("response.inject.created")
@frozen(repr=False, eq=False)
class InjectCreated(ServerEvent):
    """Injected items were taken. It may follow the response's terminal."""

    response_id: str


@server_events.of("response.inject.failed")
@frozen(repr=False, eq=False)
class InjectFailed(ServerEvent):
    """Injected items were not taken; ``input`` is what was sent."""

    response_id: str

    @property
    def input(self) -> Any:
        """The items sent back."""
        return self.raw.get("input")

    @property
    def code(self) -> str | None:
        """``response_already_completed`` or ``response_not_found``."""
        return _error_in(self.raw).code

    @property
    def message(self) -> str | None:
        """The reason in words."""
        return _error_in(self.raw).message


@server_events.of("response.interrupt.accepted")
@frozen(repr=False, eq=False)
class InterruptAccepted(ServerEvent):
    """The response is being interrupted."""

    response_id: ClassVar[WireField[str]] = WireField(str)


@server_events.of("response.interrupt.failed")
@frozen(repr=False, eq=False)
class InterruptFailed(ServerEvent):
    """The response cannot be interrupted."""

    response_id: ClassVar[WireField[str]] = WireField(str)

    @property
    def code(self) -> str | None:
        """The reason as a code, where the server gives one."""
        return _error_in(self.raw).code


@server_events.of("response.output_item.interrupted")
@frozen(repr=False, eq=False)
class OutputItemInterrupted(OutputEvent):
    """An item was left unfinished by an interruption and is not part of the output."""

    response_id: ClassVar[WireField[str]] = WireField(str)


@server_events.of("error")
@frozen(repr=False, eq=False)
class ErrorEvent(ServerEvent):
    """An error, in whichever of its shapes.

    The reference declares members at the top level for SSE and under ``error`` for the WebSocket; servers mix the two,
    and xAI's sends the nested object without a ``type``. The nested member wins where both exist. Others give the
    status as the code, as a number or as text, or say all they have to say as ``detail``; AWS has names of its own. A
    gateway may wrap another's error in its own, as an object or as that object's JSON text, or list one as ``errors``.
    """

    @property
    def type(self) -> str:
        """Always ``"error"``."""
        return "error"

    def _read(self, name: str) -> Any:
        nested = self._nested
        value = nested.get(name) if isinstance(nested, dict) else None
        return self.raw.get(name) if value is None else value

    @property
    def _nested(self) -> Any:
        """The member ``error``, out of all that it is wrapped in."""
        several = self.raw.get("errors")
        value = self.raw.get("error")
        if value is None and isinstance(several, list) and several:
            value = several[0] if isinstance(several[0], dict) else several
        for _ in range(_MAX_WRAPPINGS):
            if isinstance(value, str):
                value = _object_in(value) or value
            within = value.get("error") if isinstance(value, dict) and not value.get("message") else None
            if not isinstance(within, dict | str) or not within:
                break
            value = within
        return value

    @property
    def status(self) -> int | None:
        """The HTTP status it stands for (``status``, ``status_code``, or a code that is one)."""
        given = (_number(self.raw.get(name)) for name in ("status", "status_code"))
        coded = _number(self._read("code"))
        return next((status for status in given if status is not None), coded if 400 <= (coded or 0) < 600 else None)

    @property
    def code(self) -> str | None:
        """The machine-readable cause, for example ``previous_response_not_found``; a number as text."""
        code = self._read("code")
        return str(code) if code.__class__ is int else code if isinstance(code, str) else None

    @property
    def error_type(self) -> str | None:
        """The error's class, for example ``invalid_request_error``; None where it gives none."""
        nested, flat = self._nested, self.raw.get("type")
        own = nested.get("type") if isinstance(nested, dict) else None
        given = (own, flat if flat != "error" else None, self._read("__type"))
        return next((each for each in given if isinstance(each, str) and each), None)

    @property
    def message(self) -> str | None:
        """The cause in words, from wherever they stand."""
        nested = self._nested
        if isinstance(nested, str | list):
            return _words(nested) or None
        for name in ("message", "detail", "msg", "Message"):
            words = _words(self._read(name))
            if words:
                return words
        return None

    @property
    def param(self) -> str | None:
        """The request member at fault."""
        param = self._read("param")
        return param if isinstance(param, str) else None

    @property
    def refuses_an_event(self) -> bool:
        """Whether it is about an event of a type that the server does not know, and so about no response."""
        return self.code == "unknown_event_type" or self.param == "type"

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that came with it, names in lower case; those under ``error`` win over those beside it."""
        nested = self._nested
        return {**header_fields(self.raw), **(header_fields(nested) if isinstance(nested, dict) else {})}

    @property
    def misalignment(self) -> JsonObject | None:
        """Details of a misalignment block."""
        nested = self._nested
        value = (nested if isinstance(nested, dict) else self.raw).get("misalignment")
        return value if isinstance(value, dict) else None


def _error_in(raw: JsonObject) -> ErrorEvent:
    event = ErrorEvent()
    attach(event, {"type": "error", "error": raw.get("error")})
    return event


def _number(value: Any) -> int | None:
    """Read a status, as a number or as text that may go on with its reason phrase; None for what is none."""
    if isinstance(value, str):
        digits, _, _ = value.partition(" ")
        value = int(digits) if len(digits) == _STATUS_DIGITS and digits.isascii() and digits.isdecimal() else None
    return value if value.__class__ is int and 0 <= value < 10**_STATUS_DIGITS else None


_STATUS_DIGITS: Final = 3
_MAX_PROBLEMS: Final = 20
_MAX_WRAPPINGS: Final = 3


def _object_in(text: str) -> JsonObject | None:
    """Read text that is a JSON object; None for what is not."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json_text.read(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _words(value: Any) -> str:
    """Read text, or the problems that FastAPI lists: where each is, and what is wrong there."""
    for _ in range(_MAX_WRAPPINGS):
        value = value.get("message") or value.get("msg") if isinstance(value, dict) else value
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    if all(isinstance(each, str) for each in value):
        return "; ".join(value[:_MAX_PROBLEMS])
    problems = [(each.get("loc"), each.get("msg")) for each in value[:_MAX_PROBLEMS] if isinstance(each, dict)]
    return "; ".join(
        f"{'.'.join(str(step) for step in place)}: {said}" if isinstance(place, list) and place else said
        for place, said in problems
        if isinstance(said, str)
    )
