"""Server events of the hosted tools and of audio.

Names and shapes are those of the Responses API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import frozen

from engine.wire.base import JsonObject, WireField
from engine.wire.events import OutputEvent, ServerEvent

__all__ = [
    "TOOL_EVENT_CLASSES",
    "AudioDelta",
    "AudioDone",
    "AudioTranscriptDelta",
    "AudioTranscriptDone",
    "CodeInterpreterCallCodeDelta",
    "CodeInterpreterCallCodeDone",
    "CodeInterpreterCallProgress",
    "FileSearchCallProgress",
    "ImageGenerationCallPartialImage",
    "ImageGenerationCallProgress",
    "McpCallArgumentsDelta",
    "McpCallArgumentsDone",
    "McpCallProgress",
    "McpListToolsProgress",
    "ShellCallCommandAdded",
    "ShellCallCommandDelta",
    "ShellCallCommandDone",
    "ShellCallOutputContentDelta",
    "ShellCallOutputContentDone",
    "ShellEvent",
    "ToolProgress",
    "WebSearchCallProgress",
]


@frozen(repr=False, eq=False)
class ToolProgress(OutputEvent):
    """A hosted tool entered another phase; there is one class per tool, and ``phase`` tells its types apart."""

    @property
    def phase(self) -> str:
        """The last word of the type: ``in_progress``, ``completed``, ``failed``, or one of the tool's own."""
        return self.type.rpartition(".")[2]


@frozen(repr=False, eq=False)
class WebSearchCallProgress(ToolProgress):
    """A web search; its own phase is ``searching``."""


@frozen(repr=False, eq=False)
class FileSearchCallProgress(ToolProgress):
    """A file search; its own phase is ``searching``."""


@frozen(repr=False, eq=False)
class CodeInterpreterCallProgress(ToolProgress):
    """Code in a container; its own phase is ``interpreting``."""


@frozen(repr=False, eq=False)
class ImageGenerationCallProgress(ToolProgress):
    """An image; its own phase is ``generating``."""


@frozen(repr=False, eq=False)
class McpListToolsProgress(ToolProgress):
    """An MCP server is asked for its tools."""


@frozen(repr=False, eq=False)
class McpCallProgress(ToolProgress):
    """A tool on an MCP server is called."""


@frozen(repr=False, eq=False)
class CodeInterpreterCallCodeDelta(OutputEvent):
    """More of the code."""

    delta: str


@frozen(repr=False, eq=False)
class CodeInterpreterCallCodeDone(OutputEvent):
    """The whole code."""

    code: str


@frozen(repr=False, eq=False)
class ImageGenerationCallPartialImage(OutputEvent):
    """A preview of the image.

    Attributes:
        partial_image_b64: The preview, base64.
        partial_image_index: Its position among the previews, from 0.
    """

    partial_image_b64: str
    partial_image_index: ClassVar[WireField[int]] = WireField(int)
    background: ClassVar[WireField[str]] = WireField(str)
    output_format: ClassVar[WireField[str]] = WireField(str)
    quality: ClassVar[WireField[str]] = WireField(str)
    size: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class McpCallArgumentsDelta(OutputEvent):
    """More of the arguments, a piece of JSON text."""

    delta: str


@frozen(repr=False, eq=False)
class McpCallArgumentsDone(OutputEvent):
    """The whole arguments as JSON text."""

    arguments: str


@frozen(repr=False, eq=False)
class ShellEvent(OutputEvent):
    """Something about one command of a shell call. Only the output events have an ``item_id``.

    Attributes:
        command_index: The command's position in the call.
    """

    command_index: int


@frozen(repr=False, eq=False)
class ShellCallCommandAdded(ShellEvent):
    """A command begins."""

    command: str


@frozen(repr=False, eq=False)
class ShellCallCommandDelta(ShellEvent):
    """More of a command."""

    delta: str


@frozen(repr=False, eq=False)
class ShellCallCommandDone(ShellEvent):
    """A whole command."""

    command: str


@frozen(repr=False, eq=False)
class ShellCallOutputContentDelta(ShellEvent):
    """More of what a command printed: ``stdout``, ``stderr`` or both."""

    delta: JsonObject


@frozen(repr=False, eq=False)
class ShellCallOutputContentDone(ShellEvent):
    """What a command printed, and how it ended: objects with ``stdout``, ``stderr`` and ``outcome``."""

    output: ClassVar[WireField[list[Any]]] = WireField(list)


@frozen(repr=False, eq=False)
class AudioDelta(ServerEvent):
    """More audio, base64."""

    delta: str
    response_id: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class AudioDone(ServerEvent):
    """The audio is complete."""

    response_id: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class AudioTranscriptDelta(ServerEvent):
    """More of the audio's transcript."""

    delta: str
    response_id: ClassVar[WireField[str]] = WireField(str)


@frozen(repr=False, eq=False)
class AudioTranscriptDone(ServerEvent):
    """The transcript is complete."""

    response_id: ClassVar[WireField[str]] = WireField(str)


TOOL_EVENT_CLASSES: Final[Mapping[str, type[ServerEvent]]] = {
    "response.web_search_call.in_progress": WebSearchCallProgress,
    "response.web_search_call.searching": WebSearchCallProgress,
    "response.web_search_call.completed": WebSearchCallProgress,
    "response.file_search_call.in_progress": FileSearchCallProgress,
    "response.file_search_call.searching": FileSearchCallProgress,
    "response.file_search_call.completed": FileSearchCallProgress,
    "response.code_interpreter_call.in_progress": CodeInterpreterCallProgress,
    "response.code_interpreter_call.interpreting": CodeInterpreterCallProgress,
    "response.code_interpreter_call.completed": CodeInterpreterCallProgress,
    "response.code_interpreter_call_code.delta": CodeInterpreterCallCodeDelta,
    "response.code_interpreter_call_code.done": CodeInterpreterCallCodeDone,
    "response.image_generation_call.in_progress": ImageGenerationCallProgress,
    "response.image_generation_call.generating": ImageGenerationCallProgress,
    "response.image_generation_call.completed": ImageGenerationCallProgress,
    "response.image_generation_call.partial_image": ImageGenerationCallPartialImage,
    "response.mcp_list_tools.in_progress": McpListToolsProgress,
    "response.mcp_list_tools.completed": McpListToolsProgress,
    "response.mcp_list_tools.failed": McpListToolsProgress,
    "response.mcp_call.in_progress": McpCallProgress,
    "response.mcp_call.completed": McpCallProgress,
    "response.mcp_call.failed": McpCallProgress,
    "response.mcp_call_arguments.delta": McpCallArgumentsDelta,
    "response.mcp_call_arguments.done": McpCallArgumentsDone,
    "response.shell_call_command.added": ShellCallCommandAdded,
    "response.shell_call_command.delta": ShellCallCommandDelta,
    "response.shell_call_command.done": ShellCallCommandDone,
    "response.shell_call_output_content.delta": ShellCallOutputContentDelta,
    "response.shell_call_output_content.done": ShellCallOutputContentDone,
    "response.audio.delta": AudioDelta,
    "response.audio.done": AudioDone,
    "response.audio.transcript.delta": AudioTranscriptDelta,
    "response.audio.transcript.done": AudioTranscriptDone,
}
"""The class of each event type of this module."""
