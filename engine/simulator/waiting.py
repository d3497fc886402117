"""Calls that the client owns: which they are, which output each waits for, and which output answers which call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .wire import Item

__all__ = ["OUTPUT_KINDS", "answered_call", "call_key", "is_call", "is_clients", "stub", "unanswered"]

_OUTPUTS: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
    "mcp_approval_request": "mcp_approval_response",
}
_CALLS: Final = {output: call for call, output in _OUTPUTS.items()}

OUTPUT_KINDS: Final = frozenset(_CALLS)
"""The types of the items that answer such calls."""


def is_clients(item: Mapping[str, Any]) -> bool:
    """Return whether an item is a call that the client has to answer."""
    kind = item["type"]
    if kind not in _OUTPUTS or item.get("status") not in {None, "completed"}:
        return False
    if kind == "shell_call":
        return bool((item.get("environment") or {}).get("type", "local") == "local")
    return kind != "tool_search_call" or item.get("execution") == "client"


def is_call(item: Mapping[str, Any]) -> bool:
    """Return whether an item is a call that an output may answer, the service's own ones included."""
    return item["type"] in _OUTPUTS


def call_key(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a call is known by: its type and its id."""
    kind = item["type"]
    identity = item.get("id") if kind == "mcp_approval_request" else item.get("call_id") or item.get("id")
    return kind, str(identity)


def answered_call(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what the call that an output answers is known by; None for other items."""
    call = _CALLS.get(item["type"])
    if call is None or (call == "tool_search_call" and item.get("execution", "client") == "server"):
        return None
    identity = item.get("call_id") or item.get("id")
    if call == "mcp_approval_request":
        identity = item.get("approval_request_id")
    return call, str(identity)


def unanswered(items: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Return the client's calls that no later item answers, in order."""
    waiting: dict[tuple[str, str], Item] = {}
    for item in items:
        if is_clients(item):
            waiting[call_key(item)] = dict(item)
        else:
            answered = answered_call(item)
            if answered is not None:
                waiting.pop(answered, None)
    return list(waiting.values())


def stub(item: Mapping[str, Any]) -> Item | None:
    """Return the outline of the output that a call waits for; None where the protocol knows none."""
    kind = item["type"]
    outline: Item = {"type": _OUTPUTS[kind]}
    match kind:
        case "mcp_approval_request":
            return outline | {"approval_request_id": item.get("id")}
        case "tool_search_call":
            return outline | {"call_id": item.get("call_id"), "execution": "client"}
        case "function_call":
            return outline | {"call_id": item["call_id"], "name": item["name"]}
        case "local_shell_call":
            return None
    return outline | {"call_id": item["call_id"]}
