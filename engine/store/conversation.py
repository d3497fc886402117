"""A conversation that a store keeps: what it commits is committed there first, and no other process commits with it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import field, frozen

from engine.conversation.conversation import Conversation
from engine.conversation.line import Line
from engine.conversation.prompts import Prompt, messages_of
from engine.conversation.rounds import Round
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.store import operations
from engine.store.codec import Codec
from engine.store.errors import StoreUnavailable, TurnInterrupted
from engine.store.group import Group
from engine.store.lease import Lease
from engine.store.records import Intent, Kind, NewRow
from engine.store.transcript import (
    Transcript,
    digest_of,
    replacement_row,
    response_row,
    result_row,
    round_row,
    sealed,
    unsealed,
)
from engine.values.choices import Delivery
from engine.values.errors import ResponseFailed, TurnError
from engine.values.messages import AssistantMessage, Context, Message, ToolCall, ToolResult
from engine.values.problems import ConfigurationError

__all__ = ["InterruptedPrompt", "Open", "StoredConversation", "read_transcript"]

_logger = logging.getLogger("engine.store")


@frozen(kw_only=True)
class InterruptedPrompt:
    """A prompt that was begun and never answered.

    Attributes:
        key: Its key: sending with it again goes on with the prompt.
        number: The number of the row behind which it stands; how far the conversation had got.
        begun_at: Seconds since the epoch, by the store's clock.
        attempts: The number of requests that were about to leave since then, without a known outcome.
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

    start: Callable[[tuple[Message, ...], _Scribe, Callable[[], Awaitable[None]]], Conversation] = field(repr=False)
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
        self._line = Line()
        self._scribe = _Scribe(lease, opened)
        self._chat = self._begin(transcript)

    def __repr__(self) -> str:
        return f"<StoredConversation {self.id!r} of {len(self.messages)} messages>"

    def _begin(self, transcript: Transcript) -> Conversation:
        chat = self._opened.start(transcript.messages, self._scribe, self._scribe.pass_gate)
        chat._take_up(waiting=transcript.waiting, progress=transcript.progress)
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
        intent = self._lease.intent
        if intent is None or self._line.first is not None:
            return None
        return InterruptedPrompt(
            key=intent.key, number=self._lease.head, begun_at=intent.begun_at, attempts=intent.attempts
        )

    async def send(
        self, prompt: Prompt, options: TurnOptions | None = None, *, key: str | None = None
    ) -> AssistantMessage:
        """Say something and return the answer, having run the tools that the model called on the way.

        Args:
            prompt: As for `engine.Conversation.send`. It is compared where its key is known already.
            options: As for `engine.Conversation.send`.
            key: Tells this prompt from all others of the session, for example the id of the request that brought it.
                Made up where none is given: then saying it again is another prompt.

        Raises:
            ConfigurationError: something given is wrong, or the key is another prompt's; nothing was sent.
            TurnInterrupted: the prompt was begun before, its outcome is unknown, and
                `engine.RetryPolicy.resend_ambiguous` does not allow to begin it once more; nothing was sent.
            TurnError: a round failed.
            LeaseLost: another process has the session by now.
            StoreUnavailable: the store is out of reach. What was under way is not lost: the same key goes on with it.

        If cancelled, the turn is abandoned or the tools are cancelled, whichever is under way; rounds that are complete
        are in the store.
        """
        given = messages_of(prompt)
        if key is not None and (not isinstance(key, str) or not key):
            raise ConfigurationError("key", "must be a string that is not empty")
        async with self._line.place(self._opened.settings.timeouts):
            self._lease.check()
            if not self._lease.sure:
                await self._read_again()
            chosen = key if key is not None else uuid.uuid4().hex
            digest = digest_of(given)
            if key is not None:
                known = await self._answered(key, digest)
                if known is not None:
                    return known
            return await self._send(given, options, chosen, digest)

    @property
    def kept(self) -> Transcript | None:
        """The rows in memory, where they are known to be those of the store."""
        if not self._lease.sure or self._chat.interrupted is not None or self._chat.unanswered:
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
        async with self._line.place(self._opened.settings.timeouts):
            self._lease.check()
            if not self._lease.sure:
                await self._read_again()
            await self._scribe.write(Kind.REPLACE, None, False, replacement_row(new))
            self._chat = self._begin(Transcript(messages=new))

    # --- one prompt ---

    async def _answered(self, key: str, digest: str) -> AssistantMessage | None:
        """Return the stored answer of a prompt."""
        rows = await self._group.do(lambda database: operations.answered(database, self.id, key))
        if not rows:
            return None
        transcript, found = Transcript(), None
        for row in rows:
            data = unsealed(self.id, row, self._opened.codec)
            transcript = transcript.with_row(row.kind, data)
            found = data.get("digest", found)
        if found != digest:
            raise ConfigurationError("key", "is that of another prompt")
        spoken = (*transcript.messages, *transcript.waiting)
        return next(each for each in reversed(spoken) if isinstance(each, AssistantMessage))

    async def _send(
        self, given: tuple[Message, ...], options: TurnOptions | None, key: str, digest: str
    ) -> AssistantMessage:
        intent = self._lease.intent
        resumed = intent is not None and intent.key == key
        if intent is not None and resumed:
            if intent.digest != digest:
                raise ConfigurationError("key", "is that of another prompt")
            if intent.attempts > self._opened.settings.retry.resend_ambiguous:
                raise TurnInterrupted(key, intent.attempts)
        begun = self._chat.interrupted if resumed else None
        self._scribe.begin(key, digest)
        try:
            return await self._chat.send((), options) if begun else await self._chat.send(given, options)
        except TurnError as error:
            if error.delivery in (Delivery.NOT_SENT, Delivery.REJECTED) or isinstance(error, ResponseFailed):
                await self._scribe.settle()
            raise

    async def _read_again(self) -> None:
        """Learn what is in the store after a change of which the outcome is not known."""
        self._chat = self._begin(await read_transcript(self._group, self._lease, self._opened.codec))


async def read_transcript(group: Group, lease: Lease, codec: Codec | None) -> Transcript:
    """Return what the store holds of a session that is held.

    Raises:
        StoreError: a row cannot be read.
        StoreUnavailable: the store is out of reach.

    Cancelling only stops waiting.
    """
    session, transcript = lease.claim.session, Transcript()
    rows = await group.do(lambda database: operations.read(database, session, after=max(lease.base - 1, 0)))
    for row in rows:
        transcript = transcript.with_row(row.kind, unsealed(session, row, codec))
    lease.found(max((row.number for row in rows), default=lease.head))
    return transcript


class _Scribe:
    """The journal of a stored conversation, and its gate."""

    def __init__(self, lease: Lease, opened: Open) -> None:
        self._lease = lease
        self._opened = opened
        self._key = ""
        self._digest = ""
        self._prompt: tuple[Message, ...] = ()
        self._before: Intent | None = None

    def begin(self, key: str, digest: str) -> None:
        """A prompt is about to be sent, or gone on with."""
        self._key, self._digest, self._prompt = key, digest, ()
        self._before = self._lease.intent

    async def pass_gate(self) -> None:
        """Before each dispatch: a process that no longer holds the session stops here."""
        await self._lease.begin(key=self._key, digest=self._digest)

    async def settle(self) -> None:
        """Nothing of the last requests is at work any more."""
        try:
            await self._lease.settle(self._before)
        except StoreUnavailable:
            _logger.info("a prompt that was not delivered stays noted as begun: the store is out of reach")

    async def sending(self, prompt: tuple[Message, ...], context: Context) -> None:
        """Keep what will stand before the response."""
        self._prompt = prompt
        self._before = self._lease.intent

    async def answered(self, response: AssistantMessage) -> None:
        """Write down a response whose calls will run; any other is written with its round."""
        if response.unanswered:
            await self.write(Kind.RESPONSE, self._key, False, response_row(self._prompt, response))

    async def tool_done(self, call: ToolCall, output: ToolResult) -> None:
        """Write down what a tool gave."""
        await self.write(Kind.RESULT, self._key, False, result_row(output))

    async def round(self, done: Round) -> None:
        """Write down a round; the prompt is answered with the one that runs no calls."""
        last = not done.results
        intent = self._lease.intent
        told = (self._digest, intent.dispatches if intent is not None else 0) if last else ()
        await self.write(Kind.ROUND, self._key, last, round_row(self._prompt, done, *told))

    async def write(self, kind: Kind, prompt: str | None, last: bool, data: dict[str, Any]) -> None:
        """Put a row behind the others."""

        def row(number: int) -> NewRow:
            return sealed(self._lease.claim.session, number, kind, prompt, last, data, self._opened.codec)

        await self._lease.write(row, retain=self._opened.retain)
