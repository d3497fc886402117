"""Additions to a turn that runs: input that it is steered with, and outputs that are handed to its agents.

The caller's task only asks and waits; what is sent is sent by tasks of the session's.
"""

from __future__ import annotations

import functools

import trio

from engine.connections.attempt import Attempt
from engine.connections.link import Link
from engine.protocol.failures import Expired, SteerRefused
from engine.protocol.injections import Injection
from engine.turns.injecting import InjectedResults, came_of, outputs_of
from engine.turns.states import WorkState
from engine.turns.steering import ENDED, LEFT, OVER_HTTP, QUEUED, Steering, SteerInput, not_taken, wish_of
from engine.turns.work import Work

__all__ = ["inject", "steer"]


async def steer(work: Work, given: SteerInput) -> None:
    """Add input to the response that runs; see `engine.turns.turn.Turn.steer`."""
    wish = wish_of(given, limit=work.settings.limits.max_request_bytes)
    await trio.lowlevel.checkpoint_if_cancelled()
    steering = work.steering or Steering(
        barred=functools.partial(_barred, work),
        running=functools.partial(_running, work),
        start=functools.partial(work.lane.start, work.context),
    )
    work.steering = None if work.decided else steering
    await steering.ask(wish)
    if not wish.taken and work.message is not None:  # it was over before anything could be sent
        raise not_taken(ENDED)
    if not wish.taken:
        raise work.error or not_taken(LEFT, sent=wish.steer.target is not None)


def _barred(work: Work) -> SteerRefused | None:
    """The reason why nothing can be added any more, or yet."""
    server = work.lane.pool.endpoint.server
    if work.decided:
        return LEFT if work.message is None and work.error is None else ENDED
    if not server.steering:
        return SteerRefused("steering_not_supported", barred=f"the server's profile ({server.name}) has no steering")
    if work.state is WorkState.QUEUED:
        return QUEUED
    return OVER_HTTP if work.over_http else None


def _running(work: Work) -> tuple[Link, Attempt] | None:
    """The attempt whose response runs, and its link; None while none does."""
    link, attempt = work.link, work.attempt
    return None if link is None or attempt is None or not attempt.exchange.steerable else (link, attempt)


async def inject(work: Work, results: InjectedResults) -> bool:
    """Hand outputs to the response that runs; see `engine.turns.turn.Turn.inject`."""
    limit, settled = work.settings.limits.max_request_bytes, trio.Event()
    items = outputs_of(results, work.arrived, work.lane.pool.endpoint.server, limit=limit)
    injection = Injection(items, settled.set)
    await trio.lowlevel.checkpoint_if_cancelled()
    link, attempt = work.link, work.attempt
    if work.decided and work.message is not None:
        return False
    if work.decided or link is None or attempt is None or attempt.exchange.response_id is None:
        raise work.error or RuntimeError("no response runs that could wait for the outputs")
    work.lane.start(work.context, functools.partial(_inject, link, attempt, injection))
    patience = work.settings.timeouts.first_event
    with trio.move_on_after(patience) as scope:
        await settled.wait()
    if scope.cancelled_caught:
        raise work.account.error(Expired("first_event", patience), attempt)
    return came_of(injection, error=work.error)


async def _inject(link: Link, attempt: Attempt, injection: Injection) -> None:
    """Send it, or say that there is nothing to send it to any more."""
    if not await link.inject(attempt, injection):
        injection.on_answer()
