"""The assignment of one connection's events to its exchanges.

On the default channel server events carry no mark of the request they answer, so a client that is careless here shows
one request's answer as another's. The answers on a channel come in the order of its requests; the only question is
where the last one ended, and ids never decide it: servers use one for all responses, or new ones in every event.

An exchange *opens* with its first created, queued or in_progress. A channel is *clean* if it is known where the last
exchange on it ended; another kind carries no request (`Router.is_clean`). Until an exchange on a clean channel has
opened, an end may be the last one's, said again; what cannot be told apart is a `Doubt`, and its exchange is lost
before any output. Once it has opened, everything is its own.

Where an exchange was steered, a response that has ended well may have a successor: what names it as its predecessor
belongs to the same exchange, and until that comes an end is the last one, said again. What is said of steers goes by
the response that they were for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from attrs import define, frozen

from engine.protocol.exchange import FOREIGN_TERMINALS, TERMINAL_TYPES, Exchange, LaneName
from engine.protocol.faults import CODES, Fault
from engine.values.choices import Delivery
from engine.wire.account_events import AccountEvent
from engine.wire.control_events import (
    ErrorEvent,
    InjectCreated,
    InjectFailed,
    InterruptAccepted,
    InterruptFailed,
    SteerEvent,
)
from engine.wire.events import (
    LifecycleEvent,
    OutputEvent,
    ResponseFailed,
    ResponseInProgress,
    ServerEvent,
    TerminalEvent,
    UnknownEvent,
)

__all__ = ["Doubt", "Router", "Unlabelled", "Verdict", "Word", "has_begun", "word_of"]


class Verdict(Enum):
    """The verdict on an event that belongs to no exchange."""

    CONNECTION = "connection"
    """It is about the connection or the account."""
    LIMIT = "limit"
    """The server ends the connection's life."""
    INJECTED = "injected"
    """It answers an injection, by the response that it names."""
    DROPPED = "dropped"
    """It belongs to a response that has ended, or to none."""
    STRAY = "stray"
    """It came with nothing in flight, and is no end said again: the connection takes no other request."""
    FATAL = "fatal"
    """It is an error that belongs to no request: the connection cannot be trusted."""


@frozen
class Doubt:
    """An event that may be the exchange's or its predecessor's: the exchange is lost, and so is the connection."""

    exchange: Exchange


@frozen
class Unlabelled:
    """An event of a named request's response that does not name it: the server ignores ``stream_id``.

    Attributes:
        exchanges: The exchanges whose it may be, all that are in flight. It is that of one alone; of several, none can
            be told.
    """

    exchanges: tuple[Exchange, ...]


class Word(Enum):
    """The meaning of an event for a response's life."""

    OPENS = auto()
    """Created, queued or in_progress."""
    OUTPUT = auto()
    """A part of the answer."""
    GOOD = auto()
    """The end of a response that is an answer, cut or not."""
    FAILED = auto()
    """The end of a response that is none."""
    ERROR = auto()
    """An error event, which may be a refusal or an end."""
    CONTROL = auto()
    """About injecting and its like, which name their own target."""
    ODD = auto()
    """About a response, in a type or shape that is not known."""
    NOTHING = auto()
    """About no response: a greeting."""


_OF_A_RESPONSE: Final = frozenset({Word.OPENS, Word.OUTPUT, Word.GOOD, Word.FAILED})
_CONTROL: Final = (InjectCreated, InjectFailed, InterruptAccepted, InterruptFailed)


def word_of(event: ServerEvent) -> Word:
    """Say what an event means for the life of a response."""
    if isinstance(event, OutputEvent):
        return Word.OUTPUT
    if isinstance(event, LifecycleEvent):
        if not isinstance(event, TerminalEvent):
            return Word.OPENS
        return Word.FAILED if isinstance(event, ResponseFailed) else Word.GOOD
    if isinstance(event, ErrorEvent):
        return Word.ERROR
    if event.__class__ is UnknownEvent:
        if event.type in TERMINAL_TYPES:
            return Word.FAILED if event.type == "response.failed" else Word.GOOD
        if event.type in FOREIGN_TERMINALS:
            return Word.FAILED
        return Word.ODD if event.type.startswith("response.") else Word.NOTHING
    return Word.CONTROL if isinstance(event, _CONTROL) else Word.OUTPUT


def _follows(event: LifecycleEvent, response_id: str | None) -> bool:
    """Whether an event is of a response that continues this one."""
    return response_id is not None and event.response_object.get("previous_response_id") == response_id


def _refuses_for(event: ServerEvent) -> Fault | None:
    """Return the fault of a refusal that only a request with something particular can cause."""
    if isinstance(event, ErrorEvent):
        code = event.code
    else:
        error = event.response.error if isinstance(event, TerminalEvent) else None
        code = error.get("code") if error is not None else None
    fault = CODES.get(code) if isinstance(code, str) else None
    return fault if fault is Fault.CACHE_MISS or fault is Fault.SEAL else None


def has_begun(event: ServerEvent) -> bool:
    """Whether an event shows that the server has read what the request continues, and may forget it.

    A response that was created may still wait for its turn (Responses API over WebSocket, forks).
    """
    word = word_of(event)
    return isinstance(event, ResponseInProgress) or word in {Word.OUTPUT, Word.GOOD, Word.FAILED, Word.ERROR}


@define
class _End:
    """The end of an exchange.

    Attributes:
        opened: Whether it had opened.
        words: Its ends, in order: the one that it took, and those that were said afterwards.
        understood: Whether the refusal said what was wrong, by a 4xx status or a known code.
        after_refusal: Whether the exchange before it on this channel was refused as well.
        empty: Whether nothing but ends came of it.
        settled: Whether there is nothing to come of a steer.
    """

    opened: bool
    words: tuple[Word, ...]
    understood: bool
    after_refusal: bool
    empty: bool
    settled: bool = True

    @property
    def refused(self) -> bool:
        """Whether it was refused before anything of it came."""
        return not self.opened and self.empty and self.words[:1] in {(Word.ERROR,), (Word.FAILED,)}

    def leaves_clean(self, *, again: bool) -> bool:
        """Whether it is known that nothing more of it comes, or what it would be.

        Args:
            again: Whether the next request is its own, sent again.
        """
        if not self.settled:
            return False
        if self.opened:
            return self.words[:1] == (Word.GOOD,) or self.words == (Word.ERROR, Word.FAILED)
        if not self.refused or self.after_refusal:
            return False
        if self.words == (Word.ERROR, Word.FAILED):
            return True
        return again and (self.words == (Word.FAILED,) or (self.words == (Word.ERROR,) and self.understood))

    def repeats(self, word: Word, *, alone: bool) -> bool:
        """Whether an end can only be this one's, said again.

        Args:
            word: The end.
            alone: Whether no other exchange is in flight on the channel.
        """
        last = self.words[-1:]
        match word:
            case Word.GOOD:
                return self.words == (Word.GOOD,) and self.opened
            case Word.FAILED if alone:
                return last in {(Word.ERROR,), (Word.FAILED,)}
            case Word.FAILED:
                return self.refused and self.words == (Word.ERROR,)
            case Word.ERROR:
                return alone and (self.refused or last == (Word.FAILED,))
        return False

    def said_again(self, word: Word, *, alone: bool) -> bool:
        """Take note of an end that can only be this one's, said again; False where it can be another's."""
        again = self.repeats(word, alone=alone)
        if again:
            self.words += (word,)
        return again


@define(eq=False)
class _Channel:
    current: Exchange | None = None
    opened: bool = False  # of the current exchange: whether it has opened
    between: bool = False  # whether a response of it has ended, and a successor may open
    output: bool = False  # whether output came of it
    words: tuple[Word, ...] = ()  # its ends
    understood: bool = False
    may_cause: Callable[[Fault], bool] | None = None  # of the current exchange's request
    last: _End | None = None
    began: bool = False  # whether a response ever began here


class Router:
    """Knows what is in flight on one connection and whose each event is.

    Args:
        has_lanes: Whether events name lanes. In the answer to an HTTP request, which holds one response, they may have
            been passed on from elsewhere with a name that means nothing here.
    """

    def __init__(self, *, has_lanes: bool = True) -> None:
        self._has_lanes = has_lanes
        self._channels: dict[LaneName, _Channel] = {}
        self._in_flight = 0
        self._labelled = False  # whether an event of a named exchange has come
        self._refused_for: set[Fault] = set()  # what may be said again of a request that has been sent anew meanwhile

    @property
    def in_flight(self) -> int:
        """The number of exchanges that have not ended, abandoned ones included."""
        return self._in_flight

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges that have not ended."""
        return (channel.current for channel in self._channels.values() if channel.current is not None)

    def is_clean(self, lane: LaneName, *, again: bool = False) -> bool:
        """Whether a channel may carry another request.

        Args:
            lane: Its ``stream_id``; None for the default channel.
            again: Whether the request is the one that was refused there last, sent again.
        """
        channel = self._channels.get(lane)
        return channel is None or channel.last is None or channel.last.leaves_clean(again=again)

    def begin(self, exchange: Exchange, *, may_cause: Callable[[Fault], bool] | None = None) -> None:
        """Take note of a request about to be sent. One at a time is in flight on a channel.

        Args:
            exchange: Its exchange.
            may_cause: Says of `Fault.CACHE_MISS` and `Fault.SEAL` whether the request has what they are about; None
                where it may.
        """
        channel = self._channels.setdefault(exchange.lane, _Channel())
        assert channel.current is None, "the channel's previous response has not ended"
        channel.current, channel.may_cause = exchange, may_cause
        channel.opened = channel.between = channel.output = channel.understood = False
        channel.words = ()
        self._in_flight += 1

    def end(self, exchange: Exchange) -> None:
        """Take note that the exchange has ended, or that its frame was never sent."""
        channel = self._channels[exchange.lane]
        if channel.current is not exchange:
            return
        channel.current = channel.may_cause = None
        self._in_flight -= 1
        if exchange.delivery is Delivery.NOT_SENT:
            return
        after_refusal = channel.last is not None and channel.last.refused
        opened = channel.opened or channel.between
        channel.last = _End(
            opened,
            channel.words,
            channel.understood,
            after_refusal,
            empty=not (opened or channel.output),
            settled=exchange.settled,
        )

    def _label(self, event: ServerEvent) -> LaneName:
        """Return the lane that an event names; None where it names none, or a blank."""
        # From the object rather than from the attribute: this is done for every delta.
        name = event.raw.get("stream_id") if self._has_lanes else None
        return name if name.__class__ is str and name else None

    def route(self, event: ServerEvent) -> Exchange | Verdict | Doubt | Unlabelled:
        """Say whose the event is."""
        channel = self._channels.get(self._label(event))
        if channel is not None and channel.opened and channel.current is not None and isinstance(event, OutputEvent):
            return channel.current  # the short way for most of what arrives
        if isinstance(event, AccountEvent):
            return Verdict.CONNECTION
        if isinstance(event, SteerEvent):
            return self._steered(event, channel)
        if isinstance(event, InjectCreated | InjectFailed):
            return Verdict.INJECTED
        if isinstance(event, ErrorEvent) and CODES.get(event.code or "") is Fault.CONNECTION_LIMIT:
            return Verdict.LIMIT
        if isinstance(event, ErrorEvent) and (steered := self._refused_steer(event, channel)) is not None:
            return steered
        word = word_of(event)
        if word is Word.NOTHING:
            return Verdict.CONNECTION if self._label(event) is None else Verdict.DROPPED
        if channel is None or channel.current is None:
            return self._unclaimed(event, word, channel)
        if channel.between:
            return self._between(event, word, channel, channel.current)
        if word is not Word.CONTROL and not channel.opened and channel.last is not None and not channel.output:
            other = self._of_the_last(channel.current, channel, channel.last, word)
            if other is not None:
                return other
        return self._own(event, word, channel, channel.current)

    def _own(self, event: ServerEvent, word: Word, channel: _Channel, exchange: Exchange) -> Exchange | Verdict:
        if not self._labelled and exchange.lane is not None:
            self._labelled = self._label(event) == exchange.lane
        if word is Word.ERROR or word is Word.FAILED:
            fault = _refuses_for(event)
            if fault is not None and channel.may_cause is not None and not channel.may_cause(fault):
                if fault in self._refused_for:  # of the request that this one replaces, once more
                    self._refused_for.discard(fault)
                    return Verdict.DROPPED
            elif fault is not None:
                self._refused_for.add(fault)
        match word:
            case Word.OPENS:
                channel.opened = channel.began = True
            case Word.OUTPUT:
                channel.output = channel.began = True
            case Word.GOOD:
                channel.words, channel.began = (*channel.words, word), True
                if exchange.steering:
                    channel.opened, channel.between = False, True
            case Word.FAILED:
                channel.words = (*channel.words, word)
            case Word.ERROR:
                assert isinstance(event, ErrorEvent)
                channel.words = (*channel.words, word)
                channel.understood = event.code in CODES or 400 <= (event.status or 0) < 500
        return exchange

    def _between(
        self, event: ServerEvent, word: Word, channel: _Channel, exchange: Exchange
    ) -> Exchange | Verdict | Doubt:
        """Judge what comes between a response's end and its successor's beginning."""
        match word:
            case Word.CONTROL | Word.ERROR | Word.FAILED:
                return self._own(event, word, channel, exchange)
            case Word.OPENS if isinstance(event, LifecycleEvent) and _follows(event, exchange.response_id):
                channel.opened, channel.between, channel.words = True, False, ()
                return exchange
            case Word.GOOD:
                channel.words += (word,)
                return Verdict.DROPPED
            case Word.ODD:
                return Verdict.DROPPED
        return Doubt(exchange)

    def _steered(self, event: SteerEvent, channel: _Channel | None) -> Exchange | Verdict:
        """Say whose steer an event is about. A refusal may lack the name of the channel."""
        here = channel.current if channel is not None else None
        if here is not None and here.concerns(event):
            return here
        return next((each for each in self.exchanges() if each.concerns(event)), Verdict.DROPPED)

    def _refused_steer(self, event: ErrorEvent, channel: _Channel | None) -> Exchange | None:
        """Return whose steer a server refuses that does not know what a steer is."""
        if not event.refuses_an_event:
            return None
        here = [channel.current] if channel is not None and channel.current is not None else []
        return next((each for each in (*here, *self.exchanges()) if each.awaits_steer_answer), None)

    def _of_the_last(self, exchange: Exchange, channel: _Channel, last: _End, word: Word) -> Verdict | Doubt | None:
        """Whether what comes before an exchange has opened is its predecessor's; None where it is its own."""
        match word:
            case Word.OPENS | Word.ERROR:
                return None
            case Word.ODD:
                return Verdict.DROPPED
            case Word.GOOD | Word.FAILED if last.said_again(word, alone=False):
                return Verdict.DROPPED
            case Word.FAILED:
                return None
        return Doubt(exchange) if channel.began else None

    def _unclaimed(self, event: ServerEvent, word: Word, channel: _Channel | None) -> Exchange | Verdict | Unlabelled:
        """Judge an event on whose channel nothing is in flight."""
        unlabelled = self._label(event) is None
        if unlabelled and word in _OF_A_RESPONSE and self._in_flight and not self._of_the_default(channel, word):
            in_flight = list(self.exchanges())
            if len(in_flight) == 1:
                owner = self._own(event, word, self._channels[in_flight[0].lane], in_flight[0])
                if isinstance(owner, Verdict):
                    return owner
            return Unlabelled(tuple(in_flight))
        if word is Word.ERROR and unlabelled:
            in_flight = list(self.exchanges())
            if len(in_flight) == 1:
                return self._own(event, word, self._channels[in_flight[0].lane], in_flight[0])
        if word is Word.CONTROL:
            return Verdict.DROPPED
        if channel is None or channel.last is None:  # nothing was ever sent here that this could be mistaken for
            return Verdict.FATAL if word is Word.ERROR and unlabelled else Verdict.DROPPED
        if channel.last.said_again(word, alone=True):
            return Verdict.DROPPED
        return Verdict.FATAL if word is Word.ERROR and unlabelled else Verdict.STRAY

    def _of_the_default(self, channel: _Channel | None, word: Word) -> bool:
        """Whether an event without a label may be the default channel's last one's, while named ones are in flight.

        A server that is known to label its answers means the default channel. Of another one it can be an end said
        again, or anything where it is not known what of the last response there is still to come; and where the server
        announced that one, it will announce the named ones, before it says anything else of them.
        """
        if channel is None or channel.last is None:
            return False
        if self._labelled:
            return True
        if any(each.current is not None and each.opened for each in self._channels.values()):
            return False  # it announced a named one without its label
        last = channel.last
        return (
            (last.opened and word is not Word.OPENS)
            or not last.leaves_clean(again=False)
            or last.repeats(word, alone=True)
        )
