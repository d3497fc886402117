"""The same over sockets and TLS, at a sample of points, with the file descriptors counted."""

from __future__ import annotations

import ssl

import pytest
import scenarios
import trustme
from stepping import Network

POINTS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 110, 144)
"""Denser at the beginning, where each step is another stage of connecting; 110 and 144 are behind most turns' ends."""

SCENARIOS = (scenarios.CONNECT, scenarios.ASK, scenarios.LEAVE, scenarios.LIFE, scenarios.RELEASE)


def _tls(*, in_memory: bool) -> Network:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", "simulator.invalid").configure_cert(server)
    authority.configure_trust(client)
    return Network(in_memory=in_memory, server_tls=server, client_tls=client)


@pytest.fixture(scope="module")
def tls() -> Network:
    return _tls(in_memory=False)
