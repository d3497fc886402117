"""The parts of messages and reasoning: content parts, and the annotations on output text.

Shapes are those of the Responses API reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire.base import JsonObject, StructureTable, WireField, WireObject, converter, structurer

__all__ = [
    "Annotation",
    "ContentPart",
    "InputText",
    "OpaquePart",
    "OutputText",
    "PlainText",
    "ReasoningText",
    "RefusalPart",
    "SummaryText",
    "UnknownPart",
    "structure_annotation",
    "structure_part",
    "structure_parts",
]


@frozen(repr=False, eq=False)
class Annotation(WireObject):
    """The source of a stretch of output text; what it says is in ``raw``."""


structure_annotation: Final = structurer(Annotation)
"""Give an annotation its class."""


@frozen(repr=False, eq=False)
class ContentPart(WireObject):
    """One part of a message's or a reasoning item's content."""


@frozen(repr=False, eq=False)
class UnknownPart(ContentPart):
    """A part of a type, or in a shape, that this version does not know."""


parts: Final = StructureTable[ContentPart](UnknownPart)
"""The classes of content parts."""


@parts.of("output_text")
@frozen(repr=False, eq=False)
class OutputText(ContentPart):
    """Text the model wrote.

    Attributes:
        text: The text.
        logprobs: One object per token, when they were asked for.
    """

    text: str
    logprobs: ClassVar[WireField[list[Any]]] = WireField(list)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """The citations in the text, in order."""
        return tuple(structure_annotation(raw) for raw in _objects(self.raw.get("annotations")))


@parts.of("refusal")
@frozen(repr=False, eq=False)
class RefusalPart(ContentPart):
    """The model's explanation of why it declines."""

    refusal: str


@parts.of("reasoning_text")
@frozen(repr=False, eq=False)
class ReasoningText(ContentPart):
    """Reasoning in the model's own words."""

    text: str


@parts.of("summary_text")
@frozen(repr=False, eq=False)
class SummaryText(ContentPart):
    """One section of a reasoning summary."""

    text: str


@parts.of("input_text")
@frozen(repr=False, eq=False)
class InputText(ContentPart):
    """Text given to the model."""

    text: str


@parts.of("text")
@frozen(repr=False, eq=False)
class PlainText(ContentPart):
    """Text of no stated direction, as agents exchange it."""

    text: str


@parts.of("input_image", "input_file", "input_audio", "computer_screenshot", "encrypted_content")
@frozen(repr=False, eq=False)
class OpaquePart(ContentPart):
    """A part that is kept whole; what it holds is in ``raw``."""


def structure_part(raw: JsonObject) -> ContentPart:
    """Give a content part its class; text without a ``type`` is plain text."""
    wire_type = raw.get("type")
    return parts(raw, "text" if wire_type is None and "text" in raw else wire_type)


def structure_parts(value: Any) -> tuple[ContentPart, ...]:
    """Structure a list of parts; strings in it are plain text, and what is neither contributes nothing."""
    if value.__class__ is not list:
        return ()
    given = [{"type": "text", "text": raw} if raw.__class__ is str else raw for raw in value]
    return tuple([structure_part(raw) for raw in given if raw.__class__ is dict])


def _objects(value: Any) -> list[JsonObject]:
    return [raw for raw in value if raw.__class__ is dict] if value.__class__ is list else []


def _structure_part_field(value: Any, _: Any) -> ContentPart:
    if value.__class__ is dict:
        return structure_part(value)
    raise TypeError("not a JSON object")


converter.register_structure_hook(ContentPart, _structure_part_field)
