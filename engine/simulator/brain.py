"""The brains that answer: a calculator that also calls tools, an echo, or any function of the request."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from .answer import AnyAnswer, as_steps
from .content import Call, CustomCall, Say, Think
from .requests import Asked, text_of
from .step import Step

__all__ = ["AnyBrain", "Brain", "Calculator", "Echo", "ask_steps", "sample"]


class Brain(Protocol):
    """Decides what a response consists of."""

    def reply(self, asked: Asked) -> AnyAnswer | Awaitable[AnyAnswer]:
        """Return text, a step or steps for an accepted request; an asynchronous function will do as well."""


AnyBrain: TypeAlias = "Brain | Callable[[Asked], AnyAnswer | Awaitable[AnyAnswer]]"
"""The brain: an object with ``reply``, or a function of the request, asynchronous or not."""


class Echo:
    """Repeats the newest user message, or the outputs of tools."""

    def reply(self, asked: Asked) -> AnyAnswer:
        """Return what was said last."""
        if asked.outputs:
            return [*_thoughts(asked), Say("\n".join(text_of(item.get("output")) for item in asked.outputs))]
        return [*_thoughts(asked), Say(asked.last_user_text)]


class Calculator(Echo):
    """Answers sums, runs the tools it is told to run and repeats their outputs, fits JSON schemas; echoes the rest.

    A tool is called when ``tool_choice`` demands it, or when ``tool_choice`` is auto and the newest user message names
    the tool, or else has the words of its name in it: "What is the weather in Bergen?" calls ``get_weather``. A
    reasoning item comes first whenever reasoning was asked for.
    """

    def reply(self, asked: Asked) -> AnyAnswer:
        """Return the answer; deterministic."""
        if asked.outputs:
            return super().reply(asked)
        calls = _calls(asked)
        if calls:
            return [*_thoughts(asked), *calls]
        shape = (asked.body.get("text") or {}).get("format") or {}
        answer = _sum(asked.last_user_text)
        if shape.get("type") == "json_schema":
            return [*_thoughts(asked), Say(_json(sample(shape["schema"], asked.last_user_text, answer)))]
        if shape.get("type") == "json_object":
            return [*_thoughts(asked), Say(_json({"answer": asked.last_user_text if answer is None else answer}))]
        if answer is not None:
            return [*_thoughts(asked), Say(answer)]
        return super().reply(asked)


async def ask_steps(brain: AnyBrain, asked: Asked) -> list[Step]:
    """Return the steps a brain answers with. Cancelled while an asynchronous brain thinks, nothing was answered.

    Raises:
        ScriptError: what it returned is no answer.
    """
    answer = brain(asked) if callable(brain) else brain.reply(asked)
    if inspect.isawaitable(answer):
        answer = await answer
    return as_steps(answer, ("answer",))


# --- what the calculator knows ---------------------------------------------------------------------------------------


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _thoughts(asked: Asked) -> list[Step]:
    if not asked.reasons:
        return []
    wants_summary = bool((asked.body.get("reasoning") or {}).get("summary"))
    return [Think("I look at the question, then I answer it." if wants_summary else ())]


def _calls(asked: Asked) -> list[Call | CustomCall]:
    choice = asked.body.get("tool_choice") or "auto"
    offered: Sequence[Mapping[str, Any]] = asked.callable_tools
    text = asked.last_user_text
    demanded = choice == "required"
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            names = {entry.get("name") for entry in choice.get("tools") or ()}
            offered = [tool for tool in offered if tool["name"] in names]
            demanded = choice.get("mode") == "required"
        else:
            offered = [tool for tool in offered if tool["name"] == choice.get("name")]
            demanded = True
    if choice == "none" or not offered:
        return []
    named = [tool for tool in offered if re.search(rf"(?<![\w-]){re.escape(tool['name'])}(?![\w-])", text)]
    if not named:
        asked_words = _words(text)
        named = [tool for tool in offered if (words := _words(tool["name"]) - _GENERIC) and words <= asked_words]
    chosen = named or (list(offered[:1]) if demanded else [])
    if asked.body.get("parallel_tool_calls") is False:
        chosen = chosen[:1]
    return [_call(tool, text) for tool in chosen]


_GENERIC: Final = {
    *("a", "add", "ask", "call", "check", "compute", "create", "current", "do", "fetch", "find", "function", "get"),
    *("list", "look", "lookup", "make", "query", "read", "run", "search", "send", "set", "show", "the", "tool", "up"),
    *("use", "write"),
}
"""Words of tools' names that say nothing of what they are about."""


def _words(text: str) -> set[str]:
    """Return the words of a text or a name in lower case, without the s of a plural."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)
    return {word.lower().removesuffix("s") for word in words}


def _call(tool: Mapping[str, Any], text: str) -> Call | CustomCall:
    if tool["type"] == "custom":
        return CustomCall(tool["name"], text)
    arguments = sample(tool.get("parameters") or {"type": "object"}, text, _sum(text))
    return Call(tool["name"], arguments if isinstance(arguments, dict) else {})


def sample(schema: object, text: str, answer: str | None = None, depth: int = 0) -> Any:
    """Return a value that fits a simple JSON schema: strings take the text, numbers the answer, the rest is minimal."""
    if not isinstance(schema, dict) or depth > 20:
        return answer if answer is not None else text
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "anyOf", "oneOf", "allOf"):
        choices = schema.get(key)
        if isinstance(choices, list) and choices:
            return choices[0] if key == "enum" else sample(choices[0], text, answer, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((entry for entry in kind if entry != "null"), "null")
    match kind:
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            required = schema.get("required")
            wanted = [name for name in required if isinstance(name, str)] if isinstance(required, list) else properties
            return {name: sample(properties.get(name), text, answer, depth + 1) for name in wanted}
        case "array":
            least = schema.get("minItems", 1)
            amount = min(least, 100) if isinstance(least, int) else 1
            return [sample(schema.get("items"), text, answer, depth + 1)] * amount
        case "integer" | "number":
            return _within(schema, _number(answer if answer is not None else text))
        case "boolean":
            return True
        case "null":
            return None
    return answer if answer is not None else text


def _number(text: str) -> int | float:
    found = re.search(r"-?\d{1,15}(?:\.\d{1,15})?", text, re.ASCII)
    if found is None:
        return 1
    return float(found[0]) if "." in found[0] else int(found[0])


def _within(schema: Mapping[str, Any], value: float) -> int | float:
    if schema.get("type") == "integer":
        value = int(value)
    for name, choose in (("minimum", max), ("maximum", min)):
        bound = schema.get(name)
        if isinstance(bound, (int, float)):
            value = choose(value, bound)
    return value


_SUM: Final = re.compile(
    r"(?<![\w.])\(*\s*-?\d{1,15}(?:\.\d{1,15})?(?:\s*\)?\s*[-+*/×x·÷]\s*\(?\s*-?\d{1,15}(?:\.\d{1,15})?\)*){1,50}",
    re.ASCII,
)
_TOKEN: Final = re.compile(r"\d+(?:\.\d+)?|[-+*/()]", re.ASCII)


def _sum(text: str) -> str | None:
    found = _SUM.search(text[:4096])
    if found is None:
        return None
    source = found[0].translate(str.maketrans("×x·÷", "***/"))
    try:
        value = _Sum(_TOKEN.findall(source)).value()
    except (ZeroDivisionError, ValueError, IndexError, OverflowError):
        return None
    return str(int(value)) if value == int(value) else f"{value:.10g}"


class _Sum:
    """Evaluates a tokenised sum with the usual precedence."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    def value(self) -> float:
        value = self._terms()
        if self._tokens:
            raise ValueError
        return value

    def _terms(self) -> float:
        value = self._factors()
        while self._tokens and self._tokens[0] in "+-":
            if self._tokens.pop(0) == "+":
                value += self._factors()
            else:
                value -= self._factors()
        return value

    def _factors(self) -> float:
        value = self._atom()
        while self._tokens and self._tokens[0] in "*/":
            if self._tokens.pop(0) == "*":
                value *= self._atom()
            else:
                value /= self._atom()
        return value

    def _atom(self) -> float:
        first = self._tokens.pop(0)
        if first == "-":
            return -self._atom()
        if first == "(":
            value = self._terms()
            if not self._tokens or self._tokens.pop(0) != ")":
                raise ValueError
            return value
        return float(first) if "." in first else int(first)
