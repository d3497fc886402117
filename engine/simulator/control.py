"""The control route: what a test in any language may ask of a running simulator, and do to it, over HTTP."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import trio

from .checks import ScriptError
from .frame_log import Redaction, payload_fields
from .records import CONTROL_ROUTE
from .requests import Asked, normalise_input
from .rulebook import SCOPE_HEADER, Rulebook
from .script_file import read_quirks, read_rules, read_when
from .script_steps import as_it_is, read_members
from .wire import ApiError

if TYPE_CHECKING:
    from .records import ConnectionRecord, RequestRecord
    from .script import Rule
    from .server import Simulator

__all__ = ["Control"]

_ROUTES: Final = (
    "GET health",
    "GET rules",
    "GET rules/unused",
    "POST rules",
    "PUT rules",
    "DELETE rules",
    "DELETE rules/ID",
    "GET requests",
    "GET requests/NUMBER",
    "GET requests/unmatched",
    "POST requests/wait",
    "DELETE requests",
    "GET connections",
    "POST connections/ID/close",
    "POST connections/ID/abort",
    "POST connections/ID/events",
    "POST gates/NAME/open",
    "PATCH server",
    "POST verify",
    "POST reset",
)
_MAX_WAIT_MS: Final = 600_000
_WATCH_SECONDS: Final = 0.01

Answer = tuple[int, Any]


class _Problem(Exception):
    """A request that cannot be served, with the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """Serves the control route of one simulator.

    Attributes:
        token: The token that the ``Authorization: Bearer`` field of every request but ``health`` must hold.
    """

    def __init__(self, simulator: Simulator, rules: Rulebook, *, token: str, version: str) -> None:
        self.token: str = token
        self._simulator = simulator
        self._rules = rules
        self._version = version
        self._redaction = Redaction()

    async def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a request: a status, and what is sent as JSON."""
        await trio.lowlevel.checkpoint()
        split = urlsplit(target)
        path = split.path.removeprefix(CONTROL_ROUTE).strip("/")
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        if path == "health" and method == "GET":
            return 200, {"status": "ok", "version": self._version}
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return 401, _error("the control token is missing or wrong: Authorization: Bearer <control_token>")
        scope = headers.get(SCOPE_HEADER)
        try:
            return await self._route(method, path.split("/"), query, scope, _json(body))
        except _Problem as problem:
            return problem.status, _error(str(problem))
        except ScriptError as error:
            return 400, _error(str(error))

    async def _route(
        self, method: str, path: list[str], query: Mapping[str, str], scope: str | None, body: Any
    ) -> Answer:
        match method, path:
            case "GET", [""]:
                return 200, {"routes": _ROUTES}
            case "POST" | "PUT" | "DELETE", ["rules"]:
                return self._change_rules(method, query, scope, body)
            case "GET", ["rules"]:
                return 200, [self._shown_rule(scope, rule) for rule in self._rules.script(scope).rules]
            case "GET", ["rules", "unused"]:
                return 200, [self._shown_rule(owner, rule) for owner, rule in self._rules.unused()]
            case "DELETE", ["rules", identity]:
                if not self._rules.remove(identity):
                    raise _Problem(404, f"there is no rule {identity!r}")
                return 200, {}
            case "GET", ["requests"]:
                read_members(dict(query), (), "the query", {"after": as_it_is, "text": as_it_is})
                return 200, [self._shown(record) for record in self._found(query, scope)]
            case "GET", ["requests", "unmatched"]:
                return 200, [self._unmatched(entry) for entry in self._rules.unmatched()]
            case "POST", ["requests", "wait"]:
                return await self._wait(body, scope)
            case "DELETE", ["requests"]:
                self._forget_requests()
                return 200, {}
            case "GET", ["requests", number]:
                return 200, self._whole(self._record(number))
            case "GET", ["connections"]:
                return 200, [self._shown_connection(each) for each in self._simulator.connections if not each.control]
            case "POST", ["connections", number, action]:
                return self._act(self._connection(number), action, body)
            case "POST", ["gates", name, "open"]:
                self._simulator.gate(name).set()
                return 200, {}
            case "PATCH", ["server"]:
                return self._patch(body)
            case "POST", ["verify"]:
                problems = self.problems()
                return (409 if problems else 200), problems
            case "POST", ["reset"]:
                self._simulator.reset()
                self._rules.reset(loaded=not _switch(query, "rules"))
                return 200, {}
        raise _Problem(404, f"there is no {method} {'/'.join(path)}; GET {CONTROL_ROUTE} lists what there is")

    # --- rules ---

    def _change_rules(self, method: str, query: Mapping[str, str], scope: str | None, body: Any) -> Answer:
        read = [] if method == "DELETE" else read_rules(_rules_in(body), ("rules",))
        if method != "POST":
            self._rules.clear()
        first = _switch(query, "first")
        ids = [
            self._rules.add(own if own is not None else scope, rule, first=first)
            for own, rule in (reversed(read) if first else read)
        ]
        return 200, {"ids": ids[::-1] if first else ids}

    def _shown_rule(self, scope: str | None, rule: Rule) -> dict[str, Any]:
        return {
            "id": self._rules.identity(rule),
            "name": rule.name,
            "scope": scope,
            "uses": rule.uses,
            "times": rule.times,
            "required": rule.required,
        }

    def problems(self) -> list[dict[str, Any]]:
        """Return what ``verify`` complains about: unused rules, unmatched requests, and errors of the server's."""
        found: list[dict[str, Any]] = [
            {"problem": "unused", "rule": rule.name, "scope": scope} for scope, rule in self._rules.unused()
        ]
        found += [{"problem": "unmatched", **self._unmatched(entry)} for entry in self._rules.unmatched()]
        return found + [{"problem": "failed", "error": type(error).__name__} for error in self._simulator.errors]

    def _unmatched(self, entry: Any) -> dict[str, Any]:
        number = next((each.number for each in self._simulator.requests if each.body is entry.asked.body), None)
        return {
            "request": number,
            "scope": entry.scope,
            "text": entry.asked.last_user_text,
            "near": [{"rule": rule.name, "missed": list(missed)} for rule, missed in entry.near],
        }

    # --- requests ---

    def _scope_of(self, record: RequestRecord) -> str | None:
        return record.headers.get(SCOPE_HEADER)

    def _found(self, query: Mapping[str, str], scope: str | None) -> list[RequestRecord]:
        after = _number(query.get("after", "-1"))
        return [
            record
            for record in self._simulator.requests
            if record.number > after
            and self._scope_of(record) == scope
            and query.get("text", "") in _asked(record).last_user_text
        ]

    async def _wait(self, body: Any, scope: str | None) -> Answer:
        given = _members(body, "count", "when", "timeout_ms")
        count, milliseconds = given.get("count", 1), given.get("timeout_ms", 5000)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise _Problem(400, "'count' is a whole number from 1")
        if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
            raise _Problem(400, "'timeout_ms' is a number")
        when = read_when(given.get("when", {}), ("when",))

        def matching() -> list[RequestRecord]:
            found = [each for each in self._simulator.requests if self._scope_of(each) == scope]
            return [each for each in found if not when.misses(_asked(each))]

        with trio.move_on_after(min(max(milliseconds, 0), _MAX_WAIT_MS) / 1000):
            # Records have no event of their own, and a test that waits is not that pressed.
            while len(matching()) < count:  # noqa: ASYNC110
                await trio.sleep(_WATCH_SECONDS)
        found = matching()
        return (200 if len(found) >= count else 408), [self._shown(each) for each in found]

    def _forget_requests(self) -> None:
        self._simulator.requests.clear()
        self._rules.journal.clear()

    def _record(self, number: str) -> RequestRecord:
        wanted = _number(number)
        for record in self._simulator.requests:
            if record.number == wanted:
                return record
        raise _Problem(404, f"there is no request {number}")

    def _shown(self, record: RequestRecord) -> dict[str, Any]:
        entry = next((each for each in self._rules.journal if each.asked.body is record.body), None)
        return {
            "number": record.number,
            "connection": record.connection_id,
            "transport": _asked(record).transport,
            "scope": self._scope_of(record),
            "lane": record.stream_id,
            "text": _asked(record).last_user_text,
            "model": record.body.get("model"),
            "previous_response_id": record.previous_response_id,
            "response_id": record.response_id,
            "status": record.status,
            "error_code": record.error_code,
            "rule": entry.rule.name if entry is not None and entry.rule is not None else None,
        }

    def _whole(self, record: RequestRecord) -> dict[str, Any]:
        frames = [
            {"at": round((at - record.received_at) * 1000, 1), **payload_fields(payload, self._redaction)}
            for at, payload in record.frames or ()
        ]
        return self._shown(record) | {"body": record.body, "headers": dict(record.headers), "frames": frames}

    # --- connections and the server ---

    def _connection(self, number: str) -> ConnectionRecord:
        wanted = _number(number)
        for record in self._simulator.connections:
            if record.id == wanted:
                return record
        raise _Problem(404, f"there is no connection {number}")

    def _shown_connection(self, record: ConnectionRecord) -> dict[str, Any]:
        return {
            "id": record.id,
            "transport": record.transport,
            "path": record.path,
            "handshake_status": record.handshake_status,
            "open": record.open,
            "close_code": record.close_code,
            "closed_by": record.closed_by,
            "lanes": record.lanes,
            "requests": [each.number for each in record.requests],
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "errors": record.errors,
        }

    def _act(self, record: ConnectionRecord, action: str, body: Any) -> Answer:
        match action:
            case "close":
                given = _members(body, "code", "reason")
                code = given.get("code", 1001)
                if isinstance(code, bool) or not isinstance(code, int) or not 1000 <= code <= 4999:
                    raise _Problem(400, "'code' is a number from 1000 to 4999")
                self._simulator.close(code, str(given.get("reason", "")), connection=record)
            case "abort":
                how = _members(body, "how").get("how", "eof")
                if how not in ("reset", "eof"):
                    raise _Problem(400, "'how' is 'reset' or 'eof'")
                self._simulator.abort(record, reset=how == "reset")
            case "events":
                if not isinstance(body, dict) or "type" not in body:
                    raise _Problem(400, "an event is an object with 'type'")
                if not self._simulator.push(body, connection=record):
                    raise _Problem(409, "the connection is no open WebSocket")
            case _:
                raise _Problem(404, f"a connection has close, abort and events, not {action!r}")
        return 200, {}

    def _patch(self, body: Any) -> Answer:
        if not isinstance(body, dict) or set(body) - {"quirks"}:
            raise _Problem(400, "what can be changed while the server runs is 'quirks'")
        self._simulator.quirks = read_quirks(body.get("quirks", []), ("quirks",))
        return 200, {}


def _asked(record: RequestRecord) -> Asked:
    """Return a request as rules see it, also where it was refused; the history is not looked at."""
    try:
        new_input = tuple(normalise_input(record.body.get("input")))
    except (ApiError, TypeError, AttributeError):
        new_input = ()
    transport: Literal["websocket", "sse", "json"] = "websocket"
    if record.transport == "http":
        transport = "sse" if record.body.get("stream") is True else "json"
    return Asked(record.body, (), new_input, None, transport, record.stream_id, headers=record.headers)


def _json(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Problem(400, "the body is not JSON") from None


def _members(body: Any, *names: str) -> dict[str, Any]:
    """Return the members of a body that may have these, or be none at all."""
    return {} if body is None else read_members(body, (), "the body", dict.fromkeys(names, as_it_is))


def _rules_in(body: Any) -> Any:
    if not isinstance(body, dict) or "rules" not in body:
        raise _Problem(400, 'the body is an object with \'rules\', which is an array: {"rules": [{"reply": "hello"}]}')
    return _members(body, "rules")["rules"]


def _switch(query: Mapping[str, str], name: str) -> bool:
    """Return whether a query turns something on, and refuse anything else in it."""
    read_members(dict(query), (), "the query", {name: as_it_is})
    value = query.get(name, "0")
    if value not in ("", "0", "1", "false", "true"):
        raise _Problem(400, f"{name!r} is 1 or 0")
    return value not in ("0", "false")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _Problem(400, f"{text!r} is no number") from None


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}
