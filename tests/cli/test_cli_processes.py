"""What only a real process shows: signals, pipes, terminals, and two processes talking to each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.simulator import Answer, Created, Error, SayDelta, Script, Simulator, Stall

KEY = "sk-not-to-be-shown"
PATIENCE = 30.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A server that lets clients connect and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal: ours, and the one for the process."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(descriptor: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        assert select.select([descriptor], [], [], PATIENCE)[0], seen
        seen += os.read(descriptor, 65536)
    return seen


def said_aside(process: Any) -> list[str]:
    """The lines it wrote on standard error."""
    return process.stderr.decode().splitlines()  # type: ignore[no-any-return]


# --- interrupts ------------------------------------------------------------------------------------------------------


def test_interrupted_while_connecting(start: Callable[..., Any], mute: socket.socket) -> None:
    process = start("ask", "hi", "--base-url", f"http://127.0.0.1:{mute.getsockname()[1]}/v1", key=KEY)
    connection, _ = mute.accept()
    with connection:
        process.interrupt()
        assert process.end() == 130
    assert said_aside(process) == []


def test_interrupted_while_streaming(start: Callable[..., Any], simulated: Callable[..., Simulator]) -> None:
    simulator = simulated(brain=Script([[Created(), SayDelta("so far"), Stall()]]))
    process = start("ask", "hi", "--base-url", simulator.base_url, key=KEY)
    process.wait_for(b"so far")
    process.interrupt()
    assert process.end() == 130
    assert said_aside(process) == []


def test_interrupted_while_waiting_for_a_line(start: Callable[..., Any]) -> None:
    process = start("chat", stdin=subprocess.PIPE)
    process.wait_for(b"simulator answers", on="stderr")
    process.write("What is 2+2?\n")
    process.wait_for(b"4\n")
    process.interrupt()
    assert process.popen.wait(PATIENCE) == 130
    assert process.end() == 130
    assert len(said_aside(process)) == 1


def test_interrupted_while_nobody_reads_the_answer(start: Callable[..., Any]) -> None:
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = start("ask", "-", stdin=subprocess.PIPE, stdout=write)
    os.close(write)
    with os.fdopen(read, "rb"):
        process.write("word " * 10_000)
        process.popen.stdin.close()
        deadline = time.monotonic() + PATIENCE
        held = 0
        while held + len("word ") <= size:  # a short write into a pipe is whole or waits
            assert time.monotonic() < deadline
            select.select([], [], [], 0.005)
            (held,) = struct.unpack("i", fcntl.ioctl(read, termios.FIONREAD, b"\0" * 4))
        process.interrupt()
        assert process.popen.wait(PATIENCE) == 130
        process._pump(lambda: False)
    assert len(said_aside(process)) == 1


def test_interrupted_simulator(start: Callable[..., Any]) -> None:
    process = start("simulate")
    process.wait_for(b"Ctrl-C.\n")
    process.interrupt()
    assert process.end() == 0
    assert said_aside(process) == []


def test_an_ignored_interrupt_stays_ignored(start: Callable[..., Any]) -> None:
    process = start("chat", stdin=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.wait_for(b"simulator answers", on="stderr")
    process.interrupt()
    process.write("What is 2+2?\n")
    process.wait_for(b"4\n")
    assert process.end() == 0


# --- pipes and terminals ---------------------------------------------------------------------------------------------


def test_a_reader_that_has_seen_enough(start: Callable[..., Any]) -> None:
    process = start("chat", stdin=subprocess.PIPE)
    process.write("What is 1+1?\n")
    process.wait_for(b"2\n")
    process._selector.unregister(process.popen.stdout)
    process.popen.stdout.close()
    process.write("What is 2+2?\n")
    assert process.popen.wait(PATIENCE) == 0
    assert process.end() == 0
    assert len(said_aside(process)) == 1


def test_nobody_needs_to_read_what_is_said_aside(start: Callable[..., Any]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("ask", "hi", "--report", stderr=write)
    os.close(write)
    assert process.end() == 0
    assert process.stdout == b"hi\n"


def test_a_terminal_gets_no_escape_sequences(start: Callable[..., Any]) -> None:
    with terminal() as (ours, theirs):
        process = start("ask", "\x1b[31mred\x07\x9b\r\tend", stdout=theirs)
        seen = read_until(ours, b"end\r\n").decode()
        assert process.end() == 0
    assert seen == "␛[31mred␇\ufffd␍\tend\r\n"


def test_a_pipe_gets_what_the_model_wrote(start: Callable[..., Any]) -> None:
    process = start("ask", "\x1b[31mred")
    assert process.end() == 0
    assert process.stdout == b"\x1b[31mred\n"


def test_a_person_can_go_on_after_a_failure(
    start: Callable[..., Any], simulated: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulator = simulated(brain=Script([[Error(400, "invalid_value", "no")], Answer("better")]))
    monkeypatch.setenv("TERM", "dumb")  # what the line editor draws with is not what this is about
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with terminal() as (ours, theirs):
        process = start("chat", "--base-url", simulator.base_url, key=KEY, stdin=theirs, stdout=theirs, stderr=theirs)
        read_until(ours, b"> ")
        os.write(ours, b"a\r")
        read_until(ours, b"Error: RequestRejected: ")
        os.write(ours, b"b\r")
        read_until(ours, b"better")
        os.write(ours, b"/quit\r")
        assert process.end() == 0
    assert [len(request.body["input"]) for request in simulator.requests] == [1, 1]


def test_an_interrupt_stops_the_answer_and_not_the_conversation(
    start: Callable[..., Any], simulated: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulator = simulated(brain=Script([[Created(), SayDelta("so far"), Stall()], Answer("better")]))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with terminal() as (ours, theirs):
        process = start("chat", "--base-url", simulator.base_url, key=KEY, stdin=theirs, stdout=theirs, stderr=theirs)
        read_until(ours, b"> ")
        os.write(ours, b"a\r")
        read_until(ours, b"so far")
        process.interrupt()
        read_until(ours, b"Stopped.")
        os.write(ours, b"b\r")
        read_until(ours, b"better")
        os.write(ours, b"/quit\r")
        assert process.end() == 0
    assert [len(request.body["input"]) for request in simulator.requests] == [1, 1]


# --- the simulator for other programs --------------------------------------------------------------------------------


def test_another_process_asks_the_simulator(start: Callable[..., Any]) -> None:
    server = start("simulate", "--port", "0", "--host", "localhost", "--verbose")
    server.wait_for(b"Ctrl-C.\n")
    base_url = server.stdout.decode().splitlines()[0]

    asking = start("ask", "What is 20+22?", "--base-url", base_url, "--model", "m1", key=KEY)
    assert asking.end() == 0
    assert (asking.stdout, asking.stderr) == (b"42\n", b"")
    server.wait_for(b"request number=0 connection=0 transport=websocket model=m1 ")
    server.wait_for(b"status=completed ")

    refused = start("ask", "hi", "--base-url", base_url)
    assert refused.end() == 1
    server.wait_for(b"refused connection=1 path=/v1/responses status=401\n")

    lost = start("ask", "hi", "--base-url", base_url.removesuffix("/v1"), "--transport", "sse", key=KEY)
    assert lost.end() == 1
    server.wait_for(b"refused connection=3 path=/responses status=404\n")

    server.interrupt()
    assert server.end() == 0
    assert b"20+22" not in server.stdout
    assert KEY.encode() not in server.stdout
