"""Cancelling the caller at every scheduler step, in memory and in virtual time."""

from __future__ import annotations

import itertools

import pytest
import scenarios
from stepping import Scenario, repeatable, sweep

from engine import OnCancel

COMPLETE = (
    scenarios.ASK,
    scenarios.STREAM,
    scenarios.QUEUE,
    scenarios.CONNECT,
)
TOGETHER = (scenarios.RELEASE, scenarios.EXIT)
"""Nobody leaves a turn in these, so the policies share the points among them."""
SAMPLED = (scenarios.TOOLS, scenarios.WARM_UP, scenarios.LEAVE, scenarios.LEAVE_FROZEN, scenarios.LIFE)
"""Made of the same steps as the others: every seventh point, each policy beginning at another."""


def under_each_policy(chosen: tuple[Scenario, ...]) -> pytest.MarkDecorator:
    cases = [(scenario, policy) for scenario in chosen for policy in scenario.policies]
    ids = [f"{scenario.name}-{policy.name}" for scenario, policy in cases]
    return pytest.mark.parametrize(("scenario", "policy"), cases, ids=ids)


@under_each_policy(COMPLETE)
@repeatable
def test_cancelled_at_every_step(scenario: Scenario, policy: OnCancel, scheduling: object) -> None:
    assert sweep(scenario, policy) >= scenario.points


@under_each_policy(TOGETHER)
@repeatable
def test_cancelled_at_every_third_step(scenario: Scenario, policy: OnCancel, scheduling: object) -> None:
    first = 1 + scenario.policies.index(policy)
    assert sweep(scenario, policy, points=itertools.count(first, 3)) >= scenario.points


@under_each_policy(SAMPLED)
@repeatable
def test_cancelled_at_every_seventh_step(scenario: Scenario, policy: OnCancel, scheduling: object) -> None:
    first = 1 + scenario.policies.index(policy)
    assert sweep(scenario, policy, points=itertools.count(first, 7)) >= scenario.points
