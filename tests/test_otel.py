"""Traces and metrics, as an application's SDK gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.instruments import ToolEndInfo, ToolStartInfo
from engine.otel import CONVENTIONS, OtelInstrument
from engine.simulator import Abort, Created, Error, Reject, SayDelta, Script, Stall

SECRET = "never to be traced"


class Telemetry:
    """An SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self._metrics])
        self.instrument = OtelInstrument(self.tracers, self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def metrics(self) -> dict[str, list[Any]]:
        data = self._metrics.get_metrics_data()
        if data is None:
            return {}
        found = {}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


@pytest.mark.parametrize("version", CONVENTIONS)
async def test_a_turn(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    names = CONVENTIONS[version]
    monkeypatch.setenv(
        "OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental" if version == "latest" else ""
    )
    telemetry = Telemetry()
    async with session_to(model="gpt-5.4", instruments=[telemetry.instrument]) as (session, _):
        reply = await session.ask("What is 2+2?")
        assert "engine.connections.open" in telemetry.metrics()
    span = telemetry.span
    assert span.name == "chat gpt-5.4"
    assert span.kind is trace.SpanKind.CLIENT
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.schema_url == names.schema_url
    assert reply.usage is not None
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5.4",
        "gen_ai.response.model": reply.model,
        "gen_ai.response.id": reply.response_id,
        "gen_ai.usage.input_tokens": reply.usage.input_tokens,
        "gen_ai.usage.output_tokens": reply.usage.output_tokens,
        "engine.session": session.id,
        "engine.attempts": 1,
        "engine.transport": "websocket",
    }
    assert expected.items() <= dict(attributes(span)).items()
    assert [name for name, _ in events(span)] == ["engine.attempt"]
    assert span.status.is_unset
    metrics = telemetry.metrics()
    assert {names.duration, names.first_chunk, names.input_tokens, names.output_tokens} <= set(metrics)
    (duration,) = metrics[names.duration]
    assert duration.count == 1
    assert duration.attributes["gen_ai.request.model"] == "gpt-5.4"
    counted = sum(point.sum for name in {names.input_tokens, names.output_tokens} for point in metrics[name])
    assert counted == (reply.usage.input_tokens or 0) + (reply.usage.output_tokens or 0)
    (connections,) = metrics["engine.connections.open"]
    assert connections.value == 0
    assert {point.attributes["engine.phase"] for point in metrics["engine.turn.phase.duration"]} >= {"queue", "connect"}


async def test_a_turn_belongs_to_what_is_going_on_around_it(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    tracer = telemetry.tracers.get_tracer("program")
    async with session_to(instruments=[telemetry.instrument]) as (session, _):
        with tracer.start_as_current_span("outer") as outer:
            await session.ask("hi")
    turn, _ = telemetry.spans
    assert turn.parent is not None
    assert turn.parent.span_id == outer.get_span_context().span_id


async def test_attempts_are_events_of_one_span(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    brain = Script([[Created(), Abort()], "There."])
    async with session_to(brain, instruments=[telemetry.instrument]) as (session, _):
        assert (await session.ask("hi")).text == "There."
    names = [name for name, _ in events(telemetry.span)]
    assert names.count("engine.attempt") == 2
    assert names[1] in {"engine.retry", "engine.fallback"}
    assert attributes(telemetry.span)["engine.attempts"] == 2


async def test_a_fallback_is_an_event(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    async with session_to(sim_options={"handshake": Reject(426)}, instruments=[telemetry.instrument]) as (session, _):
        await session.ask("hi")
    assert events(telemetry.span)[0][0] == "engine.fallback"
    assert attributes(telemetry.span)["engine.transport"] == "sse"
    (fallbacks,) = telemetry.metrics()["engine.turn.fallbacks"]
    assert fallbacks.value == 1
    assert "engine.connections.open" not in telemetry.metrics()


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([Error(400, "model_not_found", SECRET)], "model_not_found"),
        ([Created(), Stall()], "timeout.idle"),
        ([SayDelta("half"), Abort()], "ConnectionLost"),
    ],
    ids=["refused", "silent", "lost"],
)
async def test_a_failure_is_an_error_without_content(autojump_clock: MockClock, steps: list[Any], kind: str) -> None:
    telemetry = Telemetry()
    async with session_to(Script([steps]), instruments=[telemetry.instrument]) as (session, _):
        with pytest.raises(engine.TurnError):
            await session.ask(SECRET, timeouts=engine.Timeouts(idle=5))
    span = telemetry.span
    assert attributes(span)["error.type"] == kind
    assert span.status.status_code is trace.StatusCode.ERROR
    assert SECRET not in span.to_json()
    (duration,) = telemetry.metrics()[CONVENTIONS["1.41.0"].duration]
    assert duration.attributes["error.type"] == kind


async def test_a_turn_that_is_left_is_no_error(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    async with session_to(Script([[SayDelta("half"), Stall()]]), instruments=[telemetry.instrument]) as (session, _):
        with trio.move_on_after(3):
            await session.ask("hi")
    assert attributes(telemetry.span)["engine.left"] is True
    assert telemetry.span.status.is_unset
    (left,) = telemetry.metrics()["engine.turn.cancelled"]
    assert left.value == 1


@pytest.mark.parametrize("captured", [False, True])
def test_a_tool_is_a_span_and_what_it_does_is_below(monkeypatch: pytest.MonkeyPatch, captured: bool) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true" if captured else "")
    telemetry = Telemetry()
    call: dict[str, Any] = {"session": "s", "lane": None, "call_id": "c", "name": "look_up"}
    telemetry.instrument.tool_started(ToolStartInfo(**call, arguments={"key": SECRET}))
    with telemetry.tracers.get_tracer("program").start_as_current_span("database"):
        pass
    result = engine.ToolResult("c", SECRET, is_error=True)
    telemetry.instrument.tool_ended(ToolEndInfo(**call, seconds=0.5, result=result, error=ValueError(SECRET)))
    assert trace.get_current_span() is trace.INVALID_SPAN
    inner, tool = telemetry.spans
    assert tool.name == "execute_tool look_up"
    assert inner.parent is not None
    assert tool.context is not None
    assert inner.parent.span_id == tool.context.span_id
    assert attributes(tool)["error.type"] == "ValueError"
    assert (SECRET in tool.to_json()) == captured
    (duration,) = telemetry.metrics()[CONVENTIONS["1.41.0"].tool_duration]
    assert duration.sum == 0.5


def test_the_globals_of_the_program_are_used_by_default() -> None:
    OtelInstrument()  # does nothing, and fails nothing, where no SDK is set up
