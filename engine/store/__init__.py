"""Conversations that outlive a process: one at a time holds each, and no round of theirs is lost or doubled."""

from __future__ import annotations

from engine.store.codec import AeadCodec, Codec
from engine.store.conversation import InterruptedPrompt, StoredConversation
from engine.store.database import Connection, Database
from engine.store.errors import LeaseLost, SessionHeld, StoreError, StoreUnavailable, TurnInterrupted
from engine.store.records import SessionRecord
from engine.store.reply import StoredReply
from engine.store.store import Store, open_store

__all__ = [
    "AeadCodec",
    "Codec",
    "Connection",
    "Database",
    "InterruptedPrompt",
    "LeaseLost",
    "SessionHeld",
    "SessionRecord",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StoredConversation",
    "StoredReply",
    "TurnInterrupted",
    "open_store",
]


def __dir__() -> list[str]:
    return sorted(__all__)
