"""The openai package's generated types, an independent statement of the wire, against our classes."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.beta.beta_response_output_item import BetaResponseOutputItem
from openai.types.beta.beta_responses_server_event import BetaResponsesServerEvent
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
from openai.types.responses.response import Response
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.response_steer_required_input import ResponseSteerRequiredInput
from openai.types.responses.responses_server_event import ResponsesServerEvent
from openai_samples import fields, instance, members

from engine.wire.base import WireObject
from engine.wire.codec import SERVER_EVENT_CLASSES, decode, encode
from engine.wire.events import LifecycleEvent, OutputItemDone, UnknownEvent
from engine.wire.items import ITEM_CLASSES, MessageItem, OpaqueItem, UnknownItem, structure_item
from engine.wire.parts import OpaquePart, UnknownPart
from engine.wire.tool_events import AudioEvent, ToolEvent


def cases(*unions: Any) -> list[Any]:
    return [
        pytest.param(
            cls, full, id=f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}-{'full' if full else 'minimal'}"
        )
        for union in unions
        for cls in members(union)
        for full in (False, True)
    ]


# Padding, and names that Python or this package reads differently.
NOT_ATTRIBUTES = {"obfuscation"}
RENAMED = {"async": "asynchronous"}


def check_members_are_readable(value: WireObject) -> None:
    """Every text and number of the object can be read off the class under its own name, or all of it is kept whole."""
    if isinstance(value, AudioEvent | ToolEvent | OpaqueItem | OpaquePart):
        return
    for name, expected in value.raw.items():
        if isinstance(expected, str | int) and name not in NOT_ATTRIBUTES:
            assert getattr(value, RENAMED.get(name, name)) == expected, name


def check_round_trip(value: WireObject, raw: dict[str, Any]) -> None:
    assert json.loads(encode(value)) == raw


@pytest.mark.parametrize(("cls", "full"), cases(ResponseStreamEvent, ResponsesServerEvent, BetaResponsesServerEvent))
def test_every_event(cls: Any, full: bool) -> None:
    raw = instance(cls, full)
    event = decode(json.dumps(raw))
    assert type(event) is SERVER_EVENT_CLASSES[raw["type"]]
    check_members_are_readable(event)
    check_round_trip(event, raw)
    if isinstance(event, LifecycleEvent):
        assert event.response_id == event.response.id == raw["response"]["id"]


@pytest.mark.parametrize(("cls", "full"), cases(ResponseOutputItem, BetaResponseOutputItem, ResponseInputItemParam))
def test_every_item(cls: Any, full: bool) -> None:
    raw = instance(cls, full)
    item = structure_item(raw)
    if raw.get("type"):
        assert type(item) is ITEM_CLASSES[raw["type"]]
    assert not isinstance(item, UnknownItem)
    check_members_are_readable(item)
    check_round_trip(item, raw)
    carried = decode(json.dumps({"type": "response.output_item.done", "output_index": 0, "item": raw}))
    assert isinstance(carried, OutputItemDone)
    assert carried.item == item


@pytest.mark.parametrize(("cls", "full"), cases(ResponseOutputItem, BetaResponseOutputItem, ResponseInputItemParam))
def test_every_part_and_annotation_within_items(cls: Any, full: bool) -> None:
    item = structure_item(instance(cls, full))
    for name in ("content", "summary", "output"):
        value = getattr(item, name, None)
        for part in value if isinstance(value, tuple) else ():
            assert not isinstance(part, UnknownPart), part
            assert all(annotation.raw for annotation in getattr(part, "annotations", ()))


def test_full_samples_do_reach_parts_and_annotations() -> None:
    # Without this the test above could pass on empty lists.
    raw = instance(members(ResponseOutputItem)[0], full=True)
    item = structure_item(raw)
    assert isinstance(item, MessageItem)
    text, refusal = item.content  # type: ignore[str-unpack]
    assert len(text.annotations) == 4  # type: ignore[union-attr]
    assert refusal.refusal == "text"  # type: ignore[union-attr]


@pytest.mark.parametrize(("cls", "full"), cases(ResponseSteerRequiredInput))
def test_every_stub_a_steer_may_wait_for(cls: Any, full: bool) -> None:
    raw = instance(cls, full)
    assert type(structure_item(raw)) is ITEM_CLASSES[raw["type"]]


@pytest.mark.parametrize("full", [False, True])
def test_the_response_object(full: bool) -> None:
    raw = instance(Response, full)
    event = decode(json.dumps({"type": "response.completed", "response": raw}))
    assert isinstance(event, LifecycleEvent)
    response = event.response
    for name in ("id", "status", "model", "usage", "error", "incomplete_details", "previous_response_id", "created_at"):
        assert getattr(response, name) == raw.get(name), name
    assert response.output is not None
    assert [item.raw for item in response.output] == raw["output"]
    assert not any(isinstance(item, UnknownItem) for item in response.output)
    assert len(response.output) == (len(members(ResponseOutputItem)) if full else 0)


def declared(union: Any) -> set[str]:
    return {get_args(fields(cls)["type"][0])[0] for cls in members(union)}


def test_the_table_covers_what_is_declared() -> None:
    sse, socket, beta = map(declared, (ResponseStreamEvent, ResponsesServerEvent, BetaResponsesServerEvent))
    assert (len(sse), len(socket), len(beta)) == (59, 62, 64)
    assert sse | socket | beta <= SERVER_EVENT_CLASSES.keys()
    in_the_wild = SERVER_EVENT_CLASSES.keys() - (sse | socket | beta)
    assert in_the_wild == {
        "response.done",
        "response.reasoning.delta",  # the Open Responses specification's
        "response.reasoning.done",
        "response.interrupt.accepted",
        "response.interrupt.failed",
        "response.output_item.interrupted",
        "keepalive",
        "ping",
        "heartbeat",
        "codex.rate_limits",
        "codex.response.metadata",
        "response.metadata",
        "responsesapi.websocket_timing",
        "rate_limits.updated",
    }
    assert UnknownEvent not in SERVER_EVENT_CLASSES.values()


def test_the_table_covers_every_item_declared() -> None:
    output, beta = declared(ResponseOutputItem), declared(BetaResponseOutputItem)
    assert (len(output), len(beta - output)) == (28, 3)
    inputs = {
        literal
        for cls in members(ResponseInputItemParam)
        for choice in members(fields(cls)["type"][0])
        for literal in get_args(choice)
    }
    assert output | beta | inputs == ITEM_CLASSES.keys()
