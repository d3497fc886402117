"""Script files: what they say is what a script of the same rules says, and a mistake is told where it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs import script_schema
from engine import simulator
from engine.simulator import Calculator, Echo, Quirks, Step
from engine.simulator.script_file import ScriptFileError, read_script
from engine.simulator.script_steps import ANSWERS, STEPS, Form, read_turn


def script(**members: Any) -> str:
    return json.dumps({"version": 1, **members})


def rules(*replies: Any) -> str:
    return script(rules=[{"reply": reply} for reply in replies])


MISTAKES = [
    (
        '{"version":1,"rules":[{"reply":[{"sya":"x"}]}]}',
        "1:34: rules[0].reply[0].sya: 'sya' is no step; did you mean 'say'?",
    ),
    (
        '{"version":1,\n "rules":[{"reply":"x",\n  "tims":3}]}',
        "3:3: rules[0].tims: 'tims' is no member of a rule; did you mean 'times'?",
    ),
    (rules({"call": {"nam": "x"}}), "'nam' is no member of 'call'; did you mean 'name'?"),
    (rules({"call": {}}), "'name' is missing"),
    (rules({"say": "x", "think": "y"}), "a step is an object with one member, and this one has 2"),
    (rules({"say": 3}), "Say takes text as 'text', not 3"),
    (rules({"say": {"text": "x", "pause_ms": "3"}}), "say.pause_ms: milliseconds are a number, 0 or more, not a text"),
    (rules({"cut_frame": 3}), "cut_frame: CutMidFrame takes a fraction between 0 and 1"),
    (rules({"wait_ms": -1}), "milliseconds are a number"),
    (rules({"stall": False}), "'stall' takes true, not false"),
    (rules({"late": {"steps": [{"pingg": True}]}}), "late.steps[0].pingg: 'pingg' is no step; did you mean 'ping'?"),
    (rules({"abort": "gently"}), "this is 'reset' or 'eof', not 'gently'"),
    (rules({"binary": "=="}), "this is not base64"),
    (rules([]), "there is no step in this array; to answer nothing, write"),
    (rules({"late": {"steps": "x"}}), "this is an array of steps, not a text"),
    (rules({"wait": 5}), "rules[0].reply.wait: 'wait' is no step; did you mean 'wait_ms'?"),
    (rules({"call": "weather"}), "'call' takes an object, not a text"),
    (rules(None), "a step is a text, or an object with one member, not null"),
    (script(rules=[{}]), "rules[0]: 'reply' is missing"),
    (script(rules=[{"when": {"text": {"matches": "("}}, "reply": "x"}]), "is no regular expression"),
    (script(rules=[{"when": {"text": {}}, "reply": "x"}]), "a condition on text has"),
    (script(rules=[{"when": {"nth": 0}, "reply": "x"}]), "a whole number from 1, not 0"),
    (script(rules=[{"when": {"transport": "http"}, "reply": "x"}]), "'transport' is one of"),
    (script(server={"quirks": ["in_progres"]}), "'in_progres' is no quirk; did you mean 'in_progress'?"),
    (script(server={"quirks": ["keepalive"]}), "'keepalive' needs a value"),
    (script(server={"quirks": {"in_progress": 3}}), "'in_progress' is true or false, not 3"),
    (
        script(server={"quirks": {"item_ids": "renewedd"}}),
        "server.quirks.item_ids: the quirk 'item_ids' cannot be 'renewedd'; did you mean 'renewed'?",
    ),
    (script(server={"quirks": {"done": "never"}}), "cannot be 'never'; there are 'instead', 'also'"),
    (script(server={"quirks": {"chunks": -1}}), "the quirk 'chunks' cannot be -1"),
    (script(server={"root": ["v1"]}), "server.root[0]: a path begins with a slash"),
    (script(server={"tls": "on"}), "this is 'off' or 'self-signed', not 'on'"),
    (script(handshakes=[{"refuse": {"status": "x"}}]), "a status is a number from 200 to 599, not a text"),
    (script(handshakes=[{"welcome": {}}]), "'welcome' is no answer"),
    (script(otherwise={"brain": "calculater"}), "'calculater' is no brain; did you mean 'calculator'?"),
    (script(pace={"tokens_per_second": 0}), "tokens per second are a number above 0, not 0"),
    ('{"version": 2}', "1:2: version: this has to be the number 1, not 2"),
    ('{"rules": []}', "'version' is missing"),
    ("[]", "a script is an object, not an array"),
    ('{"version":1,,}', "1:14: the name of a member is missing, in double quotes"),
    ('{"version":1,}', "1:13: there is a comma too many, before '}'"),
    ('{"version":1,"rules":[{"reply":"x"} , ]}', "1:37: there is a comma too many, before ']'"),
    ('{"version":1', "a comma or '}' is missing"),
    ('{"version":1,"version":1}', "the object has 'version' twice"),
    ('{"version":nil}', "1:12: a value is missing, or is not JSON"),
    ("[" * 200, "it is nested more than 100 deep"),
    ("", "a value is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "told"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_where_it_stands(source: str, told: str) -> None:
    with pytest.raises(ScriptFileError) as caught:
        read_script(source, "agent.json")
    assert str(caught.value).startswith("agent.json:")
    assert told in str(caught.value)


def test_the_whole_of_a_script() -> None:
    read = read_script(
        script(
            server={
                "api_key": "sk-test",
                "root": ["/v1", "/openai/v1"],
                "models": ["m"],
                "accept_parameters": ["x"],
                "connection_lifetime_ms": 1500,
                "max_message_bytes": 1000,
                "quirks": ["in_progress", "comments"],
                "tls": "self-signed",
                "seed": 7,
            },
            pace={"first_ms": 50, "tokens_per_second": 40, "jitter": 0.5},
            handshakes=[{"refuse": {"status": 426}}, {"hang_up": "reset"}, {"accept": {"close": 1001, "delay_ms": 5}}],
            posts=[{"ignore": True}, {"garbage": "x"}, {"refuse": 503}],
            rules=[{"reply": "hello"}, {"scope": "a", "reply": "only there"}],
            otherwise={"brain": "echo"},
        )
    )
    assert isinstance(read.otherwise, Echo)
    assert read.tls
    assert read.options["roots"] == ("/v1", "/openai/v1")
    assert read.options["connection_lifetime"] == 1.5
    assert read.options["quirks"] == Quirks(in_progress=False, comments=True)
    assert read.options["pace"] == simulator.Pace(0.05, 40, 0.5)
    assert read.options["handshake"] == [
        simulator.Reject(426), simulator.HangUp(reset=True), simulator.Accept(close_code=1001, delay=0.005),
    ]  # fmt: skip
    assert read.options["post"] == [simulator.Ignore(), simulator.Garbage(b"x"), simulator.Reject(503)]
    assert [rule.answer for rule in read.rules] == ["hello"]
    assert [rule.answer for rule in read.scopes["a"]] == ["only there"]
    assert isinstance(read_script(script()).otherwise, Calculator)
    assert read_script(script(otherwise={"brain": "fail"})).otherwise is None


STEPS_READ: list[tuple[dict[str, Any], Step]] = [
    ({"say": "hi"}, simulator.Say("hi")),
    ({"say": {"text": "hi", "size": 2, "pause_ms": 5}}, simulator.Say("hi", None, 2, 0.005)),
    ({"think": ["a", "b"]}, simulator.Think(["a", "b"])),
    ({"json": {"say": 1}}, simulator.Json({"say": 1})),
    ({"call": {"name": "f", "arguments": {"x": 1}, "call_id": "call_1"}}, simulator.Call("f", {"x": 1}, "call_1")),
    ({"custom_call": {"name": "f", "input": "x"}}, simulator.CustomCall("f", "x")),
    ({"item": {"type": "x"}}, simulator.RawItem({"type": "x"})),
    ({"event": {"type": "x"}}, simulator.Event({"type": "x"})),
    ({"error": 429}, simulator.Error(429)),
    ({"error": {"status": 429, "code": "x", "headers": {"a": "b"}}}, simulator.Error(429, "x", headers={"a": "b"})),
    ({"incomplete": "content_filter"}, simulator.Incomplete("content_filter")),
    ({"fail": "server_error"}, simulator.Failed("server_error")),
    ({"wait_ms": 250}, simulator.Delay(0.25)),
    ({"gate": "door"}, simulator.Gate("door")),
    ({"mute": True}, simulator.Mute()),
    ({"mute": {"frozen": True}}, simulator.Mute(frozen=True)),
    ({"close": 1012}, simulator.Close(1012)),
    ({"close": {"code": 1012, "reason": "restart"}}, simulator.Close(1012, "restart")),
    ({"abort": "reset"}, simulator.Abort(reset=True)),
    ({"cut_frame": 0.25}, simulator.CutMidFrame(0.25)),
    ({"binary": "AP8="}, simulator.Binary(b"\x00\xff")),
    ({"completed": {"usage": {"x": 1}, "model": "m"}}, simulator.Completed(usage={"x": 1}, model="m")),
    ({"late": {"after_ms": 10, "steps": ["x"]}}, simulator.Late([simulator.Say("x")], 0.01)),
    ({"with": {"pace": {"first_ms": 1}}}, simulator.With(pace=simulator.Pace(0.001))),
]  # fmt: skip


@pytest.mark.parametrize(("written", "meant"), STEPS_READ, ids=[json.dumps(written) for written, _ in STEPS_READ])
def test_steps(written: dict[str, Any], meant: Step) -> None:
    assert read_turn(written, ()) == [meant]
    assert read_turn([written, "and text"], ()) == [meant, simulator.Say("and text")]


def test_everything_that_python_can_script_can_be_written() -> None:
    written = {form.made for form in STEPS.values() if isinstance(form, Form)} | {simulator.Abort, simulator.Completed}
    steps = {each for each in vars(simulator).values() if isinstance(each, type) and issubclass(each, Step)}
    assert steps - {Step} == written & steps
    answers = {form.made for form in ANSWERS.values()} | {simulator.HangUp}
    kinds = {
        each for each in vars(simulator).values() if isinstance(each, type) and issubclass(each, simulator.Handshake)
    }
    assert kinds - {simulator.Handshake} == answers & kinds


def test_fixtures_of_aimock() -> None:
    call = {"name": "weather", "arguments": {"city": "Bergen"}, "id": "call_1"}
    fixtures: list[dict[str, Any]] = [
        {"match": {"endpoint": "embedding", "inputText": "x"}, "response": {"embedding": [1.0]}},
        {
            "match": {"userMessage": "weather", "hasToolResult": False, "sequenceIndex": 0},
            "response": {"toolCalls": [call]},
        },
        {"match": {"toolCallId": "call_1"}, "response": {"content": "rain", "reasoning": "look"}, "latency": 10},
        {"match": {}, "response": {"error": {"message": "slow", "type": "rate_limit_error"}, "status": 429}},
    ]
    read = read_script(json.dumps({"fixtures": fixtures}))
    calling, answer, error = read.rules
    assert calling.when.nth == 1
    assert calling.answer == [
        simulator.Call("weather", {"city": "Bergen"}, "call_1", size=5), simulator.Completed(),
    ]  # fmt: skip
    assert answer.answer == [
        simulator.Think("look", size=5, pause=0.01), simulator.Say("rain", size=5, pause=0.01), simulator.Completed(),
    ]  # fmt: skip
    assert error.answer == [simulator.Error(429, message="slow", type="rate_limit_error", headers={"retry-after": "1"})]
    assert read.otherwise is None


@pytest.mark.parametrize(
    ("fixture", "told"),
    [
        ({"match": {"userMesage": "x"}, "response": {"content": "y"}}, "fixtures[0].match.userMesage"),
        ({"match": {}, "response": {}}, "fixtures[0].response"),
        ({"match": {}}, "fixtures[0]: a fixture is an object with 'match' and 'response'"),
        ({"match": {"userMessage": 5}, "response": {"content": "y"}}, "fixtures[0]: a condition on text"),
        ({"match": {"sequenceIndex": "1"}, "response": {"content": "y"}}, "fixtures[0]: a member of this fixture has"),
        ({"match": {"systemMessage": 5}, "response": {"content": "y"}}, "fixtures[0]: a member of this fixture has"),
    ],
)
def test_mistakes_in_fixtures(fixture: dict[str, Any], told: str) -> None:
    with pytest.raises(ScriptFileError) as caught:
        read_script(json.dumps({"fixtures": [fixture]}))
    assert told in str(caught.value)


def test_the_published_schema_names_the_same() -> None:
    root = Path(__file__).parents[2]
    schema = json.loads((root / "docs" / "simulator-script.schema.json").read_text())
    assert set(schema["$defs"]["step"]["properties"]) == set(STEPS)
    assert set(schema["$defs"]["answer"]["properties"]) == set(ANSWERS)
    assert schema["$defs"]["quirks"] == script_schema.quirks(), "python -m docs.script_schema writes it anew"


def test_the_published_example_is_read_and_fits_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    docs = Path(__file__).parents[2] / "docs"
    schema = json.loads((docs / "simulator-script.schema.json").read_text())
    example = (docs / "simulator-script.example.json").read_text()
    assert len(read_script(example).rules) == 6
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    checker.validate(json.loads(example))
    for written, _ in STEPS_READ:
        checker.validate({"version": 1, "rules": [{"reply": [written, "text"]}]})
