"""JSON text to Python values, by the standard library, or by msgspec where the ``fast`` extra is installed.

msgspec is tried first. Where it refuses (a number too large for a double, half a surrogate pair, what is no JSON) the
standard library decides, so that results and refusals are the same with and without it. orjson would be as fast, and is
no choice: it turns whole numbers beyond 64 bits into floats.

Text is read strictly (RFC 8259): ``NaN`` and ``Infinity``, which Python's parser would admit, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, Final, NoReturn

try:
    import msgspec
except ImportError:  # the extra is not installed
    _fast: Callable[[str], Any] | None = None
else:
    _fast = msgspec.json.Decoder().decode

__all__ = ["DECODER", "read", "read_all", "read_quickly"]

DECODER: Final[str] = "json" if _fast is None else "msgspec"
"""The name of the reader that is tried first; ``session-engine --version`` prints it."""


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")


_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_raw_decode: Final = _decoder.raw_decode


def read(text: str) -> Any:
    """Return the value of a text, by the standard library.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return _decoder.decode(text)


def _read_quickly(text: str) -> Any:
    """Return the value of a text that begins and ends with it, or None; for what arrives a hundred times a second."""
    try:
        value, end = _raw_decode(text)  # without the checks of arguments and the search for white space
    except (ValueError, RecursionError):
        return None
    return value if end == len(text) else None


def _read_with_msgspec(text: str) -> Any:
    assert _fast is not None
    try:
        return _fast(text)
    except (ValueError, RecursionError):
        return _read_quickly(text)


read_quickly: Final[Callable[[str], Any]] = _read_quickly if _fast is None else _read_with_msgspec
"""Return the value of a text, or None where `read` has to look at it: whatever is no plain JSON."""


# Stands between texts that are read as one. No peer can know it: texts that are no JSON by themselves cannot pass for
# JSON together.
_MARK: Final = token_hex(8)
_BETWEEN: Final = f',"{_MARK}",'


def _read_as_one(texts: Sequence[str]) -> list[Any]:
    """Read all texts in one go, which saves a fifth: members' names are read once, and one call does it."""
    if len(texts) > 1:
        values, marks = _read_quickly(f"[{_BETWEEN.join(texts)}]"), len(texts) - 1
        if values.__class__ is list and len(values) == len(texts) + marks and values[1::2].count(_MARK) == marks:
            return values[::2]
    return [_read_quickly(text) for text in texts]


def _read_all_with_msgspec(texts: Sequence[str]) -> list[Any]:
    assert _fast is not None
    try:
        return [_fast(text) for text in texts]
    except (ValueError, RecursionError):
        return [_read_with_msgspec(text) for text in texts]


read_all: Final[Callable[[Sequence[str]], list[Any]]] = _read_as_one if _fast is None else _read_all_with_msgspec
"""Return the value of each text, or None where `read` has to look at it: whatever is no plain JSON."""
