"""The admission of a turn: the caller's hook, the text of the request, and the wait for the lane.

All of it happens in the caller's task, before anything is sent.
"""

from __future__ import annotations

import contextvars

import trio

from engine.protocol.failures import Expired, Failure
from engine.turns.states import WorkState
from engine.turns.work import Work
from engine.values.choices import Transport

__all__ = ["admit"]


async def admit(work: Work) -> None:
    """Queue the request and wait until the lane is granted; see `engine.turns.turn.Turn.__aenter__`."""
    lane = work.lane
    work.context = contextvars.copy_context()
    work.timeline.begin("entered", "turn", trio.current_time())
    work.submission.prepend(lane.inherited)
    await _prepare(work)
    lane.submit(work)
    if work.admitted.is_set():
        await trio.lowlevel.checkpoint()
    else:
        await _queue(work)
    if work.error is not None and not work.timeline.reached("granted"):
        raise work.error


async def _prepare(work: Work) -> None:
    """Let the caller's hook have its say, within the ``turn`` budget, then encode."""
    submission, settings = work.submission, work.settings
    if not submission.hooked:
        await trio.lowlevel.checkpoint_if_cancelled()
    else:
        with work.timeline.scope() as scope:
            await submission.ask_hook()
        if scope.cancelled_caught:
            raise _failed(work, Expired("turn", settings.timeouts.turn))
    submission.leave_out(work.lane.refused_seals)
    submission.encode()
    if settings.transport is Transport.WEBSOCKET and (oversized := work.oversized) is not None:
        raise _failed(work, oversized)


def _failed(work: Work, failure: Failure) -> Exception:
    work.fail(failure)
    assert work.error is not None
    return work.error


async def _queue(work: Work) -> None:
    """Wait for the lane, within the budgets that bound that."""
    work.timeline.start("queue", trio.current_time())
    with work.timeline.scope() as scope:
        await work.admitted.wait()
    if not scope.cancelled_caught or work.admitted.is_set():
        return
    expired = work.timeline.expired(trio.current_time())
    assert expired is not None
    if expired.phase == "queue":
        work.timeline.stop("queue")
        work.lane.claim(work)
    if work.state is WorkState.QUEUED:
        work.fail(expired)
