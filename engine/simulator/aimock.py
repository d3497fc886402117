"""Fixture files of the Node mock aimock (``@copilotkit/aimock``), read as rules.

What concerns this API is read: the conditions on text, tools and turns; answers of text, calls, reasoning and errors;
how they are streamed. Fixtures for other endpoints (images, speech, embeddings) are left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from .checks import ScriptError
from .content import Call, Json, Say, Think
from .faults import Abort, WrongJson
from .moments import Completed, Delay, Error, Incomplete
from .pace import Pace
from .places import Path
from .requests import text_of
from .script import Rule, TextMatch, When
from .step import Step

if TYPE_CHECKING:
    from .requests import Asked
    from .stage import Stage

__all__ = ["is_fixtures", "read_fixtures"]

_CHARACTERS: Final = 4  # of a token, about
_CHUNK: Final = 20  # characters of a delta where a fixture does not say
_CHANCES: Final = random.Random(0)  # noqa: S311 - faults by chance, the same ones in each run


def is_fixtures(value: object) -> bool:
    """Return whether a JSON value is a fixture file."""
    return isinstance(value, dict) and isinstance(value.get("fixtures"), list) and "version" not in value


def read_fixtures(value: Mapping[str, Any]) -> Iterator[Rule]:
    """Read the fixtures that are for this API.

    Raises:
        ScriptError: one is none.
    """
    for index, fixture in enumerate(value["fixtures"]):
        path: Path = ("fixtures", index)
        if not isinstance(fixture, dict) or not isinstance(fixture.get("response"), dict):
            raise ScriptError("a fixture is an object with 'match' and 'response'", path)
        match = fixture.get("match", {})
        if not isinstance(match, dict):
            raise ScriptError("'match' is an object", (*path, "match"))
        if match.get("endpoint", "chat") == "chat" and "inputText" not in match:
            yield _placed(fixture, match, path)


def _placed(fixture: Mapping[str, Any], match: Mapping[str, Any], path: Path) -> Rule:
    """Read a fixture; what is wrong with it is told with its place."""
    try:
        return _rule(fixture, match, path)
    except ScriptError as error:
        if error.path[: len(path)] == path:
            raise
        raise ScriptError(error.problem, (*path, *error.path)) from None
    except (TypeError, AttributeError):  # a number where there should be text, or the like
        raise ScriptError("a member of this fixture has a type that it cannot have", path) from None


# --- conditions ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _When(When):
    """The conditions that only fixtures have."""

    system: tuple[str, ...] = ()
    call_id: str | None = None
    result: str | None = None
    has_result: bool | None = None
    turn: int | None = None

    def misses(self, asked: Asked) -> tuple[str, ...]:
        """Return the names of the conditions that a request does not meet."""
        missed = [*super().misses(asked)]
        outputs = asked.outputs
        last = outputs[-1] if outputs else {}
        if self.system and not all(part in _system_text(asked) for part in self.system):
            missed.append("systemMessage")
        if self.call_id is not None and last.get("call_id") != self.call_id:
            missed.append("toolCallId")
        if self.result is not None and self.result not in text_of(last.get("output")):
            missed.append("toolResultContains")
        if self.has_result is not None and _has_result(asked) is not self.has_result:
            missed.append("hasToolResult")
        if self.turn is not None and _turns(asked) != self.turn:
            missed.append("turnIndex")
        return tuple(missed)


def _system_text(asked: Asked) -> str:
    parts = [text_of(asked.body.get("instructions"))]
    parts += [text_of(item.get("content")) for item in asked.items if item.get("role") in {"system", "developer"}]
    return "\n".join(parts)


def _has_result(asked: Asked) -> bool:
    """Return whether an output has come since the newest user message."""
    for item in reversed(asked.items):
        if item.get("role") == "user":
            return False
        if str(item.get("type", "")).endswith("_call_output"):
            return True
    return False


def _turns(asked: Asked) -> int:
    """Return how many turns of the assistant there are: a message and the calls beside it are one."""
    count, inside = 0, False
    for item in asked.items:
        kind = item.get("type", "message")
        answers = (kind == "message" and item.get("role") == "assistant") or kind.endswith("_call")
        count += answers and not inside
        inside = answers or (inside and kind == "reasoning")
    return count


_CONDITIONS: Final = frozenset(
    {"userMessage", "systemMessage", "toolCallId", "toolResultContains", "toolName", "model", "responseFormat"}
    | {"sequenceIndex", "turnIndex", "hasToolResult", "endpoint", "context"}
)


def _when(match: Mapping[str, Any], path: Path) -> _When:
    for name in match:
        if name not in _CONDITIONS:
            raise ScriptError(f"{name!r} is no condition that can be read", (*path, name))
    system = match.get("systemMessage", ())
    form = match.get("responseFormat")
    sequence = match.get("sequenceIndex")
    return _When(
        text=match.get("userMessage"),
        model=TextMatch(equals=match["model"]) if "model" in match else None,
        tool=match.get("toolName"),
        body={"text": {"format": {"type": form}}} if form is not None else {},
        nth=None if sequence is None else sequence + 1,
        system=(system,) if isinstance(system, str) else tuple(system),
        call_id=match.get("toolCallId"),
        result=match.get("toolResultContains"),
        has_result=match.get("hasToolResult"),
        turn=match.get("turnIndex"),
    )


# --- answers ---------------------------------------------------------------------------------------------------------


def _rule(fixture: Mapping[str, Any], match: Mapping[str, Any], path: Path) -> Rule:
    response = fixture["response"]
    profile = fixture.get("streamingProfile") or {}
    timings = fixture.get("recordedTimings") or {}
    pace = None
    if profile:
        first = profile.get("ttft", 0) / 1000
        pace = Pace(first, profile.get("tps"), profile.get("jitter", 0))
    elif timings:
        speed = fixture.get("replaySpeed", 1) or 1
        pace = Pace(timings.get("ttftMs", 0) / 1000 / speed)
    overrides = {name: response[given] for name, given in _OVERRIDES.items() if given in response}
    return _when(match, (*path, "match")).then(
        [*_faults(fixture.get("chaos") or {}), *_steps(fixture, response, (*path, "response"))],
        name=f"fixture {path[-1]}",
        pace=pace,
        usage=_usage(response.get("usage") or {}),
        response=overrides,
    )


_OVERRIDES: Final = {"id": "id", "model": "model", "created_at": "created"}
_USAGE: Final = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def _usage(given: Mapping[str, Any]) -> dict[str, Any]:
    usage: dict[str, Any] = {_USAGE.get(name, name): value for name, value in given.items() if isinstance(value, int)}
    names = ("input_tokens", "output_tokens", "total_tokens")
    counted: dict[str, Any] = {name: usage[name] for name in names if name in usage}
    if "total_tokens" not in counted and {"input_tokens", "output_tokens"} <= set(counted):
        counted["total_tokens"] = counted["input_tokens"] + counted["output_tokens"]
    return counted


def _steps(fixture: Mapping[str, Any], response: Mapping[str, Any], path: Path) -> list[Step]:
    if "error" in response:
        return [_error(response)]
    size = max(1, fixture.get("chunkSize", _CHUNK) // _CHARACTERS)
    pause = fixture.get("latency", 0) / 1000
    steps: list[Step] = []
    if response.get("reasoning"):
        steps.append(Think(response["reasoning"], size=size, pause=pause))
    parts = response.get("blocks")
    if parts is None:
        content = response.get("content")
        parts = [] if content is None else [{"type": "text", "text": content}]
        parts += [{"type": "toolCall", **call} for call in response.get("toolCalls", ())]
    if not parts and not steps:
        raise ScriptError("a response has 'content', 'toolCalls', 'blocks' or 'error'", path)
    for part in parts:
        if part["type"] == "toolCall":
            steps.append(Call(part["name"], _arguments(part), call_id=part.get("id"), size=size, pause=pause))
        elif isinstance(part["text"], str):
            steps.append(Say(part["text"], size=size, pause=pause))
        else:
            steps.append(Json(part["text"], size=size, pause=pause))
    cut = fixture.get("truncateAfterChunks"), fixture.get("disconnectAfterMs")
    if any(bound is not None for bound in cut):
        steps = [_Bounded(tuple(steps), cut[0], None if cut[1] is None else cut[1] / 1000)]
    ends = {"length": "max_output_tokens", "content_filter": "content_filter"}
    finish = response.get("finishReason")
    steps.append(Incomplete(ends[finish]) if finish in ends else Completed())
    return steps


def _arguments(call: Mapping[str, Any]) -> str | Mapping[str, Any]:
    arguments: Any = call.get("arguments", "{}")
    return arguments if isinstance(arguments, (str, dict)) else str(arguments)


def _error(response: Mapping[str, Any]) -> Error:
    error, status = response["error"], response.get("status", 500)
    headers = {"retry-after": str(response.get("retryAfter", 1))} if status == 429 else {}
    known = {name: error[name] for name in ("message", "type", "code", "param") if error.get(name) is not None}
    return Error(status, headers=headers, **known)


# --- faults ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Bounded(Step):
    """Steps that the connection's end may cut short: after some deltas, or after a time."""

    steps: tuple[Step, ...]
    deltas: int | None
    seconds: float | None

    async def perform(self, stage: Stage) -> None:
        """Do them, and drop the connection where the bound is reached."""
        with trio.move_on_after(float("inf") if self.seconds is None else self.seconds) as scope:
            if self.deltas is None:
                for step in self.steps:
                    await step.perform(stage)
            else:
                await self._some(stage, self.deltas)
        if scope.cancelled_caught or self.deltas is not None:
            await Abort().perform(stage)

    async def _some(self, stage: Stage, deltas: int) -> None:
        text = next((step for step in self.steps if isinstance(step, Say)), None)
        if text is not None:
            await Say(_beginning(text, deltas), size=text.size, pause=text.pause).perform(stage)


def _beginning(say: Say, deltas: int) -> str:
    return say.text[: deltas * say.size * _CHARACTERS]


@attrs.frozen
class _Chance(Step):
    """A fault that happens at a rate."""

    rate: float
    step: Step

    async def perform(self, stage: Stage) -> None:
        """Do it, or nothing."""
        if _CHANCES.random() < self.rate:
            await self.step.perform(stage)
            if isinstance(self.step, WrongJson):
                await Abort().perform(stage)
        else:
            await trio.lowlevel.checkpoint()


def _faults(chaos: Mapping[str, Any]) -> list[Step]:
    faults: list[Step] = []
    if chaos.get("latencyMs"):
        faults.append(Delay(chaos["latencyMs"] / 1000))
    for name, step in _CHAOS.items():
        if chaos.get(name):
            faults.append(_Chance(chaos[name], step))
    return faults


_CHAOS: Final[Mapping[str, Step]] = {
    "dropRate": Error(500, message="Chaos: request dropped"),
    "malformedRate": WrongJson(),
    "rateLimitRate": Error(429, headers={"retry-after": "1"}),
    "disconnectRate": Abort(),
}
