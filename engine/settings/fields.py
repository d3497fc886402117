"""The keywords of calls: the settings of an engine or a session, and the options and settings of one request.

Each set is written once, as a TypedDict that calls unpack: ``**fields: Unpack[TurnFields]``. Type checkers read it
there; `spelled_out` shows it to ``help``, to `inspect.signature` and to the completion of notebooks.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar, Unpack

from attrs import evolve, fields_dict

from engine.settings.levels import Settings
from engine.settings.limits import Limits
from engine.settings.retry import RetryPolicy
from engine.settings.timeouts import Timeouts
from engine.settings.turn_options import PayloadHook, TurnOptions
from engine.values.checks import wrong_type
from engine.values.choices import UNSET, OnCancel, OnCancelName, Transport, TransportName
from engine.values.problems import ConfigurationError

__all__ = ["SessionFields", "TurnFields", "check_names", "options_with", "settings_with", "spelled_out"]


class SessionFields(TypedDict, total=False):
    """The settings of an engine's or a session's turns. One that is absent or None is decided further out.

    Attributes:
        model: The model of requests that name none.
        timeouts: Budgets, field by field over those further out.
        limits: Limits, field by field over those further out.
        retry: Bounds on trying again, field by field over what holds further out.
        on_cancel: The fate of a connection whose turn was left early; an `engine.OnCancel` or its string.
        transport: The transport of requests; an `engine.Transport` or its string.
    """

    model: str | None
    timeouts: Timeouts | None
    limits: Limits | None
    retry: RetryPolicy | None
    on_cancel: OnCancel | OnCancelName | None
    transport: Transport | TransportName | None


class TurnFields(TypedDict, total=False):
    """The options of one request, and the settings of its turn.

    The fields of `engine.TurnOptions`, laid over those of its options: what is absent is left as it is there, and None
    means that the field is not sent. The rest is as for a session.
    """

    model: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    reasoning_summary: str | None
    text_verbosity: str | None
    text_format: Any
    store: bool | None
    include: Sequence[str] | None
    service_tier: str | None
    truncation: str | None
    metadata: Mapping[str, str] | None
    prompt_cache_key: str | None
    safety_identifier: str | None
    context_management: Sequence[Mapping[str, Any]] | None
    conversation: str | Mapping[str, Any] | None
    previous_response_id: str | None
    warm_up: bool
    extra: Mapping[str, Any]
    payload_hook: PayloadHook | None
    timeouts: Timeouts | None
    limits: Limits | None
    retry: RetryPolicy | None
    on_cancel: OnCancel | OnCancelName | None
    transport: Transport | TransportName | None


_NO_OPTIONS: Final = TurnOptions()
_OF_OPTIONS: Final = frozenset(fields_dict(TurnOptions))
# What other libraries, and the wire, call what is called otherwise here; a name that looks alike would mislead.
_ELSEWHERE: Final = {
    "stream": "session.turn(…) streams, session.ask(…) does not",
    "system": "Did you mean 'instructions'?",
    "input": "That is the first argument, the prompt: a text, messages or a Context",
    "messages": "That is the first argument, the prompt: a text, messages or a Context",
    "max_tokens": "Did you mean 'max_output_tokens'?",
    "response_format": "Did you mean 'text_format'? Or session.parse(prompt, Type)",
    "reasoning": "Did you mean 'reasoning_effort'?",
    "text": "Did you mean 'text_format' or 'text_verbosity'?",
    "user": "Did you mean 'safety_identifier'?",
    "functions": "Did you mean 'tools'?",
    "max_retries": "Did you mean 'retry'? It takes a RetryPolicy",
}
_OF_TURNS: Final = tuple(name for name in SessionFields.__annotations__ if name != "model")


def check_names(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse keywords that a call does not have.

    Raises:
        ConfigurationError: one of them is ``timeout``, which says nothing about which wait it means.
        TypeError: there is no such keyword, as Python says it of a call that lists its own.
    """
    for name in given:
        if name in known:
            continue
        if name == "timeout":
            raise ConfigurationError("timeout", "there are several; for all of a turn write timeouts=Timeouts(turn=…)")
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{_hint(name, known)}")


def _hint(name: str, known: Collection[str]) -> str:
    if name in _ELSEWHERE and "temperature" in known:
        return f". {_ELSEWHERE[name]}"
    near = difflib.get_close_matches(name, list(known), 1)
    if near:
        return f". Did you mean {near[0]!r}?"
    return f". Another field of the request is sent by extra={{{name!r}: …}}" if "extra" in known else ""


def options_with(options: TurnOptions | None, fields: Mapping[str, Any], call: str = "turn") -> TurnOptions:
    """Return options with the fields of a call laid over them.

    Raises:
        ConfigurationError: one of them is wrong; it names it.
        TypeError: there is no such field.
    """
    if options is not None and not isinstance(options, TurnOptions):
        raise wrong_type("options", options, "TurnOptions")
    base = _NO_OPTIONS if options is None else options
    if not fields:
        return base
    check_names(call, fields, TurnFields.__annotations__)
    given = {name: value for name, value in fields.items() if name in _OF_OPTIONS}
    return evolve(base, **given) if given else base


def settings_with(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    """Return settings with those fields of a turn laid over them that are about the turn.

    Raises:
        ConfigurationError: one of them is wrong; it names it.
    """
    if not fields:
        return settings
    return settings.merged(**{name: fields[name] for name in _OF_TURNS if name in fields})


_Called = TypeVar("_Called", bound=Callable[..., Any])


def spelled_out(function: _Called) -> _Called:
    """Give a function that unpacks a TypedDict the signature it would have if it listed the fields itself."""
    signature = inspect.signature(function)
    listed: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            listed.append(parameter)
            continue
        kind = _unpacked(function, parameter)
        nothing = UNSET if kind is TurnFields else None
        listed += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=nothing, annotation=_shown(annotation))
            for name, annotation in kind.__annotations__.items()
        ]
    function.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]
    return function


def _unpacked(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, {**vars(typing), **function.__globals__})  # noqa: S307 - it is our own source
    assert typing.get_origin(annotation) is Unpack
    return typing.get_args(annotation)[0]


def _shown(annotation: Any) -> Any:
    return annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
