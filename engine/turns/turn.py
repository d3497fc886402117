"""One turn: the block of the caller's code that waits for an answer.

The caller's task only queues, waits and reads. What is done for the turn, `engine.turns.work` does, in a task of the
session's.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio

from engine.protocol.states import move
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.turns.additions import inject, steer
from engine.turns.admission import admit
from engine.turns.injecting import InjectedResults
from engine.turns.lane import Lane
from engine.turns.states import TURN_TRANSITIONS, TurnState
from engine.turns.steering import SteerInput
from engine.turns.submission import Submission
from engine.turns.texts import Texts
from engine.turns.work import BeforeDispatch, Work
from engine.values.messages import AssistantMessage, Message
from engine.values.reports import TurnReport
from engine.values.turn_events import TurnEvent

__all__ = ["Turn", "room_after"]


class Turn:
    """A request and its answer: ``async with session.turn(...) as turn``, then iterate, or await `wait`.

    Entering waits until the lane is free. Leaving returns at once, whatever the state: a turn that has not ended is
    abandoned, its connection is given up, and no later turn can see anything of it.

    Iterating yields turn events and ends after `engine.TurnDone`; a failure raises a `engine.TurnError` after the
    events that came before it.
    """

    def __init__(
        self,
        lane: Lane,
        body: dict[str, Any],
        options: TurnOptions,
        settings: Settings,
        *,
        buffered: bool = True,
        gate: BeforeDispatch | None = None,
    ) -> None:
        self._state = TurnState.NEW
        self._work = Work(lane, Submission(body, options), settings, buffered=buffered, gate=gate)

    def __repr__(self) -> str:
        lane = self._work.lane
        where = f"session {lane.session!r}" if lane.name is None else f"lane {lane.name!r} of session {lane.session!r}"
        return f"<Turn of {where}, {self._stage()}>"

    def _stage(self) -> str:
        if self._work.error is not None:
            return f"failed: {type(self._work.error).__name__}"
        if self._work.message is not None:
            return "answered"
        return {TurnState.NEW: "not entered", TurnState.INSIDE: "not answered yet", TurnState.LEFT: "left"}[self._state]

    async def __aenter__(self) -> Turn:
        """Queue the request and wait until the lane is granted.

        Raises:
            ConfigurationError: the request cannot be written as JSON.
            RequestTooLarge: it is over `engine.Limits.max_request_bytes`, and may travel over WebSocket only.
            TurnTimeout: the lane was not granted within the ``queue`` (or ``turn``) budget.
            SessionClosed: the session takes no more turns.

        If cancelled, the turn leaves the queue; nothing was sent.
        """
        self._work.lane.tasks.check_caller()
        if self._state is not TurnState.NEW:
            raise RuntimeError("a turn can be entered only once")
        self._move(TurnState.INSIDE)
        try:
            await admit(self._work)
        except BaseException:
            self._leave()
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn. Has no checkpoint: it returns at once, whatever the turn's state."""
        self._leave()

    @trio.lowlevel.enable_ki_protection
    def _leave(self) -> None:
        if self._state is TurnState.INSIDE:
            self._move(TurnState.LEFT)
            self._work.leave()

    def _move(self, state: TurnState) -> None:
        self._state = move(TURN_TRANSITIONS, self._state, state)

    def _check_inside(self) -> None:
        if self._state is TurnState.LEFT:
            raise RuntimeError("the turn's block was left")
        if self._state is TurnState.NEW:
            raise RuntimeError("enter the turn first: async with session.turn(...) as turn")

    # --- reading ---

    def __aiter__(self) -> Turn:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next turn event.

        Raises:
            TurnError: the turn failed; the same error again if asked again.

        Cancelling loses no event.
        """
        if self._state is not TurnState.INSIDE:
            self._check_inside()
        inbox = self._work.inbox
        if inbox.ready():
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._work.lane.tasks.check_caller()
            await inbox.wait()
            self._check_inside()  # another task may have left the block meanwhile
        event = inbox.take()
        if event is not None:
            return event
        if self._work.error is not None:
            raise self._work.error
        raise StopAsyncIteration

    def texts(self) -> Texts:
        """The answer's words as they come: ``async for text in turn.texts()``. Everything else is passed over."""
        return Texts(self)

    async def wait(self) -> AssistantMessage:
        """Wait for the whole answer. From here on nothing is buffered, so it cannot overflow.

        Raises:
            TurnError: the turn failed.

        Cancelling only stops waiting; leaving the block is what abandons the turn.
        """
        self._work.lane.tasks.check_caller()
        self._check_inside()
        await self._work.inbox.wait_closed()
        return self.message

    async def steer(self, input: SteerInput) -> None:  # noqa: A002 - the wire's own name
        """Add input to the response while it runs: ``await turn.steer("also check the tests")``.

        Returns when the server has accepted it, which does not mean that it was applied: that is told by a
        `engine.TurnContinued`, with which another response goes on in place of the first. All of them are one turn,
        with one message, one report and the same budgets. What came too late is in ``turn.report.unapplied``.

        Input that comes before the response has begun waits until it has. From when it was sent on, the turn is not
        sent again, whatever happens; and until the server has done something about it, leaving the turn gives its
        connection up, whatever the cancel policy.

        Args:
            input: A text, or messages of the user.

        Raises:
            ConfigurationError: the input is empty, or something else than that.
            RequestTooLarge: it is over `engine.Limits.max_request_bytes`.
            SteerRejected: it was not taken; ``delivery`` tells whether it was sent. The turn goes on, unless another
                task has left its block, which is a reason too.
            TurnError: the turn failed before the server answered; it may have been taken.
            RuntimeError: the block was not entered.

        Cancelling only stops waiting: input that was sent may be applied, and what was not sent is not.
        """
        self._work.lane.tasks.check_caller()
        if self._state is not TurnState.LEFT:  # then it says why it was not taken
            self._check_inside()
        await steer(self._work, input)

    async def inject(self, results: InjectedResults) -> bool:
        """Hand a response that runs the outputs of its calls, so that an agent which waits for them goes on.

        For the beta of several agents, which the profile has to have: ``Endpoint(..., profile="openai-multi-agent")``,
        and ``extra={"multi_agent": {"enabled": True}}`` in the request. The calls come as events of the turn; when all
        are answered that way, the turn ends as if there had been none.

        Args:
            results: A tool result, or several, or items of outputs.

        Returns:
            Whether the server took them, all together. If not, the response had ended: they belong into the next
            request, as the outputs of calls do otherwise.

        Raises:
            ConfigurationError: the profile has no such beta, or something given is no output of a call; nothing was
                sent.
            RequestTooLarge: they are over `engine.Limits.max_request_bytes`.
            RequestRejected: the server did not take them, for another reason. The turn goes on.
            TurnTimeout: no answer came within the ``first_event`` budget. The turn goes on.
            TurnError: the turn failed before the server answered; they may have been taken.
            RuntimeError: no response runs: the block was not entered, or was left, or the turn waits, or goes over
                HTTP.

        Cancelling only stops waiting: what was sent is sent.
        """
        self._work.lane.tasks.check_caller()
        self._check_inside()
        return await inject(self._work, results)

    @property
    def ready(self) -> bool:
        """Whether the next `__anext__` would not wait: an event, the end or a failure is there."""
        return self._work.inbox.has_something

    # --- what came of it ---

    @property
    def answered(self) -> bool:
        """Whether it has ended with an answer."""
        return self._work.message is not None

    @property
    def message(self) -> AssistantMessage:
        """The whole answer: the blocks of all its responses, where the turn was steered, and the sum of their usage.

        Raises:
            RuntimeError: the turn has not ended, or was left before that.
            TurnError: it failed.
        """
        if self._work.error is not None:
            raise self._work.error
        if self._work.message is None:
            if self._state is TurnState.LEFT:
                raise RuntimeError("the turn has not ended, and its block was left; turn.partial is what had come")
            raise RuntimeError("the turn has not ended; turn.partial is what there is so far")
        return self._work.message

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole answer as a transcript has it, for the next request.

        That is `message` alone, unless the turn was steered: then each response is a message of its own, with its own
        id and usage, and before each is the input that it was given. Input that waits for the outputs of calls comes
        last, before those outputs.

        Raises:
            RuntimeError: the turn has not ended.
            TurnError: it failed.
        """
        return self.message.messages

    @property
    def partial(self) -> AssistantMessage:
        """The part of the answer that has arrived; empty when nothing has."""
        return self._work.arrived or AssistantMessage()

    @property
    def report(self) -> TurnReport:
        """The turn's report at this moment."""
        return self._work.report


def room_after(turn: Turn) -> float:
    """Bytes by which a later request may be larger than the turn's; infinite where it could go over HTTP."""
    return turn._work.room
