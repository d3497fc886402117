"""The tests that every store has to pass: inherit `StoreSuite`, and say how to connect.

They run on pytest and on nothing else of it: each is a method without arguments, which runs Trio itself where it needs
it. Statements first, then conversations with processes that die at every step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import attrs

from engine.store import Connection, StoreError, operations
from engine.store.records import Begun, Claim, HeldBy, Kind, NewRow, Taken

__all__ = ["StatementSuite"]

T = TypeVar("T")

_LEASE: Final = 30.0
_AT_ONCE: Final = 8
_OVER: Final = "UPDATE engine_sessions SET expires = 1.0"


class StatementSuite:
    """The part of `engine.testing.StoreSuite` that looks at single transactions."""

    def connect(self) -> Connection:
        """Return a connection that was not opened yet.

        Within one test all of them lead to one database, which is empty when the test begins.
        """
        raise NotImplementedError

    # --- helpers ---

    @contextlib.contextmanager
    def _open(self) -> Iterator[Callable[..., Any]]:
        """Yield a function that runs an operation in a transaction of its own."""
        connection = self.connect()
        connection.connect()

        def do(operation: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
            connection.connect()
            connection.begin()
            try:
                value = operation(connection, *arguments, **keywords)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return value

        try:
            yield do
        finally:
            connection.close()

    def _expire(self) -> None:
        """Let every lease be over, as when its holder has died."""
        with self._open() as do:
            do(lambda database: database.execute(_OVER))

    @staticmethod
    def _taken(do: Callable[..., Any], owner: str = "one", nonce: str = "n", session: str = "s") -> Taken:
        found = do(operations.acquire, session, owner=owner, nonce=nonce, lease=_LEASE)
        assert isinstance(found, Taken), f"a free session was not given: {found}"
        return found

    @staticmethod
    def _begin(
        do: Callable[..., Any], claim: Claim, *, head: int = 0, key: str = "k", attempts: int = 1, dispatch: str = "d"
    ) -> Begun | None:
        found: Begun | None = do(
            operations.begin,
            claim,
            head=head,
            key=key,
            digest="x",
            attempts=attempts,
            dispatch=dispatch,
            lease=_LEASE,
        )
        return found

    @staticmethod
    def _commit(do: Callable[..., Any], claim: Claim, *rows: NewRow, head: int = 0, **more: Any) -> int | None:
        found: int | None = do(operations.commit, claim, rows, head=head, lease=_LEASE, **more)
        return found

    # --- the connection ---

    def test_what_was_committed_is_seen_by_others(self) -> None:
        """A row of every type is read back as it was written, through another connection."""
        rows = [
            _row(kind=Kind.RESPONSE, data='{"a":"é \\u0000 𝄞"}'),
            _row(kind=Kind.RESULT, data=bytes(range(256))),
            _row(last=True, data="x" * 100_000),
        ]
        with self._open() as do, self._open() as other:
            claim = self._taken(do).claim
            assert self._commit(do, claim, *rows) == 3
            found = other(operations.read, "s", after=0)
            told = [(each.number, each.kind, each.prompt, each.last, each.data, each.key_id) for each in found]
            assert told == [(n, r.kind, r.prompt, r.last, r.data, r.key_id) for n, r in enumerate(rows, 1)]
            assert other(operations.read, "s", after=2) == found[2:]
            assert other(operations.answered, "s", "k") == found
            assert other(operations.answered, "s", "other") == ()

    def test_what_was_rolled_back_never_was(self) -> None:
        """Half a transaction leaves nothing, and the connection can go on."""
        with self._open() as do:

            def half(database: Any) -> None:
                operations.acquire(database, "s", owner="one", nonce="n", lease=_LEASE)
                raise ZeroDivisionError

            with contextlib.suppress(ZeroDivisionError):
                do(half)
            assert do(operations.listed) == ()

    def test_a_point_inside_a_transaction(self) -> None:
        """Going back to a point leaves the changes before it."""
        connection = self.connect()
        connection.connect()
        connection.begin()
        for session, kept in (("kept", True), ("undone", False), ("kept too", True)):
            connection.save()
            operations.acquire(connection, session, owner="one", nonce="n", lease=_LEASE)
            if kept:
                connection.keep()
            else:
                connection.undo()
        connection.commit()
        assert sorted(each.id for each in operations_of(connection)) == ["kept", "kept too"]
        connection.close()

    def test_a_statement_that_is_refused_is_no_outage(self) -> None:
        """An error of one statement is told from one of the database, and undone alone."""
        connection = self.connect()
        connection.connect()
        connection.begin()
        claim = operations.acquire(connection, "s", owner="one", nonce="n", lease=_LEASE)
        assert isinstance(claim, Taken)
        operations.commit(connection, claim.claim, [_row(last=True)], head=0, lease=_LEASE)
        connection.save()
        refused: Exception | None = None
        try:
            operations.commit(connection, claim.claim, [_row(last=True)], head=1, lease=_LEASE)
        except Exception as error:
            refused = error
        assert refused is not None, "a prompt was answered twice"
        assert not connection.unavailable(refused)
        connection.undo()
        connection.commit()
        assert [each.rows for each in operations_of(connection)] == [1]
        connection.close()

    def test_time_goes_on_inside_a_transaction(self) -> None:
        """The store's clock says real seconds since the epoch, not those of the transaction's beginning."""
        connection = self.connect()
        connection.connect()
        connection.begin()
        before = connection.execute(f"SELECT {connection.now}")[0][0]
        time.sleep(0.05)
        after = connection.execute(f"SELECT {connection.now}")[0][0]
        connection.commit()
        connection.close()
        assert 0.01 < float(after) - float(before) < 10
        assert abs(float(after) - time.time()) < 3600

    def test_many_open_an_empty_database_at_once(self) -> None:
        """Its tables are made once."""
        together = threading.Barrier(_AT_ONCE)

        def open_it(_: int) -> None:
            connection = self.connect()
            together.wait()
            connection.connect()
            connection.close()

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(open_it, range(_AT_ONCE)))
        with self._open() as do:
            assert do(operations.migrate) == operations.VERSION
            assert do(lambda database: database.execute("SELECT count(*) FROM engine_schema"))[0][0] == 1

    def test_a_store_of_a_later_version_is_refused(self) -> None:
        """It is not changed, and the error says why."""
        with self._open() as do:
            do(lambda database: database.execute("UPDATE engine_schema SET version = ?", (operations.VERSION + 1,)))
        connection = self.connect()
        refused = ""
        try:
            connection.connect()
        except StoreError as error:
            refused = str(error)
        finally:
            connection.close()
        assert f"version {operations.VERSION + 1}" in refused, "a store of a later version was opened"

    # --- leases ---

    def test_one_of_many_gets_a_session(self) -> None:
        """Those that ask at the same time get it one after the other, each with a fence of its own."""
        together = threading.Barrier(_AT_ONCE)

        def take(number: int) -> Taken | HeldBy:
            with self._open() as do:
                together.wait()
                found: Taken | HeldBy = do(operations.acquire, "s", owner=f"o{number}", nonce="n", lease=_LEASE)
                return found

        for _ in range(3):
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                found = list(threads.map(take, range(_AT_ONCE)))
            assert sum(isinstance(each, Taken) for each in found) == 1, f"held more than once, or not at all: {found}"
            self._expire()

    def test_a_session_that_many_take_and_forget_is_never_held_twice(self) -> None:
        """It is taken, released and forgotten at any moment; fences grow all the same."""
        together = threading.Barrier(_AT_ONCE)

        def work(number: int) -> list[int]:
            tokens: list[int] = []
            with self._open() as do:
                together.wait()
                for turn in range(10):
                    found = do(operations.acquire, "s", owner=f"o{number}", nonce=f"n{turn}", lease=_LEASE)
                    if isinstance(found, Taken):
                        tokens.append(found.claim.token)
                        do(operations.release, found.claim)
                    do(
                        operations.forget if number % 2 else operations.free,
                        "s",
                        **({"force": False} if number % 2 else {}),
                    )
            return tokens

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            each = list(threads.map(work, range(_AT_ONCE)))
        tokens = [token for found in each for token in found]
        assert len(tokens) == len(set(tokens)), "a fence was given twice"
        assert all(found == sorted(found) for found in each), "a fence did not grow"

    def test_a_held_session_is_not_given_twice(self) -> None:
        """Another one that asks is told by whom it is held, and for how long."""
        with self._open() as do:
            self._taken(do)
            for owner in ("two", "one"):
                held = do(operations.acquire, "s", owner=owner, nonce="m", lease=_LEASE)
                assert isinstance(held, HeldBy), "a held session was given to another"
                assert held.owner == "one"
                assert 0 < held.seconds <= _LEASE

    def test_asking_again_with_one_nonce_is_asking_once(self) -> None:
        """An answer that was lost is asked for again."""
        with self._open() as do:
            assert self._taken(do) == self._taken(do)

    def test_fences_grow_and_never_restart(self) -> None:
        """Neither after a release, nor after the end of a lease, nor after the session was forgotten."""
        with self._open() as do:
            first = self._taken(do)
            self._expire()
            second = self._taken(do, "two", "m")
            assert do(operations.release, second.claim)
            third = self._taken(do, nonce="o")
            assert do(operations.forget, "s", force=True) is True
            fourth = self._taken(do, nonce="p")
            tokens = [each.claim.token for each in (first, second, third, fourth)]
            assert tokens == sorted(set(tokens)), f"a fence did not grow: {tokens}"

    def test_a_lease_that_is_over_is_renewed_while_no_other_has_it(self) -> None:
        """Then it is held as before; once another has taken it, it is neither renewed nor released."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._expire()
            assert do(operations.renew, claim, lease=_LEASE)
            assert isinstance(do(operations.acquire, "s", owner="two", nonce="m", lease=_LEASE), HeldBy)
            self._expire()
            other = self._taken(do, "two", "m").claim
            assert not do(operations.renew, claim, lease=_LEASE), "a lease that was lost was renewed"
            assert not do(operations.release, claim), "another's lease was released"
            do(operations.give_back, "s", owner="one", nonce="n")
            assert do(operations.renew, other, lease=_LEASE)

    # --- prompts ---

    def test_the_gate_counts_dispatches(self) -> None:
        """Each once, however often it is told, also to the one that comes next."""
        with self._open() as do:
            claim = self._taken(do).claim
            first, again = self._begin(do, claim), self._begin(do, claim)
            second = self._begin(do, claim, attempts=2, dispatch="e")
            assert first is not None
            assert second is not None
            assert first == again
            assert first.now is not None
            assert second.now is not None
            assert (first.now.dispatches, second.now.dispatches, second.now.attempts) == (1, 2, 2)
            assert first.now.begun_at == second.now.begun_at
            self._expire()
            assert self._taken(do, "two", "m").begun == second, "what was begun was forgotten"

    def test_what_makes_way_for_another_prompt_is_not_forgotten(self) -> None:
        """Its key may be sent again, and what may be at work counts then."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._begin(do, claim, key="one", attempts=2)
            self._begin(do, claim, key="other", dispatch="e")
            assert self._commit(do, claim, _row("other", last=True)) == 1
            do(operations.release, claim)
            after = self._taken(do, nonce="m")
            assert after.begun.now is None
            begun = self._begin(do, after.claim, key="one", head=1, attempts=3, dispatch="f")
            assert begun is not None
            assert begun.now is not None
            assert (begun.now.dispatches, begun.now.attempts) == (2, 3), "what was begun was forgotten"
            assert self._commit(do, after.claim, _row("one", last=True), head=1) == 2
            do(operations.release, after.claim)
            assert self._taken(do, nonce="o").begun == Begun()

    def test_the_gate_stops_those_that_were_suspended(self) -> None:
        """The session is another's by now, or has rows that they do not know of."""
        with self._open() as do:
            claim = self._taken(do).claim
            assert self._commit(do, claim, _row(last=True)) == 1
            assert self._begin(do, claim, head=0, key="other") is None, "rows that it does not know of were passed over"
            assert self._begin(do, claim, head=1, key="other") is not None
            self._expire()
            self._taken(do, "two", "m")
            assert self._begin(do, claim, head=1) is None, "a worker that had lost its lease was let through"
            assert do(operations.forget, "s", force=True)
            assert self._begin(do, claim, head=1) is None

    def test_what_is_known_not_to_be_at_work_is_put_back(self) -> None:
        """By its holder only."""
        with self._open() as do:
            claim = self._taken(do).claim
            first = self._begin(do, claim)
            self._begin(do, claim, attempts=2, dispatch="e")
            assert do(operations.settle, claim, head=0, before=first)
            do(operations.release, claim)
            after = self._taken(do, nonce="m")
            assert after.begun == first
            assert not do(operations.settle, claim, head=0, before=Begun()), "another's note was changed"
            assert do(operations.settle, after.claim, head=0, before=Begun())
            do(operations.release, after.claim)
            assert self._taken(do, nonce="o").begun == Begun()

    # --- rows ---

    def test_a_commit_is_said_again_without_harm(self) -> None:
        """Its answer may have been lost; behind rows of another it is refused."""
        with self._open() as do:
            claim = self._taken(do).claim
            for _ in range(2):
                assert self._commit(do, claim, _row(), _row(last=True)) == 2
            assert len(do(operations.read, "s", after=0)) == 2
            assert self._commit(do, claim, _row("other", last=True)) is None, "rows of another were written over"

    def test_two_workers_never_both_commit(self) -> None:
        """Whatever the one that lost its lease says, and however late."""
        with self._open() as do:
            old = self._taken(do).claim
            self._expire()
            new = self._taken(do, "two", "m").claim
            assert self._commit(do, old, _row(last=True)) is None, "a worker that had lost its lease committed"
            assert self._commit(do, new, _row(last=True)) == 1
            assert self._commit(do, old, _row(last=True)) is None
            assert self._commit(do, old, _row("other", last=True), head=1) is None

    def test_an_answer_clears_what_was_begun(self) -> None:
        """Any other row says that nothing is at work for the moment."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._begin(do, claim)
            assert self._commit(do, claim, _row(kind=Kind.RESPONSE)) == 1
            do(operations.release, claim)
            after = self._taken(do, nonce="m")
            assert after.begun.now is not None
            assert (after.begun.now.key, after.begun.now.attempts) == ("k", 0)
            assert self._commit(do, after.claim, _row(last=True), head=1) == 2
            do(operations.release, after.claim)
            assert self._taken(do, nonce="o").begun == Begun()

    def test_a_transcript_that_was_replaced_begins_there(self) -> None:
        """The rows before it are not read any more."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._commit(do, claim, _row(last=True))
            replacing = NewRow(kind=Kind.REPLACE, prompt=None, last=False, data="{}")
            assert self._commit(do, claim, replacing, head=1) == 2
            do(operations.release, claim)
            after = self._taken(do, nonce="m")
            assert (after.head, after.base) == (2, 2)

    # --- the end ---

    def test_a_held_session_is_forgotten_by_force_only(self) -> None:
        """And its holder commits nothing any more."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._commit(do, claim, _row(last=True))
            assert isinstance(do(operations.forget, "s", force=False), HeldBy)
            assert do(operations.forget, "s", force=True) is True
            assert do(operations.forget, "s", force=True) is False
            assert do(operations.read, "s", after=0) == ()
            assert self._commit(do, claim, _row(last=True), head=1) is None

    def test_what_is_old_is_pruned_and_what_is_held_is_not(self) -> None:
        """By its retention, or by the time of its last change."""
        with self._open() as do:
            for session, retain in (("free", None), ("over", -1.0), ("held", None), ("kept", 1e6)):
                claim = self._taken(do, session=session).claim
                self._commit(do, claim, _row(last=True), retain=retain)
                if session != "held":
                    do(operations.release, claim)
            assert do(operations.prune, before=None) == ("over",)
            assert sorted(do(operations.prune, before=1e12)) == ["free", "kept"]
            assert [each.id for each in do(operations.listed)] == ["held"]

    def test_a_list_says_who_holds_what(self) -> None:
        """And whether something was begun and not answered; its lease can be ended by hand."""
        with self._open() as do:
            claim = self._taken(do).claim
            self._begin(do, claim)
            (found,) = do(operations.listed)
            assert (found.id, found.owner, found.rows, found.interrupted) == ("s", "one", 0, True)
            assert found.expires_in is not None
            assert 0 < found.expires_in <= _LEASE
            assert do(operations.free, "s")
            assert not do(operations.free, "other")
            assert self._begin(do, claim) is None
            (found,) = do(operations.listed)
            assert attrs.evolve(found, updated=0.0).owner is None


def operations_of(connection: Connection) -> Any:
    """Return the sessions that a connection sees."""
    connection.begin()
    found = operations.listed(connection)
    connection.commit()
    return found


def _row(prompt: str = "k", *, last: bool = False, kind: Kind = Kind.ROUND, data: str | bytes = "{}") -> NewRow:
    return NewRow(kind=kind, prompt=prompt, last=last, data=data, key_id="a" if isinstance(data, bytes) else None)
