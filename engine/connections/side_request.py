"""A side request over HTTP, beside the turns: a compaction, or any other route of the server's.

It runs in a task of the link's. The caller only waits, and takes it along when leaving. Nothing of it is ever sent
again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import trio

from engine.connections.http_link import HttpLink
from engine.protocol.budgets import Budgets
from engine.protocol.failures import Broken, Closed, Failure, Violated, to_error
from engine.protocol.refusals import lower_case, request_id, telling
from engine.settings.timeouts import Phase, ResolvedTimeouts
from engine.transport.http import HttpClient, HttpRequest, whole_answer
from engine.values.choices import Delivery, Transport
from engine.values.errors import TurnError
from engine.values.reports import PhaseSeconds, TurnReport

__all__ = ["SideRequest", "as_json"]

_PHASES: Final[tuple[Phase, ...]] = ("turn", "start")

T = TypeVar("T")


class SideRequest(Generic[T]):
    """One request and its answer.

    Args:
        method: The request's method.
        path: Below the endpoint's base URL, with its query.
        text: The body as JSON text; None for none.
        read: Makes of the answer's body what is wanted, or says what is wrong with it.
        timeouts: Of which ``connect``, ``start`` and ``turn`` apply.
        max_bytes: The largest answer that is accepted.
    """

    def __init__(
        self,
        method: str,
        path: str,
        text: str | None,
        read: Callable[[bytes], T | Failure],
        *,
        timeouts: ResolvedTimeouts,
        max_bytes: int,
    ) -> None:
        self._method = method
        self._path = path
        self._text = text
        self._read = read
        self._size = len(text.encode()) if text is not None else 0
        self._max_bytes = max_bytes
        self._connect = timeouts.connect
        self._budgets = Budgets(timeouts)
        self._scope = trio.CancelScope()
        self._finished = trio.Event()
        self._answer: list[T] = []
        self._failure: Failure | None = None
        self._post: HttpRequest | None = None
        self._began = self._ended = 0.0

    # --- the caller's side ---

    @trio.lowlevel.enable_ki_protection
    async def answer(self, find_link: Callable[[], Awaitable[HttpLink | Failure]]) -> T:
        """Have it done over a link, and wait for it.

        Raises:
            TurnError: it failed.

        If cancelled, the request is given up and its connection closed, at once.
        """
        self._began = trio.current_time()
        for phase in _PHASES:
            self._budgets.start(phase, self._began)
        self._scope.deadline = self._budgets.deadline
        try:
            link = await find_link()
            if isinstance(link, HttpLink):
                link.start(functools.partial(self._run, link.client))
                await self._finished.wait()
            else:
                self._fail(link)
        finally:
            self._scope.cancel(reason="the caller that asked for it has left")
        if self._answer:
            return self._answer[0]
        assert self._failure is not None
        raise self._error(self._failure)

    def _error(self, failure: Failure) -> Exception:
        error = to_error(failure)
        if not isinstance(error, TurnError):  # the caller's own function raised it
            return error
        error.delivery = self._delivery
        sent = error.delivery is not Delivery.NOT_SENT
        fields = lower_case(self._post.headers) if self._post is not None else {}
        error.report = TurnReport(
            transport=Transport.SSE if sent else None,
            attempts=int(sent),
            connection_reused=self._post is not None and self._post.reused,
            bytes_sent=self._size if sent else 0,
            bytes_full=self._size,
            request_id=request_id(fields),
            headers=telling(fields),
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

    # --- the link's side ---

    async def _run(self, client: HttpClient) -> None:
        """Send the request and read the answer. Raises no `Exception`; cancelling it closes the connection at once."""
        try:
            with self._scope:
                self._post = client.send(self._method, self._path, self._text, connect=self._connect)
                body = await whole_answer(self._post, max_bytes=self._max_bytes)
                made = self._read(body) if isinstance(body, bytes) else body
                if isinstance(made, Failure):
                    self._fail(made)
                else:
                    self._answer.append(made)
            if self._scope.cancelled_caught:
                self._fail(self._budgets.expired(trio.current_time()) or Closed("the request was given up"))
        except Exception as error:
            self._fail(Broken(error))
        finally:
            self._fail(Closed("the session ended"))  # nothing, where there is an outcome
            self._finished.set()

    def _fail(self, failure: Failure) -> None:
        if self._failure is None and not self._answer:
            self._failure = failure
        self._ended = trio.current_time()


def as_json(body: bytes) -> Any:
    """Return an answer's body as what its JSON says; None where there is none."""
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return Violated("the server's answer is not JSON")
