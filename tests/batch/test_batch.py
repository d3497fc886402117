"""Many prompts over one engine."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

import pytest
import trio
import trio.testing

import engine
from engine import ConfigurationError, Engine, RateLimited, RequestRejected, TurnOptions, Usage
from engine.batch import Batch, BatchProgress, BatchResult, ProgressLine, open_batch
from engine.simulator import Asked, Delay, Error, Script, Simulator, open_simulator


class Told:
    """An engine over a simulator."""

    def __init__(self, brain: Any = None, **session: Any) -> None:
        self._simulator = open_simulator(in_memory=True, **({"brain": brain} if brain is not None else {}))
        self._session = session

    async def __aenter__(self) -> Engine:
        self.sim: Simulator = await self._simulator.__aenter__()
        given = {"model": "gpt-5.4", **self._session}
        self._engine = engine.open_engine(self.sim.endpoint, dialer=self.sim.dialer, **given)
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


async def test_a_reader_that_is_cancelled_leaves_its_result_to_another(autojump_clock: trio.testing.MockClock) -> None:
    found: list[float] = []
    first = trio.CancelScope()

    def slowly(asked: Asked) -> list[Any]:
        return [Delay(10.0 if asked.last_user_text == "soon" else 100.0), "yes"]

    async def read(results: Batch, scope: trio.CancelScope) -> None:
        with scope:
            await anext(results)
            found.append(trio.current_time() - began)

    async with Told(slowly) as eng:
        began = trio.current_time()
        async with open_batch(eng, ["soon", "late"], progress=lambda _: first.cancel()) as results:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, results, first)
                await trio.testing.wait_all_tasks_blocked(0)
                nursery.start_soon(read, results, trio.CancelScope())
    assert len(found) == 1
    assert found[0] < 50  # with the first answer, not with the next


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
    assert [(each.done, each.total, each.over) for each in told] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, False),
        (3, 3, True),
    ]
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
            (lambda: open_batch(eng, {"key": "prompt"}), "items"),
            (lambda: open_batch(eng, ["a"], concurrency=0), "concurrency"),
            (lambda: open_batch(eng, ["a"], progress=3), "progress"),  # type: ignore[arg-type]
            (lambda: open_batch(eng, ["a"], rate_patience=-1), "rate_patience"),
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


# --- lanes and sessions ----------------------------------------------------------------------------------------------


async def test_prompts_share_connections_where_the_server_answers_several_on_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = Told(lambda asked: [Delay(1), asked.last_user_text])
    async with told as eng, open_batch(eng, map(str, range(40)), concurrency=40) as results:
        began = trio.current_time()
        found = await everything(results)
        assert trio.current_time() - began < 1.5  # all at the same time
    assert {key: result.answer.text for key, result in found.items()} == {str(n): str(n) for n in range(40)}
    assert len(told.sim.connections) == 3  # 16 at most on each
    on_each = [sum(r.connection_id == c.id for r in told.sim.requests) for c in told.sim.connections]
    assert max(on_each) - min(on_each) <= 1


async def test_prompts_have_connections_of_their_own_where_it_answers_one_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def slowly(asked: Asked) -> list[Any]:
        return [Delay(1), "yes"]

    async with open_simulator(in_memory=True, brain=slowly, endpoint_options={"profile": "generic"}) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            async with open_batch(eng, ["go"] * 10, concurrency=10) as results:
                began = trio.current_time()
                found = await everything(results)
                assert trio.current_time() - began < 1.5
        assert all(result.message is not None for result in found.values())
        assert len(sim.connections) == 10


# --- rate limits -----------------------------------------------------------------------------------------------------


class Limiting:
    """Refuses for a time, and says for how long."""

    def __init__(self, seconds: float, *, says: bool = True) -> None:
        self.until = trio.current_time() + seconds
        self.says = says
        self.refused: list[float] = []

    def __call__(self, asked: Asked) -> list[Any]:
        left = self.until - trio.current_time()
        if left > 0:
            self.refused.append(trio.current_time())
            return [Error(429, headers={"retry-after": f"{left:.3f}"} if self.says else {})]
        return ["yes"]


async def test_all_prompts_wait_out_one_rate_limit(autojump_clock: trio.testing.MockClock) -> None:
    """It lasts longer than any turn would wait: without a pause of the batch all prompts would fail."""
    paused: list[float] = []
    brain = Limiting(300)
    async with Told(brain) as eng:
        async with open_batch(
            eng, ["go"] * 200, concurrency=20, progress=lambda each: paused.append(each.pause)
        ) as results:
            await trio.sleep(100)
            assert 190 < results.progress.pause <= 200
            found = await everything(results)
    assert all(result.message is not None for result in found.values())
    assert len(brain.refused) <= 20  # those that were under way, and one that tried


async def test_a_server_that_does_not_say_how_long_is_asked_by_one_prompt_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    brain = Limiting(200, says=False)
    async with Told(brain) as eng, open_batch(eng, ["go"] * 50, concurrency=10) as results:
        found = await everything(results)
    assert all(result.message is not None for result in found.values())
    assert len(brain.refused) < 40


async def test_patience_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    brain = Limiting(1000)
    async with Told(brain) as eng:
        async with open_batch(eng, ["go"] * 3, concurrency=1, rate_patience=90) as results:
            found = await everything(results)
    assert all(isinstance(result.error, RateLimited) for result in found.values())


async def test_a_spent_quota_is_no_rate_limit(autojump_clock: trio.testing.MockClock) -> None:
    async with Told(lambda asked: [Error(429, "insufficient_quota")]) as eng:
        began = trio.current_time()
        async with open_batch(eng, ["go"] * 3, concurrency=1) as results:
            found = await everything(results)
        assert trio.current_time() - began < 5
    assert all(isinstance(result.error, RateLimited) for result in found.values())


# --- on a terminal ---------------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def progress_at(seconds: float, **fields: Any) -> BatchProgress:
    given = {"total": 2000, "begun": 9, "answered": 0, "failed": 0, "usage": None}
    return BatchProgress(**{**given, "seconds": seconds, **fields})


def test_progress_on_a_terminal_is_one_line() -> None:
    screen = Screen(True)
    line = ProgressLine(screen)
    usage = Usage(input_tokens=1000, output_tokens=234, total_tokens=1234)
    line(progress_at(1.0, answered=36, failed=1, pause=12.4))
    line(progress_at(1.05, answered=38))  # too early
    line(progress_at(54.0, answered=1999, failed=1, usage=usage, over=True))
    shown = screen.getvalue()
    first, last = shown.removeprefix("\r").split("\r")
    assert first == "37 of 2,000 done · 1 failed · 37.0/s · 0:53 left · held by a rate limit for 0:12"
    assert last.rstrip() == "2,000 of 2,000 done · 1 failed · 37.0/s · in 0:54 · 1,234 tokens"
    assert len(last.rstrip("\n")) == len(first)  # what stood there is written over
    assert shown.endswith("\n")


def test_progress_in_a_file_is_a_few_lines() -> None:
    screen = Screen(False)
    line = ProgressLine(screen)
    for second in range(100):
        line(progress_at(float(second), total=None, answered=second))
    line(progress_at(7300.0, total=None, answered=100, over=True))
    assert screen.getvalue().splitlines() == [
        "0 done",
        "30 done · 1.0/s",
        "60 done · 1.0/s",
        "90 done · 1.0/s",
        "100 done · 0.0/s · in 2:01:40",
    ]


async def test_a_terminal_that_is_gone_ends_no_batch(autojump_clock: trio.testing.MockClock) -> None:
    screen = Screen(True)
    screen.close()
    line = ProgressLine(Screen(True))
    line._stream = screen
    async with Told() as eng, open_batch(eng, ["What is 1+1?"], progress=line) as results:
        assert (await anext(results)).answer.text == "2"
