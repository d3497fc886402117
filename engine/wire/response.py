"""The response object that lifecycle events carry."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from attrs import field, frozen

from engine.wire.base import WireField, WireObject, structurer
from engine.wire.items import Item, structure_items

__all__ = ["ResponseObject", "structure_response"]


@frozen(repr=False, eq=False)
class ResponseObject(WireObject):
    """A response as the server describes it (Responses API reference, the ``Response`` object).

    Everything is optional: compatible servers leave members out, and null means "not known (yet)".

    Attributes:
        id: Names the response, for example as a later ``previous_response_id``.
        status: ``completed``, ``failed``, ``in_progress``, ``cancelled``, ``queued`` or ``incomplete``.
        model: The model that answered, as the server names it.
        usage: Token counts as reported; None until the terminal event, and from servers that do not count.
        error: ``code`` and ``message`` of a failure.
        incomplete_details: ``reason`` of an incomplete response.
        previous_response_id: The response this one continues.
        service_tier: The tier that served it.
        store: Whether the server keeps it.
        metadata: The caller's own pairs.
        end_turn: Whether the model considers its turn over; sent by the ChatGPT back end only.
    """

    id: ClassVar[WireField[str]] = WireField(str)
    status: ClassVar[WireField[str]] = WireField(str)
    model: ClassVar[WireField[str]] = WireField(str)
    usage: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    error: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    incomplete_details: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    previous_response_id: ClassVar[WireField[str]] = WireField(str)
    service_tier: ClassVar[WireField[str]] = WireField(str)
    store: ClassVar[WireField[bool]] = WireField(bool)
    metadata: ClassVar[WireField[dict[str, Any]]] = WireField(dict)
    end_turn: ClassVar[WireField[bool]] = WireField(bool)

    _items: tuple[Item, ...] | None = field(init=False, default=None)

    @property
    def output(self) -> tuple[Item, ...] | None:
        """The output items in order; None when the server left them out, which says nothing about what there was."""
        if self._items is None:
            value = self.raw.get("output")
            if not isinstance(value, list):
                return None
            object.__setattr__(self, "_items", structure_items(value))
        return self._items

    @property
    def created_at(self) -> float | None:
        """The time when the response was created, in seconds since the epoch."""
        value = self.raw.get("created_at")
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def incomplete_reason(self) -> str | None:
        """The reason why it is incomplete: ``max_output_tokens``, ``content_filter``, ``steered``, … — an open set."""
        value = (self.incomplete_details or {}).get("reason")
        return value if isinstance(value, str) else None


structure_response: Final = structurer(ResponseObject)
"""Give a response its class; it accepts any JSON object."""
