"""What texts and reprs may show of values that are nobody else's business."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["size_only", "token"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")


def token(value: object) -> str:
    """Return ``value`` if it looks like an identifier, else a placeholder.

    Servers choose their error codes, so a code goes into an exception text only when it cannot carry a sentence.
    """
    return value if isinstance(value, str) and _TOKEN.match(value) else "(not shown)"


def size_only(value: Any) -> str:
    """Stand in for a value in a repr: how much of it there is, nothing of what it says."""
    if value is None:
        return "None"
    return f"<{len(value)}>"
