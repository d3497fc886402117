"""Answers that are values of a class."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Call, Incomplete, Refuse, Say, SayDelta, Script, open_simulator


@attrs.frozen
class Sum:
    """A sum."""

    left: int
    right: int
    result: int


ASKED = engine.TurnOptions(text_format=Sum)


async def answer(brain: Any, options: engine.TurnOptions = ASKED) -> engine.AssistantMessage:
    async with open_simulator(in_memory=True, brain=brain) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            return await session.ask("2+2 as an object", options)


async def test_a_class_gives_an_instance_of_it(autojump_clock: MockClock) -> None:
    reply = await answer(Script([Answer('{"left": 2, "right": 2, "result": 4}')]))
    assert reply.parsed == Sum(2, 2, 4)
    assert reply.text == '{"left": 2, "right": 2, "result": 4}'


async def test_the_calculator_fits_the_schema(autojump_clock: MockClock) -> None:
    reply = await answer(None)
    assert isinstance(reply.parsed, Sum)


async def test_the_streamed_end_has_the_value_too(autojump_clock: MockClock) -> None:
    brain = Script([Answer('{"left": 2, "right": 2, "result": 4}')])
    async with open_simulator(in_memory=True, brain=brain) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            async with session.turn("2+2", ASKED) as turn:
                events = [event async for event in turn]
    assert isinstance(events[-1], engine.TurnDone)
    assert events[-1].message is turn.message
    assert turn.message.parsed == Sum(2, 2, 4)
    sent = sim.requests[0].body["text"]["format"]
    assert (sent["type"], sent["name"], sent["strict"]) == ("json_schema", "Sum", True)


@pytest.mark.parametrize("text", ["four", '{"left": 2}', '{"left": "2", "right": 2, "result": 4}', "[1]"])
async def test_a_reply_that_does_not_fit_is_told_with_its_text(autojump_clock: MockClock, text: str) -> None:
    with pytest.raises(engine.ResponseFailed) as caught:
        await answer(Script([Answer(text)]))
    assert caught.value.code == "schema_mismatch"
    assert caught.value.partial is not None
    assert caught.value.partial.text == text
    assert caught.value.delivery is engine.Delivery.ACCEPTED
    assert text not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "brain",
    [
        Script([[Refuse("No.")]]),
        Script([[SayDelta('{"left"'), Incomplete()]]),
        Script([[Say("I need a tool."), Call("add")]]),
    ],
)
async def test_what_is_no_whole_answer_is_not_parsed(autojump_clock: MockClock, brain: Any) -> None:
    assert (await answer(brain)).parsed is None


async def test_a_json_schema_gives_parsed_json(autojump_clock: MockClock) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    reply = await answer(Script([Answer('{"a": 1}')]), engine.TurnOptions(text_format=schema))
    assert reply.parsed == {"a": 1}
