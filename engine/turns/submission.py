"""A request on its way in: the caller's hook has its say, then the body is written, once.

All of it happens in the caller's task, before anything is queued or sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import trio

from engine.protocol.request_tools import own
from engine.settings.turn_options import PayloadHook
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode, encode_create
from engine.wire.requests import SOCKET_ONLY, CreateText

__all__ = ["create_text", "hooked"]


async def hooked(body: dict[str, Any], hook: PayloadHook | None) -> dict[str, Any]:
    """Return the body as the caller's hook leaves it; a copy, since the chain will be compared with it.

    Raises:
        ConfigurationError: the hook returned something else than a mapping or None. What it raises passes through.

    Cancelling cancels the hook. Always has a checkpoint.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    if hook is None:
        return body
    changed: Any = hook(body)
    if inspect.isawaitable(changed):
        changed = await changed
    if changed is None:
        changed = body
    if not isinstance(changed, Mapping):
        raise ConfigurationError("options.payload_hook", f"returned a {type(changed).__name__}, not a mapping or None")
    result = own(changed)
    assert isinstance(result, dict)
    return result


def create_text(body: Mapping[str, Any]) -> CreateText:
    """Encode a request body; what is wrong with it is told without its values.

    Raises:
        ConfigurationError: a field is the library's own, or cannot be written as JSON.
    """
    for name in (*SOCKET_ONLY, "stream"):
        if name in body:
            raise ConfigurationError(f"request[{name!r}]", "is set by the library")
    try:
        return encode_create(body)
    except (TypeError, ValueError, RecursionError):
        culprit, problem = _unwritable(body)
    raise ConfigurationError(culprit, problem)


def _unwritable(body: Mapping[str, Any]) -> tuple[str, str]:
    """Find the field that has no JSON form."""
    for name, value in body.items():
        try:
            encode({name: value})
        except TypeError:
            return f"request[{name!r}]", "holds something that JSON does not have"
        except ValueError:
            return f"request[{name!r}]", "holds a number that is not finite, or contains itself"
        except RecursionError:
            return f"request[{name!r}]", "is nested too deep"
    return "request", "cannot be written as JSON"
