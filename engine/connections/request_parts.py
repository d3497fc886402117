"""The parts of a side request, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from engine.values.checks import wrong_type
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode

__all__ = ["as_text", "checked_method", "checked_path"]

_METHOD: Final = re.compile(r"[A-Z]{1,20}\Z")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*\Z")  # RFC 3986 section 3.3


def checked_method(method: object) -> str:
    """Return a method, or raise `ConfigurationError`."""
    if not isinstance(method, str):
        raise wrong_type("method", method, "a string")
    if not _METHOD.match(method):
        raise ConfigurationError("method", 'must be a name in capitals, such as "GET"')
    return method


def checked_path(path: object, query: object) -> str:
    """Return a path with its query, or raise `ConfigurationError`."""
    if not isinstance(path, str):
        raise wrong_type("path", path, "a string")
    if not _PATH.match(path) or path.startswith("//") or ".." in path.split("/"):
        raise ConfigurationError("path", 'must begin with one "/" and stay below the base URL, such as "/models"')
    if not isinstance(query, Mapping):
        raise wrong_type("query", query, "a mapping")
    for name, value in query.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("query", "holds a name or a value that is not a string")
    return f"{path}?{urlencode(query)}" if query else path


def as_text(value: Any) -> str:
    """Return a body as JSON text, or raise `ConfigurationError`, whose text does not show it."""
    try:
        return encode(value)
    except (TypeError, ValueError, RecursionError):
        pass
    raise ConfigurationError("json", "cannot be written as JSON")
