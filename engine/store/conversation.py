"""A conversation that a store keeps: what it commits is committed there first, and no other process commits with it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from attrs import field, frozen

from engine.connections.home import Home
from engine.conversation.conversation import Conversation
from engine.conversation.line import Line, Place
from engine.conversation.prompts import Prompt, messages_of
from engine.conversation.rounds import Round
from engine.settings.fields import TurnFields, check_names, settings_with, spelled_out
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.store import operations
from engine.store.codec import Codec
from engine.store.gate import Gate
from engine.store.group import Group
from engine.store.lease import Lease
from engine.store.records import Kind, NewRow
from engine.store.reply import StoredReply
from engine.store.transcript import (
    Transcript,
    digest_of,
    replacement_row,
    response_row,
    result_row,
    round_row,
    sealed,
    transcript_of,
)
from engine.turns.work import BeforeDispatch
from engine.values.blocks import ToolCall
from engine.values.checks import check_name
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage, Context, Message, ToolResult
from engine.values.problems import ConfigurationError

__all__ = ["InterruptedPrompt", "Open", "StoredConversation", "read_transcript"]


@frozen(kw_only=True)
class InterruptedPrompt:
    """A prompt that was begun and never answered.

    Attributes:
        key: Its key: sending with it again goes on with the prompt.
        number: The number of the row behind which it stands; how far the conversation had got.
        begun_at: Seconds since the epoch, by the store's clock.
        attempts: The number of requests that were about to leave since then, and have no known outcome.
    """

    key: str
    number: int
    begun_at: float
    attempts: int


@frozen(kw_only=True)
class Open:
    """The manner in which a stored conversation was opened.

    Attributes:
        start: Begins a conversation with messages, a journal, and a gate that is awaited before each dispatch.
        settings: The settings of its turns.
        retain: Seconds that the session is kept after its last change; None for until it is forgotten.
        codec: The codec of its rows.
    """

    start: Callable[[tuple[Message, ...], _Scribe, BeforeDispatch], Conversation] = field(repr=False)
    settings: Settings = field(repr=False)
    retain: float | None = None
    codec: Codec | None = None


class StoredConversation:
    """A conversation whose rounds are in a store before they are in memory. Got from `Store.open`.

    A prompt has a key. The same key again is the same prompt: if it was answered, the stored answer is returned and
    nothing is sent; if it was begun and not answered, also by another process, it is gone on with, and only tools
    without a stored output run again.
    """

    def __init__(self, group: Group, lease: Lease, transcript: Transcript, opened: Open) -> None:
        self._group = group
        self._lease = lease
        self._opened = opened
        self._line = Line(Home().check)
        self._scribe = _Scribe(lease, opened)
        self._latest: str | None = None  # the prompt that memory may hold more of than the store
        self._chat = self._begin(transcript)

    def __repr__(self) -> str:
        return f"<StoredConversation {self.id!r} of {len(self.messages)} messages>"

    def _begin(self, transcript: Transcript) -> Conversation:
        chat = self._opened.start(transcript.messages, self._scribe, self._scribe.let_through)
        chat._take_up(waiting=transcript.waiting, progress=transcript.progress)
        self._scribe.unfinished = transcript.prompt
        self._latest = None
        return chat

    @property
    def id(self) -> str:
        """The session's id."""
        return self._lease.claim.session

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript, oldest first."""
        return self._chat.messages

    @property
    def unanswered(self) -> tuple[ToolCall, ...]:
        """The calls of the last response that wait for the caller's results."""
        return self._chat.unanswered

    @property
    def interrupted(self) -> InterruptedPrompt | None:
        """The request that was begun and never answered, here or by another process; None where there is none.

        Sending with its key goes on with it. Another prompt takes its place.
        """
        intent = self._lease.begun.now
        if intent is None or self._line.first is not None:
            return None
        return InterruptedPrompt(
            key=intent.key, number=self._lease.head, begun_at=intent.begun_at, attempts=intent.attempts
        )

    @spelled_out
    async def send(
        self,
        prompt: Prompt,
        options: TurnOptions | None = None,
        *,
        key: str | None = None,
        **fields: Unpack[TurnFields],
    ) -> AssistantMessage:
        """Say something and return the answer, having run the tools that the model called on the way.

        Args:
            prompt: As for `engine.Conversation.send`. It is compared where its key is known already.
            options: As for `engine.Conversation.send`.
            key: Tells this prompt from all others of the session, for example the id of the request that brought it; at
                most 512 bytes of UTF-8. Made up where none is given: then saying it again is another prompt.
            fields: As for `engine.Conversation.send`.

        Raises:
            ConfigurationError: something given is wrong, or the key is another prompt's; nothing was sent.
            TurnInterrupted: the prompt was begun before, its outcome is unknown, and
                `engine.RetryPolicy.resend_ambiguous` does not allow to begin it once more; nothing was sent.
            TurnError: a round failed.
            LeaseLost: another process has the session by now.
            StoreError: a row of the session cannot be read.
            StoreUnavailable: the store is out of reach. What was under way is not lost: the same key goes on with it.

        If cancelled, the turn is abandoned or the tools are cancelled, whichever is under way; rounds that are complete
        are in the store.
        """
        given = self._checked(prompt, key, fields, "send")
        async with self._place(fields):
            known = await self._take_up(given, key, fields)
            if known is not None:
                return known
            try:
                return await self._chat.send(self._missing(given), options, **fields)
            except TurnError as error:
                await self._scribe.failed(error)
                raise

    @spelled_out
    def stream(
        self,
        prompt: Prompt,
        options: TurnOptions | None = None,
        *,
        key: str | None = None,
        **fields: Unpack[TurnFields],
    ) -> StoredReply:
        """Prepare a prompt whose answer is read as it comes: ``async with chat.stream(...) as reply``, then iterate.

        Takes the arguments of `send`, with the same meaning. Where the prompt was answered already, the events tell the
        stored answer, and nothing is sent. A reply that is left early is a prompt that was begun and not answered.

        Raises:
            ConfigurationError: something given is wrong.
        """
        given = self._checked(prompt, key, fields, "stream")
        return StoredReply(
            self._place(fields),
            take_up=lambda: self._take_up(given, key, fields),
            begin=lambda: self._chat.stream(self._missing(given), options, **fields),
            on_failed=self._scribe.failed,
        )

    @property
    def kept(self) -> Transcript | None:
        """The rows in memory, where they are known to be those of the store."""
        unfinished = self._chat.interrupted is not None or self._scribe.unfinished is not None
        if not self._lease.sure or unfinished or self._chat.unanswered:
            return None
        return Transcript(messages=self._chat.messages)

    async def replace(self, messages: Sequence[Message]) -> None:
        """Let other messages stand in place of the transcript, for example what `engine.Session.compact` gave.

        Raises:
            TurnTimeout: earlier prompts were not answered within the ``queue`` budget.
            LeaseLost: another process has the session by now.
            StoreUnavailable: the store is out of reach.

        If cancelled, they may be in the store all the same; the next prompt finds them there.
        """
        new = messages_of(messages)
        async with self._place({}):
            await self._look()
            await self._scribe.write(Kind.REPLACE, None, False, replacement_row(new))
            self._chat = self._begin(Transcript(messages=new))

    # --- one prompt ---

    def _checked(self, prompt: Prompt, key: str | None, fields: Mapping[str, Any], call: str) -> tuple[Message, ...]:
        check_names(call, fields, TurnFields.__annotations__)
        if key is not None:
            check_name("key", key)
        return messages_of(prompt)

    def _place(self, fields: Mapping[str, Any]) -> Place:
        return self._line.place(settings_with(self._opened.settings, fields).timeouts)

    async def _look(self) -> None:
        """Make sure that the session is held, and that what is in memory is what is in the store."""
        self._lease.check()
        if not self._lease.sure:
            await self._read_again()

    async def _read_again(self) -> None:
        self._chat = self._begin(await read_transcript(self._group, self._lease, self._opened.codec))

    async def _take_up(
        self, given: tuple[Message, ...], key: str | None, fields: Mapping[str, Any]
    ) -> AssistantMessage | None:
        """Begin with a prompt, or go on with it; returns its answer, if the store has that."""
        await self._look()
        unfinished, digest = self._scribe.unfinished, digest_of(given)
        if key is None and not given:
            key = unfinished  # no messages at all: go on
        elif key is not None:
            rows = await self._group.do(lambda database: operations.answered(database, self.id, key))
            if rows:
                found = transcript_of(self.id, rows, self._opened.codec)
                _check_digest(found.digest, digest)
                return found.answer
        intent = None if key is None else self._lease.begun.of(key)
        if intent is not None and given:
            _check_digest(intent.digest, digest)
        if key is not None and key == unfinished and self._latest not in (None, key):
            await self._read_again()  # memory holds what was begun of another prompt meanwhile
        settings = settings_with(self._opened.settings, fields)
        gate = Gate(
            self._lease,
            key=uuid.uuid4().hex if key is None else key,
            digest=digest if intent is None else intent.digest,
            allowed=settings.retry.resend_ambiguous,
        )
        gate.check()
        self._scribe.gate = gate
        self._latest = gate.key
        return None

    def _missing(self, given: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return what is to be said of a prompt: nothing more, where rows of it are in the store."""
        return () if self._scribe.unfinished == self._latest else given


def _check_digest(found: str | None, digest: str) -> None:
    if found != digest:
        raise ConfigurationError("key", "is that of another prompt")


async def read_transcript(group: Group, lease: Lease, codec: Codec | None) -> Transcript:
    """Return what the store holds of a session that is held.

    Raises:
        StoreError: a row cannot be read, or is missing.
        StoreUnavailable: the store is out of reach.

    Cancelling only stops waiting.
    """
    session, first = lease.claim.session, max(lease.base, 1)
    rows = await group.do(lambda database: operations.read(database, session, after=first - 1))
    transcript = transcript_of(session, rows, codec, first=first, last=lease.head)
    lease.found(transcript.head)
    return transcript


class _Scribe:
    """The journal of a stored conversation, and its way through the gate.

    Attributes:
        gate: The gate of the prompt that is being answered.
        unfinished: The key of the prompt that the newest row is of, where that is no answer.
    """

    def __init__(self, lease: Lease, opened: Open) -> None:
        self._lease = lease
        self._opened = opened
        self.gate: Gate = Gate(lease, key="", digest="", allowed=0)
        self.unfinished: str | None = None
        self._prompt: tuple[Message, ...] = ()
        self._outputs: dict[str, ToolResult] = {}

    async def let_through(self, risked: int) -> None:
        """Before each dispatch: a process that no longer holds the session stops here."""
        await self.gate.let_through(risked)

    async def failed(self, error: TurnError) -> None:
        """A round failed."""
        await self.gate.failed(error)

    async def sending(self, prompt: tuple[Message, ...], context: Context) -> None:
        """Keep what will stand before the response."""
        self._prompt = prompt
        self._outputs = {}
        self.gate.answered()

    async def answered(self, response: AssistantMessage) -> None:
        """Write down a response whose calls will run; any other is written with its round."""
        if response.unanswered:
            await self.write(Kind.RESPONSE, self.gate.key, False, response_row(self._prompt, response))

    async def tool_done(self, call: ToolCall, output: ToolResult) -> None:
        """Write down what a tool gave."""
        await self.write(Kind.RESULT, self.gate.key, False, result_row(output))
        self._outputs[output.call_id] = output

    async def round(self, done: Round) -> None:
        """Write down a round; the prompt is answered with the one that runs no calls."""
        last, gate = not done.results, self.gate
        told = (gate.digest, gate.dispatches) if last else ()
        shortened = [each for each in done.results if self._outputs.get(each.call_id) != each]
        await self.write(Kind.ROUND, gate.key, last, round_row(self._prompt, done, *told, shortened=shortened))

    async def write(self, kind: Kind, prompt: str | None, last: bool, data: dict[str, Any]) -> None:
        """Put a row behind the others."""

        def row(number: int) -> NewRow:
            return sealed(self._lease.claim.session, number, kind, prompt, last, data, self._opened.codec)

        await self._lease.write(row, retain=self._opened.retain)
        self.unfinished = None if last else prompt
