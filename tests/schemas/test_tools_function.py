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

from engine import ConfigurationError, Context, File, FunctionTool, Image, Text, Tool, ToolCall, UserMessage
from engine.schemas.function_tool import ToolArgumentError


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
        (functools.partial(add, b=1), "increment", "Add."),
        (wrapped(), None, "Add."),
    ],
    ids=["method", "object", "partial", "wrapped"],
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
        (add, {"timeout": 0}, "add.timeout"),
        (add, {"timeout": float("nan")}, "add.timeout"),
        (add, {"timeout": "1"}, "add.timeout"),
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
