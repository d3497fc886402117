"""Reading requests as strictly as the service does: shapes, ranges, pairs of calls and outputs, what exists."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from .history import Held
from .wire import ApiError, Item, tokens_of

__all__ = ["Asked", "Shelf", "check_stream_id", "normalise_input", "read_request"]

_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,256}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,128}", re.ASCII)


@attrs.frozen
class Asked:
    """One accepted request, its history resolved.

    Attributes:
        body: The request as it came.
        history: What the server already held: items of the previous response or conversation.
        new_input: The items of this request, strings expanded, references replaced.
        previous: The response it continues.
        transport: ``websocket`` or ``http``.
        stream_id: Its lane.
    """

    body: Mapping[str, Any] = attrs.field(repr=False)
    history: tuple[Item, ...] = attrs.field(repr=False)
    new_input: tuple[Item, ...] = attrs.field(repr=False)
    previous: Held | None = attrs.field(default=None, repr=False)
    transport: str = "websocket"
    stream_id: str | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """The whole conversation so far, oldest first."""
        return self.history + self.new_input

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model") or "")

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
            if item.get("type") not in {"function_call_output", "custom_tool_call_output"}:
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


# --- shapes ----------------------------------------------------------------------------------------------------------


def _invalid_type(param: str, expected: str, value: object) -> ApiError:
    got = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a decimal",
        list: "an array",
        dict: "an object",
    }
    found = "null" if value is None else got.get(type(value), "something else")
    return ApiError(400, "invalid_type", f"{param!r} takes {expected}; {found} was sent.", param)


def _invalid_value(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_value", message, param)


def _string(param: str, value: object) -> None:
    if not isinstance(value, str):
        raise _invalid_type(param, "a string", value)


def _short_string(limit: int) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        _string(param, value)
        assert isinstance(value, str)
        if len(value) > limit:
            raise ApiError(400, "string_above_max_length", f"{param!r} may have at most {limit} characters.", param)

    return check


def _boolean(param: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _invalid_type(param, "a boolean", value)


def _number(low: float, high: float) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _invalid_type(param, "a decimal", value)
        if value < low:
            raise ApiError(400, "decimal_below_min_value", f"{param!r} must be at least {low}.", param)
        if not value <= high:
            raise ApiError(400, "decimal_above_max_value", f"{param!r} must be at most {high}.", param)

    return check


def _integer(low: int, high: int | None = None) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _invalid_type(param, "an integer", value)
        if value < low:
            raise ApiError(400, "integer_below_min_value", f"{param!r} must be at least {low}.", param)
        if high is not None and value > high:
            raise ApiError(400, "integer_above_max_value", f"{param!r} must be at most {high}.", param)

    return check


def _one_of(*values: str) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        _string(param, value)
        if value not in values:
            raise _invalid_value(param, f"{param!r} must be one of: {', '.join(values)}.")

    return check


def _object(fields: Mapping[str, Callable[[str, object], None]] | None = None) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        if not isinstance(value, dict):
            raise _invalid_type(param, "an object", value)
        for name, part in value.items() if fields is not None else ():
            if name not in (fields or {}):
                raise _unknown(f"{param}.{name}")
            if part is not None:
                (fields or {})[name](f"{param}.{name}", part)

    return check


def _array(entry: Callable[[str, object], None]) -> Callable[[str, object], None]:
    def check(param: str, value: object) -> None:
        if not isinstance(value, list):
            raise _invalid_type(param, "an array", value)
        for index, part in enumerate(value):
            entry(f"{param}[{index}]", part)

    return check


def _unknown(param: str) -> ApiError:
    return ApiError(400, "unknown_parameter", f"There is no parameter {param!r}.", param)


def _missing(param: str) -> ApiError:
    return ApiError(400, "missing_required_parameter", f"{param!r} is required.", param)


def _metadata(param: str, value: object) -> None:
    if not isinstance(value, dict):
        raise _invalid_type(param, "an object", value)
    if len(value) > 16:
        raise ApiError(400, "object_above_max_properties", f"{param!r} may have at most 16 pairs.", param)
    for name, text in value.items():
        if len(name) > 64:
            raise _invalid_value(param, f"Keys of {param!r} may have at most 64 characters.")
        _short_string(512)(f"{param}.{name}", text)


def _format(param: str, value: object) -> None:
    if not isinstance(value, dict):
        raise _invalid_type(param, "an object", value)
    kind = value.get("type")
    if kind in {"text", "json_object"}:
        return
    if kind != "json_schema":
        raise _invalid_value(f"{param}.type", f"'{param}.type' must be one of: text, json_object, json_schema.")
    for name in ("name", "schema"):
        if value.get(name) is None:
            raise _missing(f"{param}.{name}")
    _short_string(64)(f"{param}.name", value["name"])
    if not _NAME.fullmatch(value["name"]):
        raise _invalid_value(f"{param}.name", f"'{param}.name' has characters that a name may not have.")
    _object()(f"{param}.schema", value["schema"])
    if value.get("strict") is True:
        _strict_schema(f"{param}.schema", value["schema"], code="invalid_json_schema")


def _strict_schema(param: str, schema: object, *, code: str, depth: int = 0) -> None:
    if not isinstance(schema, dict) or depth > 10:
        return
    if schema.get("type") == "object":
        properties = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False:
            raise ApiError(400, code, "A strict schema needs 'additionalProperties': false on every object.", param)
        if isinstance(properties, dict) and set(schema.get("required") or ()) != set(properties):
            raise ApiError(400, code, "A strict schema must list every property in 'required'.", param)
        for part in properties.values() if isinstance(properties, dict) else ():
            _strict_schema(param, part, code=code, depth=depth + 1)
    if "items" in schema:
        _strict_schema(param, schema["items"], code=code, depth=depth + 1)


_INCLUDABLE: Final = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)


def _conversation(param: str, value: object) -> None:
    if isinstance(value, dict):
        if set(value) != {"id"}:
            raise _invalid_value(param, "A conversation is named by its id alone.")
        value = value["id"]
    _string(param, value)


def _input(param: str, value: object) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise _invalid_type(param, "a string or an array", value)
    for index, entry in enumerate(value):
        _check_item(f"{param}[{index}]", entry, last=index == len(value) - 1)


def _previous(param: str, value: object) -> None:
    _string(param, value)
    if not str(value).startswith("resp"):
        raise _invalid_value(param, f"{param!r} must be an id that begins with 'resp'.")


_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES: Final = ("auto", "concise", "detailed")

_COMMON: Final[Mapping[str, Callable[[str, object], None]]] = {
    "access_programs": _object(),
    "background": _boolean,
    "context_management": _array(_object({"type": _one_of("compaction"), "compact_threshold": _integer(1000)})),
    "conversation": _conversation,
    "image": _object({"context_compression": _one_of("auto", "enabled", "disabled")}),
    "include": _array(_one_of(*_INCLUDABLE)),
    "input": _input,
    "instructions": _string,
    "max_output_tokens": _integer(0),
    "max_tool_calls": _integer(0),
    "metadata": _metadata,
    "model": _string,
    "moderation": _object(),
    "parallel_tool_calls": _boolean,
    "previous_response_id": _previous,
    "prompt": _object({"id": _string, "version": _string, "variables": _object()}),
    "prompt_cache_key": _string,
    "prompt_cache_options": _object(
        {
            "mode": _one_of("implicit", "explicit"),
            "ttl": _one_of("30m", "12h"),
            "prewarm": _boolean,
            "comparison_response_id": _string,
        }
    ),
    "prompt_cache_retention": _one_of("in_memory", "in-memory", "24h"),
    "reasoning": _object(
        {
            "effort": _one_of(*_EFFORTS),
            "summary": _one_of(*_SUMMARIES),
            "generate_summary": _one_of(*_SUMMARIES),
            "context": _one_of("auto", "current_turn", "all_turns"),
            "mode": _string,
        }
    ),
    "safety_identifier": _short_string(128),
    "service_tier": _one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "store": _boolean,
    "stream": _boolean,
    "stream_options": _object({"include_obfuscation": _boolean}),
    "temperature": _number(0, 2),
    "text": _object({"format": _format, "verbosity": _one_of("low", "medium", "high")}),
    "tool_choice": lambda _param, _value: None,  # needs the tools, see _check_tool_choice
    "tools": lambda _param, _value: None,
    "top_logprobs": _integer(0, 20),
    "top_p": _number(0, 1),
    "truncation": _one_of("auto", "disabled"),
    "user": _string,
}
_WEBSOCKET_ONLY: Final[Mapping[str, Callable[[str, object], None]]] = {
    "type": _string,
    "stream_id": _string,
    "generate": _boolean,
}


# --- input items -----------------------------------------------------------------------------------------------------

_ITEM_FIELDS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    kind: (frozenset(required.split()), frozenset(optional.split()))
    for kind, required, optional in (
        ("message", "role content", "id status phase"),
        ("function_call", "call_id name arguments", "id status namespace caller async"),
        ("function_call_output", "output", "call_id id status name namespace caller"),
        ("custom_tool_call", "call_id name input", "id status namespace caller async"),
        ("custom_tool_call_output", "call_id output", "id status name caller"),
        ("reasoning", "summary", "id content encrypted_content status"),
        ("item_reference", "id", ""),
        ("compaction", "encrypted_content", "id created_by"),
        ("compaction_trigger", "", "id"),
        ("configuration_update", "", "id reasoning text"),
        ("additional_tools", "role tools", "id"),
    )
}
_OTHER_ITEMS: Final = frozenset(
    {
        "tool_search_call",
        "tool_search_output",
        "program",
        "program_output",
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "computer_call",
        "computer_call_output",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
    }
)
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "reasoning": "rs", "custom_tool_call": "ctc"}
_INPUT_PARTS: Final = frozenset({"input_text", "input_image", "input_file", "input_audio"})
_PART_TEXT: Final = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def _check_item(param: str, item: object, *, last: bool) -> None:
    if not isinstance(item, dict):
        raise _invalid_type(param, "an object", item)
    kind = item.get("type", "message" if "role" in item else None)
    if kind is None:
        raise _missing(f"{param}.type")
    if not isinstance(kind, str) or (kind not in _ITEM_FIELDS and kind not in _OTHER_ITEMS):
        raise _invalid_value(f"{param}.type", f"'{param}.type' names no kind of input item.")
    if kind in _OTHER_ITEMS:
        return
    required, optional = _ITEM_FIELDS[kind]
    for name in required:
        if item.get(name) is None:
            raise _missing(f"{param}.{name}")
    for name, value in item.items():
        if name not in required and name not in optional and name != "type":
            raise _unknown(f"{param}.{name}")
        if name in {"id", "call_id", "name", "arguments", "input", "status", "role"} and value is not None:
            _string(f"{param}.{name}", value)
    identity, prefix = item.get("id"), _PREFIXES.get(kind)
    # The service checks the prefix on what it issued itself; a user's own message id is looked at as well.
    if identity is not None and prefix is not None and not identity.startswith(prefix):
        raise _invalid_value(f"{param}.id", f"'{param}.id' must be an id that begins with '{prefix}'.")
    match kind:
        case "message":
            _check_message(param, item)
        case "function_call" | "custom_tool_call":
            if not _NAME.fullmatch(item["name"]):
                raise _invalid_value(f"{param}.name", f"'{param}.name' has characters that a name may not have.")
            _call_id(param, item)
        case "function_call_output" | "custom_tool_call_output":
            _call_id(param, item)
            if not isinstance(item["output"], str):
                _check_parts(f"{param}.output", item["output"], _INPUT_PARTS)
        case "reasoning":
            if not isinstance(item["summary"], list):
                raise _invalid_type(f"{param}.summary", "an array", item["summary"])
            for index, part in enumerate(item["summary"]):
                if not isinstance(part, dict) or part.get("type") != "summary_text":
                    raise _invalid_value(f"{param}.summary[{index}]", "A summary consists of summary_text parts.")
                _string(f"{param}.summary[{index}].text", part.get("text"))
        case "compaction_trigger" if not last:
            raise _invalid_value(param, "A compaction_trigger must be the last input item.")


def _call_id(param: str, item: Item) -> None:
    call_id = item.get("call_id")
    if not call_id:
        raise _missing(f"{param}.call_id")
    if len(call_id) > 64:
        raise ApiError(
            400, "string_above_max_length", f"'{param}.call_id' may have at most 64 characters.", f"{param}.call_id"
        )


def _check_message(param: str, item: Item) -> None:
    role = item["role"]
    if role not in {"user", "assistant", "system", "developer"}:
        raise _invalid_value(f"{param}.role", f"'{param}.role' must be one of: user, assistant, system, developer.")
    phase = item.get("phase")
    if phase is not None:
        if role != "assistant":
            raise _invalid_value(f"{param}.phase", "Only assistant messages have a phase.")
        _one_of("commentary", "final_answer")(f"{param}.phase", phase)
    if isinstance(item["content"], str):
        return
    allowed = frozenset({"output_text", "refusal"}) if role == "assistant" else _INPUT_PARTS
    _check_parts(f"{param}.content", item["content"], allowed)


def _check_parts(param: str, parts: object, allowed: frozenset[str]) -> None:
    if not isinstance(parts, list):
        raise _invalid_type(param, "a string or an array", parts)
    for index, part in enumerate(parts):
        where = f"{param}[{index}]"
        if not isinstance(part, dict):
            raise _invalid_type(where, "an object", part)
        kind = part.get("type")
        if kind not in allowed:
            raise _invalid_value(f"{where}.type", f"'{where}.type' must be one of: {', '.join(sorted(allowed))}.")
        if kind in _PART_TEXT:
            _string(f"{where}.{_PART_TEXT[kind]}", part.get(_PART_TEXT[kind]))
        elif kind == "input_image":
            if part.get("image_url") is None and part.get("file_id") is None:
                raise _missing(f"{where}.image_url")
            if part.get("image_url") is not None:
                _string(f"{where}.image_url", part["image_url"])
                if not part["image_url"].startswith(("data:image/", "http://", "https://")):
                    raise _invalid_value(f"{where}.image_url", "An image is a data URL or an http(s) URL.")


# --- tools -----------------------------------------------------------------------------------------------------------


def _check_tools(tools: object) -> None:
    if not isinstance(tools, list):
        raise _invalid_type("tools", "an array", tools)
    names: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise _invalid_type(where, "an object", tool)
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise _missing(f"{where}.type")
        if kind not in {"function", "custom"}:
            continue
        name = tool.get("name")
        if name is None:
            raise _missing(f"{where}.name")
        _string(f"{where}.name", name)
        if not _NAME.fullmatch(name):
            raise _invalid_value(f"{where}.name", f"'{where}.name' has characters that a name may not have.")
        if name in names:
            raise _invalid_value(f"{where}.name", "Two tools have the same name.")
        names.add(name)
        if kind == "function":
            _check_function(where, tool)


def _check_function(where: str, tool: Mapping[str, Any]) -> None:
    known = {"type", "name", "parameters", "strict", "description", "async", "defer_loading", "allowed_callers"}
    for field in tool:
        if field not in known | {"output_schema"}:
            raise _unknown(f"{where}.{field}")
    parameters = tool.get("parameters")
    if parameters is not None:
        _object()(f"{where}.parameters", parameters)
        if parameters and parameters.get("type") != "object":
            raise ApiError(
                400, "invalid_function_parameters", "The schema of a function must be of type 'object'.",
                f"{where}.parameters",
            )  # fmt: skip
    if tool.get("strict") is not None:
        _boolean(f"{where}.strict", tool["strict"])
    if tool.get("strict") is True:
        _strict_schema(f"{where}.parameters", parameters, code="invalid_function_parameters")


def _check_tool_choice(choice: object, tools: Sequence[Mapping[str, Any]]) -> None:
    if isinstance(choice, str):
        _one_of("none", "auto", "required")("tool_choice", choice)
        if choice == "required" and not tools:
            raise _invalid_value("tool_choice", "'tool_choice' is 'required' but no tools were offered.")
        return
    if not isinstance(choice, dict):
        raise _invalid_type("tool_choice", "a string or an object", choice)
    kind = choice.get("type")
    if kind == "allowed_tools":
        _one_of("auto", "required")("tool_choice.mode", choice.get("mode"))
        _array(_object())("tool_choice.tools", choice.get("tools"))
        for entry in choice["tools"]:
            _offered(entry, tools)
    elif kind in {"function", "custom"}:
        if choice.get("name") is None:
            raise _missing("tool_choice.name")
        _offered(choice, tools)
    elif not isinstance(kind, str):
        raise _missing("tool_choice.type")


def _offered(choice: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> None:
    for tool in tools:
        if tool.get("type") == choice.get("type") and tool.get("name") == choice.get("name"):
            return
    raise _invalid_value("tool_choice", f"'tool_choice' names a {choice.get('type')} tool that is not among 'tools'.")


# --- the whole request -----------------------------------------------------------------------------------------------


@attrs.frozen
class Shelf:
    """Where a request may find what it refers to.

    Attributes:
        response: Finds a response by id.
        item: Finds an item by id.
        conversation: Finds the items of a conversation.
    """

    response: Callable[[str], Held | None]
    item: Callable[[str], Item | None]
    conversation: Callable[[str], Sequence[Item] | None]


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
) -> Asked:
    """Check a request and resolve what it refers to.

    Args:
        body: The JSON object; its stream_id, if any, has been checked.
        shelf: What the server holds.
        transport: ``websocket`` or ``http``; each has parameters of its own.
        also_accept: Further parameters that are no error.
        models: The models that exist; None for all.

    Raises:
        ApiError: what the service would answer.
    """
    websocket = transport == "websocket"
    for name, value in body.items():
        check = _COMMON.get(name) or (_WEBSOCKET_ONLY.get(name) if websocket else None)
        if check is None:
            if name not in also_accept:
                raise _unknown(name)
        elif value is not None:
            check(name, value)
    if body.get("model") is None and body.get("prompt") is None:
        raise _missing("model")
    if models is not None and body.get("model") is not None and body["model"] not in models:
        raise ApiError(404, "model_not_found", "The model does not exist or you do not have access to it.", "model")
    if body.get("background"):
        raise ApiError(400, "unsupported_parameter", "'background' is not supported here.", "background")
    _check_tools(body.get("tools") or [])
    if body.get("tool_choice") is not None:
        _check_tool_choice(body["tool_choice"], body.get("tools") or ())
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
        raise _missing("input")
    new_input = _resolve_references(normalise_input(body.get("input")), shelf)
    _check_reasoning(new_input, shelf)
    _check_pairs([*history, *new_input])
    return Asked(body, tuple(history), tuple(new_input), previous, transport, body.get("stream_id"))


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
                raise _missing(f"input[{index}].encrypted_content")
            if shelf.item(identity) is None:
                raise _not_held(identity)
        follower = items[index + 1] if index + 1 < len(items) else None
        if follower is None or (follower["type"] == "message" and follower.get("role") != "assistant"):
            raise ApiError(
                400, None, f"Item '{identity or index}' of type 'reasoning' was sent without the item after it.",
                "input",
            )  # fmt: skip


_PAIRS: Final = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
_PAIR_NAMES: Final = {"function_call": "function call", "custom_tool_call": "custom tool call"}


def _check_pairs(items: Iterable[Item]) -> None:
    calls: dict[tuple[str, str], bool] = {}
    for item in items:
        kind = item["type"]
        if kind in _PAIR_NAMES and item.get("status") in {None, "completed"}:
            calls[kind, item["call_id"]] = False
        elif kind in _PAIRS:
            key = (_PAIRS[kind], item["call_id"])
            if key not in calls:
                raise ApiError(
                    400, None,
                    f"No tool call found for {_PAIR_NAMES[key[0]]} output with call_id {item['call_id']}.", "input",
                )  # fmt: skip
            calls[key] = True
    for (kind, call_id), answered in calls.items():
        if not answered:
            raise ApiError(400, None, f"No tool output found for {_PAIR_NAMES[kind]} {call_id}.", "input")
