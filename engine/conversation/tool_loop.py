"""The tool loop: run what a response calls, send the outputs back, until a response calls nothing.

A round is one response and the outputs of its calls. Tools run when the response is complete, so a request that is sent
again below the loop never runs a tool again; they run in a nursery inside the loop's own task, so nothing of
theirs outlives it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import trio

from engine.conversation.errands import errand
from engine.conversation.fitting import fitting
from engine.conversation.loop_settings import LoopSettings
from engine.conversation.rounds import Progress, Round
from engine.conversation.tool_runner import ToolRunner
from engine.conversation.toolbox import Toolbox
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.turns.lane import Lane
from engine.turns.turn import Turn, room_after
from engine.values.blocks import ToolCall
from engine.values.choices import Delivery
from engine.values.errors import ResponseFailed
from engine.values.messages import AssistantMessage, Context, Message, ToolResult
from engine.values.problems import ConfigurationError
from engine.values.reports import TurnReport
from engine.values.type_names import kind_of
from engine.values.usage import Usage

__all__ = ["OpenTurn", "ToolLoop"]

OpenTurn: TypeAlias = Callable[[Context, TurnOptions, Settings, bool], Turn]
"""Prepares a turn for a context; the flag tells whether its events are wanted."""

Keep: TypeAlias = Callable[[Round, tuple[Message, ...], bool], None]

_NOTHING: Final = Progress()


class ToolLoop:
    """The rounds that answer one prompt.

    Attributes:
        options: The next request's options.
        context: The context of the next request, before ``prepare`` has its say.
        progress: The round that was begun and is not in ``context`` yet, but for its prompt.
        message: The last response; None before the first.
        report: The report on the last request.
        finished: Whether the last response calls nothing that the loop could run.
        rounds: The number of complete rounds.
        usage: Tokens of the responses that came.

    Args:
        open_turn: Prepares a turn.
        context: The conversation so far, the prompt included; its tools are replaced by the toolbox's.
        toolbox: The tools that the model may call.
        options: The requests' options. A ``tool_choice`` that demands a call holds for the first round only: the
            loop would never end otherwise.
        settings: The settings of each turn.
        loop_settings: The settings of the loop.
        lane: The lane that serves its turns.
        progress: The prompt, and what there is already of its first round.
        keep: Given each complete round, with the messages that are new since the one before, and whether its calls wait
            for the caller's results.
        owner: The object that waits for the functions that the loop calls; the loop itself where nothing else does.
    """

    def __init__(
        self,
        open_turn: OpenTurn,
        context: Context,
        toolbox: Toolbox,
        options: TurnOptions,
        settings: Settings,
        loop_settings: LoopSettings,
        *,
        lane: Lane,
        progress: Progress = _NOTHING,
        keep: Keep | None = None,
        owner: object = None,
    ) -> None:
        self.context: Context = attrs.evolve(context, tools=toolbox.offered)
        self.progress: Progress = progress
        self.message: AssistantMessage | None = progress.response
        self.report: TurnReport = TurnReport()
        self.finished: bool = False
        self.rounds: int = 0
        self.usage: Usage = Usage()
        self._open_turn = open_turn
        self._toolbox = toolbox
        self.options: TurnOptions = options
        self._turn_settings = settings
        self._settings = loop_settings
        self._keep = keep
        self._room = math.inf
        self._left = False
        self._scope: trio.CancelScope | None = None
        self._owner = self if owner is None else owner
        self._runner = ToolRunner(self._owner, lane, toolbox.functions, loop_settings)

    async def run(self) -> AssistantMessage:
        """Ask and run tools until a response calls nothing that the loop could run, and return that response.

        Raises:
            TurnError: a round failed; or there were too many, then it is a `ResponseFailed` with code ``max_rounds``.

        If cancelled, the turn is abandoned or the tools are cancelled, whichever is under way.
        """
        while not self.finished:
            if self.progress.response is None:
                async with await self.next_turn(buffered=False) as turn:
                    await turn.wait()
                await self.answered(turn)
            await self.complete()
        assert self.message is not None
        return self.message

    async def next_turn(self, *, buffered: bool) -> Turn:
        """Prepare the next round's turn.

        Raises:
            ConfigurationError: ``prepare`` returned no context.

        If cancelled, so is ``prepare`` or the journal.
        """
        options, context = self.options, self.context
        if self.rounds:
            options = attrs.evolve(options, tool_choice=_relaxed(options.tool_choice))
        if self._settings.prepare is not None or self._settings.journal is not None:
            context = await self._prepared(context)
        return self._open_turn(context, options, self._turn_settings, buffered)

    async def _prepared(self, context: Context) -> Context:
        with self._errands(), errand(self._owner):
            if self._settings.prepare is not None:
                prepared = self._settings.prepare(context)
                context = await prepared if inspect.isawaitable(prepared) else prepared
                if not isinstance(context, Context):
                    raise ConfigurationError("prepare", f"returned {kind_of(context)}, not a Context")
            if self._settings.journal is not None:
                await self._settings.journal.sending(self.progress.prompt, context)
        self._check_inside()
        return context

    async def answered(self, turn: Turn) -> None:
        """Take the response of a turn.

        If cancelled while the journal is told of it, the response never was.
        """
        before, message = self.progress, turn.message
        self.progress = attrs.evolve(before, response=message, results={})
        self.message, self.report, self._room = message, turn.report, room_after(turn)
        if message.usage is not None:
            self.usage += message.usage
        if self._settings.journal is not None:
            try:
                with self._errands(), errand(self._owner):
                    await self._settings.journal.answered(message)
                self._check_inside()
            except BaseException:
                self.progress = before
                raise

    def is_last(self, message: AssistantMessage) -> bool:
        """Whether a response ends the prompt: no tools are to be run for it."""
        return self._toolbox.is_last(message)

    async def complete(self) -> None:
        """Run what the response calls, as far as there is no output yet, and close the round.

        Raises:
            ResponseFailed: it calls something, and was the last that may be asked for; nothing was run.
            RuntimeError: the loop was left meanwhile, by another task.

        If cancelled while tools run, so are they; the outputs that are there stay in ``progress``.
        """
        message = self.progress.response
        assert message is not None
        results: tuple[ToolResult, ...] = ()
        finished = self.is_last(message)
        with self._errands():
            if not finished:
                if self.rounds + 1 >= self._settings.max_rounds:
                    raise _exhausted(message, self.report)
                missing = [call for call in message.unanswered if call.call_id not in self.progress.results]
                await self._runner.run(missing, self._note)
                outputs = self.progress.results
                results = fitting(message, tuple(outputs[call.call_id] for call in message.unanswered), self._room)
            done = Round(message, results, self.report)
            if self._settings.journal is not None:
                with errand(self._owner):
                    await self._settings.journal.round(done)
            self._close(done, finished)
            if self._settings.on_round is not None:
                with errand(self._owner):
                    told = self._settings.on_round(done)
                    if inspect.isawaitable(told):
                        await told
        self._check_inside()

    def leave(self) -> None:
        """Cancel the functions that the loop waits for, if it does: its caller has gone. Nothing is kept any more."""
        self._left = True
        if self._scope is not None:
            self._scope.cancel(reason="the reply was left")

    def _errands(self) -> trio.CancelScope:
        """Return the scope of the functions that the loop waits for, and of no turn."""
        self._scope = trio.CancelScope()
        return self._scope

    def _check_inside(self) -> None:
        if self._left:
            raise RuntimeError("the reply's block was left")

    async def _note(self, call: ToolCall, output: ToolResult) -> None:
        """Take the output of a call. If the journal does not take it, or is cancelled, there is none."""
        self.progress = self.progress.with_result(output)
        if self._settings.journal is not None:
            try:
                with errand(self._owner):
                    await self._settings.journal.tool_done(call, output)
            except BaseException:
                self.progress = self.progress.without_result(output.call_id)
                raise

    @trio.lowlevel.enable_ki_protection
    def _close(self, done: Round, finished: bool) -> None:
        if self._left:
            return  # its conversation may be another prompt's by now
        fresh = self.progress.prompt
        new: tuple[Message, ...] = (*done.message.messages, *done.results)
        waits = self._toolbox.leaves_to_caller(done.message)
        self.context = attrs.evolve(self.context, messages=(*self.context.messages, *new))
        self.progress = _NOTHING
        self.finished = finished
        self.rounds += 1
        if self._keep is not None:
            self._keep(done, (*fresh, *new), waits)


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
