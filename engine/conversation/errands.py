"""Callers' functions that a prompt waits for, and whether a prompt would wait for the very function that gives it.

A tool that sends to its own conversation waits for a prompt that waits for the tool. The code that a function runs is
known by its context variables, which go along into tasks and worker threads. A task that the function started
elsewhere has them too, and the prompt does not wait for that one: so where the function runs in Trio, its tasks are
what counts, and what comes out of a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

__all__ = ["errand", "waits_for_caller"]


class _Errand:
    """One run of a caller's function: for what, in which task, and whether it is over."""

    __slots__ = ("in_thread", "outer", "over", "owner", "task")

    def __init__(self, owner: object, outer: _Errand | None, *, in_thread: bool) -> None:
        self.owner = owner
        self.outer = outer
        self.in_thread = in_thread
        self.task = trio.lowlevel.current_task()
        self.over = False


_CURRENT: ContextVar[_Errand | None] = ContextVar("engine errand", default=None)


@contextmanager
def errand(owner: object, *, in_thread: bool = False) -> Iterator[None]:
    """Note that ``owner`` waits for what is called inside.

    Args:
        owner: The loop that waits.
        in_thread: Whether the function runs in a worker thread.
    """
    running = _Errand(owner, _CURRENT.get(), in_thread=in_thread)
    token = _CURRENT.set(running)
    try:
        yield
    finally:
        running.over = True
        _CURRENT.reset(token)


def waits_for_caller(owner: object) -> bool:
    """Whether ``owner`` waits for the code that calls this."""
    running = _CURRENT.get()
    while running is not None:
        if running.owner is owner and not running.over:
            return running.in_thread or _belongs(trio.lowlevel.current_task(), running.task)
        running = running.outer
    return False


def _belongs(task: trio.lowlevel.Task, errand_task: trio.lowlevel.Task) -> bool:
    """Whether a task is an errand's own or one below it, or has come out of a thread, in a tree of its own."""
    lineage = _lineage(task)
    return errand_task in lineage or len(lineage.intersection(_lineage(errand_task))) <= 1  # the root is everyone's


def _lineage(task: trio.lowlevel.Task) -> set[trio.lowlevel.Task]:
    lineage = {task}
    while task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
        lineage.add(task)
    return lineage
