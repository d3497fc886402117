"""Requests the service refuses, each with the status, code and parameter it names; the same on both transports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sim_peer import CUSTOM, FUNCTION, connect, post, text_of
from trio.testing import MockClock

from engine.simulator import Call, CustomCall, Echo, Script, Think, open_simulator

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "5"}
STRICT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def _strict(**changes: Any) -> dict[str, Any]:
    return FUNCTION | {"strict": True, "parameters": STRICT | changes}


def _format(**fields: Any) -> dict[str, Any]:
    return {"text": {"format": {"type": "json_schema", **fields}}}


REFUSED: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"model": None}, 400, "missing_required_parameter", "model"),
    ({"model": 5}, 400, "invalid_type", "model"),
    ({"input": None}, 400, "missing_required_parameter", "input"),
    ({"input": 5}, 400, "invalid_type", "input"),
    ({"input": {"role": "user"}}, 400, "invalid_type", "input"),
    ({"nonsense": 1}, 400, "unknown_parameter", "nonsense"),
    ({"messages": []}, 400, "unknown_parameter", "messages"),
    ({"temperature": 2.1}, 400, "decimal_above_max_value", "temperature"),
    ({"temperature": -1}, 400, "decimal_below_min_value", "temperature"),
    ({"temperature": "hot"}, 400, "invalid_type", "temperature"),
    ({"temperature": True}, 400, "invalid_type", "temperature"),
    ({"top_p": 1.5}, 400, "decimal_above_max_value", "top_p"),
    ({"top_logprobs": 21}, 400, "integer_above_max_value", "top_logprobs"),
    ({"max_output_tokens": -1}, 400, "integer_below_min_value", "max_output_tokens"),
    ({"max_output_tokens": 1.5}, 400, "invalid_type", "max_output_tokens"),
    ({"store": "yes"}, 400, "invalid_type", "store"),
    ({"include": ["everything"]}, 400, "invalid_value", "include[0]"),
    ({"include": "all"}, 400, "invalid_type", "include"),
    ({"metadata": {str(n): "" for n in range(17)}}, 400, "object_above_max_properties", "metadata"),
    ({"metadata": {"k" * 65: ""}}, 400, "invalid_value", "metadata"),
    ({"metadata": {"k": "v" * 513}}, 400, "string_above_max_length", "metadata.k"),
    ({"metadata": {"k": 1}}, 400, "invalid_type", "metadata.k"),
    ({"metadata": []}, 400, "invalid_type", "metadata"),
    ({"safety_identifier": "s" * 129}, 400, "string_above_max_length", "safety_identifier"),
    ({"service_tier": "gold"}, 400, "invalid_value", "service_tier"),
    ({"truncation": "maybe"}, 400, "invalid_value", "truncation"),
    ({"reasoning": {"effort": "huge"}}, 400, "invalid_value", "reasoning.effort"),
    ({"reasoning": {"deep": True}}, 400, "unknown_parameter", "reasoning.deep"),
    ({"reasoning": "high"}, 400, "invalid_type", "reasoning"),
    ({"text": {"verbosity": "chatty"}}, 400, "invalid_value", "text.verbosity"),
    ({"text": {"format": "json"}}, 400, "invalid_type", "text.format"),
    ({"text": {"format": {"type": "xml"}}}, 400, "invalid_value", "text.format.type"),
    (_format(name="n"), 400, "missing_required_parameter", "text.format.schema"),
    (_format(schema={}), 400, "missing_required_parameter", "text.format.name"),
    (_format(name="a b", schema={}), 400, "invalid_value", "text.format.name"),
    (_format(name="n", strict=True, schema={"type": "object"}), 400, "invalid_json_schema", "text.format.schema"),
    ({"context_management": [{"type": "other"}]}, 400, "invalid_value", "context_management[0].type"),
    ({"previous_response_id": "chatcmpl-1"}, 400, "invalid_value", "previous_response_id"),
    ({"previous_response_id": "resp_gone"}, 400, "previous_response_not_found", "previous_response_id"),
    (
        {"previous_response_id": "resp_1", "conversation": "conv_1"},
        400,
        "mutually_exclusive_parameters",
        "conversation",
    ),
    ({"conversation": "conv_gone"}, 404, None, "conversation"),
    ({"conversation": {"name": "x"}}, 400, "invalid_value", "conversation"),
    # tools
    ({"tools": "add"}, 400, "invalid_type", "tools"),
    ({"tools": ["add"]}, 400, "invalid_type", "tools[0]"),
    ({"tools": [{"name": "add"}]}, 400, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "tools[0].name"),
    ({"tools": [{"type": "function", "function": {}, "name": "a"}]}, 400, "unknown_parameter", "tools[0].function"),
    ({"tools": [FUNCTION | {"name": "a b"}]}, 400, "invalid_value", "tools[0].name"),
    ({"tools": [FUNCTION, FUNCTION]}, 400, "invalid_value", "tools[1].name"),
    ({"tools": [FUNCTION | {"strict": "no"}]}, 400, "invalid_type", "tools[0].strict"),
    (
        {"tools": [FUNCTION | {"parameters": {"anyOf": []}}]},
        400,
        "invalid_function_parameters",
        "tools[0].parameters",
    ),
    ({"tools": [_strict(additionalProperties=True)]}, 400, "invalid_function_parameters", "tools[0].parameters"),
    ({"tools": [_strict(required=[])]}, 400, "invalid_function_parameters", "tools[0].parameters"),
    ({"tool_choice": "required"}, 400, "invalid_value", "tool_choice"),
    ({"tool_choice": "sometimes"}, 400, "invalid_value", "tool_choice"),
    ({"tool_choice": 1}, 400, "invalid_type", "tool_choice"),
    ({"tool_choice": {}}, 400, "missing_required_parameter", "tool_choice.type"),
    ({"tool_choice": {"type": "function"}}, 400, "missing_required_parameter", "tool_choice.name"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "sub"}}, 400, "invalid_value", "tool_choice"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "custom", "name": "add"}}, 400, "invalid_value", "tool_choice"),
    (
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]},
        },
        400,
        "invalid_value",
        "tool_choice",
    ),
    # input items
    ({"input": ["hi"]}, 400, "invalid_type", "input[0]"),
    ({"input": [{}]}, 400, "missing_required_parameter", "input[0].type"),
    ({"input": [{"type": "thought"}]}, 400, "invalid_value", "input[0].type"),
    ({"input": [{"role": "user"}]}, 400, "missing_required_parameter", "input[0].content"),
    ({"input": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "input[0].role"),
    ({"input": [USER | {"name": "x"}]}, 400, "unknown_parameter", "input[0].name"),
    ({"input": [USER | {"content": 7}]}, 400, "invalid_type", "input[0].content"),
    ({"input": [USER | {"content": ["x"]}]}, 400, "invalid_type", "input[0].content[0]"),
    (
        {"input": [USER | {"content": [{"type": "output_text", "text": "x"}]}]},
        400,
        "invalid_value",
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}, USER]},
        400,
        "invalid_value",
        "input[0].content[0].type",
    ),
    (
        {"input": [USER | {"content": [{"type": "input_text"}]}]},
        400,
        "invalid_type",
        "input[0].content[0].text",
    ),
    (
        {"input": [USER | {"content": [{"type": "input_image"}]}]},
        400,
        "missing_required_parameter",
        "input[0].content[0].image_url",
    ),
    (
        {"input": [USER | {"content": [{"type": "input_image", "image_url": "cat.png"}]}]},
        400,
        "invalid_value",
        "input[0].content[0].image_url",
    ),
    ({"input": [USER | {"phase": "commentary"}]}, 400, "invalid_value", "input[0].phase"),
    ({"input": [{"role": "assistant", "content": "x", "phase": "end"}]}, 400, "invalid_value", "input[0].phase"),
    ({"input": [{"role": "assistant", "content": "x", "id": "1"}]}, 400, "invalid_value", "input[0].id"),
    ({"input": [CALL | {"id": "call_1"}, OUTPUT]}, 400, "invalid_value", "input[0].id"),
    ({"input": [CALL | {"name": "a b"}, OUTPUT]}, 400, "invalid_value", "input[0].name"),
    ({"input": [CALL | {"arguments": {}}, OUTPUT]}, 400, "invalid_type", "input[0].arguments"),
    ({"input": [CALL | {"call_id": "c" * 65}, OUTPUT]}, 400, "string_above_max_length", "input[0].call_id"),
    ({"input": [CALL, OUTPUT | {"output": {"a": 1}}]}, 400, "invalid_type", "input[1].output"),
    ({"input": [CALL, OUTPUT | {"output": None}]}, 400, "missing_required_parameter", "input[1].output"),
    (
        {"input": [{"type": "function_call_output", "output": "x"}]},
        400,
        "missing_required_parameter",
        "input[0].call_id",
    ),
    ({"input": [OUTPUT]}, 400, None, "input"),
    ({"input": [USER, OUTPUT, CALL]}, 400, None, "input"),
    ({"input": [CALL, USER]}, 400, None, "input"),
    ({"input": [CALL | {"type": "custom_tool_call", "arguments": None}]}, 400, "missing_required_parameter", None),
    ({"input": [{"type": "compaction_trigger"}, USER]}, 400, "invalid_value", "input[0]"),
    ({"input": [{"type": "item_reference", "id": "msg_gone"}]}, 404, None, "input"),
    ({"input": [{"type": "reasoning", "id": "rs_gone", "summary": []}, CALL, OUTPUT]}, 404, None, "input"),
    (
        {"input": [{"type": "reasoning", "summary": []}, CALL, OUTPUT]},
        400,
        "missing_required_parameter",
        "input[0].encrypted_content",
    ),
    ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []}]}, 400, None, "input"),
    ({"input": [{"type": "reasoning", "id": "rs_1", "summary": "no"}]}, 400, "invalid_type", "input[0].summary"),
    ({"input": [{"type": "reasoning", "id": "rs_1", "summary": ["no"]}]}, 400, "invalid_value", "input[0].summary[0]"),
    ({"input": [{"type": "reasoning", "id": "thought", "summary": []}]}, 400, "invalid_value", "input[0].id"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), REFUSED, ids=map(str, range(len(REFUSED))))
async def test_refused_over_websocket(
    autojump_clock: MockClock, body: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        (event,) = await peer.turn(**({"input": "hi"} | body))
        assert (event["status"], event["error"]["code"]) == (status, code)
        if param is not None:
            assert event["error"]["param"] == param
        assert event["error"]["type"] == "invalid_request_error"
        assert (sim.requests[0].status, sim.requests[0].error_code) == ("rejected", code)
        await peer.ask()


@pytest.mark.parametrize(("body", "status", "code", "param"), REFUSED, ids=map(str, range(len(REFUSED))))
async def test_refused_over_http(
    autojump_clock: MockClock, body: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    async with open_simulator(in_memory=True) as sim:
        answer = await post(sim, **({"input": "hi", "stream": True} | body))
        assert (answer.status, answer.error["code"]) == (status, code)
        if param is not None:
            assert answer.error["param"] == param
        assert sim.requests[0].status == "rejected"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_json"),
        pytest.param("[" * 100_000, "invalid_json", id="deep"),
        pytest.param("9" * 5000, "invalid_json", id="long number"),
        ("[]", "invalid_json"),
        ("{}", "missing_required_parameter"),
        ('{"type":"response.cancel"}', "unknown_event_type"),
        ('{"type":"response.inject"}', "unknown_event_type"),
        ('{"type":7}', "unknown_event_type"),
        (b"{}", "invalid_message"),
    ],
)
async def test_messages_that_are_no_event_are_refused_and_the_socket_stays(
    autojump_clock: MockClock, message: str | bytes, code: str
) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        await peer.send(message)
        event = await peer.recv()
        assert (event["status"], event["error"]["code"]) == (400, code)
        assert "stream_id" not in event
        await peer.ask()
        assert sim.errors == []


@pytest.mark.parametrize("body", [{"stream_id": "a"}, {"generate": False}, {"type": "response.create"}])
async def test_http_knows_no_websocket_parameters(autojump_clock: MockClock, body: dict[str, Any]) -> None:
    async with open_simulator(in_memory=True) as sim:
        answer = await post(sim, **body)
        assert (answer.status, answer.error["code"]) == (400, "unknown_parameter")


async def test_nulls_and_stream_are_tolerated(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        await peer.ask(stream=True, temperature=None, tools=None, previous_response_id=None, metadata=None, text=None)


async def test_what_goes_back_is_accepted(autojump_clock: MockClock) -> None:
    """A stateless client replays every item it received."""
    brain = Script(
        [[Think("so"), Call("add", {"a": 1, "b": 2})], [Think(["a", "b"], text="raw"), CustomCall("shout", "x")]],
        then=Echo(),
    )
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        tools = [FUNCTION, CUSTOM]
        transcript: list[Any] = [{"role": "developer", "content": "rules"}, USER]
        for _ in range(3):
            response = await peer.ask(transcript, tools=tools, store=False)
            transcript += response["output"]
            for item in response["output"]:
                if item["type"].endswith("_call"):
                    kind = item["type"] + "_output"
                    transcript.append({"type": kind, "call_id": item["call_id"], "output": "3"})
        assert text_of(response) == "3"
        # The server holds the same, but for the strings it has spelled out.
        assert sim.history(response["id"])[2:] == transcript[2:]


async def test_stored_items_can_be_named_instead_of_repeated(autojump_clock: MockClock) -> None:
    brain = Script([[Think("so"), Call("add", {})]], then=Echo())
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        thought, call = (await peer.ask(tools=[FUNCTION]))["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "5"}
        references = [{"type": "item_reference", "id": item["id"]} for item in (thought, call)]
        assert text_of(await peer.ask([USER, *references, output])) == "5"
        bare = {"type": "reasoning", "id": thought["id"], "summary": []}
        await peer.ask([USER, bare, call, output])


async def test_unanswered_calls_of_the_history_are_refused(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        first = await peer.ask("1+1", tools=[FUNCTION], tool_choice="required")
        call_id = first["output"][0]["call_id"]
        (error,) = await peer.turn("never mind", previous_response_id=first["id"])
        assert call_id in error["error"]["message"]
        assert error["error"]["message"].startswith("No tool output found for function call")
        wrong = {"type": "function_call_output", "call_id": "call_other", "output": "x"}
        (error,) = await peer.turn([wrong], previous_response_id=first["id"])
        assert error["error"]["message"] == "No tool call found for function call output with call_id call_other."


async def test_parallel_calls_and_named_tools(autojump_clock: MockClock) -> None:
    tools = [FUNCTION, CUSTOM, FUNCTION | {"name": "sub"}]
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:

        async def called(text: str, **options: Any) -> list[str]:
            response = await peer.ask(text, tools=tools, **options)
            return [item["name"] for item in response["output"] if item["type"] != "message"]

        assert await called("please add and sub") == ["add", "sub"]
        assert await called("please add and sub", parallel_tool_calls=False) == ["add"]
        assert await called("address") == []
        assert await called("add", tool_choice="none") == []
        assert await called("x", tool_choice="required") == ["add"]
        assert await called("add", tool_choice={"type": "function", "name": "sub"}) == ["sub"]
        allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "sub"}]}
        assert await called("add", tool_choice=allowed | {"mode": "auto"}) == []
        assert await called("add", tool_choice=allowed | {"mode": "required"}) == ["sub"]


async def test_unknown_models_and_extra_parameters_can_be_declared(autojump_clock: MockClock) -> None:
    async with (
        open_simulator(in_memory=True, models=["gpt-6-test"], accept_parameters=["flavour"]) as sim,
        connect(sim) as peer,
    ):
        await peer.ask(flavour="sweet")
        (error,) = await peer.turn(model="gpt-0")
        assert (error["status"], error["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 2+2?", "4"),
        ("12 * (3 + 4) please", "84"),
        ("1/4", "0.25"),
        ("7 - 10", "-3"),
        ("6 × 7 =", "42"),
        ("1/0", "1/0"),
        ("no sum 5", "no sum 5"),
        ("", ""),
    ],
)
async def test_sums(autojump_clock: MockClock, question: str, answer: str) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        assert text_of(await peer.ask(question)) == answer


async def test_images_and_files_are_taken(autojump_clock: MockClock) -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_id": "file_1"},
    ]
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        assert text_of(await peer.ask([{"role": "user", "content": content}])) == "look"
        assert json.dumps(sim.requests[0].body)
