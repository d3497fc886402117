"""The words with which servers say that they cannot continue the response that a request names.

The Responses API has the code ``previous_response_not_found`` for it. Other servers name the parameter only, or say it
in words, under the code of any bad request; gateways without a memory refuse the parameter as such. What counts is that
the server has begun nothing, and takes the whole input instead.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PARAMETERS", "WORDS", "is_about_the_parent"]

PARAMETERS: Final = frozenset({"previous_response_id", "response_id"})
"""The parameters at fault; the second one is vLLM's."""

WORDS: Final = (
    r"\bprevious[ _]response",  # OpenAI, Azure; gateways that take the parameter on one of their transports
    r"\bresponse[ _]id\b",  # LiteLLM, of ids that it did not give
    r"\bresponse\b[^.]{0,160}\b(?:not found|not exist|expired)",  # vLLM, xAI
)
"""Patterns of messages that say it."""

_SAID: Final = re.compile("|".join(WORDS), re.IGNORECASE)
_MAX_WORDS: Final = 2000


def is_about_the_parent(param: str | None, message: str) -> bool:
    """Whether the refusal of a request that continues a response may be because of that.

    Args:
        param: The parameter at fault.
        message: The server's words.
    """
    return param in PARAMETERS or _SAID.search(message[:_MAX_WORDS]) is not None
