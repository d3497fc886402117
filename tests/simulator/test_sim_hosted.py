"""Every event that the vendor's types declare is sent by some step, and each is what the types say."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseOutputItem
from pydantic import TypeAdapter
from sim_peer import STREAM_CLASSES, WEBSOCKET_CLASSES, check_event, connect, kinds, post, stream
from trio.testing import MockClock

from engine.simulator import (
    ApplyPatch,
    Audio,
    Call,
    CodeInterpreter,
    Compaction,
    Completed,
    Computer,
    Created,
    CustomCall,
    Error,
    Failed,
    FileSearch,
    ImageGeneration,
    Incomplete,
    LocalShell,
    McpApproval,
    McpCall,
    McpListTools,
    Quirks,
    RawItem,
    Refuse,
    Say,
    SayDelta,
    Script,
    Shell,
    ShellOutput,
    Step,
    Think,
    ToolSearch,
    WebSearch,
    open_simulator,
)

ANNOTATIONS = [
    {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1},
    {"type": "file_citation", "file_id": "f", "filename": "n", "index": 0},
    {"type": "container_file_citation", "container_id": "c", "file_id": "f", "filename": "n", "start_index": 0,
     "end_index": 1},
    {"type": "file_path", "file_id": "f", "index": 0},
]  # fmt: skip
EVERYTHING: list[Step] = [
    Think(["one", "two"], text="raw"),
    WebSearch("weather", ["https://example.org"]),
    WebSearch(action={"type": "open_page", "url": "https://example.org"}),
    FileSearch(["a", "b"], [{"file_id": "f", "filename": "n", "score": 0.5, "text": "t", "attributes": {}}]),
    CodeInterpreter("print(1 + 1)", "2"),
    ImageGeneration("aGk=", ["aA=="], "a picture"),
    ImageGeneration(failure="no"),
    McpListTools("s", [{"name": "n", "input_schema": {"type": "object"}}]),
    McpListTools("s", failure="no"),
    McpCall("n", {"a": 1}, "out"),
    McpCall("n", failure="no"),
    Shell(["ls -l", "cat x"], container_id="cntr_1", call_id="c1"),
    ShellOutput("c1", "out", "err"),
    ToolSearch({"q": 1}, "server"),
    Compaction(),
    Audio(["aA=="], "hello there"),
    RawItem({"id": "prg_1", "type": "program", "call_id": "p1", "code": "1", "fingerprint": "f"}),
    Say("hello you", annotations=ANNOTATIONS),
    Refuse("I will not."),
]
CALLS: list[Step] = [
    Call("add", {"a": 1}),
    CustomCall("shout", "a b"),
    Shell(["ls"], timeout_ms=5),
    LocalShell(["ls"]),
    ApplyPatch("x", "@@"),
    ApplyPatch("x", type="create_file"),
    ApplyPatch("x", type="delete_file"),
    Computer(),
    Computer({"type": "click", "button": "left", "x": 1, "y": 2}, pending_safety_checks=[{"id": "s"}]),
    ToolSearch({}),
    McpApproval("n", {"a": 1}),
]
INCLUDE = [
    "file_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "message.output_text.logprobs",
]
ITEM = TypeAdapter(ResponseOutputItem)


@pytest.mark.parametrize("include", [[], INCLUDE])
async def test_every_item_and_event_is_what_the_vendors_types_say(include: list[str]) -> None:
    brain = Script([EVERYTHING, CALLS, EVERYTHING, CALLS, EVERYTHING])
    seen: set[str] = set()
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        for _ in range(2):
            events = await peer.turn(include=include, top_logprobs=2)
            seen |= {event["type"] for event in events}
            done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
            assert events[-1]["response"]["output"] == done
            for item in done:
                ITEM.validate_python(item)
        for _ in range(2):
            streamed = (await stream(sim, include=include, top_logprobs=2)).events
            assert streamed[-1]["type"] == "response.completed"
        plain = (await post(sim, include=include)).json
        assert len(plain["output"]) == len(EVERYTHING) - 1
    rest = {"created", "in_progress", "completed"}
    assert {f"response.{kind}" for kind in rest} <= seen
    # What other tests cause: failures, queues, steering.
    others = {"response.queued", "response.failed", "response.incomplete", "error"}
    steering = {"response.steer.accepted", "response.steer.failed", "response.steer.pending"}
    assert set(WEBSOCKET_CLASSES) - seen == others | steering
    assert set(STREAM_CLASSES) - seen == others


async def test_what_is_included_and_what_is_not() -> None:
    steps = [FileSearch(["a"], [{"text": "t"}]), WebSearch("q", ["u"]), CodeInterpreter("1", "2")]
    async with open_simulator(in_memory=True, brain=Script([steps] * 2)) as sim:
        file, web, code = (await post(sim)).json["output"]
        assert (file["results"], "sources" in web["action"], code["outputs"]) == (None, False, None)
        file, web, code = (await post(sim, include=INCLUDE)).json["output"]
        assert file["results"] == [{"text": "t"}]
        assert web["action"]["sources"] == [{"type": "url", "url": "u"}]
        assert code["outputs"] == [{"type": "logs", "logs": "2"}]


async def test_a_response_with_calls_for_the_client_waits_for_them() -> None:
    async with open_simulator(in_memory=True, brain=Script([CALLS, [Shell(["ls"], container_id="c")]])) as sim:
        waiting = (await post(sim)).json
        assert (await post(sim, previous_response_id=waiting["id"])).status == 400
        own = (await post(sim)).json
        assert (await post(sim, previous_response_id=own["id"])).status == 200


async def test_what_the_service_ran_itself_is_taken_back() -> None:
    async with open_simulator(in_memory=True, brain=Script([EVERYTHING])) as sim:
        told = (await post(sim)).json
        searched: dict[str, Any] = {"type": "tool_search_output", "call_id": None, "tools": []}
        searched |= {"execution": "server"}
        answer = await post(sim, [*told["output"], searched, {"role": "user", "content": "go"}])
        assert answer.status == 200, answer.json
        lonely: dict[str, Any] = {"type": "shell_call_output", "call_id": "c9", "output": []}
        assert (await post(sim, [lonely])).error["message"].startswith("No tool call found for shell call output")


# --- quirks that the types do not forbid -----------------------------------------------------------------------------

VALID = {
    "keepalives, which have no class": Quirks(keepalive=0.001),
    "no in_progress": Quirks(in_progress=False),
    "no set-up events": Quirks(set_up_events=False),
    "no padding": Quirks(obfuscation=False),
    "no usage": Quirks(usage=False),
    "usage left out": Quirks(usage="absent"),
    "no output at the end": Quirks(terminal_output="empty"),
    "kept parents": Quirks(evict=False),
    "one response per connection": Quirks(only_newest=True),
    "marks the end": Quirks(done_marker=True),
    "carriage returns": Quirks(newline="\r\n"),
    "slices": Quirks(slice_bytes=7),
    "lines": Quirks(data_lines=True),
    "comments": Quirks(comments=True),
    "no names": Quirks(event_names=False),
    "errors without a type": Quirks(status_code=True),
    "headers at the top": Quirks(error_headers="top"),
}
ENDS: list[list[Step]] = [
    [Say("a"), Completed()],
    [Say("a"), Incomplete()],
    [Say("a"), Failed()],
    [Created(), SayDelta("a"), Error(500, headers={"a": "b"})],
    [Error(429)],
]


@pytest.mark.parametrize("name", VALID)
async def test_quirks_that_stay_within_the_types(autojump_clock: MockClock, name: str) -> None:
    quirks = VALID[name]
    async with open_simulator(in_memory=True, brain=Script([EVERYTHING, *ENDS] * 2), quirks=quirks) as sim:
        async with connect(sim, check=False) as peer:
            for _ in range(1 + len(ENDS)):
                for event in await peer.turn():
                    if event["type"] != "keepalive":
                        check_event(event)
        for _ in range(1 + len(ENDS)):
            answer = await stream(sim, check=False)
            if "data_lines" not in name and not quirks.data_lines and answer.status == 200:
                for event in answer.events:
                    if event["type"] != "keepalive":
                        check_event(event, websocket=False)


async def test_the_judge_finds_faults() -> None:
    quirks = Quirks(terminal_output="absent")
    async with open_simulator(in_memory=True, quirks=quirks) as sim, connect(sim, check=False) as peer:
        events = await peer.turn()
        assert kinds(events)[-1] == "completed"
        with pytest.raises(ValueError, match="output"):
            check_event(events[-1])
