"""The parameters of a callable, resolved, without those that a `functools.partial` has bound."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.schemas.members import Member, hints, note
from engine.values.problems import ConfigurationError

__all__ = ["docstring", "inner", "parameters_of"]

# Parameters that cannot be given by name, and what to call them.
_UNNAMED: Final[Mapping[Any, str]] = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only, and the model gives arguments by name",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments, which no schema can name",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name, which no schema can list",
}
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that carries the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    method: Callable[..., Any] = type(function).__call__
    return method


def docstring(function: Callable[..., Any]) -> str:
    """Return what a callable says of itself."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return inspect.getdoc(function) or ""
    return type(function).__call__.__doc__ or inspect.getdoc(type(function)) or ""


def parameters_of(function: Callable[..., Any], name: str, notes: Mapping[str, str]) -> tuple[Member, ...]:
    """Return what has to be given to a function, and may be.

    Args:
        function: The function.
        name: The function's name in errors.
        notes: The descriptions of its parameters in its docstring.

    Raises:
        ConfigurationError: a parameter has no annotation, or cannot be given by name; ``field`` names it.
    """
    try:
        parameters = _signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(name, f"has a signature that cannot be resolved: {error}") from None
    types = hints(inner(function), name)
    members: list[Member] = []
    for parameter in parameters:
        where = f"{name}.{parameter.name}"
        if parameter.kind in _UNNAMED:
            raise ConfigurationError(where, _UNNAMED[parameter.kind])
        if parameter.name not in types:
            raise ConfigurationError(where, "has no annotation")
        kind, required = types[parameter.name], parameter.default is parameter.empty
        text = note(kind) or notes.get(parameter.name)
        members.append(Member(parameter.name, kind, required, parameter.default, text))
    return tuple(members)


def _signature(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that are still free.

    A function that `functools.wraps` another has that one's parameters only where it passes on whatever it is given.
    """
    if isinstance(function, functools.partial):
        free = _signature(function.func)
        bound = [each for each in free if each.kind in _POSITIONAL][: len(function.args)]
        return [each for each in free if each not in bound and each.name not in function.keywords]
    own = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in own):
        return list(inspect.signature(function).parameters.values())
    return own
