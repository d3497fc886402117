"""The short way of a delta: most of what arrives goes where the last delta went, and nothing else changes.

It is taken only where the long way would come to the same: the same type, item, positions and lane as a delta that went
the long way, and nothing in between. Whatever says anything else goes the long way, which stays the only truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
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

    def follow(self, raws: Sequence[Mapping[str, Any] | None], start: int) -> list[str]:
        """The texts of the parsed events from ``start`` on that go the same way, up to the first that does not."""
        of_type, item, lane = self._type, self._item, self._lane
        output, content, summary = self._output, self._content, self._summary
        texts: list[str] = []
        for raw in islice(raws, start, None):
            if raw is None:
                break
            get = raw.get
            if get("type") != of_type or get("item_id") != item or get("stream_id") != lane:
                break
            # Small numbers are one object each; what else compares equal, such as true and 1, has to go the long way.
            if (
                get("output_index") is not output
                or get("content_index") is not content
                or get("summary_index") is not summary
            ):
                break
            text = get("delta")
            if text.__class__ is not str:
                break
            texts.append(text)
        return texts
