"""The pytest plugin: fixtures by which a test talks to a simulator, and says what that answers.

- ``responses_simulator``: in memory, for Trio programs and `engine.blocking`; it begins at the first dial
- ``responses_server``: on a port, in a thread of its own, for any client, in any language, sync or async
- ``responses_session``: opens sessions to the first
- ``responses_cassette``: answers as a server once did

``@pytest.mark.simulator("answer", …)`` says what is answered, in order: what a `engine.simulator.Script` takes. A test
that has passed fails all the same where answers are left over, a request fitted none, or the simulator met an error;
``strict=False`` in the marker allows that. ``@pytest.mark.simulator(script="weather.json")`` has a script file say it,
by a path from the test's own folder.

pytest imports this module at every start, so it imports nothing of the library before a fixture is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from engine.testing.cassettes import Cassette, RecordMode
    from engine.testing.lazy import LazySimulator, SessionOpener
    from engine.testing.running import RunningSimulator

_MARKER = "simulator(*answers, script=None, strict=True, **options): what the test's simulator answers, and its ways"
_JUDGES = pytest.StashKey[list[Callable[[], list[str]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for cassettes."""
    group = parser.getgroup("session-engine", "trio-session-engine")
    group.addoption(
        "--simulator-record",
        choices=["none", "once", "new_episodes", "all", "rewrite"],
        default=None,
        help="When responses_cassette records: none never; once (the default) where there is no cassette; new_episodes"
        " what the cassette does not hold; all everything, behind what is there; rewrite everything, in its place.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that passed fail where its simulator has something to complain about."""
    result = yield
    problems = [problem for judge in item.stash.get(_JUDGES, []) for problem in judge()]
    if problems:
        pytest.fail("the simulator complains: " + "; ".join(problems), pytrace=False)
    return result


def _marked(request: pytest.FixtureRequest) -> tuple[list[Any], dict[str, Any], bool]:
    """Return the answers, the options, and whether to be strict, of the nearest marker."""
    marker = request.node.get_closest_marker("simulator")
    if marker is None:
        return [], {}, True
    options = dict(marker.kwargs)
    if options.get("script") is not None:
        options["script"] = request.path.parent / options["script"]
    return list(marker.args), options, bool(options.pop("strict", True))


def _judged_by(request: pytest.FixtureRequest, judge: Callable[[], list[str]], *, strict: bool) -> None:
    if strict:
        request.node.stash.setdefault(_JUDGES, []).append(judge)


@pytest.fixture
def _shown() -> Iterator[None]:
    from engine import show_content

    with show_content():
        yield


@pytest.fixture
def responses_simulator(request: pytest.FixtureRequest, _shown: None) -> Iterator[LazySimulator]:
    """A simulator in memory: ``.endpoint`` and ``.dialer`` lead to it, and the first dial starts it."""
    from engine.testing.lazy import LazySimulator

    answers, options, strict = _marked(request)
    simulator = LazySimulator(answers, strict=strict, options=options)
    _judged_by(request, simulator.problems, strict=strict)
    yield simulator
    simulator.end()


@pytest.fixture
def responses_server(request: pytest.FixtureRequest, _shown: None) -> Iterator[RunningSimulator]:
    """A simulator on a port of this machine's, for any client: ``.base_url`` and ``.api_key`` lead to it."""
    from engine.testing.answers import set_up
    from engine.testing.running import run_simulator

    answers, options, strict = _marked(request)
    with run_simulator(**set_up(answers, options, strict=strict)) as simulator:
        _judged_by(request, simulator.problems, strict=strict)
        yield simulator


@pytest.fixture
def responses_session(responses_simulator: LazySimulator) -> SessionOpener:
    """Open sessions to ``responses_simulator``.

    ``async with responses_session() as session`` opens one for Trio, ``responses_session.blocking()`` one for a
    ``with`` block of a plain test, and ``responses_session.aio()`` one for asyncio.
    """
    from engine.testing.lazy import SessionOpener

    return SessionOpener(responses_simulator)


@pytest.fixture
def responses_cassette(request: pytest.FixtureRequest, _shown: None) -> Iterator[Cassette]:
    """The answers that a server once gave this test, from ``cassettes/MODULE/TEST.jsonl`` beside it.

    ``async with responses_cassette.session(model=…) as session``; or its ``endpoint`` and ``dialer``. What is recorded,
    and when, is said by ``--simulator-record``.
    """
    from engine.testing.cassettes import Cassette

    _, options, strict = _marked(request)
    name = re.sub(r"[^\w.\[\]-]", "_", request.node.name)
    path = request.path.parent / "cassettes" / request.path.stem / f"{name}.jsonl"
    mode: RecordMode = request.config.getoption("--simulator-record") or "once"
    with Cassette(path, mode, redact=tuple(options.get("redact", ()))) as cassette:
        _judged_by(request, cassette.problems, strict=strict)
        yield cassette
