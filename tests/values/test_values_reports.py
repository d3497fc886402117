"""Reports and statistics: plain frozen records."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import attrs
import pytest

from engine.values.choices import Delivery
from engine.values.reports import PhaseSeconds, TurnReport
from engine.values.statistics import ConnectionStatistics, EngineStatistics, SessionStatistics
from engine.values.usage import Usage

CONNECTION = ConnectionStatistics(
    state="open",
    requests=1,
    in_flight=0,
    bytes_sent=2,
    bytes_received=3,
    events=4,
    dropped=0,
    malformed=0,
    outbox_bytes=0,
    retired_because=None,
)
SESSION = SessionStatistics(
    queued=0,
    active=1,
    turns_started=1,
    turns_completed=0,
    turns_failed=0,
    turns_abandoned=0,
    retries=0,
    fallbacks=0,
    refused_seals=0,
    usage=Usage(1, 2, 3),
    connections_opened=1,
    connections=(CONNECTION,),
)
RECORDS = [TurnReport(), PhaseSeconds(), CONNECTION, SESSION, EngineStatistics(sessions={"a": SESSION}, closing=0)]


@pytest.mark.parametrize("record", RECORDS)
def test_records_are_frozen_values(record: Any) -> None:
    assert copy.deepcopy(record) == pickle.loads(pickle.dumps(record)) == record
    for name in attrs.fields_dict(type(record)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, name, None)


def test_a_turn_that_never_started() -> None:
    report = TurnReport()
    assert report.delivery is Delivery.NOT_SENT
    assert (report.transport, report.attempts, report.cached_tokens, report.response_id) == (None, 0, None, None)
    assert attrs.astuple(report.seconds) == (None,) * 5


@pytest.mark.parametrize("kind", [type(record) for record in RECORDS])
def test_every_field_is_described(kind: type) -> None:
    described = inspect.getdoc(kind) or ""  # without the indentation, which Python 3.13 takes away by itself
    for name in attrs.fields_dict(kind):
        assert f"\n    {name}: " in described


def test_delivery_states() -> None:
    assert [state.value for state in Delivery] == ["not_sent", "ambiguous", "accepted", "rejected"]
