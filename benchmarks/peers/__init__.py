"""The clients that are compared, each behind the same small interface. None of their code is here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol

from attrs import field, frozen

__all__ = ["PEERS", "TERMINALS", "Client", "Peer", "Target", "Unavailable", "peer_named", "trusting"]

TERMINALS: Final = frozenset({"response.completed", "response.failed", "response.incomplete", "error"})


@frozen
class Target:
    """The server of a client, and its requests.

    Attributes:
        base_url: Up to but not including ``/responses``.
        model: The model, which the load source understands as the answer it is to give.
        ca: A file with the certificate authority to trust; None for a plain connection.
        options: Further wishes of a job at this peer, such as a cancel policy.
    """

    base_url: str
    model: str
    ca: str | None = None
    options: dict[str, Any] = field(factory=dict)

    @property
    def keeping(self) -> bool:
        """Whether a bare client is to put the answer's text together."""
        return bool(self.options.get("keeping"))

    @property
    def websocket_url(self) -> str:
        """The URL of the WebSocket."""
        return "ws" + self.base_url.removeprefix("http") + "/responses"


class Unavailable(Exception):
    """A peer cannot do what it is asked to; the text says what is missing."""


@functools.cache
def trusting(ca: str | None) -> ssl.SSLContext:
    """The TLS context that all connections of a process share: making one takes longer than what is measured."""
    return ssl.create_default_context(cafile=ca)


class Client(Protocol):
    """An open connection, or what stands for one."""

    async def turn(self, prompt: str) -> int:
        """Ask, read the whole answer event by event, and count the events. The way throughput is measured."""
        ...

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        """Ask, and tell of every event as it comes: the text of a text delta, ``""`` for any other."""
        ...

    async def tools(self, count: int, size: int) -> int:
        """Run ``count`` tool calls, whose outputs are ``size`` bytes long; the number of requests that took."""
        ...


@frozen
class Peer:
    """One contestant.

    Attributes:
        name: Its name in the table.
        what: One line on it.
        loop: The event loop it runs on.
        wire: Its transport.
        needs: The modules without which it cannot run.
        home: The module here that opens it, and the function in there.
        without: Installed modules that it has to do without.
    """

    name: str
    what: str
    loop: Literal["trio", "asyncio"]
    wire: Literal["websocket", "sse", "none"]
    needs: tuple[str, ...]
    home: tuple[str, str]
    without: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """The first module it lacks; None when it can run."""
        for module in self.needs:
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if found is None:
                return module
        return None

    def open(self, target: Target) -> AbstractAsyncContextManager[Client]:
        """Open a client; it is closed with the block."""
        module, function = self.home
        opener = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
        opened: AbstractAsyncContextManager[Client] = opener(target)
        return opened


_FAST: Final = ("msgspec",)

PEERS: Final = (
    Peer(
        "engine",
        "this library, events iterated",
        "trio",
        "websocket",
        ("trio_websocket",),
        ("ours", "iterating"),
        without=_FAST,
    ),
    Peer(
        "engine-ask", "this library, `ask`", "trio", "websocket", ("trio_websocket",), ("ours", "asking"), without=_FAST
    ),
    Peer(
        "engine-fast",
        "this library with its extra `fast`, events iterated",
        "trio",
        "websocket",
        ("trio_websocket", *_FAST),
        ("ours", "iterating"),
    ),
    Peer(
        "engine-fast-ask",
        "this library with its extra `fast`, `ask`",
        "trio",
        "websocket",
        ("trio_websocket", *_FAST),
        ("ours", "asking"),
    ),
    Peer(
        "engine-sse",
        "this library over HTTP, events iterated",
        "trio",
        "sse",
        ("httpx",),
        ("ours", "over_http"),
        without=_FAST,
    ),
    Peer(
        "trio-websocket",
        "trio-websocket and `json.loads`: the ceiling",
        "trio",
        "websocket",
        ("trio_websocket",),
        ("on_trio", "over_trio_websocket"),
    ),
    Peer(
        "websockets-trio",
        "websockets' Trio client and `json.loads`",
        "trio",
        "websocket",
        ("websockets.trio.client",),
        ("on_trio", "over_websockets"),
    ),
    Peer(
        "websockets-asyncio",
        "websockets' asyncio client and `json.loads`",
        "asyncio",
        "websocket",
        ("websockets.asyncio.client",),
        ("on_asyncio", "over_websockets"),
    ),
    Peer(
        "openai-connect",
        "openai-python, `responses.connect()`",
        "asyncio",
        "websocket",
        ("openai", "websockets"),
        ("on_asyncio", "openai_connection"),
    ),
    Peer(
        "openai-session",
        "openai-python, `AsyncResponsesWebSocketSession`",
        "asyncio",
        "websocket",
        ("openai.lib.responses_websocket", "websockets"),
        ("on_asyncio", "openai_session"),
    ),
    Peer(
        "openai-agents",
        "openai-agents, `OpenAIResponsesWSModel`",
        "asyncio",
        "websocket",
        ("agents", "websockets"),
        ("on_asyncio", "openai_agents"),
    ),
    Peer("openai-http", "openai-python over HTTP", "asyncio", "sse", ("openai",), ("on_asyncio", "openai_http")),
    Peer("httpx-sse", "httpx lines and `json.loads`", "asyncio", "sse", ("httpx",), ("on_asyncio", "httpx_sse")),
    Peer("trio-stream", "a bare Trio stream", "trio", "none", (), ("on_trio", "over_nothing")),
    Peer("json.loads", "`json.loads` alone", "trio", "none", (), ("on_trio", "over_trio_websocket")),
    Peer("trio.sleep", "bare Trio tasks", "trio", "none", (), ("on_trio", "over_trio_websocket")),
)


def peer_named(name: str) -> Peer:
    """The contestant called ``name``."""
    return next(peer for peer in PEERS if peer.name == name)
