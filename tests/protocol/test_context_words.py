"""The words of servers for a context that is too long."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.protocol.context_words import CONTEXT_TOO_LONG, NAMES, WORDS, code_of_error
from engine.protocol.refusals import refusal
from engine.simulator import Created, Event, Raw, Script, Step

SAID: Final[dict[str, dict[str, Any]]] = {
    "Responses API": {
        "code": "context_length_exceeded",
        "message": "Your input exceeds the context window of this model.",
    },
    "vLLM": {
        "code": 400,
        "type": "BadRequestError",
        "message": "This model's maximum context length is 4096 tokens. However, you requested 5000.",
    },
    "vLLM, a prompt": {
        "code": 400,
        "message": "The decoder prompt (length 9254) is longer than the maximum model length of 4096.",
    },
    "vLLM, older": {
        "code": 400,
        "message": "The prompt (total length 9254) is too long to fit into the model (context length 4096).",
    },
    "llama.cpp": {"code": 400, "type": "exceed_context_size_error", "message": "no", "n_ctx": 256},
    "llama.cpp, older": {
        "code": 500,
        "type": "server_error",
        "message": "the request exceeds the available context size. try increasing it",
    },
    "llama-cpp-python": {
        "type": "internal_server_error",
        "code": None,
        "message": "Requested tokens (516) exceed context window of 512",
    },
    "SGLang": {"message": "The input (5163 tokens) is longer than the model's context length (2621 tokens)."},
    "LM Studio": {"message": "tokens to keep from the initial prompt is greater than the context length"},
    "Ollama": {"message": "prompt too long; exceeded max context length by 1200 tokens"},
    "LiteLLM": {
        "code": "400",
        "type": None,
        "message": "litellm.ContextWindowExceededError: OpenAIException - too much",
    },
    "LiteLLM, quoting": {
        "code": "400",
        "message": 'litellm.BadRequestError: OpenAIException - {"error": {"code": "context_length_exceeded"}}',
    },
    "LiteLLM, a type": {"type": "ContextWindowExceededError", "message": ""},
    "Anthropic": {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"},
    "Anthropic, with the answer": {
        "message": "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"
    },
    "gateway to Anthropic": {"code": "prompt_too_long", "message": ""},
    "Bedrock": {"message": "Input is too long for requested model."},
    "Gemini": {
        "code": 400,
        "message": "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    },
    "xAI": {"message": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."},
    "Groq": {"message": "Please reduce the length of the messages or completion."},
    "Copilot": {"code": "model_max_prompt_tokens_exceeded", "message": ""},
    "Copilot, a code": {"code": "max_prompt_tokens_exceeded", "message": ""},
    "Copilot, words": {
        "code": "invalid_request_body",
        "message": "prompt token count of 391491 exceeds the limit of 128000",
    },
    "Mistral": {"message": "Prompt contains 300000 tokens, too large for model with 131072 maximum context length"},
    "MiniMax": {"message": "invalid params, context window exceeds limit (2013)"},
    "Moonshot": {"message": "Your request exceeded model token limit: 262144 (requested: 300000)"},
    "DashScope": {"code": "invalid_parameter_error", "message": "Range of input length should be [1, 98304]"},
    "Z.ai": {"code": "model_context_window_exceeded", "message": ""},
    "a gateway": {"code": "context_window_exceeded", "message": ""},
    "a gateway's limit": {"message": "Input tokens exceed the configured limit of 272000 tokens."},
    "a configured size": {"message": "Prompt has 32769 tokens, but the configured context size is 32768 tokens"},
    "a full window": {"message": "The context window is full."},
    "Text Generation Inference": {
        "message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."
    },
}
OTHERS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "a pace": (429, {"message": "Request too large: reduce the length of the messages."}),
    "a pace by its code": (413, {"code": "rate_limit_exceeded", "message": "maximum context length"}),
    "a filter": (400, {"code": "content_filter", "message": "prompt is too long"}),
    "a key": (401, {"message": "prompt is too long"}),
    "a code of the API": (400, {"code": "model_not_found", "message": "its maximum context length is unknown"}),
    "a text that is too long": (
        400,
        {"code": "string_above_max_length", "message": "Expected a string with at most 9."},
    ),
    "anything else": (400, {"code": "bad_value", "message": "temperature is out of range"}),
}


def code_of(error: dict[str, Any], status: int = 400) -> str | None:
    return refusal(status, (), json.dumps({"error": error}).encode()).code


@pytest.mark.parametrize("error", SAID.values(), ids=SAID)
def test_all_words_for_it_have_one_code(error: dict[str, Any]) -> None:
    assert code_of(error) == CONTEXT_TOO_LONG
    assert code_of(error, status=500) == CONTEXT_TOO_LONG


@pytest.mark.parametrize("error", SAID.values(), ids=SAID)
def test_words_alone_are_enough(error: dict[str, Any]) -> None:
    if error["message"] not in {"", "no"} and not {str(error.get("code")), str(error.get("type"))} & NAMES:
        assert refusal(400, (), error["message"].encode()).code == CONTEXT_TOO_LONG


@pytest.mark.parametrize(("status", "error"), OTHERS.values(), ids=OTHERS)
def test_other_errors_keep_their_codes(status: int, error: dict[str, Any]) -> None:
    assert code_of(error, status) == error.get("code")


def test_no_word_and_no_name_is_there_for_nothing() -> None:
    for words in WORDS:
        assert any(re.search(words, error["message"], re.IGNORECASE) for error in SAID.values()), words
    named = {str(error.get(name)).lower() for error in SAID.values() for name in ("code", "type")}
    assert named >= NAMES


def test_only_the_beginning_of_a_message_is_read() -> None:
    assert code_of_error(status=400, code=None, kind=None, message="x" * 3000 + "prompt is too long") is None


TOO_LONG: Final = {
    "code": 400,
    "type": "BadRequestError",
    "message": "This model's maximum context length is 8 tokens.",
}
FAILED: Final = {"id": "r", "object": "response", "status": "failed", "output": [], "error": TOO_LONG}


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
@pytest.mark.parametrize(
    "steps",
    [
        [Raw(json.dumps({"type": "error", "status": 400, "error": TOO_LONG}))],
        [Created(), Raw(json.dumps({"type": "error", "error": TOO_LONG}))],
        [Created(), Event({"type": "response.failed", "response": FAILED})],
    ],
    ids=["refused", "an error amid it", "failed"],
)
async def test_an_error_that_says_it_otherwise(
    autojump_clock: MockClock, steps: list[Step], transport: engine.Transport
) -> None:
    async with session_to(Script([steps]), transport=transport) as (session, sim):
        with pytest.raises((engine.RequestRejected, engine.ResponseFailed)) as caught:
            await session.ask("hello")
        error = caught.value
        assert isinstance(error, engine.RequestRejected | engine.ResponseFailed)
        assert error.code == CONTEXT_TOO_LONG
        assert error.message == TOO_LONG["message"]
        assert len(sim.requests) == 1
