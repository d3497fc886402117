"""What differs between servers that speak the Responses API, as data."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from engine.errors import ConfigurationError

__all__ = ["GENERIC", "OPENAI", "Profile", "profile_of"]


@frozen
class Profile:
    """One kind of server.

    Attributes:
        name: What it is called.
        multiplexing: Whether several responses may be in progress on one connection, each on a named lane
            (Responses API over WebSocket: ``stream_id``).
        max_lanes: Named lanes a connection may use in its life.
        max_active: Responses that may be in progress on a connection; further requests wait at the server.
    """

    name: str
    multiplexing: bool = field(default=False, kw_only=True)
    max_lanes: int = field(default=32, kw_only=True)
    max_active: int = field(default=16, kw_only=True)


OPENAI: Final = Profile("openai", multiplexing=True)
GENERIC: Final = Profile("generic")

_BY_NAME: Final = {profile.name: profile for profile in (OPENAI, GENERIC)}


def profile_of(given: Profile | str | None, host: str) -> Profile:
    """Return the profile that was given, by itself or by name; where none was, the one that fits the host.

    Raises:
        ConfigurationError: no profile has that name.
    """
    if isinstance(given, Profile):
        return given
    if given is None:
        known = host == "api.openai.com" or host.endswith(".api.openai.com")
        return OPENAI if known else GENERIC
    profile = _BY_NAME.get(given) if isinstance(given, str) else None
    if profile is None:
        raise ConfigurationError("profile", f"is none of {', '.join(_BY_NAME)}")
    return profile
