"""The table that decides about a connection whose turn was left."""

from __future__ import annotations

import pytest

from engine.protocol.aftermath import Aftermath, aftermath
from engine.values.choices import OnCancel


@pytest.mark.parametrize(
    ("policy", "fresh_lane", "expected"),
    [
        (OnCancel.CLOSE, True, Aftermath.RETIRE),
        (OnCancel.CLOSE, False, Aftermath.RETIRE),
        (OnCancel.DRAIN, True, Aftermath.DRAIN),
        (OnCancel.DRAIN, False, Aftermath.DRAIN),
        (OnCancel.NEW_LANE, True, Aftermath.NEW_LANE),
        (OnCancel.NEW_LANE, False, Aftermath.RETIRE),
    ],
)
def test_the_policy_decides_where_there_is_something_to_save(
    policy: OnCancel, fresh_lane: bool, expected: Aftermath
) -> None:
    assert aftermath(policy, wanted=True, sound=True, fresh_lane=fresh_lane) is expected
    assert aftermath(policy, wanted=False, sound=True, fresh_lane=fresh_lane) is Aftermath.RETIRE
    assert aftermath(policy, wanted=True, sound=False, fresh_lane=fresh_lane) is Aftermath.RETIRE
