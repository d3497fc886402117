"""The place of a store, by its URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from engine.store.database import Connection
from engine.store.sqlite import SQLite
from engine.values.checks import wrong_type
from engine.values.problems import ConfigurationError

__all__ = ["connection_to"]


def connection_to(url: str) -> Connection:
    """Return a connection to the store that a URL names; nothing is opened yet.

    Args:
        url: ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, or ``postgresql://…`` as libpq
            understands it.

    Raises:
        ConfigurationError: it names no store, or psycopg is needed and not installed. The URL is not shown: it may
            hold a password.
    """
    if not isinstance(url, str):
        raise wrong_type("url", url, "a string")
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        path = url.removeprefix("sqlite:///")
        if path == url or not path or path.startswith(":memory:"):
            raise ConfigurationError("url", "must be sqlite:/// and the path of a file")
        return SQLite(path)
    if scheme in ("postgresql", "postgres"):
        try:
            from engine.store.postgres import Postgres
        except ImportError:
            raise ConfigurationError(
                "url", 'PostgreSQL needs psycopg: pip install "trio-session-engine[postgres]"'
            ) from None
        return Postgres(url)
    raise ConfigurationError("url", "must begin with sqlite:/// or postgresql://")
