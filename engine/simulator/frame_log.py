"""The frames that pass between clients and a server, written down as JSON lines: the format of logs and of cassettes.

The first line says what the file is. Every other one is an entry: ``at`` (milliseconds since the beginning),
``connection`` (a number), ``kind``, and what belongs to it:

- ``open``: a request's head: ``method``, ``path``, ``headers``, and ``upgrade`` where it asks for a WebSocket
- ``in``: what the client sent, a WebSocket message or a request's body
- ``answer``: the head of the answer: ``status`` and ``headers``; 101 lets a WebSocket in
- ``out``: what the server sent, a message or a part of a body
- ``end``: the end of an answer, or of a WebSocket, then with ``code``, ``reason`` and ``by``

A payload is ``json`` where it is JSON, ``text`` otherwise, and ``base64`` where it is neither text. Header fields are
only those that identify no-one: keys, cookies and ids of organisations are never written, and where else the key of a
request occurs, ``(removed)`` stands for it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, Final

__all__ = ["FORMAT", "FrameLog", "Redaction", "payload_fields"]

FORMAT: Final = 1
_REMOVED: Final = "(removed)"
_HEADERS: Final = re.compile(
    r"accept|content-type|user-agent|openai-(beta|version|processing-ms)|originator|retry-after(-ms)?|x-request-id"
    r"|x-ratelimit-.*|x-should-retry|x-stainless-.*|x-simulator-scope|sec-websocket-(version|extensions|protocol)",
    re.IGNORECASE,
)
_SECRETS: Final = (
    re.compile(r"\b(?:sk|sess|ek)-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\borg-[A-Za-z0-9]{12,}"),
    re.compile(r"\bproj_[A-Za-z0-9]{12,}"),
)


class Redaction:
    """The parts of frames that are never written down.

    Args:
        patterns: Regular expressions; what they find in a payload is replaced.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = [*_SECRETS, *map(re.compile, patterns)]
        self._keys: set[str] = set()

    def key(self, authorization: str | None) -> None:
        """Take note of a request's credentials, so that they are found wherever they occur."""
        key = (authorization or "").removeprefix("Bearer ").strip()
        if len(key) >= 6:
            self._keys.add(key)

    def text(self, text: str) -> str:
        """Return a payload without what must not be written."""
        for key in self._keys:
            text = text.replace(key, _REMOVED)
        for pattern in self._patterns:
            text = pattern.sub(_REMOVED, text)
        return text

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the header fields that may be written."""
        return {name.lower(): self.text(value) for name, value in headers.items() if _HEADERS.fullmatch(name)}


def payload_fields(payload: str | bytes, redaction: Redaction) -> dict[str, Any]:
    """Return a payload as a line holds it."""
    try:
        text = redaction.text(payload if isinstance(payload, str) else payload.decode())
    except UnicodeDecodeError:
        assert isinstance(payload, bytes)
        return {"base64": base64.b64encode(payload).decode("ascii")}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"text": text}
    return {"json": value} if isinstance(value, (dict, list)) else {"text": text}


class FrameLog:
    """Writes lines, each as soon as it is known.

    Args:
        file: The file that is written to.
        redaction: Patterns of what is never written.
        header: Further members of the first line.
        clock: Tells seconds.

    Attributes:
        counts: The entries so far, by kind.
        size: Characters written so far.
    """

    def __init__(
        self,
        file: IO[str],
        redaction: Redaction | None = None,
        *,
        header: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._redaction = Redaction() if redaction is None else redaction
        self._clock = clock
        self._began = clock()
        self.counts: Counter[str] = Counter()
        self.size: int = 0
        self._line({"cassette": FORMAT, **(header or {})})

    def opened(self, connection: int, authorization: str | None, head: Mapping[str, Any]) -> None:
        """Write the head of a request."""
        self._redaction.key(authorization)
        self._write(connection, "open", {**head, "headers": self._redaction.headers(head["headers"])})

    def received(self, connection: int, payload: str | bytes) -> None:
        """Write what a client sent."""
        if payload:
            self._write(connection, "in", payload_fields(payload, self._redaction))

    def answered(self, connection: int, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of an answer."""
        self._write(connection, "answer", {"status": status, "headers": self._redaction.headers(headers)})

    def sent(self, connection: int, payload: str | bytes) -> None:
        """Write what the server sent."""
        if payload:
            self._write(connection, "out", payload_fields(payload, self._redaction))

    def ended(self, connection: int, end: Mapping[str, Any] | None = None) -> None:
        """Write the end of an answer, or of a WebSocket."""
        known = {name: value for name, value in (end or {}).items() if value is not None}
        if "reason" in known:
            known["reason"] = self._redaction.text(str(known["reason"]))
        self._write(connection, "end", known)

    def _write(self, connection: int, kind: str, fields: Mapping[str, Any]) -> None:
        self.counts[kind] += 1
        at = round((self._clock() - self._began) * 1000, 1)
        self._line({"at": at, "connection": connection, "kind": kind, **fields})

    def _line(self, value: Mapping[str, Any]) -> None:
        self.size += self._file.write(json.dumps(value, separators=(",", ":")) + "\n")
        self._file.flush()
