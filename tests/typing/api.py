"""Never run: the public interface as type checkers see it. Every public name is here."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack, assert_type

import trio

from engine import (
    AnyTool,
    Approve,
    AssistantMessage,
    AuthenticationFailed,
    Breaker,
    Breakers,
    BreakerState,
    BufferOverflow,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    ConnectionStatistics,
    Context,
    Conversation,
    Delivery,
    DeveloperMessage,
    Dialer,
    Endpoint,
    Engine,
    EngineError,
    EngineStatistics,
    File,
    FunctionTool,
    Image,
    Instrument,
    Journal,
    Lane,
    LaneStatistics,
    Limits,
    Message,
    OnCancel,
    OnRound,
    OutputItem,
    PhaseSeconds,
    Prepare,
    Profile,
    Progress,
    Prompt,
    ProtocolViolation,
    RateLimited,
    Refusal,
    Reply,
    RequestRejected,
    RequestTooLarge,
    ResponseFailed,
    RetryPolicy,
    Round,
    Session,
    SessionClosed,
    SessionFields,
    SessionStatistics,
    Snapshot,
    SteerRejected,
    StopReason,
    Text,
    TextDelta,
    TextEnded,
    Texts,
    TextStarted,
    Thinking,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    Timeouts,
    Tool,
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
    TurnEvent,
    TurnFields,
    TurnOptions,
    TurnReport,
    TurnStarted,
    TurnTimeout,
    Usage,
    UserMessage,
    __version__,
    open_engine,
    open_session,
    show_content,
    tool,
)
from engine.instruments import (
    ConnectionInfo,
    EventInfo,
    FallbackInfo,
    RequestInfo,
    RetryInfo,
    RotationInfo,
    ServerEvent,
    ToolEndInfo,
    ToolStartInfo,
    TurnEndInfo,
    TurnStartInfo,
)
from engine.simulator import Simulator, open_simulator


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

    def request_sent(self, info: RequestInfo, /) -> None:
        assert_type(info.transport, Transport)

    def retry(self, info: RetryInfo, /) -> None:
        assert_type(info.seconds, float)

    def fallback(self, info: FallbackInfo, /) -> None:
        assert_type(info.reason, str)

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        assert_type(info.seconds, float)

    def rotation(self, info: RotationInfo, /) -> None:
        assert_type(info.connection, int)

    def tool_started(self, info: ToolStartInfo, /) -> None:
        assert_type(info.arguments, Mapping[str, Any])

    def tool_ended(self, info: ToolEndInfo, /) -> None:
        assert_type(info.result, ToolResult | None)


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
            assert_type(turn.messages, tuple[Message, ...])
            assert_type(turn.message.parts, tuple[Message, ...])
            await turn.steer("also check the tests")
            assert_type(await turn.inject([ToolResult("call_1", "3")]), bool)
            await turn.steer(UserMessage("also check the tests"))
            await turn.steer([UserMessage("also check the tests")])
            assert_type(turn.report.unapplied, tuple[Mapping[str, Any], ...])
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
        await reply.steer("also check the tests")
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


class Refusing:
    """A dialer."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        raise OSError(host, port)

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        raise trio.BrokenResourceError


DIALER: Dialer = Refusing()
JOURNAL: Journal = Diary()
APPROVE: list[Approve] = [approve, lambda call: True]
PREPARE: Prepare = trimmed
PROFILE = Profile("mine", websocket=False, headers={"X-Team": "a"})


async def own_calls(session: Session, prompt: Prompt, tools: Sequence[AnyTool], **fields: Unpack[TurnFields]) -> Texts:
    on_round: OnRound = print
    await session.run(prompt, tools, on_round=on_round, **fields)
    return session.turn(prompt, tools=tools, **fields).texts()


async def own_sessions(eng: Engine, session_id: str, **fields: Unpack[SessionFields]) -> Session:
    return await eng.session(session_id, **fields)


async def lanes(session: Session) -> Snapshot:
    async with session.lane("critic") as lane:
        assert_type(lane, Lane)
        assert_type(lane.name, str)
        assert_type(await lane.ask("hello"), AssistantMessage)
        assert_type(lane.fork("other"), Lane)
        assert_type(lane.statistics(), LaneStatistics)
    assert_type(await session.warm_up(Context()), bool)
    assert_type(await session.compact(Context([UserMessage("hello")])), Context)
    return session.snapshot()


def blocks(message: AssistantMessage) -> list[str]:
    told = []
    for block in message.content:
        match block:
            case Text(text) | Thinking(text) | Refusal(text):
                told.append(text)
            case ToolCall():
                told.append(block.name)
            case OutputItem():
                told.append(block.type)
    reason: StopReason | None = message.stop_reason
    messages: list[Message] = [DeveloperMessage("Be brief."), message]
    assert_type(Tool("search", "Finds.", {"type": "object"}), Tool)
    return [*told, reason or "", str(len(messages)), __version__]


def numbers(eng: Engine, session: Session, report: TurnReport) -> float | None:
    assert_type(eng.statistics(), EngineStatistics)
    assert_type(session.statistics(), SessionStatistics)
    assert_type(session.statistics().connections, tuple[ConnectionStatistics, ...])
    assert_type(eng.breakers, Breakers)
    breaker: Breaker = eng.breakers["api.openai.com/v1/responses"]
    if breaker.state is BreakerState.OPEN:
        breaker.reset()
    assert_type(report.transport, Transport | None)
    seconds: PhaseSeconds = report.seconds
    return seconds.queue


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
    except (SteerRejected, AuthenticationFailed) as error:
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
    except RequestTooLarge as error:
        return error.size
    except (BufferOverflow, ProtocolViolation, SessionClosed) as error:
        return str(error.report)
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


def values(message: AssistantMessage, call: ToolCall, result: ToolResult, report: TurnReport, usage: Usage) -> None:
    assert_type(message.commentary, str)
    assert_type(message.refusal, str)
    assert_type(message.thinking, tuple[Thinking, ...])
    assert_type(message.parts, tuple[Message, ...])
    assert_type(message.stop_reason, StopReason | None)
    assert_type(message.model, str | None)
    assert_type(message.response_id, str | None)
    assert_type(call.id, str)
    assert_type(call.call_id, str)
    assert_type(call.item_id, str | None)
    assert_type(call.raw_arguments, str)
    assert_type(result.call_id, str)
    assert_type(result.is_error, bool)
    assert_type(report.transport, Transport | None)
    assert_type(report.model, str | None)
    assert_type(report.usage, Usage | None)
    assert_type(report.lane, str | None)
    assert_type(report.attempts, int)
    assert_type(report.connection_reused, bool)
    assert_type(report.continued, bool)
    assert_type(report.full_because, str | None)
    assert_type(report.bytes_sent, int)
    assert_type(report.bytes_full, int)
    assert_type(report.cached_tokens, int | None)
    assert_type(report.fallback_reason, str | None)
    assert_type(report.response_id, str | None)
    assert_type(report.request_id, str | None)
    assert_type(report.headers, Mapping[str, str])
    assert_type(report.unapplied, tuple[Mapping[str, Any], ...])
    assert_type(report.delivery, Delivery)
    assert_type(report.seconds, PhaseSeconds)
    assert_type(usage.input_tokens, int | None)
    assert_type(usage.output_tokens, int | None)
    assert_type(usage.total_tokens, int | None)
    assert_type(usage.cached_tokens, int | None)
    assert_type(usage.cache_write_tokens, int | None)
    assert_type(usage.reasoning_tokens, int | None)


async def sessions_and_turns(eng: Engine, session: Session, turn: Turn, reply: Reply, lane: Lane) -> None:
    assert_type(session.id, str)
    assert_type(session.connected, bool)
    assert_type(await session.warm_up("Be brief."), bool)
    assert_type(await session.compact(Context([UserMessage("hello")])), Context)
    assert_type(turn.ready, bool)
    assert_type(reply.ready, bool)
    assert_type(lane.fork("other"), Lane)
    assert_type(eng.change_endpoint(Endpoint(api_key="sk-2")), None)
    assert_type("user-42" in eng, bool)


trio.run(simulated)
