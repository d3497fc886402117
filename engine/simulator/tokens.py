"""The cost of a response, and its limit."""

from __future__ import annotations

import attrs

from . import wire
from .wire import Item

__all__ = ["OutOfTokensError", "Tokens"]


class OutOfTokensError(Exception):
    """``max_output_tokens`` are used up."""


@attrs.define(eq=False)
class Tokens:
    """The output tokens of one response.

    Attributes:
        limit: The most tokens that there may be.
        spent: The number of tokens so far.
        reasoned: The number of these that were reasoning.
    """

    limit: int | None
    spent: int = 0
    reasoned: int = 0

    def take(self, text: str, *, reasoning: bool) -> str:
        """Return as much of the text as may still be said; counts it."""
        size = wire.count_tokens(text)
        if self.limit is not None and self.spent + size > self.limit:
            size = self.limit - self.spent
            text = "".join(wire.pieces(text)[:size])
        self.spent += size
        if reasoning:
            self.reasoned += size
        return text

    def take_item(self, item: Item) -> None:
        """Count an item that is said whole, whatever the limit."""
        self.spent += wire.tokens_of([item])

    def check(self) -> None:
        """Raise `OutOfTokensError` if nothing more may be said."""
        if self.limit is not None and self.spent >= self.limit:
            raise OutOfTokensError
