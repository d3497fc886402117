"""The link seam: what carries attempts, whatever it speaks.

A WebSocket that stays open between turns, and HTTP with an answer for each request, have one shape. Above it only the
size limit of a frame, places, and joining a dial depend on which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import trio

from engine.connections.attempt import Attempt
from engine.protocol.aftermath import Aftermath
from engine.protocol.chain import HeldResponse, Plan
from engine.protocol.injections import Injection
from engine.protocol.steers import Steer
from engine.settings.endpoint import Endpoint
from engine.values.choices import OnCancel, Transport
from engine.wire.requests import CreateText

__all__ = ["Link"]


class Link(Protocol):
    """A way to one server."""

    @property
    def transport(self) -> Transport:
        """`Transport.WEBSOCKET` or `Transport.SSE`."""
        ...

    @property
    def number(self) -> int:
        """Counts the session's connections; 0 over HTTP."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """The server."""
        ...

    @property
    def bytes_received(self) -> int:
        """Bytes received so far."""
        ...

    @property
    def unread(self) -> int:
        """The number of events and frames so far that no turn was told of: dropped ones, and unreadable ones."""
        ...

    def warming(self, lane: str | None) -> trio.Event | None:
        """Set when a lane's warm-up is over; None while none is under way."""
        ...

    def begin_warm_up(self, lane: str | None) -> None:
        """Hold a lane's turns back until `end_warm_up`."""
        ...

    def end_warm_up(self, lane: str | None) -> None:
        """Let a lane's turns through, whatever came of the warm-up."""
        ...

    def fresh(self, lane: str | None) -> bool:
        """Whether a warm-up could help a lane: nothing was ever sent for it."""
        ...

    def prepare(self, lane: str | None, *, again: bool) -> bool:
        """Whether a lane's next request can go over it; if not, it has retired.

        Args:
            lane: The lane's name.
            again: Whether the request is the one that was refused there last, sent again.
        """
        ...

    def plan(self, lane: str | None, body: Mapping[str, Any], *, stored: HeldResponse | None = None) -> Plan:
        """Say how a lane's request would be sent. ``stored``: a response that can be named on any connection."""
        ...

    def adopt(self, lane: str | None, held: HeldResponse, *, parent: str | None) -> bool:
        """Let a lane's next request continue what the server holds for its parent; False where it holds that no more.

        Args:
            lane: The fork's name.
            held: The response that it continues.
            parent: The name of the lane whose response that is.
        """
        ...

    def write(self, lane: str | None, text: CreateText, plan: Plan, *, generate: bool | None = None) -> str:
        """Give a lane's request its form on the wire."""
        ...

    async def carry(self, attempt: Attempt) -> bool:
        """Send an attempt on its way; what comes of it, `Attempt.done` tells.

        Returns:
            Whether it is on its way; if not, no byte of it left.

        Raises nothing. Cancelling it does not stop what is on its way: `abandon` does.
        """
        ...

    async def steer(self, attempt: Attempt, steer: Steer) -> bool:
        """Add input to the response that runs; what the server says to it, the exchange tells the steer.

        Returns:
            Whether it is on its way; if not, no response runs.

        Raises nothing. Cancellation cannot interrupt it.
        """
        ...

    async def inject(self, attempt: Attempt, injection: Injection) -> bool:
        """Hand outputs to the response that runs; what the server says to it, the injection tells.

        Returns:
            Whether it is on its way; if not, no response runs.

        Raises nothing. Cancellation cannot interrupt it.
        """
        ...

    def abandon(self, attempt: Attempt, policy: OnCancel, *, wanted: bool) -> Aftermath:
        """Give an attempt up; what is still to come of its response is dropped. Returns at once.

        Args:
            attempt: The attempt.
            policy: The caller's choice.
            wanted: Whether the choice applies; see `engine.protocol.aftermath`.
        """
        ...

    def settle(self, attempt: Attempt) -> None:
        """Wait no longer for the rest of an abandoned response."""
        ...

    def avoid(self) -> None:
        """A request that failed on it is sent again, over another connection."""
        ...

    def retire(self, reason: str) -> None:
        """Take no new turns, and close once those in progress have ended. Idempotent, and returns at once."""
        ...
