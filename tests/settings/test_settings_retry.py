"""Retry policies: what they take, what they default to, and the waits they draw."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import attrs
import pytest

from engine.settings.levels import merge
from engine.settings.retry import DEFAULT_RETRY, RetryPolicy
from engine.values.choices import UNSET
from engine.values.problems import ConfigurationError


def test_documented_defaults() -> None:
    assert (DEFAULT_RETRY.max_dispatches, DEFAULT_RETRY.resend_ambiguous) == (3, 1)
    assert DEFAULT_RETRY.back_off == (1, 2, 4, 8, 16)
    assert (DEFAULT_RETRY.breaker_threshold, DEFAULT_RETRY.breaker_cooldown) == (2, 60)
    assert DEFAULT_RETRY.eager_reconnect is False


def test_nothing_is_set_unless_it_is_given() -> None:
    assert set(attrs.asdict(RetryPolicy()).values()) == {UNSET}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_dispatches", value) for value in (0, -1, 1.5, True, "3", None)),
        *(("resend_ambiguous", value) for value in (-1, 0.5, False, None)),
        *(("back_off", value) for value in (1, "12", [-1], [math.inf], [math.nan], [True], ["1"], {1: 2}, None)),
        *(("breaker_cooldown", value) for value in (-1, math.inf, math.nan, True, "60", None)),
        *(("breaker_threshold", value) for value in (0, 1.5, None)),
        *(("eager_reconnect", value) for value in (1, "yes", None)),
        *(("jitter", value) for value in (0.5, None)),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**{field: value})
    assert caught.value.field == f"retry.{field}"


def test_policies_are_values() -> None:
    policy = RetryPolicy(back_off=[1, 2], max_dispatches=1)
    assert policy == RetryPolicy(back_off=(1, 2), max_dispatches=1)
    assert hash(policy) == hash(copy.deepcopy(policy))
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert "jitter" not in repr(policy)


@pytest.mark.parametrize("name", attrs.fields_dict(RetryPolicy))
def test_policies_merge_field_by_field(name: str) -> None:
    given: dict[str, Any] = {
        "max_dispatches": 7, "resend_ambiguous": 0, "back_off": (), "jitter": float, "eager_reconnect": True,
        "breaker_threshold": 9, "breaker_cooldown": 1.5,
    }  # fmt: skip
    merged = merge(DEFAULT_RETRY, RetryPolicy(**{name: given[name]}), "retry")
    assert getattr(merged, name) == given[name]
    assert attrs.evolve(merged, **{name: getattr(DEFAULT_RETRY, name)}) == DEFAULT_RETRY


@pytest.mark.parametrize(("part", "wait"), [(0.0, 0.0), (0.25, 1.0), (1.0, 4.0), (7.0, 4.0), (-3.0, 0.0)])
def test_a_wait_is_a_part_of_its_number(part: float, wait: float) -> None:
    policy = merge(DEFAULT_RETRY, RetryPolicy(jitter=lambda: part), "retry")
    assert policy.wait(2) == wait


def test_the_default_jitter_is_random() -> None:
    waits = {DEFAULT_RETRY.wait(4) for _ in range(20)}
    assert len(waits) > 1
    assert all(0 <= wait <= 16 for wait in waits)
