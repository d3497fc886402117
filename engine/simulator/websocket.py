"""One WebSocket: a reader, a task per lane, one writer, a timer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from . import wire
from .frames import Ended, Frames, Pinged, text_frame
from .history import Cache, Held
from .lane import Job, Lane
from .quirks import Accept
from .requests import Shelf, check_stream_id, multi_agent
from .stage import Stage
from .steering import InjectError, answer_inject, answer_steer
from .streams import ServerStream, drain
from .wire import ApiError, Item
from .writer import Writer

if TYPE_CHECKING:
    from .records import ConnectionRecord
    from .world import World

__all__ = ["WebSocket"]

_CLOSE: Final = 2.0
_QUEUED_BYTES: Final = 256 * 1024 * 1024
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
        self._frames = Frames(
            world.max_message_bytes,
            record.headers.get("sec-websocket-extensions", ""),
            compress=world.options.compress,
        )
        self._writer = Writer(stream, batch=world.options.events_per_write)
        self._nursery: trio.Nursery | None = None
        self._lanes: dict[str | None, Lane] = {}
        self._slots = trio.Semaphore(world.max_active)
        self._finished: OrderedDict[str, str | None] = OrderedDict()  # response id -> lane
        self._queued_bytes = 0
        self._closing = False
        self._peer_closed = trio.Event()

    # --- life ---

    async def serve(self, accept: Accept, received: bytes) -> None:
        """Upgrade and serve; returns when the connection has ended. Cancellation drops it.

        Args:
            accept: The acceptance of the upgrade.
            received: The bytes that came behind the upgrade request.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                head = self._frames.upgrade(self.record.headers["sec-websocket-key"], accept.headers)
                if accept.close_code not in {None, 1006}:
                    # In one write with the 101, so that no client can send anything between the two.
                    head += self._close_frame(accept.close_code or 1000)
                    nursery.start_soon(self._await_goodbye)
                await self._stream.send_all(head)
                self.record.handshake_status = 101
                self.world.tell(self.record, "answer", {"status": 101, "headers": dict(accept.headers)})
                self.muted = accept.mute
                nursery.start_soon(self._write)
                nursery.start_soon(self._expire)
                if accept.close_code == 1006:
                    self.finish(1006)
                await self._read(received)
                nursery.cancel_scope.cancel(reason="the WebSocket has ended")
        finally:
            if self.record.close_code is None:
                self.record.close_code = 1006
            ended = {"code": self.record.close_code, "reason": self.record.close_reason, "by": self.record.closed_by}
            self.world.tell(self.record, "end", ended)
            for stage in self.active.values():
                stage.record.status = "lost"
        if self.record.close_code == 1009:
            await drain(self._stream, seconds=_CLOSE, limit=4 * self.world.max_message_bytes)

    def finish(self, code: int, reason: str = "") -> None:
        """End the connection after what is already on its way; 1006 drops it."""

        async def end() -> None:
            if code == 1006:
                self._drop()
            else:
                await self._say_goodbye(code, reason)

        if not self._writer.put_nowait(end):
            self._drop()

    def push(self, event: Mapping[str, Any]) -> bool:
        """Send an event that belongs to no response; False when the connection takes no more."""
        payload = wire.dumps(event)
        return self._frames.open and self.record.handshake_status == 101 and self._put_now(payload)

    def _put_now(self, payload: str) -> bool:
        self.world.tell(self.record, "out", payload)
        return self._writer.put_nowait(self._frames.message(payload))

    async def _expire(self) -> None:
        await trio.sleep(self.world.connection_lifetime)
        minutes = self.world.connection_lifetime / 60
        error = ApiError(
            400, "websocket_connection_limit_reached",
            f"This WebSocket has reached its limit of {minutes:g} minutes. Open a new one to continue.",
            omit_param=True,
        )  # fmt: skip
        await self.send_event(wire.error_event(error))
        await self.close(1000, "connection limit reached")

    # --- writing: one task, in order ---

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self._stream.deaf:
                self._end("the peer is gone")
            # The reader learns of it as well, after what the peer sent before it went.
            await trio.sleep_forever()

    def _by_server(self, code: int, reason: str = "") -> None:
        self.record.closed_by = "server"
        self.record.close_code = code
        self.record.close_reason = reason or None

    def _close_frame(self, code: int, reason: str = "") -> bytes:
        self._closing = True
        self._by_server(code, reason)
        return self._frames.close(code, reason)

    async def _say_goodbye(self, code: int, reason: str = "") -> None:
        """Close; runs in the writer's task."""
        with trio.move_on_after(_CLOSE):
            await self._stream.send_all(self._close_frame(code, reason))
        await self._await_goodbye()

    async def _await_goodbye(self) -> None:
        with trio.move_on_after(_CLOSE):
            await self._peer_closed.wait()
        self._end("closed by the simulator")

    def _drop(self, *, reset: bool = False) -> None:
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
        for shaped in self.world.quirks.shape(event):
            await self.send_json(shaped)

    async def send_json(self, value: object) -> None:
        """Send JSON, in a text frame or whatever the server uses."""
        text = wire.dumps(value)
        await self.send(text.encode() if self.world.quirks.binary else text)

    async def send(self, payload: str | bytes) -> None:
        """Send a frame, waiting while the peer is slow."""
        if not self.muted:
            self.world.tell(self.record, "out", payload)
            await self._writer.put(self._frames.message(payload))

    async def cut(self, payload: str, fraction: float) -> None:
        """Send the beginning of a text frame, then drop the connection; does not return."""
        frame = text_frame(payload)
        await self._writer.put(frame[: max(1, int(len(frame) * fraction))])
        await self.abort(reset=False)

    async def close(self, code: int, reason: str) -> None:
        """Close with a Close frame; 1006 drops the connection. Does not return."""
        if code == 1006:
            await self.abort(reset=False)
        await self._writer.put(lambda: self._say_goodbye(code, reason))
        await trio.sleep_forever()

    async def abort(self, *, reset: bool) -> None:
        """Drop the connection after what is on its way; does not return."""

        async def drop() -> None:
            self._drop(reset=reset)

        await self._writer.put(drop)
        await trio.sleep_forever()

    async def ping(self) -> None:
        """Send a protocol ping."""
        await self._writer.put(self._frames.ping())

    async def mute(self, *, frozen: bool) -> None:
        """Send no more frames; frozen, no bytes at all."""
        self.muted = True

        async def freeze() -> None:
            self._stream.frozen = True

        if frozen:
            await self._writer.put(freeze)

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

    async def _read(self, data: bytes) -> None:
        while True:
            for received in self._frames.receive(data) if data else ():
                match received:
                    case Ended():
                        await self._take_end(received)
                        return
                    case Pinged(payload):
                        self._writer.first(self._frames.pong(payload))
                    case _:
                        try:
                            await self._take(received)
                        except ApiError as error:
                            await self.send_event(wire.error_event(error))
            try:
                data = await self._stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                if self.record.closed_by is None:
                    self.record.closed_by = "client"
                return

    async def _take_end(self, end: Ended) -> None:
        """Answer the peer's Close frame, or tell it what was wrong with what it sent."""
        self._peer_closed.set()
        if self._closing:
            return  # ours is out already
        record = self.record
        record.close_code, record.close_reason = end.code, end.reason or None
        record.closed_by = "client" if end.by_peer else "server"
        self._writer.drop()
        self._writer.first(self._frames.close(end.code, end.reason))
        with trio.move_on_after(_CLOSE):
            await self._writer.drained()

    async def _take(self, message: str | bytes) -> None:
        self.world.tell(self.record, "in", message)
        if isinstance(message, bytes):
            raise ApiError(400, "invalid_message", "Events are sent as text frames.")
        size = len(message) if message.isascii() else len(message.encode("utf-8", "surrogatepass"))
        if size > self.world.max_message_bytes:
            self.finish(1009, "message too big")
            return
        event = wire.loads(message)
        if event is wire.NOT_JSON:
            raise ApiError(400, "invalid_json", "The message is not valid JSON.")
        if not isinstance(event, dict):
            raise ApiError(400, "invalid_json", "An event is a JSON object.")
        match event.get("type"):
            case "response.create":
                await self._take_create(event, size)
            case "response.steer":
                await self._take_steer(event)
            case "response.inject" if self._multi_agent:
                await self._take_inject(event)
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
            if "stream_id" in body and self.world.quirks.lanes == "ignored":
                body = {member: value for member, value in body.items() if member != "stream_id"}
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

    @property
    def _multi_agent(self) -> bool:
        return multi_agent(self.record.headers)

    async def _take_steer(self, event: dict[str, Any]) -> None:
        self.record.steers.append(event)
        target = event.get("previous_response_id")
        name = target if isinstance(target, str) else ""
        stage = self.active.get(name)
        answer = answer_steer(event, stage, ended=name in self._finished)
        lane = self._finished.get(name) if stage is None else stage.asked.stream_id
        if lane is not None:
            answer["stream_id"] = lane
        await self.send_event(answer)

    async def _take_inject(self, event: dict[str, Any]) -> None:
        self.record.injects.append(event)
        target = event.get("response_id")
        name = target if isinstance(target, str) else ""
        stage = self.active.get(name)
        try:
            answer = answer_inject(event, stage, ended=name in self._finished)
        except InjectError as error:
            # A breach of the schema ends the connection, unlike a breach of the rules.
            await self.send_event(wire.error_event(ApiError(400, "invalid_value", str(error), error.param)))
            self.finish(1008, "invalid event")
            return
        lane = self._finished.get(name) if stage is None else stage.asked.stream_id
        if lane is not None:
            answer["stream_id"] = lane
        await self.send_event(answer)

    # --- what lanes ask of their connection ---

    def shelf(self) -> Shelf:
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
