"""The rounds of a tool loop: one that is complete, and how far one has got that is not."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from engine.values.messages import AssistantMessage, Message, ToolResult
from engine.values.reports import TurnReport

__all__ = ["Progress", "Round"]


@frozen
class Round:
    """One response of a tool loop, and what its calls gave back.

    Attributes:
        message: The response.
        results: The outputs of its calls, in the order of the calls. Empty when it calls nothing, or when its calls are
            left to the caller.
        report: The report on the request; an empty one where another process made it.
    """

    message: AssistantMessage
    results: tuple[ToolResult, ...]
    report: TurnReport


@frozen(kw_only=True)
class Progress:
    """The work that has begun and is not in the transcript yet.

    Attributes:
        prompt: Messages that were to be answered.
        response: The response to them; None where none has come.
        results: The outputs of its calls that are there, by call id.
    """

    prompt: tuple[Message, ...] = ()
    response: AssistantMessage | None = None
    results: Mapping[str, ToolResult] = field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.prompt) or self.response is not None

    def with_result(self, result: ToolResult) -> Progress:
        """The same, one output later."""
        return evolve(self, results={**self.results, result.call_id: result})

    def without_result(self, call_id: str) -> Progress:
        """The same, without that output."""
        return evolve(self, results={name: each for name, each in self.results.items() if name != call_id})
