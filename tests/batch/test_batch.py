"""Many prompts over one engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

import pytest
import trio
import trio.testing

import engine
from engine import ConfigurationError, Engine, RequestRejected, TurnOptions
from engine.batch import Batch, BatchProgress, BatchResult, open_batch
from engine.simulator import Error, Script, Simulator, open_simulator


class Told:
    """An engine over a simulator."""

    def __init__(self, brain: Any = None) -> None:
        self._simulator = open_simulator(in_memory=True, **({"brain": brain} if brain is not None else {}))

    async def __aenter__(self) -> Engine:
        self.sim: Simulator = await self._simulator.__aenter__()
        self._engine = engine.open_engine(self.sim.endpoint, model="gpt-5.4", dialer=self.sim.dialer)
        return await self._engine.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._engine.__aexit__(kind, error, traceback)
        await self._simulator.__aexit__(kind, error, traceback)


async def everything(results: Batch) -> dict[str, BatchResult]:
    found: dict[str, BatchResult] = {}
    async for result in results:
        found[result.key] = result
    return found


async def test_every_prompt_is_answered_once(autojump_clock: trio.testing.MockClock) -> None:
    told = Told()
    async with told as eng:
        async with open_batch(eng, [f"What is {number}+1?" for number in range(50)], concurrency=8) as results:
            found = await everything(results)
        assert list(eng) == []  # its sessions are gone
    assert {key: result.answer.text for key, result in found.items()} == {
        str(number): str(number + 1) for number in range(50)
    }
    assert {result.attempts for result in found.values()} == {1}
    assert len(told.sim.connections) <= 8


async def test_keys_of_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    async with Told() as eng:
        async with open_batch(eng, [("one", "What is 1+1?"), ("two", "What is 2+2?")]) as results:
            found = await everything(results)
    assert {key: result.answer.text for key, result in found.items()} == {"one": "2", "two": "4"}


async def test_a_prompt_that_fails_fails_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with Told(Script(["a", Error(400, "invalid_prompt"), "c"])) as eng:
        async with open_batch(eng, ["x", "y", "z"], concurrency=1) as results:
            found = await everything(results)
        assert results.progress.done == 3
        assert (results.progress.answered, results.progress.failed) == (2, 1)
    assert isinstance(found["1"].error, RequestRejected)
    assert found["1"].message is None
    with pytest.raises(RequestRejected):
        _ = found["1"].answer
    assert [found[key].answer.text for key in "02"] == ["a", "c"]


async def test_prompts_are_taken_when_a_worker_is_free(autojump_clock: trio.testing.MockClock) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        number = 0
        while True:
            taken.append(number)
            yield f"What is {number}+1?"
            number += 1

    async with Told() as eng, open_batch(eng, endless(), concurrency=4) as results:
        for _ in range(10):
            await anext(results)
        await trio.testing.wait_all_tasks_blocked(0.01)
        # Four under way or waiting to be handed over, four unread, and what was read.
        assert len(taken) <= 10 + 4 + 4
        assert results.progress.total is None


async def test_an_asynchronous_source(autojump_clock: trio.testing.MockClock) -> None:
    class Slowly:
        def __init__(self) -> None:
            self.left = 5

        def __aiter__(self) -> AsyncIterator[tuple[str, str]]:
            return self

        async def __anext__(self) -> tuple[str, str]:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            await trio.sleep(1)
            return str(self.left), f"What is {self.left}+1?"

    async with Told() as eng, open_batch(eng, Slowly(), concurrency=3) as results:
        found = await everything(results)
    assert {key: result.answer.text for key, result in found.items()} == {str(n): str(n + 1) for n in range(5)}


async def test_progress_is_told(autojump_clock: trio.testing.MockClock) -> None:
    told: list[BatchProgress] = []
    async with Told() as eng, open_batch(eng, ["a", "b", "c"], concurrency=1, progress=told.append) as results:
        await everything(results)
    assert [(each.done, each.total) for each in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1].usage is not None
    assert told[-1].usage.total_tokens


async def test_what_the_source_raises_comes_after_the_results_before_it(autojump_clock: trio.testing.MockClock) -> None:
    def broken() -> Iterator[str]:
        yield "What is 1+1?"
        yield "What is 1+1?"
        raise LookupError("no more")

    async with Told() as eng, open_batch(eng, broken(), concurrency=1) as results:
        assert (await anext(results)).answer.text == "2"
        assert (await anext(results)).answer.text == "2"
        with pytest.raises(LookupError, match="no more"):
            await anext(results)


async def test_leaving_early_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    told = Told()
    async with told as eng:
        async with open_batch(eng, ["What is 1+1?"] * 100, concurrency=8) as results:
            await anext(results)
        assert list(eng) == []
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert all(not connection.open for connection in told.sim.connections if hasattr(connection, "open"))


async def test_the_blocks_own_exception_comes_out_bare(autojump_clock: trio.testing.MockClock) -> None:
    async with Told() as eng:
        with pytest.raises(ZeroDivisionError):
            async with open_batch(eng, ["a"] * 10, concurrency=2):
                _ = 1 / 0


async def test_a_key_that_stands_twice_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async with Told() as eng, open_batch(eng, [("a", "x"), ("a", "y")], concurrency=1) as results:
        await anext(results)
        with pytest.raises(ConfigurationError, match="'a' of an earlier prompt"):
            await anext(results)


async def test_what_is_wrong_is_said_before_anything_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    told = Told()
    async with told as eng:
        wrongs: list[tuple[Callable[[], object], str]] = [
            (lambda: open_batch(eng, "a text"), "items"),
            (lambda: open_batch(eng, ["a"], concurrency=0), "concurrency"),
            (lambda: open_batch(eng, ["a"], progress=3), "progress"),  # type: ignore[arg-type]
            (lambda: open_batch(object(), ["a"]), "eng"),  # type: ignore[arg-type]
            (lambda: open_batch(eng, ["a"], timeout=3), "timeout"),  # type: ignore[call-arg]
        ]
        for wrong, field in wrongs:
            with pytest.raises(ConfigurationError) as caught:
                wrong()
            assert caught.value.field == field
        with pytest.raises(TypeError, match="temprature"):
            open_batch(eng, ["a"], temprature=1)  # type: ignore[call-arg]
        options = TurnOptions(temperature=0.5)
        async with open_batch(eng, ["a"], options=options, max_output_tokens=100) as results:
            await everything(results)
    (sent,) = [request.body for request in told.sim.requests]
    assert (sent["temperature"], sent["max_output_tokens"]) == (0.5, 100)
