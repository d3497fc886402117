"""When a request may build on what the server holds, and the reason when it may not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.chain import NEUTRAL_FIELDS, Chain, HeldResponse, Plan, canonical, plan
from engine.settings.turn_options import TurnOptions
from engine.wire.codec import encode_create

USER = {"type": "message", "role": "user", "content": "hi"}
ASSISTANT = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yo"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "7"}
BODY = {"model": "m", "store": False, "input": [USER]}


def held(output: Any = (ASSISTANT,), **fields: Any) -> HeldResponse:
    result = HeldResponse.after("resp_1", {**BODY, **fields}, output)
    assert result is not None
    return result


def extended(*items: Any, **fields: Any) -> dict[str, Any]:
    return {**BODY, "input": [USER, ASSISTANT, *items], **fields}


def test_an_extension_sends_only_what_is_new() -> None:
    assert plan(held(), extended(USER)) == Plan("resp_1", skip=2)


def test_an_empty_delta_is_legal() -> None:
    assert plan(held(), extended()) == Plan("resp_1", skip=2)


@pytest.mark.parametrize("name", sorted(NEUTRAL_FIELDS - {"input"}))
def test_fields_that_never_break_it(name: str) -> None:
    assert plan(held(**{name: "before"}), extended(**{name: "after"})).full_because is None
    assert plan(held(), extended(**{name: "new"})).full_because is None


@pytest.mark.parametrize(
    "name", ["model", "store", "prompt", "truncation", "context_management", "anything_else", "moderation"]
)
def test_fields_that_break_it_are_named(name: str) -> None:
    assert plan(held(), extended(**{name: "changed"})) == Plan(full_because=name)
    assert plan(held(**{name: "before"}), extended()).full_because == name


@pytest.mark.parametrize("name", ["conversation", "previous_response_id"])
def test_requests_that_say_themselves_what_they_continue(name: str) -> None:
    assert plan(held(), extended(**{name: None})).full_because == name
    assert plan(held(), extended(**{name: "given"})).full_because == name
    assert HeldResponse.after("resp_1", {**BODY, name: "given"}, ()) is None


def test_every_option_is_a_field_that_was_thought_about() -> None:
    breaking = {"model", "store", "truncation", "context_management"}
    joined = {"reasoning_effort", "reasoning_summary", "text_verbosity", "text_format"}
    exclusive = {"conversation", "previous_response_id"}
    not_fields = {"extra", "payload_hook", "warm_up"}
    options = {each.name for each in fields(TurnOptions)}
    assert options - breaking - exclusive - joined - not_fields <= NEUTRAL_FIELDS


@pytest.mark.parametrize(
    ("given_input", "because"),
    [
        ([], "input[0] is missing"),
        ([USER], "input[1] is missing"),
        ([{**USER, "content": "edited"}, ASSISTANT], "input[0]"),
        ([USER, {**ASSISTANT, "content": []}, USER], "input[1]"),
        ([USER, {**ASSISTANT, "phase": "commentary"}], "input[1]"),
        ([USER, USER, ASSISTANT], "input[1]"),
        ("hi", "input is not a list of items"),
        (None, "input is not a list of items"),
    ],
)
def test_the_first_differing_item_is_named(given_input: Any, because: str) -> None:
    assert plan(held(), {**BODY, "input": given_input}) == Plan(full_because=because)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "msg_1"},
        {"status": "completed"},
        {"phase": None},
        {"content": [{"text": "yo", "type": "output_text", "annotations": [{"type": "x"}], "logprobs": []}]},
    ],
)
def test_what_servers_add_and_replays_leave_out_does_not_count(change: dict[str, Any]) -> None:
    assert plan(held(), {**BODY, "input": [USER, {**ASSISTANT, **change}]}).skip == 2
    assert plan(held(output=({**ASSISTANT, **change},)), extended()).skip == 2


def test_the_order_of_keys_and_an_easy_messages_type_do_not_count() -> None:
    assert canonical({"role": "user", "content": "hi"}) == canonical(USER)
    assert canonical({"b": 1, "a": [{"d": 2, "c": 3}]}) == canonical({"a": [{"c": 3, "d": 2}], "b": 1})


def test_encrypted_bodies_do_not_count() -> None:
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": "x"}
    assert canonical(reasoning) == canonical({**reasoning, "encrypted_content": "y"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "compaction", "encrypted_content": "a"}, {"type": "compaction", "encrypted_content": "b"}),
        ({"type": "item_reference", "id": "a"}, {"type": "item_reference", "id": "b"}),
        ({"type": "mcp_call", "id": "a", "status": "failed"}, {"type": "mcp_call", "id": "a", "status": "completed"}),
        (
            {"type": "reasoning", "summary": [], "encrypted_content": "a"},
            {"type": "reasoning", "summary": [], "encrypted_content": "b"},
        ),
    ],
)
def test_items_that_are_nothing_but_such_members_are_compared_by_them(one: Any, other: Any) -> None:
    assert canonical(one) != canonical(other)
    assert canonical(one) == canonical(dict(reversed(one.items())))


def taken(chain: Chain, body: Any, stored: HeldResponse | None = None) -> Plan:
    planned = chain.plan(body, stored=stored)
    assert chain.plan(body, stored=stored) == planned
    chain.use_up()
    return planned


def test_a_chain_is_used_up_by_a_request_and_armed_by_its_clean_end_alone() -> None:
    chain = Chain()
    assert taken(chain, BODY).full_because == "nothing was sent on this connection and lane yet"
    assert taken(chain, BODY).full_because == "the previous response did not end cleanly"
    chain.arm(held())
    assert taken(chain, extended(USER)) == Plan("resp_1", skip=2)
    assert taken(chain, extended(USER)).full_because == "the previous response did not end cleanly"
    chain.arm(None)
    assert taken(chain, BODY).full_because == "what the previous request left at the server is not known"


def test_a_stored_response_stands_in_where_the_lane_has_none() -> None:
    chain = Chain()
    assert taken(chain, extended(store=True), held(store=True)).previous_response_id == "resp_1"
    chain.arm(HeldResponse("resp_2", (USER, ASSISTANT), {"model": "m", "store": True}))
    assert taken(chain, extended(store=True), held(store=True)).previous_response_id == "resp_2"


@pytest.mark.parametrize(("store", "expected"), [({"store": True}, True), ({"store": False}, False), ({}, True)])
def test_servers_store_unless_told_not_to(store: dict[str, bool], expected: bool) -> None:
    result = HeldResponse.after("r", {"model": "m", "input": [], **store}, ())
    assert result is not None
    assert result.stored is expected


def test_reprs_hold_no_conversation() -> None:
    assert "yo" not in repr(held())


items = st.dictionaries(
    st.sampled_from(["id", "role", "content", "status", "x"]), st.one_of(st.none(), st.text(max_size=3)), max_size=4
)


@given(st.lists(items, max_size=5), st.lists(items, max_size=3), st.lists(items, max_size=3), st.data())
def test_what_is_left_out_is_what_the_server_holds(
    sent: list[Any], output: list[Any], new: list[Any], data: st.DataObject
) -> None:
    """However the next input is made, the items left out say the same as those the server holds."""
    first = HeldResponse.after("r", {"model": "m", "input": sent}, output)
    assert first is not None
    given_input = data.draw(st.sampled_from([sent + output + new, sent + new, output + sent, new + sent + output]))
    result = plan(first, {"model": "m", "input": given_input})
    if result.previous_response_id is not None:
        assert [canonical(item) for item in given_input[: result.skip]] == [canonical(item) for item in sent + output]
    elif given_input == sent + output + new:
        pytest.fail("an extension was not recognised")


def test_the_frame_is_put_together_from_pieces() -> None:
    text = encode_create({**BODY, "input": [USER, CALL, OUTPUT]})
    assert '"input":[{"type":"function_call_output"' in text.frame(previous_response_id="resp_1", skip=2)
    assert '"previous_response_id":"resp_1"' in text.frame(previous_response_id="resp_1", skip=3)
    assert text.frame(skip=3, previous_response_id="r").endswith('"input":[]}')
    assert encode_create({}).frame() == '{"type":"response.create"}'
    assert encode_create({"input": "hi"}).frame(stream_id="a") == (
        '{"type":"response.create","stream_id":"a","input":"hi"}'
    )
    assert encode_create({"model": "m", "input": "hi"}).frame(generate=False) == (
        '{"type":"response.create","generate":false,"model":"m","input":[]}'
    )


def test_the_documentation_names_every_field_that_may_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "continuation.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == NEUTRAL_FIELDS - {"input"}
