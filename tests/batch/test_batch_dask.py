"""The recipe for Dask: a worker is killed, and each prompt is answered once."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.simulator import Asked
from engine.testing import run_simulator

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # what it warns of is its own
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "dask_batch.py"
PROMPTS = 64


class Counting:
    """Answers sums, and counts how often it was asked each."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def __call__(self, asked: Asked) -> list[Any]:
        text = asked.last_user_text
        self.asked[text] = self.asked.get(text, 0) + 1
        number = int(text.removeprefix("What is ").removesuffix("+1?"))
        return [str(number + 1)]


def test_each_prompt_is_answered_once_although_a_worker_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE.parent))  # of the workers, those that take a dead one's place too
    example = importlib.import_module("dask_batch")
    brain = Counting()
    killed: list[int] = []
    with (
        run_simulator(brain=brain) as sim,
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill(answers: dict[str, str]) -> None:
            if not killed:
                pids = list(client.run(os.getpid).values())
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        answers = example.run(
            client, sim.endpoint.base_url, "sk-simulator", f"sqlite:///{tmp_path}/ledger.db", PROMPTS, kill
        )
    assert killed
    assert answers == {f"sum-{number}": str(number + 1) for number in range(PROMPTS)}
    # Only what the dead worker had under way may have been asked twice.
    assert len(brain.asked) == PROMPTS
    assert sum(brain.asked.values()) <= PROMPTS + 8
