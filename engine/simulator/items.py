"""The items and tools that may stand in ``input`` and ``tools``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .shapes import (
    NAME,
    array,
    check_boolean,
    check_strict_schema,
    check_string,
    mapping,
    missing_parameter,
    one_of,
    unknown_parameter,
    wrong_type,
    wrong_value,
)
from .wire import ApiError, Item

__all__ = ["check_item", "check_tool_choice", "check_tools"]

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
        ("compaction", "encrypted_content", "id"),
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
        # Multi-agent beta.
        "agent_message",
        "multi_agent_call",
        "multi_agent_call_output",
    }
)
_ANYWHERE: Final = frozenset({"type", "agent"})
"""Members of every item; ``agent`` is of the multi-agent beta."""
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "reasoning": "rs", "custom_tool_call": "ctc"}
_INPUT_PARTS: Final = frozenset({"input_text", "input_image", "input_file", "input_audio"})
_PART_TEXT: Final = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def check_item(param: str, item: object, *, last: bool) -> None:
    """Check one input item; ``last`` says whether it ends the input."""
    if not isinstance(item, dict):
        raise wrong_type(param, "an object", item)
    kind = item.get("type", "message" if "role" in item else None)
    if kind is None:
        raise missing_parameter(f"{param}.type")
    if not isinstance(kind, str) or (kind not in _ITEM_FIELDS and kind not in _OTHER_ITEMS):
        raise wrong_value(f"{param}.type", f"'{param}.type' names no kind of input item.")
    # The notes of the service for its reader are in no schema of an input item; clients send the null of it back.
    if item.get("created_by") is not None:
        raise unknown_parameter(f"{param}.created_by")
    if kind in _OTHER_ITEMS:
        return
    required, optional = _ITEM_FIELDS[kind]
    for name in required:
        if item.get(name) is None:
            raise missing_parameter(f"{param}.{name}")
    for name, value in item.items():
        if value is not None and name not in required and name not in optional and name not in _ANYWHERE:
            raise unknown_parameter(f"{param}.{name}")
        if name in {"id", "call_id", "name", "arguments", "input", "status", "role"} and value is not None:
            check_string(f"{param}.{name}", value)
    identity, prefix = item.get("id"), _PREFIXES.get(kind)
    # The service checks the prefix on what it issued itself; a user's own message id is looked at as well.
    if identity is not None and prefix is not None and not identity.startswith(prefix):
        raise wrong_value(f"{param}.id", f"'{param}.id' must be an id that begins with '{prefix}'.")
    match kind:
        case "message":
            _check_message(param, item)
        case "function_call" | "custom_tool_call":
            if not NAME.fullmatch(item["name"]):
                raise wrong_value(f"{param}.name", f"'{param}.name' has characters that a name may not have.")
            _call_id(param, item)
        case "function_call_output" | "custom_tool_call_output":
            _call_id(param, item)
            if not isinstance(item["output"], str):
                _check_parts(f"{param}.output", item["output"], _INPUT_PARTS)
        case "reasoning":
            if not isinstance(item["summary"], list):
                raise wrong_type(f"{param}.summary", "an array", item["summary"])
            for index, part in enumerate(item["summary"]):
                if not isinstance(part, dict) or part.get("type") != "summary_text":
                    raise wrong_value(f"{param}.summary[{index}]", "A summary consists of summary_text parts.")
                check_string(f"{param}.summary[{index}].text", part.get("text"))
        case "compaction_trigger" if not last:
            raise wrong_value(param, "A compaction_trigger must be the last input item.")


def _call_id(param: str, item: Item) -> None:
    call_id = item.get("call_id")
    if not call_id:
        raise missing_parameter(f"{param}.call_id")
    if len(call_id) > 64:
        raise ApiError(
            400, "string_above_max_length", f"'{param}.call_id' may have at most 64 characters.", f"{param}.call_id"
        )


def _check_message(param: str, item: Item) -> None:
    role = item["role"]
    if not isinstance(role, str) or role not in {"user", "assistant", "system", "developer"}:
        raise wrong_value(f"{param}.role", f"'{param}.role' must be one of: user, assistant, system, developer.")
    phase = item.get("phase")
    if phase is not None:
        if role != "assistant":
            raise wrong_value(f"{param}.phase", "Only assistant messages have a phase.")
        one_of("commentary", "final_answer")(f"{param}.phase", phase)
    if isinstance(item["content"], str):
        return
    allowed = frozenset({"output_text", "refusal"}) if role == "assistant" else _INPUT_PARTS
    _check_parts(f"{param}.content", item["content"], allowed)


def _check_parts(param: str, parts: object, allowed: frozenset[str]) -> None:
    if not isinstance(parts, list):
        raise wrong_type(param, "a string or an array", parts)
    for index, part in enumerate(parts):
        where = f"{param}[{index}]"
        if not isinstance(part, dict):
            raise wrong_type(where, "an object", part)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in allowed:
            raise wrong_value(f"{where}.type", f"'{where}.type' must be one of: {', '.join(sorted(allowed))}.")
        if kind in _PART_TEXT:
            check_string(f"{where}.{_PART_TEXT[kind]}", part.get(_PART_TEXT[kind]))
        elif kind == "input_image":
            if part.get("image_url") is None and part.get("file_id") is None:
                raise missing_parameter(f"{where}.image_url")
            if part.get("image_url") is not None:
                check_string(f"{where}.image_url", part["image_url"])
                if not part["image_url"].startswith(("data:image/", "http://", "https://")):
                    raise wrong_value(f"{where}.image_url", "An image is a data URL or an http(s) URL.")


# --- tools ------------------------------------------------------------------------------------------------------------


def check_tools(tools: object) -> None:
    """Check the offered tools."""
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array", tools)
    names: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(where, "an object", tool)
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise missing_parameter(f"{where}.type")
        if kind not in {"function", "custom"}:
            continue
        name = tool.get("name")
        if name is None:
            raise missing_parameter(f"{where}.name")
        check_string(f"{where}.name", name)
        if not NAME.fullmatch(name):
            raise wrong_value(f"{where}.name", f"'{where}.name' has characters that a name may not have.")
        if name in names:
            raise wrong_value(f"{where}.name", "Two tools have the same name.")
        names.add(name)
        if kind == "function":
            _check_function(where, tool)


def _check_function(where: str, tool: Mapping[str, Any]) -> None:
    known = {"type", "name", "parameters", "strict", "description", "async", "defer_loading", "allowed_callers"}
    for field in tool:
        if field not in known | {"output_schema"}:
            raise unknown_parameter(f"{where}.{field}")
    parameters = tool.get("parameters")
    if parameters is not None:
        mapping()(f"{where}.parameters", parameters)
        if parameters and parameters.get("type") != "object":
            raise ApiError(
                400, "invalid_function_parameters", "The schema of a function must be of type 'object'.",
                f"{where}.parameters",
            )  # fmt: skip
    if tool.get("strict") is not None:
        check_boolean(f"{where}.strict", tool["strict"])
    if tool.get("strict") is True:
        check_strict_schema(f"{where}.parameters", parameters, code="invalid_function_parameters")


def check_tool_choice(choice: object, tools: Sequence[Mapping[str, Any]]) -> None:
    """Check the choice against what was offered."""
    if isinstance(choice, str):
        one_of("none", "auto", "required")("tool_choice", choice)
        if choice == "required" and not tools:
            raise wrong_value("tool_choice", "'tool_choice' is 'required' but no tools were offered.")
        return
    if not isinstance(choice, dict):
        raise wrong_type("tool_choice", "a string or an object", choice)
    kind = choice.get("type")
    if not isinstance(kind, str):
        raise missing_parameter("tool_choice.type")
    if kind == "allowed_tools":
        one_of("auto", "required")("tool_choice.mode", choice.get("mode"))
        array(mapping())("tool_choice.tools", choice.get("tools"))
        for entry in choice["tools"]:
            _offered(entry, tools)
    elif kind in {"function", "custom"}:
        if choice.get("name") is None:
            raise missing_parameter("tool_choice.name")
        _offered(choice, tools)


def _offered(choice: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> None:
    for tool in tools:
        if tool.get("type") == choice.get("type") and tool.get("name") == choice.get("name"):
            return
    raise wrong_value("tool_choice", f"'tool_choice' names a {choice.get('type')} tool that is not among 'tools'.")
