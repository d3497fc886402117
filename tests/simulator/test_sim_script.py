"""Scripts: which answer a request gets, and how mistakes in a script are told."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from sim_peer import FUNCTION, connect, post, stream, text_of
from trio.testing import MockClock

import engine.simulator
from engine.simulator import (
    Answer,
    Asked,
    Completed,
    Created,
    Echo,
    Error,
    Gate,
    Json,
    Pace,
    Say,
    SayDelta,
    Script,
    ScriptError,
    SimulationFailed,
    Step,
    TextMatch,
    When,
    With,
    open_simulator,
)

LOOSE: Any = engine.simulator
"""The names without their types, for mistakes that a type checker would find."""


def call_output(text: str) -> list[dict[str, Any]]:
    return [
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": text},
    ]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LOOSE.Script("text"), "did you mean Script([…])?"),
        (lambda: LOOSE.Script(LOOSE.Say("text")), "not Say; did you mean"),
        (lambda: LOOSE.Script([LOOSE.Say]), "turns[0]: Say is a class, not a step; did you mean Say(…)?"),
        (lambda: LOOSE.Script(["fine", [LOOSE.Say("a"), LOOSE.Call]]), "turns[1][1]: Call is a class"),
        (lambda: LOOSE.Script(["fine", [LOOSE.Say("a"), None]]), "turns[1][1]: None is no answer"),
        (lambda: LOOSE.Script([{"type": "message"}]), "turns[0]: a mapping is no step; did you mean Event"),
        (lambda: LOOSE.Script([[["nested"]]]), "turns[0][0]: a list within a turn's steps"),
        (lambda: LOOSE.Script([3]), "turns[0]: int is no step"),
        (lambda: LOOSE.Say(3), "Say takes text as 'text', not 3"),
        (lambda: LOOSE.Say("a", size=0), "a whole number from 1 as 'size', not 0"),
        (lambda: LOOSE.Say("a", phase="final"), "takes one of commentary, final_answer as 'phase', not 'final'"),
        (lambda: LOOSE.Say("a", annotations={"type": "x"}), "takes a list of mappings as 'annotations', not a dict"),
        (lambda: LOOSE.Think(["a", 3]), "Think takes text as 'summary', not 3"),
        (lambda: LOOSE.Call("f", ["a"]), "Call takes a mapping as 'arguments', not a list"),
        (lambda: LOOSE.Call("f", {"a": {1}}), "Call's arguments cannot be JSON"),
        (lambda: LOOSE.Json({1, 2}), "Json takes what JSON can express"),
        (lambda: LOOSE.RawItem({"id": "x"}), "objects with a 'type' as 'item'"),
        (lambda: LOOSE.Answer("a", calls=[LOOSE.Say("b")]), "a list of Call and CustomCall"),
        (lambda: LOOSE.Delay(-1), "Delay takes seconds, 0 or more, as 'seconds', not -1"),
        (lambda: LOOSE.Gate(3), "Gate takes a trio.Event"),
        (lambda: LOOSE.Error("429"), "Error takes a whole number as 'status', not a str"),
        (lambda: LOOSE.Error(200), "a whole number from 400 to 599"),
        (lambda: LOOSE.CutMidFrame(2), "a fraction between 0 and 1"),
        (lambda: LOOSE.Pace(tokens_per_second=0), "as 'tokens_per_second'"),
        (lambda: LOOSE.When(nth=0), "'nth' is a whole number from 1, not 0"),
        (lambda: LOOSE.When(transport="http"), "'transport' is one of websocket, sse, json, not 'http'"),
        (lambda: LOOSE.When(text=LOOSE.TextMatch(matches="(")), "is no regular expression"),
        (lambda: LOOSE.When(text=3), "a condition on text is a string"),
        (lambda: LOOSE.When().then([LOOSE.Say("a"), LOOSE.Say]), "answer[1]: Say is a class"),
        (lambda: LOOSE.When().then("a", times=0), "'times' is a whole number from 1"),
    ],
)
def test_mistakes_are_told_when_the_script_is_made(make: Any, message: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(message)):
        make()


async def test_what_a_brain_raises_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    def brain(asked: Asked) -> str:
        raise ZeroDivisionError("secret of the prompt")

    async with open_simulator(in_memory=True, brain=brain) as sim:
        answer = await post(sim, "hi")
        assert answer.status == 500
        assert answer.error["message"] == "The simulator's brain raised ZeroDivisionError."
        assert sim.problems() == ["ZeroDivisionError: secret of the prompt"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info is not None


async def test_a_strict_simulator_raises_what_a_brain_raised() -> None:
    nothing: Any = lambda asked: None  # noqa: E731 - a brain that forgets to answer

    with pytest.raises(SimulationFailed, match="ScriptError: answer: None is no answer") as caught:
        async with open_simulator(in_memory=True, strict=True, brain=nothing) as sim:
            await post(sim, "hi")
    assert isinstance(caught.value.__cause__, ScriptError)


async def test_a_strict_simulator_complains_about_unused_turns() -> None:
    script = Script(["used", When(text="x").then("needed", required=True, name="the x"), When(text="y").then("may be")])
    script.add("never used")
    with pytest.raises(SimulationFailed) as caught:
        async with open_simulator(in_memory=True, strict=True, brain=script) as sim:
            await post(sim, "hi")
    assert caught.value.problems == ("the x was never used", "turns[3] was never used")
    assert [rule.name for rule in script.unused()] == ["the x", "turns[3]"]


async def test_a_strict_simulator_lets_what_its_block_raised_pass() -> None:
    with pytest.raises(KeyError):
        async with open_simulator(in_memory=True, strict=True, brain=Script(["unused"])):
            raise KeyError


async def test_a_strict_script_answers_what_fits_nothing_with_an_error() -> None:
    script = Script([When(text="a").then("A")], strict=True)
    with pytest.raises(SimulationFailed, match="1 of the requests fitted no entry of the script"):
        async with open_simulator(in_memory=True, strict=True, brain=script) as sim:
            assert text_of((await post(sim, "a")).json) == "A"
            refused = await post(sim, "b")
            assert (refused.status, refused.error["code"]) == (404, "no_rule")
            assert refused.error["message"] == "No rule fits this request; the nearest is 'turns[0]', but for text."
            assert sim.errors == []


async def test_a_script_that_is_used_up_says_so() -> None:
    async with open_simulator(in_memory=True, brain=Script(["only one"], strict=True)) as sim:
        await post(sim, "a")
        assert (await post(sim, "b")).error["message"].endswith("the nearest is 'turns[0]', which is used up.")


# --- which answer ----------------------------------------------------------------------------------------------------


async def texts(script: Script, *requests: tuple[Any, dict[str, Any]]) -> list[str]:
    async with open_simulator(in_memory=True, brain=script) as sim:
        return [text_of((await post(sim, given, **body)).json) for given, body in requests]


async def test_turns_in_order_then_the_rest() -> None:
    script = Script(["one", [Say("two"), Say("more")], ["three ", "parts"]], then=Echo())
    assert await texts(script, *[("hi", {})] * 4) == ["one", "twomore", "three parts", "hi"]
    assert (script.served, script.left) == (3, 0)


async def test_rules_before_turns_by_what_requests_say() -> None:
    script = Script(
        [
            When(text="weather", tool_output=False).then("call it"),
            When(tool_output="rain").then("umbrella"),
            When(text=re.compile("^cut")).then("cut"),
            When(text=TextMatch(equals="yes")).then("equal"),
            When(text=TextMatch(contains=("a", "b"))).then("both"),
            When(model="mini").then("small"),
            When(instructions="Be brief").then("brief"),
            When(tool="add").then("tool"),
            When(body={"text": {"format": {"type": "json_schema"}}, "metadata": {"n": "1"}}).then(Json({"a": [1]})),
        ],
        then=Echo(),
    )
    shape = {"format": {"type": "json_schema", "name": "x", "schema": {}}}
    assert await texts(
        script,
        ("the weather?", {}),
        ([{"role": "user", "content": "weather"}, *call_output("it will rain")], {}),
        ("cut it", {}),
        ("do not cut it", {}),
        ("yes", {}),
        ("b and a", {}),
        ("x", {"model": "gpt-mini"}),
        ("x", {"instructions": "Be brief."}),
        ("x", {"tools": [FUNCTION]}),
        ("x", {"text": shape, "metadata": {"n": "1", "m": "2"}}),
        ("x", {"text": shape, "metadata": {"n": "2"}}),
    ) == ["call it", "umbrella", "cut", "do not cut it", "equal", "both", "small", "brief", "tool", '{"a":[1]}', "x"]


async def test_how_often_a_rule_answers() -> None:
    script = Script(
        [When(text="a", nth=2).then("second"), When(text="a").then("twice", times=2), When(text="a").then("ever")]
    )
    assert await texts(script, *[("a", {})] * 5) == ["twice", "second", "twice", "ever", "ever"]
    assert [(rule.seen, rule.uses) for rule in script.rules] == [(5, 1), (2, 2), (2, 2)]


async def test_how_a_request_came() -> None:
    script = Script(
        [
            When(transport="json").then("plain"),
            When(transport="sse").then("streamed"),
            When(lane="b").then("lane"),
            When(continued=True).then("continued"),
            When(headers={"X-Test": "1"}).then("headers"),
            When(transport="websocket").then("socket"),
        ]
    )
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        assert text_of((await post(sim)).json) == "plain"
        assert text_of((await stream(sim)).events[-1]["response"]) == "streamed"
        assert text_of(await peer.ask("x", stream_id="b")) == "lane"
        first = await peer.ask("x")
        assert text_of(first) == "socket"
        assert text_of(await peer.ask("x", previous_response_id=first["id"])) == "continued"


async def test_why_a_rule_does_not_fit() -> None:
    seen = []

    def brain(asked: Asked) -> str:
        seen.append(When(text="a", model="b", lane="c", tool_output=True, headers={"d": "e"}, nth=7).misses(asked))
        return ""

    async with open_simulator(in_memory=True, brain=brain) as sim:
        await post(sim, "has a")
    assert seen == [("model", "lane", "tool_output", "headers")]


async def test_a_brain_may_be_asynchronous(autojump_clock: MockClock) -> None:
    async def brain(asked: Asked) -> Answer:
        return Answer(asked.last_user_text.upper(), thinking="hm")

    async with open_simulator(in_memory=True, brain=brain) as sim:
        assert text_of((await post(sim, "a")).json) == "A"


# --- what a rule says of the response --------------------------------------------------------------------------------


async def test_a_rule_says_what_the_response_says() -> None:
    script = Script(
        [
            When().then(
                "hi", times=1, usage={"input_tokens": 77}, response={"id": "resp_mine", "model": "m-2", "created_at": 5}
            ),
            [Say("a"), Completed(usage={"output_tokens": 9}, metadata={"x": "y"})],
            [With({"model": "other"}), "b"],
        ]
    )
    async with open_simulator(in_memory=True, brain=script) as sim:
        events = (await stream(sim)).events
        for event in events:
            if "response" in event:
                assert (event["response"]["id"], event["response"]["model"]) == ("resp_mine", "m-2")
        assert events[-1]["response"]["usage"]["input_tokens"] == 77
        assert events[-1]["response"]["created_at"] == 5
        second = (await post(sim)).json
        assert (second["usage"]["output_tokens"], second["metadata"]) == (9, {"x": "y"})
        assert (await post(sim)).json["model"] == "other"
        assert sim.history("resp_mine")


async def test_the_pace_of_a_rule_of_the_server_and_of_a_step(autojump_clock: MockClock) -> None:
    script = Script([When(text="a").then("a b c", pace=Pace(first=5, tokens_per_second=2))])
    script.add("a b", [Say("a b c", pause=3.0)])
    async with open_simulator(in_memory=True, brain=script, pace=Pace(first=1, tokens_per_second=1)) as sim:
        for question, seconds in (("a", 5 + 2 / 2), ("x", 1 + 1), ("x", 2 * 3)):
            begun = autojump_clock.current_time()
            await post(sim, question)
            assert autojump_clock.current_time() - begun == pytest.approx(seconds)


async def test_gates_have_names(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Gate("go"), "gone"]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        await peer.create()
        await peer.until("response.created")
        sim.gate("go").set()
        assert text_of((await peer.until("response.completed"))[-1]["response"]) == "gone"


async def test_steps_of_ones_own() -> None:
    class Twice(Step):
        def __init__(self, text: str) -> None:
            self.text = text

        async def perform(self, stage: Any) -> None:
            for _ in range(2):
                await SayDelta(self.text).perform(stage)

    mixed = [Twice("a"), Say("b")]
    async with open_simulator(in_memory=True, brain=Script([mixed])) as sim:
        assert text_of((await post(sim)).json) == "aab"


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param"),
    [
        (Error(), 500, "server_error", "server_error", None),
        (Error(429), 429, "rate_limit_error", "rate_limit_exceeded", None),
        (Error(429, "insufficient_quota"), 429, "insufficient_quota", "insufficient_quota", None),
        (Error(400, "previous_response_not_found"), 400, "invalid_request_error", "previous_response_not_found",
         "previous_response_id"),
        (Error(code="previous_response_not_found"), 400, "invalid_request_error", "previous_response_not_found",
         "previous_response_id"),
        (Error(401), 401, "invalid_request_error", "invalid_api_key", None),
        (Error(404, "model_not_found"), 404, "invalid_request_error", "model_not_found", "model"),
        (Error(503), 503, "service_unavailable_error", "server_is_overloaded", None),
        (Error(503, "slow_down"), 503, "service_unavailable_error", "slow_down", None),
        (Error(502), 502, "server_error", None, None),
        (Error(400, None), 400, "invalid_request_error", None, None),
        (Error(400, "odd", "text", type="mine", param="input"), 400, "mine", "odd", "input"),
        (Error(429, 429), 429, "rate_limit_error", 429, None),
    ],
)  # fmt: skip
async def test_an_error_is_what_the_service_says(
    error: Error, status: int, kind: str, code: str | int | None, param: str | None
) -> None:
    async with open_simulator(in_memory=True, brain=Script([error, error])) as sim, connect(sim, check=False) as peer:
        answer = await post(sim)
        assert answer.status == status
        found = answer.error
        assert (found["type"], found["code"], found["param"]) == (kind, code, param)
        assert found["message"]
        event = (await peer.turn())[-1]
        assert (event["status"], event["error"]) == (status, found)
