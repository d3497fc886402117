"""Which events belong to which exchange, where servers say too much, too late, or nothing at all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from routed import Routed

from engine.protocol.exchange import Exchange
from engine.protocol.faults import Fault
from engine.protocol.routing import Router, Unlabelled, Verdict
from engine.wire.codec import decode_object
from engine.wire.events import ServerEvent

LATE: Final = json.loads((Path(__file__).parent / "data" / "late_events.json").read_text())

LETTERS: Final = {
    "response.created": "O", "response.in_progress": "P", "response.output_text.delta": "D", "response.completed": "C",
    "response.done": "X", "response.incomplete": "N", "response.failed": "F", "error": "E",
}  # fmt: skip


@pytest.mark.parametrize("case", LATE, ids=lambda case: case["name"])
def test_late_events(case: dict[str, Any]) -> None:
    """Each sequence says what becomes of every frame, and where a new link is needed."""
    routed, said = Routed(), []
    for step in case["steps"]:
        if step == "left":
            routed.leave()
        elif isinstance(step, str):
            if routed.waiting:
                continue  # refused on another link than the sequence supposes
            anew = routed.send(again=step == ">same")
            if len(routed.outcomes) > 1:
                said.append("NEW LINK" if anew else ">")
        else:
            letter = LETTERS[step["frame"]["type"]]
            became = routed.frame(step["frame"], step["owner"])
            if became in {"drop", "retire"} and not routed.waiting:
                became = "idle" if became == "drop" else "idle retire"
            said.append(f"{letter} {became.replace('gone', '(gone with the link)')}")
            if became == "break":
                said.append("NEW LINK, resent")
                break
    assert said == case["verdicts"]


# --- everything that servers send


def raw(letter: str, response_id: str, item_id: str) -> dict[str, Any]:
    kind = next(kind for kind, each in LETTERS.items() if each == letter)
    if letter == "E":
        return {"type": kind, "status": 429, "error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    if letter == "D":
        return {"type": kind, "item_id": item_id, "output_index": 0, "content_index": 0, "delta": "x"}
    status = {"O": "in_progress", "P": "in_progress", "F": "failed", "N": "incomplete"}.get(letter, "completed")
    return {"type": kind, "response": {"id": response_id, "status": status, "output": []}}


IDS: Final = ("constant", "empty", "unique", "renewed", "changed")


def named(ids: str, owner: int, number: int) -> str:
    """The id of a response in one of its events."""
    return {
        "constant": "r",
        "empty": "",
        "unique": f"r{owner}",
        "renewed": f"r{owner}.{number}",
        "changed": f"r{owner}.{number > 0}",
    }[ids]


# What comes of one request, and what some servers say after its end: the end again, or the other half of a failure.
OPENING: Final = [
    (body + end, late)
    for body in ("O", "OP", "OD", "OPDD")
    for end, lates in (("C", ("", "X", "C")), ("N", ("", "X")), ("F", ("", "F", "E")), ("E", ("", "F")), ("EF", ("",)))
    for late in lates
]
REFUSALS: Final = [("E", ""), ("E", "F"), ("F", ""), ("EF", "")]
UNOPENED: Final = [(body + end, "") for body in ("", "D", "DD") for end in ("C", "N", "F", "E")]
SERVERS: Final[dict[str, Sequence[tuple[str, str]]]] = {
    "announces": [*OPENING, *REFUSALS],
    "announces nothing": [*UNOPENED, *REFUSALS],
    "says more after the end": [("OC", "D"), ("ODC", "DD"), ("ODC", "O"), ("OC", "P"), ("OD", "")],
}


def ends(told: str) -> int:
    """How many frames there are up to the one that ends the exchange."""
    return next((number for number, letter in enumerate(told, 1) if letter in "CXNFE"), len(told))


def played(turns: Sequence[tuple[str, str]], ids: str, *, left: int | None, early: bool) -> Routed:
    """Let the turns happen, each sent when the one before has ended.

    Args:
        turns: What comes of each, and what comes after its end.
        ids: How the server names its responses.
        left: The number of the turn that is left at its first frame, and drained.
        early: Whether what comes after an end comes before the next request is sent, rather than after.
    """
    routed = Routed()
    rest: list[tuple[str, int]] = []
    for owner, (told, late) in enumerate(turns, 1):
        refused = owner > 1 and turns[owner - 2][0][:1] in {"E", "F"}
        routed.send(again=refused)
        numbers = itertools.count()
        for letter, whose in rest:
            routed.frame(raw(letter, named(ids, whose, 9), f"m{whose}"), whose)
        rest = []
        end = ends(told)
        for place, letter in enumerate(told[:end]):
            if routed.outcomes[owner] is not None:
                break  # given up before its first frame
            routed.frame(raw(letter, named(ids, owner, next(numbers)), f"m{owner}"), owner)
            if left == owner and place == 0 and routed.waiting:
                routed.leave()
        after = told[end:] + late
        if early:
            for letter in after:
                routed.frame(raw(letter, named(ids, owner, next(numbers)), f"m{owner}"), owner)
        else:
            rest = [(letter, owner) for letter in after]
        if routed.waiting:
            break
    return routed


def choices(count: int) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    for server in ("announces", "announces nothing"):
        yield from ((server, turns) for turns in itertools.product(SERVERS[server], repeat=count))


def check(turns: Sequence[tuple[str, str]], ids: str, left: int | None, *, early: bool) -> None:
    routed = played(turns, ids, left=left, early=early)
    story = (turns, ids, left, early)
    for number, owners in routed.owners.items():
        assert set(owners) <= {number}, story
    for number, outcome in routed.outcomes.items():
        assert outcome is not None or undetermined(turns, number), story


def undetermined(turns: Sequence[tuple[str, str]], number: int) -> bool:
    """Whether the frames of a turn are those of an end before it, said again: nothing tells it from one."""
    told, before = turns[number - 1][0], turns[number - 2] if number > 1 else None
    return before is not None and before == ("E", "") and told == "F"


@pytest.mark.slow
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("early", [False, True])
def test_nothing_of_a_response_reaches_another_turn_and_none_waits_for_nothing(ids: str, early: bool) -> None:
    for _, turns in choices(2):
        if not early and any(known_undecidable(turn) for turn in turns):
            continue
        for left in (None, 1, 2):
            check(turns, ids, left, early=early)


@pytest.mark.slow
def test_nor_does_it_in_a_third_turn() -> None:
    for number, (_, turns) in enumerate(choices(3)):
        if number % 13 == 0 and not any(known_undecidable(turn) for turn in turns):  # the pairs have all been seen
            check(turns, "constant", None, early=False)


def known_undecidable(turn: tuple[str, str]) -> bool:
    """An error after a failure, with the next request sent in between, is taken for that one's refusal."""
    return turn[0].endswith("F") and turn[1] == "E"


@pytest.mark.parametrize("turn", SERVERS["says more after the end"])
@pytest.mark.parametrize("ids", IDS)
def test_what_is_more_than_an_end_loses_the_next_turn_rather_than_spoil_it(turn: tuple[str, str], ids: str) -> None:
    routed = played([turn, ("ODC", "")], ids, left=None, early=False)
    assert 1 not in routed.owners.get(2, []) or turn[1][:1] in {"O", "P"}


# --- what only some requests can be refused for


MISSES: Final[dict[str, dict[str, Any]]] = {
    "error": {"type": "error", "status": 400, "error": {"code": "previous_response_not_found"}},
    "failed": {
        "type": "response.failed",
        "response": {"id": "r", "status": "failed", "error": {"code": "previous_response_not_found"}},
    },
}


def begun(router: Router, lane: str | None, *faults: Fault) -> Exchange:
    """An exchange whose request can be refused for certain things."""
    exchange = Exchange(lane)
    router.begin(exchange, may_cause=lambda fault: fault in faults)
    exchange.dispatched()
    return exchange


def ended(router: Router, exchange: Exchange, event: dict[str, Any]) -> None:
    assert router.route(decode_object(event)) is exchange
    exchange.receive(decode_object(event))
    router.end(exchange)


@pytest.mark.parametrize("first", MISSES)
@pytest.mark.parametrize("again", MISSES)
@pytest.mark.parametrize("lane", [None, "lane-1"], ids=["its own channel", "another's"])
def test_a_miss_of_an_earlier_request_is_none_of_one_that_names_no_response(
    first: str, again: str, lane: str | None
) -> None:
    router = Router()
    ended(router, begun(router, None, Fault.CACHE_MISS), MISSES[first])
    current = begun(router, lane)
    late = decode_object(MISSES[again])
    assert router.route(late) is Verdict.DROPPED
    if again == "error":  # once only: from then on it is the server's word about this one
        assert router.route(late) is current


def test_a_miss_without_an_earlier_one_is_what_the_server_says() -> None:
    router = Router()
    ended(router, begun(router, None), {"type": "response.completed", "response": {"id": "r", "status": "completed"}})
    current = begun(router, None)
    assert router.route(decode_object(MISSES["error"])) is current


# --- what has no label, beside a lane of its own


def unlabelled(kind: str) -> ServerEvent:
    response = {"id": "r", "status": "completed", "output": []}
    delta = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": "x"}
    return decode_object({"type": kind, **(delta if kind.endswith("delta") else {"response": response})})


DELTA: Final = "response.output_text.delta"
OPENS: Final = {"type": "response.created", "response": {"id": "r", "status": "in_progress"}}
ENDS: Final = {"type": "response.completed", "response": {"id": "r", "status": "completed"}}
BREAKS: Final = {"type": "error", "status": 503, "error": {"code": "server_is_overloaded"}}


@pytest.mark.parametrize("end", [ENDS, BREAKS], ids=["after its end", "after an error"])
def test_the_rest_of_a_response_of_the_default_channel_is_none_of_a_named_one(end: dict[str, Any]) -> None:
    router = Router()
    first = begun(router, None)
    for event in (OPENS, end):
        assert router.route(decode_object(event)) is first
        first.receive(decode_object(event))
    router.end(first)
    named = begun(router, "lane-1")
    assert router.route(unlabelled(DELTA)) is Verdict.STRAY
    labelled = decode_object({**OPENS, "stream_id": "lane-1"})
    assert router.route(labelled) is named
    assert router.route(unlabelled(DELTA)) is Verdict.STRAY


def test_what_an_unlabelled_announcement_begins_is_the_only_named_ones() -> None:
    """A server that takes the name and leaves it out of its answers is found out, and read all the same."""
    router = Router()
    first = begun(router, None)
    for event in (OPENS, ENDS):
        assert router.route(decode_object(event)) is first
        first.receive(decode_object(event))
    router.end(first)
    named = begun(router, "lane-1")
    for late in (decode_object(OPENS), unlabelled(DELTA), decode_object(ENDS)):
        assert router.route(late) == Unlabelled((named,))
