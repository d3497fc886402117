"""Settings that tests share."""

from __future__ import annotations

from typing import Any, Final

from engine import RetryPolicy, Transport

ONE_WAY: Final[dict[str, Any]] = {
    "transport": Transport.WEBSOCKET,
    "retry": RetryPolicy(back_off=(), resend_ambiguous=0),
}
"""For tests about one attempt and what becomes of it: over WebSocket, and not tried again."""
