"""The stream trio-websocket runs over: it never blocks a writer, and it sees what passes.

Writes go to an outbox that one pump task empties, so no cancelled writer can tear a frame, and the library's own
Pongs never hold its reader up behind a slow peer. Reads are watched until the upgrade is done, because a refusal must
be reported even where the library would wait for more bytes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

import h11
import trio
from attrs import evolve

from engine.protocol.failures import Broken, Failure, Lost, Refused, Unreachable
from engine.transport.dial import refused_by_tls

__all__ = ["Tap"]

_MAX_HEAD: Final = 16 * 1024
_MAX_BODY: Final = 16 * 1024
_BODY_GRACE: Final = 0.2
_LAST_WORDS_GRACE: Final = 0.2
_PUMP_CHUNK: Final = 256 * 1024
_RECEIVE_BYTES: Final = 65536
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")  # RFC 9112 section 2.2 admits a bare line feed
_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8  # the first of the control opcodes, RFC 6455 section 5.2


class Tap(trio.abc.Stream):
    """A `trio.abc.Stream` between trio-websocket and the real stream.

    Attributes:
        bytes_received: Bytes received so far.
        bytes_queued: Bytes ever put in the outbox.
        bytes_passed: Of those, how many the real stream has taken.
        last_receive: When bytes last arrived, on Trio's clock.
        ended: Whether the peer closed its side, or reading broke.
        torn: Whether a write to the real stream did not finish: nothing sensible can follow it.
        close_sent: Whether trio-websocket has put a Close frame in the outbox.
        closed_by_library: Whether trio-websocket has closed this stream.
        refusal: What is known so far of an answer that refuses the upgrade.
        emptied: Whether trio-websocket waits for bytes, having handed on every message in those it got.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        max_outbox_bytes: int,
        fail: Callable[[Failure], None],
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream = stream
        self._fail = fail
        self._on_empty = on_empty
        self._max_outbox_bytes = max_outbox_bytes
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = trio.lowlevel.ParkingLot()
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        self._head = bytearray()
        self._accepted = False
        self._upgraded = False
        self._sending = False
        self.bytes_received: int = 0
        self.bytes_queued: int = 0
        self.bytes_passed: int = 0
        self.last_receive: float = trio.current_time()
        self.ended: bool = False
        self.torn: bool = False
        self.close_sent: bool = False
        self.closed_by_library: bool = False
        self.refusal: Refused | None = None
        self.emptied: bool = True

    def __repr__(self) -> str:
        # trio-websocket shows the repr of its stream as the connection's address
        return "<Tap>"

    # --- writing ---

    @property
    def outbox_bytes(self) -> int:
        """Bytes waiting for the pump."""
        return self.bytes_queued - self.bytes_passed

    @property
    def clean(self) -> bool:
        """Whether a Close frame can still be sent: everything is out, and both directions work."""
        return not (self.outbox_bytes or self._sending or self.torn or self.ended)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` in the outbox. Has a checkpoint before that and none after: it happens whole or not at all."""
        await trio.lowlevel.checkpoint_if_cancelled()
        control = self._accepted and data[0] & _OPCODE >= _CLOSE
        if self.torn and control:
            return  # an error would keep trio-websocket from reading what the peer said before it left
        if self.closed_by_library or self.torn:
            raise trio.ClosedResourceError
        # One frame over the limit may go out alone: on a new connection it would be over the limit just the same.
        if self.outbox_bytes and self.outbox_bytes + len(data) > self._max_outbox_bytes:
            self._fail(Lost("the peer does not read: the outbox is full"))
            raise trio.BrokenResourceError
        if control and data[0] & _OPCODE == _CLOSE:
            self.close_sent = True
        self.bytes_queued += len(data)
        self._outbox.append(bytes(data))
        self._outbox_filled.unpark()

    def retract(self) -> None:
        """Take back what was queued last. Only before the next checkpoint: the pump must not have seen it."""
        self.bytes_queued -= len(self._outbox.pop())

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: putting something in the outbox never blocks."""
        await trio.lowlevel.checkpoint()

    def when_passed(self, mark: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the real stream has taken everything up to ``mark``. Marks must not decrease."""
        if self.bytes_passed >= mark:
            callback()
        else:
            self._marks.append((mark, callback))

    async def pump(self) -> None:
        """Move the outbox to the real stream until cancelled: the only place that writes to it."""
        try:
            while True:
                while not self._outbox:
                    await self._outbox_filled.park()
                data = self._outbox.popleft()
                self._sending = True
                view = memoryview(data)
                for start in range(0, len(data), _PUMP_CHUNK):
                    chunk = view[start : start + _PUMP_CHUNK]
                    await self._stream.send_all(chunk)
                    self.bytes_passed += len(chunk)
                self._sending = False
                while self._marks and self._marks[0][0] <= self.bytes_passed:
                    self._marks.popleft()[1]()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.torn = True
            # A peer that turns away, say from a request too large for it, may have told why: that is still to be read.
            await trio.sleep(_LAST_WORDS_GRACE)
            if self._accepted:
                self._fail(Lost("the connection broke while sending", cause=error))
            else:
                self._fail(Unreachable("upgrade", "the connection broke before the upgrade was answered", error))
        finally:
            self.torn = self.torn or self._sending

    async def drained(self) -> None:
        """Wait until the outbox is empty. The caller bounds the wait."""
        if self.outbox_bytes:
            done = trio.Event()
            self.when_passed(self.bytes_queued, done.set)
            await done.wait()

    # --- reading ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive from the real stream; before the upgrade, hold back what is not an acceptance of it."""
        if self.closed_by_library:
            raise trio.ClosedResourceError
        self.emptied = True
        self._on_empty()
        data = await self._receive(max_bytes)
        self.emptied = False
        return data if self._accepted else await self._acceptance(data)

    async def _receive(self, max_bytes: int | None) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.ended = True
            if not self._accepted:
                broken = Unreachable("upgrade", "the connection broke before the upgrade was answered", error)
                self._fail(refused_by_tls(error) or broken)
            raise
        except Exception as error:
            self._fail(Broken(error))  # the stream itself is at fault, which must not be told of the peer
            raise
        self.last_receive = trio.current_time()
        self.bytes_received += len(data)
        if not data:
            self.ended = True
        return bytes(data)

    def upgraded(self) -> None:
        """Note that trio-websocket is content with the answer it got."""
        self._upgraded = True

    # What follows runs in trio-websocket's reader, which may be cancelled by now: there a KeyboardInterrupt would be
    # replaced by a Cancelled, and nobody would ever learn of it.

    @trio.lowlevel.enable_ki_protection
    async def _acceptance(self, data: bytes) -> bytes:
        """Return the whole head of an acceptance and what came behind it; report anything else, and never return.

        trio-websocket would wait for ever after an end of the stream in the middle, or for the rest of a body.
        """
        head = self._head
        while data:
            searched = max(0, len(head) - 3)
            head += data
            while b"HTTP/".startswith(head[:5]) and (end := _HEAD_END.search(head, searched)) is not None:
                if head[8:12] == b" 101":
                    self._accepted = True
                    return bytes(head)
                if head[8:10] != b" 1":
                    await self._refusal(bytes(head))
                    return await self._nothing_more()
                del head[: end.end()]  # an interim answer: the real one follows
                searched = 0
            if not b"HTTP/".startswith(head[:5]):
                self._fail(Unreachable("upgrade", "the server's answer is not HTTP"))
                return await self._nothing_more()
            if len(head) > _MAX_HEAD:
                self._fail(Unreachable("upgrade", "the server's answer has an endless head"))
                return await self._nothing_more()
            data = await self._receive(_RECEIVE_BYTES)
        self._fail(Unreachable("upgrade", "the server closed the connection before it answered the upgrade"))
        return await self._nothing_more()

    @trio.lowlevel.enable_ki_protection
    async def _refusal(self, received: bytes) -> None:
        """Parse the refusal with h11, giving its body a moment to arrive."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", "unused")]))
        parser.send(h11.EndOfMessage())
        try:
            parser.receive_data(received)
            with trio.move_on_after(_BODY_GRACE):
                while self.refusal is None or len(self.refusal.body) < _MAX_BODY:
                    event = parser.next_event()
                    if event is h11.NEED_DATA:
                        parser.receive_data(bytes(await self._stream.receive_some(_MAX_BODY)))
                    elif isinstance(event, h11.Response):
                        headers = ((k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers)
                        self.refusal = Refused(event.status_code, tuple(headers))
                    elif isinstance(event, h11.Data):
                        assert self.refusal is not None
                        body = self.refusal.body + event.data
                        self.refusal = evolve(self.refusal, body=bytes(body[:_MAX_BODY]))
                    else:
                        break
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what was understood so far is the answer
        self._fail(self.refusal or Unreachable("upgrade", "the server's answer is not HTTP"))

    @trio.lowlevel.enable_ki_protection
    async def _nothing_more(self) -> bytes:
        """Hold trio-websocket's reader until its nursery is cancelled, which the reported failure brings about."""
        await trio.sleep_forever()
        raise AssertionError

    # --- closing ---

    def forget(self) -> None:
        """Tell nobody anything more: the real stream is closed."""
        self._fail = lambda failure: None
        self._on_empty = lambda: None
        self._marks.clear()

    async def aclose(self) -> None:
        """Note that trio-websocket is done; the real stream's owner closes it."""
        self.closed_by_library = True
        if not self._upgraded:
            self._fail(Unreachable("upgrade", "the server's answer to the upgrade is not valid"))
        await trio.lowlevel.checkpoint()
