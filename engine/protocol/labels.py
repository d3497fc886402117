"""Whether a server answers on the lane that a request names, as far as that is known.

Lanes share a connection because each event carries the ``stream_id`` of its request (Responses API over WebSocket). A
server that takes the name and leaves it out of its answers would have one lane's answer read as another's; so nothing
shares a connection before a named response has ended with its label on every event, or the profile vouches for it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from engine.protocol.states import Transitions, move
from engine.settings.profiles import Profile

__all__ = ["LABEL_TRANSITIONS", "LabelState", "Labels"]


class LabelState(Enum):
    """The knowledge of a server's labels."""

    UNPROVEN = "unproven"
    """No named response has ended yet."""
    PROVEN = "proven"
    """One has, and every event of it was labelled."""
    DISPROVEN = "disproven"
    """An event of a named response came without its label."""


LABEL_TRANSITIONS: Final[Transitions[LabelState]] = {
    LabelState.UNPROVEN: {
        LabelState.PROVEN: "a named response has ended, all of it labelled",
        LabelState.DISPROVEN: "an event of a named response has no label",
    },
    LabelState.PROVEN: {
        LabelState.DISPROVEN: "an event of a named response has no label",
        LabelState.UNPROVEN: "what is known of the server is forgotten",
    },
    LabelState.DISPROVEN: {LabelState.UNPROVEN: "what is known of the server is forgotten"},
}


class Labels:
    """The labels of one server, as far as they are known.

    Attributes:
        state: The knowledge of them, changed only as the table allows.
    """

    def __init__(self) -> None:
        self.state: LabelState = LabelState.UNPROVEN

    def prove(self) -> None:
        """A named response has ended, and every event of it was labelled."""
        if self.state is LabelState.UNPROVEN:
            self.state = move(LABEL_TRANSITIONS, self.state, LabelState.PROVEN)

    def disprove(self) -> None:
        """An event came without a label that can only be of a named response."""
        if self.state is not LabelState.DISPROVEN:
            self.state = move(LABEL_TRANSITIONS, self.state, LabelState.DISPROVEN)

    def forget(self) -> None:
        """Begin anew."""
        if self.state is not LabelState.UNPROVEN:
            self.state = move(LABEL_TRANSITIONS, self.state, LabelState.UNPROVEN)

    def named(self, server: Profile) -> bool:
        """Whether requests of lanes name them."""
        return server.multiplexing and self.state is not LabelState.DISPROVEN

    def shared(self, server: Profile) -> bool:
        """Whether lanes share a connection."""
        return self.named(server) and (server.proven or self.state is LabelState.PROVEN)
