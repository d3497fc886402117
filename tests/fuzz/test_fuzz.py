"""A little of what `targets` can do at length."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import SEEDS, TARGETS

pytestmark = pytest.mark.slow

EXAMPLES = {"sse": 300, "codec": 300, "events": 400, "upgrade": 60, "frames": 100, "stream": 100, "cutter": 150}


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # a line for each frame that is dropped
    for seed in SEEDS[name]:
        TARGETS[name](seed)

    @settings(derandomize=True, deadline=None, max_examples=EXAMPLES[name], database=None)
    @given(st.binary(max_size=600) | st.lists(st.sampled_from(SEEDS[name]) | st.binary(max_size=20)).map(b"".join))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
