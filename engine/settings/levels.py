"""What holds for every turn of an engine, a session or one turn: each level says what differs from the one above."""

from __future__ import annotations

from typing import Final, TypeVar

from attrs import evolve, fields, frozen

from engine.settings.retry import DEFAULT_RETRY, RetryPolicy
from engine.settings.turn_options import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    UNSET,
    Endpoint,
    Limits,
    OnCancel,
    Timeouts,
    Transport,
)
from engine.values.errors import ConfigurationError

__all__ = ["Settings", "defaults_for", "merge"]

_Layered = TypeVar("_Layered", Timeouts, Limits, RetryPolicy)


def merge(outer: _Layered, inner: _Layered | None, parameter: str) -> _Layered:
    """Return ``outer`` with every field that ``inner`` sets, field by field.

    Raises:
        ConfigurationError: ``inner`` is of another kind; it names ``parameter``.
    """
    if inner is None:
        return outer
    if not isinstance(inner, type(outer)):
        raise ConfigurationError(parameter, f"is a {type(inner).__name__}, not {type(outer).__name__}")
    given = {
        attribute.name: value
        for attribute in fields(type(inner))
        if (value := getattr(inner, attribute.name)) is not UNSET
    }
    return evolve(outer, **given)


@frozen
class Settings:
    """Complete settings: every field of timeouts, limits and retry policy has a value."""

    model: str | None
    timeouts: Timeouts
    limits: Limits
    retry: RetryPolicy
    on_cancel: OnCancel
    transport: Transport

    def over(
        self,
        *,
        model: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        on_cancel: OnCancel | None = None,
        transport: Transport | None = None,
    ) -> Settings:
        """Return these settings with what is given laid over them, field by field.

        Raises:
            ConfigurationError: something given is of the wrong kind.
        """
        if all(each is None for each in (model, timeouts, limits, retry, on_cancel, transport)):
            return self
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise ConfigurationError("model", "must be a string that is not empty")
        if on_cancel is not None and not isinstance(on_cancel, OnCancel):
            raise ConfigurationError("on_cancel", f"is a {type(on_cancel).__name__}, not an OnCancel")
        if transport is not None and not isinstance(transport, Transport):
            raise ConfigurationError("transport", f"is a {type(transport).__name__}, not a Transport")
        return Settings(
            model=self.model if model is None else model,
            timeouts=merge(self.timeouts, timeouts, "timeouts"),
            limits=merge(self.limits, limits, "limits"),
            retry=merge(self.retry, retry, "retry"),
            on_cancel=self.on_cancel if on_cancel is None else on_cancel,
            transport=self.transport if transport is None else transport,
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
    """Return what holds where nobody says otherwise, for that kind of server."""
    lifetime = endpoint.server.connection_lifetime
    return evolve(_DEFAULTS, limits=evolve(DEFAULT_LIMITS, connection_lifetime=lifetime))
