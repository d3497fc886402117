"""The openai package's generated types, an independent statement of the wire, against our classes."""

from __future__ import annotations

import json
import types
import typing
from functools import cache
from typing import Any, Literal, NotRequired, Required, get_args, get_origin

import pytest
from openai.types.beta.beta_response_output_item import BetaResponseOutputItem
from openai.types.beta.beta_responses_server_event import BetaResponsesServerEvent
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
from openai.types.responses.response import Response
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.response_steer_required_input import ResponseSteerRequiredInput
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import BaseModel
from typing_extensions import TypeAliasType, is_typeddict

from engine.protocol.codec import SERVER_EVENT_CLASSES, decode, encode
from engine.protocol.events import LifecycleEvent, OutputItemDone, UnknownEvent
from engine.protocol.items import ITEM_CLASSES, MessageItem, UnknownItem, structure_item
from engine.protocol.parts import UnknownAnnotation, UnknownPart
from engine.protocol.wire import WireObject

DEEPEST = 6
WRAPPERS = (typing.Annotated, Required, typing.Required, NotRequired, typing.NotRequired)


def members(union: Any) -> list[Any]:
    """The classes of a union, however it is wrapped."""
    if isinstance(union, TypeAliasType):
        return members(union.__value__)
    if get_origin(union) in WRAPPERS:
        return members(get_args(union)[0])
    if get_origin(union) in (typing.Union, types.UnionType):
        return [member for each in get_args(union) for member in members(each)]
    return [union]


@cache
def fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Wire name to annotation and whether it is required."""
    if is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {name: (hint, get_origin(hint) in (Required, typing.Required)) for name, hint in hints.items()}
    return {f.alias or name: (f.annotation, f.is_required()) for name, f in cls.model_fields.items()}


def sample(annotation: Any, full: bool, depth: int = 0) -> Any:
    """A JSON value of an annotation: the least there can be, or everything there can be."""
    full = full and depth < DEEPEST
    choices = members(annotation)
    if type(None) in choices and not full:
        return None
    choice = next((each for each in choices if each is not type(None)), None)
    origin, arguments = get_origin(choice), get_args(choice)
    if origin is Literal:
        return arguments[0]
    if origin in (list, typing.Iterable, *ITERABLES):
        return [sample(each, full, depth + 1) for each in members(arguments[0])] if full else []
    if origin is dict:
        return {"key": sample(arguments[1], full, depth + 1)} if full else {}
    if choice in SCALARS:
        return SCALARS[choice]
    if is_typeddict(choice) or (isinstance(choice, type) and issubclass(choice, BaseModel)):
        return instance(choice, full, depth + 1)
    assert choice is not None
    raise AssertionError(f"no sample for {choice}")


ITERABLES = (typing.get_origin(typing.Iterable[int]), typing.get_origin(typing.Sequence[int]))
SCALARS: dict[Any, Any] = {str: "text", int: 7, float: 0.5, bool: True, object: {"any": [1]}, Any: "any", dict: {}}


def instance(cls: Any, full: bool, depth: int = 0) -> dict[str, Any]:
    return {
        name: sample(annotation, full, depth)
        for name, (annotation, required) in fields(cls).items()
        if full or required
    }


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
    """Every text and number of the object can be read off the class under its own name."""
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


# An image call's settings and the like, which nothing here acts upon, are read from ``raw``.
UNREAD_ITEM_MEMBERS = {"action", "background", "quality", "size"}


@pytest.mark.parametrize(("cls", "full"), cases(ResponseOutputItem, BetaResponseOutputItem, ResponseInputItemParam))
def test_every_item(cls: Any, full: bool) -> None:
    raw = instance(cls, full)
    item = structure_item(raw)
    if raw.get("type"):
        assert type(item) is ITEM_CLASSES[raw["type"]]
    assert not isinstance(item, UnknownItem)
    for name, expected in raw.items():
        if isinstance(expected, str | int) and name not in UNREAD_ITEM_MEMBERS and name != "type":
            assert getattr(item, RENAMED.get(name, name)) == expected, name
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
            for annotation in getattr(part, "annotations", ()):
                assert not isinstance(annotation, UnknownAnnotation), annotation


def test_full_samples_do_reach_parts_and_annotations() -> None:
    # Without this the test above could pass on empty lists.
    raw = instance(members(ResponseOutputItem)[0], full=True)
    item = structure_item(raw)
    assert isinstance(item, MessageItem)
    text, refusal = item.content
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
        "response.interrupt.accepted",
        "response.interrupt.failed",
        "response.output_item.interrupted",
        "keepalive",
        "ping",
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
