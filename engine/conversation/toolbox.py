"""The tools of a loop: what the model is told of, and the functions that serve its calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from engine.protocol.chain import canonical
from engine.protocol.request_tools import wire_tools
from engine.schemas.function_tool import FunctionTool, as_tool
from engine.values.blocks import ToolCall
from engine.values.calls import CALL_KINDS
from engine.values.checks import wrong_type
from engine.values.messages import AnyTool, AssistantMessage, Tool
from engine.values.problems import ConfigurationError
from engine.values.shown import token

__all__ = ["Toolbox"]


_SERVICES: Final = frozenset(CALL_KINDS) - {"function", "custom"}
"""Kinds of calls that a tool of the service's makes, and that the caller answers."""

_CALLED_AS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in _SERVICES},
    "computer_use": "computer",
    "computer_use_preview": "computer",
    "mcp": "mcp_approval",
}
"""The names of the calls of such a tool."""

_MAY_CHANGE: Final = frozenset({"authorization", "description", "headers", "server_description", "strict"})


class Toolbox:
    """The tools that the model may call, and the functions of those that have one.

    A function whose name is declared without one serves that declaration; this is how a custom tool gets its function.

    Attributes:
        offered: The tools that the model is told of.
        functions: The functions, by name.

    Args:
        declared: The tools of a context.
        tools: More of them.
        approves: Whether requests for approval are answered by the loop's ``approve``.

    Raises:
        ConfigurationError: something in ``tools`` is no tool, or two functions have one name.
    """

    def __init__(self, declared: Iterable[AnyTool], tools: Iterable[AnyTool], *, approves: bool = False) -> None:
        if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
            raise wrong_type("tools", tools, "a sequence of tools")
        self.functions: dict[str, FunctionTool] = {}
        schemas: list[Tool | Mapping[str, Any]] = []
        for where, given in (("context tools", declared), ("tools", tools)):
            for number, each in enumerate(given):
                tool = as_tool(each, f"{where}[{number}]")
                if not isinstance(tool, FunctionTool):
                    schemas.append(tool)
                elif self.functions.setdefault(tool.name, tool) != tool:
                    raise ConfigurationError(f"{where}[{number}]", f"is another function called {tool.name!r}")
        names = {name for schema in schemas for name in _callable_names(schema)}
        schemas += [function.tool for name, function in self.functions.items() if name not in names]
        self.offered: tuple[Tool | Mapping[str, Any], ...] = tuple(schemas)
        self._callers_own = names - self.functions.keys()
        self._approves = approves

    def marks(self) -> dict[str, str]:
        """A mark of each tool by its name, or by its kind where it has none: a hash of what calls of it look like.

        What describes a tool may change, and what lets it in (``headers``, ``authorization``) does.
        """
        found: dict[str, str] = {}
        for tool in wire_tools(self.offered):
            name = str(tool.get("name") or tool.get("server_label") or tool.get("type") or "")
            said = {member: value for member, value in tool.items() if member not in _MAY_CHANGE}
            found[name] = hashlib.sha256(canonical(said).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return found

    def check(self, marks: Mapping[str, str]) -> None:
        """Compare the tools with those of a snapshot; there may be more of them now.

        Raises:
            ConfigurationError: one is missing, or takes other arguments now.
        """
        if not marks:
            return
        found = self.marks()
        for name, mark in marks.items():
            where = f"resume.tools.{token(name)}"
            if name not in found:
                raise ConfigurationError(where, "is not among the tools, and was when the snapshot was made")
            if found[name] != mark:
                raise ConfigurationError(where, "has another schema than when the snapshot was made")

    def is_callers(self, call: ToolCall) -> bool:
        """Whether a call is the caller's to answer: nothing here serves its tool, declared or the service's own."""
        if call.kind == "mcp_approval" and self._approves:
            return False
        return call.name in self._callers_own or (call.kind in _SERVICES and call.name not in self.functions)

    def is_last(self, message: AssistantMessage) -> bool:
        """Whether a loop ends with a response.

        It does when the response calls nothing, when it was cut short, so that its calls may be too, and when any of
        its calls is the caller's to answer: then none is run, since the outputs belong together.
        """
        calls = message.unanswered
        return message.stop_reason != "tool_use" or not calls or any(map(self.is_callers, calls))

    def leaves_to_caller(self, message: AssistantMessage) -> bool:
        """Whether a response waits for results of the caller's."""
        return self.is_last(message) and bool(message.unanswered)


def _callable_names(tool: Tool | Mapping[str, Any]) -> Iterator[str]:
    """The names that calls can have because of a tool; namespaces hold further tools."""
    if isinstance(tool, Tool):
        yield tool.name
        return
    name, inner = tool.get("name"), tool.get("tools")
    kind = tool.get("type")
    if kind in ("function", "custom") and isinstance(name, str):
        yield name
    elif isinstance(kind, str) and kind in _CALLED_AS:
        yield _CALLED_AS[kind]
    for each in inner if isinstance(inner, (list, tuple)) else ():
        if isinstance(each, Mapping):
            yield from _callable_names(each)
