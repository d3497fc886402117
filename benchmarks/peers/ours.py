"""This library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import engine
from benchmarks.peers import Target, Unavailable, trusting

__all__ = ["asking", "endpoint_of", "iterating", "options_of", "over_http"]

_INSTRUCTIONS = "You are asked to look things up, and you do."


def endpoint_of(target: Target) -> engine.Endpoint:
    """The endpoint, with the server's certificate trusted."""
    context = trusting(target.ca) if target.ca is not None else None
    return engine.Endpoint(target.base_url, "sk-benchmark", ssl_context=context, profile="openai")


def options_of(target: Target) -> dict[str, Any]:
    """The arguments of `engine.open_session`."""
    options = dict(target.options)
    if "timeouts" in options:
        options["timeouts"] = engine.Timeouts(**options["timeouts"])
    if "limits" in options:
        options["limits"] = engine.Limits(**options["limits"])
    if "on_cancel" in options:
        options["on_cancel"] = engine.OnCancel(options["on_cancel"])
    options.pop("full", None)
    options.pop("reopen", None)
    options.pop("keeping", None)  # it always does
    return options


class Iterating:
    """A session whose events are iterated."""

    def __init__(
        self, session: engine.Session, *, full: bool = False, transport: engine.Transport | None = None
    ) -> None:
        self._session = session
        self._full = full
        self._options: dict[str, Any] = {} if transport is None else {"transport": transport}

    async def turn(self, prompt: str) -> int:
        events = 0
        async with self._session.turn(prompt, **self._options) as turn:
            async for _ in turn:
                events += 1
        return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        async with self._session.turn(prompt, **self._options) as turn:
            async for event in turn:
                notice(event.delta if isinstance(event, engine.TextDelta) else "")

    async def tools(self, count: int, size: int) -> int:
        output = "o" * size
        tool = engine.Tool("lookup", "Look a key up.", {"type": "object", "properties": {"key": {"type": "string"}}})
        messages: list[Any] = [engine.UserMessage("Look them all up.")]
        requests = 0
        while True:
            # A field that is new each time and not known to be neutral breaks the chain, so that all is sent.
            extra = {"benchmark": requests} if self._full else {}
            context = engine.Context(instructions=_INSTRUCTIONS, messages=messages, tools=[tool])
            async with self._session.turn(context, engine.TurnOptions(extra=extra), **self._options) as turn:
                async for _ in turn:
                    pass
                reply = turn.message
                assert self._options or requests == 0 or turn.report.continued is not self._full
            requests += 1
            messages = [*messages, reply]
            if not reply.tool_calls:
                return requests
            messages += [engine.ToolResult(call.call_id, output) for call in reply.tool_calls]


class Asking(Iterating):
    """A session that is asked for whole answers."""

    async def turn(self, prompt: str) -> int:
        await self._session.ask(prompt)
        return 0


@asynccontextmanager
async def _opened(
    target: Target, kind: type[Iterating], transport: engine.Transport | None
) -> AsyncIterator[Iterating]:
    session = engine.open_session(endpoint_of(target), model=target.model, **options_of(target))
    async with session as opened:
        try:
            opened.turn("Hello.", transport=transport)
        except engine.ConfigurationError:
            raise Unavailable("turns over HTTP are not available in this version") from None
        yield kind(opened, full=bool(target.options.get("full")), transport=transport)


def iterating(target: Target) -> Any:
    """Open a session whose events are iterated."""
    return _opened(target, Iterating, None)


def asking(target: Target) -> Any:
    """Open a session that is asked for whole answers."""
    return _opened(target, Asking, None)


def over_http(target: Target) -> Any:
    """Open a session that travels over HTTP."""
    return _opened(target, Iterating, engine.Transport.SSE)
