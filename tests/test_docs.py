"""The programs in the documentation run, its pictures and tables are those of the code, its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import functools
import importlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import trio
import trio.testing

import engine
from docs import pictures, programs
from engine.testing import RunningSimulator, run_simulator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FOUND = programs.found()


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(program, id=program.name) for program in FOUND if program.kind == kind]


@pytest.mark.parametrize("program", of_kind("trio"))
def test_programs_run(program: programs.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the virtual clock, but for those that work in threads too: time would fly while those are at work."""
    module = types.ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(program.text, str(program.page), "exec", dont_inherit=True), vars(module))
    clock = None if "engine.store" in program.text else trio.testing.MockClock(autojump_threshold=0)
    trio.run(module.main, clock=clock)


@pytest.mark.parametrize("program", of_kind("script"))
def test_scripts_run(program: programs.Program, tmp_path: Path) -> None:
    """Those that start an event loop of their own, or none, run as a user runs them."""
    script = tmp_path / "program.py"
    script.write_text(program.text, encoding="utf-8")
    subprocess.run([sys.executable, script.name], cwd=tmp_path, check=True, timeout=50)


@pytest.mark.parametrize("program", of_kind("test"))
def test_tests_pass(program: programs.Program, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(program.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "engine.testing.plugin"]
    with run_simulator() as service:  # what a cassette is recorded from
        env = {**os.environ, "OPENAI_BASE_URL": service.base_url, "OPENAI_API_KEY": service.api_key}
        subprocess.run([*command, "test_mine.py"], cwd=tmp_path, check=True, timeout=50, env=env)


@pytest.mark.parametrize("program", of_kind("fragment"))
def test_fragments_are_python(program: programs.Program) -> None:
    compile(program.text, str(program.page), "exec", flags=programs.TOP_LEVEL_AWAIT)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSimulator]:
    """The place that both columns find in their environment."""
    with run_simulator() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", running.api_key)
        yield running


def names_of() -> dict[str, Any]:
    """All that a piece may use without importing it."""
    return {
        **vars(engine),
        **{name: getattr(engine, name) for name in engine.__all__},
        "asyncio": asyncio,
        "dataclass": dataclasses.dataclass,
        "json": json,
        "openai": openai,
        "AsyncOpenAI": openai.AsyncOpenAI,
        "pydantic": pydantic,
        "__name__": "documentation",
    }


async def run_piece(text: str, names: dict[str, Any]) -> None:
    code = compile(text, "from-openai.md", "exec", flags=programs.TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


def test_both_columns_for_users_of_openai_python_run(service: RunningSimulator) -> None:
    pairs = programs.beside()
    assert len(pairs) > 4

    async def left() -> None:
        async with openai.AsyncOpenAI() as client:
            for text, _ in pairs:
                names = {**names_of(), "client": client}
                await run_piece(text, names)
                if names["client"] is not client:  # the piece made one of its own, and left it open
                    await names["client"].close()

    async def right() -> None:
        async with engine.open_session(engine.Endpoint.from_env(), model="gpt-5.4") as session:
            for _, text in pairs:
                await run_piece(text, {**names_of(), "session": session})

    asyncio.run(left())
    asked = len(service.requests)
    trio.run(right)
    assert asked >= len(pairs)
    assert len(service.requests) - asked >= len(pairs)


WITHOUT_PROGRAMS = {
    "architecture": "its pictures are the code's: test_pictures_show_what_the_code_says",
    "benchmarks": "a run writes it",
    "changes": "the changelog",
    "examples": "tests/test_examples.py",
    "promises": "test_promises_name_tests_that_exist",
    "stability": "says what is public",
    "test-any-client": "tests/testing/test_page.py",
    "reference/testing": "shows docstrings; test-your-app has a program for each fixture",
}


def test_every_other_page_has_a_program_that_runs() -> None:
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    run = {
        str(program.page.relative_to(DOCS).with_suffix(""))
        for program in FOUND
        if program.kind not in {"fragment", "front"}
    }
    assert pages - run == set(WITHOUT_PROGRAMS)


def words_of(text: str) -> set[str]:
    """The names that a program uses: imported is not used."""
    words = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
    return words


@functools.cache
def names_used() -> set[str]:
    texts = [program.text for program in FOUND if program.kind != "fragment"]
    texts += [path.read_text(encoding="utf-8") for path in (DOCS / "examples").glob("*.py")]
    return set[str]().union(*map(words_of, texts))


@pytest.mark.parametrize("door", ["engine", *(f"engine.{name}" for name in engine._DOORS)])
def test_every_public_name_is_used_by_a_program(door: str) -> None:
    assert set(importlib.import_module(door).__all__) - names_used() == set()


@pytest.mark.parametrize("kind", ["Engine", "Session", "Lane", "Turn", "Conversation", "Reply", "Texts"])
def test_every_method_is_used_by_a_program(kind: str) -> None:
    public = {name for name in dir(getattr(engine, kind)) if not name.startswith("_")}
    assert public - names_used() == set()


# --- what is drawn and written from the code's own tables ---


def test_the_page_on_recovery_says_what_the_tables_say() -> None:
    """``python docs/recovery_page.py`` writes it anew."""
    made = runpy.run_path(str(DOCS / "recovery_page.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"]()


@pytest.mark.parametrize("name", pictures.DRAWN)
def test_pictures_show_what_the_code_says(name: str) -> None:
    """``python -m docs.pictures`` draws them anew."""
    assert (pictures.PICTURES / name).read_text(encoding="utf-8") == pictures.DRAWN[name]()


def test_every_picture_is_in_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    assert [name for name in pictures.DRAWN if f"pictures/{name})" not in text] == []


# --- names of files, and rows that have to be there ---


def test_promises_name_tests_that_exist() -> None:
    page = (DOCS / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[^`]+)`", page)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert [row for row in rows if "`tests/" not in row] == []


def test_every_exception_has_a_row() -> None:
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    abstract = {"EngineError", "TurnError"}
    public = {
        name
        for name in engine.__all__
        if isinstance(getattr(engine, name), type) and issubclass(getattr(engine, name), engine.EngineError)
    }
    assert public - abstract <= told


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    listed = set(re.findall(r"(?:auto(?:class|function)|py:data):: (\w+)", pages))
    assert set(engine.__all__) - {"__version__"} == listed


# --- links ---


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), ROOT / "changes" / "README.md", *DOCS.rglob("*.md")]
    assert len(documents) > 10
    for document in documents:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document.name, target)
