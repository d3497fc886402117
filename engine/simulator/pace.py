"""The pace of text."""

from __future__ import annotations

import random

import attrs

from .checks import seconds

__all__ = ["Pace"]


def _rate(pace: object, member: attrs.Attribute[float | None], value: object) -> None:
    if value is not None:
        seconds(pace, member, value)
        if not value:
            seconds(pace, member, None)


@attrs.frozen
class Pace:
    """The pace of text where a step names no pause.

    Attributes:
        first: Seconds before a response's first output.
        tokens_per_second: None for all at once.
        jitter: By how much each pause may differ, as a part of itself.
    """

    first: float = attrs.field(default=0.0, validator=seconds)
    tokens_per_second: float | None = attrs.field(default=None, validator=_rate)
    jitter: float = attrs.field(default=0.0, validator=seconds)

    def pause(self, tokens: int, rng: random.Random) -> float:
        """Return the seconds after so many tokens."""
        if self.tokens_per_second is None:
            return 0.0
        return tokens / self.tokens_per_second * (1 + self.jitter * rng.uniform(-1, 1))
