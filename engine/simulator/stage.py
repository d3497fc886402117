"""One response while it is produced: its items, its numbered events, its budget and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from . import wire
from .history import Held
from .open_item import CALLS, OpenItem, new_item
from .pace import Pace
from .tokens import OutOfTokensError, Tokens
from .waiting import unanswered
from .wire import ApiError, Ids, Item

if TYPE_CHECKING:
    from .outlet import Outlet
    from .quirks import Quirks
    from .records import RequestRecord
    from .requests import Asked

__all__ = ["Pending", "Stage", "Surroundings"]


class Surroundings(Protocol):
    """The server as the responses in it need it."""

    ids: Ids
    quirks: Quirks
    pace: Pace

    def now(self) -> float:
        """Return Unix time."""

    def gate(self, name: str) -> trio.Event:
        """Return the gate of this name."""


@attrs.define(eq=False)
class Pending:
    """A steering submission that the server owns and has not committed yet."""

    steer_id: str
    items: list[Item]
    raw: Any


_LIFECYCLE = frozenset(
    f"response.{kind}" for kind in ("created", "queued", "in_progress", "completed", "incomplete", "failed", "metadata")
)


class Stage:
    """The state of one response, and the moves that script steps are made of.

    Attributes:
        asked: The accepted request.
        response_id: The id of the response.
        output: Finished items.
        finished: Whether a terminal has been sent.
        abandoned: Whether it ends without one.
        tokens: The tokens that it costs.
        steers: Steering that waits for the next boundary between items.
        injected: Outputs that the client has injected.
        pace: The pace of text where a step names no pause.
        world: The server it runs in.
    """

    def __init__(
        self,
        asked: Asked,
        outlet: Outlet,
        record: RequestRecord,
        *,
        world: Surroundings,
        keep: Callable[[Stage, Held | None], None],
    ) -> None:
        self.asked = asked
        self.outlet = outlet
        self.record = record
        self.world = world
        self.quirks: Quirks = world.quirks
        self.ids: Ids = world.ids
        self.response_id: str = world.ids.new("resp")
        self.output: list[Item] = []
        self.begun: bool = False
        self.announced: bool = False
        self.finished: bool = False
        self.rejected: bool = False
        self.steers: list[Pending] = []
        self.injected: list[Item] = []
        self._on_injected = trio.lowlevel.ParkingLot()
        self.pace: Pace = world.pace
        self._created_at = int(world.now())
        self._keep = keep
        self._sequence = 0
        self._next_index = 0
        self._open: OpenItem | None = None
        self.abandoned: bool = False
        self.tokens: Tokens = Tokens(asked.body.get("max_output_tokens"))
        options = asked.body.get("stream_options") or {}
        self._pad = self.quirks.obfuscation and options.get("include_obfuscation") is not False
        self._overrides: dict[str, Any] = {}
        self._usage_overrides: dict[str, Any] = {}
        self._paced = False  # the pause before the first output has been made
        self._distort = self.quirks.distorter(self.ids.rng)
        self._logprobs = "message.output_text.logprobs" in (asked.body.get("include") or ())

    # --- events ---

    def number(self) -> int:
        """Take the next sequence number."""
        self._sequence += 1
        return self._sequence - 1

    async def emit(self, kind: str, /, **fields: Any) -> None:
        """Send one numbered event."""
        event = {"type": kind, "sequence_number": self.number()} | fields
        if self._pad and kind.endswith(".delta"):
            event["obfuscation"] = self.ids.padding()
        await self.send(event)

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event as it is, and note whether it shows output."""
        kind = event.get("type")
        if isinstance(kind, str) and kind.startswith("response.") and kind not in _LIFECYCLE and not self.outlet.silent:
            self.record.output_sent = True
        if self._distort is None:
            await self.outlet.event(event)
            return
        for distorted in self._distort(event, whole=self.outlet.silent):
            await self.outlet.event(distorted)

    def snapshot(self, status: str) -> dict[str, Any]:
        """Return the Response as it stands."""
        response = wire.response_object(
            self.asked.body,
            response_id=self.response_id,
            created_at=self._created_at,
            status=status,
            output=self.output,
        )
        return response | self._overrides

    def override(self, response: Mapping[str, Any], *, usage: Mapping[str, Any]) -> None:
        """Have the Response object say this in place of the server's own; an ``id`` only before it began."""
        self._overrides |= response
        self._usage_overrides |= usage
        if not self.begun and isinstance(response.get("id"), str):
            self.response_id = response["id"]

    async def queued(self) -> None:
        """Say that the response waits for a place."""
        await self.emit("response.queued", response=self.snapshot("queued"))

    async def create(self) -> None:
        """Send ``response.created``."""
        self.begun = True
        self.record.response_id = self.response_id
        self.record.status = "running"
        if self.quirks.codex_events:
            await self.outlet.event(wire.rate_limits_event())
            await self.outlet.event({"type": "codex.response.metadata", "headers": {"x-codex-turn-state": "state-1"}})
        await self.emit("response.created", response=self.snapshot("in_progress"))

    async def progress(self) -> None:
        """Send ``response.in_progress``."""
        self.announced = True
        await self.emit("response.in_progress", response=self.snapshot("in_progress"))

    async def begin(self) -> None:
        """Send the two opening events unless they have been sent."""
        if not self.begun:
            await self.create()
        if not self.announced:
            await self.progress()

    # --- items ---

    async def open(self, kind: str, **fields: Any) -> None:
        """Start an item; one that is open is finished first.

        Args:
            kind: ``message``, ``refusal``, ``reasoning``, ``function_call`` or ``custom_tool_call``.
            fields: Further fields of the item.
        """
        if not self.finished:
            await self.begin()
        await self.close()
        if not self.finished:
            self.tokens.check()
        item = new_item(kind, self.ids, fields)
        self._open = OpenItem(kind, item, self._next_index)
        self._next_index += 1
        await self.emit("response.output_item.added", output_index=self._open.index, item=dict(item))

    async def open_part(self, kind: str) -> None:
        """Start a part of the open item: ``text``, ``refusal``, ``summary`` or ``reasoning``."""
        held = self._opened()
        await self.close_part()
        part = held.add_part(kind)
        name = "response.reasoning_summary_part.added" if kind == "summary" else "response.content_part.added"
        await self.emit(name, **held.where, part=part)

    async def stream(self, text: str, size: int = 1, pause: float = 0.0) -> None:
        """Send text in deltas of so many tokens, with a pause between them; without one, at the response's pace."""
        parts = wire.pieces(text)
        for start in range(0, len(parts), size):
            part = parts[start : start + size]
            if start and pause:
                await trio.sleep(pause)
            elif not pause:
                await self._keep_pace(len(part))
            await self.delta("".join(part))

    async def _keep_pace(self, tokens: int) -> None:
        if not self._paced:
            self._paced = True
            if self.pace.first:
                await trio.sleep(self.pace.first)
        elif self.pace.tokens_per_second is not None:
            await trio.sleep(self.pace.pause(tokens, self.ids.rng))

    async def delta(self, text: str) -> None:
        """Send one delta of the open part, within the budget of output tokens."""
        held = self._opened()
        extra: dict[str, Any] = {}
        if held.kind == "message":
            extra["logprobs"] = (
                held.streamed_logprobs(text, self.asked.body.get("top_logprobs") or 0) if self._logprobs else []
            )
        kept = self.tokens.take(text, reasoning=held.kind in {"summary", "reasoning"})
        if kept:
            held.text += kept
            await self.emit(held.names.delta, **held.where, delta=kept, **extra)
        if len(kept) < len(text):
            raise OutOfTokensError

    async def close_part(self, status: str = "completed") -> None:
        """Finish the open part, if one is open."""
        held = self._open
        if held is None or not held.part_open:
            return
        done, where = held.names, held.where
        part = held.finish_part()
        if part is None:
            await self.emit(done.done, **where, **{done.field: held.text})
            return
        extra = {"logprobs": held.logprobs} if held.kind == "message" else {}
        await self.emit(done.done, **where, **{done.field: held.text}, **extra)
        if held.kind == "summary":
            note = {"status": "incomplete"} if status == "incomplete" else {}
            await self.emit("response.reasoning_summary_part.done", **where, part=dict(part), **note)
        else:
            await self.emit("response.content_part.done", **where, part=dict(part))

    async def close(self, status: str = "completed") -> None:
        """Finish the open item, if one is open."""
        held = self._open
        if held is None:
            return
        await self.close_part(status)
        self._open = None
        if "status" in held.item:
            held.item["status"] = status
        if held.item["type"] == "reasoning" and not held.item.get("encrypted_content"):
            held.item["encrypted_content"] = self.ids.opaque(held.text or held.item["id"])
        self.output.append(held.item)
        await self.emit("response.output_item.done", output_index=held.index, item=dict(held.item))

    async def whole_item(
        self, item: Mapping[str, Any], between: Iterable[Mapping[str, Any]] = (), **at_first: Any
    ) -> None:
        """Send any item as it is.

        Args:
            item: The item.
            between: Events between its two set-up events, without numbers and ``output_index``.
            at_first: Members that the item has in the first of the two.
        """
        await self.begin()
        await self.close()
        index = self._next_index
        self._next_index += 1
        started = dict(item)
        if "status" in started:
            started["status"] = "in_progress"
        started |= at_first
        await self.emit("response.output_item.added", output_index=index, item=started)
        for event in between:
            fields = {name: value for name, value in event.items() if name != "type"}
            await self.emit(event["type"], output_index=index, **fields)
        self.output.append(dict(item))
        self.tokens.take_item(dict(item))
        await self.emit("response.output_item.done", output_index=index, item=dict(item))

    async def start_new(self, kind: str, **fields: Any) -> None:
        """Start a call that takes deltas, even when one is open."""
        await self.open(kind, **fields)
        self._opened().part_open = True

    async def annotate(self, annotations: Iterable[Mapping[str, Any]]) -> None:
        """Add annotations to the open text."""
        held = self._opened()
        for index, annotation in enumerate(annotations):
            held.item["content"][held.parts]["annotations"].append(dict(annotation))
            await self.emit(
                "response.output_text.annotation.added",
                **held.where,
                annotation_index=index,
                annotation=dict(annotation),
            )

    async def start_delta(self, kind: str, **fields: Any) -> None:
        """Make sure that an item of this kind is open and takes deltas."""
        held = self._open
        kinds = {"summary": "reasoning"}
        item_kind = kinds.get(kind, kind)
        if held is None or held.kind not in {kind, item_kind}:
            await self.open(item_kind, **fields)
            held = self._opened()
        if held.part_open and held.kind == kind:
            return
        if kind in CALLS:
            held.part_open = True
        else:
            await self.open_part("text" if kind == "message" else kind)

    def _opened(self) -> OpenItem:
        if self._open is None:
            raise RuntimeError("this step needs an open item")
        return self._open

    # --- outputs that come while it runs ---

    def inject(self, items: Iterable[Item]) -> None:
        """Take outputs of the client's calls; steps that wait for them go on."""
        self.injected += items
        self._on_injected.unpark_all()

    async def outputs(self) -> None:
        """Wait until every call of the client's so far has been answered."""
        while self.waits_for_client:
            await self._on_injected.park()

    # --- the end ---

    def usage(self) -> dict[str, Any]:
        """Return what the response has cost so far."""
        usage = wire.usage_object(
            prompt=self.asked.prompt_tokens(),
            cached=self.asked.cached_tokens(),
            answer=self.tokens.spent,
            reasoning=self.tokens.reasoned,
        )
        return usage | self._usage_overrides

    async def finish(
        self, status: str, *, incomplete: str | None = None, error: Mapping[str, Any] | None = None
    ) -> None:
        """Send the terminal event; the server remembers the response before the client can ask for it."""
        if not self.begun:
            await self.create()
        await self.close("completed" if status == "completed" else "incomplete")
        response = self.snapshot(status)
        response["usage"] = self.usage()
        response["incomplete_details"] = None if incomplete is None else {"reason": incomplete}
        response["error"] = None if error is None else dict(error)
        if status == "completed":
            response["completed_at"] = int(self.world.now())
        response |= self._overrides
        held = Held(
            self.response_id,
            (*self.asked.items, *(dict(item) for item in self.output), *self.injected),
            response,
            self.asked.store,
            self.asked.new_input,
        )
        self.finished = True
        self.record.status = status
        self.record.error_code = None if error is None else str(error.get("code"))
        self._keep(self, None if status == "failed" else held)
        self.record.finished_at = trio.current_time()
        await self.emit(f"response.{status}", response=response)
        if self.quirks.codex_events:
            await self.outlet.event({"type": "response.metadata", "metadata": {"type": "safety_buffering"}})

    async def error(self, error: ApiError) -> None:
        """Refuse the request, or once begun end it with an error event."""
        self.finished = True
        self.record.executed = self.record.executed and self.begun
        self.record.error_code = error.code
        self.record.finished_at = trio.current_time()
        self._keep(self, None)
        if not self.begun:
            self.rejected = True
            self.record.status = "rejected"
            await self.outlet.reject(error)
            return
        self.record.status = "error"
        await self.send(wire.error_event(error, sequence=self.number()))

    def abandon(self) -> None:
        """End the response without a terminal."""
        self.finished = True
        self.abandoned = True
        self.record.status = "abandoned"

    @property
    def waits_for_client(self) -> bool:
        """Whether some call in the output is the client's to run."""
        return bool(unanswered([*self.output, *self.injected]))

    @property
    def interrupted(self) -> bool:
        """Whether steering ends the response here."""
        return bool(self.steers) and self._open is None and self.begun and not (self.finished or self.waits_for_client)
