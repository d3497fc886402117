"""Databases for the tests: a file, and a PostgreSQL server of the test run's own where the programs are there."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PostgresServer", "missing", "postgres_server"]

_numbers = itertools.count(1)


def _program(name: str) -> str | None:
    found = [*sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), reverse=True), shutil.which(name)]
    return next((each for each in found if each), None)


def _account() -> str | None:
    """The account that runs the server: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    if sys.platform == "win32":
        return "needs Unix sockets"
    if _program("initdb") is None or _program("pg_ctl") is None:
        return "PostgreSQL's initdb and pg_ctl are not installed"
    if _account() is None:
        return "there is no account to run PostgreSQL with"
    return None


class PostgresServer:
    """A server that listens on a Unix socket only, in a folder of its own."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder = folder
        self._durable = durable
        self._data = folder / "data"
        self._account = _account() or ""

    @property
    def url(self) -> str:
        return f"postgresql:///postgres?host={self._folder}&user={self._account}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program) or program, *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", self._account, "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/", timeout=60)

    def initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._account)
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", self._account, "--no-sync")

    def start(self) -> None:
        # What the server has handed to the system survives its crash, and going through its files takes long.
        options = f"-k {self._folder} -c listen_addresses='' -c max_connections=50"
        options += "" if self._durable else " -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-w", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def empty(self) -> str:
        """Make a schema, and return a URL whose tables are there: a database of its own would be 300 files."""
        import psycopg

        name = f"store_{next(_numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def cut(self, place: float = 0.0) -> int:
        """End one of the connections that stores have to it, the one at that place from 0 to 1; returns how many."""
        import psycopg

        try:
            with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
                found = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'trio-session-engine' ORDER BY pid"
                ).fetchall()
                if found:
                    connection.execute("SELECT pg_terminate_backend(%s)", found[int(place * len(found))])
                return min(len(found), 1)
        except psycopg.OperationalError:
            return 0


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Start a server, and remove it with all it holds; a durable one would survive a loss of power."""
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-"))  # short: the path of a Unix socket has a limit
    server = PostgresServer(folder, durable=durable)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
