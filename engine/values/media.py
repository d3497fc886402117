"""Files as requests carry them: ``data:`` URLs (RFC 2397), and the types of what is in them."""

from __future__ import annotations

import base64
import mimetypes
import re
from os import PathLike
from pathlib import Path
from typing import Final

from engine.values.checks import wrong_type
from engine.values.problems import ConfigurationError

__all__ = ["data_url", "file_type", "image_type", "read_bytes"]

# The first bytes of files of these kinds.
_SIGNATURES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+\Z")


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Return what a file holds."""
    return Path(path).read_bytes()


def data_url(data: bytes, media_type: str, where: str) -> str:
    """Return bytes as a URL that holds them.

    Raises:
        ConfigurationError: they are not bytes, or there are none, or the media type is none; it names ``where``.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise wrong_type(where, data, "bytes")
    if not data:
        raise ConfigurationError(where, "has no bytes")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.match(media_type):
        raise ConfigurationError(where, 'has a media type that is none, such as "image/png"')
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def image_type(data: bytes, where: str) -> str:
    """Tell what kind of image bytes are.

    Raises:
        ConfigurationError: they begin like none that is known here.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise wrong_type(where, data, "bytes")
    head = bytes(data[:16])
    for signature, media_type in _SIGNATURES:
        if signature.match(head):
            return media_type
    raise ConfigurationError(where, "is no PNG, JPEG, GIF or WebP: say its media type")


def file_type(filename: str, where: str) -> str:
    """Tell what kind of file a name says it is.

    Raises:
        ConfigurationError: there is no name.
    """
    if not isinstance(filename, str) or not filename.strip():
        raise ConfigurationError(f"{where} name", "must be a string that is not empty")
    # Not as the system's tables have it, which differ from one machine to the next.
    return mimetypes.MimeTypes().guess_type(filename)[0] or "application/octet-stream"
