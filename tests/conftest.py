"""Makes the suite independent of how it was started."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Iterator

import pytest
import trio
from hypothesis import settings

pytest.register_assert_rewrite("invariants")

for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
    # The proxies of the machine that tests are not on the way to servers on it; subprocesses inherit this too.
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)

# Shells start what runs in the background with SIGINT ignored, and subprocesses inherit that. Tests interrupt
# themselves and their subprocesses, so both need the handler that Python installs otherwise.
signal.signal(signal.SIGINT, signal.default_int_handler)

ORDER = os.environ.get("ENGINE_TEST_ORDER", "")
"""Another text is another order of the steps of Trio's tasks; without one each test has an order of its own."""

# How fast an example is, the machine decides: the first of all, which makes tables of characters, takes longest.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

SWEEP_SECONDS = 900
"""After how long a sweep is taken for hung. What it does is fixed; how fast, the machine decides."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SWEEP_SECONDS))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    # Trio shuffles the tasks that are ready, and has no public way to seed that. pytest-trio has the shuffle depend on
    # this generator alone, so that Hypothesis can seed it; outside of Hypothesis's own tests it is left unseeded.
    trio._core._run._r.seed(f"{item.nodeid} {ORDER}")


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what stays for good: thousands of tests cost it a tenth of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine's that refuses connections: it is taken, so that nothing else listens, and silent."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
