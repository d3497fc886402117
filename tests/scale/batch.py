"""A batch over worker processes of which one is killed, by hand: each prompt is answered once.

    python -m tests.scale.batch --prompts 2000 --workers 4 --on dask [--refuse]

``--on host`` answers them in one process, for comparison; ``--on ray`` needs Ray. Prompts take 0.4 seconds each. With
``--refuse`` nothing is executed twice, and what the killed worker had under way has no answer.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.simulator import Asked, Delay
from engine.testing import run_simulator

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class Counting:
    """Answers sums in a given time, and counts how often each was begun."""

    def __init__(self, seconds: float) -> None:
        self.begun: collections.Counter[str] = collections.Counter()
        self._seconds = seconds

    def __call__(self, asked: Asked) -> list[Any]:
        text = asked.last_user_text
        self.begun[text] += 1
        return [Delay(self._seconds), str(int(text.removeprefix("What is ").removesuffix("+1?")) + 1)]


def on_dask(example: Any, given: argparse.Namespace, places: tuple[str, str, str], choice: str) -> dict[str, str]:
    """Four workers of Dask, one of which is killed when a tenth is answered."""
    distributed = importlib.import_module("distributed")
    killed: list[int] = []
    with (
        distributed.LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill(answers: dict[str, str]) -> None:
            if not killed and len(answers) > given.prompts / 10:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        client.run(os.getpid)
        began = time.monotonic()
        answers: dict[str, str] = example.run(
            client, *places, given.prompts, kill, size=given.chunk, on_interrupted=choice
        )
        told(given, len(answers), time.monotonic() - began)
    return answers


def on_ray(example: Any, given: argparse.Namespace, places: tuple[str, str, str], choice: str) -> dict[str, str]:
    """The same with Ray, which starts the tasks of a dead worker again."""
    ray: Any = importlib.import_module("ray")
    ray.init(num_cpus=given.workers, include_dashboard=False, log_to_driver=False)

    def answer(chunk: list[tuple[str, str]]) -> tuple[int, list[tuple[str, str | None]]]:
        return os.getpid(), example.answer(chunk, *places, choice)

    task = ray.remote(num_cpus=1, max_retries=3)(answer)
    prompts = [(f"sum-{number}", f"What is {number}+1?") for number in range(given.prompts)]
    answers: dict[str, str] = {}
    killed = False
    began = time.monotonic()
    waiting = [task.remote(chunk) for chunk in example.chunks(prompts, given.chunk)]
    while waiting:
        (done, *_), waiting = ray.wait(waiting)
        pid, pairs = ray.get(done)
        answers.update((name, text) for name, text in pairs if text is not None)
        if not killed and len(answers) > given.prompts / 10:
            killed = True
            os.kill(pid, signal.SIGKILL)
    told(given, len(answers), time.monotonic() - began)
    ray.shutdown()
    return answers


def on_host(example: Any, given: argparse.Namespace, places: tuple[str, str, str], choice: str) -> dict[str, str]:
    """One process, with as many prompts under way as a worker has."""
    prompts = [(f"sum-{number}", f"What is {number}+1?") for number in range(given.prompts)]
    began = time.monotonic()
    answers = {name: text for name, text in example.answer(prompts, *places, choice) if text is not None}
    told(given, len(answers), time.monotonic() - began)
    return answers


def told(given: argparse.Namespace, answered: int, seconds: float) -> None:
    print(f"{answered} answered in {seconds:.1f} s, {answered / seconds:.0f}/s, on {given.on}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--on", choices=("dask", "ray", "host"), default="dask")
    parser.add_argument("--refuse", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(_EXAMPLES))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_EXAMPLES), os.environ.get("PYTHONPATH"))))
    example = importlib.import_module("dask_batch")
    brain = Counting(given.seconds)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sim = stack.enter_context(run_simulator(brain=brain))
        places = (sim.endpoint.base_url, "sk-simulator", f"sqlite:///{folder}/ledger.db")
        choice = "refuse" if given.refuse else "resend"
        answers = {"dask": on_dask, "ray": on_ray, "host": on_host}[given.on](example, given, places, choice)
    wrong = [name for name, text in answers.items() if int(text) != int(name.removeprefix("sum-")) + 1]
    twice = sum(count > 1 for count in brain.begun.values())
    print(f"{len(brain.begun)} executed, {twice} of them more than once; {len(wrong)} wrong")
    return os.EX_OK if not wrong and (twice == 0 if given.refuse else len(answers) == given.prompts) else 1


if __name__ == "__main__":
    sys.exit(main())
