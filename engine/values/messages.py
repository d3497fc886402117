"""The material of conversations: messages, tools and the context that holds them.

Plain frozen values. Their reprs give sizes and never contents, so a traceback or a log line cannot leak a prompt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from attrs import evolve, field, frozen
from typing_extensions import TypeForm

from engine.values.blocks import AssistantBlock, File, Image, OutputItem, Refusal, Text, Thinking, ToolCall, UserBlock
from engine.values.calls import CALL_KINDS, CallKind, answered_by
from engine.values.checks import check_instances, listed, mapping, name, one_of, optional, string, wrong_type
from engine.values.shown import size_only
from engine.values.usage import Usage

__all__ = [
    "AnyTool",
    "AssistantMessage",
    "Context",
    "DescribedTool",
    "DeveloperMessage",
    "Message",
    "StopReason",
    "Tool",
    "ToolResult",
    "UserMessage",
]

_T = TypeVar("_T")

StopReason: TypeAlias = Literal["stop", "length", "tool_use"]


def _assistant_blocks(content: str | Iterable[AssistantBlock]) -> tuple[AssistantBlock, ...]:
    if isinstance(content, str):
        return (Text(content),) if content else ()
    return listed(content, "assistant message content", "blocks")


def _parts(given: Iterable[Message]) -> tuple[Message, ...]:
    return listed(given, "assistant message parts", "messages")


def _tools(given: Iterable[AnyTool]) -> tuple[AnyTool, ...]:
    return listed(given, "context tools", "tools")


def _messages(given: Iterable[Message]) -> tuple[Message, ...]:
    return listed(given, "context messages", "messages")


def _user_blocks(content: str | UserBlock | Iterable[UserBlock]) -> tuple[UserBlock, ...]:
    if isinstance(content, str):
        return (Text(content),)
    if isinstance(content, (Text, Image, File)):
        return (content,)
    return listed(content, "content", "blocks")


def _bare_call_id(given: str) -> str:
    return given.partition("|")[0] if isinstance(given, str) else given


@frozen
class UserMessage:
    """A message of the user.

    Attributes:
        content: Text, images and files; a plain string is one text.
    """

    content: tuple[UserBlock, ...] = field(converter=_user_blocks, repr=size_only)

    def __attrs_post_init__(self) -> None:
        check_instances("user message content", self.content, (Text, Image, File))


@frozen
class DeveloperMessage:
    """A message of the application to the model, with more weight than the user's words."""

    text: str = field(repr=size_only, validator=string)


@frozen
class ToolResult:
    """The result of a tool.

    Attributes:
        call_id: Of the call it answers; the ``call_id|item_id`` form is understood too.
        content: Text, images and files; a plain string is one text.
        is_error: Whether the tool failed; the model is told so. For an MCP approval: that it is refused.
        kind: Of the call, as `ToolCall.kind` has it. It counts only where the context does not hold the call.
        extra: The output's other fields, under their wire names. The ``caller`` and ``namespace`` of the call need not
            be given: they are taken from the call, where the context holds it. None leaves one out.
    """

    call_id: str = field(converter=_bare_call_id, validator=name)
    content: tuple[UserBlock, ...] = field(converter=_user_blocks, repr=size_only)
    is_error: bool = False
    kind: CallKind = field(default="function", validator=one_of(*CALL_KINDS))
    extra: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False, repr=size_only, validator=mapping)

    def __attrs_post_init__(self) -> None:
        check_instances("tool result content", self.content, (Text, Image, File))

    @property
    def text(self) -> str:
        """Its texts, one after the other."""
        return "".join(block.text for block in self.content if isinstance(block, Text))


@frozen
class AssistantMessage:
    """The model's answer.

    Attributes:
        content: Blocks in the order of the response's items; a plain string is one text.
        stop_reason: ``"stop"``, ``"length"`` (the token limit cut it) or ``"tool_use"`` (it waits for tool results);
            None on a partial message.
        usage: Token counts, None when the server reported none.
        model: The model that answered, as the server names it.
        response_id: The server's id of the response.
        stored: Whether the server keeps it, as it said itself; the ids of what it does not keep are never sent back.
        parsed: The answer as the value that `engine.TurnOptions.text_format` asked for, None when it asked for none.
            It follows from the text, so it takes no part in comparisons.
        parts: The responses of a turn that was steered and the input between them, in order; ``content`` has the blocks
            of all of them. Empty where the turn was not steered.
    """

    content: tuple[AssistantBlock, ...] = field(default=(), converter=_assistant_blocks, repr=size_only)
    stop_reason: StopReason | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    stored: bool | None = field(default=None, kw_only=True)
    parsed: Any = field(default=None, kw_only=True, repr=False, eq=False)
    parts: tuple[Message, ...] = field(default=(), kw_only=True, converter=_parts, repr=size_only)

    def __attrs_post_init__(self) -> None:
        check_instances("assistant message content", self.content, (Text, Thinking, ToolCall, Refusal, OutputItem))
        check_instances("assistant message parts", self.parts, (UserMessage, AssistantMessage))

    @classmethod
    def joined(cls, parts: Iterable[Message]) -> AssistantMessage:
        """Return several responses, with the input between them, as one answer; usage is added up.

        What holds for one response holds for the last: the reason why it stopped, its id and its model.
        """
        parts = tuple(parts)
        responses = [part for part in parts if isinstance(part, AssistantMessage)]
        if len(parts) == 1:
            return responses[0]
        counted = [each.usage for each in responses if each.usage is not None]
        named = [each for each in responses if each.response_id is not None]
        return evolve(
            (named or responses)[-1],
            content=tuple(block for each in responses for block in each.content),
            stop_reason=responses[-1].stop_reason,
            usage=sum(counted, Usage()) if counted else None,
            parts=parts,
        )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The answer as a transcript has it: itself, or where the turn was steered its parts.

        A message whose content was changed since is not its parts any more.
        """
        responses = (part for part in self.parts if isinstance(part, AssistantMessage))
        whole = self.parts and self.content == tuple(block for each in responses for block in each.content)
        return self.parts if whole else (self,)

    def _kept_texts(self) -> list[Text]:
        """The texts that make up the answer: final ones if the model marked any, else those without a phase."""
        texts = [block for block in self.content if isinstance(block, Text)]
        final = [block for block in texts if block.phase == "final_answer" and block.text]
        return final or [block for block in texts if block.phase is None]

    def parsed_as(self, kind: TypeForm[_T]) -> _T:
        """Return the answer as a value of a type: whatever `engine.TurnOptions.text_format` takes.

        Where the answer has several texts, it is the last one that fits.

        Raises:
            ValueError: no text of it fits. The exception quotes nothing of them.
            ConfigurationError: the type has no schema.
        """
        # Reading values is a matter of schemas, which are built on messages, not the other way round.
        reading = importlib.import_module("engine.schemas.answer_format")
        texts = [block.text for block in self._kept_texts()]
        value: _T = reading.parse_last(kind, texts if len(texts) == 1 else [*texts, self.text])
        return value

    @property
    def text(self) -> str:
        """The answer: the texts marked final if there are any, else those without a phase."""
        return "".join(block.text for block in self._kept_texts())

    @property
    def commentary(self) -> str:
        """The text that the model wrote along the way and marked as commentary."""
        return "".join(block.text for block in self.content if isinstance(block, Text) and block.phase == "commentary")

    @property
    def phase(self) -> str | None:
        """The phase of the answer's texts, None when they carry none."""
        phases = {block.phase for block in self._kept_texts()}
        return phases.pop() if len(phases) == 1 else None

    @property
    def refusal(self) -> str:
        """The model's refusal, empty when it did not refuse."""
        return "".join(block.refusal for block in self.content if isinstance(block, Refusal))

    @property
    def thinking(self) -> tuple[Thinking, ...]:
        """The reasoning blocks, in order."""
        return tuple(block for block in self.content if isinstance(block, Thinking))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(block for block in self.content if isinstance(block, ToolCall))

    @property
    def unanswered(self) -> tuple[ToolCall, ...]:
        """The calls that wait for results: all but those whose outputs the response holds itself.

        Calls of the shell, of a computer, of patches, and requests for approval, which are `OutputItem` in `content`,
        are here as calls too: named after their kind, with what they ask for as arguments.
        """
        calls: list[ToolCall] = []
        answered: set[str | None] = set()
        for block in self.content:
            if isinstance(block, ToolCall):
                calls.append(block)
            elif isinstance(block, OutputItem):
                answered.add(answered_by(block.item))
                if (call := block.call) is not None:
                    calls.append(call)
        return tuple(call for call in calls if call.call_id not in answered)


Message: TypeAlias = UserMessage | DeveloperMessage | AssistantMessage | ToolResult | OutputItem


@frozen
class Tool:
    """A function the model may call, described by its schema.

    Attributes:
        name: The function's name.
        description: Its purpose, for the model.
        parameters: JSON schema of its arguments object.
        strict: Whether the model's arguments must satisfy the schema exactly; None leaves it to the server.
    """

    name: str = field(validator=name)
    description: str | None = field(default=None, repr=size_only, validator=optional(string))
    parameters: Mapping[str, Any] = field(factory=dict, repr=size_only, validator=mapping)
    strict: bool | None = None


class DescribedTool(Protocol):
    """A tool that is more than its description, such as `engine.FunctionTool`."""

    @property
    def tool(self) -> Tool:
        """The description of the tool that the model is given."""
        ...


AnyTool: TypeAlias = Tool | DescribedTool | Mapping[str, Any] | Callable[..., Any]


def _check_tools(tools: Iterable[object]) -> None:
    for number, tool in enumerate(tools):
        described = isinstance(tool, (Tool, Mapping)) or isinstance(getattr(tool, "tool", None), Tool)
        if not described and (not callable(tool) or isinstance(tool, type)):
            raise wrong_type(f"context tools[{number}]", tool, "a tool or a function")


@frozen
class Context:
    """The instructions, messages and tools of one request.

    Attributes:
        messages: The conversation so far, oldest first. An `OutputItem` in it is an item in the wire's own form, such
            as the answer to a call that a `ToolResult` cannot say.
        instructions: Instructions for the whole conversation; sent again with every request.
        tools: Tools that the model may call: functions, `engine.FunctionTool` and whatever else has a `Tool` as its
            ``tool``, plain `Tool` records, or mappings in wire form for hosted and custom tools.
    """

    messages: tuple[Message, ...] = field(default=(), converter=_messages, repr=size_only)
    instructions: str | None = field(default=None, kw_only=True, validator=optional(string), repr=size_only)
    tools: tuple[AnyTool, ...] = field(default=(), kw_only=True, converter=_tools, repr=size_only)

    def __attrs_post_init__(self) -> None:
        check_instances(
            "context messages",
            self.messages,
            (UserMessage, DeveloperMessage, AssistantMessage, ToolResult, OutputItem),
        )
        _check_tools(self.tools)

    @classmethod
    def of(cls, prompt: str | Context) -> Context:
        """Return ``prompt`` as a context; a plain string is one user message without history."""
        if isinstance(prompt, str):
            return cls((UserMessage(prompt),))
        if isinstance(prompt, Context):
            return prompt
        raise wrong_type("context", prompt, "a string or a Context")
