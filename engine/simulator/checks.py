"""The wording of mistakes in a script, and the types of the members of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from engine.values.type_names import kind_of

__all__ = [
    "ScriptError",
    "a_count",
    "a_mapping",
    "a_text",
    "choices",
    "fits",
    "mappings",
    "one_of",
    "optional",
    "seconds",
]


class ScriptError(ValueError):
    """A script that cannot be meant so; raised when it is made, before any request.

    Attributes:
        problem: The mistake, and a guess at what was meant.
        path: The place in the script, from the outside inwards: names and indices.
    """

    def __init__(self, problem: str, path: Iterable[str | int] = ()) -> None:
        self.problem = problem
        self.path: tuple[str | int, ...] = tuple(path)
        super().__init__(problem, self.path)

    def __str__(self) -> str:
        if not self.path:
            return self.problem
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")
        return f"{where}: {self.problem}"


# --- checks of a step's members --------------------------------------------------------------------------------------

_Validator: TypeAlias = "Callable[[Any, attrs.Attribute[Any], Any], None]"


def _complain(step: object, member: attrs.Attribute[Any], expected: str, value: object) -> ScriptError:
    shown = repr(value) if isinstance(value, (bool, int, float)) or value is None else kind_of(value)
    return ScriptError(f"{type(step).__name__} takes {expected} as {member.name!r}, not {shown}", (member.name,))


def a_text(step: object, member: attrs.Attribute[Any], value: object) -> None:
    """Take text."""
    if not isinstance(value, str):
        raise _complain(step, member, "text", value)


def a_count(least: int, most: int | None = None) -> _Validator:
    """Take whole numbers of a range."""

    def check(step: object, member: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _complain(step, member, "a whole number", value)
        if value < least or (most is not None and value > most):
            expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")
            raise _complain(step, member, expected, value)

    return check


def seconds(step: object, member: attrs.Attribute[Any], value: object) -> None:
    """Take a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise _complain(step, member, "seconds, 0 or more,", value)


def a_mapping(step: object, member: attrs.Attribute[Any], value: object) -> None:
    """Take a JSON object."""
    if not isinstance(value, Mapping):
        raise _complain(step, member, "a mapping", value)


def mappings(step: object, member: attrs.Attribute[Any], value: object) -> None:
    """Take a list of JSON objects."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise _complain(step, member, "a list of mappings", value)
    for each in value:
        a_mapping(step, member, each)


def one_of(*values: str) -> _Validator:
    """Take these strings."""

    def check(step: object, member: attrs.Attribute[Any], value: object) -> None:
        if value not in values:
            given = repr(value) if isinstance(value, str) else kind_of(value)
            raise ScriptError(
                f"{type(step).__name__} takes one of {', '.join(values)} as {member.name!r}, not {given}",
                (member.name,),
            )

    return check


def fits(value: object, hint: Any) -> bool:
    """Whether a value has a type: literals, truth values, numbers from 0, text, tuples of text, and unions of these."""
    origin = get_origin(hint)
    if origin is Literal:
        return any(value.__class__ is each.__class__ and value == each for each in get_args(hint))
    if origin in {Union, UnionType}:
        return any(fits(value, each) for each in get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if hint is float or hint is int:
        return not isinstance(value, bool) and isinstance(value, (int, hint)) and 0 <= value < float("inf")
    return isinstance(value, hint)


def choices(hint: Any) -> list[str]:
    """Return the texts that a type has as literals, in order."""
    if get_origin(hint) is Literal:
        return [each for each in get_args(hint) if isinstance(each, str)]
    return [each for inner in get_args(hint) for each in choices(inner)]


def optional(check: _Validator) -> _Validator:
    """Take None, or what ``check`` takes."""

    def check_unless_none(step: object, member: attrs.Attribute[Any], value: object) -> None:
        if value is not None:
            check(step, member, value)

    return check_unless_none
