"""Real proxies on loopback: tinyproxy (CONNECT) and microsocks (SOCKS5), as Debian packages them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

USER, PASSWORD = "user", "word-that-nobody-may-see"
_STARTING = 10.0


@attrs.frozen
class RealProxy:
    """A running proxy.

    Attributes:
        scheme: Of its URL.
        port: On 127.0.0.1.
        process: The program.
    """

    scheme: str
    port: int
    process: subprocess.Popen[bytes]

    def url(self, login: str = "") -> str:
        return f"{self.scheme}://{login and login + '@'}127.0.0.1:{self.port}"


def _tinyproxy(port: int, directory: Path, *, login: bool) -> list[str]:
    lines = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 60", "MaxClients 50", "LogLevel Critical"]
    if login:
        lines.append(f"BasicAuth {USER} {PASSWORD}")
    configuration = directory / f"tinyproxy-{port}.conf"
    configuration.write_text("\n".join([*lines, ""]), encoding="ascii")
    return ["tinyproxy", "-d", "-c", str(configuration)]


def _microsocks(port: int, directory: Path, *, login: bool) -> list[str]:
    return ["microsocks", "-i", "127.0.0.1", "-p", str(port), *(["-u", USER, "-P", PASSWORD] if login else [])]


_PROGRAMS = {"tinyproxy": ("http", _tinyproxy), "microsocks": ("socks5h", _microsocks)}


def installed(program: str) -> str:
    """Return where a program is. Where it is not installed the test is skipped, or fails if it must not be."""
    where = shutil.which(program)
    if where is None:
        if os.environ.get("ENGINE_TEST_PROXIES") == "required":
            pytest.fail(f"{program} is not installed, and ENGINE_TEST_PROXIES says that it has to be")
        pytest.skip(f"{program} is not installed")
    return where


@contextmanager
def running(program: str, directory: Path, *, login: bool = False) -> Iterator[RealProxy]:
    """Run a proxy for the length of a block."""
    installed(program)
    scheme, command = _PROGRAMS[program]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(port, directory, login=login),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield RealProxy(scheme, port, process)
    finally:
        process.kill()
        process.wait(_STARTING)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a program accepts connections: none of these says when it does."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline:
        assert process.poll() is None, "the proxy has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the proxy did not start within {_STARTING:g} s")
