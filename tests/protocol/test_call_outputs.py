"""Calls of every kind that the caller answers: unanswered until they are, and answered in the form of their kind."""

from __future__ import annotations

from typing import Any

import pytest

from engine.protocol.request_body import create_body, input_items
from engine.schemas.transcripts import from_json, to_json
from engine.settings.turn_options import TurnOptions
from engine.values.blocks import Image, OutputItem, Text, ToolCall
from engine.values.calls import CALL_KINDS, OUTPUTS, CallKind, answered_by, client_item
from engine.values.messages import AssistantMessage, Context, Message, ToolResult, UserMessage

ACTION = {"commands": ["ls"], "max_output_length": 10}
ITEMS: dict[str, dict[str, Any]] = {
    "shell": {"type": "shell_call", "call_id": "call_s", "action": ACTION},
    "local_shell": {"type": "local_shell_call", "call_id": "call_l", "action": {"command": ["ls"]}},
    "apply_patch": {"type": "apply_patch_call", "call_id": "call_p", "operation": {"type": "delete_file"}},
    "computer": {"type": "computer_call", "call_id": "call_c", "action": {"type": "screenshot"}},
    "mcp_approval": {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "n",
        "server_label": "s",
        "arguments": "{}",
    },
    "tool_search": {"type": "tool_search_call", "call_id": "call_t", "execution": "client", "arguments": {}},
}
SHOT = Image("https://screens.invalid/1.png")
ANSWERS: dict[str, tuple[ToolResult, dict[str, Any]]] = {
    "shell": (
        ToolResult("call_s", "a.txt"),
        {
            "call_id": "call_s",
            "output": [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
            "max_output_length": 10,
        },
    ),
    "local_shell": (ToolResult("call_l", "a.txt"), {"id": "call_l", "output": "a.txt"}),
    "apply_patch": (
        ToolResult("call_p", "no such file", is_error=True),
        {"call_id": "call_p", "status": "failed", "output": "no such file"},
    ),
    "computer": (
        ToolResult("call_c", [SHOT]),
        {"call_id": "call_c", "output": {"type": "computer_screenshot", "image_url": SHOT.url}},
    ),
    "mcp_approval": (
        ToolResult("mcpr_1", "not today", is_error=True),
        {"approval_request_id": "mcpr_1", "approve": False, "reason": "not today"},
    ),
    "tool_search": (
        ToolResult("call_t", '[{"type":"function","name":"f"}]'),
        {"call_id": "call_t", "execution": "client", "tools": [{"type": "function", "name": "f"}]},
    ),
}


def sent(*messages: Message, **options: Any) -> list[dict[str, Any]]:
    body = create_body(Context(messages), TurnOptions(**options), model="m")
    items: list[dict[str, Any]] = body["input"]
    return items


def client(kind: str) -> CallKind:
    asked = client_item(ITEMS[kind])
    assert asked is not None
    return asked.kind


def test_every_kind_is_there() -> None:
    assert {*ITEMS, "function", "custom"} == set(CALL_KINDS) == set(OUTPUTS)


@pytest.mark.parametrize("kind", ITEMS)
def test_a_call_is_unanswered_until_the_response_or_the_caller_answers_it(kind: str) -> None:
    item = ITEMS[kind]
    message = AssistantMessage([OutputItem(item)])
    (call,) = message.unanswered
    assert isinstance(call, ToolCall)
    assert (call.kind, call.name) == (kind, kind)
    assert message.tool_calls == ()
    result, said = ANSWERS[kind]
    assert result.call_id == call.call_id
    answer = sent(UserMessage("go"), message, result)[-1]
    assert answer == {"type": OUTPUTS[call.kind], **said}
    assert answered_by(answer) == call.call_id
    assert AssistantMessage([OutputItem(item), OutputItem(answer)]).unanswered == ()


@pytest.mark.parametrize("kind", ITEMS)
def test_an_answer_in_the_wire_s_own_form(kind: str) -> None:
    answer = {"type": OUTPUTS[client(kind)], **ANSWERS[kind][1], "own": "member"}
    context = Context([UserMessage("go"), AssistantMessage([OutputItem(ITEMS[kind])]), OutputItem(answer)])
    assert input_items(context.messages, stored=True)[-1] == answer
    assert from_json(to_json(context)) == context


def test_a_computer_answers_with_a_picture_of_something() -> None:
    asked = AssistantMessage([OutputItem(ITEMS["computer"])])
    output = sent(asked, ToolResult("call_c", "the screen is off", is_error=True))[-1]["output"]
    assert output["image_url"].startswith("data:image/png;base64,")
    assert sent(asked, ToolResult("call_c", [Image(file_id="file_1")]))[-1]["output"]["file_id"] == "file_1"


def test_what_is_no_call_of_the_caller_s() -> None:
    assert client_item({"type": "tool_search_call", "call_id": "c", "execution": "server"}) is None
    assert client_item({"type": "web_search_call", "id": "ws_1"}) is None
    assert client_item({"type": "shell_call", "action": {}}) is None
    assert answered_by({"type": "shell_call", "call_id": "c"}) is None


def test_the_kind_is_that_of_the_call() -> None:
    call = AssistantMessage([ToolCall("call_1", "shell", raw_arguments="ls", kind="custom")])
    assert sent(call, ToolResult("call_1", "a.txt"))[-1]["type"] == "custom_tool_call_output"
    assert sent(ToolResult("call_1", "a.txt"))[-1]["type"] == "function_call_output"


# --- what the server holds


def answer(name: str | None, *blocks: Any) -> AssistantMessage:
    return AssistantMessage(blocks or "so", response_id=name)


HISTORY: tuple[Message, ...] = (
    UserMessage("one"), answer("resp_1"), UserMessage("two"), answer("resp_2"), UserMessage("three"),
)  # fmt: skip


def texts(items: list[dict[str, Any]]) -> list[Any]:
    return [item.get("content", item.get("output")) for item in items]


def test_a_conversation_is_told_what_is_new() -> None:
    assert texts(sent(*HISTORY, conversation="conv_1")) == ["three"]
    assert texts(sent(*HISTORY, extra={"conversation": {"id": "conv_1"}})) == ["three"]
    assert texts(sent(UserMessage("one"), conversation="conv_1")) == ["one"]
    by_hand: list[Message] = [UserMessage("one"), AssistantMessage("so"), UserMessage("two")]
    assert len(sent(*by_hand, conversation="conv_1")) == 3


def test_results_of_calls_that_the_conversation_holds() -> None:
    asked = answer("resp_1", ToolCall("call_1", "f", raw_arguments="x", kind="custom"))
    (item,) = sent(UserMessage("one"), asked, ToolResult("call_1", "r"), conversation="conv_1")
    assert item == {"type": "custom_tool_call_output", "call_id": "call_1", "output": "r"}


def test_a_stored_response_is_told_what_came_after_it() -> None:
    assert texts(sent(*HISTORY, previous_response_id="resp_2")) == ["three"]
    assert len(sent(*HISTORY, previous_response_id="resp_1")) == 3
    assert len(sent(*HISTORY, previous_response_id="resp_9")) == 5


# --- ids


@pytest.mark.parametrize("name", ["x" * 65, "a+b/", "", "item_1", "6fd1c3c4-0e2a"])
def test_ids_that_the_service_refuses_are_left_out(name: str) -> None:
    said = AssistantMessage([Text("a", item_id=name), ToolCall(f"call_1|{name}", "f")], stored=True)
    items = sent(said, ToolResult("call_1", "r"), store=True)
    assert all("id" not in item for item in items)


def test_an_item_without_a_name_keeps_what_it_is() -> None:
    long = "x" * 65
    search = {"id": long, "type": "web_search_call", "status": "completed"}
    approval = {"id": long, "type": "mcp_approval_request", "name": "n", "server_label": "s", "arguments": "{}"}
    items = input_items([AssistantMessage([OutputItem(search), OutputItem(approval)])], stored=True)
    assert items == [{"type": "web_search_call", "status": "completed"}, approval]
