"""What a batch has done already is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import ConfigurationError, ConnectionLost, RequestRejected, Transport, open_engine
from engine.batch import open_batch, open_ledger
from engine.simulator import Abort, Error, Script, open_simulator
from engine.store import TurnInterrupted, open_store

SUMS = [(f"sum-{number}", f"What is {number}+1?") for number in range(8)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


async def test_what_is_answered_is_not_asked_again(url: str) -> None:
    for run in range(2):
        async with (
            open_simulator(in_memory=True) as sim,
            open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
            open_store(url, owner=f"run {run}") as store,
            open_ledger(store, "sums") as ledger,
            open_batch(eng, SUMS[: 4 + 4 * run], ledger=ledger, concurrency=4) as results,
        ):
            found = {result.key: result async for result in results}
            assert {key: result.answer.text for key, result in found.items()} == {
                f"sum-{number}": str(number + 1) for number in range(4 + 4 * run)
            }
            assert sum(result.known for result in found.values()) == 4 * run
            assert len(sim.requests) == 4


async def test_another_batch_knows_nothing_of_it(url: str) -> None:
    async with (
        open_simulator(in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(url) as store,
    ):
        for name in ("one", "other"):
            async with open_ledger(store, name) as ledger, open_batch(eng, SUMS[:1], ledger=ledger) as results:
                assert not (await anext(results)).known
        assert len(sim.requests) == 2


async def test_strokes_in_names_and_keys_do_not_meet(url: str) -> None:
    async with (
        open_simulator(in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(url) as store,
    ):
        for name, key in (("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c")):
            async with open_ledger(store, name) as ledger, open_batch(eng, [(key, "x")], ledger=ledger) as results:
                assert not (await anext(results)).known
        assert len(sim.requests) == 3


async def test_a_key_of_another_prompt_is_an_error(url: str) -> None:
    async with (
        open_simulator(in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(url) as store,
        open_ledger(store, "sums") as ledger,
    ):
        async with open_batch(eng, [("k", "What is 1+1?")], ledger=ledger) as results:
            await anext(results)
        async with open_batch(eng, [("k", "What is 2+2?")], ledger=ledger) as results:
            assert isinstance((await anext(results)).error, ConfigurationError)


@pytest.mark.parametrize("choice", ["resend", "refuse"])
async def test_what_was_begun_and_never_answered(url: str, choice: str) -> None:
    async with (
        open_simulator(brain=Script([[Abort()], "late"]), in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer, transport=Transport.WEBSOCKET) as eng,
        open_store(url) as store,
        open_ledger(store, "b", on_interrupted="resend" if choice == "resend" else "refuse") as ledger,
    ):
        async with open_batch(eng, [("k", "go")], ledger=ledger) as results:
            assert isinstance((await anext(results)).error, ConnectionLost)
        async with open_batch(eng, [("k", "go")], ledger=ledger) as results:
            result = await anext(results)
        if choice == "resend":
            assert result.answer.text == "late"
        else:
            assert isinstance(result.error, TurnInterrupted)
            assert len(sim.requests) == 1


async def test_what_was_refused_is_no_interruption(url: str) -> None:
    async with (
        open_simulator(brain=Script([Error(400, "invalid_prompt"), "yes"]), in_memory=True) as sim,
        open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
        open_store(url) as store,
        open_ledger(store, "b", on_interrupted="refuse") as ledger,
    ):
        async with open_batch(eng, [("k", "go")], ledger=ledger) as results:
            assert isinstance((await anext(results)).error, RequestRejected)
        async with open_batch(eng, [("k", "go")], ledger=ledger) as results:
            assert (await anext(results)).answer.text == "yes"


async def test_what_is_wrong_is_said(url: str) -> None:
    async with open_store(url) as store:
        for arguments, field in (((None, "b"), "store"), ((store, ""), "name")):
            with pytest.raises(ConfigurationError) as caught:
                open_ledger(*arguments)
            assert caught.value.field == field
        with pytest.raises(ConfigurationError, match="resend"):
            open_ledger(store, "b", on_interrupted="maybe")  # type: ignore[arg-type]
