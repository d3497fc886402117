"""Lanes, forks and steers by a state machine: the server's history is what each lane's client holds, after every step.

Rules draw a server, open lanes, fork them, talk on them, steer, hold answers back, leave turns, break connections and
let time pass, in any order. The engine and the simulator live in a thread of their own, in memory, where virtual time
stands still unless a rule lets it pass.

To look further, with fresh seeds and as many runs as wanted::

    PROPERTY_EXAMPLES=1000 pytest -m slow tests/properties/test_property_lanes.py --timeout=0 --hypothesis-seed=7

With ``PROPERTY_UNSHRUNK=1`` a failure is reported as found, which is quicker.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import attrs
import pytest
import trio
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

import engine
from engine.protocol.request_body import input_items
from engine.simulator import (
    Abort,
    Asked,
    Created,
    Delay,
    Error,
    Failed,
    Gate,
    InProgress,
    Quirks,
    Say,
    SayDelta,
    Simulator,
    Stall,
    Step,
    open_simulator,
)

pytestmark = pytest.mark.slow

_EXAMPLES: Final = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
_T = TypeVar("_T")

BUDGETS: Final = engine.Timeouts(queue=20, start=15, connect=4, first_event=6, idle=8, drain=2, close=1, warm_up=3)
MOST: Final = 7
"""Lanes in one run."""


@attrs.frozen
class Server:
    """A kind of server, and how the client sees it.

    Attributes:
        multiplexing: Whether its profile says that it multiplexes.
        proven: Whether the profile vouches for that.
        ignores: Whether it ignores the names of lanes.
        max_lanes: The number of names on a connection.
        max_active: The number of places on a connection.
        policy: The client's cancel policy.
        store: Whether responses are stored.
    """

    multiplexing: bool
    proven: bool
    ignores: bool
    max_lanes: int
    max_active: int
    policy: engine.OnCancel
    store: bool

    @property
    def profile(self) -> engine.Profile:
        return engine.Profile(
            "drawn",
            multiplexing=self.multiplexing,
            proven=self.proven,
            steering=True,
            max_lanes=self.max_lanes,
            max_active=self.max_active,
        )


SERVERS: Final = st.builds(
    Server,
    multiplexing=st.sampled_from([True, True, True, False]),
    proven=st.booleans(),
    ignores=st.sampled_from([False, False, False, True]),
    max_lanes=st.sampled_from([3, 5, 32]),
    max_active=st.sampled_from([2, 3, 16]),
    policy=st.sampled_from(engine.OnCancel),
    store=st.booleans(),
)

WAYS: Final = ("at once", "at once", "held", "held back", "slow", "refused", "failed", "limited", "aborted", "endless")
"""What a server does with a prompt for the first time; whatever is sent again is answered at once."""


@attrs.define(eq=False)
class Prompt:
    """One prompt, and what becomes of it."""

    text: str
    way: str
    gate: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    reply: engine.Reply | None = None
    steers: list[str] = attrs.field(factory=list)
    """The inputs that the server has accepted for it, in order."""

    @property
    def answer(self) -> str:
        return f"the answer to {self.text}"


@attrs.define(eq=False)
class Talk:
    """One lane, as the model has it.

    Attributes:
        said: What was asked and answered, in turn.
        running: The prompt that waits for its answer.
    """

    lane: engine.Lane
    chat: engine.Conversation
    said: list[str]
    running: Prompt | None = None


class World:
    """The engine and its server, and what is known of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.prompts: dict[str, Prompt] = {}
        self.asked: set[str] = set()
        self.outcomes: list[str] = []
        self.talks: list[Talk] = []
        self.sim: Simulator
        self.session: engine.Session
        self.nursery: trio.Nursery
        self.clock = MockClock()
        self._token: trio.lowlevel.TrioToken
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._stop: trio.Event
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        self._ready.wait()

    # --- its thread ---

    def _live(self) -> None:
        try:
            trio.run(self._run, clock=self.clock)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with open_simulator(
            in_memory=True,
            brain=self,
            seed=1,
            quirks=Quirks(lanes="ignored" if self.server.ignores else True),
            max_lanes=self.server.max_lanes,
            max_active=self.server.max_active,
            endpoint_options={"profile": self.server.profile},
        ) as self.sim:
            async with (
                engine.open_session(
                    self.sim.endpoint,
                    model="gpt-6",
                    dialer=self.sim.dialer,
                    timeouts=BUDGETS,
                    on_cancel=self.server.policy,
                    retry=engine.RetryPolicy(jitter=lambda: 0.5),
                    limits=engine.Limits(connection_lifetime=90, idle_lifetime=40),
                ) as self.session,
                trio.open_nursery() as self.nursery,
            ):
                self._ready.set()
                await self._stop.wait()
            assert self.sim.errors == []
            await wait_all_tasks_blocked()
            assert self.sim.open_connections == []

    def do(self, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Have something done there, and everything that it leads to without time passing."""

        async def command() -> _T:
            result = await function(*args)
            await wait_all_tasks_blocked()
            return result

        try:
            return trio.from_thread.run(command, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        if self._thread.is_alive():
            trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    async def sleep(self, seconds: float) -> None:
        self.clock.autojump_threshold = 0
        try:
            await trio.sleep(seconds)
        finally:
            self.clock.autojump_threshold = math.inf

    # --- the server ---

    def reply(self, asked: Asked) -> list[Step]:
        prompt = self.prompts[asked.last_user_text]
        way = "at once" if prompt.text in self.asked else prompt.way
        self.asked.add(prompt.text)
        text, begun = prompt.answer, [Created(), InProgress()]
        match way:
            case "held":
                return [*begun, SayDelta(text[:9]), Gate(prompt.gate), SayDelta(text[9:])]
            case "held back":
                return [Created(), Gate(prompt.gate), InProgress(), Say(text)]
            case "slow":
                return [*begun, *(step for piece in (text[:9], text[9:]) for step in (Delay(1), SayDelta(piece)))]
            case "refused":
                return [Error(400, "invalid_prompt", "x", "invalid_request_error")]
            case "failed":
                return [*begun, SayDelta(text[:9]), Failed("invalid_prompt")]
            case "limited":
                return [Error(429, "rate_limit_exceeded", "x", "rate_limit_error", headers={"retry-after": "1"})]
            case "aborted":
                return [*begun, Abort()]
            case "endless":
                return [*begun, SayDelta(text[:9]), Stall()]
        return [*begun, Say(text)]

    # --- the client ---

    async def open(self, name: str, parent: Talk | None, leave: bool) -> Talk:
        if leave and parent is not None and parent.running is not None:
            parent.running.scope.cancel(reason="the caller leaves")
        lane = self.session.lane(name) if parent is None else parent.lane.fork(name)
        options = engine.TurnOptions(store=self.server.store)
        talk = Talk(lane, lane.conversation(options=options), [] if parent is None else list(parent.said))
        self.talks.append(talk)
        return talk

    async def send(self, talk: Talk, prompt: Prompt) -> None:
        self.prompts[prompt.text] = prompt
        talk.running = prompt
        self.nursery.start_soon(self._send, talk, prompt)

    async def _send(self, talk: Talk, prompt: Prompt) -> None:
        with prompt.scope:
            before = len(talk.said)
            try:
                async with talk.chat.stream(prompt.text) as prompt.reply:
                    async for _ in prompt.reply:
                        pass
            except engine.TurnError as error:
                self.outcomes.append(f"{prompt.way}: {type(error).__name__}")
                partial = error.partial.text if error.partial is not None else ""
                if not prompt.steers and not prompt.answer.startswith(partial):
                    raise AssertionError(f"{prompt.text} was shown {partial!r}") from error
            else:
                said = [text for _, text in spoken(input_items(talk.chat.messages, stored=self.server.store))]
                assert said[:before] == talk.said
                applied = self._check(prompt, said[before:])
                self.outcomes.append(f"{prompt.way}: answered, {applied} of {len(prompt.steers)} steers applied")
                talk.said = said
        talk.running = None

    def _check(self, prompt: Prompt, said: list[str]) -> int:
        """Compare what was added to a transcript with what was asked, and say how much of it steering was."""
        assert said[0] == prompt.text
        answers, steers = said[1:], []
        own = [prompt.answer]
        for text in answers:
            if text in self.prompts:
                steers.append(text)
                own.append(self.prompts[text].answer)
            else:
                assert any(each.startswith(text) for each in own), f"{text!r} is none of {own}"
        assert said[-1] == own[-1], f"{said[-1]!r} is not {own[-1]!r}"
        assert set(steers) <= set(prompt.steers)
        return len(steers)

    async def steer(self, prompt: Prompt, text: str) -> None:
        self.prompts[text] = Prompt(text, "at once")
        self.nursery.start_soon(self._steer, prompt, text)

    async def _steer(self, prompt: Prompt, text: str) -> None:
        if prompt.reply is None:
            return
        prompt.steers.append(text)
        try:
            await prompt.reply.steer(text)
        except engine.SteerRejected as refusal:
            prompt.steers.remove(text)
            self.outcomes.append(f"steer: {refusal.code}")
        except (engine.TurnError, RuntimeError) as error:
            self.outcomes.append(f"steer: {type(error).__name__}")
        else:
            self.outcomes.append("steer: accepted")

    async def warm_up(self, talk: Talk) -> None:
        with trio.move_on_after(0):
            await talk.lane.warm_up("hello")


def spoken(items: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The roles and words of input items."""
    said: list[tuple[str, str]] = []
    for item in items:
        content = item["content"]
        said.append((item["role"], content if isinstance(content, str) else "".join(part["text"] for part in content)))
    return said


class Lanes(RuleBasedStateMachine):
    """The rules."""

    talks = Bundle("talks")

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.numbers = itertools.count(1)

    @property
    def there(self) -> World:
        assert self.world is not None
        return self.world

    def open(self, parent: Talk | None = None, *, leave: bool = False) -> Any:
        if len(self.there.talks) == MOST:
            return multiple()
        return self.there.do(self.there.open, f"lane {next(self.numbers)}", parent, leave)

    @initialize(target=talks, server=SERVERS)
    def start(self, server: Server) -> Any:
        self.world = World(server)
        return multiple(*(self.open() for _ in range(3)))

    @rule(target=talks)
    def open_lane(self) -> Any:
        return self.open()

    @rule(target=talks, parent=talks)
    def fork(self, parent: Talk) -> Any:
        return self.open(parent)

    @rule(talk=talks, way=st.sampled_from(WAYS))
    def send(self, talk: Talk, way: str) -> None:
        if talk.running is None:
            self.there.do(self.there.send, talk, Prompt(f"prompt {next(self.numbers)}", way))

    @rule(talk=talks, beside=talks, ways=st.tuples(st.sampled_from(WAYS), st.sampled_from(WAYS)))
    def send_at_once(self, talk: Talk, beside: Talk, ways: tuple[str, str]) -> None:
        """Two prompts in one tick."""

        async def both() -> None:
            for each, way in zip((talk, beside), ways, strict=True):
                if each.running is None:
                    await self.there.send(each, Prompt(f"prompt {next(self.numbers)}", way))

        self.there.do(both)

    @rule(talk=talks)
    def let_go(self, talk: Talk) -> None:
        """Let an answer that is held back go on."""

        async def let() -> None:
            if talk.running is not None:
                talk.running.gate.set()

        self.there.do(let)

    @rule(talk=talks, letting_go=st.booleans())
    def steer(self, talk: Talk, letting_go: bool) -> None:
        """Steer a response, and perhaps let it come to its end in the same tick."""

        async def steer() -> None:
            if talk.running is not None:
                await self.there.steer(talk.running, f"prompt {next(self.numbers)}")
                if letting_go:
                    talk.running.gate.set()

        self.there.do(steer)

    @rule(talk=talks, inputs=st.integers(1, 2), end=st.sampled_from(["let go", "leave", "time", "abort", "hold"]))
    def send_and_steer(self, talk: Talk, inputs: int, end: str) -> None:
        """A prompt whose answer is held back, with input for it, and then its end one way or another."""
        if talk.running is not None:
            return
        prompt = Prompt(f"prompt {next(self.numbers)}", "held")
        self.there.do(self.there.send, talk, prompt)
        for _ in range(inputs):
            self.there.do(self.there.steer, prompt, f"prompt {next(self.numbers)}")
        match end:
            case "let go":
                self.let_go(talk)
            case "leave":
                self.leave(talk)
            case "time":
                self.wait(1.0)
            case "abort":
                self.disturb("abort")

    @rule(parent=talks, target=talks, way=st.sampled_from(WAYS), beside=st.sampled_from(WAYS))
    def fork_and_send(self, parent: Talk, way: str, beside: str) -> Any:
        """A fork that goes on in the same tick as its parent."""
        if len(self.there.talks) == MOST:
            return multiple()
        fork = self.open(parent)
        self.send_at_once(fork, parent, (way, beside))
        return fork

    @rule(talk=talks)
    def leave(self, talk: Talk) -> None:
        async def cancel() -> None:
            if talk.running is not None:
                talk.running.scope.cancel(reason="the caller leaves")

        self.there.do(cancel)

    @rule(parent=talks, target=talks)
    def fork_and_leave(self, parent: Talk) -> Any:
        """A fork in the very tick in which its parent is cancelled."""
        return self.open(parent, leave=True)

    @rule(talk=talks)
    def warm_up(self, talk: Talk) -> None:
        self.there.do(self.there.warm_up, talk)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 9.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.there.do(self.there.sleep, seconds)

    @precondition(lambda self: self.world is not None and len(self.world.talks) > 1)
    @rule(how=st.sampled_from(["abort", "close", "forget"]))
    def disturb(self, how: str) -> None:
        async def act() -> None:
            getattr(self.there.sim, how)()

        self.there.do(act)

    # --- what holds ---

    @invariant()
    def histories_agree(self) -> None:
        if self.world is not None:
            self.there.do(self.compare)

    async def compare(self) -> None:
        world = self.there
        for talk in world.talks:
            mine = spoken(input_items(talk.chat.messages, stored=world.server.store))
            if talk.running is None:
                assert [text for _, text in mine] == talk.said, "what the client holds is not what was said"
            newest = talk.chat.messages[-1] if talk.chat.messages else None
            if isinstance(newest, engine.AssistantMessage) and newest.response_id is not None:
                assert spoken(world.sim.history(newest.response_id)) == mine, "the server holds something else"

    @invariant()
    def limits_are_kept(self) -> None:
        if self.world is None:
            return
        server, sim = self.there.server, self.there.sim
        refused = {record.error_code for record in sim.requests} & {
            "websocket_stream_limit_reached",
            "invalid_stream_id",
            "unknown_parameter",
        }
        assert not refused
        for connection in sim.connections:
            assert len(connection.lanes) <= server.max_lanes
            running = [
                each for each in sim.requests if each.connection_id == connection.id and each.status == "running"
            ]
            assert len(running) <= (server.max_active if server.multiplexing else 1)

    def teardown(self) -> None:
        if self.world is not None and self.world.alive:
            try:
                self.there.do(self.finish)
            finally:
                self.there.end()
            for outcome in self.there.outcomes:
                event(outcome)

    async def finish(self) -> None:
        """However it went, every lane is answered again."""
        world = self.there
        for talk in world.talks:
            if talk.running is not None:
                talk.running.gate.set()
        await world.sleep(100)
        for talk in world.talks:
            assert talk.running is None, f"{talk.running} has not ended"
            await world.send(talk, Prompt(f"prompt {next(self.numbers)}", "at once"))
        await world.sleep(5)
        for talk in world.talks:
            assert talk.running is None
            assert world.prompts[talk.said[-2]].text == talk.said[-2]
        await self.compare()
        assert all(talk.said[-2].startswith("prompt") for talk in world.talks)


TestLanes = Lanes.TestCase
TestLanes.settings = settings(
    max_examples=_EXAMPLES or 60,
    stateful_step_count=30,
    derandomize=not _EXAMPLES,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate] if os.environ.get("PROPERTY_UNSHRUNK") else list(Phase),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
