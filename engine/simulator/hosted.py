"""Steps that are a tool's work each: of tools that the service runs, and of those that it lets the client run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from . import wire
from .checks import a_mapping, a_text, mappings, one_of, optional
from .stage import Stage
from .step import Step
from .wire import Item

__all__ = [
    "ApplyPatch",
    "Audio",
    "CodeInterpreter",
    "Compaction",
    "Computer",
    "FileSearch",
    "ImageGeneration",
    "LocalShell",
    "McpApproval",
    "McpCall",
    "McpListTools",
    "Shell",
    "ShellOutput",
    "ToolSearch",
    "WebSearch",
]


def _texts(step: object, member: attrs.Attribute[Any], value: object) -> None:
    for part in value if isinstance(value, Sequence) and not isinstance(value, str) else (None,):
        a_text(step, member, part)


def _phases(tool: str, item: Item, *phases: str) -> list[dict[str, Any]]:
    return [{"type": f"response.{tool}.{phase}", "item_id": item["id"]} for phase in phases]


def _deltas(name: str, text: str, **where: Any) -> list[dict[str, Any]]:
    return [{"type": f"{name}.delta", **where, "delta": part} for part in wire.pieces(text)]


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _included(stage: Stage, what: str) -> bool:
    return what in (stage.asked.body.get("include") or ())


# --- run by the service ----------------------------------------------------------------------------------------------


@attrs.frozen
class WebSearch(Step):
    """A web search.

    Attributes:
        query: The words that are searched for.
        sources: Addresses; sent where the request includes ``web_search_call.action.sources``.
        action: Another action in place of the search: ``open_page`` or ``find_in_page``.
    """

    query: str = attrs.field(default="", validator=a_text)
    sources: Sequence[str] = attrs.field(default=(), validator=_texts)
    action: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(a_mapping))

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        action: dict[str, Any] = {"type": "search", "query": self.query, "queries": [self.query]}
        if _included(stage, "web_search_call.action.sources"):
            action["sources"] = [{"type": "url", "url": url} for url in self.sources]
        item = {"id": stage.ids.new("ws"), "type": "web_search_call", "status": "completed"}
        item["action"] = action if self.action is None else dict(self.action)  # type: ignore[assignment]
        await stage.whole_item(item, _phases("web_search_call", item, "in_progress", "searching", "completed"))


@attrs.frozen
class FileSearch(Step):
    """A search in files.

    Attributes:
        queries: The words that are searched for.
        results: The findings; sent where the request includes ``file_search_call.results``.
    """

    queries: Sequence[str] = attrs.field(default=(), validator=_texts)
    results: Sequence[Mapping[str, Any]] = attrs.field(default=(), validator=mappings)

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        item: Item = {"id": stage.ids.new("fs"), "type": "file_search_call", "status": "completed"}
        item["queries"] = list(self.queries)
        item["results"] = (
            [dict(each) for each in self.results] if _included(stage, "file_search_call.results") else None
        )
        await stage.whole_item(
            item, _phases("file_search_call", item, "in_progress", "searching", "completed"), results=None
        )


@attrs.frozen
class CodeInterpreter(Step):
    """Code that the service runs.

    Attributes:
        code: The code.
        logs: Its printed output; sent where the request includes ``code_interpreter_call.outputs``.
        container_id: The container that it ran in.
    """

    code: str = attrs.field(default="", validator=a_text)
    logs: str | None = attrs.field(default=None, validator=optional(a_text))
    container_id: str = attrs.field(default="cntr_simulated", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        item: Item = {"id": stage.ids.new("ci"), "type": "code_interpreter_call", "status": "completed"}
        item |= {"code": self.code, "container_id": self.container_id, "outputs": None}
        if self.logs is not None and _included(stage, "code_interpreter_call.outputs"):
            item["outputs"] = [{"type": "logs", "logs": self.logs}]
        tool, code = "code_interpreter_call", "response.code_interpreter_call_code"
        events = [
            *_phases(tool, item, "in_progress"),
            *_deltas(code, self.code, item_id=item["id"]),
            {"type": f"{code}.done", "item_id": item["id"], "code": self.code},
            *_phases(tool, item, "interpreting", "completed"),
        ]
        await stage.whole_item(item, events, code="", outputs=None)


@attrs.frozen
class ImageGeneration(Step):
    """A picture.

    Attributes:
        result: The picture in base64.
        partials: Unfinished ones before it.
        prompt: The prompt as the service worded it.
        failure: The message of an error in place of a picture.
    """

    result: str = attrs.field(default="", validator=a_text)
    partials: Sequence[str] = attrs.field(default=(), validator=_texts)
    prompt: str | None = attrs.field(default=None, validator=optional(a_text))
    failure: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        tool = "image_generation_call"
        item: Item = {"id": stage.ids.new("ig"), "type": tool, "status": "completed", "result": self.result}
        item |= {"revised_prompt": self.prompt, "output_format": "png", "size": "1024x1024", "quality": "low"}
        item |= {"background": "opaque", "action": "generate"}
        last = ["completed"]
        if self.failure is not None:
            error = {"type": "server_error", "code": "server_error", "message": self.failure}
            item |= {"status": "failed", "result": None, "error": error}
            last = []
        pictures = [
            {"type": f"response.{tool}.partial_image", "item_id": item["id"], "partial_image_index": index,
             "partial_image_b64": picture, "output_format": "png", "size": "1024x1024", "quality": "low",
             "background": "opaque"}
            for index, picture in enumerate(self.partials)
        ]  # fmt: skip
        events = [*_phases(tool, item, "in_progress", "generating"), *pictures, *_phases(tool, item, *last)]
        await stage.whole_item(item, events, result=None)


@attrs.frozen
class McpListTools(Step):
    """The tools of an MCP server.

    Attributes:
        server_label: The server.
        tools: Its tools: ``name``, ``input_schema`` and the rest.
        failure: The reason for there being no list.
    """

    server_label: str = attrs.field(default="server", validator=a_text)
    tools: Sequence[Mapping[str, Any]] = attrs.field(default=(), validator=mappings)
    failure: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        item: Item = {"id": stage.ids.new("mcpl"), "type": "mcp_list_tools", "server_label": self.server_label}
        item |= {"tools": [{"annotations": None, "description": None} | dict(tool) for tool in self.tools]}
        item["error"] = self.failure
        last = "completed" if self.failure is None else "failed"
        await stage.whole_item(item, _phases("mcp_list_tools", item, "in_progress", last), tools=[], error=None)


@attrs.frozen
class McpCall(Step):
    """A call of an MCP server's tool, by the service.

    Attributes:
        name: The tool.
        arguments: JSON text, or a value that is written as JSON.
        output: Its result.
        server_label: The server.
        failure: The reason for there being no result.
        approval_request_id: The request that the client approved.
    """

    name: str = attrs.field(validator=a_text)
    arguments: str | Mapping[str, Any] = attrs.field(factory=dict)
    output: str | None = attrs.field(default=None, validator=optional(a_text))
    server_label: str = attrs.field(default="server", validator=a_text)
    failure: str | None = attrs.field(default=None, validator=optional(a_text))
    approval_request_id: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item and what happens in it."""
        arguments = _json(self.arguments)
        item: Item = {"id": stage.ids.new("mcp"), "type": "mcp_call", "status": "completed", "name": self.name}
        item |= {"server_label": self.server_label, "arguments": arguments, "output": self.output, "error": None}
        item["approval_request_id"] = self.approval_request_id
        if self.failure is not None:
            item |= {"status": "failed", "output": None}
            item["error"] = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": self.failure}]}
        name = "response.mcp_call_arguments"
        events = [
            *_phases("mcp_call", item, "in_progress"),
            *_deltas(name, arguments, item_id=item["id"]),
            {"type": f"{name}.done", "item_id": item["id"], "arguments": arguments},
            *_phases("mcp_call", item, "completed" if self.failure is None else "failed"),
        ]
        await stage.whole_item(item, events, arguments="", output=None, error=None)


@attrs.frozen
class Compaction(Step):
    """A summary that stands for what came before.

    Attributes:
        encrypted_content: The opaque body; None lets the server make one.
    """

    encrypted_content: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item, and that it is being made."""
        item: Item = {"id": stage.ids.new("cmp"), "type": "compaction"}
        item["encrypted_content"] = self.encrypted_content or stage.ids.opaque(stage.asked.last_user_text)
        event = {"type": "response.compaction.compacting", "item_id": item["id"]}
        await stage.whole_item(item, [event], encrypted_content="")


@attrs.frozen
class Audio(Step):
    """Speech, which belongs to no item.

    Attributes:
        chunks: Its pieces in base64.
        transcript: The words that it says.
    """

    chunks: Sequence[str] = attrs.field(default=(), validator=_texts)
    transcript: str = attrs.field(default="", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send the pieces, then the text."""
        await stage.begin()
        for chunk in self.chunks:
            await stage.emit("response.audio.delta", delta=chunk)
        await stage.emit("response.audio.done")
        for part in wire.pieces(self.transcript):
            await stage.emit("response.audio.transcript.delta", delta=part)
        await stage.emit("response.audio.transcript.done")


# --- run by the client -----------------------------------------------------------------------------------------------


@attrs.frozen
class Shell(Step):
    """Commands for a shell; the client's to run unless they run in a container.

    Attributes:
        commands: The commands.
        call_id: None lets the server make one.
        timeout_ms: The most milliseconds that they may take.
        container_id: The service's container that runs them; None leaves them to the client. Follow with `ShellOutput`.
    """

    commands: Sequence[str] = attrs.field(validator=_texts)
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))
    timeout_ms: int | None = None
    container_id: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item, and its commands as they are written."""
        environment = {"type": "local"}
        if self.container_id is not None:
            environment = {"type": "container_reference", "container_id": self.container_id}
        item: Item = {"id": stage.ids.new("sh"), "type": "shell_call", "status": "completed"}
        action = {"commands": list(self.commands), "timeout_ms": self.timeout_ms, "max_output_length": None}
        item |= {"call_id": self.call_id or stage.ids.new("call"), "action": action, "environment": environment}
        await stage.whole_item(item, list(self._writing()), action=action | {"commands": []})

    def _writing(self) -> Iterable[dict[str, Any]]:
        name = "response.shell_call_command"
        for index, command in enumerate(self.commands):
            yield {"type": f"{name}.added", "command_index": index, "command": ""}
            yield from _deltas(name, command, command_index=index)
            yield {"type": f"{name}.done", "command_index": index, "command": command}


@attrs.frozen
class ShellOutput(Step):
    """The output of the service's container.

    Attributes:
        call_id: The call.
        stdout: Its output.
        stderr: Its errors.
        exit_code: The exit code; None for a time-out.
    """

    call_id: str = attrs.field(validator=a_text)
    stdout: str = attrs.field(default="", validator=a_text)
    stderr: str = attrs.field(default="", validator=a_text)
    exit_code: int | None = 0

    async def perform(self, stage: Stage) -> None:
        """Send the item, and its text as it is printed."""
        outcome = {"type": "timeout"} if self.exit_code is None else {"type": "exit", "exit_code": self.exit_code}
        output = [{"stdout": self.stdout, "stderr": self.stderr, "outcome": outcome}]
        item: Item = {"id": stage.ids.new("sho"), "type": "shell_call_output", "status": "completed"}
        item |= {"call_id": self.call_id, "output": output, "max_output_length": None}
        where = {"item_id": item["id"], "command_index": 0}
        name = "response.shell_call_output_content"
        printed = [(stream, text) for stream, text in (("stdout", self.stdout), ("stderr", self.stderr)) if text]
        events = [{"type": f"{name}.delta", **where, "delta": {stream: text}} for stream, text in printed]
        await stage.whole_item(item, [*events, {"type": f"{name}.done", **where, "output": output}], output=[])


@attrs.frozen
class LocalShell(Step):
    """A command for the client's shell, in the older form."""

    command: Sequence[str] = attrs.field(validator=_texts)
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        action = {"type": "exec", "command": list(self.command), "env": {}}
        await _call(stage, "lsh", "local_shell_call", self.call_id, action=action)


@attrs.frozen
class ApplyPatch(Step):
    """A change of a file that the client makes.

    Attributes:
        path: The file.
        diff: The change; not for ``delete_file``.
        type: ``create_file``, ``update_file`` or ``delete_file``.
        call_id: None lets the server make one.
    """

    path: str = attrs.field(validator=a_text)
    diff: str | None = attrs.field(default=None, validator=optional(a_text))
    type: str = attrs.field(
        default="update_file", validator=one_of("create_file", "update_file", "delete_file"), kw_only=True
    )
    call_id: str | None = attrs.field(default=None, validator=optional(a_text), kw_only=True)

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        operation = {"type": self.type, "path": self.path}
        if self.type != "delete_file":
            operation["diff"] = self.diff or ""
        await _call(stage, "apc", "apply_patch_call", self.call_id, operation=operation)


@attrs.frozen
class Computer(Step):
    """An action of the client with its screen, keyboard and pointer.

    Attributes:
        action: The action, such as ``{"type": "click", "button": "left", "x": 1, "y": 2}``.
        call_id: None lets the server make one.
        pending_safety_checks: The checks that the client must acknowledge.
    """

    action: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "screenshot"}, validator=a_mapping)
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))
    pending_safety_checks: Sequence[Mapping[str, Any]] = attrs.field(default=(), validator=mappings)

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        checks = [dict(check) for check in self.pending_safety_checks]
        await _call(stage, "cu", "computer_call", self.call_id, action=dict(self.action), pending_safety_checks=checks)


@attrs.frozen
class ToolSearch(Step):
    """A search for tools, by the client or by the service."""

    arguments: Mapping[str, Any] = attrs.field(factory=dict, validator=a_mapping)
    execution: str = attrs.field(default="client", validator=one_of("client", "server"))
    call_id: str | None = attrs.field(default=None, validator=optional(a_text))

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        given = {"arguments": dict(self.arguments), "execution": self.execution}
        await _call(stage, "ts", "tool_search_call", self.call_id, **given)


@attrs.frozen
class McpApproval(Step):
    """A request to let an MCP server's tool be called."""

    name: str = attrs.field(validator=a_text)
    arguments: str | Mapping[str, Any] = attrs.field(factory=dict)
    server_label: str = attrs.field(default="server", validator=a_text)

    async def perform(self, stage: Stage) -> None:
        """Send the item."""
        item: Item = {"id": stage.ids.new("mcpr"), "type": "mcp_approval_request", "name": self.name}
        await stage.whole_item(item | {"server_label": self.server_label, "arguments": _json(self.arguments)})


async def _call(stage: Stage, prefix: str, kind: str, call_id: str | None, **members: Any) -> None:
    item: Item = {"id": stage.ids.new(prefix), "type": kind, "status": "completed"}
    await stage.whole_item(item | {"call_id": call_id or stage.ids.new("call")} | members)
