"""``store``: look after stored sessions from the command line. Shows no content."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
from attrs import asdict
from rich.console import Console
from rich.table import Table
from rich.text import Text as Cell

from engine.cli.errors import CommandFailed, one_line
from engine.cli.programs import verdict
from engine.cli.terminal import Terminal
from engine.store import SessionRecord, Store, open_store

__all__ = ["store_commands"]

_DAY: Final = 86_400.0


@click.group("store")
@click.option(
    "--url",
    envvar="ENGINE_STORE",
    metavar="URL",
    help="sqlite:///file.db or postgresql://…  [env: ENGINE_STORE]",
)
@click.pass_context
def store_commands(context: click.Context, url: str | None) -> None:
    """Look after the sessions in a store. What is said in them is not shown."""
    context.obj = url


def _run(url: str | None, program: Callable[[Store, Terminal], Awaitable[None]]) -> int:
    if url is None:  # asked for here, so that the commands' help needs none
        raise click.UsageError("Missing option '--url' before the command, or ENGINE_STORE.")
    terminal = Terminal()

    async def opened() -> None:
        async with open_store(url) as store:
            await program(store, terminal)

    return verdict(terminal, opened)


@store_commands.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each session.")
@click.pass_obj
def list_command(url: str | None, as_json: bool) -> int:
    """List the sessions, the one that changed last first."""

    async def program(store: Store, terminal: Terminal) -> None:
        sessions = await store.sessions()
        if as_json:
            text = "".join(json.dumps(asdict(each)) + "\n" for each in sessions)
        else:
            text = _table(sessions) if sessions else "No sessions.\n"
        await terminal.output.write(text)

    return _run(url, program)


@store_commands.command("show")
@click.argument("session")
@click.pass_obj
def show_command(url: str | None, session: str) -> int:
    """Show what is known of one session."""

    async def program(store: Store, terminal: Terminal) -> None:
        found = [each for each in await store.sessions() if each.id == session]
        if not found:
            raise _no_session(session)
        rows = {name.replace("_", " "): value for name, value in asdict(found[0]).items()}
        rows["updated"] = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found[0].updated))
        await terminal.output.write("".join(f"{name}: {one_line(str(value))}\n" for name, value in rows.items()))

    return _run(url, program)


@store_commands.command("release")
@click.argument("session")
@click.pass_obj
def release_command(url: str | None, session: str) -> int:
    """End the lease of a session whose process is gone."""

    async def program(store: Store, terminal: Terminal) -> None:
        if not await store.release(session):
            raise _no_session(session)

    return _run(url, program)


@store_commands.command("forget")
@click.argument("session")
@click.option("--force", is_flag=True, help="Remove it even while a process holds it.")
@click.pass_obj
def forget_command(url: str | None, session: str, force: bool) -> int:
    """Remove a session with its transcript."""

    async def program(store: Store, terminal: Terminal) -> None:
        if not await store.forget(session, force=force):
            raise _no_session(session)

    return _run(url, program)


@store_commands.command("prune")
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Remove also what has not changed for so many days.",
)
@click.pass_obj
def prune_command(url: str | None, days: float | None) -> int:
    """Remove the sessions whose retention is over."""

    async def program(store: Store, terminal: Terminal) -> None:
        removed = await store.prune(before=None if days is None else time.time() - days * _DAY)
        await terminal.output.write(f"{len(removed)} removed\n")

    return _run(url, program)


@store_commands.command("migrate")
@click.pass_obj
def migrate_command(url: str) -> int:
    """Make the tables, or bring them to this version."""

    async def program(store: Store, terminal: Terminal) -> None:
        await store.migrate()
        await terminal.output.write("the store is of this version\n")

    return _run(url, program)


def _no_session(session: str) -> CommandFailed:
    return CommandFailed(f"there is no session {one_line(session, 80)!r}")


def _table(sessions: tuple[SessionRecord, ...]) -> str:
    table = Table(box=None, pad_edge=False)
    for heading in ("session", "rows", "changed", "held by", "for another", ""):
        table.add_column(heading, overflow="fold")
    now = time.time()
    for each in sessions:
        held: Any = each.owner if each.expires_in is not None and each.expires_in > 0 else None
        table.add_row(
            Cell(one_line(each.id, 80)),
            str(each.rows),
            _ago(now - each.updated),
            Cell(one_line(held, 60)) if held else "-",
            f"{each.expires_in:.0f} s" if held else "",
            "interrupted" if each.interrupted else "",
        )
    # Not printed by rich itself: it ends the process when the reader is gone.
    text = io.StringIO()
    Console(file=text, width=shutil.get_terminal_size((100, 24)).columns).print(table)
    return text.getvalue()


def _ago(seconds: float) -> str:
    for unit, name in ((_DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
