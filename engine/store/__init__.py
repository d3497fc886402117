"""Conversations that outlive a process: one at a time holds each, and no round of theirs is lost or doubled."""

from __future__ import annotations

from engine.store.codec import AeadCodec as AeadCodec
from engine.store.codec import Codec as Codec
from engine.store.conversation import InterruptedPrompt as InterruptedPrompt
from engine.store.conversation import StoredConversation as StoredConversation
from engine.store.errors import LeaseLost as LeaseLost
from engine.store.errors import SessionHeld as SessionHeld
from engine.store.errors import StoreError as StoreError
from engine.store.errors import StoreUnavailable as StoreUnavailable
from engine.store.errors import TurnInterrupted as TurnInterrupted
from engine.store.records import SessionRecord as SessionRecord
from engine.store.reply import StoredReply as StoredReply
from engine.store.store import Store as Store
from engine.store.store import open_store as open_store
