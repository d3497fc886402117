"""A short soak; the long one is a command, see `soak`."""

from __future__ import annotations

import os

import pytest
from soak import soak

pytestmark = pytest.mark.slow

TURNS = int(os.environ.get("SOAK_TURNS", "1200"))


@pytest.mark.timeout(0 if TURNS > 2000 else 600)
async def test_nothing_grows_and_no_answer_goes_astray() -> None:
    tally = await soak(TURNS, rounds=10)
    assert tally.wrong == []
    assert sum(tally.outcomes.values()) == TURNS
    assert tally.outcomes["answered"] > TURNS // 4
    assert tally.outcomes["left"] > TURNS // 10
    assert {sample.descriptors for sample in tally.samples} == {tally.samples[0].descriptors}
    assert {sample.tasks for sample in tally.samples} == {tally.samples[0].tasks}
    # Tables grow and shrink from round to round; one object kept per turn would raise the lowest point by more.
    blocks = [sample.blocks for sample in tally.samples]
    assert min(blocks[5:]) - min(blocks[:5]) < TURNS
