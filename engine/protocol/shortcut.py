"""The short way of a delta: most of what arrives goes where the last delta went, and nothing else changes.

It is taken only where the long way would come to the same: the same type, item, positions and lane as a delta that went
the long way, and nothing in between. Whatever says anything else goes the long way, which stays the only truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.protocol.draft import Draft

__all__ = ["Shortcut"]


class Shortcut:
    """The place of the last delta, and the form of one that goes there as well.

    Args:
        raw: That delta.
        draft: The block that has it.

    Attributes:
        draft: The block that grows.
    """

    __slots__ = ("_content", "_item", "_lane", "_output", "_summary", "_type", "draft")

    def __init__(self, raw: Mapping[str, Any], draft: Draft) -> None:
        self.draft: Draft = draft
        self._type = raw.get("type")
        self._item = raw.get("item_id")
        self._lane = raw.get("stream_id")
        self._output = raw.get("output_index")
        self._content = raw.get("content_index")
        self._summary = raw.get("summary_index")

    def delta_of(self, raw: Mapping[str, Any]) -> str | None:
        """The text of a parsed event that goes the same way; None for any other."""
        get = raw.get
        if get("type") != self._type or get("item_id") != self._item or get("stream_id") != self._lane:
            return None
        # Small numbers are one object each; whatever else compares equal, such as true and 1, has to go the long way.
        if (
            get("output_index") is not self._output
            or get("content_index") is not self._content
            or get("summary_index") is not self._summary
        ):
            return None
        text = get("delta")
        return text if text.__class__ is str else None
