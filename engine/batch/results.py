"""The results of a batch, one for each prompt, and its progress."""

from __future__ import annotations

from typing import TypeVar

from attrs import field, frozen

from engine.values.messages import AssistantMessage
from engine.values.usage import Usage

__all__ = ["BatchProgress", "BatchResult"]

K = TypeVar("K")


@frozen(kw_only=True)
class BatchResult:
    """The result of one prompt.

    Attributes:
        key: The prompt's key; its number in the batch, from 0, where none was given.
        message: The answer; None where there is none.
        error: The reason for there being none; None where there is one.
        attempts: The number of times that a request of it was handed to a transport in this process; 0 where the ledger
            had the answer already.
        known: Whether the answer is the ledger's, of an earlier run.
    """

    key: str
    message: AssistantMessage | None = field(default=None, repr=False)
    error: Exception | None = None
    attempts: int = 0
    known: bool = False

    @property
    def answer(self) -> AssistantMessage:
        """The answer.

        Raises:
            Exception: there is none; `error`.
        """
        if self.error is not None:
            raise self.error
        assert self.message is not None
        return self.message


@frozen(kw_only=True)
class BatchProgress:
    """The progress of a batch.

    Attributes:
        total: The number of prompts; None while that is not known.
        begun: The number of prompts begun.
        answered: The number of prompts with an answer.
        failed: The number of prompts with an error.
        seconds: Since the batch was opened.
        usage: Tokens of the answers; None where no server said.
        pause: Seconds for which all prompts are held, since the server limits their rate; else 0.
        over: Whether no result will follow.
    """

    total: int | None
    begun: int
    answered: int
    failed: int
    seconds: float
    usage: Usage | None
    pause: float = 0.0
    over: bool = False

    @property
    def done(self) -> int:
        """The number of prompts that have a result."""
        return self.answered + self.failed
