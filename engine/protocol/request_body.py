"""Contexts and options → the body of a create request: what the caller holds, in the wire's terms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from engine.protocol.call_outputs import call_output
from engine.protocol.request_tools import own, wire_tools
from engine.schemas.answer_format import wire_format
from engine.settings.turn_options import TurnOptions
from engine.values.blocks import AssistantBlock, File, Image, OutputItem, Refusal, Text, Thinking, ToolCall, UserBlock
from engine.values.messages import AssistantMessage, Context, DeveloperMessage, Message, ToolResult, UserMessage
from engine.values.problems import ConfigurationError

__all__ = ["create_body", "input_items", "is_stored", "wire_tools", "without_id"]

Item: TypeAlias = dict[str, Any]
_Spoken: TypeAlias = tuple[tuple[str | None, str | None, Mapping[str, Any]], Item]  # what makes it one message; it

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
    "conversation": "conversation",
    "previous_response_id": "previous_response_id",
}

# Option → (request field, key inside it), for those that share one.
_NESTED_FIELDS: Final = {
    "reasoning_effort": ("reasoning", "effort"),
    "reasoning_summary": ("reasoning", "summary"),
    "text_verbosity": ("text", "verbosity"),
    "text_format": ("text", "format"),
}

# Kinds of tools that a request may choose by name.
_NAMED_TOOLS: Final = frozenset({"function", "custom"})

# Members that servers put on items and the schemas of input items do not have.
_OUTPUT_ONLY: Final = frozenset({"created_by"})

# Members of a reasoning item that are replayed by rules of their own. A status says nothing in a request.
_REASONING_MEMBERS: Final = frozenset({"type", "id", "status", "summary", "content", "encrypted_content"})

# The form of the service's ids, and the beginnings of those of some kinds of items.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}

# Items that mean nothing without their id.
_NAMELESS_WITHOUT_ID: Final = frozenset(
    {"item_reference", "local_shell_call_output", "mcp_approval_request", "mcp_approval_response"}
)

_SHARED_FIELDS: Final = frozenset(name for name, _ in _NESTED_FIELDS.values())

_TOOL_CHOICES: Final = frozenset({"auto", "none", "required"})


def create_body(context: Context, options: TurnOptions, *, model: str | None) -> dict[str, Any]:
    """Return the body of a create request, the whole input included, without the fields that only WebSocket has.

    The body is the caller's to change: it shares no list or mapping with what was given.

    Args:
        context: Instructions, messages and tools.
        options: The caller's options; fields left at None are absent from the result.
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
    stored = is_stored({"store": options.store, **options.extra})
    body["input"] = input_items(context.messages, stored=stored, skip=_held(context.messages, options))
    if context.tools:
        body["tools"] = wire_tools(context.tools)
    if options.tool_choice is not None:
        body["tool_choice"] = _tool_choice(options.tool_choice, body.get("tools", ()))
    for option, name in _PLAIN_FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            body[name] = own(value)
    for option, (name, key) in _NESTED_FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            body.setdefault(name, {})[key] = own(wire_format(value) if option == "text_format" else value)
    for name, value in options.extra.items():
        mine = body.get(name) if name in _SHARED_FIELDS else None
        theirs = own(value)
        body[name] = {**mine, **theirs} if isinstance(mine, dict) and isinstance(theirs, dict) else theirs
    return body


def _tool_choice(choice: str | Mapping[str, Any], tools: Iterable[Mapping[str, Any]]) -> str | dict[str, Any]:
    if isinstance(choice, Mapping):
        chosen: dict[str, Any] = own(choice)
        return chosen
    if choice in _TOOL_CHOICES:
        return choice
    for tool in tools:
        if tool.get("name") == choice and str(tool.get("type")) in _NAMED_TOOLS:
            return {"type": tool["type"], "name": choice}
    raise ConfigurationError("options.tool_choice", "is neither auto, none or required nor the name of an offered tool")


def is_stored(body: Mapping[str, Any]) -> bool:
    """Whether the server keeps the response to a request. Servers do unless told not to."""
    return body.get("store") is not False


def _held(messages: Sequence[Message], options: TurnOptions) -> int:
    """Return the number of messages that the server holds in what the options name, and must not be told again.

    A conversation holds all up to its last answer, since each request and each response is added to it; a stored
    response all up to its own message, where that is one of them.
    """
    answers = [
        (number, message.response_id)
        for number, message in enumerate(messages, 1)
        if isinstance(message, AssistantMessage) and message.response_id is not None
    ]
    if options.conversation is not None or options.extra.get("conversation") is not None:
        return answers[-1][0] if answers else 0
    named = options.previous_response_id
    return next((number for number, name in reversed(answers) if name == named), 0) if named is not None else 0


def input_items(messages: Iterable[Message], *, stored: bool, skip: int = 0) -> list[Item]:
    """Return the input items that say what ``messages`` say.

    Args:
        messages: The conversation, oldest first.
        skip: The number of messages at its beginning that the server holds already.
        stored: Whether the server keeps responses. Where it does not, or did not keep the one a message came with, the
            ids of messages, reasoning and calls mean nothing to it and are left out, and reasoning travels with its
            encrypted content or not at all.
    """
    items: list[Item] = []
    calls: dict[str, ToolCall] = {}
    for number, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            calls.update((call.call_id, call) for call in message.tool_calls)
            hosted = (block.call for block in message.content if isinstance(block, OutputItem))
            calls.update((call.call_id, call) for call in hosted if call is not None)
        if number < skip:
            continue
        match message:
            case UserMessage() if not message.content:
                pass
            case UserMessage():
                items.append({"type": "message", "role": "user", "content": _user_content(message.content)})
            case DeveloperMessage():
                items.append({"type": "message", "role": "developer", "content": message.text})
            case ToolResult():
                items.append(_tool_output(message, calls.get(message.call_id)))
            case AssistantMessage() if len(message.messages) > 1:
                items += input_items(message.messages, stored=stored)
            case AssistantMessage():
                items += _assistant_items(message.content, stored=stored and message.stored is not False)
            case OutputItem():
                items.append(_kept(message.item))
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


def _tool_output(result: ToolResult, call: ToolCall | None) -> Item:
    item, extra = call_output(result, call, _user_content(result.content) if result.content else "")
    return _with(item, extra)


def _with(item: Item, extra: Mapping[str, Any]) -> Item:
    """Add to an item what its block only passes on."""
    return item | {
        name: own(value)
        for name, value in extra.items()
        if value is not None and name not in item and name not in _OUTPUT_ONLY
    }


def _assistant_items(blocks: tuple[AssistantBlock, ...], *, stored: bool) -> list[Item]:
    items: list[Item] = []
    messages: dict[str, _Spoken] = {}
    before: _Spoken | None = None
    for block in blocks:
        if not isinstance(block, (Text, Refusal)):
            before = None
            item = _assistant_item(block, stored=stored)
            if item is not None:
                items.append(item)
            continue
        if isinstance(block, Text) and not block.text:
            continue
        # Blocks of one item are one message, wherever they stand; those of no known item if they are neighbours.
        head = (block.item_id, block.phase, block.extra)
        spoken = before if block.item_id is None else messages.get(block.item_id)
        if spoken is None or spoken[0] != head:
            spoken = (head, _message(block, stored=stored and block.item_id not in messages))
            items.append(spoken[1])
            if block.item_id is not None:
                messages[block.item_id] = spoken
        spoken[1]["content"].append(_output_part(block))
        before = spoken
    return items


def _message(block: Text | Refusal, *, stored: bool) -> Item:
    item: Item = {"type": "message", "role": "assistant", "content": []}
    if block.phase is not None:
        item["phase"] = block.phase
    if stored and _is_acceptable("message", block.item_id):
        item["id"] = block.item_id
    return _with(item, block.extra)


def _output_part(block: Text | Refusal) -> dict[str, Any]:
    if isinstance(block, Refusal):
        return {"type": "refusal", "refusal": block.refusal}
    part = {"type": "output_text", "text": block.text, "annotations": own(block.annotations)}
    if block.logprobs:
        part["logprobs"] = own(block.logprobs)
    return part


def _assistant_item(block: Thinking | ToolCall | OutputItem, *, stored: bool) -> Item | None:
    match block:
        case OutputItem() if block.type == "reasoning":
            extra = {name: value for name, value in block.item.items() if name not in _REASONING_MEMBERS}
            return _reasoning(block.item, extra, stored=stored)
        case OutputItem():
            return _kept(block.item)
        case Thinking():
            return _reasoning(_signed(block.signature), block.extra, stored=stored)
        case ToolCall():
            kind, said = ("custom_tool_call", "input") if block.kind == "custom" else ("function_call", "arguments")
            item: Item = {"type": kind, "call_id": block.call_id, "name": block.name, said: _raw_arguments(block)}
            if stored and _is_acceptable(kind, block.item_id):
                item["id"] = block.item_id
            return _with(item, block.extra)


def _kept(given: Mapping[str, Any]) -> Item:
    """Return an item as it came, without what is not sent back; a shell's output holds such members piece by piece."""
    item = _sendable(given)
    if str(item.get("type")) not in _NAMELESS_WITHOUT_ID and not _is_acceptable(str(item.get("type")), item.get("id")):
        item.pop("id", None)
    pieces = item.get("output")
    if item.get("type") == "shell_call_output" and isinstance(pieces, list):
        item["output"] = [_sendable(piece) if isinstance(piece, dict) else piece for piece in pieces]
    return item


def without_id(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item as if it were new to the server; the same item where it means nothing without its id."""
    if item.get("type") == "reasoning" or str(item.get("type")) in _NAMELESS_WITHOUT_ID:
        return item
    return {name: member for name, member in item.items() if name != "id"}


def _sendable(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: own(value) for name, value in given.items() if name not in _OUTPUT_ONLY}


def _is_acceptable(kind: str, name: object) -> bool:
    """Whether the service takes an item of this kind under this id: ids of other servers it may refuse for ever."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None and name.startswith(_PREFIXES.get(kind, ""))


def _raw_arguments(call: ToolCall) -> str:
    if call.raw_arguments or call.kind == "custom":
        return call.raw_arguments
    try:
        return json.dumps(own(call.arguments), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise ConfigurationError("ToolCall.arguments", "cannot be written as JSON")


def _signed(signature: str | None) -> Mapping[str, Any]:
    try:
        signed = json.loads(signature or "")
    except (ValueError, RecursionError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _reasoning(signed: Mapping[str, Any], extra: Mapping[str, Any], *, stored: bool) -> Item | None:
    """Return the item to replay, None where the server could make nothing of it."""
    kind = signed.get("type")
    if not isinstance(kind, str) or kind.partition(".")[0] != "reasoning":
        return None
    item: Item = {"type": "reasoning", "summary": _parts(signed.get("summary"), "summary_text")}
    content = _parts(signed.get("content"), "reasoning_text")
    if content:
        item["content"] = content
    sealed = signed.get("encrypted_content")
    if isinstance(sealed, str) and sealed:
        item["encrypted_content"] = sealed
    elif not stored:
        return None
    name = signed.get("id")
    if stored and _is_acceptable("reasoning", name):
        item["id"] = name
    return _with(item, extra)


def _parts(value: Any, kind: str) -> list[Any]:
    """Give reasoning text the form the schema wants; older transcripts hold it as a string."""
    if isinstance(value, str):
        return [{"type": kind, "text": value}] if value else []
    parts: list[Any] = own(value) if isinstance(value, (list, tuple)) else []
    return parts
