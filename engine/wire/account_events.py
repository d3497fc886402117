"""Server events that belong to the connection or the account rather than to any turn.

None of them is in the Responses API reference: they come from api.openai.com's long streams (``keepalive``), from
gateways (``ping``, ``heartbeat``), and from the ChatGPT back end (the rest).
"""

from __future__ import annotations

from attrs import frozen

from engine.wire.events import ServerEvent, server_events

__all__ = ["AccountEvent", "KeepAlive"]


@server_events.of(
    "codex.rate_limits",  # how much of the plan is used
    "codex.response.metadata",  # what HTTP would have put into header fields
    "response.metadata",  # the same under its plain name; it can arrive after the terminal
    "responsesapi.websocket_timing",
    "rate_limits.updated",  # the Realtime API's, tolerated here
)
@frozen(repr=False, eq=False)
class AccountEvent(ServerEvent):
    """An event of the connection or the account, never of a turn."""


@server_events.of("keepalive", "ping", "heartbeat")
@frozen(repr=False, eq=False)
class KeepAlive(AccountEvent):
    """The server is alive and has nothing to say. OpenAI's ``keepalive`` uses up a sequence number."""
