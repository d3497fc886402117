"""One stream of requests on a WebSocket, answered strictly in order, and the outlet of their responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from . import wire
from .history import Held
from .requests import Asked, normalise_input, read_request
from .stage import Pending, Stage
from .steering import pending_event, returned_event
from .step import perform
from .wire import ApiError

if TYPE_CHECKING:
    from .records import ConnectionRecord, RequestRecord
    from .requests import Shelf
    from .world import World

__all__ = ["Job", "Lane", "Line"]

_QUEUE: Final = 1024


@attrs.define(eq=False)
class Job:
    """A request that waits for its turn."""

    body: Mapping[str, Any]
    record: RequestRecord
    size: int


class Line(Protocol):
    """The connection as a lane needs it."""

    world: World
    record: ConnectionRecord
    active: dict[str, Stage]
    muted: bool

    @property
    def slots(self) -> trio.Semaphore:
        """The places for running responses."""

    def shelf(self) -> Shelf:
        """Return what a request on this connection may refer to."""

    def keep(self, lane: str | None, stage: Stage, held: Held | None) -> None:
        """Remember a finished response, or after a failure forget its parent."""

    def evict(self, lane: str | None, body: Mapping[str, Any]) -> None:
        """Forget the parent of a continuation that failed on the parent's own lane."""

    def taken(self, size: int) -> None:
        """Count a request as no longer queued."""

    async def send_json(self, value: object) -> None:
        """Send JSON in a frame."""

    async def send(self, payload: str | bytes) -> None:
        """Send a frame."""

    async def cut(self, payload: str, fraction: float) -> None:
        """Send the beginning of a frame, then end the connection."""

    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""

    async def abort(self, *, reset: bool) -> None:
        """Drop the connection."""

    async def ping(self) -> None:
        """Send a protocol ping."""

    async def mute(self, *, frozen: bool) -> None:
        """Send nothing more."""

    def deafen(self) -> None:
        """Read no more."""

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` after a while."""


class Lane:
    """One stream of requests, answered strictly in order; the outlet of its responses."""

    def __init__(self, connection: Line, name: str | None) -> None:
        self._connection = connection
        self._name = name
        self.inbox: trio.MemorySendChannel[Job]
        self.inbox, self._jobs = trio.open_memory_channel[Job](_QUEUE)
        self._steers: dict[str, list[Pending]] = {}
        self._batch: list[dict[str, Any]] = []
        self._running = False
        self._record: RequestRecord | None = None  # of the request that is answered
        self.waiting: int = 0

    @property
    def busy(self) -> bool:
        """Whether a request runs or waits."""
        return self._running or self.waiting > 0

    async def run(self) -> None:
        """Answer requests until the connection ends."""
        with self.inbox, self._jobs:
            async for job in self._jobs:
                self._connection.taken(job.size)
                self._running = True
                self.waiting -= 1
                successor: Job | None = job
                while successor is not None:
                    successor = await self._answer(successor)
                self._running = False

    def _read(self, job: Job) -> Asked:
        world = self._connection.world
        return read_request(
            job.body,
            self._connection.shelf(),
            transport="websocket",
            also_accept=world.accept_parameters,
            models=world.models,
            headers=self._connection.record.headers,
        )

    async def _answer(self, job: Job) -> Job | None:
        world, record = self._connection.world, job.record
        self._record = record
        waits = self._steers.get(job.body.get("previous_response_id") or "") if self._steers else None
        if waits:
            items = [item for pending in waits for item in pending.items]
            job = attrs.evolve(job, body={**job.body, "input": items + normalise_input(job.body.get("input"))})
        try:
            asked = self._read(job)
            stage = Stage(asked, self, record, world=world, keep=self._keep)
            try:
                self._connection.slots.acquire_nowait()
            except trio.WouldBlock:
                await stage.queued()
                await self._connection.slots.acquire()
            try:
                # The response that it refers to may have gone while it waited.
                stage.asked = self._read(job)
                if waits:
                    del self._steers[job.body["previous_response_id"]]
                await self._perform(stage)
            finally:
                self._connection.slots.release()
        except ApiError as error:
            record.status, record.error_code = "rejected", error.code
            self._connection.evict(self._name, job.body)
            await self.reject(error)
            return None
        return await self._after(stage, job)

    async def _perform(self, stage: Stage) -> None:
        world, connection = self._connection.world, self._connection
        steps = await world.steps_for(stage.asked)
        connection.active[stage.response_id] = stage
        keepalive = world.quirks.keepalive
        async with trio.open_nursery() as nursery:
            if keepalive is not None:
                nursery.start_soon(self._keep_alive, stage, keepalive)
            await perform(stage, steps)
            await self._flush()
            nursery.cancel_scope.cancel(reason="the response has ended")
        del connection.active[stage.response_id]

    async def _keep_alive(self, stage: Stage, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            await self.event({"type": "keepalive", "sequence_number": stage.number()})

    async def _after(self, stage: Stage, job: Job) -> Job | None:
        if not stage.steers:
            return None
        if stage.record.status in {"error", "failed", "rejected", "abandoned"}:
            for pending in stage.steers:
                await self.event(returned_event(stage, pending))
            return None
        if stage.waits_for_client:
            self._steers[stage.response_id] = stage.steers
            for pending in stage.steers:
                await self.event(pending_event(stage, pending))
            return None
        body = dict(job.body)
        body["previous_response_id"] = stage.response_id
        body["input"] = [item for pending in stage.steers for item in pending.items]
        record = self._connection.world.note_request(self._connection.record, "websocket", body, 0)
        record.stream_id, record.successor_of = self._name, stage.response_id
        return Job(body, record, 0)

    def _keep(self, stage: Stage, held: Held | None) -> None:
        self._connection.keep(self._name, stage, held)

    # --- outlet ---

    @property
    def silent(self) -> bool:
        """Whether events go nowhere."""
        return self._connection.muted

    async def event(self, event: dict[str, Any]) -> None:
        """Send one event with the lane's name, reshaped by the quirks."""
        if self._name is not None and not str(event.get("type", "")).startswith("codex."):
            event["stream_id"] = self._name
        quirks = self._connection.world.quirks
        for shaped in quirks.shape(event):
            if quirks.chunks > 1:
                self._batch.append(shaped)
                if len(self._batch) >= quirks.chunks:
                    await self._flush()
            else:
                await self._send(shaped)

    async def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            await self._send({"chunks": batch})

    async def _send(self, value: dict[str, Any]) -> None:
        if self._record is not None and self._record.frames is not None and not self.silent:
            self._record.answered(wire.dumps(value))
        await self._connection.send_json(value)

    async def reject(self, error: ApiError) -> None:
        """Send the error in place of a response."""
        await self.event(wire.error_event(error))
        await self._flush()

    async def frame(self, payload: str | bytes) -> None:
        """Send a payload as it is."""
        await self._flush()
        if self._record is not None and not self.silent:
            self._record.answered(payload)
        await self._connection.send(payload)

    async def cut(self, payload: str, fraction: float) -> None:
        """Send part of a frame and drop the connection."""
        await self._flush()
        await self._connection.cut(payload, fraction)

    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        await self._flush()
        await self._connection.close(code, reason)

    async def abort(self, *, reset: bool) -> None:
        """Drop the connection."""
        await self._flush()
        await self._connection.abort(reset=reset)

    async def comment(self, text: str) -> None:
        """Do nothing: WebSockets have no comments."""
        await trio.lowlevel.checkpoint()

    async def ping(self) -> None:
        """Send a ping."""
        await self._connection.ping()

    async def mute(self, *, frozen: bool) -> None:
        """Silence the connection."""
        await self._connection.mute(frozen=frozen)

    def deafen(self) -> None:
        """Stop reading on the connection."""
        self._connection.deafen()

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` after a while."""
        self._connection.later(seconds, work)
