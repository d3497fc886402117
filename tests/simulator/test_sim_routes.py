"""The resources beside ``POST …/responses``: responses in the background and told again, models, conversations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from openai.types import Model
from openai.types.conversations import Conversation
from openai.types.responses import Response
from sim_peer import FUNCTION, HttpAnswer, check_event, connect, fetch, kinds, post, request, text_of
from trio.testing import MockClock

from engine.simulator import (
    Abort,
    Answer,
    Asked,
    Call,
    Created,
    CustomCall,
    Delay,
    Echo,
    Error,
    Failed,
    Gate,
    Pace,
    RawItem,
    Refuse,
    Say,
    Script,
    Simulator,
    Think,
    open_simulator,
)

# --- responses told again --------------------------------------------------------------------------------------------


async def get(sim: Simulator, path: str) -> HttpAnswer:
    return await fetch(sim, "GET", "/v1/" + path)


async def test_a_stored_response_is_told_again() -> None:
    everything = [
        Think(["one", "two"], text="raw"),
        Say(
            "hello", annotations=[{"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}]
        ),
        Refuse("no"),
        Call("add", {"a": 1}, call_id="c1"),
        CustomCall("shout", "x", call_id="c2"),
        RawItem({"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search"}}),
    ]
    async with open_simulator(in_memory=True, brain=Script([everything])) as sim:
        told = (await post(sim)).json
        events = (await get(sim, f"responses/{told['id']}?stream=true")).events
        for event in events:
            check_event(event, websocket=False)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert kinds(events)[:2] == ["created", "in_progress"]
        assert events[-1]["response"] == told
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == told["output"]
        assert events[0]["response"]["output"] == []
        rest = (await get(sim, f"responses/{told['id']}?stream=true&starting_after=10")).events
        assert rest == events[11:]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("responses/resp_none?stream=true", 404),
        ("responses/resp_none", 404),
        ("responses/{}?stream=true&starting_after=x", 400),
        ("responses/{}/input_items?limit=0", 400),
        ("responses/{}/input_items?order=up", 400),
        ("responses/{}/input_items?after=msg_none", 404),
    ],
)
async def test_what_cannot_be_fetched(path: str, status: int) -> None:
    async with open_simulator(in_memory=True) as sim:
        told = (await post(sim)).json
        assert (await get(sim, path.format(told["id"]))).status == status


async def test_input_items_come_in_pages() -> None:
    items = [{"role": "user", "content": str(number), "id": f"msg_{number}"} for number in range(25)]
    async with open_simulator(in_memory=True) as sim:
        told = (await post(sim, items)).json
        first = (await get(sim, f"responses/{told['id']}/input_items")).json
        assert (len(first["data"]), first["first_id"], first["has_more"]) == (20, "msg_24", True)
        rest = (await get(sim, f"responses/{told['id']}/input_items?after={first['last_id']}")).json
        assert ([item["id"] for item in rest["data"]], rest["has_more"]) == (
            [f"msg_{n}" for n in (4, 3, 2, 1, 0)],
            False,
        )
        ascending = (await get(sim, f"responses/{told['id']}/input_items?order=asc&limit=2")).json
        assert [item["id"] for item in ascending["data"]] == ["msg_0", "msg_1"]


# --- in the background -----------------------------------------------------------------------------------------------


async def started(sim: Simulator, **body: Any) -> dict[str, Any]:
    answer = await post(sim, background=True, **body)
    assert answer.status == 200
    Response.model_validate(answer.json)
    made: dict[str, Any] = answer.json
    assert made["background"] is True
    return made


async def test_a_background_response_is_polled_to_its_end(autojump_clock: MockClock) -> None:
    script = Script([Answer("a b c", pause=1.0)])
    async with open_simulator(in_memory=True, brain=script) as sim:
        made = await started(sim)
        assert made["status"] == "queued"
        statuses = []
        while (told := (await get(sim, f"responses/{made['id']}")).json)["status"] != "completed":
            statuses.append(told["status"])
            await trio.sleep(0.7)
        assert set(statuses) == {"in_progress"}
        assert text_of(told) == "a b c"
        assert sim.requests.last.status == "completed"
        # It is stored like any other.
        following = await post(sim, "more", previous_response_id=made["id"])
        assert following.status == 200


async def test_a_background_response_is_cancelled(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Say("said. "), Delay(100), Say("never")]])) as sim:
        made = await started(sim)
        await trio.sleep(1)
        for _ in range(2):  # a second time changes nothing
            answer = await fetch(sim, "POST", f"/v1/responses/{made['id']}/cancel")
            assert (answer.status, answer.json["status"], text_of(answer.json)) == (200, "cancelled", "said. ")
        assert (await get(sim, f"responses/{made['id']}")).json["status"] == "cancelled"
        assert sim.requests.last.status == "cancelled"


async def test_only_background_responses_are_cancelled() -> None:
    async with open_simulator(in_memory=True) as sim:
        told = (await post(sim)).json
        answer = await fetch(sim, "POST", f"/v1/responses/{told['id']}/cancel")
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
        assert (await fetch(sim, "POST", "/v1/responses/resp_none/cancel")).status == 404


@asynccontextmanager
async def listening(sim: Simulator) -> AsyncIterator[trio.abc.Stream]:
    stream = await sim.dialer.open_tcp(sim.host, sim.port)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def test_a_client_that_left_a_background_stream_takes_it_up_again(autojump_clock: MockClock) -> None:
    script = Script([Answer("a b c d", pause=10)])
    async with open_simulator(in_memory=True, brain=script) as sim:
        body = json.dumps({"model": "m", "input": "x", "stream": True, "background": True}).encode()
        with trio.move_on_after(15):
            async with listening(sim) as stream:
                await request(stream, "POST", "/v1/responses", body)
        (identity,) = sim.background
        events = (await get(sim, f"responses/{identity}?stream=true&starting_after=5")).events
        assert [event["sequence_number"] for event in events] == list(range(6, 6 + len(events)))
        assert kinds(events)[-1] == "completed"
        assert text_of(events[-1]["response"]) == "a b c d"
        whole = (await get(sim, f"responses/{identity}?stream=true")).events
        assert kinds(whole)[:3] == ["queued", "created", "in_progress"]
        for event in whole:
            check_event(event, websocket=False)
        # What an event said is not changed by what came later.
        added = next(event for event in whole if event["type"] == "response.output_item.added")
        assert added["item"]["content"] == []


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ([Error(500)], "server_error"),
        ([Created(), Error(429)], "rate_limit_exceeded"),
        ([Failed("server_error")], "server_error"),
        ([Created(), Abort()], "server_error"),
    ],
)
async def test_a_background_response_fails(autojump_clock: MockClock, turn: Any, code: str) -> None:
    async with open_simulator(in_memory=True, brain=Script([turn])) as sim:
        made = await started(sim)
        await trio.sleep(1)
        told = (await get(sim, f"responses/{made['id']}")).json
        assert (told["status"], told["error"]["code"]) == ("failed", code)
        Response.model_validate(told)


async def test_a_background_response_must_be_stored_and_not_on_a_socket() -> None:
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        assert (await post(sim, background=True, store=False)).error["param"] == "background"
        refused = (await peer.turn(background=True))[-1]
        assert refused["error"]["code"] == "unsupported_parameter"


async def test_background_responses_end_with_the_simulator() -> None:
    async with open_simulator(in_memory=True, brain=Script([[Gate("never")]])) as sim:
        await started(sim)


# --- models and conversations ----------------------------------------------------------------------------------------


async def test_models() -> None:
    async with open_simulator(in_memory=True, models=["b", "a"]) as sim:
        listing = (await get(sim, "models")).json
        assert [Model.model_validate(model).id for model in listing["data"]] == ["a", "b"]
        assert Model.model_validate((await get(sim, "models/a")).json).id == "a"
        assert (await get(sim, "models/c")).error["code"] == "model_not_found"
        assert (await fetch(sim, "POST", "/v1/models")).status == 405


async def test_a_conversation_is_made_used_and_deleted() -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        body = {"items": [{"role": "user", "content": "first"}], "metadata": {"a": "b"}}
        made = (await fetch(sim, "POST", "/v1/conversations", body)).json
        assert Conversation.model_validate(made).metadata == {"a": "b"}
        path = f"/v1/conversations/{made['id']}"
        told = (await post(sim, "second", conversation=made["id"])).json
        assert told["conversation"] == {"id": made["id"]}
        items = (await fetch(sim, "GET", path + "/items?order=asc")).json["data"]
        assert [item["content"][0]["text"] for item in items] == ["first", "second", "second"]
        added = await fetch(sim, "POST", path + "/items", {"items": [{"role": "user", "content": "third"}]})
        (item,) = added.json["data"]
        assert (await fetch(sim, "GET", f"{path}/items/{item['id']}")).json == item
        await fetch(sim, "DELETE", f"{path}/items/{item['id']}")
        assert (await fetch(sim, "GET", f"{path}/items/{item['id']}")).status == 404
        assert (await fetch(sim, "POST", path, {"metadata": {"c": "d"}})).json["metadata"] == {"c": "d"}
        assert (await fetch(sim, "GET", path)).json["metadata"] == {"c": "d"}
        assert (await fetch(sim, "DELETE", path)).json["deleted"] is True
        assert (await fetch(sim, "GET", path)).status == 404
        assert (await post(sim, conversation=made["id"])).status == 404


@pytest.mark.parametrize(
    "body", [{"nonsense": 1}, {"items": "x"}, {"items": [{"role": "user"}]}, {"metadata": {"a": 1}}, b"[]", b"{"]
)
async def test_what_no_conversation_is_made_of(body: Any) -> None:
    async with open_simulator(in_memory=True) as sim:
        assert (await fetch(sim, "POST", "/v1/conversations", body)).status == 400


@pytest.mark.parametrize("root", ["/v1", "/openai/v1", "/backend-api/codex"])
async def test_other_roots(root: str) -> None:
    async with open_simulator(in_memory=True, roots=("/v1", "/openai/v1", "/backend-api/codex")) as sim:
        assert sim.base_url.endswith("/v1")
        assert (await fetch(sim, "GET", root + "/models")).status == 200
        async with connect(sim, path=root + "/responses") as peer:
            await peer.ask()
        assert (await fetch(sim, "GET", "/v2/models")).status == 404


@pytest.mark.parametrize("roots", ["v1", ["/v1/"], []])
def test_roots_that_are_no_paths(roots: Any) -> None:
    with pytest.raises(ValueError, match="root"):
        open_simulator(in_memory=True, roots=roots)


# --- manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "phrase"), [(404, b"Not Found"), (200, b"OK"), (429, b"Too Many Requests")])
async def test_reason_phrases(status: int, phrase: bytes) -> None:
    from engine.simulator import Accept, Reject

    async with open_simulator(in_memory=True, post=Reject(status) if status == 429 else Accept()) as sim:
        path = "nothing" if status == 404 else "responses"
        stream = await sim.dialer.open_tcp(sim.host, sim.port)
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: 24\r\n\r\n"
        await stream.send_all(head.encode() + b'{"model":"m","input":""}')
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 %d %s\r\n" % (status, phrase))
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_kept_connection_that_ends_is_no_error(autojump_clock: MockClock, reset: bool) -> None:
    async with open_simulator(in_memory=True) as sim:
        stream: Any = await sim.dialer.open_tcp(sim.host, sim.port)
        assert (await request(stream, "GET", "/v1/models")).status == 200
        await trio.sleep(1)
        if reset:
            stream.abort()
        await trio.aclose_forcefully(stream)
        idle = await sim.dialer.open_tcp(sim.host, sim.port)
        await trio.sleep(1000)
        assert [connection.errors for connection in sim.connections] == [[], []]
        assert sim.open_connections == []
        await trio.aclose_forcefully(idle)


async def test_what_requests_said(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, remembered=3) as sim, trio.open_nursery() as nursery:
        with pytest.raises(LookupError, match="no request has come"):
            _ = sim.requests.last

        async def ask_later() -> None:
            for number in range(5):
                await trio.sleep(1)
                await post(sim, str(number))

        nursery.start_soon(ask_later)
        assert (await sim.requests.wait_for(2)).input == "1"
        assert (await sim.requests.wait_for(5)).input == "4"
        assert (await sim.requests.wait_for(4)).input == "3"
        assert sim.requests.last.input == "4"
        assert [body["input"] for body in sim.requests.bodies] == ["2", "3", "4"]
        assert sim.requests.arrived == 5


# --- what clients send back, and what they ask -----------------------------------------------------------------------


async def test_items_as_clients_send_them_back() -> None:
    async with open_simulator(in_memory=True) as sim:
        compacted = (await fetch(sim, "POST", "/v1/responses/compact", {"model": "m", "input": "hi"})).json
        nulls = {"created_by": None, "phase": None, "caller": None, "namespace": None, "whatever": None}
        items = [item | nulls for item in compacted["output"]]
        assert (await post(sim, [*items, {"role": "user", "content": "go"}])).status == 200
        items[-1]["created_by"] = "somebody"
        assert (await post(sim, [*items, {"role": "user", "content": "go"}])).error["param"].endswith(".created_by")


async def test_what_codex_sends_of_itself() -> None:
    metadata = {"x-codex-installation-id": "i", "x-codex-window-id": "t:0"}
    async with open_simulator(in_memory=True) as sim, connect(sim) as peer:
        await peer.ask(client_metadata=metadata, stream=True)
        assert (await post(sim, client_metadata=metadata, background_options=None)).status == 200
        assert (await post(sim, client_metadata="x")).error["code"] == "invalid_type"


WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {
    "location": {"type": "string"}}, "required": ["location"]}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "question", "called"),
    [
        ("get_weather", "What's the weather like in San Francisco?", True),
        ("getWeather", "How is the weather today?", True),
        ("current_weather_reports", "weather report, please", True),
        ("get_weather", "How warm is it?", False),
        ("get_user_name", "What is my name?", False),
        ("get_the_current", "get the current one", False),
    ],
)
async def test_a_question_calls_the_tool_whose_name_says_so(name: str, question: str, called: bool) -> None:
    async with open_simulator(in_memory=True) as sim:
        told = (await post(sim, question, tools=[WEATHER | {"name": name}])).json
        assert [item["type"] for item in told["output"]] == ["function_call" if called else "message"]


async def test_the_name_itself_goes_before_its_words() -> None:
    async with open_simulator(in_memory=True) as sim:
        tools = [WEATHER, FUNCTION, WEATHER | {"name": "weather"}]
        told = (await post(sim, "weather", tools=tools)).json
        assert [item["name"] for item in told["output"]] == ["weather"]


async def test_log_probabilities_where_they_are_asked_for() -> None:
    async with open_simulator(in_memory=True, brain=Script(["a b"] * 2)) as sim, connect(sim) as peer:
        events = await peer.turn(include=["message.output_text.logprobs"], top_logprobs=2)
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        assert [entry["token"] for event in deltas for entry in event["logprobs"]] == ["a", " b"]
        assert all(len(event["logprobs"][0]["top_logprobs"]) == 2 for event in deltas)
        part = events[-1]["response"]["output"][0]["content"][0]
        assert part["logprobs"][1]["bytes"] == [32, 98]
        plain = await peer.ask()
        assert plain["output"][0]["content"][0]["logprobs"] == []


async def test_every_member_of_a_response() -> None:
    async with open_simulator(in_memory=True, pace=Pace()) as sim:
        told = (await post(sim)).json
        assert not set(Response.model_fields) - set(told) - {"output_text"}
        assert (told["presence_penalty"], told["frequency_penalty"]) == (0.0, 0.0)


async def test_a_brain_sees_how_a_request_came() -> None:
    seen: list[Asked] = []

    def brain(asked: Asked) -> str:
        seen.append(asked)
        return "x"

    async with open_simulator(in_memory=True, brain=brain) as sim:
        await fetch(sim, "POST", "/v1/responses", {"model": "m", "input": "x"}, headers={"X-Test": "1"})
    assert (seen[0].transport, seen[0].headers["x-test"], seen[0].continued) == ("json", "1", False)
    assert "authorization" not in seen[0].headers
