"""Both decoders read alike: what one takes, the other gives, and what one refuses is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.wire import json_text
from engine.wire.json_text import read, read_quickly

same_examples = settings(derandomize=True, deadline=None, max_examples=300)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def outcome(decode: Any, text: str) -> tuple[str, Any]:
    try:
        return "value", decode(text)
    except (ValueError, RecursionError):
        return "refused", None


def alike(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # tells 1 from 1.0 and from True, and takes infinities for equal


def agree(text: str) -> None:
    kind, value = outcome(read, text)
    quick = read_quickly(text)
    if kind == "refused":
        assert quick is None
    elif quick is not None:
        assert alike(quick, value)


@same_examples
@given(values, st.booleans())
def test_what_python_writes(value: Any, ascii_only: bool) -> None:
    agree(json.dumps(value, ensure_ascii=ascii_only))


@same_examples
@given(st.text(st.sampled_from('{}[]",:0123456789.eE+-\\udabctrufalsn \n\t'), max_size=30))
@example('{"a":1e999}')
@example('{"a":-1e999}')
@example('{"a":"\\ud83d"}')
@example('{"a":"\\ud83d\\ude00"}')
@example('{"a":123456789012345678901234567890}')
@example('{"a":0.1,"a":2}')
@example('{"a":NaN}')
@example('{"a":Infinity}')
@example(" {} ")
@example("\ufeff{}")
@example('{"a":"\x00"}')
@example("[" * 100_000)
@example('{"a":1.0}')
@example('{"a":1E5}')
@example('{"a":-0}')
@example('{"a":5e-324}')
def test_what_anybody_may_send(text: str) -> None:
    agree(text)


@same_examples
@given(st.lists(st.text(st.sampled_from('{}[]",:01a '), max_size=8) | values.map(json.dumps), max_size=6))
@example(['{"a":[1', "2]}", "{},{}"])
@example(["{}", "{},1", "{}"])
@example(["{}", "]", "["])
@example(["1", " 2 ", '{"a":1e999}'])
@pytest.mark.parametrize("read_all", [json_text.read_all, json_text._read_as_one])
def test_what_comes_together(read_all: Any, texts: list[str]) -> None:
    found = read_all(texts)
    assert len(found) == len(texts)
    for text, quick in zip(texts, found, strict=True):
        kind, value = outcome(read, text)
        assert quick is None or (kind == "value" and alike(quick, value))
    if len(texts) > 1 and all(outcome(read, text)[0] == "value" for text in texts):
        assert repr(found) == repr([read(text) for text in texts])


@pytest.mark.skipif(json_text.DECODER != "msgspec", reason="the fast extra is not installed")
def test_plain_text_is_read_by_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(text: str) -> Any:
        raise AssertionError(text)

    monkeypatch.setattr(json_text, "_read_quickly", never)
    assert json_text.read_quickly('{"a":[1,2.5,"é",null,true]}') == {"a": [1, 2.5, "é", None, True]}


def test_without_msgspec_the_standard_library_reads() -> None:
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from engine.wire import json_text\n"
        "assert json_text.DECODER == 'json'\n"
        "assert json_text.read_quickly('{\"a\": 1}') == {'a': 1}\n"
        "assert json_text.read_quickly('{\"a\": 1} ') is None\n"
        "from engine.wire.codec import decode\n"
        "assert decode('{\"type\":\"error\"} ').type == 'error'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_numbers_keep_their_kind() -> None:
    big = 2**70
    for text, value in ((f"[{big}]", big), ("[1.0]", 1.0), ("[-0]", 0), ("[1e2]", 100.0)):
        (found,) = read_quickly(text)
        assert type(found) is type(value)
        assert found == value
    assert math.isinf(read('{"a":1e999}')["a"])
