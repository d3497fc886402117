"""A Trio structured-concurrency session engine for the OpenAI Responses API over WebSocket.

Start with `open_session` for one session or `open_engine` for many; `engine.simulator` is a server to try them on.
"""

from __future__ import annotations

from engine.engine import Engine as Engine
from engine.engine import open_engine as open_engine
from engine.engine import open_session as open_session
from engine.errors import AuthenticationFailed as AuthenticationFailed
from engine.errors import BufferOverflow as BufferOverflow
from engine.errors import ConfigurationError as ConfigurationError
from engine.errors import ConnectFailed as ConnectFailed
from engine.errors import ConnectionLost as ConnectionLost
from engine.errors import EngineError as EngineError
from engine.errors import ProtocolViolation as ProtocolViolation
from engine.errors import RateLimited as RateLimited
from engine.errors import RequestRejected as RequestRejected
from engine.errors import RequestTooLarge as RequestTooLarge
from engine.errors import ResponseFailed as ResponseFailed
from engine.errors import SessionClosed as SessionClosed
from engine.errors import TurnError as TurnError
from engine.errors import TurnTimeout as TurnTimeout
from engine.instruments import Instrument as Instrument
from engine.messages import AssistantMessage as AssistantMessage
from engine.messages import Context as Context
from engine.messages import DeveloperMessage as DeveloperMessage
from engine.messages import File as File
from engine.messages import Image as Image
from engine.messages import OutputItem as OutputItem
from engine.messages import Refusal as Refusal
from engine.messages import Text as Text
from engine.messages import Thinking as Thinking
from engine.messages import Tool as Tool
from engine.messages import ToolCall as ToolCall
from engine.messages import ToolResult as ToolResult
from engine.messages import Usage as Usage
from engine.messages import UserMessage as UserMessage
from engine.options import Endpoint as Endpoint
from engine.options import Limits as Limits
from engine.options import OnCancel as OnCancel
from engine.options import Timeouts as Timeouts
from engine.options import Transport as Transport
from engine.options import TurnOptions as TurnOptions
from engine.profiles import Profile as Profile
from engine.reports import Delivery as Delivery
from engine.reports import TurnReport as TurnReport
from engine.retry import RetryPolicy as RetryPolicy
from engine.session.conversation import Conversation as Conversation
from engine.session.conversation import Reply as Reply
from engine.session.session import Session as Session
from engine.session.tool_loop import Round as Round
from engine.session.turn import Turn as Turn
from engine.tools import FunctionTool as FunctionTool
from engine.turn_events import TextDelta as TextDelta
from engine.turn_events import TextEnded as TextEnded
from engine.turn_events import TextStarted as TextStarted
from engine.turn_events import ThinkingDelta as ThinkingDelta
from engine.turn_events import ThinkingEnded as ThinkingEnded
from engine.turn_events import ThinkingStarted as ThinkingStarted
from engine.turn_events import ToolCallDelta as ToolCallDelta
from engine.turn_events import ToolCallEnded as ToolCallEnded
from engine.turn_events import ToolCallStarted as ToolCallStarted
from engine.turn_events import TurnDone as TurnDone
from engine.turn_events import TurnStarted as TurnStarted
