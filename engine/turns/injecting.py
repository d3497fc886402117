"""The outputs that a caller hands to a response which runs, in the form in which they are sent, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from engine.protocol.failures import Lost, RequestRefused, TooLarge, to_error
from engine.protocol.injections import Injection, InjectionState
from engine.protocol.request_body import input_items
from engine.settings.profiles import Profile
from engine.values.blocks import OutputItem
from engine.values.checks import wrong_type
from engine.values.choices import Delivery
from engine.values.messages import AssistantMessage, Message, ToolResult
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode

__all__ = ["InjectedResults", "came_of", "outputs_of"]

InjectedResults: TypeAlias = ToolResult | OutputItem | Iterable[ToolResult | OutputItem]


def outputs_of(
    given: Any, message: AssistantMessage | None, server: Profile, *, limit: int
) -> tuple[Mapping[str, Any], ...]:
    """Return the items of outputs.

    Args:
        given: The caller's outputs.
        message: The part of the answer that has come, with the calls.
        server: The kind of server that they go to.
        limit: The most bytes that they may have.

    Raises:
        ConfigurationError: the server takes none, something else was given, or it cannot be written as JSON.
        RequestTooLarge: they have more bytes than that.
    """
    if not server.multi_agent:
        raise ConfigurationError("profile", f"{server.name} has no beta of several agents: nothing can be injected")
    results: list[Message] = list((given,) if isinstance(given, ToolResult | OutputItem) else given)
    if not results:
        raise ConfigurationError("results", "is empty")
    for number, result in enumerate(results):
        if not isinstance(result, ToolResult | OutputItem):
            raise wrong_type(f"results[{number}]", result, "the output of a call")
    before: list[Message] = [message] if message is not None else []
    items = tuple(input_items([*before, *results], stored=False, skip=len(before)))
    size = sum(_size(item, f"results[{number}]") for number, item in enumerate(items))
    if size > limit:
        raise to_error(TooLarge(size, limit))
    return items


def _size(item: Mapping[str, Any], where: str) -> int:
    try:
        return len(encode(item).encode())
    except (TypeError, ValueError, RecursionError):
        pass  # whose text may show what was given
    raise ConfigurationError(where, "cannot be written as JSON")


def came_of(injection: Injection, *, error: Exception | None) -> bool:
    """Say whether the server took it; False where it came too late.

    Args:
        injection: The injection.
        error: The turn's error, if it has one.

    Raises:
        RequestRejected: the server did not take it, for another reason than that.
        TurnError: it is not known whether the server took it.
    """
    refusal = injection.refusal
    if injection.state is InjectionState.TAKEN:
        return True
    if (injection.target is None and error is None) or (
        refusal is not None and refusal.code == "response_already_completed"
    ):
        return False
    if refusal is not None:
        rejected = to_error(RequestRefused(None, refusal.code, None, None, refusal.message or ""))
        rejected.delivery = Delivery.REJECTED
        raise rejected
    if error is not None:
        raise error
    lost = to_error(Lost("the connection ended before the server had said whether it took the outputs"))
    lost.delivery = Delivery.AMBIGUOUS
    raise lost
