"""Outputs of calls that are handed to a response which runs and waits for them: the multi-agent beta of the API.

The server takes all outputs of one injection or none. Its acknowledgement names the response, not the injection, and it
may come after the response's end; those of one response are answered in the order in which they were sent (Responses
API over WebSocket, ``response.inject``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define, field

from engine.protocol.states import Transitions, move
from engine.wire.control_events import InjectCreated, InjectFailed

__all__ = ["INJECTION_TRANSITIONS", "Injection", "InjectionState", "Injections"]


class InjectionState(Enum):
    """The states of one injection."""

    SENT = "sent"
    """The server has not answered."""
    TAKEN = "taken"
    """The response goes on with it."""
    RETURNED = "returned"
    """The server did not take it."""
    LOST = "lost"
    """The connection has ended, and it is not known whether the server took it."""


INJECTION_TRANSITIONS: Final[Transitions[InjectionState]] = {
    InjectionState.SENT: {
        InjectionState.TAKEN: "response.inject.created",
        InjectionState.RETURNED: "response.inject.failed",
        InjectionState.LOST: "the connection's end",
    },
    InjectionState.TAKEN: {},
    InjectionState.RETURNED: {},
    InjectionState.LOST: {},
}
"""From each state, where it can go, and on what. Nothing else happens."""


@define(eq=False)
class Injection:
    """Outputs for a response that waits for them.

    Attributes:
        items: The outputs, as the wire has them.
        on_answer: Called when it is known what became of them.
        target: The response that they are for; None before they are sent.
        state: The injection's state; changed only as `INJECTION_TRANSITIONS` allows.
        refusal: The event that returned them.
    """

    items: tuple[Mapping[str, Any], ...] = field(repr=False)
    on_answer: Callable[[], None] = field(repr=False)
    target: str | None = None
    state: InjectionState = InjectionState.SENT
    refusal: InjectFailed | None = field(default=None, repr=False)

    @property
    def call_ids(self) -> frozenset[str]:
        """The ids of the calls that they are the outputs of."""
        return frozenset(str(item["call_id"]) for item in self.items if "call_id" in item)

    def become(self, state: InjectionState) -> None:
        """Change the state."""
        self.state = move(INJECTION_TRANSITIONS, self.state, state)
        self.on_answer()


class Injections:
    """The injections of one connection that the server has still to answer, in the order in which they were sent."""

    def __init__(self) -> None:
        self._sent: list[Injection] = []

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, injection: Injection, target: str) -> None:
        """Take note of one that is about to be sent."""
        injection.target = target
        self._sent.append(injection)

    def receive(self, event: InjectCreated | InjectFailed) -> bool:
        """Take the server's answer to one of them; False where it is to none."""
        found = [each for each in self._sent if each.target == event.response_id]
        if isinstance(event, InjectFailed):
            # The outputs come back: with several on their way, that says which.
            found = [each for each in found if event.input == list(each.items)] or found
        if not found:
            return False
        self._sent.remove(found[0])
        if isinstance(event, InjectFailed):
            found[0].refusal = event
            found[0].become(InjectionState.RETURNED)
        else:
            found[0].become(InjectionState.TAKEN)
        return True

    def end(self) -> None:
        """No answer can come any more."""
        sent, self._sent = self._sent, []
        for injection in sent:
            injection.become(InjectionState.LOST)
