"""Who we are: the key, and the header fields that every request of every transport carries."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import trio

from engine.settings.endpoint import Endpoint, check_key

__all__ = ["request_headers", "resolve_key"]

try:
    _USER_AGENT = f"trio-session-engine/{version('trio-session-engine')}"
except PackageNotFoundError:  # run from a source tree that was never installed
    _USER_AGENT = "trio-session-engine"


async def resolve_key(endpoint: Endpoint) -> str | None:
    """Return the endpoint's key, asking for it where a function gives it; None where there is none.

    Raises:
        ConfigurationError: the function returned something that cannot be a key.

    Whatever the function raises comes out. Cancelling it cancels the function.
    """
    key = endpoint.api_key
    if key is None or isinstance(key, str):
        await trio.lowlevel.checkpoint_if_cancelled()
        return key
    return check_key(await key())


def request_headers(endpoint: Endpoint, key: str | None) -> list[tuple[bytes, bytes]]:
    """The fields of a request beyond those of its transport: credentials travel here and nowhere else."""
    server = endpoint.server
    given = {name.lower() for name in endpoint.headers}
    fields = {name: value for name, value in server.headers.items() if name.lower() not in given}
    fields.update(endpoint.headers)
    if not any(name.lower() == "user-agent" for name in fields):
        fields["User-Agent"] = _USER_AGENT
    if key is not None:
        fields[server.key_header] = f"Bearer {key}" if server.key_header.lower() == "authorization" else key
    if endpoint.organization is not None:
        fields["OpenAI-Organization"] = endpoint.organization
    if endpoint.project is not None:
        fields["OpenAI-Project"] = endpoint.project
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
