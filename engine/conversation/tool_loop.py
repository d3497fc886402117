"""The tool loop: run what a response calls, send the outputs back, until a response calls nothing.

A round is one response and the outputs of its calls. Tools run when the response is complete, so a request that is sent
again below the loop never runs a tool again; they run in a nursery inside the task of whoever runs the loop, so nothing
of theirs outlives it.
"""

from __future__ import annotations

import inspect
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import trio
from attrs import Attribute, field, frozen

from engine.protocol.request_body import input_items
from engine.schemas.function_tool import FunctionTool, ToolArgumentError
from engine.settings.turn_options import TurnOptions
from engine.turns.turn import Turn
from engine.values.choices import Delivery
from engine.values.errors import ResponseFailed
from engine.values.messages import AnyTool, AssistantMessage, Context, Message, Tool, ToolCall, ToolResult
from engine.values.problems import ConfigurationError
from engine.values.reports import TurnReport
from engine.wire.codec import encode

__all__ = ["Approve", "LoopSettings", "OnRound", "OpenTurn", "Round", "ToolLoop", "Toolbox"]

_LONGEST_FAILURE: Final = 2000
"""Characters of an exception's text that go to the model."""


@frozen
class Round:
    """One response of a tool loop, and what its calls gave back.

    Attributes:
        message: The response.
        results: The outputs of its calls, in the order of the calls. Empty when it calls nothing, or when its calls are
            left to the caller.
        report: How the request went.
    """

    message: AssistantMessage
    results: tuple[ToolResult, ...]
    report: TurnReport


Approve: TypeAlias = Callable[[ToolCall], "bool | str | Awaitable[bool | str]"]
OnRound: TypeAlias = Callable[[Round], "Awaitable[None] | None"]
OpenTurn: TypeAlias = Callable[[Context, TurnOptions, bool], Turn]
"""Prepares a turn for a context; the flag tells whether its events are wanted."""


# --- what holds for a loop -------------------------------------------------------------------------------------------


def _count(instance: object, attribute: Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(attribute.name, "must be a whole number, 1 or more")


def _seconds(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, "must be a positive number of seconds, or None")


def _callable(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(attribute.name, "is not callable")


@frozen(kw_only=True)
class LoopSettings:
    """What holds for a tool loop.

    Attributes:
        max_rounds: How many responses may be asked for.
        max_concurrent_tools: How many calls of one response run at the same time.
        tool_timeout: Seconds for each call of a tool that has no timeout of its own; None for no limit.
        approve: Asked before a call is run.
        on_round: Told of each round when it is complete.
    """

    max_rounds: int = field(default=16, validator=_count)
    max_concurrent_tools: int = field(default=8, validator=_count)
    tool_timeout: float | None = field(default=None, validator=_seconds)
    approve: Approve | None = field(default=None, validator=_callable)
    on_round: OnRound | None = field(default=None, validator=_callable)


class Toolbox:
    """What the model may call, and which of it there is a function for.

    A function whose name is declared without one serves that declaration; this is how a custom tool gets its function.

    Attributes:
        offered: What the model is told of.
        functions: The functions, by name.

    Args:
        declared: The tools of a context.
        tools: More of them.

    Raises:
        ConfigurationError: something in ``tools`` is no tool, or two functions have one name.
    """

    def __init__(self, declared: Iterable[AnyTool], tools: Iterable[AnyTool]) -> None:
        if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
            raise ConfigurationError("tools", f"is a {type(tools).__name__}, not a sequence of tools")
        self.functions: dict[str, FunctionTool] = {}
        schemas: list[Tool | Mapping[str, Any]] = []
        for where, given in (("context tools", declared), ("tools", tools)):
            for number, tool in enumerate(given):
                if isinstance(tool, FunctionTool):
                    if self.functions.setdefault(tool.name, tool) is not tool:
                        raise ConfigurationError(f"{where}[{number}]", f"is another function called {tool.name!r}")
                else:
                    schemas.append(_schema(tool, f"{where}[{number}]"))
        names = {name for schema in schemas for name in _callable_names(schema)}
        schemas += [function.tool for name, function in self.functions.items() if name not in names]
        self.offered: tuple[Tool | Mapping[str, Any], ...] = tuple(schemas)
        self._callers_own = names - self.functions.keys()

    def is_callers(self, call: ToolCall) -> bool:
        """Whether a call is the caller's to answer: its tool was declared without a function."""
        return call.name in self._callers_own


def _schema(tool: AnyTool, where: str) -> Tool | Mapping[str, Any]:
    if isinstance(tool, (Tool, Mapping)):
        return tool
    described = getattr(tool, "tool", None)
    if not isinstance(described, Tool):
        raise ConfigurationError(where, f"is a {type(tool).__name__}, not a tool")
    return described


def _callable_names(tool: Tool | Mapping[str, Any]) -> Iterator[str]:
    """The names that calls can have because of a tool; namespaces hold further tools."""
    if isinstance(tool, Tool):
        yield tool.name
        return
    name, inner = tool.get("name"), tool.get("tools")
    if tool.get("type") in ("function", "custom") and isinstance(name, str):
        yield name
    for each in inner if isinstance(inner, (list, tuple)) else ():
        if isinstance(each, Mapping):
            yield from _callable_names(each)


# --- the calls of one response ---------------------------------------------------------------------------------------


class _Runner:
    """Runs the calls of one response after the other."""

    def __init__(self, functions: Mapping[str, FunctionTool], settings: LoopSettings) -> None:
        self._functions = functions
        self._settings = settings
        self._nursery: trio.Nursery | None = None

    async def answers(self, calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
        """Run calls side by side and return their outputs, in the order of the calls.

        If cancelled, so are the tools, and there are no outputs.
        """
        results: dict[int, ToolResult] = {}
        waiting: deque[tuple[int, ToolCall]] = deque()
        for position, call in enumerate(calls):
            refusal = await self._refusal(call)
            if refusal is None:
                waiting.append((position, call))
            else:
                results[position] = _failure(call, refusal)

        async def work() -> None:
            while waiting:
                position, call = waiting.popleft()
                results[position] = await self._answer(call)

        fatal: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for _ in range(min(len(waiting), self._settings.max_concurrent_tools)):
                    nursery.start_soon(work)
        except BaseExceptionGroup as group:
            # Tools' exceptions became outputs: this is an interrupt, an exit, or cancellation from further out.
            fatal = _worst(group)
        finally:
            self._nursery = None
        if fatal is not None:
            raise fatal
        await trio.lowlevel.checkpoint()  # a tool may have made an exception of its own of a cancellation
        return tuple(results[position] for position in range(len(calls)))

    def hosts(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task belongs to a tool that runs at this moment."""
        above = task.parent_nursery
        while above is not None and above is not self._nursery:
            above = above.parent_task.parent_nursery
        return above is not None

    async def _refusal(self, call: ToolCall) -> str | None:
        """Why a call is not run; None if it is."""
        if call.name not in self._functions:
            return f"there is no tool called {call.name!r}"
        if self._settings.approve is None:
            return None
        verdict = self._settings.approve(call)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        if verdict is True:
            return None
        if verdict is False:
            return "the call was refused"
        if isinstance(verdict, str):
            return f"the call was refused: {verdict}"
        raise ConfigurationError("approve", f"returned a {type(verdict).__name__}, not a bool or a string")

    async def _answer(self, call: ToolCall) -> ToolResult:
        function = self._functions[call.name]
        seconds = self._settings.tool_timeout if function.timeout is None else function.timeout
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                return ToolResult(call.call_id, await function.call(_worded(call, function)), kind=call.kind)
        except ToolArgumentError as error:
            return _failure(call, _text_of(error))
        except Exception as error:
            return _failure(call, _described(error))
        return _failure(call, f"TimeoutError: the tool took longer than {seconds:g} s")


def _worded(call: ToolCall, function: FunctionTool) -> ToolCall:
    """Give a custom tool's free text a name, where its function has one parameter to take it."""
    properties = function.tool.parameters.get("properties")
    if call.kind != "custom" or not isinstance(properties, Mapping) or len(properties) != 1:
        return call
    arguments = dict.fromkeys(properties, call.raw_arguments)
    return attrs.evolve(call, arguments=arguments, raw_arguments=json.dumps(arguments))


def _failure(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(call.call_id, text[:_LONGEST_FAILURE], is_error=True, kind=call.kind)


def _fitting(message: AssistantMessage, results: tuple[ToolResult, ...], room: float) -> tuple[ToolResult, ...]:
    """Return the outputs of a response's calls with errors in place of those that no request could carry.

    A transcript that holds too much could never be sent again. The largest goes first, and nothing is cut: half an
    output reads like a whole one.

    Args:
        message: The response.
        results: The outputs.
        room: Bytes that the response and its outputs may add to the next request.
    """
    if math.isinf(room):
        return results
    sizes = _sizes((message, *results))
    room -= sum(sizes[: len(sizes) - len(results)])
    sizes = sizes[len(sizes) - len(results) :]
    fitting = list(results)
    while sum(sizes) > room:
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        text = f"the output has {sizes[largest]} bytes, and the conversation has room for {max(room, 0):.0f}"
        error = attrs.evolve(results[largest], content=text, is_error=True)
        size = _sizes((message, error))[-1]
        if size >= sizes[largest]:
            break  # it is not the outputs that are too large
        fitting[largest], sizes[largest] = error, size
    return tuple(fitting)


def _sizes(messages: Iterable[Message]) -> list[int]:
    """Bytes that each item of ``messages`` adds to a request; 0 for one that cannot be written, as sending it tells."""
    return [_size(item) for item in input_items(messages, stored=True)]


def _size(item: Mapping[str, Any]) -> int:
    try:
        return len(encode(item).encode()) + len(",")
    except (TypeError, ValueError, RecursionError):
        return 0


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the tool's own class
        return "(it has no text)"


def _described(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_described(each) for each in error.exceptions)
    return f"{type(error).__name__}: {_text_of(error)}".removesuffix(": ")


def _worst(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose what to raise in place of a group: an interrupt, an exit, what else is no `Exception`, cancellation."""

    def rank(error: BaseException) -> int:
        match error:
            case KeyboardInterrupt():
                return 0
            case SystemExit():
                return 1
            case trio.Cancelled():
                return 3
            case Exception():
                return 4
        return 2

    return min(_leaves(group), key=rank)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


# --- round after round -----------------------------------------------------------------------------------------------


class ToolLoop:
    """The rounds that answer one prompt.

    Attributes:
        context: What the next request tells the model.
        finished: Whether the last response calls nothing that the loop could run.
        rounds: How many rounds are complete.

    Args:
        open_turn: Prepares a turn.
        context: What the first request tells the model; its tools are replaced by the toolbox's.
        toolbox: What the model may call.
        options: What to ask of the model. A ``tool_choice`` that demands a call holds for the first round only: the
            loop would never end otherwise.
        settings: What holds for the loop.
        fresh: The messages at the end of the context that ``keep`` has not been given yet.
        keep: Given each complete round, with the messages that are new since the one before.
    """

    def __init__(
        self,
        open_turn: OpenTurn,
        context: Context,
        toolbox: Toolbox,
        options: TurnOptions,
        settings: LoopSettings,
        *,
        fresh: tuple[Message, ...] = (),
        keep: Callable[[Round, tuple[Message, ...]], None] | None = None,
    ) -> None:
        self.context: Context = attrs.evolve(context, tools=toolbox.offered)
        self.finished: bool = False
        self.rounds: int = 0
        self._open_turn = open_turn
        self._toolbox = toolbox
        self._options = options
        self._settings = settings
        self._fresh = fresh
        self._keep = keep
        self._runner = _Runner(toolbox.functions, settings)

    def hosts(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task belongs to a tool of this loop that runs at this moment."""
        return self._runner.hosts(task)

    async def run(self) -> AssistantMessage:
        """Ask and run tools until a response calls nothing that the loop could run, and return that response.

        Raises:
            TurnError: a round failed; or there were too many, then it is a `ResponseFailed` with code ``max_rounds``.

        If cancelled, the turn is abandoned or the tools are cancelled, whichever is under way.
        """
        while True:
            async with self.next_turn(buffered=False) as turn:
                message = await turn.wait()
            await self.complete(turn)
            if self.finished:
                return message

    def next_turn(self, *, buffered: bool) -> Turn:
        """Prepare the next round's turn."""
        options = self._options
        if self.rounds:
            options = attrs.evolve(options, tool_choice=_relaxed(options.tool_choice))
        return self._open_turn(self.context, options, buffered)

    def is_last(self, message: AssistantMessage) -> bool:
        """Whether the loop ends with this response.

        It does when the response calls nothing, when it was cut short, so that its calls may be too, and when any of
        its calls is the caller's to answer: then none is run, since the outputs belong together.
        """
        calls = message.unanswered
        return message.stop_reason != "tool_use" or not calls or any(map(self._toolbox.is_callers, calls))

    async def complete(self, turn: Turn) -> None:
        """Run what an answered turn calls, and close the round.

        Raises:
            ResponseFailed: it calls something, and was the last that may be asked for; nothing was run.

        If cancelled while tools run, so are they, and the round never was.
        """
        message, report = turn.message, turn.report
        results: tuple[ToolResult, ...] = ()
        finished = self.is_last(message)
        if not finished:
            if self.rounds + 1 >= self._settings.max_rounds:
                raise _exhausted(message, report)
            results = _fitting(message, await self._runner.answers(message.unanswered), turn.room)
        done = Round(message, results, report)
        self._close(done, finished)
        if self._settings.on_round is not None:
            told = self._settings.on_round(done)
            if inspect.isawaitable(told):
                await told

    @trio.lowlevel.enable_ki_protection
    def _close(self, done: Round, finished: bool) -> None:
        new: tuple[Message, ...] = (done.message, *done.results)
        self.context = attrs.evolve(self.context, messages=(*self.context.messages, *new))
        self.finished = finished
        self.rounds += 1
        if self._keep is not None:
            self._keep(done, (*self._fresh, *new))
        self._fresh = ()


def _relaxed(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": "auto"}
    return choice if choice in (None, "none") else "auto"


def _exhausted(message: AssistantMessage, report: TurnReport) -> ResponseFailed:
    error = ResponseFailed(
        "the model still calls tools after the last round it may have",
        code="max_rounds",
        response_id=message.response_id,
    )
    error.delivery = Delivery.ACCEPTED
    error.partial = message
    error.report = report
    return error
