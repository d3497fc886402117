"""One failure is one exception: which of a group is raised in its place."""

from __future__ import annotations

import itertools

import pytest
import trio

from engine.groups import worst_of


async def cancelled() -> trio.Cancelled:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            return error
    raise AssertionError


ORDER = [KeyboardInterrupt(), SystemExit(2), GeneratorExit(), ValueError("told")]


@pytest.mark.parametrize(("worse", "other"), list(itertools.combinations(ORDER, 2)))
@pytest.mark.parametrize("turned", [False, True])
def test_the_worst_of_two(worse: BaseException, other: BaseException, turned: bool) -> None:
    both = [other, worse] if turned else [worse, other]
    assert worst_of(BaseExceptionGroup("", both)) is worse
    assert worst_of(BaseExceptionGroup("", [BaseExceptionGroup("", [other]), BaseExceptionGroup("", [worse])])) is worse


async def test_cancellation_comes_last() -> None:
    error = await cancelled()
    for other in ORDER:
        assert worst_of(BaseExceptionGroup("", [error, other])) is other
    assert worst_of(BaseExceptionGroup("", [error])) is error
