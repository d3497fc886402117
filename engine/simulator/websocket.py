"""One WebSocket: a reader, a task per lane, one writer, a timer."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio
import trio_websocket

from . import wire
from .commands import Abort, Close, Command, Cut, Frame, Freeze, Ping, text_frame
from .history import Cache, Held
from .lane import Job, Lane
from .quirks import Accept
from .requests import Shelf, check_stream_id
from .stage import Stage
from .steering import Pending, SteerError, steer_items
from .streams import ServerStream, drain
from .wire import ApiError, Item

if TYPE_CHECKING:
    from .records import ConnectionRecord
    from .world import World

__all__ = ["WebSocket"]

_HANDSHAKE: Final = 10.0
_CLOSE: Final = 2.0
_OUTBOX: Final = 64
_QUEUED_BYTES: Final = 256 * 1024 * 1024
_PENDING_STEERS: Final = 32
_REMEMBERED: Final = 1024


class WebSocket:
    """Serves one upgraded connection until either side ends it."""

    def __init__(self, world: World, stream: ServerStream, record: ConnectionRecord) -> None:
        self.world = world
        self.record = record
        self.cache: Cache = Cache()
        self.active: dict[str, Stage] = {}
        self.muted: bool = False
        self._stream = stream
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._nursery: trio.Nursery | None = None
        self._outbox, self._outgoing = trio.open_memory_channel[Command](_OUTBOX)
        self._lanes: dict[str | None, Lane] = {}
        self._slots = trio.Semaphore(world.max_active)
        self._finished: OrderedDict[str, str | None] = OrderedDict()  # response id -> lane
        self._queued_bytes = 0
        self._closing = False

    # --- life ---

    async def serve(self, accept: Accept) -> None:
        """Upgrade and serve; returns when the connection has ended. Cancellation drops it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                with trio.fail_after(_HANDSHAKE):
                    proposal = await trio_websocket.wrap_server_stream(
                        nursery,
                        self._stream,
                        message_queue_size=16,
                        max_message_size=self.world.max_message_bytes,
                        receive_buffer_size=65536,
                    )
                    headers = [(name.encode(), value.encode()) for name, value in accept.headers.items()]
                    self._socket = await proposal.accept(extra_headers=headers)
                self._stream.release()
                self.record.handshake_status = 101
                self.world.tell(self.record, "answer", {"status": 101, "headers": dict(accept.headers)})
                self.muted = accept.mute
                nursery.start_soon(self._write)
                nursery.start_soon(self._expire)
                if accept.close_code is not None:
                    self.finish(accept.close_code)
                await self._read()
                nursery.cancel_scope.cancel(reason="the WebSocket has ended")
        finally:
            self._note_close()
            ended = {"code": self.record.close_code, "reason": self.record.close_reason, "by": self.record.closed_by}
            self.world.tell(self.record, "end", ended)
            for stage in self.active.values():
                stage.record.status = "lost"
        if self.record.close_code == 1009:
            await drain(self._stream, seconds=_CLOSE, limit=4 * self.world.max_message_bytes)

    def _note_close(self) -> None:
        if self.record.close_code is None:
            reason = None if self._socket is None else self._socket.closed
            self.record.close_code = 1006 if reason is None else int(reason.code)
            self.record.close_reason = None if reason is None else reason.reason

    def finish(self, code: int, reason: str = "") -> None:
        """End the connection after what is already on its way; 1006 drops it."""
        command = Abort(reset=False) if code == 1006 else Close(code, reason)
        try:
            self._outbox.send_nowait(command)
        except trio.WouldBlock:
            self._abort(reset=False)
        except trio.BrokenResourceError:
            pass

    def push(self, event: Mapping[str, Any]) -> bool:
        """Send an event that belongs to no response; False when the connection takes no more."""
        try:
            self._outbox.send_nowait(Frame(wire.dumps(event)))
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    async def _expire(self) -> None:
        await trio.sleep(self.world.connection_lifetime)
        minutes = self.world.connection_lifetime / 60
        error = ApiError(
            400, "websocket_connection_limit_reached",
            f"This WebSocket has reached its limit of {minutes:g} minutes. Open a new one to continue.",
            omit_param=True,
        )  # fmt: skip
        await self.send_event(wire.error_event(error))
        await self._outbox.send(Close(1000, "connection limit reached"))

    # --- writing: one task, in the order of the outbox ---

    async def _write(self) -> None:
        assert self._socket is not None
        with self._outgoing:
            async for command in self._outgoing:
                match command:
                    case Frame(payload):
                        self.world.tell(self.record, "out", payload)
                        try:
                            await self._socket.send_message(payload)
                        except trio_websocket.ConnectionClosed:
                            # The reader learns of it as well and ends the connection.
                            await trio.sleep_forever()
                    case Ping():
                        self._spawn(self._ping)
                    case Freeze():
                        self._stream.frozen = True
                    case Cut(payload, fraction):
                        frame = text_frame(payload)
                        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                            await self._stream.send_all(frame[: max(1, int(len(frame) * fraction))])
                        self._abort(reset=False)
                    case Abort(reset):
                        self._abort(reset=reset)
                    case Close(code, reason):
                        self._closing = True
                        self._by_server(code, reason)
                        with trio.move_on_after(_CLOSE):
                            await self._socket.aclose(code, reason or None)
                        self._end("closed by the simulator")

    async def _ping(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await self._socket.ping()

    def _by_server(self, code: int, reason: str = "") -> None:
        self.record.closed_by = "server"
        self.record.close_code = code
        self.record.close_reason = reason or None

    def _abort(self, *, reset: bool) -> None:
        self._by_server(1006)
        if reset:
            self._stream.prepare_reset()
        self._end("dropped by the simulator")

    def _end(self, reason: str) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel(reason=reason)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(work)

    async def send_event(self, event: dict[str, Any]) -> None:
        """Send one event that belongs to no lane."""
        if not self.muted:
            for shaped in self.world.quirks.shape(event):
                await self._outbox.send(Frame(self.encode(shaped)))

    def encode(self, value: object) -> str | bytes:
        """Return a frame's payload: JSON text, or its bytes where the server sends binary frames."""
        text = wire.dumps(value)
        return text.encode() if self.world.quirks.binary else text

    async def send(self, command: Command) -> None:
        """Queue a command for the writer, waiting while the peer is slow."""
        if not (self.muted and isinstance(command, Frame)):
            await self._outbox.send(command)

    async def mute(self, *, frozen: bool) -> None:
        """Send no more frames; frozen, no bytes at all."""
        self.muted = True
        if frozen:
            await self._outbox.send(Freeze())

    def deafen(self) -> None:
        """Read no more."""
        self._stream.deaf = True

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` after a while."""

        async def wait_and_work() -> None:
            await trio.sleep(seconds)
            await work()

        self._spawn(wait_and_work)

    # --- reading ---

    async def _read(self) -> None:
        assert self._socket is not None
        while True:
            try:
                message = await self._socket.get_message()
            except trio_websocket.ConnectionClosed:
                if self._closing:
                    await trio.sleep_forever()  # the writer is waiting for the peer's Close frame
                if self.record.closed_by is None:
                    reason = self._socket.closed
                    self.record.closed_by = "server" if reason is not None and reason.code == 1009 else "client"
                return
            self.world.tell(self.record, "in", message)
            try:
                await self._take(message)
            except ApiError as error:
                await self.send_event(wire.error_event(error))

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            raise ApiError(400, "invalid_message", "Events are sent as text frames.")
        size = len(message) if message.isascii() else len(message.encode("utf-8", "surrogatepass"))
        if size > self.world.max_message_bytes:
            self.finish(1009, "message too big")
            return
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):
            raise ApiError(400, "invalid_json", "The message is not valid JSON.") from None
        if not isinstance(event, dict):
            raise ApiError(400, "invalid_json", "An event is a JSON object.")
        match event.get("type"):
            case "response.create":
                await self._take_create(event, size)
            case "response.steer":
                await self._take_steer(event)
            case None:
                raise ApiError(400, "missing_required_parameter", "'type' is required.", "type")
            case kind:
                shown = kind[:64] if isinstance(kind, str) else type(kind).__name__
                raise ApiError(400, "unknown_event_type", f"There is no client event {shown!r}.", "type")

    async def _take_create(self, body: dict[str, Any], size: int) -> None:
        record = self.world.note_request(self.record, "websocket", body, size)
        name: str | None = None
        try:
            if self._closing:
                return
            if "stream_id" in body:
                if not self.world.quirks.lanes:
                    raise ApiError(400, "unknown_parameter", "There is no parameter 'stream_id'.", "stream_id")
                name = check_stream_id(body["stream_id"])
                record.stream_id = name
            quirk = self.world.quirks.single_flight
            if quirk is not None and any(lane.busy for lane in self._lanes.values()):
                raise ApiError(409, quirk, "A response is already in progress on this connection.")
            lane = self._lane(name)
            if self._queued_bytes + size > _QUEUED_BYTES:
                raise ApiError(429, "rate_limit_exceeded", "Too much is queued on this connection.")
            try:
                lane.inbox.send_nowait(Job(body, record, size))
            except trio.WouldBlock:
                raise ApiError(
                    429, "rate_limit_exceeded", "Too many requests are queued on this lane.", type="rate_limit_error"
                ) from None
            self._queued_bytes += size
            lane.waiting += 1
        except ApiError as error:
            record.status, record.error_code = "rejected", error.code
            event = wire.error_event(error)
            if name is not None:
                event["stream_id"] = name
            await self.send_event(event)

    def _lane(self, name: str | None) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if name is not None and len(self.record.lanes) >= self.world.max_lanes:
                raise ApiError(
                    400, "websocket_stream_limit_reached",
                    f"A connection has at most {self.world.max_lanes} named streams.", "stream_id",
                )  # fmt: skip
            if name is not None:
                self.record.lanes.append(name)
            lane = self._lanes[name] = Lane(self, name)
            self._spawn(lane.run)
        return lane

    # --- steering ---

    async def _take_steer(self, event: dict[str, Any]) -> None:
        self.record.steers.append(event)
        target = event.get("previous_response_id")
        stage = self.active.get(target) if isinstance(target, str) else None
        try:
            items = steer_items(event)
            if stage is None:
                if isinstance(target, str) and target in self._finished:
                    raise SteerError("response_already_completed", "The response has already ended.")
                raise SteerError("response_not_found", "There is no such response on this connection.")
            if not stage.asked.model.startswith(self.world.quirks.steerable) or stage.asked.body.get("conversation"):
                raise SteerError("steering_not_supported", "This response cannot be steered.")
            if len(stage.steers) >= _PENDING_STEERS:
                raise SteerError("too_many_pending_steers", "Too much steering input is waiting.")
        except SteerError as error:
            steer = {"previous_response_id": target if isinstance(target, str) else "", "input": event.get("input")}
            answer: dict[str, Any] = {
                "type": "response.steer.failed",
                "sequence_number": 0 if stage is None else stage.number(),
                "steer": steer,
                "error": {"type": "invalid_request_error", "code": error.code, "message": error.message},
            }
            lane = self._finished.get(target) if isinstance(target, str) else None
            lane = lane if stage is None else stage.asked.stream_id
        else:
            assert stage is not None
            pending = Pending(self.world.ids.new("steer"), items, event["input"])
            stage.steers.append(pending)
            answer = {
                "type": "response.steer.accepted",
                "sequence_number": stage.number(),
                "steer": {"id": pending.steer_id, "previous_response_id": stage.response_id},
            }
            lane = stage.asked.stream_id
        if lane is not None:
            answer["stream_id"] = lane
        await self.send_event(answer)

    # --- what lanes ask of their connection ---

    def shelf(self, lane: str | None) -> Shelf:
        """Return what a request on this connection may refer to."""
        library = self.world.library

        def response(response_id: str) -> Held | None:
            return self.cache.find(response_id) or library.stored(response_id)

        def item(item_id: str) -> Item | None:
            for source in (self.cache.items(), library.items()):
                for candidate in source:
                    if candidate.get("id") == item_id:
                        return candidate
            return None

        return Shelf(response, item, self.world.conversations.get)

    def keep(self, lane: str | None, stage: Stage, held: Held | None) -> None:
        """Remember a finished response, or after a failure forget its parent."""
        self._finished[stage.response_id] = lane
        while len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)
        if held is None:
            self.evict(lane, stage.asked.body)
            return
        if self.world.quirks.only_newest:
            self.cache = Cache()
        self.cache.keep(lane, held)
        self.world.remember(stage, held)

    def evict(self, lane: str | None, body: Mapping[str, Any]) -> None:
        """Forget the parent of a continuation that failed on the parent's own lane."""
        parent = body.get("previous_response_id")
        if isinstance(parent, str) and self.world.quirks.evict:
            self.cache.evict(lane, parent)

    def taken(self, size: int) -> None:
        """Count a request as no longer queued."""
        self._queued_bytes -= size

    @property
    def slots(self) -> trio.Semaphore:
        """The places for running responses."""
        return self._slots
