"""The load source: a server in a process of its own that replays encoded answers and does as little else as it can.

``python -m benchmarks.replay`` prints one line of JSON that says where it listens, and serves until its standard input
ends. It speaks WebSocket and HTTP on one port, plain, and on another over TLS with a certificate made on the spot.
Answers of named lanes are labelled, and come a few events at a time, one lane after the other. The first segments of
the path change how it behaves:

- ``/rttMS`` answers MS milliseconds after a request, and takes as long again for a new connection's first bytes, as a
  TCP handshake over such a line would; requests move at ``UPLINK`` bits per second;
- ``/silent`` answers requests, but no Close frame, and never closes the connection;
- ``/stuck`` answers the first request, and reads nothing more;
- ``/hang`` does not even answer the upgrade.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import hashlib
import json
import re
import socket
import ssl
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trustme

from benchmarks.frames import Wire, answer_for, labelled, personal

__all__ = ["UPLINK", "Replay", "main", "upgrade_answer"]

UPLINK: Final = 20_000_000
"""Bits per second of the simulated line from the client."""

_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MODEL: Final = re.compile(rb'"model": ?"([^"]+)"')
_NONCE: Final = re.compile(rb"nonce-\d{10}")
_PREVIOUS: Final = re.compile(rb'"previous_response_id": ?"resp_id(\d{10})"')
_OUTPUT: Final = re.compile(rb'"type": ?"function_call_output"')
_STREAM: Final = re.compile(rb'"stream_id": ?"([^"]+)"')
_REMEMBERED: Final = 1000
_SLICE: Final = 16
"""Events of one lane that are written at a time, while others have some too."""


@functools.lru_cache(maxsize=64)
def _whole(model: str, wire: Wire, calling: bool, number: int) -> bytes:
    return personal(answer_for(model, wire, calling=calling).head, number, None)


class Replay(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = bytearray()
        self._upgraded = False
        self._mode = ""
        self._delay = 0.0
        self._fresh = True
        self._number = 0
        self._outputs: dict[int, int] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._due = 0.0
        self._lanes: deque[tuple[int, Iterator[bytes]]] = deque()  # the rest of each lane's answer

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while self._transport is not None and (self._frame() if self._upgraded else self._head()):
            pass

    def eof_received(self) -> bool:
        return self._mode == "silent"  # half-open, and as silent as ever

    # --- HTTP ---

    def _head(self) -> bool:
        head, found, rest = bytes(self._pending).partition(b"\r\n\r\n")
        if not found:
            return False
        lines = head.split(b"\r\n")
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        path = lines[0].split(b" ")[1].decode()
        first = path.split("/")[1]
        if self._fresh:
            self._mode = first
            self._delay = int(first.removeprefix("rtt")) / 1000 if first.startswith("rtt") else 0.0
        if fields.get(b"upgrade", b"").lower() == b"websocket":
            self._pending = bytearray(rest)
            if self._mode == "hang":
                return False
            self._upgrade(fields[b"sec-websocket-key"])
            return True
        length = int(fields.get(b"content-length", b"0"))
        if len(rest) < length:
            return False
        self._pending = bytearray(rest[length:])
        self._answer(rest[:length], "sse", len(head) + length)
        return True

    def _upgrade(self, key: bytes) -> None:
        self._upgraded = True
        self._later(upgrade_answer(key), 0)

    # --- WebSocket ---

    def _frame(self) -> bool:
        """Take one frame (RFC 6455 section 5.2), if it is there. Clients that fragment are not served."""
        data = self._pending
        if len(data) < 6:
            return False
        opcode, length, at = data[0] & 0x0F, data[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at + 4 + length:
            return False
        payload = _unmasked(bytes(data[at + 4 : at + 4 + length]), bytes(data[at : at + 4]))
        del data[: at + 4 + length]
        if opcode == 1:
            self._answer(payload, "websocket", length)
        elif opcode == 8 and self._mode != "silent":
            self._write(bytes((0x88, len(payload))) + payload)
            if self._transport is not None:
                self._transport.close()
        elif opcode == 9:
            self._write(bytes((0x8A, len(payload))) + payload)
        return True

    # --- answers ---

    def _answer(self, body: bytes, wire: Wire, size: int) -> None:
        match = _MODEL.search(body)
        model = match[1].decode() if match else "answer"
        nonces = _NONCE.findall(body)
        nonce = nonces[-1] if nonces else None
        self._number += 1
        number = self._number
        calling = False
        if model.startswith("tools-"):
            previous = _PREVIOUS.search(body)
            held = self._outputs.get(int(previous[1]), 0) if previous else 0
            outputs = self._outputs[number] = held + len(_OUTPUT.findall(body))
            calling = outputs < int(model.split("-")[1])
            self._outputs.pop(number - _REMEMBERED, None)
        lane = _STREAM.search(body) if wire == "websocket" else None
        if lane is not None:
            if not self._lanes:
                asyncio.get_running_loop().call_soon(self._pump)
            self._lanes.append((number, iter(labelled(model, lane[1].decode(), _SLICE))))
            return
        answer = answer_for(model, wire, calling=calling)
        if nonce is None:
            self._later(_whole(model, wire, calling, number), size)
        else:
            self._later(personal(answer.head, number, nonce), size)
        if self._mode == "stuck" and self._transport is not None:
            self._transport.pause_reading()
        if answer.paced:
            self._pace(model, wire, number, nonce, 0)

    def _pump(self) -> None:
        """Write a few events of the lane whose turn it is."""
        number, rest = self._lanes.popleft()
        events = next(rest, None)
        if events is not None:
            self._write(personal(events, number, None))
            self._lanes.append((number, rest))
        if self._lanes:
            asyncio.get_running_loop().call_soon(self._pump)

    def _pace(self, model: str, wire: Wire, number: int, nonce: bytes | None, position: int) -> None:
        answer = answer_for(model, wire)

        def send() -> None:
            self._timers.discard(timer)
            self._write(personal(answer.paced[position], number, nonce))
            if position + 1 < len(answer.paced):
                self._pace(model, wire, number, nonce, position + 1)

        timer = asyncio.get_running_loop().call_later(answer.pause, send)
        self._timers.add(timer)

    def _later(self, data: bytes, size: int) -> None:
        """Answer a request of ``size`` bytes after the simulated line's delay, in order."""
        fresh, self._fresh = self._fresh, False
        if not self._delay:
            self._write(data)
            return
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() + self._delay * (2 if fresh else 1) + size * 8 / UPLINK)

        def send() -> None:
            self._timers.discard(timer)
            self._write(data)

        timer = loop.call_at(self._due, send)
        self._timers.add(timer)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def upgrade_answer(key: bytes) -> bytes:
    """The answer to an upgrade (RFC 6455 section 4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        root = Path(directory) / "ca.pem"
        authority.cert_pem.write_to_path(str(root))
        plain = await loop.create_server(Replay, "127.0.0.1", 0, backlog=4096)
        tls = await loop.create_server(Replay, "127.0.0.1", 0, backlog=4096, ssl=context)
        ports = {"plain": _port(plain), "tls": _port(tls), "ca": str(root)}
        print(json.dumps(ports), flush=True)
        gc.freeze()
        await loop.run_in_executor(None, sys.stdin.read)
        plain.close()
        tls.close()


def _port(server: asyncio.Server) -> int:
    sockets: tuple[socket.socket, ...] = tuple(server.sockets)
    return int(sockets[0].getsockname()[1])


def main() -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
