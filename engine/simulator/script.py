"""Scripts: which answer a request gets, by what it says or in the order of arrival."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from .answer import AnyAnswer, as_steps
from .brain import AnyBrain, Calculator, ask_steps
from .checks import ScriptError
from .moments import Error, With
from .pace import Pace
from .requests import text_of
from .step import Step

if TYPE_CHECKING:
    from .requests import Asked

__all__ = ["Rule", "Script", "TextMatch", "When", "no_entry"]


# --- conditions ------------------------------------------------------------------------------------------------------


def _as_tuple(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _pattern(value: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    if value is None or isinstance(value, re.Pattern):
        return value
    try:
        return re.compile(value)
    except re.error as error:
        raise ScriptError(f"{value!r} is no regular expression: {error}", ("matches",)) from None


@attrs.frozen
class TextMatch:
    """A condition on text; of several members all must hold.

    Attributes:
        equals: The whole text.
        contains: A part of it, or several, in any order. Case counts.
        matches: A regular expression that is found in it.
    """

    equals: str | None = None
    contains: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    matches: re.Pattern[str] | None = attrs.field(default=None, converter=_pattern)

    def fits(self, text: str) -> bool:
        """Return whether the text is such."""
        return (
            (self.equals is None or text == self.equals)
            and all(part in text for part in self.contains)
            and (self.matches is None or self.matches.search(text) is not None)
        )


AnyText: TypeAlias = str | re.Pattern[str] | TextMatch
"""A condition on text: a part of it, a regular expression, or a `TextMatch`."""


def _text_match(given: AnyText | None) -> TextMatch | None:
    if given is None or isinstance(given, TextMatch):
        return given
    if isinstance(given, str):
        return TextMatch(contains=given)
    if isinstance(given, re.Pattern):
        return TextMatch(matches=given)
    raise ScriptError(f"a condition on text is a string, a compiled pattern or a TextMatch, not {given!r}")


def _output_match(given: bool | AnyText | None) -> bool | TextMatch | None:
    return given if isinstance(given, bool) else _text_match(given)


def _header_matches(given: Mapping[str, AnyText]) -> dict[str, TextMatch]:
    found = {name.lower(): _text_match(value) for name, value in given.items()}
    return {name: value for name, value in found.items() if value is not None}


def _check_count(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ScriptError(f"{name!r} is a whole number from 1, not {value!r}", (name,))


_TRANSPORTS: Final = ("websocket", "sse", "json")
_NEAREST: Final = 3


@attrs.frozen(kw_only=True)
class When:
    """The requests that a rule is for; of several conditions all must hold, and without any, every request fits.

    Attributes:
        text: The newest user message. A plain string here and below is a part of it.
        instructions: The instructions.
        model: The model asked for.
        transport: ``websocket``, ``sse`` (an HTTP stream) or ``json`` (a plain HTTP answer).
        lane: The ``stream_id``.
        continued: Whether it continues a response or a conversation.
        tool: The name of a tool on offer.
        tool_output: Whether it ends with outputs of tools; or what one of these says.
        headers: Header fields of the request, or of the upgrade.
        body: Members that the body has, to any depth; other members are not looked at.
        nth: The place of the request among those that meet all other conditions, from 1.
    """

    text: TextMatch | None = attrs.field(default=None, converter=_text_match)
    instructions: TextMatch | None = attrs.field(default=None, converter=_text_match)
    model: TextMatch | None = attrs.field(default=None, converter=_text_match)
    transport: Literal["websocket", "sse", "json"] | None = None
    lane: str | None = None
    continued: bool | None = None
    tool: str | None = None
    tool_output: bool | TextMatch | None = attrs.field(default=None, converter=_output_match)
    headers: Mapping[str, TextMatch] = attrs.field(factory=dict, converter=_header_matches)
    body: Mapping[str, Any] = attrs.field(factory=dict)
    nth: int | None = None

    def __attrs_post_init__(self) -> None:
        """Find mistakes now."""
        if self.transport is not None and self.transport not in _TRANSPORTS:
            raise ScriptError(f"'transport' is one of {', '.join(_TRANSPORTS)}, not {self.transport!r}", ("transport",))
        _check_count("nth", self.nth)

    def then(
        self,
        answer: AnyAnswer,
        *,
        name: str | None = None,
        times: int | None = None,
        required: bool = False,
        pace: Pace | None = None,
        usage: Mapping[str, Any] | None = None,
        response: Mapping[str, Any] | None = None,
    ) -> Rule:
        """Return the rule that answers such requests; see `Rule`.

        Raises:
            ScriptError: the answer is none.
        """
        return Rule(
            self,
            answer,
            name=name,
            times=times,
            required=required,
            pace=pace,
            usage={} if usage is None else usage,
            response={} if response is None else response,
        )

    def misses(self, asked: Asked) -> tuple[str, ...]:
        """Return the names of the conditions that a request does not meet, ``nth`` left out."""
        missed = []
        texts = (
            ("text", self.text, asked.last_user_text),
            ("instructions", self.instructions, text_of(asked.body.get("instructions"))),
            ("model", self.model, asked.model),
        )
        missed += [name for name, match, text in texts if match is not None and not match.fits(text)]
        wanted = (
            ("transport", self.transport, asked.transport),
            ("lane", self.lane, asked.stream_id),
            ("continued", self.continued, asked.continued),
        )
        missed += [name for name, value, found in wanted if value is not None and value != found]
        if self.tool is not None and not any(tool.get("name") == self.tool for tool in asked.tools):
            missed.append("tool")
        if not _output_fits(self.tool_output, asked):
            missed.append("tool_output")
        for name, match in self.headers.items():
            value = asked.headers.get(name)
            if value is None or not match.fits(value):
                missed.append("headers")
                break
        if not _partly(self.body, asked.body):
            missed.append("body")
        return tuple(missed)


def _output_fits(wanted: bool | TextMatch | None, asked: Asked) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, bool):
        return bool(asked.outputs) == wanted
    return any(wanted.fits(text_of(item.get("output"))) for item in asked.outputs)


def _partly(wanted: object, found: object) -> bool:
    """Return whether every member of ``wanted`` is in ``found``; arrays must agree entry by entry."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and _partly(value, found[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_partly(value, other) for value, other in zip(wanted, found, strict=True))
        )
    return type(wanted) is type(found) and wanted == found


@attrs.define(eq=False)
class Rule:
    """An answer, and the requests it is for.

    Attributes:
        when: The conditions that its requests meet.
        answer: Text, a step, or a list of both.
        name: Its name where it is told of; a number by default.
        times: The number of times that it answers; None for ever.
        required: Whether it is a mistake that it never answered, when the simulator is strict.
        pace: The pace of text where a step names no pause.
        usage: Members of ``usage`` in place of the server's own.
        response: Members of the Response in place of the server's own.
        seen: The number of requests that its conditions, ``nth`` left out, have fitted.
        uses: The number of requests that it has answered.
    """

    when: When
    answer: AnyAnswer = attrs.field(repr=False)
    name: str | None = attrs.field(default=None, kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    required: bool = attrs.field(default=False, kw_only=True)
    pace: Pace | None = attrs.field(default=None, kw_only=True)
    usage: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    response: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    seen: int = attrs.field(default=0, init=False)
    uses: int = attrs.field(default=0, init=False)
    _steps: list[Step] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Find mistakes now."""
        _check_count("times", self.times)
        settings = [With(self.response, self.usage, self.pace)] if self.response or self.usage or self.pace else []
        self._steps = settings + as_steps(self.answer, ("answer",))

    def takes(self, asked: Asked) -> bool:
        """Return whether it is for this request, and is not used up; counts the request."""
        if self.times is not None and self.uses >= self.times:
            return False
        if self.when.misses(asked):
            return False
        self.seen += 1
        return self.when.nth is None or self.seen == self.when.nth

    def use(self) -> list[Step]:
        """Return its steps; counts the use."""
        self.uses += 1
        return list(self._steps)


class Script:
    """Answers each request with the first entry that fits it and is not used up.

    A turn fits any request, once: a script of turns answers them in order. A `Rule`, made by `When.then`, fits those
    that meet its conditions, as often as it may::

        Script([
            When(text="weather", tool_output=False).then(Call("weather", {"city": "Bergen"})),
            When(tool_output="rain").then("Take an umbrella."),
            "the first other request",
            "the second",
        ])

    Args:
        turns: Text, a step, a list of both, or a rule each. Opening events and ``response.completed`` are added when a
            turn lacks them, unless a step ends the connection or the turn.
        then: Answers what fits no entry; a `Calculator` by default.
        warm_ups: Whether requests with ``generate: false`` use up turns too.
        strict: Whether a request that fits no entry is a mistake, answered with an error; and so are, at the
            simulator's end, turns that were never used.

    Raises:
        ScriptError: an entry is no answer; says which, and what was probably meant.

    Attributes:
        rules: Its entries, turns as rules too. May be changed at any time.
        unmatched: The number of requests that fitted no entry.
    """

    def __init__(
        self,
        turns: Iterable[AnyAnswer | Rule] = (),
        *,
        then: AnyBrain | None = None,
        warm_ups: bool = False,
        strict: bool = False,
    ) -> None:
        if isinstance(turns, (str, Step, Rule)):
            kind = "text" if isinstance(turns, str) else type(turns).__name__
            raise ScriptError(f"a Script takes a list of turns, not {kind}; did you mean Script([…])?")
        self.rules: list[Rule] = []
        self.unmatched: int = 0
        self.warm_ups = warm_ups
        self.strict = strict
        self._then: AnyBrain | None = Calculator() if then is None and not strict else then
        self._made = 0
        self.add(*turns)

    def add(self, *turns: AnyAnswer | Rule) -> None:
        """Append further turns and rules.

        Raises:
            ScriptError: one is no answer.
        """
        for turn in turns:
            number, self._made = self._made, self._made + 1
            if isinstance(turn, Rule):
                rule = turn
            else:
                try:
                    rule = Rule(When(), turn, times=1, required=True)
                except ScriptError as error:
                    raise ScriptError(error.problem, ("turns", number, *error.path[1:])) from None
            if rule.name is None:
                rule.name = f"turns[{number}]"
            self.rules.append(rule)

    @property
    def served(self) -> int:
        """The number of requests that its entries have answered."""
        return sum(rule.uses for rule in self.rules)

    @property
    def left(self) -> int:
        """The number of turns that are still to come."""
        return sum(rule.times is not None and rule.uses == 0 for rule in self.rules)

    def unused(self) -> list[Rule]:
        """Return the turns and the required rules that have not answered anything yet."""
        return [rule for rule in self.rules if rule.required and not rule.uses]

    def problems(self) -> list[str]:
        """Return what a strict simulator complains about at its end."""
        found = [f"{rule.name} was never used" for rule in self.unused()]
        if self.strict and self.unmatched:
            found.append(f"{self.unmatched} of the requests fitted no entry of the script")
        return found

    async def reply(self, asked: Asked) -> Sequence[Step]:
        """Return the steps of the first entry that fits; where none does and nothing else answers, an error says so.

        Clients do not try again after that error: it is a 404, with the code ``no_rule``.
        """
        for rule in self.rules:
            if rule.takes(asked):
                return rule.use()
        self.unmatched += 1
        if self._then is None:
            return [Error(404, "no_rule", no_entry(self.nearest(asked)), type="simulator_error")]
        return await ask_steps(self._then, asked)

    def nearest(self, asked: Asked) -> tuple[tuple[Rule, tuple[str, ...]], ...]:
        """Return the entries that come nearest to a request, each with the conditions that do not hold."""
        missed = [(rule, rule.when.misses(asked) or ("times",)) for rule in self.rules]
        return tuple(sorted(missed, key=lambda each: len(each[1]))[:_NEAREST])


def no_entry(near: Sequence[tuple[Rule, tuple[str, ...]]]) -> str:
    """Return what is to be said of a request that fits no entry."""
    if not near:
        return "No rule fits this request: the script has none."
    rule, missed = near[0]
    reason = "which is used up" if missed == ("times",) else f"but for {', '.join(missed)}"
    return f"No rule fits this request; the nearest is {rule.name!r}, {reason}."
