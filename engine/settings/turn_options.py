"""The options of a request to the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from attrs import Attribute, field, frozen

from engine.schemas.answer_format import wire_format
from engine.values.checks import (
    flag,
    function,
    mapping,
    name,
    number,
    optional,
    place,
    sequence_of,
    string_pairs,
    whole,
    wrong_type,
)
from engine.values.problems import ConfigurationError
from engine.values.shown import changed_only

__all__ = ["PayloadHook", "TurnOptions"]

PayloadHook: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any] | None] | None]

_OWN_FIELDS: Final = frozenset({"type", "stream_id", "input", "model", "previous_response_id", "stream", "generate"})


def _reference(instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, Mapping):
        mapping(instance, attribute, value)
    elif isinstance(value, str):
        name(instance, attribute, value)
    else:
        raise wrong_type(place(instance, attribute), value, "a string or a mapping")


def _format(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, Mapping):
        mapping(instance, attribute, value)
    else:
        wire_format(value)  # what has no schema is best said before a connection is made


@frozen(kw_only=True)
class TurnOptions:
    """The options of one request to the model. A field left at None is not sent at all, never as null.

    Attributes:
        model: Instead of the session's model.
        temperature: Sampling temperature.
        top_p: Nucleus sampling.
        max_output_tokens: Upper bound of the answer, reasoning included; 0 is sent as 0.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, the name of an offered function, or the wire's own object.
        parallel_tool_calls: Whether one response may hold several tool calls.
        reasoning_effort: Sent as ``reasoning.effort``.
        reasoning_summary: Sent as ``reasoning.summary``.
        text_verbosity: Sent as ``text.verbosity``.
        text_format: The form of the answer: an attrs class, a dataclass or a TypedDict, of which `AssistantMessage`
            then holds one as ``parsed``; a JSON schema; or the wire's own ``text.format`` object.
        store: Whether the server keeps the response. Sent as false unless set; None leaves it to the server.
        include: Further parts of the response to include.
        service_tier: The tier that serves the request.
        truncation: The server's way with an input that is too long.
        metadata: Up to 16 pairs of strings kept with the response.
        prompt_cache_key: Helps the server's prompt cache find its entry.
        safety_identifier: A stable, opaque id of the end user.
        context_management: The wire's own list, for example to let the server compact the context.
        conversation: The id of a conversation that the server keeps (or the wire's own object): the request continues
            it, and only what is new is sent.
        previous_response_id: A response that the server keeps and this request continues; only what is new is sent.
        warm_up: Whether a fresh connection is first told model, instructions and tools, so that the server can
            prepare. Once per connection; a failure is ignored and costs the turn `Timeouts.warm_up` at most.
        extra: Any other request field, under its wire name; passed through as given.
        payload_hook: Called once with the full request body, in the caller's task, before anything is sent; it may
            change the body or return another. May be async.
    """

    _section: ClassVar[str] = "options"

    model: str | None = field(default=None, validator=optional(name))
    temperature: float | None = field(default=None, validator=optional(number))
    top_p: float | None = field(default=None, validator=optional(number))
    max_output_tokens: int | None = field(default=None, validator=optional(whole(0)))
    tool_choice: str | Mapping[str, Any] | None = field(default=None, validator=optional(_reference), repr=False)
    parallel_tool_calls: bool | None = field(default=None, validator=optional(flag))
    reasoning_effort: str | None = field(default=None, validator=optional(name))
    reasoning_summary: str | None = field(default=None, validator=optional(name))
    text_verbosity: str | None = field(default=None, validator=optional(name))
    text_format: Mapping[str, Any] | type | None = field(default=None, validator=optional(_format), repr=False)
    store: bool | None = field(default=False, validator=optional(flag))
    include: Sequence[str] | None = field(default=None, validator=optional(sequence_of(str, "string")))
    service_tier: str | None = field(default=None, validator=optional(name))
    truncation: str | None = field(default=None, validator=optional(name))
    metadata: Mapping[str, str] | None = field(default=None, validator=optional(string_pairs), repr=False)
    prompt_cache_key: str | None = field(default=None, validator=optional(name), repr=False)
    safety_identifier: str | None = field(default=None, validator=optional(name), repr=False)
    context_management: Sequence[Mapping[str, Any]] | None = field(
        default=None, validator=optional(sequence_of(Mapping, "mapping")), repr=False
    )
    conversation: str | Mapping[str, Any] | None = field(default=None, validator=optional(_reference), repr=False)
    previous_response_id: str | None = field(default=None, validator=optional(name))
    warm_up: bool = field(default=False, validator=flag)
    extra: Mapping[str, Any] = field(factory=dict, validator=mapping, repr=False)
    payload_hook: PayloadHook | None = field(default=None, validator=optional(function), repr=False)

    def __repr__(self) -> str:
        return changed_only(self)

    def __attrs_post_init__(self) -> None:
        if self.conversation is not None and self.previous_response_id is not None:
            raise ConfigurationError("options.conversation", "excludes previous_response_id")
        for key in self.extra:
            if key in _OWN_FIELDS:
                raise ConfigurationError(f"options.extra[{key!r}]", "is set by the library or by another option")
