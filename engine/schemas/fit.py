"""JSON values → Python values of a given type, with nothing converted on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin, is_typeddict

from cattrs import Converter

from engine.schemas.members import (
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
)
from engine.values.shown import token

__all__ = ["Misfit", "StrictConverter", "decode", "fill", "structure"]

_Path: TypeAlias = tuple[str | int, ...]
_Hook: TypeAlias = Callable[[Any, Any], Any]


class Misfit(ValueError):
    """A JSON value does not have the type it should have. The text names places and types, and quotes no value.

    Attributes:
        problems: The mistakes: for each the path into the value, and the words.
        said: The words of a class's own checks, which may quote values.
    """

    def __init__(self, *problems: tuple[_Path, str], said: str = "") -> None:
        super().__init__(*problems)
        self.problems = problems
        self.said = said

    def __str__(self) -> str:
        return "; ".join(f"{_shown(path)} {problem}" for path, problem in self.problems)

    def under(self, step: str | int) -> Misfit:
        """The same, seen from one level up."""
        return Misfit(*(((step, *path), problem) for path, problem in self.problems), said=self.said)


def _shown(path: _Path) -> str:
    if not path:
        return "the value"
    steps = (f"[{step}]" if isinstance(step, int) else f".{token(step)}" for step in path)
    return "".join(steps).removeprefix(".")


_JSON_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _got(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _misfit(wanted: str, value: Any) -> Misfit:
    return Misfit(((), f"must be {wanted}, not {_got(value)}"))


def _scalar(value: Any, kind: type) -> Any:
    """Admit one JSON type. A whole number may be written 3 or 3.0: JSON has one kind of number."""
    if issubclass(kind, Enum):  # one that is a string or a number too
        return _member_of(value, kind)
    if type(value) is kind:
        return value
    if kind is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    raise _misfit(_JSON_NAMES[kind], value)


def _null(value: Any, _: Any) -> None:
    if value is not None:
        raise _misfit("null", value)


def _written(value: Any, kind: Any) -> Any:
    if type(value) is not str:
        raise _misfit(f"a string with a {FORMATS[kind]}", value)
    try:
        return kind.fromisoformat(value) if hasattr(kind, "fromisoformat") else kind(value)
    except ValueError:
        raise Misfit(((), f"must be a string with a {FORMATS[kind]}")) from None


def _pick(value: Any, choices: Mapping[Any, Any]) -> Any:
    """Find a choice that is the same JSON value; 1, 1.0 and true are equal to Python only."""
    for written, meant in choices.items():
        if type(written) is type(value) and written == value:
            return meant
    raise Misfit(((), f"must be one of {json.dumps(list(choices))}"))


def _member_of(value: Any, kind: type[Enum]) -> Any:
    return _pick(value, {each.value: each for each in kind})


def _one_of(value: Any, kind: Any) -> Any:
    return _pick(value, {each.value if isinstance(each, Enum) else each: each for each in get_args(kind)})


def _each(values: list[Any], fit: Callable[[Any, int], Any]) -> Iterator[Any]:
    for number, value in enumerate(values):
        try:
            yield fit(value, number)
        except Misfit as misfit:
            raise misfit.under(number) from None


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


class StrictConverter(Converter):
    """A converter that takes JSON values as they are or refuses them.

    Args:
        null_is_default: Whether null stands for the default of members that have one and no None of their own.
    """

    def __init__(self, *, null_is_default: bool) -> None:
        super().__init__(detailed_validation=False)
        self._null_is_default = null_is_default
        for kind in (str, int, float, bool):
            self.register_structure_hook(kind, _scalar)
        for kind in FORMATS:
            self.register_structure_hook(kind, _written)
        self.register_structure_hook_func(lambda kind: kind is None or kind is type(None), _null)
        self.register_structure_hook_func(lambda kind: isinstance(kind, type) and issubclass(kind, Enum), _member_of)
        self.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _one_of)
        self.register_structure_hook_func(lambda kind: _origin(kind) in LISTS, self._list)
        self.register_structure_hook_func(lambda kind: _origin(kind) in SETS, self._set)
        self.register_structure_hook_func(lambda kind: _origin(kind) is tuple, self._tuple)
        self.register_structure_hook_func(lambda kind: _origin(kind) in MAPPINGS, self._mapping)
        self.register_structure_hook_func(lambda kind: len(alternatives(kind)) > 1, self._union)
        self.register_structure_hook_factory(is_record, self._record)
        self.register_structure_hook_func(is_model, self._model)

    def _elements(self, value: Any, kind: Any) -> list[Any]:
        if type(value) is not list:
            raise _misfit("an array", value)
        element = (get_args(kind) or (Any,))[0]
        return list(_each(value, lambda each, _: self._fit(each, element)))

    def _list(self, value: Any, kind: Any) -> Any:
        return self._elements(value, kind)

    def _set(self, value: Any, kind: Any) -> Any:
        elements = self._elements(value, kind)
        try:
            return frozenset(elements) if _origin(kind) is frozenset else set(elements)
        except TypeError:
            raise Misfit(((), "has elements that cannot be in a set")) from None

    def _tuple(self, value: Any, kind: Any) -> Any:
        kinds = get_args(kind)
        if (len(kinds) == 2 and kinds[1] is ...) or not kinds:
            return tuple(self._elements(value, kind))
        if type(value) is not list or len(value) != len(kinds):
            found = f"an array of {len(value)}" if type(value) is list else _got(value)
            raise Misfit(((), f"must be an array of {len(kinds)}, not {found}"))
        return tuple(_each(value, lambda each, number: self._fit(each, kinds[number])))

    def _mapping(self, value: Any, kind: Any) -> Any:
        if type(value) is not dict:
            raise _misfit("an object", value)
        element = (get_args(kind) or (str, Any))[1]
        return {name: self._under(name, each, element) for name, each in value.items()}

    def _fit(self, value: Any, kind: Any) -> Any:
        return self.structure(value, bare(kind))

    def _under(self, name: str, value: Any, kind: Any) -> Any:
        try:
            return self._fit(value, kind)
        except Misfit as misfit:
            raise misfit.under(name) from None

    def _union(self, value: Any, kind: Any) -> Any:
        options = sorted(alternatives(kind), key=_breadth)
        misfits: list[Misfit] = []
        for option in options:
            try:
                return self._fit(value, option)
            except Misfit as misfit:
                misfits.append(misfit)
        # A value that got past the top of one alternative was meant to be that one.
        near = [each for each in misfits if any(path for path, _ in each.problems)]
        if len(near) == 1 or len(misfits) == 1:
            raise (near or misfits)[0]
        real = [each for option, each in zip(options, misfits, strict=True) if option not in (None, type(None))]
        if len(real) == 1:
            raise real[0]
        ending = f", not {_got(value)}"
        wanted = dict.fromkeys(problem.removesuffix(ending) for each in real for _, problem in each.problems)
        raise Misfit(((), " or ".join(wanted) + ending))

    def filled(self, value: Any, listed: Sequence[Member]) -> dict[str, Any]:
        """Return the members that an object gives, each as its type.

        Raises:
            Misfit: it lacks one, has one that is not known, or one does not fit.
        """
        if type(value) is not dict:
            raise _misfit("an object", value)
        known = {each.name: each for each in listed}
        given = {name: each for name, each in value.items() if each is not None or not self._drops(known.get(name))}
        problems: list[tuple[_Path, str]] = [
            ((each.name,), "is missing") for each in listed if each.required and each.name not in given
        ]
        problems += [((name,), "is not known") for name in given if name not in known]
        if problems:
            raise Misfit(*problems)
        fitting: dict[str, Any] = {}
        said: list[str] = []
        for name, each in given.items():
            try:
                fitting[name] = self._under(name, each, known[name].type)
            except Misfit as misfit:
                problems += misfit.problems
                said += [misfit.said] if misfit.said else []
        if problems:
            raise Misfit(*problems, said="; ".join(said))
        return fitting

    def _drops(self, member: Member | None) -> bool:
        """Whether null in the place of a member means that it is left out."""
        return self._null_is_default and member is not None and not member.required and not admits_null(member.type)

    def _record(self, kind: Any, _: Any = None) -> _Hook:
        listed = members(kind)
        plain = is_typeddict(kind)

        def structure(value: Any, _: Any) -> Any:
            fields = self.filled(value, listed)
            return fields if plain else _made(lambda: kind(**fields))

        return structure

    def _model(self, value: Any, kind: Any) -> Any:
        return _made(lambda: kind.model_validate(value))


def _made(make: Callable[[], Any]) -> Any:
    """Make a value of a class that may have checks of its own. What they say may quote values."""
    try:
        return make()
    except Exception as error:
        said = str(error)
    raise Misfit(((), "was not accepted"), said=said)


def _breadth(kind: Any) -> int:
    """Order alternatives so that the one which says most is tried first."""
    if kind in (None, type(None)):
        return 0
    if _origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        return 1
    return {bool: 2, int: 2, **dict.fromkeys(FORMATS, 2), float: 4, str: 5, Any: 6}.get(kind, 3)


_CONVERTERS: Final = {flag: StrictConverter(null_is_default=flag) for flag in (False, True)}


def structure(value: Any, kind: Any, *, null_is_default: bool = False) -> Any:
    """Return a JSON value as a value of type ``kind``.

    Args:
        value: As the JSON parser gave it.
        kind: Any type that has a schema.
        null_is_default: Whether null stands for the default of members that have one and no None of their own.

    Raises:
        Misfit: it is not one.
    """
    try:
        return _CONVERTERS[null_is_default].structure(value, bare(kind))
    except RecursionError:
        raise Misfit(((), "is nested too deeply")) from None


def fill(value: Any, listed: Sequence[Member], *, null_is_default: bool = False) -> dict[str, Any]:
    """Return the arguments that a JSON object gives to a function, each as the type of its parameter.

    Args:
        value: As the JSON parser gave it.
        listed: The parameters.
        null_is_default: Whether null leaves out those that have a default and no None of their own.

    Raises:
        Misfit: they do not fit.
    """
    try:
        return _CONVERTERS[null_is_default].filled(value, listed)
    except RecursionError:
        raise Misfit(((), "is nested too deeply")) from None


def decode(text: str) -> Any:
    """Parse JSON text.

    Raises:
        Misfit: it is not JSON.
    """
    # Raised outside the handlers: a parser's error holds the whole text, and as a context would carry it along.
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON: {error.msg} at character {error.pos}"
    except (ValueError, RecursionError):
        problem = "is not valid JSON"
    raise Misfit(((), problem))


def _no_constant(name: str) -> Any:
    raise ValueError(name)
