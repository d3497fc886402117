"""Articles before the names of types."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from typing import Any

import pytest

import engine
from engine.values.type_names import kind_of, with_article


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "an int"),
        (1.0, "a float"),
        (None, "None"),
        ({}, "a dict"),
        (OrderedDict(), "an OrderedDict"),
        (object(), "an object"),
        (int, "a type"),
        (engine.UserMessage("hello"), "a UserMessage"),
        (engine.AssistantMessage(), "an AssistantMessage"),
        (engine.Usage(), "a Usage"),
        (engine.OutputItem({"type": "x"}), "an OutputItem"),
        (ssl.create_default_context(), "an SSLContext"),
        (OSError(), "an OSError"),
    ],
)
def test_the_kind_of_a_value(value: object, words: str) -> None:
    assert kind_of(value) == words


@pytest.mark.parametrize(
    "words",
    ["a URL", "an HTTPError", "a UUID", "a Union", "an UnknownEvent", "an _Entry", "a JSON", "a Europe", "an IO"],
)
def test_articles_follow_how_names_are_spoken(words: str) -> None:
    assert with_article(words.split()[1]) == words


def test_errors_name_the_kind_of_what_was_given() -> None:
    given: Any = 1
    for field, kind in {"content": engine.UserMessage, "context messages": engine.Context}.items():
        with pytest.raises(engine.ConfigurationError, match=rf"{field}: is an int, not "):
            kind(given)
    with pytest.raises(engine.ConfigurationError, match="model: is an int, not a string"):
        engine.TurnOptions(model=given)
