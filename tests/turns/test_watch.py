"""A budget that runs out is told as that, and never while what would have met it waits to be read."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import Created, Delay, Say, SayDelta, Script, open_simulator

BOTH = pytest.mark.parametrize(
    "transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE], ids=lambda transport: transport.value
)
DUE = 5.0


class Unread(trio.abc.Stream):
    """A stream whose bytes wait in the kernel until a moment: the process is busy, and gets to read them only then.

    At that moment other tasks run first: they learn what time it is before anything is read.
    """

    def __init__(self, inner: trio.abc.Stream, until: float) -> None:
        self._inner = inner
        self._until = until

    async def send_all(self, data: Any) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        if 0 < trio.current_time() < self._until:
            await trio.sleep_until(self._until)
            await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.frozen
class BusyDialer:
    """Dials for a process that is busy until a moment."""

    inner: Any
    until: float

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        return Unread(await self.inner.open_tcp(host, port), self.until)

    async def start_tls(self, stream: trio.abc.Stream, **options: Any) -> trio.abc.Stream:
        return await self.inner.start_tls(stream, **options)  # type: ignore[no-any-return]


@BOTH
@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("first_event", [Delay(1), Created(), Delay(9), Say("read in time")]),
        ("start", [Delay(1), Created(), Delay(9), Say("read in time")]),
        ("idle", [Created(), Delay(1), SayDelta("read "), Delay(DUE - 1), SayDelta("in time")]),
    ],
)
async def test_what_waits_in_the_kernel_is_read_before_silence_is_declared(
    autojump_clock: MockClock, budget: str, steps: list[Any], transport: engine.Transport
) -> None:
    budgets: dict[str, Any] = {"first_event": None, "start": None, "idle": None, budget: DUE}
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim:
        dialer = BusyDialer(sim.dialer, until=DUE)
        async with engine.open_session(
            sim.endpoint, model="m", dialer=dialer, transport=transport, timeouts=engine.Timeouts(**budgets)
        ) as session:
            assert (await session.ask("hi")).text == "read in time"


@BOTH
async def test_silence_is_declared_where_nothing_waits(autojump_clock: MockClock, transport: engine.Transport) -> None:
    script = Script([[Created(), Delay(DUE + 0.001), Say("late")]])
    async with session_to(script, transport=transport, timeouts=engine.Timeouts(idle=DUE)) as (session, _):
        with pytest.raises(engine.TurnTimeout) as caught:
            await session.ask("hi")
        assert (caught.value.phase, trio.current_time()) == ("idle", DUE)


@BOTH
@pytest.mark.parametrize("budget", ["turn", "start", "first_event", "idle", "queue", "send"])
async def test_an_expiry_is_no_other_error(autojump_clock: MockClock, budget: str, transport: engine.Transport) -> None:
    """However the deadline falls: before, between, after and in the very instant of what the server says."""
    steps = [Delay(0.2), Created(), *(step for word in "abc" for step in (Delay(0.2), SayDelta(word)))]
    tenths = range(12)
    script = Script([steps] * len(tenths))
    told: list[tuple[str, float]] = []
    answered: list[str] = []
    async with session_to(script, transport=transport) as (session, _):
        for seconds in (tenth / 10 for tenth in tenths):
            try:
                answered.append((await session.ask("hi", timeouts=engine.Timeouts(**{budget: seconds}))).text)
            except engine.TurnTimeout as expired:  # any other error is the test's failure
                told.append((expired.phase, expired.seconds))
            await trio.sleep(2)
    assert set(answered) <= {"abc"}
    assert len(answered) + len(told) == len(tenths)
    assert {phase for phase, _ in told} <= {budget}
    assert {seconds for _, seconds in told} <= {tenth / 10 for tenth in tenths}
    assert len(told) > 1 or budget in {"queue", "send"}
