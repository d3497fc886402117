"""The events of a turn while it runs, in the caller's terms.

``index`` counts blocks, and ``turn.message.content[index]`` is the block an event speaks of.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from engine.values.blocks import Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage, StopReason
from engine.values.shown import size_only

__all__ = [
    "TextDelta",
    "TextEnded",
    "TextStarted",
    "ThinkingDelta",
    "ThinkingEnded",
    "ThinkingStarted",
    "ToolCallDelta",
    "ToolCallEnded",
    "ToolCallStarted",
    "TurnContinued",
    "TurnDone",
    "TurnEvent",
    "TurnStarted",
]


@frozen
class TurnStarted:
    """The response began to produce output, so this request will not be sent again.

    Attributes:
        response_id: The server's id of the response; None if it has not told one yet.
    """

    response_id: str | None


@frozen
class TextStarted:
    """A text, or a refusal, begins."""

    index: int
    block: Text | Refusal


@frozen
class TextDelta:
    """More of a text or refusal."""

    index: int
    delta: str = field(repr=size_only)


@frozen
class TextEnded:
    """A text, or a refusal, is complete."""

    index: int
    block: Text | Refusal


@frozen
class ThinkingStarted:
    """A stretch of reasoning begins."""

    index: int
    block: Thinking


@frozen
class ThinkingDelta:
    """More of the reasoning."""

    index: int
    delta: str = field(repr=size_only)


@frozen
class ThinkingEnded:
    """The stretch of reasoning is complete, and ``block`` holds what a replay needs."""

    index: int
    block: Thinking


@frozen
class ToolCallStarted:
    """The model begins to write a tool call; the arguments are still to come."""

    index: int
    block: ToolCall


@frozen
class ToolCallDelta:
    """More of a tool call's arguments, as raw text."""

    index: int
    delta: str = field(repr=size_only)


@frozen
class ToolCallEnded:
    """The tool call is complete and its arguments are parsed."""

    index: int
    block: ToolCall


@frozen
class TurnContinued:
    """Another response goes on in place of the last one, with what the turn was steered with; blocks are counted on.

    Attributes:
        response_id: The server's id of the response.
    """

    response_id: str | None


@frozen
class TurnDone:
    """The answer ended well. Always the last event of a turn that did not fail.

    Attributes:
        reason: ``"stop"``, ``"length"`` or ``"tool_use"``.
        message: The whole answer.
    """

    reason: StopReason
    message: AssistantMessage


TurnEvent: TypeAlias = (
    TurnStarted
    | TextStarted
    | TextDelta
    | TextEnded
    | ThinkingStarted
    | ThinkingDelta
    | ThinkingEnded
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | TurnContinued
    | TurnDone
)
