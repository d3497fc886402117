"""Script files: rules, answers and the server's ways as JSON, for those who test without Python.

The format is `docs/simulator-script.schema.json`. What is read is what a `Script` of the same rules would be; a mistake
is told with line, column, path and what was probably meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

import attrs

from .aimock import is_fixtures, read_fixtures
from .brain import AnyBrain, Calculator, Echo
from .checks import ScriptError
from .places import Document, JsonError, Path, place_of
from .quirks import Handshake, Quirks
from .rulebook import Rulebook
from .script import Rule, Script, TextMatch, When
from .script_steps import (
    Reader,
    as_it_is,
    flag,
    mapping,
    meant,
    milliseconds,
    read_answer,
    read_members,
    read_pace,
    read_turn,
    shown,
    text,
    texts,
    whole,
)

__all__ = [
    "ScriptFile",
    "ScriptFileError",
    "load_script",
    "read_quirks",
    "read_rules",
    "read_script",
    "read_when",
    "with_script",
]


class ScriptFileError(ValueError):
    """A script file that cannot be meant so.

    Attributes:
        name: The file.
        line: From 1.
        column: From 1.
        path: The place in the document.
        problem: The mistake, and a guess at what was meant.
    """

    def __init__(self, name: str, place: tuple[int, int], path: Path, problem: str) -> None:
        self.name = name
        self.line: int = place[0]
        self.column: int = place[1]
        self.path = path
        self.problem = problem
        where = str(ScriptError(problem, path))
        super().__init__(f"{name}:{self.line}:{self.column}: {where}")


@attrs.frozen(kw_only=True)
class ScriptFile:
    """The contents of a script file.

    Attributes:
        name: The file.
        rules: The rules that say which answer a request gets.
        scopes: Rules for the requests of one ``X-Simulator-Scope`` only, by its name.
        otherwise: The brain that answers what fits no rule; None where that is a mistake.
        options: Arguments of `engine.simulator.open_simulator`.
        tls: Whether to serve TLS with a certificate made on the spot.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    scopes: Mapping[str, tuple[Rule, ...]] = attrs.field(factory=dict)
    otherwise: AnyBrain | None = attrs.field(factory=Calculator)
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    tls: bool = False

    def script(self) -> Script:
        """Return a script of its rules."""
        return Script(self.rules, then=self.otherwise, strict=self.otherwise is None)

    def rulebook(self) -> Rulebook:
        """Return a brain that answers by its rules, those of each scope included."""
        return Rulebook(self.rules, self.scopes, otherwise=self.otherwise)


def read_script(source: str, name: str = "script") -> ScriptFile:
    """Read the text of a script file, or of a fixture file of the Node mock aimock, which its content tells.

    Raises:
        ScriptFileError: it is not one; says where and what was probably meant.
    """
    try:
        document = Document.of(source)
    except JsonError as error:
        raise ScriptFileError(name, place_of(source, error.offset), (), error.problem) from None
    try:
        if is_fixtures(document.value):
            return ScriptFile(name=name, rules=tuple(read_fixtures(document.value)), otherwise=None)
        return _file(document.value, name)
    except ScriptError as error:
        raise ScriptFileError(name, document.place(error.path), error.path, error.problem) from None


def load_script(path: str | os.PathLike[str]) -> ScriptFile:
    """Read a script file.

    Raises:
        OSError: it cannot be read.
        ScriptFileError: it is no script.
    """
    try:
        source = FilePath(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScriptFileError(str(path), (1, 1), (), f"it is not UTF-8, from byte {error.start} on") from None
    return read_script(source, str(path))


def with_script(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `engine.simulator.open_simulator` where a ``script`` has become what it says.

    An argument goes before what the file says about the same.

    Raises:
        OSError: the file cannot be read.
        ScriptFileError: it is no script.
        ValueError: a brain is given as well, or the file wants TLS and no certificate is given.
    """
    arguments = dict(given)
    path = arguments.pop("script", None)
    if path is None:
        return arguments
    if arguments.pop("brain", None) is not None:
        raise ValueError("a script file says what is answered, and so does a brain: give one of them")
    file = load_script(path)
    if file.tls and arguments.get("ssl_context") is None:
        raise ValueError(f"{file.name}: 'tls' is made on the spot by the command only: give an ssl_context")
    return {**file.options, "brain": file.rulebook(), **arguments}


# --- the whole file --------------------------------------------------------------------------------------------------


def _file(value: Any, name: str) -> ScriptFile:
    found = read_members(value, (), "a script", _MEMBERS)
    if "version" not in found:
        raise ScriptError("'version' is missing; this is version 1", ())
    options = dict(found.get("server", {}))
    tls = options.pop("tls", "off")
    for member, option in (("pace", "pace"), ("handshakes", "handshake"), ("posts", "post")):
        if member in found:
            options[option] = found[member]
    every = found.get("rules", [])
    return ScriptFile(
        name=name,
        rules=tuple(rule for scope, rule in every if scope is None),
        scopes={scope: tuple(r for s, r in every if s == scope) for scope, _ in every if scope is not None},
        otherwise=found["otherwise"] if "otherwise" in found else Calculator(),
        options=options,
        tls=tls == "self-signed",
    )


def _version(value: Any, path: Path) -> int:
    if value != 1 or isinstance(value, bool):
        raise ScriptError(f"this has to be the number 1, not {shown(value)}", path)
    return 1


def _answers(value: Any, path: Path) -> list[Handshake]:
    return [read_answer(each, (*path, index)) for index, each in enumerate(_array(value, path))]


def _array(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise ScriptError(f"this is an array, not {shown(value)}", path)
    return value


def _otherwise(value: Any, path: Path) -> AnyBrain | None:
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= {"brain", "reply"}:
        raise ScriptError("'otherwise' is an object with 'brain' or 'reply'", path)
    if "reply" in value:
        turn = read_turn(value["reply"], (*path, "reply"))
        return lambda asked: turn
    name = value["brain"]
    if name not in _BRAINS:
        raise ScriptError(f"{name!r} is no brain{meant(str(name), _BRAINS)}", (*path, "brain"))
    brain = _BRAINS[name]
    return None if brain is None else brain()


_BRAINS: Final[Mapping[str, type[Calculator | Echo] | None]] = {
    "calculator": Calculator,
    "echo": Echo,
    "fail": None,
}


# --- rules -----------------------------------------------------------------------------------------------------------


def read_rules(value: Any, path: Path = ()) -> list[tuple[str | None, Rule]]:
    """Read rules, each with the scope it is for.

    Raises:
        ScriptError: one is no rule.
    """
    return [_rule(each, (*path, index)) for index, each in enumerate(_array(value, path))]


def _rule(value: Any, path: Path) -> tuple[str | None, Rule]:
    found = read_members(value, path, "a rule", _RULE)
    if "reply" not in found:
        raise ScriptError("'reply' is missing", path)
    when, reply, scope = found.pop("when", When()), found.pop("reply"), found.pop("scope", None)
    return scope, when.then(reply, **found)


def _text_match(value: Any, path: Path) -> TextMatch:
    if isinstance(value, str):
        return TextMatch(contains=value)
    found = read_members(value, path, "a condition on text", _TEXT)
    if not found:
        raise ScriptError("a condition on text has 'equals', 'contains' or 'matches'", path)
    try:
        return TextMatch(**found)
    except ScriptError as error:
        raise ScriptError(error.problem, (*path, *error.path)) from None


def _parts(value: Any, path: Path) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else texts(value, path)


def _output(value: Any, path: Path) -> bool | TextMatch:
    return value if isinstance(value, bool) else _text_match(value, path)


def _headers(value: Any, path: Path) -> dict[str, TextMatch]:
    return {name: _text_match(each, (*path, name)) for name, each in mapping(value, path).items()}


def read_when(value: Any, path: Path) -> When:
    """Read conditions.

    Raises:
        ScriptError: they are none.
    """
    found = read_members(value, path, "'when'", _WHEN)
    try:
        return When(**found)
    except ScriptError as error:
        raise ScriptError(error.problem, (*path, *error.path)) from None


_TEXT: Final[Mapping[str, Reader]] = {"equals": text, "contains": _parts, "matches": text}
_WHEN: Final[Mapping[str, Reader]] = {
    "text": _text_match,
    "instructions": _text_match,
    "model": _text_match,
    "transport": text,
    "lane": text,
    "continued": flag,
    "tool": text,
    "tool_output": _output,
    "headers": _headers,
    "body": mapping,
    "nth": whole,
}
_RULE: Final[Mapping[str, Reader]] = {
    "name": text,
    "when": read_when,
    "reply": read_turn,
    "times": whole,
    "required": flag,
    "pace": read_pace,
    "usage": mapping,
    "response": mapping,
    "scope": text,
}


# --- the server ------------------------------------------------------------------------------------------------------


def _server(value: Any, path: Path) -> dict[str, Any]:
    found = read_members(value, path, "'server'", _SERVER)
    return {_SERVER_OPTIONS.get(name, name): each for name, each in found.items()}


def _key(value: Any, path: Path) -> str | None:
    return None if value is None else text(value, path)


def _roots(value: Any, path: Path) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else texts(value, path)
    for index, root in enumerate(found):
        if not root.startswith("/") or root.endswith("/"):
            raise ScriptError("a path begins with a slash, and does not end with one", (*path, index))
    if not found:
        raise ScriptError("at least one path is needed", path)
    return found


def _tls(value: Any, path: Path) -> str:
    if value not in ("off", "self-signed"):
        given = repr(value) if isinstance(value, str) else shown(value)
        raise ScriptError(f"this is 'off' or 'self-signed', not {given}", path)
    return str(value)


def _seed(value: Any, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScriptError(f"this is a whole number, not {shown(value)}", path)
    return value


def _quirk_values() -> dict[str, attrs.Attribute[Any]]:
    return {each.name: each for each in attrs.fields(Quirks)}


def read_quirks(value: Any, path: Path = ()) -> Quirks:
    """Read quirks: an array of names, of which each reverses what is usual, or an object with a value for each.

    Raises:
        ScriptError: there is no such quirk, or it needs a value.
    """
    known = _quirk_values()
    given: dict[str, Any] = {}
    if isinstance(value, dict):
        given = read_members(value, path, "the quirks", dict.fromkeys(known, as_it_is))
    else:
        for index, name in enumerate(_array(value, path)):
            where = (*path, index)
            if text(name, where) not in known:
                raise ScriptError(f"{name!r} is no quirk{meant(name, known)}", where)
            if not isinstance(known[name].default, bool):
                raise ScriptError(f"{name!r} needs a value: write the quirks as an object, {{{name!r}: …}}", where)
            given[name] = not known[name].default
    for name, each in given.items():
        usual = known[name].default
        if isinstance(usual, bool) and not isinstance(each, (bool, str)):
            raise ScriptError(f"{name!r} is true or false, not {shown(each)}", (*path, name))
        if isinstance(usual, tuple):
            given[name] = texts(each, (*path, name))
    try:
        return Quirks(**given)
    except ScriptError as error:
        raise ScriptError(error.problem, (*path, *error.path)) from None


_SERVER: Final[Mapping[str, Reader]] = {
    "api_key": _key,
    "root": _roots,
    "models": texts,
    "accept_parameters": texts,
    "connection_lifetime_ms": milliseconds,
    "max_message_bytes": whole,
    "max_http_bytes": whole,
    "max_active": whole,
    "max_lanes": whole,
    "quirks": read_quirks,
    "tls": _tls,
    "seed": _seed,
}
_SERVER_OPTIONS: Final = {"root": "roots", "connection_lifetime_ms": "connection_lifetime"}
_MEMBERS: Final[Mapping[str, Reader]] = {
    "$schema": text,
    "version": _version,
    "server": _server,
    "pace": read_pace,
    "handshakes": _answers,
    "posts": _answers,
    "rules": read_rules,
    "otherwise": _otherwise,
}
