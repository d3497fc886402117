"""The simulator's doors: listeners or memory, and what a test may do to its connections."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec

import trio

from .brain import AnyBrain
from .door import Door
from .history import Cache
from .memory import MemoryDialer, MemoryStream, SimulatorDialer, TcpDialer
from .pace import Pace
from .quirks import Accept, Handshake, Quirks
from .records import ConnectionRecord
from .world import Options, World

if TYPE_CHECKING:
    from engine.settings.endpoint import Endpoint

__all__ = ["Simulator", "open_simulator"]

P = ParamSpec("P")

_CONNECTIONS: Final = 4096
_MEMORY_HOST: Final = "simulator.invalid"


class Simulator(World):
    """A running Responses server; made by `open_simulator`. See `engine.simulator.world.World` for what it holds.

    Attributes:
        host: The address that it listens on.
        port: The port; 0 in memory.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.host: str = options.host
        self.port: int = 0
        self._doors: dict[int, Door] = {}
        self._dialer: SimulatorDialer = MemoryDialer(self._accept_memory) if options.in_memory else TcpDialer()

    def __repr__(self) -> str:
        return f"<Simulator at {self.base_url}, {len(self.connections)} connections, {len(self.requests)} requests>"

    # --- where it is ---

    @property
    def base_url(self) -> str:
        """The base URL for HTTP clients, without ``/responses``."""
        secure = "s" if self.options.ssl_context is not None else ""
        root = self.options.roots[0]
        if self.options.in_memory:
            return f"http{secure}://{_MEMORY_HOST}{root}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{secure}://{host}:{self.port}{root}"

    @property
    def websocket_url(self) -> str:
        """The URL for WebSocket clients."""
        return "ws" + self.base_url.removeprefix("http") + "/responses"

    @property
    def api_key(self) -> str:
        """A key that is let in."""
        return "sk-simulator" if self.options.api_key is None else self.options.api_key

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint by which the client library reaches this server."""
        from engine.settings.endpoint import Endpoint

        given = {"profile": "openai", **self.options.endpoint_options}
        return Endpoint(base_url=self.base_url, api_key=self.api_key, **given)

    @property
    def dialer(self) -> SimulatorDialer:
        """Opens connections to this server; in memory the only way to it."""
        return self._dialer

    # --- what tests do to its connections ---

    def _chosen(self, connection: ConnectionRecord | None) -> list[Door]:
        return [door for identity, door in self._doors.items() if connection is None or connection.id == identity]

    def abort(self, connection: ConnectionRecord | None = None, *, reset: bool = False) -> None:
        """Drop one connection, or all, without a word; their sockets are gone at the next checkpoints.

        Args:
            connection: The one to drop.
            reset: Discard what the client has not read.
        """
        for door in self._chosen(connection):
            if reset:
                door.prepare_reset()
            door.scope.cancel(reason="dropped by the test")

    def close(self, code: int = 1001, reason: str = "", *, connection: ConnectionRecord | None = None) -> None:
        """Close one WebSocket, or all, with a Close frame after what is on its way."""
        for door in self._chosen(connection):
            if door.websocket is not None:
                door.websocket.finish(code, reason)

    def forget(self, *, connection: ConnectionRecord | None = None) -> None:
        """Drop the responses that one WebSocket, or all, keep in memory; stored ones stay."""
        for door in self._chosen(connection):
            if door.websocket is not None:
                door.websocket.cache = Cache()

    def push(self, event: Mapping[str, Any], *, connection: ConnectionRecord | None = None) -> int:
        """Send an event out of the blue on one WebSocket, or all; returns how many took it."""
        return sum(door.websocket.push(event) for door in self._chosen(connection) if door.websocket is not None)

    # --- connections ---

    async def _run(self, nursery: trio.Nursery) -> None:
        self.nursery: trio.Nursery | None = nursery
        if not self.options.in_memory:
            listeners = await trio.open_tcp_listeners(self.options.port, host=self.host)
            # A name such as localhost can stand for two addresses, and those would get different random ports.
            for surplus in listeners[1:]:
                await surplus.aclose()
            self.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(_listen, listeners[0], self._serve, nursery)

    def _accept_memory(self, stream: MemoryStream) -> None:
        if self.nursery is None or self.nursery.cancel_scope.cancel_called:
            raise ConnectionRefusedError("the simulator has been closed")
        self.nursery.start_soon(self._serve, stream)

    async def _serve(self, accepted: trio.abc.Stream) -> None:
        record = ConnectionRecord(len(self.connections), trio.current_time())
        self.connections.append(record)
        door = Door(self, record)
        try:
            if len(self._doors) >= _CONNECTIONS:
                record.errors.append("too many connections")
            else:
                self._doors[record.id] = door
                await door.serve(accepted)
        finally:
            self._doors.pop(record.id, None)
            if record.closed_by is None:
                record.closed_by = "client"
            try:
                await trio.aclose_forcefully(accepted)
            finally:
                record.closed_at = trio.current_time()


async def _listen(listener: trio.SocketListener, handler: Any, nursery: trio.Nursery) -> None:
    await trio.serve_listeners(handler, [listener], handler_nursery=nursery)


# --- opening ---------------------------------------------------------------------------------------------------------


def _scripted(init: Callable[P, None]) -> Callable[P, None]:
    """Let arguments come from a script file too."""

    @functools.wraps(init)
    def scripted(*args: P.args, **kwargs: P.kwargs) -> None:
        if kwargs.get("script") is not None:
            from .script_file import with_script  # few simulators need it

            kwargs = with_script(kwargs)  # type: ignore[assignment]
        init(*args, **kwargs)

    return scripted


class open_simulator:  # noqa: N801 - used like a function
    """Run a Responses server for the length of an ``async with`` block.

    Leaving the block drops every connection and ends every task at once, whatever the clients do; what the block
    raised passes through unchanged.

    Args:
        host: The address to listen on. Anything but a loopback address needs ``allow_remote``.
        port: The port; 0 picks a free one.
        in_memory: Open no socket; clients connect with `Simulator.dialer`.
        roots: The paths under which it serves, for example also ``/openai/v1`` and ``/backend-api/codex``; the first is
            the one in `Simulator.base_url`.
        brain: The brain that answers: an object with ``reply(asked)``, or a function; a `Calculator` by default.
        strict: Complain at the end, where the block itself raised nothing, about what the brain raised and about turns
            of a script that were never used.
        pace: The pace of text where neither a rule nor a step says so; all at once by default.
        api_key: The only key that is let in; None lets any in.
        connection_lifetime: Seconds after which a WebSocket is ended with ``websocket_connection_limit_reached``.
        max_message_bytes: A longer message ends the WebSocket with 1009.
        max_http_bytes: A longer HTTP body is answered with 413.
        max_active: Responses that run at the same time on one WebSocket; more wait.
        max_lanes: Lane names a WebSocket may use in its life.
        compress: Whether to agree to permessage-deflate with clients that offer it.
        events_per_write: After how many events that are ready at once a response makes room for others; they leave in
            one write.
        ssl_context: Serve TLS.
        handshake: The answer to upgrades: one `Handshake` for all of them, or several, each used once and
            followed by plain acceptance.
        post: The answer to ``POST …/responses`` before they are looked at; like ``handshake``.
        script: A script file, as ``session-engine simulate --script`` takes it, in place of a brain. What it says about
            the server stands where no argument does.
        quirks: Deviations from the documented wire.
        accept_parameters: Request parameters that are no error although the service has none of the name.
        models: The models that exist; None for any.
        endpoint_options: Further arguments of the `Endpoint` that `Simulator.endpoint` makes.
        seed: Makes ids reproducible.
        remembered: The most responses and requests that are kept, oldest out first.
        allow_remote: Listen on an address that others can reach.

    Raises:
        ValueError: the host is not a loopback address, or a root is no path; or the script is none, with its line.
        OSError: the port is taken, or the script cannot be read.
        SimulationFailed: at the end, when ``strict`` and there is something to complain about.
    """

    @_scripted
    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        in_memory: bool = False,
        roots: Iterable[str] = ("/v1",),
        brain: AnyBrain | None = None,
        strict: bool = False,
        pace: Pace | None = None,
        api_key: str | None = None,
        connection_lifetime: float = 3600.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        max_http_bytes: int = 64 * 1024 * 1024,
        max_active: int = 16,
        max_lanes: int = 32,
        compress: bool = True,
        events_per_write: int = 32,
        ssl_context: ssl.SSLContext | None = None,
        handshake: Handshake | Iterable[Handshake] | None = None,
        post: Handshake | Iterable[Handshake] | None = None,
        script: str | os.PathLike[str] | None = None,
        quirks: Quirks | None = None,
        accept_parameters: Collection[str] = (),
        models: Collection[str] | None = None,
        endpoint_options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        remembered: int = 10_000,
        allow_remote: bool = False,
    ) -> None:
        assert script is None  # it has become the other arguments
        if not (in_memory or allow_remote or _is_loopback(host)):
            raise ValueError("the simulator listens on loopback addresses only, unless allow_remote is true")
        handshakes, every_handshake = _plan(handshake)
        posts, every_post = _plan(post)
        self._options = Options(
            host=host,
            port=port,
            in_memory=in_memory,
            roots=_checked_roots(roots),
            brain=brain,
            strict=strict,
            pace=Pace() if pace is None else pace,
            api_key=api_key,
            connection_lifetime=connection_lifetime,
            max_message_bytes=max_message_bytes,
            max_http_bytes=max_http_bytes,
            max_active=max_active,
            max_lanes=max_lanes,
            compress=compress,
            events_per_write=events_per_write,
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
        simulator = self._simulator = Simulator(self._options)
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
    ) -> None:
        """Drop every connection and end every task. Cancellation does not stop this; it is quick in any case."""
        self._nursery.cancel_scope.cancel(reason="the simulator is closing")
        # The body's exception stays outside, so that it is not wrapped in a group with ours.
        await self._manager.__aexit__(None, None, None)  # bounded: every task is cancelled
        if self._options.strict and error is None:
            self._simulator.judge()


def _plan(given: Handshake | Iterable[Handshake] | None) -> tuple[tuple[Handshake, ...], Handshake]:
    """Return the steps that are used once each, and the one for all others."""
    if isinstance(given, Handshake):
        return (), given
    return () if given is None else tuple(given), Accept()


def _checked_roots(roots: Iterable[str]) -> tuple[str, ...]:
    given = (roots,) if isinstance(roots, str) else tuple(roots)
    for root in given:
        if not root.startswith("/") or root.endswith("/"):
            raise ValueError(f"a root begins with a slash and does not end with one, unlike {root!r}")
    if not given:
        raise ValueError("the simulator serves under at least one root")
    return given


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
