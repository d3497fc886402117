"""A contestant's process: takes jobs as lines of JSON on standard input, answers each with one line.

Every contestant lives in a process of its own from its first round to its last, so that none runs in another's heap,
and rounds of different contestants can take turns.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attrs import evolve

from benchmarks.jobs import JOBS
from benchmarks.loops import AsyncioLoop, Loop, TrioLoop
from benchmarks.peers import Peer, Target, Unavailable, peer_named

__all__ = ["main", "run_job"]


def run_job(peer_name: str, job: str, target: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Run one job in an event loop of its own."""
    peer = peer_named(peer_name)
    loop: Loop = TrioLoop() if peer.loop == "trio" else AsyncioLoop()
    function = JOBS.get(job)
    if function is None:
        module, _, name = job.rpartition(".")
        function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    aimed = evolve(Target("", ""), **target)
    result: dict[str, Any] = loop.run(lambda: function(loop, peer, aimed, **params))
    return result


def main() -> None:
    """Serve jobs until standard input ends."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a peer prints is no answer
    peer = peer_named(sys.argv[1])
    for module in peer.without:
        sys.modules[module] = None  # type: ignore[assignment]  # importing it raises ImportError
    missing = peer.missing()
    for module in () if missing is not None else peer.needs:
        importlib.import_module(module)
    print(json.dumps({"missing": missing, "versions": versions_for(peer)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": run_job(**asked)}
        except BaseException as error:
            answer = {"error": _plainly(error)}
        print(json.dumps(answer), file=answers, flush=True)


def versions_for(peer: Peer) -> dict[str, str]:
    """The versions of what the peer needs, under the peer's name where another contestant may have another one."""
    found = {}
    for module in peer.needs:
        with suppress(PackageNotFoundError):
            found[f"{peer.name}: {module.partition('.')[0]}"] = version(module.partition(".")[0].replace("_", "-"))
    return found


def _plainly(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Unavailable):
        return str(error)
    return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    main()
