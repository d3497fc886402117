"""Python classes → JSON schemas, in the form that servers enforce strictly where the class allows it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from engine.schemas.members import (
    ABSENT,
    FORMATS,
    LISTS,
    MAPPINGS,
    SETS,
    Member,
    admits_null,
    alternatives,
    bare,
    is_model,
    is_record,
    members,
    summary,
)
from engine.values.checks import wrong_type
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = ["Schema", "arguments_schema", "is_strict", "type_schema"]

Schema: TypeAlias = dict[str, Any]

_DEFINITIONS: Final = "#/$defs/"
_SCALARS: Final[Mapping[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean"}


class _Loose(Exception):
    """The type cannot be put in a form that a server enforces to the letter."""


class _Derivation:
    """One walk over a record. A class that contains itself becomes a definition, any other is written in place."""

    def __init__(self, where: str, *, strict: bool) -> None:
        self._where = where
        self._strict = strict
        self._within: list[Any] = []
        self._names: dict[Any, str] = {}
        self._definitions: dict[str, Schema] = {}
        self._models: dict[Any, Schema] = {}

    def of_type(self, kind: Any) -> Schema:
        schema = self._type(kind, self._where)
        if "$ref" in schema:
            schema = dict(self._definitions[schema["$ref"].removeprefix(_DEFINITIONS)])
        return self._with_definitions(schema)

    def of_members(self, listed: Sequence[Member]) -> Schema:
        return self._with_definitions({"type": "object", **self._object(listed, self._where)})

    def _with_definitions(self, schema: Schema) -> Schema:
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _record(self, record: Any, where: str) -> Schema:
        if record in self._names:
            return {"$ref": _DEFINITIONS + self._names[record]}
        if record in self._within:
            self._names[record] = self._free_name(record.__name__)
            return {"$ref": _DEFINITIONS + self._names[record]}
        self._within.append(record)
        schema: Schema = {"type": "object"}
        text = summary(record)
        if text:
            schema["description"] = text
        schema |= self._object(members(record), where)
        self._within.pop()
        if record in self._names:
            self._definitions[self._names[record]] = schema
            return {"$ref": _DEFINITIONS + self._names[record]}
        return schema

    def _object(self, listed: Sequence[Member], where: str) -> Schema:
        return {
            "properties": {each.name: self._member(each, f"{where}.{each.name}") for each in listed},
            "required": [each.name for each in listed if self._strict or each.required],
            "additionalProperties": False,
        }

    def _model(self, model: Any, where: str) -> Schema:
        """Take over the schema that a class makes of itself, its definitions under names that are free here."""
        if model not in self._models:
            made = model.model_json_schema()
            if not isinstance(made, Mapping):
                raise ConfigurationError(where, f"makes a schema that is {kind_of(made)}, not a mapping")
            schema = deepcopy(dict(made))
            if self._strict:
                schema = _closed(schema)
                if not is_strict(schema):
                    raise _Loose
            definitions = schema.pop("$defs", {})
            names = {name: self._free_name(name) for name in definitions}
            self._models[model] = _renamed(schema, names)
            self._definitions |= {names[name]: _renamed(each, names) for name, each in definitions.items()}
        return self._models[model]

    def _free_name(self, name: str) -> str:
        taken = {*self._names.values(), *self._definitions}
        return next(each for number in range(1, 10**6) if (each := name + f"_{number}" * (number > 1)) not in taken)

    def _member(self, member: Member, where: str) -> Schema:
        schema = self._type(member.type, where)
        text = member.description
        if not member.required:
            shown = _json_default(member.default)
            if not self._strict:
                if shown is not ABSENT:
                    schema = {**schema, "default": shown} if "$ref" not in schema else schema
            elif admits_null(member.type):
                if member.default is not None:
                    raise _Loose  # null would have to mean both itself and the default
            else:
                schema = _any_of([schema, {"type": "null"}])
                meant = "leaves it out" if member.default is ABSENT else "means the default"
                value = "" if shown is ABSENT else f", {json.dumps(shown, ensure_ascii=False)}"
                text = f"{text or ''} Null {meant}{value}.".lstrip()
        if not text:
            return schema
        return {"anyOf": [schema], "description": text} if "$ref" in schema else {**schema, "description": text}

    def _type(self, kind: Any, where: str) -> Schema:
        options = alternatives(kind)
        if len(options) > 1:
            return _any_of([self._type(each, where) for each in options])
        kind = bare(kind)
        if not isinstance(kind, Hashable):
            raise wrong_type(where, kind, "a type")
        origin: Any = get_origin(kind) or kind
        arguments: tuple[Any, ...] = get_args(kind)
        if kind is Any:
            self._only_loose()
            return {}
        if kind is None or kind is type(None):
            return {"type": "null"}
        if origin is Literal:
            return _choice(list(dict.fromkeys(_flat_values(arguments))), where)
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        if kind in FORMATS:
            return {"type": "string", "format": FORMATS[kind]}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _choice([each.value for each in kind], where)
        if is_model(kind):
            return self._model(kind, where)
        if is_record(kind):
            return self._record(kind, where)
        if origin is tuple and arguments and arguments[-1] is not ...:
            return self._fixed(arguments, where)
        if origin in LISTS or origin in SETS or origin is tuple:
            if not arguments:
                self._only_loose()
            return {"type": "array", "items": self._type(arguments[0], f"{where}[]") if arguments else {}}
        if origin in MAPPINGS:
            self._only_loose()
            if arguments and bare(arguments[0]) is not str:
                raise ConfigurationError(where, "is a mapping whose keys are not strings, as JSON's are")
            values: Any = self._type(arguments[1], f"{where}[]") if arguments else True
            return {"type": "object", "additionalProperties": values}
        raise ConfigurationError(where, f"is of a type that has no JSON schema here: {_named(kind)}")

    def _fixed(self, kinds: tuple[Any, ...], where: str) -> Schema:
        each = [self._type(kind, f"{where}[{number}]") for number, kind in enumerate(kinds)]
        schema: Schema = {"type": "array", "minItems": len(each), "maxItems": len(each)}
        if any(other != each[0] for other in each):
            self._only_loose()
            schema["prefixItems"] = each
        # Servers insist on "items", also where the positions say everything.
        return schema | {"items": _any_of(each)}

    def _only_loose(self) -> None:
        if self._strict:
            raise _Loose


def _named(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _any_of(schemas: list[Schema]) -> Schema:
    flat = [each for schema in schemas for each in (schema["anyOf"] if list(schema) == ["anyOf"] else [schema])]
    distinct = [each for number, each in enumerate(flat) if each not in flat[:number]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def _flat_values(values: tuple[Any, ...]) -> list[Any]:
    return [value.value if isinstance(value, Enum) else value for value in values]


_JSON_TYPES: Final[Mapping[type, str]] = {**_SCALARS, type(None): "null"}


def _choice(values: list[Any], where: str) -> Schema:
    for value in values:
        if type(value) not in _JSON_TYPES or not values:
            raise ConfigurationError(where, f"has a choice that is not a JSON scalar but {kind_of(value)}")
    kinds = list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _json_default(default: Any) -> Any:
    if isinstance(default, Enum):
        default = default.value
    if type(default) in _JSON_TYPES and not (isinstance(default, float) and not math.isfinite(default)):
        return default
    return ABSENT


def type_schema(kind: Any, where: str) -> tuple[Schema, bool]:
    """Return the schema of a type, and whether it is one that servers enforce to the letter.

    That form requires every member, so one with a default takes null in its place: where None is the default anyway
    nothing changes, and where the type has no None of its own, null stands for the default. A class where neither
    holds, or that has open mappings, ``Any``, or tuples of several types, keeps an ordinary schema.

    Args:
        kind: The type.
        where: Its name in errors.

    Raises:
        ConfigurationError: a type in it has no schema; ``field`` is its path.
    """
    return _derived(where, lambda derivation: derivation.of_type(kind))


def arguments_schema(parameters: Sequence[Member], where: str, *, strict: bool) -> tuple[Schema, bool]:
    """Return the schema of a function's arguments; see `type_schema`.

    Args:
        parameters: The function's parameters.
        where: Its name in errors.
        strict: Whether the strict form is wanted at all.

    Raises:
        ConfigurationError: a type in it has no schema; ``field`` is its path.
    """
    return _derived(where, lambda derivation: derivation.of_members(parameters), strict=strict)


def _derived(where: str, derive: Callable[[_Derivation], Schema], *, strict: bool = True) -> tuple[Schema, bool]:
    if strict:
        try:
            return derive(_Derivation(where, strict=True)), True
        except _Loose:
            pass
    return derive(_Derivation(where, strict=False)), False


_LISTED: Final = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
_SINGLE: Final = frozenset({"items", "additionalProperties", "not"})


def _closed(schema: Any) -> Any:
    """Put a schema that a class made of itself into the strict form, as far as it can be without another meaning."""
    if not isinstance(schema, Mapping):
        return schema
    closed: Schema = {}
    for word, value in schema.items():
        if word in _NESTED and isinstance(value, Mapping):
            closed[word] = {name: _closed(each) for name, each in value.items()}
        elif word == "oneOf" or (word == "allOf" and len(value) == 1):
            closed["anyOf"] = [_closed(each) for each in value]
        elif word in _LISTED:
            closed[word] = [_closed(each) for each in value]
        elif word in _SINGLE:
            closed[word] = _closed(value)
        elif word not in ("default", "discriminator"):
            closed[word] = value
    if closed.get("type") == "object" and closed.get("additionalProperties", False) is False:
        closed |= {"required": list(closed.get("properties", ())), "additionalProperties": False}
        closed.setdefault("properties", {})
    if "$ref" in closed and len(closed.keys() - {"$defs"}) > 1:  # a reference stands alone in the strict form
        reference = {"$ref": closed.pop("$ref")}
        return {"anyOf": [reference], **closed}
    return closed


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with its references going to definitions of other names."""
    if isinstance(schema, list):
        return [_renamed(each, names) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {word: _renamed(value, names) for word, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(_DEFINITIONS):
        name = reference.removeprefix(_DEFINITIONS)
        renamed["$ref"] = _DEFINITIONS + names.get(name, name)
    return renamed


_STRICT_KEYWORDS: Final = frozenset(
    re.findall(
        r"\S+",
        """
        type properties required additionalProperties items anyOf enum const $ref $defs definitions title description
        format pattern minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems
        maxItems
        """,
    )
)
_NESTED: Final = ("properties", "$defs", "definitions")


def is_strict(schema: object) -> bool:
    """Whether servers can enforce a schema to the letter: every object closed, and every property required."""
    try:
        return _is_strict(schema)
    except (TypeError, ValueError, AttributeError, RecursionError):  # it is no schema at all
        return False


def _is_strict(schema: Any) -> bool:
    if not schema or not _STRICT_KEYWORDS.issuperset(schema.keys()):
        return False
    kind = schema.get("type")
    kinds = kind if isinstance(kind, (list, tuple)) else [kind]
    if "object" in kinds or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            return False
        if set(schema.get("properties", {})) != set(schema.get("required", ())):
            return False
    if "array" in kinds and "items" not in schema:
        return False
    nested = [part for word in _NESTED for part in schema.get(word, {}).values()]
    nested += [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return all(_is_strict(each) for each in nested)
