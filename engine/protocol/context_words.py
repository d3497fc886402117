"""The words with which servers say that a context is too long for the model.

The Responses API has the code ``context_length_exceeded`` for it. Other servers have codes and types of their own, or
say it in words only, under a code that tells nothing. A program that shortens its conversation and asks again should
not have to know them all.
"""

from __future__ import annotations

import re
from typing import Final

from engine.protocol.faults import Fault, fault_of

__all__ = ["CONTEXT_TOO_LONG", "NAMES", "WORDS", "code_of_error"]

CONTEXT_TOO_LONG: Final = "context_length_exceeded"

NAMES: Final = frozenset(
    {
        "exceed_context_size_error",  # llama.cpp, a type
        "model_max_prompt_tokens_exceeded",  # Copilot
        "max_prompt_tokens_exceeded",
        "model_context_window_exceeded",  # Z.ai
        "context_window_exceeded",
        "contextwindowexceedederror",  # LiteLLM, a type
        "prompt_too_long",  # gateways to Anthropic
    }
)
"""Codes and types that say it, in lower case."""

WORDS: Final = (
    r"maximum context length",  # OpenAI's older models, vLLM, OpenRouter, DeepSeek, Mistral
    r"exceeds? (?:the |this |its )?(?:model'?s )?context (?:window|length|size|limit)",
    r"context (?:window|length|size)(?: has been| was)? exceed(?:ed|s limit)",  # MiniMax
    r"exceeds the available context size",  # llama.cpp
    r"context window is full",
    r"(?:longer|greater) than the (?:model'?s |maximum )?(?:context|model) length",  # vLLM, SGLang, Together, LM Studio
    r"too long to fit into the model",  # vLLM
    r"configured context size is",
    r"exceeded (?:max |maximum )?context length",  # Ollama
    r"prompt is too long",  # Anthropic, and gateways to it
    r"input length and `?max_tokens`? exceed context limit",
    r"input is too long for requested model",  # Bedrock
    r"input token count\b.{0,40}\bexceeds the maximum",  # Gemini
    r"prompt token count\b.{0,40}\bexceeds the limit",  # Copilot
    r"input tokens exceed the configured limit",
    r"maximum prompt length is",  # xAI
    r"exceeded model token limit",  # Moonshot
    r"range of input length should be",  # DashScope
    r"`inputs` (?:must have less than|tokens \+ `max_new_tokens` must be)",  # Text Generation Inference
    r"reduce the length of the (?:input |prompt|messages|input)",  # Groq
    r"contextwindowexceedederror",  # LiteLLM
    r"context_length_exceeded",  # gateways that quote OpenAI's error as text
)
"""Patterns of messages that say it."""

_SAID: Final = re.compile("|".join(WORDS), re.IGNORECASE | re.DOTALL)
_MAX_WORDS: Final = 2000


def code_of_error(*, status: int | None, code: str | None, kind: str | None, message: str) -> str | None:
    """Return an error's code: its own, or ``context_length_exceeded`` where the error says that otherwise.

    A code of the Responses API keeps its meaning, and so does what is known to be about the account, its pace or the
    answer's content: a limit of tokens in a minute is none of the context. A server's failure may be one that a gateway
    made of another's refusal.

    Args:
        status: Its status.
        code: Its code.
        kind: Its type.
        message: Its words.
    """
    fault = fault_of(status, code, kind)
    if fault not in {None, Fault.REQUEST, Fault.SERVER} or fault_of(None, code, None) is Fault.REQUEST:
        return code
    named = {name.lower() for name in (code, kind) if name is not None}
    return CONTEXT_TOO_LONG if named & NAMES or _SAID.search(message[:_MAX_WORDS]) else code
