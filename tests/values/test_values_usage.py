"""Tokens add up, and what was not reported is no zero."""

from __future__ import annotations

import pytest

from engine import Usage


def test_tokens_add_up() -> None:
    one = Usage(input_tokens=1, output_tokens=2, total_tokens=3, cached_tokens=None, reasoning_tokens=0)
    other = Usage(input_tokens=10, output_tokens=None, total_tokens=10, cached_tokens=5)
    assert one + other == Usage(
        input_tokens=11, output_tokens=2, total_tokens=13, cached_tokens=5, cache_write_tokens=None, reasoning_tokens=0
    )


def test_what_nobody_reported_stays_unknown() -> None:
    assert (Usage() + Usage()) == Usage()


def test_sums() -> None:
    assert sum([Usage(input_tokens=1), Usage(input_tokens=2), Usage()]) == Usage(input_tokens=3)


def test_nothing_else_is_added() -> None:
    with pytest.raises(TypeError):
        _ = Usage() + 1
    with pytest.raises(TypeError):
        _ = 1 + Usage()
