"""Server events of the hosted tools and of audio.

Nothing here looks into them: the item that a tool leaves has all that counts. They have a class so that a hook that is
shown events can tell what item each is about, and which step of the tool; the rest is in ``raw``, under the names of
the Responses API reference.
"""

from __future__ import annotations

from attrs import frozen

from engine.wire.events import OutputEvent, ServerEvent, server_events

__all__ = ["AudioEvent", "ToolEvent"]


@server_events.of(
    "response.web_search_call.in_progress",
    "response.web_search_call.searching",
    "response.web_search_call.completed",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.code_interpreter_call.in_progress",
    "response.code_interpreter_call.interpreting",
    "response.code_interpreter_call.completed",
    "response.code_interpreter_call_code.delta",
    "response.code_interpreter_call_code.done",
    "response.image_generation_call.in_progress",
    "response.image_generation_call.generating",
    "response.image_generation_call.completed",
    "response.image_generation_call.partial_image",
    "response.mcp_list_tools.in_progress",
    "response.mcp_list_tools.completed",
    "response.mcp_list_tools.failed",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.shell_call_command.added",
    "response.shell_call_command.delta",
    "response.shell_call_command.done",
    "response.shell_call_output_content.delta",
    "response.shell_call_output_content.done",
    "response.compaction.compacting",
)
@frozen(repr=False, eq=False)
class ToolEvent(OutputEvent):
    """A step of a hosted tool."""

    @property
    def phase(self) -> str:
        """The last word of the type: ``in_progress``, ``completed``, ``failed``, or one of the tool's own."""
        return self.type.rpartition(".")[2]


@server_events.of(
    "response.audio.delta", "response.audio.done", "response.audio.transcript.delta", "response.audio.transcript.done"
)
@frozen(repr=False, eq=False)
class AudioEvent(ServerEvent):
    """A part of the answer as sound, or of its transcript."""
