"""Random messages, whatever they may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from engine import (
    AssistantMessage,
    DeveloperMessage,
    File,
    Image,
    OutputItem,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)

__all__ = ["mappings", "messages", "names", "responses", "texts", "tool_results", "usages"]

texts = st.text(st.characters(codec=None), max_size=8)
names = st.text("abc_1é", min_size=1, max_size=6)
maybe = st.none() | names
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
mappings = st.dictionaries(texts, values, max_size=3)
kinds = st.sampled_from(["function", "custom"])

text_blocks = st.builds(
    Text, texts, maybe, maybe, st.lists(mappings, max_size=2), logprobs=st.lists(mappings, max_size=2), extra=mappings
)
user_blocks = st.one_of(
    text_blocks,
    st.builds(Image, url=names, detail=names),
    st.builds(Image, file_id=names),
    st.builds(File, file_id=names, filename=maybe),
    st.builds(File, data=names),
    st.builds(File, url=names),
)
call_ids = st.builds(lambda call, item: f"{call}|{item}" if item else call, names, maybe)
assistant_blocks = st.one_of(
    text_blocks,
    st.builds(Thinking, texts, st.none() | texts, extra=mappings),
    st.builds(ToolCall, call_ids, names, mappings, texts, kinds, extra=mappings),
    st.builds(Refusal, texts, maybe, maybe, extra=mappings),
    st.builds(OutputItem, mappings),
)
counts = st.none() | st.integers(0)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts)
tool_results = st.builds(ToolResult, names, st.lists(user_blocks, max_size=2), st.booleans(), kinds, extra=mappings)
responses = st.builds(
    AssistantMessage,
    st.lists(assistant_blocks, max_size=4),
    stop_reason=st.sampled_from([None, "stop", "length", "tool_use"]),
    usage=st.none() | usages,
    model=maybe,
    response_id=maybe,
    stored=st.sampled_from([None, True, False]),
)
messages = st.one_of(
    st.builds(UserMessage, st.lists(user_blocks, max_size=3)),
    st.builds(DeveloperMessage, texts),
    tool_results,
    responses,
)
