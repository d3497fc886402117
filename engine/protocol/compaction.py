"""Compaction on request: what is asked of the server, and what becomes of the conversation."""

from __future__ import annotations

from typing import Any, Final

from attrs import evolve

from engine.protocol.failures import Violated
from engine.protocol.request_body import create_body
from engine.settings.turn_options import TurnOptions
from engine.values.blocks import OutputItem
from engine.values.messages import AssistantMessage, Context
from engine.wire.codec import MalformedFrame, parse_object
from engine.wire.usage import usage_from

__all__ = ["compacted", "compaction_body"]

_FIELDS: Final = ("model", "instructions", "input", "prompt_cache_key", "service_tier")


def compaction_body(context: Context, options: TurnOptions, *, model: str | None) -> dict[str, Any]:
    """Return the body of a compaction request: what a create request would hold, as far as compaction knows it.

    Raises:
        ConfigurationError: no model is named, or something else in the context or the options is wrong.
    """
    body = create_body(context, options, model=model)
    return {name: body[name] for name in _FIELDS if name in body}


def compacted(context: Context, answer: bytes) -> Context | Violated:
    """Return the context with what the server made of its messages.

    The items go back as they came, ids and all: the server encrypted what it needs into them. The answer's own id
    names nothing that can be continued, so it is not kept.
    """
    try:
        raw = parse_object(answer.decode())
    except (MalformedFrame, UnicodeDecodeError):
        return Violated("the answer to the compaction is not a JSON object")
    output = raw.get("output")
    if not isinstance(output, list) or not output or not all(isinstance(item, dict) for item in output):
        return Violated("the answer to the compaction holds no output items")
    usage = raw.get("usage")
    blocks = tuple(OutputItem(item) for item in output)
    message = AssistantMessage(blocks, usage=usage_from(usage) if isinstance(usage, dict) else None)
    return evolve(context, messages=(message,))
