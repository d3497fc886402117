"""Interrupting the process: a bare KeyboardInterrupt comes out, and everything else holds as after a cancellation.

Before a scheduler step the signal meets Trio itself, which hands it to the main task's next checkpoint. Between two
instructions it is raised where it comes, in whichever task that is.
"""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
import scenarios
import trio
import trio.testing
from policies import ONE_WAY
from stepping import Scenario, instructions, interrupt, repeatable, signal_places, sweep

import engine
from engine import OnCancel, simulator

pytestmark = pytest.mark.slow

PLACE_STRIDE = 16
IN_THE_MAIN_TASK = (
    scenarios.ASK,
    scenarios.QUEUE,
    scenarios.LEAVE_FROZEN,  # where a turn that is not left for good never ends by itself
    scenarios.RELEASE,
    scenarios.LIFE,
    scenarios.EXIT,
    scenarios.STEER_AND_LEAVE,
)
IN_ANY_TASK = (
    scenarios.CONNECT,
    scenarios.STREAM,
    scenarios.STEER,
    scenarios.WARM_UP,
    scenarios.LEAVE,
    scenarios.LIFE,
    scenarios.EXIT,
    scenarios.LEAVE_OVER_HTTP,
    scenarios.FALL_BACK,
)

STATEFUL = (
    "/registry.py",
    "/tasks.py",
    "/pool.py",
    "/websocket_link.py",
    "/http_link.py",
    "/receiver.py",
    "/channels.py",
    "/attempt.py",
    "/core.py",
    "/lane.py",
    "/work.py",
    "/turn.py",
    "/admission.py",
    "/additions.py",
    "/steering.py",
    "/inbox.py",
    "/budgets.py",
    "/websocket.py",
    "/tap.py",
    "/dial.py",
)
"""Where an interrupt can leave something half done; reading and writing messages leaves nothing behind."""


def named(scenario: Scenario) -> str:
    return scenario.name


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=named)
@repeatable
def test_interrupted_at_every_step(scenario: Scenario, scheduling: object) -> None:
    policy = scenario.policies[scenarios.ALL.index(scenario) % len(scenario.policies)]
    assert sweep(scenario, policy, blow="interrupt") >= scenario.points


@instructions
@pytest.mark.parametrize("scenario", IN_THE_MAIN_TASK, ids=named)
@repeatable
def test_interrupted_wherever_the_main_task_is(scenario: Scenario, scheduling: object) -> None:
    places = [place for place in signal_places(scenario) if place[2] and place[0].co_filename.endswith(STATEFUL)]
    assert interrupt(scenario, OnCancel.CLOSE, places) >= 0.9 * len(places) >= 10


@instructions
@pytest.mark.parametrize("scenario", IN_ANY_TASK, ids=named)
@repeatable
def test_interrupted_in_tasks_of_the_engine(scenario: Scenario, scheduling: object) -> None:
    places = [place for place in signal_places(scenario) if not place[2]]
    sample = places[IN_ANY_TASK.index(scenario) % PLACE_STRIDE :: PLACE_STRIDE]
    # A place that only some orders of tasks lead to may not be reached again.
    assert interrupt(scenario, OnCancel.CLOSE, sample) >= 0.8 * len(sample) >= 3


class Striking(engine.Instrument):
    """Presses Ctrl-C when a turn ends."""

    def turn_ended(self, *_: object) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("attempt", range(8))  # tasks run in another order each time
def test_an_interrupt_while_a_batch_ends_its_connection_comes_out(attempt: int) -> None:
    """The batch may have been handed on by trio-websocket's reader, which is then cancelled."""
    limit = simulator.Error(code="websocket_connection_limit_reached", message="It is over.")
    script = simulator.Script([[simulator.Created(), simulator.SayDelta("a"), simulator.Delay(1), limit]])

    async def main() -> None:
        async with (
            simulator.open_simulator(in_memory=True, brain=script) as sim,
            engine.open_session(
                sim.endpoint, dialer=sim.dialer, model="m", instruments=[Striking()], **ONE_WAY
            ) as session,
        ):
            with suppress(engine.TurnError):
                await session.ask("hi")
            await trio.sleep(1)
            pytest.fail("went on after an interrupt")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
