"""Turns on several lanes, most of them left, on servers that say too much, too late and under other names.

Every prompt has a number that no other has, and its answer repeats it: nothing that a turn shows may be of another's.
Beside `test_scale_chaos`, whose turns all stay to their end, this is about what comes after a turn was left or failed.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, get_args

import attrs
import pytest
import trio
from trio.testing import MockClock

import engine
from engine import OnCancel, Profile, TextDelta, Timeouts, Transport
from engine.simulator import (
    Asked,
    Completed,
    Created,
    Delay,
    Error,
    Failed,
    Quirks,
    Say,
    SayDelta,
    Step,
    open_simulator,
)
from engine.simulator.distortions import Events, Indexes, ItemIds, ResponseIds

pytestmark = pytest.mark.slow

UNPROVEN = Profile("unproven", multiplexing=True)
BUDGETS = Timeouts(first_event=2, idle=2, start=8, turn=12, drain=1, close=0.2)
LANES = (None, None, "a", "b", "c")
CALLERS = 6
TURNS = 12


def answer(nonce: str) -> str:
    return f"<{nonce}>" * 6


def answered(asked: Asked, rng: random.Random) -> list[Step]:
    """An answer, or a refusal or failure with more of the answer behind it, or an answer with something behind it."""
    whole = answer(asked.last_user_text)
    begun: list[Step] = [Created(), SayDelta(whole[:5]), Delay(rng.random() / 2)]
    stories: list[list[Step]] = [
        *[[Delay(rng.random() * 0.3), Say(whole, size=2, pause=rng.random() * 0.1)]] * 6,
        [*begun, Error(rng.choice([429, 500, 503])), SayDelta(whole[5:])],
        [*begun, Failed("server_error"), Delay(0.1), SayDelta(whole[5:])],
        [Error(400, "previous_response_not_found"), Delay(rng.random() * 0.2), SayDelta(whole)],
        [Created(), Say(whole), Completed(), Delay(rng.random() * 0.2), SayDelta("late " + whole)],
        [*begun, Delay(5), SayDelta(whole[5:])],
    ]
    return rng.choice(stories)


def habits(rng: random.Random) -> Quirks:
    events = [value for value in get_args(Events) if value != "deltas_twice"]  # what is shown cannot be right then
    return Quirks(
        item_ids=rng.choice((None, *get_args(ItemIds))),
        response_ids=rng.choice((None, *get_args(ResponseIds))),
        indexes=rng.choice((None, *get_args(Indexes))),
        events=rng.choice((None, *events)),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("labels", ["proven", "unproven", "ignored"])
async def test_nothing_of_a_turn_that_was_left_is_shown_in_another(
    autojump_clock: MockClock, labels: str, seed: int
) -> None:
    rng = random.Random(f"{labels} {seed}")
    quirks = habits(rng)
    if labels == "ignored":
        quirks = attrs.evolve(quirks, lanes="ignored")
    policy, transport = rng.choice(list(OnCancel)), rng.choice([Transport.AUTO, Transport.WEBSOCKET])
    shown: dict[str, tuple[str, str]] = {}
    ends: Counter[str] = Counter()

    async def call(eng: engine.Engine, caller: int) -> None:
        for number in range(TURNS):
            session, lane = await eng.session(f"s{caller % 2}"), rng.choice(LANES)
            nonce = f"n{caller}.{number}"
            turn = (session if lane is None else session.lane(lane)).turn(nonce)
            ends[await ended(turn, nonce)] += 1
            await trio.sleep(rng.random() * 0.3)

    async def ended(turn: engine.Turn, nonce: str) -> str:
        text = ""
        try:
            with trio.move_on_after(rng.choice([0.05, 0.2, 0.5, 30])) as scope:
                async with turn:
                    async for event in turn:
                        text += event.delta if isinstance(event, TextDelta) else ""
        except engine.TurnError as error:
            return type(error).__name__
        finally:
            shown[nonce] = text, turn.partial.text
        return "left" if scope.cancelled_caught else "answered"

    def brain(asked: Asked) -> list[Step]:
        return answered(asked, rng)

    options: Any = {"on_cancel": policy, "transport": transport, "timeouts": BUDGETS}
    async with open_simulator(in_memory=True, brain=brain, quirks=quirks, seed=seed) as sim:
        endpoint = sim.endpoint if labels == "proven" else attrs.evolve(sim.endpoint, profile=UNPROVEN)
        async with engine.open_engine(endpoint, model="m", dialer=sim.dialer, **options) as eng:
            async with trio.open_nursery() as callers:
                for caller in range(CALLERS):
                    callers.start_soon(call, eng, caller)
        assert sim.errors == []
    foreign = {nonce: got for nonce, got in shown.items() if not all(answer(nonce).startswith(text) for text in got)}
    assert foreign == {}
    assert len(shown) == CALLERS * TURNS
    assert min(ends["answered"], ends["left"]) > TURNS  # that much has to happen for the rest to mean anything
