"""Keywords of calls: one set each, typed, spelt out, and laid over what holds further out."""

from __future__ import annotations

import inspect
from typing import Any, Unpack, get_type_hints

import attrs
import pytest

from engine.settings.endpoint import Endpoint
from engine.settings.fields import SessionFields, TurnFields, check_names, options_with, settings_with, spelled_out
from engine.settings.levels import Settings, defaults_for
from engine.settings.limits import Limits
from engine.settings.retry import RetryPolicy
from engine.settings.timeouts import Timeouts
from engine.settings.turn_options import TurnOptions
from engine.values.choices import OnCancel, Transport
from engine.values.problems import ConfigurationError

SETTINGS = defaults_for(Endpoint())


def test_turns_take_the_options_and_what_a_session_takes() -> None:
    options, session, turn = (get_type_hints(kind) for kind in (TurnOptions, SessionFields, TurnFields))
    options.pop("_section")
    assert turn == {**session, **options, "text_format": Any}
    assert set(session) == set(attrs.fields_dict(Settings))


def test_what_is_given_is_laid_over_the_options() -> None:
    options = TurnOptions(temperature=0.5, top_p=0.3)
    assert options_with(options, {"temperature": None, "store": True}) == TurnOptions(
        temperature=None, top_p=0.3, store=True
    )
    assert options_with(options, {}) is options
    assert options_with(options, {"transport": "sse"}) is options
    assert options_with(None, {"model": "m"}) == TurnOptions(model="m")


def test_what_is_about_the_turn_is_laid_over_the_settings() -> None:
    fields: TurnFields = {"model": "m", "timeouts": Timeouts(turn=3), "on_cancel": "drain", "temperature": 1}
    merged = settings_with(SETTINGS, fields)
    assert (merged.timeouts.turn, merged.timeouts.start, merged.on_cancel) == (3, 60, OnCancel.DRAIN)
    assert merged.model is None
    assert merged.transport is Transport.AUTO
    assert settings_with(SETTINGS, {}) is SETTINGS


@pytest.mark.parametrize("fields", [{"temperature": "1"}, {"warm_up": None}, {"text_format": 7}])
def test_a_wrong_field_is_named_as_an_option_is(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options_with(None, fields)
    assert caught.value.field == f"options.{next(iter(fields))}"


def test_a_timeout_says_which_one_it_should_be() -> None:
    with pytest.raises(ConfigurationError, match=r"timeouts=Timeouts\(turn=…\)") as caught:
        options_with(None, {"timeout": 20})
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "Did you mean 'temperature'?"),
        ("timeuots", "Did you mean 'timeouts'?"),
        ("max_tokens", "Did you mean 'max_output_tokens'?"),
        ("system", "Did you mean 'instructions'?"),
        ("stream", "session.turn(…) streams"),
        ("zzz", "Another field of the request is sent by extra={'zzz': …}"),
    ],
)
def test_a_keyword_that_there_is_not(name: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        options_with(None, {name: 1}, "ask")
    assert str(caught.value).startswith(f"ask() got an unexpected keyword argument {name!r}")
    assert hint in str(caught.value)


def test_a_keyword_of_a_session_that_there_is_not() -> None:
    with pytest.raises(TypeError) as caught:
        check_names("open_session", {"system": "x"}, SessionFields.__annotations__)
    assert str(caught.value) == "open_session() got an unexpected keyword argument 'system'"


def test_reprs_of_settings_say_what_was_given() -> None:
    assert repr(Timeouts()) == "Timeouts()"
    assert repr(Timeouts(turn=20, idle=None)) == "Timeouts(idle=None, turn=20)"
    assert repr(Limits(buffer_events=5)) == "Limits(buffer_events=5)"
    assert repr(RetryPolicy(resend_ambiguous=0)) == "RetryPolicy(resend_ambiguous=0)"
    options = TurnOptions(model="m", metadata={"user": "secret"}, extra={"secret": 1}, store=None)
    assert repr(options) == "TurnOptions(model='m', store=None)"


@pytest.mark.parametrize("options", [{}, "x", Timeouts(), TurnOptions])
def test_options_of_another_kind(options: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options_with(options, {})
    assert caught.value.field == "options"


def test_names_are_checked_against_those_that_are_known() -> None:
    check_names("call", ["one"], ["one", "two"])
    with pytest.raises(TypeError):
        check_names("call", ["one", "three"], ["one", "two"])


def test_a_signature_that_spells_the_keywords_out() -> None:
    class Calls:
        @spelled_out
        async def ask(self, prompt: str, *, tools: tuple[str, ...] = (), **fields: Unpack[TurnFields]) -> str:
            """Ask."""
            return prompt

    shown = inspect.signature(Calls().ask)
    names = list(shown.parameters)
    assert names == ["prompt", "tools", *TurnFields.__annotations__]
    assert inspect.iscoroutinefunction(Calls.ask)
    assert "temperature: 'float | None' = UNSET" in str(shown)
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in list(shown.parameters.values())[1:])
    assert inspect.signature(Calls.ask).parameters["self"] is not None


def test_a_session_inherits_by_none() -> None:
    @spelled_out
    def start(**fields: Unpack[SessionFields]) -> None: ...

    assert {each.default for each in inspect.signature(start).parameters.values()} == {None}
