"""The same over sockets, plain and with TLS, at a sample of points, with the process's sockets counted."""

from __future__ import annotations

import ssl

import pytest
import scenarios
import trustme
from stepping import Network, Scenario, instructions, interrupt, signal_places, sweep

from engine import OnCancel

pytestmark = pytest.mark.slow

POINTS = (1, 2, 3, 5, 7, 9, 12, 16, 20, 26, 34, 58)
"""Denser at the beginning, where each step is another stage of connecting."""

SCENARIOS = (scenarios.CONNECT, scenarios.ASK, scenarios.LEAVE, scenarios.LIFE)


def tls(*, in_memory: bool) -> Network:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", "simulator.invalid").configure_cert(server)
    authority.configure_trust(client)
    return Network(in_memory=in_memory, server_tls=server, client_tls=client)


@pytest.fixture(scope="module", params=["tcp", "tls"])
def network(request: pytest.FixtureRequest) -> Network:
    return Network(in_memory=False) if request.param == "tcp" else tls(in_memory=False)


def named(scenario: Scenario) -> str:
    return scenario.name


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
@pytest.mark.parametrize("policy", OnCancel, ids=lambda policy: policy.name)
def test_cancelled_over_sockets(network: Network, scenario: Scenario, policy: OnCancel) -> None:
    assert sweep(scenario, policy, network=network, points=POINTS) >= 9


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_interrupted_over_sockets(network: Network, scenario: Scenario) -> None:
    assert sweep(scenario, OnCancel.CLOSE, network=network, points=POINTS, blow="interrupt") >= 9


@instructions
def test_interrupted_between_instructions_over_sockets(network: Network) -> None:
    places = signal_places(scenarios.CONNECT, network=network)
    transport = [place for place in places if "transport" in place[0].co_filename]
    dialling = [place for place in transport if place[0].co_filename.endswith("dial.py")]
    sample = [*dialling, *transport[::5]]
    assert interrupt(scenarios.CONNECT, OnCancel.CLOSE, sample, network=network) >= 0.8 * len(sample) >= 8


def test_cancelled_at_every_other_step_of_a_tls_handshake() -> None:
    """In memory, so that the steps are the same every time; those behind the handshake are met elsewhere."""
    assert sweep(scenarios.CONNECT, OnCancel.CLOSE, network=tls(in_memory=True), points=range(1, 81, 2)) >= 57
