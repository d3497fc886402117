"""Many prompts over one engine."""

from __future__ import annotations

from engine.batch.batch import Batch, open_batch
from engine.batch.host import BatchHost
from engine.batch.ledger import Ledger, OnInterrupted, open_ledger
from engine.batch.results import BatchProgress, BatchResult
from engine.batch.terminal import ProgressLine

__all__ = [
    "Batch",
    "BatchHost",
    "BatchProgress",
    "BatchResult",
    "Ledger",
    "OnInterrupted",
    "ProgressLine",
    "open_batch",
    "open_ledger",
]


def __dir__() -> list[str]:
    return sorted(__all__)
