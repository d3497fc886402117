"""Ways in which servers in the wild differ, and answers by which a request is let in or turned away."""

from __future__ import annotations

import difflib
import functools
import json
import random
from collections.abc import Mapping
from typing import Any, Literal, get_type_hints

import attrs

from engine.values.type_names import kind_of

from .checks import ScriptError, choices, fits
from .distortions import Arguments, CallIds, Distorter, Events, Indexes, ItemIds, ResponseIds
from .errors import api_error

__all__ = ["Accept", "Garbage", "Handshake", "HangUp", "Ignore", "Quirks", "Reject"]


@attrs.frozen
class Quirks:
    """Deviations from the documented wire. All off by default.

    Attributes:
        errors: Shape of error events: ``nested`` (documented for WebSocket), ``flat`` (documented for HTTP streams) or
            ``untyped`` (an ``error`` object without ``type`` around it); None takes what each transport documents.
        status_code: Errors carry ``status_code`` in place of ``status``.
        error_headers: Put the error's headers at the top of the event rather than inside ``error``.
        terminal_output: The fate of ``output`` in terminal events: left out, null or an empty list.
        set_up_events: False drops ``output_item.added``, ``content_part.*`` and ``reasoning_summary_part.*``.
        in_progress: False drops ``response.in_progress``.
        done: ``response.done`` in place of ``response.completed``, or after it.
        usage: False sends null for ``usage``; ``absent`` leaves it out.
        sequence_numbers: False leaves ``sequence_number`` out.
        keepalive: Seconds between ``keepalive`` events while a response runs.
        codex_events: Send the plan route's private account and metadata events around each response.
        chunks: Events batched into one ``{"chunks": […]}`` frame.
        binary: Send binary frames.
        obfuscation: False never pads deltas.
        lanes: False knows no ``stream_id``; ``ignored`` takes it and answers as if there were none.
        single_flight: Refuse a request while another runs on the connection, with this error code.
        evict: False keeps a parent whose continuation failed.
        only_newest: Keep one response per connection rather than one per lane.
        done_marker: End HTTP streams with ``data: [DONE]``.
        newline: Line ending of HTTP streams.
        comments: Send a comment line before each event of an HTTP stream.
        event_names: False leaves the ``event`` lines of HTTP streams out.
        space: False leaves the space after the colon out in HTTP streams.
        data_lines: Spread the data of an event over several lines of an HTTP stream, as a server does that sends
            indented JSON.
        slice_bytes: Send HTTP streams in slices of so many bytes, each a chunk and a write of its own, so that they
            are torn inside lines and characters; 0 for one per event.
        unterminated: End HTTP streams without the blank line that ends their last event.
        never_streams: Answer plain JSON also to requests with ``stream: true``.
        steerable: Beginnings of the names of models that accept ``response.steer``.
        item_ids: The fate of the ids of items: ``renewed`` in every event, only in the terminal
            (``renewed_at_the_end``), ``swapped_at_the_end`` with each other's, ``empty``, ``null``, ``one_for_all``.
        response_ids: The fate of the response's id: ``renewed`` in every event, ``one_for_all`` responses,
            ``empty``. What was sent cannot be continued then.
        indexes: The fate of ``output_index``, ``content_index`` and ``summary_index``: ``missing``, ``constant``,
            ``growing`` with every event, ``shifted`` by one.
        call_ids: Calls come without a ``call_id``, or all with the same.
        arguments: A call's arguments in its item are an ``object`` instead of text, ``null``, or ``empty``; the events
            that stream them are as always.
        events: All events but deltas come ``twice``, or the deltas do (``deltas_twice``); ends of parts and citations
            come ``late``, after the next events; ``items_unannounced`` leaves ``output_item.added`` out; what a part
            says is told when it is done only (``done_only``), in deltas only (``deltas_only``), in
            ``output_item.done`` only (``items_done_only``), or in the terminal only (``terminal_only``).
    """

    errors: Literal["nested", "flat", "untyped"] | None = None
    status_code: bool = False
    error_headers: Literal["inside", "top"] = "inside"
    terminal_output: Literal["kept", "absent", "null", "empty"] = "kept"
    set_up_events: bool = True
    in_progress: bool = True
    done: Literal["instead", "also"] | None = None
    usage: bool | Literal["absent"] = True
    sequence_numbers: bool = True
    keepalive: float | None = None
    codex_events: bool = False
    chunks: int = 0
    binary: bool = False
    obfuscation: bool = True
    lanes: bool | Literal["ignored"] = True
    single_flight: str | None = None
    evict: bool = True
    only_newest: bool = False
    done_marker: bool = False
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    comments: bool = False
    event_names: bool = True
    space: bool = True
    data_lines: bool = False
    slice_bytes: int = 0
    unterminated: bool = False
    never_streams: bool = False
    steerable: tuple[str, ...] = ("gpt-6",)
    item_ids: ItemIds | None = None
    response_ids: ResponseIds | None = None
    indexes: Indexes | None = None
    call_ids: CallIds | None = None
    arguments: Arguments | None = None
    events: Events | None = None

    def __attrs_post_init__(self) -> None:
        for name, hint in _hints().items():
            value = getattr(self, name)
            if fits(value, hint):
                continue
            known = choices(hint)
            given = repr(value) if isinstance(value, (bool, int, float, str)) else kind_of(value)
            if not known:
                raise ScriptError(f"the quirk {name!r} cannot be {given}", (name,))
            close = difflib.get_close_matches(str(value), known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(map(repr, known))}"
            raise ScriptError(f"the quirk {name!r} cannot be {given}{guess}", (name,))

    def distorter(self, rng: random.Random) -> Distorter | None:
        """Return what distorts the events of one response; None where nothing does."""
        habits = (self.item_ids, self.response_ids, self.indexes, self.call_ids, self.arguments, self.events)
        return None if habits == (None,) * len(habits) else Distorter(rng, *habits)

    def shape(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what is sent for ``event``: nothing, one event or two."""
        kind = event.get("type")
        if kind == "error":
            return [self._shape_error(event)]
        if not self.set_up_events and kind in _SET_UP:
            return []
        if not self.in_progress and kind == "response.in_progress":
            return []
        if not self.sequence_numbers:
            event.pop("sequence_number", None)
        if kind not in _TERMINAL or not isinstance(event.get("response"), dict):
            return [event]
        response = dict(event["response"])
        event = event | {"response": response}
        if self.terminal_output == "absent":
            response.pop("output", None)
        elif self.terminal_output != "kept":
            response["output"] = None if self.terminal_output == "null" else []
        if self.usage is False:
            response["usage"] = None
        elif self.usage == "absent":
            response.pop("usage", None)
        if kind == "response.completed" and self.done is not None:
            renamed = event | {"type": "response.done"}
            return [renamed] if self.done == "instead" else [event, renamed]
        return [event]

    def _shape_error(self, event: dict[str, Any]) -> dict[str, Any]:
        inner = event.get("error")
        if not isinstance(inner, dict):
            return event
        headers = inner.get("headers")
        if self.errors == "untyped":
            return {"error": {"message": inner.get("message"), "type": "api_error"}}
        if self.errors == "flat":
            flat = {"type": "error", "sequence_number": event.get("sequence_number", 0)}
            flat |= {name: inner.get(name) for name in ("code", "message", "param")}
            return flat | {name: event[name] for name in ("status", "stream_id") if name in event}
        event = dict(event)
        if self.status_code and "status" in event:
            event["status_code"] = event.pop("status")
        if headers and self.error_headers == "top":
            event["error"] = {name: value for name, value in inner.items() if name != "headers"}
            event["headers"] = headers
        return event


def quirk_choices(name: str) -> list[str]:
    """Return the texts that a quirk may be; none where it is a switch, a number or free text."""
    return choices(_hints()[name]) if name in _hints() else []


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Quirks)


_SET_UP = frozenset(
    {
        "response.output_item.added",
        "response.content_part.added",
        "response.content_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
    }
)
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


# --- being let in ----------------------------------------------------------------------------------------------------


class Handshake:
    """The treatment of one upgrade request, or of one ``POST …/responses`` before it is looked at."""

    delay: float = 0.0


@attrs.frozen
class Accept(Handshake):
    """Upgrade, or answer the POST, possibly with something odd.

    Attributes:
        headers: Further header fields of the 101, or of the answer; over HTTP they replace ours of the same name.
        close_code: Close right after the upgrade with this code; 1006 drops the connection without a Close frame.
            HTTP: with any code, drop the connection after the head of a stream, without looking at the request.
        mute: Upgrade, read everything, answer nothing (pings included are still answered). HTTP: the request is
            executed, and not a byte comes of it.
        delay: Seconds before the answer.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict)
    close_code: int | None = None
    mute: bool = False
    delay: float = 0.0


@attrs.frozen
class Reject(Handshake):
    """Answer with an HTTP status other than 101; turn the POST away before it is executed.

    Attributes:
        status: The status.
        headers: Further header fields; ``content-type`` replaces ``application/json``.
        body: Text, bytes or a JSON value; None sends the service's error body for the status, ``b""`` an empty one.
        framing: The mark of the body's end: Content-Length, chunks, or only by closing the connection.
        delay: Seconds before the answer.
        linger: With ``framing="none"``: seconds the connection stays open although nothing more comes.
    """

    status: int = 503
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: str | bytes | Mapping[str, Any] | None = None
    framing: Literal["length", "chunked", "none"] = "length"
    delay: float = 0.0
    linger: float = 0.0

    def content(self) -> bytes:
        """Return the body's bytes."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        body = self.body
        if body is None:
            error = api_error(self.status)
            body = {"error": error.body() | {"message": f"The request was refused with status {self.status}."}}
        return json.dumps(body).encode()


@attrs.frozen
class HangUp(Handshake):
    """Close the connection without an answer; ``reset`` discards what the client has not read."""

    delay: float = 0.0
    reset: bool = False


@attrs.frozen
class Ignore(Handshake):
    """Never answer; the connection stays until the client leaves."""


@attrs.frozen
class Garbage(Handshake):
    """Answer with bytes that are not HTTP, then close."""

    data: bytes = b"\x00\x01 not HTTP\r\n\r\n"
    delay: float = 0.0
