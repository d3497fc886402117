"""Text to events and back: nothing is lost, nothing escapes but `MalformedFrame`."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.wire.bundles import objects_in
from engine.wire.codec import SERVER_EVENT_CLASSES, MalformedFrame, decode, decode_client_event, encode
from engine.wire.events import LifecycleEvent, OutputTextDelta, ServerEvent, UnknownEvent
from engine.wire.items import ITEM_CLASSES, structure_item
from engine.wire.requests import (
    ResponseCreate,
    ResponseInject,
    ResponseSteer,
    UnknownClientEvent,
    is_stream_id,
    structure_client_event,
)

DELTA = '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hé","new":{"a":[1]}}'

same_examples = settings(derandomize=True, deadline=None)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
names = st.sampled_from(
    [
        "output_index",
        "content_index",
        "summary_index",
        "command_index",
        "item_id",
        "delta",
        "text",
        "item",
        "part",
        "response",
        "error",
        "headers",
        "chunks",
        "steer",
        "response_id",
        "annotation",
        "code",
        "status",
        "metadata",
        "previous_response_id",
        "input",
    ]
)
objects = st.dictionaries(names | st.text(), values | st.builds(dict, type=st.sampled_from(sorted(ITEM_CLASSES))))
events = st.builds(
    lambda members, wire_type: {**members, "type": wire_type},
    objects,
    st.sampled_from(sorted(SERVER_EVENT_CLASSES)) | st.text(min_size=1),
)


def read_everything(value: Any) -> None:
    """Read every attribute: none may raise, whatever the object holds."""
    for name in dir(value):
        if not name.startswith("__"):
            getattr(value, name)


@same_examples
@given(events)
@example({"type": "response.completed", "response": {"output": [{"type": "message"}]}})
def test_any_event_survives_a_round_trip(raw: dict[str, Any]) -> None:
    event = decode(json.dumps(raw))
    assert isinstance(event, ServerEvent)
    assert json.loads(encode(event)) == raw
    read_everything(event)
    if isinstance(event, LifecycleEvent):
        read_everything(event.response)


@same_examples
@given(objects, st.sampled_from([*ITEM_CLASSES, None]))
def test_any_item_survives_a_round_trip(members: dict[str, Any], wire_type: str | None) -> None:
    raw = {**members, "type": wire_type}
    item = structure_item(raw)
    assert json.loads(encode(item)) == raw
    read_everything(item)


@same_examples
@given(values.map(json.dumps) | st.text() | objects.map(json.dumps))
@example('{"type":[]}')
@example('{"type":{},"error":{}}')
@example("")
@example("\ufeff{}")
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("1" * 5000)
@example('{"type":"keepalive","n":' + "1" * 5000 + "}")
def test_any_text_is_an_event_or_malformed(text: str) -> None:
    try:
        event = decode(text)
    except MalformedFrame:
        pass
    else:
        assert isinstance(event, ServerEvent)
        several = objects_in(text)
        assert event.raw == ({"chunks": several} if len(several) > 1 else several[0] if several else json.loads(text))
    try:
        request = decode_client_event(text)
    except MalformedFrame:
        pass
    else:
        assert request.to_wire() == json.loads(text)


@same_examples
@given(objects, st.sampled_from(["response.create", "response.steer", "response.inject", "response.append", None, 3]))
def test_any_client_event_survives_a_round_trip(members: dict[str, Any], wire_type: Any) -> None:
    raw = {**members, "type": wire_type}
    assert json.loads(encode(decode_client_event(json.dumps(raw)))) == raw


@pytest.mark.parametrize("text", [f" {DELTA}", f"{DELTA}\n", f"\r\n\t{DELTA} "])
def test_white_space_around_the_object(text: str) -> None:
    assert decode(text) == decode(DELTA)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("s3cret", "not JSON"),
        ('{"type":"keepalive"', "not JSON"),
        ('{"type":"keepalive"} s3cret', "not JSON"),
        ('{"type":"keepalive"}{}', "not JSON"),
        ('{"type":"keepalive","n":NaN}', "not JSON"),
        ('{"type":"keepalive","n":-Infinity}', "not JSON"),
        ("[]", "not an object"),
        ('"s3cret"', "not an object"),
        ("null", "not an object"),
        ("{}", "no type"),
        ('{"type":null}', "no type"),
        ('{"type":""}', "no type"),
        ('{"type":["s3cret"]}', "no type"),
        ('{"type":3,"error":{}}', "no type"),
        ('{"error":null}', "no type"),
        ('{"chunks":"s3cret"}', "no type"),
        ('{"type":"keepalive","a":' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deep"),
    ],
)
def test_malformed_frames_say_why_and_nothing_else(text: str, reason: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode(text)
    assert caught.value.reason == str(caught.value) == reason
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))


def test_a_known_and_an_unknown_event_keep_members_and_their_order() -> None:
    assert encode(decode(DELTA)) == DELTA
    novelty = DELTA.replace("output_text.delta", "novelty")
    event = decode(novelty)
    assert type(event) is UnknownEvent
    assert encode(event) == novelty


def test_the_first_and_later_events_of_a_type_are_alike() -> None:
    first, second = decode(DELTA), decode(DELTA)
    assert isinstance(first, OutputTextDelta)
    assert first == second
    assert (first.delta, first.output_index, first.content_index) == ("Hé", 0, 0)


@pytest.mark.parametrize("half", ["\\ud83d", "\\udE00", "a\\ud83db"])
def test_half_a_character_is_sent_as_the_one_that_stands_for_it(half: str) -> None:
    encoded = encode(decode(f'{{"type":"novelty","{half}":"é{half}"}}'))
    shown = half.replace("\\ud83d", "\ufffd").replace("\\udE00", "\ufffd")
    assert json.loads(encoded.encode("utf-8")) == {"type": "novelty", shown: f"é{shown}"}


def test_halves_that_meet_are_one_character() -> None:
    assert encode({"text": "\ud83d" + "\ude00"}) == '{"text":"\U0001f600"}'


def test_whole_surrogate_pairs_become_one_character() -> None:
    assert encode(decode('{"type":"\\ud83d\\ude00"}')) == '{"type":"😀"}'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_json_does_not_have_are_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"temperature": number})


def test_what_has_no_json_form_is_named_by_its_class_only() -> None:
    with pytest.raises(TypeError, match=r"^set has no JSON form$"):
        encode({"input": {"s3cret"}})


def test_values_of_ours_may_stand_inside_a_request() -> None:
    item = structure_item({"role": "user", "content": "hi"})
    create = ResponseCreate({"input": [item], "metadata": MappingProxyType({"k": "v"})})
    assert encode(create) == (
        '{"type":"response.create","input":[{"role":"user","content":"hi"}],"metadata":{"k":"v"}}'
    )


ALONE = """
import sys, types
package = types.ModuleType("engine")
package.__path__ = ["engine"]
sys.modules["engine"] = package
import engine.wire.codec
print(sorted({"trio", "httpx", "trio_websocket"} & sys.modules.keys()))
"""


def test_the_protocol_needs_no_transport() -> None:
    # In a fresh interpreter, and past the package's own module, which brings in every layer.
    root = Path(__file__).parents[2]
    finished = subprocess.run([sys.executable, "-c", ALONE], cwd=root, check=True, capture_output=True, text=True)
    assert finished.stdout == "[]\n"


# --- Requests


def test_create_in_both_forms() -> None:
    create = ResponseCreate({"model": "m", "input": "hi", "store": False}, stream_id="main", generate=False)
    wire = create.to_wire()
    assert wire == {
        "type": "response.create",
        "stream_id": "main",
        "generate": False,
        "model": "m",
        "input": "hi",
        "store": False,
    }
    assert next(iter(wire)) == "type"
    assert create.http_body() == {"model": "m", "input": "hi", "store": False, "stream": True}
    assert decode_client_event(encode(create)) == create


def test_create_on_the_default_lane_names_none() -> None:
    assert ResponseCreate({"model": "m"}).to_wire() == {"type": "response.create", "model": "m"}


@pytest.mark.parametrize("name", ["type", "stream_id", "generate"])
def test_a_body_has_no_socket_members(name: str) -> None:
    with pytest.raises(ValueError, match=f"^'{name}' does not belong in the body$"):
        ResponseCreate({name: "s3cret"})


def test_steer_and_inject() -> None:
    steer = ResponseSteer("resp_1", "also the tests")
    assert steer.to_wire() == {
        "type": "response.steer",
        "previous_response_id": "resp_1",
        "input": "also the tests",
    }
    assert decode_client_event(encode(steer)) == steer
    inject = ResponseInject("resp_1", [{"type": "function_call_output", "output": "x"}])
    assert decode_client_event(encode(inject)) == inject
    odd = decode_client_event('{"type":"response.steer","previous_response_id":"r","input":[],"model":"m"}')
    assert odd == ResponseSteer("r", [], {"model": "m"})


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"type": "response.append", "input": []},
        {"type": ["response.create"]},
        {"type": "response.create", "stream_id": 3},
        {"type": "response.create", "generate": "no"},
        {"type": "response.steer", "input": "x"},
        {"type": "response.steer", "previous_response_id": "r"},
        {"type": "response.inject", "response_id": "r", "input": "x"},
    ],
)
def test_unknown_client_events_are_kept(raw: dict[str, Any]) -> None:
    event = structure_client_event(raw)
    assert isinstance(event, UnknownClientEvent)
    assert event.type == (raw.get("type") if isinstance(raw.get("type"), str) else "")
    assert json.loads(encode(event)) == raw


@pytest.mark.parametrize(
    "event",
    [
        ResponseCreate({"input": "s3cret"}),
        ResponseSteer("resp_1", "s3cret", {"a": "s3cret"}),
        ResponseInject("resp_1", ["s3cret"], {"a": "s3cret"}),
        UnknownClientEvent({"type": "s3cret"}),
    ],
)
def test_requests_keep_their_secrets(event: Any) -> None:
    assert type(event).__name__ in repr(event)
    assert "s3cret" not in repr(event)


@pytest.mark.parametrize("value", ["main", "A.b_c-9", "x" * 256])
def test_names_of_lanes(value: str) -> None:
    assert is_stream_id(value)


@pytest.mark.parametrize("value", ["", "x" * 257, "a b", "é", "a\n", None, 3])
def test_what_cannot_name_a_lane(value: object) -> None:
    assert not is_stream_id(value)
