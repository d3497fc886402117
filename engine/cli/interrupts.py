"""Running a command so that an interrupt ends it in order, and quietly."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio

__all__ = ["run"]


def run(program: Callable[[], Awaitable[None]]) -> bool:
    """Run ``program`` under Trio and return whether it was interrupted. What it raises passes through.

    The first interrupt cancels the program, so that sockets are closed in order; a second one stops the closing.
    """
    try:
        return trio.run(_interruptible, program)
    except KeyboardInterrupt:
        return True
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return True


async def _interruptible(program: Callable[[], Awaitable[None]]) -> bool:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # The process was started to live on, for example with nohup.
        await program()
        return False
    interrupted = trio.Event()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch, interrupted, nursery.cancel_scope)
        try:
            await program()
        except Exception as error:
            failure = error  # kept out of the nursery, which would wrap it in a group
        nursery.cancel_scope.cancel(reason="the program has ended")
    if failure is not None and not interrupted.is_set():
        raise failure
    return interrupted.is_set()


async def _watch(
    interrupted: trio.Event, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
        interrupted.set()
    scope.cancel(reason="interrupted")
