"""A Responses server for tests and trials: WebSocket and HTTP on one port, or without any socket.

It keeps the server's side of the protocol: order per lane, limits, what may be continued, the documented errors. What
it answers is up to a brain; a `Script` makes it misbehave on purpose::

    async with open_simulator(in_memory=True, brain=Script([Answer("hello"), [Created(), CutMidFrame()]])) as sim:
        ...  # connect to sim.endpoint through sim.dialer
"""

from __future__ import annotations

from .brain import AnyBrain, Brain, Calculator, Echo, Script
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
from .injector import Cut, FaultInjector, Faults, Injected, InjectedStream, RandomFaults
from .memory import MemoryDialer, MemoryStream, SimulatorDialer, TcpDialer, memory_stream_pair
from .quirks import Accept, Garbage, Handshake, HangUp, Ignore, Quirks, Reject
from .records import ConnectionRecord, RequestRecord
from .requests import Asked
from .responses import Stage, Step
from .script import (
    Abandon,
    Answer,
    AnyAnswer,
    Call,
    CallDelta,
    Completed,
    Created,
    CustomCall,
    Delay,
    EndItem,
    Error,
    Event,
    Failed,
    Gate,
    Incomplete,
    InProgress,
    RawItem,
    Refuse,
    Say,
    SayDelta,
    Think,
    ThinkDelta,
)
from .server import Simulator, open_simulator
from .wire import ApiError

__all__ = [
    "Abandon",
    "Abort",
    "Accept",
    "Answer",
    "AnyAnswer",
    "AnyBrain",
    "ApiError",
    "Asked",
    "Binary",
    "Brain",
    "Calculator",
    "Call",
    "CallDelta",
    "Close",
    "Comment",
    "Completed",
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
    "Garbage",
    "Gate",
    "Handshake",
    "HangUp",
    "Ignore",
    "InProgress",
    "Incomplete",
    "Injected",
    "InjectedStream",
    "Keepalive",
    "Late",
    "MemoryDialer",
    "MemoryStream",
    "Mute",
    "Oversized",
    "Ping",
    "Quirks",
    "RandomFaults",
    "Raw",
    "RawItem",
    "Refuse",
    "Reject",
    "RequestRecord",
    "Say",
    "SayDelta",
    "Script",
    "Simulator",
    "SimulatorDialer",
    "Stage",
    "Stall",
    "Step",
    "TcpDialer",
    "Think",
    "ThinkDelta",
    "WrongJson",
    "memory_stream_pair",
    "open_simulator",
]
