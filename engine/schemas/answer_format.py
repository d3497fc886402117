"""Answers that are values of a type: what a request says of the type, and the value its reply holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

from engine.schemas.derive import Schema, is_strict, type_schema
from engine.schemas.fit import Misfit, decode, structure
from engine.values.problems import ConfigurationError

__all__ = ["parse", "parse_last", "wire_format"]

_WIRE_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
_SCHEMA_TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_SCHEMA_WORDS: Final = frozenset({"properties", "$ref", "$defs", "anyOf", "allOf", "oneOf", "enum", "const"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")
_FIELD: Final = "options.text_format"

# The member that holds a value that is no object: servers want one at the top.
_WRAPPED: Final = "value"


def wire_format(text_format: Any) -> dict[str, Any]:
    """Return what a request's ``text.format`` has to be.

    Args:
        text_format: A type: an attrs class, a dataclass, a TypedDict, a class with ``model_json_schema`` and
            ``model_validate``, a union, ``Literal``, a list of any of these, and so on; a JSON schema; or the wire's
            own object, which is returned as it is.

    Raises:
        ConfigurationError: it is none of these, or a type in it has no schema.
    """
    if isinstance(text_format, Mapping):
        if not _is_schema(text_format):
            return dict(text_format)
        schema, name = dict(text_format), str(text_format.get("title", ""))
        strict = is_strict(schema)
    else:
        schema, strict, _ = _derived(text_format)
        schema = deepcopy(schema)
        name = text_format.__name__ if isinstance(text_format, type) else ""
    name = _NOT_IN_NAMES.sub("_", name)[:64] or "answer"
    return {"type": "json_schema", "name": name, "schema": schema, "strict": strict}


def _is_schema(given: Mapping[str, Any]) -> bool:
    """Whether a mapping is a JSON schema and not the wire's own object; their types have no name in common."""
    kind = given.get("type")
    if kind is None:
        return not _SCHEMA_WORDS.isdisjoint(given)
    return isinstance(kind, (list, tuple)) or kind in _SCHEMA_TYPES


def _derived(kind: Any) -> tuple[Schema, bool, bool]:
    """Return the schema of a type, whether servers enforce it to the letter, and whether the value is wrapped in it."""
    try:
        return _remembered(kind)
    except TypeError:  # a type whose annotations have no hash
        return _schema(kind)


@lru_cache(maxsize=256)
def _remembered(kind: Any) -> tuple[Schema, bool, bool]:
    return _schema(kind)


def _schema(kind: Any) -> tuple[Schema, bool, bool]:
    schema, strict = type_schema(kind, _FIELD)
    if schema.get("type") == "object" and "properties" in schema:
        return schema, strict, False
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    wrapped = {"properties": {_WRAPPED: schema}, "required": [_WRAPPED], "additionalProperties": False}
    return {"type": "object", **wrapped, **definitions}, strict, True


def parse(text_format: Any, text: str) -> Any:
    """Return a reply's text as the value that its format promised.

    A type gives a value of it. A JSON schema gives the parsed JSON, which is not checked against the schema. The wire's
    own object gives None: its author reads the text in their own way.

    Raises:
        ValueError: the text is not that. The exception's text quotes nothing of it.
        ConfigurationError: ``text_format`` is nothing that `wire_format` takes.
    """
    if isinstance(text_format, Mapping):
        return decode(text) if _is_schema(text_format) else None
    _, strict, wrapped = _derived(text_format)
    value = decode(text)
    if wrapped:
        if type(value) is not dict or value.keys() != {_WRAPPED}:
            raise Misfit(((), f"must be an object with nothing but {_WRAPPED}"))
        value = value[_WRAPPED]
    return structure(value, text_format, null_is_default=strict)


def parse_last(text_format: Any, texts: Iterable[str]) -> Any:
    """Return the last of a reply's texts that fits; where there are several, the others are what led up to it.

    Raises:
        ValueError: none fits; it says why the last one does not.
        ConfigurationError: ``text_format`` is nothing that `wire_format` takes.
    """
    misfit: ValueError | None = None
    for text in reversed(tuple(texts)):
        try:
            return parse(text_format, text)
        except ConfigurationError:
            raise
        except ValueError as error:
            misfit = misfit or error
    raise misfit or Misfit(((), "is missing"))
