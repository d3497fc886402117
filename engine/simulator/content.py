"""Steps that are a whole output item each, with all its events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from .checks import ScriptError, a_count, a_mapping, a_text, mappings, one_of, optional, seconds
from .stage import Stage
from .step import Step

__all__ = ["Call", "CustomCall", "Json", "RawItem", "Refuse", "Say", "Think"]


@attrs.frozen
class Say(Step):
    """A whole assistant message.

    Attributes:
        text: The message's text.
        phase: ``commentary``, ``final_answer`` or None.
        size: Tokens per delta.
        pause: Seconds between deltas; 0 takes the pace of the rule or the server.
        annotations: Annotations of the finished text.
    """

    text: str = attrs.field(validator=a_text)
    phase: str | None = attrs.field(default=None, validator=optional(one_of("commentary", "final_answer")))
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)
    annotations: Sequence[Mapping[str, Any]] = attrs.field(default=(), validator=mappings)

    async def perform(self, stage: Stage) -> None:
        """Open a message, stream the text, close it."""
        await stage.open("message", phase=self.phase)
        await stage.open_part("text")
        await stage.stream(self.text, self.size, self.pause)
        await stage.annotate(self.annotations)
        await stage.close()


@attrs.frozen
class Json(Step):
    """A whole assistant message that is one JSON value, as structured answers are.

    Attributes:
        value: The value that is written as JSON.
        size: Tokens per delta.
        pause: Seconds between deltas; 0 takes the pace of the rule or the server.
    """

    value: Any
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)

    def __attrs_post_init__(self) -> None:
        """Find out now whether the value can be written."""
        self.text()

    def text(self) -> str:
        """Return the JSON text."""
        try:
            return json.dumps(self.value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ScriptError(f"Json takes what JSON can express: {error}", ("value",)) from None

    async def perform(self, stage: Stage) -> None:
        """Say it."""
        await Say(self.text(), size=self.size, pause=self.pause).perform(stage)


@attrs.frozen
class Refuse(Step):
    """A whole message in which the model refuses."""

    text: str = attrs.field(validator=a_text)
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)

    async def perform(self, stage: Stage) -> None:
        """Open a message, stream the refusal, close it."""
        await stage.open("refusal")
        await stage.open_part("refusal")
        await stage.stream(self.text, self.size, self.pause)
        await stage.close()


def _texts(step: object, member: attrs.Attribute[Any], value: object) -> None:
    for part in (value,) if isinstance(value, str) or not isinstance(value, Sequence) else value:
        a_text(step, member, part)


@attrs.frozen
class Think(Step):
    """A whole reasoning item.

    Attributes:
        summary: Summary parts; a plain string is one part.
        text: Reasoning text, which only open models show.
        size: Tokens per delta.
        pause: Seconds between deltas; 0 takes the pace of the rule or the server.
        encrypted_content: The opaque body; None lets the server make one.
    """

    summary: str | Sequence[str] = attrs.field(default=(), validator=_texts)
    text: str | None = attrs.field(default=None, validator=optional(a_text))
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)
    encrypted_content: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Open a reasoning item, stream its parts, close it."""
        await stage.open("reasoning", encrypted_content=self.encrypted_content)
        for part in (self.summary,) if isinstance(self.summary, str) else self.summary:
            await stage.open_part("summary")
            await stage.stream(part, self.size, self.pause)
        if self.text is not None:
            await stage.open_part("reasoning")
            await stage.stream(self.text, self.size, self.pause)
        await stage.close()


def _arguments(step: object, member: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, str):
        return
    a_mapping(step, member, value)
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScriptError(f"{type(step).__name__}'s arguments cannot be JSON: {error}", (member.name,)) from None


@attrs.frozen
class Call(Step):
    """A whole function call.

    Attributes:
        name: The function.
        arguments: JSON text, or a value that is written as JSON.
        call_id: None lets the server make one.
        size: Tokens per delta.
        pause: Seconds between deltas; 0 takes the pace of the rule or the server.
    """

    name: str = attrs.field(validator=a_text)
    arguments: str | Mapping[str, Any] = attrs.field(factory=dict, validator=_arguments)
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)

    async def perform(self, stage: Stage) -> None:
        """Open a call, stream its arguments, close it."""
        arguments = self.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        await stage.start_new("function_call", name=self.name, call_id=self.call_id)
        await stage.stream(arguments, self.size, self.pause)
        await stage.close()


@attrs.frozen
class CustomCall(Step):
    """A whole call of a custom tool; like `Call`, with free text in place of arguments."""

    name: str = attrs.field(validator=a_text)
    input: str = attrs.field(default="", validator=a_text)
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)

    async def perform(self, stage: Stage) -> None:
        """Open a call, stream its input, close it."""
        await stage.start_new("custom_tool_call", name=self.name, call_id=self.call_id)
        await stage.stream(self.input, self.size, self.pause)
        await stage.close()


def _typed(step: object, member: attrs.Attribute[Any], value: object) -> None:
    for each in value if isinstance(value, Sequence) else (value,):
        a_mapping(step, member, each)
        assert isinstance(each, Mapping)
        if not isinstance(each.get("type"), str):
            raise ScriptError(f"{type(step).__name__} takes objects with a 'type' as {member.name!r}", (member.name,))


@attrs.frozen
class RawItem(Step):
    """Any output item as it is, with the given events (without indices) between ``added`` and ``done``."""

    item: Mapping[str, Any] = attrs.field(validator=_typed)
    events: Sequence[Mapping[str, Any]] = attrs.field(default=(), validator=_typed)

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        await stage.whole_item(self.item, self.events)
