"""Server events: what a server sends while it answers.

Names and shapes are those of the Responses API reference, for the SSE stream and for the WebSocket, where any event may
carry a ``stream_id``; events seen only in the wild say so. Events of the hosted tools are in `tool_events`.

Only members a client steers by are required and typed; the rest is read from ``raw`` when asked for.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from attrs import field, frozen

from engine.wire.base import JsonObject, StructureTable, WireField, WireIndex, WireObject, WireText, as_text
from engine.wire.items import Item
from engine.wire.parts import Annotation, ContentPart, structure_annotation
from engine.wire.response import ResponseObject, structure_response

__all__ = [
    "LIFECYCLE",
    "TERMINALS",
    "Chunks",
    "ContentEvent",
    "ContentPartAdded",
    "ContentPartDone",
    "CustomToolCallInputDelta",
    "CustomToolCallInputDone",
    "FunctionCallArgumentsDelta",
    "FunctionCallArgumentsDone",
    "LifecycleEvent",
    "OutputEvent",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputTextAnnotationAdded",
    "OutputTextDelta",
    "OutputTextDone",
    "ReasoningSummaryPartAdded",
    "ReasoningSummaryPartDone",
    "ReasoningSummaryTextDelta",
    "ReasoningSummaryTextDone",
    "ReasoningTextDelta",
    "ReasoningTextDone",
    "RefusalDelta",
    "RefusalDone",
    "ResponseCompleted",
    "ResponseCreated",
    "ResponseFailed",
    "ResponseInProgress",
    "ResponseIncomplete",
    "ResponseQueued",
    "ServerEvent",
    "SummaryEvent",
    "TerminalEvent",
    "UnknownEvent",
    "server_events",
]


@frozen(repr=False, eq=False)
class ServerEvent(WireObject):
    """Anything a server sends.

    Attributes:
        stream_id: The lane it belongs to; None on the default lane and on what belongs to the connection.
        sequence_number: Its place in its response's stream, from 0, with gaps allowed; None when the server left it
            out.
    """

    stream_id: ClassVar[WireField[str]] = WireField(str)
    sequence_number: ClassVar[WireField[int]] = WireField(int)

    @property
    def agent_name(self) -> str | None:
        """The agent the event belongs to (multi-agent beta)."""
        agent = self.raw.get("agent")
        name = agent.get("agent_name") if isinstance(agent, dict) else None
        return name if isinstance(name, str) else None


@frozen(repr=False, eq=False)
class UnknownEvent(ServerEvent):
    """An event of a type, or in a shape, that this version does not know. To be ignored, not to fail on."""


server_events: Final = StructureTable[ServerEvent](UnknownEvent)
"""The classes of the events that a server sends."""


@frozen(repr=False, eq=False)
class Chunks(ServerEvent):
    """Several events in one frame, as the ChatGPT back end has been seen to send; a terminal may be among them.

    Attributes:
        events: The events in order, batches within the batch flattened. Elements that are no events are left out.
    """

    events: tuple[ServerEvent, ...]


# --- One response's life


@frozen(repr=False, eq=False)
class LifecycleEvent(ServerEvent):
    """A change of the whole response."""

    response_object: JsonObject = field(alias="response")
    _structured: ResponseObject | None = field(init=False, default=None)

    @property
    def response(self) -> ResponseObject:
        """The response as of this event; structured on first access."""
        if self._structured is None:
            object.__setattr__(self, "_structured", structure_response(self.response_object))
        return self._structured  # type: ignore[return-value]

    @property
    def response_id(self) -> str | None:
        """The response's id, without structuring the rest."""
        value = self.response_object.get("id")
        return value if isinstance(value, str) else None


@server_events.of("response.queued")
@frozen(repr=False, eq=False)
class ResponseQueued(LifecycleEvent):
    """The response waits for its turn."""


@server_events.of("response.created")
@frozen(repr=False, eq=False)
class ResponseCreated(LifecycleEvent):
    """The server took the request on. After a steer this is the commit of the queued input."""


@server_events.of("response.in_progress")
@frozen(repr=False, eq=False)
class ResponseInProgress(LifecycleEvent):
    """The response is being generated."""


@frozen(repr=False, eq=False)
class TerminalEvent(LifecycleEvent):
    """The last event of a response; exactly one ends each."""


@server_events.of("response.completed", "response.done")
@frozen(repr=False, eq=False)
class ResponseCompleted(TerminalEvent):
    """The response is complete. Some back ends call it ``response.done``; ``type`` tells which it was."""


@server_events.of("response.failed")
@frozen(repr=False, eq=False)
class ResponseFailed(TerminalEvent):
    """The response failed; ``response.error`` says why."""


@server_events.of("response.incomplete")
@frozen(repr=False, eq=False)
class ResponseIncomplete(TerminalEvent):
    """The response was cut short: ``response.incomplete_reason`` says why."""


# --- Output


@frozen(repr=False, eq=False)
class OutputEvent(ServerEvent):
    """Something about one output item.

    Attributes:
        output_index: The item's position in the response's output; 0 where the event has none.
        item_id: The item's id, where the event has it.
    """

    output_index: ClassVar[WireIndex] = WireIndex()
    item_id: ClassVar[WireField[str]] = WireField(str)


@server_events.of("response.output_item.added")
@frozen(repr=False, eq=False)
class OutputItemAdded(OutputEvent):
    """An item begins.

    Attributes:
        item: The item so far; None where a server sends null, which is to be ignored.
    """

    item: Item | None


@server_events.of("response.output_item.done")
@frozen(repr=False, eq=False)
class OutputItemDone(OutputEvent):
    """An item is finished.

    Attributes:
        item: The whole item, authoritative over every delta before it.
    """

    item: Item | None


@frozen(repr=False, eq=False)
class ContentEvent(OutputEvent):
    """Something about one content part of an item.

    Attributes:
        content_index: The part's position in the item's content; 0 where the event has none.
    """

    content_index: ClassVar[WireIndex] = WireIndex()


@server_events.of("response.content_part.added")
@frozen(repr=False, eq=False)
class ContentPartAdded(ContentEvent):
    """A part begins: output text, a refusal or reasoning text."""

    part: ContentPart


@server_events.of("response.content_part.done")
@frozen(repr=False, eq=False)
class ContentPartDone(ContentEvent):
    """A part is finished; ``part`` is whole."""

    part: ContentPart


@server_events.of("response.output_text.delta")
@frozen(repr=False, eq=False)
class OutputTextDelta(ContentEvent):
    """More output text."""

    delta: str
    logprobs: ClassVar[WireField[list[Any]]] = WireField(list)


@server_events.of("response.output_text.done")
@frozen(repr=False, eq=False)
class OutputTextDone(ContentEvent):
    """The whole text of a part."""

    text: str
    logprobs: ClassVar[WireField[list[Any]]] = WireField(list)


@server_events.of("response.output_text.annotation.added")
@frozen(repr=False, eq=False)
class OutputTextAnnotationAdded(ContentEvent):
    """A citation in the text of a part.

    Attributes:
        annotation_index: The citation's position among the part's.
    """

    annotation_index: ClassVar[WireField[int]] = WireField(int)

    @property
    def annotation(self) -> Annotation | None:
        """The citation, where the event has it."""
        value = self.raw.get("annotation")
        return structure_annotation(value) if isinstance(value, dict) else None


@server_events.of("response.refusal.delta")
@frozen(repr=False, eq=False)
class RefusalDelta(ContentEvent):
    """More of a refusal."""

    delta: str


@server_events.of("response.refusal.done")
@frozen(repr=False, eq=False)
class RefusalDone(ContentEvent):
    """The whole refusal."""

    refusal: str


@server_events.of("response.reasoning_text.delta", "response.reasoning.delta")
@frozen(repr=False, eq=False)
class ReasoningTextDelta(ContentEvent):
    """More reasoning text. The shorter name is that of the Open Responses specification."""

    delta: str


@server_events.of("response.reasoning_text.done", "response.reasoning.done")
@frozen(repr=False, eq=False)
class ReasoningTextDone(ContentEvent):
    """The whole reasoning text of a part."""

    text: str


@frozen(repr=False, eq=False)
class SummaryEvent(OutputEvent):
    """Something about one section of a reasoning summary.

    Attributes:
        summary_index: The section's position in the item's summary; 0 where the event has none.
    """

    summary_index: ClassVar[WireIndex] = WireIndex()


@server_events.of("response.reasoning_summary_part.added")
@frozen(repr=False, eq=False)
class ReasoningSummaryPartAdded(SummaryEvent):
    """A section begins."""

    part: ContentPart


@server_events.of("response.reasoning_summary_part.done")
@frozen(repr=False, eq=False)
class ReasoningSummaryPartDone(SummaryEvent):
    """A section is finished; ``status`` is ``"incomplete"`` when it was interrupted, else absent."""

    part: ContentPart
    status: ClassVar[WireField[str]] = WireField(str)


@server_events.of("response.reasoning_summary_text.delta")
@frozen(repr=False, eq=False)
class ReasoningSummaryTextDelta(SummaryEvent):
    """More text of a section."""

    delta: str


@server_events.of("response.reasoning_summary_text.done")
@frozen(repr=False, eq=False)
class ReasoningSummaryTextDone(SummaryEvent):
    """The whole text of a section."""

    text: str


@server_events.of("response.function_call_arguments.delta")
@frozen(repr=False, eq=False)
class FunctionCallArgumentsDelta(OutputEvent):
    """More of a call's arguments, a piece of JSON text."""

    delta: str


@server_events.of("response.function_call_arguments.done")
@frozen(repr=False, eq=False)
class FunctionCallArgumentsDone(OutputEvent):
    """A call's whole arguments.

    Attributes:
        name: The function's name, where the event has it; the item has it too, with the call's id.
        call_id: The call's id, where a server sends it here.
    """

    name: ClassVar[WireText] = WireText()
    call_id: ClassVar[WireText] = WireText()

    @property
    def arguments(self) -> str:
        """The arguments as JSON text, that of an object which some servers send in its place included."""
        return as_text(self.raw.get("arguments"))


@server_events.of("response.custom_tool_call_input.delta")
@frozen(repr=False, eq=False)
class CustomToolCallInputDelta(OutputEvent):
    """More of a custom tool's input."""

    delta: str


@server_events.of("response.custom_tool_call_input.done")
@frozen(repr=False, eq=False)
class CustomToolCallInputDone(OutputEvent):
    """A custom tool's whole input."""

    @property
    def input(self) -> str:
        """The text the model passes."""
        return as_text(self.raw.get("input"))


LIFECYCLE: Final = (
    ResponseQueued,
    ResponseCreated,
    ResponseInProgress,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
)
"""Classes of the events that carry a whole response."""

TERMINALS: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
"""Classes of the events that end a response. A request-scoped `ErrorEvent` ends a turn too, but has no response."""
