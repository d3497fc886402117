"""The simulator: listeners or memory, the request head, routing, and everything that is shared by all connections."""

from __future__ import annotations

import copy
import ipaddress
import ssl
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import attrs
import h11
import trio
import trio_websocket

from .brain import AnyBrain, Calculator, ask
from .history import Cache, Held, Library
from .http import HttpExchange
from .memory import MemoryDialer, MemoryStream, SimulatorDialer, TcpDialer
from .quirks import Accept, Handshake, Quirks, Reject
from .records import ConnectionRecord, RequestRecord
from .refusals import refuse, turned_away
from .script import Error
from .streams import ServerStream, drain
from .websocket import WebSocket
from .wire import ApiError, Ids, Item

if TYPE_CHECKING:
    from engine.settings.endpoint import Endpoint

    from .requests import Asked
    from .responses import Stage, Step

__all__ = ["Simulator", "open_simulator"]

_HEAD_BYTES: Final = 64 * 1024
_HEAD_SECONDS: Final = 60.0
_TLS_SECONDS: Final = 10.0
_CONNECTIONS: Final = 4096
_MEMORY_HOST: Final = "simulator.invalid"
_EXPECTED: Final = (
    OSError,
    ssl.SSLError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    trio.TooSlowError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    h11.ProtocolError,
)


class Simulator:
    """A running Responses server; made by `open_simulator`.

    Attributes:
        brain: Who answers. May be replaced at any time.
        quirks: How the wire deviates. May be replaced at any time.
        handshakes: How the next upgrade requests are answered, first one first; then `every_handshake` applies.
        every_handshake: How all other upgrade requests are answered.
        posts: How the next ``POST …/responses`` are answered, first one first; then `every_post` applies.
        every_post: How all others are answered.
        requests: Every request, in order of arrival.
        connections: Every connection, in order of arrival.
        conversations: Items of the conversations that requests may name.
        errors: What was raised by brains, or by the simulator itself; empty in a sound test.
        library: Stored responses.
        host: Where it listens.
        port: The port; 0 in memory.
    """

    def __init__(self, options: _Options) -> None:
        self._options = options
        self.brain: AnyBrain = Calculator() if options.brain is None else options.brain
        self.quirks: Quirks = options.quirks
        self.handshakes: deque[Handshake] = deque(options.handshakes)
        self.every_handshake: Handshake = options.every_handshake
        self.posts: deque[Handshake] = deque(options.posts)
        self.every_post: Handshake = options.every_post
        self.requests: list[RequestRecord] = []
        self.connections: list[ConnectionRecord] = []
        self.conversations: dict[str, list[Item]] = {}
        self.errors: list[Exception] = []
        self.library: Library = Library(options.remembered)
        self.sockets: dict[int, WebSocket] = {}
        self.ids: Ids = Ids(options.seed)
        self.host: str = options.host
        self.port: int = 0
        self.root = "/v1"
        self.max_active: int = options.max_active
        self.max_lanes: int = options.max_lanes
        self.max_message_bytes: int = options.max_message_bytes
        self.max_http_bytes: int = options.max_http_bytes
        self.connection_lifetime: float = options.connection_lifetime
        self.accept_parameters: frozenset[str] = frozenset(options.accept_parameters)
        self.models: frozenset[str] | None = None if options.models is None else frozenset(options.models)
        self._api_key = options.api_key
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[int, trio.CancelScope] = {}
        self._count = 0
        self._executed_before = 0  # requests whose records are gone
        self._dialer: SimulatorDialer = MemoryDialer(self._accept_memory) if options.in_memory else TcpDialer()
        self._epoch = time.time() - trio.current_time()

    def __repr__(self) -> str:
        return f"<Simulator at {self.base_url}, {len(self.connections)} connections, {len(self.requests)} requests>"

    # --- where it is ---

    @property
    def base_url(self) -> str:
        """The base URL for HTTP clients, without ``/responses``."""
        secure = "s" if self._options.ssl_context is not None else ""
        if self._options.in_memory:
            return f"http{secure}://{_MEMORY_HOST}{self.root}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{secure}://{host}:{self.port}{self.root}"

    @property
    def websocket_url(self) -> str:
        """The URL for WebSocket clients."""
        return "ws" + self.base_url.removeprefix("http") + "/responses"

    @property
    def api_key(self) -> str:
        """A key that is let in."""
        return self._api_key if self._api_key is not None else "sk-simulator"

    @property
    def endpoint(self) -> Endpoint:
        """What the client library needs to reach this server."""
        from engine.settings.endpoint import Endpoint

        given = {"profile": "openai", **self._options.endpoint_options}
        return Endpoint(base_url=self.base_url, api_key=self.api_key, **given)

    @property
    def dialer(self) -> SimulatorDialer:
        """Opens connections to this server; in memory the only way to it."""
        return self._dialer

    # --- what it holds ---

    def history(self, response_id: str) -> list[Item]:
        """Return the whole conversation up to the end of a response: input and output items, in order.

        Raises:
            KeyError: no such response has ended.
        """
        held = self.library.transcript(response_id)
        if held is None:
            raise KeyError(response_id)
        return copy.deepcopy(list(held.items))

    def response(self, response_id: str) -> dict[str, Any]:
        """Return the final Response object of any ended response, stored or not.

        Raises:
            KeyError: no such response has ended.
        """
        held = self.library.transcript(response_id)
        if held is None:
            raise KeyError(response_id)
        return copy.deepcopy(held.response)

    @property
    def open_connections(self) -> list[ConnectionRecord]:
        """Connections whose socket is still there."""
        return [record for record in self.connections if record.open]

    @property
    def executed(self) -> int:
        """How many requests it began to answer, refused ones left out; a steered continuation is none of its own."""
        return self._executed_before + sum(_counts(record) for record in self.requests)

    def executed_by(self, tag: str) -> dict[str, list[RequestRecord]]:
        """Return the records of executed requests by what their ``metadata`` has under ``tag``; others are left out."""
        groups: dict[str, list[RequestRecord]] = {}
        for record in self.requests:
            value = record.tag(tag)
            if value is not None and _counts(record):
                groups.setdefault(value, []).append(record)
        return groups

    # --- what tests make it do ---

    def abort(self, connection: ConnectionRecord | None = None) -> None:
        """Drop one connection, or all, without a word; their sockets are gone at the next checkpoints."""
        for identity, scope in list(self._scopes.items()):
            if connection is None or connection.id == identity:
                scope.cancel(reason="dropped by the test")

    def close(self, code: int = 1001, reason: str = "", *, connection: ConnectionRecord | None = None) -> None:
        """Close one WebSocket, or all, with a Close frame after what is on its way."""
        for identity, socket in list(self.sockets.items()):
            if connection is None or connection.id == identity:
                socket.finish(code, reason)

    def forget(self, *, connection: ConnectionRecord | None = None) -> None:
        """Drop the responses that one WebSocket, or all, keep in memory; stored ones stay."""
        for identity, socket in self.sockets.items():
            if connection is None or connection.id == identity:
                socket.cache = Cache()

    def push(self, event: Mapping[str, Any], *, connection: ConnectionRecord | None = None) -> int:
        """Send an event out of the blue on one WebSocket, or all; returns how many took it."""
        targets = [
            socket for identity, socket in self.sockets.items() if connection is None or connection.id == identity
        ]
        return sum(socket.push(event) for socket in targets)

    # --- what connections ask of it ---

    def now(self) -> float:
        """Return Unix time; it moves with Trio's clock."""
        return self._epoch + trio.current_time()

    def authorise(self, record: ConnectionRecord) -> None:
        """Raise the documented 401 unless the bearer is right."""
        given = record.authorization
        if given is None or not given.startswith("Bearer ") or not given[7:].strip():
            raise ApiError(401, None, "No API key was sent. Send it as a bearer in the Authorization header.")
        if self._api_key is not None and given[7:].strip() != self._api_key:
            raise ApiError(401, "invalid_api_key", "Incorrect API key provided.")

    def note_request(
        self, connection: ConnectionRecord, transport: Literal["websocket", "http"], body: Mapping[str, Any], size: int
    ) -> RequestRecord:
        """Record a request."""
        previous = body.get("previous_response_id")
        record = RequestRecord(
            self._count,
            connection.id,
            transport,
            body,
            size,
            previous_response_id=previous if isinstance(previous, str) else None,
            received_at=trio.current_time(),
        )
        self._count += 1
        self.requests.append(record)
        connection.requests.append(record)
        forgotten = self.requests[: -self._options.remembered]
        self._executed_before += sum(_counts(each) for each in forgotten)
        del self.requests[: len(forgotten)]
        del connection.requests[: -self._options.remembered]
        return record

    def steps_for(self, asked: Asked) -> list[Step]:
        """Return what the brain answers; nothing for a warm-up, an error when the brain breaks."""
        if not asked.generate and not getattr(self.brain, "warm_ups", False):
            return []
        try:
            return ask(self.brain, asked)
        except Exception as error:
            self.errors.append(error)
            return [Error(500, "server_error", "The brain failed.")]

    def remember(self, stage: Stage, held: Held) -> None:
        """Take a finished response into the library and its conversation."""
        self.library.add(held)
        conversation = stage.asked.body.get("conversation")
        if conversation is not None:
            name = conversation["id"] if isinstance(conversation, dict) else conversation
            self.conversations[name] = list(held.items)

    # --- connections ---

    async def _run(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        if not self._options.in_memory:
            listeners = await trio.open_tcp_listeners(self._options.port, host=self.host)
            # A name such as localhost can stand for two addresses, and those would get different random ports.
            for surplus in listeners[1:]:
                await surplus.aclose()
            self.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(_listen, listeners[0], self._serve, nursery)

    def _accept_memory(self, stream: MemoryStream) -> None:
        if self._nursery is None or self._nursery.cancel_scope.cancel_called:
            raise ConnectionRefusedError("the simulator has been closed")
        self._nursery.start_soon(self._serve, stream)

    async def _serve(self, accepted: trio.abc.Stream) -> None:
        record = ConnectionRecord(len(self.connections), trio.current_time())
        self.connections.append(record)
        try:
            if len(self._scopes) >= _CONNECTIONS:
                record.errors.append("too many connections")
                return
            with trio.CancelScope() as scope:
                self._scopes[record.id] = scope
                stream = accepted
                if self._options.ssl_context is not None:
                    stream = trio.SSLStream(
                        accepted, self._options.ssl_context, server_side=True, https_compatible=True
                    )
                    with trio.fail_after(_TLS_SECONDS):
                        await stream.do_handshake()
                await self._serve_requests(ServerStream(stream, record), record)
            if scope.cancelled_caught:
                record.closed_by = "server"
        except* _EXPECTED as group:
            record.errors += [type(error).__name__ for error in _leaves(group)]
        except* Exception as group:
            record.errors += [type(error).__name__ for error in _leaves(group)]
            self.errors += _leaves(group)
        finally:
            self._scopes.pop(record.id, None)
            if record.closed_by is None:
                record.closed_by = "client"
            try:
                await trio.aclose_forcefully(accepted)
            finally:
                record.closed_at = trio.current_time()

    async def _serve_requests(self, stream: ServerStream, record: ConnectionRecord) -> None:
        leftover: bytes | None = b""
        while leftover is not None:
            raw = bytearray(leftover)
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
            if raw:
                connection.receive_data(bytes(raw))
            try:
                with trio.fail_after(_HEAD_SECONDS):
                    head = await _read_head(stream, connection, raw)
            except h11.RemoteProtocolError as error:
                await _answer_plainly(stream, error.error_status_hint, b"")
                await drain(stream, seconds=1.0, limit=_HEAD_BYTES)
                record.closed_by = "server"
                return
            if head is None:
                return
            self._note_head(record, head)
            if _wants_upgrade(record.headers):
                await self._upgrade(stream, record, head, bytes(raw))
                return
            record.transport = "http"
            leftover = await HttpExchange(self, stream, record, connection, head).run()

    def _note_head(self, record: ConnectionRecord, head: h11.Request) -> None:
        record.path = head.target.decode("ascii", "replace")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        record.authorization = headers.pop("authorization", None)
        key = headers.pop("api-key", None)
        if record.authorization is None and key is not None:
            record.authorization = f"Bearer {key}"
        record.headers = headers

    async def _upgrade(self, stream: ServerStream, record: ConnectionRecord, head: h11.Request, raw: bytes) -> None:
        record.transport = "websocket"
        step = self.handshakes.popleft() if self.handshakes else self.every_handshake
        if isinstance(step, Reject):
            record.handshake_status = step.status
        if await turned_away(stream, record, step, limit=self.max_message_bytes):
            return
        problem = self._check_upgrade(record, head)
        if problem is not None:
            record.handshake_status = problem.status
            await refuse(stream, record, problem)
            return
        end = raw.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in raw else len(raw)
        stream.replay(raw[:end], raw[end:])
        await WebSocket(self, stream, record).serve(step if isinstance(step, Accept) else Accept())

    def _check_upgrade(self, record: ConnectionRecord, head: h11.Request) -> Reject | None:
        if urlsplit(record.path).path != self.root + "/responses":
            return _error_refusal(ApiError(404, None, "There is nothing at this address."))
        if head.method != b"GET" or "sec-websocket-key" not in record.headers:
            return _error_refusal(ApiError(400, None, "This is not a WebSocket upgrade."))
        if record.headers.get("sec-websocket-version") != "13":
            return Reject(426, headers={"sec-websocket-version": "13"})
        try:
            self.authorise(record)
        except ApiError as error:
            return _error_refusal(error)
        return None


def _counts(record: RequestRecord) -> bool:
    return record.executed and record.successor_of is None


def _error_refusal(error: ApiError) -> Reject:
    return Reject(error.status, body={"error": error.body()})


def _leaves(group: BaseExceptionGroup[Any]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _wants_upgrade(headers: Mapping[str, str]) -> bool:
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return "upgrade" in tokens and headers.get("upgrade", "").lower() == "websocket"


async def _listen(listener: trio.SocketListener, handler: Any, nursery: trio.Nursery) -> None:
    await trio.serve_listeners(handler, [listener], handler_nursery=nursery)


async def _read_head(stream: ServerStream, connection: h11.Connection, raw: bytearray) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await stream.receive_some(65536)
        raw += data
        connection.receive_data(data)


async def _answer_plainly(stream: ServerStream, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} \r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    await stream.send_all(head.encode() + body)


# --- opening ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Options:
    host: str
    port: int
    in_memory: bool
    brain: AnyBrain | None
    api_key: str | None = attrs.field(repr=False)
    connection_lifetime: float
    max_message_bytes: int
    max_http_bytes: int
    max_active: int
    max_lanes: int
    ssl_context: ssl.SSLContext | None
    handshakes: tuple[Handshake, ...]
    every_handshake: Handshake
    posts: tuple[Handshake, ...]
    every_post: Handshake
    quirks: Quirks
    accept_parameters: Collection[str]
    models: Collection[str] | None
    endpoint_options: Mapping[str, Any]
    seed: int | None
    remembered: int


class open_simulator:  # noqa: N801 - used like a function
    """Run a Responses server for the length of an ``async with`` block.

    Leaving the block drops every connection and ends every task at once, whatever the clients do; what the block
    raised passes through unchanged.

    Args:
        host: Where to listen. Anything but a loopback address needs ``allow_remote``.
        port: The port; 0 picks a free one.
        in_memory: Open no socket; clients connect with `Simulator.dialer`.
        brain: Who answers: an object with ``reply(asked)``, or a function; a `Calculator` by default.
        api_key: The only key that is let in; None lets any in.
        connection_lifetime: Seconds after which a WebSocket is ended with ``websocket_connection_limit_reached``.
        max_message_bytes: A longer message ends the WebSocket with 1009.
        max_http_bytes: A longer HTTP body is answered with 413.
        max_active: Responses that run at the same time on one WebSocket; more wait.
        max_lanes: Lane names a WebSocket may use in its life.
        ssl_context: Serve TLS.
        handshake: How upgrades are answered: one `Handshake` for all of them, or several, each used once and
            followed by plain acceptance.
        post: How ``POST …/responses`` are answered before they are looked at; like ``handshake``.
        quirks: Deviations from the documented wire.
        accept_parameters: Request parameters that are no error although the service has none of the name.
        models: The models that exist; None for any.
        endpoint_options: Further arguments of the `Endpoint` that `Simulator.endpoint` makes.
        seed: Makes ids reproducible.
        remembered: How many responses and requests are kept, oldest out first.
        allow_remote: Listen on an address that others can reach.

    Raises:
        ValueError: the host is not a loopback address.
        OSError: the port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        in_memory: bool = False,
        brain: AnyBrain | None = None,
        api_key: str | None = None,
        connection_lifetime: float = 3600.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        max_http_bytes: int = 64 * 1024 * 1024,
        max_active: int = 16,
        max_lanes: int = 32,
        ssl_context: ssl.SSLContext | None = None,
        handshake: Handshake | Iterable[Handshake] | None = None,
        post: Handshake | Iterable[Handshake] | None = None,
        quirks: Quirks | None = None,
        accept_parameters: Collection[str] = (),
        models: Collection[str] | None = None,
        endpoint_options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        remembered: int = 10_000,
        allow_remote: bool = False,
    ) -> None:
        if not (in_memory or allow_remote or _is_loopback(host)):
            raise ValueError("the simulator listens on loopback addresses only, unless allow_remote is true")
        handshakes, every_handshake = _plan(handshake)
        posts, every_post = _plan(post)
        self._options = _Options(
            host=host,
            port=port,
            in_memory=in_memory,
            brain=brain,
            api_key=api_key,
            connection_lifetime=connection_lifetime,
            max_message_bytes=max_message_bytes,
            max_http_bytes=max_http_bytes,
            max_active=max_active,
            max_lanes=max_lanes,
            ssl_context=ssl_context,
            handshakes=handshakes,
            every_handshake=every_handshake,
            posts=posts,
            every_post=every_post,
            quirks=Quirks() if quirks is None else quirks,
            accept_parameters=accept_parameters,
            models=models,
            endpoint_options=dict(endpoint_options or {}),
            seed=seed,
            remembered=remembered,
        )

    async def __aenter__(self) -> Simulator:
        """Start listening. Cancelled, nothing stays open."""
        simulator = Simulator(self._options)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        try:
            await simulator._run(self._nursery)
        except BaseException:
            self._nursery.cancel_scope.cancel(reason="the simulator could not start")
            await self._manager.__aexit__(None, None, None)  # bounded: every task is cancelled
            raise
        return simulator

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Drop every connection and end every task. Cancellation does not stop this; it is quick in any case."""
        self._nursery.cancel_scope.cancel(reason="the simulator is closing")
        # The body's exception stays outside, so that it is not wrapped in a group with ours.
        await self._manager.__aexit__(None, None, None)  # bounded: every task is cancelled
        return False


def _plan(given: Handshake | Iterable[Handshake] | None) -> tuple[tuple[Handshake, ...], Handshake]:
    """Return the steps that are used once each, and the one for all others."""
    if isinstance(given, Handshake):
        return (), given
    return () if given is None else tuple(given), Accept()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
