"""The page "Test any client": its script is read, its commands run, by curl and by Node where those are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.simulator.script_file import read_script
from engine.simulator.script_steps import STEPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "test-any-client.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_its_script_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    (script,) = blocks("json")
    assert len(read_script(script).rules) == 6
    jsonschema.validate(json.loads(script), json.loads((ROOT / "docs" / "simulator-script.schema.json").read_text()))


def test_it_names_every_step() -> None:
    assert [name for name in STEPS if f"`{name}`" not in PAGE] == []


@pytest.mark.timeout(180)
@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="curl or bash is not installed"
)
def test_its_commands_run(tmp_path: Path) -> None:
    (script,) = blocks("json")
    (tmp_path / "agent.json").write_text(script, encoding="utf-8")
    first, ask, control, end = blocks("bash")
    (program,) = blocks("js")
    node = ""
    if shutil.which("node") is not None:
        (tmp_path / "ask.cjs").write_text(program, encoding="utf-8")
        node = "node ask.cjs > node.txt\n"
    (tmp_path / "session-engine").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m engine "$@"\n')
    (tmp_path / "session-engine").chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    commands = "set -euo pipefail\n" + first + ask + node + control + end
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if node:
        assert (tmp_path / "node.txt").read_text().splitlines() == ["429 rate_limit_exceeded", "Here you are."]
    assert '"name":"weather"' in done.stdout
