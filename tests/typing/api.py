"""Never run: the public interface as type checkers see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, assert_type

import trio

from engine import (
    AssistantMessage,
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    Context,
    Conversation,
    Delivery,
    Endpoint,
    Engine,
    EngineError,
    File,
    FunctionTool,
    Image,
    Instrument,
    Limits,
    Message,
    OnCancel,
    Progress,
    RateLimited,
    Reply,
    RequestRejected,
    ResponseFailed,
    RetryPolicy,
    Round,
    Session,
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    Timeouts,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolResult,
    Transport,
    Turn,
    TurnContinued,
    TurnDone,
    TurnError,
    TurnOptions,
    TurnReport,
    TurnStarted,
    TurnTimeout,
    Usage,
    UserMessage,
    open_engine,
    open_session,
    show_content,
    tool,
)
from engine.instruments import EventInfo, ServerEvent, TurnEndInfo, TurnStartInfo
from engine.simulator import Simulator, open_simulator
from engine.values.turn_events import TurnEvent


async def key() -> str:
    return "sk-example"


class Counting(Instrument):
    def turn_started(self, info: TurnStartInfo, /) -> None:
        assert_type(info.turn, int)
        assert_type(info.lane, str | None)

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        assert_type(info.report.delivery, Delivery)
        assert_type(info.error, Exception | None)

    def event_received(self, info: EventInfo, /) -> None:
        assert_type(info.event, ServerEvent)


async def one_session(endpoint: Endpoint) -> None:
    async with open_session(endpoint, model="gpt-5.4", timeouts=Timeouts(connect=5, turn=None)) as session:
        assert_type(session, Session)
        answer = await session.ask("What is 2+2?")
        assert_type(answer, AssistantMessage)
        assert_type(answer.text, str)
        assert_type(answer.usage, Usage | None)
        assert_type(answer.tool_calls, tuple[ToolCall, ...])
        assert_type(answer.unanswered, tuple[ToolCall, ...])
        assert_type(answer.stored, bool | None)
        result = ToolResult("call_1", "done", extra={"caller": {"type": "direct"}})
        context = Context([UserMessage("hello"), answer, result], instructions="Be brief.")
        async with session.turn(
            context,
            TurnOptions(temperature=0.8, metadata={"a": "b"}),
            timeouts=Timeouts(turn=20),
            retry=RetryPolicy(max_dispatches=2, resend_ambiguous=0, back_off=[1, 2.5]),
            on_cancel=OnCancel.CLOSE,
            transport=Transport.AUTO,
        ) as turn:
            assert_type(turn, Turn)
            async for event in turn:
                tell(event)
            assert_type(turn.message, AssistantMessage)
            assert_type(turn.partial, AssistantMessage)
            assert_type(turn.report, TurnReport)
            assert_type(turn.report.seconds.total, float | None)
        async with session.turn("again") as turn:
            assert_type(await turn.wait(), AssistantMessage)


def tell(event: TurnEvent) -> str:
    match event:
        case TurnStarted(response_id) | TurnContinued(response_id):
            return response_id or ""
        case TextDelta(_, delta) | ThinkingDelta(_, delta) | ToolCallDelta(_, delta):
            return delta
        case TextStarted() | TextEnded() | ThinkingStarted() | ThinkingEnded():
            return str(event.index)
        case ToolCallStarted(_, block) | ToolCallEnded(_, block):
            return block.name
        case TurnDone(reason, message):
            return reason + message.text


def add(left: int, right: int) -> int:
    return left + right


async def approve(call: ToolCall) -> bool | str:
    return call.name == "add" or "no"


async def conversations(session: Session) -> None:
    function = FunctionTool(add, timeout=5)
    rounds: list[Round] = []
    schema = {"type": "custom", "name": "shell"}
    answer = await session.run("2+2?", [function], on_round=rounds.append, approve=lambda call: True)
    assert_type(answer, AssistantMessage)
    assert_type(rounds[0].results, tuple[ToolResult, ...])
    assert_type(rounds[0].report, TurnReport)
    chat = session.conversation("Be brief.", [function, schema], approve=approve, tool_timeout=5)
    assert_type(chat, Conversation)
    assert_type(await chat.send("2+2?"), AssistantMessage)
    assert_type(await chat.send([UserMessage("2+2?")], TurnOptions(temperature=0)), AssistantMessage)
    assert_type(chat.unanswered, tuple[ToolCall, ...])
    assert_type(chat.context, Context)
    async with chat.stream("2+2?") as reply:
        assert_type(reply, Reply)
        async for event in reply:
            tell(event)
    assert_type(reply.message, AssistantMessage)


class Plan(TypedDict):
    steps: list[str]


async def everyday_calls(session: Session) -> None:
    assert_type(await session.ask([UserMessage("2+2?")], instructions="Be brief.", temperature=0), AssistantMessage)
    assert_type(await session.parse("Plan it.", Plan), Plan)
    assert_type(await session.parse("Plan it.", list[Plan], tools=[add]), list[Plan])
    assert_type(await session.parse("Yes or no?", bool | None), bool | None)
    assert_type(await session.run("2+2?", [add], timeouts=Timeouts(turn=20), max_rounds=3), AssistantMessage)
    async with session.turn(Context([UserMessage("hello")]), on_cancel="drain", store=None) as turn:
        async for text in turn.texts():
            assert_type(text, str)
    chat = session.conversation(tools=[add], prepare=trimmed, journal=Diary(), reasoning_effort="low")
    assert_type(await chat.send("2+2?", temperature=0.5), AssistantMessage)
    async with chat.stream("2+2?", transport="sse") as reply:
        async for text in reply.texts():
            assert_type(text, str)
        assert_type(reply.partial, AssistantMessage)
        assert_type(reply.report, TurnReport)
    assert_type(chat.usage, Usage)
    assert_type(chat.interrupted, Progress | None)
    assert_type(session.conversation(tools=[add], resume=chat.snapshot()), Conversation)
    assert_type(session.statistics().usage, Usage)


@tool
def plain(city: str) -> str:
    return city


class Service:
    @tool(timeout=5, description="The weather.")
    async def weather(self, city: str) -> str:
        return city


async def tools_and_media(session: Session, service: Service) -> None:
    assert_type(plain("Kyiv"), str)
    assert_type(await service.weather("Kyiv"), str)
    given = FunctionTool(print, name="say", parameters={"type": "object", "properties": {}})
    message = await session.ask(
        [UserMessage([Image.from_path("a.png"), Image.from_bytes(b"", "image/png"), File.from_path("a.pdf")])],
        tools=[plain, service.weather, given, {"type": "web_search"}],
    )
    assert_type(message.parsed_as(Plan), Plan)
    assert_type(message.parsed_as(int | None), int | None)
    assert_type(ToolResult("call_1", "done").text, str)
    assert_type(File.from_bytes(b"a", "a.txt"), File)
    with show_content():
        print(repr(message))
    total = sum([Usage(1), Usage(2)], Usage())
    assert_type(total, Usage)


def plain_key() -> str:
    return "sk-1"


async def fields() -> dict[str, str]:
    return {"X-Team": "a"}


ENDPOINTS = [Endpoint(api_key=plain_key, headers=fields), Endpoint(api_key=None, headers={"X-Team": "a"})]


def trimmed(context: Context) -> Context:
    return context


class Diary:
    async def sending(self, prompt: tuple[Message, ...], context: Context) -> None: ...
    async def answered(self, response: AssistantMessage) -> None: ...
    async def tool_done(self, call: ToolCall, output: ToolResult) -> None: ...
    async def round(self, done: Round) -> None: ...


async def many_sessions(dialer_of: Simulator) -> None:
    async with open_engine(
        Endpoint("https://example.com/v1", key, headers={"X-Team": "a"}),
        model="gpt-5.4",
        limits=Limits(buffer_events=10),
        instruments=[Counting()],
        dialer=dialer_of.dialer,
    ) as engine:
        assert_type(engine, Engine)
        session = await engine.session("user-42")
        assert_type(session, Session)
        assert_type(engine.has_session("user-42"), bool)
        assert_type(list(engine), list[str])
        assert_type(await engine.release("user-42"), bool)
        async with engine.open_session("user-43", model="other", transport="sse") as other:
            assert_type(other, Session)
        models: dict[str, object] = await engine.request("GET", "/models", query={"limit": "3"})
        await engine.request("POST", "/vector_stores", json=models, timeouts=Timeouts(start=10))
        assert_type(await engine.drain(grace=10), bool)


async def failures(session: Session) -> float | int | str | None:
    try:
        await session.ask("hello")
    except ConfigurationError as error:
        return error.field
    except TurnTimeout as error:
        return error.phase
    except RateLimited as error:
        return error.retry_after
    except AuthenticationFailed as error:
        return error.status
    except RequestRejected as error:
        return error.code
    except ConnectFailed as error:
        assert_type(error.headers, Sequence[tuple[str, str]])
        return error.status
    except ConnectionLost as error:
        return error.close_code
    except ResponseFailed as error:
        return error.response_id
    except TurnError as error:
        assert_type(error.delivery, Delivery)
        assert_type(error.partial, AssistantMessage | None)
        return None
    except EngineError as error:
        return str(error)
    return None


async def simulated() -> None:
    async with open_simulator(in_memory=True) as simulator:
        assert_type(simulator, Simulator)
        assert_type(simulator.endpoint, Endpoint)
        async with open_session(simulator.endpoint, model="gpt-5.4", dialer=simulator.dialer) as session:
            await session.ask("hello")


trio.run(simulated)
