"""Text that can be written as UTF-8, however it was cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire.text import Halves, well_formed, well_formed_value

anything = st.text(st.characters(), max_size=20)
cut = st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "é", "", "\U0001f600"]), max_size=8)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("plain", "plain"),
        ("é\U0001f600", "é\U0001f600"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83d", "\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83dx\ude00", "\ufffdx\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    ],
)
def test_halves(text: str, whole: str) -> None:
    assert well_formed(text) == whole


@settings(derandomize=True, deadline=None)
@given(cut | st.lists(anything, max_size=4))
def test_pieces_make_up_the_text(pieces: list[str]) -> None:
    halves = Halves()
    shown = [halves.join(piece) for piece in pieces]
    shown.append(halves.rest())
    for each in shown:
        each.encode()
    assert "".join(shown) == well_formed("".join(pieces))
    assert not halves.pending


@pytest.mark.parametrize("value", [None, 3, "plain", {"a": ["é", {"b": None}]}])
def test_what_is_whole_stays_itself(value: Any) -> None:
    assert well_formed_value(value) is value


def test_values_are_mended_throughout() -> None:
    assert well_formed_value({"\ud83d": ["a", {"b": "\ud83d\ude00"}, 3]}) == {"\ufffd": ["a", {"b": "\U0001f600"}, 3]}


def test_a_value_of_any_depth() -> None:
    value: Any = "\ud83d"
    for _ in range(100_000):
        value = [value]
    well_formed_value(value)
    while value.__class__ is list:  # or its end would recurse
        value = value[0]
