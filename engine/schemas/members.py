"""The members of types; classes with named members are seen alike, whatever made them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, is_typeddict
from uuid import UUID

import attrs
from attrs import frozen

from engine.values.problems import ConfigurationError

__all__ = [
    "ABSENT",
    "FORMATS",
    "LISTS",
    "MAPPINGS",
    "SETS",
    "Member",
    "admits_null",
    "alternatives",
    "bare",
    "documented",
    "hints",
    "is_model",
    "is_record",
    "members",
    "note",
    "summary",
]

ABSENT: Final = object()
"""Stands for a default that is not known or not there: what a TypedDict has when a key is left out."""

FORMATS: Final[Mapping[Any, str]] = {datetime: "date-time", date: "date", time: "time", UUID: "uuid"}
LISTS: Final = frozenset({list, Sequence, MutableSequence})
SETS: Final = frozenset({set, frozenset, AbstractSet, MutableSet})
MAPPINGS: Final = frozenset({dict, Mapping, MutableMapping})


@frozen
class Member:
    """One member of a record: a field, a key, a parameter.

    Attributes:
        name: Its name in JSON.
        type: Its Python type, annotations included.
        required: Whether it has no default.
        default: The default; `ABSENT` where there is none that JSON could show.
        description: Its meaning, for the model.
    """

    name: str
    type: Any
    required: bool
    default: Any
    description: str | None


def bare(kind: Any) -> Any:
    """Return a type without its annotations, aliases and ``NewType`` wrappings."""
    while True:
        if get_origin(kind) in (Annotated, typing.Required, typing.NotRequired):
            kind = get_args(kind)[0]
        elif isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        else:
            return kind


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types a union allows, unions inside it taken apart; a type that is none stands alone."""
    kind = bare(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(each for option in get_args(kind) for each in alternatives(option))
    return (kind,)


def admits_null(kind: Any) -> bool:
    """Whether None is one of a type's own values."""
    return any(
        each in (None, type(None), Any) or (get_origin(each) is Literal and None in get_args(each))
        for each in alternatives(kind)
    )


def is_record(kind: Any) -> bool:
    """Whether a type is a class with named members: attrs, dataclass or TypedDict."""
    return isinstance(kind, type) and (attrs.has(kind) or dataclasses.is_dataclass(kind) or is_typeddict(kind))


def is_model(kind: Any) -> bool:
    """Whether a class makes its own schema and values, as those of Pydantic do."""
    return isinstance(kind, type) and all(
        callable(getattr(kind, name, None)) for name in ("model_json_schema", "model_validate")
    )


def hints(annotated: Any, where: str) -> dict[str, Any]:
    """Return the types that a class or function says, names in them resolved, wherever they stand.

    Raises:
        ConfigurationError: an annotation names something that cannot be found.
    """
    try:
        try:
            return typing.get_type_hints(annotated, include_extras=True)
        except NameError:
            if not isinstance(annotated, type):
                raise
            # A class that was made inside a function is not among the names of its module, and may contain itself.
            return typing.get_type_hints(annotated, localns={annotated.__name__: annotated}, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(where, f"has an annotation that cannot be resolved: {error}") from None


def members(record: type) -> tuple[Member, ...]:
    """Return the members of a record that its constructor takes, in order.

    Raises:
        ConfigurationError: an annotation names something that cannot be found.
    """
    types_by_name = hints(record, record.__name__)
    _, notes = documented(inspect.getdoc(record) or "", "Attributes")
    if is_typeddict(record):
        return tuple(
            Member(name, kind, _required(record, name, kind), ABSENT, note(kind) or notes.get(name))
            for name, kind in types_by_name.items()
        )
    found: list[Member] = []
    fields: Any = attrs.fields(record) if attrs.has(record) else dataclasses.fields(record)
    for each in fields:
        if not each.init:
            continue
        kind = types_by_name.get(each.name, each.type)
        if kind is None and each.type is None and each.name not in types_by_name:
            raise ConfigurationError(f"{record.__name__}.{each.name}", "has no annotation")
        default, required_here = _default(each)
        text = note(kind) or each.metadata.get("description") or notes.get(each.name)
        found.append(Member(getattr(each, "alias", None) or each.name, kind, required_here, default, text))
    return tuple(found)


def _required(record: Any, name: str, kind: Any) -> bool:
    """Whether a TypedDict requires a key; ``__required_keys__`` alone cannot read annotations that are text."""
    if get_origin(kind) in (typing.Required, typing.NotRequired):
        return get_origin(kind) is typing.Required
    return name in record.__required_keys__


def _default(field: Any) -> tuple[Any, bool]:
    """Return a field's default where it is a plain value, and whether there is none at all."""
    if getattr(field, "default_factory", dataclasses.MISSING) is not dataclasses.MISSING:
        return ABSENT, False
    if field.default is attrs.NOTHING or field.default is dataclasses.MISSING:
        return ABSENT, True
    return (ABSENT if isinstance(field.default, attrs.Factory) else field.default), False  # type: ignore[arg-type]


def note(kind: Any) -> str | None:
    """Return the first text among a type's annotations."""
    if get_origin(kind) in (typing.Required, typing.NotRequired):
        return note(get_args(kind)[0])
    if get_origin(kind) is not Annotated:
        return None
    return next((each for each in get_args(kind)[1:] if isinstance(each, str)), None)


_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)")


def documented(docstring: str, section: str) -> tuple[str | None, dict[str, str]]:
    """Read a docstring: its first paragraph, and the entries of one of its sections (Google style)."""
    lines = inspect.cleandoc(docstring).splitlines()
    first: list[str] = []
    for line in lines:
        if not line.strip() or line.rstrip() == f"{section}:":
            break
        first.append(line.strip())
    entries: dict[str, str] = {}
    name, indent = "", 0
    start = next((number for number, line in enumerate(lines) if line.rstrip() == f"{section}:"), len(lines))
    for line in lines[start + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth == 0:
            break
        indent = indent or depth
        entry = _ENTRY.match(line.strip())
        if depth == indent and entry is not None:
            name = entry[1]
            entries[name] = entry[2]
        elif name and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}".lstrip()
    return " ".join(first) or None, {name: text for name, text in entries.items() if text}


def summary(record: type) -> str | None:
    """Return the first paragraph of a class's own docstring; the signature that dataclasses put there is none."""
    own = record.__doc__ or ""
    return None if own.startswith(f"{record.__name__}(") else documented(own, "Attributes")[0]
