"""Steps that are one event or a moment: the events of a response's life, single deltas, pauses."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import attrs
import trio

from .checks import ScriptError, a_count, a_mapping, a_text, optional, seconds
from .errors import api_error
from .pace import Pace
from .stage import Stage
from .step import Step

__all__ = [
    "Abandon",
    "AwaitOutputs",
    "CallDelta",
    "Completed",
    "Created",
    "Delay",
    "EndItem",
    "Error",
    "Event",
    "Failed",
    "Gate",
    "InProgress",
    "Incomplete",
    "SayDelta",
    "ThinkDelta",
    "With",
]


@attrs.frozen
class Created(Step):
    """``response.created``."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.create()


@attrs.frozen
class InProgress(Step):
    """``response.in_progress``."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.progress()


@attrs.frozen
class SayDelta(Step):
    """One text delta; opens a message when none is open. Works after the terminal too, as a late event."""

    text: str = attrs.field(validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("message")
        await stage.delta(self.text)


@attrs.frozen
class ThinkDelta(Step):
    """One delta of a reasoning summary; opens a reasoning item when none is open."""

    text: str = attrs.field(validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("summary")
        await stage.delta(self.text)


@attrs.frozen
class CallDelta(Step):
    """One delta of a function call's arguments; opens a call of ``name`` when none is open."""

    text: str = attrs.field(validator=a_text)
    name: str = attrs.field(default="tool", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("function_call", name=self.name)
        await stage.delta(self.text)


@attrs.frozen
class EndItem(Step):
    """Finish the open item."""

    async def perform(self, stage: Stage) -> None:
        """Send its closing events."""
        await stage.close()


@attrs.frozen(init=False)
class Completed(Step):
    """``response.completed``.

    Attributes:
        usage: Members of ``usage`` in place of the server's own.
        fields: Members of the Response in place of the server's own.
    """

    ends_response = True

    usage: Mapping[str, Any]
    fields: Mapping[str, Any]

    def __init__(self, *, usage: Mapping[str, Any] | None = None, **fields: Any) -> None:
        self.__attrs_init__({} if usage is None else usage, fields)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        stage.override(self.fields, usage=self.usage)
        await stage.finish("completed")


@attrs.frozen
class Incomplete(Step):
    """``response.incomplete``."""

    ends_response = True

    reason: str = attrs.field(default="max_output_tokens", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.finish("incomplete", incomplete=self.reason)


@attrs.frozen
class Failed(Step):
    """``response.failed``."""

    ends_response = True

    code: str = attrs.field(default="server_error", validator=a_text)
    message: str = attrs.field(default="The simulated model failed.", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.finish("failed", error={"code": self.code, "message": self.message})


class _Usual(Enum):
    CODE = "the status's usual code"


def _code(step: object, member: attrs.Attribute[Any], value: object) -> None:
    if not (value is None or isinstance(value, (str, int, _Usual))) or isinstance(value, bool):
        a_text(step, member, value)


@attrs.frozen
class Error(Step):
    """An error: the answer of the request as long as nothing was sent (HTTP: a status), afterwards an error event.

    What is not given is derived as the service does: ``Error(429)`` is a ``rate_limit_exceeded`` of type
    ``rate_limit_error``, and ``Error(code="previous_response_not_found")`` has status 400 and names its parameter.

    Attributes:
        status: The HTTP status, also inside the WebSocket frame; by default the code's, else 500.
        code: The error code; None sends null. Some servers send numbers.
        message: Its text.
        type: Its family.
        param: The parameter at fault.
        headers: Header fields, for example ``retry-after``.
    """

    status: int | None = attrs.field(default=None, validator=optional(a_count(400, 599)))
    code: str | int | Literal[_Usual.CODE] | None = attrs.field(default=_Usual.CODE, validator=_code)
    message: str | None = attrs.field(default=None, validator=optional(a_text))
    type: str | None = attrs.field(default=None, validator=optional(a_text))
    param: str | None = attrs.field(default=None, validator=optional(a_text))
    headers: Mapping[str, str] = attrs.field(factory=dict, validator=a_mapping)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        code = None if isinstance(self.code, _Usual) else self.code
        error = api_error(
            self.status,
            code,
            self.message,
            type=self.type,
            param=self.param,
            headers=self.headers,
            coded=isinstance(self.code, _Usual),
        )
        await stage.error(error)


@attrs.frozen
class Event(Step):
    """Any event. It is numbered unless it has a ``sequence_number`` or ``numbered`` is False."""

    event: Mapping[str, Any] = attrs.field(validator=a_mapping)
    numbered: bool = True

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        event = dict(self.event)
        if self.numbered:
            event.setdefault("sequence_number", stage.number())
        await stage.send(event)


# --- moments ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Delay(Step):
    """Nothing for a while."""

    seconds: float = attrs.field(validator=seconds)

    async def perform(self, stage: Stage) -> None:
        """Wait."""
        await trio.sleep(self.seconds)


@attrs.frozen
class Gate(Step):
    """Nothing until it is opened (or the connection ends).

    Attributes:
        event: An event to be set, or the name of a gate of the simulator's: ``sim.gate(name).set()`` opens it.
    """

    event: trio.Event | str = attrs.field()

    @event.validator
    def _check_event(self, member: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, (trio.Event, str)):
            raise ScriptError("Gate takes a trio.Event, or the name of a gate", (member.name,))

    async def perform(self, stage: Stage) -> None:
        """Wait."""
        event = stage.world.gate(self.event) if isinstance(self.event, str) else self.event
        await event.wait()


@attrs.frozen
class With(Step):
    """The manner of the rest of the response: its pace, and what its Response object says. Sends nothing.

    Attributes:
        response: Members of the Response in place of the server's own, such as ``id``, ``model`` or ``created_at``.
        usage: Members of ``usage`` in place of the server's own.
        pace: The pace of text where a step names no pause.
    """

    response: Mapping[str, Any] = attrs.field(factory=dict, validator=a_mapping)
    usage: Mapping[str, Any] = attrs.field(factory=dict, validator=a_mapping)
    pace: Pace | None = None

    async def perform(self, stage: Stage) -> None:
        """Note it."""
        stage.override(self.response, usage=self.usage)
        if self.pace is not None:
            stage.pace = self.pace
        await trio.lowlevel.checkpoint()


@attrs.frozen
class AwaitOutputs(Step):
    """Nothing until the client has answered every call so far by ``response.inject`` (or the connection ends)."""

    async def perform(self, stage: Stage) -> None:
        """Wait."""
        await stage.outputs()


@attrs.frozen
class Abandon(Step):
    """End the turn without a terminal; the lane takes its next request."""

    async def perform(self, stage: Stage) -> None:
        """Stop."""
        stage.abandon()
        await trio.lowlevel.checkpoint()
