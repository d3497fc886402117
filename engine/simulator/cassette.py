"""Cassettes: what once passed between a client and a server, as requests with their answers.

The lines are those of `engine.simulator.frame_log`, so that a log of the simulator's can be replayed too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import attrs

from .frame_log import FORMAT

__all__ = ["Cassette", "CassetteError", "Exchange", "Part", "difference", "parse_cassette"]

_TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.done", "response.cancelled", "error"}
)
# Members that differ from run to run without changing what is asked for.
_CHANGING: Final = frozenset(
    {"stream_id", "metadata", "client_metadata", "prompt_cache_key", "safety_identifier", "user", "event_id"}
)


class CassetteError(ValueError):
    """A file that is no cassette; says in which line."""


@attrs.frozen
class Part:
    """Something that the server sent.

    Attributes:
        after: Milliseconds since the request.
        payload: The message, or a part of a body.
    """

    after: float
    payload: str | bytes = attrs.field(repr=False)


@attrs.define(eq=False)
class Exchange:
    """A request and what was answered.

    Attributes:
        transport: The transport that it went over.
        method: Its method; that of the upgrade, over a WebSocket.
        path: Its target.
        body: The request: what its JSON says, or its text.
        lane: Its ``stream_id``.
        status: The answer's status; 101 over a WebSocket.
        headers: The answer's fields.
        parts: The answer's parts.
        complete: Whether the answer came to its end.
        end: The server's end of the WebSocket meanwhile: code and reason.
        uses: The number of times that it was replayed.
    """

    transport: Literal["websocket", "http"]
    method: str
    path: str
    body: Any = attrs.field(repr=False)
    lane: str | None = None
    status: int = 101
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    parts: list[Part] = attrs.field(factory=list)
    complete: bool = False
    end: tuple[int, str | None] | None = None
    uses: int = 0


@attrs.define(eq=False)
class Cassette:
    """The contents of a file.

    Attributes:
        exchanges: Requests with their answers, in order.
        upgrades: The answers to upgrades, in order: status, fields, body.
    """

    exchanges: list[Exchange] = attrs.field(factory=list)
    upgrades: list[tuple[int, dict[str, str], bytes]] = attrs.field(factory=list)

    def find(self, transport: str, path: str, body: Any, *, strict: bool) -> Exchange | None:
        """Return the first exchange that answers a request and was not used yet, and count it as used.

        Args:
            transport: ``websocket`` or ``http``.
            path: The target; over HTTP it has to be the same.
            body: The request's body.
            strict: Whether the body has to be the same, but for what changes from run to run.
        """
        for exchange in self.exchanges:
            if exchange.uses or exchange.transport != transport or (transport == "http" and exchange.path != path):
                continue
            if strict and difference(exchange.body, body) is not None:
                continue
            exchange.uses += 1
            return exchange
        return None

    def nearest(self, transport: str, body: Any) -> str:
        """Return why no exchange answers a request: where the one that comes nearest differs."""
        unused = [each for each in self.exchanges if not each.uses and each.transport == transport]
        if not unused:
            return f"the cassette holds no further request over {transport}"
        differences = [(difference(each.body, body) or (), each) for each in unused]
        path, _ = max(differences, key=lambda each: len(each[0]))
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return f"the nearest request of the cassette differs at {where or 'the whole'}"

    def unused(self) -> list[Exchange]:
        """Return what was not replayed."""
        return [exchange for exchange in self.exchanges if not exchange.uses]


def difference(recorded: Any, asked: Any, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """Return where two requests differ first; None where they do not."""
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        names = [*recorded, *(name for name in asked if name not in recorded)]
        for name in names:
            if not path and name in _CHANGING:
                continue
            if name not in recorded or name not in asked:
                return (*path, name)
            found = difference(recorded[name], asked[name], (*path, name))
            if found is not None:
                return found
        return None
    if isinstance(recorded, list) and isinstance(asked, list):
        for index, (first, second) in enumerate(zip(recorded, asked, strict=False)):
            found = difference(first, second, (*path, index))
            if found is not None:
                return found
        return None if len(recorded) == len(asked) else (*path, min(len(recorded), len(asked)))
    return None if recorded == asked and type(recorded) is type(asked) else path


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_cassette(lines: Iterable[str], name: str = "cassette") -> Cassette:
    """Read the lines of a file.

    Raises:
        CassetteError: it is no cassette, or of another version.
    """
    reader = _Reader()
    number = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if number == 1:
                if value.get("cassette") != FORMAT:
                    raise CassetteError(f"{name}:1: this is no cassette of version {FORMAT}")
            elif "cassette" not in value:  # what was added later begins with a line of its own
                reader.take(value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CassetteError):
                raise
            raise CassetteError(f"{name}:{number}: this is no line of a cassette") from None
    if not number:
        raise CassetteError(f"{name}: it is empty")
    return reader.cassette


@attrs.define
class _Connection:
    head: Mapping[str, Any]
    running: list[Exchange] = attrs.field(factory=list)
    began: dict[int, float] = attrs.field(factory=dict)
    accepted: bool = False


class _Reader:
    def __init__(self) -> None:
        self.cassette = Cassette()
        self._connections: dict[int, _Connection] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        number, at = line["connection"], float(line["at"])
        if line["kind"] == "open":
            self._connections[number] = _Connection(line)
            return
        connection = self._connections.get(number)
        if connection is None:
            return
        take = self._upgraded if connection.head.get("upgrade") else self._plain
        take(connection, line, at)

    def _plain(self, connection: _Connection, line: Mapping[str, Any], at: float) -> None:
        head = connection.head
        if not connection.running:
            exchange = Exchange("http", head["method"], head["path"], None)
            self._begin(connection, exchange, at)
        exchange = connection.running[0]
        match line["kind"]:
            case "in":
                exchange.body = _value(line)
                connection.began[id(exchange)] = at
            case "answer":
                exchange.status, exchange.headers = line["status"], dict(line.get("headers", {}))
            case "out":
                exchange.parts.append(Part(at - connection.began[id(exchange)], _payload(line)))
            case "end":
                exchange.complete = True
                connection.running.clear()

    def _upgraded(self, connection: _Connection, line: Mapping[str, Any], at: float) -> None:
        match line["kind"]:
            case "answer":
                connection.accepted = line["status"] == 101
                self.cassette.upgrades.append((line["status"], dict(line.get("headers", {})), b""))
            case "in":
                body = _value(line)
                if isinstance(body, dict) and body.get("type") == "response.create":
                    head = connection.head
                    exchange = Exchange("websocket", head["method"], head["path"], body, body.get("stream_id"))
                    self._begin(connection, exchange, at)
            case "out" if connection.accepted:
                self._heard(connection, line, at)
            case "out":
                status, headers, _ = self.cassette.upgrades[-1]
                body = _payload(line)
                self.cassette.upgrades[-1] = (status, headers, body if isinstance(body, bytes) else body.encode())
            case "end" if line.get("by") == "server":
                for exchange in connection.running:
                    exchange.end = line.get("code", 1006), line.get("reason")

    def _begin(self, connection: _Connection, exchange: Exchange, at: float) -> None:
        connection.running.append(exchange)
        connection.began[id(exchange)] = at
        self.cassette.exchanges.append(exchange)

    def _heard(self, connection: _Connection, line: Mapping[str, Any], at: float) -> None:
        event = line.get("json")
        lane = event.get("stream_id") if isinstance(event, dict) else None
        exchange = next((each for each in connection.running if each.lane == lane), None)
        if exchange is None:
            exchange = connection.running[0] if connection.running else None
        if exchange is None:
            return  # it belonged to no request
        exchange.parts.append(Part(at - connection.began[id(exchange)], _payload(line)))
        if isinstance(event, dict) and event.get("type") in _TERMINAL:
            exchange.complete = True
            connection.running.remove(exchange)


def _value(line: Mapping[str, Any]) -> Any:
    return line["json"] if "json" in line else line.get("text", line.get("base64"))


def _payload(line: Mapping[str, Any]) -> str | bytes:
    if "json" in line:
        return json.dumps(line["json"], separators=(",", ":"), ensure_ascii=False)
    return str(line["text"]) if "text" in line else base64.b64decode(line["base64"])
