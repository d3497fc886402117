"""The ways in which servers nearly keep to the protocol: in ids, positions, calls, and the events themselves.

Each habit is applied to one response's events as they come. None moves an event across the response's terminal or
before its announcement, so that a careful reader can still tell what the response says.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import attrs

__all__ = ["Arguments", "CallIds", "Distorter", "Events", "Indexes", "ItemIds", "ResponseIds"]

ItemIds: TypeAlias = Literal["renewed", "renewed_at_the_end", "swapped_at_the_end", "empty", "null", "one_for_all"]
ResponseIds: TypeAlias = Literal["renewed", "one_for_all", "empty"]
Indexes: TypeAlias = Literal["missing", "constant", "growing", "shifted"]
CallIds: TypeAlias = Literal["missing", "one_for_all"]
Arguments: TypeAlias = Literal["object", "null", "empty"]
Events: TypeAlias = Literal[
    "twice", "deltas_twice", "late", "items_unannounced", "done_only", "deltas_only", "items_done_only", "terminal_only"
]

_Event: TypeAlias = dict[str, Any]

_POSITIONS: Final = ("output_index", "content_index", "summary_index")
_TERMINALS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_LIFE: Final = _TERMINALS | {"response.created", "response.queued", "response.in_progress"}
_ITEM_ADDED: Final = frozenset({"response.output_item.added"})
_ITEM_DONE: Final = frozenset({"response.output_item.done"})
_PARTS_BEGUN: Final = frozenset({"response.content_part.added", "response.reasoning_summary_part.added"})
_CITED: Final = frozenset({"response.output_text.annotation.added"})
_PARTS_DONE: Final = frozenset(
    f"response.{kind}.done"
    for kind in (
        "output_text", "refusal", "content_part", "reasoning_text", "reasoning_summary_text", "reasoning_summary_part",
        "function_call_arguments", "custom_tool_call_input",
    )
)  # fmt: skip


@attrs.define(eq=False)
class Distorter:
    """Applies habits to the events of one response, one by one.

    Attributes:
        rng: Chance, for new ids and for how late an event comes.
        item_ids: The fate of the items' ids.
        response_ids: The fate of the response's.
        indexes: The fate of positions.
        call_ids: The fate of the ids of calls.
        arguments: The form of the arguments of calls.
        events: Events that are left out, doubled or late.
    """

    rng: random.Random
    item_ids: ItemIds | None
    response_ids: ResponseIds | None
    indexes: Indexes | None
    call_ids: CallIds | None
    arguments: Arguments | None
    events: Events | None
    _count: int = attrs.field(default=0, init=False)
    _held: list[tuple[int, _Event]] = attrs.field(factory=list, init=False)

    def __call__(self, event: _Event, *, whole: bool = False) -> Iterator[_Event]:
        """Yield what is sent for an event: itself, changed, twice, later or not at all.

        Args:
            event: The event, which stays as it is.
            whole: Whether only the terminal's Response is sent, so that nothing may be left to other events.
        """
        event = copy.deepcopy(event)
        self._count += 1
        last = event.get("type") in _TERMINALS
        for each in [event] if whole else self._chosen(event):
            self._rename(each)
            yield each
        due = [each for number, each in self._held if last or number <= self._count]
        self._held = [(number, each) for number, each in self._held if not last and number > self._count]
        yield from due

    # --- events ---

    def _chosen(self, event: _Event) -> list[_Event]:
        kind = str(event.get("type"))
        if kind in _TERMINALS:
            held, self._held = [each for _, each in self._held], []
            if self.events in {"deltas_only", "items_done_only"} and isinstance(event.get("response"), dict):
                event["response"]["output"] = []
            return [*held, event]
        if kind in _LIFE or not kind.startswith("response."):
            return [event]
        delta = kind.endswith(".delta")
        match self.events:
            case "twice" if not delta and kind not in _CITED:
                return [event, copy.deepcopy(event)]
            case "deltas_twice" if delta:
                return [event, copy.deepcopy(event)]
            case "late" if kind in _PARTS_DONE | _CITED:
                self._rename(event)
                self._held.append((self._count + self.rng.choice((1, 2)), event))
                return []
            case "items_unannounced" if kind in _ITEM_ADDED:
                return []
            case "done_only" if delta or kind in _PARTS_BEGUN:
                return []
            case "deltas_only" if kind in _PARTS_DONE | _ITEM_DONE:
                return []
            case "items_done_only" if kind not in _ITEM_DONE:
                return []
            case "terminal_only":
                return []
        return [event]

    # --- names and numbers ---

    def _rename(self, event: _Event) -> None:
        for name in _POSITIONS:
            if name in event and self.indexes is not None:
                self._place(event, name)
        if "item_id" in event:
            event["item_id"] = self._item_id(event["item_id"], last=False)
        if isinstance(event.get("item"), dict):
            self._item(event["item"], last=False)
        response = event.get("response")
        if not isinstance(response, dict):
            return
        if self.response_ids is not None and "id" in response:
            new: dict[str, str] = {"renewed": self._new("resp"), "one_for_all": "resp_1", "empty": ""}
            response["id"] = new[self.response_ids]
        output = [item for item in response.get("output") or () if isinstance(item, dict)]
        if self.item_ids == "swapped_at_the_end":
            names = [item.get("id") for item in output]
            for item, identity in zip(output, names[1:] + names[:1], strict=True):
                item["id"] = identity
        for item in output:
            self._item(item, last=True)

    def _place(self, event: _Event, name: str) -> None:
        match self.indexes:
            case "missing":
                del event[name]
            case "constant":
                event[name] = 0
            case "growing":
                event[name] = self._count
            case "shifted" if isinstance(event[name], int):
                event[name] += 1

    def _item(self, item: _Event, *, last: bool) -> None:
        if "id" in item:
            item["id"] = self._item_id(item["id"], last=last)
        if "call_id" in item and self.call_ids == "missing":
            del item["call_id"]
        elif "call_id" in item and self.call_ids == "one_for_all":
            item["call_id"] = "call_1"
        if "arguments" in item and self.arguments is not None:
            item["arguments"] = self._written(item["arguments"])

    def _written(self, arguments: object) -> object:
        if self.arguments == "object" and isinstance(arguments, str):
            try:
                return json.loads(arguments)
            except ValueError:
                return arguments
        return None if self.arguments == "null" else "" if self.arguments == "empty" else arguments

    def _item_id(self, name: object, *, last: bool) -> object:
        match self.item_ids:
            case "renewed":
                return self._new("item")
            case "renewed_at_the_end" if last:
                return self._new("item")
            case "empty":
                return ""
            case "null":
                return None
            case "one_for_all":
                return "item_1"
        return name

    def _new(self, prefix: str) -> str:
        return f"{prefix}_{self.rng.getrandbits(64):016x}"
