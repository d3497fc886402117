"""Scripted answers: what each turn sends, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio

from .wire import ApiError, pieces

if TYPE_CHECKING:
    from .responses import Stage, Step

__all__ = [
    "Abandon",
    "Answer",
    "AnyAnswer",
    "Call",
    "CallDelta",
    "Completed",
    "Created",
    "CustomCall",
    "Delay",
    "EndItem",
    "Error",
    "Event",
    "Failed",
    "Gate",
    "InProgress",
    "Incomplete",
    "RawItem",
    "Refuse",
    "Say",
    "SayDelta",
    "Think",
    "ThinkDelta",
    "as_steps",
]


# --- whole items -----------------------------------------------------------------------------------------------------


async def _stream(stage: Stage, text: str, size: int, pause: float) -> None:
    parts = pieces(text)
    for start in range(0, len(parts), size):
        if start and pause:
            await trio.sleep(pause)
        await stage.delta("".join(parts[start : start + size]))


@attrs.frozen
class Say:
    """A whole assistant message.

    Attributes:
        text: What it says.
        phase: ``commentary``, ``final_answer`` or None.
        size: Tokens per delta.
        pause: Seconds between deltas.
        annotations: Annotations of the finished text.
    """

    text: str
    phase: str | None = None
    size: int = 1
    pause: float = 0.0
    annotations: Sequence[Mapping[str, Any]] = ()

    async def perform(self, stage: Stage) -> None:
        """Open a message, stream the text, close it."""
        await stage.open("message", phase=self.phase)
        await stage.open_part("text")
        await _stream(stage, self.text, self.size, self.pause)
        await stage.annotate(self.annotations)
        await stage.close()


@attrs.frozen
class Refuse:
    """A whole message in which the model refuses."""

    text: str
    size: int = 1
    pause: float = 0.0

    async def perform(self, stage: Stage) -> None:
        """Open a message, stream the refusal, close it."""
        await stage.open("refusal")
        await stage.open_part("refusal")
        await _stream(stage, self.text, self.size, self.pause)
        await stage.close()


@attrs.frozen
class Think:
    """A whole reasoning item.

    Attributes:
        summary: Summary parts; a plain string is one part.
        text: Reasoning text, which only open models show.
        size: Tokens per delta.
        pause: Seconds between deltas.
        encrypted_content: The opaque body; None lets the server make one.
    """

    summary: str | Sequence[str] = ()
    text: str | None = None
    size: int = 1
    pause: float = 0.0
    encrypted_content: str | None = None

    async def perform(self, stage: Stage) -> None:
        """Open a reasoning item, stream its parts, close it."""
        await stage.open("reasoning", encrypted_content=self.encrypted_content)
        for part in (self.summary,) if isinstance(self.summary, str) else self.summary:
            await stage.open_part("summary")
            await _stream(stage, part, self.size, self.pause)
        if self.text is not None:
            await stage.open_part("reasoning")
            await _stream(stage, self.text, self.size, self.pause)
        await stage.close()


def _arguments(value: str | Mapping[str, Any]) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@attrs.frozen
class Call:
    """A whole function call.

    Attributes:
        name: The function.
        arguments: JSON text, or a value that is written as JSON.
        call_id: None lets the server make one.
        size: Tokens per delta.
        pause: Seconds between deltas.
    """

    name: str
    arguments: str | Mapping[str, Any] = attrs.field(factory=dict)
    call_id: str | None = None
    size: int = 1
    pause: float = 0.0

    async def perform(self, stage: Stage) -> None:
        """Open a call, stream its arguments, close it."""
        await stage.start_new("function_call", name=self.name, call_id=self.call_id)
        await _stream(stage, _arguments(self.arguments), self.size, self.pause)
        await stage.close()


@attrs.frozen
class CustomCall:
    """A whole call of a custom tool; like `Call`, with free text in place of arguments."""

    name: str
    input: str = ""
    call_id: str | None = None
    size: int = 1
    pause: float = 0.0

    async def perform(self, stage: Stage) -> None:
        """Open a call, stream its input, close it."""
        await stage.start_new("custom_tool_call", name=self.name, call_id=self.call_id)
        await _stream(stage, self.input, self.size, self.pause)
        await stage.close()


@attrs.frozen
class RawItem:
    """Any output item as it is, with the given events (without indices) between ``added`` and ``done``."""

    item: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        await stage.whole_item(self.item, self.events)


# --- single events ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Created:
    """``response.created``."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.create()


@attrs.frozen
class InProgress:
    """``response.in_progress``."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.progress()


@attrs.frozen
class SayDelta:
    """One text delta; opens a message when none is open. Works after the terminal too, as a late event."""

    text: str

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("message")
        await stage.delta(self.text)


@attrs.frozen
class ThinkDelta:
    """One delta of a reasoning summary; opens a reasoning item when none is open."""

    text: str

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("summary")
        await stage.delta(self.text)


@attrs.frozen
class CallDelta:
    """One delta of a function call's arguments; opens a call of ``name`` when none is open."""

    text: str
    name: str = "tool"

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.start_delta("function_call", name=self.name)
        await stage.delta(self.text)


@attrs.frozen
class EndItem:
    """Finish the open item."""

    async def perform(self, stage: Stage) -> None:
        """Send its closing events."""
        await stage.close()


@attrs.frozen
class Completed:
    """``response.completed``."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.finish("completed")


@attrs.frozen
class Incomplete:
    """``response.incomplete``."""

    reason: str = "max_output_tokens"

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.finish("incomplete", incomplete=self.reason)


@attrs.frozen
class Failed:
    """``response.failed``."""

    code: str = "server_error"
    message: str = "The simulated model failed."

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.finish("failed", error={"code": self.code, "message": self.message})


@attrs.frozen
class Error:
    """An error: the answer of the request as long as nothing was sent (HTTP: a status), afterwards an error event.

    Attributes:
        status: The HTTP status, also inside the WebSocket frame.
        code: The error code.
        message: Its text.
        type: Its family.
        param: The parameter at fault.
        headers: Header fields, for example ``retry-after``.
    """

    status: int = 500
    code: str | None = "server_error"
    message: str = "The simulated service failed."
    type: str = "server_error"
    param: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        error = ApiError(self.status, self.code, self.message, self.param, self.type, self.headers)
        await stage.error(error)


@attrs.frozen
class Event:
    """Any event. It is numbered unless it has a ``sequence_number`` or ``numbered`` is False."""

    event: Mapping[str, Any]
    numbered: bool = True

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        event = dict(self.event)
        if self.numbered:
            event.setdefault("sequence_number", stage.number())
        await stage.send(event)


# --- time ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Delay:
    """Nothing for a while."""

    seconds: float

    async def perform(self, stage: Stage) -> None:
        """Wait."""
        await trio.sleep(self.seconds)


@attrs.frozen
class Gate:
    """Nothing until the event is set (or the connection ends)."""

    event: trio.Event

    async def perform(self, stage: Stage) -> None:
        """Wait."""
        await self.event.wait()


@attrs.frozen
class Abandon:
    """End the turn without a terminal; the lane takes its next request."""

    async def perform(self, stage: Stage) -> None:
        """Stop."""
        stage.abandon()
        await trio.lowlevel.checkpoint()


# --- turns -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Answer:
    """A whole, well-behaved turn.

    Attributes:
        text: The message; None for none.
        thinking: Summary of a reasoning item before it; None for none.
        calls: Function calls after it.
        phase: The message's phase.
        size: Tokens per delta.
        pause: Seconds between deltas.
        delay: Seconds before the first output.
    """

    text: str | None = None
    thinking: str | Sequence[str] | None = None
    calls: Sequence[Call | CustomCall] = ()
    phase: str | None = None
    size: int = 1
    pause: float = 0.0
    delay: float = 0.0

    def __iter__(self) -> Iterator[Step]:
        yield Created()
        yield InProgress()
        if self.delay:
            yield Delay(self.delay)
        if self.thinking is not None:
            yield Think(self.thinking, size=self.size, pause=self.pause)
        if self.text is not None:
            yield Say(self.text, phase=self.phase, size=self.size, pause=self.pause)
        yield from self.calls


AnyAnswer: TypeAlias = "str | Step | Iterable[Step]"
"""What a brain may answer: text, one step, or steps; missing opening events and the terminal are added."""


def as_steps(turn: AnyAnswer) -> list[Step]:
    """Return the steps of a turn."""
    if isinstance(turn, str):
        return list(Answer(turn))
    if isinstance(turn, Iterable):
        return list(turn)
    return [turn]
