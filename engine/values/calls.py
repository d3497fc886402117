"""Calls that the caller answers, in the wire's terms: which items they are, and which items answer them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

__all__ = ["CALL_KINDS", "OUTPUTS", "CallKind", "ClientItem", "answered_by", "client_item"]

CallKind: TypeAlias = Literal[
    "function", "custom", "shell", "local_shell", "apply_patch", "computer", "mcp_approval", "tool_search"
]
"""The purpose of a call."""

CALL_KINDS: Final[tuple[CallKind, ...]] = (
    "function", "custom", "shell", "local_shell", "apply_patch", "computer", "mcp_approval", "tool_search",
)  # fmt: skip

OUTPUTS: Final[Mapping[CallKind, str]] = {
    "function": "function_call_output",
    "custom": "custom_tool_call_output",
    "shell": "shell_call_output",
    "local_shell": "local_shell_call_output",
    "apply_patch": "apply_patch_call_output",
    "computer": "computer_call_output",
    "mcp_approval": "mcp_approval_response",
    "tool_search": "tool_search_output",
}
"""The wire type of the item that answers each kind of call."""

# Item type → kind, and the members that say what is asked for. Functions and custom tools have a block of their own.
_ITEMS: Final[Mapping[str, tuple[CallKind, tuple[str, ...]]]] = {
    "shell_call": ("shell", ("action", "environment")),
    "local_shell_call": ("local_shell", ("action",)),
    "apply_patch_call": ("apply_patch", ("operation",)),
    "computer_call": ("computer", ("action", "actions", "pending_safety_checks")),
    "mcp_approval_request": ("mcp_approval", ("server_label", "name", "arguments")),
    "tool_search_call": ("tool_search", ("arguments",)),
}

# The place where an answer names its call, for those that have no call id.
_PAIRED_BY: Final[Mapping[str, str]] = {
    "mcp_approval_request": "id",
    "mcp_approval_response": "approval_request_id",
    "local_shell_call_output": "id",
}


@frozen
class ClientItem:
    """A call of the caller's that has no block of its own.

    Attributes:
        kind: The kind of call.
        call_id: The id that pairs it with its answer.
        arguments: The call's fields, under their wire names.
    """

    kind: CallKind
    call_id: str
    arguments: Mapping[str, Any]


def client_item(item: Mapping[str, Any]) -> ClientItem | None:
    """Read an output item as a call that the caller answers; None where it is none."""
    kind, members = _ITEMS.get(str(item.get("type")), (None, ()))
    if kind is None or (kind == "tool_search" and item.get("execution") != "client"):
        return None
    call_id = _paired_by(item)
    if call_id is None:
        return None
    return ClientItem(kind, call_id, {name: item[name] for name in members if item.get(name) is not None})


def answered_by(item: Mapping[str, Any]) -> str | None:
    """The call id of the call that an item answers; None where it answers none."""
    return _paired_by(item) if str(item.get("type")) in _OUTPUT_TYPES else None


def _paired_by(item: Mapping[str, Any]) -> str | None:
    name = _PAIRED_BY.get(str(item.get("type")), "call_id")
    value = item.get(name) or item.get("call_id")
    return value if isinstance(value, str) and value.strip() else None


_OUTPUT_TYPES: Final = frozenset(OUTPUTS.values())
