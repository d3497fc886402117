"""Snapshots: conversations and sessions as plain data, which another process goes on with.

A snapshot says what cannot be had again: the transcript, what is under way, and which response the server stores. Of
that response's items it has marks, hashes of their canonical form, so that it stays small. It holds no key, no header
and no function: those are given anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
from attrs import field, frozen

from engine.conversation.rounds import Progress
from engine.protocol.chain import HeldResponse, Mark
from engine.schemas.answer_format import wire_format
from engine.schemas.fit import Misfit
from engine.schemas.transcripts import misread, read_as, written
from engine.settings.levels import Settings
from engine.settings.limits import Limits
from engine.settings.retry import RetryPolicy
from engine.settings.timeouts import Timeouts
from engine.settings.turn_options import TurnOptions
from engine.turns.lane import Lane
from engine.values.checks import check_name, wrong_type
from engine.values.messages import AssistantMessage, Message, ToolResult
from engine.values.problems import ConfigurationError
from engine.values.usage import Usage

__all__ = [
    "ConversationState",
    "Memory",
    "Snapshot",
    "conversation_from",
    "conversation_snapshot",
    "session_from",
    "session_snapshot",
]

Snapshot: TypeAlias = dict[str, Any]
"""JSON-able data."""

_VERSION: Final = 1
_WHERE: Final = "resume"
_NOT_STORED: Final = "the server does not store the last response: the next request is sent whole"
_ELSEWHERE: Final = "the lane has gone on with something else since: the next request is sent whole"


@frozen(kw_only=True)
class Memory:
    """The responses that a server keeps for a lane.

    Attributes:
        server: The server's host.
        held: The newest response that it stores.
    """

    server: str
    held: HeldResponse | None = None

    @classmethod
    def of(cls, lane: Lane) -> Memory:
        """Return the responses that the server keeps for a lane at this moment."""
        return cls(server=lane.pool.endpoint.websocket.hostname or "", held=lane.stored)


@frozen(kw_only=True)
class ConversationState:
    """All of a conversation but its functions.

    Attributes:
        instructions: Instructions for the whole conversation.
        messages: The transcript.
        pending: Messages that join it with the results that the caller owes: a prompt, and the response with the calls.
        interrupted: A prompt that was begun, and what there is of its round.
        options: The requests' options.
        tools: A mark for each tool, by name.
        usage: Tokens of all responses.
        memory: The part of it that the server stores.
    """

    instructions: str | None = None
    messages: tuple[Message, ...] = ()
    pending: tuple[Message, ...] = ()
    interrupted: Progress = field(factory=Progress)
    options: TurnOptions = field(factory=TurnOptions)
    tools: Mapping[str, str] = field(factory=dict)
    usage: Usage = field(factory=Usage)
    memory: Memory | None = None


# --- writing ---------------------------------------------------------------------------------------------------------


def conversation_snapshot(state: ConversationState) -> Snapshot:
    """Return a conversation as plain data.

    Raises:
        ConfigurationError: something in it has no JSON form; ``field`` says what.
    """
    lost: dict[str, str] = {}
    under_way = state.interrupted
    return _plain(
        {
            "kind": "conversation",
            "version": _VERSION,
            "instructions": state.instructions,
            "messages": written(state.messages),
            "pending": written(state.pending),
            "interrupted": {
                "prompt": written(under_way.prompt),
                "response": None if under_way.response is None else written([under_way.response])[0],
                "results": written(under_way.results.values()),
            }
            if under_way
            else None,
            "options": _written_options(state.options, lost),
            "tools": dict(state.tools),
            "usage": attrs.asdict(state.usage),
            "held": _written_memory(state, lost),
            "lost": lost,
        }
    )


def _written_options(options: TurnOptions, lost: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for attribute in attrs.fields(TurnOptions):
        value, name = getattr(options, attribute.name), attribute.name
        if value == _NO_OPTION[name]:
            continue
        if name == "payload_hook":
            lost["options.payload_hook"] = "is a function: give it anew"
        elif name == "text_format" and not isinstance(value, Mapping):
            lost["options.text_format"] = "is a type: its schema is kept, and answers are parsed as JSON"
            values[name] = wire_format(value)["schema"]
        else:
            values[name] = value
    return values


def _written_memory(state: ConversationState, lost: dict[str, str]) -> dict[str, Any] | None:
    everything = (*state.messages, *state.pending)
    last = next((each for each in reversed(everything) if isinstance(each, AssistantMessage)), None)
    if last is None:
        return None
    memory = state.memory
    if memory is None or memory.held is None:
        lost["held"] = _NOT_STORED
    elif memory.held.response_id != last.response_id:
        lost["held"] = _ELSEWHERE
    else:
        return {"server": memory.server, **_written_held(memory.held)}
    return None


def _written_held(held: HeldResponse) -> dict[str, Any]:
    return {
        "response_id": held.response_id,
        "marks": [str(Mark.of(item)) for item in held.items],
        "fields": dict(held.fields),
    }


def session_snapshot(settings: Settings, server: str, lanes: Mapping[str, HeldResponse | None]) -> Snapshot:
    """Return a session as plain data.

    Args:
        settings: The settings of its turns.
        server: The server's host.
        lanes: The response that the server stores for each lane, by the lane's name; the session's own is called "".

    Raises:
        ConfigurationError: something in it has no JSON form; ``field`` says what.
    """
    groups = {name: getattr(settings, name) for name in _GROUPS}
    return _plain(
        {
            "kind": "session",
            "version": _VERSION,
            "model": settings.model,
            "settings": {
                **{name: _written_group(group) for name, group in groups.items()},
                "on_cancel": settings.on_cancel.value,
                "transport": settings.transport.value,
            },
            "server": server,
            "lanes": {
                name: {
                    "held": None if held is None else _written_held(held),
                    "lost": {} if held is not None else {"held": _NOT_STORED},
                }
                for name, held in lanes.items()
            },
        }
    )


def _written_group(group: Any) -> dict[str, Any]:
    values = attrs.asdict(group, recurse=False)
    values.pop("jitter", None)  # a function
    return {name: None if value == math.inf else value for name, value in values.items()}


def _plain(data: dict[str, Any]) -> Snapshot:
    """Return a copy that holds nothing but what JSON has."""
    for name, value in data.items():
        try:
            data[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            break
    else:
        return data
    raise ConfigurationError(f"snapshot.{name}", "holds a value that cannot be written as JSON")


# --- reading ---------------------------------------------------------------------------------------------------------


def conversation_from(data: object, server: str) -> ConversationState:
    """Return the conversation that `conversation_snapshot` wrote.

    Args:
        data: The snapshot.
        server: The host of the server that the conversation goes on with.

    Raises:
        ConfigurationError: it is no such snapshot, of a later version, or of a response that another server stores;
            ``field`` says where.
    """
    whole = _opened(data, "conversation", _OF_CONVERSATIONS)
    held = _read(whole, "held", dict[str, Any] | None)
    memory = None
    if held is not None:
        known = str(held.pop("server", ""))
        memory = Memory(server=known, held=_read_held(held, "held"))
        if known != server:
            raise ConfigurationError(
                "resume.held.server",
                f"was {known or 'not said'}, and the session talks to {server}; without held all of it is sent",
            )
    under_way = _read(whole, "interrupted", dict[str, Any] | None)
    return ConversationState(
        instructions=_read(whole, "instructions", str | None),
        messages=_read(whole, "messages", tuple[Message, ...]),
        pending=_read(whole, "pending", tuple[Message, ...]),
        interrupted=Progress() if under_way is None else _read_progress(under_way),
        options=_read_options(_read(whole, "options", dict[str, Any])),
        tools=_read(whole, "tools", dict[str, str]),
        usage=_read(whole, "usage", Usage),
        memory=memory,
    )


def _read_progress(value: dict[str, Any]) -> Progress:
    where = "interrupted"
    _refuse_unknown(value, {"prompt", "response", "results"}, where)
    response = None if value.get("response") is None else _read(value, "response", Message, where)
    if response is not None and not isinstance(response, AssistantMessage):
        raise ConfigurationError(f"resume.{where}.response", "is not what the model answered")
    prompt = _read(value, "prompt", tuple[Message, ...], where)
    results = _read(value, "results", tuple[Message, ...], where)
    for number, result in enumerate(results):
        if not isinstance(result, ToolResult):
            raise ConfigurationError(f"resume.{where}.results[{number}]", "is not what a tool gave back")
    return Progress(
        prompt=prompt,
        response=response,
        results={result.call_id: result for result in results},
    )


def _read_options(values: dict[str, Any]) -> TurnOptions:
    _refuse_unknown(values, _NO_OPTION, "options")
    options: TurnOptions = _made(TurnOptions, values, "")
    return options


def _read_held(value: dict[str, Any], where: str) -> HeldResponse:
    _refuse_unknown(value, {"response_id", "marks", "fields"}, where)
    return HeldResponse(
        _read(value, "response_id", str, where),
        tuple(map(Mark, _read(value, "marks", list[str], where))),
        _read(value, "fields", dict[str, Any], where),
    )


def session_from(data: object, server: str) -> tuple[dict[str, Any], dict[str, HeldResponse]]:
    """Return what `session_snapshot` wrote: the arguments that set up such a session, and what is stored by lane.

    Args:
        data: The snapshot.
        server: The host of the server that the session goes on with.

    Raises:
        ConfigurationError: it is no such snapshot, of a later version, or of responses that another server stores;
            ``field`` says where.
    """
    whole = _opened(data, "session", _OF_SESSIONS)
    settings = _read(whole, "settings", dict[str, Any])
    _refuse_unknown(settings, {*_GROUPS, "on_cancel", "transport"}, "settings")
    lanes: dict[str, HeldResponse] = {}
    for name, lane in _read(whole, "lanes", dict[str, dict[str, Any]]).items():
        if name:  # the session's own lane has none
            check_name("resume.lanes", name)
        _refuse_unknown(lane, {"held", "lost"}, f"lanes.{name}")
        held = _read(lane, "held", dict[str, Any] | None, f"lanes.{name}")
        if held is not None:
            lanes[name] = _read_held(held, f"lanes.{name}.held")
    known = _read(whole, "server", str)
    if lanes and known != server:
        raise ConfigurationError(
            "resume.server", f"was {known}, and the engine talks to {server}; without lanes all of it is sent"
        )
    arguments = {
        name: _made(kind, _read(settings, name, dict[str, Any], "settings"), "settings.")
        for name, kind in _GROUPS.items()
    }
    for name in ("on_cancel", "transport"):
        arguments[name] = _read(settings, name, str, "settings")
    return {"model": _read(whole, "model", str | None), **arguments}, lanes


def _opened(data: object, kind: str, names: frozenset[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise wrong_type(_WHERE, data, "a snapshot")
    whole = dict(data)
    if whole.get("kind") != kind:
        raise ConfigurationError("resume.kind", f"is not {kind!r}: this is no snapshot of a {kind}")
    version = whole.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigurationError("resume.version", "is not the number of a version")
    if version > _VERSION:
        raise ConfigurationError(
            "resume.version", f"is {version}: a later version of the library wrote it, and this one reads {_VERSION}"
        )
    _refuse_unknown(whole, names, "")
    return whole


def _refuse_unknown(value: Mapping[str, Any], names: Any, where: str) -> None:
    for name in value:
        if name not in names:
            raise misread(Misfit(((name,), "is not known")), ".".join(filter(None, (_WHERE, where))))


def _read(value: Mapping[str, Any], name: str, kind: Any, where: str = "") -> Any:
    try:
        return read_as(value.get(name), kind)
    except Misfit as misfit:
        problem = misread(misfit.under(name), ".".join(filter(None, (_WHERE, where))))
    raise problem


def _made(kind: Callable[..., Any], values: Mapping[str, Any], section: str) -> Any:
    try:
        return kind(**values)
    except ConfigurationError as error:
        problem = ConfigurationError(f"{_WHERE}.{section}{error.field}", error.problem)
    except TypeError:
        problem = ConfigurationError(f"{_WHERE}.{section}".rstrip("."), "holds a setting that is not known")
    raise problem


_GROUPS: Final[Mapping[str, Callable[..., Any]]] = {"timeouts": Timeouts, "limits": Limits, "retry": RetryPolicy}
_NO_OPTION: Final = attrs.asdict(TurnOptions(), recurse=False)
_OF_CONVERSATIONS: Final = frozenset(
    {
        *("kind", "version", "instructions", "messages", "pending", "interrupted", "options", "tools", "usage"),
        *("held", "lost"),
    }
)
_OF_SESSIONS: Final = frozenset({"kind", "version", "model", "settings", "server", "lanes"})
