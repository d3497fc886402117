"""Many prompts over one engine."""

from __future__ import annotations

from engine.batch.batch import Batch as Batch
from engine.batch.batch import open_batch as open_batch
from engine.batch.host import BatchHost as BatchHost
from engine.batch.ledger import Ledger as Ledger
from engine.batch.ledger import open_ledger as open_ledger
from engine.batch.results import BatchProgress as BatchProgress
from engine.batch.results import BatchResult as BatchResult
from engine.batch.terminal import ProgressLine as ProgressLine
