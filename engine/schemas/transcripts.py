"""Conversations as JSON text and back, without loss."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

from engine.schemas.fit import Misfit, StrictConverter, decode
from engine.schemas.function_tool import FunctionTool, as_tool
from engine.schemas.members import alternatives
from engine.values.blocks import File, Image, OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage, Context, DeveloperMessage, Message, Tool, ToolResult, UserMessage
from engine.values.problems import ConfigurationError
from engine.values.shown import token
from engine.values.type_names import kind_of
from engine.values.usage import Usage

__all__ = ["from_json", "misread", "read_as", "to_json", "written"]

_VERSION: Final = 1
_WHERE: Final = "transcript"

_KINDS: Final[Mapping[str, type]] = {
    "user": UserMessage,
    "developer": DeveloperMessage,
    "assistant": AssistantMessage,
    "tool_result": ToolResult,
    "text": Text,
    "thinking": Thinking,
    "tool_call": ToolCall,
    "refusal": Refusal,
    "item": OutputItem,
    "image": Image,
    "file": File,
    "function": Tool,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}

# The tag is called "kind", and calls and their results have a kind of their own.
_OWN_KIND: Final = "tool_kind"

_Messages: TypeAlias = tuple[Message, ...]


class _Writer(Converter):
    def __init__(self) -> None:
        super().__init__(omit_if_default=True)
        self.register_unstructure_hook(Usage, make_dict_unstructure_fn(Usage, self, _cattrs_omit_if_default=True))
        for kind, name in _NAMES.items():
            self._tag(kind, name)

    def _tag(self, kind: type, name: str) -> None:
        attributes = {each.name for each in attrs.fields(kind)}
        special = {"kind": override(rename=_OWN_KIND), "parsed": override(omit=True)}
        changes: dict[str, Any] = {each: change for each, change in special.items() if each in attributes}
        plain: Any = make_dict_unstructure_fn(kind, self, _cattrs_omit_if_default=True, **changes)
        self.register_unstructure_hook(kind, lambda value: {"kind": name, **plain(value)})


class _Reader(StrictConverter):
    def __init__(self) -> None:
        super().__init__(null_is_default=False)
        known = set(_KINDS.values())
        self.register_structure_hook_func(
            lambda kind: len(alternatives(kind)) > 1 and known.issuperset(alternatives(kind)), self._tagged
        )

    def _tagged(self, value: Any, kind: Any) -> Any:
        return self.by_kind(value, {_NAMES[each]: each for each in alternatives(kind)})

    def by_kind(self, value: Any, allowed: Mapping[str, type]) -> Any:
        """Read an object as the one of ``allowed`` that its kind names."""
        if type(value) is not dict:
            raise Misfit(((), f"must be an object with a kind, not {kind_of(value)}"))
        name = value.get("kind")
        kind = allowed.get(name) if isinstance(name, str) else None
        if kind is None:
            raise Misfit((("kind",), f"is {token(name)}, not one of {', '.join(allowed)}"))
        fields = {name: each for name, each in value.items() if name != "kind"}
        if _OWN_KIND in fields:
            fields["kind"] = fields.pop(_OWN_KIND)
        return self.structure(fields, kind)


@functools.cache
def _writer() -> _Writer:
    return _Writer()


@functools.cache
def _reader() -> _Reader:
    return _Reader()


def to_json(conversation: Context | Iterable[Message]) -> str:
    """Return a context, or its messages alone, as JSON text that `from_json` reads back to an equal context.

    What has no place in JSON is left behind: a `engine.FunctionTool` is written as its `Tool`, without the function,
    and `AssistantMessage.parsed` is not written, since it follows from the text.

    Raises:
        ConfigurationError: a mapping in it holds what JSON cannot say.
    """
    context = conversation if isinstance(conversation, Context) else Context(conversation)
    try:
        whole = {
            "kind": "context",
            "version": _VERSION,
            "instructions": context.instructions,
            "tools": [_written_tool(tool) for tool in context.tools],
            "messages": [_writer().unstructure(message) for message in context.messages],
        }
        # ASCII, since a model's text may hold half a surrogate pair, which UTF-8 cannot say.
        return json.dumps(whole, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise ConfigurationError(_WHERE, "holds a value that cannot be written as JSON")


def _written_tool(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return {"kind": "wire", "tool": _writer().unstructure(tool)}
    described = as_tool(tool)
    return _writer().unstructure(described.tool if isinstance(described, FunctionTool) else described)


def from_json(text: str) -> Context:
    """Return the context that `to_json` wrote; messages that were written alone are a context of nothing else.

    Raises:
        ConfigurationError: the text is no such transcript, or of another version; ``field`` says where.
    """
    try:
        return _context(decode(text))
    except Misfit as misfit:
        problem = misread(misfit, _WHERE)
    raise problem


def misread(misfit: Misfit, where: str) -> ConfigurationError:
    """Say which part of something written has no sense here; ``where`` is what to call the whole."""
    path, problem = misfit.problems[0]
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{token(step)}" for step in path)
    said = f": {misfit.said}" if misfit.said else ""
    return ConfigurationError(where + steps, problem + said)


def written(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return messages as plain data, as they stand in the text of `to_json`."""
    plain: list[dict[str, Any]] = [_writer().unstructure(message) for message in messages]
    return plain


def read_as(value: Any, kind: Any) -> Any:
    """Return plain data as a value of a type that is made of messages and of what JSON has.

    Raises:
        Misfit: it is none.
    """
    return _reader().structure(value, kind)


def _context(whole: Any) -> Context:
    if type(whole) is not dict or whole.get("kind") != "context":
        raise Misfit(((), 'is not an object of the kind "context"'))
    if whole.get("version") != _VERSION:
        raise Misfit((("version",), f"is not {_VERSION}, the version that is read here"))
    for name in whole:
        if name not in {"kind", "version", "instructions", "tools", "messages"}:
            raise Misfit(((name,), "is not known"))
    return Context(
        _member(whole, "messages", _Messages, []),
        instructions=_member(whole, "instructions", str | None, None),
        tools=[_tool(number, tool) for number, tool in enumerate(_member(whole, "tools", list[Any], []))],
    )


def _member(whole: dict[str, Any], name: str, kind: Any, absent: Any) -> Any:
    try:
        return _reader().structure(whole.get(name, absent), kind)
    except Misfit as misfit:
        raise misfit.under(name) from None


def _tool(number: int, tool: Any) -> Tool | Mapping[str, Any]:
    try:
        if type(tool) is dict and tool.get("kind") == "wire":
            found: Tool | Mapping[str, Any] = _reader().structure(tool.get("tool"), dict[str, Any])
        else:
            found = _reader().by_kind(tool, {"function": Tool})
    except Misfit as misfit:
        raise misfit.under(number).under("tools") from None
    return found
