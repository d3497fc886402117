"""One streamed answer over HTTP: a POST whose body is read as server-sent events while it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
import trio

from engine.protocol.failures import Failure, Lost, Rejected, Violated
from engine.protocol.refusals import refusal
from engine.transport.http import Post, read_body, read_refusal
from engine.wire.codec import MalformedFrame, encode, parse_object
from engine.wire.sse import OversizedEvent, SseDecoder, SseEvent

__all__ = ["stream_events"]

_DONE: Final = "[DONE]"
_TERMINALS: Final = {"completed": "response.completed", "incomplete": "response.incomplete"}


async def stream_events(
    post: Post, take: Callable[[Sequence[SseEvent]], bool], *, max_event_bytes: int
) -> Failure | None:
    """Send the request and hand on the events of its answer until the last.

    Args:
        post: The request.
        take: Is given the events that came in one piece, and returns whether that was the last of the response.
        max_event_bytes: The largest event that is accepted.

    Returns:
        None once ``take`` has said that it was the last; or why there will be none. A redirection is a refusal.

    If cancelled, the connection is closed at once.
    """
    try:
        async with post as response:
            if not response.is_success:
                return refusal(response.status_code, response.headers.multi_items(), await read_refusal(response))
            if _media_type(response) not in {"", "text/event-stream"}:
                return await _whole(response, take, max_event_bytes)
            return await _events(response, take, max_event_bytes)
    except Exception as error:
        return post.failure(error)


def _media_type(response: httpx.Response) -> str:
    value: str = response.headers.get("content-type", "")
    return value.partition(";")[0].strip().lower()


# An interrupt inside the loop would leave the generators that httpx reads through half-read.
@trio.lowlevel.enable_ki_protection
async def _events(response: httpx.Response, take: Callable[[Sequence[SseEvent]], bool], limit: int) -> Failure | None:
    decoder = SseDecoder(limit)
    over = False
    failure: Failure | None = None
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            if over:
                continue  # the next read raises
            try:
                events = decoder.feed(chunk)
            except OversizedEvent as oversized:
                over = take(oversized.before)
                failure = None if over else Violated(f"the server sent an event over {limit} bytes")
                over = True
            else:
                marked = next((place for place, event in enumerate(events) if event.data.startswith(_DONE)), None)
                over = take(events[:marked])
                if marked is not None and not over:
                    failure, over = Lost("the server ended the stream before the response had ended"), True
            if over:
                scope.cancel(reason="the response has ended")
    if over:
        return failure
    return Lost("the server ended the stream before the response had ended")


async def _whole(response: httpx.Response, take: Callable[[Sequence[SseEvent]], bool], limit: int) -> Failure | None:
    """Read an answer that is no stream: some servers answer in one piece whatever they are asked for."""
    body, complete = await read_body(response, limit)
    if not complete:
        return Violated(f"the server sent an answer over {limit} bytes")
    try:
        raw = parse_object(body.decode("utf-8", "replace"))
    except MalformedFrame:
        return Violated("the server answered with something else than a stream of events")
    event = _as_event(raw)
    if event is None:
        said = refusal(response.status_code, response.headers.multi_items(), body)
        return Rejected(None, said.code, said.type, said.param, said.message, said.retry_after)
    if take([SseEvent("", event)]):
        return None
    return Lost("the server ended the answer before the response had ended")


def _as_event(raw: dict[str, Any]) -> str | None:
    """Write a Response object as the event that would have ended its stream; None for anything else."""
    if raw.get("object") != "response":
        return None
    status = raw.get("status")
    kind = _TERMINALS.get(status, "response.failed") if isinstance(status, str) else "response.completed"
    return encode({"type": kind, "response": raw})
