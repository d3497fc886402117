"""Reading requests as strictly as the service does: shapes, ranges, pairs of calls and outputs, what exists."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from .history import Held
from .items import check_tool_choice, check_tools
from .parameters import COMMON, MULTI_AGENT_ONLY, WEBSOCKET_ONLY
from .shapes import missing_parameter, unknown_parameter
from .waiting import OUTPUT_KINDS, answered_call, call_key, is_call, unanswered
from .wire import ApiError, Item, tokens_of

__all__ = ["Asked", "Shelf", "check_stream_id", "multi_agent", "normalise_input", "read_request"]

_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,256}", re.ASCII)


@attrs.frozen
class Asked:
    """One accepted request, its history resolved.

    Attributes:
        body: The request as it came.
        history: The items that the server already held, of the previous response or conversation.
        new_input: The items of this request, strings expanded, references replaced.
        previous: The response it continues.
        transport: ``websocket``, ``sse`` for an HTTP answer that is streamed, ``json`` for one that is not.
        stream_id: Its lane.
        headers: Header fields it came with, or that its WebSocket was opened with: names in lower case, no credentials.
    """

    body: Mapping[str, Any] = attrs.field(repr=False)
    history: tuple[Item, ...] = attrs.field(repr=False)
    new_input: tuple[Item, ...] = attrs.field(repr=False)
    previous: Held | None = attrs.field(default=None, repr=False)
    transport: Literal["websocket", "sse", "json"] = "websocket"
    stream_id: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def items(self) -> tuple[Item, ...]:
        """The whole conversation so far, oldest first."""
        return self.history + self.new_input

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model") or "")

    @property
    def continued(self) -> bool:
        """Whether it continues a response or a conversation."""
        return self.previous is not None or self.body.get("conversation") is not None

    @property
    def generate(self) -> bool:
        """False for a warm-up."""
        prewarm = (self.body.get("prompt_cache_options") or {}).get("prewarm")
        return self.body.get("generate") is not False and prewarm is not True

    @property
    def store(self) -> bool:
        """Whether the response outlives its connection."""
        return self.body.get("store") is not False

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools offered."""
        return self.body.get("tools") or ()

    @property
    def callable_tools(self) -> list[Mapping[str, Any]]:
        """The offered tools that the client runs itself: functions and custom tools."""
        return [tool for tool in self.tools if tool.get("type") in {"function", "custom"}]

    @property
    def last_user_text(self) -> str:
        """The text of the newest user message; empty when there is none."""
        for item in reversed(self.items):
            if item.get("type", "message") == "message" and item.get("role") == "user":
                return text_of(item.get("content"))
        return ""

    @property
    def outputs(self) -> list[Item]:
        """The tool outputs at the end of the conversation, after which no message has come."""
        found: list[Item] = []
        for item in reversed(self.items):
            if item.get("type") not in OUTPUT_KINDS:
                break
            found.append(item)
        return found[::-1]

    @property
    def reasons(self) -> bool:
        """Whether reasoning was asked for."""
        reasoning = self.body.get("reasoning") or {}
        return reasoning.get("effort") not in {None, "none"} or bool(reasoning.get("summary"))

    def prompt_tokens(self) -> int:
        """Return the tokens of everything the model reads."""
        return tokens_of([*self.items, self.body.get("instructions") or "", *self.tools])

    def cached_tokens(self) -> int:
        """Return the tokens of what was held already."""
        return min(tokens_of(self.history), self.prompt_tokens())


def text_of(content: object) -> str:
    """Return the text of a message content or tool output, parts joined by line breaks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        str(part["text"]) for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


# --- the whole request -----------------------------------------------------------------------------------------------


@attrs.frozen
class Shelf:
    """The places where a request may find what it refers to.

    Attributes:
        response: Finds a response by id.
        item: Finds an item by id.
        conversation: Finds the items of a conversation.
    """

    response: Callable[[str], Held | None]
    item: Callable[[str], Item | None]
    conversation: Callable[[str], Sequence[Item] | None]


def multi_agent(headers: Mapping[str, str]) -> bool:
    """Return whether the header fields ask for the beta with several agents."""
    return "responses_multi_agent=v1" in headers.get("openai-beta", "")


def check_stream_id(value: object) -> str:
    """Return the lane name, or raise the error of the documented grammar."""
    if isinstance(value, str) and _STREAM_ID.fullmatch(value):
        return value
    raise ApiError(
        400, "invalid_stream_id", "A stream_id has 1 to 256 characters, each a letter, a digit, '_', '.' or '-'.",
        "stream_id",
    )  # fmt: skip


def normalise_input(value: object) -> list[Item]:
    """Return input items in their full form: a string is a user message, its text one part."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    assert isinstance(value, list)
    items: list[Item] = []
    for entry in value:
        item = dict(entry)
        item.setdefault("type", "message")
        if item["type"] == "message" and isinstance(item["content"], str):
            part: Item = {"type": "input_text", "text": item["content"]}
            if item["role"] == "assistant":
                part = {"type": "output_text", "text": item["content"], "annotations": []}
            item["content"] = [part]
        items.append(item)
    return items


def read_request(
    body: Mapping[str, Any],
    shelf: Shelf,
    *,
    transport: str,
    also_accept: Collection[str] = (),
    models: Collection[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Asked:
    """Check a request and resolve what it refers to.

    Args:
        body: The JSON object; its stream_id, if any, has been checked.
        shelf: The responses that the server holds.
        transport: ``websocket`` or ``http``; each has parameters of its own.
        also_accept: Further parameters that are no error.
        models: The models that exist; None for all.
        headers: Header fields it came with.

    Raises:
        ApiError: what the service would answer.
    """
    websocket = transport == "websocket"
    for name, value in body.items():
        check = COMMON.get(name) or (WEBSOCKET_ONLY.get(name) if websocket else None)
        if check is None and multi_agent(headers or {}):
            check = MULTI_AGENT_ONLY.get(name)
        if check is None:
            if name not in also_accept:
                raise unknown_parameter(name)
        elif value is not None:
            check(name, value)
    if body.get("model") is None and body.get("prompt") is None:
        raise missing_parameter("model")
    if models is not None and body.get("model") is not None and body["model"] not in models:
        raise ApiError(404, "model_not_found", "The model does not exist or you do not have access to it.", "model")
    if body.get("background"):
        if websocket:
            raise ApiError(400, "unsupported_parameter", "'background' is not supported here.", "background")
        if body.get("store") is False:
            raise ApiError(400, None, "Background mode requires 'store' to be true.", "background")
    check_tools(body.get("tools") or [])
    if body.get("tool_choice") is not None:
        check_tool_choice(body["tool_choice"], body.get("tools") or ())
    if body.get("previous_response_id") is not None and body.get("conversation") is not None:
        raise ApiError(
            400, "mutually_exclusive_parameters",
            "'previous_response_id' and 'conversation' cannot be used together.", "conversation",
        )  # fmt: skip
    history: Sequence[Item] = ()
    previous = None
    if body.get("previous_response_id") is not None:
        previous = shelf.response(body["previous_response_id"])
        if previous is None:
            raise ApiError(
                400, "previous_response_not_found",
                f"Previous response with id '{body['previous_response_id']}' not found.", "previous_response_id",
            )  # fmt: skip
        history = previous.items
    elif body.get("conversation") is not None:
        name = body["conversation"]["id"] if isinstance(body["conversation"], dict) else body["conversation"]
        found = shelf.conversation(name)
        if found is None:
            raise ApiError(404, None, f"Conversation with id '{name}' not found.", "conversation")
        history = found
    warm_up = websocket and body.get("generate") is False
    if body.get("input") is None and not (history or warm_up or body.get("prompt")):
        raise missing_parameter("input")
    new_input = _resolve_references(normalise_input(body.get("input")), shelf)
    _check_reasoning(new_input, shelf)
    _check_pairs([*history, *new_input])
    return Asked(
        body,
        tuple(history),
        tuple(new_input),
        previous,
        "websocket" if websocket else "sse" if body.get("stream") is True else "json",
        body.get("stream_id"),
        {} if headers is None else headers,
    )


def _not_held(identity: str) -> ApiError:
    return ApiError(
        404, None,
        f"Item with id '{identity}' not found. Items of responses made with 'store' false are not kept: store them,"
        " or leave this item out of the input.", "input",
    )  # fmt: skip


def _resolve_references(items: Iterable[Item], shelf: Shelf) -> list[Item]:
    resolved = []
    for item in items:
        if item["type"] == "item_reference":
            found = shelf.item(item["id"])
            if found is None:
                raise _not_held(item["id"])
            item = dict(found)
        resolved.append(item)
    return resolved


def _check_reasoning(items: Sequence[Item], shelf: Shelf) -> None:
    for index, item in enumerate(items):
        if item["type"] != "reasoning":
            continue
        identity = item.get("id")
        if not item.get("encrypted_content"):
            if identity is None:
                raise missing_parameter(f"input[{index}].encrypted_content")
            if shelf.item(identity) is None:
                raise _not_held(identity)
        follower = items[index + 1] if index + 1 < len(items) else None
        if follower is None or (follower["type"] == "message" and follower.get("role") != "assistant"):
            raise ApiError(
                400, None, f"Item '{identity or index}' of type 'reasoning' was sent without the item after it.",
                "input",
            )  # fmt: skip


def _check_pairs(items: Sequence[Item]) -> None:
    seen: set[tuple[str, str]] = set()
    for item in items:
        if is_call(item):
            seen.add(call_key(item))
            continue
        answered = answered_call(item)
        if answered is not None and answered not in seen:
            raise ApiError(
                400, None, f"No tool call found for {_words(answered[0])} output with call_id {answered[1]}.", "input"
            )
    for item in unanswered(items):
        kind, call_id = call_key(item)
        raise ApiError(400, None, f"No tool output found for {_words(kind)} {call_id}.", "input")


def _words(kind: str) -> str:
    return kind.replace("_", " ")
