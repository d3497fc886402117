"""Conversations with the OpenAI Responses API over one WebSocket per session, in Trio.

Begin here
    open_session            one session: async with open_session(Endpoint.from_env(), model="…") as session
    Session                 ask, parse, turn, run, conversation, warm_up, compact
    Turn, Texts             one request while it runs: iterate it, take its texts, steer it, or wait
    Conversation, Reply     a transcript that grows, and an answer that is read as it comes

Several at once
    open_engine, Engine     many sessions, by id
    Lane                    several conversations on one connection, and forks
    Snapshot                a session as plain data, to be taken up elsewhere

Messages
    Context                 messages, instructions and tools of one request; Prompt: all that may be asked
    Message                 UserMessage, DeveloperMessage, AssistantMessage, ToolResult or OutputItem
    Text, Thinking, ToolCall, Image, File, Refusal: the blocks of messages
    StopReason, Usage       of an answer

Tools
    tool, FunctionTool      functions that the model may call; Tool, AnyTool: all that it may be offered
    Approve, OnRound, Prepare, Journal: functions that take part in the rounds of a conversation
    Round, Progress         one response and the results of its calls; what is begun of it

Events of a turn
    TurnEvent               any of these:
    TurnStarted, TurnContinued, TurnDone
    TextStarted, TextDelta, TextEnded
    ThinkingStarted, ThinkingDelta, ThinkingEnded
    ToolCallStarted, ToolCallDelta, ToolCallEnded

Settings
    Endpoint, Profile       the server, its key, and its kind; Dialer: opens the streams to it
    Timeouts, Limits        seconds and sizes
    RetryPolicy, OnCancel, Transport
    TurnOptions             a request's options: temperature, reasoning_effort, text_format, …
    SessionFields, TurnFields: the keywords of calls

Errors
    EngineError             the root of them all: ConfigurationError, and TurnError with its kinds
    SessionClosed, TurnTimeout, ConnectFailed, ConnectionLost, RequestTooLarge, BufferOverflow, ProtocolViolation
    RequestRejected         also as AuthenticationFailed, RateLimited or SteerRejected
    ResponseFailed

Records
    TurnReport              of one turn: its transport, attempts, PhaseSeconds, Delivery
    EngineStatistics, SessionStatistics, LaneStatistics, ConnectionStatistics
    Breakers, Breaker, BreakerState: servers that are not tried over WebSocket just now
    Instrument              hooks; their records are in engine.instruments
    show_content            lets reprs show prompts and replies, for tests and notebooks

Further doors
    engine.instruments      the records of hooks
    engine.transcript       messages as JSON and back
    engine.simulator        a server for tests
    engine.testing          a pytest plugin, and that server for programs without Trio
    engine.blocking         the same without await
    engine.aio              the same under asyncio
    engine.store            sessions that several processes share
    engine.batch            many prompts
    engine.otel             traces and metrics

Import from nowhere else: all other modules of the package are its inside.
"""

TYPE_CHECKING = False  # what type checkers take for True; the module typing would have to be loaded for its own
if TYPE_CHECKING:
    from engine import instruments as instruments
    from engine import simulator as simulator
    from engine import transcript as transcript
    from engine.connections.breakers import Breaker as Breaker
    from engine.connections.breakers import Breakers as Breakers
    from engine.connections.breakers import BreakerState as BreakerState
    from engine.conversation.conversation import Conversation as Conversation
    from engine.conversation.journal import Journal as Journal
    from engine.conversation.loop_settings import Approve as Approve
    from engine.conversation.loop_settings import OnRound as OnRound
    from engine.conversation.loop_settings import Prepare as Prepare
    from engine.conversation.prompts import Prompt as Prompt
    from engine.conversation.reply import Reply as Reply
    from engine.conversation.rounds import Progress as Progress
    from engine.conversation.rounds import Round as Round
    from engine.conversation.snapshot import Snapshot as Snapshot
    from engine.instruments import Instrument as Instrument
    from engine.opening import open_engine as open_engine
    from engine.opening import open_session as open_session
    from engine.registry import Engine as Engine
    from engine.schemas.function_tool import FunctionTool as FunctionTool
    from engine.schemas.function_tool import tool as tool
    from engine.session import Lane as Lane
    from engine.session import Session as Session
    from engine.settings.endpoint import Endpoint as Endpoint
    from engine.settings.fields import SessionFields as SessionFields
    from engine.settings.fields import TurnFields as TurnFields
    from engine.settings.limits import Limits as Limits
    from engine.settings.profiles import Profile as Profile
    from engine.settings.retry import RetryPolicy as RetryPolicy
    from engine.settings.timeouts import Timeouts as Timeouts
    from engine.settings.turn_options import TurnOptions as TurnOptions
    from engine.transport.dial import Dialer as Dialer
    from engine.turns.texts import Texts as Texts
    from engine.turns.turn import Turn as Turn
    from engine.values.blocks import File as File
    from engine.values.blocks import Image as Image
    from engine.values.blocks import OutputItem as OutputItem
    from engine.values.blocks import Refusal as Refusal
    from engine.values.blocks import Text as Text
    from engine.values.blocks import Thinking as Thinking
    from engine.values.blocks import ToolCall as ToolCall
    from engine.values.choices import Delivery as Delivery
    from engine.values.choices import OnCancel as OnCancel
    from engine.values.choices import Transport as Transport
    from engine.values.errors import AuthenticationFailed as AuthenticationFailed
    from engine.values.errors import BufferOverflow as BufferOverflow
    from engine.values.errors import ConnectFailed as ConnectFailed
    from engine.values.errors import ConnectionLost as ConnectionLost
    from engine.values.errors import ProtocolViolation as ProtocolViolation
    from engine.values.errors import RateLimited as RateLimited
    from engine.values.errors import RequestRejected as RequestRejected
    from engine.values.errors import RequestTooLarge as RequestTooLarge
    from engine.values.errors import ResponseFailed as ResponseFailed
    from engine.values.errors import SessionClosed as SessionClosed
    from engine.values.errors import SteerRejected as SteerRejected
    from engine.values.errors import TurnError as TurnError
    from engine.values.errors import TurnTimeout as TurnTimeout
    from engine.values.messages import AnyTool as AnyTool
    from engine.values.messages import AssistantMessage as AssistantMessage
    from engine.values.messages import Context as Context
    from engine.values.messages import DeveloperMessage as DeveloperMessage
    from engine.values.messages import Message as Message
    from engine.values.messages import StopReason as StopReason
    from engine.values.messages import Tool as Tool
    from engine.values.messages import ToolResult as ToolResult
    from engine.values.messages import UserMessage as UserMessage
    from engine.values.problems import ConfigurationError as ConfigurationError
    from engine.values.problems import EngineError as EngineError
    from engine.values.reports import PhaseSeconds as PhaseSeconds
    from engine.values.reports import TurnReport as TurnReport
    from engine.values.shown import show_content as show_content
    from engine.values.statistics import ConnectionStatistics as ConnectionStatistics
    from engine.values.statistics import EngineStatistics as EngineStatistics
    from engine.values.statistics import LaneStatistics as LaneStatistics
    from engine.values.statistics import SessionStatistics as SessionStatistics
    from engine.values.turn_events import TextDelta as TextDelta
    from engine.values.turn_events import TextEnded as TextEnded
    from engine.values.turn_events import TextStarted as TextStarted
    from engine.values.turn_events import ThinkingDelta as ThinkingDelta
    from engine.values.turn_events import ThinkingEnded as ThinkingEnded
    from engine.values.turn_events import ThinkingStarted as ThinkingStarted
    from engine.values.turn_events import ToolCallDelta as ToolCallDelta
    from engine.values.turn_events import ToolCallEnded as ToolCallEnded
    from engine.values.turn_events import ToolCallStarted as ToolCallStarted
    from engine.values.turn_events import TurnContinued as TurnContinued
    from engine.values.turn_events import TurnDone as TurnDone
    from engine.values.turn_events import TurnEvent as TurnEvent
    from engine.values.turn_events import TurnStarted as TurnStarted
    from engine.values.usage import Usage as Usage

    __version__: str

__all__ = [
    "AnyTool",
    "Approve",
    "AssistantMessage",
    "AuthenticationFailed",
    "Breaker",
    "BreakerState",
    "Breakers",
    "BufferOverflow",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "ConnectionStatistics",
    "Context",
    "Conversation",
    "Delivery",
    "DeveloperMessage",
    "Dialer",
    "Endpoint",
    "Engine",
    "EngineError",
    "EngineStatistics",
    "File",
    "FunctionTool",
    "Image",
    "Instrument",
    "Journal",
    "Lane",
    "LaneStatistics",
    "Limits",
    "Message",
    "OnCancel",
    "OnRound",
    "OutputItem",
    "PhaseSeconds",
    "Prepare",
    "Profile",
    "Progress",
    "Prompt",
    "ProtocolViolation",
    "RateLimited",
    "Refusal",
    "Reply",
    "RequestRejected",
    "RequestTooLarge",
    "ResponseFailed",
    "RetryPolicy",
    "Round",
    "Session",
    "SessionClosed",
    "SessionFields",
    "SessionStatistics",
    "Snapshot",
    "SteerRejected",
    "StopReason",
    "Text",
    "TextDelta",
    "TextEnded",
    "TextStarted",
    "Texts",
    "Thinking",
    "ThinkingDelta",
    "ThinkingEnded",
    "ThinkingStarted",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallEnded",
    "ToolCallStarted",
    "ToolResult",
    "Transport",
    "Turn",
    "TurnContinued",
    "TurnDone",
    "TurnError",
    "TurnEvent",
    "TurnFields",
    "TurnOptions",
    "TurnReport",
    "TurnStarted",
    "TurnTimeout",
    "Usage",
    "UserMessage",
    "__version__",
    "open_engine",
    "open_session",
    "show_content",
    "tool",
]

# Nothing is loaded before it is used: a command that only prints its help should not wait for a WebSocket library.
_HOMES = {
    "engine.opening": "open_engine open_session",
    "engine.registry": "Engine",
    "engine.session": "Lane Session",
    "engine.turns.turn": "Turn",
    "engine.turns.texts": "Texts",
    "engine.conversation.conversation": "Conversation",
    "engine.conversation.prompts": "Prompt",
    "engine.conversation.reply": "Reply",
    "engine.conversation.rounds": "Progress Round",
    "engine.conversation.snapshot": "Snapshot",
    "engine.conversation.loop_settings": "Approve OnRound Prepare",
    "engine.conversation.journal": "Journal",
    "engine.connections.breakers": "Breaker BreakerState Breakers",
    "engine.transport.dial": "Dialer",
    "engine.instruments": "Instrument",
    "engine.settings.endpoint": "Endpoint",
    "engine.settings.profiles": "Profile",
    "engine.settings.timeouts": "Timeouts",
    "engine.settings.limits": "Limits",
    "engine.settings.retry": "RetryPolicy",
    "engine.settings.turn_options": "TurnOptions",
    "engine.settings.fields": "SessionFields TurnFields",
    "engine.schemas.function_tool": "FunctionTool tool",
    "engine.values.choices": "Delivery OnCancel Transport",
    "engine.values.blocks": "File Image OutputItem Refusal Text Thinking ToolCall",
    "engine.values.messages": (
        "AnyTool AssistantMessage Context DeveloperMessage Message StopReason Tool ToolResult UserMessage"
    ),
    "engine.values.usage": "Usage",
    "engine.values.shown": "show_content",
    "engine.values.turn_events": (
        "TextDelta TextEnded TextStarted ThinkingDelta ThinkingEnded ThinkingStarted ToolCallDelta "
        "ToolCallEnded ToolCallStarted TurnContinued TurnDone TurnEvent TurnStarted"
    ),
    "engine.values.reports": "PhaseSeconds TurnReport",
    "engine.values.statistics": "ConnectionStatistics EngineStatistics LaneStatistics SessionStatistics",
    "engine.values.problems": "ConfigurationError EngineError",
    "engine.values.errors": (
        "AuthenticationFailed BufferOverflow ConnectFailed ConnectionLost ProtocolViolation RateLimited "
        "RequestRejected RequestTooLarge ResponseFailed SessionClosed SteerRejected TurnError TurnTimeout"
    ),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}
_DOORS = ("aio", "batch", "blocking", "instruments", "otel", "simulator", "store", "testing", "transcript")


if not TYPE_CHECKING:  # to type checkers it would say that there is every name

    def __getattr__(name):
        import importlib

        if name in _MODULES:
            value = getattr(importlib.import_module(_MODULES[name]), name)
        elif name in _DOORS:
            return importlib.import_module(f"engine.{name}")
        elif name == "__version__":
            import importlib.metadata

            value = importlib.metadata.version("trio-session-engine")
        else:
            raise AttributeError(f"module 'engine' has no attribute {name!r}", name=name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
