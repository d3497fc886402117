"""The checkout as a whole: tests mirror the house, and every file and module that a text names is there."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine

ROOT = Path(__file__).parent.parent
PLACES = ("engine", "tests", "docs", "benchmarks", "changes")
TEXTS = sorted(
    path.relative_to(ROOT)
    for pattern in (
        "*.md",
        "*.py",
        "*.toml",
        ".flake8",
        ".pre-commit-config.yaml",
        ".ci/run",
        *(f"{place}/**/*.*" for place in PLACES),
    )
    for path in ROOT.glob(pattern)
    if path.suffix in {".md", ".py", ".toml", ".yaml", ""}
    and "__pycache__" not in path.parts
    and path.name != "CHANGELOG.md"
)

WHOLE = {  # what no single folder of the house is about
    "cancellation": "a turn struck at every step",
    "fuzz": "any bytes from a peer",
    "measuring": "counts that stand for speed, and the benchmarks themselves",
    "network": "real sockets, proxies and servers",
    "peers": "other people's clients",
    "properties": "random callers and servers",
    "scale": "many sessions, processes, hours",
    "typing": "programs for type checkers",
}
ALOFT = {  # tests beside the folders that are about no module of the house
    "test_checkout": "files",
    "test_docs": "documentation",
    "test_examples": "programs of the documentation that have files of their own",
    "test_invariants": "the tests' own checks",
    "test_newcomer": "the first pages, as a reader types them",
    "test_package": "names, imports, the wheel",
    "test_reference": "the system that this library re-imagines, end to end",
    "test_reference_behaviours": "the same in small",
    "test_registry_sessions": "the registry, by id",
}


def test_tests_mirror_the_house() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    house = {path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()}
    assert folders - house == set(WHOLE)
    assert house - folders == set()
    modules = {f"test_{path.stem}" for path in (ROOT / "engine").glob("*.py")}
    assert {path.stem for path in (ROOT / "tests").glob("test_*.py")} - modules == set(ALOFT)


def test_no_two_test_files_have_one_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "tests are no packages: pytest imports each by its name alone"


def test_one_helper_opens_sessions() -> None:
    helper = re.compile(r"^(async )?def session_to\b", re.MULTILINE)
    having = [path.name for path in (ROOT / "tests").rglob("*.py") if helper.search(path.read_text("utf-8"))]
    assert having == ["sessions.py"]


# --- names of files ---

READERS = {  # what readers of the pages save, and run there
    name
    for page in ROOT.glob("docs/*.md")
    for name in re.findall(r"^\S*python (?:-m pytest )?(\w+\.py)", page.read_text("utf-8"), re.MULTILINE)
}
MADE = READERS | {"program.py", "benchmarks/racing.svg"}  # and what tests write


@functools.cache
def names() -> set[str]:
    """Each file's path and each end of it: ``engine/turns/work.py``, ``turns/work.py``, ``work.py``."""
    paths = [path.relative_to(ROOT).parts for place in PLACES for path in (ROOT / place).rglob("*.*")]
    paths += [(path.name,) for path in ROOT.iterdir()] + [(".ci", "run")]
    return {"/".join(parts[start:]) for parts in paths for start in range(len(parts))}


def missing(named: str) -> bool:
    """Whether no file or folder of the checkout has the name; ``*`` stands for anything."""
    named = named.rstrip("/.")
    return not any(ROOT.glob(named)) if "*" in named else named not in names() and not (ROOT / named).exists()


def named_in(path: Path, text: str) -> Iterator[str]:
    """Names that the checkout should have: paths from its root, and ends of paths where they stand alone."""
    yield from re.findall(rf"(?<![\w./-])(?:{'|'.join(PLACES)}|\.ci)/(?:[\w*-]+[./]?)+", text)
    if path.suffix == ".md":
        yield from re.findall(r"`([\w./-]+\.(?:py|md))`", text)
    elif path.suffix == ".py" and path.parts[0] in ("tests", "docs", "benchmarks"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and re.fullmatch(r"[\w./-]*\w\.(?:py|md)", str(node.value)):
                yield str(node.value).lstrip("/")


def test_files_that_are_named_are_there() -> None:
    assert len(TEXTS) > 400
    wrong = {
        (str(path), name)
        for path in TEXTS
        for name in named_in(path, (ROOT / path).read_text("utf-8"))
        if name not in MADE and missing(name)
    }
    assert wrong == set()


def test_commands_that_run_sweeps_say_so() -> None:
    """Without ``-m slow`` they would run nothing."""
    commands = {
        (str(path), found[0]): ROOT / found[1]
        for path in TEXTS
        for found in re.finditer(r"pytest .*?(tests/[\w/]+(?:\.py)?)[^`\n]*", (ROOT / path).read_text("utf-8"))
        if not missing(found[1])
    }
    assert len(commands) > 4
    for (path, command), place in commands.items():
        files = [place] if place.is_file() else list(place.rglob("test_*.py"))
        swept = all(re.search(r"^pytestmark = .*mark\.slow", each.read_text("utf-8"), re.MULTILINE) for each in files)
        assert not swept or "-m slow" in command, (path, command)


# --- names of modules and what they hold ---


def resolves(dotted: str) -> bool:
    """Whether there is such a module, or such a thing in one; `engine` may also be an `Engine`."""
    value: Any = engine
    for part in dotted.split(".")[1:]:
        if value is engine and not hasattr(engine, part) and not importlib.util.find_spec(f"engine.{part}"):
            value = engine.Engine
        if inspect.ismodule(value) and hasattr(value, "__path__"):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{value.__name__}.{part}")
        if inspect.isclass(value) and re.search(rf"self\.{part}\b.* = ", inspect.getsource(value)):
            return True  # what the constructor sets: its own attributes are not looked up
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def test_modules_that_are_named_are_there() -> None:
    named = re.compile(r"`(engine(?:\.\w+)+)[`(]")
    found = {(str(path), name) for path in TEXTS for name in named.findall((ROOT / path).read_text("utf-8"))}
    assert len(found) > 50
    traced = re.findall(r'"(engine\.[\w.]+)"', (ROOT / "engine" / "otel.py").read_text("utf-8"))  # spans, attributes
    assert {(path, name) for path, name in found if name not in traced and not resolves(name)} == set()


# --- words ---

ASKING = ("How", "What", "When", "Where", "Which", "Who", "Whom", "Whose", "Why")
NAMELESS = re.compile(r"\b(anybody|everybody|nobody|somebody|who(m)?ever)\b", re.IGNORECASE)
ENTRY = re.compile(r"^ +\**\w[\w.]*(?:, \**\w[\w.]*)*: (\w+)", re.MULTILINE)


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings, and the texts behind constants and attributes."""
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        for each in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                yield inspect.cleandoc(each.value.value)


def test_docstrings_say_the_noun() -> None:
    """``seconds: Seconds until …``, not ``seconds: How long …``; and whoever does something has a name there."""
    texts = [(str(path), text) for path in TEXTS if path.parts[0] == "engine" for text in docstrings(path)]
    assert len(texts) > 2000
    asking = [(path, text) for path, text in texts if text.split(maxsplit=1)[0] in ASKING]
    entries = [(path, found[0]) for path, text in texts for found in ENTRY.finditer(text) if found[1] in ASKING]
    nameless = [(path, found[0]) for path, text in texts for found in NAMELESS.finditer(text)]
    assert (asking, entries, nameless) == ([], [], [])
