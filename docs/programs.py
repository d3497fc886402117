"""The programs in these pages, and what kind of program each is.

``python -m docs.programs build/programs`` writes them to files, for type checkers.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path
from typing import Final, Literal

from attrs import frozen

__all__ = ["TOP_LEVEL_AWAIT", "Program", "beside", "found"]

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"
TOP_LEVEL_AWAIT: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

Kind = Literal["trio", "script", "test", "front", "fragment"]


@frozen
class Program:
    """A block of Python in a page.

    Attributes:
        page: The page.
        number: The block's number in the page, from 1.
        text: The block.
        kind: ``trio`` for a program with an async ``main`` that the caller runs, ``script`` for one that runs itself,
            ``test`` for tests, ``front`` for the README's, which asks the service, ``fragment`` for what shows a piece
            only.
    """

    page: Path
    number: int
    text: str
    kind: Kind

    @property
    def name(self) -> str:
        """A name for it, fit for a file."""
        place = self.page.relative_to(ROOT).with_suffix("")
        return f"{'_'.join(part for part in place.parts if part != 'docs').lower().replace('-', '_')}_{self.number}"


def _kind(text: str) -> Kind:
    if re.search(r"^(async )?def test_", text, re.MULTILINE):
        return "test"
    if re.search(r"^(asyncio\.run\(|with |\w+\.close\(\)$)", text, re.MULTILINE) and "import" in text:
        return "script"
    return "trio" if "async def main(" in text else "fragment"


def found() -> list[Program]:
    """Every block of Python in the README and in the pages, in order."""
    programs = []
    for page in [README, *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            programs.append(Program(page, number, block, "front" if page == README else _kind(block)))
    return programs


def beside() -> list[tuple[str, str]]:
    """The pairs of pieces that the page for users of openai-python shows side by side."""
    page = (ROOT / "docs" / "from-openai.md").read_text(encoding="utf-8")
    pieces = re.findall(r"^(?:\* |  )- ```py\n(.*?)^    ```", page, re.DOTALL | re.MULTILINE)
    return list(zip(*[map(textwrap.dedent, pieces)] * 2, strict=True))


def main(directory: Path) -> None:
    """Write the programs that are whole into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for program in found():
        if program.kind != "fragment":
            (directory / f"{program.name}.py").write_text(program.text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
