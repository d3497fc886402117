"""What the rows of a stored conversation say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine import AssistantMessage, Text, ToolCall, ToolResult, TurnReport, UserMessage
from engine.conversation.rounds import Round
from engine.store.codec import AeadCodec
from engine.store.errors import StoreError
from engine.store.records import Kind, NewRow, Row
from engine.store.transcript import (
    Transcript,
    digest_of,
    replacement_row,
    response_row,
    result_row,
    round_row,
    sealed,
    unsealed,
)

ASKED = UserMessage("what is the weather?")
CALL = ToolCall(id="call_1|fc_1", name="weather", arguments={"city": "Oslo"}, raw_arguments='{"city":"Oslo"}')
CALLING = AssistantMessage((CALL,), stop_reason="tool_use")
OUTPUT = ToolResult("call_1", "sunny")
ANSWER = AssistantMessage((Text("It is sunny."),))
REPORT = TurnReport()


def read(*rows: tuple[Kind, dict[str, Any]]) -> Transcript:
    transcript = Transcript()
    for kind, data in rows:
        transcript = transcript.with_row(kind, json.loads(json.dumps(data)))
    return transcript


def test_a_round_without_calls_is_one_row() -> None:
    found = read((Kind.ROUND, round_row([ASKED], Round(ANSWER, (), REPORT), "d")))
    assert found == Transcript(messages=(ASKED, ANSWER))


def test_a_round_with_calls_is_a_row_for_each_step() -> None:
    rows = [
        (Kind.RESPONSE, response_row([ASKED], CALLING)),
        (Kind.RESULT, result_row(OUTPUT)),
        (Kind.ROUND, round_row([ASKED], Round(CALLING, (OUTPUT,), REPORT), None)),
        (Kind.ROUND, round_row([], Round(ANSWER, (), REPORT), "d")),
    ]
    assert read(*rows[:1]).progress.response == CALLING
    assert read(*rows[:2]).progress.results == {"call_1": OUTPUT}
    assert read(*rows[:2]).messages == ()
    assert read(*rows[:3]) == Transcript(messages=(ASKED, CALLING, OUTPUT))
    assert read(*rows) == Transcript(messages=(ASKED, CALLING, OUTPUT, ANSWER))


def test_calls_that_wait_for_the_caller() -> None:
    found = read((Kind.ROUND, round_row([ASKED], Round(CALLING, (), REPORT), "d")))
    assert found == Transcript(waiting=(ASKED, CALLING))


def test_another_prompt_takes_the_place_of_one_that_was_interrupted() -> None:
    other = UserMessage("and now?")
    found = read(
        (Kind.RESPONSE, response_row([ASKED], CALLING)),
        (Kind.ROUND, round_row([other], Round(ANSWER, (), REPORT), "d")),
    )
    assert found == Transcript(messages=(other, ANSWER))


def test_a_transcript_that_was_replaced() -> None:
    found = read(
        (Kind.ROUND, round_row([ASKED], Round(ANSWER, (), REPORT), "d")), (Kind.REPLACE, replacement_row([ANSWER]))
    )
    assert found == Transcript(messages=(ANSWER,))


def test_prompts_are_told_apart_by_their_digests() -> None:
    assert digest_of([ASKED]) == digest_of([UserMessage("what is the weather?")])
    assert digest_of([ASKED]) != digest_of([UserMessage("what is the weather")])
    assert "weather" not in digest_of([ASKED])


# --- through a codec -------------------------------------------------------------------------------------------------


def stored(new: NewRow, number: int = 1) -> Row:
    return Row(number=number, kind=new.kind, prompt=new.prompt, last=new.last, data=new.data, key_id=new.key_id)


def test_what_is_encrypted_is_read_with_its_key_only() -> None:
    old, new = AeadCodec({"a": b"1" * 32}), AeadCodec({"a": b"1" * 32, "b": b"2" * 32})
    row = stored(sealed("s", 1, Kind.ROUND, "k", True, {"secret": "word"}, old))
    assert isinstance(row.data, bytes)
    assert b"word" not in row.data
    assert unsealed("s", row, new) == {"secret": "word"}
    assert sealed("s", 1, Kind.ROUND, "k", True, {}, new).key_id == "b"
    with pytest.raises(StoreError, match="none is given"):
        unsealed("s", row, None)
    with pytest.raises(StoreError, match="key that is not here"):
        unsealed("s", row, AeadCodec({"b": b"2" * 32}))
    with pytest.raises(StoreError, match="changed or moved"):
        unsealed("s", row, AeadCodec({"a": b"3" * 32}))


@pytest.mark.parametrize(("session", "number"), [("t", 1), ("s", 2)])
def test_a_row_that_was_moved_is_noticed(session: str, number: int) -> None:
    codec = AeadCodec({"a": b"1" * 16})
    row = stored(sealed("s", 1, Kind.ROUND, "k", True, {}, codec), number)
    with pytest.raises(StoreError, match="changed or moved"):
        unsealed(session, row, codec)


def test_what_is_no_row_of_ours_is_said() -> None:
    row = stored(NewRow(kind=Kind.ROUND, prompt=None, last=False, data="[]"))
    with pytest.raises(StoreError, match="cannot be read"):
        unsealed("s", row, None)
