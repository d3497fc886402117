"""JSON texts that know where each of their values stands, so that a mistake can be told by line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

__all__ = ["Document", "JsonError", "Path"]

Path: TypeAlias = tuple[str | int, ...]
"""The place of a value within others: names of members and indices, from the outside inwards."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()
_DEEPEST: Final = 100


class JsonError(ValueError):
    """A text that is not JSON.

    Attributes:
        problem: The mistake.
        offset: Its place, in characters from the beginning.
    """

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.offset = offset


@attrs.frozen
class Document:
    """A JSON text.

    Attributes:
        text: The text.
        value: Its value.
    """

    text: str = attrs.field(repr=False)
    value: Any = attrs.field(repr=False)
    _values: Mapping[Path, int] = attrs.field(repr=False, alias="values")
    _names: Mapping[Path, int] = attrs.field(repr=False, alias="names")

    @classmethod
    def of(cls, text: str) -> Document:
        """Read a text.

        Raises:
            JsonError: it is not JSON, an object has a name twice, or it is nested more than 100 deep.
        """
        reader = _Reader(text)
        value = reader.document()
        return cls(text, value, reader.values, reader.names)

    def place(self, path: Path) -> tuple[int, int]:
        """Return line and column, both from 1: of the member's name, else of the value, else of what is around it."""
        for end in range(len(path), -1, -1):
            for known in (self._names, self._values):
                if path[:end] in known:
                    return place_of(self.text, known[path[:end]])
        return 1, 1


def place_of(text: str, offset: int) -> tuple[int, int]:
    """Return the line and column, both from 1, of a character."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class _Reader:
    """Reads containers itself, for their places, and leaves strings and numbers to the standard library."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.values: dict[Path, int] = {}
        self.names: dict[Path, int] = {}

    def document(self) -> Any:
        if self._text.startswith("\ufeff"):
            self._at = 1
        value = self._value(())
        if self._at < len(self._text):
            raise JsonError("there is something after the end", self._at)
        return value

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self, path: Path) -> Any:
        first = self._peek()
        self.values[path] = self._at
        if len(path) > _DEEPEST:
            raise JsonError(f"it is nested more than {_DEEPEST} deep", self._at)
        if first == "{":
            value: Any = self._object(path)
        elif first == "[":
            value = self._array(path)
        else:
            value = self._scalar()
        self._peek()
        return value

    def _scalar(self) -> Any:
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            if error.msg == "Expecting value":
                raise JsonError("a value is missing, or is not JSON", error.pos) from None
            raise JsonError(f"this is not JSON: {error.msg}", error.pos) from None
        return value

    def _object(self, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return made
        while True:
            if self._peek() != '"':
                raise JsonError("the name of a member is missing, in double quotes", self._at)
            start = self._at
            name = self._scalar()
            if name in made:
                raise JsonError(f"the object has {name!r} twice", start)
            self.names[(*path, name)] = start
            if self._peek() != ":":
                raise JsonError(f"a colon is missing after {name!r}", self._at)
            self._at += 1
            made[name] = self._value((*path, name))
            if not self._goes_on("}"):
                return made
            self._refuse_end("}")

    def _array(self, path: Path) -> list[Any]:
        made: list[Any] = []
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return made
        while True:
            made.append(self._value((*path, len(made))))
            if not self._goes_on("]"):
                return made
            self._refuse_end("]")

    def _refuse_end(self, end: str) -> None:
        comma = self._at - 1
        if self._peek() == end:
            raise JsonError(f"there is a comma too many, before {end!r}", comma)

    def _goes_on(self, end: str) -> bool:
        found = self._peek()
        if found not in {",", end}:
            raise JsonError(f"a comma or {end!r} is missing", self._at)
        self._at += 1
        return found == ","
