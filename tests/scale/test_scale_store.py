"""A short trial of the store; the long one is a command, see `store`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from databases import missing, postgres_server
from store import Trial, trial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and SIGSTOP")]

SHORT = Trial(rounds=60, workers=4, sessions=8, seconds=120, lease=2.0, kills=12, freezes=25, crashes=25, cuts=15)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_workers_and_servers_that_fail_lose_nothing_and_double_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        tally = await trial(SHORT, f"sqlite:///{tmp_path}/trial.db")
    else:
        if (reason := missing()) is not None:
            pytest.skip(reason)
        with postgres_server() as server:
            tally = await trial(SHORT, server.url, server)
    assert tally.violations == []
    assert tally.answered + tally.errors["TurnInterrupted"] >= SHORT.rounds
    assert tally.killed + tally.frozen > 0
