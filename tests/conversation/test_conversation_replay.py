"""Whatever a response puts out goes back: every item type, through a session, in the next request that says it all."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.beta.beta_response_output_item import BetaResponseOutputItem
from openai.types.responses import ResponseOutputItem
from openai_samples import fields, instance, members
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Call, RawItem, Say, Script, Think
from engine.transcript import from_json, to_json

IDS = {"message": "msg_1", "reasoning": "rs_1", "function_call": "fc_1", "custom_tool_call": "ctc_1"}
"""Items that blocks stand for, and ids as the service gives them."""

LEFT_OUT = {
    # What the service notes for its reader: the schemas of input items have no such member.
    "*": {"created_by"},
    # How far the item had got, which says nothing once the response has ended. Others keep theirs: the schemas of
    # hosted calls demand one, and there it tells how the call went.
    **{kind: {"created_by", "status"} for kind in IDS},
}


def sent_back(item: dict[str, Any], *, stored: bool) -> dict[str, Any]:
    """The item as it has to be sent: all of it, but for what is left out on purpose."""
    left_out = LEFT_OUT.get(item["type"], LEFT_OUT["*"])
    kept = {name: value for name, value in item.items() if name not in left_out}
    if item["type"] == "shell_call_output":
        kept["output"] = [
            {name: value for name, value in piece.items() if name not in LEFT_OUT["*"]} for piece in kept["output"]
        ]
    if item["type"] in IDS:
        kept = {name: value for name, value in kept.items() if value is not None}
        if not stored:
            kept.pop("id", None)  # a server that keeps nothing could not find it
    return kept


def sampled(cls: Any, *, full: bool) -> list[dict[str, Any]]:
    """An item of a class with everything it can have (or the least), and before it what it cannot be without."""
    item = instance(cls, full)
    kind = item["type"]
    if kind in IDS:
        item |= {"id": IDS[kind]} | ({"status": "completed"} if "status" in item else {})
    if kind == "message":
        item["content"] = item["content"] or [{"type": "output_text", "text": "text", "annotations": []}]
    if kind not in CALLS:
        return [item]
    paired_by = {"mcp_approval_response": "approval_request_id", "local_shell_call_output": "id"}.get(kind, "call_id")
    call = {"type": kind.removesuffix("_output"), "call_id": "call_1", **CALLS[kind]}
    item[paired_by] = call["id"] if kind == "mcp_approval_response" else "call_1"
    if kind == "tool_search_output":
        call["execution"] = item["execution"]
    return [call, item]


CALLS: dict[str, dict[str, Any]] = {
    "function_call_output": {"name": "f", "arguments": "{}"},
    "custom_tool_call_output": {"name": "f", "input": "{}"},
    "computer_call_output": {"id": "cu_1", "action": {"type": "screenshot"}, "pending_safety_checks": []},
    "shell_call_output": {"id": "sh_1", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
    "local_shell_call_output": {"id": "lsh_1", "action": {"type": "exec", "command": ["ls"], "env": {}}},
    "apply_patch_call_output": {"id": "apc_1", "operation": {"type": "delete_file", "path": "a"}},
    "mcp_approval_response": {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}"}
    | {"server_label": "s"},
    "tool_search_output": {"type": "tool_search_call", "id": "tsc_1", "arguments": {}},
}
"""What has to stand before an output."""


UNIONS = (ResponseOutputItem, BetaResponseOutputItem)  # the second has an agent on every item
SAMPLES = [
    pytest.param(cls, full, id=f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}-{'full' if full else 'minimal'}")
    for union in UNIONS
    for cls in members(union)
    for full in (True, False)
]


def test_the_classes_are_those_of_the_reference() -> None:
    public, beta = ({get_args(fields(cls)["type"][0])[0] for cls in members(union)} for union in UNIONS)
    assert len(public) == 28
    assert beta - public == {"agent_message", "multi_agent_call", "multi_agent_call_output"}
    assert all("agent" in fields(cls) for cls in members(BetaResponseOutputItem))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("cls", "full"), SAMPLES)
async def test_an_item_goes_back_whole(autojump_clock: MockClock, cls: Any, full: bool, stored: bool) -> None:
    output = sampled(cls, full=full)
    script = Script([[*map(RawItem, output), Say("so")], Answer("two"), Answer("three")])
    options = engine.TurnOptions(store=stored)
    async with session_to(script) as (session, sim):
        question = engine.UserMessage("hi")
        first = await session.ask(engine.Context([question]), options)
        answered = {item["call_id"] for item in output if item["type"].endswith("call_output") and "call_id" in item}
        calls = [call for call in first.tool_calls if call.call_id not in answered]
        calls += [call for call in first.unanswered if call.kind == "mcp_approval"]
        results = [engine.ToolResult(call.id, "7", kind=call.kind) for call in calls]
        context = engine.Context([question, first, *results, engine.UserMessage("go on")])
        async with session.turn(context, options) as turn:
            await turn.wait()
        assert turn.report.continued
        assert len(sim.requests[1].input) == len(results) + 1
        # The reply to it is left out, so nothing can be continued; and what was stored as text says as much.
        async with session.turn(from_json(to_json(context)), options) as turn:
            await turn.wait()
        assert turn.report.full_because is not None
    expected = [sent_back(item, stored=stored) for item in output]
    if not stored:  # reasoning that is not sealed could be found nowhere
        expected = [item for item in expected if item["type"] != "reasoning" or item.get("encrypted_content")]
    sent = list(sim.requests[2].input)
    assert sent[1 : 1 + len(expected)] == expected
    said, *outputs, last = sent[1 + len(expected) :]
    assert (said["content"][0]["text"], last["content"]) == ("so", "go on")
    assert sim.requests[1].input == [*outputs, last]
    for call, item in zip(expected[-1:], outputs, strict=len(outputs) > 0):
        if item["type"] == "mcp_approval_response":
            assert (item["approval_request_id"], item["approve"], item["reason"]) == (call["id"], True, "7")
            continue
        assert (item["call_id"], item["output"]) == (call["call_id"], "7")
        assert item.get("caller") == call.get("caller")
        assert item.get("namespace") == (call.get("namespace") if call["type"] == "function_call" else None)


async def test_ids_of_what_was_never_kept_are_not_sent_to_a_server_that_keeps_things(
    autojump_clock: MockClock,
) -> None:
    turns = [[Think("why"), Say("one"), Call("f")], [Think("how"), Say("two"), Call("f")], Answer("three")]
    async with session_to(Script(turns)) as (session, sim):  # type: ignore[arg-type]
        messages: list[Any] = [engine.UserMessage("hi")]
        for stored in (False, True, True):
            reply = await session.ask(engine.Context(messages), engine.TurnOptions(store=stored))
            messages += [reply, *(engine.ToolResult(call.id, "7") for call in reply.tool_calls)]
            messages += [engine.UserMessage("go on")]
        await session.ask(engine.Context([engine.UserMessage("anew"), *messages]), engine.TurnOptions(store=True))
        assert [message.stored for message in messages if isinstance(message, engine.AssistantMessage)] == [
            False,
            True,
            True,
        ]
    ids = [item["id"].partition("_")[0] if "id" in item else None for item in sim.requests[-1].input]
    assert ids == [None, None, *[None] * 5, "rs", "msg", "fc", None, None, "msg", None]
