"""The HTTP side: POST …/responses with a stream or a plain answer, and its small siblings."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

from . import wire
from .background import Background, retell
from .event_stream import EventWriter
from .history import Held
from .http_answer import HttpAnswer
from .quirks import Accept
from .records import ConnectionRecord, is_control
from .refusals import turned_away
from .requests import read_request
from .routes import answer, parse, shelf
from .stage import Stage
from .step import perform
from .streams import ServerStream, drain
from .wire import ApiError

if TYPE_CHECKING:
    from .world import World

__all__ = ["HttpExchange"]

_DRAIN: Final = 2.0


class _AnsweredError(Exception):
    """The answer is complete although the steps are not."""


class HttpExchange:
    """One HTTP request and its answer; also the outlet of the response it asks for."""

    def __init__(
        self,
        world: World,
        stream: ServerStream,
        record: ConnectionRecord,
        connection: h11.Connection,
        head: h11.Request,
    ) -> None:
        self._world = world
        self._stream = stream
        self._record = record
        self._http = connection
        self._head = head
        self._writer = EventWriter(world.quirks)
        self._answer = HttpAnswer(world, stream, record, connection)
        self._streams = False
        self._muted = False
        self._dropped = False
        self._final: dict[str, Any] | None = None
        self._scope: trio.CancelScope | None = None

    # --- the exchange ---

    async def run(self) -> bytes | None:
        """Answer. Returns what the peer sent beyond this request, or None when the connection is over."""
        try:
            body = await self._read_body()
            if body is None:
                return None
            await self._route(body)
        except ApiError as error:
            if self._answer.request is None:
                self._record.refusals.append(error.status)
            if self._muted:
                await drain(self._stream, seconds=math.inf, limit=self._world.max_http_bytes)
                return None
            await self._send_error(error)
        if (
            self._dropped
            or self._answer.spoilt
            or self._http.our_state is not h11.DONE
            or self._http.their_state is not h11.DONE
        ):
            return None
        return self._http.trailing_data[0]

    async def _read_body(self) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._answer.send(go_on)
                data = await self._stream.receive_some(65536)
                self._http.receive_data(data)
                if not data:
                    return None
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._world.max_http_bytes:
                    self._record.refusals.append(413)
                    await self._answer.json(413, _problem("The request is too large."), {"connection": "close"})
                    await drain(self._stream, seconds=_DRAIN, limit=4 * self._world.max_http_bytes)
                    return None
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(parts)
            else:
                return None

    async def _route(self, body: bytes) -> None:
        method = self._head.method
        target = self._head.target.decode("ascii", "replace")
        if self._world.control is not None and is_control(target):
            self._record.control = True
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head.headers}
            await self._answer.json(*await self._world.control(method.decode("ascii"), target, headers, body))
            return
        self._world.tell(self._record, "in", body)
        resource = self._resource()
        if resource == "responses":
            if method == b"POST":
                await self._create(body)
            elif method == b"GET":
                self._record.refusals.append(426)
                headers = {"upgrade": "websocket", "connection": "close"}
                await self._answer.json(426, _problem("This resource speaks WebSocket; upgrade."), headers)
            else:
                self._record.refusals.append(405)
                await self._answer.json(405, _problem("Method not allowed."), {"allow": "GET, POST"})
            return
        if resource is None:
            raise self._world.nothing_here()
        self._world.authorise(self._record)
        query = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        path = resource.split("/")
        if method == b"GET" and path[0] == "responses" and len(path) == 2 and query.get("stream") == "true":
            await self._retrieve(path[1], query)
            return
        await self._answer.json(200, answer(self._world, method.decode("ascii"), path, query, body))

    # --- POST …/responses ---

    def _resource(self) -> str | None:
        return self._world.under_root(urlsplit(self._head.target.decode("ascii", "replace")).path)

    async def _create(self, raw: bytes) -> None:
        world = self._world
        step = world.posts.popleft() if world.posts else world.every_post
        if await turned_away(self._stream, self._record, step, limit=world.max_http_bytes):
            self._dropped = True
            return
        if isinstance(step, Accept):
            self._answer.headers, self._muted = step.headers, step.mute
            if step.close_code is not None:
                self._record.refusals.append(200)
                self._record.closed_by = "server"
                await self._answer.head_alone()
                self._dropped = True
                return
        world.authorise(self._record)
        body = parse(raw)
        record = self._answer.request = world.note_request(self._record, "http", body, len(raw))
        try:
            asked = read_request(
                body,
                shelf(world),
                transport="http",
                also_accept=world.accept_parameters,
                models=world.models,
                headers=self._record.headers,
            )
        except ApiError as error:
            record.status, record.error_code = "rejected", error.code
            raise
        self._streams = body.get("stream") is True and not world.quirks.never_streams
        if body.get("background") is True:
            await self._begin(Background(world, record, asked))
            return
        stage = Stage(asked, self, record, world=world, keep=_keeper(world))
        steps = await world.steps_for(asked)

        async def work() -> None:
            await perform(stage, steps)
            await self._end(stage)

        try:
            await self._serve(work, stage)
        finally:
            if record.status in {"received", "running"}:
                record.status = "lost"

    async def _serve(self, work: Callable[[], Awaitable[None]], stage: Stage | None = None) -> None:
        """Do the work of an answer, as long as the client is there."""
        seconds = self._world.quirks.keepalive
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._watch)
            nursery.start_soon(self._answer.write)
            if self._streams and stage is not None and seconds is not None:
                nursery.start_soon(self._keep_alive, stage, seconds)
            try:
                await work()
            except _AnsweredError:
                pass
            except ApiError as error:
                # Answered here, so that it does not leave the nursery inside a group.
                await self._send_error(error)
            nursery.cancel_scope.cancel(reason="the answer is complete")

    # --- responses that run by themselves ---

    async def _begin(self, background: Background) -> None:
        self._world.start(background)
        if self._streams:
            await self._serve(lambda: self._follow(background, 0))
        else:
            await self._answer.json(200, background.response)

    async def _retrieve(self, response_id: str, query: Mapping[str, str]) -> None:
        after = query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal():
            raise ApiError(400, "invalid_value", "'starting_after' takes a whole number.", "starting_after")
        background = self._world.background.get(response_id)
        response = self._world.response_as_it_stands(response_id)
        self._streams = True
        if background is None:
            events = [event for event in retell(response) if event["sequence_number"] > int(after)]
            await self._serve(lambda: self._replay(events))
        else:
            await self._serve(lambda: self._follow(background, int(after) + 1))

    async def _replay(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            await self.event(event)
        await self._answer.end_stream(self._writer.done() if self._world.quirks.done_marker else b"")

    async def _follow(self, background: Background, first: int) -> None:
        position = 0
        while not (background.over and not await background.since(position)):
            for event in await background.since(position):
                position += 1
                if event.get("sequence_number", first) >= first:
                    await self.event(event)
        if background.broken:
            await self.abort(reset=False)
        await self._answer.end_stream(self._writer.done() if self._world.quirks.done_marker else b"")

    async def _watch(self) -> None:
        # No other task notices that the client has left while the response is silent.
        while True:
            try:
                data = await self._stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self._record.closed_by = self._record.closed_by or "client"
                self._drop("the client has left")
                return
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > self._world.max_http_bytes:
                self._drop("the client pipelines too much")
                return

    def _drop(self, reason: str) -> None:
        self._dropped = True
        assert self._scope is not None
        self._scope.cancel(reason=reason)

    async def _keep_alive(self, stage: Stage, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            if self._answer.ended:
                return  # both were due at this moment
            await self.event({"type": "keepalive", "sequence_number": stage.number()})

    async def _end(self, stage: Stage) -> None:
        if self._muted:
            await trio.sleep_forever()  # until the client leaves
        if self._streams:
            await self._answer.end_stream(self._writer.done() if self._world.quirks.done_marker else b"")
            return
        if stage.rejected:
            return
        final = self._final
        if final is None:
            raise ApiError(500, "server_error", "The response ended without a result.", type="server_error")
        if final.get("status") == "failed":
            error = final.get("error")
            failure: dict[str, Any] = error if isinstance(error, dict) else {}
            status = {"rate_limit_exceeded": 429, "server_error": 500}.get(str(failure.get("code")), 400)
            raise ApiError(status, failure.get("code"), failure.get("message", ""), type="server_error")
        stage.record.output_sent = bool(final.get("output"))
        await self._answer.json(200, final)

    async def _send_error(self, error: ApiError) -> None:
        await self._answer.json(error.status, {"error": error.body() | {"param": error.param}}, error.headers)

    # --- outlet ---

    @property
    def silent(self) -> bool:
        """Whether events go nowhere; those of a plain answer only make its body."""
        return self._muted or not self._streams

    async def event(self, event: dict[str, Any]) -> None:
        """Send one event, or note the terminal of a plain answer."""
        if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
            self._final = event["response"] if isinstance(event.get("response"), dict) else self._final
        quirks = self._world.quirks
        if not self._streams:
            if event.get("type") == "error":
                raise _as_answer(event)
            await trio.lowlevel.checkpoint()
            return
        if event.get("type") == "error" and quirks.errors is None:
            event = _flat(event)
        for shaped in quirks.shape(event):
            await self._payload(self._writer.event(shaped))

    async def _payload(self, data: bytes) -> None:
        if self._muted:
            await trio.lowlevel.checkpoint()
            return
        await self._answer.part(data)

    async def reject(self, error: ApiError) -> None:
        """Answer with the error's status; with an event in a stream that keepalives or comments have begun."""
        if self._muted:
            await trio.sleep_forever()
        if self._streams and self._answer.started:
            await self.event(wire.error_event(error))
            return
        await self._send_error(error)
        raise _AnsweredError

    async def frame(self, payload: str | bytes) -> None:
        """Send a payload as the data of an event, or as the whole of a plain answer."""
        if self._streams or self._muted:
            await self._payload(self._writer.data(payload))
            return
        await self._answer.content(200, payload.encode() if isinstance(payload, str) else payload)
        raise _AnsweredError

    async def cut(self, payload: str, fraction: float) -> None:
        """Send part of an event, or of a plain answer, and drop the connection."""
        data = self._writer.data(payload) if self._streams else payload.encode()
        if not (self._streams or self._muted):
            await self._answer.begin_content(200, len(data))
        part = data[: max(1, int(len(data) * fraction))]
        if self._streams:
            await self._payload(part)
        elif not self._muted:
            await self._answer.send(h11.Data(data=part))
        await self.abort(reset=False)

    async def close(self, code: int, reason: str) -> None:
        """Drop the connection; HTTP has no codes."""
        await self.abort(reset=False)

    async def abort(self, *, reset: bool) -> None:
        """Drop the connection."""
        await self._answer.drained()
        self._record.closed_by = "server"
        if reset:
            self._stream.prepare_reset()
        self._drop("the script drops the connection")
        await trio.sleep_forever()

    async def comment(self, text: str) -> None:
        """Send a comment; plain answers have none."""
        await trio.lowlevel.checkpoint()
        if self._streams:
            await self._payload(self._writer.comment(text))

    async def ping(self) -> None:
        """Do nothing: HTTP has no pings."""
        await trio.lowlevel.checkpoint()

    async def mute(self, *, frozen: bool) -> None:
        """Send nothing more, not even the end of the body."""
        self._muted = True
        await trio.lowlevel.checkpoint()

    def deafen(self) -> None:
        """Stop reading."""
        self._stream.deaf = True

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do nothing: the answer ends with its terminal."""


def _keeper(world: World) -> Callable[[Stage, Held | None], None]:
    def keep(stage: Stage, held: Held | None) -> None:
        if held is not None:
            world.remember(stage, held)

    return keep


def _problem(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _as_answer(event: dict[str, Any]) -> ApiError:
    """Return the refusal that an error event of whatever shape amounts to in a plain answer."""
    inner = event.get("error")
    told = inner if isinstance(inner, dict) else event
    status = event.get("status")
    return ApiError(
        status if isinstance(status, int) and 400 <= status < 600 else 500,
        told.get("code"),
        str(told.get("message", "")),
        told.get("param"),
        "server_error" if not isinstance(told.get("type"), str) or told is event else told["type"],
    )


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    inner = event.get("error")
    if not isinstance(inner, dict):
        return event
    flat = {"type": "error", "sequence_number": event.get("sequence_number", 0)}
    return flat | {name: inner.get(name) for name in ("code", "message", "param")}
