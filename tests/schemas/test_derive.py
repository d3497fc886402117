"""Signatures and classes to JSON schemas, and JSON values to arguments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Required, TypedDict, Union
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai.types.responses import FunctionToolParam
from pydantic import TypeAdapter

from engine.protocol.request_tools import wire_tools
from engine.schemas.derive import is_strict
from engine.schemas.fit import Misfit, fill, structure
from engine.schemas.function_tool import FunctionTool
from engine.schemas.parameters import parameters_of
from engine.values.problems import ConfigurationError

same_examples = settings(derandomize=True, deadline=None, max_examples=600)

UserId = NewType("UserId", str)
OldOptional = Optional[int]  # noqa: UP045 - another class of unions before 3.14
OldUnion = Union[int, str, None]  # noqa: UP007
Mixed = Literal["a", 1, None]  # noqa: PYI061


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Size(StrEnum):
    BIG = "big"


@attrs.frozen
class Point:
    """A place.

    More about it.

    Attributes:
        x: To the right.
        y (float): Up,
            and further up.
    """

    x: float
    y: float = 0.0


@dataclasses.dataclass
class Box:
    corner: Point
    label: str | None = None


@attrs.frozen
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list)


class Ticket(TypedDict):
    title: str
    labels: NotRequired[list[str]]


@attrs.frozen
class Left:
    left: int


@attrs.frozen
class Right:
    right: int


POINT = {
    "type": "object",
    "description": "A place.",
    "properties": {
        "x": {"type": "number", "description": "To the right."},
        "y": {
            "anyOf": [{"type": "number"}, {"type": "null"}],
            "description": "Up, and further up. Null means the default, 0.0.",
        },
    },
    "required": ["x", "y"],
    "additionalProperties": False,
}


def tool_of(kind: Any, default: Any = ..., strict: bool | None = None) -> FunctionTool:
    def f(value: Any) -> None: ...

    f.__annotations__["value"] = kind
    f.__defaults__ = None if default is ... else (default,)
    return FunctionTool(f, strict=strict)


def schema_of(kind: Any, default: Any = ..., strict: bool | None = None) -> Any:
    schema = dict(tool_of(kind, default, strict).parameters)
    return schema["properties"]["value"]


@pytest.mark.parametrize(
    ("kind", "expected", "strict"),
    [
        (str, {"type": "string"}, True),
        (int, {"type": "integer"}, True),
        (float, {"type": "number"}, True),
        (bool, {"type": "boolean"}, True),
        (None, {"type": "null"}, True),
        (UserId, {"type": "string"}, True),
        (datetime, {"type": "string", "format": "date-time"}, True),
        (date, {"type": "string", "format": "date"}, True),
        (UUID, {"type": "string", "format": "uuid"}, True),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}, True),
        (OldOptional, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, True),
        (OldUnion, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}, True),
        (list[int], {"type": "array", "items": {"type": "integer"}}, True),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}, True),
        (set[str], {"type": "array", "items": {"type": "string"}}, True),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, True),
        (tuple[int, int], {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}}, True),
        (
            tuple[int, str],
            {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            },
            False,
        ),
        (list, {"type": "array", "items": {}}, False),
        (dict, {"type": "object", "additionalProperties": True}, False),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, False),
        (Mapping[str, Any], {"type": "object", "additionalProperties": {}}, False),
        (Any, {}, False),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, True),
        (Mixed, {"type": ["string", "integer", "null"], "enum": ["a", 1, None]}, True),
        (Color, {"type": "string", "enum": ["red", "blue"]}, True),
        (Level, {"type": "integer", "enum": [1, 2]}, True),
        (Point, POINT, True),
        (
            Ticket,
            {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "labels": {
                        "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                        "description": "Null leaves it out.",
                    },
                },
                "required": ["title", "labels"],
                "additionalProperties": False,
            },
            True,
        ),
    ],
    ids=str,
)
def test_types(kind: Any, expected: Any, strict: bool) -> None:
    assert schema_of(kind) == expected
    assert tool_of(kind).strict is strict


@pytest.mark.parametrize(
    ("kind", "default", "strict", "ordinary"),
    [
        # None is the default already: nothing changes but that the model says it.
        (int | None, None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"default": None}),
        # None is no value of the type, so null is free to stand for the default.
        (
            int,
            3,
            {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "Null means the default, 3."},
            {"type": "integer", "default": 3},
        ),
        (
            Color,
            Color.RED,
            {
                "anyOf": [{"type": "string", "enum": ["red", "blue"]}, {"type": "null"}],
                "description": 'Null means the default, "red".',
            },
            {"type": "string", "enum": ["red", "blue"], "default": "red"},
        ),
        (
            str,
            "A B",
            {"anyOf": [{"type": "string"}, {"type": "null"}], "description": 'Null means the default, "A B".'},
            {"default": "A B"},
        ),
        # null would have to mean two things.
        (int | None, 3, None, {"default": 3}),
        (dict[str, int], None, None, {"default": None}),
    ],
)
def test_defaults(kind: Any, default: Any, strict: Any, ordinary: Any) -> None:
    taken = tool_of(kind, default)
    if strict is None:
        assert taken.strict is False
    else:
        assert taken.strict is True
        assert taken.parameters["properties"]["value"] == strict
        assert taken.parameters["required"] == ["value"]
    loose = tool_of(kind, default, strict=False)
    assert loose.strict is False
    assert loose.parameters["properties"]["value"].items() >= ordinary.items()
    assert loose.parameters["required"] == []


def test_a_class_that_contains_itself() -> None:
    schema = tool_of(Node).parameters
    assert schema["properties"]["value"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"]["children"]["anyOf"][0]["items"] == {"$ref": "#/$defs/Node"}
    described = tool_of(Annotated[Node, "the root"]).parameters["properties"]["value"]
    assert described == {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "the root"}  # nothing beside a $ref


def test_descriptions_come_from_the_docstring() -> None:
    def look_up(city: str, unit: Annotated[str, "C or F"], days: int) -> None:
        """Look up the weather,
        in a city.

        At length.

        Args:
            city: Where:
                a city's name.
            unit: not this one
            days (int): How many.

        Returns:
            nothing: at all.
        """

    made = FunctionTool(look_up)
    assert made.description == "Look up the weather, in a city."
    assert {name: each.get("description") for name, each in made.parameters["properties"].items()} == {
        "city": "Where: a city's name.",
        "unit": "C or F",
        "days": "How many.",
    }


# --- schemas and values say the same ---------------------------------------------------------------------------------

KINDS: list[Any] = [
    str, int, float, bool, None, UserId, OldOptional, list[int], set[str], tuple[int, str], tuple[str, ...],
    dict[str, int], Mixed, Color, Level, Size, Point, Box, Node, Ticket, int | str | None,
    Left | Right, list[Left | Right | None], float | int, bool | int,
]  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "red", "big", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["x", "y", "corner", "label", "value", "children", "title", "labels", "left", "right"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("strict", [None, False])
def test_every_schema_is_one(kind: Any, strict: bool | None) -> None:
    made = tool_of(kind, strict=strict)
    Draft202012Validator.check_schema(made.parameters)
    assert is_strict(made.parameters) or not made.strict
    TypeAdapter(FunctionToolParam).validate_python(wire_tools([made.tool])[0], strict=True)
    json.dumps(made.parameters)


@same_examples
@given(st.sampled_from(KINDS), st.sampled_from([None, False]), JSON)
def test_what_the_schema_admits_is_what_the_function_gets(kind: Any, strict: bool | None, value: Any) -> None:
    made = tool_of(kind, strict=strict)
    admitted = Draft202012Validator(made.parameters).is_valid({"value": value})
    schema = made.parameters["properties"]["value"]
    enum = "enum" in json.dumps(schema)
    try:
        fill({"value": value}, parameters_of(made.function, "f", {}), null_is_default=made.strict)
    except Misfit:
        # The choice 1 is not written 1.0 or true, though to a schema they are equal.
        assert not admitted or enum
    else:
        # A strict schema asks for every member; one that is left out all the same keeps its default.
        assert admitted or made.strict


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (int, 3.0, 3),
        (int | float, 3, 3),
        (str | Color, "red", Color.RED),
        (str | Color, "green", "green"),
        (Size, "big", Size.BIG),
        (Level, 2, Level.HIGH),
        (frozenset[int], [1, 1], frozenset({1})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (datetime, "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        (UUID, "12345678123456781234567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Box, {"corner": {"x": 1}}, Box(Point(1.0))),
        (Left | Right, {"right": 1}, Right(1)),
        (Node, {"value": 1, "children": [{"value": 2}]}, Node(1, [Node(2)])),
        (Ticket, {"title": "t"}, {"title": "t"}),
        (Any, {"a": [1, None]}, {"a": [1, None]}),
        (None, None, None),
    ],
)
def test_values(kind: Any, value: Any, expected: Any) -> None:
    made = structure(value, kind)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (str, None, "the value must be a string, not null"),
        (int, "3", "the value must be an integer, not a string"),
        (int, True, "the value must be an integer, not a boolean"),
        (int, 0.5, "the value must be an integer, not a number"),
        (float, "x", "the value must be a number, not a string"),
        (bool, 1, "the value must be a boolean, not an integer"),
        (list[int], "ab", "the value must be an array, not a string"),
        (list[int], {"a": 1}, "the value must be an array, not an object"),
        (list[int], [1, None], "[1] must be an integer, not null"),
        (dict[str, int], {"a": "s3cret"}, "a must be an integer, not a string"),
        (dict[str, int], {"s3cret words": "x"}, ".(not shown) must be an integer, not a string"),
        (tuple[int, int], [1], "the value must be an array of 2, not an array of 1"),
        (Point, {}, "x is missing"),
        (Point, {"x": 1, "z": 1}, "z is not known"),
        (Box, {"corner": {"x": "s3cret"}}, "corner.x must be a number, not a string"),
        (Node, {"value": 1, "children": [{"value": "s3cret"}]}, "children[0].value must be an integer, not a string"),
        (Color, "s3cret", 'the value must be one of ["red", "blue"]'),
        (Literal[1], True, "the value must be one of [1]"),
        (datetime, "s3cret", "the value must be a string with a date-time"),
        (int | str, [], "the value must be an integer or must be a string, not an array"),
        (int | None, "s3cret", "the value must be an integer, not a string"),
        (set[Any], [[]], "the value has elements that cannot be in a set"),
        (Left | int, {"left": "s3cret"}, "left must be an integer, not a string"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(kind: Any, value: Any, text: str) -> None:
    with pytest.raises(Misfit) as caught:
        structure(value, kind)
    assert str(caught.value).removeprefix(".") == text.removeprefix(".")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (object, "f.value"),
        (bytes, "f.value"),
        (dict[int, str], "f.value"),
        (list[complex], "f.value[]"),
        (Literal[b"x"], "f.value"),
        (TypeAdapter, "f.value"),
    ],
)
def test_types_that_have_no_schema(kind: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool_of(kind)
    assert caught.value.field == field


# --- the corners of classes ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Corners:
    """Odd members."""

    plain: int
    made: list[int] = dataclasses.field(default_factory=list)
    hidden: int = dataclasses.field(default=0, init=False)


@attrs.define
class Private:
    _count: int
    size: Any = attrs.field(default=None, metadata={"description": "How big."})


class Partial(TypedDict, total=False):
    must: Required[int]
    may: Annotated[NotRequired[str], "maybe"]


@attrs.frozen
class Lost:
    value: Nowhere  # type: ignore[name-defined]  # noqa: F821


@attrs.frozen
class Untyped:
    value = attrs.field()  # type: ignore[var-annotated]


class Odd(Enum):
    PAIR = (1, 2)


def test_members_that_the_constructor_takes() -> None:
    made = schema_of(Corners)
    assert list(made["properties"]) == ["plain", "made"]
    assert made["properties"]["made"]["description"] == "Null leaves it out."
    assert structure({"plain": 1, "made": None}, Corners, null_is_default=True) == Corners(1)
    assert "description" not in schema_of(Box)  # what dataclasses write there is no description


def test_members_are_called_what_the_constructor_calls_them() -> None:
    made = schema_of(Private)
    assert made["properties"]["count"] == {"type": "integer"}
    assert made["properties"]["size"] == {"default": None, "description": "How big."}
    assert structure({"count": 1}, Private) == Private(1)
    with pytest.raises(Misfit, match="count must be an integer"):
        structure({"count": "1"}, Private)


def test_keys_that_may_be_left_out() -> None:
    made = schema_of(Partial, strict=False)
    assert made["required"] == ["must"]
    assert made["properties"]["may"] == {"type": "string", "description": "maybe"}
    assert structure({"must": 1}, Partial) == {"must": 1}
    assert structure({"must": 1, "may": None}, Partial, null_is_default=True) == {"must": 1}


def test_two_classes_of_one_name() -> None:
    other = attrs.make_class("Node", {"inner": attrs.field(type=Any)})
    other.__annotations__["inner"] = list[other]  # type: ignore[valid-type]
    schema = tool_of(tuple[Node, other]).parameters  # type: ignore[valid-type]
    assert set(schema["$defs"]) == {"Node", "Node_2"}
    Draft202012Validator(schema).validate({"value": [{"value": 1}, {"inner": []}]})


@pytest.mark.parametrize(("kind", "field"), [(Lost, "Lost"), (Untyped, "Untyped.value"), (Odd, "f.value")])
def test_classes_that_have_no_schema(kind: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool_of(kind)
    assert caught.value.field == field


CIRCLE: dict[str, Any] = {"type": "array"}
CIRCLE["items"] = CIRCLE


@pytest.mark.parametrize(
    "schema",
    [
        None, 3, "x", [], {}, CIRCLE, {"type": "object"}, {"type": "array"}, {"not": {}},
        {"type": "object", "properties": 3, "additionalProperties": False},
        {"type": "object", "properties": {}, "required": [[]], "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"], "additionalProperties": False},
        {"anyOf": 3}, {"$defs": {"x": {}}, "type": "string"},
    ],
    ids=str,
)  # fmt: skip
def test_schemas_that_nobody_can_enforce(schema: Any) -> None:
    assert not is_strict(schema)
