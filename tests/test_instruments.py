"""Instruments: only what is overridden is called, where the caller stands, and a mistake harms nobody."""

from __future__ import annotations

import contextvars
import inspect
import logging
import typing
from typing import Any

import attrs
import pytest

from engine import instruments as module
from engine.instruments import (
    HOOKS,
    ConnectionInfo,
    EventInfo,
    Instrument,
    Instruments,
    RotationInfo,
    ToolEndInfo,
    ToolStartInfo,
    TurnStartInfo,
)
from engine.values.problems import ConfigurationError
from engine.wire.codec import decode

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


STARTED = TurnStartInfo(session="s", lane=None, turn=1, model="m", server="host")


def closed(**changes: Any) -> ConnectionInfo:
    return ConnectionInfo(**{"session": "s", "connection": 1, "seconds": 1.0, "reason": "why", **changes})


class Opened(Instrument):
    """Listens to one hook."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        self.seen.append((info.session, info.connection, info.seconds, place.get()))


class Child(Opened):
    """Inherits its hook."""


class Clumsy(Instrument):
    """Raises what it was told, so that a log that shows it is found out."""

    def __init__(self) -> None:
        self.calls = 0

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        self.calls += 1
        raise ValueError(info.session, info.reason)

    def rotation(self, info: RotationInfo, /) -> None:
        self.calls += 10


@pytest.mark.parametrize("kind", [Opened, Child])
def test_only_overridden_hooks_are_wanted(kind: type[Opened]) -> None:
    instruments = Instruments([kind()])
    assert [hook for hook in HOOKS if instruments.wants(hook)] == ["connection_opened"]
    instruments.emit("connection_closed", closed())


def test_nobody_listens() -> None:
    for instruments in (Instruments(), Instruments([Instrument()])):
        assert not any(instruments.wants(hook) for hook in HOOKS)
        for hook in HOOKS:
            instruments.emit(hook, None)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_does_nothing_by_itself(hook: str) -> None:
    assert getattr(Instrument(), hook)(object()) is None
    assert getattr(Instrument, hook).__doc__
    with pytest.raises(TypeError):
        getattr(Instrument(), hook)(info=object())


RECORDS = [getattr(module, name) for name in module.__all__ if name.endswith("Info")]


@pytest.mark.parametrize("record", RECORDS)
def test_records_are_frozen_and_keyword_only(record: Any) -> None:
    assert all(each.kw_only for each in attrs.fields(record))
    assert "__slots__" in vars(record)
    described = inspect.getdoc(record) or ""
    for name in attrs.fields_dict(record):
        assert f"\n    {name}: " in described


def test_every_hook_has_a_record() -> None:
    told = {next(iter(typing.get_type_hints(getattr(Instrument, hook)).values())) for hook in HOOKS}
    assert told == set(RECORDS)


def test_records_show_nothing_that_was_said() -> None:
    event = decode('{"type": "response.output_text.delta", "delta": "s3cret"}')
    info = EventInfo(session="s", lane=None, turn=1, attempt=1, model="m", event=event)
    assert "s3cret" not in repr(info)
    started = ToolStartInfo(session="s", lane=None, call_id="c", name="f", arguments={"a": "s3cret"})
    assert "s3cret" not in repr(started)
    ended = ToolEndInfo(
        session="s", lane=None, call_id="c", name="f", seconds=1.0, result=None, error=ValueError("s3cret")
    )
    assert "s3cret" not in repr(ended)


def test_hooks_run_in_the_caller_s_context() -> None:
    first, second = Opened(), Opened()
    instruments = Instruments([first, second])
    context = contextvars.copy_context()
    context.run(place.set, "turn")
    instruments.emit("connection_opened", ConnectionInfo(session="s", connection=1, seconds=0.5), context)
    instruments.emit("connection_opened", ConnectionInfo(session="s", connection=2, seconds=0.5))
    assert first.seen == second.seen == [("s", 1, 0.5, "turn"), ("s", 2, 0.5, "nowhere")]


def test_a_hook_that_raises_is_told_of_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    clumsy, other = Clumsy(), Clumsy()
    instruments = Instruments([clumsy, other])
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            instruments.emit("connection_closed", closed(session="s3cret", reason="s3cret"))
    assert [record.getMessage() for record in caplog.records] == [
        "Clumsy.connection_closed raised ValueError and will not be called again"
    ] * 2
    assert all(record.exc_info is None for record in caplog.records)
    assert "s3cret" not in caplog.text
    assert not instruments.wants("connection_closed")
    instruments.emit("rotation", RotationInfo(session="s", connection=1, seconds=1.0))
    assert (clumsy.calls, other.calls) == (11, 11)


def test_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Both(Opened):
        def connection_closed(self, info: ConnectionInfo, /) -> None:
            self.seen.append((info.session, info.connection, info.reason))

    listener = Both()
    instruments = Instruments([Clumsy(), listener])
    for number in range(2):
        instruments.emit("connection_closed", closed(connection=number))
    assert listener.seen == [("s", 0, "why"), ("s", 1, "why")]
    assert len(caplog.records) == 1


def test_instruments_that_compare_equal_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    class Alike(Instrument):
        def __init__(self, fails: bool) -> None:
            self.fails = fails
            self.calls = 0

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        def turn_started(self, info: TurnStartInfo, /) -> None:
            self.calls += 1
            if self.fails:
                raise RuntimeError

    good, bad = Alike(fails=False), Alike(fails=True)
    instruments = Instruments([good, bad])
    for _ in range(2):
        instruments.emit("turn_started", STARTED)
    assert (good.calls, bad.calls) == (2, 1)
    assert len(caplog.records) == 1


def test_a_hook_that_fails_inside_its_own_call(caplog: pytest.LogCaptureFixture) -> None:
    class Nested(Instrument):
        def __init__(self) -> None:
            self.depth = 0

        def turn_started(self, info: TurnStartInfo, /) -> None:
            self.depth += 1
            if self.depth < 3:
                instruments.emit("turn_started", info)
            raise RuntimeError

    nested = Nested()
    instruments = Instruments([nested])
    instruments.emit("turn_started", STARTED)
    assert nested.depth == 3
    assert len(caplog.records) == 1


def test_an_interrupt_is_not_a_hook_s_mistake() -> None:
    class Interrupted(Instrument):
        def turn_started(self, info: TurnStartInfo, /) -> None:
            raise KeyboardInterrupt

    instruments = Instruments([Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        instruments.emit("turn_started", STARTED)
    assert instruments.wants("turn_started")


@pytest.mark.parametrize(
    ("given", "field"),
    [(Opened(), "instruments"), ([Opened()] * 1 + [Opened], "instruments[1]"), (["x"], "instruments[0]")],
)
def test_what_is_no_instrument(given: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Instruments(given)
    assert caught.value.field == field
