"""The package as a whole: its public names, what its wheel holds, who imports whom."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import engine
import engine.simulator

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "engine").rglob("*.py"))

NAMES = re.findall(
    r"\w+",
    """
    open_engine Engine open_session Session Turn Conversation Reply Round
    Endpoint Timeouts RetryPolicy Limits Profile OnCancel Transport TurnOptions TurnReport Delivery Instrument
    Context UserMessage AssistantMessage ToolResult Text Thinking ToolCall Image File Refusal Usage Tool FunctionTool
    TurnStarted TextStarted TextDelta TextEnded ThinkingStarted ThinkingDelta ThinkingEnded
    ToolCallStarted ToolCallDelta ToolCallEnded TurnDone
    EngineError ConfigurationError SessionClosed TurnError TurnTimeout ConnectFailed AuthenticationFailed ConnectionLost
    RequestRejected RateLimited ResponseFailed RequestTooLarge BufferOverflow ProtocolViolation
    """,
)

PARENTS = {
    "ConfigurationError": "EngineError",
    "TurnError": "EngineError",
    "AuthenticationFailed": "RequestRejected",
    "RateLimited": "RequestRejected",
} | dict.fromkeys(
    [
        "SessionClosed",
        "TurnTimeout",
        "ConnectFailed",
        "ConnectionLost",
        "RequestRejected",
        "ResponseFailed",
        "RequestTooLarge",
        "BufferOverflow",
        "ProtocolViolation",
    ],
    "TurnError",
)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_there_and_documented(name: str) -> None:
    assert getattr(engine, name).__doc__


@pytest.mark.parametrize("name", ["open_simulator", "Simulator"])
def test_the_simulators_names_are_there(name: str) -> None:
    assert getattr(engine.simulator, name).__doc__


@pytest.mark.parametrize(("child", "parent"), PARENTS.items())
def test_the_tree_of_errors(child: str, parent: str) -> None:
    assert getattr(engine, parent) in getattr(engine, child).__bases__


def test_a_configuration_error_is_a_value_error() -> None:
    assert issubclass(engine.ConfigurationError, ValueError)


def test_values_are_frozen_and_slotted() -> None:
    for name in NAMES:
        value = getattr(engine, name)
        if isinstance(value, type) and attrs.has(value):
            assert value.__setattr__ is not object.__setattr__, name
            assert "__slots__" in vars(value), name


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "engine" / "py.typed").exists()


# --- the wheel -------------------------------------------------------------------------------------------------------


def test_what_the_wheel_holds(tmp_path: Path) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    (path,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        metadata = wheel.read(f"{info}/METADATA").decode()
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    expected = {str(source.relative_to(ROOT)) for source in SOURCES} | {"engine/py.typed"}
    assert {name for name in names if not name.startswith(info)} == expected
    assert f"{info}/licenses/LICENSE" in names
    assert "session-engine = engine.__main__:main" in entry_points
    for name in ("click", "rich"):  # only the command line needs them
        assert re.findall(rf"^Requires-Dist: {name}\b.*$", metadata, re.MULTILINE) == re.findall(
            rf"^Requires-Dist: {name}\b.*; extra == 'cli'$", metadata, re.MULTILINE
        )
    assert "Provides-Extra: cli" in metadata
    assert "Requires-Python: >=3.11" in metadata


# --- layers ----------------------------------------------------------------------------------------------------------


def module_of(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(source: Path) -> Iterator[str]:
    """Every module that a source names in an import, also inside functions and for type checkers only."""
    package = module_of(source) if source.name == "__init__.py" else module_of(source).rpartition(".")[0]
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize(
    ("importers", "never"),
    [
        (["engine.protocol"], ["trio", "trio_websocket", "httpx", "httpcore", "engine.session", "engine.transport"]),
        (
            ["engine.values.messages", "engine.settings.turn_options", "engine.values.errors"],
            ["trio", "httpx", "engine.protocol"],
        ),
        (["engine.transport"], ["engine.session", "engine.registry"]),
        (["engine.session"], ["engine.registry"]),
        (["engine.simulator"], ["engine.session", "engine.registry", "engine.transport", "engine.cli"]),
    ],
)
def test_who_never_imports_whom(importers: list[str], never: list[str]) -> None:
    sources = [source for source in SOURCES if within(module_of(source), *importers)]
    assert sources
    assert [
        (module_of(source), name) for source in sources for name in imports_of(source) if within(name, *never)
    ] == []


@pytest.mark.parametrize("names", [["engine.simulator"], ["click", "rich"]])
def test_what_only_programs_import(names: list[str]) -> None:
    importers = {module_of(source) for source in SOURCES for name in imports_of(source) if within(name, *names)}
    assert importers
    assert [name for name in importers if not within(name, "engine.cli", "engine.simulator", "engine.testing")] == []


# --- the front page --------------------------------------------------------------------------------------------------


def test_the_example_of_the_readme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    code = example[1]
    assert len([line for line in code.splitlines() if line]) == 10
    # The only thing changed is who answers: no key and no network are needed.
    code = code.replace("open_session(Endpoint.from_env(),", "open_session(sim.endpoint, dialer=sim.dialer,")
    code = code.replace(
        "    async with open_session", "    async with open_simulator(in_memory=True) as sim, open_session"
    )
    assert "sim.dialer" in code
    exec(code, {"open_simulator": engine.simulator.open_simulator, "__name__": "example"})
    assert capsys.readouterr().out == "4\n7"


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    for document in documents:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
