"""A steered turn whose budget runs out at any moment: before the answer, before its successor, or before its end."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from scenarios import STEERABLE
from stepping import Scenario, Steps, World, ask_once, repeatable, run, trial

import engine
from engine import OnCancel

pytestmark = pytest.mark.slow

STAGES = ("begun", "accepted", "continued", "answered")


async def steered(world: World, seconds: float, reached: Callable[[str], None]) -> None:
    text, more = world.prompt(), world.prompt("more")
    error: engine.TurnTimeout | None = None
    try:
        async with world.session.turn(text, model=STEERABLE, timeouts=engine.Timeouts(turn=seconds)) as turn:
            reached("begun")
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
            await turn.steer(more)
            reached("accepted")
            async for event in turn:
                if isinstance(event, engine.TurnContinued):
                    reached("continued")
    except engine.TurnTimeout as raised:
        error = raised
    if error is None:
        reached("answered")
        assert turn.message.text == text + more
    else:
        assert error.phase == "turn"
        assert error.partial is None or (text + more).startswith(error.partial.text)
        assert error.report is not None
        waits = ["message"] if turn.report.unapplied else []
        assert [each["type"] for each in error.report.unapplied] == waits


@pytest.mark.parametrize("policy", list(OnCancel))
@repeatable
def test_a_budget_that_runs_out_at_any_moment(policy: OnCancel, scheduling: object) -> None:
    last: list[str] = []
    for number in range(1, 200):
        stages: list[str] = []
        act = functools.partial(steered, seconds=number * 0.017, reached=stages.append)
        scenario = Scenario("expire", act, ask_once, bystander=number % 6 == 0)
        run(functools.partial(trial, scenario, policy, Steps(0)))
        last.append(stages[-1])
        if last[-1] == "answered":
            break
    assert [stage for stage in STAGES if stage in last] == list(STAGES)
