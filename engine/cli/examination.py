"""``doctor``'s examination of a server: each step of the way to it, and then turns, timed and judged.

The steps up to the upgrade are taken by hand, so that each is seen by itself. Those behind it are turns of an ordinary
session. A step that needs another one which failed is not tried. Answers are never shown, nor is the key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from engine import Endpoint, RetryPolicy, Session, Timeouts, Transport, TurnReport, open_session
from engine.cli.errors import describe, one_line, redact
from engine.cli.findings import NEEDS, SLOW_HINTS, Finding, Trouble, Verdict, advice
from engine.cli.way import Way
from engine.transport.dial import Dialer
from engine.values.errors import SteerRejected, TurnError
from engine.values.problems import ConfigurationError

__all__ = ["Examination"]

_PROMPT: Final = "Reply with the word OK."
_LONG_PROMPT: Final = "Count from one to forty in words."
_GRACE: Final = 1.0
"""Seconds that a step has beyond its patience, so that the budget which says most runs out first."""
_ONCE: Final = RetryPolicy(back_off=(), resend_ambiguous=0)


class Examination:
    """One look at a server.

    Args:
        endpoint: The server.
        model: The model to ask; a few tokens are spent.
        patience: Seconds each step may take.
        dialer: The way to the server; None for the network.
    """

    def __init__(self, endpoint: Endpoint, *, model: str, patience: float, dialer: Dialer | None = None) -> None:
        self._endpoint = endpoint
        self._model = model
        self._patience = patience
        self._dialer = dialer
        self._way = Way(endpoint, dialer)

    async def run(self, tell: Callable[[Finding], Awaitable[None]]) -> tuple[Finding, ...]:
        """Take all steps, telling each finding as it comes. If cancelled, every connection is closed."""
        findings: dict[str, Finding] = {}
        steps = self._way.steps()
        try:
            async with open_session(
                self._endpoint,
                model=self._model,
                dialer=self._dialer,
                retry=_ONCE,
                timeouts=Timeouts(
                    connect=self._patience,
                    first_event=self._patience,
                    idle=self._patience,
                    start=self._patience + _GRACE,
                    turn=self._patience + _GRACE,
                ),
            ) as session:
                steps |= self._session_steps(session)
                for step, needed in NEEDS.items():
                    if needed is not None and findings[needed].ok is not True:
                        finding = Finding(step=step, ok=None, seconds=None, verdict=f"not tried, it needs {needed}")
                    else:
                        finding = await self._take(step, steps[step])
                    findings[step] = finding
                    await tell(finding)
        except ConfigurationError as error:  # entering the session looks at the environment's proxies
            finding = Finding(
                step="proxy", ok=False, seconds=0.0, verdict=str(error), hint="Nothing is sent past a proxy."
            )
            findings["proxy"] = finding
            await tell(finding)
            for step in list(NEEDS)[1:]:
                findings[step] = Finding(step=step, ok=None, seconds=None, verdict="not tried, it needs proxy")
                await tell(findings[step])
        finally:
            await self._way.drop()
        return tuple(findings.values())

    async def _take(self, step: str, take: Callable[[], Awaitable[Verdict]]) -> Finding:
        began = trio.current_time()
        ok, hint = True, None
        try:
            with trio.fail_after(self._patience if step in SLOW_HINTS else self._patience + 2 * _GRACE):
                found = await take()
            verdict, hint = (found, None) if isinstance(found, str) else found
        except trio.TooSlowError:
            ok, verdict, hint = False, f"took longer than {self._patience:g} s", SLOW_HINTS.get(step)
        except Trouble as trouble:
            ok, verdict, hint = False, str(trouble), trouble.hint
        except TurnError as error:
            ok, verdict, hint = False, describe(error, self._way.secret), advice(error)
        return Finding(
            step=step,
            ok=ok,
            seconds=trio.current_time() - began,
            verdict=one_line(redact(verdict, self._way.secret)),
            hint=hint,
        )

    def _session_steps(self, session: Session) -> dict[str, Callable[[], Awaitable[Verdict]]]:
        async def first_event() -> Verdict:
            report = await _turn(session, Transport.WEBSOCKET)
            return _timed(report)

        async def http() -> Verdict:
            report = await _turn(session, Transport.SSE)
            return _timed(report)

        async def keep_alive() -> Verdict:
            report = await _turn(session, Transport.SSE)
            if report.connection_reused:
                return "the connection served a second request"
            return (
                "each request opens a connection of its own",
                "The server, or a proxy, closes HTTP connections: each request pays for a handshake.",
            )

        async def lanes() -> Verdict:
            return await _lanes(session, self._endpoint)

        async def steering() -> Verdict:
            return await _steering(session, self._endpoint)

        return {
            "first_event": first_event,
            "http": http,
            "keep_alive": keep_alive,
            "lanes": lanes,
            "steering": steering,
        }


async def _turn(session: Session, transport: Transport) -> TurnReport:
    async with session.turn(_PROMPT, transport=transport) as turn:
        await turn.wait()
    return turn.report


def _timed(report: TurnReport) -> str:
    seconds = report.seconds
    first = "" if seconds.first_event is None else f"first event after {seconds.first_event:.3f} s, "
    whole = "" if seconds.total is None else f"the answer after {seconds.total:.3f} s"
    return first + whole


async def _lanes(session: Session, endpoint: Endpoint) -> Verdict:
    """Ask twice at once, each on a lane of its own, and see whether one connection carries both."""
    if not endpoint.server.multiplexing:
        await trio.lowlevel.checkpoint()
        return "one response at a time: further lanes open connections of their own"
    before = session.statistics().connections_opened
    failures: list[TurnError] = []

    async def ask(name: str) -> None:
        try:
            await session.lane(name).ask(_PROMPT, transport=Transport.WEBSOCKET)
        except TurnError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for name in ("doctor-1", "doctor-2"):
            nursery.start_soon(ask, name)
    if failures:
        raise failures[0]
    opened = session.statistics().connections_opened - before
    if opened:
        return f"two lanes took {opened} further connection{'s' if opened > 1 else ''}"
    return "two answers at once over one connection"


async def _steering(session: Session, endpoint: Endpoint) -> Verdict:
    """Add input to a response that has just begun, and see what becomes of it."""
    server = endpoint.server
    if not server.steering:
        await trio.lowlevel.checkpoint()
        return f"not offered: servers of the profile {server.name} take no input for a response that runs"
    refusal: SteerRejected | None = None
    async with session.turn(_LONG_PROMPT, transport=Transport.WEBSOCKET) as turn:
        try:
            await turn.steer(_PROMPT)
        except SteerRejected as error:
            refusal = error
        await turn.wait()
    if refusal is None:
        applied = len(turn.messages) > 1
        return "a running response took further input" if applied else "further input was accepted, and came too late"
    match refusal.code:
        case "steering_not_supported":
            return "not offered for this model", "Models of the GPT-6 family can be steered."
        case "response_already_completed":
            return "not tried: the answer was over before"
    return f"further input was refused ({one_line(str(refusal))})"
