"""Cases: the contestants that run one job, and the figures that are told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from attrs import evolve, field, frozen

from benchmarks.peers import peer_named

__all__ = ["Better", "Case", "Contestant", "Measure", "Scenario", "Server", "Skipped", "contestants_of"]

Better: TypeAlias = Literal["higher", "lower", "right"]
Server: TypeAlias = Literal["replay", "simulator", "none"]


@frozen(kw_only=True)
class Contestant:
    """A peer with its job and its server.

    Attributes:
        label: Its name in the table.
        peer: The peer's name.
        job: The job's name.
        params: The job's arguments.
        server: Which server it is run against.
        path: The first segment of the path, which tells the load source how to behave.
        tls: Whether over TLS.
        model: The answer that is asked for.
        options: Further wishes at this peer.
        seeded: Whether the job takes a seed.
    """

    label: str
    peer: str
    job: str
    params: Mapping[str, Any] = field(factory=dict)
    server: Server = "replay"
    path: str = "v1"
    tls: bool = False
    model: str = "answer"
    options: Mapping[str, Any] = field(factory=dict)
    seeded: bool = False


@frozen
class Measure:
    """One figure of a job's result.

    Attributes:
        key: Its name in the result.
        title: Its name in the table.
        unit: Its unit; empty for a count.
        better: Which way is better; ``"right"`` for a count of successes, which has no ratio.
    """

    key: str
    title: str
    unit: str
    better: Better


@frozen(kw_only=True)
class Case:
    """One table.

    Attributes:
        name: Its short name.
        title: Its heading.
        contestants: Those that take part, in the order of the table.
        measures: The columns.
        baseline: The label of the contestant that ratios are taken to.
        fresh: Whether each sample gets a process of its own.
        rounds: At most so many rounds, for cases that take long; None for as many as asked for.
        seconds: The longest time that one sample may take.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    measures: tuple[Measure, ...]
    baseline: str | None = None
    fresh: bool = False
    rounds: int | None = None
    seconds: float = 120.0


@frozen
class Scenario:
    """Cases that belong together."""

    name: str
    title: str
    text: str
    cases: tuple[Case, ...]


class Skipped(Exception):
    """A contestant cannot run here; the text says why."""


def contestants_of(case: Case, names: Sequence[str]) -> Case | None:
    """The case with the named peers only, and its baseline; None when none of them takes part."""
    if not names:
        return case
    kept = tuple(
        each for each in case.contestants if each.peer in names or each.label in names or each.label == case.baseline
    )
    if all(each.label == case.baseline and each.peer not in names for each in kept):
        return None
    assert all(peer_named(each.peer) for each in kept)
    return evolve(case, contestants=kept)
