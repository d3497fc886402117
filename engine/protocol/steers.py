"""The steers of one request: what was added to its response while that ran, and what the server did with it.

A steer is accepted, and then it waits: the successor that the server begins of its own accord applies it, or the next
request that brings the outputs of the client's calls (Responses API over WebSocket, ``response.steer``). A steer has no
id before the server gives it one, so answers are matched by their target, in the order in which steers were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from attrs import define, field

from engine.protocol.states import Transitions, move
from engine.values.messages import UserMessage
from engine.wire.base import attach
from engine.wire.control_events import ErrorEvent, SteerAccepted, SteerEvent, SteerFailed, SteerPending

__all__ = ["STEER_TRANSITIONS", "Steer", "SteerState", "Steers", "refusal_of"]


class SteerState(Enum):
    """The states of one steer."""

    SENT = "sent"
    """The server has not answered."""
    ACCEPTED = "accepted"
    """The server has queued it."""
    WAITING = "waiting for outputs"
    """The server adds it to the request that brings the outputs of the client's calls."""
    APPLIED = "applied"
    """A successor has begun with it."""
    REFUSED = "refused"
    """The server did not take it."""
    RETURNED = "returned"
    """The server had taken it and gives it back."""


STEER_TRANSITIONS: Final[Transitions[SteerState]] = {
    SteerState.SENT: {
        SteerState.ACCEPTED: "response.steer.accepted",
        SteerState.REFUSED: "response.steer.failed",
    },
    SteerState.ACCEPTED: {
        SteerState.APPLIED: "the successor's response.created",
        SteerState.WAITING: "response.steer.pending",
        SteerState.RETURNED: "response.steer.failed",
    },
    SteerState.WAITING: {
        SteerState.RETURNED: "response.steer.failed",
    },
    SteerState.APPLIED: {},
    SteerState.REFUSED: {},
    SteerState.RETURNED: {},
}
"""From each state, where it can go, and on what. Nothing else happens."""

_OUTSTANDING: Final = frozenset({SteerState.SENT, SteerState.ACCEPTED})

_FOR_OUTPUTS: Final = "waiting_for_required_input"


def _nothing() -> None:
    pass


def refusal_of(error: ErrorEvent) -> SteerFailed:
    """Return the refusal that an error is where the server does not know what a steer is."""
    failed = SteerFailed({})
    told = {"code": error.code, "type": error.error_type, "message": error.message}
    attach(failed, {"type": "response.steer.failed", "steer": {}, "error": told})
    return failed


@define(eq=False)
class Steer:
    """Input for a response that runs.

    Attributes:
        messages: The input.
        items: The same as the wire's own items.
        on_answer: Called when the server has accepted or refused it.
        target: The response that it is for; None before it is sent.
        state: The steer's state; changed only as `STEER_TRANSITIONS` allows.
        id: The id that the server gave it.
        refusal: The event that refused it.
    """

    messages: tuple[UserMessage, ...] = field(repr=False)
    items: tuple[Mapping[str, Any], ...] = field(repr=False)
    on_answer: Callable[[], None] = field(default=_nothing, repr=False)
    target: str | None = None
    state: SteerState = SteerState.SENT
    id: str | None = None
    refusal: SteerFailed | None = field(default=None, repr=False)

    @property
    def outstanding(self) -> bool:
        """Whether the server has still to answer it, or to do something about it."""
        return self.state in _OUTSTANDING

    def become(self, state: SteerState) -> None:
        """Change the state."""
        answered = self.state is SteerState.SENT
        self.state = move(STEER_TRANSITIONS, self.state, state)
        if answered:
            self.on_answer()


class Steers:
    """The steers of one request, in the order in which they were sent.

    Attributes:
        in_doubt: Whether it is not known which successor applies which of them.
    """

    def __init__(self) -> None:
        self._all: list[Steer] = []
        self.in_doubt: bool = False

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, steer: Steer, target: str) -> None:
        """Take note of one that is about to be sent."""
        steer.target = target
        self._all.append(steer)

    def of(self, state: SteerState) -> Iterator[Steer]:
        """Return those in one state."""
        return (steer for steer in self._all if steer.state is state)

    def any_of(self, state: SteerState) -> bool:
        """Whether one is in that state."""
        return any(True for _ in self.of(state))

    @property
    def outstanding(self) -> bool:
        """Whether the server has still to do something about one of them."""
        return any(steer.outstanding for steer in self._all)

    @property
    def unapplied(self) -> tuple[Mapping[str, Any], ...]:
        """The items that no response was given, as far as is known; not those that the server refused."""
        left = (each for each in self._all if each.outstanding or each.state is SteerState.RETURNED)
        return tuple(item for steer in left for item in steer.items)

    @property
    def waiting(self) -> tuple[UserMessage, ...]:
        """The input that the server adds to the request which brings the outputs of the client's calls."""
        return tuple(message for steer in self.of(SteerState.WAITING) for message in steer.messages)

    def concerns(self, event: SteerEvent) -> bool:
        """Whether an event is about one of them."""
        return self._find(event) is not None

    def receive(self, event: SteerEvent, *, newest: str | None) -> Steer | None:
        """Take what the server says of one of them, and return which; None where it says nothing new.

        Args:
            event: The server's event.
            newest: The response that runs, or that ended last.
        """
        steer = self._find(event)
        if steer is None:
            return None
        steer.id = event.steer_id or steer.id
        match event:
            case SteerFailed() if steer.state is SteerState.SENT:
                steer.refusal = event
                steer.become(SteerState.REFUSED)
            case SteerFailed():
                steer.become(SteerState.RETURNED)
            case SteerAccepted() | SteerPending():
                if steer.state is SteerState.SENT:
                    steer.become(SteerState.ACCEPTED)
                if isinstance(event, SteerPending):
                    if event.reason == _FOR_OUTPUTS or event.required_input:
                        steer.become(SteerState.WAITING)
                    # For any other reason, of which there may be new ones, it is still queued.
                elif steer.target != newest:  # its successor has begun before the server said so, or another one will
                    self.in_doubt = True
                    steer.become(SteerState.APPLIED)
        return steer

    def apply(self) -> Sequence[UserMessage]:
        """A successor has begun: return what it was given.

        Where several steers wait for it, it is not said whether each has one of its own.
        """
        accepted = list(self.of(SteerState.ACCEPTED))
        self.in_doubt = self.in_doubt or len(accepted) > 1
        for steer in accepted:
            steer.become(SteerState.APPLIED)
        return [message for steer in accepted for message in steer.messages]

    def _find(self, event: SteerEvent) -> Steer | None:
        name, target = event.steer_id, event.previous_response_id
        if name is not None:
            for steer in self._all:
                if steer.id == name:
                    return steer if self._fits(event, steer) else None
        found = [each for each in self.of(SteerState.SENT) if target in {None, each.target}]
        if not found and not isinstance(event, SteerAccepted):
            found = [each for each in self.of(SteerState.ACCEPTED) if target in {None, each.target} and each.id is None]
        # A refusal sends the input back: with several on their way, that says which.
        given = event.steer.get("input") if isinstance(event, SteerFailed) else None
        return next((each for each in found if given == list(each.items)), found[0] if found else None)

    def _fits(self, event: SteerEvent, steer: Steer) -> bool:
        match event:
            case SteerFailed():
                return steer.state not in {SteerState.APPLIED, SteerState.REFUSED, SteerState.RETURNED}
            case SteerPending():
                return steer.outstanding
            case _:
                return False
