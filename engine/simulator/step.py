"""The common part of all steps of a script, and the course of a response through its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from .stage import Stage
from .tokens import OutOfTokensError

__all__ = ["Step", "perform"]


class Step:
    """Something a response does: content, an event of its life, a pause, a fault. Derive your own from it."""

    __slots__ = ()

    ends_response: ClassVar[bool] = False
    """Whether it is a terminal event."""

    async def perform(self, stage: Stage) -> None:
        """Do it."""
        raise NotImplementedError


async def perform(stage: Stage, steps: Iterable[Step]) -> None:
    """Do the steps in order, within the token budget; stop at an item boundary when steered; see to the end."""
    stage.record.executed = True
    following = [*steps]
    try:
        for number, step in enumerate(following, 1):
            if stage.abandoned:
                break
            await step.perform(stage)
            # A script that says itself how its response ends is not cut short before it does.
            ends = number < len(following) and following[number].ends_response
            if stage.interrupted and not ends:
                await stage.finish("incomplete", incomplete="steered")
                break
        if not stage.finished:
            await stage.begin()
            await stage.finish("completed")
    except OutOfTokensError:
        await stage.finish("incomplete", incomplete="max_output_tokens")
