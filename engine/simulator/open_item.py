"""The item that a response is producing, and the part of it that takes deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import attrs

from . import wire
from .wire import Ids, Item

__all__ = ["CALLS", "OpenItem", "new_item"]

CALLS: Final = frozenset({"function_call", "custom_tool_call"})
"""Kinds of items that are calls with text of their own, rather than parts."""

_PREFIXES: Final = {"reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


class _Names(NamedTuple):
    """The events of a text: those that bring it, the one that ends it, and the member that holds it whole."""

    delta: str
    done: str
    field: str


_NAMES: Final = {
    "message": _Names("response.output_text.delta", "response.output_text.done", "text"),
    "refusal": _Names("response.refusal.delta", "response.refusal.done", "refusal"),
    "function_call": _Names(
        "response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments"
    ),
    "custom_tool_call": _Names(
        "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", "input"
    ),
    "summary": _Names("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text"),
    "reasoning": _Names("response.reasoning_text.delta", "response.reasoning_text.done", "text"),
}


def new_item(kind: str, ids: Ids, fields: Mapping[str, Any]) -> Item:
    """Return an item that has just begun.

    Args:
        kind: ``message``, ``refusal``, ``reasoning``, ``function_call`` or ``custom_tool_call``.
        ids: Makes its ids.
        fields: Further members; None stands for none.
    """
    item: Item = {"id": ids.new(_PREFIXES.get(kind, "msg"))}
    match kind:
        case "message" | "refusal":
            item |= {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
        case "reasoning":
            item |= {"type": "reasoning", "summary": []}
        case "function_call":
            item |= {"type": kind, "status": "in_progress", "arguments": "", "call_id": ids.new("call")}
        case _:
            item |= {"type": kind, "status": "in_progress", "input": "", "call_id": ids.new("call")}
    return item | {name: value for name, value in fields.items() if value is not None}


@attrs.define(eq=False)
class OpenItem:
    """An item that is not finished.

    Attributes:
        kind: The kind of its text: that of the item, or ``summary`` within reasoning.
        item: The item so far.
        index: Its position in the output.
        text: The text of the open part, or of the call, so far.
        part_open: Whether a part, or the call, takes deltas.
        parts: The position of the newest part.
        logprobs: The log probabilities of the open part.
    """

    kind: str
    item: Item
    index: int
    text: str = ""
    part_open: bool = False
    parts: int = 0
    logprobs: list[dict[str, Any]] = attrs.field(factory=list)

    @property
    def names(self) -> _Names:
        """The events of its text."""
        return _NAMES[self.kind]

    @property
    def where(self) -> dict[str, Any]:
        """The members by which events say what they are about."""
        where: dict[str, Any] = {"item_id": self.item["id"], "output_index": self.index}
        if self.kind == "summary":
            where["summary_index"] = self.parts
        elif self.kind not in CALLS:
            where["content_index"] = self.parts
        return where

    def add_part(self, kind: str) -> dict[str, Any]:
        """Begin a part, ``text``, ``refusal``, ``summary`` or ``reasoning``, and return it as it is told."""
        self.part_open, self.text, self.logprobs = True, "", []
        part: dict[str, Any]
        match kind:
            case "summary":
                self.kind, part = "summary", {"type": "summary_text", "text": ""}
            case "reasoning":
                self.kind, part = "reasoning", {"type": "reasoning_text", "text": ""}
            case "refusal":
                part = {"type": "refusal", "refusal": ""}
            case _:
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        parts = self.item["summary"] if kind == "summary" else self.item.setdefault("content", [])
        parts.append(part)
        self.parts = len(parts) - 1
        return dict(part)

    def streamed_logprobs(self, text: str, top: int) -> list[dict[str, Any]]:
        """Return the log probabilities of a delta, and keep them for the whole."""
        entries = wire.logprobs(text, top)
        self.logprobs += entries
        return entries

    def finish_part(self) -> dict[str, Any] | None:
        """Put the text where it belongs; returns the part, None for a call, which has none."""
        self.part_open = False
        if self.kind in CALLS:
            self.item[self.names.field] = self.text
            return None
        part: dict[str, Any] = (self.item["summary"] if self.kind == "summary" else self.item["content"])[self.parts]
        part[self.names.field] = self.text
        if self.kind == "message":
            part["logprobs"] = [wire.finished_logprob(entry) for entry in self.logprobs]
        return part
