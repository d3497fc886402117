"""The account of one turn: its identity, what its report and its lane's counters say of it, and what hooks are told."""

from __future__ import annotations

import contextvars
import logging
from typing import Final

from attrs import evolve

from engine.connections.attempt import Attempt, Origin
from engine.connections.link import Link
from engine.instruments import FallbackInfo, RequestInfo, RetryInfo, TurnEndInfo, TurnStartInfo
from engine.protocol.aftermath import Aftermath
from engine.protocol.chain import Plan
from engine.protocol.failures import Expired, Failure, Throttled, to_error
from engine.protocol.recovery import Decision, Recovery, Remedy, Setback
from engine.protocol.refusals import lower_case, request_id, telling
from engine.protocol.seals import is_sealed
from engine.turns.lane import Lane
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline
from engine.turns.watch import SILENCES
from engine.values.choices import Delivery, OnCancel, further
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport

__all__ = ["Account", "arrived"]

_CARRIED_OUT: Final = {
    Aftermath.RETIRE: OnCancel.CLOSE,
    Aftermath.DRAIN: OnCancel.DRAIN,
    Aftermath.NEW_LANE: OnCancel.NEW_LANE,
}
_logger = logging.getLogger("engine.turn")


def arrived(message: AssistantMessage | None, attempt: Attempt | None) -> AssistantMessage | None:
    """Return the part of an answer that has come; None while nothing has."""
    return message or (attempt.exchange.partial() if attempt is not None else None)


class Account:
    """The account of a turn, over all its attempts.

    Args:
        lane: Its lane, whose counters count it.
        submission: The turn's request.
        timeline: The times of what happened.
        recovery: The attempts so far, and the remedies.

    Attributes:
        sent: The newest attempt that was dispatched.
        aftermath: The treatment of the connection, where the response was left before its end.
    """

    def __init__(self, lane: Lane, submission: Submission, timeline: Timeline, recovery: Recovery) -> None:
        self.sent: Attempt | None = None
        self.aftermath: Aftermath = Aftermath.NOTHING
        self._lane = lane
        self._submission = submission
        self._timeline = timeline
        self._recovery = recovery
        self._origin: Origin | None = None
        self._delivered = Delivery.NOT_SENT  # by attempts that were given up
        self._last_failure: Failure | None = None  # of those
        self._unread = 0  # what the link had dropped before the newest was sent

    @property
    def origin(self) -> Origin:
        """The origin of the turn's requests, once it was granted its lane."""
        assert self._origin is not None
        return self._origin

    def open(self, context: contextvars.Context) -> None:
        """The turn was granted its lane."""
        lane = self._lane
        origin = Origin(lane.session, lane.name, lane.number(), self._submission.model, context, lane.instruments)
        self._origin = origin
        lane.counters.started += 1
        if origin.wants("turn_started"):
            server = lane.pool.endpoint.websocket.netloc
            origin.emit("turn_started", TurnStartInfo(**origin.facts, server=server))

    def dispatched(self, attempt: Attempt, link: Link) -> None:
        """An attempt is on its way."""
        self.sent, self._unread = attempt, link.unread
        self._recovery.dispatches += 1
        if attempt.origin.wants("request_sent"):
            info = RequestInfo(
                **attempt.origin.facts,
                attempt=attempt.number,
                connection=link.number,
                transport=attempt.transport,
                size=attempt.size,
            )
            attempt.origin.emit("request_sent", info)

    def given_up(self, attempt: Attempt) -> None:
        """Another attempt will be made in place of this one."""
        self._delivered = self.delivery(attempt)

    def tried_again(self, decision: Decision, failure: Failure) -> None:
        """Count another attempt after a failure, or the change to HTTP."""
        self._last_failure = failure
        facts, dispatched = self.origin.facts, self._recovery.dispatches
        if decision.remedy is Remedy.FALL_BACK:
            self._lane.counters.fallbacks += 1
            reason = self._recovery.fallback_reason or decision.row
            _logger.info("a turn goes over HTTP: %s", reason)
            if self.origin.wants("fallback"):
                self.origin.emit("fallback", FallbackInfo(**facts, attempt=dispatched, reason=reason))
        else:
            self._lane.counters.retries += 1
            _logger.info("a turn is tried again in %.3f s: %s", decision.wait, decision.row)
            if self.origin.wants("retry"):
                info = RetryInfo(**facts, attempt=dispatched, reason=decision.row, seconds=decision.wait)
                self.origin.emit("retry", info)

    def close(self, message: AssistantMessage | None, error: Exception | None, attempt: Attempt | None) -> None:
        """Count how the turn went; with neither an answer nor an error it was abandoned."""
        counters = self._lane.counters
        if message is not None:
            counters.completed += 1
            if message.usage is not None:
                counters.usage += message.usage
        elif error is not None:
            counters.failed += 1
        else:
            counters.abandoned += 1
        if self.origin.wants("turn_ended"):
            info = TurnEndInfo(
                **self.origin.facts,
                attempt=self._recovery.dispatches,
                report=self.report(message, attempt),
                error=error,
                answered=message is not None,
            )
            self.origin.emit("turn_ended", info)

    # --- what is known of it ---

    def with_unread(self, failure: Failure, link: Link | None) -> Failure:
        """Add to a silence what came meanwhile of which no turn was told."""
        if isinstance(failure, Expired) and failure.phase in SILENCES and link is not None:
            return evolve(failure, unread=link.unread - self._unread)
        return failure

    def setback(self, failure: Failure, attempt: Attempt | None) -> Setback:
        """Return the facts that decide about a failure of the newest attempt."""
        return Setback(
            failure,
            transport=self._recovery.transport,
            delivery=attempt.exchange.delivery if attempt is not None else Delivery.NOT_SENT,
            output_seen=attempt is not None and attempt.exchange.output_seen,
            steered=attempt is not None and attempt.exchange.steered,
            continued=attempt is not None and attempt.plan.previous_response_id is not None,
            sealed=is_sealed(self._submission.body),
            untyped=not self._lane.pool.endpoint.server.typed_errors,
        )

    def error(self, failure: Failure, attempt: Attempt | None) -> TurnError:
        """Return the exception that a turn without an answer ends with."""
        error = to_error(failure)
        if isinstance(failure, Expired | Throttled) and self._last_failure is not None:
            error.__cause__ = to_error(self._last_failure)  # what the time was spent on
        error.delivery = self.delivery(attempt)
        error.partial = arrived(None, attempt)
        return error

    def delivery(self, attempt: Attempt | None) -> Delivery:
        """Return the delivery state of the request over all attempts; the newest is given."""
        return further(self._delivered, attempt.exchange.delivery if attempt is not None else Delivery.NOT_SENT)

    def report(self, message: AssistantMessage | None, attempt: Attempt | None) -> TurnReport:
        """Return the turn's report at this moment: the answer, if it has come, and the newest attempt are given."""
        answer, sent = arrived(message, attempt), self.sent
        usage = answer.usage if answer is not None else None
        model = answer.model if answer is not None else None
        asked = self._origin.model if self._origin is not None else self._submission.model
        fields = lower_case(sent.headers) if sent is not None else {}
        plan = sent.plan if sent is not None else Plan()
        return TurnReport(
            transport=sent.transport if sent is not None else None,
            model=model or asked,
            usage=usage,
            lane=self._lane.name,
            attempts=self._recovery.dispatches,
            connection_reused=sent is not None and sent.reused,
            continued=plan.previous_response_id is not None,
            full_because=plan.full_because,
            bytes_sent=sent.size if sent is not None else 0,
            bytes_full=self._submission.size,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            fallback_reason=self._recovery.fallback_reason,
            response_id=attempt.exchange.response_id if attempt is not None else None,
            request_id=request_id(fields),
            headers=telling(fields),
            unapplied=attempt.exchange.unapplied if attempt is not None else (),
            on_cancel=_CARRIED_OUT.get(self.aftermath),
            delivery=self.delivery(attempt),
            seconds=self._timeline.seconds(),
        )
