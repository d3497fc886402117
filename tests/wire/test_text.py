"""Text that can be written as UTF-8, however it was cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire.text import HalfCharacter, Halves, half_character_in, joined, well_formed, well_formed_value

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


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("\ud83d", ""),
        ("\ud83d\ude00", None),
        ({"a": ["x", {"b": "\ude00"}]}, "['a'][1]['b']"),
        ({"a": {"\ud83d": 1}}, "['a']['…']"),
        ({"é": ["\ud83d"]}, "['…'][0]"),
        ([("x", "\ud83d")], "[0][1]"),
        ({"a": [1, None, 1.5, True, "é\U0001f600"]}, None),
    ],
)
def test_the_place_of_half_a_character(value: Any, place: str | None) -> None:
    assert half_character_in(value) == place


@settings(derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "é"]), max_size=6).map("".join))
def test_halves_are_joined_or_refused(text: str) -> None:
    try:
        whole = joined(text)
    except HalfCharacter:
        assert "\ufffd" in well_formed(text)
        assert half_character_in([text]) == "[0]"
    else:
        assert whole == well_formed(text)
        assert half_character_in([text]) is None


def test_values_are_mended_throughout() -> None:
    assert well_formed_value({"\ud83d": ["a", {"b": "\ud83d\ude00"}, 3]}) == {"\ufffd": ["a", {"b": "\U0001f600"}, 3]}


def test_a_value_of_any_depth() -> None:
    value: Any = "\ud83d"
    for _ in range(100_000):
        value = [value]
    well_formed_value(value)
    while value.__class__ is list:  # or its end would recurse
        value = value[0]
