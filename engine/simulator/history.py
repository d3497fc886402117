"""The memory of the server: the newest response of each lane of a connection, and stored responses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import attrs

from .wire import Item

__all__ = ["Cache", "Held", "Library"]


@attrs.frozen
class Held:
    """A finished response as the server holds it.

    Attributes:
        response_id: Its id.
        items: The whole conversation up to its end: every input item and every output item, in order.
        response: The final Response object.
        stored: Whether it outlives its connection.
    """

    response_id: str
    items: tuple[Item, ...] = attrs.field(repr=False)
    response: dict[str, Any] = attrs.field(repr=False)
    stored: bool = True
    new_input: tuple[Item, ...] = attrs.field(default=(), repr=False)


class Library:
    """Responses that outlive their connection, and a transcript of everything for tests. Bounded, oldest out first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stored: OrderedDict[str, Held] = OrderedDict()
        self._all: OrderedDict[str, Held] = OrderedDict()

    def add(self, held: Held) -> None:
        """Take a finished response; only a stored one can be continued or fetched later."""
        for shelf in (self._stored, self._all) if held.stored else (self._all,):
            shelf[held.response_id] = held
            while len(shelf) > self._limit:
                shelf.popitem(last=False)

    def stored(self, response_id: str) -> Held | None:
        """Return a stored response."""
        return self._stored.get(response_id)

    def forget(self, response_id: str) -> bool:
        """Delete a stored response; True when there was one."""
        return self._stored.pop(response_id, None) is not None

    def transcript(self, response_id: str) -> Held | None:
        """Return any finished response, stored or not."""
        return self._all.get(response_id)

    def items(self) -> Iterator[Item]:
        """Yield every item of every stored response."""
        for held in self._stored.values():
            yield from held.items


class Cache:
    """The connection's memory: each lane keeps its newest response. Nothing of it survives the socket."""

    def __init__(self) -> None:
        self._newest: dict[str | None, Held] = {}

    def find(self, response_id: str) -> Held | None:
        """Return a response that some lane still keeps."""
        return next((held for held in self._newest.values() if held.response_id == response_id), None)

    def keep(self, lane: str | None, held: Held) -> None:
        """Make this the newest of its lane; the one before it is gone."""
        self._newest[lane] = held

    def evict(self, lane: str | None, response_id: str) -> None:
        """Forget the response if it is this lane's own; a failed fork leaves its parent where it is."""
        held = self._newest.get(lane)
        if held is not None and held.response_id == response_id:
            del self._newest[lane]

    def items(self) -> Iterator[Item]:
        """Yield every item of every kept response."""
        for held in self._newest.values():
            yield from held.items
