"""The programs in the documentation run, on the virtual clock."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

DOCS = Path(__file__).parent.parent / "docs"


def programs() -> list[Any]:
    found = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        mains = [block for block in blocks if "async def main()" in block]
        found += [pytest.param(block, id=f"{page.stem}-{number}") for number, block in enumerate(mains, 1)]
    return found


@pytest.mark.parametrize("program", programs())
def test_the_programs_of_the_documentation_run(program: str) -> None:
    namespace: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(program, "documentation", "exec"), namespace)
    trio.run(namespace["main"], clock=trio.testing.MockClock(autojump_threshold=0))


def test_there_are_programs_in_the_pages_that_promise_them() -> None:
    assert {parameter.id.rpartition("-")[0] for parameter in programs()} >= {"cancellation"}


def test_the_page_on_failures_says_what_the_tables_say() -> None:
    """``python docs/recovery_page.py`` writes it anew."""
    made = runpy.run_path(str(DOCS / "recovery_page.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"]()
