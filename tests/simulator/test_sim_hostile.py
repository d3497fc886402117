"""Whatever JSON comes, the answer is an error of the protocol and never one of the simulator."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulator import ApiError, Calculator
from engine.simulator.requests import Shelf, read_request

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "name", "id", "role", "content", "text", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
WHOLE: dict[str, Any] = {
    "type": "response.create",
    "model": "m",
    "stream_id": "a",
    "instructions": "i",
    "conversation": {"id": "c"},
    "include": ["reasoning.encrypted_content"],
    "metadata": {"a": "b"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {"a": {}}}},
        "verbosity": "low",
    },
    "prompt_cache_options": {"prewarm": False},
    "stream_options": {"include_obfuscation": True},
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
    "tools": [
        {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "array"}}}},
        {"type": "custom", "name": "shout"},
    ],
    "input": [
        {"role": "user", "content": "1+1 add"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "x"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "encrypted_content": "e",
        },
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "item_reference", "id": "msg_1"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "x"}], "phase": "commentary", "id": "msg_1"},
    ],
}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in steps:
        found += _paths(part, (*path, step))
    return found


PATHS = [path for path in _paths(WHOLE) if path]


def _put(body: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return
    try:
        body[path[-1]] = value
    except (IndexError, TypeError):
        return


def _check(error: ApiError) -> None:
    assert error.status in {400, 404}
    assert error.message


SHELF = Shelf(lambda _id: None, lambda _id: {"type": "message", "role": "assistant", "content": []}, lambda _id: ())


@given(
    st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=3), st.sampled_from(["websocket", "http"])
)
@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
def test_changed_requests(changes: list[tuple[tuple[Any, ...], Any]], transport: str) -> None:
    body = copy.deepcopy(WHOLE)
    if transport == "http":
        for name in ("type", "stream_id"):
            del body[name]
    for path, value in changes:
        _put(body, path, value)
    try:
        asked = read_request(body, SHELF, transport=transport)
    except ApiError as error:
        _check(error)
    else:
        assert Calculator().reply(asked)
        assert asked.prompt_tokens() >= asked.cached_tokens()


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), JSON))
@pytest.mark.slow
@settings(max_examples=300, deadline=None)
def test_any_request(body: dict[str, Any]) -> None:
    try:
        read_request({"model": "m"} | body, SHELF, transport="websocket")
    except ApiError as error:
        _check(error)


def test_the_whole_request_is_sound() -> None:
    asked = read_request(WHOLE, SHELF, transport="websocket")
    assert asked.tools == WHOLE["tools"]
