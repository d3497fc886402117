"""The layer between a row's text and the store: nothing, or encryption."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

from engine.store.errors import StoreError
from engine.values.problems import ConfigurationError

__all__ = ["AeadCodec", "Codec"]

_NONCE_BYTES: Final = 12


class Codec(Protocol):
    """Turns the text of a row into bytes that the store keeps, and back.

    Attributes:
        key_id: The id of the key that new rows are written with; stands beside each row.
    """

    key_id: str

    def encode(self, text: bytes, *, associated: bytes) -> bytes:
        """Return what is kept.

        ``associated`` (the session's id and the row's number) has to be given again to read it, so that a row that was
        moved to another place is noticed.
        """
        ...

    def decode(self, data: bytes, *, key_id: str, associated: bytes) -> bytes:
        """Return the text of a row that was written with the key ``key_id``.

        Raises:
            StoreError: there is no such key, or the row was changed or moved.
        """
        ...


class AeadCodec:
    """AES-GCM (NIST SP 800-38D) with a random nonce for each row; needs the ``encryption`` extra.

    Args:
        keys: Keys of 16, 24 or 32 bytes, by their ids. All of them read.
        key_id: The id of the one that writes; the last one by default. Rows keep the key that they were written with.

    Raises:
        ConfigurationError: a key has another length, the id is none of them, or ``cryptography`` is not installed.
    """

    def __init__(self, keys: Mapping[str, bytes], key_id: str | None = None) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigurationError(
                "codec", 'needs cryptography: pip install "trio-session-engine[encryption]"'
            ) from None
        if not keys:
            raise ConfigurationError("keys", "is empty")
        self._ciphers: dict[str, Any] = {}
        for name, key in keys.items():
            if not isinstance(key, bytes) or len(key) not in (16, 24, 32):
                raise ConfigurationError(f"keys[{name!r}]", "must be 16, 24 or 32 bytes")
            self._ciphers[name] = AESGCM(key)
        self.key_id: str = next(reversed(self._ciphers)) if key_id is None else key_id
        if self.key_id not in self._ciphers:
            raise ConfigurationError("key_id", "names none of the keys")

    def __repr__(self) -> str:
        return f"<AeadCodec with {len(self._ciphers)} keys>"

    def encode(self, text: bytes, *, associated: bytes) -> bytes:
        """Return the nonce and the sealed text."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self.key_id].encrypt(nonce, text, associated)
        return nonce + sealed

    def decode(self, data: bytes, *, key_id: str, associated: bytes) -> bytes:
        """Return the text.

        Raises:
            StoreError: there is no such key, or the row was changed or moved.
        """
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise StoreError("a row was written with a key that is not here")
        try:
            text: bytes = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], associated)
        except (InvalidTag, ValueError):
            raise StoreError("a row was changed or moved, or its key is another one") from None
        return text
