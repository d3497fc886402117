"""JSON values → Python values of a given type, with nothing converted on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin, is_typeddict

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from engine.schemas.members import FORMATS, LISTS, MAPPINGS, SETS, admits_null, alternatives, bare, is_record, members
from engine.values.shown import token

__all__ = ["Misfit", "StrictConverter", "decode", "structure"]

_Path: TypeAlias = tuple[str | int, ...]
_Hook: TypeAlias = Callable[[Any, Any], Any]


class Misfit(ValueError):
    """A JSON value does not have the type it should have. The text names places and types, and quotes no value.

    Attributes:
        problems: What is wrong, and where: the path into the value, and the words.
        said: What a class's own checks said of it; that may quote values.
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
        super().__init__(detailed_validation=True)
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

    def _elements(self, value: Any, kind: Any) -> list[Any]:
        if type(value) is not list:
            raise _misfit("an array", value)
        element = (get_args(kind) or (Any,))[0]
        return list(_each(value, lambda each, _: self.structure(each, element)))

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
        return tuple(_each(value, lambda each, number: self.structure(each, kinds[number])))

    def _mapping(self, value: Any, kind: Any) -> Any:
        if type(value) is not dict:
            raise _misfit("an object", value)
        element = (get_args(kind) or (str, Any))[1]
        return {name: self._under(name, each, element) for name, each in value.items()}

    def _under(self, name: str, value: Any, kind: Any) -> Any:
        try:
            return self.structure(value, bare(kind))
        except Misfit as misfit:
            raise misfit.under(name) from None

    def _union(self, value: Any, kind: Any) -> Any:
        options = sorted(alternatives(kind), key=_breadth)
        misfits: list[Misfit] = []
        for option in options:
            try:
                return self.structure(value, option)
            except Misfit as misfit:
                misfits.append(misfit)
        # What got past the top of one alternative was meant to be that one.
        near = [each for each in misfits if any(path for path, _ in each.problems)]
        if len(near) == 1 or len(misfits) == 1:
            raise (near or misfits)[0]
        real = [each for option, each in zip(options, misfits, strict=True) if option not in (None, type(None))]
        if len(real) == 1:
            raise real[0]
        ending = f", not {_got(value)}"
        wanted = dict.fromkeys(problem.removesuffix(ending) for each in real for _, problem in each.problems)
        raise Misfit(((), " or ".join(wanted) + ending))

    def _record(self, kind: Any, _: Any = None) -> _Hook:
        listed = members(kind)
        droppable = {each.name for each in listed if not each.required and not admits_null(each.type)}
        if not self._null_is_default:
            droppable = set()
        known = {each.name for each in listed}
        aliases = {each.name: each.alias for each in attrs.fields(kind)} if attrs.has(kind) else {}
        needed = {each.name for each in listed if each.required}
        types = {each.name: each.type for each in listed}
        fill: Any = None
        if not is_typeddict(kind):
            fill = make_dict_structure_fn(kind, self, _cattrs_detailed_validation=True, _cattrs_use_alias=True)

        def structure(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise _misfit("an object", value)
            value = {name: each for name, each in value.items() if each is not None or name not in droppable}
            problems: list[tuple[_Path, str]] = [((name,), "is missing") for name in sorted(needed - value.keys())]
            problems += [((name,), "is not known") for name in value if name not in known]
            if problems:
                raise Misfit(*problems)
            if fill is None:
                return {name: self._under(name, each, types[name]) for name, each in value.items()}
            try:
                return fill(value, kind)
            except ClassValidationError as group:
                raise _gathered(group, aliases) from None

        return structure


def _gathered(group: ClassValidationError, aliases: Mapping[str, str | None]) -> Misfit:
    noted, others = group.group_exceptions()
    problems: list[tuple[_Path, str]] = []
    said: list[str] = []
    for error, note in noted:
        misfit = error if isinstance(error, Misfit) else _own_check(error)
        problems += misfit.under(aliases.get(note.name) or note.name).problems
        said += [misfit.said] if misfit.said else []
    for each in others:
        misfit = _own_check(each)
        problems += misfit.problems
        said += [misfit.said] if misfit.said else []
    return Misfit(*problems, said="; ".join(said))


def _own_check(error: BaseException) -> Misfit:
    if isinstance(error, Misfit):
        return error
    return Misfit(((), "was not accepted"), said=str(error))


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
        return _CONVERTERS[null_is_default].structure(value, kind)
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
