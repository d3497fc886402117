"""Steps and answers as script files write them: an object with one member, whose name is the step's."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from .checks import ScriptError
from .content import Call, CustomCall, Json, RawItem, Refuse, Say, Think
from .faults import (
    Abort,
    Binary,
    Close,
    Comment,
    CutMidFrame,
    Deaf,
    Keepalive,
    Late,
    Mute,
    Oversized,
    Ping,
    Raw,
    Stall,
    WrongJson,
)
from .hosted import (
    ApplyPatch,
    Audio,
    CodeInterpreter,
    Compaction,
    Computer,
    FileSearch,
    ImageGeneration,
    LocalShell,
    McpApproval,
    McpCall,
    McpListTools,
    Shell,
    ShellOutput,
    ToolSearch,
    WebSearch,
)
from .moments import (
    Abandon,
    AwaitOutputs,
    CallDelta,
    Completed,
    Created,
    Delay,
    EndItem,
    Error,
    Event,
    Failed,
    Gate,
    Incomplete,
    InProgress,
    SayDelta,
    ThinkDelta,
    With,
)
from .pace import Pace
from .places import Path
from .quirks import Accept, Garbage, Handshake, HangUp, Ignore, Reject
from .step import Step

__all__ = ["ANSWERS", "STEPS", "as_it_is", "read_answer", "read_members", "read_pace", "read_step", "read_turn"]

Reader: TypeAlias = Callable[[Any, Path], Any]


# --- plain members ---------------------------------------------------------------------------------------------------


def as_it_is(value: Any, path: Path) -> Any:
    """Take any value; what it is put into checks it."""
    return value


def milliseconds(value: Any, path: Path) -> float:
    """Take milliseconds as seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ScriptError(f"milliseconds are a number, 0 or more, not {shown(value)}", path)
    return value / 1000


def encoded(value: Any, path: Path) -> bytes:
    """Take bytes in base64."""
    try:
        return base64.b64decode(text(value, path), validate=True)
    except binascii.Error:
        raise ScriptError("this is not base64", path) from None


def text(value: Any, path: Path) -> str:
    """Take text."""
    if not isinstance(value, str):
        raise ScriptError(f"this is a text, not {shown(value)}", path)
    return value


def flag(value: Any, path: Path) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise ScriptError(f"this is true or false, not {shown(value)}", path)
    return value


def whole(value: Any, path: Path) -> int:
    """Take a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ScriptError(f"this is a whole number from 1, not {shown(value)}", path)
    return value


def texts(value: Any, path: Path) -> tuple[str, ...]:
    """Take an array of texts."""
    if not isinstance(value, list):
        raise ScriptError(f"this is an array of texts, not {shown(value)}", path)
    return tuple(text(each, (*path, index)) for index, each in enumerate(value))


def mapping(value: Any, path: Path) -> Mapping[str, Any]:
    """Take an object."""
    if not isinstance(value, dict):
        raise ScriptError(f"this is an object, not {shown(value)}", path)
    return value


def shown(value: Any) -> str:
    """Return what a JSON value is, for an error; texts are not repeated."""
    match value:
        case None | True | False:
            return json.dumps(value)
        case str():
            return "a text"
        case list():
            return "an array"
        case dict():
            return "an object"
    return str(value)


def meant(name: str, known: Iterable[str]) -> str:
    """Return what was probably meant by a name, as the rest of an error's sentence."""
    # The unit that a name wants ("wait_ms") makes it look less alike than it is.
    close = [each for each in known if each.startswith(f"{name}_")] or difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def read_members(value: Any, path: Path, what: str, members: Mapping[str, Reader]) -> dict[str, Any]:
    """Return an object's members, each read by its reader.

    Raises:
        ScriptError: it is no object, or has a member of another name.
    """
    if not isinstance(value, dict):
        raise ScriptError(f"{what} is an object, not {shown(value)}", path)
    for name in value:
        if name not in members:
            raise ScriptError(f"{name!r} is no member of {what}{meant(name, members)}", (*path, name))
    return {name: members[name](each, (*path, name)) for name, each in value.items()}


# --- steps -----------------------------------------------------------------------------------------------------------


def steps(value: Any, path: Path) -> list[Step]:
    """Take an array of steps."""
    if not isinstance(value, list):
        raise ScriptError(f"this is an array of steps, not {shown(value)}", path)
    if not value:
        raise ScriptError("there is no step in this array; to answer nothing, write [{'abandon': true}]", path)
    return [read_step(each, (*path, index)) for index, each in enumerate(value)]


def read_pace(value: Any, path: Path) -> Pace:
    """Read how fast text comes."""
    members = read_members(value, path, "a pace", _PACE)
    if "first_ms" in members:
        members["first"] = members.pop("first_ms")
    pace: Pace = _made(Pace, members, path, {"first": "first_ms"})
    return pace


def _rate(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ScriptError(f"tokens per second are a number above 0, not {shown(value)}", path)
    return value


_PACE: Final[Mapping[str, Reader]] = {"first_ms": milliseconds, "tokens_per_second": _rate, "jitter": as_it_is}


@attrs.frozen
class Form:
    """The spelling of a class in a script.

    Attributes:
        made: The class.
        main: The attribute that the bare value stands for; None where the bare value is true.
        members: Readers of attributes whose value needs more than the class's own checks.
        names: Names of members that differ from their attributes', by attribute.
        open: Whether the value is always the main attribute, since it may be an object itself.
    """

    made: Callable[..., Any]
    main: str | None = None
    members: Mapping[str, Reader] = attrs.field(factory=dict)
    names: Mapping[str, str] = attrs.field(factory=dict)
    open: bool = False

    def written(self) -> dict[str, str]:
        """Return its members as a script writes them, with the attribute of each."""
        if self.open or not isinstance(self.made, type):
            return {}
        named = dict(_MILLISECONDS) | dict(self.names)
        return {named.get(each.name, each.name): each.name for each in _attributes(self.made)}

    def _taken(self) -> str:
        if any(each.default is attrs.NOTHING for each in _attributes(self.made)):
            return "an object"
        return "true, or an object" if self.written() else "true"

    def read(self, value: Any, path: Path, what: str) -> Any:
        """Make one."""
        if self.main is None and value is True:
            return _made(self.made, {}, path, {})
        if isinstance(value, dict) and not self.open:
            written = self.written()
            readers = {name: self.members.get(attribute, _usual(attribute)) for name, attribute in written.items()}
            found = read_members(value, path, what, readers)
            given = {written[name]: each for name, each in found.items()}
            return _made(self.made, given, path, {attribute: name for name, attribute in written.items()})
        if self.main is None:
            raise ScriptError(f"{what} takes {self._taken()}, not {shown(value)}", path)
        return _made(self.made, {self.main: self.members.get(self.main, as_it_is)(value, path)}, path, {self.main: ""})


_MILLISECONDS: Final = {"pause": "pause_ms", "after": "after_ms", "delay": "delay_ms", "linger": "linger_ms"}


def _attributes(made: Callable[..., Any]) -> list[attrs.Attribute[Any]]:
    fields: Callable[[Any], tuple[attrs.Attribute[Any], ...]] = attrs.fields
    return [each for each in fields(made) if each.init] if isinstance(made, type) else []


def _usual(attribute: str) -> Reader:
    return milliseconds if attribute in _MILLISECONDS else as_it_is


def _made(made: Callable[..., Any], given: Mapping[str, Any], path: Path, names: Mapping[str, str]) -> Any:
    """Make it, and tell of a member that the class refuses by the member's name in the script."""
    try:
        return made(**given)
    except ScriptError as error:
        inner = tuple(names.get(part, part) if isinstance(part, str) else part for part in error.path)
        raise ScriptError(error.problem, (*path, *(part for part in inner if part != ""))) from None
    except TypeError:
        missing = [each.name for each in _attributes(made) if each.default is attrs.NOTHING and each.name not in given]
        named = names.get(missing[0], missing[0]) if missing else "something"
        raise ScriptError(f"{named!r} is missing", path) from None


def _abort(reset: bool = False) -> Abort:
    return Abort(reset=reset)


def _how(value: Any, path: Path) -> bool:
    if value not in ("reset", "eof"):
        raise ScriptError(f"this is 'reset' or 'eof', not {value!r}", path)
    return bool(value == "reset")


def _completed(value: Any, path: Path) -> Completed:
    fields = {} if value is True else dict(mapping(value, path))
    return Completed(usage=fields.pop("usage", None), **fields)


STEPS: Final[Mapping[str, Form | Reader]] = {
    "say": Form(Say, "text"),
    "think": Form(Think, "summary"),
    "refuse": Form(Refuse, "text"),
    "json": Form(Json, "value", open=True),
    "call": Form(Call),
    "custom_call": Form(CustomCall),
    "item": Form(RawItem, "item", open=True),
    "raw_item": Form(RawItem),
    "web_search": Form(WebSearch, "query"),
    "file_search": Form(FileSearch, "queries"),
    "code_interpreter": Form(CodeInterpreter, "code"),
    "image_generation": Form(ImageGeneration, "result"),
    "mcp_list_tools": Form(McpListTools, "server_label"),
    "mcp_call": Form(McpCall, "name"),
    "mcp_approval": Form(McpApproval, "name"),
    "compaction": Form(Compaction),
    "audio": Form(Audio, "chunks"),
    "shell": Form(Shell, "commands"),
    "shell_output": Form(ShellOutput),
    "local_shell": Form(LocalShell, "command"),
    "apply_patch": Form(ApplyPatch),
    "computer": Form(Computer),
    "tool_search": Form(ToolSearch),
    "event": Form(Event, "event", open=True),
    "delta": Form(SayDelta, "text"),
    "think_delta": Form(ThinkDelta, "text"),
    "call_delta": Form(CallDelta, "text"),
    "created": Form(Created),
    "in_progress": Form(InProgress),
    "end_item": Form(EndItem),
    "completed": _completed,
    "incomplete": Form(Incomplete, "reason"),
    "fail": Form(Failed, "code"),
    "error": Form(Error, "status"),
    "with": Form(With, members={"pace": read_pace}),
    "wait_ms": Form(Delay, "seconds", {"seconds": milliseconds}, open=True),
    "gate": Form(Gate, "event", {"event": text}, open=True),
    "stall": Form(Stall),
    "await_outputs": Form(AwaitOutputs),
    "abandon": Form(Abandon),
    "mute": Form(Mute),
    "deaf": Form(Deaf),
    "close": Form(Close, "code"),
    "abort": Form(_abort, "reset", {"reset": _how}, open=True),
    "cut_frame": Form(CutMidFrame, "fraction"),
    "raw": Form(Raw, "text"),
    "wrong_json": Form(WrongJson),
    "binary": Form(Binary, "data", {"data": encoded}, open=True),
    "oversized": Form(Oversized, "size"),
    "keepalive": Form(Keepalive),
    "comment": Form(Comment, "text"),
    "ping": Form(Ping),
    "late": Form(Late, members={"steps": steps}),
}


def read_step(value: Any, path: Path) -> Step:
    """Read a text or a step.

    Raises:
        ScriptError: it is neither.
    """
    if isinstance(value, str):
        return Say(value)
    if not isinstance(value, dict):
        raise ScriptError(f"a step is a text, or an object with one member, not {shown(value)}", path)
    return _one(value, path, "step", STEPS)  # type: ignore[no-any-return]


def _one(value: Mapping[str, Any], path: Path, what: str, kinds: Mapping[str, Form | Reader]) -> Any:
    """Read an object with one member, whose name says what it is."""
    for name in value:
        if name not in kinds:
            raise ScriptError(f"{name!r} is no {what}{meant(name, kinds)}", (*path, name))
    if len(value) != 1:
        raise ScriptError(f"a {what} is an object with one member, and this one has {len(value)}", path)
    ((name, inner),) = value.items()
    form = kinds[name]
    return form.read(inner, (*path, name), f"{name!r}") if isinstance(form, Form) else form(inner, (*path, name))


def read_turn(value: Any, path: Path) -> str | list[Step]:
    """Read what a request is answered with: a text, a step, or an array of both.

    Raises:
        ScriptError: it is neither, or the array is empty.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return steps(value, path)
    return [read_step(value, path)]


# --- handshakes and posts --------------------------------------------------------------------------------------------


def _hang_up(reset: bool = False) -> HangUp:
    return HangUp(reset=reset)


def _status(value: Any, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise ScriptError(f"a status is a number from 200 to 599, not {shown(value)}", path)
    return value


def _headers(value: Any, path: Path) -> dict[str, str]:
    return {name: text(each, (*path, name)) for name, each in mapping(value, path).items()}


def _body(value: Any, path: Path) -> Any:
    return value if isinstance(value, (str, dict)) or value is None else str(value)


ANSWERS: Final[Mapping[str, Form]] = {
    "accept": Form(Accept, members={"headers": _headers}, names={"close_code": "close"}),
    "refuse": Form(Reject, "status", {"body": _body, "status": _status, "headers": _headers}),
    "hang_up": Form(_hang_up, "reset", {"reset": _how}, open=True),
    "ignore": Form(Ignore),
    "garbage": Form(Garbage, "data", {"data": lambda value, path: text(value, path).encode()}),
}


def read_answer(value: Any, path: Path) -> Handshake:
    """Read how an upgrade or a POST is answered.

    Raises:
        ScriptError: it is no such answer.
    """
    if not isinstance(value, dict):
        raise ScriptError(f"an answer is an object with one member, not {shown(value)}", path)
    return _one(value, path, "answer", ANSWERS)  # type: ignore[no-any-return]
