"""The outlet of a response's events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .wire import ApiError

__all__ = ["Outlet"]


class Outlet(Protocol):
    """The outlet of a response's events: a lane of a WebSocket, or the body of an HTTP answer.

    Methods that end the connection do not return: they wait to be cancelled with it.
    """

    @property
    def silent(self) -> bool:
        """Whether events go nowhere."""

    async def event(self, event: dict[str, Any]) -> None:
        """Send one event."""

    async def reject(self, error: ApiError) -> None:
        """Refuse the request; nothing of the response has been sent."""

    async def frame(self, payload: str | bytes) -> None:
        """Send a payload that need not be an event."""

    async def cut(self, payload: str, fraction: float) -> None:
        """Send the beginning of a frame, then end the connection."""

    async def close(self, code: int, reason: str) -> None:
        """End the connection with a Close frame where there is one."""

    async def abort(self, *, reset: bool) -> None:
        """End the connection without a word."""

    async def ping(self) -> None:
        """Send a protocol ping where there is one."""

    async def comment(self, text: str) -> None:
        """Send a comment where there are comments."""

    async def mute(self, *, frozen: bool) -> None:
        """Send no more events; frozen, not even a protocol answer."""

    def deafen(self) -> None:
        """Read no more."""

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` after a while, whatever the lane does meanwhile."""
