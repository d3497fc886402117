"""Compaction: on request over HTTP, and what a server compacts by itself within a turn."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from invariants import contained, said
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import (
    Answer,
    Delay,
    MemoryStream,
    RawItem,
    Say,
    Script,
    memory_stream_pair,
)

KEY = "sk-compact-0123456789"
PROMPT = "what only the server may know"
SENT = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}
SEALED = {**SENT, "created_by": "the server"}  # which no input item has
OUTPUT: list[dict[str, Any]] = [
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "a"}],
    },
    {**SEALED, "later": {"than": ["this", "library"]}},
]
ANSWER = {
    "id": "resp_compaction",
    "object": "response.compaction",
    "output": OUTPUT,
    "usage": {"input_tokens": 100, "output_tokens": 7, "total_tokens": 107},
}


async def talk(session: engine.Session, *prompts: str) -> list[Any]:
    messages: list[Any] = []
    for prompt in prompts:
        messages.append(engine.UserMessage(prompt))
        messages.append(await session.ask(engine.Context(messages)))
    return messages


# --- a server by hand ---

Serving = Callable[["Http"], Awaitable[None]]


class Http:
    """The server's end of one connection."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.head = b""
        self.body = b""
        self.gone = trio.Event()

    async def read(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._more()
        self.head, _, self.body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in self.head.decode().split("\r\n")[1:])
        while len(self.body) < int(fields["content-length"]):
            self.body += await self._more()

    async def _more(self) -> bytes:
        data = await self.stream.receive_some()
        if not data:
            raise trio.BrokenResourceError
        return data

    async def say(self, value: Any, status: int = 200, length: int | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        size = len(body) if length is None else length
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        await self.stream.send_all(head.encode() + body)

    async def until_gone(self) -> None:
        while await self.stream.receive_some():
            pass


class Watched(trio.abc.Stream):
    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()


class Dialer:
    def __init__(self, held: Any, script: Serving) -> None:
        self.held = held
        self.script = script
        self.served: list[Http] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client, server = memory_stream_pair()
        self.served.append(Http(server))
        self.held.outside.start_soon(self._serve, self.served[-1])
        stream: trio.abc.Stream = self.held.watch(Watched(client))
        return stream

    async def _serve(self, http: Http) -> None:
        try:
            await self.script(http)
            await http.until_gone()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            http.gone.set()
            http.stream.close()

    async def start_tls(self, stream: trio.abc.Stream, **options: Any) -> trio.abc.Stream:
        raise NotImplementedError


ENDPOINT = engine.Endpoint("http://peer.test/v1", KEY)


def opened(dialer: Any, **options: Any) -> engine.open_session:
    return engine.open_session(ENDPOINT, model="m", dialer=dialer, **options)


def saying(value: Any, status: int = 200, length: int | None = None) -> Serving:
    async def script(http: Http) -> None:
        await http.read()
        await http.say(value, status, length)

    return script


async def silent(http: Http) -> None:
    await http.read()


async def resetting(http: Http) -> None:
    await http.read()
    http.stream.abort()


async def slow(http: Http) -> None:
    await http.read()
    body = json.dumps(ANSWER).encode()
    await http.say(body[:1], length=len(body))
    for byte in body[1:]:
        await trio.sleep(1)
        await http.stream.send_all(bytes([byte]))


# --- what is sent, and what becomes of the answer ---


async def test_a_conversation_is_compacted_and_goes_on(autojump_clock: MockClock) -> None:
    tools = [engine.Tool("look")]
    async with session_to() as (session, sim):
        messages = [*await talk(session, "one", "two"), engine.UserMessage("three")]
        context = engine.Context(messages, instructions="be brief", tools=tools)
        smaller = await session.compact(context)
        assert smaller.instructions == "be brief"
        assert smaller.tools == context.tools
        (message,) = smaller.messages
        assert isinstance(message, engine.AssistantMessage)
        assert [block.type for block in message.content] == ["message", "message", "message", "compaction"]  # type: ignore[union-attr]
        assert message.text == ""
        assert message.response_id is None
        assert message.usage is not None
        longer = engine.Context([*smaller.messages, engine.UserMessage("four")], instructions="be brief", tools=tools)
        async with session.turn(longer) as turn:
            reply = await turn.wait()
        assert reply.text == "four"
        assert not turn.report.continued
        assert turn.report.full_because == "input[0]"
        kept = [block.item for block in message.content]  # type: ignore[union-attr]
        assert list(sim.requests[-1].input)[:-1] == kept
        async with session.turn(
            engine.Context([*longer.messages, reply, engine.UserMessage("five")], instructions="be brief", tools=tools)
        ) as turn:
            await turn.wait()
        assert turn.report.continued
        assert sim.requests[-1].previous_response_id == reply.response_id
    assert len(sim.connections) == 2
    assert sim.errors == []


async def test_the_request_holds_what_compaction_knows_and_nothing_else(autojump_clock: MockClock) -> None:
    async with contained() as held:
        dialer = Dialer(held, saying(ANSWER))
        context = engine.Context(
            [engine.UserMessage("a"), engine.AssistantMessage([engine.Text("b"), engine.OutputItem(SEALED)])],
            instructions="be brief",
            tools=[engine.Tool("look")],
        )
        options = engine.TurnOptions(
            model="other",
            temperature=0.5,
            prompt_cache_key="key",
            service_tier="flex",
            store=True,
            metadata={"a": "b"},
            extra={"anything": 1},
        )
        async with opened(dialer) as session:
            smaller = await session.compact(context, options)
            await session.compact("a question alone")
        first, second = dialer.served
        assert first.head.startswith(b"POST /v1/responses/compact HTTP/1.1\r\n")
        assert f"authorization: Bearer {KEY}".lower() in first.head.decode().lower()
        said_b = {"type": "output_text", "text": "b", "annotations": []}
        assert json.loads(first.body) == {
            "model": "other",
            "instructions": "be brief",
            "input": [
                {"type": "message", "role": "user", "content": "a"},
                {"type": "message", "role": "assistant", "content": [said_b]},
                SENT,
            ],
            "prompt_cache_key": "key",
            "service_tier": "flex",
        }
        assert json.loads(second.body) == {
            "model": "m",
            "input": [{"type": "message", "role": "user", "content": "a question alone"}],
        }
    blocks = [engine.OutputItem(item) for item in OUTPUT]
    usage = engine.Usage(input_tokens=100, output_tokens=7, total_tokens=107)
    assert smaller == engine.Context(
        [engine.AssistantMessage(blocks, usage=usage)], instructions="be brief", tools=context.tools
    )


async def test_compactions_and_turns_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Delay(5), Say("late")]])) as (session, _):
        async with session.turn("hi") as turn:
            started = trio.current_time()
            await session.compact("a")
            assert trio.current_time() == started
            assert (await turn.wait()).text == "late"


# --- what a server compacts by itself ---


async def test_a_compaction_within_a_turn_is_kept_and_replayed(autojump_clock: MockClock) -> None:
    script = Script([[RawItem(SEALED), Say("one")], Answer("two"), Answer("three")])
    options = engine.TurnOptions(context_management=[{"type": "compaction", "compact_threshold": 1000}])
    async with session_to(script) as (session, sim):
        messages: list[Any] = [engine.UserMessage("first")]
        reply = await session.ask(engine.Context(messages), options)
        (kept,) = [block for block in reply.content if isinstance(block, engine.OutputItem)]
        assert kept.type == "compaction"
        assert kept.item["encrypted_content"] == "sealed"
        messages += [reply, engine.UserMessage("second")]
        async with session.turn(engine.Context(messages), options) as turn:
            second = await turn.wait()
        assert turn.report.continued
        assert sim.requests[1].previous_response_id == reply.response_id
        sim.abort()
        await trio.sleep(1)
        messages += [second, engine.UserMessage("third")]
        async with session.turn(engine.Context(messages), options) as turn:
            await turn.wait()
        assert not turn.report.continued
        assert kept.item == SEALED
        assert SENT in [dict(item) for item in sim.requests[2].input]
    assert [request.body["context_management"] for request in sim.requests] == 3 * [
        [{"type": "compaction", "compact_threshold": 1000}]
    ]


# --- failures ---


ERROR = {"error": {"message": "Your prompt is bad.", "type": "t", "param": "p", "code": "c"}}


@pytest.mark.parametrize(
    ("script", "kind", "delivery"),
    [
        (saying(ERROR, 401), engine.AuthenticationFailed, "rejected"),
        (saying(ERROR, 429), engine.RateLimited, "rejected"),
        (saying(ERROR, 404), engine.RequestRejected, "rejected"),
        (saying(b"<html>", 502), engine.RequestRejected, "rejected"),
        (saying(b"", 307), engine.RequestRejected, "rejected"),
        (saying(b"not JSON"), engine.ProtocolViolation, "accepted"),
        (saying(b"\xff"), engine.ProtocolViolation, "accepted"),
        (saying([]), engine.ProtocolViolation, "accepted"),
        (saying({"output": []}), engine.ProtocolViolation, "accepted"),
        (saying({"output": ["a"]}), engine.ProtocolViolation, "accepted"),
        (saying(ERROR), engine.ProtocolViolation, "accepted"),
        (saying(3000 * b" "), engine.ProtocolViolation, "accepted"),
        (resetting, engine.ConnectionLost, "ambiguous"),
    ],
    ids=[
        *("401", "429", "404", "HTML", "redirection", "no JSON", "no UTF-8", "no object", "no items", "other items"),
        *("error", "too large", "reset"),
    ],
)
async def test_failures(
    autojump_clock: MockClock, script: Serving, kind: type[engine.TurnError], delivery: str
) -> None:
    async with contained(within=1) as held:
        async with opened(Dialer(held, script), limits=engine.Limits(max_message_bytes=2000)) as session:
            with pytest.raises(engine.TurnError) as caught:
                await session.compact(PROMPT)
    error = caught.value
    assert type(error) is kind
    assert error.delivery is engine.Delivery(delivery)
    assert error.report is not None
    assert (error.report.transport, error.report.attempts) == ("sse", 1)
    assert error.report.bytes_sent == error.report.bytes_full > 0
    for secret in (PROMPT, KEY, "bad."):
        assert secret not in said(error)


async def test_nobody_there(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        sim.dialer.refusals = 1  # type: ignore[attr-defined]
        with pytest.raises(engine.ConnectFailed) as caught:
            await session.compact("hi")
        assert caught.value.stage == "tcp"
        assert caught.value.delivery is engine.Delivery.NOT_SENT
        assert caught.value.report is not None
        assert (caught.value.report.transport, caught.value.report.attempts) == (None, 0)
        assert (await session.compact("hi")).messages


@pytest.mark.parametrize(
    ("context", "options", "field"),
    [
        (7, None, "prompt"),
        (engine.Context([engine.AssistantMessage([engine.OutputItem({"a": object()})])]), None, "request['input']"),
    ],
    ids=["prompt", "input"],
)
async def test_bad_input_is_told_before_anything_is_sent(
    autojump_clock: MockClock, context: Any, options: Any, field: str
) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.ConfigurationError) as caught:
            await session.compact(context, options)
    assert caught.value.field == field
    assert sim.connections == []


# --- time ---


@pytest.mark.parametrize("script", [silent, slow], ids=["silent", "slow"])
@pytest.mark.parametrize(("phase", "seconds"), [("start", 20), ("turn", 7)])
async def test_it_has_an_end(autojump_clock: MockClock, script: Serving, phase: str, seconds: float) -> None:
    async with contained(within=seconds) as held:
        async with opened(Dialer(held, script), timeouts=engine.Timeouts(start=20)) as session:
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.compact("hi", timeouts=engine.Timeouts(turn=seconds))
            assert (caught.value.phase, caught.value.seconds) == (("turn" if seconds == 20 else phase), seconds)
            assert caught.value.delivery is engine.Delivery("ambiguous" if script is silent else "accepted")
            assert not held.still_open


async def test_start_alone(autojump_clock: MockClock) -> None:
    async with contained(within=60) as held:
        async with opened(Dialer(held, silent)) as session:
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.compact("hi")
    assert (caught.value.phase, caught.value.seconds) == ("start", 60)


async def test_a_dial_that_never_ends(autojump_clock: MockClock) -> None:
    class Never(Dialer):
        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

    async with contained(within=10) as held:
        async with opened(Never(held, silent)) as session:
            with pytest.raises(engine.ConnectFailed) as caught:
                await session.compact("hi")
    assert caught.value.stage == "timeout"
    assert caught.value.delivery is engine.Delivery.NOT_SENT


# --- leaving ---


async def test_cancelling_closes_the_connection_at_once(autojump_clock: MockClock) -> None:
    async with contained(within=3) as held:
        dialer = Dialer(held, silent)
        async with opened(dialer) as session:
            with trio.move_on_after(3) as scope:
                await session.compact("hi")
            assert scope.cancelled_caught
            await dialer.served[0].gone.wait()
            assert not held.still_open


@pytest.mark.parametrize("script", [silent, slow], ids=["silent", "slow"])
async def test_releasing_the_session_ends_it(autojump_clock: MockClock, script: Serving) -> None:
    async with contained(within=3) as held:
        errors: list[engine.TurnError] = []

        async def compact(session: engine.Session) -> None:
            with pytest.raises(engine.SessionClosed) as caught:
                await session.compact("hi")
            errors.append(caught.value)

        async with engine.open_engine(ENDPOINT, model="m", dialer=Dialer(held, script)) as eng:
            session = await eng.session("a")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(compact, session)
                await trio.sleep(3)
                await eng.release("a")
                assert not held.still_open
            with pytest.raises(engine.SessionClosed):
                await session.compact("hi")
    assert [error.delivery.value for error in errors] == ["ambiguous" if script is silent else "accepted"]


class Steps(trio.abc.Instrument):
    """Cancels a scope before one step of any task."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="struck")


@pytest.mark.parametrize("outside", [False, True], ids=["the caller", "the engine"])
async def test_cancelled_at_any_step(autojump_clock: MockClock, outside: bool) -> None:
    late = False
    for step in range(1, 1000):
        async with contained(within=1) as held:
            dialer = Dialer(held, saying(ANSWER))
            with trio.CancelScope() as everything:
                async with opened(dialer) as session:
                    with trio.CancelScope() as scope:
                        steps = Steps(step, everything if outside else scope)
                        trio.lowlevel.add_instrument(steps)
                        try:
                            assert (await session.compact("hi")).messages
                        finally:
                            trio.lowlevel.remove_instrument(steps)
                    if not outside:
                        assert (await session.compact("again")).messages
                        assert not held.still_open
            late = steps.left > 0
        if late:
            break
    assert late
    assert step >= 10  # what it takes for an answer in one piece
