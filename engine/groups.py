"""The exception that is raised in place of an exception group: one failure is one exception."""

from __future__ import annotations

from collections.abc import Iterator

import trio

__all__ = ["worst_of"]


def worst_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose one exception of a group: an interrupt, an exit, what else ends programs, an `Exception`, cancellation.

    Cancellation comes last, since it comes again at the next checkpoint.
    """
    return min(_leaves(group), key=_rank)


def _rank(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt():
            return 0
        case SystemExit():
            return 1
        case trio.Cancelled():
            return 4
        case Exception():
            return 3
    return 2


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
