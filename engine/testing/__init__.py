"""For tests of programs that talk to the Responses API.

`run_simulator` runs a simulator in a thread of its own, for clients of every kind. `engine.testing.plugin` is a pytest
plugin, which is there once the library is installed. `StoreSuite` tries a store of your own.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for True; pytest imports this package at every start
if TYPE_CHECKING:
    from engine.testing.cassettes import Cassette as Cassette
    from engine.testing.conversation_suite import StoreSuite as StoreSuite
    from engine.testing.lazy import LazySimulator as LazySimulator
    from engine.testing.lazy import SessionOpener as SessionOpener
    from engine.testing.running import RunningSimulator as RunningSimulator
    from engine.testing.running import run_simulator as run_simulator

__all__ = ["Cassette", "LazySimulator", "RunningSimulator", "SessionOpener", "StoreSuite", "run_simulator"]

_HOMES = {
    "Cassette": "engine.testing.cassettes",
    "LazySimulator": "engine.testing.lazy",
    "RunningSimulator": "engine.testing.running",
    "SessionOpener": "engine.testing.lazy",
    "StoreSuite": "engine.testing.conversation_suite",
    "run_simulator": "engine.testing.running",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
