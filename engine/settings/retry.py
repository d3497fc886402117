"""What callers set about trying again: how often, how long to wait, and when to stop asking a server."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from attrs import Attribute, field, frozen

from engine.settings.turn_options import UNSET, Unset
from engine.values.errors import ConfigurationError

__all__ = ["DEFAULT_RETRY", "RetryPolicy"]

Jitter: TypeAlias = Callable[[], float]


def _where(attribute: Attribute[Any]) -> str:
    return f"retry.{attribute.name}"


def _whole(least: int) -> Callable[[object, Attribute[Any], Any], None]:
    def check(instance: object, attribute: Attribute[Any], value: int | Unset) -> None:
        if value is UNSET:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(_where(attribute), f"must be a whole number, {least} or more")

    return check


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _seconds(instance: object, attribute: Attribute[Any], value: float | Unset) -> None:
    if value is not UNSET and not _is_seconds(value):
        raise ConfigurationError(_where(attribute), "must be a number of seconds, 0 or more")


def _waits(instance: object, attribute: Attribute[Any], value: Sequence[float] | Unset) -> None:
    if value is UNSET:
        return
    if not isinstance(value, tuple) or not all(_is_seconds(each) for each in value):
        raise ConfigurationError(_where(attribute), "must be a sequence of numbers of seconds, each 0 or more")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _flag(instance: object, attribute: Attribute[Any], value: bool | Unset) -> None:
    if value is not UNSET and not isinstance(value, bool):
        raise ConfigurationError(_where(attribute), f"is a {type(value).__name__}, not a bool")


def _function(instance: object, attribute: Attribute[Any], value: Jitter | Unset) -> None:
    if value is not UNSET and not callable(value):
        raise ConfigurationError(_where(attribute), "is not callable")


@frozen(kw_only=True)
class RetryPolicy:
    """How often to try again, and how long to wait before; what is not given is decided further out.

    Which failures are worth another try, and over which transport, is a table; these are its numbers. Whatever they
    say, every try of a turn has to fit into its `engine.Timeouts.start`, and nothing is sent again once a turn has
    shown output.

    A turn can set ``max_dispatches``, ``resend_ambiguous``, ``back_off`` and ``jitter``; the others are the session's
    or the engine's.

    Attributes:
        max_dispatches: How often one turn's request may be sent in all, over all transports. Default 3; 1 never sends
            anything twice.
        resend_ambiguous: How often one turn's request may be sent again although the server may have begun to work on
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

    max_dispatches: int | Unset = field(default=UNSET, validator=_whole(1))
    resend_ambiguous: int | Unset = field(default=UNSET, validator=_whole(0))
    back_off: Sequence[float] | Unset = field(default=UNSET, converter=_as_tuple, validator=_waits)
    jitter: Jitter | Unset = field(default=UNSET, validator=_function, repr=False)
    eager_reconnect: bool | Unset = field(default=UNSET, validator=_flag)
    breaker_threshold: int | Unset = field(default=UNSET, validator=_whole(1))
    breaker_cooldown: float | Unset = field(default=UNSET, validator=_seconds)

    def number(self, name: str) -> int:
        """The count called ``name``. Only for merged policies."""
        value = getattr(self, name)
        assert isinstance(value, int)
        return value

    @property
    def waits(self) -> tuple[float, ...]:
        """The seconds of ``back_off``. Only for merged policies."""
        assert isinstance(self.back_off, tuple)
        return self.back_off

    def wait(self, number: int) -> float:
        """Draw the seconds to wait before the try of that number, from 0. Only for merged policies."""
        assert not isinstance(self.jitter, Unset)
        return self.waits[number] * min(max(self.jitter(), 0.0), 1.0)


DEFAULT_RETRY: Final = RetryPolicy(
    max_dispatches=3,
    resend_ambiguous=1,
    back_off=(1.0, 2.0, 4.0, 8.0, 16.0),
    jitter=random.random,
    eager_reconnect=False,
    breaker_threshold=2,
    breaker_cooldown=60.0,
)
