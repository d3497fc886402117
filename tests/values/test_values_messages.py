"""Messages: what they take, what they refuse, and that they keep their contents to themselves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from engine.values.blocks import File, Image, OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage, Context, DeveloperMessage, Tool, ToolResult, UserMessage
from engine.values.problems import ConfigurationError
from engine.values.shown import size_only
from engine.values.type_names import kind_of
from engine.values.usage import Usage

SECRET = "s3cret"


def refused(field: str, kind: Any, /, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        kind(*args, **kwargs)
    assert caught.value.field == field
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value.problem


# --- what is taken


@pytest.mark.parametrize("kind", [UserMessage, lambda content: ToolResult("call_1", content)])
@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        ("Hi", (Text("Hi"),)),
        ("", (Text(""),)),
        (Text("Hi"), (Text("Hi"),)),
        (Image("https://x"), (Image("https://x"),)),
        (File(file_id="f"), (File(file_id="f"),)),
        ([Text("a"), Image("https://x")], (Text("a"), Image("https://x"))),
        ((), ()),
        ({1: Text("a"), 2: Text("b")}.values(), (Text("a"), Text("b"))),
    ],
)
def test_content_becomes_blocks(kind: Any, content: Any, blocks: tuple[Any, ...]) -> None:
    assert kind(content).content == blocks


def test_assistant_content() -> None:
    assert AssistantMessage("Hi").content == (Text("Hi"),)
    assert AssistantMessage("").content == AssistantMessage([]).content == ()
    blocks: list[Any] = [Text("a"), Thinking("b"), ToolCall("c", "f"), Refusal("d"), OutputItem({"type": "x"})]
    assert AssistantMessage(blocks).content == tuple(blocks)


def test_a_context_from_a_string() -> None:
    context = Context([UserMessage("Hi")])
    assert Context.of("Hi") == context
    assert Context.of(context) is context
    assert Context(iter([UserMessage("Hi")])) == context
    assert Context(tools=[{"type": "web_search"}]).tools == ({"type": "web_search"},)


# --- what is refused


@pytest.mark.parametrize("content", [None, 7, b"x", {"type": "input_text", "text": SECRET}, ToolCall("c", "f")])
@pytest.mark.parametrize("kind", [UserMessage, lambda content: ToolResult("call_1", content)])
def test_content_that_is_none(kind: Any, content: Any) -> None:
    refused("content", kind, content)


@pytest.mark.parametrize("block", [SECRET, {"type": "input_text", "text": SECRET}, None, 7, Thinking("x"), UserMessage])
@pytest.mark.parametrize(
    ("where", "kind"),
    [("user message content", UserMessage), ("tool result content", lambda content: ToolResult("call_1", content))],
)
def test_blocks_of_a_wrong_kind(where: str, kind: Any, block: Any) -> None:
    problem = refused(f"{where}[1]", kind, [Text("a"), block])
    assert f"is {kind_of(block)}, not" in problem
    assert "Text, Image, File" in problem


@pytest.mark.parametrize("content", [None, 7, {"a": SECRET}, b"x", Text("x")])
def test_assistant_content_that_is_none(content: Any) -> None:
    refused("assistant message content", AssistantMessage, content)


@pytest.mark.parametrize("block", [SECRET, {"text": SECRET}, Image("https://x"), None])
def test_assistant_blocks_of_a_wrong_kind(block: Any) -> None:
    refused("assistant message content[0]", AssistantMessage, [block])


@pytest.mark.parametrize("messages", [SECRET, b"x", UserMessage(SECRET), {"role": SECRET}, None, 7])
def test_messages_that_are_no_list(messages: Any) -> None:
    problem = refused("context messages", Context, messages)
    assert f"is {kind_of(messages)}, not" in problem


@pytest.mark.parametrize("message", [SECRET, {"role": "user"}, None, Text(SECRET), Context()])
def test_messages_of_a_wrong_kind(message: Any) -> None:
    refused("context messages[1]", Context, [UserMessage("Hi"), message])


@pytest.mark.parametrize("tools", [SECRET, {"type": SECRET}, Tool("f"), None, 7])
def test_tools_that_are_no_list(tools: Any) -> None:
    refused("context tools", Context, tools=tools)


@pytest.mark.parametrize("tool", [SECRET, None, int])
def test_tools_of_a_wrong_kind(tool: Any) -> None:
    refused("context tools[0]", Context, tools=[tool])


@pytest.mark.parametrize("prompt", [None, 7, b"Hi", [UserMessage("Hi")], UserMessage("Hi")])
def test_what_is_no_context(prompt: Any) -> None:
    refused("context", Context.of, prompt)


WRONG: list[tuple[str, Any]] = [
    ("Text.text", lambda: Text(None)),  # type: ignore[arg-type]
    ("Text.text", lambda: Text(b"x")),  # type: ignore[arg-type]
    ("text annotations", lambda: Text("x", annotations={"a": {}})),  # type: ignore[dict-item]
    ("text logprobs", lambda: Text("x", logprobs={"a": {}})),  # type: ignore[dict-item]
    ("Text.extra", lambda: Text("x", extra=[])),  # type: ignore[arg-type]
    ("Thinking.extra", lambda: Thinking("x", extra="agent")),  # type: ignore[arg-type]
    ("Refusal.extra", lambda: Refusal("x", extra=None)),  # type: ignore[arg-type]
    ("Thinking.text", lambda: Thinking(7)),  # type: ignore[arg-type]
    ("Thinking.signature", lambda: Thinking("x", {})),  # type: ignore[arg-type]
    ("Refusal.refusal", lambda: Refusal(None)),  # type: ignore[arg-type]
    ("DeveloperMessage.text", lambda: DeveloperMessage([Text("x")])),  # type: ignore[arg-type]
    ("OutputItem.item", lambda: OutputItem([])),  # type: ignore[arg-type]
    ("Context.instructions", lambda: Context(instructions=b"x")),  # type: ignore[arg-type]
    ("Context.instructions", lambda: Context(instructions=Text("x"))),  # type: ignore[arg-type]
    ("ToolCall.id", lambda: ToolCall("", "f")),
    ("ToolCall.id", lambda: ToolCall(None, "f")),  # type: ignore[arg-type]
    ("ToolCall.id", lambda: ToolCall("|fc_1", "f")),
    ("ToolCall.id", lambda: ToolCall(" \n|fc_1", "f")),
    ("ToolCall.name", lambda: ToolCall("c", "")),
    ("ToolCall.arguments", lambda: ToolCall("c", "f", "{}")),  # type: ignore[arg-type]
    ("ToolCall.raw_arguments", lambda: ToolCall("c", "f", {}, {})),  # type: ignore[arg-type]
    ("ToolCall.kind", lambda: ToolCall("c", "f", {}, "", "tool")),  # type: ignore[arg-type]
    ("ToolResult.call_id", lambda: ToolResult("", "x")),
    ("ToolResult.call_id", lambda: ToolResult("|fc_1", "x")),
    ("ToolResult.call_id", lambda: ToolResult(" ", "x")),
    ("ToolResult.call_id", lambda: ToolResult("\t\n|fc_1", "x")),
    ("ToolResult.extra", lambda: ToolResult("c", "x", extra=None)),  # type: ignore[arg-type]
    ("ToolResult.call_id", lambda: ToolResult(None, "x")),  # type: ignore[arg-type]
    ("ToolResult.call_id", lambda: ToolResult(ToolCall("c", "f"), "x")),  # type: ignore[arg-type]
    ("ToolResult.kind", lambda: ToolResult("c", "x", kind=None)),  # type: ignore[arg-type]
    ("Tool.name", lambda: Tool("")),
    ("Tool.name", lambda: Tool(print)),  # type: ignore[arg-type]
    ("Tool.description", lambda: Tool("f", 7)),  # type: ignore[arg-type]
    ("Tool.parameters", lambda: Tool("f", None, [])),  # type: ignore[arg-type]
    ("image", lambda: Image()),
    ("image", lambda: Image("https://x", "file_1")),
    ("Image.url", lambda: Image("")),
    ("Image.url", lambda: Image(b"x")),  # type: ignore[arg-type]
    ("Image.detail", lambda: Image("https://x", detail=None)),  # type: ignore[arg-type]
    ("file", lambda: File()),
    ("file", lambda: File("f", url="https://x")),
    ("file", lambda: File(url="https://x", data="data:,")),
    ("File.data", lambda: File(data=b"x")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("field", "make"),
    [pytest.param(*each, id=f"{each[0]}-{number}") for number, each in enumerate(WRONG)],
)
def test_values_of_a_wrong_kind(field: str, make: Any) -> None:
    refused(field, make)


# --- what they are


@pytest.mark.parametrize(
    ("given", "call_id", "item_id"),
    [("call_1|fc_1", "call_1", "fc_1"), ("call_1", "call_1", None), ("call_1|", "call_1", None)],
)
def test_both_forms_of_a_call_s_id(given: str, call_id: str, item_id: str | None) -> None:
    made = ToolCall(given, "f")
    assert (made.id, made.call_id, made.item_id) == (given, call_id, item_id)
    assert ToolResult(given, "x").call_id == call_id


@pytest.mark.parametrize(
    ("texts", "text", "phase", "commentary"),
    [
        ([], "", None, ""),
        ([("a", None)], "a", None, ""),
        ([("a", None), ("b", None)], "ab", None, ""),
        ([("a", "final_answer")], "a", "final_answer", ""),
        ([("a", "commentary"), ("b", "final_answer"), ("c", None)], "b", "final_answer", "a"),
        ([("a", "commentary"), ("", "final_answer"), ("c", None)], "c", None, "a"),
        ([("a", "commentary"), ("b", None)], "b", None, "a"),
        ([("a", "commentary"), ("b", "commentary")], "", None, "ab"),
        ([("a", "final_answer"), ("b", "commentary"), ("c", "final_answer")], "ac", "final_answer", "b"),
    ],
)
def test_which_texts_are_the_answer(
    texts: list[tuple[str, str | None]], text: str, phase: str | None, commentary: str
) -> None:
    message = AssistantMessage([Text(*each) for each in texts])
    assert (message.text, message.phase, message.commentary) == (text, phase, commentary)


def test_views_of_a_message() -> None:
    call, other = ToolCall("c", "f"), ToolCall("d", "f")
    message = AssistantMessage([Thinking("a"), Refusal("no"), call, Thinking("b"), Refusal("!"), other])
    assert message.thinking == (Thinking("a"), Thinking("b"))
    assert message.tool_calls == (call, other)
    assert message.refusal == "no!"
    assert message.text == ""


def test_types_of_kept_items() -> None:
    assert OutputItem({"type": "web_search_call"}).type == "web_search_call"
    assert OutputItem({}).type == ""


VALUES: list[Any] = [
    Text(SECRET, "commentary", "msg_1", [{"url": SECRET}]),
    Thinking(SECRET, SECRET),
    ToolCall("call_1|fc_1", "add", {SECRET: SECRET}, SECRET),
    Refusal(SECRET),
    OutputItem({"type": "x", "a": SECRET}),
    Image(f"data:{SECRET}"),
    File(data=f"data:{SECRET}", filename=SECRET),
    File(url=f"https://x/{SECRET}"),
    UserMessage(SECRET),
    DeveloperMessage(SECRET),
    ToolResult("call_1", SECRET),
    AssistantMessage([Text(SECRET), OutputItem({"a": SECRET})], usage=Usage(1)),
    Tool("add", SECRET, {SECRET: SECRET}),
    Context([UserMessage(SECRET)], instructions=SECRET, tools=[Tool(SECRET), {SECRET: SECRET}]),
]


@pytest.mark.parametrize("value", VALUES)
def test_reprs_give_sizes_only(value: Any) -> None:
    assert SECRET not in repr(value)
    assert type(value).__name__ in repr(value)


@pytest.mark.parametrize("value", VALUES)
def test_messages_are_values(value: Any) -> None:
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    for name in attrs.fields_dict(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)
    with pytest.raises(AttributeError):
        value.anything = 1


def test_sizes() -> None:
    assert [size_only(each) for each in (None, "", "abc", (1, 2))] == ["None", "<0>", "<3>", "<2>"]
    assert repr(Text("abc")) == "Text(text=<3>, phase=None, item_id=None, annotations=<0>, logprobs=<0>, extra=<0>)"


def test_what_was_given_can_change_without_the_message() -> None:
    blocks: list[Any] = [Text("a")]
    messages: list[Any] = [UserMessage(blocks)]
    context = Context(messages)
    blocks.append(Text("b"))
    messages.clear()
    assert context == Context([UserMessage("a")])
    assert hash(context) == hash(Context([UserMessage("a")]))


def test_unreported_usage_is_none() -> None:
    assert attrs.astuple(Usage()) == (None,) * 6
