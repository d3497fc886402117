"""The answers that a brain may give, and their steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from .checks import ScriptError, a_count, a_text, one_of, optional, seconds
from .content import Call, CustomCall, Say, Think
from .moments import Created, Delay, InProgress
from .step import Step

__all__ = ["Answer", "AnyAnswer", "as_steps"]


def _calls(step: object, member: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, Sequence) or not all(isinstance(call, (Call, CustomCall)) for call in value):
        raise ScriptError("Answer takes a list of Call and CustomCall as 'calls'", (member.name,))


@attrs.frozen
class Answer:
    """A whole, well-behaved turn.

    Attributes:
        text: The message; None for none.
        thinking: Summary of a reasoning item before it; None for none.
        calls: Function calls after it.
        phase: The message's phase.
        size: Tokens per delta.
        pause: Seconds between deltas.
        delay: Seconds before the first output.
    """

    text: str | None = attrs.field(default=None, validator=optional(a_text))
    thinking: str | Sequence[str] | None = None
    calls: Sequence[Call | CustomCall] = attrs.field(default=(), validator=_calls)
    phase: str | None = attrs.field(default=None, validator=optional(one_of("commentary", "final_answer")))
    size: int = attrs.field(default=1, validator=a_count(1))
    pause: float = attrs.field(default=0.0, validator=seconds)
    delay: float = attrs.field(default=0.0, validator=seconds)

    def __iter__(self) -> Iterator[Step]:
        yield Created()
        yield InProgress()
        if self.delay:
            yield Delay(self.delay)
        if self.thinking is not None:
            yield Think(self.thinking, size=self.size, pause=self.pause)
        if self.text is not None:
            yield Say(self.text, phase=self.phase, size=self.size, pause=self.pause)
        yield from self.calls


AnyAnswer: TypeAlias = "str | Step | Answer | Iterable[str | Step | Answer]"
"""The answer of a brain: text, one step, or a list of both; missing opening events and the terminal are added."""


def as_steps(answer: AnyAnswer, path: Iterable[str | int] = ()) -> list[Step]:
    """Return the steps of an answer.

    Args:
        answer: An answer of a brain's or a script's.
        path: Its place, for the error.

    Raises:
        ScriptError: it is no answer; says which part, and what was probably meant.
    """
    path = tuple(path)
    if isinstance(answer, str):
        return list(Answer(answer))
    if isinstance(answer, (Step, Answer)):
        return _flat(answer, path)
    if isinstance(answer, (type, Mapping, bytes)) or not isinstance(answer, Iterable):
        raise _no_step(answer, path, whole=True)
    steps: list[Step] = []
    for index, part in enumerate(answer):
        steps += _flat(part, (*path, index))
    return steps


def _flat(part: object, path: tuple[str | int, ...]) -> list[Step]:
    if isinstance(part, str):
        return [Say(part)]
    if isinstance(part, Step):
        return [part]
    if isinstance(part, Answer):
        return list(part)
    raise _no_step(part, path, whole=False)


def _no_step(given: object, path: tuple[str | int, ...], *, whole: bool) -> ScriptError:
    if isinstance(given, type):
        hint = f"{given.__name__} is a class, not a step; did you mean {given.__name__}(…)?"
    elif given is None:
        hint = "None is no answer; return text, a step, or a list of them"
    elif isinstance(given, Mapping):
        hint = "a mapping is no step; did you mean Event({…}), RawItem({…}) or Json({…})?"
    elif isinstance(given, (list, tuple)) and not whole:
        hint = "a list within a turn's steps; a turn is one flat list"
    else:
        hint = f"{type(given).__name__} is no step; an answer is text, a step, or a list of them"
    return ScriptError(hint, path)
