"""The state that all connections of a simulator share: who answers, how, what may be continued, and what was seen."""

from __future__ import annotations

import copy
import logging
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
import trio

from .brain import AnyBrain, Calculator, ask_steps
from .history import Held, Library
from .moments import Error
from .pace import Pace
from .quirks import Handshake, Quirks
from .records import ConnectionRecord, RequestLog, RequestRecord
from .wire import ApiError, Ids, Item

if TYPE_CHECKING:
    from .background import Background
    from .requests import Asked
    from .stage import Stage
from .step import Step

__all__ = ["ControlRoute", "Options", "SimulationFailed", "Tap", "TapKind", "World"]

ControlRoute: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], Awaitable[tuple[int, Any]]]
"""Serves a request for method, target, header fields and body: returns a status, and what is sent as JSON."""

TapKind: TypeAlias = Literal["open", "in", "answer", "out", "end"]
Tap: TypeAlias = "Callable[[ConnectionRecord, TapKind, str | bytes | Mapping[str, Any]], None]"
"""Told of a connection, of what kind, and the payload: ``open`` (an upgrade or an HTTP request: method, path, header
fields), ``in`` (a frame or a body), ``answer`` (status and header fields), ``out`` (a frame, an event's data or a whole
body), ``end`` (the answer's end, or a WebSocket's with its code)."""

_logger = logging.getLogger(__name__)


class SimulationFailed(AssertionError):
    """A strict simulator has something to complain about; raised when its block is left.

    Attributes:
        problems: The mistakes, one text each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


@attrs.frozen(kw_only=True)
class Options:
    """The arguments of `engine.simulator.open_simulator`; its docstring says what each means."""

    host: str
    port: int
    in_memory: bool
    roots: tuple[str, ...]
    brain: AnyBrain | None
    strict: bool
    pace: Pace
    api_key: str | None = attrs.field(repr=False)
    connection_lifetime: float
    max_message_bytes: int
    max_http_bytes: int
    max_active: int
    max_lanes: int
    compress: bool
    events_per_write: int
    ssl_context: ssl.SSLContext | None
    handshakes: tuple[Handshake, ...]
    every_handshake: Handshake
    posts: tuple[Handshake, ...]
    every_post: Handshake
    quirks: Quirks
    accept_parameters: Collection[str]
    models: Collection[str] | None
    endpoint_options: Mapping[str, Any]
    seed: int | None
    remembered: int


class World:
    """The server without its doors: connections know this, and nothing of how they were opened.

    Attributes:
        brain: The brain that answers. May be replaced at any time.
        pace: The pace of text where neither a rule nor a step says so. May be replaced at any time.
        quirks: The ways in which the wire deviates. May be replaced at any time.
        handshakes: The answers to the next upgrade requests, first one first; then `every_handshake` applies.
        every_handshake: The answer to all other upgrade requests.
        posts: The answers to the next ``POST …/responses``, first one first; then `every_post` applies.
        every_post: The answer to all others.
        requests: Every request, in order of arrival.
        connections: Every connection, in order of arrival.
        conversations: Items of the conversations that requests may name.
        notes: The time when each of these was made, and its metadata.
        background: Responses made with ``background: true``.
        nursery: Runs these.
        started: Unix time of the start.
        errors: The exceptions of brains, or of the simulator itself; empty in a sound test.
        library: Stored responses.
        control: Serves what is asked for under ``/__simulator/``; nothing by default.
        taps: Told of everything that passes; see `Tap`.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.brain: AnyBrain = Calculator() if options.brain is None else options.brain
        self.pace: Pace = options.pace
        self.quirks: Quirks = options.quirks
        self.handshakes: deque[Handshake] = deque(options.handshakes)
        self.every_handshake: Handshake = options.every_handshake
        self.posts: deque[Handshake] = deque(options.posts)
        self.every_post: Handshake = options.every_post
        self.requests: RequestLog = RequestLog()
        self.connections: list[ConnectionRecord] = []
        self.conversations: dict[str, list[Item]] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.background: dict[str, Background] = {}
        self.errors: list[Exception] = []
        self.library: Library = Library(options.remembered)
        self.ids: Ids = Ids(options.seed)
        self.max_active: int = options.max_active
        self.max_lanes: int = options.max_lanes
        self.max_message_bytes: int = options.max_message_bytes
        self.max_http_bytes: int = options.max_http_bytes
        self.connection_lifetime: float = options.connection_lifetime
        self.accept_parameters: frozenset[str] = frozenset(options.accept_parameters)
        self.models: frozenset[str] | None = None if options.models is None else frozenset(options.models)
        self.control: ControlRoute | None = None
        self.taps: list[Tap] = []
        self._gates: dict[str, trio.Event] = {}
        self._count = 0
        self._executed_before = 0  # requests whose records are gone
        self.started: float = time.time()
        self.nursery: trio.Nursery | None = None
        self._epoch = self.started - trio.current_time()

    # --- what tests ask of it ---

    def history(self, response_id: str) -> list[Item]:
        """Return the whole conversation up to the end of a response: input and output items, in order.

        Raises:
            KeyError: no such response has ended.
        """
        return copy.deepcopy(list(self._ended(response_id).items))

    def response(self, response_id: str) -> dict[str, Any]:
        """Return the final Response object of any ended response, stored or not.

        Raises:
            KeyError: no such response has ended.
        """
        return copy.deepcopy(self._ended(response_id).response)

    def _ended(self, response_id: str) -> Held:
        held = self.library.transcript(response_id)
        if held is None:
            raise KeyError(response_id)
        return held

    @property
    def open_connections(self) -> list[ConnectionRecord]:
        """Connections whose socket is still there."""
        return [record for record in self.connections if record.open]

    @property
    def executed(self) -> int:
        """The number of requests it began to answer, without refused ones; a steered continuation is not one more."""
        return self._executed_before + sum(_counts(record) for record in self.requests)

    def executed_by(self, tag: str) -> dict[str, list[RequestRecord]]:
        """Return the records of executed requests by what their ``metadata`` has under ``tag``; others are left out."""
        groups: dict[str, list[RequestRecord]] = {}
        for record in self.requests:
            value = record.tag(tag)
            if value is not None and _counts(record):
                groups.setdefault(value, []).append(record)
        return groups

    # --- what connections ask of it ---

    def now(self) -> float:
        """Return Unix time; it moves with Trio's clock."""
        return self._epoch + trio.current_time()

    def under_root(self, path: str) -> str | None:
        """Return what stands behind the root in a request's path, such as ``responses``; None outside all roots."""
        for root in self.options.roots:
            if path.startswith(root + "/"):
                return path[len(root) + 1 :]
        return None

    def nothing_here(self) -> ApiError:
        """Return the answer to a request for an address that there is not."""
        roots = " and ".join(self.options.roots)
        return ApiError(404, None, f"There is nothing at this address; the API is under {roots}.")

    def start(self, background: Background) -> None:
        """Have a response run by itself."""
        assert self.nursery is not None
        while len(self.background) >= self.options.remembered:
            oldest = next(iter(self.background))
            self.background.pop(oldest).cancel()
        self.background[background.stage.response_id] = background
        self.nursery.start_soon(background.run)

    def response_as_it_stands(self, response_id: str) -> dict[str, Any]:
        """Return a stored response, or one that runs in the background.

        Raises:
            ApiError: there is none.
        """
        held = self.library.stored(response_id)
        if held is not None:
            return held.response
        if response_id in self.background:
            return self.background[response_id].response
        raise ApiError(404, None, f"Response with id '{response_id[:80]}' not found.")

    def authorise(self, record: ConnectionRecord) -> None:
        """Raise the documented 401 unless the bearer is right."""
        given = record.authorization
        if given is None or not given.startswith("Bearer ") or not given[7:].strip():
            raise ApiError(401, None, "No API key was sent. Send it as a bearer in the Authorization header.")
        if self.options.api_key is not None and given[7:].strip() != self.options.api_key:
            raise ApiError(401, "invalid_api_key", "Incorrect API key provided.")

    def note_request(
        self, connection: ConnectionRecord, transport: Literal["websocket", "http"], body: Mapping[str, Any], size: int
    ) -> RequestRecord:
        """Record a request."""
        previous = body.get("previous_response_id")
        record = RequestRecord(
            self._count,
            connection.id,
            transport,
            body,
            size,
            previous_response_id=previous if isinstance(previous, str) else None,
            received_at=trio.current_time(),
            headers=connection.headers,
            frames=None if self.control is None else [],
        )
        self._count += 1
        self.requests.append(record)
        connection.requests.append(record)
        forgotten = self.requests[: -self.options.remembered]
        self._executed_before += sum(_counts(each) for each in forgotten)
        del self.requests[: len(forgotten)]
        del connection.requests[: -self.options.remembered]
        return record

    async def steps_for(self, asked: Asked) -> list[Step]:
        """Return what the brain answers; nothing for a warm-up, an error when the brain breaks."""
        if not asked.generate and not getattr(self.brain, "warm_ups", False):
            return []
        try:
            return await ask_steps(self.brain, asked)
        except Exception as error:
            self.errors.append(error)
            _logger.exception("the brain could not answer")
            return [Error(500, message=f"The simulator's brain raised {type(error).__name__}.")]

    def gate(self, name: str) -> trio.Event:
        """Return the gate of this name, which `Gate` steps wait at: ``set()`` opens it."""
        return self._gates.setdefault(name, trio.Event())

    def problems(self) -> list[str]:
        """Return what a strict simulator complains about: errors of the brain, and turns that were never used."""
        found = [f"{type(error).__name__}: {error}" for error in self.errors]
        problems = getattr(self.brain, "problems", None)
        return found if problems is None else [*found, *problems()]

    def judge(self) -> None:
        """Raise what a strict simulator complains about.

        Raises:
            SimulationFailed: there is something; its cause is the first error.
        """
        problems = self.problems()
        if problems:
            raise SimulationFailed(problems) from (self.errors[0] if self.errors else None)

    def reset(self) -> None:
        """Forget every request, stored response, gate and error; connections and the brain stay as they are."""
        for connection in self.connections:
            connection.requests.clear()
        for kept in (self.requests, self.conversations, self.notes, self.background, self.errors, self._gates):
            kept.clear()
        self.library = Library(self.options.remembered)
        self._executed_before = 0

    def tell(self, connection: ConnectionRecord, kind: TapKind, payload: str | bytes | Mapping[str, Any]) -> None:
        """Tell the taps of what passes."""
        for tap in self.taps:
            tap(connection, kind, payload)

    def remember(self, stage: Stage, held: Held) -> None:
        """Take a finished response into the library and its conversation."""
        self.library.add(held)
        conversation = stage.asked.body.get("conversation")
        if conversation is not None:
            name = conversation["id"] if isinstance(conversation, dict) else conversation
            self.conversations[name] = list(held.items)


def _counts(record: RequestRecord) -> bool:
    return record.executed and record.successor_of is None
