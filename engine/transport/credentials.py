"""The credentials of the caller: the key, and the header fields that every request of every transport carries."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import trio
from attrs import field, frozen

from engine.settings.endpoint import Endpoint, check_headers, check_key

__all__ = ["Credentials", "request_headers", "resolve"]

T = TypeVar("T")

try:
    _USER_AGENT = f"trio-session-engine/{version('trio-session-engine')}"
except PackageNotFoundError:  # run from a source tree that was never installed
    _USER_AGENT = "trio-session-engine"


@frozen
class Credentials:
    """The credentials of a connection: as long as it lasts, they are its own.

    Attributes:
        key: The key; None where there is none.
        headers: The endpoint's own header fields.
    """

    key: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


async def resolve(endpoint: Endpoint) -> Credentials:
    """Return the endpoint's credentials, asking for them where functions give them.

    Raises:
        ConfigurationError: a function returned something that cannot be a key, or header fields.

    Whatever the functions raise comes out. Cancelling it cancels an async function; a sync one runs to its end in its
    thread, and its result is dropped.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    key, headers = endpoint.api_key, endpoint.headers
    if callable(key):
        key = check_key(await _asked(key))
    if callable(headers):
        headers = check_headers(await _asked(headers))
    return Credentials(key, headers)


async def _asked(function: Callable[[], T | Awaitable[T]]) -> T:
    """Call a function of the caller's: a sync one may wait for a file or a network, and must not hold up the loop."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        result = function()
    else:
        # In a tuple, since a coroutine that comes out of a thread is taken for a mistake.
        (result,) = await trio.to_thread.run_sync(lambda: (function(),), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


def request_headers(endpoint: Endpoint, credentials: Credentials) -> list[tuple[bytes, bytes]]:
    """The fields of a request beyond those of its transport: credentials travel here and nowhere else."""
    server = endpoint.server
    given = {name.lower() for name in credentials.headers}
    fields = {name: value for name, value in server.headers.items() if name.lower() not in given}
    fields.update(credentials.headers)
    if not any(name.lower() == "user-agent" for name in fields):
        fields["User-Agent"] = _USER_AGENT
    key = credentials.key
    if key is not None:
        fields[server.key_header] = f"Bearer {key}" if server.key_header.lower() == "authorization" else key
    if endpoint.organization is not None:
        fields["OpenAI-Organization"] = endpoint.organization
    if endpoint.project is not None:
        fields["OpenAI-Project"] = endpoint.project
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
