"""What messages and reasoning are made of: content parts, and the annotations on output text.

Shapes are those of the Responses API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire.base import JsonObject, StructureTable, WireField, WireObject, converter

__all__ = [
    "ANNOTATION_CLASSES",
    "PART_CLASSES",
    "Annotation",
    "ContainerFileCitation",
    "ContentPart",
    "EncryptedContent",
    "FileCitation",
    "FilePath",
    "InputAudio",
    "InputFile",
    "InputImage",
    "InputText",
    "OutputText",
    "PlainText",
    "ReasoningText",
    "RefusalPart",
    "Screenshot",
    "SummaryText",
    "UnknownAnnotation",
    "UnknownPart",
    "UrlCitation",
    "structure_annotation",
    "structure_part",
    "structure_parts",
]


@frozen(repr=False, eq=False)
class Annotation(WireObject):
    """Where a stretch of output text comes from."""


@frozen(repr=False, eq=False)
class FileCitation(Annotation):
    """A file that was searched. ``index`` is the file's position in the list of files."""

    file_id: str
    filename: ClassVar[WireField[str]] = WireField(str)
    index: ClassVar[WireField[int]] = WireField(int)


@frozen(repr=False, eq=False)
class UrlCitation(Annotation):
    """A web page. The indices bound the cited characters of the text."""

    url: str
    title: ClassVar[WireField[str]] = WireField(str)
    start_index: ClassVar[WireField[int]] = WireField(int)
    end_index: ClassVar[WireField[int]] = WireField(int)


@frozen(repr=False, eq=False)
class ContainerFileCitation(Annotation):
    """A file inside a code interpreter container. The indices bound the cited characters of the text."""

    container_id: str
    file_id: str
    filename: ClassVar[WireField[str]] = WireField(str)
    start_index: ClassVar[WireField[int]] = WireField(int)
    end_index: ClassVar[WireField[int]] = WireField(int)


@frozen(repr=False, eq=False)
class FilePath(Annotation):
    """A file the model produced. ``index`` is the file's position in the list of files."""

    file_id: str
    index: ClassVar[WireField[int]] = WireField(int)


@frozen(repr=False, eq=False)
class UnknownAnnotation(Annotation):
    """An annotation of a type, or in a shape, that this version does not know."""


ANNOTATION_CLASSES: Final[Mapping[str, type[Annotation]]] = {
    "file_citation": FileCitation,
    "url_citation": UrlCitation,
    "container_file_citation": ContainerFileCitation,
    "file_path": FilePath,
}

_annotations: Final = StructureTable(ANNOTATION_CLASSES, UnknownAnnotation)


def structure_annotation(raw: JsonObject) -> Annotation:
    """Give an annotation its class."""
    return _annotations(raw, raw.get("type"))


@frozen(repr=False, eq=False)
class ContentPart(WireObject):
    """One part of a message's or a reasoning item's content."""


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


@frozen(repr=False, eq=False)
class RefusalPart(ContentPart):
    """The model's explanation of why it declines."""

    refusal: str


@frozen(repr=False, eq=False)
class ReasoningText(ContentPart):
    """Reasoning in the model's own words."""

    text: str


@frozen(repr=False, eq=False)
class SummaryText(ContentPart):
    """One section of a reasoning summary."""

    text: str


@frozen(repr=False, eq=False)
class InputText(ContentPart):
    """Text given to the model."""

    text: str


@frozen(repr=False, eq=False)
class InputImage(ContentPart):
    """An image given to the model, by URL (``data:`` included) or by file id."""

    image_url: ClassVar[WireField[str]] = WireField(str)
    file_id: ClassVar[WireField[str]] = WireField(str)
    detail: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class InputFile(ContentPart):
    """A file given to the model, by id, by URL or as a ``data:`` URL."""

    file_id: ClassVar[WireField[str]] = WireField(str)
    file_data: ClassVar[WireField[str]] = WireField(str)
    file_url: ClassVar[WireField[str]] = WireField(str)
    filename: ClassVar[WireField[str]] = WireField(str)
    detail: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class InputAudio(ContentPart):
    """Audio given to the model: ``input_audio`` holds base64 ``data`` and its ``format``, ``mp3`` or ``wav``."""

    input_audio: JsonObject


@frozen(repr=False, eq=False)
class PlainText(ContentPart):
    """Text of no stated direction, as agents exchange it."""

    text: str


@frozen(repr=False, eq=False)
class Screenshot(ContentPart):
    """A picture of a computer's screen, by URL or by file id."""

    image_url: ClassVar[WireField[str]] = WireField(str)
    file_id: ClassVar[WireField[str]] = WireField(str)
    detail: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class EncryptedContent(ContentPart):
    """Content only the service can read; replay it unchanged."""

    encrypted_content: str


@frozen(repr=False, eq=False)
class UnknownPart(ContentPart):
    """A part of a type, or in a shape, that this version does not know."""


PART_CLASSES: Final[Mapping[str, type[ContentPart]]] = {
    "output_text": OutputText,
    "refusal": RefusalPart,
    "reasoning_text": ReasoningText,
    "summary_text": SummaryText,
    "input_text": InputText,
    "input_image": InputImage,
    "input_file": InputFile,
    "input_audio": InputAudio,
    "text": PlainText,
    "computer_screenshot": Screenshot,
    "encrypted_content": EncryptedContent,
}

_parts: Final = StructureTable(PART_CLASSES, UnknownPart)


def structure_part(raw: JsonObject) -> ContentPart:
    """Give a content part its class; text without a ``type`` is plain text."""
    wire_type = raw.get("type")
    return _parts(raw, "text" if wire_type is None and "text" in raw else wire_type)


def structure_parts(value: Any) -> tuple[ContentPart, ...]:
    """Structure a list of parts; strings in it are plain text, and what is neither contributes nothing."""
    if value.__class__ is not list:
        return ()
    parts = ({"type": "text", "text": raw} if raw.__class__ is str else raw for raw in value)
    return tuple(structure_part(raw) for raw in parts if raw.__class__ is dict)


def _objects(value: Any) -> list[JsonObject]:
    return [raw for raw in value if raw.__class__ is dict] if value.__class__ is list else []


def _structure_part_field(value: Any, _: Any) -> ContentPart:
    if value.__class__ is dict:
        return structure_part(value)
    raise TypeError("not a JSON object")


converter.register_structure_hook(ContentPart, _structure_part_field)
