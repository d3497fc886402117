"""Every parameter of a request, with the check of its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .items import check_item
from .shapes import (
    NAME,
    Check,
    array,
    check_boolean,
    check_strict_schema,
    check_string,
    decimal,
    integer,
    mapping,
    missing_parameter,
    one_of,
    short_string,
    wrong_type,
    wrong_value,
)
from .wire import ApiError

__all__ = ["COMMON", "MULTI_AGENT_ONLY", "WEBSOCKET_ONLY"]


def _metadata(param: str, value: object) -> None:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    if len(value) > 16:
        raise ApiError(400, "object_above_max_properties", f"{param!r} may have at most 16 pairs.", param)
    for name, text in value.items():
        if len(name) > 64:
            raise wrong_value(param, f"Keys of {param!r} may have at most 64 characters.")
        short_string(512)(f"{param}.{name}", text)


def _format(param: str, value: object) -> None:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    kind = value.get("type")
    if isinstance(kind, str) and kind in {"text", "json_object"}:
        return
    if kind != "json_schema":
        raise wrong_value(f"{param}.type", f"'{param}.type' must be one of: text, json_object, json_schema.")
    for name in ("name", "schema"):
        if value.get(name) is None:
            raise missing_parameter(f"{param}.{name}")
    short_string(64)(f"{param}.name", value["name"])
    if not NAME.fullmatch(value["name"]):
        raise wrong_value(f"{param}.name", f"'{param}.name' has characters that a name may not have.")
    mapping()(f"{param}.schema", value["schema"])
    if value.get("strict") is True:
        check_strict_schema(f"{param}.schema", value["schema"], code="invalid_json_schema")


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
            raise wrong_value(param, "A conversation is named by its id alone.")
        value = value["id"]
    check_string(param, value)


def _input(param: str, value: object) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise wrong_type(param, "a string or an array", value)
    for index, entry in enumerate(value):
        check_item(f"{param}[{index}]", entry, last=index == len(value) - 1)


def _previous(param: str, value: object) -> None:
    check_string(param, value)
    if not str(value).startswith("resp"):
        raise wrong_value(param, f"{param!r} must be an id that begins with 'resp'.")


def _client_metadata(param: str, value: object) -> None:
    """Take what Codex sends of itself: texts by name."""
    mapping()(param, value)
    assert isinstance(value, dict)
    for name, text in value.items():
        if text is not None:
            check_string(f"{param}.{name}", text)


_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES: Final = ("auto", "concise", "detailed")

COMMON: Final[Mapping[str, Check]] = {
    "access_programs": mapping(),
    "background": check_boolean,
    "background_options": mapping(),
    "client_metadata": _client_metadata,
    "context_management": array(mapping({"type": one_of("compaction"), "compact_threshold": integer(1000)})),
    "conversation": _conversation,
    "image": mapping({"context_compression": one_of("auto", "enabled", "disabled")}),
    "include": array(one_of(*_INCLUDABLE)),
    "input": _input,
    "instructions": check_string,
    "max_output_tokens": integer(0),
    "max_tool_calls": integer(0),
    "metadata": _metadata,
    "model": check_string,
    "moderation": mapping(),
    "parallel_tool_calls": check_boolean,
    "previous_response_id": _previous,
    "prompt": mapping({"id": check_string, "version": check_string, "variables": mapping()}),
    "prompt_cache_key": check_string,
    "prompt_cache_options": mapping(
        {
            "mode": one_of("implicit", "explicit"),
            "ttl": one_of("30m", "12h"),
            "prewarm": check_boolean,
            "comparison_response_id": check_string,
        }
    ),
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "reasoning": mapping(
        {
            "effort": one_of(*_EFFORTS),
            "summary": one_of(*_SUMMARIES),
            "generate_summary": one_of(*_SUMMARIES),
            "context": one_of("auto", "current_turn", "all_turns"),
            "mode": check_string,
        }
    ),
    "safety_identifier": short_string(128),
    "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "store": check_boolean,
    "stream": check_boolean,
    "stream_options": mapping({"include_obfuscation": check_boolean}),
    "temperature": decimal(0, 2),
    "text": mapping({"format": _format, "verbosity": one_of("low", "medium", "high")}),
    "tool_choice": lambda _param, _value: None,  # needs the tools, see check_tool_choice
    "tools": lambda _param, _value: None,
    "top_logprobs": integer(0, 20),
    "top_p": decimal(0, 1),
    "truncation": one_of("auto", "disabled"),
    "user": check_string,
}
MULTI_AGENT_ONLY: Final[Mapping[str, Check]] = {
    "multi_agent": mapping({"enabled": check_boolean, "max_concurrent_subagents": integer(1)}),
}
WEBSOCKET_ONLY: Final[Mapping[str, Check]] = {
    "type": check_string,
    "stream_id": check_string,
    "generate": check_boolean,
}
