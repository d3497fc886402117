"""The short way of a delta comes to what the long way does, on every stream."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from distortions import INDEXES, NAMES, ORDERS, well_formed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_distortions import RESPONSES, responses

from engine.protocol.draft import deltas
from engine.protocol.exchange import Exchange
from engine.values.messages import AssistantMessage
from engine.wire.codec import decode_object

DELTA = "response.output_text.delta"


def taken(exchange: Exchange, raws: list[dict[str, Any]], *, short: bool) -> tuple[list[Any], int]:
    """What the next events show, and how many of them that are: those that go the short way, or one."""
    shortcut = exchange.shortcut if short else None
    texts = shortcut.follow(raws, 0) if shortcut is not None else []
    if shortcut is None or not texts:
        return exchange.receive(decode_object(raws[0])), 0
    return deltas(shortcut.draft, shortcut.draft.extend(texts)), len(texts)


def compare(stream: list[dict[str, Any]]) -> int:
    """Read a stream both ways, and return how many events went the short one."""
    long, short = (Exchange(made_call_id=map(str, itertools.count()).__next__) for _ in range(2))
    shortened = place = 0
    for exchange in (long, short):
        exchange.dispatched()
    while place < len(stream):
        shown, shortcut = taken(short, stream[place : place + 1 + place % 5], short=True)
        shortened += shortcut
        end = place + max(shortcut, 1)
        expected = [event for raw in stream[place:end] for event in taken(long, [raw], short=False)[0]]
        place = end
        assert shown == expected
        assert short.partial() == long.partial()
        assert (short.delivery, short.output_seen) == (long.delivery, long.output_seen)
    assert short.outcome == long.outcome
    return shortened


@pytest.mark.slow
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_habit_of_servers(order: str, response: str) -> None:
    for shift in range(len(NAMES) // 2):
        for place, indexes in enumerate(INDEXES):
            names = [*NAMES][(place + 2 * shift) % len(NAMES)]
            chance, stream = random.Random(7), well_formed(RESPONSES[response])
            for habit in (NAMES[names], INDEXES[indexes], ORDERS[order]):
                stream = habit.apply(stream, chance)
            compare(stream)


odd = st.fixed_dictionaries(
    {"type": st.sampled_from([DELTA, "response.refusal.delta", "response.output_text.done", "response.in_progress"])},
    optional={
        "item_id": st.sampled_from(["msg_0", "msg_1", "", None, 3]),
        "output_index": st.sampled_from([0, 1, True, 1.0, None, 300]),
        "content_index": st.sampled_from([0, 1, True, "0"]),
        "delta": st.sampled_from(["a", "", "\ud83d", "\ude00", "é", None, 3]),
        "text": st.sampled_from(["a", "ab"]),
        "stream_id": st.sampled_from([None, "a"]),
        "response": st.just({"id": "resp_1"}),
    },
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(responses(), st.lists(st.tuples(st.integers(0, 40), odd), max_size=8))
def test_events_of_any_shape_in_between(items: list[dict[str, Any]], strange: list[tuple[int, dict[str, Any]]]) -> None:
    stream = well_formed(items)
    for place, raw in strange:
        stream.insert(min(place, len(stream) - 1), raw)
    compare(stream)


def test_most_deltas_go_the_short_way() -> None:
    stream = well_formed(RESPONSES["one text"])
    place = next(number for number, raw in enumerate(stream) if raw["type"] == DELTA)
    stream[place : place + 1] = [{**stream[place], "delta": letter} for letter in stream[place]["delta"] * 100]
    deltas = sum(raw["type"] == DELTA for raw in stream)
    assert compare(stream) >= deltas - 2


def test_nothing_of_a_turn_that_was_left_goes_the_short_way() -> None:
    exchange = Exchange()
    exchange.dispatched()
    for raw in well_formed(RESPONSES["one text"])[:6]:
        exchange.receive(decode_object(raw))
    assert exchange.shortcut is not None
    exchange.abandon()
    assert exchange.shortcut is None
    assert not isinstance(exchange.outcome, AssistantMessage)
