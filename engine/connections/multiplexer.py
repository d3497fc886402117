"""The lanes of one connection: the channel that each has there, and the events that no attempt waits for.

A connection carries the requests of several lanes, those that were left, and warm-ups. What the server remembers of a
lane's conversation lives and dies with its channel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from engine.connections.abandoned import Abandoned
from engine.connections.attempt import Attempt
from engine.connections.channels import Channels
from engine.connections.receiver import Receiver
from engine.instruments import Instruments
from engine.protocol.chain import HeldResponse, Plan
from engine.protocol.exchange import Exchange
from engine.protocol.exchange_states import ExchangeState
from engine.protocol.failures import Failure, Lost, RequestRefused
from engine.protocol.injections import Injections
from engine.protocol.labels import Labels
from engine.protocol.recovery import lacks_lanes
from engine.protocol.refusals import rejection
from engine.protocol.routing import Doubt, Unlabelled, Verdict
from engine.settings.profiles import Profile
from engine.wire.account_events import KeepAlive
from engine.wire.control_events import ErrorEvent, InjectCreated, InjectFailed
from engine.wire.events import ServerEvent
from engine.wire.requests import CreateText

__all__ = ["Multiplexer"]


class Multiplexer(Receiver):
    """A connection that several lanes may share.

    Args:
        instruments: The hooks that are told of it.
        server: The kind of server.
        labels: Whether the server answers on the lane that a request names.
        drain: Seconds that a response may still take which was left to itself.

    Attributes:
        named: Whether the requests of lanes name them on it.
    """

    def __init__(self, instruments: Instruments, *, server: Profile, labels: Labels, drain: float) -> None:
        super().__init__(instruments)
        self.named: bool = labels.named(server)
        self._server = server
        self._labels = labels
        self._channels = Channels(server.max_lanes if self.named else 0)
        self._abandoned = Abandoned(drain)
        self._injections = Injections()

    # --- requests ---

    def fresh(self, lane: str | None) -> bool:
        """Whether a warm-up could help a lane: nothing was ever sent for it."""
        return self._channels.of(lane).fresh

    def plan(self, lane: str | None, body: Mapping[str, Any], *, stored: HeldResponse | None = None) -> Plan:
        """Say how a lane's request would be sent."""
        return self._channels.of(lane).chain.plan(body, server=self._server, stored=stored)

    def adopt(self, lane: str | None, held: HeldResponse, *, parent: str | None) -> bool:
        """Let a lane's next request continue what the server holds for its parent; False where it holds that no more.

        Once another request of the parent is on its way, or its name was given to another lane, that cannot be known.
        What the parent was steered with and still waits there is for the parent's own next request.
        """
        there = self.named and not held.waiting and self._channels.holds(parent, held)
        if there:
            self._channels.of(lane).chain.arm(held)
        return there

    def write(self, lane: str | None, text: CreateText, plan: Plan, *, generate: bool | None = None) -> str:
        """Give a lane's request its form on the wire."""
        return self._channels.of(lane).write(text, plan, generate=generate)

    def make_room(self, lane: str | None) -> bool:
        """Whether a request of a lane can go over it; a lane that is idle may have to give its name up."""
        return self._channels.make_room(lane)

    @property
    def busy(self) -> bool:
        """Whether a turn is in progress on it."""
        return bool(self._attempts)

    def warming(self, lane: str | None) -> trio.Event | None:
        """Set when a lane's warm-up is over; None while none is under way."""
        return self._channels.of(lane).warming

    def begin_warm_up(self, lane: str | None) -> None:
        """Hold a lane's turns back until `end_warm_up`."""
        self._channels.of(lane).begin_warm_up()

    def end_warm_up(self, lane: str | None) -> None:
        """Let a lane's turns through, whatever came of the warm-up."""
        self._channels.of(lane).end_warm_up()

    # --- events ---

    def _ended(self, attempt: Attempt, now: float) -> None:
        self._on_idle(now)
        self._learn_labels(attempt.exchange)
        channel = self._channels.of(attempt.origin.lane)
        channel.idle = attempt.held is not None
        if attempt.exchange.continuable:
            channel.chain.arm(attempt.held)
        self._close_if_done()

    def _learn_labels(self, exchange: Exchange) -> None:
        """A named response has ended; where it was of no use to the server's labels, that has been noted before."""
        if exchange.lane is None:
            return
        if exchange.state is ExchangeState.ENDED:
            self._labels.prove()
        elif isinstance(exchange.outcome, RequestRefused) and lacks_lanes(exchange.outcome):
            self._labels.disprove()

    def _unclaimed(self, target: Exchange | Verdict | Doubt | Unlabelled, event: ServerEvent, now: float) -> None:
        if isinstance(target, Doubt):
            self._lose(target.exchange, "the server's events cannot be told from those of an earlier response")
            self.retire("the server mixes up its responses")
        elif isinstance(target, Unlabelled):
            self._take_unlabelled(target.exchanges, event, now)
        elif isinstance(target, Verdict):
            self._unrouted(target, event, now)
        else:
            self._dropped += 1  # its turn was left
            target.receive(event)
            if target.outcome is not None:
                self._learn_labels(target)
                self._router.end(target)
                self._on_idle(now)
                self._abandoned.end(target)

    def _lose(self, exchange: Exchange, why: str) -> None:
        """Give up an exchange whose events cannot be told from another's."""
        self._dropped += 1
        self._router.end(exchange)
        attempt = self._attempts.pop(exchange, None)
        if attempt is not None:
            attempt.fail(Lost(why))
        self._abandoned.end(exchange)

    def _take_unlabelled(self, exchanges: Sequence[Exchange], event: ServerEvent, now: float) -> None:
        """The server ignores the names of lanes: what is alone on the connection can still be told, and nothing else.

        Lanes no longer share a connection to it, from now on.
        """
        self._labels.disprove()
        self.retire("the server does not say which lane it answers")
        if len(exchanges) > 1:
            for exchange in exchanges:
                self._lose(exchange, "the server does not say which of several requests it answers")
            self._close_if_done()
        elif (attempt := self._attempts.get(exchanges[0])) is not None:
            self._feed(attempt, event, now)
        else:
            self._unclaimed(exchanges[0], event, now)

    def _unrouted(self, verdict: Verdict, event: ServerEvent, now: float) -> None:
        match verdict:
            case Verdict.CONNECTION:
                if isinstance(event, KeepAlive):
                    for attempt in self._attempts.values():
                        attempt.kept_alive(now)
            case Verdict.LIMIT | Verdict.FATAL:
                assert isinstance(event, ErrorEvent)
                if verdict is Verdict.LIMIT:
                    for exchange in self._attempts:
                        exchange.refused()
                self._break(rejection(event))
            case Verdict.INJECTED:
                assert isinstance(event, InjectCreated | InjectFailed)
                if not self._injections.receive(event):
                    self._dropped += 1
            case Verdict.DROPPED:
                self._dropped += 1
            case Verdict.STRAY:
                self._dropped += 1
                self.retire("the server sent something after the response had ended")

    # --- what its connection does ---

    @abstractmethod
    def retire(self, reason: str) -> None:
        """Take no new turns, and close once those in progress have ended. Idempotent, and returns at once."""

    @abstractmethod
    def _close_if_done(self) -> None:
        """Close, where it has retired and the last turn on it has ended."""

    @abstractmethod
    def _break(self, failure: Failure) -> None:
        """Fail, with everything that is in progress."""

    @abstractmethod
    def _on_idle(self, now: float) -> None:
        """A response has ended: perhaps there is nothing in progress any more."""
