"""Sealed reasoning: what a server encrypted for itself, and another key, organisation or model cannot read.

A server that cannot read one refuses the whole request, and seldom says which one it was. So all that were in a refused
request are left out from then on. What a compaction sealed stands for the conversation itself, and always goes along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from engine.protocol.request_body import without_id

__all__ = ["RefusedSeals", "holds_seals", "is_sealed"]

_KEPT: Final = 16_384


def is_sealed(body: Mapping[str, Any]) -> bool:
    """Whether a request's body holds sealed reasoning."""
    return next(_seals(body), None) is not None


def holds_seals(body: Mapping[str, Any]) -> bool:
    """Whether a request's body holds anything sealed, what a compaction left included."""
    given = body.get("input")
    return isinstance(given, list) and any(
        isinstance(item, Mapping) and item.get("encrypted_content") for item in given
    )


def _seals(body: Mapping[str, Any]) -> Iterator[str]:
    given = body.get("input")
    return (item["encrypted_content"] for item in given if _is_seal(item)) if isinstance(given, list) else iter(())


def _is_seal(item: object) -> TypeGuard[Mapping[str, Any]]:
    if not isinstance(item, Mapping) or item.get("type") != "reasoning":
        return False
    seal = item.get("encrypted_content")
    return isinstance(seal, str) and seal != ""


def _mark(seal: str) -> bytes:
    return hashlib.blake2b(seal.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class RefusedSeals:
    """The seals that the server of a session refused, by their hashes: the last 16,384 of them."""

    def __init__(self) -> None:
        self._marks: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, body: Mapping[str, Any]) -> int:
        """Take note that a request was refused for its seals; returns how many are new."""
        new = {mark: None for mark in map(_mark, _seals(body)) if mark not in self._marks}
        self._marks.update(new)
        for oldest in tuple(self._marks)[:-_KEPT]:
            del self._marks[oldest]
        return len(new)

    def without(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request's body without the reasoning whose seals were refused; the same body if it has none.

        The server knows the other items of such a response by their ids, and refuses them there without its reasoning.
        So they go as if they were new.
        """
        given = body.get("input")
        if not self._marks or not isinstance(given, list):
            return body
        refused = [_is_seal(item) and _mark(item["encrypted_content"]) in self._marks for item in given]
        if not any(refused):
            return body
        return {**body, "input": list(_left(given, refused))}


def _left(items: list[Any], refused: list[bool]) -> Iterator[Any]:
    """Yield what is left. What a response put out stands between what it was told and what it was told next."""
    start = 0
    for end in (*(number for number, item in enumerate(items) if _is_told(item)), len(items)):
        broken = any(refused[start:end])
        for item, is_refused in zip(items[start:end], refused[start:end], strict=True):
            if not is_refused:
                yield without_id(item) if broken and isinstance(item, Mapping) else item
        yield from items[end : end + 1]
        start = end + 1


def _is_told(item: object) -> bool:
    """Whether an item is no model's."""
    if not isinstance(item, Mapping):
        return True
    kind = item.get("type", "message")
    return item.get("role") != "assistant" if kind == "message" else str(kind).endswith("_output")
