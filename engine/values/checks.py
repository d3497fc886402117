"""The checks of values that callers hand in: validators for fields, and conversions that refuse.

A validator names the field it refuses as ``section.field``: a class of settings says its section as ``_section``, any
other class is called by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import Attribute

from engine.values.choices import UNSET
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = [
    "LONGEST_NAME",
    "Validator",
    "check_instances",
    "check_name",
    "check_number",
    "check_seconds",
    "flag",
    "function",
    "given",
    "listed",
    "mapping",
    "name",
    "number",
    "one_of",
    "optional",
    "place",
    "seconds",
    "sequence_of",
    "string",
    "string_pairs",
    "whole",
    "wrong_type",
]

Validator: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]

LONGEST_NAME: Final = 512
"""Bytes that a name may have as UTF-8."""


def place(instance: object, attribute: Attribute[Any]) -> str:
    """Return the name of a field in an error."""
    section = getattr(type(instance), "_section", type(instance).__name__)
    return f"{section}.{attribute.name}" if section else attribute.name


def wrong_type(where: str, value: object, wanted: str) -> ConfigurationError:
    """The error that says what type a value has and what it should be."""
    return ConfigurationError(where, f"is {kind_of(value)}, not {wanted}")


def given(check: Validator) -> Validator:
    """Let a field be `UNSET` as well."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is not UNSET:
            check(instance, attribute, value)

    return validate


def optional(check: Validator) -> Validator:
    """Let a field be None as well."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is not None:
            check(instance, attribute, value)

    return validate


# --- text ------------------------------------------------------------------------------------------------------------


def string(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a string."""
    if not isinstance(value, str):
        raise wrong_type(place(instance, attribute), value, "a string")


def name(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a string that says something."""
    string(instance, attribute, value)
    assert isinstance(value, str)
    if not value.strip():
        raise ConfigurationError(place(instance, attribute), "is blank" if value else "is empty")


def check_name(where: str, value: object) -> str:
    """Return the id of a session, the name of a lane, or another name that logs, databases and snapshots have to hold.

    Raises:
        ConfigurationError: it is no string, is empty or longer than `LONGEST_NAME`, or cannot be written down.
    """
    if not isinstance(value, str):
        raise wrong_type(where, value, "a string")
    if not value:
        raise ConfigurationError(where, "is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(where, "has half a character (a lone surrogate)") from None
    if "\0" in value:
        raise ConfigurationError(where, "has a NUL character")
    if size > LONGEST_NAME:
        raise ConfigurationError(where, f"is longer than {LONGEST_NAME} bytes")
    return value


def one_of(*choices: str) -> Validator:
    """Admit one of a few strings."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value not in choices:
            shown = " or ".join(f'"{each}"' for each in choices)
            raise ConfigurationError(place(instance, attribute), f"must be {shown}")

    return validate


# --- numbers ---------------------------------------------------------------------------------------------------------


def check_number(where: str, value: object, wanted: str) -> float:
    """Return a number as a float, or raise `ConfigurationError`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(where, value, wanted)
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(where, "is too large") from None


def number(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a finite number."""
    where = place(instance, attribute)
    if not math.isfinite(check_number(where, value, "a number")):
        raise ConfigurationError(where, "must be finite")


def seconds(*, positive: bool = False, finite: bool = False) -> Validator:
    """Admit a number of seconds, 0 or more."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        check_seconds(place(instance, attribute), value, positive=positive, finite=finite)

    return validate


def check_seconds(where: str, value: object, *, positive: bool = False, finite: bool = False) -> float:
    """Return a number of seconds, 0 or more, as a float, or raise `ConfigurationError`."""
    length = check_number(where, value, "a number of seconds" if finite else "a number of seconds or None")
    if math.isnan(length) or length < 0:
        raise ConfigurationError(where, "must not be negative or NaN")
    if positive and length == 0:
        raise ConfigurationError(where, "must be greater than 0")
    if finite and math.isinf(length):
        raise ConfigurationError(where, "must be finite")
    return length


def whole(least: int) -> Validator:
    """Admit a whole number from ``least`` on."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        where = place(instance, attribute)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(where, value, "a whole number")
        if value < least:
            raise ConfigurationError(where, f"must be at least {least}")

    return validate


# --- the rest --------------------------------------------------------------------------------------------------------


def flag(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a bool."""
    if not isinstance(value, bool):
        raise wrong_type(place(instance, attribute), value, "a bool")


def function(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit what can be called."""
    if not callable(value):
        raise ConfigurationError(place(instance, attribute), "is not callable")


def mapping(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a mapping whose keys are strings."""
    if not isinstance(value, Mapping):
        raise wrong_type(place(instance, attribute), value, "a mapping")
    for key in value:
        if not isinstance(key, str):
            raise ConfigurationError(place(instance, attribute), "holds a name that is not a string")


def string_pairs(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Admit a mapping of strings to strings."""
    mapping(instance, attribute, value)
    assert isinstance(value, Mapping)
    for key, content in value.items():
        if not isinstance(content, str):
            raise wrong_type(f"{place(instance, attribute)}[{key!r}]", content, "a string")


def sequence_of(kind: type, wanted: str) -> Validator:
    """Admit a sequence of one kind of value."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        where = place(instance, attribute)
        # A string is a sequence of strings, and one character per entry is never meant.
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise wrong_type(where, value, f"a sequence of {wanted}s")
        for position, each in enumerate(value):
            if not isinstance(each, kind):
                raise wrong_type(f"{where}[{position}]", each, f"a {wanted}")

    return validate


def listed(value: Any, where: str, wanted: str) -> tuple[Any, ...]:
    """Take a collection as a tuple. Strings and mappings are collections too, of things that are not meant here."""
    if value.__class__ is tuple:
        return value  # nearly always, and much quicker told than that a collection is no mapping
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(value)
    raise wrong_type(where, value, f"a sequence of {wanted}")


def check_instances(where: str, values: Sequence[object], allowed: tuple[type, ...]) -> None:
    """Raise `ConfigurationError` unless every value is of one of the kinds; it names the position."""
    for position, value in enumerate(values):
        if not isinstance(value, allowed):
            kinds = ", ".join(kind.__name__ for kind in allowed)
            raise wrong_type(f"{where}[{position}]", value, f"one of {kinds}")
