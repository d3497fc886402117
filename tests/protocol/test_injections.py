"""Injections: which of them an acknowledgement is about."""

from __future__ import annotations

from typing import Any

import pytest

from engine.protocol.injections import Injection, Injections, InjectionState
from engine.protocol.states import IllegalTransition
from engine.wire.codec import decode_object
from engine.wire.control_events import InjectCreated, InjectFailed

SENT, TAKEN, RETURNED, LOST = InjectionState


def output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "3"}


def created(target: str) -> InjectCreated:
    event = decode_object({"type": "response.inject.created", "response_id": target, "sequence_number": 1})
    assert isinstance(event, InjectCreated)
    return event


def failed(target: str, *items: dict[str, Any]) -> InjectFailed:
    error = {"code": "response_already_completed", "message": "x"}
    event = decode_object(
        {"type": "response.inject.failed", "response_id": target, "input": list(items), "error": error}
    )
    assert isinstance(event, InjectFailed)
    return event


def sent(*targets: str) -> tuple[Injections, list[Injection], list[str]]:
    injections, answered = Injections(), list[str]()
    made = []
    for number, target in enumerate(targets):
        made.append(Injection((output(f"c{number}"),), lambda number=number: answered.append(f"c{number}")))  # type: ignore[misc]
        injections.add(made[-1], target)
    return injections, made, answered


def test_those_of_one_response_are_answered_in_order() -> None:
    injections, made, answered = sent("a", "b", "a")
    assert injections.receive(created("a"))
    assert injections.receive(created("b"))
    assert [each.state for each in made] == [TAKEN, TAKEN, SENT]
    assert answered == ["c0", "c1"]
    assert len(injections) == 1


def test_what_comes_back_says_which_it_was() -> None:
    injections, made, _ = sent("a", "a")
    assert injections.receive(failed("a", output("c1")))
    assert [each.state for each in made] == [SENT, RETURNED]
    assert made[1].refusal is not None
    assert made[1].refusal.code == "response_already_completed"
    assert made[0].call_ids == {"c0"}


def test_answers_to_nothing_are_none() -> None:
    injections, _, answered = sent("a")
    assert not injections.receive(created("b"))
    assert injections.receive(created("a"))
    assert not injections.receive(created("a"))
    assert answered == ["c0"]


def test_the_end_of_the_connection_leaves_them_in_doubt() -> None:
    injections, made, answered = sent("a", "b")
    injections.receive(created("b"))
    injections.end()
    injections.end()
    assert [each.state for each in made] == [LOST, TAKEN]
    assert answered == ["c1", "c0"]
    with pytest.raises(IllegalTransition):
        made[0].become(TAKEN)
