"""A host inside a worker process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import Endpoint
from engine.batch import BatchHost
from engine.testing import run_simulator


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with run_simulator() as sim:
        yield sim.endpoint


def chunk(*numbers: int) -> list[tuple[str, str]]:
    return [(f"sum-{number}", f"What is {number}+1?") for number in numbers]


def test_chunks_from_several_threads(endpoint: Endpoint, url: str) -> None:
    with BatchHost(endpoint, url, "sums", model="m", concurrency=4) as host, ThreadPoolExecutor(3) as pool:
        chunks = list(pool.map(host.run, [chunk(0, 1, 2), chunk(3, 4), chunk(2, 5)]))
    texts = {result.key: result.answer.text for results in chunks for result in results}
    assert texts == {f"sum-{number}": str(number + 1) for number in range(6)}
    assert [result.key for result in chunks[0]] == ["sum-0", "sum-1", "sum-2"]


def test_two_hosts_answer_each_prompt_once(url: str) -> None:
    with (
        run_simulator() as sim,
        BatchHost(sim.endpoint, url, "sums", model="m") as one,
        BatchHost(sim.endpoint, url, "sums", model="m") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        numbers = range(10)
        both = list(pool.map(lambda host: host.run(chunk(*numbers)), [one, two]))
        assert [[result.answer.text for result in results] for results in both] == [
            [str(number + 1) for number in numbers]
        ] * 2
        assert len(sim.requests) == len(numbers)


def test_a_host_ends_with_its_block(endpoint: Endpoint, url: str) -> None:
    before = threading.active_count()
    host = BatchHost(endpoint, url, "sums", model="m")
    assert threading.active_count() == before  # nothing is started before the first chunk
    with host:
        host.run(chunk(1))
    assert not any(thread.name == "trio portal" and thread.is_alive() for thread in threading.enumerate()) or (
        threading.active_count() <= before + 1
    )
    host.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_host_that_was_started_before_a_fork_says_so(endpoint: Endpoint, url: str) -> None:
    with BatchHost(endpoint, url, "sums", model="m") as host:
        host.run(chunk(1))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                host.run(chunk(2))
            except RuntimeError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            assert "before the process forked" in told.read()
        os.waitpid(child, 0)
