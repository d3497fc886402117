"""Responses that run whether or not a client listens, and the streams of responses that are over."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio

from . import wire
from .history import Held
from .stage import Stage, Surroundings
from .step import Step, perform
from .wire import ApiError, Item

if TYPE_CHECKING:
    from .records import RequestRecord
    from .requests import Asked

__all__ = ["Background", "retell"]


class Host(Surroundings, Protocol):
    """The needs of such a response, which the server meets."""

    async def steps_for(self, asked: Asked) -> list[Step]:
        """Return what the brain answers."""

    def remember(self, stage: Stage, held: Held) -> None:
        """Take a finished response."""


class Background:
    """A response made with ``background: true``: runs by itself, and remembers its events.

    Attributes:
        stage: The response.
        over: Whether nothing more comes.
        broken: Whether a step of its script ended the connection of those who listen.
    """

    def __init__(self, world: Host, record: RequestRecord, asked: Asked) -> None:
        self.stage: Stage = Stage(asked, self, record, world=world, keep=self._keep)
        self.over: bool = False
        self.broken: bool = False
        self._world = world
        self._record = record
        self._events: list[str] = []  # as text, since items go on changing after they were sent
        self._final: dict[str, Any] | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Produce the response."""
        try:
            with self._scope:
                await self.stage.queued()
                await perform(self.stage, await self._world.steps_for(self.stage.asked))
            if self._final is None:
                self._end("failed", {"code": "server_error", "message": "The response ended without a result."})
        finally:
            self.over = True
            self._news.unpark_all()

    @property
    def response(self) -> dict[str, Any]:
        """The Response as it stands."""
        if self._final is not None:
            return self._final
        return self.stage.snapshot("in_progress" if self.stage.begun else "queued")

    def cancel(self) -> None:
        """Stop; a response that is over stays as it is."""
        if self._final is None:
            self._end("cancelled")
            self._record.status = "cancelled"
            self._scope.cancel(reason="cancelled by the client")

    async def since(self, position: int) -> list[dict[str, Any]]:
        """Wait for events beyond a position; none any more once it is over. Cancellation changes nothing."""
        while len(self._events) <= position and not self.over:
            await self._news.park()
        return [json.loads(text) for text in self._events[position:]]

    def _end(self, status: str, error: Mapping[str, Any] | None = None) -> None:
        final = self.stage.snapshot(status) | {"usage": self.stage.usage()}
        final["error"] = None if error is None else dict(error)
        asked = self.stage.asked
        held = Held(self.stage.response_id, (*asked.items, *self.stage.output), final, True, asked.new_input)
        self._final = final
        self._world.remember(self.stage, held)

    def _keep(self, stage: Stage, held: Held | None) -> None:
        if held is not None:
            self._world.remember(stage, held)

    # --- outlet ---

    @property
    def silent(self) -> bool:
        """Whether events go nowhere."""
        return False

    async def event(self, event: dict[str, Any]) -> None:
        """Remember one event."""
        if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
            self._final = event["response"]
        elif event.get("type") == "error":
            self._end("failed", {name: event["error"].get(name) for name in ("code", "message")})
        self._events.append(wire.dumps(event))
        self._news.unpark_all()
        await trio.lowlevel.checkpoint()

    async def reject(self, error: ApiError) -> None:
        """Fail: what refuses other requests comes too late for this one."""
        self._end("failed", {"code": error.code, "message": error.message})
        await self.stage.emit("response.failed", response=self._final)

    async def frame(self, payload: str | bytes) -> None:
        """Do nothing: no client need be listening."""
        await trio.lowlevel.checkpoint()

    async def cut(self, payload: str, fraction: float) -> None:
        """End the connections of those who listen, and the response."""
        await self.abort(reset=False)

    async def close(self, code: int, reason: str) -> None:
        """End the connections of those who listen, and the response."""
        await self.abort(reset=False)

    async def abort(self, *, reset: bool) -> None:
        """End the connections of those who listen, and the response."""
        self.broken = True
        self._scope.cancel(reason="the script drops the connection")
        await trio.sleep_forever()

    async def comment(self, text: str) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()

    async def ping(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()

    async def mute(self, *, frozen: bool) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()

    def deafen(self) -> None:
        """Do nothing."""

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do nothing."""


# --- the stream of a response that is over ---------------------------------------------------------------------------


def retell(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a finished response, each text in one delta."""
    opening = dict(response) | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    opening |= {"error": None, "incomplete_details": None}
    events = (
        {"type": "response.created", "response": opening},
        {"type": "response.in_progress", "response": opening},
        *(event for index, item in enumerate(response["output"]) for event in _item(index, item)),
        {"type": f"response.{_TERMINALS.get(response['status'], 'incomplete')}", "response": dict(response)},
    )
    for number, event in enumerate(events):
        yield {"type": event["type"], "sequence_number": number} | event


_TERMINALS = {"completed": "completed", "failed": "failed"}
_CALLS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}


def _item(index: int, item: Item) -> Iterator[dict[str, Any]]:
    where = {"output_index": index, "item_id": item.get("id")}
    begun = dict(item)
    for name, empty in (("content", []), ("summary", []), ("arguments", ""), ("input", "")):
        if name in begun and item["type"] in {"message", "reasoning", *_CALLS}:
            begun[name] = empty
    if "status" in begun:
        begun["status"] = "in_progress"
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    if item["type"] in _CALLS:
        member, name = _CALLS[item["type"]]
        yield {"type": f"{name}.delta", **where, "delta": item[member]}
        yield {"type": f"{name}.done", **where, member: item[member]}
    for number, part in enumerate(item.get("summary") or ()):
        yield from _part(
            "response.reasoning_summary_part", "response.reasoning_summary_text", "text", part,
            where | {"summary_index": number},
        )  # fmt: skip
    for number, part in enumerate(item.get("content") or ()):
        name, member = _PARTS[part["type"]]
        yield from _part("response.content_part", name, member, part, where | {"content_index": number})
    yield {"type": "response.output_item.done", "output_index": index, "item": dict(item)}


_PARTS = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning_text": ("response.reasoning_text", "text"),
}


def _part(
    around: str, name: str, member: str, part: Mapping[str, Any], where: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    lists: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
    empty = dict(part) | {member: ""} | ({"annotations": [], "logprobs": []} if lists else {})
    yield {"type": f"{around}.added", **where, "part": empty}
    yield {"type": f"{name}.delta", **where, "delta": part[member], **lists}
    for number, annotation in enumerate(part.get("annotations") or ()):
        yield {"type": "response.output_text.annotation.added", **where, "annotation_index": number,
               "annotation": annotation}  # fmt: skip
    yield {"type": f"{name}.done", **where, member: part[member], **lists}
    yield {"type": f"{around}.done", **where, "part": dict(part)}
