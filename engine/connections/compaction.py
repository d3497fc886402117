"""A compaction: a request of its own over HTTP, beside the session's turns.

It runs in a task of the session's. Whoever asked for it only waits, and takes it along when leaving.
"""

from __future__ import annotations

import functools
from typing import Final

import trio

from engine.connections.pool import Pool
from engine.protocol.budgets import Budgets
from engine.protocol.compaction import compacted
from engine.protocol.failures import Broken, Closed, Failure, to_error
from engine.settings.timeouts import Phase, ResolvedTimeouts
from engine.transport.http import HttpClient, Post, whole_answer
from engine.values.choices import Delivery, Transport
from engine.values.errors import TurnError
from engine.values.messages import Context
from engine.values.reports import PhaseSeconds, TurnReport

__all__ = ["Compaction"]

_PATH: Final = "/responses/compact"
_PHASES: Final[tuple[Phase, ...]] = ("turn", "start")


class Compaction:
    """One compaction.

    Args:
        context: What is to be compacted.
        text: The body of the request, as JSON text.
        timeouts: Merged timeouts, of which ``connect``, ``start`` and ``turn`` apply.
        max_bytes: The largest answer that is accepted.
    """

    def __init__(self, context: Context, text: str, *, timeouts: ResolvedTimeouts, max_bytes: int) -> None:
        self._context = context
        self._text = text
        self._size = len(text.encode())
        self._max_bytes = max_bytes
        self._connect = timeouts.connect
        self._budgets = Budgets(timeouts)
        self._scope = trio.CancelScope()
        self._finished = trio.Event()
        self._outcome: Context | Failure | None = None
        self._post: Post | None = None
        self._began = self._ended = 0.0

    # --- the caller's side ---

    @trio.lowlevel.enable_ki_protection
    async def compact(self, pool: Pool) -> Context:
        """Have it done over a session's links, and wait for it.

        Raises:
            TurnError: it failed.

        If cancelled, the request is given up and its connection closed, at once.
        """
        self._began = trio.current_time()
        for phase in _PHASES:
            self._budgets.start(phase, self._began)
        self._scope.deadline = self._budgets.deadline
        try:
            link = await pool.http()
            if isinstance(link, Failure):
                self._settle(link)
            else:
                link.start(functools.partial(self._run, link.client))
                await self._finished.wait()
        finally:
            self._scope.cancel(reason="the caller that asked for the compaction has left")
        if isinstance(self._outcome, Context):
            return self._outcome
        assert self._outcome is not None
        raise self._error(self._outcome)

    def _error(self, failure: Failure) -> TurnError:
        error = to_error(failure)
        error.delivery = self._delivery
        sent = error.delivery is not Delivery.NOT_SENT
        error.report = TurnReport(
            transport=Transport.SSE if sent else None,
            attempts=int(sent),
            bytes_sent=self._size if sent else 0,
            bytes_full=self._size,
            delivery=error.delivery,
            seconds=PhaseSeconds(total=self._ended - self._began),
        )
        return error

    @property
    def _delivery(self) -> Delivery:
        post = self._post
        if post is None or not post.sent:
            return Delivery.NOT_SENT
        if post.status is None:
            return Delivery.AMBIGUOUS
        return Delivery.ACCEPTED if 200 <= post.status < 300 else Delivery.REJECTED

    # --- the session's side ---

    async def _run(self, client: HttpClient) -> None:
        """Send the request and read the answer. Raises no `Exception`; cancelling it closes the connection at once."""
        try:
            with self._scope:
                self._post = client.post(_PATH, self._text, connect=self._connect)
                answer = await whole_answer(self._post, max_bytes=self._max_bytes)
                self._settle(compacted(self._context, answer) if isinstance(answer, bytes) else answer)
            if self._scope.cancelled_caught:
                self._settle(self._budgets.expired(trio.current_time()) or Closed("the compaction was given up"))
        except Exception as error:
            self._settle(Broken(error))
        finally:
            self._settle(Closed("the session ended"))  # nothing, where it has an outcome

    def _settle(self, outcome: Context | Failure) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._ended = trio.current_time()
            self._finished.set()
