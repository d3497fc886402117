"""What the commands do once their arguments are understood."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import attrs
import trio

from engine import (
    AssistantMessage,
    Context,
    Endpoint,
    Limits,
    Session,
    Timeouts,
    Transport,
    TurnError,
    TurnOptions,
    UserMessage,
    open_session,
)
from engine.cli.errors import DONE, FAILED, INTERRUPTED, MISUSED, CommandFailed, describe
from engine.cli.interrupts import run
from engine.cli.output import JsonView, Pieces, TextView, View, report_table
from engine.cli.terminal import Terminal
from engine.simulator import open_simulator
from engine.values.messages import Message
from engine.values.problems import EngineError

__all__ = ["Wishes", "ask", "chat", "verdict"]

_NOTICE: Final = "No OPENAI_API_KEY and no --base-url: the built-in simulator answers, not a model."
# Somebody who scrolls back in a pager stops reading for minutes; the answer is small enough to wait in memory.
_LIMITS: Final = Limits(buffer_events=4_000_000, buffer_bytes=256 * 1024 * 1024)


@attrs.frozen(kw_only=True)
class Wishes:
    """What the options of ``ask`` and ``chat`` say.

    Attributes:
        model: The model to ask.
        base_url: The server; None for the default one, or the simulator where there is no key.
        transport: How requests travel.
        temperature: Sampling temperature; None leaves it to the server.
        timeout: Seconds a whole turn may take; None for no bound.
        json: Whether to print events as JSON lines instead of text.
        report: Whether to print each turn's report.
    """

    model: str
    base_url: str | None = None
    transport: Transport = Transport.AUTO
    temperature: float | None = None
    timeout: float | None = None
    json: bool = False
    report: bool = False


def verdict(terminal: Terminal, program: Callable[[], Awaitable[None]]) -> int:
    """Run ``program`` and return its exit code, having told in one line what went wrong where something did."""
    try:
        return INTERRUPTED if run(program) else DONE
    except BrokenPipeError:
        return DONE  # whoever reads the answer has seen enough
    except CommandFailed as error:
        terminal.notice(f"Error: {error}")
        return error.code
    except EngineError as error:
        terminal.notice(f"Error: {describe(error, terminal.secret)}")
        return FAILED
    except OSError as error:
        terminal.notice(f"Error: {error.strerror or error}")
        return FAILED


async def ask(terminal: Terminal, wishes: Wishes, prompt: str) -> None:
    """Ask one question; ``-`` takes it from standard input. If cancelled, the turn is abandoned."""
    if prompt == "-":
        prompt = await terminal.input.everything()
    if not prompt.strip():
        raise CommandFailed("the prompt is empty", code=MISUSED)
    async with _session(terminal, wishes) as session:
        await _answer(session, terminal, wishes, Context.of(prompt))


async def chat(terminal: Terminal, wishes: Wishes) -> None:
    """Answer lines from standard input until it ends or says ``/quit``. If cancelled, the turn is abandoned.

    A turn that fails is told and leaves the transcript as it was. A person can then go on; a pipe cannot know that the
    answers to come lack something, so there it is the end.
    """
    transcript: list[Message] = []
    async with _session(terminal, wishes) as session:
        while True:
            line = await _line(terminal)
            if line is None or line.strip() == "/quit":
                return
            if not line.strip():
                continue
            said = UserMessage(line)
            try:
                answer = await _answer(session, terminal, wishes, Context((*transcript, said)))
            except TurnError as error:
                if not terminal.input.is_terminal:
                    raise
                terminal.notice(f"Error: {describe(error, terminal.secret)}")
            else:
                transcript += [said, answer]


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
    key = os.environ.get("OPENAI_API_KEY") or None
    terminal.secret = key
    if key is None and wishes.base_url is None:
        terminal.notice(_NOTICE)
        async with (
            open_simulator(in_memory=True) as simulator,
            open_session(simulator.endpoint, model=wishes.model, limits=_LIMITS, dialer=simulator.dialer) as session,
        ):
            yield session
        return
    endpoint = Endpoint() if key is None else Endpoint.from_env()
    if wishes.base_url is not None:
        endpoint = attrs.evolve(endpoint, base_url=wishes.base_url)
    async with open_session(endpoint, model=wishes.model, limits=_LIMITS) as session:
        yield session


async def _answer(session: Session, terminal: Terminal, wishes: Wishes, context: Context) -> AssistantMessage:
    view: View = JsonView(terminal) if wishes.json else TextView(terminal)
    turn = session.turn(
        context,
        TurnOptions(temperature=wishes.temperature),
        timeouts=Timeouts(turn=wishes.timeout),
        transport=wishes.transport,
    )
    failure: TurnError | None = None
    try:
        async with turn:
            async for event in turn:
                await _write(view.render(event))
    except TurnError as error:
        failure = error
    await _write(view.end())
    if wishes.report:
        await terminal.aside.write(report_table(turn.report))
    if failure is not None:
        raise failure
    return turn.message


async def _write(pieces: Pieces) -> None:
    for outlet, text in pieces:
        await outlet.write(text)
    await trio.lowlevel.checkpoint_if_cancelled()
