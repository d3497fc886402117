"""The command line is synchronous and runs Trio itself, so the server it talks to lives in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.simulator import Simulator, open_simulator

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # how long anything may take before a test fails; nothing ever waits for it to pass


@contextlib.contextmanager
def simulator_thread(**options: Any) -> Iterator[Simulator]:
    ready = threading.Event()
    found: list[tuple[Simulator, trio.CancelScope, trio.lowlevel.TrioToken]] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with open_simulator(**options) as simulator:
                found.append((simulator, scope, trio.lowlevel.current_trio_token()))
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(PATIENCE)
    simulator, scope, token = found[0]
    try:
        yield simulator
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert simulator.errors == []


class Process:
    """A real process whose output is waited for, never slept for."""

    def __init__(self, *arguments: str, env: dict[str, str], **options: Any) -> None:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        self.popen = subprocess.Popen([sys.executable, "-m", "engine", *arguments], cwd=ROOT, env=env, **options)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._selector = selectors.DefaultSelector()
        for stream, into in ((self.popen.stdout, self.stdout), (self.popen.stderr, self.stderr)):
            if stream is not None:
                self._selector.register(stream, selectors.EVENT_READ, into)

    def _pump(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until() and self._selector.get_map():
            ready = self._selector.select(deadline - time.monotonic())
            assert ready, f"no output for {PATIENCE} s: {bytes(self.stdout)!r} {bytes(self.stderr)!r}"
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                key.data.extend(data)
                if not data:
                    self._selector.unregister(key.fileobj)

    def wait_for(self, text: bytes, *, on: str = "stdout") -> None:
        output = getattr(self, on)
        self._pump(lambda: text in output)
        assert text in output, (bytes(self.stdout), bytes(self.stderr))

    def write(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(text.encode())  # type: ignore[arg-type]
        self.popen.stdin.flush()

    def interrupt(self) -> None:
        self.popen.send_signal(signal.SIGINT)

    def end(self) -> int:
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        self._pump(lambda: False)
        code = self.popen.wait(PATIENCE)
        assert b"Traceback" not in self.stderr, self.stderr.decode()
        return code

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(PATIENCE)
        self._selector.close()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def simulated() -> Iterator[Callable[..., Simulator]]:
    """Start simulators on loopback ports."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(simulator_thread(**options))


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start ``python -m engine`` as real processes."""
    processes: list[Process] = []

    def launch(*arguments: str, key: str | None = None, **options: Any) -> Process:
        env = {**os.environ, "PYTHONWARNINGS": "error"} | ({"OPENAI_API_KEY": key} if key else {})
        processes.append(Process(*arguments, env=env, **options))
        return processes[-1]

    yield launch
    for process in processes:
        process.close()
