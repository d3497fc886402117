"""``chat`` on a terminal: a line editor, answers laid out as they come, Ctrl-C for the answer and not for the program.

The line editor runs in the main thread, where it wants to be, and the engine in a Trio thread behind
`engine.blocking`: what waits for an answer there is interrupted by Ctrl-C, which cancels the turn.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text as Shown

from engine import blocking
from engine.cli.errors import DONE, CommandFailed, describe, neutralise
from engine.cli.listener import Listener
from engine.cli.markdown import Blocks
from engine.cli.output import report_table
from engine.cli.programs import NOTICE, Wishes
from engine.cli.talk import Commands, Opening, save_snapshot
from engine.cli.target import server_of
from engine.cli.terminal import Terminal
from engine.settings.timeouts import Timeouts
from engine.testing import run_simulator
from engine.values.errors import TurnError
from engine.values.problems import EngineError
from engine.values.turn_events import TextDelta, ToolCallEnded, TurnEvent

__all__ = ["converse", "steered"]

_SHOWN_LINES: Final = 12
_HINT: Final = "Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D ends, /help lists commands."


def converse(terminal: Terminal, wishes: Wishes, opening: Opening) -> int:
    """Hold a conversation with the person at the terminal, and return the exit code."""
    terminal.secret = os.environ.get("OPENAI_API_KEY") or None
    given = opening.arguments()
    screen = Screen(plain=opening.plain)
    prompts: PromptSession[str] = PromptSession(history=_history(), key_bindings=_keys(), multiline=True)
    with _session(screen, wishes) as session:
        chat = session.conversation(**given)
        later = {**given, "resume": None} if "resume" in given else given

        def begin(messages: Any) -> Any:
            return session.conversation(
                **{name: value for name, value in later.items() if value is not None}, messages=messages
            )

        commands = Commands(chat, begin)
        screen.aside(_HINT)
        if chat.messages:
            screen.aside(f"Going on after {len(chat.messages)} messages.")
        ahead: deque[str] = deque()
        while not commands.over:
            try:
                line = ahead.popleft() if ahead else prompts.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            if line.strip():
                ahead += _say(screen, wishes, commands, line, terminal.secret)
        if opening.save is not None:
            save_snapshot(opening.save, commands.chat)
    return DONE


def _say(screen: Screen, wishes: Wishes, commands: Commands, line: str, secret: str | None) -> list[str]:
    """Do what a line says, and return the lines that were typed meanwhile and are to be said next."""
    try:
        shown = commands.run(line)
    except CommandFailed as failure:
        screen.aside(str(failure))
        return []
    if shown is not None:
        screen.show(shown)
        return []
    options = {"temperature": wishes.temperature} if wishes.temperature is not None else {}
    reply = commands.chat.stream(line, timeouts=Timeouts(turn=wishes.timeout), transport=wishes.transport, **options)
    next_lines: list[str] = []

    def typed(line: str) -> None:
        word, _, text = line.strip().partition(" ")
        if word == "/steer":
            screen.aside(steered(reply, text.strip(), secret))
        else:
            next_lines.append(line)

    try:
        with reply, screen.answer() as answer, Listener(sys.stdin.fileno(), typed):
            for event in reply:
                answer.add(event)
    except KeyboardInterrupt:
        next_lines.clear()
        screen.aside("Stopped. What you said is not in the conversation.")
    except TurnError as error:
        screen.aside(f"Error: {describe(error, secret)}")
    except EngineError as error:
        screen.aside(f"Error: {describe(error, secret)}")
    with contextlib.suppress(RuntimeError):
        commands.report = reply.report
        if wishes.report and commands.report is not None:
            screen.show(report_table(commands.report))
    return next_lines


def steered(reply: blocking.Reply, text: str, secret: str | None) -> str:
    """Add to what an answer is asked for, and return what came of it."""
    try:
        reply.steer(text)
    except EngineError as error:
        return f"Not taken: {describe(error, secret)}"
    return "Taken."


@contextlib.contextmanager
def _session(screen: Screen, wishes: Wishes) -> Iterator[Any]:
    endpoint = server_of(wishes.base_url, wishes.profile)
    if endpoint is None:
        screen.aside(NOTICE)
        with (
            run_simulator() as simulator,
            blocking.open_session(simulator.endpoint, model=wishes.model) as session,
        ):
            yield session
        return
    with blocking.open_session(endpoint, model=wishes.model) as session:
        yield session


def _history() -> History:
    """Return the lines typed so far, in a file that only its owner may read; in memory where there can be none."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    try:
        folder = state / "trio-session-engine"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "history"
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class Screen:
    """The terminal as a person sees it.

    Args:
        plain: Whether text is shown as it comes, without layout.
    """

    def __init__(self, *, plain: bool) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._plain = plain or not self._console.is_terminal or self._console.is_dumb_terminal

    def aside(self, text: str) -> None:
        """Show a line that is not the model's."""
        self._console.print(Shown(neutralise(text)), style="" if self._plain else "dim")

    def show(self, text: str) -> None:
        """Show what a command gave."""
        self._console.print(Shown(neutralise(text)), end="")

    @contextlib.contextmanager
    def answer(self) -> Iterator[PlainAnswer | LaidOutAnswer]:
        """A block in which an answer is shown as it comes."""
        shown = PlainAnswer(self._console) if self._plain else LaidOutAnswer(self._console)
        try:
            yield shown
        finally:
            shown.end()


class PlainAnswer:
    """An answer as it comes, without layout: nothing that was written changes again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = False

    def add(self, event: TurnEvent) -> None:
        """Show what an event says."""
        match event:
            case TextDelta(delta=delta) if delta:
                self._console.out(neutralise(delta), end="", highlight=False)
                self._console.file.flush()
                self._open = not delta.endswith("\n")
            case ToolCallEnded(block=call):
                self.end()
                self._console.print(Shown(f"(calls {neutralise(call.name)})"))

    def end(self) -> None:
        """End the line that is open."""
        if self._open:
            self._console.out("")
            self._open = False


class LaidOutAnswer:
    """An answer as Markdown: whole blocks are laid out, the one that is being written is shown below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._blocks = Blocks()
        self._live = Live(console=console, transient=True, refresh_per_second=12)
        self._live.start()

    def add(self, event: TurnEvent) -> None:
        """Show what an event says."""
        match event:
            case TextDelta(delta=delta) if delta:
                whole = list(self._blocks.add(neutralise(delta)))
                lines = self._blocks.unfinished.splitlines()[-_SHOWN_LINES:]
                self._live.update(Shown("\n".join(lines)))  # first: printing draws it again, below what is printed
                for block in whole:
                    self._console.print(Markdown(block))
            case ToolCallEnded(block=call):
                self._console.print(Shown(f"calls {neutralise(call.name)}", style="dim"))

    def end(self) -> None:
        """Lay out what is left."""
        self._live.update(Shown(""))
        self._live.stop()
        for block in self._blocks.end():
            self._console.print(Markdown(block))
