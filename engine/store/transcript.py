"""The transcript of a stored conversation: what its rows say, and the rows that say it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, field, frozen

from engine.conversation.rounds import Progress, Round
from engine.schemas.transcripts import from_json, to_json
from engine.store.codec import Codec
from engine.store.errors import StoreError
from engine.store.records import Kind, NewRow, Row
from engine.values.messages import AssistantMessage, Message, ToolResult

__all__ = [
    "Transcript",
    "digest_of",
    "replacement_row",
    "response_row",
    "result_row",
    "round_row",
    "sealed",
    "unsealed",
]


@frozen(kw_only=True)
class Transcript:
    """The past of a conversation, as far as it knows it.

    Attributes:
        messages: The messages of complete rounds.
        waiting: Messages that join them with the results that the caller owes for the last response's calls.
        progress: A round that was begun and is not complete.
    """

    messages: tuple[Message, ...] = field(default=(), repr=False)
    waiting: tuple[Message, ...] = field(default=(), repr=False)
    progress: Progress = field(factory=Progress, repr=False)

    def with_row(self, kind: Kind, data: dict[str, Any]) -> Transcript:
        """Return the transcript one row later."""
        match kind:
            case Kind.REPLACE:
                return Transcript(messages=_messages(data["messages"]))
            case Kind.RESPONSE:
                (response,) = _messages(data["response"])
                assert isinstance(response, AssistantMessage)
                return evolve(self, progress=Progress(prompt=_messages(data["prompt"]), response=response))
            case Kind.RESULT:
                (result,) = _messages(data["result"])
                assert isinstance(result, ToolResult)
                return evolve(self, progress=self.progress.with_result(result))
        if "messages" in data:
            new = _messages(data["messages"])
        else:
            progress = self.progress
            assert progress.response is not None
            results = (progress.results[call.call_id] for call in progress.response.unanswered)
            new = (*progress.prompt, progress.response, *results)
        if data.get("waits"):
            return evolve(self, waiting=new, progress=Progress())
        return Transcript(messages=(*self.messages, *new))


def response_row(prompt: Sequence[Message], response: AssistantMessage) -> dict[str, Any]:
    """A response whose calls will run, with the messages that it answers."""
    return {"prompt": _plain(prompt), "response": _plain([response])}


def result_row(output: ToolResult) -> dict[str, Any]:
    """The output of one call."""
    return {"result": _plain([output])}


def round_row(
    prompt: Sequence[Message], done: Round, digest: str | None = None, dispatches: int | None = None
) -> dict[str, Any]:
    """A complete round: whole where it called nothing, else nothing but its end: the rows before it hold the rest.

    The prompt's digest, and how often a request of the prompt was about to leave, stand in its last round.
    """
    data: dict[str, Any] = {}
    if not done.results:
        data["messages"] = _plain([*prompt, done.message])
        if done.message.unanswered:
            data["waits"] = True
    if digest is not None:
        data["digest"], data["dispatches"] = digest, dispatches
    return data


def replacement_row(messages: Iterable[Message]) -> dict[str, Any]:
    """A transcript that stands in place of all before it."""
    return {"messages": _plain(messages)}


def digest_of(prompt: Iterable[Message]) -> str:
    """A hash of a prompt, which tells one from another and says nothing of what is in it."""
    return hashlib.sha256(to_json(prompt).encode()).hexdigest()


def _plain(messages: Iterable[Message]) -> list[Any]:
    plain: list[Any] = json.loads(to_json(messages))["messages"]
    return plain


def _messages(plain: list[Any]) -> tuple[Message, ...]:
    whole = {"kind": "context", "version": 1, "messages": plain}
    return tuple(from_json(json.dumps(whole)).messages)


# --- through the codec -----------------------------------------------------------------------------------------------


def sealed(
    session: str, number: int, kind: Kind, prompt: str | None, last: bool, data: dict[str, Any], codec: Codec | None
) -> NewRow:
    """Return the row that will stand at ``number``."""
    text = json.dumps(data, separators=(",", ":"))
    if codec is None:
        return NewRow(kind=kind, prompt=prompt, last=last, data=text)
    sealed_text = codec.encode(text.encode(), associated=_associated(session, number))
    return NewRow(kind=kind, prompt=prompt, last=last, data=sealed_text, key_id=codec.key_id)


def unsealed(session: str, row: Row, codec: Codec | None) -> dict[str, Any]:
    """Return what a row says.

    Raises:
        StoreError: it was written through a codec that is not here, or is no row of ours.
    """
    if isinstance(row.data, bytes):
        if codec is None or row.key_id is None:
            raise StoreError(f"row {row.number} of session {session!r} was written through a codec, and none is given")
        text = codec.decode(row.data, key_id=row.key_id, associated=_associated(session, row.number)).decode()
    else:
        text = row.data
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise StoreError(f"row {row.number} of session {session!r} cannot be read")
    return data


def _associated(session: str, number: int) -> bytes:
    return f"{session}\0{number}".encode()
