"""Server events that belong to the connection or the account rather than to any turn.

None of them is in the Responses API reference: they come from api.openai.com's long streams (``keepalive``), from
gateways (``ping``), and from the ChatGPT back end (the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire.base import WireField, header_fields
from engine.wire.events import ServerEvent

__all__ = [
    "ACCOUNT_EVENTS",
    "ACCOUNT_EVENT_CLASSES",
    "AccountEvent",
    "CodexRateLimits",
    "CodexResponseMetadata",
    "KeepAlive",
    "MetadataEvent",
    "Ping",
    "RateLimitsUpdated",
    "ResponseMetadata",
    "WebSocketTiming",
]


@frozen(repr=False, eq=False)
class AccountEvent(ServerEvent):
    """An event of the connection or the account, never of a turn."""


@frozen(repr=False, eq=False)
class KeepAlive(AccountEvent):
    """The server is alive and has nothing to say. It uses up a sequence number."""


@frozen(repr=False, eq=False)
class Ping(AccountEvent):
    """A gateway is alive."""


@frozen(repr=False, eq=False)
class CodexRateLimits(AccountEvent):
    """How much of the plan is used.

    Attributes:
        plan_type: The plan's name.
        rate_limits: ``allowed``, ``limit_reached``, and the ``primary`` and ``secondary`` windows, each with
            ``used_percent``, ``window_minutes``, ``reset_after_seconds`` and ``reset_at`` (seconds since the epoch).
    """

    plan_type: ClassVar[WireField[str]] = WireField(str)
    rate_limits: ClassVar[WireField[dict[str, Any]]] = WireField(dict)


@frozen(repr=False, eq=False)
class MetadataEvent(AccountEvent):
    """Facts about a response that HTTP would have put into headers.

    Attributes:
        metadata: Facts of many kinds, an open set.
    """

    metadata: ClassVar[WireField[dict[str, Any]]] = WireField(dict)

    @property
    def headers(self) -> dict[str, str]:
        """Header fields, names in lower case, from the event and from its ``metadata``; the event's own win."""
        return {**header_fields(self.metadata or {}), **header_fields(self.raw)}


@frozen(repr=False, eq=False)
class CodexResponseMetadata(MetadataEvent):
    """Metadata under its Codex name."""


@frozen(repr=False, eq=False)
class ResponseMetadata(MetadataEvent):
    """Metadata under its plain name. It can arrive after the terminal."""


@frozen(repr=False, eq=False)
class WebSocketTiming(AccountEvent):
    """Server-side timings in milliseconds, sent on request; under ``timing_metrics``, or ``timing`` in one variant."""

    timing_metrics: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    timing: ClassVar[WireField[dict[str, Any]]] = WireField(dict)


@frozen(repr=False, eq=False)
class RateLimitsUpdated(AccountEvent):
    """An event of the Realtime API, tolerated here."""


ACCOUNT_EVENT_CLASSES: Final[Mapping[str, type[AccountEvent]]] = {
    "keepalive": KeepAlive,
    "ping": Ping,
    "codex.rate_limits": CodexRateLimits,
    "codex.response.metadata": CodexResponseMetadata,
    "response.metadata": ResponseMetadata,
    "responsesapi.websocket_timing": WebSocketTiming,
    "rate_limits.updated": RateLimitsUpdated,
}
"""The class of each event type of this module."""

ACCOUNT_EVENTS: Final = tuple(ACCOUNT_EVENT_CLASSES.values())
"""Classes of the events that belong to the connection or the account."""
