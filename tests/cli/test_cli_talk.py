"""What ``chat`` is told, what its commands do, and how its answers are laid out."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import AssistantMessage, Text, TextDelta, TurnReport, Usage, UserMessage, blocking
from engine.cli import main
from engine.cli.chat import Screen, steered
from engine.cli.errors import CommandFailed
from engine.cli.listener import Listener
from engine.cli.markdown import Blocks
from engine.cli.talk import COMMANDS, Commands, Opening, load_tools, save_snapshot
from engine.simulator import Delay, Say, SayDelta, Script
from engine.testing import run_simulator


class Said:
    """A conversation that says nothing."""

    def __init__(self, messages: Sequence[Any] = (), usage: Usage | None = None) -> None:
        self.messages = tuple(messages)
        self.usage = usage or Usage()

    def snapshot(self) -> dict[str, Any]:
        return {"said": len(self.messages)}


def commands(chat: Said | None = None) -> Commands:
    return Commands(chat or Said([UserMessage("a"), AssistantMessage((Text("b"),))]), Said)


# --- commands --------------------------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    shown = commands().run("/help")
    assert shown is not None
    assert [line.split("  ")[0].rstrip() for line in shown.splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("line", ["hello", "what is 1/2?", "/etc/passwd is a file", "  // a comment"])
def test_what_is_no_command_is_said(line: str) -> None:
    assert commands().run(line) is None


def test_a_command_that_there_is_not() -> None:
    with pytest.raises(CommandFailed, match="/nope; /help"):
        commands().run("/nope")


@pytest.mark.parametrize("line", ["/quit", "/exit", " /quit "])
def test_the_end(line: str) -> None:
    talk = commands()
    talk.run(line)
    assert talk.over


def test_forks() -> None:
    talk = commands()
    before = talk.chat
    talk.run("/fork")
    assert talk.chat is not before
    assert talk.chat.messages == before.messages
    talk.chat = Said([*before.messages, UserMessage("c")])
    assert talk.run("/back") == "Back, at 2 messages.\n"
    assert talk.chat is before
    with pytest.raises(CommandFailed, match="no fork"):
        talk.run("/back")


def test_what_is_forgotten() -> None:
    talk = commands()
    talk.run("/clear")
    assert talk.chat.messages == ()


def test_tokens_and_reports() -> None:
    assert commands().run("/usage") == "No tokens were counted yet.\n"
    assert "input tokens  3" in str(commands(Said([], Usage(input_tokens=3))).run("/usage"))
    talk = commands()
    assert talk.run("/report") == "There is no answer yet.\n"
    talk.report = TurnReport()
    assert "attempts" in str(talk.run("/report"))


def test_what_is_saved_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    assert commands().run(f"/save {path}") == f"Saved to {path}.\n"
    assert json.loads(path.read_text()) == {"said": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CommandFailed, match="name of a file"):
        commands().run("/save")
    with pytest.raises(CommandFailed, match="No such file"):
        save_snapshot(str(tmp_path / "nowhere" / "talk.json"), Said())


# --- what it begins with ---------------------------------------------------------------------------------------------


def test_tools_by_name() -> None:
    assert load_tools(["json:dumps"]) == [json.dumps]


@pytest.mark.parametrize(
    ("name", "said"),
    [("json", "module:function"), ("nowhere_at_all:f", "No module"), ("json:nope", "nope"), ("math:pi", "no(t| ) ?a?")],
)
def test_tools_that_there_are_not(name: str, said: str) -> None:
    with pytest.raises(CommandFailed, match=said):
        load_tools([name])


def test_a_conversation_that_cannot_be_gone_on_with(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path, said in ((broken, "not a saved conversation"), (tmp_path / "none.json", "No such file")):
        with pytest.raises(CommandFailed, match=said):
            Opening(resume=str(path)).arguments()


def test_a_conversation_is_saved_and_gone_on_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], answer_lines: Callable[[str], None]
) -> None:
    saved = str(tmp_path / "talk.json")
    answer_lines("What is 2+2?\n")
    assert main(["chat", "--save", saved, "--instructions", "Be brief."]) == 0
    answer_lines("/usage\nWhat is 3+3?\n")
    assert main(["chat", "--resume", saved]) == 0
    shown = capfd.readouterr()
    assert shown.out == "4\n6\n"
    assert "input tokens" in shown.err


@pytest.fixture
def answer_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    with contextlib.ExitStack() as files:

        def put(text: str) -> None:
            path = tmp_path / "lines.txt"
            path.write_text(text)
            monkeypatch.setattr("sys.stdin", files.enter_context(path.open()))

        yield put


# --- one question ----------------------------------------------------------------------------------------------------


def test_a_question_with_a_schema(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}'
    )
    assert main(["ask", "What is 2+2?", "--schema", str(schema)]) == 0
    assert json.loads(capfd.readouterr().out).keys() == {"n"}


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_a_schema_that_is_none(text: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"
    if text is not None:
        path.write_text(text)
    assert main(["ask", "hi", "--schema", str(path)]) == 2
    assert str(path) in capfd.readouterr().err


def test_a_picture_that_there_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "hi", "--image", "nowhere.png"]) == 2
    assert "nowhere.png: No such file" in capfd.readouterr().err


# --- layout ----------------------------------------------------------------------------------------------------------

PAGE = "# Title\n\nOne\ntwo.\n\n- a\n- b\n\n```py\nx = 1\n\ny = 2\n```\nafter\n"


def cut(pieces: Sequence[str]) -> list[str]:
    blocks = Blocks()
    found = [block for piece in pieces for block in blocks.add(piece)]
    return [*found, *blocks.end()]


def test_blocks() -> None:
    assert cut([PAGE]) == [
        "# Title\n\n",
        "One\ntwo.\n\n",
        "- a\n- b\n\n",
        "```py\nx = 1\n\ny = 2\n```\n",
        "after\n",
    ]


@settings(deadline=None)  # how fast a piece is cut is not the point, and the machine may be busy
@given(st.lists(st.integers(0, len(PAGE))))
def test_blocks_do_not_depend_on_the_pieces(places: list[int]) -> None:
    bounds = sorted({0, len(PAGE), *places})
    assert cut([PAGE[one:other] for one, other in itertools.pairwise(bounds)]) == cut([PAGE])


@given(st.text(st.sampled_from("a`~\n -#"), max_size=40))
def test_nothing_is_lost(text: str) -> None:
    assert "".join(cut(list(text))).split() == text.split()


def test_lines_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "A line that is longer than the terminal is wide, and has to be wrapped somewhere."
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = Screen(plain=False)
    screen.aside(words)
    with screen.answer() as answer:
        answer.add(TextDelta(0, f"{words}\n\n"))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert shown.split() == [*words.split(), *words.split()]
    assert max(map(len, shown.splitlines())) <= 24


# --- while an answer comes -------------------------------------------------------------------------------------------


def test_lines_are_handed_on_as_they_are_typed() -> None:
    typed, keyboard = os.pipe()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    try:
        with Listener(typed, lines.put):
            os.write(keyboard, "/steer also é\nthen".encode())
            assert lines.get(timeout=10) == "/steer also é"
            os.write(keyboard, b" this\n")
            assert lines.get(timeout=10) == "then this"
        os.write(keyboard, b"for the editor\n")
        assert os.read(typed, 100) == b"for the editor\n"
    finally:
        os.close(typed)
        os.close(keyboard)
    assert lines.empty()


def test_an_answer_is_steered_from_another_thread() -> None:
    brain = Script([[SayDelta("I read the code. "), Delay(1)], [Say("The tests first, then.")]])
    with run_simulator(brain=brain) as server, blocking.open_session(server.endpoint, model="gpt-6") as session:
        chat = session.conversation()
        with chat.stream("Review the change") as reply:
            text = reply.texts()
            shown = next(text)
            assert steered(reply, "begin with the tests", None) == "Taken."
            shown += "".join(text)
        assert shown == "I read the code. The tests first, then."
        assert UserMessage("begin with the tests") in chat.messages
        assert steered(reply, "too late", None).startswith("Not taken")
