"""The records of the simulator: one per connection and one per request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import trio

__all__ = ["CONTROL_ROUTE", "ConnectionRecord", "RequestLog", "RequestRecord", "Requests", "is_control"]

CONTROL_ROUTE: Final = "/__simulator"
_FRAMES: Final = 1000


def is_control(target: str) -> bool:
    """Whether a request's target is the control route, or below it."""
    return f"{target.partition('?')[0]}/".startswith(f"{CONTROL_ROUTE}/")


@attrs.define(eq=False)
class RequestRecord:
    """One ``response.create`` or ``POST …/responses``, as it arrived and what became of it.

    Attributes:
        number: Counts from 0 over all connections, in order of arrival.
        connection_id: The `ConnectionRecord.id` it came on.
        transport: The transport that it came over.
        body: The parsed JSON; not shown in the repr.
        size: Bytes of the payload on the wire.
        stream_id: Its lane; None for the default lane and for HTTP.
        previous_response_id: The response it continues.
        response_id: The response it was given; None when it was rejected.
        status: ``received``, ``running``, then ``completed``, ``incomplete``, ``failed``, ``rejected``, ``error``
            (an error event after the start), ``abandoned`` (left without a terminal) or ``lost`` (the connection
            ended first).
        error_code: The code of the rejection or failure.
        executed: Whether the server began to answer it; False for what it refused, whenever it did. This is what is
            paid for.
        output_sent: Whether an event with output was handed to the connection. Nothing that a muted connection keeps
            to itself, nor a `Raw` payload, counts.
        received_at: `trio.current_time` when it had arrived.
        finished_at: `trio.current_time` when its terminal was handed to the socket.
        successor_of: The response a steered continuation follows; such a record has no bytes of its own.
        headers: Header fields it came with, or that its WebSocket was opened with: names in lower case, no credentials.
        frames: The payloads that were sent in answer, each with its `trio.current_time`: the first 1,000. None where
            the server does not keep them: it does so where it serves the control route.
    """

    number: int
    connection_id: int
    transport: Literal["websocket", "http"]
    body: Mapping[str, Any] = attrs.field(repr=False)
    size: int = 0
    stream_id: str | None = None
    previous_response_id: str | None = None
    response_id: str | None = None
    status: str = "received"
    error_code: str | int | None = None
    executed: bool = False
    output_sent: bool = False
    received_at: float = 0.0
    finished_at: float | None = None
    successor_of: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    frames: list[tuple[float, str | bytes]] | None = attrs.field(default=None, repr=False)

    def answered(self, payload: str | bytes) -> None:
        """Keep what is sent in answer, where that is kept."""
        if self.frames is not None and len(self.frames) < _FRAMES:
            self.frames.append((trio.current_time(), payload))

    @property
    def input(self) -> Any:
        """The ``input`` of the body."""
        return self.body.get("input")

    def tag(self, name: str) -> str | None:
        """Return this entry of the request's ``metadata``; None when there is none."""
        metadata = self.body.get("metadata")
        value = metadata.get(name) if isinstance(metadata, Mapping) else None
        return value if isinstance(value, str) else None


class Requests(list[RequestRecord]):
    """Requests in order of arrival."""

    @property
    def last(self) -> RequestRecord:
        """The newest request.

        Raises:
            LookupError: none has come.
        """
        if not self:
            raise LookupError("no request has come yet")
        return self[-1]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the requests, as parsed objects."""
        return [dict(record.body) for record in self]


class RequestLog(Requests):
    """The requests that have come so far; it grows.

    Attributes:
        arrived: The number of requests so far, those that are not kept any more included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived: int = 0
        self._news = trio.lowlevel.ParkingLot()

    def append(self, record: RequestRecord) -> None:
        """Take a request that has arrived."""
        super().append(record)
        self.arrived += 1
        self._news.unpark_all()

    def clear(self) -> None:
        """Forget them all."""
        super().clear()
        self.arrived = 0

    async def wait_for(self, count: int) -> RequestRecord:
        """Wait until so many requests have arrived, and return the one that made it so many, or the newest.

        Cancellation changes nothing.
        """
        while self.arrived < count:
            await self._news.park()
        await trio.lowlevel.checkpoint()
        place = count - 1 - (self.arrived - len(self))
        return self[place] if 0 <= place < len(self) else self.last


@attrs.define(eq=False)
class ConnectionRecord:
    """One TCP (or in-memory) connection.

    Attributes:
        id: Counts from 0.
        transport: ``websocket`` or ``http``; None until a request head has arrived.
        path: The target of the newest request head.
        headers: Its header fields, names in lower case, without credentials.
        authorization: The Authorization value, for comparison only; never shown in the repr.
        handshake_status: 101 after an upgrade, else what the upgrade was refused with.
        refusals: Upgrades and requests over HTTP that were turned away before they could become a request record: the
            status of each; None where no status was sent.
        opened_at: `trio.current_time` of the accept.
        closed_at: `trio.current_time` when the socket was gone; None while it is open.
        close_code: WebSocket close code as this side saw it: 1006 when there was no Close frame.
        close_reason: Its text.
        closed_by: The side that ended it.
        lanes: Named lanes in order of first use.
        requests: Its requests in order of arrival.
        steers: Every ``response.steer`` that arrived.
        injects: Every ``response.inject`` that arrived.
        bytes_in: Bytes received, all layers above TLS.
        bytes_out: Bytes sent, likewise.
        errors: The errors on it, as short texts without payloads.
        control: Whether it came for the control route.
    """

    id: int
    opened_at: float
    transport: Literal["websocket", "http"] | None = None
    path: str = ""
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    authorization: str | None = attrs.field(default=None, repr=False)
    handshake_status: int | None = None
    refusals: list[int | None] = attrs.field(factory=list)
    closed_at: float | None = None
    close_code: int | None = None
    close_reason: str | None = attrs.field(default=None, repr=False)
    closed_by: Literal["client", "server"] | None = None
    lanes: list[str] = attrs.field(factory=list)
    requests: list[RequestRecord] = attrs.field(factory=list, repr=False)
    steers: list[Mapping[str, Any]] = attrs.field(factory=list, repr=False)
    injects: list[Mapping[str, Any]] = attrs.field(factory=list, repr=False)
    bytes_in: int = 0
    bytes_out: int = 0
    errors: list[str] = attrs.field(factory=list)
    control: bool = False

    @property
    def open(self) -> bool:
        """Whether the socket is still there."""
        return self.closed_at is None
