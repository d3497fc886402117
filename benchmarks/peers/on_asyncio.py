"""Clients that run on asyncio, used the way their own documentation uses them."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers import TERMINALS, Target, trusting
from benchmarks.peers.on_trio import BareSocket

__all__ = ["httpx_sse", "openai_agents", "openai_connection", "openai_http", "openai_session", "over_websockets"]

_TOOL = {
    "type": "function",
    "name": "lookup",
    "description": "Look a key up.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    "strict": False,
}
_INSTRUCTIONS = "You are asked to look things up, and you do."


def _context(target: Target) -> ssl.SSLContext | None:
    return trusting(target.ca) if target.ca is not None else None


def _input(prompt: str) -> list[Any]:
    return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}]


def _delta_of(event: Any) -> str:
    return str(event.delta) if event.type == "response.output_text.delta" else ""


@asynccontextmanager
async def over_websockets(target: Target) -> AsyncIterator[BareSocket]:
    """websockets' asyncio client, and nothing over it."""
    from websockets.asyncio.client import connect

    async with connect(
        target.websocket_url,
        ssl=_context(target),
        additional_headers={"Authorization": "Bearer sk-benchmark"},
        compression=None,
        max_size=None,
        close_timeout=2,
    ) as socket:
        yield BareSocket(socket.send, socket.recv, target.model, keeping=target.keeping)


@asynccontextmanager
async def _openai(target: Target) -> AsyncIterator[Any]:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    async with AsyncOpenAI(
        base_url=target.base_url,
        api_key="sk-benchmark",
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(verify=trusting(target.ca)),
    ) as client:
        yield client


def _connect_options(target: Target) -> Any:
    options: dict[str, Any] = {"max_size": None, "close_timeout": 2}
    if target.ca is not None:
        options["ssl"] = _context(target)
    return options


class _OpenAIConnection:
    def __init__(self, connection: Any, model: str) -> None:
        self._connection = connection
        self._model = model

    async def turn(self, prompt: str) -> int:
        await self._connection.response.create(model=self._model, input=_input(prompt), store=False)
        events = 0
        async for event in self._connection:
            events += 1
            if event.type in TERMINALS:
                break
        return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        await self._connection.response.create(model=self._model, input=_input(prompt), store=False)
        async for event in self._connection:
            notice(_delta_of(event))
            if event.type in TERMINALS:
                return

    async def tools(self, count: int, size: int) -> int:
        given: list[Any] = _input("Look them all up.")
        previous: dict[str, Any] = {}
        requests = 0
        while True:
            await self._connection.response.create(
                model=self._model, instructions=_INSTRUCTIONS, input=given, tools=[_TOOL], store=False, **previous
            )
            async for event in self._connection:
                if event.type in TERMINALS:
                    break
            requests += 1
            previous = {"previous_response_id": event.response.id}
            given = [
                {"type": "function_call_output", "call_id": item.call_id, "output": "o" * size}
                for item in event.response.output
                if item.type == "function_call"
            ]
            if not given:
                return requests


@asynccontextmanager
async def openai_connection(target: Target) -> AsyncIterator[_OpenAIConnection]:
    """``client.responses.connect()``."""
    async with (
        _openai(target) as client,
        client.responses.connect(websocket_connection_options=_connect_options(target)) as connection,
    ):
        yield _OpenAIConnection(connection, target.model)


class _OpenAISession:
    def __init__(self, session: Any, model: str) -> None:
        self._lane = session.default
        self._model = model

    async def _ask(self, prompt: str) -> None:
        body = {"type": "response.create", "model": self._model, "input": _input(prompt), "store": False}
        await self._lane.send(body)

    async def turn(self, prompt: str) -> int:
        await self._ask(prompt)
        events = 0
        while True:
            event = await self._lane.recv()
            events += 1
            if event.type in TERMINALS:
                return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        await self._ask(prompt)
        while True:
            event = await self._lane.recv()
            notice(_delta_of(event))
            if event.type in TERMINALS:
                return

    async def tools(self, count: int, size: int) -> int:
        raise NotImplementedError


@asynccontextmanager
async def openai_session(target: Target) -> AsyncIterator[_OpenAISession]:
    """``AsyncResponsesWebSocketSession``, on its default lane."""
    from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketLimits

    limits = ResponsesWebSocketLimits(
        max_lanes=8,
        max_events_per_lane=1 << 20,
        max_events=1 << 20,
        max_bytes_per_lane=1 << 30,
        max_bytes=1 << 30,
        max_response_bytes=None,
    )
    async with (
        _openai(target) as client,
        client.responses.connect(websocket_connection_options=_connect_options(target)) as connection,
        AsyncResponsesWebSocketSession(connection, limits=limits) as session,
    ):
        yield _OpenAISession(session, target.model)


class _Agents:
    def __init__(self, model: Any) -> None:
        from agents import ModelSettings, ModelTracing

        self._model = model
        self._settings = ModelSettings(store=False)
        self._tracing = ModelTracing.DISABLED

    def _stream(self, prompt: str) -> Any:
        return self._model.stream_response(
            None,
            _input(prompt),
            self._settings,
            [],
            None,
            [],
            self._tracing,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        )

    async def turn(self, prompt: str) -> int:
        events = 0
        async for _ in self._stream(prompt):
            events += 1
        return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        async for event in self._stream(prompt):
            notice(_delta_of(event))

    async def tools(self, count: int, size: int) -> int:
        raise NotImplementedError


@asynccontextmanager
async def openai_agents(target: Target) -> AsyncIterator[_Agents]:
    """The WebSocket model of openai-agents, without the agent loop over it."""
    import agents
    from agents.models.openai_responses import OpenAIResponsesWSModel

    agents.set_tracing_disabled(True)
    logging.getLogger("openai.agents").setLevel(logging.CRITICAL)
    async with _openai(target) as client:
        model = OpenAIResponsesWSModel(target.model, client)
        try:
            yield _Agents(model)
        finally:
            await model.close()


class _OpenAIHttp:
    def __init__(self, client: Any, model: str) -> None:
        self._client = client
        self._model = model

    async def turn(self, prompt: str) -> int:
        events = 0
        stream = await self._client.responses.create(model=self._model, input=_input(prompt), store=False, stream=True)
        async for _ in stream:
            events += 1
        return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        stream = await self._client.responses.create(model=self._model, input=_input(prompt), store=False, stream=True)
        async with stream:
            async for event in stream:
                notice(_delta_of(event))

    async def tools(self, count: int, size: int) -> int:
        given: list[Any] = _input("Look them all up.")
        requests = 0
        while True:
            stream = await self._client.responses.create(
                model=self._model, instructions=_INSTRUCTIONS, input=given, tools=[_TOOL], store=False, stream=True
            )
            last: Any = None
            async for event in stream:
                last = event
            requests += 1
            calls = [item for item in last.response.output if item.type == "function_call"]
            if not calls:
                return requests
            for call in calls:
                given.append(call.model_dump(exclude_none=True))
                given.append({"type": "function_call_output", "call_id": call.call_id, "output": "o" * size})


@asynccontextmanager
async def openai_http(target: Target) -> AsyncIterator[_OpenAIHttp]:
    """``client.responses.create(stream=True)``."""
    async with _openai(target) as client:
        yield _OpenAIHttp(client, target.model)


class _HttpxSse:
    def __init__(self, client: Any, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model

    async def _events(self, prompt: str) -> AsyncIterator[Any]:
        body = {"model": self._model, "store": False, "stream": True, "input": _input(prompt)}
        async with self._client.stream("POST", self._url, json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    async def turn(self, prompt: str) -> int:
        events = 0
        async for _ in self._events(prompt):
            events += 1
        return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        async for event in self._events(prompt):
            notice(event["delta"] if event["type"] == "response.output_text.delta" else "")

    async def tools(self, count: int, size: int) -> int:
        raise NotImplementedError


@asynccontextmanager
async def httpx_sse(target: Target) -> AsyncIterator[_HttpxSse]:
    """httpx, line by line."""
    import httpx

    async with httpx.AsyncClient(
        headers={"authorization": "Bearer sk-benchmark"}, timeout=None, verify=trusting(target.ca), trust_env=False
    ) as client:
        yield _HttpxSse(client, target.base_url + "/responses", target.model)
