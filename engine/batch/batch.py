"""Many prompts over one engine: workers that share a source of prompts, and results in the order of completion.

Memory is bounded by the number of workers, not by that of the prompts: a prompt is taken from the source when a worker
is free, and a worker takes no more while unread results pile up.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, Unpack

import trio
from attrs import evolve

from engine.batch.ledger import Entry, Ledger
from engine.batch.pace import Pace
from engine.batch.results import BatchProgress, BatchResult
from engine.calls import Calls
from engine.conversation.prompts import context_of
from engine.groups import worst_of
from engine.registry import Engine
from engine.session import Session
from engine.settings.fields import SessionFields, TurnFields, options_with, spelled_out
from engine.settings.retry import RetryPolicy
from engine.settings.turn_options import TurnOptions
from engine.values.checks import wrong_type
from engine.values.errors import TurnError
from engine.values.problems import ConfigurationError, EngineError
from engine.values.usage import Usage

__all__ = ["Batch", "Items", "Progress", "open_batch"]

Items: TypeAlias = "Iterable[Any] | AsyncIterable[Any]"
"""Prompts, or pairs of a key and a prompt. A prompt is what `engine.Session.ask` takes."""

Progress: TypeAlias = Callable[[BatchProgress], None]
"""Called after each result, and once when all is over, in the batch's own task. What it raises ends the batch."""

_MOST_WORKERS: Final = 4096


class Batch:
    """The results of a batch as they come: ``async for result in results``. Got from `open_batch`."""

    def __init__(self, workers: int, total: int | None, progress: Progress | None, pace: Pace) -> None:
        self._unread: deque[BatchResult] = deque()
        self._most_unread = workers
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._over = False
        self._failure: BaseException | None = None
        self._progress = progress
        self._pace = pace
        self._total = total
        self._begun = self._answered = self._failed = 0
        self._began_at = trio.current_time()
        self._usage: Usage | None = None

    @property
    def progress(self) -> BatchProgress:
        """The batch's progress at this moment."""
        return BatchProgress(
            total=self._total,
            begun=self._begun,
            answered=self._answered,
            failed=self._failed,
            seconds=trio.current_time() - self._began_at,
            usage=self._usage,
            pause=self._pace.pause,
            over=self._over,
        )

    def __aiter__(self) -> Batch:
        return self

    async def __anext__(self) -> BatchResult:
        """Return the next result, whichever prompt it is of.

        Raises:
            Exception: what the source of the prompts or the progress callback raised, after the results before it.

        Cancelling loses no result.
        """
        while not self._unread:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            await self._readers.park()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._readers.unpark()  # it was woken for a result that another reader may have
            raise
        result = self._unread.popleft()
        self._writers.unpark()
        return result

    # --- the workers' side ---

    def _begin(self) -> None:
        self._begun += 1

    async def _give(self, result: BatchResult) -> None:
        while len(self._unread) >= self._most_unread:
            await self._writers.park()
        self._unread.append(result)
        if result.message is not None:
            self._answered += 1
            used = result.message.usage
            if used is not None:
                self._usage = used if self._usage is None else self._usage + used
        else:
            self._failed += 1
        self._readers.unpark()
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.progress)

    def _end(self, failure: BaseException | None = None) -> None:
        self._over = True
        try:
            self._tell()
        except Exception as error:
            failure = failure or error
        self._failure = failure
        self._readers.unpark_all()


class open_batch:  # noqa: N801 - read as a function: async with open_batch(...) as results
    """Ask many prompts over one engine: ``async with open_batch(engine, items) as results``, then iterate.

    Its sessions and lanes are its own, and are released at the end: as many prompts share a session as its server
    answers at a time on one connection, or as it may have connections. A prompt that fails gives a result with an
    error; the others go on. While the server limits the rate, all of them wait, and then one tries. Leaving the block
    abandons what is under way.

    Args:
        eng: The engine.
        items: Prompts, or pairs of a key and a prompt. Taken one by one as workers become free; may be endless.
        concurrency: The most prompts under way at the same time.
        options: The requests' options.
        progress: Called after each result with how far the batch has got.
        rate_patience: Seconds, from the last answer on, for which a rate limit holds the batch; then its prompts fail
            with that limit. 0 fails each as soon as its own ``start`` budget does not reach.
        ledger: Remembers what is answered: that is not asked again, also by another process or another day; see
            `open_ledger`.
        fields: Keywords of `engine.Session.ask`, for every prompt.

    Raises:
        ConfigurationError: something given is wrong; ``field`` names it.
    """

    @spelled_out
    def __init__(
        self,
        eng: Engine,
        items: Items,
        *,
        concurrency: int = 64,
        options: TurnOptions | None = None,
        progress: Progress | None = None,
        rate_patience: float = 600.0,
        ledger: Ledger | None = None,
        **fields: Unpack[TurnFields],
    ) -> None:
        if not isinstance(eng, Engine):
            raise wrong_type("eng", eng, "an Engine")
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable | AsyncIterable):
            raise wrong_type("items", items, "prompts, or pairs of a key and a prompt")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= _MOST_WORKERS:
            raise ConfigurationError("concurrency", f"must be a whole number from 1 to {_MOST_WORKERS}")
        if progress is not None and not callable(progress):
            raise ConfigurationError("progress", "is not callable")
        if isinstance(rate_patience, bool) or not isinstance(rate_patience, int | float) or not rate_patience >= 0:
            raise ConfigurationError("rate_patience", "must be a number of seconds, 0 or more")
        self._pace = Pace(rate_patience, eng._settings.merged(retry=fields.get("retry")).retry)
        self._engine = eng
        self._source = _Source(items)
        self._total = len(items) if isinstance(items, Sized) else None
        self._concurrency = concurrency if self._total is None else max(1, min(concurrency, self._total))
        self._options = options_with(options, fields, "open_batch")
        self._progress = progress
        if ledger is not None and not isinstance(ledger, Ledger):
            raise wrong_type("ledger", ledger, "a Ledger")
        self._ledger = ledger
        # Fields about the turn and not about the request; the model is an option.
        self._settings: Any = {
            name: value for name, value in fields.items() if name in SessionFields.__annotations__ and name != "model"
        }
        if ledger is not None and ledger.refuses:
            # What may be at work is not asked again by the turn either; the ledger's gate would stop it anyway.
            self._settings["retry"] = evolve(fields.get("retry") or RetryPolicy(), resend_ambiguous=0)
        self._manager: Any = None
        self._nursery: trio.Nursery | None = None
        self._results: Batch | None = None
        self._sessions: set[str] = set()
        self._name = f"batch-{uuid.uuid4().hex[:8]}"

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Batch:
        """Start the workers. The first prompts leave at once.

        If cancelled, nothing was asked.
        """
        if self._manager is not None:
            raise RuntimeError("a batch can be opened only once")
        # Entered and left by hand, so that the block's exception never becomes part of a group.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._results = Batch(self._concurrency, self._total, self._progress, self._pace)
        self._nursery.start_soon(self._run, self._results)
        return self._results

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        """Abandon what is under way and release the batch's sessions. Takes the bounded time of that."""
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel(reason="the batch was left")
        try:
            await self._manager.__aexit__(None, None, None)
            async with trio.open_nursery() as nursery:
                for session_id in self._sessions:
                    nursery.start_soon(self._engine.release, session_id)
        except BaseExceptionGroup as group:
            raise worst_of(group) from None
        return False

    async def _run(self, results: Batch) -> None:
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                sessions = await self._count()
                for number in range(self._concurrency):
                    lane, session = divmod(number, sessions)
                    nursery.start_soon(self._work, f"{self._name}-{session}", lane, results)
        except* Exception as group:
            failure = worst_of(group)
        finally:
            results._end(failure)

    async def _session(self, session_id: str) -> Session:
        self._sessions.add(session_id)
        return await self._engine.session(session_id)

    async def _count(self) -> int:
        """Return the number of sessions: as many prompts share one as it has places for."""
        first = await self._session(f"{self._name}-0")
        return math.ceil(self._concurrency / first._core.pool.places.number)

    async def _work(self, session_id: str, lane: int, results: Batch) -> None:
        asker: Calls | None = None
        while True:
            item = await self._source.next()
            if item is None:
                return
            results._begin()
            if asker is None:
                session = await self._session(session_id)
                asker = session.lane(str(lane)) if lane else session
            await results._give(await self._pace.answer(functools.partial(self._ask, asker, *item)))

    async def _ask(self, asker: Calls, key: str, prompt: Any) -> BatchResult:
        try:
            if self._ledger is None:
                return await self._answer(asker, key, prompt, None)
            async with self._ledger.entry(key, context_of(prompt)) as entry:
                if entry.known is not None:
                    return BatchResult(key=key, message=entry.known, known=True)
                try:
                    return await self._answer(asker, key, prompt, entry)
                except TurnError as error:
                    await entry.gate.failed(error)
                    raise
        except EngineError as error:
            report = error.report if isinstance(error, TurnError) else None
            return BatchResult(key=key, error=error, attempts=report.attempts if report is not None else 0)

    async def _answer(self, asker: Calls, key: str, prompt: Any, entry: Entry | None) -> BatchResult:
        calls: Calls = asker if entry is None else asker._gated(entry.gate.let_through)
        async with calls.turn(prompt, self._options, **self._settings) as turn:
            message = await turn.wait()
            report = turn.report
        if entry is not None:
            await entry.answered(message, report)
        return BatchResult(key=key, message=message, attempts=report.attempts)


class _Source:
    """The prompts, one for each call, whichever worker calls."""

    def __init__(self, items: Items) -> None:
        self._iterator: Iterator[Any] | None = None
        self._asynchronous: AsyncIterator[Any] | None = None
        if isinstance(items, AsyncIterable):
            self._asynchronous = aiter(items)
        else:
            self._iterator = iter(items)
        self._count = 0
        self._keys: set[str] = set()
        self._line = trio.StrictFIFOLock()  # an asynchronous iterator serves one task at a time
        self._ended = False

    async def next(self) -> tuple[str, Any] | None:
        if self._ended:
            return None
        if self._iterator is not None:
            await trio.lowlevel.checkpoint()
            item = next(self._iterator, _END)
        else:
            assert self._asynchronous is not None
            async with self._line:
                item = _END if self._ended else await anext(self._asynchronous, _END)
        if item is _END:
            self._ended = True
            return None
        number, self._count = self._count, self._count + 1
        key, prompt = item if _is_pair(item) else (str(number), item)
        if key in self._keys:
            raise ConfigurationError(f"items[{number}]", f"has the key {key!r} of an earlier prompt")
        self._keys.add(key)
        return key, prompt


_END: Final[Any] = object()


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
