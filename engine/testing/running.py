"""A simulator in a thread of its own, for clients and tests of every kind."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, ParamSpec

from engine.handles import mirrored
from engine.portal import Block, Portal
from engine.simulator import (
    AnyAnswer,
    AnyBrain,
    ConnectionRecord,
    Quirks,
    Requests,
    Rule,
    Simulator,
    open_simulator,
)
from engine.testing.answers import with_answers

__all__ = ["RunningSimulator", "run_simulator"]

P = ParamSpec("P")

_WATCH_SECONDS: Final = 0.005


class RunningSimulator:
    """A `engine.simulator.Simulator` that runs in a thread of its own; everything here may be used from every thread.

    Its clients need nothing but `base_url` and `api_key`.
    """

    def __init__(self, portal: Portal, simulator: Simulator) -> None:
        self._portal = portal
        self._simulator = simulator

    def __repr__(self) -> str:
        return repr(self._simulator)

    @property
    def base_url(self) -> str:
        """The base URL for HTTP clients, without ``/responses``: what OPENAI_BASE_URL takes."""
        return self._simulator.base_url

    @property
    def websocket_url(self) -> str:
        """The URL for WebSocket clients."""
        return self._simulator.websocket_url

    @property
    def api_key(self) -> str:
        """A key that is let in."""
        return self._simulator.api_key

    @property
    def endpoint(self) -> Any:
        """The endpoint that `engine.open_session` needs to reach it."""
        return self._simulator.endpoint

    @property
    def brain(self) -> AnyBrain:
        """The brain that answers. May be replaced at any time."""
        return self._simulator.brain

    @brain.setter
    def brain(self, value: AnyBrain) -> None:
        self._simulator.brain = value

    @property
    def quirks(self) -> Quirks:
        """The deviations of the wire. May be replaced at any time."""
        return self._simulator.quirks

    @quirks.setter
    def quirks(self, value: Quirks) -> None:
        self._simulator.quirks = value

    def add(self, *answers: AnyAnswer | Rule) -> None:
        """Answer the next requests so, after what is to be answered already."""

        def add() -> None:
            self._simulator.brain = with_answers(self._simulator.brain, answers)

        self._portal.read(add)

    @property
    def requests(self) -> Requests:
        """Every request so far, in order of arrival; `engine.simulator.Requests` has ``last`` and ``bodies``."""
        return self._portal.read(lambda: Requests(self._simulator.requests))

    def wait_for(self, count: int, *, seconds: float = 10.0) -> Requests:
        """Wait until ``count`` requests have come, and return all of them.

        Raises:
            TimeoutError: fewer came within ``seconds``; the text says how many.
        """
        deadline = time.monotonic() + seconds
        while len(found := self.requests) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} requests came within {seconds:g} s")
            time.sleep(_WATCH_SECONDS)
        return found

    @property
    def open_connections(self) -> list[ConnectionRecord]:
        """Connections whose socket is still there."""
        return self._portal.read(lambda: self._simulator.open_connections)

    @property
    def errors(self) -> list[Exception]:
        """The exceptions raised by brains, or by the simulator itself; empty in a sound test."""
        return self._portal.read(lambda: list(self._simulator.errors))

    def problems(self) -> list[str]:
        """Return what a strict simulator complains about: errors of the brain, and turns that were never used."""
        return self._portal.read(self._simulator.problems)

    def open_gate(self, name: str) -> None:
        """Let every `engine.simulator.Gate` of this name go on."""
        self._portal.read(lambda: self._simulator.gate(name).set())

    def history(self, response_id: str) -> list[dict[str, Any]]:
        """Return the whole conversation up to the end of a response.

        Raises:
            KeyError: no such response has ended.
        """
        return self._portal.read(lambda: self._simulator.history(response_id))

    def response(self, response_id: str) -> dict[str, Any]:
        """Return the final Response object of any ended response, stored or not.

        Raises:
            KeyError: no such response has ended.
        """
        return self._portal.read(lambda: self._simulator.response(response_id))

    def abort(self, connection: ConnectionRecord | None = None, *, reset: bool = False) -> None:
        """Drop one connection, or all, without a word; see `engine.simulator.Simulator.abort`."""
        self._portal.read(lambda: self._simulator.abort(connection, reset=reset))

    def close(self, code: int = 1001, reason: str = "", *, connection: ConnectionRecord | None = None) -> None:
        """Close one WebSocket, or all, with a Close frame after what is on its way."""
        self._portal.read(lambda: self._simulator.close(code, reason, connection=connection))

    def forget(self, *, connection: ConnectionRecord | None = None) -> None:
        """Drop the responses that one WebSocket, or all, keep in memory; stored ones stay."""
        self._portal.read(lambda: self._simulator.forget(connection=connection))

    def push(self, event: Mapping[str, Any], *, connection: ConnectionRecord | None = None) -> int:
        """Send an event out of the blue on one WebSocket, or all; return how many took it."""
        return self._portal.read(lambda: self._simulator.push(event, connection=connection))

    def reset(self) -> None:
        """Forget every request, stored response, gate and error; connections and the brain stay as they are."""
        self._portal.read(self._simulator.reset)

    @property
    def connections(self) -> list[ConnectionRecord]:
        """Every connection so far, in order of arrival."""
        return self._portal.read(lambda: list(self._simulator.connections))


class Runner:
    """A simulator to be run in a thread of its own: ``with run_simulator(...) as simulator``."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Simulator]]) -> None:
        self._make = make
        self._portal = Portal()
        self._block: Block[Simulator] | None = None

    def __enter__(self) -> RunningSimulator:
        """Start it.

        Raises:
            OSError: the port is taken.
        """
        manager = self._make()
        self._portal.start(at_exit=self._close)
        try:
            self._block = self._portal.block(manager)
            return RunningSimulator(self._portal, self._portal.run(self._block.enter))
        except BaseException:
            self._portal.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop every connection and end the thread, whatever the clients do."""
        self._close()

    def _close(self) -> None:
        try:
            if self._block is not None and self._portal.running:
                self._portal.run(self._block.leave)
        finally:
            self._portal.stop()


def _running(manager: Callable[P, AbstractAsyncContextManager[Simulator]]) -> Callable[P, Runner]:
    @functools.wraps(manager)
    def run(*args: P.args, **kwargs: P.kwargs) -> Runner:
        return Runner(lambda: manager(*args, **kwargs))

    return run


@mirrored(_running(open_simulator))
def run_simulator() -> None:
    """Run a simulator in a thread of its own, for the length of a ``with`` block.

    Takes the arguments of `engine.simulator.open_simulator`: for synchronous tests, asyncio, several processes.
    """
