"""Steering and injecting: what is refused, what waits for which outputs, how a script ends all the same."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.beta.beta_responses_server_event import BetaResponsesServerEvent
from sim_peer import FUNCTION, Peer, classes_of, connect, kinds, text_of
from trio.testing import MockClock

from engine.simulator import (
    AwaitOutputs,
    Call,
    Completed,
    Delay,
    Echo,
    Quirks,
    RawItem,
    Say,
    SayDelta,
    Script,
    Simulator,
    open_simulator,
)

SHELL = {"id": "sh_1", "type": "shell_call", "call_id": "c1", "status": "completed", "action": {"commands": ["ls"]},
         "environment": None}  # fmt: skip
COMPUTER = {"id": "cu_1", "type": "computer_call", "call_id": "c1", "status": "completed",
            "action": {"type": "screenshot"}, "pending_safety_checks": []}  # fmt: skip
PATCH = {"id": "apc_1", "type": "apply_patch_call", "call_id": "c1", "status": "completed",
         "operation": {"type": "delete_file", "path": "x"}}  # fmt: skip
APPROVAL = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "n", "server_label": "s", "arguments": "{}"}
SEARCH = {"id": "ts_1", "type": "tool_search_call", "call_id": "c1", "arguments": {}, "execution": "client",
          "status": "completed"}  # fmt: skip
FUNCTION_CALL = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}",
                 "status": "completed"}  # fmt: skip
CUSTOM_CALL = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c1", "name": "shout", "input": "a"}
LOCAL = {"id": "lsh_1", "type": "local_shell_call", "call_id": "c1", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}}  # fmt: skip

WAITING: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (FUNCTION_CALL, {"type": "function_call_output", "call_id": "c1", "name": "add"}, {"output": "3"}),
    (CUSTOM_CALL, {"type": "custom_tool_call_output", "call_id": "c1"}, {"output": "A"}),
    (COMPUTER, {"type": "computer_call_output", "call_id": "c1"},
     {"output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,"}}),
    (SHELL, {"type": "shell_call_output", "call_id": "c1"},
     {"output": [{"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]}),
    (PATCH, {"type": "apply_patch_call_output", "call_id": "c1"}, {"status": "completed"}),
    (SEARCH, {"type": "tool_search_output", "call_id": "c1", "execution": "client"}, {"tools": []}),
    (APPROVAL, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}, {"approve": True}),
]  # fmt: skip


async def begin(peer: Peer, **body: Any) -> str:
    """Start a response and return its id once there is output."""
    await peer.create(**body)
    found = await peer.until("response.output_text.delta")
    identity: str = found[0]["response"]["id"]
    return identity


async def steer(peer: Peer, target: str, text: Any = "go") -> None:
    await peer.send({"type": "response.steer", "previous_response_id": target, "input": text})


@pytest.mark.parametrize(("call", "stub", "rest"), WAITING, ids=[entry[0]["type"] for entry in WAITING])
async def test_a_steer_waits_for_the_outputs_of_every_kind_of_call(
    autojump_clock: MockClock, call: dict[str, Any], stub: dict[str, Any], rest: dict[str, Any]
) -> None:
    script = Script([[SayDelta("a "), Delay(1), RawItem(call)]], then=Echo())
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        first = await begin(peer)
        await steer(peer, first)
        found = await peer.until("response.steer.pending")
        assert kinds(found)[-2] == "completed"
        assert found[-1]["required_input"] == [stub]
        await peer.create([stub | rest], previous_response_id=first)
        found = await peer.until("response.completed", "error")
        assert found[-1]["type"] == "response.completed", found[-1]
        items = sim.history(found[0]["response"]["id"])
        assert [item["type"] for item in items[-4:]] == ["message", call["type"], "message", stub["type"]] or [
            item["type"] for item in items[-3:]
        ] == ["message", stub["type"], "message"]


@pytest.mark.parametrize("call", [*(entry[0] for entry in WAITING), LOCAL], ids=lambda call: str(call["type"]))
async def test_every_kind_of_call_must_be_answered(call: dict[str, Any]) -> None:
    async with open_simulator(in_memory=True, brain=Script([[RawItem(call)]])) as sim, connect(sim) as peer:
        first = await peer.ask()
        assert (await peer.turn(previous_response_id=first["id"]))[-1]["error"]["message"].startswith(
            "No tool output found for "
        )


@pytest.mark.parametrize(
    "call",
    [
        SHELL | {"environment": {"type": "container_reference", "container_id": "cntr_1"}},
        SEARCH | {"execution": "server", "call_id": None},
    ],
)
async def test_calls_of_the_servers_own_need_no_answer(call: dict[str, Any]) -> None:
    async with open_simulator(in_memory=True, brain=Script([[RawItem(call)]])) as sim, connect(sim) as peer:
        first = await peer.ask()
        await peer.ask(previous_response_id=first["id"])


@pytest.mark.parametrize(
    "body",
    [
        {"model": "gpt-5.4"},
        {"context_management": [{"type": "compaction", "compact_threshold": 10_000}]},
        {"conversation": "conv_1"},
    ],
)
async def test_what_cannot_be_steered(autojump_clock: MockClock, body: dict[str, Any]) -> None:
    script = Script([[SayDelta("a "), Delay(1)]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        sim.conversations["conv_1"] = []
        await steer(peer, await begin(peer, **body))
        assert (await peer.until("response.steer.failed"))[-1]["error"]["code"] == "steering_not_supported"
        await peer.until("response.completed")


@pytest.mark.parametrize(
    "given",
    ["", [], 3, [{"role": "developer", "content": "x"}], [{"role": "user", "content": [{"type": "output_text"}]}]],
)
async def test_what_nothing_can_be_steered_with(autojump_clock: MockClock, given: Any) -> None:
    script = Script([[SayDelta("a "), Delay(1)]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim, check=False) as peer:
        await steer(peer, await begin(peer), given)
        assert (await peer.until("response.steer.failed"))[-1]["error"]["code"] == "invalid_input"


async def test_a_script_that_says_how_it_ends_is_followed_all_the_same(autojump_clock: MockClock) -> None:
    script = Script([[Say("a b", pause=1.0), Completed()]], then=Echo())
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        first = await begin(peer)
        await steer(peer, first)
        found = await peer.until("response.completed")
        assert kinds(found)[0] == "steer.accepted"
        assert found[-1]["response"]["id"] == first
        found = await peer.until("response.completed")
        assert found[0]["response"]["previous_response_id"] == first
        assert text_of(found[-1]["response"]) == "go"


# --- injecting -------------------------------------------------------------------------------------------------------

BETA = classes_of(BetaResponsesServerEvent)
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "3"}


def working() -> Script:
    return Script([[SayDelta("I add. "), Call("add", {}, call_id="c1"), AwaitOutputs(), Say("Three.")]], then=Echo())


async def inject(peer: Peer, target: str, items: Any) -> None:
    await peer.send({"type": "response.inject", "response_id": target, "input": items})


def agents(sim: Simulator) -> Any:
    headers = [(b"openai-beta", b"responses_multi_agent=v1")]
    return connect(sim, check=False, headers=headers)


async def test_injected_outputs_resume_the_response() -> None:
    async with open_simulator(in_memory=True, brain=working()) as sim, agents(sim) as peer:
        first = await begin(peer, tools=[FUNCTION])
        await peer.until("response.output_item.done", "response.output_item.done")
        await peer.until("response.function_call_arguments.done")
        await inject(peer, first, [OUTPUT])
        found = await peer.until("response.completed")
        created = next(event for event in found if event["type"] == "response.inject.created")
        BETA["response.inject.created"].model_validate(created)
        assert text_of(found[-1]["response"]) == "I add. Three."
        # Nothing is open any more, so the next request needs no outputs.
        await peer.ask(previous_response_id=first)
        assert [item["type"] for item in sim.history(first)].count("function_call_output") == 1
        assert len(sim.connections[0].injects) == 1


@pytest.mark.parametrize(
    ("target", "code"), [("resp_none", "response_not_found"), (None, "response_already_completed")]
)
async def test_what_cannot_be_injected_comes_back(target: str | None, code: str) -> None:
    async with open_simulator(in_memory=True) as sim, agents(sim) as peer:
        ended = (await peer.ask())["id"]
        await inject(peer, target or ended, [OUTPUT])
        failed = await peer.recv()
        BETA["response.inject.failed"].model_validate(failed)
        assert (failed["error"]["code"], failed["input"]) == (code, [OUTPUT])
        await peer.ask()


@pytest.mark.parametrize(
    "items",
    [[], "text", [{"type": "message", "role": "user", "content": "x"}], [OUTPUT | {"call_id": "c9"}], [OUTPUT] * 2],
)
async def test_a_wrong_injection_ends_the_connection(autojump_clock: MockClock, items: Any) -> None:
    async with open_simulator(in_memory=True, brain=working()) as sim, agents(sim) as peer:
        first = await begin(peer, tools=[FUNCTION])
        await peer.until("response.function_call_arguments.done")
        await inject(peer, first, items)
        error = (await peer.until("error"))[-1]
        assert error["status"] == 400
        assert (await peer.closed()).code == 1008


async def test_injecting_needs_the_beta() -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        await inject(peer, "resp_1", [OUTPUT])
        assert (await peer.recv())["error"]["code"] == "unknown_event_type"


async def test_several_agents_need_the_beta_and_exclude_steering(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("a "), Delay(1)]])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        assert (await peer.turn(multi_agent={"enabled": True}))[-1]["error"]["code"] == "unknown_parameter"
        async with agents(sim) as other:
            await steer(other, await begin(other, multi_agent={"enabled": True, "max_concurrent_subagents": 2}))
            assert (await other.until("response.steer.failed"))[-1]["error"]["code"] == "steering_not_supported"
            await other.until("response.completed")
            refused = (await other.turn(multi_agent={"enabled": "yes"}))[-1]
            assert refused["error"]["param"] == "multi_agent.enabled"


async def test_a_server_that_ignores_lanes() -> None:
    async with open_simulator(in_memory=True, quirks=Quirks(lanes="ignored")) as sim, connect(sim) as peer:
        await peer.create("one", stream_id="a")
        await peer.create("two", stream_id="b")
        for text in ("one", "two"):
            events = await peer.until("response.completed")
            assert not any("stream_id" in event for event in events)
            assert text_of(events[-1]["response"]) == text
        assert sim.requests[0].body["stream_id"] == "a"
        assert sim.connections[0].lanes == []
