"""``session-engine simulate``: the simulator as a process, for clients and tests in any language."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from engine.cli.errors import one_line
from engine.cli.serving import (
    PORT_IN_USE,
    PROBLEMS,
    Parser,
    ServingFailed,
    add_process_options,
    announce,
    check_host,
    log_header,
    open_log,
    run_command,
    serve,
    version,
)
from engine.simulator import ConnectionRecord, RequestRecord, Simulator, open_simulator
from engine.simulator.control import Control
from engine.simulator.frame_log import FrameLog, Redaction
from engine.simulator.places import Document, JsonError
from engine.simulator.rulebook import Rulebook
from engine.simulator.script_file import ScriptFile, ScriptFileError, load_script, read_quirks

if TYPE_CHECKING:
    from engine.simulator.world import TapKind

__all__ = ["certificate", "main"]

_WATCH_SECONDS: Final = 0.25
_REPORT_SECONDS: Final = 0.05
_UNENDED: Final = frozenset({"received", "running"})


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    0: ended by a signal, or with standard input. 2: arguments or a script that cannot be used. 3: the port is in use.
    4: ``--verify``, and something was unused, unmatched or failed.
    """
    return run_command(_parser(), arguments, _run)


def _run(given: argparse.Namespace) -> int:
    if given.replay is not None:
        from engine.cli.replay import load, replay  # what does not replay need not load it

        check_host(given)
        cassette = load(given)
        code = serve(given, lambda: replay(given, cassette))
        return code or getattr(given, "verdict", 0)
    script = ScriptFile(name="") if given.script is None else load_script(given.script)
    options = _options(given, script)
    code = serve(given, lambda: _simulate(given, script, options))
    return code or getattr(given, "verdict", 0)


def _parser() -> Parser:
    parser = Parser(
        "session-engine simulate", description="Run a Responses server over WebSocket and HTTP until it is ended."
    )
    add_process_options(parser)
    parser.add_argument("--script", type=Path, metavar="FILE", help="rules as JSON, or fixtures of aimock")
    parser.add_argument("--watch", action="store_true", help="read the script again when it changes")
    parser.add_argument("--verify", action="store_true", help="exit 4 if a rule was unused or a request unmatched")
    parser.add_argument("--control", action="store_true", help="serve the control route under /__simulator/")
    parser.add_argument("--control-token", metavar="TOKEN", help="the token of the control route; made by default")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write every frame as a line of JSON")
    parser.add_argument("--verbose", action="store_true", help="list requests, without what they say")
    parser.add_argument("--api-key", metavar="KEY", help="the only key that is let in; any by default")
    parser.add_argument("--root", action="append", metavar="PATH", help="serve under this path; /v1 by default")
    parser.add_argument("--model", action="append", metavar="NAME", help="a model that exists; any by default")
    parser.add_argument("--accept-parameter", action="append", metavar="NAME", help="a parameter that is no error")
    parser.add_argument("--quirk", action="append", metavar="NAME[=JSON]", help="a deviation from the documented wire")
    parser.add_argument("--lifetime", type=float, metavar="SECONDS", help="of a WebSocket (default: 3600)")
    parser.add_argument("--seed", type=int, help="makes ids reproducible")
    parser.add_argument("--tls", action="store_true", help="serve TLS, with a certificate made on the spot")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="and this key")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="answer as a cassette did")
    parser.add_argument(
        "--match", choices=["strict", "order"], default="strict", help="replay by equal requests, or by order alone"
    )
    parser.add_argument(
        "--speed", type=float, default=0.0, metavar="FACTOR", help="of a replay: 1 as it came, 0 at once"
    )
    return parser


def _options(given: argparse.Namespace, script: ScriptFile) -> dict[str, Any]:
    options = dict(script.options)
    arguments = {
        "api_key": given.api_key,
        "roots": given.root,
        "models": given.model,
        "accept_parameters": given.accept_parameter,
        "connection_lifetime": given.lifetime,
        "seed": given.seed,
    }
    options |= {name: value for name, value in arguments.items() if value is not None}
    if given.quirk:
        options["quirks"] = read_quirks(dict(_quirk(each) for each in given.quirk))
    return options


def _quirk(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        usual = read_quirks({})
        return name, not getattr(usual, name, False)
    try:
        return name, Document.of(value).value
    except JsonError:
        return name, value


# --- the server ------------------------------------------------------------------------------------------------------


async def _simulate(given: argparse.Namespace, script: ScriptFile, options: Mapping[str, Any]) -> int:
    rules = Rulebook(script.rules, script.scopes, otherwise=script.otherwise)
    async with contextlib.AsyncExitStack() as stack:
        context, authority = stack.enter_context(certificate(given, wanted=given.tls or script.tls))
        try:
            simulator = await stack.enter_async_context(
                open_simulator(
                    host=given.host,
                    port=given.port,
                    allow_remote=given.allow_remote,
                    brain=rules,
                    ssl_context=context,
                    **options,
                )
            )
        except ValueError as error:
            raise ServingFailed(str(error)) from None
        except OSError as error:
            problem = f"cannot listen on {given.host} port {given.port}: {_reason(error)}"
            raise ServingFailed(problem, PORT_IN_USE) from None
        if given.log is not None:
            log = FrameLog(stack.enter_context(open_log(given.log)), Redaction(given.redact), header=log_header())
            simulator.taps.append(_Writer(log))
        token = given.control_token or secrets.token_urlsafe(24)
        control = Control(simulator, rules, token=token, version=version())
        if given.control:
            simulator.control = control.serve
        announce(given, _ready(given, simulator, token, authority), _words(simulator, given, token))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if given.watch and given.script is not None:
            nursery.start_soon(_watch, given.script, rules)
        if given.verbose:
            nursery.start_soon(_report, simulator, given.json)
        try:
            await trio.sleep_forever()
        finally:
            given.verdict = _verdict(control) if given.verify else 0
            nursery.cancel_scope.cancel(reason="the server is ending")
    return 0


def _reason(error: OSError) -> str:
    """Return the system's words alone: Trio adds its own around them."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return os.strerror(cause.errno) if cause.errno is not None else str(error)


def _ready(given: argparse.Namespace, simulator: Simulator, token: str, authority: str | None) -> dict[str, Any]:
    origin = simulator.base_url[: simulator.base_url.index("/", 8)]
    return {
        "base_url": simulator.base_url,
        "ws_url": simulator.websocket_url,
        "control_url": f"{origin}/__simulator" if given.control else None,
        "control_token": token if given.control else None,
        "tls_ca": authority,
        "script": None if given.script is None else str(given.script),
        "version": version(),
    }


def _words(simulator: Simulator, given: argparse.Namespace, token: str) -> str:
    lines = [
        simulator.base_url,
        "A simulated Responses server over WebSocket and HTTP."
        + ("" if given.script is not None else " It lets any key in, and calculates or echoes."),
        f'Try: OPENAI_API_KEY={simulator.api_key} session-engine ask --base-url {simulator.base_url} "What is 2+2?"',
        "End it with Ctrl-C.",
    ]
    if given.control:
        lines.insert(1, f"Control: {simulator.base_url.partition(simulator.options.roots[0])[0]}/__simulator/ {token}")
    return "\n".join(lines)


def _verdict(control: Control) -> int:
    problems = control.problems()
    for problem in problems:
        print(json.dumps({"event": "problem", **problem}), file=sys.stderr)
    return PROBLEMS if problems else 0


async def _watch(path: Path, rules: Rulebook) -> None:
    """Read the script again whenever it has changed; one with a mistake is told, and the old one stays."""
    before = _stamp(path)
    while True:
        await trio.sleep(_WATCH_SECONDS)
        now = _stamp(path)
        if now == before or now is None:
            continue
        before = now
        try:
            script = load_script(path)
        except (ScriptFileError, OSError) as error:
            print(f"Error: {error}; the rules stay as they were", file=sys.stderr, flush=True)
        else:
            rules.load(script.rules, script.scopes, otherwise=script.otherwise)
            print(f"{path} was read again", file=sys.stderr, flush=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


async def _report(simulator: Simulator, as_json: bool) -> None:
    """Print a line for each request that has ended, and for each refused upgrade, for ever."""
    refused = newest = -1
    waiting: dict[int, RequestRecord] = {}
    while True:
        for connection in simulator.connections:
            if connection.id > refused and connection.handshake_status not in {None, 101}:
                refused = connection.id
                _print(as_json, {"event": "refused", "connection": refused, "status": connection.handshake_status})
        for request in simulator.requests:
            if request.number > newest:
                newest = request.number
                waiting[newest] = request
        for number, request in list(waiting.items()):
            if request.status not in _UNENDED:
                del waiting[number]
                _print(as_json, _ended(request))
        await trio.sleep(_REPORT_SECONDS)


def _ended(request: RequestRecord) -> dict[str, Any]:
    model = request.body.get("model")
    told = {
        "event": "request",
        "number": request.number,
        "connection": request.connection_id,
        "transport": request.transport,
        "model": one_line(model, 60) if isinstance(model, str) else None,
        "bytes": request.size,
        "status": request.status,
        "error_code": request.error_code,
    }
    if request.finished_at is not None:
        told["seconds"] = round(request.finished_at - request.received_at, 3)
    return {name: value for name, value in told.items() if value is not None}


def _print(as_json: bool, told: Mapping[str, Any]) -> None:
    words = " ".join(f"{name}={value}" if name != "event" else f"{value}" for name, value in told.items())
    print(json.dumps(told) if as_json else words, flush=True)


# --- TLS and logs ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def certificate(given: argparse.Namespace, *, wanted: bool) -> Iterator[tuple[ssl.SSLContext | None, str | None]]:
    """Yield the context to serve TLS with, and the file of the authority that clients must trust.

    Raises:
        ServingFailed: the files cannot be used, or there is nothing to make a certificate with.
    """
    if given.tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(given.tls_cert, given.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ServingFailed(f"the certificate cannot be used: {error}") from None
        yield context, None
        return
    if not wanted:
        yield None, None
        return
    try:
        import trustme
    except ImportError:
        raise ServingFailed("a certificate is made by trustme: python -m pip install trustme") from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "::1", given.host).configure_cert(context)
    with authority.cert_pem.tempfile() as path:
        yield context, path


class _Writer:
    """The tap that writes what passes."""

    def __init__(self, log: FrameLog) -> None:
        self._log = log

    def __call__(self, connection: ConnectionRecord, kind: TapKind, payload: str | bytes | Mapping[str, Any]) -> None:
        if isinstance(payload, Mapping):
            match kind:
                case "open":
                    self._log.opened(connection.id, connection.authorization, payload)
                case "answer":
                    self._log.answered(connection.id, payload["status"], payload["headers"])
                case _:
                    self._log.ended(connection.id, payload)
        elif kind == "in":
            self._log.received(connection.id, payload)
        else:
            self._log.sent(connection.id, payload)
