"""Functions as tools: what can be one, what it is called with, what comes of its result."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio

from engine import ConfigurationError, Context, File, Image, Text, Tool, ToolCall, UserMessage
from engine.schemas.function_tool import FunctionTool, ToolArgumentError, as_tool, tool


class Color(Enum):
    RED = "red"


class Word(StrEnum):
    YES = "yes"


@attrs.frozen
class Place:
    city: str
    zip_code: int = attrs.field(default=1, validator=attrs.validators.ge(0))


def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


def call(raw: str = "", arguments: dict[str, Any] | None = None) -> ToolCall:
    return ToolCall("call_1|fc_1", "f", arguments or {}, raw)


async def text_of(tool: FunctionTool, raw: str = "{}") -> str:
    (block,) = await tool.call(call(raw))
    assert isinstance(block, Text)
    return block.text


# --- construction ----------------------------------------------------------------------------------------------------


def test_what_a_tool_says_of_itself() -> None:
    tool = FunctionTool(add)
    assert (tool.name, tool.description, tool.strict, tool.timeout) == ("add", "Add.", True, None)
    assert tool.tool == Tool("add", "Add.", tool.parameters, True)
    assert repr(tool) == "<FunctionTool 'add'>"
    other = FunctionTool(add, name="plus", description="", strict=False, timeout=3)
    assert (other.name, other.description, other.strict, other.timeout) == ("plus", "", False, 3)
    assert Context([UserMessage("hi")], tools=[tool, other]).tools == (tool, other)


def test_a_tool_can_be_made_where_the_function_is() -> None:
    @FunctionTool
    def now() -> str:
        return "12:00"

    assert now.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, by: int) -> int:
        """Count on."""
        self.count += by
        return self.count

    def __call__(self, by: int) -> int:
        return self.add(by)


def wrapped() -> Any:
    @functools.wraps(add)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return add(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    ("function", "name", "description"),
    [
        (Counter().add, None, "Count on."),
        (Counter(), "count", "Counts."),
        (functools.partial(add, b=0), "increment", "Add."),
        (functools.partial(add, b=0), None, "Add."),
        (functools.partial(functools.partial(add), b=0), None, "Add."),
        (wrapped(), None, "Add."),
    ],
    ids=["method", "object", "partial", "nameless partial", "partial of a partial", "wrapped"],
)
async def test_everything_that_is_called_like_a_function(function: Any, name: str | None, description: str) -> None:
    tool = FunctionTool(function, name=name)
    assert tool.description == description
    first = next(iter(tool.parameters["properties"]))
    assert (
        await text_of(tool, json.dumps({first: 1} | ({"b": 0} if "b" in tool.parameters["properties"] else {}))) == "1"
    )


def unannotated(a) -> None: ...  # type: ignore[no-untyped-def]
def positional(a: int, /) -> None: ...
def many(*a: int) -> None: ...
def keywords(**a: int) -> None: ...
def unknown(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def waits() -> None: ...
def loose(a: dict[str, int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "field"),
    [
        (3, {}, "FunctionTool"),
        (lambda: None, {}, "FunctionTool"),
        (Counter, {}, "Counter"),
        (Counter(), {}, "FunctionTool.name"),
        (unannotated, {}, "unannotated.a"),
        (positional, {}, "positional.a"),
        (many, {}, "many.a"),
        (keywords, {}, "keywords.a"),
        (unknown, {}, "unknown"),
        (generator, {}, "generator"),
        (async_generator, {}, "async_generator"),
        (add, {"name": "a b"}, "FunctionTool.name"),
        (add, {"name": ""}, "FunctionTool.name"),
        (add, {"name": "a" * 65}, "FunctionTool.name"),
        (add, {"name": "a\n"}, "FunctionTool.name"),
        (add, {"timeout": 0}, "FunctionTool.timeout"),
        (add, {"timeout": float("nan")}, "FunctionTool.timeout"),
        (add, {"timeout": "1"}, "FunctionTool.timeout"),
        (waits, {"thread": True}, "waits.thread"),
        (loose, {"strict": True}, "loose.strict"),
    ],
)
def test_what_cannot_be_a_tool(function: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FunctionTool(function, **options)
    assert caught.value.field == field


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "result"),
    [
        (call('{"a": 1, "b": 4}'), "5"),
        (call('{"a": 1}'), "3"),
        (call('{"a": 1, "b": null}'), "3"),  # strict: null stands for the default
        (call("", {"a": 1}), "3"),
        (call('{"a": 1}', {"a": 100}), "3"),  # what the model wrote counts
    ],
)
async def test_arguments(asked: ToolCall, result: str) -> None:
    assert await FunctionTool(add).call(asked) == (Text(result),)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"a": "3"}', "f: a must be an integer, not a string"),
        ('{"a": null}', "f: a must be an integer, not null"),
        ('{"a": 1, "place": {"city": null}}', "f: place.city must be a string, not null"),
        ('{"a": 1, "place": {"city": "x", "zip_code": "1"}}', "f: place.zip_code must be an integer, not a string"),
        ("{}", "f: a is missing"),
        ("", "f: a is missing"),
        ('{"a": 1, "c": 1}', "f: c is not known"),
        ("[]", "f: the arguments object must be a JSON object"),
        ('{"a": 1', "f: the arguments object is not valid JSON: Expecting ',' delimiter at character 7"),
        ('{"a": NaN}', "f: the arguments object is not valid JSON"),
        ("[" * 100_000, "f: the arguments object is not valid JSON"),
    ],
)
async def test_arguments_that_do_not_fit(raw: str, text: str) -> None:
    def f(a: int, place: Place | None = None) -> None:
        raise AssertionError

    with pytest.raises(ToolArgumentError) as caught:
        await FunctionTool(f).call(call(raw))
    assert str(caught.value) == text
    assert caught.value.__suppress_context__


async def test_what_a_classs_own_checks_say_reaches_the_model() -> None:
    def f(place: Place) -> None: ...

    with pytest.raises(ToolArgumentError, match=r"f: place was not accepted \('zip_code' must be >= 0: -1\)"):
        await FunctionTool(f).call(call('{"place": {"city": "x", "zip_code": -1}}'))


async def test_null_is_no_default_where_the_schema_does_not_say_so() -> None:
    with pytest.raises(ToolArgumentError, match="b must be an integer, not null"):
        await FunctionTool(add, strict=False).call(call('{"a": 1, "b": null}'))


@attrs.frozen
class Nest:
    inner: list[Nest]


async def test_arguments_nested_without_end() -> None:
    def f(nest: Nest) -> None: ...

    for depth in (300, 3_000, 30_000):
        with pytest.raises(ToolArgumentError):
            await FunctionTool(f).call(call('{"nest": ' + '{"inner": [' * depth + "1" + "]}" * depth + "}"))


# --- results ---------------------------------------------------------------------------------------------------------

PICTURE = Image("https://x/y.png")


@pytest.mark.parametrize(
    ("result", "blocks"),
    [
        (None, (Text(""),)),
        ("as it is", (Text("as it is"),)),
        ("", (Text(""),)),
        (Text("t"), (Text("t"),)),
        (PICTURE, (PICTURE,)),
        ([Text("t"), PICTURE, File("f")], (Text("t"), PICTURE, File("f"))),
        (("look:", PICTURE), (Text("look:"), PICTURE)),
        (3, (Text("3"),)),
        (True, (Text("true"),)),
        ([], (Text("[]"),)),
        (["a", "ü"], (Text('["a","ü"]'),)),
        ({"a": [1, None]}, (Text('{"a":[1,null]}'),)),
        (Place("x"), (Text('{"city":"x","zip_code":1}'),)),
        ([Place("x")], (Text('[{"city":"x","zip_code":1}]'),)),
        ({"p": Place("x")}, (Text('{"p":{"city":"x","zip_code":1}}'),)),
        (Color.RED, (Text('"red"'),)),
        (Word.YES, (Text('"yes"'),)),
        ({Color.RED: 1}, (Text('{"red":1}'),)),
        (datetime(2026, 1, 2, tzinfo=UTC), (Text('"2026-01-02T00:00:00+00:00"'),)),
        (UUID(int=1), (Text('"00000000-0000-0000-0000-000000000001"'),)),
        (Decimal("1.50"), (Text('"1.50"'),)),
        (PurePosixPath("/a"), (Text('"/a"'),)),
        ({1}, (Text("[1]"),)),
        ("é".encode(), (Text("é"),)),
        (bytearray(b"x"), (Text("x"),)),
        pytest.param(memoryview(b"x"), (Text("x"),), id="memoryview"),  # whose repr has its address
        ({"out": "é".encode()}, (Text('{"out":"é"}'),)),
    ],
    ids=repr,
)
async def test_results(result: Any, blocks: Any) -> None:
    def f() -> Any:
        return result

    async def g() -> Any:
        return result

    assert await FunctionTool(f).call(call()) == blocks
    assert await FunctionTool(g).call(call()) == blocks


@pytest.mark.parametrize("result", [b"\xff", {"out": b"\xff"}])
async def test_bytes_that_are_no_text(result: Any) -> None:
    def f() -> Any:
        return result

    with pytest.raises(TypeError, match="no text in UTF-8") as caught:
        await FunctionTool(f).call(call())
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("result", [object(), [PICTURE, 3]])
async def test_results_that_nobody_can_read(result: Any) -> None:
    def f() -> Any:
        return result

    with pytest.raises(TypeError, match="the tool f returned"):
        await FunctionTool(f).call(call())


# --- running ---------------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


@pytest.mark.parametrize("thread", [False, True])
async def test_exceptions_of_the_function_pass_through(thread: bool) -> None:
    def f() -> None:
        raise Boom

    with pytest.raises(Boom):
        await FunctionTool(f, thread=thread).call(call())


async def test_sync_functions_run_inline_unless_told_otherwise() -> None:
    def f() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await text_of(FunctionTool(f)) == "true"
    assert await text_of(FunctionTool(f, thread=True)) == "false"


async def test_a_sync_function_may_return_what_has_to_be_awaited() -> None:
    async def inner() -> str:
        await trio.lowlevel.checkpoint()
        return "done"

    def f() -> Any:
        return inner()

    assert await text_of(FunctionTool(f)) == "done"


async def test_a_cancelled_call_does_not_start() -> None:
    started = False

    def f() -> None:
        nonlocal started
        started = True

    with trio.CancelScope() as scope:
        scope.cancel()
        await FunctionTool(f).call(call())
    assert scope.cancelled_caught
    assert not started


async def test_async_functions_are_cancelled_where_they_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def f() -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await FunctionTool(f, timeout=0.1).call(call())  # the budget is the tool loop's to keep
    assert scope.cancelled_caught
    assert trio.current_time() >= 1


async def test_a_thread_is_left_behind() -> None:
    release, finished = threading.Event(), threading.Event()

    def f() -> None:
        release.wait(10)
        finished.set()

    with trio.move_on_after(0.05) as scope:
        await FunctionTool(f, thread=True).call(call())
    assert scope.cancelled_caught
    assert not finished.is_set()
    release.set()
    assert await trio.to_thread.run_sync(finished.wait, 10)


# --- what is bound, and names of every kind --------------------------------------------------------------------------


def query(sql: str, password: str, limit: int = 10) -> str:
    """Run a query.

    Args:
        sql: The query.
        password: Not the model's business.
    """
    return f"{sql} {password} {limit}"


BOUND = [
    functools.partial(query, password="s3cret"),
    functools.update_wrapper(functools.partial(query, password="s3cret"), query),
    functools.partial(functools.partial(query, limit=10), password="s3cret"),
    functools.update_wrapper(functools.partial(functools.partial(query, password="x"), password="s3cret"), query),
]


@pytest.mark.parametrize("function", BOUND, ids=["plain", "dressed", "nested", "bound twice"])
async def test_what_is_bound_is_no_parameter(function: Any) -> None:
    tool = FunctionTool(function)
    assert "password" not in json.dumps(tool.parameters)
    assert "s3cret" not in json.dumps([tool.parameters, tool.description, repr(tool)])
    assert tool.name == "query"
    assert await text_of(tool, '{"sql": "select 1"}') == "select 1 s3cret 10"
    with pytest.raises(ToolArgumentError):
        await text_of(tool, '{"sql": "select 1", "password": "mine"}')


async def test_what_is_bound_by_position_is_no_parameter() -> None:
    tool = FunctionTool(functools.partial(query, "select 1"))
    assert list(tool.parameters["properties"]) == ["password", "limit"]
    assert await text_of(functools_tool := FunctionTool(functools.partial(query, "a", "b")), "{}") == "a b 10"
    assert list(functools_tool.parameters["properties"]) == ["limit"]


async def test_a_wrapper_that_takes_less_offers_less() -> None:
    @functools.wraps(query)
    def narrowed(sql: str) -> str:
        return query(sql, "s3cret")

    tool = FunctionTool(narrowed)
    assert list(tool.parameters["properties"]) == ["sql"]
    assert await text_of(tool, '{"sql": "select 1"}') == "select 1 s3cret 10"


async def test_parameters_of_any_name() -> None:
    def odd(self: int, __slots__: int, __init__: int = 1, cls: int = 2, fields: int = 3, Arguments: int = 4) -> int:  # noqa: N803
        return self + __slots__ + __init__ + cls + fields + Arguments

    assert await text_of(FunctionTool(odd), '{"self": 10, "__slots__": 20}') == "40"


async def test_a_default_that_is_left_out_stays_the_functions_own() -> None:
    missing = object()

    def told(a: int, b: Any = missing) -> str:
        return "nothing" if b is missing else str(b)

    tool = FunctionTool(told)
    assert await text_of(tool, '{"a": 1}') == "nothing"
    assert await text_of(tool, '{"a": 1, "b": 2}') == "2"


# --- given schemas ---------------------------------------------------------------------------------------------------

GIVEN = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}


async def test_a_schema_that_is_given() -> None:
    async def search(**arguments: Any) -> Any:
        return arguments

    tool = FunctionTool(search, name="search", description="Search.", parameters=GIVEN)
    assert tool.tool == Tool("search", "Search.", GIVEN, True)
    assert await text_of(tool, '{"q": "a", "n": 1}') == '{"q":"a","n":1}'
    with pytest.raises(ToolArgumentError):
        await text_of(tool, "[]")
    assert not FunctionTool(search, name="s", parameters={"type": "object"}).strict
    assert not FunctionTool(search, name="s", parameters=GIVEN, strict=False).strict
    wrong: list[Any] = [[], "x", {1: 2}]
    for each in wrong:
        with pytest.raises(ConfigurationError) as caught:
            FunctionTool(search, name="s", parameters=each)
        assert caught.value.field == "FunctionTool.parameters"
    with pytest.raises(ConfigurationError):
        FunctionTool(search, name="s", parameters={}, strict=True)


# --- functions as they are -------------------------------------------------------------------------------------------


@tool
def plain(a: int) -> int:
    """Plain."""
    return a


@tool(name="other", description="Other.", timeout=5, strict=False, thread=True)
def marked(a: int) -> int:
    return a


class Service:
    @tool(timeout=3)
    def method(self, a: int) -> int:
        return a + 1

    @tool
    @staticmethod
    def static(a: int) -> int:
        return a

    @classmethod
    @tool(name="of_class")
    def of_class(cls, a: int) -> int:
        return a


def test_a_mark_leaves_the_function_itself() -> None:
    assert plain(3) == 3
    assert marked(3) == 3
    assert Service().method(3) == 4
    assert Service.static(3) == 3
    assert plain.__name__ == "plain"


def test_functions_become_tools() -> None:
    made = as_tool(plain)
    assert isinstance(made, FunctionTool)
    assert (made.name, made.description, made.timeout, made.thread) == ("plain", "Plain.", None, False)
    assert as_tool(plain) is made
    assert as_tool(made) is made
    other = as_tool(marked)
    assert isinstance(other, FunctionTool)
    assert (other.name, other.description, other.timeout, other.thread, other.strict) == (
        "other",
        "Other.",
        5,
        True,
        False,
    )
    unmarked = as_tool(add)
    assert isinstance(unmarked, FunctionTool)
    assert unmarked.function is add


def test_methods_become_tools() -> None:
    service = Service()
    made, again, static = as_tool(service.method), as_tool(service.method), as_tool(service.static)
    assert isinstance(made, FunctionTool)
    assert isinstance(static, FunctionTool)
    assert (made.name, made.timeout, list(made.parameters["properties"])) == ("method", 3, ["a"])
    assert made == again
    assert hash(made) == hash(again)
    assert made != as_tool(Service().method)
    assert made != plain
    assert static.name == "static"
    of_class = as_tool(Service.of_class)
    assert isinstance(of_class, FunctionTool)
    assert (of_class.name, list(of_class.parameters["properties"])) == ("of_class", ["a"])


def test_a_wrapper_of_a_marked_function_is_called_itself() -> None:
    @functools.wraps(marked)
    def wrapper(*args: Any, **kwargs: Any) -> int:
        return -marked(*args, **kwargs)

    made = as_tool(wrapper)
    assert isinstance(made, FunctionTool)
    assert (made.function, made.name) == (wrapper, "other")


def test_what_is_a_description_stays_one() -> None:
    described = Tool("d")
    wire = {"type": "web_search"}
    assert as_tool(described) is described
    assert as_tool(wire) is wire


@pytest.mark.parametrize("given", [3, "look", None, Counter])
def test_what_is_no_tool(given: Any) -> None:
    with pytest.raises(ConfigurationError):
        as_tool(given, "tools[2]")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": 0}, "FunctionTool.timeout"),
        ({"timeout": "5"}, "FunctionTool.timeout"),
        ({"name": "a b"}, "FunctionTool.name"),
        ({"description": 3}, "FunctionTool.description"),
        ({"strict": 1}, "FunctionTool.strict"),
        ({"thread": None}, "FunctionTool.thread"),
        ({"parameters": []}, "FunctionTool.parameters"),
    ],
)
def test_wrong_marks(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool(**options)
    assert caught.value.field == field


def test_a_keyword_that_marks_do_not_have() -> None:
    with pytest.raises(TypeError, match=r"tool\(\) got an unexpected keyword argument 'timeuot'"):
        tool(timeuot=5)  # type: ignore[call-overload]


def test_marks_are_for_functions() -> None:
    for given in (3, Counter):
        with pytest.raises(ConfigurationError):
            tool(given)  # type: ignore[type-var]
    with pytest.raises(TypeError):
        tool(timeuot=3)  # type: ignore[call-overload]
