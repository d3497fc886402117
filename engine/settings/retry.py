"""The settings of trying again: how often, how long to wait, and when to stop asking a server."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from attrs import Attribute, field, frozen

from engine.values.checks import flag, function, given, place, seconds, whole
from engine.values.choices import UNSET, Unset
from engine.values.problems import ConfigurationError
from engine.values.shown import changed_only

__all__ = ["DEFAULT_RETRY", "ResolvedRetry", "RetryPolicy"]

Jitter: TypeAlias = Callable[[], float]


def _waits(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(_is_wait(each) for each in value):
        where = place(instance, attribute)
        raise ConfigurationError(where, "must be a sequence of numbers of seconds, each 0 or more")


def _is_wait(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@frozen(kw_only=True)
class RetryPolicy:
    """The rules of trying again: how often, and how long to wait before; what is not given is decided further out.

    Which failures are worth another try, and over which transport, is a table; these are its numbers. Whatever they
    say, every try of a turn has to fit into its `engine.Timeouts.start`, and nothing is sent again once a turn has
    shown output.

    A turn can set ``max_dispatches``, ``resend_ambiguous``, ``back_off`` and ``jitter``; the others are the session's
    or the engine's.

    Attributes:
        max_dispatches: The most times that one turn's request may be sent, over all transports. Default 3; 1 never
            sends anything twice.
        resend_ambiguous: The most times that one turn's request may be sent again although the server may have begun
            it, which can cost twice. Only `engine.Transport.AUTO` ever does. Default 1; 0 never does.
        back_off: Seconds to wait before trying again where no server says how long, one number for each try; every wait
            is a random part of it ("full jitter"). Default 1, 2, 4, 8, 16; an empty sequence never waits and tries
            again only where no waiting is called for.
        jitter: Returns the random part, from 0 to 1. Default `random.random`.
        eager_reconnect: Whether an unused connection that ends is replaced at once, not by the next turn.
            The session's. Default False.
        breaker_threshold: After how many failures to connect in a row the breaker opens: `engine.Transport.AUTO` then
            goes over HTTP without trying a WebSocket. The engine's. Default 2.
        breaker_cooldown: Seconds until one connection is tried again. The engine's. Default 60.
    """

    _section: ClassVar[str] = "retry"

    max_dispatches: int | Unset = field(default=UNSET, validator=given(whole(1)))
    resend_ambiguous: int | Unset = field(default=UNSET, validator=given(whole(0)))
    back_off: Sequence[float] | Unset = field(default=UNSET, converter=_as_tuple, validator=given(_waits))
    jitter: Jitter | Unset = field(default=UNSET, validator=given(function), repr=False)
    eager_reconnect: bool | Unset = field(default=UNSET, validator=given(flag))
    breaker_threshold: int | Unset = field(default=UNSET, validator=given(whole(1)))
    breaker_cooldown: float | Unset = field(default=UNSET, validator=given(seconds(finite=True)))

    def __repr__(self) -> str:
        return changed_only(self)


@frozen(kw_only=True)
class ResolvedRetry:
    """The numbers of the recovery table; see `RetryPolicy`."""

    max_dispatches: int
    resend_ambiguous: int
    back_off: tuple[float, ...]
    jitter: Jitter = field(repr=False)
    eager_reconnect: bool
    breaker_threshold: int
    breaker_cooldown: float

    def wait(self, number: int) -> float:
        """Draw the seconds to wait before the try of that number, from 0."""
        return self.back_off[number] * min(max(self.jitter(), 0.0), 1.0)


DEFAULT_RETRY: Final = ResolvedRetry(
    max_dispatches=3,
    resend_ambiguous=1,
    back_off=(1.0, 2.0, 4.0, 8.0, 16.0),
    jitter=random.random,
    eager_reconnect=False,
    breaker_threshold=2,
    breaker_cooldown=60.0,
)
