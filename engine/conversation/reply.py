"""Replies: an answer of a conversation that is read as it comes, over all its rounds."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import trio

from engine.conversation.line import Place
from engine.conversation.tool_loop import ToolLoop
from engine.protocol.failures import SteerRefused
from engine.turns.steering import SteerInput, not_taken, wish_of
from engine.turns.texts import Texts
from engine.turns.turn import Turn
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport
from engine.values.turn_events import TurnDone, TurnEvent

__all__ = ["Reply"]


class Reply:
    """An answer that is read as it comes: ``async with chat.stream(...) as reply``, then iterate.

    Yields the turn events of every round; each round ends with an `engine.TurnDone`. Tools run while the event after a
    ``TurnDone`` with reason ``tool_use`` is waited for. Entering waits until earlier prompts are answered. Leaving
    returns at once, from any task: a turn that has not ended is abandoned, tools that run are cancelled, and complete
    rounds stay in the transcript.
    """

    def __init__(
        self,
        *,
        place: Callable[[], Place],
        begin: Callable[[], ToolLoop],
        end: Callable[[ToolLoop], None],
        limit: int,
    ) -> None:
        self._take_place = place
        self._begin = begin
        self._end = end
        self._limit = limit
        self._entered = False
        self._left = False
        self._busy = False
        self._place: Place | None = None
        self._loop: ToolLoop | None = None
        self._turn: Turn | None = None
        self._held: TurnEvent | None = None
        self._message: AssistantMessage | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Reply, {self._stage()}>"

    def _stage(self) -> str:
        if self._error is not None:
            return f"failed: {type(self._error).__name__}"
        if self._message is not None:
            return "answered"
        if self._left:
            return "left"
        return "not answered yet" if self._entered else "not entered"

    @property
    def message(self) -> AssistantMessage:
        """The last response.

        Raises:
            RuntimeError: the answer is not complete.
        """
        if self._message is None:
            raise RuntimeError("the answer is not complete")
        return self._message

    @property
    def partial(self) -> AssistantMessage:
        """The part of the current response that has arrived, else the last response; empty when nothing has."""
        if self._turn is not None:
            return self._turn.partial
        last = self._loop.message if self._loop is not None else None
        return last or AssistantMessage()

    @property
    def report(self) -> TurnReport:
        """The report of the last request at this moment."""
        if self._turn is not None:
            return self._turn.report
        return self._loop.report if self._loop is not None else TurnReport()

    @property
    def ready(self) -> bool:
        """Whether an event or an error is there, so that the next `__anext__` waits for nothing and runs no tool."""
        turn = self._turn
        return self._held is not None or (turn is not None and turn.ready and not turn.answered)

    async def steer(self, input: SteerInput) -> None:  # noqa: A002 - the wire's own name
        """Add input to the response that runs: ``await reply.steer("also check the tests")``; see `engine.Turn.steer`.

        What is applied joins the transcript with the round, as messages of the user, where the server put them. What
        was not is in ``reply.report.unapplied``.

        Raises:
            ConfigurationError: the input is empty, or nothing but messages of the user will do.
            RequestTooLarge: it is over `engine.Limits.max_request_bytes`.
            SteerRejected: it was not taken: no response runs, which is so while tools do, or the server refused it, or
                another task has left the block.
            TurnError: the round failed before the server answered; it may have been taken.
            RuntimeError: the block was not entered.

        Cancelling only stops waiting: input that was sent may be applied, and what was not sent is not.
        """
        loop = self._loop_entered()
        if self._turn is None:
            wish_of(input, limit=self._limit)  # what is wrong with it comes first
            await trio.lowlevel.checkpoint()
            code = "response_already_completed" if loop.finished else "response_not_active"
            barred = "no response runs: say it when one does, or in the next prompt"
            if self._left and not loop.finished:
                barred = "the reply's block was left: say it in the next prompt"
            raise not_taken(SteerRefused(code, barred=barred))
        await self._turn.steer(input)

    def texts(self) -> Texts:
        """The answer's words as they come: ``async for text in reply.texts()``. Tools run as when events are read."""
        return Texts(self)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Reply:
        """Wait until earlier prompts of the conversation are answered. Sends nothing yet.

        Raises:
            ConfigurationError: there is nothing to say.
            TurnTimeout: earlier prompts were not answered within the ``queue`` (or ``turn``) budget.
            RuntimeError: the conversation waits for what enters.

        If cancelled, nothing happens.
        """
        if self._entered:
            raise RuntimeError("a reply can be entered only once")
        self._entered = True
        place = self._take_place()
        await place.__aenter__()
        try:
            self._loop = self._begin()
        except BaseException:
            place.leave()
            raise
        self._place = place
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the reply. Has no checkpoint: it returns at once, whatever its state, in whatever task."""
        if self._left or self._loop is None or self._place is None:
            return
        self._left = True
        turn, self._turn = self._turn, None
        if turn is not None:
            await turn.__aexit__(None, None, None)
        self._loop.leave()
        self._end(self._loop)
        self._place.leave()

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next turn event, running tools where that comes first.

        Raises:
            TurnError: a round failed, or there were too many; the same error again if asked again.
            RuntimeError: the block was left, or is left meanwhile, by another task.

        Cancelling loses no event, but for one thing: if tools are running they are cancelled, and the answer cannot be
        gone on with. It is a RuntimeError to ask for more of it.
        """
        loop = self._loop_inside()
        if self._busy:
            raise RuntimeError("another task is reading this reply")
        self._busy = True
        try:
            return await self._next(loop)
        finally:
            self._busy = False

    def _loop_inside(self) -> ToolLoop:
        if self._left:
            raise RuntimeError("the reply was left, and is read inside its block only")
        return self._loop_entered()

    def _loop_entered(self) -> ToolLoop:
        if self._loop is None:
            raise RuntimeError("read a reply inside its block: async with chat.stream(...) as reply")
        return self._loop

    async def _next(self, loop: ToolLoop) -> TurnEvent:
        while True:
            if self._held is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                event, self._held = self._held, None
                return event
            if self._error is not None:
                await trio.lowlevel.checkpoint()
                raise self._error
            turn = self._turn
            if turn is None and loop.progress.response is None:
                if loop.finished:
                    await trio.lowlevel.checkpoint()
                    raise StopAsyncIteration
                turn = await loop.next_turn(buffered=True)
                self._loop_inside()
                # Its events are read by many calls of this method, and it has no scope in this task between them.
                self._turn = turn
                try:
                    await turn.__aenter__()
                except BaseException:
                    self._turn = None
                    raise
                self._loop_inside()
            await self._advance(loop, turn)

    async def _advance(self, loop: ToolLoop, turn: Turn | None) -> None:
        """Hold the turn's next event; where there is none, close the round."""
        if turn is None:  # another process had the response
            await self._complete(loop, None)
            return
        try:
            self._held = event = await anext(turn)
        except StopAsyncIteration:
            await self._complete(loop, turn)
            return
        # A response that needs no tools is kept with its last event: a reader who stops there has read everything.
        if isinstance(event, TurnDone) and turn.answered and loop.is_last(turn.message):
            await self._complete(loop, turn)

    async def _complete(self, loop: ToolLoop, turn: Turn | None) -> None:
        before = loop.rounds
        try:
            if turn is not None:
                self._turn = None
                await turn.__aexit__(None, None, None)
                await loop.answered(turn)
            await loop.complete()
        except Exception as error:
            self._error = error
            raise
        finally:
            if loop.finished:
                self._message = loop.message
            if loop.rounds == before and self._error is None:
                self._error = RuntimeError("the answer was cut short while its tools ran")
