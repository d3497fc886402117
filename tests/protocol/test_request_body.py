"""What the caller holds, in the wire's terms: checked field by field, and against the openai package's own types."""

from __future__ import annotations

import copy
import json
from types import MappingProxyType
from typing import Any

import pytest
from attrs import fields_dict
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from engine.protocol.assembly import Assembly
from engine.protocol.request_body import create_body, input_items, wire_tools, without_id
from engine.settings.turn_options import TurnOptions
from engine.values.blocks import AssistantBlock, File, Image, OutputItem, Refusal, Text, Thinking, ToolCall
from engine.values.messages import AssistantMessage, Context, DeveloperMessage, Message, Tool, ToolResult, UserMessage
from engine.values.problems import ConfigurationError
from engine.wire.codec import encode
from engine.wire.response import structure_response

INPUT_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)

SEARCH = {
    "type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}
}  # fmt: skip
SUMMARY = [{"type": "summary_text", "text": "why"}]


def items(*messages: Message, stored: bool = False) -> list[dict[str, Any]]:
    """The items of a conversation, each accepted by the openai package."""
    made = input_items(messages, stored=stored)
    for item in made:
        complete = dict(item)
        # Its types want on every item what a server gives one, which the service itself does not.
        if item["type"] == "reasoning" or item.get("role") == "assistant":
            complete.setdefault("id", "id_1")
        if item.get("role") == "assistant":
            complete.setdefault("status", "completed")
        INPUT_ITEM.validate_python(complete, strict=True)
    return made


def said(*blocks: AssistantBlock, stored: bool = False) -> list[dict[str, Any]]:
    return items(AssistantMessage(blocks), stored=stored)


def body(options: TurnOptions | None = None, context: Context | None = None) -> dict[str, Any]:
    return create_body(context or Context.of("Hi"), options or TurnOptions(), model="m-1")


# --- messages


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (Text("Hi"), "Hi"),
        ([Text("a"), Text("b")], [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
        (
            Image("https://example.org/a.png"),
            [{"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"}],
        ),
        (
            [Text("see"), Image(file_id="file_1", detail="low")],
            [{"type": "input_text", "text": "see"}, {"type": "input_image", "file_id": "file_1", "detail": "low"}],
        ),
        (File(file_id="file_1"), [{"type": "input_file", "file_id": "file_1"}]),
        (File(url="https://example.org/a"), [{"type": "input_file", "file_url": "https://example.org/a"}]),
        (
            File(data="data:text/plain;base64,SGk=", filename="a.txt"),
            [{"type": "input_file", "file_data": "data:text/plain;base64,SGk=", "filename": "a.txt"}],
        ),
    ],
)
def test_user_messages(content: Any, expected: Any) -> None:
    assert items(UserMessage(content)) == [{"type": "message", "role": "user", "content": expected}]


def test_a_message_that_says_nothing_is_left_out() -> None:
    assert items(UserMessage(()), AssistantMessage(), AssistantMessage((Text(""),))) == []


def test_developer_messages() -> None:
    assert items(DeveloperMessage("Be brief")) == [{"type": "message", "role": "developer", "content": "Be brief"}]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ToolResult("call_1", "4"), "4"),
        (ToolResult("call_1|fc_1", "4"), "4"),
        (ToolResult("call_1", ""), ""),
        (ToolResult("call_1", ()), ""),
        (ToolResult("call_1", "no", is_error=True), "Error: no"),
        (ToolResult("call_1", [Text("a"), Text("b")]), [
            {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"},
        ]),
        (ToolResult("call_1", Image("https://x/a.png")), [
            {"type": "input_image", "image_url": "https://x/a.png", "detail": "auto"}
        ]),
        (ToolResult("call_1", Image("https://x/a.png"), is_error=True), [
            {"type": "input_text", "text": "Error:"},
            {"type": "input_image", "image_url": "https://x/a.png", "detail": "auto"},
        ]),
    ],
)  # fmt: skip
def test_tool_results(result: ToolResult, expected: Any) -> None:
    assert items(result) == [{"type": "function_call_output", "call_id": "call_1", "output": expected}]


def test_results_of_custom_tools() -> None:
    assert items(ToolResult("call_1", "4", kind="custom"))[0]["type"] == "custom_tool_call_output"


def test_neighbours_of_no_known_item_are_one_message_if_their_phase_is_one() -> None:
    made = said(
        Text("a", "commentary"),
        Text("b", "commentary"),
        Text("c", "final_answer"),
        Refusal("no"),
        Text("d"),
        Text(""),
        Text("e"),
    )
    assert [
        (each.get("phase"), [part.get("text", part.get("refusal")) for part in each["content"]]) for each in made
    ] == [
        ("commentary", ["a", "b"]),
        ("final_answer", ["c"]),
        (None, ["no", "d", "e"]),
    ]
    assert "phase" not in made[2]


@pytest.mark.parametrize("stored", [False, True])
def test_blocks_of_one_item_are_one_message_wherever_they_stand(stored: bool) -> None:
    made = said(
        Text("a", None, "msg_1"),
        Text("b", None, "msg_2"),
        Refusal("no", "msg_1"),
        Text("c"),
        Text("d", "final_answer", "msg_2"),  # not what that item was: a message of its own, without the id
        Text("e", None, "msg_3", extra={"agent": {"agent_name": "/root"}}),
        Text("f", None, "made up"),
        stored=stored,
    )
    assert [[part.get("text", part.get("refusal")) for part in each["content"]] for each in made] == [
        ["a", "no"], ["b"], ["c"], ["d"], ["e"], ["f"],
    ]  # fmt: skip
    ids = ["msg_1", "msg_2", None, None, "msg_3", None]
    assert [each.get("id") for each in made] == (ids if stored else [None] * 6)
    assert [each.get("agent") for each in made] == [None, None, None, None, {"agent_name": "/root"}, None]


CALLER = {"type": "program", "caller_id": "call_0"}


@pytest.mark.parametrize(
    ("kind", "extra", "echoed"),
    [
        ("function", {}, {"caller": CALLER, "namespace": "math"}),
        ("custom", {}, {"caller": CALLER}),  # the schema of its output has no namespace
        ("function", {"caller": None}, {"namespace": "math"}),
        ("function", {"caller": {"type": "direct"}, "name": "add", "output": "!"}, {
            "caller": {"type": "direct"}, "namespace": "math", "name": "add"
        }),
    ],
)  # fmt: skip
def test_results_go_back_to_whoever_called(kind: Any, extra: dict[str, Any], echoed: dict[str, Any]) -> None:
    call = ToolCall("call_1|fc_1", "add", {}, "{}", kind, extra={"caller": CALLER, "namespace": "math", "async": True})
    result = ToolResult("call_1", "3", kind=kind, extra=extra)
    sent = items(AssistantMessage([call]), result)[1]
    assert sent == {"type": f"{sent['type']}", "call_id": "call_1", "output": "3", **echoed}
    alone = {name: value for name, value in extra.items() if value is not None and name != "output"}
    assert items(result) == [{"type": sent["type"], "call_id": "call_1", "output": "3", **alone}]


def test_calls_and_hosted_items_keep_their_place_among_the_texts() -> None:
    made = said(
        Text("a", "commentary"), ToolCall("call_1", "add", {}, "{}"), Text("b", "commentary"), OutputItem(SEARCH)
    )
    assert [each["type"] for each in made] == ["message", "function_call", "message", "web_search_call"]
    assert made[3] == SEARCH


def test_annotations_travel_with_their_text() -> None:
    citation = {"type": "url_citation", "url": "https://x", "title": "t", "start_index": 0, "end_index": 1}
    (made,) = said(Text("a", annotations=[citation]))
    assert made["content"] == [{"type": "output_text", "text": "a", "annotations": [citation]}]


def test_log_probabilities_travel_with_their_text() -> None:
    token = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
    (made,) = said(Text("a", logprobs=[token]))
    assert made["content"] == [{"type": "output_text", "text": "a", "annotations": [], "logprobs": [token]}]


def test_what_only_servers_write_is_not_sent_back() -> None:
    piece = {"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    shell = {"type": "shell_call_output", "id": "sho_1", "call_id": "call_1", "output": [piece], "status": None}
    signed = {**shell, "created_by": "model", "output": [{**piece, "created_by": "model"}]}
    odd = {**shell, "output": "odd"}
    call = ToolCall("call_2", "f", extra={"created_by": "model", "async": False})
    made = said(OutputItem(signed), OutputItem(odd), call)
    assert made[:2] == [shell, odd]
    assert made[2] == {"type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}", "async": False}


@pytest.mark.parametrize("stored", [False, True])
def test_ids_mean_something_only_to_a_server_that_keeps_items(stored: bool) -> None:
    signature = json.dumps({"type": "reasoning", "id": "rs_1", "summary": SUMMARY, "encrypted_content": "x"})
    sealed: dict[str, Any] = {
        "type": "reasoning",
        "id": "rs_2",
        "summary": [],
        "encrypted_content": "y",
        "status": None,
    }
    made = said(
        Thinking("why", signature),
        OutputItem(sealed),
        ToolCall("call_1|fc_1", "add", {}, "{}"),
        ToolCall("call_2|ctc_1", "shell", {}, "ls", "custom"),
        stored=stored,
    )
    assert [each.pop("id", None) for each in made] == (["rs_1", "rs_2", "fc_1", "ctc_1"] if stored else [None] * 4)
    assert made == [
        {"type": "reasoning", "summary": SUMMARY, "encrypted_content": "x"},
        {"type": "reasoning", "summary": [], "encrypted_content": "y"},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls"},
    ]


@pytest.mark.parametrize(
    ("signed", "stored", "expected"),
    [
        ({"type": "reasoning", "summary": SUMMARY}, False, None),
        ({"type": "reasoning", "id": "rs_1", "summary": SUMMARY}, True, {"id": "rs_1", "summary": SUMMARY}),
        ({"type": "reasoning", "id": "made-up", "summary": []}, True, {"summary": []}),
        ({"type": "reasoning", "id": 3, "encrypted_content": "x"}, True, {"summary": [], "encrypted_content": "x"}),
        ({"type": "reasoning.text", "encrypted_content": "x"}, False, {"summary": [], "encrypted_content": "x"}),
        ({"type": "reasoning", "encrypted_content": ""}, False, None),
        ({"type": "reasoning", "encrypted_content": {}}, False, None),
        (
            {"type": "reasoning", "summary": "why", "content": "so", "encrypted_content": "x"},
            False,
            {"summary": SUMMARY, "content": [{"type": "reasoning_text", "text": "so"}], "encrypted_content": "x"},
        ),
        ({"type": "reasoning", "summary": 3, "content": {}, "encrypted_content": "x"}, False, {
            "summary": [], "encrypted_content": "x"
        }),
        ({"type": "reasoningless", "encrypted_content": "x"}, False, None),
        ({"type": "message", "encrypted_content": "x"}, False, None),
        ({"type": ["reasoning"], "encrypted_content": "x"}, False, None),
        ({"encrypted_content": "x"}, False, None),
        ([], False, None),
        ("reasoning", False, None),
    ],
)  # fmt: skip
def test_reasoning_is_replayed_as_signed(signed: Any, stored: bool, expected: dict[str, Any] | None) -> None:
    made = said(Thinking("why", json.dumps(signed)), stored=stored)
    assert made == ([{"type": "reasoning", **expected}] if expected is not None else [])


@pytest.mark.parametrize("signature", [None, "", "not JSON", "[" * 100_000])
def test_reasoning_without_a_signature_is_not_replayed(signature: str | None) -> None:
    assert said(Thinking("why", signature)) == []


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        (ToolCall("c", "f", {"a": "é"}), '{"a":"é"}'),
        (ToolCall("c", "f", MappingProxyType({"a": (1,)})), '{"a":[1]}'),
        (ToolCall("c", "f"), "{}"),
        (ToolCall("c", "f", {"a": 1}, '{"a": 2}'), '{"a": 2}'),
        (ToolCall("c", "f", {}, '{"a":'), '{"a":'),
    ],
)
def test_arguments_are_sent_as_written(made: ToolCall, sent: str) -> None:
    assert said(made)[0]["arguments"] == sent


@pytest.mark.parametrize("arguments", [{"a": object()}, {"a": float("nan")}])
def test_arguments_that_json_does_not_have(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        said(ToolCall("c", "f", arguments))
    assert caught.value.field == "ToolCall.arguments"


def test_a_whole_conversation() -> None:
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": SUMMARY, "encrypted_content": "x"},
        {"type": "message", "id": "msg_1", "role": "assistant", "phase": "commentary", "status": "completed",
         "content": [{"type": "output_text", "text": "Let me look", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": "{}"},
        SEARCH,
    ]  # fmt: skip
    assembly = Assembly()
    assembly.finish(structure_response({"output": output}))
    made = items(UserMessage("Add"), assembly.message(), ToolResult("call_1|fc_1", "0"), UserMessage("Thanks"))
    for item in output:
        if item is not SEARCH:
            item.pop("id", None)
            item.pop("status", None)
    assert made == [
        {"type": "message", "role": "user", "content": "Add"},
        *output,
        {"type": "function_call_output", "call_id": "call_1", "output": "0"},
        {"type": "message", "role": "user", "content": "Thanks"},
    ]


# --- the body


def test_the_least_a_request_says() -> None:
    assert body() == {
        "model": "m-1", "input": [{"type": "message", "role": "user", "content": "Hi"}], "store": False
    }  # fmt: skip


FIELDS: dict[str, tuple[Any, ...]] = {
    "temperature": ("temperature", 0),
    "top_p": ("top_p", 0.5),
    "max_output_tokens": ("max_output_tokens", 0),
    "parallel_tool_calls": ("parallel_tool_calls", False),
    "reasoning_effort": ("reasoning", {"effort": "low"}, "low"),
    "reasoning_summary": ("reasoning", {"summary": "auto"}, "auto"),
    "text_verbosity": ("text", {"verbosity": "low"}, "low"),
    "text_format": ("text", {"format": {"type": "json_object"}}, {"type": "json_object"}),
    "store": ("store", True),
    "include": ("include", ["reasoning.encrypted_content"]),
    "service_tier": ("service_tier", "flex"),
    "truncation": ("truncation", "auto"),
    "metadata": ("metadata", {"a": "b"}),
    "prompt_cache_key": ("prompt_cache_key", "k"),
    "safety_identifier": ("safety_identifier", "u"),
    "context_management": ("context_management", [{"type": "compaction", "compact_threshold": 1000}]),
    "model": ("model", "m-2"),
    "tool_choice": ("tool_choice", "none"),
    "conversation": ("conversation", "conv_1"),
    "previous_response_id": ("previous_response_id", "resp_1"),
}


@pytest.mark.parametrize("option", FIELDS)
def test_every_option_under_its_wire_name(option: str) -> None:
    name, sent, *given = FIELDS[option]
    made = body(TurnOptions(**{option: given[0] if given else sent}))
    assert made.pop(name) == sent
    assert made.keys() == {"model", "input", "store"} - {name}
    json.dumps(made)


def test_no_option_was_forgotten() -> None:
    local = {"extra", "payload_hook", "warm_up"}
    assert fields_dict(TurnOptions).keys() - local == FIELDS.keys()


def test_store_left_to_the_server_is_absent() -> None:
    assert "store" not in body(TurnOptions(store=None))


def test_instructions_and_tools() -> None:
    made = body(context=Context([UserMessage("Hi")], instructions="Be brief", tools=[Tool("add")]))
    assert list(made) == ["model", "instructions", "input", "tools", "store"]
    assert made["instructions"] == "Be brief"
    assert body(context=Context(instructions=""))["instructions"] == ""


def test_extra_fields_pass_through() -> None:
    made = body(TurnOptions(extra={"top_logprobs": 3, "user": None, "temperature": 1}, temperature=0.5))
    assert (made["top_logprobs"], made["user"], made["temperature"]) == (3, None, 1)


def test_extra_and_options_share_a_field() -> None:
    extra = {"reasoning": {"context": "auto"}, "text": {"verbosity": "high"}, "metadata": {"b": "2"}}
    before = copy.deepcopy(extra)
    options = TurnOptions(
        reasoning_effort="low", text_verbosity="low", text_format={"type": "text"}, metadata={"a": "1"}, extra=extra
    )
    made = body(options)
    assert made["reasoning"] == {"effort": "low", "context": "auto"}
    assert made["text"] == {"verbosity": "high", "format": {"type": "text"}}
    assert made["metadata"] == {"b": "2"}
    assert extra == before
    assert body(TurnOptions(reasoning_effort="low", extra={"reasoning": None}))["reasoning"] is None


def test_a_request_without_a_model() -> None:
    for model in (None, ""):
        with pytest.raises(ConfigurationError) as caught:
            create_body(Context.of("Hi"), TurnOptions(), model=model)
        assert caught.value.field == "model"


def test_the_body_shares_nothing_with_what_was_given() -> None:
    given: dict[str, Any] = {
        "metadata": {"a": "b"},
        "extra": {"prompt": {"variables": {"x": "y"}}},
        "text_format": {"type": "json_schema", "schema": {"type": "object"}},
        "include": ["a"],
        "tool_choice": {"type": "allowed_tools", "tools": [{"name": "add"}]},
    }
    schema = {"anyOf": [{"properties": {"a": {}}}], "required": ["b"]}
    hosted = {"type": "mcp", "headers": {"a": "b"}}
    item = {"type": "web_search_call", "id": "ws_1", "action": {"queries": ["x"]}}
    context = Context(
        [AssistantMessage([OutputItem(item), Text("a", annotations=[{"type": "file_path"}])])],
        tools=[Tool("add", parameters=schema), hosted],
    )
    before = copy.deepcopy((given, schema, hosted, item))
    made = body(TurnOptions(**given), context)
    assert made == body(TurnOptions(**given), context)
    deface(made)
    assert (given, schema, hosted, item) == before
    assert context.messages[0].content[1].annotations == ({"type": "file_path"},)  # type: ignore[union-attr]


def deface(value: Any) -> None:
    if isinstance(value, dict):
        for each in value.values():
            deface(each)
        value["defaced"] = True
    elif isinstance(value, list):
        for each in value:
            deface(each)
        value.append("defaced")


def test_mappings_of_any_class_can_be_encoded() -> None:
    made = body(TurnOptions(metadata=MappingProxyType({"a": "b"}), extra=MappingProxyType({"x": MappingProxyType({})})))
    assert json.loads(encode(made))["x"] == {}
    assert type(made["metadata"]) is dict


def test_what_contains_itself_is_left_to_the_encoder() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(ValueError, match="Circular"):
        encode(body(TurnOptions(extra={"x": circle})))


# --- tools


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
        ({"type": "string"}, {"type": "string"}),
        ({"allOf": [{"properties": {}}]}, {"type": "object", "allOf": [{"properties": {}}], "properties": {}}),
        (
            {
                "anyOf": [
                    {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]},
                    {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}, "required": ["b"]},
                ]
            },
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "b": {}},
                "required": ["b"],
            },
        ),
        (
            {
                "properties": {"k": {}},
                "required": ["k"],
                "anyOf": [{"properties": {"k": {}, "a": {}}, "required": True}],
            },
            {"type": "object", "properties": {"k": {}, "a": {}}, "required": ["k"]},
        ),
        (
            {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
            {"type": "object", "properties": {"a": {}, "b": {}}},
        ),
        (
            {"anyOf": [{"$ref": "#/$defs/x"}]},
            {"type": "object", "properties": {}, "anyOf": [{"$ref": "#/$defs/x"}]},
        ),
        ({"anyOf": []}, {"type": "object", "properties": {}, "anyOf": []}),
        ({"anyOf": 3, "properties": None}, {"type": "object", "properties": None, "anyOf": 3}),
    ],
)
def test_schemas_take_the_form_the_server_wants(parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    assert wire_tools([Tool("f", parameters=parameters)]) == [{"type": "function", "name": "f", "parameters": expected}]


def test_tools_in_full() -> None:
    hosted = {"type": "web_search"}
    made = wire_tools([Tool("f", "does it", strict=False), hosted])
    assert made == [
        {"type": "function", "name": "f", "description": "does it",
         "parameters": {"type": "object", "properties": {}}, "strict": False},
        hosted,
    ]  # fmt: skip
    assert made[1] is not hosted


TOOLS = (Tool("add"), {"type": "custom", "name": "shell"}, {"type": "mcp", "name": "files"})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("add", {"type": "function", "name": "add"}),
        ("shell", {"type": "custom", "name": "shell"}),
        ({"type": "web_search"}, {"type": "web_search"}),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert body(TurnOptions(tool_choice=choice), Context(tools=TOOLS))["tool_choice"] == expected


@pytest.mark.parametrize("choice", ["subtract", "files"])
def test_a_tool_that_is_not_offered(choice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(TurnOptions(tool_choice=choice), Context(tools=TOOLS))
    assert caught.value.field == "options.tool_choice"


@pytest.mark.parametrize("kind", [{}, [], 3, None, True])
def test_an_item_whose_type_is_no_text_is_kept_as_it_is(kind: Any) -> None:
    message = AssistantMessage((OutputItem({"type": kind, "id": "x_1"}),))
    assert message.unanswered == ()
    assert input_items((message,), stored=True) == [{"type": kind, "id": "x_1"}]
    assert without_id({"type": kind, "id": "x_1"}) == {"type": kind}
