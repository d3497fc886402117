"""What servers do to a well-formed stream of one response, and what the message must be all the same.

Events never move across their response's terminal, nor before its announcement: what a reader could not tell apart is
no distortion but another response.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from engine.values.blocks import OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage

__all__ = ["INDEXES", "NAMES", "ORDERS", "Distortion", "essence", "well_formed"]

Raw: TypeAlias = dict[str, Any]
Stream: TypeAlias = list[Raw]


def essence(message: AssistantMessage) -> list[Any]:
    """What a message says, whatever its items are called."""
    return [_said(block) for block in message.content]


def _said(block: Any) -> Any:
    match block:
        case Text():
            return ("text", block.text, block.phase, block.annotations)
        case Refusal():
            return ("refusal", block.refusal, block.phase)
        case Thinking():
            return ("thinking", block.text)
        case ToolCall():
            return ("call", block.kind, block.call_id, block.name, block.raw_arguments)
        case OutputItem():
            return ("item", {name: value for name, value in block.item.items() if name != "id"})
    raise AssertionError


# --- a stream as the service sends it


def pieces(text: str) -> list[str]:
    """A text in three deltas."""
    third = max(len(text) // 3, 1)
    return [piece for piece in (text[:third], text[third : 2 * third], text[2 * third :]) if piece]


def well_formed(items: list[Raw], response_id: str = "resp_1") -> Stream:
    """Every event of a response with these items, from its announcement to its terminal."""
    response: Raw = {"id": response_id, "object": "response", "model": "m-1", "status": "in_progress", "output": []}
    raws: Stream = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
    ]
    for index, item in enumerate(items):
        raws += _told(item, index)
    raws.append({"type": "response.completed", "response": {**response, "status": "completed", "output": items}})
    raws = [copy.deepcopy(raw) for raw in raws]  # each on its own: no two share an item
    for number, raw in enumerate(raws):
        raw["sequence_number"] = number
    return raws


def _told(item: Raw, index: int) -> Stream:
    where = {"output_index": index, "item_id": item["id"]}
    begun = {**item, "status": "in_progress"}
    begun |= {name: [] for name in ("content", "summary") if name in item}
    begun |= {name: "" for name in ("arguments", "input") if name in item}
    begun.pop("encrypted_content", None)
    raws: Stream = [{"type": "response.output_item.added", "output_index": index, "item": begun}]
    for number, part in enumerate(item.get("content", ())):
        place = {**where, "content_index": number}
        kind, name = _PARTS[part["type"]]
        blank = {**part, name: ""} | ({"annotations": []} if "annotations" in part else {})
        raws.append({"type": "response.content_part.added", "part": blank, **place})
        raws += [{"type": f"response.{kind}.delta", "delta": piece, **place} for piece in pieces(part[name])]
        for cited in part.get("annotations", ()):
            raws.append({"type": "response.output_text.annotation.added", "annotation": cited, **place})
        raws.append({"type": f"response.{kind}.done", name: part[name], **place})
        raws.append({"type": "response.content_part.done", "part": part, **place})
    for number, part in enumerate(item.get("summary", ())):
        place = {**where, "summary_index": number}
        raws.append({"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}, **place})
        kind = "reasoning_summary_text"
        raws += [{"type": f"response.{kind}.delta", "delta": piece, **place} for piece in pieces(part["text"])]
        raws.append({"type": f"response.{kind}.done", "text": part["text"], **place})
        raws.append({"type": "response.reasoning_summary_part.done", "part": part, **place})
    for name, kind in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
        if name in item:
            raws += [{"type": f"response.{kind}.delta", "delta": piece, **where} for piece in pieces(item[name])]
            raws.append({"type": f"response.{kind}.done", name: item[name], **where})
    raws.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return raws


_PARTS = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
}


# --- distortions


@frozen
class Distortion:
    """One habit of a server.

    Attributes:
        apply: Gives the stream as that server sends it.
        live: Whether what is shown as it comes is still what the message says in the end.
        ids: Whether the message still has the ids of the items.
        announced: Whether it can be read only where items are announced and finished one after another.
        done: Whether items are reported as finished, so that the terminal's ids do not count.
    """

    apply: Callable[[Stream, random.Random], Stream]
    live: bool = True
    ids: bool = True
    announced: bool = False
    done: bool = True


def _each_id(stream: Stream, new: Callable[[str, bool], Any]) -> Stream:
    """Rename the items: ``new`` is given the id and whether the terminal has it."""
    for raw in stream:
        if raw.get("item_id") is not None:
            raw["item_id"] = new(raw["item_id"], False)
        items = [(raw["item"], False)] if isinstance(raw.get("item"), dict) else []
        items += [(item, True) for item in raw.get("response", {}).get("output") or ()]
        for item, last in items:
            if "id" in item:
                item["id"] = new(item["id"], last)
    return stream


def _renewed(stream: Stream, chance: random.Random) -> Stream:
    return _each_id(stream, lambda name, last: f"{chance.getrandbits(64):016x}==")


def _renewed_at_the_end(stream: Stream, chance: random.Random) -> Stream:
    return _each_id(stream, lambda name, last: f"{chance.getrandbits(64):016x}" if last else name)


def _swapped(stream: Stream, chance: random.Random) -> Stream:
    names = sorted({item["id"] for item in stream[-1]["response"]["output"] if "id" in item})
    others = dict(zip(names, names[1:] + names[:1], strict=True))
    return _each_id(stream, lambda name, last: others.get(name, name) if last else name)


def _swapped_when_done(stream: Stream, chance: random.Random) -> Stream:
    names = sorted({item["id"] for item in stream[-1]["response"]["output"] if "id" in item})
    others = dict(zip(names, names[1:] + names[:1], strict=True))
    for raw in stream:
        if raw["type"] == "response.output_item.done" and "id" in raw["item"]:
            raw["item"]["id"] = others[raw["item"]["id"]]
    return stream


def _without(*members: str) -> Callable[[Stream, random.Random], Stream]:
    def apply(stream: Stream, chance: random.Random) -> Stream:
        return [{name: value for name, value in raw.items() if name not in members} for raw in stream]

    return apply


def _indexes(new: Callable[[int, int, str], Any], *members: str) -> Callable[[Stream, random.Random], Stream]:
    """Recount: ``new`` is given the position, the number of the event, and the member."""

    def apply(stream: Stream, chance: random.Random) -> Stream:
        for number, raw in enumerate(stream):
            for member in members:
                if member in raw:
                    raw[member] = new(raw[member], number, member)
        return stream

    return apply


_OUTPUT, _PART = ("output_index",), ("content_index", "summary_index")

NAMES: dict[str, Distortion] = {
    "ids as they are": Distortion(lambda stream, chance: stream),
    "ids renewed in every event": Distortion(_renewed, ids=False, announced=True),
    "ids renewed in the terminal": Distortion(_renewed_at_the_end, done=False),
    "ids swapped in the terminal": Distortion(_swapped, done=False),
    "ids swapped when done": Distortion(_swapped_when_done, ids=False, announced=True),
    "ids empty": Distortion(lambda stream, chance: _each_id(stream, lambda name, last: ""), ids=False, announced=True),
    "ids null": Distortion(lambda stream, chance: _each_id(stream, lambda name, last: None), ids=False, announced=True),
    "one id for all": Distortion(
        lambda stream, chance: _each_id(stream, lambda name, last: "item_1"), ids=False, announced=True
    ),
}
"""What becomes of the items' ids. The message is the same but for the ids."""

INDEXES: dict[str, Distortion] = {
    "positions as they are": Distortion(lambda stream, chance: stream),
    "no output_index": Distortion(_without(*_OUTPUT), announced=True),
    "no position in items": Distortion(_without(*_PART)),
    "no position at all": Distortion(_without(*_OUTPUT, *_PART), announced=True),
    "every output_index 0": Distortion(_indexes(lambda place, number, _: 0, *_OUTPUT), announced=True),
    "every position in items 0": Distortion(_indexes(lambda place, number, _: 0, *_PART)),
    "every position in items 1": Distortion(_indexes(lambda place, number, _: 1, *_PART)),
    "output_index grows with events": Distortion(_indexes(lambda place, number, _: number, *_OUTPUT), announced=True),
    "positions in items grow with events": Distortion(_indexes(lambda place, number, _: number, *_PART)),
    "output_index shifted": Distortion(_indexes(lambda place, number, _: place + 3, *_OUTPUT)),
    "positions in items shifted": Distortion(_indexes(lambda place, number, _: place + 1, *_PART)),
    "positions as text": Distortion(_indexes(lambda place, number, _: str(place), *_OUTPUT, *_PART), announced=True),
}
"""What becomes of the positions. The message is the same."""

_ANNOUNCEMENTS = ("response.output_item.added",)
_PART_SET_UP = ("response.content_part.added", "response.reasoning_summary_part.added")
_CITATIONS = ("response.output_text.annotation.added",)
_ENDS_OF_PARTS = tuple(
    f"response.{kind}.done"
    for kind in (
        "output_text", "refusal", "content_part", "reasoning_text", "reasoning_summary_text", "reasoning_summary_part",
        "function_call_arguments", "custom_tool_call_input",
    )
)  # fmt: skip
_ITEM_DONE = ("response.output_item.done",)


def _is_delta(raw: Raw) -> bool:
    return bool(raw["type"].endswith(".delta"))


def _drop(*types: str, deltas: bool = False, output: bool = False) -> Callable[[Stream, random.Random], Stream]:
    def apply(stream: Stream, chance: random.Random) -> Stream:
        if output:
            stream[-1]["response"]["output"] = chance.choice([[], None])
        return [raw for raw in stream if raw["type"] not in types and not (deltas and _is_delta(raw))]

    return apply


def _twice(*, deltas: bool) -> Callable[[Stream, random.Random], Stream]:
    def apply(stream: Stream, chance: random.Random) -> Stream:
        doubled: Stream = []
        for raw in stream[:-1]:
            doubled.append(raw)
            if _is_delta(raw) is deltas and not raw["type"].endswith("annotation.added"):
                doubled.append(copy.deepcopy(raw))
        return [*doubled, stream[-1]]

    return apply


def _late(*types: str, deltas: bool = False) -> Callable[[Stream, random.Random], Stream]:
    """Let events come after the next ones: those of a part after its end, or after that of its item."""

    def apply(stream: Stream, chance: random.Random) -> Stream:
        places = {id(raw): float(number) for number, raw in enumerate(stream)}
        for raw in stream[2:-1]:
            if raw["type"] in types or (deltas and _is_delta(raw)):
                places[id(raw)] = min(places[id(raw)] + chance.choice([1.5, 2.5]), len(stream) - 1.5)
        return sorted(stream, key=lambda raw: places[id(raw)])

    return apply


ORDERS: dict[str, Distortion] = {
    "all events, in order": Distortion(lambda stream, chance: stream),
    "items not announced": Distortion(_drop(*_ANNOUNCEMENTS)),
    "nothing announced": Distortion(_drop(*_ANNOUNCEMENTS, *_PART_SET_UP), live=False),
    "parts not announced": Distortion(_drop(*_PART_SET_UP)),
    "parts not finished": Distortion(_drop(*_ENDS_OF_PARTS)),
    "items finished only in the terminal": Distortion(_drop(*_ITEM_DONE), announced=True, done=False),
    "an empty terminal": Distortion(_drop(output=True)),
    "parts only in done": Distortion(_drop(*_PART_SET_UP, deltas=True)),
    "items only in done": Distortion(
        _drop(*_ANNOUNCEMENTS, *_PART_SET_UP, *_ENDS_OF_PARTS, *_CITATIONS, deltas=True, output=True)
    ),
    "items only in the terminal": Distortion(
        _drop(*_ANNOUNCEMENTS, *_PART_SET_UP, *_ENDS_OF_PARTS, *_CITATIONS, *_ITEM_DONE, deltas=True), done=False
    ),
    "everything but deltas twice": Distortion(_twice(deltas=False)),
    "deltas twice": Distortion(_twice(deltas=True), live=False),
    "announcements of parts late": Distortion(_late(*_PART_SET_UP), live=False, announced=True),
    "announcements of items late": Distortion(_late(*_ANNOUNCEMENTS), live=False),
    "ends of parts late": Distortion(_late(*_ENDS_OF_PARTS), live=False),
    "deltas late": Distortion(_late(deltas=True), live=False),
    "citations late": Distortion(_late(*_CITATIONS)),
}
"""What becomes of the events. The message is the same; what was shown live may differ where it says so."""
