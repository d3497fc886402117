"""Frames that are not one JSON object, and are read all the same."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import Abandon, Answer, Raw, Script
from engine.wire.bundles import objects_in
from engine.wire.codec import MalformedFrame, decode, read_frame
from engine.wire.events import Chunks

A: Final[dict[str, Any]] = {"type": "a"}
B: Final[dict[str, Any]] = {"type": "b", "text": "data: [DONE]\n"}
BUNDLES: Final = {
    "a byte order mark": ("\ufeff" + json.dumps(A), [A]),
    "a list": (json.dumps([A, B]), [A, B]),
    "lines": (json.dumps(A) + "\n" + json.dumps(B) + "\r\n", [A, B]),
    "lines of a stream": (
        f"event: a\nid: 7\ndata: {json.dumps(A)}\n\n: ping\nretry: 5\ndata:{json.dumps(B)}\n\n",
        [A, B],
    ),
    "the end of a stream": (f"data: {json.dumps(A)}\n\ndata: [DONE]\n\n", [A]),
    "a mark before a list": ("\ufeff" + json.dumps([A]), [A]),
}
OTHERS: Final = [
    "",
    "[]",
    "ping",
    "[DONE]",
    "data: [DONE]",
    "null",
    "7",
    '"{}"',
    "[[]]",
    json.dumps(A) + "\nno JSON",
    "[",
]


@pytest.mark.parametrize(("text", "objects"), BUNDLES.values(), ids=BUNDLES)
def test_bundles(text: str, objects: list[dict[str, Any]]) -> None:
    assert objects_in(text) == objects
    assert read_frame(text) == (objects[0] if len(objects) == 1 else {"chunks": objects})
    if len(objects) > 1:
        event = decode(text)
        assert isinstance(event, Chunks)
        assert [each.type for each in event.events] == ["a", "b"]


@pytest.mark.parametrize("text", [*OTHERS, "[" * 100_000, "data: " + "[" * 100_000])
def test_what_is_no_bundle(text: str) -> None:
    assert objects_in(text) == []
    with pytest.raises(MalformedFrame) as caught:
        read_frame(text)
    assert caught.value.__context__ is None or text not in str(caught.value.__context__)


CREATED: Final = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}}
DELTA: Final = {
    "type": "response.output_text.delta",
    "item_id": "m",
    "output_index": 0,
    "content_index": 0,
    "delta": "fine",
}
DONE: Final = {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}}
FRAMES: Final = {
    "marks": ["\ufeff" + json.dumps(event) for event in (CREATED, DELTA, DONE)],
    "one list": [json.dumps([CREATED, DELTA, DONE])],
    "lines": ["\n".join(map(json.dumps, (CREATED, DELTA, DONE)))],
    "a stream": [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (CREATED, DELTA, DONE)],
    "blank lanes": [json.dumps({**event, "stream_id": ""}) for event in (CREATED, DELTA, DONE)],
}


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES)
async def test_an_answer_in_odd_frames(
    autojump_clock: MockClock, frames: list[str], transport: engine.Transport
) -> None:
    script = Script([[*map(Raw, frames), Abandon()], Answer("next")])
    async with session_to(script, transport=transport) as (session, _):
        assert (await session.ask("go")).text == "fine"
        assert (await session.ask("go on")).text == "next"


async def test_over_http_the_name_of_a_lane_means_nothing(autojump_clock: MockClock) -> None:
    """As where the events of another's WebSocket are passed on."""
    frames = [json.dumps({**event, "stream_id": "lane-7"}) for event in (CREATED, DELTA, DONE)]
    script = Script([[*map(Raw, frames), Abandon()]])
    async with session_to(script, transport=engine.Transport.SSE) as (session, _):
        assert (await session.ask("go")).text == "fine"
