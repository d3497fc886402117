"""A request on its way in: the caller's hook has its say, then the body is written.

All of it happens in the caller's task, before anything is queued or sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from engine.protocol.request_tools import own
from engine.protocol.seals import RefusedSeals
from engine.settings.turn_options import PayloadHook, TurnOptions
from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of
from engine.wire.codec import encode, encode_create
from engine.wire.requests import SOCKET_ONLY, CreateText

__all__ = ["Submission", "create_text", "hooked"]


class Submission:
    """The request and the settings that a caller submits as one turn.

    Args:
        body: The request's body.
        options: The caller's options.

    Attributes:
        body: The request's body, as the caller's hook left it; empty once the turn is over.
        size: Bytes of the whole request, as UTF-8; 0 before it is encoded.
        model: The model that is asked.
        text_format: The form that the text of a whole answer has to have; None for any text.
        warm_up: Whether a fresh connection is to be prepared first.
    """

    def __init__(self, body: dict[str, Any], options: TurnOptions) -> None:
        self.body: dict[str, Any] = body
        self.size: int = 0
        self.text_format: Mapping[str, Any] | type | None = options.text_format
        self.warm_up: bool = bool(options.warm_up)
        self._hook = options.payload_hook
        self._text: CreateText | None = None

    @property
    def model(self) -> str | None:
        """The model that is asked."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None

    def prepend(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Make the input an addition to these items."""
        given = self.body.get("input")
        if items and isinstance(given, list):
            self.body["input"] = [*items, *given]

    @property
    def hooked(self) -> bool:
        """Whether the caller's hook is still to be asked."""
        return self._hook is not None

    async def ask_hook(self) -> None:
        """Let the caller's hook change the body; see `hooked`. Cancelling cancels the hook."""
        hook, self._hook = self._hook, None
        self.body = await hooked(self.body, hook)

    def encode(self) -> None:
        """Encode the body.

        Raises:
            ConfigurationError: a field is the library's own, or cannot be written as JSON.
        """
        self._text = create_text(self.body)
        self.size = len(self._text.frame().encode())

    def leave_out(self, refused: RefusedSeals) -> None:
        """Leave out reasoning that the server could not read before; a request that was encoded has to be again."""
        self.body = refused.without(self.body)

    @property
    def text(self) -> CreateText:
        """The body as JSON text."""
        assert self._text is not None
        return self._text

    def forget(self) -> None:
        """Let go of the request: a turn that is kept for its message should not keep it alive."""
        self.body, self._text = {}, None


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
        raise ConfigurationError("options.payload_hook", f"returned {kind_of(changed)}, not a mapping or None")
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
