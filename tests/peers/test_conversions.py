"""The same conversation in three libraries' hands: what each sends back of a response, and how it describes a tool.

Differences are listed here with their reasons; what is not listed has to be the same.
"""

from __future__ import annotations

from typing import Any

import pytest
from agents import FunctionTool as AgentsFunctionTool
from agents import function_tool
from agents.items import ItemHelpers, ModelResponse
from agents.models.openai_responses import Converter
from agents.usage import Usage
from openai.types.responses import Response
from trio.testing import MockClock

import engine
from engine.protocol.chain import canonical
from engine.protocol.request_body import create_body, input_items, wire_tools
from engine.simulator import Call, CustomCall, RawItem, Refuse, Say, Script, Think, open_simulator

PROGRAM = {"type": "program", "caller_id": "call_0"}
PIECE = {"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}, "created_by": "the server"}

TURNS = [
    [Think(["First.", "Then."]), Say("Let me see.", phase="commentary"), Call("add", {"a": 1, "b": 2})],
    [Say("It is ", phase="final_answer"), Say("3.", phase="final_answer")],
    [Refuse("No.")],
    [CustomCall("run", "print(1)")],
    [
        RawItem(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {
                        "type": "output_text",
                        "text": "Hi",
                        "annotations": [{"type": "file_path", "file_id": "file_1", "index": 0}],
                        "logprobs": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []}],
                    }
                ],
            }
        ),
        RawItem({"type": "compaction", "id": "cmp_1", "encrypted_content": "x", "created_by": "the server"}),
    ],
    [
        RawItem({"type": "program", "id": "prog_1", "call_id": "call_0", "code": "add()", "fingerprint": "f"}),
        RawItem(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "call_1",
                "name": "add",
                "arguments": "{}",
                "namespace": "math",
                "caller": PROGRAM,
                "status": "completed",
            }
        ),
    ],
    [
        RawItem(
            {
                "type": "shell_call",
                "id": "sh_1",
                "call_id": "call_2",
                "action": {"commands": ["ls"], "timeout_ms": 1000},
                "status": "completed",
                "created_by": "the server",
            }
        ),
        RawItem(
            {
                "type": "shell_call_output",
                "id": "sho_1",
                "call_id": "call_2",
                "output": [PIECE],
                "status": "completed",
                "created_by": "the server",
            }
        ),
        RawItem(
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "x", "queries": ["x"]},
            }
        ),
    ],
]


async def answered(steps: list[Any]) -> tuple[engine.AssistantMessage, Response]:
    """The same response as our message and as openai-python's own model."""
    async with open_simulator(in_memory=True, brain=Script([steps])) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            message = await session.ask("hi", engine.TurnOptions(store=True))
        return message, Response.model_validate(sim.response(message.response_id or ""))


def without(item: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the others send back and we do not: it says nothing in a request.

    That is a null, log probabilities where nobody asked for any, and the ``status`` of what is written anew. Hosted
    items go back as they came.
    """
    if item["type"] not in {"message", "reasoning", "function_call", "custom_tool_call"}:
        return item
    kept = {name: value for name, value in item.items() if name != "status" and value is not None}
    if isinstance(kept.get("content"), list):
        kept["content"] = [
            {name: value for name, value in part.items() if name != "logprobs" or value} for part in kept["content"]
        ]
    return kept


@pytest.mark.parametrize("steps", TURNS)
async def test_what_goes_back_of_a_response(autojump_clock: MockClock, steps: list[Any]) -> None:
    message, response = await answered(steps)
    ours = input_items([message], stored=True)
    official = [item.model_dump(exclude_unset=True, mode="json") for item in response.output]
    agents = ModelResponse(output=response.output, usage=Usage(), response_id=response.id).to_input_items()
    # What only servers write is in openai-python's items, and in neither of the others.
    assert [canonical(item) for item in agents] == [canonical(unsigned(item)) for item in official]
    assert ours == [without(dict(item)) for item in agents]


def unsigned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unsigned(member) for name, member in value.items() if name != "created_by"}
    return [unsigned(each) for each in value] if isinstance(value, list) else value


async def test_what_goes_back_of_a_tool_call(autojump_clock: MockClock) -> None:
    message, response = await answered(TURNS[0])  # type: ignore[arg-type]
    call: Any = response.output[-1]
    theirs = ItemHelpers.tool_call_output_item(call, "3")
    assert input_items([engine.ToolResult(message.tool_calls[0].id, "3")], stored=True) == [theirs]


async def test_what_goes_back_of_a_call_that_a_program_made(autojump_clock: MockClock) -> None:
    """They name the caller as we do. Ours says the namespace of the call too, which the schema has a place for."""
    message, response = await answered(TURNS[5])  # type: ignore[arg-type]
    call: Any = response.output[-1]
    theirs = {**ItemHelpers.tool_call_output_item(call, "3"), "namespace": "math"}
    assert input_items([message, engine.ToolResult("call_1", "3")], stored=True)[-1] == theirs


def add(a: int, b: int = 0) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def test_how_a_function_is_described() -> None:
    """Both libraries derive names, types and descriptions alike.

    Not the same: they give every parameter a ``title`` and put defaults into the schema; in strict mode, where every
    parameter is required, ours says by null that a default is meant.
    """
    (ours,) = wire_tools([engine.FunctionTool(add).tool])
    tool = function_tool(add)
    assert isinstance(tool, AgentsFunctionTool)
    (converted,) = Converter.convert_tools([tool], handoffs=[]).tools
    theirs: dict[str, Any] = dict(converted)
    for name in ("type", "name", "description", "strict"):
        assert ours[name] == theirs[name], name
    mine, other = ours["parameters"], theirs["parameters"]
    assert isinstance(other, dict)
    assert set(mine["properties"]) == set(other["properties"])
    assert sorted(mine["required"]) == sorted(other["required"])
    assert mine["additionalProperties"] is other["additionalProperties"] is False
    assert mine["properties"]["a"]["description"] == other["properties"]["a"]["description"]
    assert mine["properties"]["a"]["type"] == other["properties"]["a"]["type"] == "integer"


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_how_a_choice_of_tools_is_written(choice: str) -> None:
    body = create_body(engine.Context.of("hi"), engine.TurnOptions(tool_choice=choice), model="m")
    assert body["tool_choice"] == Converter.convert_tool_choice(choice)


def test_how_the_choice_of_one_function_is_written() -> None:
    context = engine.Context([engine.UserMessage("hi")], tools=[engine.Tool("add")])
    body = create_body(context, engine.TurnOptions(tool_choice="add"), model="m")
    assert body["tool_choice"] == Converter.convert_tool_choice("add")
