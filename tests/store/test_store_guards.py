"""Each guard of a store, left out in turn: the suite for stores has to notice.

A guard is left out in the text of its module, which is then compiled anew and put into place function by function.
"""

from __future__ import annotations

import importlib
import inspect
import sqlite3
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from attrs import frozen

from engine.store import Connection
from engine.store.places import connection_to
from engine.testing import StoreSuite


@frozen
class Guard:
    """A guard.

    Attributes:
        name: Its name.
        module: The module that has it.
        place: The function, or the class and its method.
        text: The words that make it.
        without: The words without it.
        noticed_by: A test of the suite that fails then.
    """

    name: str
    module: str
    place: str
    text: str
    without: str
    noticed_by: str


OPERATIONS, LEASE, GATE = "engine.store.operations", "engine.store.lease", "engine.store.gate"
CONVERSATION, GROUP, WORK = "engine.store.conversation", "engine.store.group", "engine.turns.work"

GUARDS = [
    Guard(
        "the intent",
        OPERATIONS,
        "begin",
        "(_text(begun), lease",
        "(None, lease",
        "test_every_request_is_noted_before_it_leaves",
    ),
    Guard(
        "the prompt's key",
        OPERATIONS,
        "answered",
        "return tuple(map(_row, found))",
        "return ()",
        "test_another_process_goes_on",
    ),
    Guard(
        "the exclusive acquisition",
        OPERATIONS,
        "_taken",
        "AND {_free(database)}",
        "",
        "test_a_held_session_is_not_given_twice",
    ),
    Guard(
        "the fence of a commit",
        OPERATIONS,
        "commit",
        "WHERE {_MINE} AND head = ? RETURNING token",
        "WHERE id = ? AND ? > 0 AND ? <> '' AND ? <> '' AND head = ? RETURNING token",
        "test_two_workers_never_both_commit",
    ),
    Guard(
        "the head in a commit",
        OPERATIONS,
        "commit",
        "WHERE {_MINE} AND head = ? RETURNING token",
        "WHERE {_MINE} AND head >= 0 * ? RETURNING token",
        "test_a_commit_is_said_again_without_harm",
    ),
    Guard(
        "the fence of the gate",
        OPERATIONS,
        "begin",
        "WHERE {_MINE} AND head = ? RETURNING token",
        "WHERE id = ? AND ? > 0 AND ? <> '' AND ? <> '' AND head = ? RETURNING token",
        "test_the_gate_stops_those_that_were_suspended",
    ),
    Guard(
        "the head at the gate",
        OPERATIONS,
        "begin",
        "WHERE {_MINE} AND head = ? RETURNING token",
        "WHERE {_MINE} AND head >= 0 * ? RETURNING token",
        "test_the_gate_stops_those_that_were_suspended",
    ),
    Guard(
        "the fence of a renewal",
        OPERATIONS,
        "renew",
        "WHERE {_MINE} RETURNING token",
        "WHERE id = ? AND ? > 0 AND ? <> '' AND ? <> '' RETURNING token",
        "test_a_lease_that_is_over_is_renewed_while_no_other_has_it",
    ),
    Guard(
        "the tokens of what was forgotten",
        OPERATIONS,
        "_taken",
        "coalesce((SELECT token FROM engine_tokens WHERE session = ?), 0)",
        "coalesce((SELECT token FROM engine_tokens WHERE session = ? AND 1 = 0), 0)",
        "test_fences_grow_and_never_restart",
    ),
    Guard(
        "the gate",
        WORK,
        "Work._pass_gate",
        "await gate(self._recovery.risked)",
        "pass",
        "test_every_request_is_noted_before_it_leaves",
    ),
    Guard(
        "the gate before a resend",
        WORK,
        "Work._pass_gate",
        "await gate(self._recovery.risked)",
        "await gate(0) if not self._recovery.dispatches else None",
        "test_every_request_is_noted_before_it_leaves",
    ),
    Guard(
        "the count over all processes",
        GATE,
        "Gate._at_work",
        "before.attempts if before is not None else 0",
        "0",
        "test_resends_are_allowed_over_all_processes_together",
    ),
    Guard(
        "the deadline",
        LEASE,
        "Lease._prolong",
        "asked_at + self._seconds * (1 - _MARGIN)",
        "float('inf')",
        "test_a_worker_stops_by_its_own_clock",
    ),
    Guard(
        "what was stored of a round",
        CONVERSATION,
        "StoredConversation._missing",
        "() if self._scribe.unfinished == self._latest else given",
        "given",
        "test_a_worker_may_be_killed_at_any_step",
    ),
    Guard(
        "the second saying of a commit",
        OPERATIONS,
        "commit",
        "return new_head if _written(database, claim, rows, head) else None",
        "return None",
        "test_a_connection_may_be_cut_at_any_step",
    ),
    Guard(
        "the nonce of an acquisition",
        OPERATIONS,
        "_taken",
        "WHERE id = ? AND owner = ? AND nonce = ? ",
        "WHERE id = ? AND owner = ? AND nonce = ? AND 1 = 0 ",
        "test_asking_again_with_one_nonce_is_asking_once",
    ),
    Guard(
        "a dispatch that is told twice",
        OPERATIONS,
        "begin",
        "more = before.dispatch != dispatch",
        "more = True",
        "test_the_gate_counts_dispatches",
    ),
]


class Noticing(StoreSuite):
    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> Connection:
        return connection_to(self._url)


def compiled_without(guard: Guard) -> tuple[ModuleType, Any]:
    """The module as it is, and what stands at the guard's place in one that lacks it."""
    module = importlib.import_module(guard.module)
    text = inspect.getsource(module)
    name = guard.place.rpartition(".")[2]
    start = text.index(f"def {name}(")
    place = text.index(guard.text, start)
    text = text[:place] + guard.without + text[place + len(guard.text) :]
    found: dict[str, Any] = {"__name__": guard.module}
    exec(compile(text, f"{guard.module} without {guard.name}", "exec"), found)
    return module, found


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_that_is_left_out_is_noticed(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, found = compiled_without(guard)
    owner, _, name = guard.place.rpartition(".")
    home: Any = getattr(module, owner) if owner else module
    there: FunctionType = getattr(found[owner], name) if owner else found[name]
    # It works with the module's own classes: one that was compiled anew is another one.
    changed = FunctionType(there.__code__, vars(module), name, there.__defaults__, there.__closure__)
    changed.__kwdefaults__ = there.__kwdefaults__
    monkeypatch.setattr(home, name, changed)
    suite = Noticing(f"sqlite:///{tmp_path}/sessions.db")
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever a test fails with
        getattr(suite, guard.noticed_by)()
    assert not isinstance(caught.value, MEANINGLESS), "what is left of it does not run"


MEANINGLESS = (NameError, AttributeError, TypeError, SyntaxError, sqlite3.OperationalError, pytest.fail.Exception)
