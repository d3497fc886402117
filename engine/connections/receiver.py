"""The receiving side: texts are decoded, and each event goes to the attempt whose response it belongs to.

The one receive loop of the engine: a WebSocket and an answer over HTTP differ in where their texts come from, and in
what is done about an event that belongs to no attempt.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from engine.connections.attempt import Attempt
from engine.instruments import EventInfo, Instruments
from engine.protocol.display import Oddity
from engine.protocol.draft import deltas
from engine.protocol.exchange import Exchange
from engine.protocol.routing import Doubt, Router, Unlabelled, Verdict, has_begun
from engine.protocol.shortcut import Shortcut
from engine.wire.codec import MalformedFrame, decode, decode_object, read_frames
from engine.wire.events import Chunks, ServerEvent

__all__ = ["Receiver"]

_logger = logging.getLogger("engine.connection")


class Receiver(ABC):
    """One stream of events, and the attempts that are in progress on it."""

    _has_lanes: ClassVar[bool] = True

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._observed = instruments.wants("event_received")
        self._router = Router(has_lanes=self._has_lanes)
        self._attempts: dict[Exchange, Attempt] = {}
        self._unwoken: Attempt | None = None
        self._growing: Exchange | None = None  # whose last delta the next one may follow, where no hook wants it
        self._receiving = True
        self._events = 0
        self._dropped = 0
        self._malformed = 0
        self._odd = 0
        self._noted: set[Oddity] = set()  # which oddities were logged

    @property
    def unread(self) -> int:
        """The number of events and frames so far that no turn was told of: dropped ones, and unreadable ones."""
        return self._dropped + self._malformed

    def _receive(self, texts: Sequence[str], now: float) -> None:
        """Take the texts that came in one piece."""
        raws = read_frames(texts)
        place, end = 0, len(raws)
        while place < end and self._receiving:  # one of them may end the stream
            exchange = self._growing
            if exchange is not None and (shortcut := exchange.shortcut) is not None:
                pieces = shortcut.follow(raws, place)
                if pieces:
                    place += len(pieces)
                    self._events += len(pieces)
                    self._grow(exchange, shortcut, pieces, now)
                    continue
            self._events += 1
            raw, text = raws[place], texts[place]
            place += 1
            try:
                event = decode_object(raw) if raw is not None else decode(text)
            except MalformedFrame as malformed:
                # Reported and dropped, the connection kept: one garbled frame must not cost the others their answers.
                self._malformed += 1
                if self._malformed == 1:
                    _logger.warning("%s: an event was dropped, %s", self._name, malformed.reason)
                continue
            if event.__class__ is Chunks:
                for each in event.events:
                    self._take(each, now)
            else:
                self._take(event, now)
        # Waking a reader costs as much as handing it an event: once is enough for all of them.
        unwoken, self._unwoken = self._unwoken, None
        if unwoken is not None and unwoken.sink is not None:
            unwoken.sink.on_batch_end()

    def _take(self, event: ServerEvent, now: float) -> None:
        target = self._router.route(event)
        attempt = self._attempts.get(target)  # type: ignore[arg-type]
        if attempt is None:
            self._unclaimed(target, event, now)
        else:
            self._feed(attempt, event, now)

    def _grow(self, exchange: Exchange, shortcut: Shortcut, pieces: list[str], now: float) -> None:
        """Let deltas take the way of the last one: no class, no routing."""
        attempt = self._attempts[exchange]
        if attempt is not self._unwoken:
            self._turn_to(attempt)
        attempt.last_progress = now
        draft, sink = shortcut.draft, attempt.sink
        pieces = draft.extend(pieces)
        if sink is not None and sink.listening:
            sink.on_events(attempt, deltas(draft, pieces))

    def _turn_to(self, attempt: Attempt) -> None:
        """Wake the reader of another attempt before this one's events come."""
        if self._unwoken is not None and self._unwoken.sink is not None:
            self._unwoken.sink.on_batch_end()
        self._unwoken = attempt

    def _feed(self, attempt: Attempt, event: ServerEvent, now: float) -> None:
        if self._observed:
            info = EventInfo(**attempt.origin.facts, attempt=attempt.number, event=event)
            attempt.origin.emit("event_received", info)
        elif attempt.exchange is not self._growing:
            self._growing = attempt.exchange
        if attempt is not self._unwoken:
            self._turn_to(attempt)
        exchange, sink = attempt.exchange, attempt.sink
        events = exchange.receive(event)
        first = attempt.last_progress is None
        attempt.last_progress = now
        if sink is not None:
            if first:
                sink.on_first_event(attempt, now)
            if events:
                sink.on_events(attempt, events)
        if attempt.on_begun is not None and has_begun(event):
            attempt.on_begun()
            attempt.on_begun = None
        if exchange.outcome is not None:
            self._growing = None
            if exchange.oddities:
                self._note(exchange.oddities)
            # The consumer's overflow may have ended it meanwhile, and then it is no longer ours to conclude.
            if self._attempts.pop(exchange, None) is not None:
                self._router.end(exchange)
                attempt.conclude()
            self._ended(attempt, now)

    def _note(self, oddities: Mapping[Oddity, int]) -> None:
        """Count what was odd about an answer, and log each kind of it once."""
        self._odd += sum(oddities.values())
        new = {kind for kind, count in oddities.items() if count} - self._noted
        self._noted |= new
        if new:
            lost = not new.isdisjoint(("unreadable", "contradicted"))
            kinds = ", ".join(sorted(new))
            _logger.log(
                logging.WARNING if lost else logging.INFO, "%s: of what the server said some was %s", self._name, kinds
            )

    # --- what differs between the transports ---

    @property
    @abstractmethod
    def _name(self) -> str:
        """The name of the receiver in logs."""

    @abstractmethod
    def _unclaimed(self, target: Exchange | Verdict | Doubt | Unlabelled, event: ServerEvent, now: float) -> None:
        """An event came that no attempt waits for."""

    @abstractmethod
    def _ended(self, attempt: Attempt, now: float) -> None:
        """The response to an attempt has ended."""
