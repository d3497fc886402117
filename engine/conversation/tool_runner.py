"""Runs the calls of one response, in a nursery inside the task of the loop, so that nothing of theirs outlives it."""

from __future__ import annotations

import inspect
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from engine.conversation.errands import errand
from engine.conversation.loop_settings import LoopSettings
from engine.groups import worst_of
from engine.instruments import ToolEndInfo, ToolStartInfo
from engine.schemas.function_tool import FunctionTool, ToolArgumentError
from engine.turns.lane import Lane
from engine.values.blocks import ToolCall
from engine.values.messages import ToolResult
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = ["ToolRunner"]

_LONGEST_FAILURE: Final = 2000
"""Characters of an exception's text that go to the model."""


class ToolRunner:
    """Runs the calls of one response side by side.

    Args:
        owner: The object that waits for the tools.
        lane: The lane that serves the loop's turns; its instruments are told of the tools.
        functions: The functions, by name.
        settings: The settings of the loop.
    """

    def __init__(
        self, owner: object, lane: Lane, functions: Mapping[str, FunctionTool], settings: LoopSettings
    ) -> None:
        self._owner = owner
        self._lane = lane
        self._functions = functions
        self._settings = settings

    async def run(self, calls: Sequence[ToolCall], take: Callable[[ToolCall, ToolResult], Awaitable[None]]) -> None:
        """Run calls, and hand each output to ``take`` when it is there, in the tool's own task.

        If cancelled, so are the tools, and their outputs never are.
        """
        waiting: deque[ToolCall] = deque()
        for call in calls:
            refusal = await self._refusal(call)
            if refusal is None and call.name not in self._functions:  # it asked for the approval itself
                await take(call, ToolResult(call.call_id, "", kind=call.kind))
            elif refusal is None:
                waiting.append(call)
            else:
                await take(call, _failure(call, refusal))

        async def work() -> None:
            while waiting:
                call = waiting.popleft()
                await take(call, await self._output(call))

        fatal: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(min(len(waiting), self._settings.max_concurrent_tools)):
                    nursery.start_soon(work)
        except BaseExceptionGroup as group:
            # Tools' exceptions became outputs: this is an interrupt, an exit, the journal's, or only cancellation.
            fatal = worst_of(group)
        if fatal is not None:
            raise fatal
        await trio.lowlevel.checkpoint()  # a tool may have made an exception of its own of a cancellation

    async def _refusal(self, call: ToolCall) -> str | None:
        """Return the reason why a call is not run; None if it is."""
        if call.name not in self._functions and call.kind != "mcp_approval":
            return f"there is no tool called {call.name!r}"
        if self._settings.approve is None:
            return None
        with errand(self._owner):
            verdict = self._settings.approve(call)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        if verdict is True:
            return None
        if verdict is False:
            return "the call was refused"
        if isinstance(verdict, str):
            return f"the call was refused: {verdict}"
        raise ConfigurationError("approve", f"returned {kind_of(verdict)}, not a bool or a string")

    async def _output(self, call: ToolCall) -> ToolResult:
        """Run a call, with the instruments told in the tool's own task, so that they can mark what it does."""
        begun = trio.current_time()
        if self._lane.instruments.wants("tool_started"):
            arguments = dict(call.arguments)
            self._lane.instruments.emit("tool_started", ToolStartInfo(**self._facts(call), arguments=arguments))
        result: ToolResult | None = None
        error: BaseException | None = None
        try:
            result, error = await self._run(call)
            return result
        except BaseException as fatal:
            error = fatal
            raise
        finally:
            if self._lane.instruments.wants("tool_ended"):
                seconds = trio.current_time() - begun
                info = ToolEndInfo(**self._facts(call), seconds=seconds, result=result, error=error)
                self._lane.instruments.emit("tool_ended", info)

    def _facts(self, call: ToolCall) -> Any:
        return {"session": self._lane.session, "lane": self._lane.name, "call_id": call.call_id, "name": call.name}

    async def _run(self, call: ToolCall) -> tuple[ToolResult, Exception | None]:
        function = self._functions[call.name]
        seconds = self._settings.tool_timeout if function.timeout is None else function.timeout
        fatal: BaseException | None = None
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                with errand(self._owner, in_thread=function.thread):
                    content = await function.call(_worded(call, function))
                return ToolResult(call.call_id, content, kind=call.kind), None
        except ToolArgumentError as error:
            return _failure(call, _text_of(error)), error
        except Exception as error:
            return _failure(call, _described(error)), error
        except BaseExceptionGroup as group:
            # Not a tool's failure, but an interrupt, an exit or cancellation amid its failures.
            _, rest = group.split(Exception)
            fatal = worst_of(rest or group)
        if fatal is not None:
            raise fatal
        return _failure(call, f"TimeoutError: the tool took longer than {seconds:g} s"), None


def _worded(call: ToolCall, function: FunctionTool) -> ToolCall:
    """Give what a call says the names of its function's parameters, where it is no call of a function's own.

    A custom tool's free text goes to the one parameter there is. A call of the service's tools has members, and what it
    wants done (``action``, ``operation``) has some of its own: a function names those that it takes.
    """
    properties = function.tool.parameters.get("properties")
    if call.kind == "function" or not isinstance(properties, Mapping):
        return call
    if call.kind == "custom":
        if len(properties) != 1:
            return call
        arguments: dict[str, Any] = dict.fromkeys(properties, call.raw_arguments)
    else:
        said = dict(call.arguments)
        for name in ("action", "operation"):
            inner = call.arguments.get(name)
            said |= inner if isinstance(inner, Mapping) else {}
        arguments = {name: said[name] for name in properties if name in said}
    return attrs.evolve(call, arguments=arguments, raw_arguments=json.dumps(arguments))


def _failure(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(call.call_id, text[:_LONGEST_FAILURE], is_error=True, kind=call.kind)


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the tool's own class
        return "(it has no text)"


def _described(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_described(each) for each in error.exceptions)
    return f"{type(error).__name__}: {_text_of(error)}".removesuffix(": ")
