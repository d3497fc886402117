"""Answers that are values of a class: the request's format, and the value of a reply."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import attrs
import pytest
from jsonschema import Draft202012Validator

from engine import AssistantMessage, ConfigurationError, Context, ResponseFailed, Text, TurnOptions
from engine.protocol.failures import Mismatched, to_error
from engine.protocol.request_body import create_body
from engine.schemas.answer_format import parse, wire_format


@attrs.frozen
class Step:
    explanation: str
    output: str


@attrs.frozen
class Answer:
    """An answer."""

    value: int = attrs.field(validator=attrs.validators.le(100))
    steps: list[Step] = attrs.field(factory=list)
    unit: str = "m"


@dataclasses.dataclass
class Plain:
    value: int


class Typed(TypedDict):
    value: int


@attrs.frozen
class Tree:
    children: list[Tree]


@attrs.frozen
class Bad:
    value: object


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"value": {"type": "integer"}},
    "required": ["value"],
    "additionalProperties": False,
}
WIRE = [
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True},
    {"type": "grammar", "syntax": "lark"},
]


@pytest.mark.parametrize("given", WIRE)
def test_the_wires_own_formats_stay_as_they_are(given: dict[str, Any]) -> None:
    assert wire_format(given) == given
    assert wire_format(given) is not given
    assert parse(given, '{"value": 1}') is None


@pytest.mark.parametrize("kind", [Plain, Typed])
def test_formats_of_classes(kind: type) -> None:
    assert wire_format(kind) == {"type": "json_schema", "name": kind.__name__, "schema": SCHEMA, "strict": True}


def test_the_format_of_a_class_in_a_request() -> None:
    body = create_body(Context.of("hi"), TurnOptions(text_format=Answer, text_verbosity="low"), model="m")
    made = body["text"]["format"]
    assert (made["type"], made["name"], made["strict"]) == ("json_schema", "Answer", True)
    assert made["schema"]["required"] == ["value", "steps", "unit"]
    Draft202012Validator.check_schema(made["schema"])
    made["schema"].clear()  # the body is the caller's to change
    assert wire_format(Answer)["schema"]


def test_a_class_that_contains_itself_is_an_object_at_the_top() -> None:
    schema = wire_format(Tree)["schema"]
    assert schema["type"] == "object"
    assert schema["$defs"]["Tree"]["properties"] == schema["properties"]
    Draft202012Validator(schema).validate({"children": [{"children": []}]})


@pytest.mark.parametrize(
    ("given", "name", "strict"),
    [
        (SCHEMA, "answer", True),
        ({**SCHEMA, "title": "My answer!"}, "My_answer_", True),
        ({"type": "object", "properties": {"a": {}}}, "answer", False),
        ({"properties": {"a": {}}}, "answer", False),
        ({"type": ["object", "null"]}, "answer", False),
    ],
)
def test_bare_schemas_are_wrapped(given: dict[str, Any], name: str, strict: bool) -> None:
    assert wire_format(given) == {"type": "json_schema", "name": name, "schema": given, "strict": strict}
    assert parse(given, '{"value": 1}') == {"value": 1}


@pytest.mark.parametrize("given", [int, str, Bad, 3, "json", list[int], lambda: None])
def test_what_is_no_format(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TurnOptions(text_format=given)
    assert caught.value.field.startswith("options.text_format")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Plain, '{"value": 1}', Plain(1)),
        (Typed, '{"value": 1}', {"value": 1}),
        (Answer, '{"value": 1, "steps": [{"explanation": "a", "output": "b"}], "unit": null}',
         Answer(1, [Step("a", "b")], "m")),
        (Answer, ' {"value": 1}\n', Answer(1)),
    ],
)  # fmt: skip
def test_replies(kind: type, text: str, value: Any) -> None:
    assert parse(kind, text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        '{"value": "s3cret"}',
        '{"value": 1, "s3cret words": 1}',
        '{"value": 31337}',
        '{"value": 1, "steps": [{"explanation": "s3cret"}]}',
        '{"value": 1} s3cret',
        "null",
        '["s3cret"]',
    ],
)
def test_replies_that_are_not_what_was_asked_for(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(Answer, text)
    assert "s3cret" not in str(caught.value)
    assert "31337" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    error = to_error(Mismatched(caught.value, "resp_1"))
    assert isinstance(error, ResponseFailed)
    assert (error.code, error.response_id, error.__cause__) == ("schema_mismatch", "resp_1", caught.value)
    assert "s3cret" not in str(error) + repr(Mismatched(caught.value))


def test_a_parsed_answer_follows_from_the_text() -> None:
    plain, parsed = AssistantMessage([Text("1")]), AssistantMessage([Text("1")], parsed=Plain(1))
    assert parsed == plain
    assert (plain.parsed, parsed.parsed) == (None, Plain(1))
    assert "Plain" not in repr(parsed)
