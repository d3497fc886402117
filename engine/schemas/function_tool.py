"""Python functions as tools: the schema the model sees, the arguments the function gets, the result the model reads."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, TypeVar, overload
from uuid import UUID

import trio
from attrs import field, frozen
from cattrs.preconf.json import JsonConverter, make_converter

from engine.schemas.derive import arguments_schema, is_strict
from engine.schemas.fit import Misfit, decode, fill
from engine.schemas.members import Member, documented
from engine.schemas.parameters import docstring, inner, parameters_of
from engine.values.blocks import File, Image, Text, ToolCall, UserBlock
from engine.values.checks import Validator, flag, mapping, optional, place, seconds, string, wrong_type
from engine.values.messages import Tool
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = ["FunctionTool", "ToolArgumentError", "as_tool", "tool"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_MARK: Final = "__session_engine_tool__"


class ToolArgumentError(ValueError):
    """The model's arguments do not fit the function's parameters.

    The text is written for the model: it names each argument and what is wrong with it.
    """


def _results() -> JsonConverter:
    made = make_converter()
    for kind in (UUID, Decimal, PurePath):
        made.register_unstructure_hook(kind, str)
    made.register_unstructure_hook(bytes, _text)
    return made


def _text(value: bytes) -> str:
    """Read what a command or another server has put out. As cattrs has it, no model could."""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise TypeError("the tool returned bytes that are no text in UTF-8") from None


_CONVERTER: Final = _results()


class FunctionTool:
    """A Python function that the model may call.

    The schema of its arguments comes from the signature: ``str``, ``int``, ``float``, ``bool``, None, unions, lists,
    tuples, sets and mappings, ``Literal``, enums, ``datetime``, ``date``, ``time``, ``UUID``, attrs classes,
    dataclasses, TypedDicts, and classes that make a schema of themselves, as those of Pydantic do. Descriptions come
    from ``Annotated[..., "text"]`` or the docstring: its first paragraph describes the tool, its ``Args:`` section the
    parameters. What a `functools.partial` has bound is none of the tool's parameters, and the model is not told of it.

    Where the signature allows it the tool is strict: the server then makes the model keep to the schema. A strict
    schema requires every argument, so a parameter with a default takes null as well, and null stands for the default.
    Parameters that cannot be put so (a default other than None where None is a value too, open mappings, ``Any``,
    tuples of several types) make the tool an ordinary one.

    Arguments are checked, never converted: null does not become ``"None"``, nor ``"3"`` the number 3.

    Args:
        function: A sync or async function whose parameters are all annotated and can be given by name.
        name: Instead of the function's own name.
        description: Instead of the first paragraph of its docstring.
        parameters: A JSON schema of the arguments object, instead of one made of the signature. The function then gets
            the members of the object as keywords, and what they are is not checked.
        strict: True insists on a strict schema, False on an ordinary one; None takes what the signature, or the schema
            that is given, allows.
        timeout: Seconds that the tool loop gives one call; None for no limit. `call` itself sets none.
        thread: Run a sync function in a worker thread instead of inline. A call that is cancelled leaves the thread
            to itself: it runs to its end, and its result is dropped.

    Attributes:
        function: The function.
        name: The tool's name.
        description: The tool's purpose, for the model.
        parameters: JSON schema of its arguments object.
        strict: Whether that schema is strict.
        timeout: Seconds that the tool loop gives one call.
        thread: Whether calls run in a worker thread.
        tool: All that the model is told, as a plain value without the function.

    Raises:
        ConfigurationError: the function cannot be a tool; ``field`` names the function or parameter.
    """

    __slots__ = ("_function", "_parameters", "thread", "timeout", "tool")

    tool: Final[Tool]
    timeout: Final[float | None]
    thread: bool

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        thread: bool = False,
    ) -> None:
        if not callable(function):
            raise ConfigurationError("FunctionTool", f"is given {kind_of(function)}, not a function")
        chosen = _Options(
            name=_tool_name(function, name),
            description=description,
            parameters=parameters,
            strict=strict,
            timeout=timeout,
            thread=thread,
        )
        called = chosen.name
        assert called is not None
        _check_kind(function, called, thread=thread)
        first, notes = documented(docstring(function), "Args")
        self._function = function
        self.thread = thread
        self.timeout = timeout
        self._parameters: Final[tuple[Member, ...] | None] = (
            parameters_of(function, called, notes) if parameters is None else None
        )
        if self._parameters is not None:
            schema, fits = arguments_schema(self._parameters, called, strict=strict is not False)
        else:
            schema = dict(chosen.parameters or {})
            fits = is_strict(schema) and strict is not False
        if strict and not fits:
            raise ConfigurationError(f"{called}.strict", "is asked for, but the parameters have no strict schema")
        self.tool = Tool(called, first if description is None else description, schema, fits)

    @property
    def function(self) -> Callable[..., Any]:
        """The function."""
        return self._function

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def description(self) -> str | None:
        """The tool's purpose, for the model."""
        return self.tool.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of its arguments object."""
        return self.tool.parameters

    @property
    def strict(self) -> bool:
        """Whether that schema is strict."""
        return bool(self.tool.strict)

    def __repr__(self) -> str:
        return f"<FunctionTool {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same function offered in the same way; bound methods are made anew at each access."""
        if not isinstance(other, FunctionTool):
            return NotImplemented
        return (self.function, self.tool, self.timeout, self.thread) == (
            other.function,
            other.tool,
            other.timeout,
            other.thread,
        )

    def __hash__(self) -> int:
        return hash((self.name, self.timeout, self.thread))

    def hosted(self, host: Callable[[Callable[..., Any]], Callable[..., Any]]) -> FunctionTool:
        """Return the same tool with ``host(function)`` in place of a function that Trio must not run.

        `thread` is true of it: the function runs outside Trio's tasks, to which what stands in for it leads.
        """
        function = host(self.function)
        if function is self.function:
            return self
        made = copy.copy(self)
        made._function, made.thread = function, True
        return made

    async def call(self, call: ToolCall) -> tuple[UserBlock, ...]:
        """Run the function on the model's arguments and return its result as blocks.

        A string becomes one text, None an empty one; `Text`, `Image` and `File` blocks, alone or in a list or tuple
        (strings may stand among them), are taken as they are; anything else becomes JSON text.

        Cancellation: a checkpoint before the function starts. An async function is cancelled wherever it waits; a
        sync one runs to its end, in the caller's task or, with ``thread``, in a thread that a cancelled call abandons.

        Raises:
            ToolArgumentError: the arguments do not fit; the function did not run.
            TypeError: the function returned what JSON cannot hold.
        """
        arguments = self._structured(call)
        await trio.lowlevel.checkpoint()
        if self.thread and not inspect.iscoroutinefunction(self.function):
            result = await trio.to_thread.run_sync(lambda: self.function(**arguments), abandon_on_cancel=True)
        else:
            result = self.function(**arguments)
        if inspect.isawaitable(result):
            result = await result
        return _blocks(result, self.name)

    def _structured(self, call: ToolCall) -> dict[str, Any]:
        """Return the arguments that the call gives; parameters it leaves out keep Python's own default."""
        try:
            given = decode(call.raw_arguments) if call.raw_arguments.strip() else dict(call.arguments)
            if type(given) is not dict:
                raise Misfit(((), "must be a JSON object"))
            if self._parameters is None:
                return given
            return fill(given, self._parameters, null_is_default=self.strict)
        except Misfit as misfit:
            said = f" ({misfit.said})" if misfit.said else ""
            text = str(misfit).replace("the value ", "the arguments object ", 1)
        raise ToolArgumentError(f"{self.name}: {text}{said}") from None


# --- functions offered as they are -----------------------------------------------------------------------------------


def _tool_option(instance: object, attribute: Any, value: object) -> None:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ConfigurationError(place(instance, attribute), "must have 1 to 64 letters, digits, _ or -")


_SECONDS: Final[Validator] = optional(seconds(positive=True, finite=True))


@frozen(kw_only=True)
class _Options:
    """The options of a tool, where its function does not say."""

    _section = "FunctionTool"

    name: str | None = field(default=None, validator=optional(_tool_option))
    description: str | None = field(default=None, validator=optional(string))
    parameters: Mapping[str, Any] | None = field(default=None, validator=optional(mapping))
    strict: bool | None = field(default=None, validator=optional(flag))
    timeout: float | None = field(default=None, validator=_SECONDS)
    thread: bool = field(default=False, validator=flag)


_Function = TypeVar("_Function", bound=Callable[..., Any])


@overload
def tool(function: _Function, /) -> _Function: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    thread: bool = False,
) -> Callable[[_Function], _Function]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    thread: bool = False,
) -> Any:
    """Mark a function as a tool: ``@tool``, or ``@tool(timeout=5)`` with the keywords of `FunctionTool`.

    The function is returned itself, so it can be called, tested and used as a method as before. Plain functions are
    tools too, wherever tools are taken; the mark is for what a signature does not say.

    Raises:
        ConfigurationError: a keyword is wrong. What is wrong with the function is told where it is first offered, when
            all its annotations can be resolved.
    """
    chosen = _Options(
        name=name, description=description, parameters=parameters, strict=strict, timeout=timeout, thread=thread
    )

    def mark(given: Any) -> Any:
        marked = given.__func__ if isinstance(given, (staticmethod, classmethod)) else given
        if not callable(marked) or isinstance(marked, type):
            raise ConfigurationError("tool", f"is put on {kind_of(given)}, not on a function")
        setattr(marked, _MARK, chosen)
        return given

    return mark if function is None else mark(function)


def as_tool(given: Any, where: str = "tools") -> FunctionTool | Tool | Mapping[str, Any]:
    """Return what stands for a tool in a list of them, as one of the three forms that tools have.

    A function becomes a `FunctionTool`, by its mark if it has one; anything that has a `engine.Tool` as its ``tool`` is
    that description.

    Raises:
        ConfigurationError: it is nothing of that, or a function that cannot be a tool.
    """
    if isinstance(given, (FunctionTool, Tool, Mapping)):
        return given
    described = getattr(given, "tool", None)
    if isinstance(described, Tool):
        return described
    if not callable(given):
        raise wrong_type(where, given, "a tool or a function")
    try:
        return _made(given)
    except TypeError:  # a callable without a hash
        return _offered(given)


@functools.lru_cache(maxsize=256)
def _made(function: Callable[..., Any]) -> FunctionTool:
    return _offered(function)


def _offered(function: Callable[..., Any]) -> FunctionTool:
    options = getattr(function, _MARK, None)
    if not isinstance(options, _Options):
        return FunctionTool(function)
    return FunctionTool(
        function,
        name=options.name,
        description=options.description,
        parameters=options.parameters,
        strict=options.strict,
        timeout=options.timeout,
        thread=options.thread,
    )


def _tool_name(function: Callable[..., Any], given: str | None) -> str:
    if given is not None:
        return given
    named: Any = function
    while isinstance(named, functools.partial) and not hasattr(named, "__name__"):
        named = named.func
    name = getattr(named, "__name__", None)
    if name == "<lambda>":
        raise ConfigurationError("FunctionTool", "is given a lambda, whose parameters have no annotations")
    if name is None:
        raise ConfigurationError("FunctionTool.name", f"is needed: {kind_of(named)} has no name of its own")
    if not _NAME.match(name):
        raise ConfigurationError("FunctionTool.name", "must have 1 to 64 letters, digits, _ or -")
    return str(name)


def _check_kind(function: Callable[..., Any], name: str, *, thread: bool) -> None:
    carrier = inner(function)
    if isinstance(carrier, type):
        raise ConfigurationError(name, "is a class, not a function")
    if inspect.isgeneratorfunction(carrier) or inspect.isasyncgenfunction(carrier):
        raise ConfigurationError(name, "is a generator, and a tool has one result")
    if thread and inspect.iscoroutinefunction(carrier):
        raise ConfigurationError(f"{name}.thread", "is set, but the function is async")


# --- results ---------------------------------------------------------------------------------------------------------


def _blocks(result: Any, name: str) -> tuple[UserBlock, ...]:
    if result is None:
        return (Text(""),)
    if isinstance(result, (Text, Image, File)):
        return (result,)
    if isinstance(result, (list, tuple)) and any(isinstance(each, (Text, Image, File)) for each in result):
        if all(isinstance(each, (Text, Image, File, str)) for each in result):
            return tuple(Text(each) if isinstance(each, str) else each for each in result)
        raise TypeError(f"the tool {name} returned blocks among values that are none")
    if isinstance(result, bytes | bytearray | memoryview):
        return (Text(_text(bytes(result))),)
    if isinstance(result, str) and not isinstance(result, Enum):
        return (Text(str(result)),)
    return (Text(_json(result, name)),)


def _json(result: Any, name: str) -> str:
    def refuse(value: Any) -> Any:
        raise TypeError(f"the tool {name} returned {kind_of(value)}, which JSON cannot hold")

    plain = _CONVERTER.unstructure(result)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=refuse)
