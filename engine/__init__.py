"""A Trio structured-concurrency session engine for the OpenAI Responses API over WebSocket.

Start with `open_session` for one session or `open_engine` for many; `engine.simulator` is a server to try them on.
"""

from __future__ import annotations

from engine.conversation.conversation import Conversation as Conversation
from engine.conversation.conversation import Reply as Reply
from engine.conversation.rounds import Round as Round
from engine.instruments import Instrument as Instrument
from engine.registry import Engine as Engine
from engine.registry import open_engine as open_engine
from engine.registry import open_session as open_session
from engine.schemas.function_tool import FunctionTool as FunctionTool
from engine.schemas.function_tool import tool as tool
from engine.session import Session as Session
from engine.settings.endpoint import Endpoint as Endpoint
from engine.settings.limits import Limits as Limits
from engine.settings.profiles import Profile as Profile
from engine.settings.retry import RetryPolicy as RetryPolicy
from engine.settings.timeouts import Timeouts as Timeouts
from engine.settings.turn_options import TurnOptions as TurnOptions
from engine.turns.turn import Turn as Turn
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
from engine.values.errors import TurnError as TurnError
from engine.values.errors import TurnTimeout as TurnTimeout
from engine.values.messages import AssistantMessage as AssistantMessage
from engine.values.messages import Context as Context
from engine.values.messages import DeveloperMessage as DeveloperMessage
from engine.values.messages import File as File
from engine.values.messages import Image as Image
from engine.values.messages import OutputItem as OutputItem
from engine.values.messages import Refusal as Refusal
from engine.values.messages import Text as Text
from engine.values.messages import Thinking as Thinking
from engine.values.messages import Tool as Tool
from engine.values.messages import ToolCall as ToolCall
from engine.values.messages import ToolResult as ToolResult
from engine.values.messages import UserMessage as UserMessage
from engine.values.problems import ConfigurationError as ConfigurationError
from engine.values.problems import EngineError as EngineError
from engine.values.reports import TurnReport as TurnReport
from engine.values.turn_events import TextDelta as TextDelta
from engine.values.turn_events import TextEnded as TextEnded
from engine.values.turn_events import TextStarted as TextStarted
from engine.values.turn_events import ThinkingDelta as ThinkingDelta
from engine.values.turn_events import ThinkingEnded as ThinkingEnded
from engine.values.turn_events import ThinkingStarted as ThinkingStarted
from engine.values.turn_events import ToolCallDelta as ToolCallDelta
from engine.values.turn_events import ToolCallEnded as ToolCallEnded
from engine.values.turn_events import ToolCallStarted as ToolCallStarted
from engine.values.turn_events import TurnDone as TurnDone
from engine.values.turn_events import TurnStarted as TurnStarted
from engine.values.usage import Usage as Usage
