"""The socket seam: what a link needs of one live WebSocket, and how the socket tells its owner.

Nothing above it knows which library speaks RFC 6455, or what the frames run over. `engine.transport.websocket` is the
socket of today; another one needs a factory of the same shape, given as ``make_socket`` to the session's core, and the
tests have one that runs in memory. It dials with the endpoint's key and headers itself, counts every byte that comes
(Pongs too: the clock judges life by them), hands on no text before it has told that it is open and all that came before
it tells that it failed, and names a failure as `engine.protocol.failures` does, since `recovery` reads that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from attrs import define, field, frozen

from engine.protocol.failures import Failure, Unreachable
from engine.settings.endpoint import Endpoint
from engine.transport.dial import Dialer

__all__ = ["Bounds", "Callbacks", "Socket", "SocketFactory", "Traffic"]


@frozen
class Bounds:
    """The bounds of one socket: seconds for connecting and closing, bytes for one message and for the outbox."""

    connect: float
    close: float
    max_message_bytes: int
    max_outbox_bytes: int


@define
class Traffic:
    """The traffic of a socket so far. One record for its whole life, kept up to date by the socket.

    Attributes:
        bytes_received: Bytes received.
        bytes_queued: Bytes ever put in the outbox.
        bytes_sent: Of those, how many have been passed on.
    """

    bytes_received: int = 0
    bytes_queued: int = 0
    bytes_sent: int = 0

    @property
    def outbox_bytes(self) -> int:
        """Bytes that wait to be passed on."""
        return self.bytes_queued - self.bytes_sent


def _nothing() -> None:
    pass


@frozen
class Callbacks:
    """The callbacks by which a socket tells its owner; all plain functions, called from the socket's tasks.

    Attributes:
        on_opened: The upgrade is done.
        on_texts: Text messages came in; as many as are there, up to a bound, because taking them one after the other
            is far quicker than going back to the event loop after each. One of them may bring about the socket's end:
            look at `Socket.over` before the next.
        on_failed: The socket is of no further use, and why. Called at most once, and not after `Socket.close`.
        on_due: Called while the socket is open, first at once: does what is due by the time it is given, and says by
            what time it wants to be called again.
    """

    on_opened: Callable[[], None] = field()
    on_texts: Callable[[Sequence[str]], None] = field()
    on_failed: Callable[[Failure], None] = field()
    on_due: Callable[[float], float] = field(default=lambda now: math.inf)


class Socket(Protocol):
    """One WebSocket, from dialling to its closed file descriptor. `run` is its whole life."""

    @property
    def traffic(self) -> Traffic:
        """The socket's traffic; there from the beginning, zeros before it is connected."""
        ...

    @property
    def handshake_headers(self) -> tuple[tuple[str, str], ...]:
        """The fields of the answer that accepted the upgrade, with lower-case names; empty before it."""
        ...

    @property
    def usable(self) -> bool:
        """Whether a frame sent now could arrive: open, not closing, both directions unbroken as far as known."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has failed, or is to be closed: nothing that it brings counts any more."""
        ...

    def too_slow(self, seconds: float) -> Unreachable:
        """Say what is taking too long: the step that connecting has come to."""
        ...

    async def run(self) -> None:
        """Dial, upgrade, receive until closed or failed, then close. Never raises for what the peer does.

        Cancelling it ends the dial. An open socket is shielded, so that goodbyes can be said: the canceller calls
        `close` as well, from which on `Bounds.close` counts. Nothing stays open in any case.
        """
        ...

    async def send(
        self, text: str, *, on_reached: Callable[[], None] = _nothing, on_passed: Callable[[], None] = _nothing
    ) -> bool:
        """Queue one text message; False if the socket is gone, and then no byte of it leaves.

        Args:
            text: The message.
            on_reached: Called when everything queued before it has left, and its own first byte is about to.
            on_passed: Called when its last byte was passed on.

        Cancellation cannot interrupt it, so that a frame is queued whole or not at all. It waits for no peer.
        """
        ...

    def ping(self, timeout: float) -> None:
        """Ping the peer, and wait up to ``timeout`` seconds for the pong, in a task of the socket's own."""
        ...

    def wake_by(self, deadline: float) -> None:
        """Have `Callbacks.on_due` called at that time, unless it is called before."""
        ...

    def close(self) -> None:
        """Begin the closing handshake, or abort where there is no peer to shake hands with. Idempotent."""
        ...

    def fail(self, failure: Failure) -> None:
        """Give the socket up: tell the owner why, then abort."""
        ...


SocketFactory: TypeAlias = Callable[[Endpoint, Dialer, Bounds, Callbacks], Socket]
