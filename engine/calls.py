"""The calls of a session and of its lanes: turns, answers, values, conversations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, Unpack

import trio
from attrs import evolve
from typing_extensions import TypeForm

from engine.conversation.conversation import Conversation
from engine.conversation.journal import Journal
from engine.conversation.loop_settings import Approve, LoopSettings, OnRound, Prepare
from engine.conversation.prompts import Prompt, context_of
from engine.conversation.rounds import Progress
from engine.conversation.snapshot import ConversationState, Memory, Snapshot, conversation_from
from engine.conversation.tool_loop import ToolLoop
from engine.conversation.toolbox import Toolbox
from engine.protocol.failures import TooLarge, to_error
from engine.protocol.request_body import create_body
from engine.settings.fields import TurnFields, options_with, settings_with, spelled_out
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.turns import lane as lanes
from engine.turns.core import SessionCore
from engine.turns.submission import create_text, hooked
from engine.turns.turn import Turn
from engine.turns.work import BeforeDispatch
from engine.values.blocks import OutputItem
from engine.values.choices import UNSET, Delivery, Transport, Unset
from engine.values.errors import ResponseFailed
from engine.values.messages import AnyTool, AssistantMessage, Context, Message
from engine.values.problems import ConfigurationError
from engine.values.reports import TurnReport

__all__ = ["Calls"]

_T = TypeVar("_T")


class Calls:
    """The calls of a session, and of each of its lanes.

    All calls take the same prompts: a text, a message, messages, or a whole `engine.Context`. A text is one user
    message without history. And all take the fields of `engine.TurnOptions` as keywords, laid over ``options``: what is
    absent is left as it is there, None means that the field is not sent; and ``timeouts``, ``limits``, ``retry``,
    ``on_cancel`` and ``transport``, laid over the session's field by field.
    """

    def __init__(
        self, core: SessionCore, *, lane: lanes.Lane | None = None, gate: BeforeDispatch | None = None
    ) -> None:
        self._core = core
        self._lane = core.lane() if lane is None else lane
        self._gate = gate

    def _gated(self, gate: BeforeDispatch) -> Calls:
        """The same calls, with what is awaited before each dispatch of their turns."""
        return Calls(self._core, lane=self._lane, gate=gate)

    @spelled_out
    def turn(
        self,
        prompt: Prompt,
        options: TurnOptions | None = None,
        *,
        instructions: str | Unset | None = UNSET,
        tools: Iterable[AnyTool] = (),
        **fields: Unpack[TurnFields],
    ) -> Turn:
        """Prepare one request; ``async with`` sends it.

        Turns are served one after the other, in the order in which their blocks were entered.

        Args:
            prompt: The words for the model: a text, a message, messages, or a context.
            options: The request's options.
            instructions: In place of the context's; None for none.
            tools: Tools that the model may call, besides the context's. Its calls are in the answer, and are not run.
            fields: Single fields of the options, and the settings of this turn.

        Raises:
            ConfigurationError: something given is wrong; ``field`` names it. Nothing was sent.
        """
        context = context_of(prompt, instructions, tools)
        return self._turn(context, options_with(options, fields), settings_with(self._settings, fields), buffered=True)

    @spelled_out
    async def ask(
        self,
        prompt: Prompt,
        options: TurnOptions | None = None,
        *,
        instructions: str | Unset | None = UNSET,
        tools: Iterable[AnyTool] = (),
        **fields: Unpack[TurnFields],
    ) -> AssistantMessage:
        """Send one request and return the whole answer. Takes the same arguments as `turn`.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: there is no answer; its class and attributes say why.

        If cancelled, the turn is abandoned at once; ``on_cancel`` says what becomes of its connection.
        """
        context = context_of(prompt, instructions, tools)
        chosen, settings = options_with(options, fields, "ask"), settings_with(self._settings, fields)
        async with self._turn(context, chosen, settings, buffered=False) as turn:
            return await turn.wait()

    @spelled_out
    async def parse(
        self,
        prompt: Prompt,
        answer: TypeForm[_T],
        options: TurnOptions | None = None,
        *,
        instructions: str | Unset | None = UNSET,
        tools: Iterable[AnyTool] = (),
        **fields: Unpack[TurnFields],
    ) -> _T:
        """Send one request and return the answer as a value. Takes the same arguments as `turn`, but for ``answer``.

        Args:
            prompt: See `turn`.
            answer: The type of the value: an attrs class, a dataclass, a TypedDict, a union, a ``Literal`` or any other
                type of JSON values; or a class with ``model_json_schema`` and ``model_validate``, as pydantic's have.
            options: See `turn`.
            instructions: See `turn`.
            tools: See `turn`.
            fields: See `turn`.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            ResponseFailed: there is an answer and no value. ``code`` is ``"refusal"`` (the model declined),
                ``"max_output_tokens"`` (the token limit cut it), ``"tool_use"`` (the model calls a tool instead) or
                ``"schema_mismatch"`` (the text is no such value); ``partial`` is the answer.
            TurnError: there is no answer; its class and attributes say why.

        If cancelled, the turn is abandoned at once; ``on_cancel`` says what becomes of its connection.
        """
        context = context_of(prompt, instructions, tools)
        chosen = options_with(options, {**fields, "text_format": answer}, "parse")
        async with self._turn(context, chosen, settings_with(self._settings, fields), buffered=False) as turn:
            message = await turn.wait()
        for code, without, why in (
            ("refusal", bool(message.refusal), "the model declined to answer"),
            ("max_output_tokens", message.stop_reason == "length", "the token limit cut the answer"),
            ("tool_use", message.stop_reason == "tool_use", "the model calls a tool instead of answering"),
        ):
            if without:
                raise _without_value(why, code, message, turn.report)
        value: _T = message.parsed
        return value

    @spelled_out
    async def run(
        self,
        prompt: Prompt,
        tools: Iterable[AnyTool] = (),
        options: TurnOptions | None = None,
        *,
        instructions: str | Unset | None = UNSET,
        max_rounds: int = 16,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        on_round: OnRound | None = None,
        prepare: Prepare | None = None,
        journal: Journal | None = None,
        **fields: Unpack[TurnFields],
    ) -> AssistantMessage:
        """Ask, run the tools that the model calls, send their outputs, and so on; return the last response.

        Tools run in the caller's task tree, the calls of one response side by side, and only when the response is
        complete: a request that is sent again runs no tool again. A tool that fails or takes too long, a tool that does
        not exist, arguments that do not fit, a call that is refused: each becomes an output that tells the model so,
        with the type and the text of a tool's exception. What is no `Exception`, such as KeyboardInterrupt, comes out.

        The response is returned with its calls, none of them run, when any is for a tool without a function. So is one
        that the token limit cut.

        Args:
            prompt: The words for the model: a text, a message, messages, or a context.
            tools: Tools that the model may call, in addition to the context's. Functions are run, plain ones and
                `engine.FunctionTool`; one whose name is declared by a schema as well serves that declaration, which is
                how a custom tool gets its function.
            options: The request's options. A ``tool_choice`` that demands a call holds for the first round only.
            instructions: In place of the context's; None for none.
            max_rounds: The most responses to ask for.
            max_concurrent_tools: The most calls of one response that run at the same time.
            tool_timeout: Seconds for each call of a tool that has no timeout of its own; None for no limit.
            approve: Asked about one call after the other, before any call of the response is run: True to run it, False
                or a reason to refuse it. May be async. What it raises ends the loop.
            on_round: Told of each `engine.Round` when it is complete. May be async. What it raises ends the loop.
            prepare: Given the context before each request, and returns what is sent in its place: trimmed, redacted, or
                as it is. May be async. What it raises ends the loop.
            journal: Told of each step before the next; see `engine.Journal`.
            fields: Single fields of the options, and the settings of each round's turn. Budgets are each turn's own;
                for all rounds together use a scope of your own.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: a round failed; its class and attributes say why. When the model still calls tools in the last
                round that it may have, a `ResponseFailed` with code ``max_rounds``, and ``partial`` is that response.

        If cancelled, the turn is abandoned at once, or the tools are cancelled and waited for, whichever is under way.
        """
        context = context_of(prompt, instructions)
        loop = ToolLoop(
            self._open_turn,
            context,
            Toolbox(context.tools, tools, approves=approve is not None),
            options_with(options, fields, "run"),
            settings_with(self._settings, fields),
            LoopSettings(
                max_rounds=max_rounds,
                max_concurrent_tools=max_concurrent_tools,
                tool_timeout=tool_timeout,
                approve=approve,
                on_round=on_round,
                prepare=prepare,
                journal=journal,
            ),
            lane=self._lane,
            progress=Progress(prompt=context.messages),
        )
        return await loop.run()

    @spelled_out
    def conversation(
        self,
        instructions: str | None = None,
        tools: Iterable[AnyTool] = (),
        messages: Iterable[Message] = (),
        options: TurnOptions | None = None,
        *,
        max_rounds: int = 16,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        on_round: OnRound | None = None,
        prepare: Prepare | None = None,
        journal: Journal | None = None,
        resume: Snapshot | None = None,
        **fields: Unpack[TurnFields],
    ) -> Conversation:
        """Begin a conversation, which keeps its transcript and runs tools, or go on with one. Sends nothing.

        Args:
            instructions: Instructions for the whole conversation.
            tools: Tools that the model may call: functions, and schemas whose calls you answer yourself.
            messages: The transcript so far.
            options: The requests' options, unless a prompt has its own.
            max_rounds: The most responses to ask for at each prompt.
            max_concurrent_tools: See `run`.
            tool_timeout: See `run`.
            approve: See `run`.
            on_round: See `run`. When it is told of a round, the transcript holds it.
            prepare: See `run`. The transcript stays as it is.
            journal: See `run`. When it is told of a round, the transcript does not hold it yet.
            resume: A conversation to go on with, as its `engine.Conversation.snapshot` wrote it. It has the messages;
                instructions and options are its own where none are given. Tools are given anew, and have to be those
                that it had, or more.
            fields: See `run`.

        Raises:
            ConfigurationError: something given is wrong; ``field`` names it. ``resume.…`` is a part of the snapshot:
                a tool that is missing or has another schema, another server, a later version of the library.
        """
        toolbox = Toolbox((), tools, approves=approve is not None)
        state = ConversationState(messages=Context(messages).messages)
        if resume is not None:
            if state.messages:
                raise ConfigurationError("messages", "are given, and resume has its own")
            state = conversation_from(resume, Memory.of(self._lane).server)
            toolbox.check(state.tools)
            if state.memory is not None:
                self._lane.stored = state.memory.held
        elif not state.messages and (inherited := self._lane.hand_over()):
            state = evolve(state, messages=(AssistantMessage(tuple(OutputItem(item) for item in inherited)),))
        chosen = options_with(state.options if options is None else options, fields, "conversation")
        said = state.instructions if instructions is None else instructions
        return Conversation(
            self._open_turn,
            toolbox,
            settings_with(self._settings, fields),
            LoopSettings(
                max_rounds=max_rounds,
                max_concurrent_tools=max_concurrent_tools,
                tool_timeout=tool_timeout,
                approve=approve,
                on_round=on_round,
                prepare=prepare,
                journal=journal,
            ),
            state=evolve(state, options=chosen, instructions=said),
            lane=self._lane,
        )

    @property
    def _settings(self) -> Settings:
        return self._core.settings

    def _open_turn(self, context: Context, options: TurnOptions, settings: Settings, buffered: bool) -> Turn:
        return self._turn(context, options, settings, buffered=buffered)

    def _turn(self, context: Context, options: TurnOptions, settings: Settings, *, buffered: bool) -> Turn:
        body = create_body(context, options, model=settings.model)
        return Turn(self._lane, body, options, settings, buffered=buffered, gate=self._gate)

    @spelled_out
    async def warm_up(
        self,
        prompt: Prompt,
        options: TurnOptions | None = None,
        *,
        instructions: str | Unset | None = UNSET,
        tools: Iterable[AnyTool] = (),
        **fields: Unpack[TurnFields],
    ) -> bool:
        """Open the connection and let the server prepare for a prompt, ahead of the first turn.

        The server is told model, instructions and tools, and generates nothing; the next turn that fits continues
        from there. Once per connection, and only before its first turn. A failure is no error: the turn will meet it.
        Takes the same arguments as `turn`.

        Returns:
            Whether the server is prepared.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            RequestTooLarge: the request is over `engine.Limits.max_request_bytes`.

        Takes the ``queue``, ``connect`` and ``warm_up`` budgets at most. Cancelling stops waiting; the warm-up goes on.
        """
        self._lane.tasks.check_caller()
        chosen = options_with(options, fields, "warm_up")
        settings = settings_with(self._settings, fields)
        body = create_body(context_of(prompt, instructions, tools), chosen, model=settings.model)
        body = self._lane.refused_seals.without(await hooked(body, chosen.payload_hook))
        text = create_text(body)
        size, limit = len(text.frame(generate=False).encode()), settings.limits.max_request_bytes
        if size > limit:
            raise to_error(TooLarge(size, limit))
        if settings.transport is Transport.SSE:
            await trio.lowlevel.checkpoint()
            return False
        return await self._core.warm_up(self._lane, body, text, settings)


def _without_value(why: str, code: str, message: AssistantMessage, report: TurnReport) -> ResponseFailed:
    error = ResponseFailed(f"there is no value: {why}", code=code, response_id=message.response_id)
    error.delivery, error.partial, error.report = Delivery.ACCEPTED, message, report
    return error
