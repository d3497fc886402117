"""The parts under the commands: streams, interrupts, and how failures are put into words."""

from __future__ import annotations

import io
import os
import signal

import pytest

from engine.cli import interrupts, terminal
from engine.cli.errors import describe, neutralise, one_line
from engine.cli.output import plain, report_table
from engine.values.blocks import Text, ToolCall
from engine.values.choices import Delivery
from engine.values.errors import ConnectionLost, RateLimited, ResponseFailed
from engine.values.problems import ConfigurationError
from engine.values.reports import PhaseSeconds, TurnReport

SECRET = "sk-not-to-be-shown"

# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigurationError("timeouts.turn", "is wrong"), "timeouts.turn: is wrong"),
        (ConnectionLost("the server hung up"), "ConnectionLost: the server hung up"),
        (ConnectionLost(), "ConnectionLost: ConnectionLost"),
        (RateLimited("refused", message="Slow\r\n\tdown"), "RateLimited: refused: Slow down"),
        (ResponseFailed("failed", message=f"with {SECRET}"), "ResponseFailed: failed: with (key)"),
        (ResponseFailed("failed", message="a\u202eb\x9bc\ud800d\u2028e"), "ResponseFailed: failed: abcd e"),
    ],
)
def test_a_failure_is_one_line(error: Exception, words: str) -> None:
    assert describe(error, SECRET) == words


def test_a_key_is_taken_out_before_the_words_are_cut() -> None:
    told = describe(ResponseFailed("failed", message="x" * 290 + SECRET), SECRET)
    assert "sk-" not in told


def test_lines_are_cut() -> None:
    assert one_line("word " * 100, 20) == "word word word word…"


def test_only_control_characters_are_neutralised() -> None:
    assert neutralise("a\tb\n\x00\x1b[0m\x7f\x85é\u4e2d") == "a\tb\n␀␛[0m␡\ufffdé\u4e2d"


def test_records_become_plain_objects() -> None:
    assert plain((Text("a"), ToolCall("call_1", "f", {"x": [1, Delivery.ACCEPTED]}))) == [
        {
            "type": "text",
            "text": "a",
            "phase": None,
            "item_id": None,
            "annotations": [],
            "logprobs": [],
            "extra": {},
        },
        {
            "type": "tool_call",
            "id": "call_1",
            "name": "f",
            "arguments": {"x": [1, "accepted"]},
            "raw_arguments": "",
            "kind": "function",
            "extra": {},
        },
    ]


def test_a_report_leaves_out_what_is_unknown() -> None:
    table = report_table(TurnReport(transport="websocket", attempts=2, seconds=PhaseSeconds(total=1.23456)))  # type: ignore[arg-type]
    rows = dict(line.strip().split("  ", 1) for line in table.splitlines())
    assert {name: value.strip() for name, value in rows.items()} == {
        "transport": "websocket",
        "attempts": "2",
        "connection reused": "no",
        "continued": "no",
        "bytes sent": "0",
        "bytes full": "0",
        "delivery": "not_sent",
        "seconds, total": "1.235",
    }


# --- interrupts ------------------------------------------------------------------------------------------------------


async def nothing() -> None:
    return None


async def fail() -> None:
    raise ValueError("plain")


async def interrupted() -> None:
    raise KeyboardInterrupt


async def leave() -> None:
    raise SystemExit(3)


def test_a_program_that_ends() -> None:
    assert interrupts.run(nothing) is False


def test_what_a_program_raises_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="plain"):
        interrupts.run(fail)


def test_an_interrupt_that_the_receiver_did_not_see() -> None:
    assert interrupts.run(interrupted) is True


def test_what_is_no_interrupt_passes_through() -> None:
    with pytest.RaisesGroup(SystemExit):
        interrupts.run(leave)


def test_an_ignored_interrupt_needs_no_receiver() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupts.run(nothing) is False
        assert interrupts.run(interrupted) is True
    finally:
        signal.signal(signal.SIGINT, before)


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_lines_and_the_rest_of_a_descriptor() -> None:
    read, write = os.pipe()
    os.write(write, "é\r\nzwei\ndrei\n".encode())
    os.close(write)
    with os.fdopen(read) as stream:
        inlet = terminal.Inlet(stream)
        assert [await inlet.line(), await inlet.line()] == ["é", "zwei"]
        assert await inlet.everything() == "drei\n"
        assert await inlet.line() is None


async def test_a_descriptor_that_somebody_made_non_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    real = {"read": os.read, "write": os.write}
    refused = []

    def refuse_once(name: str) -> None:
        def call(*arguments: object) -> object:
            if name not in refused:
                refused.append(name)
                raise BlockingIOError
            return real[name](*arguments)  # type: ignore[operator]

        monkeypatch.setattr(terminal.os, name, call)  # type: ignore[attr-defined]

    refuse_once("read")
    refuse_once("write")
    with os.fdopen(read) as source, os.fdopen(write, "w") as sink:
        await terminal.Outlet(sink).write("a line\n")
        assert await terminal.Inlet(source).line() == "a line"
    assert refused == ["write", "read"]


async def test_closed_streams_are_no_terminals() -> None:
    stream = io.StringIO()
    stream.close()
    assert not terminal.Outlet(stream).is_terminal
    assert not terminal.Inlet(None).is_terminal
    assert await terminal.Inlet(None).line() is None
