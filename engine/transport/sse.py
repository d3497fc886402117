"""One streamed answer over HTTP: a POST whose body is read as server-sent events while it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from engine.protocol.failures import Failure, Lost, RequestRefused, Violated
from engine.protocol.refusals import refusal
from engine.transport.http import Answer, HttpRequest, read_body, read_refusal
from engine.wire.bundles import objects_in
from engine.wire.codec import SERVER_EVENT_CLASSES, MalformedFrame, encode, parse_object
from engine.wire.sse import BOM, OversizedEvent, SseDecoder, SseEvent

__all__ = ["stream_events"]

_DONE: Final = "[DONE]"
_STREAM: Final = "text/event-stream"
_LINES: Final = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_JSON: Final = (b"{", b"[")
_UNENDED: Final = {"queued", "in_progress"}
_TERMINALS: Final = {"completed": "response.completed", "incomplete": "response.incomplete"}


def _nothing() -> None:
    pass


async def stream_events(
    post: HttpRequest,
    take: Callable[[Sequence[SseEvent]], bool],
    *,
    max_event_bytes: int,
    on_comment: Callable[[], None] = _nothing,
) -> Failure | None:
    """Send the request and hand on the events of its answer until the last.

    Args:
        post: The request.
        take: Is given the events that came in one piece, and returns whether that was the last of the response.
        max_event_bytes: The largest event that is accepted.
        on_comment: Called when comments came, before `take`. They are progress: servers write them while they have
            nothing to say, because nothing else shows that they live.

    Returns:
        None once ``take`` has said that it was the last; or why there will be none. A redirection is a refusal.

    If cancelled, the connection is closed at once.
    """
    try:
        async with post as answer:
            if not answer.succeeds:
                return refusal(answer.status, answer.headers, await read_refusal(answer))
            first = await answer.read()
            if _streams(_media_type(answer), first.removeprefix(BOM).lstrip()):
                return await _events(answer, first, take, max_event_bytes, on_comment)
            return await _whole(answer, first, take, max_event_bytes)
    except Exception as error:
        return post.failure(error)


def _media_type(answer: Answer) -> str:
    return answer.field("content-type").partition(";")[0].strip().lower()


def _streams(media_type: str, beginning: bytes) -> bool:
    """Whether a body is a stream, by its media type as far as its beginning does not say otherwise.

    Frameworks that are told nothing call a stream plain text, or HTML; and servers that have announced a stream may
    answer with an error, or with the whole response, as plain JSON.
    """
    if media_type in {"", _STREAM}:
        return not beginning.startswith(_JSON)
    return beginning.startswith(_LINES)


async def _events(
    answer: Answer,
    first: bytes,
    take: Callable[[Sequence[SseEvent]], bool],
    limit: int,
    on_comment: Callable[[], None],
) -> Failure | None:
    decoder = SseDecoder(limit)
    comments, data = 0, first
    while data:
        try:
            events = decoder.feed(data)
        except OversizedEvent as oversized:
            return None if take(oversized.before) else Violated(f"the server sent an event over {limit} bytes")
        if decoder.comments != comments:
            comments = decoder.comments
            on_comment()
        marked = next((place for place, event in enumerate(events) if event.data.startswith(_DONE)), None)
        if take(events[:marked]):
            answer.release()
            return None
        if marked is not None:
            break
        data = await answer.read()
    return Lost("the server ended the stream before the response had ended")


async def _whole(
    answer: Answer, first: bytes, take: Callable[[Sequence[SseEvent]], bool], limit: int
) -> Failure | None:
    """Read an answer that is no stream: some servers answer in one piece whatever they are asked for."""
    rest, complete = await read_body(answer, limit - len(first))
    if not complete:
        return Violated(f"the server sent an answer over {limit} bytes")
    body = (first + rest).removeprefix(BOM)
    text = body.decode("utf-8", "replace")
    try:
        raw = parse_object(text)
    except MalformedFrame:
        if not objects_in(text):
            return Violated("the server answered with something else than a stream of events")
        event: str | None = text  # one event a line
    else:
        event = _as_event(raw)
        if event is not None and raw.get("status") in _UNENDED:
            return Violated("the server answered with a response that has not ended")
    if event is None:
        said = refusal(answer.status, answer.headers, body)
        if said.code is None and said.type is None and not said.message:
            return Violated("the server answered with JSON that is neither a response nor an error")
        return RequestRefused(None, said.code, said.type, said.param, said.message, said.retry_after)
    if take([SseEvent("", event)]):
        return None
    return Lost("the server ended the answer before the response had ended")


def _as_event(raw: dict[str, Any]) -> str | None:
    """Write a Response object as the event that would have ended its stream, and an event as it is.

    None for anything else, errors included.
    """
    kind = raw.get("type")
    if isinstance(kind, str) and kind != "error" and kind in SERVER_EVENT_CLASSES:
        return encode(raw)
    if raw.get("object", "response") != "response" or ("object" not in raw and not isinstance(raw.get("output"), list)):
        return None
    status = raw.get("status")
    kind = _TERMINALS.get(status, "response.failed") if isinstance(status, str) else "response.completed"
    return encode({"type": kind, "response": raw})
