"""Tokens, as the server counted them."""

from __future__ import annotations

from attrs import fields, frozen

__all__ = ["Usage"]


@frozen
class Usage:
    """Tokens as the server counted them; None for what it did not report, never zero in its place.

    Attributes:
        input_tokens: All input tokens, cached ones included.
        output_tokens: All output tokens, reasoning ones included.
        total_tokens: Their sum as the server gives it, else computed when both parts are known.
        cached_tokens: Input tokens read from the prompt cache.
        cache_write_tokens: Input tokens written to the prompt cache.
        reasoning_tokens: Output tokens spent on reasoning.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    def __add__(self, other: object) -> Usage:
        """Return the tokens of both; what only one of them reports is taken as it is."""
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(_sum(getattr(self, each.name), getattr(other, each.name)) for each in fields(Usage)))

    def __radd__(self, other: object) -> Usage:
        """Let `sum` begin with its 0."""
        if other == 0 and not isinstance(other, Usage):
            return self
        return NotImplemented


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
