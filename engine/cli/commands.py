"""The commands and their options."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from attrs import fields

from engine.cli.doctor import doctor
from engine.cli.errors import DONE, INTERRUPTED, MISUSED
from engine.cli.programs import Question, Wishes, ask, chat, told, verdict
from engine.cli.stores import store_commands
from engine.cli.talk import Opening
from engine.cli.terminal import Terminal
from engine.settings.endpoint import Endpoint
from engine.settings.profiles import PROFILE_NAMES
from engine.values.choices import Transport
from engine.values.problems import ConfigurationError
from engine.wire.json_text import DECODER

__all__ = ["invoke"]

_MODEL: Final = "gpt-5.4"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def invoke(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return its exit code."""
    try:
        code = commands.main(args=arguments, standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" Try {error.ctx.command_path} --help."
        message = error.format_message()
        Terminal().notice(f"Error: {message}{'' if message.endswith(('.', '?', ')')) or not hint else '.'}{hint}")
        return MISUSED
    return code if isinstance(code, int) else DONE


def _version() -> str:
    try:
        return importlib.metadata.version("trio-session-engine")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: running from a checkout)"


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("must be a finite number")
    return value


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if not value:
        return None
    try:
        Endpoint(value)
    except ConfigurationError as error:
        raise click.BadParameter(error.problem) from None
    return value


_PROFILE: Final = click.option(
    "--profile",
    type=click.Choice(PROFILE_NAMES),
    help="The kind of server, where its host does not tell.",
)

_TURN_OPTIONS: Final = (
    click.option("--model", default=_MODEL, show_default=True, help="The model to ask."),
    click.option(
        "--base-url",
        envvar="OPENAI_BASE_URL",
        callback=_url,
        metavar="URL",
        help="The server, up to but not including /responses.  [env: OPENAI_BASE_URL]",
    ),
    _PROFILE,
    click.option(
        "--transport",
        type=click.Choice([transport.value for transport in Transport]),
        default=Transport.AUTO.value,
        show_default=True,
        help="The way of requests: auto goes over HTTP where there is no WebSocket.",
    ),
    click.option("--temperature", type=float, callback=_finite, help="Sampling temperature."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        callback=_finite,
        metavar="SECONDS",
        help="The time that a whole turn may take.",
    ),
    click.option("--json", is_flag=True, help="Print every event as a line of JSON."),
    click.option(
        "--report", is_flag=True, help="Print each turn's report on standard error: transport, times, tokens."
    ),
)


def _turn_options(function: _Function) -> _Function:
    @functools.wraps(function)
    def wrapper(transport: str, **options: Any) -> Any:
        wishes = {field.name: options.pop(field.name) for field in fields(Wishes) if field.name in options}
        return function(**options, wishes=Wishes(transport=Transport(transport), **wishes))

    return functools.reduce(lambda decorated, option: option(decorated), reversed(_TURN_OPTIONS), wrapper)  # type: ignore[return-value]


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(_version(), message=f"trio-session-engine %(version)s, JSON read by {DECODER}")
def commands() -> None:
    """Talk to the OpenAI Responses API, or a server compatible with it, over one WebSocket.

    The key comes from OPENAI_API_KEY. Without it and without --base-url, a built-in simulator answers.
    """


@commands.command("ask")
@click.argument("prompt")
@click.option("--instructions", metavar="TEXT", help="Instructions for the model.")
@click.option("--image", multiple=True, metavar="FILE", help="A picture to look at; may be given more than once.")
@click.option("--schema", metavar="FILE", help="A JSON schema that the answer has to fit.")
@_turn_options
def ask_command(
    prompt: str, wishes: Wishes, instructions: str | None, image: tuple[str, ...], schema: str | None
) -> int:
    """Ask one question and print the answer as it comes. PROMPT may be - for standard input."""
    terminal = Terminal()
    question = Question(instructions=instructions, image=image, schema_file=schema)
    return verdict(terminal, lambda: ask(terminal, wishes, prompt, question))


@commands.command("chat")
@click.option("--instructions", metavar="TEXT", help="Instructions for the model, for the whole conversation.")
@click.option(
    "--tools",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="A function that the model may call; may be given more than once.",
)
@click.option("--resume", metavar="FILE", help="Go on with a conversation that --save or /save wrote.")
@click.option("--save", metavar="FILE", help="Save the conversation at the end.")
@click.option("--plain", is_flag=True, help="No layout: for screen readers.")
@_turn_options
def chat_command(
    wishes: Wishes,
    instructions: str | None,
    tools: tuple[str, ...],
    resume: str | None,
    save: str | None,
    plain: bool,
) -> int:
    """Hold a conversation: at a line editor on a terminal, where /help lists its commands, else a message a line.

    The end of the input, or /quit, ends it.
    """
    terminal = Terminal()
    opening = Opening(instructions=instructions, tools=tools, resume=resume, save=save, plain=plain)
    if terminal.input.is_terminal and terminal.output.is_terminal and not wishes.json:
        from engine.cli.chat import converse

        return told(terminal, lambda: converse(terminal, wishes, opening))
    return verdict(terminal, lambda: chat(terminal, wishes, opening))


@commands.command("simulate", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate_command(arguments: tuple[str, ...]) -> int:
    """Run the simulator for other programs, until it is ended."""
    from engine.cli.simulate import main

    return main(arguments)


@commands.command("record", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def record_command(arguments: tuple[str, ...]) -> int:
    """Stand between a client and a server, and write down what passes."""
    from engine.cli.record import main

    return main(arguments)


@commands.command("doctor")
@click.option("--model", default=_MODEL, show_default=True, help="The model to ask; a few tokens are spent.")
@click.option(
    "--base-url",
    envvar="OPENAI_BASE_URL",
    callback=_url,
    metavar="URL",
    help="The server, up to but not including /responses.  [env: OPENAI_BASE_URL]",
)
@_PROFILE
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The time that each step may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON list, at the end.")
def doctor_command(model: str, base_url: str | None, profile: str | None, timeout: float, *, as_json: bool) -> int:
    """Examine the way to the server: proxy, DNS, TCP, TLS, upgrade, first event, HTTP, keep-alive, lanes, steering.

    The exit code is 0 where every step succeeded, and 1 where one failed. Keys, headers and answers are not shown.
    """
    terminal = Terminal()

    async def examine() -> None:
        await doctor(terminal, base_url=base_url, profile=profile, model=model, seconds=timeout, as_json=as_json)

    return verdict(terminal, examine)


commands.add_command(store_commands)
