"""The items that the server already holds on one connection and lane, and whether a request may build on them.

A request may name the previous response and carry only what is new. The server keeps that response in the memory of
the connection, so a chain belongs to one lane of one connection and ends with it; only stored responses can be named
elsewhere (Responses API, WebSocket mode). A chain is used up by each request and armed again by its clean end alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from engine.settings.profiles import GENERIC, Profile

__all__ = ["NEUTRAL_FIELDS", "Chain", "HeldResponse", "Mark", "Plan", "canonical", "transcript"]

NEUTRAL_FIELDS: Final = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""Request fields that may change from one response of a chain to the next: they are sent with every request. Any other
field that changes (model, store, prompt, truncation, context_management, …) breaks the chain."""

_EXCLUSIVE: Final = ("conversation", "previous_response_id")
"""Fields with which a request says for itself what it continues."""

_SPOKEN: Final = frozenset(
    {
        "custom_tool_call",
        "custom_tool_call_output",
        "function_call",
        "function_call_output",
        "message",
        "reasoning",
    }
)
"""Items whose words say all there is to compare. Of any other (a compaction, a reference, …) all of it counts."""

_ITEM_EXTRAS: Final = frozenset({"encrypted_content", "id", "status"})
_PART_EXTRAS: Final = frozenset({"annotations", "logprobs"})
"""Members that say nothing of what was said: servers add them, and replays leave them out."""

_PARTS: Final = ("content", "output", "summary")


def canonical(item: Any) -> str:
    """The text by which items are compared: without what servers add, whatever the order of keys."""
    if isinstance(item, Mapping) and item.get("type", "message") in _SPOKEN and not _is_sealed(item):
        item = {
            name: [_without(part, _PART_EXTRAS) for part in member]
            if name in _PARTS and isinstance(member, (list, tuple))
            else member
            for name, member in _without({"type": "message", **item}, _ITEM_EXTRAS).items()
        }
    return json.dumps(item, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _is_sealed(item: Mapping[str, Any]) -> bool:
    """Whether the encrypted body is all there is of a reasoning item."""
    return item.get("type") == "reasoning" and not (item.get("summary") or item.get("content"))


def _without(value: Any, extras: frozenset[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: member for name, member in value.items() if member is not None and name not in extras}


class Mark(str):
    """Stands for an item that is not here: a hash of its canonical form."""

    __slots__ = ()

    @classmethod
    def of(cls, item: Mapping[str, Any] | Mark) -> Mark:
        """The mark of an item; a mark is its own."""
        if isinstance(item, Mark):
            return item
        return cls(hashlib.blake2b(canonical(item).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())


def _is_same(held: Mapping[str, Any] | Mark, given: Any) -> bool:
    if isinstance(held, Mark):
        return Mark.of(given) == held
    return bool(given == held) or canonical(given) == canonical(held)


def transcript(body: Mapping[str, Any], output: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...] | None:
    """Return the conversation after an answer, in input form; None where the request does not say all of it."""
    sent = body.get("input")
    if not isinstance(sent, list) or any(name in body for name in _EXCLUSIVE):
        return None
    return (*sent, *output)


@frozen
class HeldResponse:
    """A response that the server holds, with what led to it.

    Attributes:
        response_id: The response that a request may continue.
        items: The conversation up to its end, in input form: everything that led to it, and what it put out. Marks
            stand for what another process knows.
        fields: The fields of its request that must not change.
        waiting: The number of items at the end that it was steered with and has not applied. The server puts them
            before the input of the request that continues it on this connection and lane, and nowhere else.
    """

    response_id: str
    items: tuple[Mapping[str, Any] | Mark, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    waiting: int = 0

    @classmethod
    def after(
        cls, response_id: str, body: Mapping[str, Any], output: Sequence[Mapping[str, Any]], *, waiting: int = 0
    ) -> HeldResponse | None:
        """Return what the server holds once it has answered ``body`` with ``output``; None if that cannot be known."""
        items = transcript(body, output)
        return None if items is None else cls(response_id, items, _fixed(body), waiting)

    @property
    def stored(self) -> bool:
        """Whether it can be named on other connections too. Servers store unless told not to."""
        return self.fields.get("store", True) is not False and not self.waiting


def _fixed(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in NEUTRAL_FIELDS and value is not None}


@frozen
class Plan:
    """The form in which a request is sent.

    Attributes:
        previous_response_id: The response to continue; None to send the whole input.
        skip: The number of items of the input that the server holds already.
        full_because: The reason for sending the whole input: the first differing field or item.
    """

    previous_response_id: str | None = None
    skip: int = 0
    full_because: str | None = None


def plan(held: HeldResponse, body: Mapping[str, Any], server: Profile = GENERIC) -> Plan:
    """Say whether ``body`` extends what is held, and where it differs if it does not."""
    for name in sorted(server.fresh_fields):
        if body.get(name) is not None:
            return Plan(full_because=name)
    if not (held.stored or server.continues_unstored):
        return Plan(full_because="store")
    for name in _EXCLUSIVE:
        if name in body:
            return Plan(full_because=name)
    fields = _fixed(body)
    for name in sorted({*fields, *held.fields}):
        if fields.get(name) != held.fields.get(name):
            return Plan(full_because=name)
    given = body.get("input")
    if not isinstance(given, list):
        return Plan(full_because="input is not a list of items")
    for number, item in enumerate(held.items):
        if number >= len(given):
            return Plan(full_because=f"input[{number}] is missing")
        if not _is_same(item, given[number]):
            return Plan(full_because=f"input[{number}]")
    return Plan(held.response_id, len(held.items))


class Chain:
    """The chain of one lane of one connection."""

    def __init__(self) -> None:
        self._held: HeldResponse | None = None
        self._empty_because = "nothing was sent on this connection and lane yet"

    def plan(self, body: Mapping[str, Any], *, server: Profile = GENERIC, stored: HeldResponse | None = None) -> Plan:
        """Say how a request would be sent, and leave the chain as it is.

        Args:
            body: The request's body with its whole input.
            server: The kind of server that it goes to.
            stored: A response that can be named on any connection, for when this lane has none.
        """
        held = self._held or stored
        return Plan(full_because=self._empty_because) if held is None else plan(held, body, server)

    def holds(self, held: HeldResponse) -> bool:
        """Whether it is this response that can be continued here."""
        return self._held is held

    def use_up(self) -> None:
        """A request that was planned is about to go: until `arm`, nothing can be continued here."""
        self._held, self._empty_because = None, "the previous response did not end cleanly"

    def arm(self, held: HeldResponse | None) -> None:
        """Note what the server holds after a clean end."""
        self._held = held
        if held is None:
            self._empty_because = "what the previous request left at the server is not known"
