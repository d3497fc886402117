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
    "CallItem",
    "CustomToolCallItem",
    "FunctionCallItem",
    "Item",
    "MessageItem",
    "OpaqueItem",
    "ReasoningItem",
    "UnknownItem",
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


items: Final = StructureTable[Item](UnknownItem)
"""The classes of items."""


# --- Messages and reasoning


@items.of("message")
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


@items.of("reasoning")
@frozen(repr=False, eq=False)
class ReasoningItem(Item):
    """The part of its reasoning that the model disclosed, and what it needs to go on from there.

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
        created_by: Its maker, where the server names one.
    """

    call_id: ClassVar[WireText] = WireText()
    created_by: ClassVar[WireField[str]] = WireField(str)

    @property
    def caller(self) -> JsonObject | None:
        """The caller: ``{"type": "direct"}``, or a program with its ``caller_id``."""
        caller = self.raw.get("caller")
        return caller if isinstance(caller, dict) else None


@items.of("function_call")
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


@items.of("custom_tool_call")
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


# --- All others


@items.of(
    "function_call_output",
    "custom_tool_call_output",
    # calls that the client answers, and the answers
    "computer_call",
    "computer_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "tool_search_call",
    "tool_search_output",
    "mcp_approval_request",
    "mcp_approval_response",
    # hosted tools
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    # steering the context
    "compaction",
    "compaction_trigger",
    "configuration_update",
    "additional_tools",
    "item_reference",
    # the multi-agent beta
    "agent_message",
    "multi_agent_call",
    "multi_agent_call_output",
)
@frozen(repr=False, eq=False)
class OpaqueItem(Item):
    """An item that is kept and sent back whole; what it says is in ``raw``, under the reference's names."""


ITEM_CLASSES: Final[Mapping[str, type[Item]]] = items.classes
"""The class of each item type, of either direction."""


def structure_item(raw: JsonObject) -> Item:
    """Give an item its class, `UnknownItem` when its type or shape is not known.

    Without a ``type``, an object with a ``role`` is a message and one with nothing but an ``id`` is a reference, as the
    Responses API reads them in requests.
    """
    wire_type = raw.get("type")
    if wire_type is None:
        wire_type = "message" if "role" in raw else "item_reference" if raw.keys() <= {"id", "type"} and raw else None
    return items(raw, wire_type)


def structure_items(value: Any) -> tuple[Item, ...]:
    """Structure a list of items; whatever is not a list of objects contributes nothing."""
    return tuple(structure_item(raw) for raw in value if raw.__class__ is dict) if value.__class__ is list else ()


def _structure_item_field(value: Any, _: Any) -> Item:
    if value.__class__ is dict:
        return structure_item(value)
    raise TypeError("not a JSON object")


converter.register_structure_hook(Item, _structure_item_field)
