"""Token counts, in the names of the Responses API or of older servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.values.usage import Usage

__all__ = ["usage_from"]


def usage_from(usage: Mapping[str, Any] | None) -> Usage | None:
    """Read token counts in the Responses API's names or in those of older servers; None when there are none."""
    if not usage:
        return None
    received = _tokens(usage, "input_tokens", "prompt_tokens")
    produced = _tokens(usage, "output_tokens", "completion_tokens")
    total = _tokens(usage, "total_tokens")
    if not total and received is not None and produced is not None:
        total = received + produced
    read = _mapping(usage, "input_tokens_details", "prompt_tokens_details")
    written = _mapping(usage, "output_tokens_details", "completion_tokens_details")
    counted = Usage(
        input_tokens=received,
        output_tokens=produced,
        total_tokens=total,
        cached_tokens=_tokens(read, "cached_tokens"),
        cache_write_tokens=_tokens(read, "cache_write_tokens"),
        reasoning_tokens=_tokens(written, "reasoning_tokens"),
    )
    return None if counted == Usage() else counted


def _tokens(holder: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = holder.get(name)
        if isinstance(value, float) and value.is_integer():  # whole numbers, as some languages write them
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _mapping(holder: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        value = holder.get(name)
        if isinstance(value, Mapping):
            return value
    return {}
