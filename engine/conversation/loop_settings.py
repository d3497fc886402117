"""The settings of a tool loop, as callers give them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, TypeAlias

from attrs import Attribute, field, frozen

from engine.conversation.journal import Journal
from engine.conversation.rounds import Round
from engine.values.blocks import ToolCall
from engine.values.checks import function, optional, seconds, whole
from engine.values.messages import Context
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = ["Approve", "LoopSettings", "OnRound", "Prepare"]

Approve: TypeAlias = Callable[[ToolCall], "bool | str | Awaitable[bool | str]"]
OnRound: TypeAlias = Callable[[Round], "Awaitable[None] | None"]
Prepare: TypeAlias = Callable[[Context], "Context | Awaitable[Context]"]


_SECONDS: Final = optional(seconds(positive=True, finite=True))


def _journal(instance: object, attribute: Attribute[Any], value: object) -> None:
    for method in ("sending", "answered", "tool_done", "round"):
        if not callable(getattr(value, method, None)):
            raise ConfigurationError(attribute.name, f"is {kind_of(value)}, which has no method {method}")


@frozen(kw_only=True)
class LoopSettings:
    """The settings of a tool loop.

    Attributes:
        max_rounds: The most responses that may be asked for.
        max_concurrent_tools: The most calls of one response that run at the same time.
        tool_timeout: Seconds for each call of a tool that has no timeout of its own; None for no limit.
        approve: Asked before a call is run.
        on_round: Told of each round when it is complete.
        prepare: Changes what a request tells the model.
        journal: Writes down what the loop does.
    """

    _section: ClassVar[str] = ""  # they are keywords of the calls themselves

    max_rounds: int = field(default=16, validator=whole(1))
    max_concurrent_tools: int = field(default=8, validator=whole(1))
    tool_timeout: float | None = field(default=None, validator=_SECONDS)
    approve: Approve | None = field(default=None, validator=optional(function))
    on_round: OnRound | None = field(default=None, validator=optional(function))
    prepare: Prepare | None = field(default=None, validator=optional(function))
    journal: Journal | None = field(default=None, validator=optional(_journal))
