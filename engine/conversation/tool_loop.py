"""The tool loop: run what a response calls, send the outputs back, until a response calls nothing.

A round is one response and the outputs of its calls. Tools run when the response is complete, so a request that is sent
again below the loop never runs a tool again; they run in a nursery inside the task of whoever runs the loop, so nothing
of theirs outlives it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import trio

from engine.conversation.fitting import fitting
from engine.conversation.rounds import LoopSettings, Round
from engine.conversation.tool_runner import ToolRunner
from engine.conversation.toolbox import Toolbox
from engine.settings.turn_options import TurnOptions
from engine.turns.turn import Turn
from engine.values.choices import Delivery
from engine.values.errors import ResponseFailed
from engine.values.messages import AssistantMessage, Context, Message, ToolResult
from engine.values.reports import TurnReport

__all__ = ["OpenTurn", "ToolLoop"]

OpenTurn: TypeAlias = Callable[[Context, TurnOptions, bool], Turn]
"""Prepares a turn for a context; the flag tells whether its events are wanted."""


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
        self._runner = ToolRunner(toolbox.functions, settings)

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
            results = fitting(message, await self._runner.answers(message.unanswered), turn.room)
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
