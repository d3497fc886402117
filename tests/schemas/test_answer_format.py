"""Answers that are values of a class: the request's format, and the value of a reply."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any, List, Literal, Optional, TypedDict  # noqa: UP035

import attrs
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from engine import (
    AssistantMessage,
    ConfigurationError,
    Context,
    FunctionTool,
    ResponseFailed,
    Text,
    ToolCall,
    TurnOptions,
)
from engine.protocol.failures import Mismatched, to_error
from engine.protocol.request_body import create_body
from engine.schemas.answer_format import parse, parse_last, wire_format
from engine.schemas.derive import is_strict


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


@pytest.mark.parametrize("given", [Bad, 3, "json", list[Bad], int | Bad, lambda: None, object(), set[object]])
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


# --- types of every form


class Model(BaseModel):
    """A model of Pydantic's."""

    value: int
    unit: str = "m"


class Nested(BaseModel):
    children: list[Nested] = []
    kind: Literal["a", "b"] = "a"
    model: Model | None = Field(default=None, description="One of them.")


class Open(BaseModel):
    extra: dict[str, int]


@dataclasses.dataclass
class Holds:
    models: list[Model]
    other: Nested


FORMS: list[tuple[Any, str, Any]] = [
    (int, '{"value": 3}', 3),
    (Literal["yes", "no"], '{"value": "no"}', "no"),
    (list[Plain], '{"value": [{"value": 1}]}', [Plain(1)]),
    (Plain | Step, '{"value": {"explanation": "a", "output": "b"}}', Step("a", "b")),
    (Plain | None, '{"value": null}', None),
    (tuple[int, ...], '{"value": [1, 2]}', (1, 2)),
    (Annotated[int, "A number."], '{"value": 3}', 3),
    (Annotated[Plain, ["no hash"]], '{"value": 3}', Plain(3)),
    (Model, '{"value": 3, "unit": "cm"}', Model(value=3, unit="cm")),
    (Nested,
     '{"children": [{"children": [], "kind": "b", "model": null}], "kind": "a", "model": {"value": 1, "unit": "m"}}',
     Nested(children=[Nested(kind="b")], model=Model(value=1))),
    (list[Model], '{"value": [{"value": 3, "unit": "cm"}]}', [Model(value=3, unit="cm")]),
    (Holds, '{"models": [{"value": 1, "unit": "m"}], "other": {"children": [], "kind": "b", "model": null}}',
     Holds([Model(value=1)], Nested(kind="b"))),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "value"), FORMS, ids=[str(form) for form, *_ in FORMS])
def test_types_of_every_form(form: Any, text: str, value: Any) -> None:
    made = wire_format(form)
    assert made["type"] == "json_schema"
    assert made["strict"]
    assert is_strict(made["schema"])
    assert made["schema"]["type"] == "object"
    Draft202012Validator.check_schema(made["schema"])
    Draft202012Validator(made["schema"]).validate(json.loads(text))
    assert parse(form, text) == value
    assert AssistantMessage(text).parsed_as(form) == value


def test_a_model_that_cannot_be_strict_is_taken_as_it_is() -> None:
    made = wire_format(Open)
    assert not made["strict"]
    assert made["schema"] == Open.model_json_schema()
    assert parse(Open, '{"extra": {"a": 1}}') == Open(extra={"a": 1})


def test_what_a_model_says_of_a_value_is_not_shown() -> None:
    with pytest.raises(ValueError, match="was not accepted") as caught:
        parse(list[Model], '{"value": [{"value": "s3cret"}]}')
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_model_makes_a_schema() -> None:
    class Odd:
        @staticmethod
        def model_json_schema() -> list[str]:
            return []

        model_validate = model_json_schema

    with pytest.raises(ConfigurationError, match="list"):
        wire_format(Odd)


@pytest.mark.parametrize("text", ["3", "{}", '{"value": 3, "more": 4}', "[3]"])
def test_a_wrapped_value_stands_alone(text: str) -> None:
    with pytest.raises(ValueError, match="nothing but value"):
        parse(int, text)


def test_the_last_text_that_fits_is_read() -> None:
    message = AssistantMessage([Text('{"value": 1}'), Text("As you asked:"), Text('{"value": 2}'), Text("Bye.")])
    assert message.parsed_as(Plain) == Plain(2)
    torn = AssistantMessage([Text('{"val'), Text('ue": 2}')])
    assert torn.parsed_as(Plain) == Plain(2)
    with pytest.raises(ValueError, match="JSON"):
        AssistantMessage([Text("no"), Text("nothing")]).parsed_as(Plain)
    with pytest.raises(ValueError, match="JSON"):
        AssistantMessage().parsed_as(Plain)
    with pytest.raises(ValueError, match="missing"):
        parse_last(Plain, [])
    with pytest.raises(ConfigurationError):
        message.parsed_as(Bad)


# --- classes that hold themselves: one source says what their members are


@dataclasses.dataclass
class Listed:
    children: list["Listed"]  # noqa: UP037 - what is tested


@dataclasses.dataclass
class ListedOld:
    children: List["ListedOld"]  # noqa: UP006, UP037


@dataclasses.dataclass
class Mapped:
    children: dict[str, "Mapped"]  # noqa: UP037


@dataclasses.dataclass
class Whole:
    children: "list[Whole]"  # noqa: UP037


@dataclasses.dataclass
class Paired:
    children: tuple["Paired", ...]  # noqa: UP037


@dataclasses.dataclass
class Mixed:
    children: list["Mixed | int"]  # noqa: UP037


@dataclasses.dataclass
class Maybe:
    children: Optional["Maybe"]  # noqa: UP037, UP045


@attrs.frozen
class Held:
    children: Sequence["Held"]  # noqa: UP037


class Keyed(TypedDict):
    children: list["Keyed"]  # noqa: UP037


RECURSIVE: list[tuple[Any, Any]] = [
    (Listed, [{"children": []}]),
    (ListedOld, [{"children": []}]),
    (Mapped, {"a": {"children": {}}}),
    (Whole, [{"children": []}]),
    (Paired, [{"children": []}]),
    (Mixed, [{"children": []}, 3]),
    (Maybe, {"children": None}),
    (Held, [{"children": []}]),
    (Keyed, [{"children": []}]),
]


@pytest.mark.parametrize(("kind", "children"), RECURSIVE, ids=[kind.__name__ for kind, _ in RECURSIVE])
async def test_classes_that_hold_themselves(kind: Any, children: Any) -> None:
    value = {"children": children}
    Draft202012Validator(wire_format(kind)["schema"]).validate(value)
    parsed = parse(kind, json.dumps(value))
    first = parsed["children"] if kind is Keyed else parsed.children
    if isinstance(first, Sequence):
        first = first[0]
    elif isinstance(first, dict) and kind is Mapped:
        first = first["a"]
    assert type(first) is (dict if kind is Keyed else kind)

    def function(given) -> str:  # type: ignore[no-untyped-def]
        return type(given).__name__

    function.__annotations__ = {"given": kind, "return": str}
    tool = FunctionTool(function)
    Draft202012Validator(tool.parameters).validate({"given": value})
    (block,) = await tool.call(ToolCall("c", "function", raw_arguments=json.dumps({"given": value})))
    assert block == Text("dict" if kind is Keyed else kind.__name__)


def test_a_class_inside_a_function_may_hold_itself() -> None:
    @dataclasses.dataclass
    class Local:
        children: list["Local"]  # noqa: UP037

    assert parse(Local, '{"children": [{"children": []}]}') == Local([Local([])])
    assert "$defs" in wire_format(Local)["schema"]
