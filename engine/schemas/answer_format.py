"""Answers that are values of a class: what a request says of the class, and the value its reply holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

from engine.schemas.derive import is_strict, object_schema
from engine.schemas.fit import decode, structure
from engine.schemas.members import is_record
from engine.values.problems import ConfigurationError

__all__ = ["parse", "wire_format"]

_WIRE_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
_SCHEMA_TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_SCHEMA_WORDS: Final = frozenset({"properties", "$ref", "$defs", "anyOf", "allOf", "oneOf", "enum", "const"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")
_FIELD: Final = "options.text_format"


def wire_format(text_format: Mapping[str, Any] | type) -> dict[str, Any]:
    """Return what a request's ``text.format`` has to be.

    Args:
        text_format: An attrs class, a dataclass or a TypedDict; a JSON schema; or the wire's own object, which is
            returned as it is.

    Raises:
        ConfigurationError: it is none of these, or a type in the class has no schema.
    """
    if isinstance(text_format, Mapping):
        if not _is_schema(text_format):
            return dict(text_format)
        schema, name = dict(text_format), str(text_format.get("title", ""))
        strict = is_strict(schema)
    else:
        schema, strict = _class_schema(text_format)
        name = text_format.__name__
    name = _NOT_IN_NAMES.sub("_", name)[:64] or "answer"
    return {"type": "json_schema", "name": name, "schema": schema, "strict": strict}


def _is_schema(given: Mapping[str, Any]) -> bool:
    """Whether a mapping is a JSON schema and not the wire's own object; their types have no name in common."""
    kind = given.get("type")
    if kind is None:
        return not _SCHEMA_WORDS.isdisjoint(given)
    return isinstance(kind, (list, tuple)) or kind in _SCHEMA_TYPES


@lru_cache(maxsize=256)
def _derived(record: type) -> tuple[dict[str, Any], bool]:
    return object_schema(record, _FIELD)


def _class_schema(record: Any) -> tuple[dict[str, Any], bool]:
    if not is_record(record):
        shown = record.__name__ if isinstance(record, type) else type(record).__name__
        raise ConfigurationError(_FIELD, f"is neither a mapping nor an attrs class, dataclass or TypedDict: {shown}")
    schema, strict = _derived(record)
    return deepcopy(schema), strict


def parse(text_format: Mapping[str, Any] | type, text: str) -> Any:
    """Return a reply's text as the value that its format promised.

    A class gives an instance of it. A JSON schema gives the parsed JSON, which is not checked against the schema. The
    wire's own object gives None: whoever writes it reads the text in their own way.

    Raises:
        ValueError: the text is not that. The exception's text quotes nothing of it.
        ConfigurationError: ``text_format`` is nothing that `wire_format` takes.
    """
    if isinstance(text_format, Mapping):
        return decode(text) if _is_schema(text_format) else None
    _, strict = _class_schema(text_format)
    return structure(decode(text), text_format, null_is_default=strict)
