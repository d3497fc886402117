"""Conversations: a transcript that grows by whole rounds, and the prompts that make it grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Unpack

import attrs
import trio

from engine.conversation.errands import waits_for_caller
from engine.conversation.line import Line, Place
from engine.conversation.loop_settings import LoopSettings
from engine.conversation.prompts import Prompt, messages_of
from engine.conversation.reply import Reply
from engine.conversation.rounds import Progress, Round
from engine.conversation.snapshot import ConversationState, Memory, Snapshot, conversation_snapshot
from engine.conversation.tool_loop import OpenTurn, ToolLoop
from engine.conversation.toolbox import Toolbox
from engine.settings.fields import TurnFields, options_with, settings_with, spelled_out
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.turns.lane import Lane
from engine.values.blocks import OutputItem, ToolCall
from engine.values.calls import answered_by
from engine.values.messages import AssistantMessage, Context, Message, ToolResult
from engine.values.problems import ConfigurationError
from engine.values.usage import Usage

__all__ = ["Conversation"]


class Conversation:
    """Keeps a transcript and runs the tool loop. Got from `engine.Session.conversation`.

    The transcript grows by whole rounds: a response and the outputs of all its calls together, the first round of a
    prompt with the prompt. A round that fails or is cancelled leaves it as it was, so it can always be sent.

    Prompts of one conversation are answered one after the other, in the order in which they were given.
    """

    def __init__(
        self,
        open_turn: OpenTurn,
        toolbox: Toolbox,
        settings: Settings,
        loop_settings: LoopSettings,
        *,
        lane: Lane,
        state: ConversationState,
    ) -> None:
        self._open_turn = open_turn
        self._context = Context(state.messages, instructions=state.instructions, tools=toolbox.offered)
        self._toolbox = toolbox
        self._options = state.options
        self._settings = settings
        self._loop_settings = loop_settings
        self._rounds: list[Round] = []
        self._line = Line(lane.tasks.check_caller)
        self._loop: ToolLoop | None = None
        self._waiting = state.pending  # what joins the transcript with the results that the caller owes
        self._left = state.interrupted
        self._usage = state.usage
        self._lane = lane

    def _take_up(self, *, waiting: tuple[Message, ...], progress: Progress) -> None:
        """Begin where another process stopped: with calls that the caller still owes results for, or inside a round."""
        self._waiting, self._left = waiting, progress

    def __repr__(self) -> str:
        return f"<Conversation of {len(self.messages)} messages>"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript, oldest first. Calls that wait for the caller's results are not in it yet."""
        return self._context.messages

    @property
    def context(self) -> Context:
        """The transcript with the instructions and tools of the conversation."""
        return self._context

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Every complete round of every prompt of this conversation, oldest first."""
        return tuple(self._rounds)

    @property
    def unanswered(self) -> tuple[ToolCall, ...]:
        """The calls of the last response that wait for the caller's results."""
        return _unanswered((*self.messages, *self._waiting))

    @property
    def usage(self) -> Usage:
        """Tokens of all responses that came, those of rounds that failed afterwards included."""
        return self._usage if self._loop is None else self._usage + self._loop.usage

    def snapshot(self) -> Snapshot:
        """Return the conversation as plain, JSON-able data, at any time: ``session.conversation(resume=...)`` goes on.

        It holds the transcript, the options, what is under way, a mark for each tool, and, where the server stores the
        last response, what is needed to continue that elsewhere. What it cannot hold, its ``lost`` says. There is no
        key, header or function in it.

        Raises:
            ConfigurationError: something in the conversation has no JSON form.
        """
        running = self._loop
        return conversation_snapshot(
            ConversationState(
                instructions=self._context.instructions,
                messages=self.messages,
                pending=self._waiting,
                interrupted=self._left if running is None else running.progress,
                options=self._options,
                tools=self._toolbox.marks(),
                usage=self.usage,
                memory=Memory.of(self._lane),
            )
        )

    @property
    def interrupted(self) -> Progress | None:
        """A prompt that was begun and has not been answered, with what there is of its round; None where there is none.

        ``send([])`` goes on with it: a response that has come is not asked for again, and tools whose outputs are there
        do not run again. Any other prompt takes its place.
        """
        return self._left if self._loop is None and self._left else None

    @spelled_out
    async def send(
        self, prompt: Prompt, options: TurnOptions | None = None, **fields: Unpack[TurnFields]
    ) -> AssistantMessage:
        """Say something and return the answer, having run the tools that the model called on the way.

        A response that calls a tool without a function is returned as it is, with none of its calls run, and joins the
        transcript together with the results that the next prompt brings. Calls that the next prompt does not answer are
        answered for it, by outputs that say so.

        Args:
            prompt: A text, a message, messages, or a context that has nothing else. No messages at all: go on, with
                the prompt that was interrupted or from the transcript as it is, for example after a round that failed.
            options: The requests' options, in place of the conversation's.
            fields: Single fields of the options, and settings of the turns, over the conversation's.

        Raises:
            ConfigurationError: something given is wrong; nothing was sent.
            TurnTimeout: earlier prompts were not answered within the ``queue`` (or ``turn``) budget; nothing was sent.
            TurnError: a round failed, or there were too many: then it is a `ResponseFailed` with code ``max_rounds``.
                Complete rounds stay in the transcript, and the prompt with the first of them.
            RuntimeError: what sends is what the conversation waits for: one of its tools, ``approve``, ``on_round``, or
                a task inside one of its replies.

        If cancelled while it waits for an earlier prompt, nothing happens. If cancelled later, the turn is abandoned or
        the tools are cancelled, whichever is under way; complete rounds stay in the transcript.
        """
        given, chosen, settings = self._checked(prompt, options, fields, "send")
        async with self._place(settings):
            loop = self._begin(given, chosen, settings)
            try:
                return await loop.run()
            finally:
                self._end(loop)

    @spelled_out
    def stream(self, prompt: Prompt, options: TurnOptions | None = None, **fields: Unpack[TurnFields]) -> Reply:
        """Prepare a prompt whose answer is read as it comes: ``async with chat.stream(...) as reply``, then iterate.

        Takes the arguments of `send`, with the same meaning.

        Raises:
            ConfigurationError: something given is wrong.
        """
        given, chosen, settings = self._checked(prompt, options, fields, "stream")
        return Reply(
            place=partial(self._place, settings),
            begin=partial(self._begin, given, chosen, settings),
            end=self._end,
            limit=settings.limits.max_request_bytes,
        )

    def _checked(
        self, prompt: Prompt, options: TurnOptions | None, fields: Mapping[str, Any], call: str
    ) -> tuple[tuple[Message, ...], TurnOptions, Settings]:
        if isinstance(prompt, Context) and (prompt.instructions is not None or prompt.tools):
            raise ConfigurationError("prompt", "has instructions or tools, and the conversation has its own")
        chosen = options_with(self._options if options is None else options, fields, call)
        return messages_of(prompt), chosen, settings_with(self._settings, fields)

    def _place(self, settings: Settings) -> Place:
        if waits_for_caller(self):
            raise RuntimeError(
                "the conversation waits for the function (a tool, approve, on_round, prepare, the journal) that sends "
                "to it: let the function return first, or send to a conversation of its own"
            )
        return self._line.place(settings.timeouts)

    def _begin(self, given: tuple[Message, ...], options: TurnOptions, settings: Settings) -> ToolLoop:
        progress = self._left
        if given or not progress:
            answered = set(map(_answered, given))
            missing = (
                ToolResult(call.call_id, "the call was not answered", is_error=True, kind=call.kind)
                for call in self.unanswered
                if call.call_id not in answered
            )
            progress = Progress(prompt=(*self._waiting, *missing, *given))
        messages = (*self.messages, *progress.prompt)
        if not messages:
            raise ConfigurationError("prompt", "is empty, and so is the conversation")
        self._loop = ToolLoop(
            self._open_turn,
            attrs.evolve(self._context, messages=messages),
            self._toolbox,
            options,
            settings,
            self._loop_settings,
            lane=self._lane,
            progress=progress,
            keep=self._keep,
            owner=self,
        )
        return self._loop

    @trio.lowlevel.enable_ki_protection
    def _end(self, loop: ToolLoop) -> None:
        """A loop runs no more: what it has begun is what the next prompt finds."""
        self._loop, self._left = None, loop.progress
        self._usage += loop.usage

    def _keep(self, done: Round, new: tuple[Message, ...], waits: bool) -> None:
        self._rounds.append(done)
        self._waiting = new if waits else ()
        if not waits:
            self._context = attrs.evolve(self._context, messages=(*self.messages, *new))


def _unanswered(messages: Iterable[Message]) -> tuple[ToolCall, ...]:
    calls: dict[str, ToolCall] = {}
    for message in messages:
        if isinstance(message, AssistantMessage):
            calls.update((call.call_id, call) for call in message.unanswered)
        elif (call_id := _answered(message)) is not None:
            calls.pop(call_id, None)
    return tuple(calls.values())


def _answered(message: Message) -> str | None:
    """The id of the call that a message answers."""
    if isinstance(message, OutputItem):
        return answered_by(message.item)
    return message.call_id if isinstance(message, ToolResult) else None
