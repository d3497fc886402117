"""The steering of one turn: input on its way from the caller's task to the link, one after the other.

The caller's task waits for the server's answer; what is sent is sent by a task of the session's. Input that comes
before a response runs, or between two of them, waits until one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

import trio
from attrs import define, field

from engine.connections.attempt import Attempt
from engine.connections.link import Link
from engine.protocol.failures import SteerRefused, TooLarge, to_error
from engine.protocol.request_body import input_items
from engine.protocol.steers import Steer, SteerState
from engine.values.checks import wrong_type
from engine.values.choices import Delivery
from engine.values.errors import TurnError
from engine.values.messages import UserMessage
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode

__all__ = ["ENDED", "LEFT", "OVER_HTTP", "QUEUED", "SteerInput", "Steering", "Wish", "not_taken", "wish_of"]

SteerInput: TypeAlias = str | UserMessage | Iterable[UserMessage]

QUEUED: Final = SteerRefused("response_not_active", barred="the turn waits for its lane: steer it when it has begun")
ENDED: Final = SteerRefused(
    "response_already_completed", barred="the turn has ended: what it was to be steered with can begin another one"
)
LEFT: Final = SteerRefused("response_not_active", barred="the turn's block was left")
OVER_HTTP: Final = SteerRefused(
    "steering_not_supported", barred="the turn goes over HTTP, where nothing is added to a response"
)


@define(eq=False)
class Wish:
    """Input that a caller wants to add.

    Attributes:
        steer: The input.
        settled: Set when the server has answered, or never will, or its caller waits no longer.
        barred: The reason why it was not sent.
    """

    steer: Steer
    settled: trio.Event = field(factory=trio.Event)
    barred: SteerRefused | None = None

    def __attrs_post_init__(self) -> None:
        self.steer.on_answer = self.settled.set

    def bar(self, why: SteerRefused) -> None:
        """It will not be sent."""
        self.barred = why
        self.settled.set()

    @property
    def refusal(self) -> SteerRefused | None:
        """The reason why it was not taken, the library's or the server's; None where it was not refused."""
        event = self.steer.refusal
        if self.barred is not None or event is None:
            return self.barred
        return SteerRefused(event.code, event.error_type, event.message or "")

    @property
    def taken(self) -> bool:
        """Whether the server has taken it."""
        return self.steer.state is not SteerState.SENT and self.steer.state is not SteerState.REFUSED


def not_taken(why: SteerRefused, *, sent: bool = False) -> TurnError:
    """Return the error for input that was not taken, or that was ``sent`` and will not be answered."""
    error = to_error(why)
    unanswered = Delivery.AMBIGUOUS if sent else Delivery.NOT_SENT
    error.delivery = Delivery.REJECTED if why.barred is None else unanswered
    return error


def wish_of(given: SteerInput, *, limit: int) -> Wish:
    """Return a caller's input in the form in which it is sent.

    Raises:
        ConfigurationError: it is empty, or something else than a user's messages.
        RequestTooLarge: it has more bytes than ``limit``.
    """
    messages = _messages(given)
    items = tuple(input_items(messages, stored=False))
    size = sum(len(encode(item).encode()) for item in items)
    if size > limit:
        raise to_error(TooLarge(size, limit))
    return Wish(Steer(messages, items))


def _messages(given: Any) -> tuple[UserMessage, ...]:
    if isinstance(given, str):
        if not given:
            raise ConfigurationError("input", "is empty")
        return (UserMessage(given),)
    if isinstance(given, UserMessage):
        given = (given,)
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise wrong_type("input", given, "a string or messages of the user")
    messages = tuple(given)
    if not messages:
        raise ConfigurationError("input", "is empty")
    for number, message in enumerate(messages):
        if not isinstance(message, UserMessage):
            raise wrong_type(f"input[{number}]", message, "a message of the user")
        if not message.content:
            raise ConfigurationError(f"input[{number}]", "has no content")
    return messages


class Steering:
    """The wishes of one turn that the server has not answered.

    Args:
        barred: Tells why nothing can be sent any more, or yet; None where something can.
        running: Tells the attempt whose response runs, with its link; None while none does.
        start: Starts a task of the session's.
    """

    def __init__(
        self,
        *,
        barred: Callable[[], SteerRefused | None],
        running: Callable[[], tuple[Link, Attempt] | None],
        start: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._barred = barred
        self._running = running
        self._start = start
        self._queue: deque[Wish] = deque()  # those that were not sent yet
        self._asked: list[Wish] = []
        self._news = trio.lowlevel.ParkingLot()

    async def ask(self, wish: Wish) -> None:
        """Have a wish sent when its turn comes, and wait for the answer, or for the end of the turn.

        Raises:
            SteerRejected: it was not taken.

        Cancelling stops waiting: what was not sent will not be.
        """
        self._enqueue(wish)
        try:
            await wish.settled.wait()
        finally:
            wish.settled.set()
            self._asked.remove(wish)
            self.look()
        if wish.refusal is not None:
            raise not_taken(wish.refusal)

    @trio.lowlevel.enable_ki_protection
    def _enqueue(self, wish: Wish) -> None:
        why = self._barred()
        if why is not None:
            raise not_taken(why)
        self._asked.append(wish)
        self._queue.append(wish)
        if len(self._queue) == 1:
            self._start(self._send)

    async def _send(self) -> None:
        """Send what is wished, one after the other, as soon as a response runs."""
        while self._queue:
            wish = self._queue[0]
            if not wish.settled.is_set():
                why, target = self._barred(), self._running()
                if why is not None:
                    wish.bar(why)
                elif target is None:
                    await self._news.park()
                    continue
                else:
                    link, attempt = target
                    if not await link.steer(attempt, wish.steer):
                        continue
            self._queue.popleft()

    def look(self) -> None:
        """Something has happened that may let the next wish be sent."""
        if self._news:
            self._news.unpark_all()

    def end(self) -> None:
        """The turn is over: no answer will come any more."""
        for wish in self._asked:
            wish.settled.set()
        self.look()
