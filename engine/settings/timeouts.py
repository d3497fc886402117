"""Budgets: how long to wait for what."""

from __future__ import annotations

import math
from typing import ClassVar, Final, Literal, TypeAlias

from attrs import field, frozen

from engine.values.checks import given, optional, seconds
from engine.values.choices import UNSET, Unset
from engine.values.shown import changed_only

__all__ = ["DEFAULT_TIMEOUTS", "Phase", "ResolvedTimeouts", "Seconds", "Timeouts"]

Seconds: TypeAlias = float | Unset | None
Phase: TypeAlias = Literal[
    "queue", "start", "connect", "send", "first_event", "idle", "turn", "drain", "close", "warm_up"
]


_BUDGET: Final = given(optional(seconds()))


@frozen(kw_only=True)
class Timeouts:
    """The budgets of waiting, in seconds; None waits for ever, and what is not given is decided further out.

    Attributes:
        queue: From queueing, right after the payload hook, until the lane is granted. Default 30.
        start: From the grant until the first event of this turn, over all attempts. Default 60.
        connect: Name resolution, TCP, proxy, TLS and upgrade together. Default 10.
        send: From handing over the frame until its last byte was passed on. Default 30.
        first_event: From then until the first event. Default 30.
        idle: Silence of this turn between two of its events. Default 300.
        turn: From entering the block until the response has ended. Default None.
        drain: Reading the rest of an abandoned response, with `OnCancel.DRAIN`. Default 5.
        close: The closing handshake; the socket is then aborted. 0 aborts at once. Default 2.
        warm_up: The exchange that prepares a connection, with `TurnOptions.warm_up`. Default 8.
    """

    _section: ClassVar[str] = "timeouts"

    queue: Seconds = field(default=UNSET, validator=_BUDGET)
    start: Seconds = field(default=UNSET, validator=_BUDGET)
    connect: Seconds = field(default=UNSET, validator=_BUDGET)
    send: Seconds = field(default=UNSET, validator=_BUDGET)
    first_event: Seconds = field(default=UNSET, validator=_BUDGET)
    idle: Seconds = field(default=UNSET, validator=_BUDGET)
    turn: Seconds = field(default=UNSET, validator=_BUDGET)
    drain: Seconds = field(default=UNSET, validator=_BUDGET)
    close: Seconds = field(default=UNSET, validator=_BUDGET)
    warm_up: Seconds = field(default=UNSET, validator=_BUDGET)

    def __repr__(self) -> str:
        return changed_only(self)


@frozen(kw_only=True)
class ResolvedTimeouts:
    """Every budget in seconds, infinite where there is none."""

    queue: float
    start: float
    connect: float
    send: float
    first_event: float
    idle: float
    turn: float
    drain: float
    close: float
    warm_up: float


DEFAULT_TIMEOUTS: Final = ResolvedTimeouts(
    queue=30.0,
    start=60.0,
    connect=10.0,
    send=30.0,
    first_event=30.0,
    idle=300.0,
    turn=math.inf,
    drain=5.0,
    close=2.0,
    warm_up=8.0,
)
