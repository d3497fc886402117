"""Samples of the openai package's generated types: JSON objects with the least, or with everything, a type can hold."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, Literal, NotRequired, Required, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import TypeAliasType, is_typeddict

__all__ = ["fields", "instance", "members"]

DEEPEST = 6
WRAPPERS = (typing.Annotated, Required, typing.Required, NotRequired, typing.NotRequired)


def members(union: Any) -> list[Any]:
    """The classes of a union, however it is wrapped."""
    if isinstance(union, TypeAliasType):
        return members(union.__value__)
    if get_origin(union) in WRAPPERS:
        return members(get_args(union)[0])
    if get_origin(union) in (typing.Union, types.UnionType):
        return [member for each in get_args(union) for member in members(each)]
    return [union]


@cache
def fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Wire name to annotation and whether it is required."""
    if is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {name: (hint, get_origin(hint) in (Required, typing.Required)) for name, hint in hints.items()}
    return {f.alias or name: (f.annotation, f.is_required()) for name, f in cls.model_fields.items()}


def sample(annotation: Any, full: bool, depth: int = 0) -> Any:
    """A JSON value of an annotation: the least there can be, or everything there can be."""
    full = full and depth < DEEPEST
    choices = members(annotation)
    if type(None) in choices and not full:
        return None
    choice = next((each for each in choices if each is not type(None)), None)
    origin, arguments = get_origin(choice), get_args(choice)
    if origin is Literal:
        return arguments[0]
    if origin in (list, typing.Iterable, *ITERABLES):
        return [sample(each, full, depth + 1) for each in members(arguments[0])] if full else []
    if origin is dict:
        return {"key": sample(arguments[1], full, depth + 1)} if full else {}
    if choice in SCALARS:
        return SCALARS[choice]
    if is_typeddict(choice) or (isinstance(choice, type) and issubclass(choice, BaseModel)):
        return instance(choice, full, depth + 1)
    assert choice is not None
    raise AssertionError(f"no sample for {choice}")


ITERABLES = (typing.get_origin(typing.Iterable[int]), typing.get_origin(typing.Sequence[int]))
SCALARS: dict[Any, Any] = {str: "text", int: 7, float: 0.5, bool: True, object: {"any": [1]}, Any: "any", dict: {}}


def instance(cls: Any, full: bool, depth: int = 0) -> dict[str, Any]:
    """A JSON object of a class: its required members, or all it can have."""
    return {
        name: sample(annotation, full, depth)
        for name, (annotation, required) in fields(cls).items()
        if full or required
    }
