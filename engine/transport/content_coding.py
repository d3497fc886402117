"""Bodies that are compressed although ``identity`` was asked for (RFC 9110 section 8.4). Some gateways do that."""

from __future__ import annotations

import zlib
from typing import Final

from engine.protocol.failures import Violated
from engine.values.shown import token

__all__ = ["Unpacker", "unpacker"]

_PIECE: Final = 256 * 1024
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_NO_CODINGS: Final = frozenset({"", "identity", "none", "utf-8", "utf8", "aws-chunked"})  # names that change nothing


class Unpacker:
    """Unpacks a body as it comes, in pieces of bounded size, so that a small one cannot become a large one unseen."""

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._rest = b""
        self._begun = False

    @property
    def has_more(self) -> bool:
        """Whether there is more to unpack of what was given; ask for it with an empty `unpack`."""
        return bool(self._rest)

    @property
    def complete(self) -> bool:
        """Whether what was given so far is whole."""
        return self._inflating.eof or not self._begun

    def unpack(self, data: bytes) -> bytes:
        """Take the next bytes and return what they unpack to, or the first of it.

        Raises:
            zlib.error: this is not what it is said to be.
        """
        data = self._rest + data
        while True:
            if not self._begun and data:
                self._begin(data)
            if self._inflating.eof and data:  # RFC 1952 section 2.2: one member may follow another
                self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = self._inflating.decompress(data, _PIECE)
            self._rest = data = self._inflating.unconsumed_tail or self._inflating.unused_data
            if piece or not data:
                return piece

    def _begin(self, data: bytes) -> None:
        self._begun = True
        # "deflate" means zlib's format, and yet bare streams are sent under that name (RFC 9110 section 8.4.1.2).
        if data[0] != 0x1F and data[0] & 0x0F != zlib.DEFLATED:
            self._inflating = zlib.decompressobj(-zlib.MAX_WBITS)


def unpacker(coding: str) -> Unpacker | Violated | None:
    """Return the unpacker of a body, by its Content-Encoding field; None where nothing is to be done."""
    names = [name for each in coding.split(",") if (name := each.strip().lower()) not in _NO_CODINGS]
    if not names:
        return None
    if len(names) == 1 and names[0] in _CODINGS:
        return Unpacker()
    return Violated(f"the server sent its answer with the content coding {token(names[0])}, which was not asked for")
