"""An answer of a stored conversation that is read as it comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType

import trio

from engine.conversation.line import Place
from engine.conversation.reply import Reply
from engine.turns.steering import ENDED, SteerInput, not_taken
from engine.turns.texts import Texts
from engine.values.blocks import Refusal, Text, Thinking, ToolCall
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport
from engine.values.turn_events import (
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    TurnDone,
    TurnEvent,
    TurnStarted,
)

__all__ = ["StoredReply"]


class StoredReply:
    """An answer of a stored conversation: ``async with chat.stream(...) as reply``, then iterate.

    As `engine.Reply`, of which it has the events and attributes; each round is in the store before its last event is
    told. Leaving it early leaves the prompt begun and not answered: the same key goes on with it.

    Args:
        place: Its place among the conversation's prompts.
        take_up: Returns the answer where the store has it, or gets the conversation ready to be asked.
        begin: Makes the reply that asks.
        on_failed: Told of a round's error.
    """

    def __init__(
        self,
        place: Place,
        *,
        take_up: Callable[[], Awaitable[AssistantMessage | None]],
        begin: Callable[[], Reply],
        on_failed: Callable[[TurnError], Awaitable[None]],
    ) -> None:
        self._place = place
        self._take_up = take_up
        self._begin = begin
        self._on_failed = on_failed
        self._entered = self._left = self._told = False
        self._known: AssistantMessage | None = None
        self._retold: deque[TurnEvent] = deque()
        self._reply: Reply | None = None

    @property
    def known(self) -> bool:
        """Whether the answer was in the store already, so that nothing is sent."""
        return self._known is not None

    @property
    def message(self) -> AssistantMessage:
        """The last response.

        Raises:
            RuntimeError: the answer is not complete.
        """
        if self._known is not None:
            return self._known
        return self._inner.message

    @property
    def partial(self) -> AssistantMessage:
        """The part of the current response that has arrived, else the last response; empty when nothing has."""
        if self._known is not None:
            return self._known
        return self._reply.partial if self._reply is not None else AssistantMessage()

    @property
    def report(self) -> TurnReport:
        """The report of the last request at this moment; an empty one where nothing was sent."""
        return self._reply.report if self._reply is not None else TurnReport()

    @property
    def ready(self) -> bool:
        """Whether an event or an error is there, so that the next `__anext__` waits for nothing and runs no tool."""
        return bool(self._retold) if self._reply is None else self._reply.ready

    async def steer(self, input: SteerInput) -> None:  # noqa: A002 - the wire's own name
        """Add input to the response that runs; see `engine.Reply.steer`.

        Raises:
            SteerRejected: it was not taken; an answer that was in the store already cannot be steered.

        Cancelling only stops waiting.
        """
        if self._known is not None:
            await trio.lowlevel.checkpoint()
            raise not_taken(ENDED)
        await self._inner.steer(input)

    def texts(self) -> Texts:
        """The answer's words as they come: ``async for text in reply.texts()``. Tools run as when events are read."""
        return Texts(self)

    @property
    def _inner(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("read a reply inside its block: async with chat.stream(...) as reply")
        return self._reply

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> StoredReply:
        """Wait until earlier prompts of the conversation are answered, and look into the store. Sends nothing yet.

        Raises:
            ConfigurationError: there is nothing to say, or the key is another prompt's.
            TurnInterrupted: as for `StoredConversation.send`.
            TurnTimeout: earlier prompts were not answered within the ``queue`` (or ``turn``) budget.
            LeaseLost: another process has the session by now.
            StoreError: a row of the session cannot be read.
            StoreUnavailable: the store is out of reach.

        If cancelled, nothing was sent.
        """
        if self._entered:
            raise RuntimeError("a reply can be entered only once")
        self._entered = True
        await self._place.__aenter__()
        try:
            self._known = await self._take_up()
            if self._known is None:
                reply = self._begin()
                await reply.__aenter__()
                self._reply = reply
            else:
                self._retold.extend(_retold(self._known))
        except BaseException:
            self._place.leave()
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the reply. Has no checkpoint: it returns at once, whatever its state, in whatever task."""
        if self._left:
            return
        self._left = True
        if self._reply is not None:
            await self._reply.__aexit__(exc_type, exc, traceback)
        self._place.leave()

    def __aiter__(self) -> StoredReply:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next turn event, running tools where that comes first.

        Raises:
            TurnError: a round failed, or there were too many; the same error again if asked again.
            TurnInterrupted: sending the request again is not allowed any more.
            LeaseLost: another process has the session by now.
            StoreUnavailable: the store is out of reach. What was under way is not lost: the same key goes on with it.
            RuntimeError: the block was left, or is left meanwhile, by another task.

        Cancelling loses no event, but for one thing: if tools are running they are cancelled, and the answer cannot be
        gone on with. It is a RuntimeError to ask for more of it.
        """
        if self._known is not None:
            await trio.lowlevel.checkpoint()
            if self._left:
                raise RuntimeError("the reply was left, and is read inside its block only")
            if not self._retold:
                raise StopAsyncIteration
            return self._retold.popleft()
        try:
            return await anext(self._inner)
        except TurnError as error:
            if not self._told:
                self._told = True
                await self._on_failed(error)
            raise


def _retold(message: AssistantMessage) -> Iterator[TurnEvent]:
    """The events that tell a whole answer."""
    yield TurnStarted(message.response_id)
    for index, block in enumerate(message.content):
        match block:
            case Text(text=text):
                yield TextStarted(index, block)
                yield TextDelta(index, text)
                yield TextEnded(index, block)
            case Refusal(refusal=text):
                yield TextStarted(index, block)
                yield TextDelta(index, text)
                yield TextEnded(index, block)
            case Thinking(text=text):
                yield ThinkingStarted(index, block)
                yield ThinkingDelta(index, text)
                yield ThinkingEnded(index, block)
            case ToolCall():
                yield ToolCallStarted(index, block)
                yield ToolCallDelta(index, block.raw_arguments)
                yield ToolCallEnded(index, block)
    yield TurnDone(message.stop_reason or "stop", message)
