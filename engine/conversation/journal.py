"""The journal of a tool loop: told of each step before the next one begins, so that a crash loses no step twice."""

from __future__ import annotations

from typing import Protocol

from engine.conversation.rounds import Round
from engine.values.blocks import ToolCall
from engine.values.messages import AssistantMessage, Context, Message, ToolResult

__all__ = ["Journal"]


class Journal(Protocol):
    """Writes down what a tool loop does, while it does it.

    Each method is awaited at its point, and the loop goes on when it returns. What a method raises ends the loop, and
    comes out as it is; a cancelled loop cancels the method that it awaits. Either way that step never was.

    `engine.Conversation.snapshot` at any of these points holds the step itself: a conversation that is resumed from it
    goes on there. Only tools whose output it does not hold run again; ``call.call_id`` tells them that the call is the
    same.
    """

    async def sending(self, prompt: tuple[Message, ...], context: Context) -> None:
        """A request is about to be made.

        Args:
            prompt: The messages that join the transcript with its round: those of the prompt in the first round of a
                prompt, none in the rounds after it.
            context: The context that the request tells the model.
        """
        ...

    async def answered(self, response: AssistantMessage) -> None:
        """A response has come, whole; none of its calls has run."""
        ...

    async def tool_done(self, call: ToolCall, output: ToolResult) -> None:
        """A call has its output, be it that the tool failed or the call was refused. Awaited in the tool's own task."""
        ...

    async def round(self, done: Round) -> None:
        """A round is complete, and joins the transcript when this returns."""
        ...
