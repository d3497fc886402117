"""A short trial of the store; the long one is a command, see `store`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from store import Trial, trial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and SIGSTOP")]

SHORT = Trial(rounds=60, workers=4, sessions=8, seconds=120, lease=2.0, kills=12, freezes=25)


async def test_killed_and_frozen_workers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    tally = await trial(SHORT, f"sqlite:///{tmp_path}/trial.db")
    assert tally.violations == []
    assert tally.answered + tally.errors["TurnInterrupted"] >= SHORT.rounds
    assert tally.killed + tally.frozen > 0
