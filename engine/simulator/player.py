"""Answers as a cassette's server did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

import trio

from .cassette import Cassette, Exchange
from .frame_log import Redaction
from .front import Head, HttpAnswer, Relayed

__all__ = ["Player"]

_CODE: Final = "not_in_cassette"


class Upstream(Protocol):
    """The server for requests that a cassette does not answer."""

    async def websocket(self, connection: int, head: Head, socket: Relayed) -> None:
        """Hand a whole WebSocket on."""
        ...

    async def http(self, connection: int, head: Head, body: bytes, answer: HttpAnswer) -> None:
        """Hand a request on."""
        ...


class Player:
    """A backend that replays a cassette, each exchange once.

    Args:
        cassette: The cassette.
        strict: Whether requests must be those of the cassette, but for what changes from run to run; else their order
            alone decides.
        speed: The speed: 1 as it came, 2 twice as fast; 0 waits for nothing.
        redaction: Patterns of what was removed from the cassette, and is removed from requests before they are
            compared.
        upstream: The server of HTTP requests that it does not answer, and of WebSockets when it holds no more; None: an
            error.

    Attributes:
        unmatched: The reasons for not answering requests.
    """

    def __init__(
        self,
        cassette: Cassette,
        *,
        strict: bool = True,
        speed: float = 0.0,
        redaction: Redaction | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        self.cassette = cassette
        self.unmatched: list[str] = []
        self._strict = strict
        self._speed = speed
        self._redaction = Redaction() if redaction is None else redaction
        self._upstream = upstream
        self._upgrades = 0

    def problems(self) -> list[str]:
        """Return what a strict test complains about: requests without an answer, and answers that were not used."""
        unused = len(self.cassette.unused())
        return self.unmatched + ([f"{unused} exchanges of the cassette were not used"] if unused else [])

    def _body(self, head: Head, text: str) -> Any:
        self._redaction.key(head.headers.get("authorization"))
        text = self._redaction.text(text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def _refusal(self, transport: str, body: Any) -> dict[str, Any]:
        why = self.cassette.nearest(transport, body)
        self.unmatched.append(f"a request is not in the cassette: {why}")
        return {
            "type": "invalid_request_error",
            "code": _CODE,
            "message": f"Not in the cassette: {why}.",
            "param": None,
        }

    async def _pause(self, began: float, after: float) -> None:
        if self._speed:
            await trio.sleep_until(began + after / 1000 / self._speed)
        else:
            await trio.lowlevel.checkpoint()

    # --- HTTP ---

    async def http(self, connection: int, head: Head, body: bytes, answer: HttpAnswer) -> None:
        """Answer a request as the cassette does."""
        began = trio.current_time()
        value = self._body(head, body.decode("utf-8", "replace"))
        exchange = self.cassette.find("http", head.target, value if body else None, strict=self._strict)
        if exchange is None:
            if self._upstream is not None:
                await self._upstream.http(connection, head, body, answer)
                return
            refusal = json.dumps({"error": self._refusal("http", value)}).encode()
            await answer.whole(404, [("content-type", "application/json")], refusal)
            return
        await answer.begin(exchange.status, exchange.headers.items())
        for part in exchange.parts:
            await self._pause(began, part.after)
            await answer.part(part.payload if isinstance(part.payload, bytes) else part.payload.encode())
        if exchange.complete:
            await answer.end()

    # --- WebSocket ---

    async def websocket(self, connection: int, head: Head, socket: Relayed) -> None:
        """Answer an upgrade as the cassette does, and then its messages."""
        upgrades = self.cassette.upgrades
        if self._upgrades < len(upgrades):
            status, headers, body = upgrades[self._upgrades]
        elif self._upstream is not None:
            await self._upstream.websocket(connection, head, socket)
            return
        else:
            status, headers, body = 101, {}, b""
        self._upgrades += 1
        if status != 101:
            await socket.refuse(status, headers.items(), body)
            return
        kept = {name: value for name, value in headers.items() if not name.startswith("sec-websocket-")}
        await socket.accept(kept)
        async with trio.open_nursery() as nursery:
            while (message := await socket.receive()) is not None:
                text = message if isinstance(message, str) else message.decode("utf-8", "replace")
                nursery.start_soon(self._message, head, text, socket, nursery.cancel_scope)
            nursery.cancel_scope.cancel(reason="the client has left")

    async def _message(self, head: Head, text: str, socket: Relayed, scope: trio.CancelScope) -> None:
        began = trio.current_time()
        body = self._body(head, text)
        if not isinstance(body, dict) or body.get("type") != "response.create":
            await trio.lowlevel.checkpoint()
            return  # what steers a response was answered within it
        exchange = self.cassette.find("websocket", head.target, body, strict=self._strict)
        lane = body.get("stream_id")
        if exchange is None:
            event: dict[str, Any] = {"type": "error", "status": 404, "error": self._refusal("websocket", body)}
            await socket.send(json.dumps(event | ({"stream_id": lane} if lane is not None else {})))
            return
        for part in exchange.parts:
            await self._pause(began, part.after)
            await socket.send(_on_lane(part.payload, exchange, lane))
        if exchange.end is not None:
            await socket.close(*exchange.end)
            scope.cancel(reason="the cassette's server closed here")


def _on_lane(payload: str | bytes, exchange: Exchange, lane: object) -> str | bytes:
    """Return an event under the name that the lane has this time."""
    if lane == exchange.lane or isinstance(payload, bytes):
        return payload
    try:
        event = json.loads(payload)
    except ValueError:
        return payload
    if not isinstance(event, Mapping) or event.get("stream_id") != exchange.lane:
        return payload
    renamed = {name: value for name, value in event.items() if name != "stream_id"}
    return json.dumps(renamed | ({"stream_id": lane} if lane is not None else {}), separators=(",", ":"))
