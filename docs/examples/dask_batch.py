"""A batch over Dask workers, each prompt answered once although a worker may die.

    python -m docs.examples.dask_batch --workers 4 --prompts 200

Dask runs the finished tasks of a worker that died again, so a ledger has to know what is answered. Without a key and
``--base-url`` the simulator answers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from dask.distributed import Client, LocalCluster, as_completed

from engine import Endpoint
from engine.batch import BatchHost, OnInterrupted
from engine.testing import run_simulator

_HOSTS: dict[str, BatchHost] = {}


def answer(
    chunk: list[tuple[str, str]], base_url: str, key: str, store_url: str, on_interrupted: OnInterrupted = "resend"
) -> list[tuple[str, str | None]]:
    """Answer a chunk, in whichever worker process Dask runs it; one host serves all chunks of a process."""
    host = _HOSTS.get(store_url)
    if host is None:
        endpoint = Endpoint(base_url=base_url, api_key=key)
        # A short lease: what a worker had under way when it was killed is free again after it.
        host = _HOSTS[store_url] = BatchHost(
            endpoint, store_url, "sums", model="gpt-5.4", lease=5.0, on_interrupted=on_interrupted
        )
    return [(result.key, result.message.text if result.message else None) for result in host.run(chunk)]


def chunks(prompts: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    """Cut the prompts into chunks: one task each."""
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def run(
    client: Client,
    base_url: str,
    key: str,
    store_url: str,
    count: int,
    on_result: Any = None,
    *,
    size: int = 8,
    on_interrupted: OnInterrupted = "resend",
) -> dict[str, str]:
    """Answer ``count`` prompts, ``size`` to a task, and return the answers by key."""
    prompts = [(f"sum-{number}", f"What is {number}+1?") for number in range(count)]
    futures = [
        client.submit(answer, chunk, base_url, key, store_url, on_interrupted, pure=False)
        for chunk in chunks(prompts, size)
    ]
    answers: dict[str, str] = {}
    for future in as_completed(futures):
        for name, text in future.result():
            if text is not None:
                answers[name] = text
        if on_result is not None:
            on_result(answers)
    return answers


def main() -> None:
    """Run the example on this machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--base-url")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_simulator() as simulator,
        LocalCluster(n_workers=given.workers, threads_per_worker=2, dashboard_address=None) as cluster,  # pyright: ignore[reportArgumentType]
        Client(cluster) as client,
    ):
        base_url = given.base_url or simulator.endpoint.base_url
        key = os.environ.get("OPENAI_API_KEY") or "sk-simulator"
        answers = run(client, base_url, key, f"sqlite:///{folder}/ledger.db", given.prompts)
        print(f"{len(answers)} of {given.prompts} prompts answered")


if __name__ == "__main__":
    main()
