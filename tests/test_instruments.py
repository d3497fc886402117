"""Instruments: only what is overridden is called, where the caller stands, and a mistake harms nobody."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

import pytest

from engine.instruments import HOOKS, Instrument, Instruments
from engine.values.problems import ConfigurationError

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


class Opened(Instrument):
    """Listens to one hook."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def connection_opened(self, session: str, connection: int, seconds: float) -> None:
        self.seen.append((session, connection, seconds, place.get()))


class Child(Opened):
    """Inherits its hook."""


class Clumsy(Instrument):
    """Raises what it was told, so that a log that shows it is found out."""

    def __init__(self) -> None:
        self.calls = 0

    def connection_closed(self, session: str, connection: int, reason: str) -> None:
        self.calls += 1
        raise ValueError(session, reason)

    def rotation(self, session: str, connection: int, age: float) -> None:
        self.calls += 10


@pytest.mark.parametrize("kind", [Opened, Child])
def test_only_overridden_hooks_are_wanted(kind: type[Opened]) -> None:
    instruments = Instruments([kind()])
    assert [hook for hook in HOOKS if instruments.wants(hook)] == ["connection_opened"]
    instruments.emit("connection_closed", "s", 1, "why")


def test_nobody_listens() -> None:
    for instruments in (Instruments(), Instruments([Instrument()])):
        assert not any(instruments.wants(hook) for hook in HOOKS)
        for hook in HOOKS:
            instruments.emit(hook)


def test_every_hook_does_nothing_by_itself() -> None:
    instrument = Instrument()
    for hook, arguments in {
        "connection_opened": ("s", 1, 0.1),
        "connection_closed": ("s", 1, "why"),
        "rotation": ("s", 1, 3300.0),
        "turn_started": ("s",),
        "request_sent": ("s", 1, 10),
        "event_received": ("s", None),
        "turn_ended": ("s", None, None),
    }.items():
        assert hook in HOOKS
        assert getattr(instrument, hook)(*arguments) is None


def test_hooks_run_in_the_caller_s_context() -> None:
    first, second = Opened(), Opened()
    instruments = Instruments([first, second])
    context = contextvars.copy_context()
    context.run(place.set, "turn")
    instruments.emit("connection_opened", "s", 1, 0.5, context=context)
    instruments.emit("connection_opened", "s", 2, 0.5)
    assert first.seen == second.seen == [("s", 1, 0.5, "turn"), ("s", 2, 0.5, "nowhere")]


def test_a_hook_that_raises_is_told_of_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    clumsy, other = Clumsy(), Clumsy()
    instruments = Instruments([clumsy, other])
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            instruments.emit("connection_closed", "s3cret", 1, "s3cret")
    assert [record.getMessage() for record in caplog.records] == [
        "Clumsy.connection_closed raised ValueError and will not be called again"
    ] * 2
    assert all(record.exc_info is None for record in caplog.records)
    assert "s3cret" not in caplog.text
    assert not instruments.wants("connection_closed")
    instruments.emit("rotation", "s", 1, 1.0)
    assert (clumsy.calls, other.calls) == (11, 11)


def test_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Both(Opened):
        def connection_closed(self, session: str, connection: int, reason: str) -> None:
            self.seen.append((session, connection, reason))

    listener = Both()
    instruments = Instruments([Clumsy(), listener])
    for number in range(2):
        instruments.emit("connection_closed", "s", number, "why")
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

        def turn_started(self, session: str) -> None:
            self.calls += 1
            if self.fails:
                raise RuntimeError

    good, bad = Alike(fails=False), Alike(fails=True)
    instruments = Instruments([good, bad])
    for _ in range(2):
        instruments.emit("turn_started", "s")
    assert (good.calls, bad.calls) == (2, 1)
    assert len(caplog.records) == 1


def test_a_hook_that_fails_inside_its_own_call(caplog: pytest.LogCaptureFixture) -> None:
    class Nested(Instrument):
        def __init__(self) -> None:
            self.depth = 0

        def turn_started(self, session: str) -> None:
            self.depth += 1
            if self.depth < 3:
                instruments.emit("turn_started", session)
            raise RuntimeError

    nested = Nested()
    instruments = Instruments([nested])
    instruments.emit("turn_started", "s")
    assert nested.depth == 3
    assert len(caplog.records) == 1


def test_an_interrupt_is_not_a_hook_s_mistake() -> None:
    class Interrupted(Instrument):
        def turn_started(self, session: str) -> None:
            raise KeyboardInterrupt

    instruments = Instruments([Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        instruments.emit("turn_started", "s")
    assert instruments.wants("turn_started")


@pytest.mark.parametrize(
    ("given", "field"),
    [(Opened(), "instruments"), ([Opened()] * 1 + [Opened], "instruments[1]"), (["x"], "instruments[0]")],
)
def test_what_is_no_instrument(given: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Instruments(given)
    assert caught.value.field == field
