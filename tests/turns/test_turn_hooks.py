"""Hooks tell turns apart: each record says whose it is, and what is tried again is logged, without a word of it."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio
from sessions import session_to
from trio.testing import MockClock

import engine
from engine import Limits, Transport
from engine.instruments import (
    ConnectionInfo,
    EventInfo,
    FallbackInfo,
    Instrument,
    RequestInfo,
    RetryInfo,
    RotationInfo,
    TurnEndInfo,
    TurnStartInfo,
)
from engine.simulator import Answer, Close, Created, Error, SayDelta, Script, Stall


class Watch(Instrument):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.told if type(each) is kind]

    def turn_started(self, info: TurnStartInfo, /) -> None:
        self.told.append(info)

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        self.told.append(info)

    def request_sent(self, info: RequestInfo, /) -> None:
        self.told.append(info)

    def event_received(self, info: EventInfo, /) -> None:
        self.told.append(info)

    def retry(self, info: RetryInfo, /) -> None:
        self.told.append(info)

    def fallback(self, info: FallbackInfo, /) -> None:
        self.told.append(info)

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        self.told.append(info)

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        self.told.append(info)

    def rotation(self, info: RotationInfo, /) -> None:
        self.told.append(info)


async def test_turns_are_told_apart(autojump_clock: MockClock) -> None:
    watch = Watch()
    async with session_to(instruments=[watch]) as (session, sim):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(session.ask, "1+1")
        host = f"{sim.endpoint.websocket.netloc}"
    started, ended, sent = watch.of(TurnStartInfo), watch.of(TurnEndInfo), watch.of(RequestInfo)
    assert [each.turn for each in started] == [each.turn for each in ended] == [each.turn for each in sent] == [1, 2, 3]
    assert {(each.session, each.lane, each.model) for each in watch.told if hasattr(each, "turn")} == {
        ("default", None, "gpt-test")
    }
    assert {each.server for each in started} == {host}
    assert all(each.answered and each.error is None and each.attempt == 1 for each in ended)
    assert all(each.transport is Transport.WEBSOCKET and each.connection == 1 and each.size > 0 for each in sent)
    assert {each.turn for each in watch.of(EventInfo)} == {1, 2, 3}
    (opened, closed) = watch.of(ConnectionInfo)
    assert (opened.connection, opened.reason) == (1, None)
    assert closed.reason is not None
    assert closed.seconds >= opened.seconds


async def test_a_retry_and_a_fallback_say_which_attempt_failed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    script = Script([[Error(500, code="server_error", message="s3cret")], [Created(), Close(1008)], Answer("there")])
    with caplog.at_level(logging.INFO, logger="engine.turn"):
        async with session_to(script, transport=Transport.AUTO, instruments=[watch]) as (session, _):
            assert (await session.ask("s3cret")).text == "there"
    (retried,), (fell_back,) = watch.of(RetryInfo), watch.of(FallbackInfo)
    assert (retried.turn, retried.attempt) == (1, 1)
    assert (fell_back.turn, fell_back.attempt) == (1, 2)
    assert fell_back.reason == "the server closed the connection with code 1008"
    assert [each.attempt for each in watch.of(RequestInfo)] == [1, 2, 3]
    assert [each.transport for each in watch.of(RequestInfo)][-1] is Transport.SSE
    (end,) = watch.of(TurnEndInfo)
    assert end.attempt == 3
    assert {each.attempt for each in watch.of(EventInfo)} == {1, 2, 3}
    messages = [record.getMessage() for record in caplog.records if record.name == "engine.turn"]
    assert len(messages) == 2
    assert messages[0].startswith("a turn is tried again in ")
    assert messages[1] == "a turn goes over HTTP: the server closed the connection with code 1008"
    assert "s3cret" not in caplog.text


async def test_a_turn_that_fails_and_one_that_is_left(autojump_clock: MockClock) -> None:
    watch = Watch()
    async with session_to(
        Script([Error(400, code="bad"), [Created(), SayDelta("a"), Stall()]]), instruments=[watch]
    ) as (session, _):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("1")
        async with session.turn("2") as turn:
            await anext(turn)
    failed, left = watch.of(TurnEndInfo)
    assert failed.error is caught.value
    assert failed.report == caught.value.report
    assert not failed.answered
    assert (left.error, left.answered) == (None, False)


async def test_a_rotation_is_told_and_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    limits = Limits(connection_lifetime=100, idle_lifetime=None)
    with caplog.at_level(logging.INFO, logger="engine.connection"):
        async with session_to(instruments=[watch], limits=limits) as (session, _):
            await session.ask("1+1")
            await trio.sleep(101)
            await session.ask("1+1")
    (rotation,) = watch.of(RotationInfo)
    assert attrs.asdict(rotation) == {"session": "default", "connection": 1, "seconds": pytest.approx(101, abs=2)}
    assert any("takes no new turns" in record.getMessage() for record in caplog.records)
