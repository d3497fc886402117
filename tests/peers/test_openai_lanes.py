"""The lane helper of the official client and ours in the same scenarios, on the same server.

A scenario is written once, against a `Lane` that either client can be. What the server holds in the end has to be the
same; where the helper leaves to its caller what is done here (limits, the barrier of a fork, recovery), a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import pytest
import trio
from openai import AsyncOpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketLane,
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
)

import engine
from engine.simulator import (
    Asked,
    Completed,
    Created,
    Delay,
    Error,
    InProgress,
    Quirks,
    Say,
    SayDelta,
    Simulator,
    Step,
    open_simulator,
)

LIMITS = ResponsesWebSocketLimits(
    max_lanes=64,
    max_events_per_lane=1000,
    max_events=10_000,
    max_bytes_per_lane=1 << 24,
    max_bytes=1 << 25,
    max_response_bytes=None,
)


class Lane(Protocol):
    """A lane of one of the two clients, on which each prompt continues the answer before."""

    async def ask(self, text: str) -> str: ...

    def fork(self, name: str) -> Lane: ...


class Client(Protocol):
    """One of the two clients."""

    def lane(self, name: str) -> Lane: ...


Scenario = Callable[[Client], Awaitable[None]]


class Refused(Exception):
    """The server refused a prompt, with this code."""


# --- ours ------------------------------------------------------------------------------------------------------------


class OurLane:
    def __init__(self, lane: engine.Lane) -> None:
        self._lane = lane
        self._chat = lane.conversation()

    async def ask(self, text: str) -> str:
        try:
            return (await self._chat.send(text)).text
        except engine.RequestRejected as refusal:
            raise Refused(refusal.code) from None

    def fork(self, name: str) -> OurLane:
        return OurLane(self._lane.fork(name))


class OurClient:
    def __init__(self, session: engine.Session) -> None:
        self._session = session

    def lane(self, name: str) -> OurLane:
        return OurLane(self._session.lane(name))


async def ours(sim: Simulator, scenario: Scenario) -> None:
    async with engine.open_session(sim.endpoint, model="m", transport="websocket") as session:
        await scenario(OurClient(session))


# --- theirs ----------------------------------------------------------------------------------------------------------


class TheirLane:
    def __init__(self, session: AsyncResponsesWebSocketSession, name: str, last: str | None = None) -> None:
        self._session = session
        self.lane: AsyncResponsesWebSocketLane = session.lane(name)
        self._last = last

    async def ask(self, text: str) -> str:
        create: Any = {"type": "response.create", "model": "m", "store": False, "input": text}
        if self._last is not None:
            create["previous_response_id"] = self._last
        await self.lane.send(create)
        try:
            response = await self.lane.get_final_response()
        except ResponsesWebSocketError as error:
            self._last = None  # it is evicted with the refusal, and a helper that keeps no history has lost it
            raise Refused(error.event.error.code) from None  # type: ignore[union-attr]
        self._last = response.id
        return response.output_text

    def fork(self, name: str) -> TheirLane:
        return TheirLane(self._session, name, self._last)


class TheirClient:
    def __init__(self, session: AsyncResponsesWebSocketSession) -> None:
        self._session = session

    def lane(self, name: str) -> TheirLane:
        return TheirLane(self._session, name)


@asynccontextmanager
async def their_session(sim: Simulator) -> AsyncIterator[AsyncResponsesWebSocketSession]:
    async with (
        AsyncOpenAI(base_url=sim.base_url, api_key=sim.api_key, max_retries=0, timeout=20) as client,
        client.responses.connect(websocket_connection_options={"max_size": None}) as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        yield session


async def theirs(sim: Simulator, scenario: Scenario) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), their_session(sim) as session:
            await scenario(TheirClient(session))

    await trio.to_thread.run_sync(asyncio.run, main())


async def raw_theirs(sim: Simulator, work: Callable[[AsyncResponsesWebSocketSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), their_session(sim) as session:
            await work(session)

    await trio.to_thread.run_sync(asyncio.run, main())


# --- scenarios -------------------------------------------------------------------------------------------------------


async def sixteen(client: Client) -> None:
    """Sixteen lanes at once, twice each."""

    async def talk(number: int) -> None:
        lane = client.lane(f"lane-{number:02}")
        for turn in range(2):
            text = f"number {number}, {turn}"
            assert await lane.ask(text) == text

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(talk, number)


async def twenty(client: Client) -> None:
    """More at once than there are places."""

    async def talk(number: int) -> None:
        assert await client.lane(f"lane-{number:02}").ask(f"number {number}") == f"number {number}"

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(talk, number)


async def critics(client: Client) -> None:
    """A plan, eight critics forked from it, and the plan again."""
    plan = client.lane("plan")
    await plan.ask("the plan")
    forks = [plan.fork(f"critic-{number}") for number in range(8)]

    async def criticise(number: int) -> None:
        assert await forks[number].ask(f"critic {number}") == f"critic {number}"

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(criticise, number)
    assert await plan.ask("merged") == "merged"
    assert await forks[3].fork("of-a-fork").ask("once more") == "once more"


async def refusal(client: Client) -> None:
    """One lane is refused while others go on."""

    async def fail() -> None:
        with pytest.raises(Refused, match="invalid_prompt"):
            await client.lane("bad").ask("refuse this")

    async def talk(number: int) -> None:
        assert await client.lane(f"good-{number}").ask(f"number {number}") == f"number {number}"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        for number in range(4):
            tasks.start_soon(talk, number)


def brain(asked: Asked) -> list[Step]:
    text = asked.last_user_text
    if text.startswith("refuse"):
        return [Error(400, "invalid_prompt", "x", "invalid_request_error")]
    return [Created(), InProgress(), SayDelta(text[:3]), Delay(0.02), SayDelta(text[3:])]


def histories(sim: Simulator) -> list[str]:
    """Everything that the server holds after each response, in words, whatever the order they ended in."""
    found = []
    for record in sim.requests:
        if record.response_id is not None and record.status == "completed":
            items = sim.history(record.response_id)
            found.append(" | ".join("".join(part["text"] for part in item["content"]) for item in items))
    return sorted(found)


@pytest.mark.parametrize("scenario", [sixteen, twenty, critics, refusal], ids=lambda each: each.__name__)
async def test_both_clients_leave_the_same_histories(scenario: Scenario) -> None:
    left = []
    for client in (ours, theirs):
        async with open_simulator(brain=brain) as sim:
            await client(sim, scenario)
            assert sim.errors == []
            assert [record.transport for record in sim.connections] == ["websocket"]
            left.append((histories(sim), sorted(record.status for record in sim.requests)))
    assert left[0] == left[1]
    assert len(left[0][0]) >= 4


# --- what the helper leaves to its caller ----------------------------------------------------------------------------


async def names(client: Client) -> None:
    for number in range(6):
        await client.lane(f"lane-{number}").ask("hello")


async def test_names_that_are_used_up() -> None:
    """The helper's caller counts them; here an idle lane gives its own up."""
    profile = engine.Profile("few", multiplexing=True, proven=True, max_lanes=4)
    options: dict[str, Any] = {"max_lanes": 4, "endpoint_options": {"profile": profile}}
    async with open_simulator(brain=brain, **options) as sim:
        with pytest.raises(Refused, match="websocket_stream_limit_reached"):
            await theirs(sim, names)
    async with open_simulator(brain=brain, **options) as sim:
        await ours(sim, names)
        assert [record.status for record in sim.requests] == ["completed"] * 6


def slow_forks(asked: Asked) -> list[Step]:
    """A server whose forks are created at once, and begin a little later."""
    late = 0.1 if asked.last_user_text.startswith("fork") else 0.0
    return [Created(), Delay(late), InProgress(), Say(asked.last_user_text)]


async def test_a_parent_that_goes_on_too_early() -> None:
    """The barrier of a fork is the helper's caller's to keep: of a queue, the fork may find its parent gone."""

    async def early(session: AsyncResponsesWebSocketSession) -> None:
        async def send(lane: AsyncResponsesWebSocketLane, text: str, until: str | None, **body: Any) -> None:
            create: Any = {"type": "response.create", "model": "m", "store": False, "input": text, **body}
            await lane.send(create)
            while until is not None and (await lane.recv()).type != until:
                pass

        plan, fork, busy = session.lane("plan"), session.lane("fork"), session.lane("busy")
        await send(plan, "the plan", None)
        last = (await plan.get_final_response()).id
        await send(busy, "fork: takes a place", "response.created")
        await send(plan, "go on", "response.queued", previous_response_id=last)
        await send(fork, "fork", None, previous_response_id=last)
        with pytest.raises(ResponsesWebSocketError) as caught:
            await fork.get_final_response()
        assert caught.value.event.error.code == "previous_response_not_found"  # type: ignore[union-attr]

    async def forked(client: Client) -> None:
        plan = client.lane("plan")
        await plan.ask("the plan")
        fork = plan.fork("fork")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.lane("busy").ask, "fork: takes a place")
            await anyio.sleep(0.02)
            tasks.start_soon(fork.ask, "fork")
            tasks.start_soon(plan.ask, "go on")

    async with open_simulator(brain=slow_forks, max_active=1) as sim:
        await raw_theirs(sim, early)
    async with open_simulator(brain=slow_forks, max_active=1) as sim:
        await ours(sim, forked)
        assert {record.error_code for record in sim.requests} == {None}
        assert "the plan | the plan | fork | fork" in histories(sim)


async def two(client: Client) -> None:
    async def talk(number: int) -> None:
        for turn in range(2):
            text = f"number {number}, {turn}"
            assert await client.lane(f"lane-{number}").ask(text) == text

    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(talk, number)


async def test_a_server_that_ignores_names() -> None:
    """The helper waits for labels that never come; here the server is found out, and no answer goes astray."""
    options: dict[str, Any] = {"quirks": Quirks(lanes="ignored")}
    profile = engine.Profile("claims", multiplexing=True)

    async def unanswered(session: AsyncResponsesWebSocketSession) -> None:
        lane = session.lane("one")
        await lane.send({"type": "response.create", "model": "m", "input": "hello"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await lane.get_final_response()

    async with open_simulator(brain=brain, **options) as sim:
        await raw_theirs(sim, unanswered)
    async with open_simulator(brain=brain, endpoint_options={"profile": profile}, **options) as sim:
        await ours(sim, two)
        assert [record.status for record in sim.requests] == ["completed"] * 4


# --- steering, typed -------------------------------------------------------------------------------------------------


def steered(asked: Asked) -> list[Step]:
    if asked.body.get("previous_response_id") is not None:
        return [Say(f"now {asked.last_user_text}")]
    return [Created(), InProgress(), SayDelta("first "), Delay(0.2), SayDelta("words"), Completed()]


async def test_its_steering_on_a_lane_beside_others() -> None:
    """`response.steer` on one lane: its own acknowledgement and successor, and nothing of it on the other lane."""

    async def work(session: AsyncResponsesWebSocketSession) -> None:
        create: Any = {"type": "response.create", "model": "gpt-6-astra", "input": "write"}
        one, two = session.lane("one"), session.lane("two")
        await one.send(create)
        await two.send(create)
        while (event := await one.recv()).type != "response.output_text.delta":
            if event.type == "response.created":
                target = event.response.id
        await one.send({"type": "response.steer", "previous_response_id": target, "input": "shorter"})
        kinds: list[str] = []
        while len([kind for kind in kinds if kind in {"response.completed", "response.incomplete"}]) < 2:
            event = await one.recv()
            kinds.append(event.type)
        assert event.type == "response.completed"
        assert event.response.output_text == "now shorter"
        assert event.response.previous_response_id == target
        assert kinds.count("response.steer.accepted") == 1
        assert (await two.get_final_response()).output_text == "first words"

    async with open_simulator(brain=steered) as sim:
        await raw_theirs(sim, work)
        assert sim.errors == []
        assert [record.successor_of is not None for record in sim.requests] == [False, False, True]
