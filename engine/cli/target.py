"""The server that a command talks to."""

from __future__ import annotations

import os
from typing import Any

import attrs

from engine.cli.errors import MISUSED, CommandFailed
from engine.settings.endpoint import Endpoint

__all__ = ["server_of"]


def server_of(base_url: str | None, profile: str | None) -> Endpoint | None:
    """Return the server that is wanted; None where there is neither a key nor a URL, and the simulator answers.

    Args:
        base_url: The server; None for the default one.
        profile: The name of its profile; None for the one that fits its host.

    Raises:
        CommandFailed: there is a profile, and no server.
        ConfigurationError: the environment names something that cannot be used.
    """
    key = os.environ.get("OPENAI_API_KEY") or None
    if key is None and base_url is None:
        if profile is not None:
            raise CommandFailed("--profile needs a server: give --base-url, or a key in OPENAI_API_KEY", code=MISUSED)
        return None
    given: dict[str, Any] = {"base_url": base_url, "profile": profile}
    endpoint = Endpoint() if key is None else Endpoint.from_env()
    return attrs.evolve(endpoint, **{name: value for name, value in given.items() if value is not None})
