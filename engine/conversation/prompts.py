"""The prompts of callers: a text, a message, messages, or a whole context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import attrs

from engine.conversation.toolbox import Toolbox
from engine.values.blocks import OutputItem
from engine.values.checks import wrong_type
from engine.values.choices import UNSET, Unset
from engine.values.messages import (
    AnyTool,
    AssistantMessage,
    Context,
    DeveloperMessage,
    Message,
    ToolResult,
    UserMessage,
)

__all__ = ["Prompt", "context_of", "messages_of"]

Prompt: TypeAlias = str | Message | Iterable[Message] | Context

_MESSAGES: Final = (UserMessage, DeveloperMessage, AssistantMessage, ToolResult, OutputItem)


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """Return the messages of a prompt.

    Raises:
        ConfigurationError: it is no prompt.
    """
    if isinstance(prompt, str):
        return (UserMessage(prompt),)
    if isinstance(prompt, Context):
        return prompt.messages
    if isinstance(prompt, _MESSAGES):
        return (prompt,)
    if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Iterable):
        raise wrong_type("prompt", prompt, "a string, messages or a Context")
    messages = tuple(prompt)
    for number, each in enumerate(messages):
        if not isinstance(each, _MESSAGES):
            raise wrong_type(f"prompt[{number}]", each, "a message, such as UserMessage(…)")
    return messages


def context_of(prompt: Prompt, instructions: str | Unset | None = UNSET, tools: Iterable[AnyTool] = ()) -> Context:
    """Return a prompt as a context.

    Args:
        prompt: The prompt, in any form that callers may give it.
        instructions: In place of the context's.
        tools: In addition to the context's.

    Raises:
        ConfigurationError: something given is wrong.
    """
    context = prompt if isinstance(prompt, Context) else Context(messages_of(prompt))
    if tools != ():
        context = attrs.evolve(context, tools=Toolbox(context.tools, tools).offered)
    return context if instructions is UNSET else attrs.evolve(context, instructions=instructions)
