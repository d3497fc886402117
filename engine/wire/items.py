"""Items: what a response puts out and what a request takes in. One set of classes serves both directions.

Names and shapes are those of the Responses API reference. A class requires only the members without which the item
means nothing; a request may leave out what a response always has, such as ``id`` and ``status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire.base import JsonObject, StructureTable, WireField, WireObject, WireText, as_text, converter
from engine.wire.parts import ContentPart, InputText, OutputText, PlainText, structure_parts

__all__ = [
    "ITEM_CLASSES",
    "AdditionalToolsItem",
    "AgentMessageItem",
    "ApplyPatchCallItem",
    "ApplyPatchCallOutputItem",
    "CallItem",
    "CodeInterpreterCallItem",
    "CompactionItem",
    "CompactionTriggerItem",
    "ComputerCallItem",
    "ComputerCallOutputItem",
    "ConfigurationUpdateItem",
    "CustomToolCallItem",
    "CustomToolCallOutputItem",
    "FileSearchCallItem",
    "FunctionCallItem",
    "FunctionCallOutputItem",
    "ImageGenerationCallItem",
    "Item",
    "ItemReference",
    "LocalShellCallItem",
    "LocalShellCallOutputItem",
    "McpApprovalRequestItem",
    "McpApprovalResponseItem",
    "McpCallItem",
    "McpListToolsItem",
    "MessageItem",
    "MultiAgentCallItem",
    "MultiAgentCallOutputItem",
    "ProgramItem",
    "ProgramOutputItem",
    "ReasoningItem",
    "ShellCallItem",
    "ShellCallOutputItem",
    "ToolSearchCallItem",
    "ToolSearchOutputItem",
    "UnknownItem",
    "WebSearchCallItem",
    "structure_item",
    "structure_items",
]


@frozen(repr=False, eq=False)
class Item(WireObject):
    """One item of a conversation.

    Attributes:
        id: The server's id of the item.
        status: ``"in_progress"``, ``"completed"``, ``"incomplete"``, or what else the type defines.
    """

    id: ClassVar[WireField[str]] = WireField(str)
    status: ClassVar[WireField[str]] = WireField(str)

    @property
    def agent_name(self) -> str | None:
        """The agent the item belongs to (multi-agent beta); the root agent is ``"/root"``."""
        agent = self.raw.get("agent")
        name = agent.get("agent_name") if agent.__class__ is dict else None
        return name if isinstance(name, str) else None


@frozen(repr=False, eq=False)
class UnknownItem(Item):
    """An item of a type, or in a shape, that this version does not know. It can still be replayed."""


# --- Messages and reasoning


@frozen(repr=False, eq=False)
class MessageItem(Item):
    """A message; in requests the ``type`` may be left out.

    Attributes:
        role: ``"assistant"`` in responses; also ``"user"``, ``"system"`` and ``"developer"`` in requests.
        phase: ``"commentary"`` or ``"final_answer"`` on assistant messages; replay it unchanged.
    """

    role: ClassVar[WireText] = WireText()
    phase: ClassVar[WireField[str]] = WireField(str)

    @property
    def content(self) -> str | tuple[ContentPart, ...]:
        """The content: plain text where the message was written that way, else its parts in order."""
        content = self.raw.get("content")
        if isinstance(content, str):
            return content
        return structure_parts([content] if content.__class__ is dict else content)

    @property
    def text(self) -> str:
        """The text of all text parts, joined; refusals are not text."""
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(part.text for part in content if isinstance(part, OutputText | InputText | PlainText))


@frozen(repr=False, eq=False)
class ReasoningItem(Item):
    """What the model disclosed of its reasoning, and what it needs to go on from there.

    Attributes:
        encrypted_content: Opaque state; only the finished item has all of it.
    """

    encrypted_content: ClassVar[WireField[str]] = WireField(str)

    @property
    def summary(self) -> tuple[ContentPart, ...]:
        """The sections of the summary."""
        return structure_parts(self.raw.get("summary"))

    @property
    def content(self) -> tuple[ContentPart, ...]:
        """The reasoning text itself, where the server sends it."""
        return structure_parts(self.raw.get("content"))


# --- Calls the client answers


@frozen(repr=False, eq=False)
class CallItem(Item):
    """Something that is paired with its counterpart by ``call_id``.

    Attributes:
        call_id: Pairs a call with its output; ``""`` where the server gave none.
        created_by: Who made it, where the server says so.
    """

    call_id: ClassVar[WireText] = WireText()
    created_by: ClassVar[WireField[str]] = WireField(str)

    @property
    def caller(self) -> JsonObject | None:
        """Who called: ``{"type": "direct"}``, or a program with its ``caller_id``."""
        caller = self.raw.get("caller")
        return caller if isinstance(caller, dict) else None


@frozen(repr=False, eq=False)
class FunctionCallItem(CallItem):
    """The model calls a function.

    Attributes:
        name: The function's name; ``""`` where the server gave none.
        namespace: The namespace it is in.
        asynchronous: Whether the model goes on without the output (``async`` on the wire).
    """

    name: ClassVar[WireText] = WireText()
    namespace: ClassVar[WireField[str]] = WireField(str)
    asynchronous: ClassVar[WireField[bool]] = WireField(bool, "async")

    @property
    def arguments(self) -> str:
        """The arguments as JSON text, that of an object included; ``""`` until they are complete."""
        return as_text(self.raw.get("arguments"))


@frozen(repr=False, eq=False)
class CustomToolCallItem(CallItem):
    """The model calls a tool that takes free text.

    Attributes:
        name: The tool's name; ``""`` where the server gave none.
        namespace: The namespace it is in.
        asynchronous: Whether the model goes on without the output (``async`` on the wire).
    """

    name: ClassVar[WireText] = WireText()
    namespace: ClassVar[WireField[str]] = WireField(str)
    asynchronous: ClassVar[WireField[bool]] = WireField(bool, "async")

    @property
    def input(self) -> str:
        """The text the model passes; ``""`` until it is complete."""
        return as_text(self.raw.get("input"))


def _output(raw: JsonObject) -> str | tuple[ContentPart, ...]:
    output = raw.get("output")
    return output if isinstance(output, str) else structure_parts(output)


@frozen(repr=False, eq=False)
class FunctionCallOutputItem(Item):
    """What a function returned. Steering lets a request leave the ``call_id`` out."""

    call_id: ClassVar[WireField[str]] = WireField(str)
    name: ClassVar[WireField[str]] = WireField(str)
    namespace: ClassVar[WireField[str]] = WireField(str)
    created_by: ClassVar[WireField[str]] = WireField(str)

    @property
    def output(self) -> str | tuple[ContentPart, ...]:
        """The result: text, or parts."""
        return _output(self.raw)


@frozen(repr=False, eq=False)
class CustomToolCallOutputItem(CallItem):
    """What a custom tool returned."""

    @property
    def output(self) -> str | tuple[ContentPart, ...]:
        """The result: text, or parts."""
        return _output(self.raw)


@frozen(repr=False, eq=False)
class ComputerCallItem(CallItem):
    """The model operates a computer: one ``action``, or several ``actions`` in order."""

    action: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    actions: ClassVar[WireField[list[Any]]] = WireField(list)
    pending_safety_checks: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class ComputerCallOutputItem(CallItem):
    """The screen after the action."""

    output: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    acknowledged_safety_checks: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class LocalShellCallItem(CallItem):
    """The model runs a command on the client's machine (the older shell tool)."""

    action: JsonObject


@frozen(repr=False, eq=False)
class LocalShellCallOutputItem(Item):
    """What that command printed. It is paired by ``id``, not by a call id."""

    output: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class ShellCallItem(CallItem):
    """The model runs shell commands; ``action`` holds ``commands``, ``timeout_ms`` and ``max_output_length``."""

    action: JsonObject
    environment: ClassVar[WireField[dict[str, Any]]] = WireField(dict)


@frozen(repr=False, eq=False)
class ShellCallOutputItem(CallItem):
    """What the commands printed: per command ``stdout``, ``stderr`` and ``outcome``."""

    output: ClassVar[WireField[list[Any]]] = WireField(list)
    max_output_length: ClassVar[WireField[int]] = WireField(int)


@frozen(repr=False, eq=False)
class ApplyPatchCallItem(CallItem):
    """The model edits a file; ``operation`` holds its ``type``, ``path`` and ``diff``."""

    operation: JsonObject


@frozen(repr=False, eq=False)
class ApplyPatchCallOutputItem(CallItem):
    """How the edit went: ``status`` is ``"completed"`` or ``"failed"``."""

    output: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class ToolSearchCallItem(Item):
    """The model looks for tools. ``execution`` says who searches: ``"server"`` or ``"client"``."""

    call_id: ClassVar[WireField[str]] = WireField(str)
    execution: ClassVar[WireField[str]] = WireField(str)
    created_by: ClassVar[WireField[str]] = WireField(str)

    @property
    def arguments(self) -> Any:
        """The query, any JSON value."""
        return self.raw.get("arguments")


@frozen(repr=False, eq=False)
class ToolSearchOutputItem(Item):
    """The tools that were found."""

    call_id: ClassVar[WireField[str]] = WireField(str)
    execution: ClassVar[WireField[str]] = WireField(str)
    created_by: ClassVar[WireField[str]] = WireField(str)
    tools: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class McpApprovalRequestItem(Item):
    """The model asks leave to call a tool on an MCP server. ``arguments`` is JSON text."""

    name: str
    server_label: ClassVar[WireField[str]] = WireField(str)
    arguments: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class McpApprovalResponseItem(Item):
    """Leave given or refused."""

    approval_request_id: str
    approve: ClassVar[WireField[bool]] = WireField(bool)
    reason: ClassVar[WireField[str]] = WireField(str)


# --- Hosted tools


@frozen(repr=False, eq=False)
class WebSearchCallItem(Item):
    """A web search; ``action`` is a ``search``, an ``open_page`` or a ``find_in_page``."""

    action: ClassVar[WireField[dict[str, Any]]] = WireField(dict)


@frozen(repr=False, eq=False)
class FileSearchCallItem(Item):
    """A search of vector stores."""

    queries: ClassVar[WireField[list[Any]]] = WireField(list)
    results: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class CodeInterpreterCallItem(Item):
    """Code run in a container; ``outputs`` are logs and images."""

    code: ClassVar[WireField[str]] = WireField(str)
    container_id: ClassVar[WireField[str]] = WireField(str)
    outputs: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class ImageGenerationCallItem(Item):
    """An image made; ``result`` is base64."""

    result: ClassVar[WireField[str]] = WireField(str)
    error: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    revised_prompt: ClassVar[WireField[str]] = WireField(str)
    output_format: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class McpCallItem(Item):
    """A call of a tool on an MCP server. ``arguments`` is JSON text."""

    name: str
    server_label: ClassVar[WireField[str]] = WireField(str)
    arguments: ClassVar[WireField[str]] = WireField(str)
    approval_request_id: ClassVar[WireField[str]] = WireField(str)
    output: ClassVar[WireField[str]] = WireField(str)

    @property
    def error(self) -> Any:
        """Why it failed: an object with a ``type``, or text from older servers."""
        return self.raw.get("error")


@frozen(repr=False, eq=False)
class McpListToolsItem(Item):
    """The tools an MCP server offers."""

    server_label: ClassVar[WireField[str]] = WireField(str)
    tools: ClassVar[WireField[list[Any]]] = WireField(list)
    error: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class ProgramItem(CallItem):
    """A program the model wrote to call tools. ``fingerprint`` is opaque and must be replayed unchanged."""

    code: ClassVar[WireField[str]] = WireField(str)
    fingerprint: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class ProgramOutputItem(CallItem):
    """What the program returned."""

    result: ClassVar[WireField[str]] = WireField(str)


# --- Steering the context


@frozen(repr=False, eq=False)
class CompactionItem(Item):
    """A conversation's past, condensed into opaque state."""

    encrypted_content: str
    created_by: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class CompactionTriggerItem(Item):
    """Asks the server to compact now; it must be the last input item."""


@frozen(repr=False, eq=False)
class ConfigurationUpdateItem(Item):
    """Changes ``reasoning`` or ``text`` settings from here on."""

    reasoning: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    text: ClassVar[WireField[dict[str, Any]]] = WireField(dict)


@frozen(repr=False, eq=False)
class AdditionalToolsItem(Item):
    """Tools added in mid-conversation."""

    role: ClassVar[WireField[str]] = WireField(str)
    tools: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class ItemReference(Item):
    """Stands for an item the server has stored; ``id`` names it."""


# --- Multi-agent beta


@frozen(repr=False, eq=False)
class AgentMessageItem(Item):
    """A message from one agent to another."""

    author: ClassVar[WireField[str]] = WireField(str)
    recipient: ClassVar[WireField[str]] = WireField(str)

    @property
    def content(self) -> tuple[ContentPart, ...]:
        """The parts of the message."""
        return structure_parts(self.raw.get("content"))


@frozen(repr=False, eq=False)
class MultiAgentCallItem(CallItem):
    """An agent acts on another, for example ``spawn_agent``. The server answers it; a client never does."""

    action: ClassVar[WireField[str]] = WireField(str)
    arguments: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class MultiAgentCallOutputItem(CallItem):
    """The server's answer to such a call."""

    action: ClassVar[WireField[str]] = WireField(str)

    @property
    def output(self) -> tuple[ContentPart, ...]:
        """The parts of the answer."""
        return structure_parts(self.raw.get("output"))


ITEM_CLASSES: Final[Mapping[str, type[Item]]] = {
    "message": MessageItem,
    "reasoning": ReasoningItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "custom_tool_call": CustomToolCallItem,
    "custom_tool_call_output": CustomToolCallOutputItem,
    "computer_call": ComputerCallItem,
    "computer_call_output": ComputerCallOutputItem,
    "local_shell_call": LocalShellCallItem,
    "local_shell_call_output": LocalShellCallOutputItem,
    "shell_call": ShellCallItem,
    "shell_call_output": ShellCallOutputItem,
    "apply_patch_call": ApplyPatchCallItem,
    "apply_patch_call_output": ApplyPatchCallOutputItem,
    "tool_search_call": ToolSearchCallItem,
    "tool_search_output": ToolSearchOutputItem,
    "mcp_approval_request": McpApprovalRequestItem,
    "mcp_approval_response": McpApprovalResponseItem,
    "web_search_call": WebSearchCallItem,
    "file_search_call": FileSearchCallItem,
    "code_interpreter_call": CodeInterpreterCallItem,
    "image_generation_call": ImageGenerationCallItem,
    "mcp_call": McpCallItem,
    "mcp_list_tools": McpListToolsItem,
    "program": ProgramItem,
    "program_output": ProgramOutputItem,
    "compaction": CompactionItem,
    "compaction_trigger": CompactionTriggerItem,
    "configuration_update": ConfigurationUpdateItem,
    "additional_tools": AdditionalToolsItem,
    "item_reference": ItemReference,
    "agent_message": AgentMessageItem,
    "multi_agent_call": MultiAgentCallItem,
    "multi_agent_call_output": MultiAgentCallOutputItem,
}
"""The class of each item type, of either direction."""

_items: Final = StructureTable(ITEM_CLASSES, UnknownItem)


def structure_item(raw: JsonObject) -> Item:
    """Give an item its class, `UnknownItem` when its type or shape is not known.

    Without a ``type``, an object with a ``role`` is a message and one with nothing but an ``id`` is a reference, as the
    Responses API reads them in requests.
    """
    wire_type = raw.get("type")
    if wire_type is None:
        wire_type = "message" if "role" in raw else "item_reference" if raw.keys() <= {"id", "type"} and raw else None
    return _items(raw, wire_type)


def structure_items(value: Any) -> tuple[Item, ...]:
    """Structure a list of items; whatever is not a list of objects contributes nothing."""
    return tuple(structure_item(raw) for raw in value if raw.__class__ is dict) if value.__class__ is list else ()


def _structure_item_field(value: Any, _: Any) -> Item:
    if value.__class__ is dict:
        return structure_item(value)
    raise TypeError("not a JSON object")


converter.register_structure_hook(Item, _structure_item_field)
