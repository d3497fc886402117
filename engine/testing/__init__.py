"""For tests of programs that talk to the Responses API: a simulator for any client, and a pytest plugin."""

from __future__ import annotations

from engine.testing.running import RunningSimulator as RunningSimulator
from engine.testing.running import run_simulator as run_simulator

__all__ = ["RunningSimulator", "run_simulator"]
