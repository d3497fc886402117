"""The statements, on each database: leases, fences, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from engine.store import operations
from engine.store.group import Connection
from engine.store.operations import Database
from engine.store.places import connection_to
from engine.store.records import Claim, HeldBy, Intent, Kind, NewRow, Taken

T = TypeVar("T")

LEASE = 30.0


class Direct:
    """One transaction for each operation."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __call__(self, operation: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        self.connection.connect()
        self.connection.begin()
        try:
            value = operation(self.connection, *arguments, **keywords)
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()
        return value


@pytest.fixture
def do(store_url: str) -> Iterator[Direct]:
    connection = connection_to(store_url)
    yield Direct(connection)
    connection.close()


def taken(do: Direct, session: str = "s", *, owner: str = "one", nonce: str = "n", lease: float = LEASE) -> Taken:
    found = do(operations.acquire, session, owner=owner, nonce=nonce, lease=lease)
    assert isinstance(found, Taken)
    return found


def expire(do: Direct, session: str = "s") -> None:
    def over(database: Database) -> None:
        database.execute("UPDATE engine_sessions SET expires = 1.0 WHERE id = ?", (session,))

    do(over)


def begin(
    do: Direct, claim: Claim, *, head: int = 0, key: str = "k", attempts: int = 1, dispatch: str = "d"
) -> Intent | None:
    return do(
        operations.begin, claim, head=head, key=key, digest="x", attempts=attempts, dispatch=dispatch, lease=LEASE
    )


def row(prompt: str = "k", *, last: bool = False, kind: Kind = Kind.ROUND, data: str | bytes = "{}") -> NewRow:
    return NewRow(kind=kind, prompt=prompt, last=last, data=data, key_id="a" if isinstance(data, bytes) else None)


# --- leases ----------------------------------------------------------------------------------------------------------


def test_a_held_session_is_not_given_twice(do: Direct) -> None:
    taken(do)
    held = do(operations.acquire, "s", owner="two", nonce="m", lease=LEASE)
    assert isinstance(held, HeldBy)
    assert held.owner == "one"
    assert 0 < held.seconds <= LEASE


def test_asking_again_with_one_nonce_is_asking_once(do: Direct) -> None:
    assert taken(do) == taken(do)


def test_one_owner_does_not_take_its_own_session_twice(do: Direct) -> None:
    taken(do)
    assert isinstance(do(operations.acquire, "s", owner="one", nonce="other", lease=LEASE), HeldBy)


def test_tokens_grow_with_each_acquisition(do: Direct) -> None:
    first = taken(do)
    expire(do)
    second = taken(do, owner="two", nonce="m")
    assert do(operations.release, second.claim)
    third = taken(do, nonce="o")
    assert first.claim.token < second.claim.token < third.claim.token


def test_tokens_never_restart(do: Direct) -> None:
    first = taken(do)
    assert do(operations.forget, "s", force=True) is True
    assert taken(do, nonce="m").claim.token > first.claim.token


def test_a_lease_that_is_over_is_renewed_while_nobody_has_taken_it(do: Direct) -> None:
    claim = taken(do).claim
    expire(do)
    assert do(operations.renew, claim, lease=LEASE)
    assert isinstance(do(operations.acquire, "s", owner="two", nonce="m", lease=LEASE), HeldBy)


def test_a_lease_that_was_taken_over_is_not_renewed_and_not_released(do: Direct) -> None:
    claim = taken(do).claim
    expire(do)
    taken(do, owner="two", nonce="m")
    assert not do(operations.renew, claim, lease=LEASE)
    assert not do(operations.release, claim)


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_the_gate_counts_dispatches(do: Direct) -> None:
    claim = taken(do).claim
    first = begin(do, claim)
    again = begin(do, claim)
    second = begin(do, claim, dispatch="e", attempts=2)
    assert first is not None
    assert second is not None
    assert first == again
    assert (first.dispatches, second.dispatches, second.attempts) == (1, 2, 2)
    assert first.begun_at == second.begun_at


def test_the_gate_stops_who_was_suspended(do: Direct) -> None:
    claim = taken(do).claim
    expire(do)
    taken(do, owner="two", nonce="m")
    assert begin(do, claim) is None


def test_the_gate_stops_who_does_not_know_all_rows(do: Direct) -> None:
    claim = taken(do).claim
    assert do(operations.commit, claim, [row(last=True)], head=0, lease=LEASE) == 1
    assert begin(do, claim, head=0, key="other") is None
    assert begin(do, claim, head=1, key="other") is not None


def test_what_was_begun_is_told_to_whoever_comes_next(do: Direct) -> None:
    claim = taken(do).claim
    intent = begin(do, claim)
    expire(do)
    assert taken(do, owner="two", nonce="m").intent == intent


def test_what_is_known_not_to_be_at_work_is_put_back(do: Direct) -> None:
    claim = taken(do).claim
    first = begin(do, claim)
    begin(do, claim, dispatch="e")
    assert do(operations.settle, claim, head=0, before=first)
    do(operations.release, claim)
    after = taken(do, nonce="m")
    assert after.intent == first
    assert do(operations.settle, after.claim, head=0, before=None)
    assert not do(operations.settle, claim, head=0, before=None)
    do(operations.release, after.claim)
    assert taken(do, nonce="o").intent is None


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_are_read_as_they_were_written(do: Direct) -> None:
    claim = taken(do).claim
    rows = [row(kind=Kind.RESPONSE, data='{"a":"é"}'), row(kind=Kind.RESULT, data=b"\x00\xff"), row(last=True)]
    assert do(operations.commit, claim, rows, head=0, lease=LEASE) == 3
    found = do(operations.read, "s", after=0)
    assert [(each.number, each.kind, each.prompt, each.last, each.data, each.key_id) for each in found] == [
        (1, Kind.RESPONSE, "k", False, '{"a":"é"}', None),
        (2, Kind.RESULT, "k", False, b"\x00\xff", "a"),
        (3, Kind.ROUND, "k", True, "{}", None),
    ]
    assert do(operations.read, "s", after=2) == found[2:]
    assert do(operations.answered, "s", "k") == found
    assert do(operations.answered, "s", "other") == ()


def test_a_commit_is_said_again_without_harm(do: Direct) -> None:
    claim = taken(do).claim
    assert do(operations.commit, claim, [row(), row(last=True)], head=0, lease=LEASE) == 2
    assert do(operations.commit, claim, [row(), row(last=True)], head=0, lease=LEASE) == 2
    assert len(do(operations.read, "s", after=0)) == 2


def test_a_commit_behind_rows_of_another_is_refused(do: Direct) -> None:
    claim = taken(do).claim
    assert do(operations.commit, claim, [row("k", last=True)], head=0, lease=LEASE) == 1
    assert do(operations.commit, claim, [row("other", last=True)], head=0, lease=LEASE) is None


def test_two_workers_never_both_commit(do: Direct) -> None:
    old = taken(do).claim
    expire(do)
    new = taken(do, owner="two", nonce="m").claim
    assert do(operations.commit, old, [row(last=True)], head=0, lease=LEASE) is None
    assert do(operations.commit, new, [row(last=True)], head=0, lease=LEASE) == 1
    assert do(operations.commit, old, [row(last=True)], head=0, lease=LEASE) is None


def test_an_answer_clears_the_intent_and_other_rows_reset_its_count(do: Direct) -> None:
    claim = taken(do).claim
    begin(do, claim)
    do(operations.commit, claim, [row(kind=Kind.RESPONSE)], head=0, lease=LEASE)
    again = begin(do, claim, head=1, dispatch="e")
    assert again is not None
    assert again.attempts == 1
    do(operations.commit, claim, [row(last=True)], head=1, lease=LEASE)
    do(operations.release, claim)
    assert taken(do, nonce="m").intent is None


def test_a_prompt_is_answered_once(do: Direct) -> None:
    claim = taken(do).claim
    do(operations.commit, claim, [row(last=True)], head=0, lease=LEASE)
    with pytest.raises(Exception, match=r"(?i)unique"):
        do(operations.commit, claim, [row(last=True)], head=1, lease=LEASE)


def test_a_transcript_that_was_replaced_begins_there(do: Direct) -> None:
    claim = taken(do).claim
    do(operations.commit, claim, [row(last=True)], head=0, lease=LEASE)
    replacing = NewRow(kind=Kind.REPLACE, prompt=None, last=False, data="{}")
    assert do(operations.commit, claim, [replacing], head=1, lease=LEASE) == 2
    do(operations.release, claim)
    after = taken(do, nonce="m")
    assert (after.head, after.base) == (2, 2)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_held_session_is_forgotten_by_force_only(do: Direct) -> None:
    claim = taken(do).claim
    do(operations.commit, claim, [row(last=True)], head=0, lease=LEASE)
    assert isinstance(do(operations.forget, "s", force=False), HeldBy)
    assert do(operations.forget, "s", force=True) is True
    assert do(operations.forget, "s", force=True) is False
    assert do(operations.read, "s", after=0) == ()
    assert do(operations.commit, claim, [row(last=True)], head=1, lease=LEASE) is None


def test_what_is_old_is_pruned_and_what_is_held_is_not(do: Direct) -> None:
    for session in ("free", "over", "held", "kept"):
        claim = taken(do, session).claim
        retain = 1e6 if session == "kept" else -1.0 if session == "over" else None
        do(operations.commit, claim, [row(last=True)], head=0, lease=LEASE, retain=retain)
        if session != "held":
            do(operations.release, claim)
    assert do(operations.prune, before=None) == ("over",)
    assert sorted(do(operations.prune, before=1e12)) == ["free", "kept"]
    assert [each.id for each in do(operations.listed)] == ["held"]


def test_a_list_says_who_holds_what(do: Direct) -> None:
    claim = taken(do).claim
    begin(do, claim)
    (found,) = do(operations.listed)
    assert (found.id, found.owner, found.rows, found.interrupted) == ("s", "one", 0, True)
    assert found.expires_in is not None
    assert 0 < found.expires_in <= LEASE
