"""Short runs of chaos; the long one is a command, see `chaos`."""

from __future__ import annotations

import pytest
from chaos import Chaos, chaos
from trio.testing import MockClock

import engine
from engine.simulator import Quirks

pytestmark = pytest.mark.slow

AUTO, WEBSOCKET, SSE = engine.Transport.AUTO, engine.Transport.WEBSOCKET, engine.Transport.SSE


@pytest.mark.parametrize(
    "plan",
    [
        Chaos(150, seed=0),
        Chaos(80, seed=1, resend_ambiguous=0),
        Chaos(80, seed=2, max_dispatches=1),
        Chaos(100, seed=3, transport=WEBSOCKET),
        Chaos(80, seed=4, transport=SSE),
        Chaos(80, seed=5, quirks=Quirks(item_ids="renewed", indexes="growing", response_ids="renewed")),
        Chaos(80, seed=6, quirks=Quirks(item_ids="one_for_all", response_ids="one_for_all", events="late")),
        Chaos(80, seed=7, quirks=Quirks(indexes="missing", response_ids="empty", events="deltas_only")),
        Chaos(80, seed=8, quirks=Quirks(item_ids="swapped_at_the_end", events="twice"), transport=WEBSOCKET),
        Chaos(160, seed=9, quirks=Quirks(item_ids="null", indexes="shifted", events="items_done_only"), transport=SSE),
        Chaos(150, seed=10, lanes=4),
        Chaos(100, seed=11, transport=WEBSOCKET, lanes=16),
    ],
    ids=str,
)
async def test_every_turn_ends_with_its_own_answer_or_an_error_and_the_books_agree(
    autojump_clock: MockClock, plan: Chaos
) -> None:
    tally = await chaos(plan)
    assert tally.wrong == []
    assert sum(tally.outcomes.values()) == plan.turns
    # That much has to happen for the rest to mean anything.
    assert tally.outcomes["answered"] > plan.turns // 3
    assert len(tally.outcomes) > 3
    assert len({"refuse", "hang", "reset", "eof", "stall"} & {*tally.injected}) >= 3
    # Over WebSockets alone hardly a failure allows it: most come once the server may have begun.
    assert tally.books["turns sent again"] > 0 or plan.max_dispatches == 1 or plan.transport is WEBSOCKET
    assert (tally.books["turns over HTTP"] > 0) == (plan.transport is not WEBSOCKET)
