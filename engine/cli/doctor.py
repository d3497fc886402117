"""The command ``doctor``: shows what an examination finds, as it finds it, or as JSON at the end."""

from __future__ import annotations

import json
import os
from typing import Final

import attrs

from engine import Endpoint
from engine.cli.errors import FAILED, CommandFailed, one_line
from engine.cli.examination import Examination
from engine.cli.findings import Finding
from engine.cli.target import server_of
from engine.cli.terminal import Terminal
from engine.simulator import open_simulator

__all__ = ["doctor"]

_NOTICE: Final = "No OPENAI_API_KEY and no --base-url: the built-in simulator is examined, not a service."
_MARKS: Final = {True: "ok", False: "FAILED", None: "-"}


async def doctor(
    terminal: Terminal, *, base_url: str | None, profile: str | None, model: str, seconds: float, as_json: bool
) -> None:
    """Examine the way to a server step by step. If cancelled, every connection is closed.

    Args:
        terminal: The terminal that the findings go to.
        base_url: The server; None for the one of the environment, or the simulator where there is no key either.
        profile: The name of its profile; None for the one that fits its host.
        model: The model to ask.
        seconds: The most seconds that each step may take.
        as_json: Whether to print one list of findings instead of a line for each.

    Raises:
        CommandFailed: a step failed.
        ConfigurationError: a part of the environment cannot be used.
    """
    terminal.secret = os.environ.get("OPENAI_API_KEY") or None
    endpoint = server_of(base_url, profile)
    if endpoint is None:
        terminal.notice(_NOTICE)
        async with open_simulator() as simulator:
            findings = await _examine(terminal, simulator.endpoint, model=model, seconds=seconds, as_json=as_json)
    else:
        findings = await _examine(terminal, endpoint, model=model, seconds=seconds, as_json=as_json)
    failed = [finding.step for finding in findings if finding.ok is False]
    if failed:
        raise CommandFailed(f"{', '.join(failed)} failed", code=FAILED)


async def _examine(
    terminal: Terminal, endpoint: Endpoint, *, model: str, seconds: float, as_json: bool
) -> tuple[Finding, ...]:
    async def tell(finding: Finding) -> None:
        if not as_json:
            await terminal.output.write(_line(finding))

    findings = await Examination(endpoint, model=model, patience=seconds).run(tell)
    if as_json:
        await terminal.output.write(json.dumps([_plain(finding) for finding in findings], indent=2) + "\n")
    return findings


def _plain(finding: Finding) -> dict[str, object]:
    seconds = None if finding.seconds is None else round(finding.seconds, 4)
    return attrs.asdict(finding) | {"seconds": seconds}


def _line(finding: Finding) -> str:
    took = "" if finding.seconds is None else f"{finding.seconds:.3f} s"
    text = f"{_MARKS[finding.ok]:<7} {finding.step:<12} {took:>9}  {one_line(finding.verdict)}\n"
    return text if finding.hint is None else f"{text}{'':31}  {finding.hint}\n"
