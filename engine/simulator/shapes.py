"""Checks of JSON shapes that end in the error the service would give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from .wire import ApiError

__all__ = [
    "NAME",
    "Check",
    "array",
    "check_boolean",
    "check_strict_schema",
    "check_string",
    "decimal",
    "integer",
    "mapping",
    "missing_parameter",
    "one_of",
    "short_string",
    "unknown_parameter",
    "wrong_type",
    "wrong_value",
]

Check: TypeAlias = Callable[[str, object], None]
"""Takes where a value stands and the value; raises `ApiError` unless it fits."""

NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,128}", re.ASCII)
"""The form of the names of tools and formats."""


def wrong_type(param: str, expected: str, value: object) -> ApiError:
    """Return the error for a value of the wrong type."""
    got = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a decimal",
        list: "an array",
        dict: "an object",
    }
    found = "null" if value is None else got.get(type(value), "something else")
    return ApiError(400, "invalid_type", f"{param!r} takes {expected}; {found} was sent.", param)


def wrong_value(param: str, message: str) -> ApiError:
    """Return the error for a value that is not allowed."""
    return ApiError(400, "invalid_value", message, param)


def check_string(param: str, value: object) -> None:
    """Take strings."""
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)


def short_string(limit: int) -> Check:
    """Take strings of at most ``limit`` characters."""

    def check(param: str, value: object) -> None:
        check_string(param, value)
        assert isinstance(value, str)
        if len(value) > limit:
            raise ApiError(400, "string_above_max_length", f"{param!r} may have at most {limit} characters.", param)

    return check


def check_boolean(param: str, value: object) -> None:
    """Take booleans."""
    if not isinstance(value, bool):
        raise wrong_type(param, "a boolean", value)


def decimal(low: float, high: float) -> Check:
    """Take numbers of a range."""

    def check(param: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(param, "a decimal", value)
        if value < low:
            raise ApiError(400, "decimal_below_min_value", f"{param!r} must be at least {low}.", param)
        if not value <= high:
            raise ApiError(400, "decimal_above_max_value", f"{param!r} must be at most {high}.", param)

    return check


def integer(low: int, high: int | None = None) -> Check:
    """Take whole numbers of a range."""

    def check(param: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(param, "an integer", value)
        if value < low:
            raise ApiError(400, "integer_below_min_value", f"{param!r} must be at least {low}.", param)
        if high is not None and value > high:
            raise ApiError(400, "integer_above_max_value", f"{param!r} must be at most {high}.", param)

    return check


def one_of(*values: str) -> Check:
    """Take these strings."""

    def check(param: str, value: object) -> None:
        check_string(param, value)
        if value not in values:
            raise wrong_value(param, f"{param!r} must be one of: {', '.join(values)}.")

    return check


def mapping(fields: Mapping[str, Check] | None = None) -> Check:
    """Take objects; with ``fields``, only those, each of its shape or null."""

    def check(param: str, value: object) -> None:
        if not isinstance(value, dict):
            raise wrong_type(param, "an object", value)
        for name, part in value.items() if fields is not None else ():
            if name not in (fields or {}):
                raise unknown_parameter(f"{param}.{name}")
            if part is not None:
                (fields or {})[name](f"{param}.{name}", part)

    return check


def array(entry: Callable[[str, object], None]) -> Check:
    """Take arrays whose entries all fit."""

    def check(param: str, value: object) -> None:
        if not isinstance(value, list):
            raise wrong_type(param, "an array", value)
        for index, part in enumerate(value):
            entry(f"{param}[{index}]", part)

    return check


def unknown_parameter(param: str) -> ApiError:
    """Return the error for a parameter that does not exist."""
    return ApiError(400, "unknown_parameter", f"There is no parameter {param!r}.", param)


def missing_parameter(param: str) -> ApiError:
    """Return the error for a parameter that is required."""
    return ApiError(400, "missing_required_parameter", f"{param!r} is required.", param)


def check_strict_schema(param: str, schema: object, *, code: str, depth: int = 0) -> None:
    """Take what a strict schema may be: closed objects with every property required."""
    if not isinstance(schema, dict) or depth > 10:
        return
    if schema.get("type") == "object":
        properties, required = schema.get("properties") or {}, schema.get("required") or []
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise ApiError(400, code, "'properties' is an object and 'required' an array.", param)
        if schema.get("additionalProperties") is not False:
            raise ApiError(400, code, "A strict schema needs 'additionalProperties': false on every object.", param)
        if any(name not in required for name in properties) or len(required) != len(properties):
            raise ApiError(400, code, "A strict schema must list every property in 'required'.", param)
        for part in properties.values():
            check_strict_schema(param, part, code=code, depth=depth + 1)
    if "items" in schema:
        check_strict_schema(param, schema["items"], code=code, depth=depth + 1)
