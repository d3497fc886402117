"""The tasks of one session: where its links and its running turns live, and why no more of them are started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from engine.connections.home import Home
from engine.protocol.failures import Broken, Closed, Failure

__all__ = ["Tasks"]


class Tasks:
    """A session's nursery, as what lives in it sees it.

    Attributes:
        failure: The reason for taking no more work; None while the session takes it.
        shut: The reason for taking no new turns, though those under way go on; None while it takes them.
        check_caller: Raises `RuntimeError` unless the caller is a task of the Trio run that the session belongs to.
    """

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.shut: Failure | None = None
        self._nursery: trio.Nursery | None = None
        self._endless = 0
        self.check_caller: Callable[[], None] = Home().check

    @property
    def alive(self) -> bool:
        """Whether more may be begun."""
        return self.failure is None and self._nursery is not None and not self._nursery.cancel_scope.cancel_called

    @property
    def ending(self) -> Failure:
        """The reason why nothing more may be begun, once it may not."""
        return self.failure or Closed("the session is being released")

    def open(self, nursery: trio.Nursery) -> None:
        """Begin to take tasks."""
        self._nursery = nursery
        if self.failure is not None:
            nursery.cancel_scope.cancel(reason="the session was released before it had started")

    def start(self, task: Callable[[], Awaitable[None]], *, endless: bool = False) -> None:
        """Run a task; if it breaks, so does the session.

        Args:
            task: The task.
            endless: Whether it has to be cancelled when the session is closed, because it is told by nothing else.
        """
        assert self._nursery is not None
        self._endless += endless
        self._nursery.start_soon(self._guarded, task, endless)

    async def _guarded(self, task: Callable[[], Awaitable[None]], endless: bool) -> None:
        try:
            await task()
        except Exception as error:
            self.abort(Broken(error), "the session broke")
        finally:
            self._endless -= endless

    def close(self, failure: Failure, reason: str) -> None:
        """Take no more tasks, and cancel those there are that do not end by themselves; the first failure counts.

        To cancel the others as well would cost more than all the rest of closing: what leaves a task is put together
        into groups, with words about each.
        """
        self.failure = self.failure or failure
        if self._endless:
            self.abort(failure, reason)

    def abort(self, failure: Failure, reason: str) -> None:
        """Take no more tasks, and cancel those there are."""
        self.failure = self.failure or failure
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    def forget(self) -> None:
        """Let go of the nursery, which is over."""
        self._nursery = None
