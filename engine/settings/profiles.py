"""The differences between servers that speak the Responses API, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve, field, frozen

from engine.values.problems import ConfigurationError

__all__ = [
    "AZURE",
    "GENERIC",
    "HTTP_ONLY",
    "OPENAI",
    "OPENAI_MULTI_AGENT",
    "PROFILE_NAMES",
    "XAI",
    "Profile",
    "profile_of",
]


@frozen
class Profile:
    """One kind of server.

    Attributes:
        name: The profile's name.
        hosts: Its host names; one that begins with a dot stands for every name below it.
        websocket: Whether it serves the Responses API over WebSocket at all; if not, `engine.Transport.AUTO` goes over
            HTTP.
        multiplexing: Whether several responses may be in progress on one connection, each on a named lane
            (Responses API over WebSocket: ``stream_id``).
        proven: Whether it is certain that every event of such a response carries its ``stream_id``. Where it is not,
            each lane has a connection of its own until one has ended so.
        steering: Whether a response that runs takes further input (``response.steer``).
        multi_agent: Whether a response that runs takes the outputs of its calls (``response.inject``): a beta, which
            the handshake has to ask for. See `engine.Turn.inject`.
        max_lanes: Named lanes a connection may use in its life.
        max_active: Responses that may be in progress on a connection; further requests wait at the server.
        connection_lifetime: Seconds after which a connection takes no new turns, where `engine.Limits` do not say. Less
            than what the server allows, so that a turn has room to end.
        headers: Header fields that every handshake and request carries, unless the endpoint's own say otherwise.
        key_header: The header field that carries the key; ``Authorization`` carries it as a bearer.
        fresh_fields: Request fields that a request which continues a response must not carry: one that has them is
            sent whole.
        continues_unstored: Whether a response that the server was told not to store can be continued.
        typed_errors: Whether an error says what it is about. Where not, a refusal of a request that continues a
            response is taken for the loss of that response.
    """

    name: str
    hosts: tuple[str, ...] = field(default=(), kw_only=True)
    websocket: bool = field(default=True, kw_only=True)
    multiplexing: bool = field(default=False, kw_only=True)
    proven: bool = field(default=False, kw_only=True)
    steering: bool = field(default=False, kw_only=True)
    multi_agent: bool = field(default=False, kw_only=True)
    max_lanes: int = field(default=32, kw_only=True)
    max_active: int = field(default=16, kw_only=True)
    connection_lifetime: float = field(default=3300.0, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict, kw_only=True, hash=False, repr=lambda headers: f"<{len(headers)}>")
    key_header: str = field(default="Authorization", kw_only=True)
    fresh_fields: frozenset[str] = field(default=frozenset(), kw_only=True)
    continues_unstored: bool = field(default=True, kw_only=True)
    typed_errors: bool = field(default=True, kw_only=True)

    def fits(self, host: str) -> bool:
        """Whether a host is of this kind."""
        return any(host == name or (name.startswith(".") and host.endswith(name)) for name in self.hosts)


OPENAI: Final = Profile(
    "openai",
    # The regions are names below: us, eu, ae, au, in, jp.
    hosts=("api.openai.com", ".api.openai.com"),
    multiplexing=True,
    steering=True,
    proven=True,
)
"""The Responses API itself: lanes, steering, and 60 minutes for a connection."""

OPENAI_MULTI_AGENT: Final = evolve(
    OPENAI,
    name="openai-multi-agent",
    hosts=(),
    multi_agent=True,
    headers={"OpenAI-Beta": "responses_multi_agent=v1"},
)
"""The Responses API with its beta of several agents: chosen by name only."""

AZURE: Final = Profile("azure", hosts=(".openai.azure.com", ".services.ai.azure.com"))
"""Azure OpenAI: one response at a time, 60 minutes for a connection, the key as a bearer on the v1 paths."""

XAI: Final = Profile(
    "xai",
    hosts=("api.x.ai",),
    connection_lifetime=1440.0,
    fresh_fields=frozenset({"instructions"}),
    continues_unstored=False,
    typed_errors=False,
)
"""xAI: 25 minutes for a connection, no instructions beside a response to continue, errors without a code."""

GENERIC: Final = Profile("generic")
"""A server or gateway of which nothing more is known than that it speaks the protocol."""

HTTP_ONLY: Final = Profile("http", websocket=False)
"""A server or gateway without WebSocket."""

_BY_NAME: Final = {profile.name: profile for profile in (OPENAI, OPENAI_MULTI_AGENT, AZURE, XAI, GENERIC, HTTP_ONLY)}


PROFILE_NAMES: Final = tuple(_BY_NAME)
"""The names by which a profile can be given."""


def profile_of(given: Profile | str | None, host: str) -> Profile:
    """Return the profile that was given, by itself or by name; where none was, the one that fits the host.

    Raises:
        ConfigurationError: no profile has that name.
    """
    if isinstance(given, Profile):
        return given
    if given is None:
        return next((profile for profile in _BY_NAME.values() if profile.fits(host.lower())), GENERIC)
    profile = _BY_NAME.get(given) if isinstance(given, str) else None
    if profile is None:
        raise ConfigurationError("profile", f"is none of {', '.join(_BY_NAME)}")
    return profile
