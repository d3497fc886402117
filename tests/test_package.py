"""The package as a whole: its public names, what importing it costs, what its wheel holds."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import importlib
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import engine
import engine.simulator
from docs import programs

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "engine").rglob("*.py"))

NAMES = [name for name in engine.__all__ if name != "__version__"]
DOORS = ("aio", "batch", "blocking", "instruments", "otel", "simulator", "store", "testing", "transcript")

PARENTS = {
    "ConfigurationError": "EngineError",
    "TurnError": "EngineError",
    "AuthenticationFailed": "RequestRejected",
    "RateLimited": "RequestRejected",
    "SteerRejected": "RequestRejected",
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

FIXED = re.findall(
    r"\w+",
    """
    open_engine Engine open_session Session Lane Turn Conversation Reply Round
    Endpoint Timeouts RetryPolicy Limits OnCancel Transport TurnOptions TurnReport Delivery Profile Dialer
    Instrument Context UserMessage DeveloperMessage AssistantMessage ToolResult Text Thinking ToolCall Image File
    Refusal OutputItem Usage Tool FunctionTool tool
    Message TurnEvent AnyTool Prompt Approve OnRound Prepare Journal Snapshot TurnFields SessionFields
    StopReason PhaseSeconds EngineStatistics SessionStatistics LaneStatistics ConnectionStatistics
    TurnStarted TextStarted TextDelta TextEnded ThinkingStarted ThinkingDelta ThinkingEnded
    ToolCallStarted ToolCallDelta ToolCallEnded TurnContinued TurnDone
    EngineError ConfigurationError SessionClosed TurnError TurnTimeout ConnectFailed AuthenticationFailed ConnectionLost
    RequestRejected RateLimited ResponseFailed RequestTooLarge BufferOverflow ProtocolViolation show_content __version__
    """,
)


def test_the_fixed_names_are_public() -> None:
    assert set(FIXED) - set(engine.__all__) == set()
    assert list(engine.__all__) == sorted(engine.__all__)


def test_what_is_exported_is_written_alike_for_readers_checkers_and_python() -> None:
    tree = ast.parse((ROOT / "engine" / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module != "engine"
        for alias in node.names
    }
    assert imported == vars(engine)["_MODULES"]
    assert set(engine.__all__) == {*imported, "__version__"}


ALIASES = {"AnyTool", "Approve", "Message", "OnRound", "Prepare", "Prompt", "Snapshot", "StopReason", "TurnEvent"}


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_there_and_documented(name: str) -> None:
    value = getattr(engine, name)
    if name not in ALIASES:
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALIASES])
def test_members_of_public_classes_are_documented(name: str) -> None:
    """What is not for callers has an underscore."""
    value = getattr(engine, name)
    members = vars(value) if isinstance(value, type) and value not in (engine.SessionFields, engine.TurnFields) else {}
    functions = {
        member: part
        for member, part in members.items()
        if not member.startswith("_") and (isinstance(part, property | classmethod) or inspect.isfunction(part))
    }
    assert [member for member, part in functions.items() if not inspect.getdoc(part)] == []


def test_the_contents_name_what_there_is_and_all_of_it() -> None:
    contents, doors = (engine.__doc__ or "").split("Further doors")
    named = set(re.findall(r"\b(?:open_\w+|show_content|tool|[A-Z]\w+)\b", contents.split("\n", 1)[1]))
    headings = {word for line in contents.splitlines() if line[:1].isalpha() for word in line.split()}
    assert set(NAMES) - named == set()
    assert {name for name in named - headings if re.search("[a-z][A-Z]|_", name)} - set(NAMES) == set()
    assert set(re.findall(r"^    engine\.(\w+)", doors, re.MULTILINE)) == set(DOORS)


def test_another_name_is_missing_in_the_usual_way() -> None:
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'TurnOption'") as caught:
        _ = engine.TurnOption  # type: ignore[attr-defined]
    assert caught.value.name == "TurnOption"
    assert set(engine.__all__) <= set(dir(engine))
    assert not hasattr(engine, "__wrapped__")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = python(
        "import sys; before = set(sys.modules); import engine; assert dir(engine); print(*set(sys.modules) - before)"
    )
    assert loaded == "engine"


def test_a_value_is_had_without_what_connects() -> None:
    heavy = python(
        "import sys; from engine import AssistantMessage, Timeouts, TurnError; "
        "print(*(name for name in ('trio', 'httpx', 'ssl', 'trio_websocket', 'cattrs') if name in sys.modules))"
    )
    assert heavy == ""


def test_a_turn_over_a_websocket_loads_nothing_that_only_others_need() -> None:
    unneeded = python(
        "import sys, engine; from engine.opening import open_session\n"
        "from engine.connections.websocket_link import WebSocketLink; from engine.turns.turn import Turn\n"
        "names = ('httpx', 'python_socks', 'click', 'rich', 'asyncio', 'engine.connections.http_link')\n"
        "print(*(name for name in names if name in sys.modules))"
    )
    assert unneeded == ""


def test_a_star_import_rebinds_nothing() -> None:
    before = {"engine": engine, **vars(builtins)}
    after = dict(before)
    exec("from engine import *", after)
    assert {name for name, value in before.items() if after[name] is not value} == set()
    assert after["engine"] is engine
    assert set(after) - set(before) - {"__builtins__"} == set(engine.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_completion_at_a_door_offers_what_is_public(door: str) -> None:
    module = importlib.import_module(f"engine.{door}")
    assert [name for name in dir(module) if not name.startswith("__")] == sorted(module.__all__)


def test_doors_need_no_import_of_their_own() -> None:
    assert python("import engine; print(engine.transcript.to_json([])[:9], engine.instruments.__name__)") == (
        '{"kind":" engine.instruments'
    )


def test_the_version_is_the_distributions() -> None:
    assert engine.__version__ == importlib.metadata.version("trio-session-engine")


HELD = [
    "Breakers",
    "Conversation",
    "Engine",
    "Lane",
    "Reply",
    "Session",
    "Turn",
]  # got from others, never made by callers
SEAMS = ["engine.values.choices.Unset"]  # what a field has that is not given


def types_in(annotation: Any, public: set[int]) -> Iterator[type]:
    if id(annotation) in public or typing.get_origin(annotation) is typing.Literal:
        return
    if isinstance(annotation, (list, tuple)):
        for each in annotation:
            yield from types_in(each, public)
    elif arguments := typing.get_args(annotation):
        yield from types_in((typing.get_origin(annotation), *arguments), public)
    elif isinstance(annotation, type):
        yield annotation


def signatures_of(name: str) -> Iterator[Any]:
    value = getattr(engine, name)
    yield value
    for member, part in vars(value).items() if isinstance(value, type) else ():
        if member.startswith("_") and (member != "__init__" or name in HELD):
            continue
        part = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
        if inspect.isfunction(part):
            yield part


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALIASES])
def test_every_type_of_a_public_signature_is_public(name: str) -> None:
    public = {id(getattr(door, each)) for door in (engine, engine.instruments) for each in door.__all__}
    names = {each: getattr(engine, each) for each in NAMES} | vars(collections.abc)
    for part in signatures_of(name):
        try:
            annotations = typing.get_type_hints(part, include_extras=True, localns=names)
        except NameError as error:
            pytest.fail(f"{part} has a name that is not public: {error}")
        hidden = {
            f"{each.__module__}.{each.__qualname__}"
            for annotation in annotations.values()
            for each in types_in(annotation, public)
            if each.__module__.startswith("engine.")
        }
        assert hidden - set(SEAMS) == set(), part


def imported(text: str) -> Iterator[tuple[str, str]]:
    """What a program imports of the library, as module and name."""
    for node in ast.walk(compile(text, "program", "exec", flags=programs.TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "engine")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "engine":
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_every_public_name_is_typed() -> None:
    """By ``tests/typing/api.py``, which type checkers read."""
    names = set(imported((ROOT / "tests" / "typing" / "api.py").read_text()))
    assert {("engine", name) for name in engine.__all__} - names == set()
    assert {
        ("engine.instruments", name) for name in engine.instruments.__all__ if name != "Instrument"
    } - names == set()


def test_programs_import_from_public_doors() -> None:
    doors = {f"engine.{door}" for door in DOORS}
    texts = {program.name: program.text for program in programs.found()}
    for path in [*(ROOT / "docs" / "examples").glob("*.py"), *(ROOT / "tests" / "typing").glob("*.py")]:
        texts[path.name] = path.read_text()
    found = {(program, *names) for program, text in texts.items() for names in imported(text)}
    assert len(found) > 100
    for program, module, name in found - {("mistakes.py", "engine", "turn_options")}:
        assert module in {"engine", *doors}, (program, module)
        public = [*importlib.import_module(module).__all__, ""]
        assert name in public or f"{module}.{name}" in doors, (program, module, name)


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


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(("tag", "version"), [("v1.2.3", "1.2.3"), (None, "0.1.dev0")])
def test_versions_come_from_tags_and_a_copy_without_history_has_one_too(
    tag: str | None, version: str, tmp_path: Path
) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").touch()
    if tag is not None:
        git = ["git", "-c", "user.name=tester", "-c", "user.email=tester@example.com", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["tag", tag]):
            subprocess.run([*git, *command], cwd=tmp_path, check=True)
    asked = [sys.executable, "-m", "hatchling", "metadata", "version"]
    told = subprocess.run(asked, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert told.strip() == version


# --- the front page --------------------------------------------------------------------------------------------------


def test_the_example_of_the_readme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [program.text for program in programs.found() if program.kind == "front"]
    assert len([line for line in code.splitlines() if line]) == 9
    # The only thing changed is who answers: no key and no network are needed.
    code = code.replace("open_session(Endpoint.from_env(),", "open_session(sim.endpoint, dialer=sim.dialer,")
    code = code.replace(
        "    async with open_session", "    async with open_simulator(in_memory=True) as sim, open_session"
    )
    assert "sim.dialer" in code
    exec(code, {"open_simulator": engine.simulator.open_simulator, "__name__": "example"})
    assert capsys.readouterr().out == "4\n7"
