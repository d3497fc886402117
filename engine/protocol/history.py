"""Contexts and options → the body of a create request: what the caller holds, in the wire's terms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from engine.errors import ConfigurationError
from engine.messages import (
    AssistantBlock,
    AssistantMessage,
    Context,
    DeveloperMessage,
    File,
    Image,
    Message,
    OutputItem,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    UserBlock,
    UserMessage,
)
from engine.options import TurnOptions

__all__ = ["create_body", "input_items", "wire_tools"]

Item: TypeAlias = dict[str, Any]

# Option → request field, for those that travel under one name of their own.
_PLAIN_FIELDS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_output_tokens",
    "parallel_tool_calls": "parallel_tool_calls",
    "store": "store",
    "include": "include",
    "service_tier": "service_tier",
    "truncation": "truncation",
    "metadata": "metadata",
    "prompt_cache_key": "prompt_cache_key",
    "safety_identifier": "safety_identifier",
    "context_management": "context_management",
}

# Option → (request field, key inside it), for those that share one.
_NESTED_FIELDS: Final = {
    "reasoning_effort": ("reasoning", "effort"),
    "reasoning_summary": ("reasoning", "summary"),
    "text_verbosity": ("text", "verbosity"),
    "text_format": ("text", "format"),
}

_TOOL_CHOICES: Final = frozenset({"auto", "none", "required"})


def create_body(context: Context, options: TurnOptions, *, model: str | None) -> dict[str, Any]:
    """Return the body of a create request, the whole input included, without the fields that only WebSocket has.

    Args:
        context: Instructions, messages and tools.
        options: What the caller set; fields left at None are absent from the result.
        model: The model where the options name none.

    Raises:
        ConfigurationError: no model is named, or ``tool_choice`` names a tool that is not offered.
    """
    chosen = options.model or model
    if not chosen:
        raise ConfigurationError("model", "is empty: name a model for the session or in the turn's options")
    body: dict[str, Any] = {"model": chosen}
    if context.instructions is not None:
        body["instructions"] = context.instructions
    body["input"] = input_items(context.messages, stored=bool(options.store))
    if context.tools:
        body["tools"] = wire_tools(context.tools)
    if options.tool_choice is not None:
        body["tool_choice"] = _tool_choice(options.tool_choice, body.get("tools", ()))
    for option, name in _PLAIN_FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            body[name] = value
    for option, (name, key) in _NESTED_FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            body.setdefault(name, {})[key] = value
    body.update(options.extra)
    return body


def wire_tools(tools: Iterable[Tool | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools in wire form; mappings (hosted and custom tools) pass through."""
    return [_function(tool) if isinstance(tool, Tool) else dict(tool) for tool in tools]


def _function(tool: Tool) -> dict[str, Any]:
    # Servers want an object schema even of a function without parameters.
    schema: dict[str, Any] = {"type": "object", **tool.parameters}
    if schema["type"] == "object":
        schema.setdefault("properties", {})
    wire: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    wire["parameters"] = schema
    if tool.strict is not None:
        wire["strict"] = tool.strict
    return wire


def _tool_choice(choice: str | Mapping[str, Any], tools: Iterable[Mapping[str, Any]]) -> str | dict[str, Any]:
    if isinstance(choice, Mapping):
        return dict(choice)
    if choice in _TOOL_CHOICES:
        return choice
    for tool in tools:
        if tool.get("name") == choice:
            return {"type": tool.get("type", "function"), "name": choice}
    raise ConfigurationError("options.tool_choice", "is neither auto, none or required nor the name of an offered tool")


def input_items(messages: Iterable[Message], *, stored: bool) -> list[Item]:
    """Return the input items that say what ``messages`` say.

    Args:
        messages: The conversation, oldest first.
        stored: Whether the server keeps responses. Where it does not, item ids mean nothing to it and are left out,
            and reasoning travels with its encrypted content or not at all.
    """
    items: list[Item] = []
    for message in messages:
        match message:
            case UserMessage():
                items.append({"type": "message", "role": "user", "content": _user_content(message.content)})
            case DeveloperMessage():
                items.append({"type": "message", "role": "developer", "content": message.text})
            case ToolResult():
                items.append(_tool_output(message))
            case AssistantMessage():
                items.extend(_assistant_items(message.content, stored=stored))
    return items


def _user_content(blocks: tuple[UserBlock, ...]) -> str | list[dict[str, Any]]:
    if len(blocks) == 1 and isinstance(blocks[0], Text):
        return blocks[0].text
    return [_input_part(block) for block in blocks]


def _input_part(block: UserBlock) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "input_text", "text": block.text}
        case Image():
            source = {"image_url": block.url} if block.url is not None else {"file_id": block.file_id}
            return {"type": "input_image", **source, "detail": block.detail}
        case File():
            fields = {
                "file_id": block.file_id,
                "file_url": block.url,
                "file_data": block.data,
                "filename": block.filename,
            }
            return {"type": "input_file", **{name: value for name, value in fields.items() if value is not None}}


def _tool_output(result: ToolResult) -> Item:
    output = _user_content(result.content)
    if result.is_error and isinstance(output, str):
        output = f"Error: {output}"  # the wire has no flag for it, and the model must know
    kind = "function_call_output" if result.kind == "function" else "custom_tool_call_output"
    return {"type": kind, "call_id": result.call_id, "output": output}


def _assistant_items(blocks: tuple[AssistantBlock, ...], *, stored: bool) -> Iterable[Item]:
    spoken: Item | None = None
    for block in blocks:
        if isinstance(block, (Text, Refusal)):
            phase = block.phase if isinstance(block, Text) else None
            if spoken is None or spoken.get("phase") != phase:
                if spoken is not None:
                    yield spoken
                spoken = {"type": "message", "role": "assistant", "content": []}
                if phase is not None:
                    spoken["phase"] = phase
            spoken["content"].append(_output_part(block))
            continue
        if spoken is not None:
            yield spoken
            spoken = None
        item = _assistant_item(block, stored=stored)
        if item is not None:
            yield item
    if spoken is not None:
        yield spoken


def _output_part(block: Text | Refusal) -> dict[str, Any]:
    if isinstance(block, Refusal):
        return {"type": "refusal", "refusal": block.refusal}
    return {"type": "output_text", "text": block.text, "annotations": [dict(each) for each in block.annotations]}


def _assistant_item(block: Thinking | ToolCall | OutputItem, *, stored: bool) -> Item | None:
    match block:
        case OutputItem():
            return dict(block.item)
        case Thinking():
            return _reasoning(block, stored=stored)
        case ToolCall():
            name, text = ("arguments", "function_call") if block.kind == "function" else ("input", "custom_tool_call")
            item = {"type": text, "call_id": block.call_id, "name": block.name, name: block.raw_arguments}
            if stored and block.item_id is not None:
                item["id"] = block.item_id
            return item


def _reasoning(block: Thinking, *, stored: bool) -> Item | None:
    try:
        signed = json.loads(block.signature or "")
    except ValueError:
        return None
    if not isinstance(signed, dict) or not str(signed.get("type", "")).startswith("reasoning"):
        return None
    item: Item = {"type": "reasoning", "summary": signed.get("summary") or []}
    if signed.get("content"):
        item["content"] = signed["content"]
    if signed.get("encrypted_content"):
        item["encrypted_content"] = signed["encrypted_content"]
    elif not stored:
        return None
    if stored and str(signed.get("id", "")).startswith("rs_"):
        item["id"] = signed["id"]
    return item
