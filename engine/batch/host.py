"""A Trio thread inside any worker process that answers chunks of prompts: for Dask, Ray, Celery or a thread pool."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Literal

from engine.batch.batch import open_batch
from engine.batch.ledger import Ledger, OnInterrupted, open_ledger
from engine.batch.results import BatchResult
from engine.opening import open_engine
from engine.portal import Block, Portal
from engine.registry import Engine
from engine.settings.endpoint import Endpoint
from engine.settings.turn_options import TurnOptions
from engine.store.store import open_store

__all__ = ["BatchHost"]


class BatchHost:
    """Answers chunks of a batch, each prompt once over all hosts of that batch. Blocking, and safe from every thread.

    One for each process: it keeps an engine with its connections, a store and a ledger from the first chunk on, in a
    thread of its own. A host that was made before a fork starts afresh in the child; one that was *started* before it
    says so, since its thread did not come along.

    Args:
        endpoint: The server.
        store_url: The store of the ledger; see `engine.store.open_store`.
        name: The batch's name.
        concurrency: The most prompts of a chunk under way at the same time.
        on_interrupted: See `open_ledger`.
        options: The requests' options.
        lease: See `engine.store.open_store`.
        session: Keywords of `engine.open_engine`, the model for example.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store_url: str,
        name: str,
        *,
        concurrency: int = 16,
        on_interrupted: OnInterrupted = "resend",
        options: TurnOptions | None = None,
        lease: float = 30.0,
        **session: Any,
    ) -> None:
        self._endpoint = endpoint
        self._store_url = store_url
        self._name = name
        self._concurrency = concurrency
        self._on_interrupted: OnInterrupted = on_interrupted
        self._options = options
        self._lease = lease
        self._session = session
        self._lock = threading.Lock()
        self._portal: Portal | None = None
        self._block: Block[tuple[Engine, Ledger]] | None = None
        self._opened: tuple[Engine, Ledger] | None = None

    def __repr__(self) -> str:
        return f"<BatchHost {self._name!r}>"

    def run(self, chunk: Iterable[Any]) -> list[BatchResult]:
        """Answer the prompts of a chunk and return their results, in the order of the prompts.

        Args:
            chunk: Pairs of a key and a prompt; without keys a prompt's number in the chunk is its key, which other
                chunks have too.

        Raises:
            EngineError: the store is out of reach, or something given is wrong.
            RuntimeError: the host was started before the process forked, or was closed.

        An interrupt abandons what is under way; what is answered is in the ledger.
        """
        items = list(chunk)
        portal, (eng, ledger) = self._started()
        return portal.run(lambda: self._answer(eng, ledger, items))

    async def _answer(self, eng: Engine, ledger: Ledger, items: list[Any]) -> list[BatchResult]:
        found: dict[str, BatchResult] = {}
        async with open_batch(
            eng, items, concurrency=self._concurrency, options=self._options, ledger=ledger
        ) as results:
            async for result in results:
                found[result.key] = result
        keys = (item[0] if isinstance(item, tuple) else str(number) for number, item in enumerate(items))
        return [found[key] for key in keys]

    def _started(self) -> tuple[Portal, tuple[Engine, Ledger]]:
        with self._lock:
            if self._portal is None:
                portal = Portal()
                portal.start(self.close)
                block = portal.block(self._open())
                try:
                    self._opened = portal.run(block.enter)
                except BaseException:
                    portal.stop()
                    raise
                self._portal, self._block = portal, block
            assert self._opened is not None
            return self._portal, self._opened

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Engine, Ledger]]:
        async with AsyncExitStack() as stack:
            eng = await stack.enter_async_context(open_engine(self._endpoint, **self._session))
            store = await stack.enter_async_context(open_store(self._store_url, lease=self._lease))
            ledger = await stack.enter_async_context(
                open_ledger(store, self._name, on_interrupted=self._on_interrupted)
            )
            yield eng, ledger

    def close(self) -> None:
        """Close the engine and the store, and end the thread; once is enough. Takes the bounded time of that."""
        with self._lock:
            portal, block = self._portal, self._block
            self._portal = self._block = self._opened = None
        if portal is None or block is None:
            return
        try:
            if portal.running:
                portal.run(block.leave)
        finally:
            portal.stop()

    def __enter__(self) -> BatchHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False
