"""The blocks of messages: texts, thoughts, calls, refusals, images, files, and items without a class of their own.

Plain frozen values. Their reprs give sizes and never contents, so a traceback or a log line cannot leak a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from os.path import basename
from typing import Any, TypeAlias

from attrs import field, frozen

from engine.values.calls import CALL_KINDS, CallKind, client_item
from engine.values.checks import listed, mapping, name, one_of, optional, string
from engine.values.media import data_url, file_type, image_type, read_bytes
from engine.values.problems import ConfigurationError
from engine.values.shown import size_only

__all__ = [
    "AssistantBlock",
    "File",
    "Image",
    "OutputItem",
    "Refusal",
    "Text",
    "Thinking",
    "ToolCall",
    "UserBlock",
]


def _annotations(given: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return listed(given, "text annotations", "mappings")


def _logprobs(given: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return listed(given, "text logprobs", "mappings")


@frozen
class Text:
    """A piece of text.

    Attributes:
        text: The text itself.
        phase: ``"commentary"`` or ``"final_answer"`` where the model said which; replay it unchanged.
        item_id: The server's id of the message item it came in.
        annotations: Citations as the server sent them.
        logprobs: One object per token, where they were asked for.
        extra: That item's other fields, under their wire names (``agent``, …); sent back unchanged.
    """

    text: str = field(repr=size_only, validator=string)
    phase: str | None = None
    item_id: str | None = None
    annotations: tuple[Mapping[str, Any], ...] = field(default=(), converter=_annotations, repr=size_only)
    logprobs: tuple[Mapping[str, Any], ...] = field(default=(), converter=_logprobs, kw_only=True, repr=size_only)
    extra: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False, repr=size_only, validator=mapping)


@frozen
class Thinking:
    """The part of its reasoning that the model disclosed.

    Attributes:
        text: The summary, or the reasoning text where the server sends that instead.
        signature: JSON text of what a replay needs: the item's type, its id when it starts with ``rs_``, summary and
            encrypted content. None when it cannot be replayed.
        extra: The item's other fields, under their wire names (``agent``, …); sent back unchanged.
    """

    text: str = field(repr=size_only, validator=string)
    signature: str | None = field(default=None, repr=size_only, validator=optional(string))
    extra: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False, repr=size_only, validator=mapping)


@frozen
class ToolCall:
    """The model asks for a tool to be run.

    Attributes:
        id: ``call_id|item_id``, or the call id alone when the item had no id.
        name: The tool's name.
        arguments: The parsed arguments; empty when they are not a JSON object or the tool takes free text.
        raw_arguments: The arguments exactly as the model wrote them: JSON text, or a custom tool's free text. Where a
            call made by hand has none, `arguments` are sent.
        kind: ``"function"`` or ``"custom"``; of the calls in `AssistantMessage.unanswered` also ``"shell"``,
            ``"local_shell"``, ``"apply_patch"``, ``"computer"``, ``"mcp_approval"`` and ``"tool_search"``.
        extra: The item's other fields, under their wire names (``namespace``, ``caller``, …); sent back unchanged.
    """

    id: str = field(validator=name)
    name: str = field(validator=name)
    arguments: Mapping[str, Any] = field(factory=dict, repr=size_only, validator=mapping)
    raw_arguments: str = field(default="", repr=size_only, validator=string)
    kind: CallKind = field(default="function", validator=one_of(*CALL_KINDS))
    extra: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False, repr=size_only, validator=mapping)

    def __attrs_post_init__(self) -> None:
        if not self.call_id.strip():
            raise ConfigurationError("ToolCall.id", "has no call id before the |")

    @property
    def call_id(self) -> str:
        """The part of the id that pairs a call with its output."""
        return self.id.partition("|")[0]

    @property
    def item_id(self) -> str | None:
        """The server's id of the item, None when it had none."""
        return self.id.partition("|")[2] or None


@frozen
class Refusal:
    """The model declines, in its own words.

    Attributes:
        refusal: Those words.
        item_id: The server's id of the message item it came in.
        phase: Of that message, where the model said one; replay it unchanged.
        extra: That item's other fields, under their wire names (``agent``, …); sent back unchanged.
    """

    refusal: str = field(repr=size_only, validator=string)
    item_id: str | None = None
    phase: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False, repr=size_only, validator=mapping)


@frozen
class OutputItem:
    """An output item that has no block of its own (hosted tools, compaction, …), kept whole so it can be replayed.

    Attributes:
        item: The item as the server sent it.
    """

    item: Mapping[str, Any] = field(repr=size_only, validator=mapping)

    @property
    def type(self) -> str:
        """The item's wire type, for example ``"web_search_call"``."""
        return str(self.item.get("type", ""))

    @property
    def call(self) -> ToolCall | None:
        """The item as a call that the caller answers; None where it is none."""
        asked = client_item(self.item)
        return ToolCall(asked.call_id, asked.kind, asked.arguments, kind=asked.kind) if asked is not None else None


@frozen
class Image:
    """An image for the model to look at. Give exactly one of ``url`` and ``file_id``.

    Attributes:
        url: An https URL, or a ``data:`` URL holding the image itself.
        file_id: The id of an uploaded file.
        detail: ``"low"``, ``"high"``, ``"auto"`` or ``"original"``.
    """

    url: str | None = field(default=None, repr=size_only, validator=optional(name))
    file_id: str | None = field(default=None, validator=optional(name))
    detail: str = field(default="auto", validator=name)

    def __attrs_post_init__(self) -> None:
        if (self.url is None) == (self.file_id is None):
            raise ConfigurationError("image", "give exactly one of url and file_id")

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str | None = None, *, detail: str = "auto") -> Image:
        """Make an image of the bytes of a file.

        Args:
            data: The file's bytes: PNG, JPEG, GIF or WebP, as far as servers go.
            media_type: Such as ``"image/png"``; told from the bytes where it is not given.
            detail: See `Image`.

        Raises:
            ConfigurationError: there are no bytes, or they are of no kind that is known here.
        """
        return cls(data_url(data, media_type or image_type(data, "image"), "image"), detail=detail)

    @classmethod
    def from_path(cls, path: str | PathLike[str], media_type: str | None = None, *, detail: str = "auto") -> Image:
        """Make an image of a file, which is read at once and in this thread.

        Raises:
            ConfigurationError: see `from_bytes`.
            OSError: the file cannot be read.
        """
        return cls.from_bytes(read_bytes(path), media_type, detail=detail)


@frozen
class File:
    """A document for the model to read. Give exactly one of ``file_id``, ``url`` and ``data``.

    Attributes:
        file_id: The id of an uploaded file.
        url: The address that the server can fetch it from.
        data: The file itself as a ``data:`` URL.
        filename: Its name; the server wants one with ``data``.
    """

    file_id: str | None = field(default=None, validator=optional(name))
    url: str | None = field(default=None, repr=size_only, validator=optional(name))
    data: str | None = field(default=None, repr=size_only, validator=optional(name))
    filename: str | None = field(default=None, repr=size_only, validator=optional(name))

    def __attrs_post_init__(self) -> None:
        if sum(source is not None for source in (self.file_id, self.url, self.data)) != 1:
            raise ConfigurationError("file", "give exactly one of file_id, url and data")

    @classmethod
    def from_bytes(cls, data: bytes, filename: str, media_type: str | None = None) -> File:
        """Make a document of the bytes of a file.

        Args:
            data: The file's bytes.
            filename: Its name, which servers want; the last part of a path is enough.
            media_type: Such as ``"application/pdf"``; told from the name where it is not given.

        Raises:
            ConfigurationError: there are no bytes, or there is no name.
        """
        return cls(data=data_url(data, media_type or file_type(filename, "file"), "file"), filename=filename)

    @classmethod
    def from_path(cls, path: str | PathLike[str], media_type: str | None = None) -> File:
        """Make a document of a file, which is read at once and in this thread.

        Raises:
            ConfigurationError: see `from_bytes`.
            OSError: the file cannot be read.
        """
        return cls.from_bytes(read_bytes(path), basename(path), media_type)


AssistantBlock: TypeAlias = Text | Thinking | ToolCall | Refusal | OutputItem
UserBlock: TypeAlias = Text | Image | File
