"""What a peer may send, fed to every place that reads it. A target takes any bytes, and raises if something is wrong.

The suite runs each of them over a few hundred inputs that hypothesis thinks up. For longer, by hand, with atheris,
which looks for inputs that reach new code (``pip install atheris``)::

    python -m tests.fuzz.targets codec --seconds 300 [--corpus DIRECTORY]

Targets: sse, codec, events, upgrade, frames, stream, cutter. It ends with the first input that is wrong, which atheris
writes to a file; ``--input FILE`` runs one target over that file alone.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import attrs
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds it by itself
from twins import HEAD, Happening, lives

import engine
from engine.protocol.exchange import Exchange
from engine.protocol.failures import to_error
from engine.protocol.routing import Doubt, Router, Unlabelled, Verdict
from engine.protocol.steers import Steer
from engine.simulator import MemoryStream, SimulatorDialer, memory_stream_pair
from engine.values.turn_events import TurnEvent
from engine.wire.codec import (
    SERVER_EVENT_CLASSES,
    MalformedFrame,
    decode,
    decode_client_event,
    decode_object,
    encode,
)
from engine.wire.events import LifecycleEvent, ServerEvent
from engine.wire.items import ITEM_CLASSES
from engine.wire.sse import OversizedEvent, SseDecoder, SseEvent

__all__ = ["SEEDS", "TARGETS"]

BLOCKS: Final = (engine.TextStarted, engine.ThinkingStarted, engine.ToolCallStarted)
DELTAS: Final = (engine.TextDelta, engine.ThinkingDelta, engine.ToolCallDelta)
ENDS: Final = (engine.TextEnded, engine.ThinkingEnded, engine.ToolCallEnded)


class Choices:
    """Decisions made from bytes: the same bytes, the same decisions. When they are used up, always the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> bool:
        """Whether there are bytes left."""
        return self._place < len(self._data)

    def below(self, bound: int) -> int:
        """A number from 0."""
        if not self.left:
            return 0
        self._place += 1
        return self._data[self._place - 1] % bound

    def of(self, several: Any) -> Any:
        """One of several."""
        if len(several) > 256:
            return several[(self.below(256) * 256 + self.below(256)) % len(several)]
        return several[self.below(len(several))]

    def rest(self) -> bytes:
        """All that is left."""
        self._place, place = len(self._data), self._place
        return self._data[place:]


# --- event streams ---------------------------------------------------------------------------------------------------


def _decoded(chunks: list[bytes], limit: int) -> tuple[list[SseEvent], bool]:
    decoder, events = SseDecoder(limit), list[SseEvent]()
    for chunk in chunks:
        try:
            events += decoder.feed(chunk)
        except OversizedEvent as error:
            return [*events, *error.before], True
    return events, False


def sse(data: bytes) -> None:
    """Any bytes in any slices give the same events, none longer than the bound."""
    choices = Choices(data)
    limit, sizes = choices.below(200), [1 + choices.below(40) for _ in range(4)]
    stream = choices.rest()
    slices, place = [], 0  # type: ignore[var-annotated]
    while place < len(stream):
        slices.append(stream[place : place + sizes[len(slices) % 4]])
        place += len(slices[-1])
    whole = _decoded([stream], limit)
    assert _decoded(slices, limit) == whole
    for event in whole[0]:
        # Three bytes at most stand for one that is not UTF-8.
        assert len(event.data.encode()) <= 3 * limit


# --- JSON texts ------------------------------------------------------------------------------------------------------


def _read_everything(value: Any) -> None:
    for name in dir(value):
        if not name.startswith("__"):
            getattr(value, name)


def codec(data: bytes) -> None:
    """Any text is an event, which can be read and mostly written again, or malformed."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    for read in (decode, decode_client_event):
        try:
            event: Any = read(text)
        except MalformedFrame:
            continue
        assert len(repr(event)) < 800  # 64 characters of the type, escaped
        if isinstance(event, ServerEvent):
            _read_everything(event)
            if isinstance(event, LifecycleEvent):
                _read_everything(event.response)
        try:
            written = encode(event)
        except ValueError:
            continue  # it holds a number that no double can hold
        written.encode()
        assert read(written) == event


# --- sequences of events ---------------------------------------------------------------------------------------------

_NAMES: Final = sorted(
    {
        "annotation", "arguments", "chunks", "code", "command_index", "content", "content_index", "delta", "error",
        "headers", "id", "input", "item", "item_id", "message", "output_index", "part", "refusal", "response",
        "response_id", "sequence_number", "status", "status_code", "steer", "stream_id", "summary_index",
        "text", "type",
    }
)  # fmt: skip
_RESPONSE_NAMES: Final = ("id", "status", "output", "error", "incomplete_details", "usage", "model", "created_at")
_ITEM_NAMES: Final = ("id", "type", "role", "content", "summary", "name", "arguments", "call_id", "input", "phase")
_TYPES: Final = (*sorted(SERVER_EVENT_CLASSES), "response.cancelled", "response.error", "hologram", "")
_COMMON: Final = (
    "response.created", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
    "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    "response.failed", "response.incomplete", "error", "response.function_call_arguments.delta",
    "response.reasoning_summary_text.delta", "response.refusal.delta", "response.custom_tool_call_input.delta",
)  # fmt: skip
_STRINGS: Final = (
    "", "a", "completed", "failed", "incomplete", "in_progress", "message", "assistant", "resp_1", "resp_2", "msg_1",
    "function_call", "reasoning", "output_text", "refusal", "summary_text", "reasoning_text", "text", "call_1",
    '{"a":1}',
    "{", "steered", "max_output_tokens", "content_filter", "\ud800", "\x00", "previous_response_not_found",
    "rate_limit_exceeded", "Please try again in 1.5s.", "b", "é\u2028😀",
)  # fmt: skip
_SCALARS: Final = (None, True, False, 0, 1, 2, -1, 3, 10**6, 2**70, 1.5, -0.0, 1e308)


def _value(choices: Choices, depth: int = 0) -> Any:
    match choices.below(8 if depth < 4 else 4):
        case 0 | 1:
            return choices.of(_STRINGS)
        case 2 | 3:
            return choices.of(_SCALARS)
        case 4:
            return [_value(choices, depth + 1) for _ in range(choices.below(4))]
        case 5:
            return _object(choices, _NAMES, depth + 1)
        case 6:
            return _object(choices, _ITEM_NAMES, depth + 1) | {"type": choices.of((*ITEM_CLASSES, "output_text", 3))}
        case _:
            return _object(choices, _RESPONSE_NAMES, depth + 1)


def _object(choices: Choices, names: Any, depth: int) -> dict[str, Any]:
    return {choices.of(names): _value(choices, depth) for _ in range(choices.below(6))}


_RESPONSES: Final = ("resp_1", "resp_2", None)


def _event(choices: Choices) -> dict[str, Any]:
    raw = {"type": choices.of(_COMMON) if choices.below(4) else choices.of(_TYPES)}
    if choices.below(4):
        # Well-typed, so that it is not just dropped as drifted.
        raw |= {"output_index": choices.below(4), "content_index": choices.below(3), "summary_index": choices.below(3)}
        raw |= {"item_id": choices.of(("msg_1", "msg_2", "fc_1")), "delta": choices.of(_STRINGS)}
        raw |= {name: choices.of(_STRINGS) for name in ("text", "arguments", "input", "refusal")}
        raw["response"] = {"id": choices.of(_RESPONSES), "status": choices.of(_STRINGS[2:6])}
        raw["response"]["previous_response_id"] = choices.of(_RESPONSES)
        raw["steer"] = {"id": choices.of(("steer_1", "steer_2", None)), "previous_response_id": choices.of(_RESPONSES)}
        raw["reason"] = choices.of(("waiting_for_required_input", None))
        raw["response"]["output"] = [_item(choices) for _ in range(choices.below(3))]
        raw["item"] = _item(choices)
        raw["part"] = {"type": choices.of(_STRINGS[13:18]), "text": choices.of(_STRINGS)}
    for _ in range(choices.below(4)):
        raw[choices.of(_NAMES)] = _value(choices)
    return raw


def _about_a_steer(choices: Choices, steered: Exchange) -> dict[str, Any]:
    """An event that a steer leads to, with the right ids."""
    name, kind = steered.response_id, choices.of(_OF_STEERS)
    if kind.startswith("response.steer"):
        reason = choices.of(("waiting_for_required_input", None))
        return {"type": kind, "steer": {"previous_response_id": name}, "reason": reason}
    if kind != "response.created":
        return {"type": kind, "response": {"id": name, "incomplete_details": {"reason": "steered"}}}
    return {"type": kind, "response": {"id": choices.of(_RESPONSES), "previous_response_id": name}}


_OF_STEERS: Final = (
    *("response.steer.accepted", "response.steer.pending", "response.steer.failed"),
    *("response.completed", "response.incomplete", "response.created", "response.created"),
)


def _item(choices: Choices) -> dict[str, Any]:
    item: dict[str, Any] = {"type": choices.of(("message", "function_call", "reasoning", "custom_tool_call", "x"))}
    item |= {"id": choices.of(("msg_1", "msg_2", "fc_1")), "role": "assistant", "call_id": "call_1", "name": "add"}
    item["arguments"] = item["input"] = choices.of(_STRINGS)
    item["content"] = [{"type": "output_text", "text": choices.of(_STRINGS)} for _ in range(choices.below(3))]
    item["summary"] = [{"type": "summary_text", "text": choices.of(_STRINGS)} for _ in range(choices.below(3))]
    for _ in range(choices.below(3)):
        item[choices.of(_ITEM_NAMES)] = _value(choices, 2)
    return item


def events(data: bytes) -> None:
    """Any sequence of events, well-typed or not, ends a request well or not, and shows what makes sense."""
    choices, router, told = Choices(data), Router(), dict[Exchange, list[TurnEvent]]()
    lanes = (None, None, None, "a", "b")
    while choices.left:
        lane = choices.of(lanes)
        if all(exchange.lane != lane for exchange in router.exchanges()):
            exchange = Exchange(lane)
            exchange.dispatched()
            router.begin(exchange)
            told[exchange] = []
        if not choices.below(40):
            next(iter(router.exchanges())).abandon()
        running = [exchange for exchange in router.exchanges() if exchange.steerable and not exchange.abandoned]
        if running and not choices.below(8):
            choices.of(running).steer(Steer((engine.UserMessage("more"),), ({"content": "more"},)))
        steered = next((exchange for exchange in router.exchanges() if exchange.steering), None)
        if steered is not None and choices.below(2):
            lane, raw = steered.lane, _about_a_steer(choices, steered)
        else:
            raw = _event(choices)
        if lane is not None and choices.below(8):
            raw["stream_id"] = lane
        try:
            event = decode_object(raw)
        except MalformedFrame:
            continue
        for each in getattr(event, "events", (event,)):
            target = router.route(each)
            if isinstance(target, Doubt):
                router.end(target.exchange)
                del told[target.exchange]
                continue
            if isinstance(target, Unlabelled):
                if len(target.exchanges) > 1:
                    for lost in target.exchanges:
                        router.end(lost)
                        del told[lost]
                    continue
                (target,) = target.exchanges
            if isinstance(target, Verdict):
                continue
            before = target.partial()
            shown = target.receive(each)
            told[target] += shown
            partial = target.partial()
            assert not target.abandoned or (shown, partial) == ([], before)
            assert partial is not None or not [one for one in told[target] if isinstance(one, BLOCKS)]
            if target.outcome is not None:
                router.end(target)
                _check_told(told.pop(target), target)


def _check_told(told: list[TurnEvent], exchange: Exchange) -> None:
    outcome = exchange.outcome
    assert outcome is not None
    if exchange.abandoned:
        assert isinstance(outcome, engine.AssistantMessage) or isinstance(to_error(outcome), engine.TurnError)
        return
    opened: set[int] = set()
    closed: set[int] = set()
    for place, each in enumerate(told):
        match each:
            case engine.TurnStarted():
                assert place == 0
            case engine.TurnDone():
                assert each is told[-1]
                assert each.message is outcome
            case engine.TurnContinued():
                assert exchange.steered
                assert opened == closed, "a response that is gone on from has ended"
            case _:
                assert each.index not in closed
                assert (each.index in opened) != isinstance(each, BLOCKS)
                (closed if isinstance(each, ENDS) else opened).add(each.index)
    assert opened == closed
    if isinstance(outcome, engine.AssistantMessage):
        assert isinstance(told[-1], engine.TurnDone)
        repr(outcome)
        return
    error = to_error(outcome)
    assert isinstance(error, engine.TurnError)
    assert len(str(error)) < 500


# --- whole connections -----------------------------------------------------------------------------------------------

_BUDGETS: Final = engine.Timeouts(
    queue=5, start=30, connect=5, send=5, first_event=5, idle=5, turn=60, close=1, drain=1, warm_up=1
)
_LIMITS: Final = engine.Limits(max_message_bytes=32_768)
_CREATED: Final = b'{"type":"response.created","response":{"id":"resp_1"}}'
_DELTA: Final = b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a"}'
_COMPLETED: Final = b'{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[]}}'


class Peers(SimulatorDialer):
    """Dials peers that answer every connection with the same bytes, in slices."""

    def __init__(self, nursery: trio.Nursery, answer: Callable[[bytes], bytes], size: int, *, hang: bool) -> None:
        self._nursery = nursery
        self._answer = answer
        self._size = size
        self._hang = hang

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: MemoryStream) -> None:
        async with stream:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    received = await stream.receive_some()
                    if not received:
                        return
                    head += received
                answer = self._answer(head)
                size = max(self._size, len(answer) // 2000)  # many bytes one by one only take long
                for start in range(0, len(answer), size):
                    await stream.send_all(answer[start : start + size])
                if self._hang:
                    await trio.sleep_forever()
            except trio.BrokenResourceError:
                pass


def _acceptance(head: bytes) -> bytes:
    key = next(line[19:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + digest
        + b"\r\n\r\n"
    )


def _ask(data: bytes, transport: engine.Transport, answer: Callable[[bytes, bytes], bytes]) -> None:
    choices = Choices(data)
    hang, size = bool(choices.below(2)), 1 + choices.below(256) * 16
    rest = choices.rest()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            peers = Peers(nursery, lambda head: answer(head, rest), size, hang=hang)
            started = trio.current_time()
            async with engine.open_session(
                engine.Endpoint("http://peer.invalid/v1", "sk-hidden"),
                model="m",
                dialer=peers,
                transport=transport,
                timeouts=_BUDGETS,
                limits=_LIMITS,
                retry=engine.RetryPolicy(back_off=(), resend_ambiguous=0),
            ) as session:
                for _ in range(2):
                    try:
                        reply = await session.ask("hi")
                    except engine.TurnError as error:
                        assert not isinstance(error, engine.SessionClosed), repr(error.__cause__)  # noqa: PT017
                        assert "sk-hidden" not in str(error)  # noqa: PT017
                    else:
                        assert isinstance(reply, engine.AssistantMessage)
            assert trio.current_time() - started < 2 * 60 + 2
            nursery.cancel_scope.cancel(reason="the session is over")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def upgrade(data: bytes) -> None:
    """Any bytes in answer to the upgrade, or to the POST it falls back to, end in an answer or a typed error."""
    _ask(data, engine.Transport.AUTO, lambda _, rest: rest)


def frames(data: bytes) -> None:
    """Any bytes after the upgrade, also inside well-formed frames, end in an answer or a typed error."""

    def answer(head: bytes, rest: bytes) -> bytes:
        choices = Choices(rest)
        framed = b""
        while choices.left:
            match choices.below(8):
                case 0:
                    return _acceptance(head) + framed + choices.rest()
                case 1:
                    framed += _frame(choices.of((_CREATED, _DELTA, _COMPLETED)))
                case 2:
                    framed += _frame(json.dumps(_event(choices)).encode())
                case 3:
                    framed += _frame(bytes(choices.below(256) for _ in range(choices.below(40))))
                case 4:
                    # Any kind of frame, whole or a fragment: continuation, binary, Close, Ping, Pong.
                    first = choices.of((0x00, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8A))
                    framed += _frame(choices.of((b"", b"a", b"\x03\xe8", b"\x03\xf1\xff", _CREATED)), first)
                case 5:
                    framed += _frame(b" " * (1 + choices.below(2) * 40_000))
                case _:
                    first, second = choices.below(256), choices.below(256)
                    framed += bytes([first, second]) + bytes(choices.below(256) for _ in range(choices.below(16)))
        return _acceptance(head) + framed

    _ask(data, engine.Transport.WEBSOCKET, answer)


def _frame(payload: bytes, first: int = 0x81) -> bytes:
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + min(len(payload), 65535).to_bytes(2, "big")
    return bytes([first]) + size + payload[:65535]


def stream(data: bytes) -> None:
    """Any bytes for the body of a stream, also as well-formed events and in chunks, end in an answer or an error."""

    def answer(_: bytes, rest: bytes) -> bytes:
        choices = Choices(rest)
        chunked, body = choices.below(3), b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        head += (b"\r\n", b"transfer-encoding: chunked\r\n\r\n", b"content-encoding: gzip\r\n\r\n")[chunked]
        while choices.left:
            match choices.below(5):
                case 0:
                    body += choices.rest()
                case 1:
                    body += b"data: " + choices.of((_CREATED, _DELTA, _COMPLETED, b"[DONE]")) + b"\n\n"
                case 2:
                    body += b"data: " + json.dumps(_event(choices)).encode() + b"\n\n"
                case 3:
                    body += b"data: " + b" " * (1 + choices.below(2) * 40_000) + b"{}\n\n"
                case _:
                    body += choices.of((b"\r", b"\n", b"\r\n", b": x\n", b"event: x\n", b"data", b"data:\n", b"\xff"))
        if chunked == 1:
            body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        return head + body

    _ask(data, engine.Transport.SSE, answer)


def cutter(data: bytes) -> None:
    """trio-websocket behind the cutter fares as it does alone, whatever bytes come in whatever slices."""
    choices = Choices(data)
    limit = choices.of((5, 100, 1 << 20))
    sizes = [1 + choices.below(40) for _ in range(choices.below(8))]
    other = choices.of(("close", "end", "reset", "cancel", "ping", None, None))
    place = choices.below(9)
    happenings: list[Happening] = []
    rest = choices.rest()
    for size in sizes:
        if rest:
            happenings.append(rest[:size])
            rest = rest[size:]
    happenings += [rest] if rest else []
    happenings.insert(0, HEAD)
    if other is not None:
        happenings.insert(1 + place, other)
    alone, behind = lives(happenings, limit=limit)
    for number, (expected, got) in enumerate(zip(alone, behind, strict=True)):
        if "close" in happenings[:number]:  # while a Close frame of ours is under way, a message may count or not
            got = attrs.evolve(got, messages=expected.messages)
        assert got == expected, (number, happenings)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "sse": sse, "codec": codec, "events": events, "upgrade": upgrade, "frames": frames, "stream": stream,
    "cutter": cutter,
}  # fmt: skip

SEEDS: Final[dict[str, list[bytes]]] = {
    "sse": [b"\xc8\x05\x01\x09\x20event: a\ndata: b\r\ndata:c\r\r: x\n\xef\xbb\xbfid: 3\n\ndata\n\n"],
    "codec": [_CREATED, _DELTA, _COMPLETED, b'{"type":"error","error":{"code":"x"}}', b'{"chunks":[{"type":"a"}]}'],
    "events": [bytes(range(256)), bytes(range(0, 256, 3)) * 3],
    "upgrade": [b"\x00\xffHTTP/1.1 426 No\r\nretry-after: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    "frames": [
        b"\x00\xff\x01\x00\x01\x01\x01\x02",
        b"\x00\xff\x02" + bytes(range(100)),
        b"\x01\x01\x04\x88\x02\x02\x03\xe8",
    ],
    "stream": [
        b"\x00\xff\x00\x01\x00\x01\x01\x01\x02",
        b"\x00\xff\x01\x01\x00\x01\x02",
        b"\x01\x01\x00\x00data: x\n\n",
    ],
    "cutter": [
        b"\x02\x03\x00\x01\x02\x05\x00\x81\x01a\x01\x02b\xc3\x89\x00\x80\x01\xa9\x81\x02cd",
        b"\x00\x04\x03\x00\x01\x01\x01\x81\x06abcdef\x81\x01g\x88\x02\x03\xe8",
        b"\x01\x05\x01\x02\x03\x02\x05\x00\x01\x03ab\xf0\x00\x02\x9f\x98\x80\x03\x80\x01b",
    ],
}


_INSTRUMENTED: Final = {"engine", "h11", "trio_websocket", "wsproto"}


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="where inputs are kept from one run to the next")
    parser.add_argument("--input", type=Path, help="run over this input alone")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    if arguments.input is not None:
        target(arguments.input.read_bytes())
        return
    import atheris  # by hand only, hence no dependency

    for function in gc.get_objects():
        if isinstance(function, FunctionType) and (function.__module__ or "").partition(".")[0] in _INSTRUMENTED:
            atheris.instrument_func(function)
    options = [sys.argv[0], f"-max_total_time={arguments.seconds}", "-print_final_stats=1", "-max_len=1024"]
    if arguments.corpus is not None:
        arguments.corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[arguments.target]):
            (arguments.corpus / f"seed{number}").write_bytes(seed)
        options.append(str(arguments.corpus))
    atheris.Setup(options, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
