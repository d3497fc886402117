"""Bare clients for the simulator: trio-websocket over its dialer, and HTTP written by hand. Every event is checked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import attrs
import h11
import trio
import trio_websocket
from openai.types.responses import ResponsesServerEvent, ResponseStreamEvent

from engine.simulator import Simulator

TERMINALS = {"response.completed", "response.incomplete", "response.failed", "response.done", "error"}
KEY = b"Bearer sk-simulator"


def classes_of(union: Any) -> dict[str, Any]:
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in get_args(get_args(union)[0])}


WEBSOCKET_CLASSES = classes_of(ResponsesServerEvent)
STREAM_CLASSES = classes_of(ResponseStreamEvent)


def check_event(event: Mapping[str, Any], *, websocket: bool = True) -> None:
    """Fail unless the official types know this event and find every required field in it."""
    classes = WEBSOCKET_CLASSES if websocket else STREAM_CLASSES
    classes[event["type"]].model_validate(event)


class Peer:
    """One WebSocket of a client."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, *, check: bool) -> None:
        self.socket = socket
        self.check = check

    async def send(self, event: Any) -> None:
        await self.socket.send_message(event if isinstance(event, (str, bytes)) else json.dumps(event))

    async def create(self, input: Any = "hi", **body: Any) -> None:  # noqa: A002 - the wire's name
        event = {"type": "response.create", "model": "gpt-6-test", "input": input, **body}
        await self.send({name: value for name, value in event.items() if value is not ...})

    async def recv(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.socket.get_message())
        if self.check:
            check_event(event)
        return event

    async def until(self, *kinds: str) -> list[dict[str, Any]]:
        """Return events up to the first whose type is one of these."""
        events = [await self.recv()]
        while events[-1].get("type") not in kinds:
            events.append(await self.recv())
        return events

    async def turn(self, input: Any = "hi", **body: Any) -> list[dict[str, Any]]:  # noqa: A002
        await self.create(input, **body)
        return await self.until(*TERMINALS)

    async def ask(self, input: Any = "hi", **body: Any) -> dict[str, Any]:  # noqa: A002
        """Return the response of the terminal; fails on an error."""
        last = (await self.turn(input, **body))[-1]
        assert last["type"] != "error", last
        response: dict[str, Any] = last["response"]
        return response

    async def closed(self) -> trio_websocket.CloseReason:
        """Wait for the end of the connection and return why."""
        while True:
            try:
                await self.socket.get_message()
            except trio_websocket.ConnectionClosed:
                reason = self.socket.closed
                assert reason is not None
                return reason


@asynccontextmanager
async def connect(
    sim: Simulator,
    *,
    path: str = "/v1/responses",
    key: bytes | None = KEY,
    check: bool = True,
    size: int = 1 << 26,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> AsyncIterator[Peer]:
    stream = await sim.dialer.open_tcp(sim.host, sim.port)
    try:
        async with trio.open_nursery() as nursery:
            fields = [*headers, *([] if key is None else [(b"Authorization", key)])]
            socket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]
                "simulator",
                path,
                extra_headers=fields,
                max_message_size=size,
            )
            yield Peer(socket, check=check)
            with trio.move_on_after(1):
                await socket.aclose()
            nursery.cancel_scope.cancel(reason="done")
    finally:
        await trio.aclose_forcefully(stream)


@attrs.define
class HttpAnswer:
    status: int
    headers: dict[str, str]
    content: bytes
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def data(self) -> list[str]:
        text = self.content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode()
        return [line[6:] for line in text.split("\n") if line.startswith("data: ")]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]


async def request(
    stream: trio.abc.Stream,
    method: str,
    path: str,
    content: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    key: bytes | None = KEY,
) -> HttpAnswer:
    """Send one HTTP request and return the answer, or what came of it before the connection ended."""
    connection = h11.Connection(h11.CLIENT)
    fields: list[tuple[str, Any]] = [("host", "simulator"), ("content-length", str(len(content)))]
    if key is not None:
        fields.append(("authorization", key))
    fields += list((headers or {}).items())
    wire = connection.send(h11.Request(method=method, target=path, headers=fields)) or b""
    wire += connection.send(h11.Data(data=content)) or b""
    wire += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(wire)
    answer = HttpAnswer(0, {}, b"", complete=False)
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())  # type: ignore[arg-type]
                continue
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return answer
        match event:
            case h11.Response():
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            case h11.Data():
                answer.content += event.data
            case h11.EndOfMessage():
                answer.complete = True
                return answer
            case h11.ConnectionClosed():
                return answer


async def fetch(sim: Simulator, method: str, path: str, body: Any = None, **options: Any) -> HttpAnswer:
    """Send one HTTP request on a connection of its own."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    stream = await sim.dialer.open_tcp(sim.host, sim.port)
    try:
        return await request(stream, method, path, content, **options)
    finally:
        await trio.aclose_forcefully(stream)


async def post(sim: Simulator, input: Any = "hi", **body: Any) -> HttpAnswer:  # noqa: A002
    return await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": input, **body})


async def stream(sim: Simulator, input: Any = "hi", *, check: bool = True, **body: Any) -> HttpAnswer:  # noqa: A002
    answer = await post(sim, input, stream=True, **body)
    if check:
        for event in answer.events:
            check_event(event, websocket=False)
    return answer


def text_of(response: Mapping[str, Any]) -> str:
    return "".join(
        part.get("text", part.get("refusal", ""))
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


FUNCTION = {
    "type": "function",
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    "strict": False,
}
CUSTOM = {"type": "custom", "name": "shout"}
