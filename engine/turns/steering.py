"""The steering of one turn: input on its way from the caller's task to the link, one after the other.

The caller's task waits for the server's answer; what is sent is sent by a task of the session's. Input that comes
before a response runs, or between two of them, waits until one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import trio
from attrs import define, field

from engine.protocol.failures import SteerRefused, TooLarge, to_error
from engine.protocol.request_body import input_items
from engine.protocol.steers import Steer, SteerState
from engine.values.choices import Delivery
from engine.values.errors import TurnError
from engine.values.messages import UserMessage
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode

__all__ = ["ENDED", "OVER_HTTP", "QUEUED", "SteerInput", "Steering", "Wish", "not_taken", "wish_of"]

SteerInput: TypeAlias = str | UserMessage | Iterable[UserMessage]

QUEUED: Final = SteerRefused("response_not_active", barred="the turn waits for its lane: steer it when it has begun")
ENDED: Final = SteerRefused(
    "response_already_completed", barred="the turn has ended: what it was to be steered with can begin another one"
)
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


def not_taken(why: SteerRefused) -> TurnError:
    """Return the error for input that was not taken; its delivery tells whether it was sent."""
    error = to_error(why)
    error.delivery = Delivery.REJECTED if why.barred is None else Delivery.NOT_SENT
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
        raise ConfigurationError("input", f"is a {type(given).__name__}, not a string or messages of the user")
    messages = tuple(given)
    if not messages:
        raise ConfigurationError("input", "is empty")
    for number, message in enumerate(messages):
        if not isinstance(message, UserMessage):
            raise ConfigurationError(f"input[{number}]", f"is a {type(message).__name__}, not a message of the user")
        if not message.content:
            raise ConfigurationError(f"input[{number}]", "has no content")
    return messages


class Steering:
    """The wishes of one turn that the server has not answered."""

    def __init__(self) -> None:
        self._queue: deque[Wish] = deque()
        self._asked: list[Wish] = []
        self._news = trio.lowlevel.ParkingLot()

    @property
    def next(self) -> Wish | None:
        """The wish to be sent next."""
        return self._queue[0] if self._queue else None

    def add(self, wish: Wish) -> bool:
        """Put a wish at the end; returns whether it is the only one, for which a task has to be started."""
        self._queue.append(wish)
        self._asked.append(wish)
        return len(self._queue) == 1

    def done(self, wish: Wish) -> None:
        """The wish to be sent next was sent, or will not be."""
        self._queue.remove(wish)

    def forget(self, wish: Wish) -> None:
        """Its caller waits no longer: what was not sent will not be."""
        wish.settled.set()
        self._asked.remove(wish)
        self.look()

    def look(self) -> None:
        """Something has happened that may let the next wish be sent."""
        if self._news:
            self._news.unpark_all()

    async def changed(self) -> None:
        """Wait until something has happened. Cancelling only stops waiting."""
        await self._news.park()

    def end(self) -> None:
        """The turn is over: no answer will come any more."""
        for wish in self._asked:
            wish.settled.set()
        self.look()
