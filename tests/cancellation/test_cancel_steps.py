"""Cancelling the caller at every scheduler step, in memory and in virtual time."""

from __future__ import annotations

import pytest
import scenarios
from stepping import Scenario, repeatable, sweep

from engine import OnCancel

pytestmark = pytest.mark.slow

CASES = [(scenario, policy) for scenario in scenarios.ALL for policy in scenario.policies]


@pytest.mark.parametrize(
    ("scenario", "policy"), CASES, ids=[f"{scenario.name}-{policy.name}" for scenario, policy in CASES]
)
@repeatable
def test_cancelled_at_every_step(scenario: Scenario, policy: OnCancel, scheduling: object) -> None:
    assert sweep(scenario, policy) >= scenario.points
