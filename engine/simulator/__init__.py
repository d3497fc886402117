"""A Responses server for tests and trials: WebSocket and HTTP on one port, or without any socket.

It keeps the server's side of the protocol: order per lane, limits, what may be continued, the documented errors. What
it answers is up to a brain; a `Script` makes it misbehave on purpose::

    async with open_simulator(in_memory=True, brain=Script([Answer("hello"), [Created(), CutMidFrame()]])) as sim:
        ...  # connect to sim.endpoint through sim.dialer
"""

from __future__ import annotations

from .answer import Answer, AnyAnswer
from .brain import AnyBrain, Brain, Calculator, Echo
from .checks import ScriptError
from .content import Call, CustomCall, Json, RawItem, Refuse, Say, Think
from .faults import (
    Abort,
    Binary,
    Close,
    Comment,
    CutMidFrame,
    Deaf,
    Keepalive,
    Late,
    Mute,
    Oversized,
    Ping,
    Raw,
    Stall,
    WrongJson,
)
from .hosted import (
    ApplyPatch,
    Audio,
    CodeInterpreter,
    Compaction,
    Computer,
    FileSearch,
    ImageGeneration,
    LocalShell,
    McpApproval,
    McpCall,
    McpListTools,
    Shell,
    ShellOutput,
    ToolSearch,
    WebSearch,
)
from .injector import Cut, FaultInjector, Faults, Injected, InjectedStream, RandomFaults
from .memory import MemoryDialer, MemoryStream, SimulatorDialer, TcpDialer, memory_stream_pair
from .moments import (
    Abandon,
    AwaitOutputs,
    CallDelta,
    Completed,
    Created,
    Delay,
    EndItem,
    Error,
    Event,
    Failed,
    Gate,
    Incomplete,
    InProgress,
    SayDelta,
    ThinkDelta,
    With,
)
from .pace import Pace
from .quirks import Accept, Garbage, Handshake, HangUp, Ignore, Quirks, Reject
from .records import ConnectionRecord, RequestLog, RequestRecord, Requests
from .requests import Asked
from .script import Rule, Script, TextMatch, When
from .server import Simulator, open_simulator
from .stage import Stage
from .step import Step
from .wire import ApiError
from .world import SimulationFailed

__all__ = [
    "Abandon",
    "Abort",
    "Accept",
    "Answer",
    "AnyAnswer",
    "AnyBrain",
    "ApiError",
    "ApplyPatch",
    "Asked",
    "Audio",
    "AwaitOutputs",
    "Binary",
    "Brain",
    "Calculator",
    "Call",
    "CallDelta",
    "Close",
    "CodeInterpreter",
    "Comment",
    "Compaction",
    "Completed",
    "Computer",
    "ConnectionRecord",
    "Created",
    "CustomCall",
    "Cut",
    "CutMidFrame",
    "Deaf",
    "Delay",
    "Echo",
    "EndItem",
    "Error",
    "Event",
    "Failed",
    "FaultInjector",
    "Faults",
    "FileSearch",
    "Garbage",
    "Gate",
    "Handshake",
    "HangUp",
    "Ignore",
    "ImageGeneration",
    "InProgress",
    "Incomplete",
    "Injected",
    "InjectedStream",
    "Json",
    "Keepalive",
    "Late",
    "LocalShell",
    "McpApproval",
    "McpCall",
    "McpListTools",
    "MemoryDialer",
    "MemoryStream",
    "Mute",
    "Oversized",
    "Pace",
    "Ping",
    "Quirks",
    "RandomFaults",
    "Raw",
    "RawItem",
    "Refuse",
    "Reject",
    "RequestLog",
    "RequestRecord",
    "Requests",
    "Rule",
    "Say",
    "SayDelta",
    "Script",
    "ScriptError",
    "Shell",
    "ShellOutput",
    "SimulationFailed",
    "Simulator",
    "SimulatorDialer",
    "Stage",
    "Stall",
    "Step",
    "TcpDialer",
    "TextMatch",
    "Think",
    "ThinkDelta",
    "ToolSearch",
    "WebSearch",
    "When",
    "With",
    "WrongJson",
    "memory_stream_pair",
    "open_simulator",
]


def __dir__() -> list[str]:
    return sorted(__all__)
