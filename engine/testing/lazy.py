"""A simulator in memory that begins with the first dial, in whichever Trio run that happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import trio

import engine
from engine import aio, blocking
from engine.simulator import (
    AnyBrain,
    ConnectionRecord,
    Requests,
    Rule,
    Script,
    Simulator,
    SimulatorDialer,
    open_simulator,
)
from engine.simulator.answer import AnyAnswer
from engine.simulator.rulebook import Rulebook
from engine.testing.answers import set_up, with_answers

__all__ = ["LazySimulator", "SessionOpener"]

MODEL: Final = "gpt-5.4"
_HOST: Final = "http://simulator.invalid"


class LazySimulator:
    """A `engine.simulator.Simulator` without sockets, for one test.

    It may be set up, and looked at afterwards, from synchronous code. Its first dial starts it, in that Trio run; all
    of its clients have to be there. It ends with the test, or with the run.
    """

    def __init__(
        self, answers: Iterable[AnyAnswer | Rule] = (), *, strict: bool = True, options: Mapping[str, Any] | None = None
    ) -> None:
        self._options = set_up(answers, options or {}, strict=strict)
        self._strict = strict
        self._brain: AnyBrain = self._options.pop("brain")
        # Made here, so that a mistake in the options is the test's own error, and not that of a dial.
        self._opener = open_simulator(in_memory=True, **self._options)
        self._simulator: Simulator | None = None
        self._error: Exception | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready: trio.Event | None = None
        self._scope = trio.CancelScope()
        self.dialer: SimulatorDialer = _Dialer(self)

    def __repr__(self) -> str:
        return "<LazySimulator, not dialled yet>" if self._simulator is None else repr(self._simulator)

    @property
    def endpoint(self) -> engine.Endpoint:
        """The endpoint that `engine.open_session` needs to reach it, beside the ``dialer``."""
        roots = self._options.get("roots", ("/v1",))
        root = roots if isinstance(roots, str) else next(iter(roots))
        key = self._options.get("api_key") or "sk-simulator"
        given = {"profile": "openai", **self._options.get("endpoint_options", {})}
        return engine.Endpoint(base_url=_HOST + root, api_key=key, **given)

    @property
    def brain(self) -> AnyBrain:
        """The brain that answers. May be replaced at any time."""
        return self._brain if self._simulator is None else self._simulator.brain

    @brain.setter
    def brain(self, value: AnyBrain) -> None:
        self._brain = value
        if self._simulator is not None:
            self._simulator.brain = value

    def add(self, *answers: AnyAnswer | Rule) -> None:
        """Answer the next requests so, after what is to be answered already."""
        self.brain = with_answers(self.brain, answers, strict=self._strict)

    @property
    def running(self) -> Simulator:
        """The simulator itself.

        Raises:
            RuntimeError: nothing has dialled it yet.
        """
        if self._simulator is None:
            raise RuntimeError("nothing has dialled the simulator yet: give its endpoint and its dialer to the client")
        return self._simulator

    @property
    def requests(self) -> Requests:
        """Every request so far, in order of arrival; `engine.simulator.Requests` has ``last`` and ``bodies``."""
        return Requests() if self._simulator is None else self._simulator.requests

    @property
    def connections(self) -> list[ConnectionRecord]:
        """Every connection so far, in order of arrival."""
        return [] if self._simulator is None else self._simulator.connections

    def problems(self) -> list[str]:
        """Return what a strict simulator complains about."""
        if self._simulator is not None:
            return self._simulator.problems()
        return self._brain.problems() if isinstance(self._brain, Script | Rulebook) else []

    # --- its life ---

    async def begin(self) -> Simulator:
        """Start it, if it has not started; return it.

        Raises:
            RuntimeError: it runs in another Trio run.
        """
        token = trio.lowlevel.current_trio_token()
        if self._ready is None:
            self._token, self._ready = token, trio.Event()
            # A task of the run's own: the one that dials may end before the last connection does.
            trio.lowlevel.spawn_system_task(self._live, self._ready)
        elif self._token is not token:
            raise RuntimeError(
                "the simulator runs in another Trio run, whose thread this is not; responses_server serves several"
            )
        await self._ready.wait()
        if self._error is not None:
            raise self._error
        assert self._simulator is not None
        return self._simulator

    async def _live(self, ready: trio.Event) -> None:
        try:
            with self._scope:
                async with self._opener as simulator:
                    simulator.brain = self._brain
                    self._simulator = simulator
                    ready.set()
                    await trio.sleep_forever()
        except Exception as error:  # a system task must not raise
            self._error = error
        finally:
            ready.set()

    def end(self) -> None:
        """End it, if its run goes on: that is the case where several tests share one."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)


class _Dialer(SimulatorDialer):
    def __init__(self, owner: LazySimulator) -> None:
        self._owner = owner

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream to the simulator, starting it first. Cancelled, nothing stays open."""
        simulator = await self._owner.begin()
        return await simulator.dialer.open_tcp(host, port)


class _Reachable(Protocol):
    """The way to a server in memory."""

    @property
    def endpoint(self) -> engine.Endpoint:
        """The server's endpoint."""
        ...

    @property
    def dialer(self) -> SimulatorDialer:
        """The dialer that opens streams to it."""
        ...


class SessionOpener:
    """Opens sessions to a server in memory: ``async with responses_session() as session``."""

    def __init__(self, server: _Reachable) -> None:
        self._server = server

    def __call__(self, **options: Any) -> engine.open_session:
        """Open one for a Trio program, with the arguments of `engine.open_session`."""
        return engine.open_session(self._server.endpoint, **self._given(options))

    def blocking(self, **options: Any) -> blocking.Opener[blocking.Session]:
        """Open one for a program without an event loop; see `engine.blocking`."""
        return blocking.open_session(self._server.endpoint, **self._given(options))

    def aio(self, **options: Any) -> aio.Opener[aio.Session]:
        """Open one for an asyncio program; see `engine.aio`."""
        return aio.open_session(self._server.endpoint, **self._given(options))

    def _given(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"model": MODEL, "dialer": self._server.dialer, **options}
