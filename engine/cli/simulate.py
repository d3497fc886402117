"""``session-engine simulate``: the simulator as a process, for clients and tests in any language."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import shlex
import ssl
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from engine.cli.arguments import (
    Parser,
    ServingFailed,
    add_process_options,
    check_host,
    filled,
    forbid,
    from_zero,
    positive,
    require,
)
from engine.cli.errors import one_line
from engine.cli.serving import (
    PROBLEMS,
    announce,
    cannot_listen,
    log_header,
    open_log,
    run_command,
    say,
    serve,
    version,
)
from engine.simulator import ConnectionRecord, RequestRecord, Simulator, open_simulator
from engine.simulator.checks import ScriptError
from engine.simulator.control import Control
from engine.simulator.frame_log import FrameLog, Redaction
from engine.simulator.places import Document, JsonError
from engine.simulator.quirks import quirk_choices
from engine.simulator.rulebook import Rulebook
from engine.simulator.script_file import ScriptFile, ScriptFileError, load_script, read_quirks

if TYPE_CHECKING:
    from engine.simulator.world import TapKind

__all__ = ["certificate", "main"]

_WATCH_SECONDS: Final = 0.25
_REPORT_SECONDS: Final = 0.05
_NEEDS: Final = (
    ("--watch", "--script"),
    ("--match", "--replay"),
    ("--speed", "--replay"),
    ("--control-token", "--control"),
    ("--tls-key", "--tls-cert"),
)
_NOT_IN_A_REPLAY: Final = (
    "--script", "--control", "--log", "--verbose", "--api-key", "--root", "--model", "--accept-parameter", "--quirk",
    "--lifetime", "--seed", "--tls", "--tls-cert",
)  # fmt: skip
_UNENDED: Final = frozenset({"received", "running"})


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    0: ended by a signal, or with standard input. 2: arguments or a script that cannot be used. 3: the port is in use.
    4: ``--verify``, and something was unused, unmatched or failed.
    """
    return run_command(_parser(), arguments, _run)


def _run(given: argparse.Namespace) -> int:
    for option, other in _NEEDS:
        require(given, option, other)
    forbid(given, "--replay", _NOT_IN_A_REPLAY)
    check_host(given)
    if given.replay is not None:
        from engine.cli.replay import load, replay  # what does not replay need not load it

        cassette = load(given)
        code = serve(given, lambda: replay(given, cassette))
        return code or getattr(given, "verdict", 0)
    script = ScriptFile(name="") if given.script is None else load_script(given.script)
    options = _options(given, script)
    code = serve(given, lambda: _simulate(given, script, options))
    return code or getattr(given, "verdict", 0)


def _parser() -> Parser:
    parser = Parser(
        "session-engine simulate",
        description="Run a Responses server, over WebSocket and HTTP on one port, until Ctrl-C. Without --script or"
        " --replay it calculates, echoes, calls tools that a message names, and fits JSON schemas.",
    )
    add_process_options(parser)

    add = parser.add_argument_group("answers").add_argument
    add("--script", type=Path, metavar="FILE", help="answer by the rules of this JSON file, or by fixtures of aimock")
    add("--watch", action="store_true", help="read the script again whenever its file changes")
    add("--verify", action="store_true", help="exit with 4 if a rule was unused, or a request unmatched")
    add("--replay", type=Path, metavar="FILE", help="answer as this cassette did, which record or --log wrote")
    add(
        "--match", choices=["strict", "order"],
        help="find a request in the cassette by its body (strict, the default), or by its order alone",
    )  # fmt: skip
    add(
        "--speed", type=from_zero, metavar="FACTOR",
        help="the pace of a replay: 1 as it was recorded, 2 twice as fast, 0 at once (the default)",
    )  # fmt: skip

    add = parser.add_argument_group("what may be seen and changed").add_argument
    add("--control", action="store_true", help="serve the control route, under /__simulator/")
    add("--control-token", type=filled, metavar="TOKEN", help="the control route's token, instead of a random one")
    add("--log", type=Path, metavar="FILE", help="write every frame into this file, as a line of JSON each")
    add("--verbose", action="store_true", help="print a line for each request, without what it says")

    add = parser.add_argument_group("the server", "Most of this may stand in a script too.").add_argument
    add("--api-key", type=filled, metavar="KEY", help="let in this key only; by default any key is let in")
    add("--root", action="append", metavar="PATH", help="serve under this path instead of /v1; repeatable")
    add(
        "--model", action="append", metavar="NAME", help="know this model only; repeatable; by default any name will do"
    )
    add("--accept-parameter", action="append", metavar="NAME", help="take this unknown request parameter; repeatable")
    add("--quirk", action="append", metavar="NAME[=JSON]", help="deviate from the documented wire in this; repeatable")
    add("--lifetime", type=positive, metavar="SECONDS", help="the life of a WebSocket connection (default: 3600)")
    add("--seed", type=int, metavar="NUMBER", help="make ids, and all that is random, the same in each run")
    add("--tls", action="store_true", help="serve TLS, with a certificate made on the spot (needs trustme)")
    add("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate chain, in PEM")
    add("--tls-key", type=Path, metavar="FILE", help="the private key of that certificate, where it has its own file")
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
        try:
            options["quirks"] = read_quirks(dict(_quirk(each) for each in given.quirk))
        except ScriptError as error:
            raise ServingFailed(f"--quirk {error}") from None
    return options


def _quirk(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        usual = getattr(read_quirks({}), name, False)
        if not isinstance(usual, bool):
            known = ", ".join(quirk_choices(name))
            raise ServingFailed(
                f"--quirk {name} needs a value: --quirk {name}=…" + (f", one of {known}" if known else "")
            )
        return name, not usual
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
            raise cannot_listen(given, error) from None
        if given.log is not None:
            log = FrameLog(stack.enter_context(open_log(given.log)), Redaction(given.redact), header=log_header())
            simulator.taps.append(_Writer(log))
        token = given.control_token or secrets.token_urlsafe(24)
        control = Control(simulator, rules, token=token, version=version())
        if given.control:
            simulator.control = control.serve
        announce(given, _ready(given, simulator, token, authority), _words(simulator, given, token, authority))
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


def _words(simulator: Simulator, given: argparse.Namespace, token: str, authority: str | None) -> str:
    keys = "any key" if simulator.options.api_key is None else "one key"
    answers = "calculates or echoes" if given.script is None else f"answers by {given.script}"
    environment = {"OPENAI_API_KEY": simulator.api_key} | ({} if authority is None else {"SSL_CERT_FILE": authority})
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    lines = [
        simulator.base_url,
        f"A simulated Responses server over WebSocket and HTTP. It lets {keys} in, and {answers}.",
        f'Try: {variables} session-engine ask --base-url {simulator.base_url} "What is 2+2?"',
        "End it with Ctrl-C.",
    ]
    if given.control:
        origin = simulator.base_url.partition(simulator.options.roots[0])[0]
        lines.insert(2, f"Control: {origin}/__simulator/, with Authorization: Bearer {token}")
    return "\n".join(lines)


def _verdict(control: Control) -> int:
    problems = control.problems()
    for problem in problems:
        say(json.dumps({"event": "problem", **problem}), sys.stderr)
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
            say(f"Error: {error}; the rules stay as they were", sys.stderr)
        else:
            rules.load(script.rules, script.scopes, otherwise=script.otherwise)
            say(f"{path} was read again", sys.stderr)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


async def _report(simulator: Simulator, as_json: bool) -> None:
    """Print a line for each request that has ended, and for each that was turned away at the door, for ever."""
    newest = -1
    told: Counter[int] = Counter()
    waiting: dict[int, RequestRecord] = {}
    while True:
        for connection in simulator.connections:
            for status in connection.refusals[told[connection.id] :]:
                told[connection.id] += 1
                path = one_line(connection.path.partition("?")[0], 60)
                _print(as_json, {"event": "refused", "connection": connection.id, "path": path, "status": status})
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
    say(json.dumps(told) if as_json else words, sys.stdout)


# --- TLS and logs ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def certificate(given: argparse.Namespace, *, wanted: bool) -> Iterator[tuple[ssl.SSLContext | None, str | None]]:
    """Yield the context to serve TLS with, and the file of the authority that clients must trust.

    Raises:
        ServingFailed: the files cannot be used, or there is nothing to make a certificate with.
    """
    if given.tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = [path for path in (given.tls_cert, given.tls_key) if path is not None]
        try:
            for path in files:
                path.open("rb").close()  # what loads them does not say which is not there
            context.load_cert_chain(given.tls_cert, given.tls_key, password=_no_password)
        except ssl.SSLError as error:
            reason = (error.reason or "no certificate with its private key in it").lower().replace("_", " ")
            raise ServingFailed(f"{' and '.join(map(str, files))} cannot be used for TLS: {reason}") from None
        except OSError as error:
            raise ServingFailed(f"{error.filename}: {error.strerror}") from None
        yield context, None
        return
    if not wanted:
        yield None, None
        return
    try:
        import trustme
    except ImportError:
        raise ServingFailed(
            "--tls makes its certificate with trustme: python -m pip install trustme; or give --tls-cert and --tls-key"
        ) from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "::1", given.host).configure_cert(context)
    with authority.cert_pem.tempfile() as path:
        yield context, path


def _no_password() -> NoReturn:
    raise ServingFailed("the key of --tls-key is encrypted; give one that is not")


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
