"""What each event says of itself, and the events servers send that no reference has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.wire.account_events import AccountEvent
from engine.wire.codec import SERVER_EVENT_CLASSES, decode_object
from engine.wire.control_events import ErrorEvent, InjectFailed, InterruptFailed, SteerFailed, SteerPending
from engine.wire.events import (
    LIFECYCLE,
    TERMINALS,
    Chunks,
    FunctionCallArgumentsDone,
    LifecycleEvent,
    OutputItemAdded,
    OutputTextAnnotationAdded,
    OutputTextDelta,
    ResponseCompleted,
    ServerEvent,
    UnknownEvent,
    server_events,
)
from engine.wire.items import MessageItem, OpaqueItem, UnknownItem
from engine.wire.tool_events import ToolEvent

SECRET = "s3cret"

MEMBERS: dict[str, Any] = {
    "sequence_number": 4,
    "stream_id": "main",
    "output_index": 2,
    "content_index": 1,
    "summary_index": 3,
    "command_index": 5,
    "item_id": "msg_1",
    "response_id": "resp_1",
    "response": {"id": "resp_1", "output": None, "secret": SECRET},
    "item": {"type": "message", "role": "assistant", "content": SECRET},
    "part": {"type": "output_text", "text": SECRET},
    "delta": SECRET,
    "text": SECRET,
    "refusal": SECRET,
    "arguments": SECRET,
    "input": SECRET,
    "code": SECRET,
    "command": SECRET,
    "partial_image_b64": SECRET,
    "steer": {"id": "steer_1", "previous_response_id": "resp_1", "input": SECRET},
    "error": {"message": SECRET},
    "headers": {"x-token": SECRET},
    "metadata": {"k": SECRET},
}


def make(wire_type: str, **members: Any) -> ServerEvent:
    delta: Any = {"stdout": SECRET} if "shell_call_output" in wire_type else SECRET
    return decode_object({"type": wire_type, **MEMBERS, "delta": delta, **members})


@pytest.mark.parametrize("wire_type", SERVER_EVENT_CLASSES)
def test_every_type_has_its_class_and_keeps_its_secrets(wire_type: str) -> None:
    event = make(wire_type)
    assert type(event) is SERVER_EVENT_CLASSES[wire_type]
    assert event.type == wire_type
    assert event.stream_id == "main"
    assert event.sequence_number == 4
    assert repr(event) == f"<{type(event).__name__} {wire_type!r}>"
    for name in ("output_index", "content_index", "summary_index", "command_index", "item_id"):
        assert getattr(event, name, MEMBERS[name]) == MEMBERS[name]
    if isinstance(event, LifecycleEvent):
        assert repr(event.response) == "<ResponseObject ''>"


@pytest.mark.parametrize("wire_type", SERVER_EVENT_CLASSES)
def test_lane_and_number_may_be_missing(wire_type: str) -> None:
    members = {
        name: value for name, value in make(wire_type).raw.items() if name not in ("stream_id", "sequence_number")
    }
    event = decode_object(members)
    assert type(event) is SERVER_EVENT_CLASSES[wire_type]
    assert event.stream_id is None
    assert event.sequence_number is None


@pytest.mark.parametrize(
    ("wire_type", "member", "value"),
    [
        ("response.output_text.delta", "delta", None),
        ("response.output_text.delta", "delta", 3),
        ("response.completed", "response", None),
        ("response.completed", "response", [["id", "resp_1"]]),
        ("response.output_item.done", "item", "text"),
        ("response.content_part.added", "part", None),
        ("response.steer.accepted", "steer", "steer_1"),
    ],
)
def test_drift_is_unknown_and_never_converted(wire_type: str, member: str, value: Any) -> None:
    event = make(wire_type, **{member: value})
    assert type(event) is UnknownEvent
    assert event.type == wire_type
    assert event.raw[member] == value


def test_a_missing_required_member_is_drift() -> None:
    assert type(decode_object({"type": "response.output_text.delta", "output_index": 0})) is UnknownEvent


@pytest.mark.parametrize("place", ["2", True, 1.0, None, [0]])
def test_a_position_that_is_none_is_the_first(place: Any) -> None:
    event = make("response.output_text.delta", output_index=place, content_index=place)
    assert isinstance(event, OutputTextDelta)
    assert (event.output_index, event.content_index) == (0, 0)


@pytest.mark.parametrize(
    ("given", "read"), [('{"a":1}', '{"a":1}'), ({"a": 1}, '{"a":1}'), (None, ""), ("", ""), (["x"], '["x"]')]
)
def test_the_arguments_of_a_call_may_come_as_an_object(given: Any, read: str) -> None:
    event = make("response.function_call_arguments.done", arguments=given)
    assert isinstance(event, FunctionCallArgumentsDone)
    assert event.arguments == read


def test_unknown_types_are_not_remembered() -> None:
    before = dict(SERVER_EVENT_CLASSES)
    for number in range(100):
        assert type(decode_object({"type": f"response.new_{number}"})) is UnknownEvent
    assert before == SERVER_EVENT_CLASSES
    assert server_events.ready.keys() <= before.keys()


def test_equality_is_of_class_and_object() -> None:
    one, same = make("response.output_text.delta"), make("response.output_text.delta")
    assert one == same
    assert one != make("response.output_text.delta", delta="other")
    assert one != make("response.refusal.delta")
    assert one != one.raw


def test_events_are_frozen() -> None:
    event = make("response.output_text.delta")
    with pytest.raises(AttributeError):
        event.delta = "x"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        event.raw = {}  # type: ignore[misc]


# --- Lifecycle


def test_groups() -> None:
    assert {SERVER_EVENT_CLASSES[f"response.{name}"] for name in ("completed", "failed", "incomplete")} == set(
        TERMINALS
    )
    assert set(TERMINALS) < set(LIFECYCLE)
    lifecycle = {name for name, cls in SERVER_EVENT_CLASSES.items() if issubclass(cls, LIFECYCLE)}
    assert lifecycle == {
        f"response.{name}" for name in ("queued", "created", "in_progress", "completed", "failed", "incomplete", "done")
    }
    account = {name for name, cls in SERVER_EVENT_CLASSES.items() if issubclass(cls, AccountEvent)}
    assert account == {
        "keepalive",
        "ping",
        "heartbeat",
        "codex.rate_limits",
        "codex.response.metadata",
        "response.metadata",
        "responsesapi.websocket_timing",
        "rate_limits.updated",
    }


def test_done_is_completed_by_another_name() -> None:
    assert type(make("response.done")) is ResponseCompleted


def test_the_response_is_structured_once() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}
    event = make(
        "response.incomplete",
        response={
            "id": "resp_2",
            "status": "incomplete",
            "model": "m",
            "created_at": 1.5,
            "output": [message, {"type": "novelty"}, None],
            "usage": {"total_tokens": 3},
            "incomplete_details": {"reason": "steered"},
            "previous_response_id": "resp_1",
            "error": None,
        },
    )
    assert isinstance(event, LifecycleEvent)
    assert event.response_id == "resp_2"
    response = event.response
    assert event.response is response
    assert (response.id, response.status, response.model, response.created_at) == ("resp_2", "incomplete", "m", 1.5)
    assert response.usage == {"total_tokens": 3}
    assert response.incomplete_reason == "steered"
    assert response.previous_response_id == "resp_1"
    assert response.error is None
    assert response.output is not None
    assert [type(item) for item in response.output] == [MessageItem, UnknownItem]
    assert response.output is response.output


@pytest.mark.parametrize("output", [{}, {"output": None}, {"output": "text"}])
def test_absent_output_is_not_empty_output(output: dict[str, Any]) -> None:
    event = decode_object({"type": "response.completed", "response": {"incomplete_details": "odd", **output}})
    assert isinstance(event, LifecycleEvent)
    assert event.response.output is None
    assert event.response.incomplete_reason is None
    assert event.response_id is None
    empty = decode_object({"type": "response.completed", "response": {"output": []}})
    assert isinstance(empty, LifecycleEvent)
    assert empty.response.output == ()


# --- Output


def test_a_null_item_is_no_item() -> None:
    event = make("response.output_item.added", item=None)
    assert isinstance(event, OutputItemAdded)
    assert event.item is None


def test_an_unknown_item_does_not_spoil_its_event() -> None:
    event = make("response.output_item.added", item={"type": ["message"]})
    assert isinstance(event, OutputItemAdded)
    assert type(event.item) is UnknownItem


def test_annotations() -> None:
    event = make("response.output_text.annotation.added", annotation={"type": "url_citation", "url": "https://a"})
    assert isinstance(event, OutputTextAnnotationAdded)
    assert event.annotation is not None
    assert event.annotation.raw == {"type": "url_citation", "url": "https://a"}
    bare = make("response.output_text.annotation.added", annotation=None)
    assert isinstance(bare, OutputTextAnnotationAdded)
    assert bare.annotation is None


def test_tool_phases() -> None:
    event = make("response.web_search_call.searching")
    assert isinstance(event, ToolEvent)
    assert event.phase == "searching"


def test_agents() -> None:
    assert make("response.refusal.delta", agent={"agent_name": "/root/a"}).agent_name == "/root/a"
    assert make("response.refusal.delta", agent="odd").agent_name is None


# --- Control


def test_steering() -> None:
    pending = make(
        "response.steer.pending",
        reason="waiting_for_required_input",
        required_input=[{"type": "custom_tool_call_output", "call_id": "call_1"}],
    )
    assert isinstance(pending, SteerPending)
    assert (pending.steer_id, pending.previous_response_id) == ("steer_1", "resp_1")
    (stub,) = pending.required_input
    assert isinstance(stub, OpaqueItem)
    assert stub.raw["call_id"] == "call_1"
    failed = make("response.steer.failed", steer={}, error={"code": "invalid_input", "message": "no"})
    assert isinstance(failed, SteerFailed)
    assert (failed.steer_id, failed.code, failed.message) == (None, "invalid_input", "no")
    spoken = make("response.steer.failed", steer={}, error="no")
    assert isinstance(spoken, SteerFailed)
    assert (spoken.code, spoken.error_type, spoken.message) == (None, None, "no")


def test_injection_and_interruption() -> None:
    failed = make("response.inject.failed", input=[{"id": "x"}], error={"code": "response_not_found", "message": "no"})
    assert isinstance(failed, InjectFailed)
    assert (failed.response_id, failed.code, failed.message) == ("resp_1", "response_not_found", "no")
    assert failed.input == [{"id": "x"}]
    refused = make("response.interrupt.failed", error={"code": "c"})
    assert isinstance(refused, InterruptFailed)
    assert (refused.response_id, refused.code) == ("resp_1", "c")
    assert make("response.interrupt.failed", error=None).code is None  # type: ignore[attr-defined]


# --- Errors

NESTED = {"type": "invalid_request_error", "code": "c", "message": "m", "param": "p"}


def nested(depth: int) -> dict[str, Any]:
    """Words that are wrapped up so often that they cannot be meant."""
    value: dict[str, Any] = {"message": "m"}
    for _ in range(depth):
        value = {"message": value}
    return value


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"type": "error", "code": "c", "message": "m", "param": "p"}, (None, "c", None, "m", "p")),
        ({"type": "error", "status": 400, "error": NESTED}, (400, "c", "invalid_request_error", "m", "p")),
        ({"type": "error", "status_code": 429, "error": NESTED}, (429, "c", "invalid_request_error", "m", "p")),
        (
            {"type": "error", "status": 400, "status_code": 500, "code": "flat", "error": NESTED},
            (400, "c", "invalid_request_error", "m", "p"),
        ),
        (
            {"type": "error", "code": "flat", "message": "flat", "error": {"code": None}},
            (None, "flat", None, "flat", None),
        ),
        ({"error": {"message": "m", "type": "api_error"}}, (None, None, "api_error", "m", None)),
        ({"type": None, "error": {"message": "m"}}, (None, None, None, "m", None)),
        ({"error": "m"}, (None, None, None, "m", None)),
        ({"type": "error"}, (None, None, None, None, None)),
        (
            {"type": "error", "status": "4oo", "status_code": True, "error": {"code": 1.5, "type": 7, "message": []}},
            (None, None, None, None, None),
        ),
        ({"type": "error", "error": {"code": 7}}, (None, "7", None, None, None)),
        ({"type": "error", "error": {"code": 429, "message": "slow"}}, (429, "429", None, "slow", None)),
        ({"type": "error", "error": {"code": "404", "type": "t"}}, (404, "404", "t", None, None)),
        ({"detail": "Not authenticated"}, (None, None, None, "Not authenticated", None)),
        (
            {"detail": [{"loc": ["body", "input"], "msg": "Field required"}, {"msg": "odd"}, 7]},
            (None, None, None, "body.input: Field required; odd", None),
        ),
        ({"type": "error", "error": {"detail": {"msg": "m"}}}, (None, None, None, "m", None)),
        ({"type": "error", "error": ["m", "n"]}, (None, None, None, "m; n", None)),
        ({"type": "error", "status": "429 Too Many Requests", "error": "m"}, (429, None, None, "m", None)),
        ({"type": "error", "status": 10**30, "error": "m"}, (None, None, None, "m", None)),
        ({"type": "error", "error": {"message": nested(900)}}, (None, None, None, None, None)),
        # what another's error is wrapped in
        ({"error": {"error": {"code": "c", "type": "t", "message": "m", "param": "p"}}}, (None, "c", "t", "m", "p")),
        ({"error": json.dumps({"error": {"code": "c", "message": "m"}})}, (None, "c", None, "m", None)),
        ({"error": json.dumps({"message": "m", "type": "t"})}, (None, None, "t", "m", None)),
        ({"error": {"message": "own", "error": {"message": "inner"}}}, (None, None, None, "own", None)),
        ({"error": {"error": "m"}}, (None, None, None, "m", None)),
        ({"error": "{not JSON"}, (None, None, None, "{not JSON", None)),
        ({"error": "[1]"}, (None, None, None, "[1]", None)),
        ({"error": "{" * 100_000}, (None, None, None, "{" * 100_000, None)),
        ({"errors": [{"code": "c", "message": "m"}, {"message": "n"}]}, (None, "c", None, "m", None)),
        ({"errors": ["m", "n"]}, (None, None, None, "m; n", None)),
        (
            {"type": "error", "__type": "ThrottlingException", "Message": "m"},
            (None, None, "ThrottlingException", "m", None),
        ),
        (
            {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
            (400, "400", "BadRequestError", "m", None),
        ),
    ],
)
def test_the_shapes_of_an_error(raw: dict[str, Any], expected: tuple[Any, ...]) -> None:
    event = decode_object(raw)
    assert isinstance(event, ErrorEvent)
    assert event.type == "error"
    assert (event.status, event.code, event.error_type, event.message, event.param) == expected
    assert event.headers == {}
    assert event.misalignment is None


def test_error_headers_of_both_places() -> None:
    event = decode_object(
        {
            "type": "error",
            "headers": {
                "Retry-After": 3,
                "X-Both": "outer",
                "X-Flag": True,
                "X-List": ["a", 2, False, {}],
                "X-No": None,
            },
            "error": {"headers": {"x-both": "inner", "X-Ratio": 0.5}, "misalignment": {"error_type": "other"}},
        }
    )
    assert isinstance(event, ErrorEvent)
    assert event.headers == {
        "retry-after": "3",
        "x-both": "inner",
        "x-flag": "true",
        "x-list": "a, 2, false",
        "x-ratio": "0.5",
    }
    assert event.misalignment == {"error_type": "other"}


# --- In the wild


DELTA = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "x"}


@pytest.mark.parametrize("envelope", [{}, {"type": "novel.batch"}, {"type": 5}])
def test_chunks_are_flattened_in_order(envelope: dict[str, Any]) -> None:
    inner = {"chunks": [{"error": {"message": "m"}}, {"chunks": [{"type": "novelty"}]}]}
    event = decode_object({**envelope, "chunks": [DELTA, 3, None, {}, {"type": ""}, inner, {"type": "keepalive"}]})
    assert isinstance(event, Chunks)
    assert [type(each).__name__ for each in event.events] == [
        "OutputTextDelta",
        "ErrorEvent",
        "UnknownEvent",
        "KeepAlive",
    ]
    assert repr(event) == f"<Chunks {event.type!r}>"


def test_chunks_of_a_known_type_are_just_another_member() -> None:
    assert isinstance(decode_object({**DELTA, "chunks": [DELTA]}), OutputTextDelta)
    drifted = decode_object({"type": "response.output_text.delta", "chunks": [DELTA]})
    assert type(drifted) is UnknownEvent


def test_deeply_nested_batches_do_not_recurse() -> None:
    raw: dict[str, Any] = DELTA
    for _ in range(20_000):
        raw = {"chunks": [raw]}
    event = decode_object(raw)
    assert isinstance(event, Chunks)
    assert [type(each) for each in event.events] == [OutputTextDelta]
    while "chunks" in raw:  # unwound by hand: freeing so deep a nest at once would recurse too
        raw = raw.pop("chunks")[0]
