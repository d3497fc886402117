"""The way of a newcomer, as the tutorial says it: from a checkout to an answer, a stream, a test and a trace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "node_modules", "results")
SHOWN = {
    "session-engine ask": "4\n",
    "python ask.py": "4 Usage(",
    "python story.py": "Once upon a time there was a socket.",
    "python umbrella.py": "Take an umbrella.",
    "pytest test_mine.py": "1 passed",
    "python traced.py": '"name": "engine.retry"',
}
"""What the newcomer sees, by command."""


def blocks() -> list[tuple[str, str, str]]:
    """The tutorial's blocks in order: the language, the text, and the name of the file that it is saved as."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    found = []
    for before, language, text in re.findall(r"(.*?)^```(sh|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        names = re.findall(r"Save this as\s+`([\w.]+)`", before)
        found.append((language, text, names[-1] if names else ""))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the tutorial's commands are a POSIX shell's")
def test_the_tutorial_is_a_path(tmp_path: Path) -> None:
    """No network is needed: what the package depends on is taken from the environment that the tests run in."""
    shutil.copytree(ROOT, tmp_path / "trio-session-engine", ignore=LEFT_OUT)  # a clone
    mine = tmp_path / "mine"
    mine.mkdir()
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3").symlink_to(sys.executable)
    own = ("OPENAI_", "PYTEST_", "VIRTUAL_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env = {**kept, **offline, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    seen: dict[str, str] = {}
    for language, text, name in blocks():
        if language == "python":
            assert name, f"where is it saved? {text[:200]}"
            (mine / name).write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            done = subprocess.run(["sh", "-c", line], cwd=mine, env=env, text=True, capture_output=True)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            seen[line] = done.stdout
            if " -m venv " in line:
                (packages,) = mine.glob(".venv/lib/python3*/site-packages")
                lent = [path for path in sys.path if path.endswith("site-packages")]
                (packages / "lent.pth").write_text("\n".join(lent), encoding="utf-8")
    for command, shown in SHOWN.items():
        (output,) = [output for line, output in seen.items() if command in line]
        assert shown in output
