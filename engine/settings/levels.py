"""The settings of an engine, a session and a turn: each level says what differs from the one above."""

from __future__ import annotations

import math
from typing import Any, Final, overload

from attrs import evolve, fields_dict, frozen

from engine.settings.endpoint import Endpoint
from engine.settings.limits import DEFAULT_LIMITS, Limits, ResolvedLimits
from engine.settings.retry import DEFAULT_RETRY, ResolvedRetry, RetryPolicy
from engine.settings.timeouts import DEFAULT_TIMEOUTS, ResolvedTimeouts, Timeouts
from engine.values.checks import wrong_type
from engine.values.choices import UNSET, OnCancel, OnCancelName, Transport, TransportName, choice
from engine.values.problems import ConfigurationError

__all__ = ["Settings", "defaults_for", "merge"]

_GIVEN_AS: Final[dict[type, type]] = {ResolvedTimeouts: Timeouts, ResolvedLimits: Limits, ResolvedRetry: RetryPolicy}


@overload
def merge(outer: ResolvedTimeouts, inner: Timeouts | None, parameter: str) -> ResolvedTimeouts: ...
@overload
def merge(outer: ResolvedLimits, inner: Limits | None, parameter: str) -> ResolvedLimits: ...
@overload
def merge(outer: ResolvedRetry, inner: RetryPolicy | None, parameter: str) -> ResolvedRetry: ...
def merge(outer: Any, inner: object, parameter: str) -> Any:
    """Return ``outer`` with every field that ``inner`` sets, field by field.

    Raises:
        ConfigurationError: ``inner`` is of another kind; it names ``parameter``.
    """
    if inner is None:
        return outer
    kind = _GIVEN_AS[type(outer)]
    if not isinstance(inner, kind):
        raise wrong_type(parameter, inner, kind.__name__)
    values = {name: getattr(inner, name) for name in fields_dict(kind)}
    # Only seconds can be None, and then there is no end to them.
    return evolve(
        outer,
        **{name: math.inf if value is None else value for name, value in values.items() if value is not UNSET},
    )


@frozen
class Settings:
    """Complete settings: every field of timeouts, limits and retry policy has a value."""

    model: str | None
    timeouts: ResolvedTimeouts
    limits: ResolvedLimits
    retry: ResolvedRetry
    on_cancel: OnCancel
    transport: Transport

    def merged(
        self,
        *,
        model: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | OnCancelName | None = None,
        transport: Transport | TransportName | None = None,
    ) -> Settings:
        """Return these settings with what is given laid over them, field by field.

        Raises:
            ConfigurationError: something given is of the wrong kind.
        """
        if all(each is None for each in (model, timeouts, limits, retry, on_cancel, transport)):
            return self
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise ConfigurationError("model", "must be a string that is not empty")
        return Settings(
            model=self.model if model is None else model,
            timeouts=merge(self.timeouts, timeouts, "timeouts"),
            limits=merge(self.limits, limits, "limits"),
            retry=merge(self.retry, retry, "retry"),
            on_cancel=self.on_cancel if on_cancel is None else choice(OnCancel, on_cancel, "on_cancel"),
            transport=self.transport if transport is None else choice(Transport, transport, "transport"),
        )


_DEFAULTS: Final = Settings(
    model=None,
    timeouts=DEFAULT_TIMEOUTS,
    limits=DEFAULT_LIMITS,
    retry=DEFAULT_RETRY,
    on_cancel=OnCancel.CLOSE,
    transport=Transport.AUTO,
)


def defaults_for(endpoint: Endpoint) -> Settings:
    """Return the defaults, for that kind of server."""
    lifetime = endpoint.server.connection_lifetime
    return evolve(_DEFAULTS, limits=evolve(DEFAULT_LIMITS, connection_lifetime=lifetime))
