"""Python functions as tools: the schema the model sees, the arguments the function gets, the result the model reads."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import attrs
import trio
from cattrs.preconf.json import JsonConverter, make_converter

from engine.schemas.derive import object_schema
from engine.schemas.fit import Misfit, decode, structure
from engine.schemas.members import documented
from engine.values.messages import File, Image, Text, Tool, ToolCall, UserBlock
from engine.values.problems import ConfigurationError

__all__ = ["FunctionTool", "ToolArgumentError"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

# Parameters that cannot be given by name, and what to call them.
_UNNAMED: Final[Mapping[Any, str]] = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only, and the model gives arguments by name",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments, which no schema can name",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name, which no schema can list",
}


class ToolArgumentError(ValueError):
    """The model's arguments do not fit the function's parameters.

    The text is written for the model: it names each argument and what is wrong with it.
    """


def _results() -> JsonConverter:
    made = make_converter()
    for kind in (UUID, Decimal, PurePath):
        made.register_unstructure_hook(kind, str)
    return made


_CONVERTER: Final = _results()


class FunctionTool:
    """A Python function that the model may call.

    The schema of its arguments comes from the signature: ``str``, ``int``, ``float``, ``bool``, None, unions, lists,
    tuples, sets and mappings, ``Literal``, enums, ``datetime``, ``date``, ``time``, ``UUID``, attrs classes,
    dataclasses and TypedDicts. Descriptions come from ``Annotated[..., "text"]`` or the docstring: its first paragraph
    describes the tool, its ``Args:`` section the parameters.

    Where the signature allows it the tool is strict: the server then makes the model keep to the schema. A strict
    schema requires every argument, so a parameter with a default takes null as well, and null stands for the default.
    Parameters that cannot be put so (a default other than None where None is a value too, open mappings, ``Any``,
    tuples of several types) make the tool an ordinary one.

    Arguments are checked, never converted: null does not become ``"None"``, nor ``"3"`` the number 3.

    Args:
        function: A sync or async function whose parameters are all annotated and can be given by name.
        name: Instead of the function's own name.
        description: Instead of the first paragraph of its docstring.
        strict: True insists on a strict schema, False on an ordinary one; None takes what the signature allows.
        timeout: Seconds that the tool loop gives one call; None for no limit. `call` itself sets none.
        thread: Run a sync function in a worker thread instead of inline. A call that is cancelled leaves the thread
            to itself: it runs to its end, and nobody sees its result.

    Attributes:
        name: The tool's name.
        description: What it does, for the model.
        parameters: JSON schema of its arguments object.
        strict: Whether that schema is strict.
        thread: Whether the function runs in a worker thread.
        timeout: Seconds that the tool loop gives one call.
        tool: All of that as a plain value, without the function.

    Raises:
        ConfigurationError: the function cannot be a tool; ``field`` names the function or parameter.
    """

    __slots__ = ("_arguments", "_function", "_thread", "timeout", "tool")

    tool: Final[Tool]
    timeout: Final[float | None]

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        thread: bool = False,
    ) -> None:
        if not callable(function):
            raise ConfigurationError("FunctionTool", f"is given a {type(function).__name__}, not a function")
        called = _tool_name(function, name)
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise ConfigurationError(f"{called}.timeout", f"is a {type(timeout).__name__}, not a number of seconds")
        if timeout is not None and not timeout > 0:
            raise ConfigurationError(f"{called}.timeout", "must be greater than 0")
        _check_kind(function, called, thread=thread)
        first, notes = documented(_docstring(function), "Args")
        self._function = function
        self._thread: Final = thread
        self._arguments: Final = _arguments_class(function, called, notes)
        schema, fits = object_schema(self._arguments, called, strict=strict is not False)
        if strict and not fits:
            raise ConfigurationError(f"{called}.strict", "is asked for, but the signature has no strict schema")
        self.timeout = timeout
        self.tool = Tool(called, first if description is None else description, schema, fits)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def description(self) -> str | None:
        """What it does, for the model."""
        return self.tool.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of its arguments object."""
        return self.tool.parameters

    @property
    def strict(self) -> bool:
        """Whether that schema is strict."""
        return bool(self.tool.strict)

    @property
    def thread(self) -> bool:
        """Whether the function runs in a worker thread."""
        return self._thread

    def __repr__(self) -> str:
        return f"<FunctionTool {self.name!r}>"

    def hosted(self, host: Callable[[Callable[..., Any]], Callable[..., Any]]) -> FunctionTool:
        """Return the same tool with ``host(function)`` in place of a function that Trio must not run."""
        made = copy.copy(self)
        made._function = host(self._function)
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
        run = functools.partial(self._function, **arguments)
        if self._thread:
            result = await trio.to_thread.run_sync(run, abandon_on_cancel=True)
        else:
            result = run()
        if inspect.isawaitable(result):
            result = await result
        return _blocks(result, self.name)

    def _structured(self, call: ToolCall) -> dict[str, Any]:
        """Return the arguments that the call gives; parameters it leaves out keep Python's own default."""
        try:
            given = decode(call.raw_arguments) if call.raw_arguments.strip() else dict(call.arguments)
            if type(given) is not dict:
                raise Misfit(((), "must be a JSON object"))
            made = structure(given, self._arguments, null_is_default=self.strict)
        except Misfit as misfit:
            said = f" ({misfit.said})" if misfit.said else ""
            text = str(misfit).replace("the value ", "the arguments object ", 1)
            raise ToolArgumentError(f"{self.name}: {text}{said}") from None
        return {each.name: getattr(made, each.name) for each in attrs.fields(self._arguments)}


def _tool_name(function: Callable[..., Any], given: str | None) -> str:
    name = getattr(function, "__name__", None) if given is None else given
    if name == "<lambda>":
        raise ConfigurationError("FunctionTool", "is given a lambda, whose parameters have no annotations")
    if name is None:
        raise ConfigurationError("FunctionTool.name", f"is needed: a {type(function).__name__} has no name of its own")
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigurationError("FunctionTool.name", "must have 1 to 64 letters, digits, _ or -")
    return name


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that carries the annotations and the docstring."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    method: Callable[..., Any] = type(function).__call__
    return method


def _docstring(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return inspect.getdoc(function) or ""
    return type(function).__call__.__doc__ or inspect.getdoc(type(function)) or ""


def _check_kind(function: Callable[..., Any], name: str, *, thread: bool) -> None:
    inner = _inner(function)
    if isinstance(function, type):
        raise ConfigurationError(name, "is a class, not a function")
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(name, "is a generator, and a tool has one result")
    if thread and inspect.iscoroutinefunction(inner):
        raise ConfigurationError(f"{name}.thread", "is set, but the function is async")


def _arguments_class(function: Callable[..., Any], name: str, notes: Mapping[str, str]) -> type:
    """Make a class of a signature, so that arguments are what the fields of any other class are."""
    try:
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(_inner(function), include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigurationError(name, f"has a signature that cannot be resolved: {error}") from None
    fields: dict[str, Any] = {}
    for parameter in parameters.values():
        where = f"{name}.{parameter.name}"
        if parameter.kind in _UNNAMED:
            raise ConfigurationError(where, _UNNAMED[parameter.kind])
        if parameter.name not in hints:
            raise ConfigurationError(where, "has no annotation")
        fields[parameter.name] = attrs.field(
            type=hints[parameter.name],
            default=attrs.NOTHING if parameter.default is parameter.empty else parameter.default,
            alias=parameter.name,
            kw_only=True,
            metadata={"description": notes.get(parameter.name)},
        )
    return attrs.make_class("Arguments", fields, slots=False, eq=False, repr=False, collect_by_mro=True)


def _blocks(result: Any, name: str) -> tuple[UserBlock, ...]:
    if result is None:
        return (Text(""),)
    if isinstance(result, (Text, Image, File)):
        return (result,)
    if isinstance(result, (list, tuple)) and any(isinstance(each, (Text, Image, File)) for each in result):
        if all(isinstance(each, (Text, Image, File, str)) for each in result):
            return tuple(Text(each) if isinstance(each, str) else each for each in result)
        raise TypeError(f"the tool {name} returned blocks among values that are none")
    if isinstance(result, str) and not isinstance(result, Enum):
        return (Text(str(result)),)
    return (Text(_json(result, name)),)


def _json(result: Any, name: str) -> str:
    def refuse(value: Any) -> Any:
        raise TypeError(f"the tool {name} returned a {type(value).__name__}, which JSON cannot hold")

    plain = _CONVERTER.unstructure(result)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=refuse)
