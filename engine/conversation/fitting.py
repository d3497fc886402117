"""Tool outputs that the next request can carry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from engine.protocol.request_body import input_items
from engine.values.messages import AssistantMessage, Message, ToolResult
from engine.wire.codec import encode

__all__ = ["fitting"]


def fitting(message: AssistantMessage, results: tuple[ToolResult, ...], room: float) -> tuple[ToolResult, ...]:
    """Return the outputs of a response's calls with errors in place of those that no request could carry.

    A transcript that holds too much could never be sent again. The largest goes first, and nothing is cut: half an
    output reads like a whole one.

    Args:
        message: The response.
        results: The outputs.
        room: Bytes that the response and its outputs may add to the next request.
    """
    if math.isinf(room):
        return results
    sizes = _sizes((message, *results))
    room -= sum(sizes[: len(sizes) - len(results)])
    sizes = sizes[len(sizes) - len(results) :]
    kept = list(results)
    while sum(sizes) > room:
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        text = f"the output has {sizes[largest]} bytes, and the conversation has room for {max(room, 0):.0f}"
        error = attrs.evolve(results[largest], content=text, is_error=True)
        size = _sizes((message, error))[-1]
        if size >= sizes[largest]:
            break  # it is not the outputs that are too large
        kept[largest], sizes[largest] = error, size
    return tuple(kept)


def _sizes(messages: Iterable[Message]) -> list[int]:
    """Bytes that each item of ``messages`` adds to a request; 0 for one that cannot be written, as sending it tells."""
    return [_size(item) for item in input_items(messages, stored=True)]


def _size(item: Mapping[str, Any]) -> int:
    try:
        return len(encode(item).encode()) + len(",")
    except (TypeError, ValueError, RecursionError):
        return 0
