"""Runs the calls of one response, in a nursery inside the task of the loop, so that nothing of theirs outlives it."""

from __future__ import annotations

import inspect
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from engine.conversation.rounds import LoopSettings
from engine.schemas.function_tool import FunctionTool, ToolArgumentError
from engine.values.messages import ToolCall, ToolResult
from engine.values.problems import ConfigurationError

__all__ = ["ToolRunner"]

_LONGEST_FAILURE: Final = 2000
"""Characters of an exception's text that go to the model."""


class ToolRunner:
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
