"""Faults that a script can contain: silence, cuts, closes, nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import trio

from .checks import ScriptError, a_count, a_text, seconds
from .stage import Stage
from .step import Step
from .wire import dumps

__all__ = [
    "Abort",
    "Binary",
    "Close",
    "Comment",
    "CutMidFrame",
    "Deaf",
    "Keepalive",
    "Late",
    "Mute",
    "Oversized",
    "Ping",
    "Raw",
    "Stall",
    "WrongJson",
]


def _fraction(step: object, member: attrs.Attribute[Any], value: object) -> None:
    seconds(step, member, value)
    if not isinstance(value, (int, float)) or value > 1:
        raise ScriptError("CutMidFrame takes a fraction between 0 and 1", (member.name,))


@attrs.frozen
class Stall(Step):
    """Nothing more, ever; the connection stays open and answers pings."""

    async def perform(self, stage: Stage) -> None:
        """Wait until the connection ends."""
        await trio.sleep_forever()


@attrs.frozen
class CutMidFrame(Step):
    """Send the beginning of one more delta's frame, then drop the connection.

    Attributes:
        fraction: The part of the frame that is sent.
        text: The delta's text.
    """

    fraction: float = attrs.field(default=0.5, validator=_fraction)
    text: str = "this text is never seen whole"

    async def perform(self, stage: Stage) -> None:
        """Cut; does not return."""
        event = {"type": "response.output_text.delta", "sequence_number": stage.number(), "delta": self.text}
        event |= {"item_id": "msg_cut", "output_index": 0, "content_index": 0, "logprobs": []}
        await stage.outlet.cut(dumps(event), self.fraction)


@attrs.frozen
class Close(Step):
    """Close the connection with a Close frame (HTTP: end the body early)."""

    code: int = attrs.field(default=1011, validator=a_count(1000, 4999))
    reason: str = attrs.field(default="", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Close; does not return."""
        await stage.outlet.close(self.code, self.reason)


@attrs.frozen
class Abort(Step):
    """Drop the connection without a Close frame, which clients report as 1006; ``reset`` discards unread data too."""

    reset: bool = False

    async def perform(self, stage: Stage) -> None:
        """Drop; does not return."""
        await stage.outlet.abort(reset=self.reset)


@attrs.frozen
class Mute(Step):
    """From now on the connection sends no events, while it reads; ``frozen`` answers no pings either.

    An HTTP stream that has fallen silent does not end either; a plain answer never comes.
    """

    frozen: bool = False

    async def perform(self, stage: Stage) -> None:
        """Fall silent; the script goes on unheard."""
        await stage.outlet.mute(frozen=self.frozen)


@attrs.frozen
class Deaf(Step):
    """From now on the connection reads nothing, so that the client's sends fill up."""

    async def perform(self, stage: Stage) -> None:
        """Stop reading; the script goes on."""
        stage.outlet.deafen()
        await trio.lowlevel.checkpoint()


@attrs.frozen
class Raw(Step):
    """A text frame as it is (HTTP: the data of one event, or the whole body of a plain answer)."""

    text: str = attrs.field(validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.frame(self.text)


@attrs.frozen
class WrongJson(Step):
    """A text frame that is not JSON (HTTP: likewise)."""

    text: str = '{"type":"response.output_text.delta",'

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.frame(self.text)


@attrs.frozen
class Binary(Step):
    """A binary frame (HTTP: one ``data`` line that is not UTF-8)."""

    data: bytes = b"\x00\xff"

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.frame(self.data)


@attrs.frozen
class Oversized(Step):
    """A frame of at least this many bytes: a delta with a very long text."""

    size: int = attrs.field(validator=a_count(0))

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.begin()
        await stage.emit(
            "response.output_text.delta", item_id="msg_oversized", output_index=0, content_index=0,
            delta="x" * self.size, logprobs=[],
        )  # fmt: skip


@attrs.frozen
class Keepalive(Step):
    """A ``keepalive`` event."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.event({"type": "keepalive", "sequence_number": stage.number()})


@attrs.frozen
class Comment(Step):
    """A comment in an HTTP stream, which is how gateways keep connections alive; nothing on a WebSocket."""

    text: str = "still here"

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.comment(self.text)


@attrs.frozen
class Ping(Step):
    """A protocol ping."""

    async def perform(self, stage: Stage) -> None:
        """Send it."""
        await stage.outlet.ping()


@attrs.frozen
class Late(Step):
    """Do the steps after a while, beside whatever the lane does then (WebSocket only)."""

    steps: Sequence[Step]
    after: float = attrs.field(default=0.0, validator=seconds)

    async def perform(self, stage: Stage) -> None:
        """Arrange it; the script goes on at once."""

        async def play() -> None:
            for step in self.steps:
                await step.perform(stage)

        stage.outlet.later(self.after, play)
        await trio.lowlevel.checkpoint()
