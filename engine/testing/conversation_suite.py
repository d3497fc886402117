"""The tests of whole conversations that every store has to pass, with processes that die and connections that break."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
import trio.testing

from engine.opening import open_engine
from engine.registry import Engine
from engine.settings.retry import RetryPolicy
from engine.simulator import Abort, Asked, Call, Simulator, open_simulator
from engine.store import Connection, LeaseLost, open_store, operations
from engine.store.records import Row
from engine.store.transcript import transcript_of
from engine.testing.disturbed import ConnectionCut, Disturbed, WorkerKilled
from engine.testing.store_suite import StatementSuite
from engine.values.messages import AssistantMessage, ToolResult, UserMessage

__all__ = ["StoreSuite"]

_FASTER: Final = 20
"""Time runs faster than real time, and still slow enough for a thread that has to wait for a processor."""
_MANY_STEPS: Final = 20


class StoreSuite(StatementSuite):
    """The tests that every store has to pass.

    Inherit it in a test module, and say how to connect::

        class TestMyStore(StoreSuite):
            @pytest.fixture(autouse=True)
            def _place(self, tmp_path):
                self.path = tmp_path / "store"

            def connect(self):
                return MyConnection(self.path)

    `connect` returns an `engine.store.Connection` that was not opened yet. Within one test all of them lead to one
    database, which is empty when the test begins.
    """

    # --- helpers ---

    def _run(self, program: Callable[..., Any], *arguments: Any) -> Any:
        return trio.run(program, *arguments, clock=trio.testing.MockClock(rate=_FASTER))

    def _rows(self, session: str) -> tuple[Row, ...]:
        with self._open() as do:
            found: tuple[Row, ...] = do(operations.read, session, after=0)
            return found

    def _noted(self, session: str) -> int:
        """Return how many requests of a session's newest prompt the store knows of."""
        with self._open() as do:
            claims = do(
                lambda database: database.execute("SELECT intent FROM engine_sessions WHERE id = ?", (session,))
            )
        now = json.loads(claims[0][0])["now"] if claims and claims[0][0] is not None else None
        if now is not None:
            return int(now["dispatches"])
        told = [json.loads(row.data).get("dispatches", 0) for row in self._rows(session)]
        return max(told, default=0)

    # --- conversations ---

    def test_another_process_goes_on(self) -> None:
        """It finds the transcript, and a key that is known gets the stored answer without a request."""

        async def program() -> None:
            worker = _Worker(self, "s")
            assert await worker.ask(self.connect(), "What is 1+1?", "one") == "answer 1"
            other = _Worker(self, "s")
            assert await other.ask(self.connect(), "What is 1+1?", "one") == "answer 1"
            assert other.requests == 0, "a prompt that was answered was sent again"
            assert await other.ask(self.connect(), "What is 2+2?", "two") == "answer 1"
            said = [type(each) for each in transcript_of("s", self._rows("s"), None, first=1).messages]
            assert said == [UserMessage, AssistantMessage] * 2

        self._run(program)

    def test_every_request_is_noted_before_it_leaves(self) -> None:
        """Also one that is sent again, whose first attempt may be at work at the server."""

        async def program() -> None:
            worker = _Worker(self, "s", aborts=1)
            assert await worker.ask(self.connect(), "go", "k") == "answer 2"
            assert worker.requests == 2
            assert worker.secret == [], f"requests that the store knew nothing of: {worker.secret}"
            assert self._noted("s") == 2

        self._run(program)

    def test_resends_are_allowed_over_all_processes_together(self) -> None:
        """A request that may be at work counts, whichever process has sent it."""

        async def program() -> None:
            for number in range(2):
                worker = _Worker(self, "s", aborts=2)
                error = await worker.failure(self.connect(), "go", "k", retry=RetryPolicy(resend_ambiguous=0))
                name = "TurnInterrupted" if number else "ConnectionLost"
                assert type(error).__name__ == name, f"{error!r}, and not {name}"
                assert worker.requests == 1 - number, "a request was sent once more than the policy allows"

        self._run(program)

    def test_a_worker_that_lost_its_session_sends_nothing(self) -> None:
        """It is stopped before its request leaves, commits nothing, and the other's rows stand."""

        async def program() -> None:
            worker, other = _Worker(self, "s"), _Worker(self, "s")
            error: Exception | None = None
            try:
                async with worker.opened(self.connect()) as chat:
                    self._expire()
                    await other.ask(self.connect(), "What is 1+1?", "one")
                    await chat.send("What is 2+2?", key="two")
            except LeaseLost as lost:
                error = lost
            assert error is not None, "a worker that had lost its session went on"
            assert worker.requests == 0, "a worker that had lost its session sent a request"
            assert len(self._rows("s")) == 1

        self._run(program)

    def test_a_worker_stops_by_its_own_clock(self) -> None:
        """At the latest when its lease would be over, whether it was told or not."""

        async def program() -> None:
            clock: Any = trio.lowlevel.current_clock()
            worker = _Worker(self, "s")
            error: Exception | None = None
            try:
                with trio.move_on_after(200):
                    async with worker.opened(self.connect()):
                        clock.jump(29)  # as after a suspension: no renewal ran
                        await trio.sleep(100)
            except LeaseLost as lost:
                error = lost
            assert error is not None, "a worker went on after its lease was over"

        self._run(program)

    # --- processes that die, connections that break ---

    def test_a_worker_may_be_killed_at_any_step(self) -> None:
        """Another one goes on: nothing is lost, nothing stands twice, no tool with a stored output runs again."""

        async def killed_at(step: int) -> bool:
            session = f"killed at {step}"
            worker = _Worker(self, session, calls=True)
            disturbed = Disturbed(self.connect(), step, WorkerKilled)
            survived = False
            try:
                survived = await worker.ask(disturbed, "go", "k") == "answer 2"
            except BaseExceptionGroup as group:
                if group.subgroup(WorkerKilled) is None:
                    raise
            if survived:
                return False
            stored = any(row.kind == "result" for row in self._rows(session))
            runs = worker.runs
            self._expire()
            disturbed.close()
            assert (await worker.ask(self.connect(), "go", "k")).startswith("answer")
            assert worker.runs == (runs if stored else runs + 1) or runs == 0, f"step {step}: a tool ran again"
            self._check(session, worker)
            return True

        self._run(self._at_every_step, killed_at)

    def test_a_connection_may_be_cut_at_any_step(self) -> None:
        """It is as if nothing had happened, also where only the answer to a commit was lost."""

        async def cut_at(step: int) -> bool:
            session = f"cut at {step}"
            worker = _Worker(self, session, calls=True)
            disturbed = Disturbed(self.connect(), step, ConnectionCut)
            assert await worker.ask(disturbed, "go", "k") == "answer 2", f"step {step}"
            assert (worker.requests, worker.runs) == (2, 1), f"step {step}: something was done twice"
            self._check(session, worker)
            return disturbed.steps > step

        self._run(self._at_every_step, cut_at)

    @staticmethod
    async def _at_every_step(disturbed_at: Callable[[int], Any]) -> None:
        for step in itertools.count():
            if not await disturbed_at(step):
                assert step > _MANY_STEPS
                return

    def _check(self, session: str, worker: _Worker) -> None:
        rows = self._rows(session)
        assert sum(row.last for row in rows) == 1, f"{session}: answered {sum(row.last for row in rows)} times"
        said = [type(each) for each in transcript_of(session, rows, None, first=1).messages]
        assert said == [UserMessage, AssistantMessage, ToolResult, AssistantMessage], f"{session}: {said}"
        assert worker.secret == [], f"{session}: requests that the store knew nothing of"
        assert worker.requests <= self._noted(session), f"{session}: more requests than the store knows of"


class _Worker:
    """A process that asks, as far as a test needs one: a simulator and an engine for each conversation.

    Attributes:
        requests: The number of requests that came to its server.
        secret: Requests of which the store knew nothing when they came.
        runs: The number of times that its tool has run.
    """

    def __init__(self, suite: StoreSuite, session: str, *, aborts: int = 0, calls: bool = False) -> None:
        self.requests = 0
        self.secret: list[int] = []
        self.runs = 0
        self._suite = suite
        self._session = session
        self._aborts = aborts
        self._calls = calls

    def __call__(self, asked: Asked) -> list[Any]:
        self.requests += 1
        if self._suite._noted(self._session) < self.requests:
            self.secret.append(self.requests)
        if self.requests <= self._aborts:
            return [Abort()]
        called = any(item.get("type") == "function_call_output" for item in asked.items)
        if self._calls and not called:
            return [Call("note", {})]
        return [f"answer {self.requests}"]

    async def note(self) -> str:
        """Note something."""
        self.runs += 1
        return "noted"

    @asynccontextmanager
    async def opened(self, connection: Connection, **fields: Any) -> AsyncIterator[Any]:
        sim: Simulator
        eng: Engine
        async with (
            open_simulator(in_memory=True, brain=self) as sim,
            open_engine(sim.endpoint, model="gpt-5.4", dialer=sim.dialer, **fields) as eng,
            open_store(connection) as store,
            store.open(eng, self._session, tools=[self.note], wait=5) as chat,
        ):
            yield chat

    async def ask(self, connection: Connection, prompt: str, key: str, **fields: Any) -> str:
        async with self.opened(connection, **fields) as chat:
            text: str = (await chat.send(prompt, key=key)).text
            return text

    async def failure(self, connection: Connection, prompt: str, key: str, **fields: Any) -> Exception | None:
        async with self.opened(connection, **fields) as chat:
            try:
                await chat.send(prompt, key=key)
            except Exception as error:
                return error
        return None
