"""The common part of all values from the wire: the JSON object kept whole, and strict structuring over it.

Classes take few fields and keep the parsed object as ``raw``. Fields a newer server adds thereby survive a round trip,
and structuring costs little more than the parse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Self, TypeAlias, TypeVar, get_type_hints, overload

from attrs import NOTHING, field, frozen
from attrs import fields as attrs_fields
from cattrs.gen import make_dict_structure_fn
from cattrs.preconf.json import JsonConverter, make_converter

__all__ = [
    "DRIFT",
    "JsonObject",
    "StructureTable",
    "WireField",
    "WireIndex",
    "WireObject",
    "WireText",
    "as_text",
    "attach",
    "converter",
    "header_fields",
    "structurer",
]

JsonObject: TypeAlias = dict[str, Any]

T = TypeVar("T")
W = TypeVar("W", bound="WireObject")
C = TypeVar("C", bound="WireObject")

DRIFT: Final = (KeyError, TypeError, ValueError)
"""The exceptions that structuring raises when an object does not have the shape its type announces."""

_SHOWN_TYPE: Final = 64
_PLAIN: Final = (str, int, bool)
_new: Final = object.__new__


@frozen(repr=False, eq=False)
class WireObject:
    """A JSON object with a ``type``, seen through a class.

    Made by the codec, never by calling a class: the object must be attached. Two are equal when class and object are.
    The repr shows the class and the wire type and nothing else, so no payload reaches a log or a traceback.

    Attributes:
        raw: The parsed object, complete. Shared, not copied: treat it as read-only.
    """

    raw: JsonObject = field(init=False)

    @property
    def type(self) -> str:
        """The wire type, ``""`` when the object has none."""
        value = self.raw.get("type")
        return value if isinstance(value, str) else ""

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.raw == other.raw

    # The object underneath is mutable, so there is no hash to give.
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.type[:_SHOWN_TYPE]!r}>"


class WireField(Generic[T]):
    """A member of ``raw`` read when asked for: None when it is absent, null, or not of the given JSON type.

    Args:
        kind: The exact Python type of the parsed value; ``int`` does not admit booleans.
        name: The member's name, where it is not the attribute's own.
    """

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: type[T], name: str = "") -> None:
        self._kind = kind
        self._name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = self._name or name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: WireObject, owner: type) -> T | None: ...
    def __get__(self, instance: WireObject | None, owner: type) -> T | Self | None:
        if instance is None:
            return self
        value = instance.raw.get(self._name)
        return value if value.__class__ is self._kind else None


class WireText:
    """A text member that servers leave out or send as null all the same: ``""`` then, and for any other JSON type."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: WireObject, owner: type) -> str: ...
    def __get__(self, instance: WireObject | None, owner: type) -> str | Self:
        if instance is None:
            return self
        value = instance.raw.get(self._name)
        return value if value.__class__ is str else ""


class WireIndex:
    """A position that servers leave out or send as null all the same: 0 then, and for any other JSON type."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: WireObject, owner: type) -> int: ...
    def __get__(self, instance: WireObject | None, owner: type) -> int | Self:
        if instance is None:
            return self
        value = instance.raw.get(self._name)
        return value if value.__class__ is int else 0


def _strict(kind: type[T]) -> Callable[[Any, Any], T]:
    """Admit exactly one JSON type: converting would turn null into the text "None" and the text "3" into a number."""

    def structure(value: Any, _: Any) -> T:
        if value.__class__ is kind:
            return value
        raise TypeError(f"not a JSON {kind.__name__}")

    return structure


converter: Final[JsonConverter] = make_converter(detailed_validation=False)
"""The one converter. Text and integers are taken as they are or refused; objects are kept whole, not copied."""

for _kind in (str, int, bool):
    converter.register_structure_hook(_kind, _strict(_kind))
converter.register_structure_hook_func(lambda kind: kind == JsonObject, _strict(dict))

attach: Final[Callable[[WireObject, JsonObject], None]] = WireObject.__dict__["raw"].__set__
"""Set the ``raw`` of a value that was made by hand; past the freeze, and without the cost of going around it."""


def structurer(cls: type[W]) -> Callable[[JsonObject], W]:
    """Generate the function that turns a parsed object into ``cls``; it raises one of `DRIFT` for another shape."""
    members = _plain_members(cls)
    if members is not None:
        return _filler(cls, members)
    fill = make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=False, _cattrs_use_alias=True)

    def structure(raw: JsonObject) -> W:
        value = fill(raw, cls)
        attach(value, raw)
        return value

    return structure


_Member: TypeAlias = tuple[str, type, Callable[[Any, Any], None]]


def _plain_members(cls: type[WireObject]) -> tuple[_Member, ...] | None:
    """The wire name, the exact type and the setter of each field, where all are required and plain; None elsewhere."""
    hints = get_type_hints(cls)
    fields = [each for each in attrs_fields(cls) if each.name != "raw"]
    if any(hints[each.name] not in _PLAIN or each.default is not NOTHING or not each.init for each in fields):
        return None
    return tuple((each.alias or each.name, hints[each.name], getattr(cls, each.name).__set__) for each in fields)


def _filler(cls: type[W], members: tuple[_Member, ...]) -> Callable[[JsonObject], W]:
    """Do what the generated function does, at half the price: most of what arrives is a delta with three such fields.

    That one calls a hook for each field and then a frozen class's ``__init__``, which has to go around the freeze.
    """

    def structure(raw: JsonObject) -> W:
        value = _new(cls)
        for name, kind, put in members:
            given = raw[name]
            if given.__class__ is not kind:
                raise TypeError(f"not a JSON {kind.__name__}")
            put(value, given)
        attach(value, raw)
        return value

    return structure


class StructureTable(Generic[W]):
    """The classes of one kind of wire objects, by wire type. Each class says itself which types are its own.

    A class's structuring is generated once, when its type is first met.

    Args:
        unknown: The class of every other type, and of known types whose object has another shape. It takes no fields.

    Attributes:
        ready: The readers generated so far, by wire type; a hot path may look here first.
    """

    def __init__(self, unknown: type[W]) -> None:
        self._classes: Final[dict[str, type[W]]] = {}
        self._unknown: Final = structurer(unknown)
        self.ready: Final[dict[str, Callable[[JsonObject], W]]] = {}

    @property
    def classes(self) -> Mapping[str, type[W]]:
        """The class of every known type, as far as their modules were imported."""
        return MappingProxyType(self._classes)

    def of(self, *wire_types: str) -> Callable[[type[C]], type[C]]:
        """Make a class that of some wire types: a decorator."""

        def register(cls: type[C]) -> type[C]:
            for wire_type in wire_types:
                assert wire_type not in self._classes, f"{wire_type} has a class"
                self._classes[wire_type] = cls  # type: ignore[assignment]
            return cls

        return register

    def __call__(self, raw: JsonObject, wire_type: Any) -> W:
        """Structure one object as ``wire_type``; never raises on account of what the object holds."""
        try:
            structure = self.ready.get(wire_type) or self._learn(wire_type)
            return structure(raw)
        except DRIFT:
            return self._unknown(raw)

    def _learn(self, wire_type: str) -> Callable[[JsonObject], W]:
        cls = self._classes.get(wire_type)
        if cls is None:  # not remembered: a peer could otherwise grow the table without bound
            return self._unknown
        structure = self.ready[wire_type] = structurer(cls)
        return structure


def as_text(value: Any) -> str:
    """Read text that some servers send as the value whose JSON text it would be; ``""`` for null and what is absent."""
    if value is None or value.__class__ is str:
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""


def header_fields(holder: Mapping[str, Any]) -> dict[str, str]:
    """Read the ``headers`` of a JSON object as HTTP has them.

    Values may be text, numbers, booleans or lists of those; a list becomes one comma-separated value (RFC 9110). What
    is none of these is left out.
    """
    headers = holder.get("headers")
    if not isinstance(headers, dict):
        return {}
    return {
        name.lower(): ", ".join(values)
        for name, value in headers.items()
        if (values := [text for each in (value if isinstance(value, list) else [value]) if (text := _text(each))])
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""
