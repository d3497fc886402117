"""Never run: mistakes that type checkers have to see. An ignore that is not needed is an error itself."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import engine
from engine import Context, Endpoint, Engine, Limits, RetryPolicy, Session, Timeouts, TurnOptions, UserMessage, tool
from engine.instruments import ConnectionInfo, Instrument


class Wrong(Instrument):
    def turn_started(self, session: str) -> None:  # type: ignore[override]
        ...

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        _ = info.age  # type: ignore[attr-defined]
        info.reason = "why"  # type: ignore[misc]


async def opening(endpoint: Endpoint) -> None:
    engine.open_session(endpoint, model="m", timeuots=Timeouts(turn=3))  # type: ignore[call-arg]
    engine.open_engine(endpoint, timeout=20)  # type: ignore[call-arg]
    engine.open_session(endpoint, timeouts=20)  # type: ignore[arg-type]
    engine.open_session(endpoint, on_cancel="drian")  # type: ignore[arg-type]
    engine.open_engine(endpoint, transport="http")  # type: ignore[arg-type]
    engine.open_session("https://host/v1")  # type: ignore[arg-type]
    engine.TurnOption  # type: ignore[attr-defined]  # noqa: B018
    from engine import turn_options  # type: ignore[attr-defined]  # noqa: F401


async def sessions(eng: Engine) -> None:
    eng.session("one").ask("hello")  # type: ignore[attr-defined]
    await eng.session(42)  # type: ignore[arg-type]
    await eng.session("one", limits=Timeouts())  # type: ignore[arg-type]
    async with eng.open_session("one", modle="m"):  # type: ignore[call-arg]
        ...
    await eng.drain("10")  # type: ignore[arg-type]


async def turns(session: Session) -> None:
    await session.ask("hello", temprature=1)  # type: ignore[call-arg]
    await session.ask("hello", temperature="warm")  # type: ignore[arg-type]
    await session.ask("hello", timeout=20)  # type: ignore[call-arg]
    await session.ask(42)  # type: ignore[arg-type]
    session.turn("hello", {"temperature": 1})  # type: ignore[arg-type]
    number: int = await session.parse("How many?", str)  # type: ignore[arg-type]
    message = await session.ask("hello")
    text: str = message.parsed_as(int)  # type: ignore[assignment]
    print(number, text, message.txt)  # type: ignore[attr-defined]
    message.text = "other"  # type: ignore[misc]


def settings() -> None:
    Timeouts(5)  # type: ignore[call-arg]
    Timeouts(turn="5")  # type: ignore[arg-type]
    Limits(buffer_events="many")  # type: ignore[arg-type]
    RetryPolicy(max_dispatches=None)  # type: ignore[arg-type]
    TurnOptions(temperature="warm")  # type: ignore[arg-type]
    Endpoint(api_key=42)  # type: ignore[arg-type]
    Context("hello")  # type: ignore[arg-type]
    UserMessage(42)  # type: ignore[arg-type]


@tool(timeuot=5)  # type: ignore[call-overload,untyped-decorator]
def misspelt(a: int) -> int:
    return a
