"""What Trio programs can call, programs of other kinds can call too, by the same names and with the same arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import engine
from engine import aio, blocking

# Of an object's names, those that only other parts of the engine use.
NOT_FOR_CALLERS = {
    "Turn": {
        *("answered", "begun", "concluded", "context", "cut_short", "fail", "failed", "grant", "heard", "on_cancel"),
        *("overdue", "overflowed", "passed", "room", "sending"),
    }
}
ON_INSTANCES = {"Engine": {"breakers"}}
PAIRS = [
    (getattr(engine, name), getattr(door, name))
    for name in ("Engine", "Session", "Lane", "Turn", "Conversation", "Reply")
    if hasattr(engine, name)
    for door in (blocking, aio)
]
IDS = [f"{door.__module__}.{door.__name__}" for _, door in PAIRS]
UNAWAITED = {
    "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__",
}  # fmt: skip
PROTOCOLS = {*UNAWAITED, "__contains__", "__iter__", "__len__"}


def public(kind: type) -> set[str]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    return names | {name for name in PROTOCOLS if hasattr(kind, name)}


@pytest.mark.parametrize(("original", "door"), PAIRS, ids=IDS)
def test_has_every_name(original: type, door: type) -> None:
    wanted = public(original) - NOT_FOR_CALLERS.get(original.__name__, set())
    wanted |= ON_INSTANCES.get(original.__name__, set())
    found = public(door)
    if door.__module__ == blocking.__name__:
        wanted = {UNAWAITED.get(name, name) for name in wanted}
        found |= {name for name in UNAWAITED.values() if hasattr(door, name)}
    assert found == wanted


@pytest.mark.parametrize(("original", "door"), PAIRS, ids=IDS)
def test_takes_the_same_arguments(original: type, door: type) -> None:
    for name in public(original) & public(door) - PROTOCOLS:
        first, second = inspect.getattr_static(original, name), inspect.getattr_static(door, name)
        if isinstance(first, property):
            assert isinstance(second, property), name
            assert _returned(first.fget) == _returned(second.fget), name
        elif callable(first):
            assert inspect.signature(first) == inspect.signature(second), name
            awaited = inspect.iscoroutinefunction(first) and door.__module__ == aio.__name__
            assert inspect.iscoroutinefunction(second) is awaited, name


@pytest.mark.parametrize("door", [blocking, aio])
@pytest.mark.parametrize("name", ["open_engine", "open_session"])
def test_opens_with_the_same_arguments(door: Any, name: str) -> None:
    assert inspect.signature(getattr(door, name)) == inspect.signature(getattr(engine, name))


def _returned(function: Any) -> str:
    return str(inspect.signature(function).return_annotation).removeprefix("engine.").replace("engine.", "")
