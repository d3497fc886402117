"""Results of tools → the items that answer their calls, each in the form of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.values.blocks import Image, ToolCall
from engine.values.calls import OUTPUTS, CallKind
from engine.values.messages import ToolResult

__all__ = ["call_output"]

_Item = dict[str, Any]

# Members of a call that its output has to repeat, so that a program or a namespace gets back what it asked for. The
# schema of a custom tool's output has no namespace.
_ECHOED: Final[Mapping[CallKind, tuple[str, ...]]] = {"function": ("caller", "namespace"), "custom": ("caller",)}

# A computer answers with a picture of its screen and with nothing else: this one is a single blank pixel.
_BLANK: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def call_output(result: ToolResult, call: ToolCall | None, content: str | list[_Item]) -> tuple[_Item, dict[str, Any]]:
    """Return the item that answers a call, and what else it says unless it is said already.

    Args:
        result: The tool's result.
        call: The call, where the conversation holds it; None makes it one of the result's kind.
        content: The result's content in wire form.
    """
    kind = call.kind if call is not None else result.kind
    item = {"type": OUTPUTS[kind], **_OUTPUTS[kind](result, call, content)}
    echoed = {name: call.extra.get(name) for name in _ECHOED.get(kind, ())} if call is not None else {}
    return item, {**echoed, **result.extra}


def _said(result: ToolResult, _: ToolCall | None, content: str | list[_Item]) -> _Item:
    if result.is_error:  # the wire has no flag for it, and the model must know
        if isinstance(content, str):
            content = f"Error: {content}"
        else:
            content = [{"type": "input_text", "text": "Error:"}, *content]
    return {"call_id": result.call_id, "output": content}


def _shell(result: ToolResult, call: ToolCall | None, _: object) -> _Item:
    printed = {"stdout": "", "stderr": result.text} if result.is_error else {"stdout": result.text, "stderr": ""}
    outcome = {"type": "exit", "exit_code": int(result.is_error)}
    item: _Item = {"call_id": result.call_id, "output": [{**printed, "outcome": outcome}]}
    action = call.arguments.get("action") if call is not None else None
    limit = action.get("max_output_length") if isinstance(action, Mapping) else None
    return {**item, "max_output_length": limit} if isinstance(limit, int) else item


def _local_shell(result: ToolResult, _: ToolCall | None, __: object) -> _Item:
    return {"id": result.call_id, "output": f"Error: {result.text}" if result.is_error else result.text}


def _patch(result: ToolResult, _: ToolCall | None, __: object) -> _Item:
    return {"call_id": result.call_id, "status": "failed" if result.is_error else "completed", "output": result.text}


def _screen(result: ToolResult, _: ToolCall | None, __: object) -> _Item:
    shown = next((block for block in result.content if isinstance(block, Image)), None)
    source = (
        {"image_url": _BLANK}
        if shown is None
        else {"image_url": shown.url}
        if shown.url
        else {"file_id": shown.file_id}
    )
    return {"call_id": result.call_id, "output": {"type": "computer_screenshot", **source}}


def _approval(result: ToolResult, _: ToolCall | None, __: object) -> _Item:
    item: _Item = {"approval_request_id": result.call_id, "approve": not result.is_error}
    return {**item, "reason": result.text} if result.text else item


def _tools(result: ToolResult, _: ToolCall | None, __: object) -> _Item:
    try:
        tools = json.loads(result.text)
    except (ValueError, RecursionError):
        tools = []
    found = tools if isinstance(tools, list) and not result.is_error else []
    return {"call_id": result.call_id, "execution": "client", "tools": found}


_OUTPUTS: Final[Mapping[CallKind, Callable[[ToolResult, ToolCall | None, str | list[_Item]], _Item]]] = {
    "function": _said,
    "custom": _said,
    "shell": _shell,
    "local_shell": _local_shell,
    "apply_patch": _patch,
    "computer": _screen,
    "mcp_approval": _approval,
    "tool_search": _tools,
}
