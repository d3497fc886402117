"""The documented behaviour of the WebSocket: order, lanes, limits, memory, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from sim_peer import CUSTOM, FUNCTION, connect, kinds, text_of
from trio.testing import MockClock

from engine.simulator import (
    Answer,
    Call,
    Completed,
    Created,
    Delay,
    Echo,
    Error,
    Failed,
    Gate,
    Incomplete,
    InProgress,
    Say,
    SayDelta,
    Script,
    Think,
    open_simulator,
)


async def test_a_text_turn_has_the_documented_order(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        events = await peer.turn("What is 2+2?")
        assert kinds(events) == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert all("stream_id" not in event for event in events)
        final = events[-1]["response"]
        assert text_of(final) == "4"
        assert final["id"].startswith("resp_")
        assert final["output"][0]["id"].startswith("msg_")
        assert events[0]["response"]["output"] == []
        assert events[0]["response"]["usage"] is None
        usage = final["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["output_tokens"] == 1


async def test_every_response_counts_from_zero(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        for _ in range(2):
            assert (await peer.turn())[0]["sequence_number"] == 0


async def test_a_tool_turn_and_its_follow_up_on_the_same_socket(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        first = await peer.ask("add 2 and 3", tools=[FUNCTION], tool_choice="required", store=False)
        (call,) = first["output"]
        assert call["type"] == "function_call"
        assert call["name"] == "add"
        assert set(json.loads(call["arguments"])) == {"a", "b"}
        assert call["id"].startswith("fc_")
        assert call["call_id"].startswith("call_")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "five"}
        second = await peer.ask([output], tools=[FUNCTION], tool_choice="required", previous_response_id=first["id"])
        assert text_of(second) == "five"
        assert second["usage"]["input_tokens_details"]["cached_tokens"] > 0
        assert len(sim.connections) == 1
        kinds_held = [item["type"] for item in sim.history(second["id"])]
        assert kinds_held == ["message", "function_call", "function_call_output", "message"]
        assert [record.previous_response_id for record in sim.requests] == [None, first["id"]]


async def test_a_custom_tool(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        choice = {"type": "custom", "name": "shout"}
        first = await peer.ask("loud", tools=[CUSTOM], tool_choice=choice)
        (call,) = first["output"]
        assert (call["type"], call["input"]) == ("custom_tool_call", "loud")
        output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "LOUD"}
        assert text_of(await peer.ask([output], previous_response_id=first["id"])) == "LOUD"


async def test_reasoning_comes_first_when_asked_for(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        events = await peer.turn("2*3", reasoning={"effort": "high", "summary": "auto"}, store=False)
        thought, answer = events[-1]["response"]["output"]
        assert thought["type"] == "reasoning"
        assert thought["id"].startswith("rs_")
        assert thought["summary"][0]["text"]
        assert thought["encrypted_content"]
        assert answer["content"][0]["text"] == "6"
        assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        silent = await peer.ask("2*3", reasoning={"effort": "low"})
        assert silent["output"][0]["summary"] == []
        none = await peer.ask("2*3", reasoning={"effort": "none"})
        assert [item["type"] for item in none["output"]] == ["message"]


async def test_obfuscation_can_be_switched_off(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        padded = await peer.turn("hello there")
        bare = await peer.turn("hello there", stream_options={"include_obfuscation": False})
        assert all("obfuscation" in event for event in padded if event["type"].endswith(".delta"))
        assert not any("obfuscation" in event for event in bare)


async def test_structured_output_fits_its_schema(autojump_clock: MockClock) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}, "why": {"type": "string"}, "tags": {"type": "array"}},
        "required": ["answer", "why", "tags"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "result", "schema": schema, "strict": True}
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        value = json.loads(text_of(await peer.ask("6*7", text={"format": form})))
        assert value == {"answer": 42, "why": "42", "tags": ["42"]}
        assert json.loads(text_of(await peer.ask("6*7", text={"format": {"type": "json_object"}}))) == {"answer": "42"}


# --- warm-up, tokens, metadata ---------------------------------------------------------------------------------------


async def test_a_warm_up_makes_no_output_and_can_be_continued(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        events = await peer.turn("remember this", generate=False, store=False)
        assert kinds(events) == ["created", "in_progress", "completed"]
        warm = events[-1]["response"]
        assert warm["output"] == []
        assert warm["usage"]["output_tokens"] == 0
        assert warm["usage"]["input_tokens"] > 0
        reply = await peer.ask("2+2", previous_response_id=warm["id"], store=False)
        assert [item["content"][0]["text"] for item in sim.history(reply["id"])] == ["remember this", "2+2", "4"]


async def test_a_warm_up_needs_no_input(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        assert (await peer.ask(..., generate=False, instructions="x"))["output"] == []


async def test_a_script_is_not_used_up_by_warm_ups_unless_told(autojump_clock: MockClock) -> None:
    script = Script(["one"])
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        await peer.ask("x", generate=False)
        assert script.left == 1
        assert text_of(await peer.ask()) == "one"
        sim.brain = Script([[Error(429, "rate_limit_exceeded")]], warm_ups=True)
        assert (await peer.turn("x", generate=False))[-1]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(("limit", "text"), [(0, ""), (1, "one"), (3, "one two three")])
async def test_few_output_tokens_make_the_response_incomplete(autojump_clock: MockClock, limit: int, text: str) -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim, connect(sim) as peer:
        events = await peer.turn("one two three four", max_output_tokens=limit)
        final = events[-1]["response"]
        assert events[-1]["type"] == "response.incomplete"
        assert final["incomplete_details"] == {"reason": "max_output_tokens"}
        assert text_of(final) == text
        assert final["usage"]["output_tokens"] == limit
        assert all(item["status"] == "incomplete" for item in final["output"])
        # An incomplete response can be continued.
        await peer.ask("go on", previous_response_id=final["id"])


async def test_settings_come_back(autojump_clock: MockClock) -> None:
    settings: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.25,
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "max_output_tokens": 100,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "truncation": "auto",
        "user": "u",
    }
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        response = await peer.ask("hi", service_tier="fast", text={"verbosity": "low"}, **settings)
        assert {name: response[name] for name in settings} == settings
        assert response["service_tier"] == "priority"
        assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}


# --- lanes -----------------------------------------------------------------------------------------------------------


async def test_a_lane_is_strictly_first_in_first_out(autojump_clock: MockClock) -> None:
    brain = Script([[Delay(5), Say("slow")], "fast"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create(stream_id="a")
        await peer.create(stream_id="a")
        first = await peer.until("response.completed")
        second = await peer.until("response.completed")
        assert [text_of(events[-1]["response"]) for events in (first, second)] == ["slow", "fast"]
        assert {event["stream_id"] for event in first + second} == {"a"}


async def test_lanes_run_beside_each_other_and_name_themselves(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), Gate(gate), Say("main")], "side"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create()
        await peer.until("response.created")
        side = await peer.turn(stream_id="side.1-_")
        assert text_of(side[-1]["response"]) == "side"
        assert {event["stream_id"] for event in side} == {"side.1-_"}
        gate.set()
        main = await peer.until("response.completed")
        assert all("stream_id" not in event for event in main)
        assert sim.connections[0].lanes == ["side.1-_"]


async def test_sixteen_responses_run_and_more_wait(autojump_clock: MockClock) -> None:
    gates = [trio.Event() for _ in range(16)]
    turns: list[Any] = [[Created(), Gate(gate), Completed()] for gate in gates]
    async with open_simulator(in_memory=True, brain=Script([*turns, "late"])) as sim, connect(sim) as peer:
        for number in range(17):
            await peer.create(stream_id=f"lane{number}")
        events = [await peer.recv() for _ in range(17)]
        assert kinds(events).count("created") == 16
        (queued,) = [event for event in events if event["type"] == "response.queued"]
        assert queued["response"]["status"] == "queued"
        assert queued["stream_id"] == "lane16"
        gates[3].set()
        done = await peer.until("response.completed")
        assert done[-1]["stream_id"] == "lane3"
        late = await peer.until("response.completed")
        assert late[0]["type"] == "response.created"
        assert late[0]["sequence_number"] == 1
        assert text_of(late[-1]["response"]) == "late"
        for gate in gates:
            gate.set()


async def test_the_33rd_lane_is_refused_and_named(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        for number in range(32):
            await peer.turn(stream_id=f"lane{number}")
        (error,) = await peer.turn(stream_id="one-too-many")
        assert error["error"]["code"] == "websocket_stream_limit_reached"
        assert error["error"]["param"] == "stream_id"
        assert error["status"] == 400
        assert error["stream_id"] == "one-too-many"
        await peer.ask(stream_id="lane7")
        await peer.ask()


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 257, "a\n", 7, None, ["a"]])
async def test_a_bad_lane_name_is_refused_without_a_lane(autojump_clock: MockClock, name: object) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        (error,) = await peer.turn(stream_id=name)
        assert error["error"]["code"] == "invalid_stream_id"
        assert "stream_id" not in error
        assert sim.requests[0].status == "rejected"


async def test_an_error_on_one_lane_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    brain = Script([[Created(), Gate(gate), Say("fine")], [Error(500)]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        await peer.create(stream_id="good")
        await peer.until("response.created")
        (error,) = await peer.turn(stream_id="bad")
        assert (error["stream_id"], error["status"], error["error"]["type"]) == ("bad", 500, "server_error")
        gate.set()
        assert text_of((await peer.until("response.completed"))[-1]["response"]) == "fine"


async def test_the_queue_of_a_lane_is_bounded(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Delay(60)]])) as sim, connect(sim) as peer:
        for _ in range(1026):
            await peer.create()
        events = await peer.until("error")
        assert events[-1]["error"]["code"] == "rate_limit_exceeded"
        assert events[-1]["status"] == 429


# --- memory ----------------------------------------------------------------------------------------------------------


async def _missing(peer: Any, response_id: str, **body: Any) -> dict[str, Any]:
    (error,) = await peer.turn("more", previous_response_id=response_id, **body)
    assert error["error"]["code"] == "previous_response_not_found"
    assert error["error"]["param"] == "previous_response_id"
    assert error["status"] == 400
    return error  # type: ignore[no-any-return]


async def test_an_unstored_response_lives_as_long_as_its_connection(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with connect(sim) as peer:
            response = await peer.ask(store=False)
            await peer.ask(previous_response_id=response["id"], store=False)
        async with connect(sim) as peer:
            await _missing(peer, response["id"])


async def test_a_stored_response_outlives_its_connection(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with connect(sim) as peer:
            response = await peer.ask()
        async with connect(sim) as peer:
            await peer.ask(previous_response_id=response["id"])


async def test_a_lane_keeps_only_its_newest_unstored_response(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        old = await peer.ask(store=False)
        await peer.ask(store=False)
        await _missing(peer, old["id"])


async def test_each_lane_keeps_its_own(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        one = await peer.ask(store=False, stream_id="one")
        two = await peer.ask(store=False, stream_id="two")
        await peer.ask(store=False, stream_id="one", previous_response_id=one["id"])
        await peer.ask(store=False, stream_id="two", previous_response_id=two["id"])


async def test_a_failed_continuation_evicts_its_parent(autojump_clock: MockClock) -> None:
    brain = Script(["parent", [Error(429, "rate_limit_exceeded")]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        parent = await peer.ask(store=False)
        await peer.turn(previous_response_id=parent["id"], store=False)
        await _missing(peer, parent["id"])


@pytest.mark.parametrize("steps", [[Failed()], [Created(), Error(500)]])
async def test_a_failure_after_the_start_evicts_as_well_and_cannot_be_continued(
    autojump_clock: MockClock, steps: list[Any]
) -> None:
    async with open_simulator(in_memory=True, brain=Script(["parent", steps])) as sim, connect(sim) as peer:
        parent = await peer.ask(store=False)
        events = await peer.turn(previous_response_id=parent["id"], store=False)
        await _missing(peer, parent["id"])
        await _missing(peer, events[0]["response"]["id"])


async def test_a_rejected_continuation_evicts_its_parent(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        parent = await peer.ask(store=False)
        await peer.turn(previous_response_id=parent["id"], temperature=9)
        await _missing(peer, parent["id"])


async def test_a_failed_fork_leaves_its_parent(autojump_clock: MockClock) -> None:
    brain = Script(["parent", [Error(500)]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        parent = await peer.ask(store=False, stream_id="main")
        await peer.turn(previous_response_id=parent["id"], store=False, stream_id="fork")
        await peer.ask(previous_response_id=parent["id"], store=False, stream_id="main")


async def test_eviction_spares_stored_responses(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script(["parent", [Error(500)]])) as sim, connect(sim) as peer:
        parent = await peer.ask()
        await peer.turn(previous_response_id=parent["id"])
        await peer.ask(previous_response_id=parent["id"])


async def test_a_fork_reads_its_parent_when_it_starts(autojump_clock: MockClock) -> None:
    brain = Script(["parent", [Created(), InProgress(), Delay(5), Say("fork")], "next"])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        parent = await peer.ask("a", store=False)
        await peer.create("b", previous_response_id=parent["id"], store=False, stream_id="fork")
        await peer.until("response.in_progress")
        main = await peer.ask("c", previous_response_id=parent["id"], store=False)
        fork = (await peer.until("response.completed"))[-1]["response"]
        assert [item["content"][0]["text"] for item in sim.history(fork["id"])] == ["a", "parent", "b", "fork"]
        assert [item["content"][0]["text"] for item in sim.history(main["id"])] == ["a", "parent", "c", "next"]


async def test_a_steered_or_cut_response_can_be_continued(autojump_clock: MockClock) -> None:
    brain = Script([[Say("half"), Incomplete("max_output_tokens")]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        half = await peer.ask(store=False)
        await peer.ask(previous_response_id=half["id"], store=False)


async def test_the_server_keeps_what_it_sent(autojump_clock: MockClock) -> None:
    brain = Script([[Think("because"), Say("text", phase="commentary"), Call("add", {"a": 1})]])
    async with open_simulator(in_memory=True, brain=brain) as sim, connect(sim) as peer:
        response = await peer.ask("q", tools=[FUNCTION])
        held = sim.history(response["id"])
        assert held[1:] == response["output"]
        assert [item["type"] for item in held] == ["message", "reasoning", "message", "function_call"]
        assert sim.response(response["id"])["usage"] == response["usage"]
        with pytest.raises(KeyError):
            sim.history("resp_unknown")
        with pytest.raises(KeyError):
            sim.response("resp_unknown")


async def test_a_conversation_is_prepended_and_grows(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        sim.conversations["conv_1"] = []
        await peer.ask("one", conversation="conv_1")
        await peer.ask("two", conversation={"id": "conv_1"})
        texts = [item["content"][0]["text"] for item in sim.conversations["conv_1"]]
        assert texts == ["one", "one", "two", "two"]
        (error,) = await peer.turn("x", conversation="conv_2")
        assert error["status"] == 404


# --- lifetime and size -----------------------------------------------------------------------------------------------


async def test_sixty_minutes_end_an_idle_connection(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        start = trio.current_time()
        event = await peer.recv()
        assert trio.current_time() - start == pytest.approx(3600)
        assert event["error"]["code"] == "websocket_connection_limit_reached"
        assert event["status"] == 400
        assert "stream_id" not in event
        assert "param" not in event["error"]
        assert (await peer.closed()).code == 1000


async def test_the_limit_ends_a_running_response_too(autojump_clock: MockClock) -> None:
    brain = Script([[Created(), Delay(100), Completed()]])
    async with open_simulator(in_memory=True, brain=brain, connection_lifetime=50) as sim, connect(sim) as peer:
        events = await peer.turn()
        assert kinds(events) == ["created", "error"]
        await peer.closed()
        await trio.testing.wait_all_tasks_blocked()
        assert sim.requests[0].status == "lost"


@pytest.mark.parametrize("text", ["x" * 2000, "ä" * 600])
async def test_a_message_above_the_limit_ends_the_connection_with_1009(autojump_clock: MockClock, text: str) -> None:
    async with open_simulator(in_memory=True, max_message_bytes=1000) as sim, connect(sim) as peer:
        await peer.send(json.dumps({"type": "response.create", "model": "m", "input": text}, ensure_ascii=False))
        assert (await peer.closed()).code == 1009
        await trio.testing.wait_all_tasks_blocked()
        assert sim.connections[0].close_code == 1009
        assert sim.connections[0].closed_by == "server"
        assert sim.requests == []


async def test_a_large_message_below_the_limit_is_taken(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script(["ok"])) as sim, connect(sim) as peer:
        text = "x" * (2 * 1024 * 1024)
        assert text_of(await peer.ask(text)) == "ok"
        assert sim.requests[0].size > len(text)


# --- records ---------------------------------------------------------------------------------------------------------


async def test_records_tell_what_was_seen(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with connect(sim, key=b"Bearer sk-secret") as peer:
            response = await peer.ask("secret words", stream_id="lane")
        await trio.testing.wait_all_tasks_blocked()
        (connection,), (request,) = sim.connections, sim.requests
        assert connection.transport == "websocket"
        assert connection.handshake_status == 101
        assert connection.requests == [request]
        assert connection.lanes == ["lane"]
        assert not connection.open
        assert connection.closed_at is not None
        assert (connection.close_code, connection.closed_by) == (1000, "client")
        assert connection.bytes_in > request.size
        assert connection.bytes_out > 1000
        assert connection.authorization == "Bearer sk-secret"
        assert "authorization" not in connection.headers
        assert connection.headers["upgrade"].lower() == "websocket"
        assert (request.transport, request.stream_id, request.status) == ("websocket", "lane", "completed")
        assert request.response_id == response["id"]
        assert request.input == "secret words"
        assert request.connection_id == connection.id
        for shown in (repr(sim), repr(connection), repr(request)):
            assert "secret" not in shown
        assert sim.open_connections == []
        assert sim.errors == []


async def test_virtual_time_moves_created_at(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        first = await peer.ask()
        await trio.sleep(1000)
        second = await peer.ask()
        assert second["created_at"] - first["created_at"] == pytest.approx(1000, abs=1)
        assert sim.requests[1].received_at - sim.requests[0].received_at == pytest.approx(1000)


async def test_a_seed_makes_ids_repeatable(autojump_clock: MockClock) -> None:
    async def one() -> str:
        async with open_simulator(in_memory=True, seed=5) as sim, connect(sim) as peer:
            return str((await peer.ask())["id"])

    assert await one() == await one()


async def test_a_broken_brain_is_an_error_of_the_service_and_kept_for_the_test(autojump_clock: MockClock) -> None:
    def broken(_asked: object) -> str:
        raise LookupError("no idea")

    async with open_simulator(in_memory=True, brain=broken) as sim, connect(sim) as peer:
        (error,) = await peer.turn()
        assert error["status"] == 500
        assert "no idea" not in json.dumps(error)
        assert isinstance(sim.errors[0], LookupError)


async def test_a_function_can_be_the_brain(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=lambda asked: f"{asked.model}!") as sim, connect(sim) as peer:
        assert text_of(await peer.ask()) == "gpt-6-test!"


async def test_a_script_goes_on_with_another_brain(autojump_clock: MockClock) -> None:
    script = Script([Answer("one", thinking="hm"), SayDelta("two")], then=Echo())
    async with open_simulator(in_memory=True, brain=script) as sim, connect(sim) as peer:
        assert [text_of(await peer.ask("three")) for _ in range(3)] == ["one", "two", "three"]
        script.add("four")
        assert text_of(await peer.ask("x")) == "four"
        assert script.left == 0
        assert script.served == 3
