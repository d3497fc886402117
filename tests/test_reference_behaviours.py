"""Small behaviours of the system this library re-imagines, row by row: what is the same here, and what is not and why.

Every row is one named case. Behaviours that need more than a row have tests of their own elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.instruments import EventInfo
from engine.protocol.assembly import Assembly
from engine.protocol.request_body import input_items
from engine.protocol.request_tools import wire_tools
from engine.simulator import (
    Abort,
    Answer,
    Created,
    Delay,
    Error,
    Failed,
    Quirks,
    Refuse,
    Say,
    SayDelta,
    Script,
    Step,
    Think,
    open_simulator,
)
from engine.wire.response import structure_response

row = pytest.param


def rows(names: str, *cases: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(names, cases)


async def body_of(options: engine.TurnOptions | None = None, **context: Any) -> dict[str, Any]:
    """The body of a turn's one request."""
    async with session_to() as (session, sim):
        await session.ask(engine.Context([engine.UserMessage("hi")], **context), options)
    (request,) = sim.requests
    return dict(request.body)


# --- connection ------------------------------------------------------------------------------------------------------

# The least that RFC 6455 and RFC 9112 want, the credentials, and who the client is. Nothing that tells of its users, of
# the machine or of what runs on it: the reference sends such fields to some hosts.
HANDSHAKE = {
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "user-agent",
    "authorization",
}
POST = {  # and no "connection": it is kept for the next request, as HTTP/1.1 does where nothing is said
    "host",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "authorization",
}


@rows(
    "endpoint, taken, added",
    row({"api_key": "sk-one"}, set(), set(), id="a key and nothing else"),
    row({}, {"authorization"}, set(), id="no key"),
    row(
        {
            "api_key": "sk-one",
            "organization": "org",
            "project": "proj",
            "profile": "openai",
            "headers": {"X-Mine": "yes", "User-Agent": "mine/1", "OpenAI-Beta": "responses_multi_agent=v1"},
        },
        set(),
        {"openai-organization", "openai-project", "x-mine", "openai-beta"},
        id="everything that can be set",
    ),
)
async def test_no_header_is_sent_that_was_not_asked_for(
    autojump_clock: MockClock, endpoint: dict[str, Any], taken: set[str], added: set[str]
) -> None:
    options = engine.TurnOptions(
        prompt_cache_key="key", safety_identifier="user", metadata={"a": "b"}, service_tier="flex", warm_up=True
    )
    async with open_simulator(in_memory=True, brain=Script([Answer("hello")] * 3)) as sim:
        given = engine.Endpoint(sim.base_url, **endpoint)
        async with engine.open_session(given, model="m", dialer=sim.dialer) as session:
            with suppress(engine.AuthenticationFailed):  # where there is no key
                await session.ask("hi", options)
            with suppress(engine.AuthenticationFailed):
                await session.compact("hi", options)
    expected = {"websocket": HANDSHAKE - taken | added, "http": POST - taken | added}
    assert {connection.transport for connection in sim.connections} == expected.keys()
    for each in sim.connections:
        assert (
            each.headers.keys() | ({"authorization"} if each.authorization else set()) == expected[str(each.transport)]
        )


async def test_a_session_is_connected_from_its_first_turn_to_its_release(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            session = await eng.session("a")
            assert not session.connected
            await session.ask("hi")
            assert session.connected
            await eng.release("a")
            assert not session.connected
            with pytest.raises(engine.SessionClosed, match="released") as caught:
                await session.ask("hi")
            await trio.sleep(3600)
    assert caught.value.delivery is engine.Delivery.NOT_SENT
    assert len(sim.connections) == len(sim.requests) == 1  # what was closed on purpose is not dialled again


async def test_a_session_can_be_released_before_it_ever_connected(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            await eng.session("a")
            assert await eng.release("a")
            assert not await eng.release("a")
    assert sim.connections == []


async def test_every_instrument_sees_every_event_of_a_turn(autojump_clock: MockClock) -> None:
    # There is no unsubscribing: what listens is given with the engine, and lives as long as it does.
    class Listening(engine.Instrument):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def event_received(self, info: EventInfo, /) -> None:
            self.seen.append(info.event.type)

    listening = [Listening(), Listening()]
    async with session_to(Script([Answer("a b")]), instruments=listening) as (session, _):
        await session.ask("hi")
    assert listening[0].seen == listening[1].seen
    assert listening[0].seen == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


# --- tools -----------------------------------------------------------------------------------------------------------

PLAIN = {"type": "object", "properties": {"a": {"type": "string", "description": "A."}}, "required": ["a"]}


@rows("tools", row([], id="an empty list"), row((), id="none"))
async def test_without_tools_there_is_no_field_for_them(autojump_clock: MockClock, tools: Any) -> None:
    assert "tools" not in await body_of(tools=tools)
    assert wire_tools(tools) == []


@rows(
    "tool, sent",
    row(engine.Tool("f", "Do it.", PLAIN), {"description": "Do it.", "parameters": PLAIN}, id="a plain function"),
    row(engine.Tool("f", None, PLAIN), {"parameters": PLAIN}, id="without a description"),
    # An empty description says nothing either, but it is the caller's own value, so it is left to the server.
    row(engine.Tool("f", "", PLAIN), {"description": "", "parameters": PLAIN}, id="with an empty description"),
    row(
        engine.Tool("f", parameters={"type": "object", "additionalProperties": True}),
        {"parameters": {"type": "object", "additionalProperties": True, "properties": {}}},
        id="an object without properties",
    ),
    row(
        engine.Tool("f", parameters={"required": ["a"], "properties": PLAIN["properties"]}),
        {"parameters": PLAIN},
        id="without a type at the top",
    ),
)
async def test_a_function_on_the_wire(autojump_clock: MockClock, tool: engine.Tool, sent: dict[str, Any]) -> None:
    assert (await body_of(tools=[tool]))["tools"] == [{"type": "function", "name": "f", **sent}]


# --- history to input items ------------------------------------------------------------------------------------------

PICTURE = "data:image/png;base64,AAAA"
CALL = engine.ToolCall("call_1|fc_1", "f", {"a": 1}, '{"a": 1}')
SENT_CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
SENT_PICTURE = {"type": "input_image", "image_url": PICTURE, "detail": "auto"}
SIGNATURE = json.dumps({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"})


def spoken(text: str, phase: str | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "message", "role": "assistant"}
    item["content"] = [{"type": "output_text", "text": text, "annotations": []}]
    return item if phase is None else {**item, "phase": phase}


@rows(
    "message, sent",
    row(
        engine.UserMessage([engine.Image(PICTURE)]),
        [{"type": "message", "role": "user", "content": [SENT_PICTURE]}],
        id="an image that travels inside the request",  # as a data: URL, which is what the wire's schema knows
    ),
    row(engine.AssistantMessage("Hi"), [spoken("Hi")], id="an answer given as a string"),
    row(
        engine.AssistantMessage([engine.Text("Hi", "final_answer")]),
        [spoken("Hi", "final_answer")],
        id="an answer with a phase",
    ),
    row(
        # An id alone is no phase; nor is it sent to a server that keeps nothing.
        engine.AssistantMessage([engine.Text("Hi", item_id="msg_1")]),
        [spoken("Hi")],
        id="a text of which only the id is known",
    ),
    row(
        # Blocks carry their own phase and messages none, so there is nothing an unphased sibling could inherit.
        engine.AssistantMessage([engine.Text("so", "commentary"), engine.Text("a"), engine.Text("b", "final_answer")]),
        [spoken("so", "commentary"), spoken("a"), spoken("b", "final_answer")],
        id="unphased text beside phased",
    ),
    row(engine.AssistantMessage([engine.Text("Hm"), CALL]), [spoken("Hm"), SENT_CALL], id="text and a call"),
    row(engine.AssistantMessage([CALL]), [SENT_CALL], id="a call alone"),
    row(
        engine.AssistantMessage([engine.Text("so", "commentary"), CALL, engine.Text("a", "final_answer")]),
        [spoken("so", "commentary"), SENT_CALL, spoken("a", "final_answer")],
        id="commentary, a call and the answer",
    ),
    row(
        engine.AssistantMessage([engine.Thinking("why", SIGNATURE), engine.Text("a"), CALL]),
        [{"type": "reasoning", "summary": [], "encrypted_content": "x"}, spoken("a"), SENT_CALL],
        id="reasoning, text and a call",
    ),
    row(engine.ToolResult(CALL.id, "7"), [("call_1", "7")], id="a result named by the call's whole id"),
    row(engine.ToolResult("call_1", [engine.Text("7")]), [("call_1", "7")], id="a result of one text part"),
    row(
        # The images are part of the output, where the model knows what they belong to; the reference puts them into
        # a user message that follows.
        engine.ToolResult("call_1", [engine.Text("see"), engine.Image(PICTURE)]),
        [("call_1", [{"type": "input_text", "text": "see"}, SENT_PICTURE])],
        id="a result with text and an image",
    ),
)
def test_a_message_becomes_items(message: Any, sent: list[Any]) -> None:
    expected = [
        {"type": "function_call_output", "call_id": each[0], "output": each[1]} if isinstance(each, tuple) else each
        for each in sent
    ]
    assert input_items([message], stored=False) == expected


# The reference leaves such results out, so that the server misses an output; it also looks for the id under a second
# name. Here there is one name, taking both forms of the id, and what names no call is refused where it is written.
@rows("call_id", row("", id="empty"), row(" ", id="blank"), row("|fc_1", id="an item's alone"), row(None, id="none"))
def test_a_result_of_no_call_is_refused(call_id: Any) -> None:
    with pytest.raises(engine.ConfigurationError) as caught:
        engine.ToolResult(call_id, "7")
    assert caught.value.field == "ToolResult.call_id"


async def test_an_empty_history_is_an_empty_input(autojump_clock: MockClock) -> None:
    assert input_items([], stored=False) == []
    async with session_to(Script([Answer("hello")])) as (session, sim):
        assert (await session.ask(engine.Context(instructions="Greet."))).text == "hello"
    assert sim.requests[0].input == []


# --- response to message ---------------------------------------------------------------------------------------------


def said(text: str, phase: str | None = None) -> dict[str, Any]:
    return {"id": f"msg_{text}", "status": "completed", **spoken(text, phase)}


def called() -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}


SAID_CALL = engine.ToolCall("call_1|fc_1", "f", {}, "{}")


def thought(item_id: str, text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": item_id, "summary": [{"type": "summary_text", "text": text}]}


@rows(
    "output, expected",
    row([said("a")], {"text": "a", "stop_reason": "stop", "tool_calls": ()}, id="text"),
    row([called()], {"text": "", "stop_reason": "tool_use", "tool_calls": (SAID_CALL,)}, id="a call"),
    row([said("a"), called()], {"text": "a", "stop_reason": "tool_use"}, id="text and a call"),
    row([], {"content": (), "text": "", "stop_reason": "stop"}, id="nothing"),
    # Commentary is no part of the answer, as in the reference, but it is kept beside it rather than thrown away.
    row(
        [said("so", "commentary"), said("a", "final_answer")],
        {"text": "a", "commentary": "so", "phase": "final_answer"},
        id="commentary and the answer",
    ),
    row(
        [said("so", "commentary"), called()],
        {"text": "", "commentary": "so", "stop_reason": "tool_use", "tool_calls": (SAID_CALL,)},
        id="commentary and a call",
    ),
    row([said("so", "commentary")], {"text": "", "commentary": "so", "stop_reason": "stop"}, id="commentary alone"),
)
def test_a_response_becomes_a_message(output: list[Any], expected: dict[str, Any]) -> None:
    message = message_of(output)
    assert {name: getattr(message, name) for name in expected} == expected


def message_of(output: Sequence[Any]) -> engine.AssistantMessage:
    assembly = Assembly()
    assembly.finish(structure_response({"id": "resp_1", "status": "completed", "model": "m-1", "output": [*output]}))
    return assembly.message()


def test_items_keep_their_order() -> None:
    message = message_of(
        [thought("rs_1", "first"), said("so", "commentary"), called(), said("a"), thought("rs_2", "x")]
    )
    kinds = [engine.Thinking, engine.Text, engine.ToolCall, engine.Text, engine.Thinking]
    assert [type(block) for block in message.content] == kinds


@rows("item_id", row("think-1", id="another service's"), row("", id="empty"), row("rs", id="only alike"))
def test_reasoning_of_an_odd_id_is_shown_and_the_id_is_not_replayed(item_id: str) -> None:
    (thinking,) = message_of([thought(item_id, "why")]).thinking
    assert thinking.text == "why"
    assert "id" not in json.loads(thinking.signature or "{}")


# --- planning and the previous response ------------------------------------------------------------------------------


async def test_nothing_new_is_an_empty_delta(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("one"), Answer("more")])) as (session, sim):
        question = engine.UserMessage("hi")
        first = await session.ask(engine.Context([question]))
        async with session.turn(engine.Context([question, first])) as turn:
            assert (await turn.wait()).text == "more"
    assert turn.report.continued
    assert (sim.requests[1].previous_response_id, sim.requests[1].input) == (first.response_id, [])


@rows(
    "answer, becomes_previous",
    row(Answer("one"), True, id="completed"),
    row([Created(), Refuse("no")], True, id="refused by the model"),
    row([SayDelta("half"), Failed()], False, id="failed"),
    row([SayDelta("half"), Abort()], False, id="connection gone"),
    row([Error(400, "invalid_prompt", type="invalid_request_error")], False, id="rejected"),
)
async def test_only_a_completed_response_is_continued(
    autojump_clock: MockClock, answer: Any, becomes_previous: bool
) -> None:
    async with session_to(Script([answer, Answer("two")])) as (session, sim):
        messages: list[Any] = [engine.UserMessage("hi")]
        try:
            messages.append(await session.ask(engine.Context(messages)))
        except engine.TurnError:
            assert not becomes_previous
        await session.ask(engine.Context([*messages, engine.UserMessage("again")]))
    assert sim.requests[0].previous_response_id is None
    expected = sim.requests[0].response_id if becomes_previous else None
    assert sim.requests[1].previous_response_id == expected


async def test_it_is_the_latest_response_that_is_continued(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation()
        replies = [await chat.send(text) for text in ("one", "two", "three")]
    previous = [request.previous_response_id for request in sim.requests]
    assert previous == [None, replies[0].response_id, replies[1].response_id]


# --- turns -----------------------------------------------------------------------------------------------------------

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@rows(
    "options, field, sent",
    row({"temperature": 0.0}, "temperature", 0.0, id="temperature 0"),
    row({"temperature": 1.5}, "temperature", 1.5, id="temperature"),
    row({"top_p": 0.25}, "top_p", 0.25, id="top_p"),
    row({"max_output_tokens": 0}, "max_output_tokens", 0, id="no tokens at all"),
    row({"max_output_tokens": 256}, "max_output_tokens", 256, id="tokens"),
    row({"tool_choice": "required"}, "tool_choice", "required", id="any tool"),
    # The wire's own shape; the reference passes the one of chat completions.
    row({"tool_choice": "f"}, "tool_choice", {"type": "function", "name": "f"}, id="a tool by its name"),
    # Which model supports which effort changes with every model, so none is replaced by another and none is assumed:
    # the model gets what was asked for, and the server says where it cannot.
    *(row({"reasoning_effort": each}, "reasoning", {"effort": each}, id=f"effort {each}") for each in EFFORTS),
    row({}, "reasoning", None, id="no effort assumed"),
    *(
        row({"reasoning_summary": each}, "reasoning", {"summary": each}, id=f"summary {each}")
        for each in ("auto", "concise", "detailed")
    ),
    # Sent as asked for, though without reasoning there is nothing to sum up; the reference leaves it out.
    row(
        {"reasoning_effort": "none", "reasoning_summary": "auto"},
        "reasoning",
        {"effort": "none", "summary": "auto"},
        id="summary of no effort",
    ),
    *(
        row({"text_verbosity": each}, "text", {"verbosity": each}, id=f"verbosity {each}")
        for each in ("low", "medium", "high")
    ),
    row({}, "store", False, id="not stored by default"),
    row({"store": True}, "store", True, id="stored"),
    row({"store": None}, "store", None, id="storing left to the server"),
    row({"metadata": {"ticket": "7"}}, "metadata", {"ticket": "7"}, id="metadata"),
    row({}, "metadata", None, id="no metadata of our own"),  # nothing is added that the caller did not ask for
    row({}, "include", None, id="nothing included unasked"),
)
async def test_an_option_reaches_the_server(
    autojump_clock: MockClock, options: dict[str, Any], field: str, sent: Any
) -> None:
    body = await body_of(engine.TurnOptions(**options), tools=[engine.Tool("f")])
    assert body.get(field) == sent
    assert (field in body) == (sent is not None)


# The reference warns and leaves such a value out, and it repeats over HTTP what was refused with a 4xx. Here the server
# decides, its refusal is told, and nothing is sent twice that cannot succeed.
@rows(
    "options, param",
    row({"reasoning_effort": "utmost"}, "reasoning.effort", id="effort"),
    row({"reasoning_summary": "epic"}, "reasoning.summary", id="summary"),
    row({"text_verbosity": "chatty"}, "text.verbosity", id="verbosity"),
    row({"temperature": 9.0}, "temperature", id="temperature"),
)
async def test_a_value_the_server_does_not_know_is_refused_once(
    autojump_clock: MockClock, options: dict[str, Any], param: str
) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.RequestRejected) as caught:
            await session.ask("hi", engine.TurnOptions(**options))
        assert (await session.ask("still here")).text == "still here"
    assert (caught.value.status, caught.value.param) == (400, param)
    assert [request.status for request in sim.requests] == ["rejected", "completed"]
    assert len(sim.connections) == 1


def in_place(body: dict[str, Any]) -> None:
    body["user"] = body["input"][0]["content"]


def replaced(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "user": "hi"}


async def in_place_later(body: dict[str, Any]) -> None:
    await trio.sleep(1)
    in_place(body)


async def replaced_later(body: dict[str, Any]) -> dict[str, Any]:
    await trio.sleep(1)
    return replaced(body)


@rows(
    "hook",
    row(in_place, id="in place"),
    row(replaced, id="replaced"),
    row(in_place_later, id="in place, async"),
    row(replaced_later, id="replaced, async"),
)
async def test_a_payload_hook_has_the_last_word(autojump_clock: MockClock, hook: Any) -> None:
    assert (await body_of(engine.TurnOptions(payload_hook=hook)))["user"] == "hi"


async def test_every_request_carries_the_instructions(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation(instructions="Be brief.")
        for text in ("one", "two", "three"):
            await chat.send(text)
    assert [request.previous_response_id is None for request in sim.requests] == [True, False, False]
    assert [request.body["instructions"] for request in sim.requests] == ["Be brief."] * 3


async def test_a_request_sent_again_keeps_its_metadata(autojump_clock: MockClock) -> None:
    # Attempts are counted in the report: the metadata is the caller's alone.
    options = engine.TurnOptions(metadata={"turn": "t-1"})
    async with session_to() as (session, sim):
        question = engine.UserMessage("hi")
        first = await session.ask(engine.Context([question]))
        sim.forget()
        async with session.turn(engine.Context([question, first, engine.UserMessage("again")]), options) as turn:
            await turn.wait()
    assert turn.report.attempts == 2
    assert [request.body.get("metadata") for request in sim.requests] == [None, {"turn": "t-1"}, {"turn": "t-1"}]


@rows(
    "steps, deltas, text",
    # The reference streams text only once it knows its phase, so models without phases never stream.
    row([Say("a b")], ["a", " b"], "a b", id="without a phase"),
    row([Say("a b", "final_answer")], ["a", " b"], "a b", id="the answer"),
    # Streamed as it comes, with its phase in the block, and left out of the answer's text.
    row([Say("hm", "commentary"), Say("a b", "final_answer")], ["hm", "a", " b"], "a b", id="commentary and answer"),
    row([Think("so"), Say("a b")], ["so", "a", " b"], "a b", id="reasoning and answer"),
    row([Refuse("I will not")], ["I", " will", " not"], "", id="a refusal"),
)
async def test_deltas_are_streamed(autojump_clock: MockClock, steps: list[Any], deltas: list[str], text: str) -> None:
    seen = []
    async with session_to(Script([[Created(), *steps]])) as (session, _), session.turn("hi") as turn:
        async for event in turn:
            if isinstance(event, (engine.TextDelta, engine.ThinkingDelta)):
                seen.append(event.delta)
    assert seen == deltas
    assert turn.message.text == text


# --- the registry ----------------------------------------------------------------------------------------------------


async def test_a_new_key_and_new_options_take_effect_with_a_new_connection(autojump_clock: MockClock) -> None:
    # Nothing changes behind a living session: other options for its id are refused until it is released.
    keys = iter(["sk-one", "sk-two"])

    async def key() -> str:
        await trio.lowlevel.checkpoint()
        return next(keys)

    async with open_simulator(in_memory=True) as sim:
        endpoint = engine.Endpoint(sim.base_url, key)
        async with engine.open_engine(endpoint, model="m", dialer=sim.dialer) as eng:
            await (await eng.session("a")).ask("hi")
            with pytest.raises(engine.ConfigurationError, match="release it first"):
                await eng.session("a", timeouts=engine.Timeouts(turn=7))
            assert await eng.release("a")
            await (await eng.session("a", timeouts=engine.Timeouts(turn=7))).ask("hi")
    assert [connection.authorization for connection in sim.connections] == ["Bearer sk-one", "Bearer sk-two"]
    assert [connection.open for connection in sim.connections] == [False, False]


# --- errors ----------------------------------------------------------------------------------------------------------


@rows(
    "quirks, kind",
    row(Quirks(errors="nested"), "invalid_request_error", id="nested"),
    row(Quirks(errors="nested", status_code=True), "invalid_request_error", id="nested, another name for the status"),
    row(Quirks(errors="flat"), None, id="flat"),  # this shape has no room for the error's family
)
async def test_errors_of_every_shape_are_told_alike(
    autojump_clock: MockClock, quirks: Quirks, kind: str | None
) -> None:
    error = Error(404, "model_not_found", "no such model", "invalid_request_error", "model")
    async with open_simulator(in_memory=True, brain=Script([error]), quirks=quirks) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            with pytest.raises(engine.RequestRejected) as caught:
                await session.ask("hi")
    told = caught.value
    assert (told.status, told.code, told.message, told.param) == (404, "model_not_found", "no such model", "model")
    assert told.type == kind


async def test_several_lost_connections_in_a_row_cost_one_turn_each(autojump_clock: MockClock) -> None:
    lost: list[Step] = [SayDelta("half"), Delay(0.1), Abort(reset=True)]
    async with session_to(Script([lost, lost, lost, Answer("fine")])) as (session, sim):
        for _ in range(3):
            with pytest.raises(engine.ConnectionLost):
                await session.ask("hi")
        assert (await session.ask("hi")).text == "fine"
    assert len(sim.connections) == 4
