"""The work of the commands, once their arguments are understood."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from engine import (
    Context,
    Conversation,
    Image,
    Limits,
    Reply,
    Session,
    Text,
    Timeouts,
    Transport,
    Turn,
    TurnError,
    TurnOptions,
    UserMessage,
    open_session,
)
from engine.cli.errors import DONE, FAILED, INTERRUPTED, MISUSED, CommandFailed, describe
from engine.cli.interrupts import run
from engine.cli.output import JsonView, Pieces, TextView, View, report_table
from engine.cli.talk import Commands, Opening, save_snapshot
from engine.cli.target import server_of
from engine.cli.terminal import Terminal
from engine.simulator import open_simulator
from engine.values.messages import Message
from engine.values.problems import ConfigurationError, EngineError

__all__ = ["NOTICE", "Question", "Wishes", "ask", "chat", "told", "verdict"]

NOTICE: Final = "No OPENAI_API_KEY and no --base-url: the built-in simulator answers, not a model."
# A reader who scrolls back in a pager stops reading for minutes; the answer is small enough to wait in memory.
_LIMITS: Final = Limits(buffer_events=4_000_000, buffer_bytes=256 * 1024 * 1024)


@attrs.frozen(kw_only=True)
class Wishes:
    """The values of the options of ``ask`` and ``chat``.

    Attributes:
        model: The model to ask.
        base_url: The server; None for the default one, or the simulator where there is no key.
        profile: The name of the server's profile; None for the one that fits its host.
        transport: The transport of requests.
        temperature: Sampling temperature; None leaves it to the server.
        timeout: Seconds a whole turn may take; None for no bound.
        json: Whether to print events as JSON lines instead of text.
        report: Whether to print each turn's report.
    """

    model: str
    base_url: str | None = None
    profile: str | None = None
    transport: Transport = Transport.AUTO
    temperature: float | None = None
    timeout: float | None = None
    json: bool = False
    report: bool = False


@attrs.frozen(kw_only=True)
class Question:
    """The arguments of ``ask`` beside the prompt.

    Attributes:
        instructions: Instructions for the answer.
        image: Paths of pictures to look at.
        schema_file: The path of a JSON schema that the answer has to fit.
    """

    instructions: str | None = None
    image: tuple[str, ...] = ()
    schema_file: str | None = None

    def images(self) -> list[Image]:
        """Read the pictures.

        Raises:
            CommandFailed: one cannot be read, or is no picture.
        """
        found: list[Image] = []
        for path in self.image:
            try:
                found.append(Image.from_path(path))
            except OSError as error:
                raise CommandFailed(f"{path}: {error.strerror or error}", code=MISUSED) from None
            except ConfigurationError as error:
                raise CommandFailed(f"{path}: {error.problem}", code=MISUSED) from None
        return found

    def schema(self) -> Any:
        """Read the schema.

        Raises:
            CommandFailed: it cannot be read, or is no JSON object.
        """
        if self.schema_file is None:
            return None
        try:
            schema = json.loads(Path(self.schema_file).read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandFailed(f"{self.schema_file}: {error.strerror or error}", code=MISUSED) from None
        except ValueError:
            raise CommandFailed(f"{self.schema_file}: is not JSON", code=MISUSED) from None
        if not isinstance(schema, dict):
            raise CommandFailed(f"{self.schema_file}: is not a JSON schema", code=MISUSED)
        return schema


def verdict(terminal: Terminal, program: Callable[[], Awaitable[None]]) -> int:
    """Run ``program`` under Trio and return its exit code, having told in one line what went wrong where it did."""
    return told(terminal, lambda: INTERRUPTED if run(program) else DONE)


def told(terminal: Terminal, program: Callable[[], int]) -> int:
    """Run ``program`` and return its exit code, having told in one line what went wrong where something did."""
    try:
        return program()
    except BrokenPipeError:
        return DONE  # the answer's reader has seen enough
    except CommandFailed as error:
        terminal.notice(f"Error: {error}")
        return error.code
    except EngineError as error:
        terminal.notice(f"Error: {describe(error, terminal.secret)}")
        return FAILED
    except OSError as error:
        terminal.notice(f"Error: {error.strerror or error}")
        return FAILED


async def ask(terminal: Terminal, wishes: Wishes, prompt: str, question: Question) -> None:
    """Ask one question; ``-`` takes it from standard input. If cancelled, the turn is abandoned."""
    if prompt == "-":
        prompt = await terminal.input.everything()
    if not prompt.strip():
        raise CommandFailed("the prompt is empty", code=MISUSED)
    context = Context([UserMessage([*question.images(), Text(prompt)])], instructions=question.instructions)
    options = TurnOptions(temperature=wishes.temperature, text_format=question.schema())
    async with _session(terminal, wishes) as session:
        turn = session.turn(context, options, timeouts=Timeouts(turn=wishes.timeout), transport=wishes.transport)
        await _show(turn, terminal, wishes)


async def chat(terminal: Terminal, wishes: Wishes, opening: Opening) -> None:
    """Answer lines from standard input until it ends or says ``/quit``. If cancelled, the turn is abandoned.

    A turn that fails is told and leaves the transcript as it was. A person can then go on; a pipe cannot know that the
    answers to come lack something, so there it is the end.
    """
    given = opening.arguments()
    async with _session(terminal, wishes) as session:

        def begin(messages: tuple[Message, ...]) -> Conversation:
            rest = {name: value for name, value in given.items() if name != "resume"}
            return session.conversation(messages=messages, **rest)

        commands = Commands(session.conversation(**given), begin)
        while not commands.over:
            line = await _line(terminal)
            if line is None:
                break
            if not line.strip():
                continue
            try:
                shown = commands.run(line)
                if shown is not None:
                    await terminal.aside.write(shown)
                else:
                    await _reply(commands, terminal, wishes, line)
            except (TurnError, CommandFailed) as error:
                if not terminal.input.is_terminal:
                    raise
                terminal.notice(f"Error: {describe(error, terminal.secret)}")
        if opening.save is not None:
            save_snapshot(opening.save, commands.chat)


async def _reply(commands: Commands, terminal: Terminal, wishes: Wishes, line: str) -> None:
    options = TurnOptions(temperature=wishes.temperature)
    reply = commands.chat.stream(line, options, timeouts=Timeouts(turn=wishes.timeout), transport=wishes.transport)
    try:
        await _show(reply, terminal, wishes)
    finally:
        commands.report = reply.report


async def _line(terminal: Terminal) -> str | None:
    interactive = terminal.input.is_terminal and terminal.aside.is_terminal
    if interactive:
        await terminal.aside.write("> ")
    line = await terminal.input.line()
    if line is None and interactive:
        await terminal.aside.write("\n")
    return line


# --- turns -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _session(terminal: Terminal, wishes: Wishes) -> AsyncIterator[Session]:
    terminal.secret = os.environ.get("OPENAI_API_KEY") or None
    endpoint = server_of(wishes.base_url, wishes.profile)
    if endpoint is None:
        terminal.notice(NOTICE)
        async with (
            open_simulator(in_memory=True) as simulator,
            open_session(simulator.endpoint, model=wishes.model, limits=_LIMITS, dialer=simulator.dialer) as session,
        ):
            yield session
        return
    async with open_session(endpoint, model=wishes.model, limits=_LIMITS) as session:
        yield session


async def _show(answer: Turn | Reply, terminal: Terminal, wishes: Wishes) -> None:
    view: View = JsonView(terminal) if wishes.json else TextView(terminal)
    failure: TurnError | None = None
    try:
        async with answer:
            async for event in answer:
                await _write(view.render(event))
    except TurnError as error:
        failure = error
    await _write(view.end())
    if wishes.report:
        await terminal.aside.write(report_table(answer.report))
    if failure is not None:
        raise failure


async def _write(pieces: Pieces) -> None:
    for outlet, text in pieces:
        await outlet.write(text)
    await trio.lowlevel.checkpoint_if_cancelled()
