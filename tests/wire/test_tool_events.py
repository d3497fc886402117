"""Tools in wire form, and what a response put out as the next request's input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai.types.responses import FunctionToolParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from pydantic import TypeAdapter

from engine.protocol.assembly import Assembly
from engine.protocol.request_body import create_body, input_items
from engine.protocol.request_tools import wire_tools
from engine.schemas.function_tool import FunctionTool
from engine.settings.turn_options import TurnOptions
from engine.transcript import from_json, to_json
from engine.values.messages import AnyTool, Context, Tool
from engine.values.problems import ConfigurationError
from engine.wire.codec import decode_object
from engine.wire.response import structure_response

same_examples = settings(derandomize=True, deadline=None, max_examples=100)

CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# --- schemas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_schema", "sent"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (OPEN, OPEN),
        (CLOSED, CLOSED),
        (
            {"type": "object", "allOf": [OPEN, CLOSED]},
            {"type": "object", "allOf": [OPEN, CLOSED], "properties": {}},
        ),
        (
            {
                "anyOf": [
                    {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]},
                    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                ]
            },
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "b": {}},
                "required": ["a"],
            },
        ),
    ],
)
def test_schemas_take_the_form_servers_want(given_schema: dict[str, Any], sent: dict[str, Any]) -> None:
    (made,) = wire_tools([Tool("f", parameters=given_schema)])
    assert made == {"type": "function", "name": "f", "parameters": sent}
    Draft202012Validator.check_schema(made["parameters"])


@pytest.mark.parametrize(
    ("tools", "strict"),
    [
        ([Tool("f", parameters=CLOSED)], [None]),
        ([Tool("f", parameters=CLOSED, strict=False)], [False]),
        ([Tool("f", parameters=CLOSED, strict=True)], [True]),
        ([Tool("f", parameters=OPEN, strict=True)], [False]),
        ([Tool("f", parameters=CLOSED, strict=True), Tool("g", parameters=OPEN, strict=True)], [False, False]),
        ([Tool("f", parameters=CLOSED, strict=True), Tool("g", parameters=OPEN)], [False, None]),
        ([Tool("f", parameters=CLOSED, strict=True), Tool("g", parameters=OPEN, strict=False)], [False, False]),
        ([Tool("f", parameters=CLOSED, strict=True), Tool("g", parameters=CLOSED)], [True, None]),
        ([Tool("f", parameters=CLOSED, strict=True), Tool("g")], [True, None]),
        ([Tool("f", strict=True)], [True]),
        ([Tool("f", parameters=CLOSED, strict=True), {"type": "web_search"}], [True, None]),
        ([Tool("f", parameters=CLOSED, strict=True), {"type": "custom", "name": "c"}], [True, None]),
        (
            [Tool("f", parameters=CLOSED, strict=True), {"type": "function", "name": "g", "parameters": OPEN}],
            [False, None],
        ),
        ([FunctionTool(add), Tool("g", parameters=CLOSED, strict=True)], [True, True]),
        ([FunctionTool(add), Tool("g", parameters=OPEN, strict=True)], [False, False]),
    ],
)
def test_strict_only_where_all_functions_allow_it(tools: list[AnyTool], strict: list[bool | None]) -> None:
    assert [tool.get("strict") for tool in wire_tools(tools)] == strict


def test_a_strict_function_without_arguments_says_so() -> None:
    (made,) = wire_tools([Tool("f", strict=True)])
    assert made["parameters"] == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def test_a_function_tool_in_a_request() -> None:
    body = create_body(Context(tools=[FunctionTool(add)]), TurnOptions(tool_choice="add"), model="m")
    (sent,) = body["tools"]
    assert sent == {
        "type": "function",
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "strict": True,
    }
    assert body["tool_choice"] == {"type": "function", "name": "add"}
    assert TypeAdapter(FunctionToolParam).validate_python(sent, strict=True) == sent


def test_a_request_owns_its_schemas() -> None:
    tool = FunctionTool(add)
    (sent,) = wire_tools([tool])
    sent["parameters"]["properties"].clear()
    assert set(tool.parameters["properties"]) == {"a", "b"}


@pytest.mark.parametrize("odd", [3, "text", int, None])
def test_what_is_no_tool(odd: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"tools\[0\]"):
        Context(tools=[odd])
    with pytest.raises(ConfigurationError):
        wire_tools([odd])


def test_functions_are_tools() -> None:
    assert wire_tools(Context(tools=[add]).tools) == wire_tools([FunctionTool(add)])


# --- what came back goes out again -----------------------------------------------------------------------------------

SEALED = {"encrypted_content": "gAAA"}
DIRECT = {"type": "direct"}
ITEMS: dict[str, dict[str, Any]] = {
    "message": {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "phase": "final_answer",
        "content": [
            {
                "type": "output_text",
                "text": "Hi",
                "annotations": [{"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}],
            },
            {"type": "refusal", "refusal": "No"},
            {"type": "output_text", "text": " there", "annotations": []},
        ],
    },
    "commentary": {
        "type": "message",
        "id": "msg_2",
        "role": "assistant",
        "status": "completed",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "Looking", "annotations": []}],
    },
    "more commentary": {
        "type": "message",
        "id": "msg_3",
        "role": "assistant",
        "status": "completed",
        "phase": "commentary",
        "content": [
            {
                "type": "output_text",
                "text": "Well",
                "annotations": [],
                "logprobs": [{"token": "Well", "bytes": [87], "logprob": -0.5, "top_logprobs": []}],
            }
        ],
        "agent": {"agent_name": "/root/critic"},
    },
    "reasoning of an agent": {
        "type": "reasoning",
        "id": "rs_3",
        "summary": [{"type": "summary_text", "text": "so"}],
        **SEALED,
        "agent": {"agent_name": "/root"},
    },
    "reasoning": {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "why"}, {"type": "summary_text", "text": "how"}],
        "content": [{"type": "reasoning_text", "text": "because"}],
        **SEALED,
    },
    "silent reasoning": {"type": "reasoning", "id": "rs_2", "summary": [], **SEALED},
    "function_call": {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "add",
        "arguments": '{"a": 1,\n "b":2}',
        "status": "completed",
        "namespace": "math",
        "caller": {"type": "program", "caller_id": "prog_1"},
        "async": True,
    },
    "function_call without ids": {"type": "function_call", "call_id": "call_0", "name": "add", "arguments": "{bad"},
    "custom_tool_call": {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "call_2",
        "name": "sh",
        "input": "",
        "namespace": "os",
        "caller": DIRECT,
    },
    "function_call_output": {
        "type": "function_call_output",
        "id": "fco_1",
        "call_id": "call_1",
        "output": [{"type": "input_text", "text": "3"}],
        "status": "completed",
    },
    "custom_tool_call_output": {"type": "custom_tool_call_output", "id": "x", "call_id": "call_2", "output": "3"},
    "tool_search_call": {
        "type": "tool_search_call",
        "id": "ts_1",
        "call_id": None,
        "arguments": {"query": "x"},
        "execution": "server",
        "status": "completed",
    },
    "tool_search_output": {
        "type": "tool_search_output",
        "id": "ts_2",
        "call_id": None,
        "execution": "server",
        "status": "completed",
        "tools": [{"type": "function", "name": "f", "parameters": CLOSED, "strict": True}],
    },
    "additional_tools": {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": []},
    "program": {"type": "program", "id": "p_1", "call_id": "prog_1", "code": "1", "fingerprint": "opaque"},
    "program_output": {
        "type": "program_output",
        "id": "p_2",
        "call_id": "prog_1",
        "result": "1",
        "status": "completed",
    },
    "compaction": {"type": "compaction", "id": "cmp_1", **SEALED},
    "web_search_call": {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "x", "queries": ["x"]},
    },
    "file_search_call": {
        "type": "file_search_call",
        "id": "fs_1",
        "queries": ["q"],
        "status": "completed",
        "results": None,
    },
    "code_interpreter_call": {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "container_id": "c",
        "code": "1",
        "outputs": [{"type": "logs", "logs": "1"}],
        "status": "completed",
    },
    "image_generation_call": {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "aGk=",
    },
    "computer_call": {
        "type": "computer_call",
        "id": "cu_1",
        "call_id": "call_3",
        "action": {"type": "screenshot"},
        "pending_safety_checks": [{"id": "s", "code": "c", "message": "m"}],
        "status": "completed",
    },
    "computer_call_output": {
        "type": "computer_call_output",
        "id": "cuo_1",
        "call_id": "call_3",
        "output": {"type": "computer_screenshot", "image_url": "data:x"},
    },
    "mcp_list_tools": {
        "type": "mcp_list_tools",
        "id": "mcpl_1",
        "server_label": "s",
        "tools": [{"name": "t", "input_schema": {}}],
    },
    "mcp_call": {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
        "output": "o",
        "error": None,
    },
    "mcp_approval_request": {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
    },
    "mcp_approval_response": {
        "type": "mcp_approval_response",
        "id": "mcpa_1",
        "approval_request_id": "mcpr_1",
        "approve": True,
    },
    "local_shell_call": {
        "type": "local_shell_call",
        "id": "ls_1",
        "call_id": "call_4",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
        "status": "completed",
    },
    "local_shell_call_output": {"type": "local_shell_call_output", "id": "ls_1", "output": "x"},
    "shell_call": {
        "type": "shell_call",
        "id": "sh_1",
        "call_id": "call_5",
        "action": {"commands": ["ls"], "timeout_ms": 1, "max_output_length": 2},
        "status": "completed",
    },
    "shell_call_output": {
        "type": "shell_call_output",
        "id": "sho_1",
        "call_id": "call_5",
        "output": [{"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        "max_output_length": 2,
    },
    "apply_patch_call": {
        "type": "apply_patch_call",
        "id": "ap_1",
        "call_id": "call_6",
        "operation": {"type": "delete_file", "path": "p"},
        "status": "completed",
    },
    "apply_patch_call_output": {
        "type": "apply_patch_call_output",
        "id": "apo_1",
        "call_id": "call_6",
        "status": "completed",
        "output": "done",
    },
    "multi_agent_call": {
        "type": "multi_agent_call",
        "id": "mac_1",
        "action": "spawn_agent",
        "call_id": "call_7",
        "arguments": "{}",
        "agent": {"agent_name": "/root"},
    },
    "an item of tomorrow": {"type": "novelty", "id": "n_1", "deep": {"x": [None, 1.5, "y"]}},
}

# Kinds that this library takes apart; everything else is kept whole, ids included, since many types need theirs.
TAKEN_APART = {"message", "reasoning", "function_call", "custom_tool_call"}


def expected(item: dict[str, Any], stored: bool) -> dict[str, Any]:
    kind = item["type"]
    if kind not in TAKEN_APART:
        return item
    kept = {name: value for name, value in item.items() if name != "status"}
    if not stored:
        kept.pop("id", None)
    return kept


def answered(items: list[dict[str, Any]], streamed: bool) -> Any:
    assembly = Assembly()
    if streamed:
        for index, item in enumerate(items):
            for kind in ("added", "done"):
                text = json.dumps({"type": f"response.output_item.{kind}", "output_index": index, "item": item})
                assembly.feed(decode_object(json.loads(text)))
    assembly.finish(
        structure_response({"id": "resp_1", "status": "completed", "output": [] if streamed else list(items)})
    )
    return assembly.message()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", ITEMS)
def test_every_item_goes_out_as_it_came(name: str, stored: bool) -> None:
    item = ITEMS[name]
    for streamed in (False, True):
        message = answered([item], streamed)
        assert input_items([message], stored=stored) == [expected(item, stored)]
        assert input_items(from_json(to_json([message])).messages, stored=stored) == [expected(item, stored)]


# Its types want an id of every message and reasoning item, which servers that keep none do not.
UNTYPED = {"message", "reasoning", "multi_agent_call", "novelty"}


@pytest.mark.parametrize("name", [name for name, item in ITEMS.items() if item["type"] not in UNTYPED])
def test_the_items_are_what_servers_take(name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)
    for item in input_items([answered([ITEMS[name]], True)], stored=False):
        adapter.validate_python(item)


@same_examples
@given(st.lists(st.sampled_from(list(ITEMS)), max_size=6, unique=True), st.booleans(), st.booleans())
def test_responses_go_out_as_they_came(names: list[str], stored: bool, streamed: bool) -> None:
    items = [ITEMS[name] for name in names]
    sent = input_items([answered(items, streamed)], stored=stored)
    assert sent == [expected(item, stored) for item in items]


@pytest.mark.parametrize("sealed", [False, True])
def test_reasoning_that_nobody_keeps_is_left_out(sealed: bool) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "w"}]}
    item |= SEALED if sealed else {}
    assert len(input_items([answered([item], True)], stored=False)) == sealed
    assert len(input_items([answered([item], True)], stored=True)) == 1
