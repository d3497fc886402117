"""Random turns on several lanes, steered, left, cut off and timed out: each gets its own answer, and nothing is lost.

Every text has a number that no other has, and the server repeats what it was told last. After each turn that was
answered, the server's history is what its client holds; what was steered with is there once, or in the report.

To look further, with fresh seeds and as many runs as wanted::

    PROPERTY_EXAMPLES=1000 pytest -m slow tests/properties/test_property_steering.py --timeout=0 --hypothesis-seed=7
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import engine
from engine.protocol.request_body import input_items
from engine.simulator import (
    Abort,
    Call,
    Completed,
    Created,
    Delay,
    Error,
    Failed,
    Say,
    SayDelta,
    Simulator,
    Step,
    open_simulator,
)

pytestmark = pytest.mark.slow

_EXAMPLES: Final = int(os.environ.get("PROPERTY_EXAMPLES", "0"))

LOOK: Final = engine.Tool("look", "Look.", {"type": "object", "properties": {}}, strict=False)
MOMENTS: Final = st.floats(0, 3).map(lambda seconds: round(seconds, 1))


@attrs.frozen
class Plan:
    """One turn: the server's way with its first response, and what its caller does.

    Attributes:
        way: What the server does.
        steers: When it is steered, in seconds.
        leaves: When it is left; None where it is read to its end.
        budget: Its ``turn`` budget.
    """

    way: str
    steers: tuple[float, ...]
    leaves: float | None
    budget: float


PLANS: Final = st.builds(
    Plan,
    way=st.sampled_from(["says", "says", "says more", "ends itself", "calls", "calls", "refuses", "fails", "aborts"]),
    steers=st.lists(MOMENTS, max_size=3).map(lambda moments: tuple(sorted(moments))),
    leaves=st.none() | st.none() | MOMENTS,
    budget=st.sampled_from([30.0, 30.0, 30.0, 1.5]),
)


class Server:
    """A server that repeats what it was told last, in a way that the first word of a prompt names."""

    def reply(self, asked: Any) -> list[Step]:
        if asked.outputs:
            return [Created(), Delay(0.3), Say(asked.outputs[-1]["output"])]
        text = asked.last_user_text
        way, half = text.split()[0], len(text) // 2
        match way:
            case "says":
                return [Created(), Delay(0.2), SayDelta(text[:half]), Delay(1), SayDelta(text[half:])]
            case "says-more":
                return [Created(), Say(text[:half]), Delay(1), Say(text[half:])]
            case "ends-itself":
                return [Created(), SayDelta(text[:half]), Delay(1), SayDelta(text[half:]), Completed()]
            case "calls":
                return [Created(), SayDelta(text), Delay(1), Call("look", {}, call_id=f"call_{text.split()[-1]}")]
            case "refuses":
                return [Error(400, "invalid_prompt")]
            case "fails":
                return [Created(), SayDelta(text[:half]), Delay(1), Failed()]
            case "aborts":
                return [Created(), SayDelta(text[:half]), Delay(1), Abort()]
        return [Created(), Delay(0.1), Say(text)]


def words(item: Any) -> str:
    content = item.get("content", item.get("output", item.get("arguments", "")))
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@attrs.define(eq=False)
class Talk:
    """One lane, and what its client holds."""

    lane: engine.Lane
    sim: Simulator
    number: Callable[[], int]
    messages: list[engine.Message] = attrs.field(factory=list)

    async def turn(self, plan: Plan) -> None:
        prompt = engine.UserMessage(f"{plan.way.replace(' ', '-')} {self.number()}")
        context = engine.Context([*self.messages, prompt], tools=[LOOK])
        taken: list[str] = []
        lost: list[str] = []
        turn = self.lane.turn(context, timeouts=engine.Timeouts(turn=plan.budget))
        try:
            with trio.move_on_after(plan.leaves or 100):
                async with turn, trio.open_nursery() as nursery:
                    for moment in plan.steers:
                        nursery.start_soon(self._steer, turn, moment, taken, lost)
                    await turn.wait()
                    nursery.cancel_scope.cancel(reason="the turn is over")
        except* engine.TurnError as group:
            event(type(group.exceptions[0]).__name__)
        unapplied = [words(item) for item in turn.report.unapplied]
        assert set(taken).isdisjoint(lost)
        assert set(unapplied).isdisjoint(lost)
        if not turn.answered:
            return
        said = [words(item) for item in input_items(turn.messages, stored=False) if item.get("role") == "user"]
        assert sorted([*said, *unapplied]) == sorted({*taken, *said, *unapplied}), "each is there once"
        assert set(taken) <= {*said, *unapplied}
        event(f"{len(said)} applied to what {plan.way}")
        self.messages += [prompt, *turn.messages]
        if not turn.message.unanswered:
            self.check(turn.message)
            return
        results = [engine.ToolResult(call.call_id, f"out {self.number()}") for call in turn.message.unanswered]
        self.messages += results
        answer = await self.lane.ask(engine.Context(self.messages, tools=[LOOK]))
        assert answer.text == results[-1].text
        self.messages.append(answer)
        self.check(answer)

    async def _steer(self, turn: engine.Turn, moment: float, taken: list[str], lost: list[str]) -> None:
        await trio.sleep(moment)
        text = f"more {self.number()}"
        try:
            await turn.steer(text)
        except engine.SteerRejected as error:
            event(f"refused: {error.code}")
            lost.append(text)
        else:
            taken.append(text)

    def check(self, answer: engine.AssistantMessage) -> None:
        held = [(item.get("role") or item["type"], words(item)) for item in self.sim.history(answer.response_id or "")]
        mine = [(item.get("role") or item["type"], words(item)) for item in input_items(self.messages, stored=False)]
        assert held == mine


@settings(
    max_examples=_EXAMPLES or 60,
    derandomize=not _EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    plans=st.lists(st.lists(PLANS, min_size=1, max_size=4), min_size=1, max_size=3),
    policy=st.sampled_from(engine.OnCancel),
    scheduling=st.random_module(),
)
def test_steered_turns_on_several_lanes(plans: list[list[Plan]], policy: engine.OnCancel, scheduling: object) -> None:
    async def main() -> None:
        numbers = itertools.count(1)
        async with open_simulator(in_memory=True, brain=Server(), seed=1) as sim:
            async with engine.open_session(
                sim.endpoint,
                model="gpt-6-test",
                dialer=sim.dialer,
                on_cancel=policy,
                retry=engine.RetryPolicy(jitter=lambda: 0.5),
                timeouts=engine.Timeouts(idle=5, first_event=5, start=20),
            ) as session:

                async def talk(name: str, turns: list[Plan]) -> None:
                    talk = Talk(session.lane(name), sim, lambda: next(numbers))
                    for plan in turns:
                        await talk.turn(plan)
                    last = f"last {next(numbers)}"
                    assert (await session.lane(name).ask(last)).text == last

                async with trio.open_nursery() as nursery:
                    for number, turns in enumerate(plans):
                        nursery.start_soon(talk, f"lane {number}", turns)
            assert sim.errors == []

    trio.run(main, clock=MockClock(autojump_threshold=0))
