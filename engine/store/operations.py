"""The operations of a store, as statements that SQLite and PostgreSQL both understand.

Each operation is one function over a `Database`: it runs inside a transaction of the caller's, so that several of them
can share one, and it changes a session only by comparing first what the claim says with what stands there. Only the
store's own clock decides on leases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from attrs import asdict, evolve

from engine.store.database import Connection, Database
from engine.store.errors import StoreError
from engine.store.records import Begun, Claim, HeldBy, Intent, Kind, NewRow, Row, SessionRecord, Taken

__all__ = [
    "VERSION",
    "acquire",
    "answered",
    "begin",
    "begun_after",
    "commit",
    "forget",
    "free",
    "give_back",
    "listed",
    "migrate",
    "prune",
    "read",
    "release",
    "renew",
    "settle",
]

VERSION: Final = 1


# --- tables ----------------------------------------------------------------------------------------------------------


def migrate(connection: Connection) -> int:
    """Make the tables where there are none; returns the version that was found, 0 for none.

    Where there are, nothing is made: the process may lack the right to.

    Raises:
        StoreError: a later version of the library made them.

    The caller holds a lock that keeps others from doing it at the same time, and has begun a transaction.
    """
    database, found = connection, 0
    connection.save()
    try:
        found = int(connection.execute("SELECT max(version) FROM engine_schema")[0][0] or 0)
    except Exception as error:
        if connection.unavailable(error):
            raise
        connection.undo()
        connection.execute("CREATE TABLE engine_schema (version INTEGER NOT NULL)")
    else:
        connection.keep()
    if found == 0:
        database.execute(
            f"""CREATE TABLE engine_sessions (
                id TEXT PRIMARY KEY,
                owner TEXT,
                nonce TEXT,
                token {database.big} NOT NULL,
                expires {database.real},
                head {database.big} NOT NULL,
                base {database.big} NOT NULL,
                intent TEXT,
                updated {database.real} NOT NULL,
                retain_until {database.real}
            )"""
        )
        database.execute(
            f"""CREATE TABLE engine_rounds (
                session TEXT NOT NULL,
                number {database.big} NOT NULL,
                token {database.big} NOT NULL,
                prompt TEXT,
                kind TEXT NOT NULL,
                last INTEGER NOT NULL,
                data TEXT,
                sealed {database.binary},
                key_id TEXT,
                PRIMARY KEY (session, number)
            )"""
        )
        database.execute("CREATE UNIQUE INDEX engine_answers ON engine_rounds (session, prompt) WHERE last = 1")
        # Tokens outlive the sessions that are forgotten: a fence that began again would let an old worker in.
        database.execute(f"CREATE TABLE engine_tokens (session TEXT PRIMARY KEY, token {database.big} NOT NULL)")
        database.execute("INSERT INTO engine_schema (version) VALUES (?)", (VERSION,))
    if found > VERSION:
        raise StoreError(f"the store is of version {found}, and this library knows version {VERSION}: use a later one")
    return found


# --- leases ----------------------------------------------------------------------------------------------------------


def acquire(database: Database, session: str, *, owner: str, nonce: str, lease: float) -> Taken | HeldBy:
    """Take a session that is free, or whose lease is over; saying it again with one nonce changes nothing more."""
    for _ in range(_RACES):
        rows = _taken(database, session, owner=owner, nonce=nonce, lease=lease)
        if rows:
            return _claimed(database, session, owner, nonce, rows[0])
        found = database.execute(
            f"SELECT owner, expires - {database.now} FROM engine_sessions WHERE id = ?", (session,)
        )
        if found and found[0][1] is not None:
            return HeldBy(owner=str(found[0][0]), seconds=float(found[0][1]))
        # Where several transactions run at a time, it was released or forgotten since it was asked for.
    return _CONTESTED


def _taken(database: Database, session: str, *, owner: str, nonce: str, lease: float) -> list[tuple[Any, ...]]:
    now = database.now
    database.execute(
        f"INSERT INTO engine_sessions (id, token, head, base, updated) VALUES (?, 0, 0, 0, {now}) "
        "ON CONFLICT (id) DO NOTHING",
        (session,),
    )
    # A statement of its own reads the fence: one that waited for the session's removal has not seen what that left.
    forgotten = "coalesce((SELECT token FROM engine_tokens WHERE session = ?), 0)"
    rows = database.execute(
        f"UPDATE engine_sessions SET owner = ?, nonce = ?, expires = {now} + ?, updated = {now}, "
        f"token = 1 + CASE WHEN token < {forgotten} THEN {forgotten} ELSE token END "
        f"WHERE id = ? AND {_free(database)} RETURNING token, head, base, intent",
        (owner, nonce, lease, session, session, session),
    )
    return rows or database.execute(
        f"UPDATE engine_sessions SET expires = {now} + ? WHERE id = ? AND owner = ? AND nonce = ? "
        "RETURNING token, head, base, intent",
        (lease, session, owner, nonce),
    )


def _claimed(database: Database, session: str, owner: str, nonce: str, row: tuple[Any, ...]) -> Taken:
    token, head, base, intent = row
    newest = database.execute("SELECT token FROM engine_rounds WHERE session = ? AND number = ?", (session, head))
    return Taken(
        claim=Claim(session=session, owner=owner, nonce=nonce, token=int(token)),
        head=int(head),
        base=int(base),
        written=int(newest[0][0]) if newest else 0,
        begun=_begun(intent),
    )


_RACES: Final = 3
"""The times that a session may be lost to others between two statements before it counts as held."""
_CONTESTED: Final = HeldBy(owner="several others, one after the other", seconds=0.0)

_MINE: Final = "id = ? AND token = ? AND nonce = ? AND owner = ?"


def _mine(claim: Claim) -> tuple[Any, ...]:
    return (claim.session, claim.token, claim.nonce, claim.owner)


def renew(database: Database, claim: Claim, *, lease: float) -> bool:
    """Make a lease longer; False where it is another's, or was given up.

    One that is over by time alone is renewed: no other process took it meanwhile.
    """
    return bool(
        database.execute(
            f"UPDATE engine_sessions SET expires = {database.now} + ? WHERE {_MINE} RETURNING token",
            (lease, *_mine(claim)),
        )
    )


def give_back(database: Database, session: str, *, owner: str, nonce: str) -> None:
    """Release what an acquisition with this nonce may have taken."""
    database.execute(
        "UPDATE engine_sessions SET owner = NULL, nonce = NULL, expires = NULL "
        "WHERE id = ? AND owner = ? AND nonce = ?",
        (session, owner, nonce),
    )


def release(database: Database, claim: Claim) -> bool:
    """Give a session up; False where it is another's already."""
    return bool(
        database.execute(
            f"UPDATE engine_sessions SET owner = NULL, nonce = NULL, expires = NULL WHERE {_MINE} RETURNING token",
            _mine(claim),
        )
    )


# --- prompts ---------------------------------------------------------------------------------------------------------


def begin(
    database: Database, claim: Claim, *, head: int, key: str, digest: str, attempts: int, dispatch: str, lease: float
) -> Begun | None:
    """Note that a request of a prompt is about to leave, with which ``attempts`` may be at work; return what is noted.

    None where the session is not the claim's any more, or has rows that the claim's owner does not know of. This is
    what stops a worker that was suspended before it sends.
    """
    rows = database.execute(f"SELECT intent, {database.now} FROM engine_sessions WHERE id = ?", (claim.session,))
    if not rows:
        return None
    begun, now = _begun(rows[0][0]), float(rows[0][1])
    before = begun.of(key)
    if before is None:
        intent = Intent(key=key, digest=digest, begun_at=now, attempts=attempts, dispatches=1, dispatch=dispatch)
    else:
        more = before.dispatch != dispatch
        intent = evolve(before, attempts=attempts, dispatches=before.dispatches + more, dispatch=dispatch)
    begun = begun.with_newest(intent)
    noted = database.execute(
        f"UPDATE engine_sessions SET intent = ?, expires = {database.now} + ?, updated = {database.now} "
        f"WHERE {_MINE} AND head = ? RETURNING token",
        (_text(begun), lease, *_mine(claim), head),
    )
    return begun if noted else None


def settle(database: Database, claim: Claim, *, head: int, before: Begun) -> bool:
    """Put back what stood there before requests of which none is at work: they were not sent, or were refused."""
    return bool(
        database.execute(
            f"UPDATE engine_sessions SET intent = ? WHERE {_MINE} AND head = ? RETURNING token",
            (_text(before), *_mine(claim), head),
        )
    )


def commit(
    database: Database, claim: Claim, rows: Sequence[NewRow], *, head: int, lease: float, retain: float | None = None
) -> int | None:
    """Write rows behind ``head``, and return the new head.

    None where the session is not the claim's any more, or has other rows there. Saying it again after an answer that
    was lost changes nothing.

    An answer (`NewRow.last`) clears what was begun; any other row of a prompt shows that nothing is at work. A lease
    that is over by time alone still commits: the fence says that no other has begun.
    """
    new_head = head + len(rows)
    found = database.execute("SELECT intent FROM engine_sessions WHERE id = ?", (claim.session,))
    if not found:
        return None
    begun = _begun(found[0][0])
    for row in rows:
        begun = begun_after(begun, row)
    replaced = [head + place for place, row in enumerate(rows, 1) if row.kind is Kind.REPLACE]
    moved = "base = ?, " if replaced else ""
    kept = f"retain_until = {database.now} + ?, " if retain is not None else ""
    changed = database.execute(
        f"UPDATE engine_sessions SET {moved}{kept}intent = ?, head = ?, expires = {database.now} + ?, "
        f"updated = {database.now} WHERE {_MINE} AND head = ? RETURNING token",
        (
            *replaced[-1:],
            *([retain] if retain is not None else []),
            _text(begun),
            new_head,
            lease,
            *_mine(claim),
            head,
        ),
    )
    if not changed:
        return new_head if _written(database, claim, rows, head) else None
    for number, row in enumerate(rows, head + 1):
        text = row.data if isinstance(row.data, str) else None
        sealed = row.data if isinstance(row.data, bytes) else None
        database.execute(
            "INSERT INTO engine_rounds (session, number, token, prompt, kind, last, data, sealed, key_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                claim.session,
                number,
                claim.token,
                row.prompt,
                row.kind.value,
                int(row.last),
                text,
                sealed,
                row.key_id,
            ),
        )
    return new_head


def _written(database: Database, claim: Claim, rows: Sequence[NewRow], head: int) -> bool:
    """Whether these very rows stand behind ``head`` already, under the same claim."""
    if not database.execute(
        f"SELECT 1 FROM engine_sessions WHERE {_MINE} AND head >= ?", (*_mine(claim), head + len(rows))
    ):
        return False
    found = database.execute(
        "SELECT token, prompt, kind, last FROM engine_rounds WHERE session = ? AND number > ? AND number <= ? "
        "ORDER BY number",
        (claim.session, head, head + len(rows)),
    )
    return [tuple(each) for each in found] == [(claim.token, row.prompt, row.kind.value, int(row.last)) for row in rows]


# --- reading ---------------------------------------------------------------------------------------------------------

_COLUMNS: Final = "number, kind, prompt, last, data, sealed, key_id"


def read(database: Database, session: str, *, after: int) -> tuple[Row, ...]:
    """Return the rows of a session behind the number ``after``, oldest first."""
    found = database.execute(
        f"SELECT {_COLUMNS} FROM engine_rounds WHERE session = ? AND number > ? ORDER BY number", (session, after)
    )
    return tuple(map(_row, found))


def answered(database: Database, session: str, key: str) -> tuple[Row, ...]:
    """Return the rows of a prompt, oldest first, if it was answered; else none."""
    found = database.execute(
        f"SELECT {_COLUMNS} FROM engine_rounds WHERE session = ? AND prompt = ? AND EXISTS "
        "(SELECT 1 FROM engine_rounds WHERE session = ? AND prompt = ? AND last = 1) ORDER BY number",
        (session, key, session, key),
    )
    return tuple(map(_row, found))


def listed(database: Database) -> tuple[SessionRecord, ...]:
    """Return every session, the one that changed last first."""
    found = database.execute(
        f"SELECT id, owner, expires - {database.now}, head, updated, intent FROM engine_sessions "
        "ORDER BY updated DESC, id"
    )
    return tuple(
        SessionRecord(
            id=session,
            owner=owner,
            expires_in=None if seconds is None else float(seconds),
            rows=int(head),
            updated=float(updated),
            interrupted=intent is not None and '"now": null' not in intent,
        )
        for session, owner, seconds, head, updated, intent in found
    )


def free(database: Database, session: str) -> bool:
    """End the lease of a session, whichever process has it; False where there is no such session.

    Its holder is stopped by the fence at its next step: the token grows with the next acquisition.
    """
    return bool(
        database.execute(
            f"UPDATE engine_sessions SET owner = NULL, nonce = NULL, expires = NULL, token = token + 1, "
            f"updated = {database.now} WHERE id = ? RETURNING token",
            (session,),
        )
    )


# --- the end ---------------------------------------------------------------------------------------------------------


def forget(database: Database, session: str, *, force: bool) -> bool | HeldBy:
    """Remove a session and its rows; False where there is none, `HeldBy` where it is held and ``force`` is not set."""
    for _ in range(_RACES):
        if _removed(database, session, "1 = 1" if force else _free(database)):
            return True
        found = database.execute(
            f"SELECT owner, expires - {database.now} FROM engine_sessions WHERE id = ?", (session,)
        )
        if not found:
            return False
        if found[0][1] is not None:
            return HeldBy(owner=str(found[0][0]), seconds=float(found[0][1]))
    return _CONTESTED


def prune(database: Database, *, before: float | None) -> tuple[str, ...]:
    """Remove free sessions whose retention is over, or that did not change since ``before``; returns their ids.

    ``before`` is in seconds since the epoch.
    """
    over = f"retain_until < {database.now}" + ("" if before is None else f" OR updated < {float(before)!r}")
    condition = f"{_free(database)} AND ({over})"
    found = database.execute(f"SELECT id FROM engine_sessions WHERE {condition}")
    return tuple(str(session) for (session,) in found if _removed(database, session, condition))


def _free(database: Database) -> str:
    return f"(owner IS NULL OR expires < {database.now})"


def _removed(database: Database, session: str, condition: str) -> bool:
    """Remove a session and its rows, where a condition holds at the moment of it; its fence stays."""
    found = database.execute(f"DELETE FROM engine_sessions WHERE id = ? AND {condition} RETURNING token", (session,))
    if not found:
        return False
    database.execute(
        "INSERT INTO engine_tokens (session, token) VALUES (?, ?) "
        "ON CONFLICT (session) DO UPDATE SET token = excluded.token",
        (session, int(found[0][0])),
    )
    database.execute("DELETE FROM engine_rounds WHERE session = ?", (session,))
    return True


def begun_after(begun: Begun, row: NewRow) -> Begun:
    """Return what is begun when a row was written."""
    if row.last:
        return begun.without(row.prompt)
    return begun if row.kind is Kind.REPLACE else begun.with_attempts(0)


def _text(begun: Begun) -> str | None:
    return None if begun == _NOTHING else json.dumps(asdict(begun))


def _begun(text: str | None) -> Begun:
    if text is None:
        return _NOTHING
    try:
        plain = json.loads(text)
        now = None if plain["now"] is None else Intent(**plain["now"])
        return Begun(now=now, earlier=tuple(Intent(**each) for each in plain["earlier"]))
    except (KeyError, TypeError, ValueError):
        raise StoreError("a session's note of what was begun cannot be read: it was damaged") from None


_NOTHING: Final = Begun()


def _row(found: tuple[Any, ...]) -> Row:
    number, kind, prompt, last, data, sealed, key_id = found
    return Row(
        number=int(number),
        kind=kind,
        prompt=prompt,
        last=bool(last),
        data=bytes(sealed) if data is None and sealed is not None else data,
        key_id=key_id,
    )
