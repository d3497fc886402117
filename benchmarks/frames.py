"""Answers as bytes, encoded once: what the load source replays.

Every id and every nonce has a fixed width, so that one `bytes.replace` gives each answer ids of its own without any
length in it changing. A *model* names the answer it wants:

- ``deltas-SIZE-COUNT``: that many text deltas whose events are SIZE bytes long, and four events that repeat the text;
- ``brief-SIZE-COUNT``: the same without those: the end says no more than that it is the end;
- ``answer``: a short, whole turn (nine events);
- ``paced-MS-COUNT``: deltas, one every MS milliseconds;
- ``tools-COUNT-BYTES``: a call of the function ``lookup`` until COUNT outputs are there; arguments of BYTES bytes;
- ``silence``: ``response.created``, and nothing more;
- ``mute``: nothing at all.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from attrs import frozen

__all__ = [
    "BRIEF_EVENTS_AROUND",
    "EVENTS_AROUND",
    "Answer",
    "Wire",
    "answer_for",
    "event_texts",
    "labelled",
    "personal",
]

Wire = Literal["websocket", "sse"]

_ID: Final = "id0000000000"
_NONCE: Final = "nonce-0000000000"
EVENTS_AROUND: Final = 8
"""Events of a ``deltas`` or ``paced`` answer that are no deltas."""
BRIEF_EVENTS_AROUND: Final = 5
"""Events of a ``brief`` answer that are no deltas."""


@frozen
class Answer:
    """One encoded answer.

    Attributes:
        head: The part that is sent at once.
        paced: The pieces that follow.
        pause: Seconds before each of those pieces.
    """

    head: bytes
    paced: tuple[bytes, ...] = ()
    pause: float = 0.0


def _response(status: str, output: list[Any]) -> dict[str, Any]:
    done = status == "completed"
    return {
        "id": f"resp_{_ID}",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "replayed",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 40,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 60,
        }
        if done
        else None,
        "metadata": {},
    }


def _delta(text: str) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "item_id": f"msg_{_ID}",
        "output_index": 0,
        "content_index": 0,
        "delta": text,
        "logprobs": [],
    }


def _filled(size: int) -> str:
    """The text that makes a delta's event about ``size`` bytes long, its number included."""
    bare = len(_dumps(_delta("") | {"sequence_number": 1000}))
    words = "the quick brown fox jumps over the lazy dog and goes on "
    missing = max(size - bare, 4)
    return (words * (missing // len(words) + 1))[:missing]


def _message_events(deltas: list[str], *, brief: bool = False) -> Iterator[dict[str, Any]]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": f"msg_{_ID}", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    place = {"item_id": f"msg_{_ID}", "output_index": 0, "content_index": 0}
    text = "".join(deltas)
    whole = part | {"text": text}
    done = item | {"status": "completed", "content": [whole]}
    yield {"type": "response.created", "response": _response("in_progress", [])}
    yield {"type": "response.in_progress", "response": _response("in_progress", [])}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **place, "part": part}
    for each in deltas:
        yield _delta(each)
    if brief:
        yield {"type": "response.completed", "response": _response("completed", [])}
        return
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": whole}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    yield {"type": "response.completed", "response": _response("completed", [done])}


def _call_events(size: int) -> Iterator[dict[str, Any]]:
    arguments = json.dumps({"key": "k" * max(size - 10, 1)})
    item = {
        "id": f"fc_{_ID}",
        "type": "function_call",
        "status": "in_progress",
        "call_id": f"call_{_ID}",
        "name": "lookup",
        "arguments": "",
    }
    done = item | {"status": "completed", "arguments": arguments}
    place = {"item_id": f"fc_{_ID}", "output_index": 0}
    yield {"type": "response.created", "response": _response("in_progress", [])}
    yield {"type": "response.in_progress", "response": _response("in_progress", [])}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    yield {"type": "response.completed", "response": _response("completed", [done])}


def _dumps(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def _numbered(events: Iterator[dict[str, Any]]) -> list[str]:
    return [_dumps(event | {"sequence_number": number}) for number, event in enumerate(events)]


@functools.cache
def event_texts(model: str, *, calling: bool = False) -> tuple[str, ...]:
    """The events of one answer as JSON texts."""
    kind, *numbers = model.split("-")
    if kind in {"deltas", "brief"}:
        size, count = int(numbers[0]), int(numbers[1])
        return tuple(_numbered(_message_events([_filled(size)] * count, brief=kind == "brief")))
    if kind == "paced":
        return tuple(_numbered(_message_events([f"{_NONCE} "] * int(numbers[1]))))
    if kind == "tools" and calling:
        return tuple(_numbered(_call_events(int(numbers[1]))))
    if kind == "mute":
        return ()
    if kind == "silence":
        return tuple(_numbered(_message_events([])))[:1]
    return tuple(_numbered(_message_events([f"{_NONCE}"])))


def _framed(text: str, wire: Wire) -> bytes:
    payload = text.encode()
    size = len(payload)
    if wire == "websocket":  # RFC 6455 section 5.2: final, text, unmasked
        if size < 126:
            return bytes((0x81, size)) + payload
        if size < 65536:
            return b"\x81\x7e" + size.to_bytes(2, "big") + payload
        return b"\x81\x7f" + size.to_bytes(8, "big") + payload
    data = b"event: " + json.loads(text)["type"].encode() + b"\ndata: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)  # one chunk for each event (RFC 9112 section 7.1)


_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_replayed\r\ntransfer-encoding: chunked\r\n\r\n"
)


@functools.lru_cache(maxsize=64)
def labelled(model: str, lane: str, slices: int) -> tuple[bytes, ...]:
    """An answer on a named lane, so many events at a time, with the ids still to be filled in by `personal`."""
    label = ',"stream_id":' + json.dumps(lane) + "}"
    frames = [_framed(text.removesuffix("}") + label, "websocket") for text in event_texts(model)]
    return tuple(b"".join(frames[at : at + slices]) for at in range(0, len(frames), slices))


@functools.cache
def answer_for(model: str, wire: Wire, *, calling: bool = False) -> Answer:
    """The encoded answer, with the ids still to be filled in by `personal`."""
    pieces = [_framed(text, wire) for text in event_texts(model, calling=calling)]
    start = _SSE_HEAD if wire == "sse" else b""
    end = b"0\r\n\r\n" if wire == "sse" and model not in {"silence", "mute"} else b""
    if not model.startswith("paced-"):
        return Answer(start + b"".join(pieces) + end)
    first, rest = pieces[:4], pieces[4:]
    rest[-4:] = [b"".join(rest[-4:]) + end]
    return Answer(start + b"".join(first), tuple(rest), int(model.split("-")[1]) / 1000)


def personal(encoded: bytes, number: int, nonce: bytes | None) -> bytes:
    """Give an answer, or a piece of one, the ids of this response, and the nonce of its request."""
    encoded = encoded.replace(_ID.encode(), b"id%010d" % number)
    return encoded if nonce is None else encoded.replace(_NONCE.encode(), nonce)
