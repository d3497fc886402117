"""Cancelling one lane while others answer, expire, overflow and fork beside it: at every n-th scheduler step.

How many steps are left out is chosen so that this takes a bounded time; at every single one::

    CANCEL_EVERY=1 pytest -m slow tests/cancellation/test_cancel_lanes.py --timeout=0
"""

from __future__ import annotations

import itertools
import os

import pytest
from crowd import SIZES, crowd
from stepping import repeatable, sweep

from engine import OnCancel

pytestmark = pytest.mark.slow

# Primes, so that no pattern in the steps goes with them.
EVERY = {size: int(os.environ.get("CANCEL_EVERY", every)) for size, every in {2: 23, 4: 43, 16: 307}.items()}


@pytest.mark.parametrize("policy", list(OnCancel))
@pytest.mark.parametrize("size", SIZES)
@repeatable
def test_struck_in_a_crowd(size: int, policy: OnCancel, scheduling: object) -> None:
    last = sweep(crowd(size), policy, points=itertools.count(1 + list(OnCancel).index(policy), EVERY[size]))
    assert last > 100 * size
