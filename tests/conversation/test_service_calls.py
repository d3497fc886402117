"""Calls of the service's own tools that the caller answers: the shell, patches, a computer, approvals."""

from __future__ import annotations

from typing import Any

import pytest
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import Answer, ApplyPatch, Computer, McpApproval, Script, Shell

KINDS: list[Any] = [
    pytest.param({"type": "shell"}, Shell(["ls"], "call_1"), "shell", id="shell"),
    pytest.param({"type": "apply_patch"}, ApplyPatch("a", "x", call_id="call_1"), "apply_patch", id="apply_patch"),
    pytest.param({"type": "computer_use_preview"}, Computer(call_id="call_1"), "computer", id="computer"),
    pytest.param({"type": "mcp", "server_label": "files"}, McpApproval("delete"), "mcp_approval", id="mcp_approval"),
]


@pytest.mark.parametrize(("tool", "step", "kind"), KINDS)
@pytest.mark.parametrize("answered", [True, False])
async def test_they_wait_for_the_caller(
    tool: Any, step: Any, kind: str, answered: bool, autojump_clock: MockClock
) -> None:
    async with session_to(Script([[step], Answer("done")])) as (session, sim):
        chat = session.conversation(tools=[tool])
        reply = await chat.send("go")
        (call,) = chat.unanswered
        assert (reply.stop_reason, call.kind, call.name) == ("tool_use", kind, kind)
        assert chat.messages == ()
        prompt: Any = engine.ToolResult(call.call_id, "fine", kind=call.kind) if answered else "and now?"
        assert (await chat.send(prompt)).text == "done"
        assert chat.unanswered == ()
        sent = [item["type"] for item in sim.requests[1].body["input"]]
        assert sum(each.endswith(("_output", "_response")) for each in sent) == 1


async def test_a_function_serves_the_shell(autojump_clock: MockClock) -> None:
    ran: list[Any] = []

    def shell(commands: list[str], timeout_ms: int | None = None) -> str:
        """Run commands."""
        ran.append((commands, timeout_ms))
        return "a.txt"

    async with session_to(Script([[Shell(["ls", "pwd"], timeout_ms=5)], Answer("done")])) as (session, sim):
        chat = session.conversation(tools=[{"type": "shell"}, shell])
        assert (await chat.send("go")).text == "done"
        assert [tool["type"] for tool in sim.requests[0].body["tools"]] == ["shell"]
        item = sim.requests[1].body["input"][-1]
        assert item["type"] == "shell_call_output"
        assert item["output"][0]["stdout"] == "a.txt"
    assert ran == [(["ls", "pwd"], 5)]


async def test_a_function_serves_patches(autojump_clock: MockClock) -> None:
    def apply_patch(operation: dict[str, Any], path: str) -> str:
        return f"{operation['type']} {path}"

    async with session_to(Script([[ApplyPatch("a.txt", "x")], Answer("done")])) as (session, sim):
        await session.run("go", [{"type": "apply_patch"}, apply_patch])
        assert sim.requests[1].body["input"][-1]["output"] == "update_file a.txt"


@pytest.mark.parametrize(("verdict", "approved"), [(True, True), (False, False), ("not that one", False)])
async def test_approve_answers_requests_for_approval(verdict: Any, approved: bool, autojump_clock: MockClock) -> None:
    asked: list[engine.ToolCall] = []

    def approve(call: engine.ToolCall) -> Any:
        asked.append(call)
        return verdict

    async with session_to(Script([[McpApproval("delete", {"path": "/"})], Answer("done")])) as (session, sim):
        chat = session.conversation(tools=[{"type": "mcp", "server_label": "server"}], approve=approve)
        assert (await chat.send("go")).text == "done"
        (item,) = [each for each in sim.requests[1].body["input"] if each["type"] == "mcp_approval_response"]
        assert item["approve"] is approved
        assert ("not that one" in item.get("reason", "")) is (verdict == "not that one")
    assert asked[0].arguments["name"] == "delete"


async def test_an_output_item_answers_too(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Shell(["ls"], "call_1")], Answer("done")])) as (session, _):
        chat = session.conversation(tools=[{"type": "shell"}])
        await chat.send("go")
        output: dict[str, Any] = {
            "type": "shell_call_output",
            "call_id": "call_1",
            "output": [],
            "max_output_length": None,
        }
        assert (await chat.send(engine.OutputItem(output))).text == "done"
        assert [type(message).__name__ for message in chat.messages] == [
            *("UserMessage", "AssistantMessage", "OutputItem", "AssistantMessage"),
        ]
