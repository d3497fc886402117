"""Exceptions: one tree, attributes rather than texts, and safe to log, copy and send to another process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import engine
from engine.values import errors, problems
from engine.values.choices import Delivery
from engine.values.errors import (
    AuthenticationFailed,
    BufferOverflow,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ResponseFailed,
    SessionClosed,
    TurnError,
    TurnTimeout,
)
from engine.values.messages import AssistantMessage
from engine.values.problems import ConfigurationError, EngineError
from engine.values.reports import TurnReport
from engine.values.shown import token

CLASSES = [getattr(module, name) for module in (problems, errors) for name in module.__all__]
TURN_ERRORS = [each for each in CLASSES if issubclass(each, TurnError)]


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (EngineError, Exception),
        (ConfigurationError, EngineError),
        (TurnError, EngineError),
        (SessionClosed, TurnError),
        (TurnTimeout, TurnError),
        (ConnectFailed, TurnError),
        (ConnectionLost, TurnError),
        (RequestRejected, TurnError),
        (AuthenticationFailed, RequestRejected),
        (RateLimited, RequestRejected),
        (ResponseFailed, TurnError),
        (RequestTooLarge, TurnError),
        (BufferOverflow, TurnError),
        (ProtocolViolation, TurnError),
    ],
)
def test_the_tree(kind: type[Exception], parent: type[Exception]) -> None:
    assert kind.__bases__[0] is parent
    assert kind in CLASSES
    assert getattr(engine, kind.__name__) is kind


def test_a_configuration_error_is_a_value_error() -> None:
    error = ConfigurationError("timeouts.turn", "must not be negative or NaN")
    assert isinstance(error, ValueError)
    assert (error.field, error.problem) == ("timeouts.turn", "must not be negative or NaN")
    assert str(error) == "timeouts.turn: must not be negative or NaN"
    assert str(ConfigurationError("x")) == "x: is not valid"


def test_a_timeout_of_ours_is_nobody_else_s() -> None:
    assert not issubclass(TurnTimeout, TimeoutError)
    assert [each.__name__ for each in TurnTimeout.__mro__[1:]] == [
        "TurnError", "EngineError", "Exception", "BaseException", "object"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", TURN_ERRORS)
def test_every_turn_error_tells_of_its_turn(kind: type[TurnError]) -> None:
    error = kind("why")
    assert str(error) == "why"
    assert (error.delivery, error.partial, error.report) == (Delivery.NOT_SENT, None, None)


@pytest.mark.parametrize("kind", [RequestRejected, RateLimited, ResponseFailed])
def test_the_servers_words_stand_in_a_text_only_where_content_may_be_shown(kind: Any) -> None:
    error = kind("the server rejected the request", message="No entry fits.")
    assert str(error) == "the server rejected the request"
    with engine.show_content():
        assert str(error) == "the server rejected the request: No entry fits."
        assert str(kind("refused")) == "refused"
    assert "No entry" not in repr(error)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies(kind: type[EngineError], clone: Any) -> None:
    error = kind("what", "why") if issubclass(kind, ConfigurationError) else kind("why")
    if isinstance(error, TurnError):
        error.partial = AssistantMessage("so far")
        error.report = TurnReport(attempts=1)
    twin = clone(error)
    assert type(twin) is kind
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("model_not_found", "model_not_found"),
        ("gpt-5.4", "gpt-5.4"),
        ("a" * 64, "a" * 64),
        ("a" * 65, "(not shown)"),
        ("", "(not shown)"),
        ("two words", "(not shown)"),
        ("code\n", "(not shown)"),
        ("input[0]", "(not shown)"),
        ("é", "(not shown)"),
        (None, "(not shown)"),
        (7, "(not shown)"),
    ],
)
def test_only_identifiers_are_shown(value: object, shown: str) -> None:
    assert token(value) == shown


def test_optional_attributes() -> None:
    assert RateLimited("x").retry_after is None
    lost = ConnectionLost("x")
    assert (lost.close_code, lost.close_reason) == (1006, None)
    failed = ConnectFailed("x")
    assert (failed.status, failed.headers, failed.body, failed.stage) == (None, (), b"", "upgrade")
