"""What callers say of a tool loop."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from attrs import Attribute, field, frozen

from engine.conversation.journal import Journal
from engine.conversation.rounds import Round
from engine.values.messages import Context, ToolCall
from engine.values.problems import ConfigurationError

__all__ = ["Approve", "LoopSettings", "OnRound", "Prepare"]

Approve: TypeAlias = Callable[[ToolCall], "bool | str | Awaitable[bool | str]"]
OnRound: TypeAlias = Callable[[Round], "Awaitable[None] | None"]
Prepare: TypeAlias = Callable[[Context], "Context | Awaitable[Context]"]


def _count(instance: object, attribute: Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(attribute.name, "must be a whole number, 1 or more")


def _seconds(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, "must be a positive number of seconds, or None")


def _callable(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(attribute.name, "is not callable")


def _journal(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    for method in ("sending", "answered", "tool_done", "round"):
        if not callable(getattr(value, method, None)):
            raise ConfigurationError(attribute.name, f"is a {type(value).__name__}, which has no method {method}")


@frozen(kw_only=True)
class LoopSettings:
    """What holds for a tool loop.

    Attributes:
        max_rounds: How many responses may be asked for.
        max_concurrent_tools: How many calls of one response run at the same time.
        tool_timeout: Seconds for each call of a tool that has no timeout of its own; None for no limit.
        approve: Asked before a call is run.
        on_round: Told of each round when it is complete.
        prepare: Changes what a request tells the model.
        journal: Writes down what the loop does.
    """

    max_rounds: int = field(default=16, validator=_count)
    max_concurrent_tools: int = field(default=8, validator=_count)
    tool_timeout: float | None = field(default=None, validator=_seconds)
    approve: Approve | None = field(default=None, validator=_callable)
    on_round: OnRound | None = field(default=None, validator=_callable)
    prepare: Prepare | None = field(default=None, validator=_callable)
    journal: Journal | None = field(default=None, validator=_journal)
