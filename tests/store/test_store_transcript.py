"""What the rows of a stored conversation say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

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
    transcript_of,
)

ASKED = UserMessage("what is the weather?")
CALL = ToolCall(id="call_1|fc_1", name="weather", arguments={"city": "Oslo"}, raw_arguments='{"city":"Oslo"}')
CALLING = AssistantMessage((CALL,), stop_reason="tool_use")
OUTPUT = ToolResult("call_1", "sunny")
ANSWER = AssistantMessage((Text("It is sunny."),))
REPORT = TurnReport()


def stored(new: NewRow, number: int = 1) -> Row:
    return Row(number=number, kind=new.kind, prompt=new.prompt, last=new.last, data=new.data, key_id=new.key_id)


def read(*rows: tuple[Kind, dict[str, Any]]) -> Transcript:
    numbered = (
        stored(NewRow(kind=kind, prompt="k", last=False, data=json.dumps(data)), number)
        for number, (kind, data) in enumerate(rows, 1)
    )
    return evolve(transcript_of("s", numbered, None, first=1, last=len(rows)), head=0, digest=None, prompt=None)


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


FASTER = UserMessage("faster")


@pytest.mark.parametrize("waits", [False, True])
def test_a_steered_round_is_all_its_messages(waits: bool) -> None:
    """The input that a response was steered with stands before its successor, or before the outputs of its calls."""
    first = AssistantMessage((Text("I look."),), response_id="resp_1")
    parts = (CALLING, FASTER) if waits else (first, FASTER, CALLING)
    response = AssistantMessage.joined(parts)
    rows = [
        (Kind.RESPONSE, response_row([ASKED], response)),
        (Kind.RESULT, result_row(OUTPUT)),
        (Kind.ROUND, round_row([ASKED], Round(response, (OUTPUT,), REPORT), None)),
    ]
    assert read(*rows[:1]).progress.response == response
    assert read(*rows) == Transcript(messages=(ASKED, *parts, OUTPUT))
    assert read(*rows).answer == response
    left = (Kind.ROUND, round_row([ASKED], Round(response, (), REPORT), "d"))
    assert read(left) == Transcript(waiting=(ASKED, *parts))


def test_a_steered_answer_is_found_whole() -> None:
    response = AssistantMessage.joined((AssistantMessage("It is "), FASTER, ANSWER))
    found = read((Kind.ROUND, round_row([ASKED], Round(response, (), REPORT), "d")))
    assert found == Transcript(messages=(ASKED, *response.parts))
    assert found.answer == response
    assert found.answer.text == "It is It is sunny."


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


def test_what_is_encrypted_is_read_with_its_key_only() -> None:
    old, new = AeadCodec({"a": b"1" * 32}), AeadCodec({"a": b"1" * 32, "b": b"2" * 32})
    row = stored(sealed("s", 1, Kind.ROUND, "k", True, round_row([ASKED], Round(ANSWER, (), REPORT), "d"), old))
    assert isinstance(row.data, bytes)
    assert b"sunny" not in row.data
    assert transcript_of("s", [row], new, first=1).messages == (ASKED, ANSWER)
    assert sealed("s", 1, Kind.ROUND, "k", True, {}, new).key_id == "b"
    for codec, why in (
        (None, "none is given"),
        (AeadCodec({"b": b"2" * 32}), "key that is not here"),
        (AeadCodec({"a": b"3" * 32}), "changed or moved"),
    ):
        with pytest.raises(StoreError, match=f"row 1 of session 's' cannot be read.*{why}"):
            transcript_of("s", [row], codec)


@pytest.mark.parametrize(("session", "number"), [("t", 1), ("s", 2)])
def test_a_row_that_was_moved_is_noticed(session: str, number: int) -> None:
    codec = AeadCodec({"a": b"1" * 16})
    row = stored(sealed("s", 1, Kind.ROUND, "k", True, round_row([ASKED], Round(ANSWER, (), REPORT)), codec), number)
    with pytest.raises(StoreError, match="changed or moved"):
        transcript_of(session, [row], codec)


# --- rows that a disk or a person has changed ------------------------------------------------------------------------


def test_whatever_stands_in_a_row_is_read_or_said_to_be_damaged() -> None:
    good = [
        (Kind.RESPONSE, response_row([ASKED], CALLING)),
        (Kind.RESULT, result_row(OUTPUT)),
        (Kind.ROUND, round_row([ASKED], Round(CALLING, (OUTPUT,), REPORT), None)),
        (Kind.REPLACE, replacement_row([ANSWER])),
    ]
    texts = ["", "[]", "null", "{}", "{", "7", '{"messages":7}', '{"response":[]}', '{"result":[{}]}', '{"prompt":0}']
    for _, plain in good:
        text = json.dumps(plain)
        texts += [text[:cut] for cut in range(0, len(text), 7)]
        texts += [text.replace(word, "x") for word in ("user", "assistant", "tool_call", "call_1", "text", "content")]
    for kind in (*Kind, "another"):
        for text in texts:
            row = Row(number=1, kind=kind, prompt="k", last=False, data=text, key_id=None)
            said = "row 1 of session 's' cannot be read"
            try:
                transcript_of("s", [row], None)
            except StoreError as error:
                said = str(error)
            assert said.startswith("row 1 of session 's' cannot be read")
            assert "sunny" not in said


def test_a_row_that_is_missing_is_said() -> None:
    rows = [
        stored(
            NewRow(kind=Kind.ROUND, prompt="k", last=True, data=json.dumps(round_row([], Round(ANSWER, (), REPORT)))), n
        )
        for n in (1, 2, 3)
    ]
    for left, missing in (([rows[0], rows[2]], 2), (rows[1:], 1), (rows[:2], 3), ([], 1)):
        with pytest.raises(StoreError, match=f"row {missing} of session 's' is missing"):
            transcript_of("s", left, None, first=1, last=3)
    assert transcript_of("s", [rows[0], rows[2]], None).messages == (ANSWER, ANSWER)


def test_outputs_join_a_transcript_as_they_were_sent() -> None:
    shorter = ToolResult("call_1", "su…")
    found = read(
        (Kind.RESPONSE, response_row([ASKED], CALLING)),
        (Kind.RESULT, result_row(OUTPUT)),
        (Kind.ROUND, round_row([ASKED], Round(CALLING, (shorter,), REPORT), shortened=[shorter])),
    )
    assert found.messages == (ASKED, CALLING, shorter)
