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
from engine.values.messages import AssistantMessage, Context, Message, ToolResult

__all__ = [
    "Transcript",
    "digest_of",
    "replacement_row",
    "response_row",
    "result_row",
    "round_row",
    "sealed",
    "transcript_of",
]


@frozen(kw_only=True)
class Transcript:
    """The past of a conversation, as far as it knows it.

    Attributes:
        head: The number of the newest row in it.
        digest: The hash of the newest prompt that was answered.
        messages: The messages of complete rounds.
        waiting: Messages that join them with the results that the caller owes for the last response's calls.
        progress: A round that was begun and is not complete.
        prompt: The key of the prompt that the newest row is of, where that is no answer.
        newest: The newest response, where a row has said it.
    """

    head: int = 0
    digest: str | None = None
    messages: tuple[Message, ...] = field(default=(), repr=False)
    waiting: tuple[Message, ...] = field(default=(), repr=False)
    progress: Progress = field(factory=Progress, repr=False)
    prompt: str | None = None
    newest: AssistantMessage | None = field(default=None, repr=False, eq=False)

    @property
    def answer(self) -> AssistantMessage:
        """The newest response; of a turn that was steered, all of them as one."""
        return self.newest or _newest((*self.messages, *self.waiting))

    def with_row(self, session: str, row: Row, codec: Codec | None) -> Transcript:
        """Return the transcript one row later.

        Raises:
            StoreError: it cannot be read: it was written through a codec that is not here, or was damaged.
        """
        what = f"row {row.number} of session {session!r}"
        try:
            data = _unsealed(session, row, codec)
            later = self._with(Kind(row.kind), data)
            return evolve(
                later, head=row.number, prompt=None if row.last else row.prompt, digest=data.get("digest", self.digest)
            )
        except StoreError as error:
            raise StoreError(f"{what} cannot be read: {error}") from None
        except Exception as error:  # rows may hold anything, once a disk or a person has changed them
            raise StoreError(f"{what} cannot be read: it was damaged ({type(error).__name__})") from None

    def _with(self, kind: Kind, data: dict[str, Any]) -> Transcript:
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
            shortened = _messages(data.get("results", []))
            results = {**progress.results, **{each.call_id: each for each in shortened if isinstance(each, ToolResult)}}
            outputs = (results[call.call_id] for call in progress.response.unanswered)
            new = (*progress.prompt, progress.response, *outputs)
        newest = _newest(new)
        new = tuple(part for each in new for part in _parts(each))
        if data.get("waits"):
            return evolve(self, waiting=new, progress=Progress(), newest=newest)
        return Transcript(messages=(*self.messages, *new), newest=newest)


def _newest(messages: Sequence[Message]) -> AssistantMessage:
    return next(each for each in reversed(messages) if isinstance(each, AssistantMessage))


def _parts(message: Message) -> tuple[Message, ...]:
    """Return a message as a transcript has it: a steered turn's answer is several."""
    return message.messages if isinstance(message, AssistantMessage) else (message,)


def response_row(prompt: Sequence[Message], response: AssistantMessage) -> dict[str, Any]:
    """A response whose calls will run, with the messages that it answers."""
    return {"prompt": _plain(prompt), "response": _plain([response])}


def result_row(output: ToolResult) -> dict[str, Any]:
    """The output of one call."""
    return {"result": _plain([output])}


def round_row(
    prompt: Sequence[Message],
    done: Round,
    digest: str | None = None,
    dispatches: int | None = None,
    *,
    shortened: Sequence[ToolResult] = (),
) -> dict[str, Any]:
    """A complete round: whole where it called nothing, else nothing but its end: the rows before it hold the rest.

    The prompt's digest, and how often a request of the prompt was about to leave, stand in its last round. Outputs that
    joined the transcript shorter than they were stand in it too.
    """
    data: dict[str, Any] = {"results": _plain(shortened)} if shortened else {}
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


def digest_of(prompt: Context | Iterable[Message]) -> str:
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


def transcript_of(
    session: str, rows: Iterable[Row], codec: Codec | None, *, first: int | None = None, last: int = 0
) -> Transcript:
    """Return what rows say, oldest first.

    Args:
        session: The session's id.
        rows: Rows of the session.
        codec: The codec that they were written through.
        first: The number that they have to begin with, none missing behind it; None for rows of one prompt.
        last: The number that they have to reach.

    Raises:
        StoreError: a row is missing, or cannot be read.
    """
    transcript = Transcript(head=0 if first is None else first - 1)
    for row in rows:
        if first is not None and row.number != transcript.head + 1:
            raise _missing(session, transcript)
        transcript = transcript.with_row(session, row, codec)
    if transcript.head < last:
        raise _missing(session, transcript)
    return transcript


def _missing(session: str, transcript: Transcript) -> StoreError:
    return StoreError(f"row {transcript.head + 1} of session {session!r} is missing")


def _unsealed(session: str, row: Row, codec: Codec | None) -> dict[str, Any]:
    text = row.data
    if isinstance(text, bytes):
        if codec is None or row.key_id is None:
            raise StoreError("it was written through a codec, and none is given")
        text = codec.decode(text, key_id=row.key_id, associated=_associated(session, row.number)).decode()
    data = json.loads(text)
    if not isinstance(data, dict):
        raise StoreError("it was damaged")
    return data


def _associated(session: str, number: int) -> bytes:
    return f"{session}\0{number}".encode()
