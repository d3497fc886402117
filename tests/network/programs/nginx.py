"""A real nginx on loopback, as Debian packages it, in front of the simulator."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from real_proxies import installed

__all__ = ["Nginx", "forwarded", "nginx"]

_PATIENCE: Final = 10.0
_FINISHING: Final = "gracefully shutting down"

# The paths that are compiled in are root's.
_MAIN: Final = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/log notice;
{user}
{main}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {blocks}
}}
"""
_SERVER: Final = """
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            {location}
        }}
    }}
"""


def forwarded(port: int, further: str = "", *, buffering: str = "off", version: str = "1.1") -> str:
    """What a location needs so that both transports pass, and further directives."""
    return f"""
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version {version};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering {buffering};
            {further}
    """


@attrs.define
class Nginx:
    """A running nginx.

    Its listening socket is made here and handed down, so that the port is nobody else's from the beginning, and
    connections wait in line while it is started or replaced.

    Attributes:
        program: Where it is.
        directory: Where everything of it is.
        listener: What it listens on.
        process: The master process; None while it is stopped.
    """

    program: str
    directory: Path
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        """What clients without TLS are given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def configure(self, location: str = "", *, blocks: str = "", main: str = "") -> None:
        """Write its configuration.

        Args:
            location: Directives of its one location, if it has one.
            blocks: Further blocks for the ``http`` block.
            main: Directives that stand outside of all blocks.
        """
        if location:
            blocks += _SERVER.format(port=self.port, location=location)
        # Root's workers would be another user's, who cannot enter the directory.
        user = "user root root;" if os.geteuid() == 0 else ""
        text = _MAIN.format(directory=self.directory, user=user, main=main, blocks=blocks)
        (self.directory / "nginx.conf").write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start it with what was configured last, and wait until it runs."""
        (self.directory / "log").unlink(missing_ok=True)
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen(
            [self.program, "-p", self.directory, "-c", self.directory / "nginx.conf", "-e", self.directory / "log"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env={"NGINX": f"{descriptor};"},  # this is how one nginx hands its sockets on to the next
        )
        deadline = time.monotonic() + _PATIENCE
        while "start worker process " not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nginx did not start: {self.log}")
            time.sleep(0.002)

    async def reload(self) -> None:
        """Have new workers with what was configured last, as ``nginx -s reload`` does; the old ones finish.

        Returns when an old one has said so: it accepts no more connections then.
        """
        assert self.process is not None
        before = self.log.count(_FINISHING)
        self.process.send_signal(signal.SIGHUP)
        while self.log.count(_FINISHING) == before:
            assert self.process.poll() is None, self.log
            await trio.sleep(0.005)

    def stop(self) -> None:
        """Stop it at once, as ``nginx -s stop`` does."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        process.wait(_PATIENCE)

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self.directory / "log"
        return path.read_text("utf-8") if path.exists() else ""


@contextmanager
def nginx(
    directory: Path, location: str = "", *, blocks: Callable[[int], str] = lambda port: "", main: str = ""
) -> Iterator[Nginx]:
    """Run an nginx for the length of a block; see `Nginx.configure`. ``blocks`` is given its port."""
    program = installed("nginx")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.setblocking(False)  # for nginx, which expects that of what it is handed
        server = Nginx(program, directory, listener)
        server.configure(location, blocks=blocks(server.port), main=main)
        try:
            server.start()
            yield server
        finally:
            server.stop()
