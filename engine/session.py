"""The session as its users see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from engine.connections.compaction import Compaction
from engine.conversation.conversation import Conversation
from engine.conversation.loop_settings import Approve, LoopSettings, OnRound
from engine.conversation.tool_loop import OpenTurn, ToolLoop
from engine.conversation.toolbox import Toolbox
from engine.protocol.compaction import compaction_body
from engine.protocol.failures import TooLarge, to_error
from engine.protocol.request_body import create_body
from engine.settings.levels import Settings
from engine.settings.limits import Limits
from engine.settings.retry import RetryPolicy
from engine.settings.timeouts import Timeouts
from engine.settings.turn_options import TurnOptions
from engine.turns.core import SessionCore
from engine.turns.submission import create_text, hooked
from engine.turns.turn import Turn
from engine.values.choices import OnCancel, Transport
from engine.values.messages import AnyTool, AssistantMessage, Context, Message
from engine.values.problems import ConfigurationError
from engine.values.statistics import SessionStatistics

__all__ = ["Session"]


class Session:
    """A conversation partner with a connection of its own, kept open between turns.

    Got from `engine.open_session` or `engine.Engine.session`. Not thread-safe: use `trio.from_thread`.
    """

    def __init__(self, core: SessionCore) -> None:
        self._core = core

    def __repr__(self) -> str:
        return f"<Session {self.id!r}>"

    @property
    def id(self) -> str:
        """The session's id in its engine."""
        return self._core.id

    @property
    def connected(self) -> bool:
        """Whether a turn started now would find an open connection, as far as can be told."""
        return self._core.connected

    def turn(
        self,
        context: str | Context,
        options: TurnOptions | None = None,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
    ) -> Turn:
        """Prepare one request; ``async with`` sends it.

        Turns of a session are served one after the other, in the order in which their blocks were entered.

        Args:
            context: Instructions, messages and tools; a plain string is one user message without history.
            options: What to ask of the model.
            timeouts: Budgets for this turn, field by field over the session's.
            limits: Limits for this turn, field by field over the session's.
            retry: How often to try again, field by field over the session's.
            on_cancel: What becomes of the connection if the block is left early.
            transport: How the request travels.

        Raises:
            ConfigurationError: something given is wrong; ``field`` names it. Nothing was sent.
        """
        settings = self._over(timeouts, limits, retry, on_cancel, transport)
        return self._turn(context, options, settings, buffered=True)

    async def ask(
        self,
        context: str | Context,
        options: TurnOptions | None = None,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
    ) -> AssistantMessage:
        """Send one request and return the whole answer. Takes the same arguments as `turn`.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: there is no answer; its class and attributes say why.

        If cancelled, the turn is abandoned at once, and its connection given up.
        """
        settings = self._over(timeouts, limits, retry, on_cancel, transport)
        async with self._turn(context, options, settings, buffered=False) as turn:
            return await turn.wait()

    async def run(
        self,
        context: str | Context,
        tools: Iterable[AnyTool] = (),
        options: TurnOptions | None = None,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
        max_rounds: int = 16,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        on_round: OnRound | None = None,
    ) -> AssistantMessage:
        """Ask, run the tools that the model calls, send their outputs, and so on; return the last response.

        Tools run in the caller's task tree, the calls of one response side by side, and only when the response is
        complete: a request that is sent again runs no tool again. A tool that fails or takes too long, a tool that does
        not exist, arguments that do not fit, a call that is refused: each becomes an output that tells the model so,
        with the type and the text of a tool's exception. What is no `Exception`, such as KeyboardInterrupt, comes out.

        The response is returned with its calls, none of them run, when any is for a tool without a function. So is one
        that the token limit cut.

        Args:
            context: Instructions, messages and tools; a plain string is one user message without history.
            tools: More tools, in addition to the context's. A `FunctionTool` in either is run; one whose name is
                declared by a schema as well serves that declaration, which is how a custom tool gets its function.
            options: What to ask of the model. A ``tool_choice`` that demands a call holds for the first round only.
            timeouts: Budgets for each round's turn, field by field over the session's. For all rounds together, use a
                scope of your own.
            limits: Limits for each round's turn, field by field over the session's.
            retry: How often to try again in each round's turn, field by field over the session's.
            on_cancel: What becomes of the connection if the loop is left during a turn.
            transport: How the requests travel.
            max_rounds: How many responses to ask for.
            max_concurrent_tools: How many calls of one response run at the same time.
            tool_timeout: Seconds for each call of a tool that has no timeout of its own; None for no limit.
            approve: Asked about one call after the other, before any call of the response is run: True to run it, False
                or a reason to refuse it. May be async. What it raises ends the loop.
            on_round: Told of each `Round` when it is complete. May be async. What it raises ends the loop.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: a round failed; its class and attributes say why. When the model still calls tools in the last
                round that it may have, a `ResponseFailed` with code ``max_rounds``, and ``partial`` is that response.

        If cancelled, the turn is abandoned at once, or the tools are cancelled and waited for, whichever is under way.
        """
        given = Context.of(context)
        loop = ToolLoop(
            self._opener(self._over(timeouts, limits, retry, on_cancel, transport)),
            given,
            Toolbox(given.tools, tools),
            _options(options),
            LoopSettings(
                max_rounds=max_rounds,
                max_concurrent_tools=max_concurrent_tools,
                tool_timeout=tool_timeout,
                approve=approve,
                on_round=on_round,
            ),
        )
        return await loop.run()

    def conversation(
        self,
        instructions: str | None = None,
        tools: Iterable[AnyTool] = (),
        messages: Iterable[Message] = (),
        options: TurnOptions | None = None,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
        max_rounds: int = 16,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        on_round: OnRound | None = None,
    ) -> Conversation:
        """Begin a conversation, which keeps its transcript and runs tools. Sends nothing.

        Args:
            instructions: What holds for the whole conversation.
            tools: What the model may call: functions, and schemas whose calls you answer yourself.
            messages: The transcript so far.
            options: What to ask of the model, unless a prompt says otherwise.
            timeouts: As for `run`; likewise all that follow.
            limits: See `run`.
            retry: See `run`.
            on_cancel: See `run`.
            transport: See `run`.
            max_rounds: How many responses to ask for at each prompt.
            max_concurrent_tools: See `run`.
            tool_timeout: See `run`.
            approve: See `run`.
            on_round: See `run`. When it is told of a round, the transcript holds it.

        Raises:
            ConfigurationError: something given is wrong; ``field`` names it.
        """
        toolbox = Toolbox((), tools)
        merged = self._over(timeouts, limits, retry, on_cancel, transport)
        return Conversation(
            self._opener(merged),
            Context(messages, instructions=instructions, tools=toolbox.offered),
            toolbox,
            _options(options),
            LoopSettings(
                max_rounds=max_rounds,
                max_concurrent_tools=max_concurrent_tools,
                tool_timeout=tool_timeout,
                approve=approve,
                on_round=on_round,
            ),
            merged.timeouts,
        )

    def _over(
        self,
        timeouts: Timeouts | None,
        limits: Limits | None,
        retry: RetryPolicy | None,
        on_cancel: OnCancel | None,
        transport: Transport | None,
    ) -> Settings:
        return self._core.settings.over(
            timeouts=timeouts, limits=limits, retry=retry, on_cancel=on_cancel, transport=transport
        )

    def _opener(self, settings: Settings) -> OpenTurn:
        """Return what prepares the turns of a loop."""

        def open_turn(context: Context, options: TurnOptions, buffered: bool) -> Turn:
            return self._turn(context, options, settings, buffered=buffered)

        return open_turn

    def _turn(self, context: str | Context, options: TurnOptions | None, settings: Settings, *, buffered: bool) -> Turn:
        options = _options(options)
        body = create_body(Context.of(context), options, model=settings.model)
        return Turn(self._core.lane(), body, options, settings, buffered=buffered)

    async def warm_up(
        self, context: str | Context, options: TurnOptions | None = None, *, timeouts: Timeouts | None = None
    ) -> bool:
        """Open the connection and let the server prepare for ``context``, ahead of the first turn.

        The server is told model, instructions and tools, and generates nothing; the next turn that fits continues
        from there. Once per connection, and only before its first turn. A failure is no error: the turn will meet it.

        Returns:
            Whether the server is prepared.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            RequestTooLarge: the request is over `engine.Limits.max_request_bytes`.

        Takes the ``connect`` and ``warm_up`` budgets at most. Cancelling stops waiting; the warm-up goes on.
        """
        options = _options(options)
        settings = self._core.settings.over(timeouts=timeouts)
        body = create_body(Context.of(context), options, model=settings.model)
        body = await hooked(body, options.payload_hook)
        text = create_text(body)
        size, limit = len(text.frame(generate=False).encode()), settings.limits.max_request_bytes
        if size > limit:
            raise to_error(TooLarge(size, limit))
        if settings.transport is Transport.SSE:
            await trio.lowlevel.checkpoint()
            return False
        return await self._core.warm_up(body, text, settings)

    async def compact(
        self, context: str | Context, options: TurnOptions | None = None, *, timeouts: Timeouts | None = None
    ) -> Context:
        """Have the server compact a conversation, and return what takes its place in the next turns.

        Goes over HTTP, beside the session's turns. Of the options count ``model``, ``prompt_cache_key`` and
        ``service_tier``. The result has the same instructions and tools, and holds what the server returned as it
        is: keep all of it, and append to it. The next turn with it is sent whole.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnError: the conversation was not compacted; its class and attributes say why.

        Takes the ``start`` budget at most. If cancelled, the request is given up and its connection closed, at once.
        """
        settings = self._core.settings.over(timeouts=timeouts)
        given = Context.of(context)
        body = compaction_body(given, _options(options), model=settings.model)
        compaction = Compaction(
            given,
            create_text(body).http_body(),
            timeouts=settings.timeouts,
            max_bytes=settings.limits.max_message_bytes,
        )
        return await compaction.compact(self._core.pool)

    def statistics(self) -> SessionStatistics:
        """Counters at this moment."""
        return self._core.statistics()


def _options(given: TurnOptions | None) -> TurnOptions:
    if given is not None and not isinstance(given, TurnOptions):
        raise ConfigurationError("options", f"is a {type(given).__name__}, not TurnOptions")
    return _NO_OPTIONS if given is None else given


_NO_OPTIONS: Final = TurnOptions()
