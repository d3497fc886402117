"""The stream trio-websocket runs over: it never blocks a writer, and it takes the messages out of what passes.

Writes go to an `Outbox` that one task empties, so the library's own Pongs never hold its reader up behind a slow peer.
Reads are watched until the upgrade is done, because a refusal must be reported even where the library would wait for
more bytes. After it the text messages are cut out, and the library gets what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from engine.protocol.failures import Broken, Failure, Lost, Unreachable, UpgradeRefused
from engine.transport.dial import network_problem, refused_by_tls
from engine.transport.inlet import Inlet
from engine.transport.outbox import Outbox
from engine.transport.socket import Traffic
from engine.transport.upgrade import AnswerHead, RefusalReader, objection

__all__ = ["Tap"]

_LAST_WORDS_GRACE: Final = 0.2
_RECEIVE_BYTES: Final = 65536
_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8  # the first of the control opcodes, RFC 6455 section 5.2


def _nothing() -> None:
    pass


def _unanswered(error: Exception) -> Unreachable:
    problem = f"the connection broke before the upgrade was answered{network_problem(error)}"
    return Unreachable("upgrade", problem, error)


class Tap(trio.abc.Stream):
    """A `trio.abc.Stream` between trio-websocket and the real stream.

    Attributes:
        outbox: The bytes that wait to be written.
        traffic: The counts of what has passed so far.
        ended: Whether the peer closed its side, or reading broke.
        close_sent: Whether trio-websocket has put a Close frame in the outbox.
        has_rest: Whether trio-websocket has something to say of its own: messages that were left to it, or the end.
        closed_by_library: Whether trio-websocket has closed this stream.

    Args:
        stream: The real one.
        max_outbox_bytes: The most bytes that may wait to be written.
        fail: Told of what makes the connection useless.
        on_rest: Called when `has_rest` is true, perhaps again and again.
        inlet: Takes the messages out of what comes behind the upgrade.
        traffic: The counts that are kept up to date.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        max_outbox_bytes: int,
        fail: Callable[[Failure], None],
        on_rest: Callable[[], None],
        inlet: Inlet,
        traffic: Traffic,
    ) -> None:
        self._stream = stream
        self._fail = fail
        self._on_rest = on_rest
        self._inlet = inlet
        self._answer = AnswerHead()
        self._request = b""
        self._upgraded = False
        self.traffic: Traffic = traffic
        self.outbox: Outbox = Outbox(stream, self.traffic, max_bytes=max_outbox_bytes)
        self.ended: bool = False
        self.close_sent: bool = False
        self.has_rest: bool = False
        self.closed_by_library: bool = False
        self._refusal: RefusalReader | None = None

    def __repr__(self) -> str:
        # trio-websocket shows the repr of its stream as the connection's address
        return "<Tap>"

    # --- writing ---

    @property
    def torn(self) -> bool:
        """Whether a write to the real stream did not finish."""
        return self.outbox.torn

    @property
    def clean(self) -> bool:
        """Whether a Close frame can still be sent: everything is out, and both directions work."""
        return self.outbox.idle and not self.ended

    @property
    def _accepted(self) -> bool:
        return self._answer.accepted is not None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` in the outbox. Has a checkpoint before that and none after: it happens whole or not at all."""
        await trio.lowlevel.checkpoint_if_cancelled()
        control = self._accepted and data[0] & _OPCODE >= _CLOSE
        if self.torn and control:
            return  # an error would keep trio-websocket from reading what the peer said before it left
        if self.closed_by_library or self.torn:
            self._leave_rest()
            raise trio.ClosedResourceError
        if self.outbox.full:
            self._fail(Lost("the peer does not read: the outbox is full"))
            raise trio.BrokenResourceError
        if control and data[0] & _OPCODE == _CLOSE:
            self.close_sent = True
        self._request = self._request or bytes(data)
        self.outbox.put(bytes(data))
        if self.close_sent:
            self.outbox.end()  # nothing follows a Close frame, RFC 6455 section 5.5.1

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: putting something in the outbox never blocks."""
        await trio.lowlevel.checkpoint()

    async def pump(self) -> None:
        """Empty the outbox until cancelled."""
        try:
            await self.outbox.pump()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # A peer that turns away, say from a request too large for it, may have told why: that is still to be read.
            await trio.sleep(_LAST_WORDS_GRACE)
            if self._accepted:
                self._fail(Lost(f"the connection broke while sending{network_problem(error)}", cause=error))
            else:
                self._fail(_unanswered(error))

    # --- reading ---

    # All of this runs in trio-websocket's reader, which may be cancelled by what it brings about: there a
    # KeyboardInterrupt would be replaced by a Cancelled, and would be lost.

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what trio-websocket is to see: the answer to the upgrade if it accepts, and no text messages."""
        if self.closed_by_library:
            raise trio.ClosedResourceError
        answer = self._answer
        if answer.accepted is None:
            return await self._acceptance()
        # trio-websocket asks for more, so the acceptance is to its taste, and what came behind it may count.
        data, answer.behind = answer.behind, b""
        while True:
            data = data or await self._receive(max_bytes)
            if not data:
                return data
            passed = await self._inlet.feed(data, dropping=self.close_sent)
            if passed:
                if self._inlet.ended:
                    self._leave_rest()
                return passed
            data = b""

    @trio.lowlevel.enable_ki_protection
    async def _receive(self, max_bytes: int | None) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.ended = True
            self._leave_rest()
            if not self._accepted:
                self._fail(refused_by_tls(error) or _unanswered(error))
            raise
        except Exception as error:
            self._fail(Broken(error))  # the stream itself is at fault, which must not be told of the peer
            raise
        self.traffic.bytes_received += len(data)
        if not data:
            self.ended = True
            self._leave_rest()
        return bytes(data)

    def _leave_rest(self) -> None:
        self.has_rest = True
        self._on_rest()

    @property
    def refusal(self) -> UpgradeRefused | None:
        """The part that has come so far of an answer that refuses the upgrade."""
        return self._refusal.refused if self._refusal is not None else None

    @property
    def objection(self) -> Unreachable:
        """The reason why trio-websocket is not content with the answer it got."""
        problem = objection(self._request, self._answer.accepted or b"")
        return Unreachable("upgrade", f"the server's answer to the upgrade {problem}")

    def upgraded(self) -> None:
        """Note that trio-websocket is content with the answer it got."""
        self._upgraded = True
        self._request = b""  # the key is in it

    @trio.lowlevel.enable_ki_protection
    async def _acceptance(self) -> bytes:
        """Return the head of an acceptance; report anything else, and raise."""
        answer = self._answer
        while not answer.decided:
            data = await self._receive(_RECEIVE_BYTES)
            if not data:
                break
            answer.feed(data)
        if answer.accepted is not None:
            return answer.accepted
        if answer.refused is not None:
            self._refusal = RefusalReader(answer.refused)
            await self._refusal.read(self._stream)
            self._fail(self.refusal or Unreachable("upgrade", "the server's answer is not HTTP"))
        else:
            problem = f"the server's answer {answer.nonsense}"
            if answer.nonsense is None:
                problem = "the server closed the connection before it answered the upgrade"
            self._fail(Unreachable("upgrade", problem))
        await trio.lowlevel.checkpoint()  # the failure has brought about a cancellation, unless all is over anyway
        raise trio.ClosedResourceError

    # --- closing ---

    def forget(self) -> None:
        """Tell nothing more: the real stream is closed."""
        self._fail = lambda failure: None
        self._on_rest = _nothing
        self.outbox.forget()

    async def aclose(self) -> None:
        """Note that trio-websocket is done; the real stream's owner closes it."""
        self.closed_by_library = True
        if not self._upgraded:
            self._fail(self.objection)
        await trio.lowlevel.checkpoint_if_cancelled()
