"""Traces and metrics in OpenTelemetry's terms: an instrument for ``open_engine(instruments=[OtelInstrument()])``.

Needs the extra ``otel``, which is OpenTelemetry's API alone; where spans and measurements go is the program's affair.

The conventions for generative AI are still in development, and moved and renamed in 2026. What is emitted follows
version 1.41.0, the last one in OpenTelemetry's main repository. ``OTEL_SEMCONV_STABILITY_OPT_IN`` with
``gen_ai_latest_experimental`` among its words takes those of the repository of their own that followed it. One table,
`CONVENTIONS`, has the names of both.

A turn is a client span ``chat {model}``, as long as the turn with all its attempts. Attempts, waits and fallbacks are
events of it: no backend counts them as calls of a model. A tool is a span ``execute_tool {name}``, which is current
while the tool runs, so that what the tool does is traced below it. Prompts and replies are not recorded; a tool's
arguments and output are where ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``true``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextvars import Token
from importlib.metadata import version
from typing import Final

from attrs import define, frozen
from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.util.types import AttributeValue

from engine.instruments import (
    ConnectionInfo,
    FallbackInfo,
    Instrument,
    RequestInfo,
    RetryInfo,
    RotationInfo,
    ToolEndInfo,
    ToolStartInfo,
    TurnEndInfo,
    TurnStartInfo,
)
from engine.settings.profiles import profile_of
from engine.values.errors import RequestRejected, ResponseFailed, TurnTimeout

__all__ = ["CONVENTIONS", "Convention", "OtelInstrument"]

_SCOPE: Final = "engine.otel"
_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_NEWEST: Final = "gen_ai_latest_experimental"
_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_PROVIDERS: Final = {"openai": "openai", "azure": "azure.ai.openai", "xai": "x_ai"}
"""The conventions' names of the servers that profiles know; any other speaks OpenAI's protocol, and is called so."""

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(float(4**power) for power in range(14))


@frozen(kw_only=True)
class Convention:
    """The names that one version of the conventions has for our facts.

    Attributes:
        schema_url: The URL of its schema, which tracer and meter are made with.
        duration: The histogram of a turn's seconds.
        first_chunk: The histogram of the seconds until a turn's first event.
        tool_duration: The histogram of a tool's seconds.
        input_tokens: The histogram of a turn's input tokens.
        output_tokens: The histogram of its output tokens.
        token_type: The attribute that tells the two apart, where both go to one histogram.
    """

    schema_url: str
    duration: str
    first_chunk: str
    tool_duration: str
    input_tokens: str
    output_tokens: str
    token_type: str | None


CONVENTIONS: Final[Mapping[str, Convention]] = {
    "1.41.0": Convention(
        schema_url="https://opentelemetry.io/schemas/1.41.0",
        duration="gen_ai.client.operation.duration",
        first_chunk="gen_ai.client.operation.time_to_first_chunk",
        tool_duration="engine.tool.duration",
        input_tokens="gen_ai.client.token.usage",
        output_tokens="gen_ai.client.token.usage",
        token_type="gen_ai.token.type",  # noqa: S106
    ),
    "latest": Convention(
        schema_url="https://opentelemetry.io/schemas/gen-ai/1.42.0",
        duration="gen_ai.client.inference.duration",
        first_chunk="gen_ai.client.inference.time_to_first_chunk",
        tool_duration="gen_ai.execute_tool.duration",
        input_tokens="gen_ai.client.inference.operation.input_tokens",
        output_tokens="gen_ai.client.inference.operation.output_tokens",
        token_type=None,
    ),
}
"""The conventions by version, the default one first. Names of attributes and spans are the same in both."""


def _convention() -> Convention:
    wishes = {wish.strip() for wish in os.environ.get(_OPT_IN, "").split(",")}
    return CONVENTIONS["latest" if _NEWEST in wishes else "1.41.0"]


@define
class _Running:
    """A turn that has not ended."""

    span: trace.Span
    measured: dict[str, AttributeValue]


_Turn = tuple[str, str | None, int]


class OtelInstrument(Instrument):
    """Makes spans and measurements of turns, tools and connections.

    Args:
        tracer_provider: The provider of the tracer that makes the spans; None for the program's global one.
        meter_provider: The provider of the meter that makes the instruments; None for the global one.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        convention = self._convention = _convention()
        self._content = os.environ.get(_CAPTURE, "").strip().lower() in {"true", "1", "span_only", "span_and_event"}
        ours = version("trio-session-engine")
        self._tracer = trace.get_tracer(_SCOPE, ours, tracer_provider, schema_url=convention.schema_url)
        meter = metrics.get_meter(_SCOPE, ours, meter_provider, schema_url=convention.schema_url)
        self._turns: dict[_Turn, _Running] = {}
        self._tools: dict[tuple[str, str], tuple[trace.Span, Token[otel_context.Context]]] = {}
        self._open: set[tuple[str, int]] = set()
        self._duration = meter.create_histogram(
            convention.duration, "s", "Duration of a turn.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._first = meter.create_histogram(
            convention.first_chunk, "s", "Time to a turn's first event.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._tool_duration = meter.create_histogram(
            convention.tool_duration, "s", "Duration of a tool.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._tokens = {
            name: meter.create_histogram(
                name, "{token}", "Tokens of a turn.", explicit_bucket_boundaries_advisory=_TOKENS
            )
            for name in dict.fromkeys((convention.input_tokens, convention.output_tokens))
        }
        self._phases = meter.create_histogram(
            "engine.turn.phase.duration",
            "s",
            "Seconds of a turn by phase.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._retries = meter.create_counter("engine.turn.retries", "{retry}", "Turns that were tried again.")
        self._fallbacks = meter.create_counter("engine.turn.fallbacks", "{turn}", "Turns that went over HTTP instead.")
        self._cancelled = meter.create_counter("engine.turn.cancelled", "{turn}", "Turns that were left early.")
        self._connections = meter.create_up_down_counter(
            "engine.connections.open", "{connection}", "Connections that are open."
        )
        self._rotations = meter.create_counter(
            "engine.connections.rotated", "{connection}", "Connections that grew too old."
        )

    # --- turns ---

    def turn_started(self, info: TurnStartInfo, /) -> None:
        """Begin the span of a turn, below the span that is current where the turn was made."""
        host, port = _address(info.server)
        profile = profile_of(None, host).name
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(profile, "openai"),
            "server.address": host,
            "server.port": port,
        }
        if info.model is not None:
            attributes["gen_ai.request.model"] = info.model
        own: dict[str, AttributeValue] = {
            "gen_ai.request.stream": True,
            "engine.session": info.session,
            "engine.turn": info.turn,
        }
        if info.lane is not None:
            own["engine.lane"] = info.lane
        span = self._tracer.start_span(
            f"chat {info.model}" if info.model else "chat", kind=trace.SpanKind.CLIENT, attributes=attributes | own
        )
        self._turns[info.session, info.lane, info.turn] = _Running(span, attributes)

    def request_sent(self, info: RequestInfo, /) -> None:
        """Note an attempt."""
        facts: dict[str, AttributeValue] = {
            "engine.attempt": info.attempt,
            "engine.connection": info.connection,
            "engine.transport": info.transport.value,
            "engine.bytes": info.size,
        }
        self._note((info.session, info.lane, info.turn), "engine.attempt", facts)

    def retry(self, info: RetryInfo, /) -> None:
        """Note that the turn is tried again, and after which wait."""
        facts: dict[str, AttributeValue] = {"engine.reason": info.reason, "engine.seconds": info.seconds}
        self._note((info.session, info.lane, info.turn), "engine.retry", facts)
        self._retries.add(1, {"engine.reason": info.reason})

    def fallback(self, info: FallbackInfo, /) -> None:
        """Note that the turn goes over HTTP."""
        self._note((info.session, info.lane, info.turn), "engine.fallback", {"engine.reason": info.reason})
        self._fallbacks.add(1)

    def _note(self, turn: _Turn, name: str, facts: Mapping[str, AttributeValue]) -> None:
        running = self._turns.get(turn)
        if running is not None:
            running.span.add_event(name, facts)

    def turn_ended(self, info: TurnEndInfo, /) -> None:
        """End the span, and measure the turn."""
        running = self._turns.pop((info.session, info.lane, info.turn), None)
        if running is None:
            return
        span, measured, report = running.span, running.measured, info.report
        if report.response_id is not None:
            span.set_attribute("gen_ai.response.id", report.response_id)
        if report.model is not None:
            span.set_attribute("gen_ai.response.model", report.model)
            measured["gen_ai.response.model"] = report.model
        if report.transport is not None:
            span.set_attribute("engine.transport", report.transport.value)
        span.set_attribute("engine.attempts", report.attempts)
        span.set_attribute("engine.delivery", report.delivery.value)
        span.set_attribute("engine.continued", report.continued)
        self._count_tokens(span, info, measured)
        if info.error is not None:
            measured["error.type"] = kind = _kind(info.error)
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR, str(info.error))  # texts of ours hold no content
        elif not info.answered:
            span.set_attribute("engine.left", True)
            self._cancelled.add(1, measured)
        self._measure(info, measured)
        span.end()

    def _count_tokens(self, span: trace.Span, info: TurnEndInfo, measured: Mapping[str, AttributeValue]) -> None:
        usage = info.report.usage
        if usage is None:
            return
        names = self._convention
        for name, kind, histogram, count in (
            ("gen_ai.usage.input_tokens", "input", names.input_tokens, usage.input_tokens),
            ("gen_ai.usage.output_tokens", "output", names.output_tokens, usage.output_tokens),
        ):
            if count is not None:
                span.set_attribute(name, count)
                told = {} if names.token_type is None else {names.token_type: kind}
                self._tokens[histogram].record(count, {**measured, **told})
        for name, count in (
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
        ):
            if count is not None:
                span.set_attribute(name, count)

    def _measure(self, info: TurnEndInfo, measured: Mapping[str, AttributeValue]) -> None:
        seconds = info.report.seconds
        if seconds.total is not None:
            self._duration.record(seconds.total, measured)
        if seconds.first_event is not None:
            self._first.record(seconds.first_event, measured)
        for phase in ("queue", "connect", "send", "first_event"):
            spent = getattr(seconds, phase)
            if spent is not None:
                self._phases.record(spent, {"engine.phase": phase})

    # --- tools ---

    def tool_started(self, info: ToolStartInfo, /) -> None:
        """Begin the span of a tool, and make it current in the tool's task."""
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": info.name,
            "gen_ai.tool.call.id": info.call_id,
            "gen_ai.tool.type": "function",
            "engine.session": info.session,
        }
        if self._content:
            attributes["gen_ai.tool.call.arguments"] = json.dumps(dict(info.arguments), default=str)
        span = self._tracer.start_span(f"execute_tool {info.name}", attributes=attributes)
        token = otel_context.attach(trace.set_span_in_context(span))
        self._tools[info.session, info.call_id] = span, token

    def tool_ended(self, info: ToolEndInfo, /) -> None:
        """End the span of a tool, and measure it."""
        running = self._tools.pop((info.session, info.call_id), None)
        if running is None:
            return
        span, token = running
        otel_context.detach(token)
        measured: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": info.name,
        }
        failed = info.error is not None or (info.result is not None and info.result.is_error)
        if failed:
            measured["error.type"] = kind = "_OTHER" if info.error is None else type(info.error).__qualname__
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR)
        if self._content and info.result is not None:
            span.set_attribute("gen_ai.tool.call.result", info.result.text)
        self._tool_duration.record(info.seconds, measured)
        span.end()

    # --- connections ---

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        """Count a connection in."""
        self._open.add((info.session, info.connection))
        self._connections.add(1)

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        """Count a connection out, unless it never was open."""
        if (info.session, info.connection) in self._open:
            self._open.discard((info.session, info.connection))
            self._connections.add(-1)

    def rotation(self, info: RotationInfo, /) -> None:
        """Count a connection that grew too old."""
        self._rotations.add(1)


def _address(server: str) -> tuple[str, int]:
    """Host and port of a server, as it is shown."""
    host, colon, port = server.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return server.strip("[]"), 443


def _kind(error: Exception) -> str:
    """A class of errors of low cardinality: the server's code, the budget, or the exception's class."""
    match error:
        case RequestRejected(code=str(code)) | ResponseFailed(code=str(code)):
            return code
        case RequestRejected(status=int(status)):
            return str(status)
        case TurnTimeout(phase=phase):
            return f"timeout.{phase}"
        case _:
            return type(error).__qualname__


def __dir__() -> list[str]:
    return sorted(__all__)
