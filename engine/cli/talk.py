"""A conversation on the command line: what ``chat`` was told, what its commands do, where it is saved."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from engine.cli.errors import MISUSED, CommandFailed
from engine.cli.output import report_table
from engine.values.messages import Message
from engine.values.reports import TurnReport
from engine.values.usage import Usage

__all__ = ["COMMANDS", "Chat", "Commands", "Opening", "load_snapshot", "load_tools", "save_snapshot"]

COMMANDS: Final = {
    "/help": "this list",
    "/report": "what is known of the last answer: transport, times, tokens",
    "/usage": "tokens of the conversation so far",
    "/save FILE": "save the conversation, to go on with --resume FILE",
    "/clear": "forget what was said",
    "/fork": "try something: /back returns to this point",
    "/back": "go back to where the last /fork was",
    "/steer TEXT": "while an answer comes: add to what is asked",
    "/quit": "end (so does Ctrl-D)",
}


class Chat(Protocol):
    """A conversation of either kind: under Trio, or without it."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the conversation."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        ...

    def snapshot(self) -> Any:
        """The conversation as plain data."""
        ...


@attrs.frozen(kw_only=True)
class Opening:
    """The beginning of a conversation.

    Attributes:
        instructions: Instructions for the whole conversation.
        tools: Functions that the model may call, as ``module:function``.
        resume: A file to go on with.
        save: A file to save to at the end.
        plain: Whether to show text as it comes, without layout: for screen readers, and for logs.
    """

    instructions: str | None = None
    tools: tuple[str, ...] = ()
    resume: str | None = None
    save: str | None = None
    plain: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what ``session.conversation`` is given.

        Raises:
            CommandFailed: a tool or a file cannot be had.
        """
        given: dict[str, Any] = {"tools": load_tools(self.tools)}
        if self.resume is not None:
            given["resume"] = load_snapshot(self.resume)
        if self.instructions is not None:
            given["instructions"] = self.instructions
        return given


def load_tools(names: Iterable[str]) -> list[Callable[..., Any]]:
    """Import functions by their names, from the directory that the program was started in too.

    Raises:
        CommandFailed: there is no such function.
    """
    found: list[Callable[..., Any]] = []
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        module_name, colon, function_name = name.partition(":")
        if not colon or not module_name or not function_name:
            raise CommandFailed(f"--tools {name}: must be module:function", code=MISUSED)
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except (ImportError, AttributeError) as error:
            raise CommandFailed(f"--tools {name}: {error}", code=MISUSED) from None
        if not callable(function):
            raise CommandFailed(f"--tools {name}: is not a function", code=MISUSED)
        found.append(function)
    return found


def load_snapshot(path: str) -> Any:
    """Read a conversation that was saved.

    Raises:
        CommandFailed: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise CommandFailed(f"{path}: is not a saved conversation") from None


def save_snapshot(path: str, chat: Chat) -> None:
    """Write a conversation to a file that only its owner may read.

    Raises:
        CommandFailed: it cannot be written.
    """
    text = json.dumps(chat.snapshot(), indent=1)
    part = f"{path}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)  # whole, or as it was before
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror or error}") from None


class Commands:
    """The commands that begin with a slash.

    Args:
        chat: The conversation.
        begin: Begins one with these messages.

    Attributes:
        chat: The conversation that goes on.
        report: The report on the last answer.
        over: Whether it was said to end.
    """

    def __init__(self, chat: Any, begin: Callable[[tuple[Message, ...]], Any]) -> None:
        self.chat: Any = chat
        self.report: TurnReport | None = None
        self.over: bool = False
        self._begin = begin
        self._forks: list[Any] = []

    def run(self, line: str) -> str | None:
        """Do what a line says and return what to show; None where the line is no command.

        Raises:
            CommandFailed: it cannot be done.
        """
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match word:
            case "/quit" | "/exit":
                self.over = True
                return ""
            case "/help":
                width = max(map(len, COMMANDS))
                return "".join(f"{name.ljust(width)}  {text}\n" for name, text in COMMANDS.items())
            case "/report":
                return "There is no answer yet.\n" if self.report is None else report_table(self.report)
            case "/usage":
                return _usage(self.chat.usage)
            case "/save":
                if not rest:
                    raise CommandFailed("/save needs the name of a file")
                save_snapshot(rest, self.chat)
                return f"Saved to {rest}.\n"
            case "/clear":
                self.chat = self._begin(())
                return "Forgotten.\n"
            case "/fork":
                self._forks.append(self.chat)
                self.chat = self._begin(self.chat.messages)
                return "Forked; /back returns to this point.\n"
            case "/steer":
                raise CommandFailed("/steer is for while an answer comes")
            case "/back":
                if not self._forks:
                    raise CommandFailed("there is no fork to go back from")
                self.chat = self._forks.pop()
                return f"Back, at {len(self.chat.messages)} messages.\n"
        if word.startswith("/") and word.replace("/", "", 1).isalpha():
            raise CommandFailed(f"there is no command {word}; /help lists them")
        return None


def _usage(usage: Usage) -> str:
    counted = [
        (field.name.replace("_", " "), value)
        for field in attrs.fields(Usage)
        if (value := getattr(usage, field.name)) is not None
    ]
    if not counted:
        return "No tokens were counted yet.\n"
    width = max(len(name) for name, _ in counted)
    return "".join(f"{name.ljust(width)}  {value}\n" for name, value in counted)
