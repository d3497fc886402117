"""The gates of one engine: they hold the turns of all its sessions while a server limits their rate."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, TypeAlias

import trio

from engine.protocol.rate_gate import LONGEST_HOLD, RateGate
from engine.settings.endpoint import Endpoint
from engine.settings.retry import ResolvedRetry

__all__ = ["EndpointGates", "Gate", "Gates"]

_KEPT: Final = 4096
_UPGRADES: Final = object()  # in place of a model
_Key: TypeAlias = tuple[str, Hashable, Hashable]


class Gate:
    """One gate, and the turns that wait at it.

    Args:
        rule: The rule that says when they may go.
    """

    def __init__(self, rule: RateGate) -> None:
        self.rule: RateGate = rule
        self._events: dict[Hashable, trio.Event] = {}

    async def wait(self, turn: Hashable) -> None:
        """Wait until a turn may go. Cancelling takes it out of the queue."""
        self.rule.join(turn)
        passed = False
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self.rule.admit(turn):
                changed = self._events[turn] = trio.Event()
                with trio.CancelScope(deadline=self.rule.opens_at if self.rule.first == turn else math.inf):
                    await changed.wait()
            passed = True
        finally:
            self._events.pop(turn, None)
            if not passed:
                self.rule.left(turn)
            self._wake()

    def limited(self, seconds: float) -> None:
        """The server refused a turn, and asks to wait."""
        self.rule.limited(seconds)
        self._wake()

    def accepted(self, turn: Hashable) -> None:
        """The server has begun with a turn."""
        self.rule.accepted(turn)
        self._wake()

    def left(self, turn: Hashable) -> None:
        """A turn is over or failed, and that says nothing about the limit."""
        self.rule.left(turn)
        self._wake()

    def _wake(self) -> None:
        changed = self._events.get(self.rule.first)
        if changed is not None:
            changed.set()


class Gates:
    """Gates by server, credential and what is limited, the 4,096 that were used last.

    There are none while no rate is limited.
    """

    def __init__(self, policy: ResolvedRetry) -> None:
        self._policy = policy
        self._gates: OrderedDict[_Key, Gate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._gates)

    def at(self, endpoint: Endpoint) -> EndpointGates:
        """Return the gates of one endpoint and its key."""
        return EndpointGates(self, endpoint)

    def find(self, key: _Key) -> Gate | None:
        """Return a gate; None where it is open to all."""
        gate = self._gates.get(key)
        if gate is None:
            return None
        if gate.rule.is_over:
            del self._gates[key]
            return None
        self._gates.move_to_end(key)
        return gate

    def make(self, key: _Key) -> Gate:
        """Return a gate, made where there is none."""
        gate = self.find(key)
        if gate is None:
            gate = self._gates[key] = Gate(RateGate(clock=trio.current_time, jitter=self._policy.jitter))
            if len(self._gates) > _KEPT:
                self._gates.popitem(last=False)
        return gate


class EndpointGates:
    """The gates of one endpoint and its key: one for each model, and one for WebSockets."""

    def __init__(self, gates: Gates, endpoint: Endpoint) -> None:
        url = endpoint.websocket
        self._gates = gates
        self._place = f"{url.scheme}://{url.netloc}{url.path}?{url.query}"
        self._key = endpoint.api_key
        try:
            hash(self._key)
        except TypeError:  # a function that returns keys may have no hash
            self._credential: Hashable = id(self._key)
        else:
            self._credential = self._key

    def of(self, model: str | None) -> Gate | None:
        """Return the gate of a model; None where it is open to all."""
        return self._find(model)

    @property
    def upgrades(self) -> Gate | None:
        """The gate of turns that need a new WebSocket, whatever their model; None where it is open to all."""
        return self._find(_UPGRADES)

    def limited(self, model: str | None, seconds: float) -> bool:
        """The server refused a turn for its rate, and asks to wait; returns whether that holds the others too."""
        return self._limited(model, seconds)

    def upgrades_limited(self, seconds: float) -> None:
        """The server refused an upgrade for its rate, and asks to wait: that holds all that need one."""
        self._limited(_UPGRADES, seconds)

    def _find(self, what: Hashable) -> Gate | None:
        return self._gates.find((self._place, self._credential, what)) if len(self._gates) else None

    def _limited(self, what: Hashable, seconds: float) -> bool:
        if seconds > LONGEST_HOLD:
            return False
        self._gates.make((self._place, self._credential, what)).limited(seconds)
        return True
