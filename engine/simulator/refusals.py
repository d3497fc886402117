"""Turning a request away before it is looked at: by silence, by hanging up, with nonsense, with a status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from .errors import reason_phrase
from .quirks import Garbage, Handshake, HangUp, Ignore, Reject
from .streams import ServerStream, drain

if TYPE_CHECKING:
    from .records import ConnectionRecord

__all__ = ["refuse", "turned_away"]

_LINGER_BYTES: Final = 64 * 1024


async def turned_away(stream: ServerStream, record: ConnectionRecord, step: Handshake, *, limit: int) -> bool:
    """Do as the step says; returns whether the request was turned away, and the connection with it.

    Args:
        stream: The stream that the request came from.
        record: Its connection; takes note of the refusal.
        step: The step that answers the request.
        limit: The most further bytes that a client that is ignored may send.
    """
    if step.delay:
        await trio.sleep(step.delay)
    match step:
        case Ignore():
            record.refusals.append(None)
            await drain(stream, seconds=float("inf"), limit=limit)
        case HangUp():
            record.refusals.append(None)
            record.closed_by = "server"
            if step.reset:
                stream.prepare_reset()
        case Garbage(data):
            record.refusals.append(None)
            record.closed_by = "server"
            await stream.send_all(data)
        case Reject():
            await refuse(stream, record, step)
        case _:
            return False
    return True


async def refuse(stream: ServerStream, record: ConnectionRecord, refusal: Reject) -> None:
    """Answer with the refusal's status; the connection is over then."""
    record.refusals.append(refusal.status)
    record.closed_by = "server"
    content = refusal.content()
    lines = [f"HTTP/1.1 {refusal.status} {reason_phrase(refusal.status)}", "connection: close"]
    if "content-type" not in {name.lower() for name in refusal.headers}:
        lines.append("content-type: application/json")
    match refusal.framing:
        case "length":
            lines.append(f"content-length: {len(content)}")
        case "chunked":
            lines.append("transfer-encoding: chunked")
            content = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n" if content else b"0\r\n\r\n"
    lines += [f"{name}: {value}" for name, value in refusal.headers.items()]
    await stream.send_all("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)
    if refusal.framing == "none" and refusal.linger:
        await drain(stream, seconds=refusal.linger, limit=_LINGER_BYTES)
