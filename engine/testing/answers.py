"""The answers that a test gives its simulator: one by one, by rules, or in a script file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.simulator import AnyAnswer, AnyBrain, Calculator, Rule, Script
from engine.simulator.rulebook import Rulebook
from engine.simulator.script_file import with_script

__all__ = ["set_up", "with_answers"]


def _brain_of(answers: Iterable[AnyAnswer | Rule], *, strict: bool) -> AnyBrain:
    """Return the brain that answers: a script of the answers, or a calculator where there are none."""
    answers = list(answers)
    return Script(answers, strict=strict) if answers else Calculator()


def set_up(answers: Iterable[AnyAnswer | Rule], options: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """Return arguments of `engine.simulator.open_simulator`, with the brain that answers among them.

    Args:
        answers: The answers, in order.
        options: Further arguments; a ``script`` or a ``brain`` among them answers in place of answers.
        strict: Whether a request that none of the answers fits is a mistake.

    Raises:
        OSError: the script cannot be read.
        ValueError: there are answers beside a script or a brain, or the script is none.
    """
    answers = list(answers)
    chosen = with_script(options)
    if chosen.get("brain") is None:
        chosen["brain"] = _brain_of(answers, strict=strict)
    elif answers:
        raise ValueError("answers are given, and a script file or a brain as well: give one of them")
    return chosen


def with_answers(brain: AnyBrain, answers: Iterable[AnyAnswer | Rule], *, strict: bool = False) -> AnyBrain:
    """Return a brain that gives these answers too, after its own where it has such a list: it may be the same."""
    if isinstance(brain, Script):
        brain.add(*answers)
    elif isinstance(brain, Rulebook):
        brain.script(None).add(*answers)
    else:
        return _brain_of(answers, strict=strict)
    return brain
