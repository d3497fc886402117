"""Options: a value that cannot be used is refused at once, by name, and nothing secret is shown."""

from __future__ import annotations

import copy
import math
import pickle
import ssl
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from engine.settings.endpoint import Endpoint, check_header, check_key
from engine.settings.levels import defaults_for, merge
from engine.settings.limits import DEFAULT_LIMITS, Limits
from engine.settings.timeouts import DEFAULT_TIMEOUTS, Timeouts
from engine.settings.turn_options import TurnOptions
from engine.values.choices import UNSET, Delivery, OnCancel, Transport, Unset
from engine.values.problems import ConfigurationError, EngineError

SECRET = "s3cret"


def refused(kind: Any, field: str, /, *args: Any, **kwargs: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        kind(*args, **kwargs)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EngineError)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value


# --- endpoints


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1/", "wss://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1//", "wss://api.openai.com/v1/responses"),
        ("HTTPS://api.openai.com/v1", "wss://api.openai.com/v1/responses"),
        ("http://localhost:8080", "ws://localhost:8080/responses"),
        ("http://localhost:8080/", "ws://localhost:8080/responses"),
        ("ws://localhost/v1", "ws://localhost/v1/responses"),
        ("wss://localhost/v1", "wss://localhost/v1/responses"),
        ("http://[::1]:8080/v1", "ws://[::1]:8080/v1/responses"),
        ("https://[2001:db8::1]/v1", "wss://[2001:db8::1]/v1/responses"),
        ("https://x.azure.com/openai/v1?api-version=1&b=2", "wss://x.azure.com/openai/v1/responses?api-version=1&b=2"),
        ("https://x?api-version=1", "wss://x/responses?api-version=1"),
    ],
)
def test_the_websocket_url_follows_from_the_base_url(base_url: str, expected: str) -> None:
    assert Endpoint(base_url).websocket.geturl() == expected


@pytest.mark.parametrize(
    ("websocket_url", "expected"),
    [
        ("wss://other.example/socket", "wss://other.example/socket"),
        ("https://other.example/socket/", "wss://other.example/socket/"),
        ("http://other.example", "ws://other.example/"),
        ("ws://other.example/?k=v", "ws://other.example/?k=v"),
    ],
)
def test_a_websocket_url_of_its_own(websocket_url: str, expected: str) -> None:
    assert Endpoint("https://x/v1", websocket_url=websocket_url).websocket.geturl() == expected


def test_ports() -> None:
    assert Endpoint("https://x/v1").websocket.port is None
    assert Endpoint("https://x:8443/v1").websocket.port == 8443
    assert Endpoint("http://[::1]:1/v1").websocket.hostname == "::1"


BAD_URLS = [
    "",
    "x",
    "api.openai.com/v1",
    "ftp://x/v1",
    "file:///etc/passwd",
    "https://",
    "https:///v1",
    "https://:443/v1",
    f"https://me:{SECRET}@x/v1",
    f"https://{SECRET}@x/v1",
    "https://@x/v1",
    "https://x:0/v1",
    "https://x:65536/v1",
    "https://x:-1/v1",
    "https://x:http/v1",
    "https://[::1/v1",
    "https://x/v1#part",
    "https://x/v 1",
    "https://x/v1\r\nHost: y",
    "https://x/\x00",
    "https://x/\x7f",
    "https://exämple.org/v1",
    "https://a..b/v1",
    f"https://{'a' * 64}.org/v1",
    b"https://x/v1",
    1,
]


@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize("name", ["base_url", "websocket_url"])
def test_bad_urls(name: str, url: Any) -> None:
    refused(Endpoint, name, **{name: url})


def test_there_is_always_a_base_url() -> None:
    refused(Endpoint, "base_url", None)


BAD_VALUES = [
    f"{SECRET}\n",
    f"{SECRET}\r\nX-Other: 1",
    f"{SECRET}\x00",
    f"{SECRET}\x1f",
    f"{SECRET}\x7f",
    f"{SECRET}é",
    f"{SECRET}\u2028",
    f" {SECRET}",
    f"{SECRET}\t",
]


@pytest.mark.parametrize("key", [*BAD_VALUES, "", "  ", b"sk-1", 7, ["sk"]])
def test_bad_keys(key: Any) -> None:
    refused(Endpoint, "api_key", api_key=key)
    refused(check_key, "api_key", key)


def test_good_keys() -> None:
    async def fetch() -> str:
        return "sk-2"

    assert Endpoint(api_key="sk-1").api_key == "sk-1"
    assert Endpoint(api_key=fetch).api_key is fetch
    assert Endpoint().api_key is None


@pytest.mark.parametrize("value", [*BAD_VALUES, None, 7, b"x"])
@pytest.mark.parametrize("field", ["headers", "organization", "project"])
def test_bad_header_values(field: str, value: Any) -> None:
    if field == "headers":
        refused(Endpoint, "headers['X-Mine']", headers={"X-Mine": value})
    elif value is not None:
        refused(Endpoint, field, **{field: value})


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nY", "Ü", "x\x00", "(x)", 7, b"x", None])
def test_bad_header_names(name: Any) -> None:
    refused(Endpoint, "headers", headers={name: "1"})
    refused(check_header, "here", name, "1", where="here")


@pytest.mark.parametrize(
    "name",
    ["Authorization", "HOST", "connection", "Upgrade", "Sec-WebSocket-Key", "content-length", "Transfer-Encoding"],
)
def test_headers_the_library_sets(name: str) -> None:
    refused(Endpoint, f"headers[{name!r}]", headers={name: "1"})


@pytest.mark.parametrize("headers", [None, "X: 1", ["X"], [("X", "1")], 7])
def test_headers_are_a_mapping(headers: Any) -> None:
    refused(Endpoint, "headers", headers=headers)


@pytest.mark.parametrize("headers", [{"X-Mine": "a b\tc"}, {"X-Mine": ""}, MappingProxyType({"X-Mine": "1"})])
def test_good_headers(headers: Any) -> None:
    endpoint = Endpoint(headers=headers)
    assert endpoint.headers == dict(headers)
    assert endpoint.headers is not headers


@pytest.mark.parametrize(
    ("field", "value"), [("ssl_context", True), ("ssl_context", "x"), ("profile", "nobody"), ("profile", 7)]
)
def test_other_bad_endpoint_values(field: str, value: Any) -> None:
    refused(Endpoint, field, **{field: value})


def test_nothing_secret_is_shown() -> None:
    endpoint = Endpoint(
        f"https://x/v1?key={SECRET}",
        SECRET,
        websocket_url=f"wss://x/v1?key={SECRET}",
        headers={"X-Mine": SECRET},
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    assert SECRET not in repr(endpoint)
    assert SECRET not in str(endpoint)
    assert str(endpoint) == "https://x/v1"
    assert "https://x/v1?<hidden>" in repr(endpoint)
    assert "api_key=<hidden>" in repr(endpoint)
    assert "api_key=None" in repr(Endpoint())
    assert "websocket_url=None" in repr(Endpoint())
    options = TurnOptions(
        text_format={"schema": SECRET},
        metadata={"a": SECRET},
        prompt_cache_key=SECRET,
        safety_identifier=SECRET,
        context_management=[{"a": SECRET}],
        tool_choice={"a": SECRET},
        extra={"a": SECRET},
    )
    assert SECRET not in repr(options)


def test_endpoints_are_values() -> None:
    one, same, other = (Endpoint("https://x/v1", "k", headers={"A": name}) for name in ("1", "1", "2"))
    assert one == same != other
    assert hash(one) == hash(same)
    assert len({one, same, other}) == 2
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert attrs.evolve(one, headers={"A": "2"}) == other


@pytest.mark.parametrize("value", [Endpoint(), Timeouts(), Limits(), TurnOptions()])
def test_options_are_frozen(value: Any) -> None:
    for name in attrs.fields_dict(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, OPENAI_API_KEY="sk-1")
    assert Endpoint.from_env() == Endpoint(api_key="sk-1")
    environment(monkeypatch, OPENAI_API_KEY="sk-1", OPENAI_BASE_URL="", OPENAI_ORG_ID="", OPENAI_PROJECT_ID="")
    assert Endpoint.from_env() == Endpoint(api_key="sk-1")
    environment(
        monkeypatch,
        OPENAI_API_KEY="sk-1",
        OPENAI_BASE_URL="https://x/v1",
        OPENAI_ORG_ID="org",
        OPENAI_PROJECT_ID="proj",
    )
    assert Endpoint.from_env() == Endpoint("https://x/v1", "sk-1", organization="org", project="proj")


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({}, "api_key"),
        ({"OPENAI_API_KEY": ""}, "api_key"),
        ({"OPENAI_API_KEY": f"{SECRET}\n"}, "api_key"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "x"}, "base_url"),
        ({"OPENAI_API_KEY": "k", "OPENAI_ORG_ID": f"{SECRET}\n"}, "organization"),
    ],
)
def test_a_bad_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], field: str) -> None:
    environment(monkeypatch, **variables)
    refused(Endpoint.from_env, field)


# --- budgets and limits

COUNTS = [
    "max_message_bytes", "max_request_bytes", "max_outbox_bytes", "buffer_events", "buffer_bytes", "max_connections",
]  # fmt: skip
SPANS = ["connection_lifetime", "idle_lifetime", "ping_interval", "ping_timeout", "session_idle"]
NO_SECONDS = [-1, -0.001, -math.inf, math.nan, True, False, "3", [], {}, 1j, 10**400]


@pytest.mark.parametrize("value", NO_SECONDS)
@pytest.mark.parametrize("name", attrs.fields_dict(Timeouts))
def test_bad_timeouts(name: str, value: Any) -> None:
    refused(Timeouts, f"timeouts.{name}", **{name: value})


@pytest.mark.parametrize("value", [*NO_SECONDS, 0, 0.0])
@pytest.mark.parametrize("name", SPANS)
def test_bad_spans(name: str, value: Any) -> None:
    refused(Limits, f"limits.{name}", **{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, math.inf, True, None, "3"])
@pytest.mark.parametrize("name", COUNTS)
def test_bad_counts(name: str, value: Any) -> None:
    refused(Limits, f"limits.{name}", **{name: value})


def test_there_are_no_other_limits() -> None:
    assert set(attrs.fields_dict(Limits)) == {*COUNTS, *SPANS}


def test_what_is_given_becomes_plain_numbers() -> None:
    given = Timeouts(queue=0, start=1, connect=None, send=math.inf, idle=2.5)
    timeouts = merge(DEFAULT_TIMEOUTS, given, "timeouts")
    assert (timeouts.queue, timeouts.start, timeouts.connect, timeouts.send) == (0.0, 1.0, math.inf, math.inf)
    assert (timeouts.idle, timeouts.turn, timeouts.close) == (2.5, math.inf, 2.0)
    limits = merge(DEFAULT_LIMITS, Limits(idle_lifetime=None, ping_timeout=3, buffer_events=4), "limits")
    assert (limits.idle_lifetime, limits.ping_timeout, limits.buffer_events) == (math.inf, 3.0, 4)
    assert limits.max_request_bytes == DEFAULT_LIMITS.max_request_bytes


@pytest.mark.parametrize(("given", "defaults"), [(Timeouts, DEFAULT_TIMEOUTS), (Limits, DEFAULT_LIMITS)])
def test_defaults_leave_nothing_open(given: Any, defaults: Any) -> None:
    assert list(attrs.fields_dict(given)) == list(attrs.fields_dict(type(defaults)))
    assert all(isinstance(value, int | float) for value in attrs.astuple(defaults))
    assert set(attrs.astuple(given())) == {UNSET}


def test_documented_defaults() -> None:
    assert attrs.asdict(DEFAULT_TIMEOUTS) == {
        "queue": 30, "start": 60, "connect": 10, "send": 30, "first_event": 30, "idle": 300, "turn": math.inf,
        "drain": 5, "close": 2, "warm_up": 8,
    }  # fmt: skip
    assert DEFAULT_LIMITS.max_request_bytes == 16 * 1024**2
    assert DEFAULT_LIMITS.max_message_bytes == 64 * 1024**2
    assert (DEFAULT_LIMITS.buffer_events, DEFAULT_LIMITS.buffer_bytes) == (16_384, 32 * 1024**2)
    assert (DEFAULT_LIMITS.connection_lifetime, DEFAULT_LIMITS.idle_lifetime) == (3300, 300)
    assert (DEFAULT_LIMITS.max_connections, DEFAULT_LIMITS.session_idle) == (4, math.inf)


@pytest.mark.parametrize("name", attrs.fields_dict(Timeouts))
def test_timeouts_merge_field_by_field(name: str) -> None:
    for value in (7.0, None, 0):
        merged = merge(DEFAULT_TIMEOUTS, Timeouts(**{name: value}), "timeouts")
        assert getattr(merged, name) == (math.inf if value is None else value)
        assert attrs.evolve(merged, **{name: getattr(DEFAULT_TIMEOUTS, name)}) == DEFAULT_TIMEOUTS


def test_merging_nothing() -> None:
    assert merge(DEFAULT_LIMITS, None, "limits") is DEFAULT_LIMITS
    assert merge(DEFAULT_LIMITS, Limits(), "limits") == DEFAULT_LIMITS
    once = merge(DEFAULT_LIMITS, Limits(buffer_events=1, buffer_bytes=2), "limits")
    twice = merge(once, Limits(buffer_bytes=3), "limits")
    assert (twice.buffer_events, twice.buffer_bytes) == (1, 3)


CHOICES: list[tuple[str, Any, Any]] = [
    ("on_cancel", "drain", OnCancel.DRAIN),
    ("on_cancel", OnCancel.NEW_LANE, OnCancel.NEW_LANE),
    ("transport", "sse", Transport.SSE),
    ("transport", Transport.WEBSOCKET, Transport.WEBSOCKET),
]


@pytest.mark.parametrize(("name", "given", "meant"), CHOICES)
def test_choices_are_taken_as_themselves_and_as_strings(name: str, given: Any, meant: Any) -> None:
    assert getattr(defaults_for(Endpoint()).merged(**{name: given}), name) is meant


@pytest.mark.parametrize("name", ["on_cancel", "transport"])
@pytest.mark.parametrize("given", ["DRAIN", "http", "", 7, b"sse", ["sse"], Delivery.ACCEPTED])
def test_other_choices(name: str, given: Any) -> None:
    refused(defaults_for(Endpoint()).merged, name, **{name: given})


def test_a_choice_is_not_another_one() -> None:
    class Other(StrEnum):
        SSE = "sse"

    refused(defaults_for(Endpoint()).merged, "transport", transport=Other.SSE)


@pytest.mark.parametrize("inner", [5, {"turn": 5}, DEFAULT_LIMITS, Timeouts])
def test_merging_something_else(inner: Any) -> None:
    refused(merge, "timeouts", DEFAULT_TIMEOUTS, inner, "timeouts")
    if inner is not DEFAULT_LIMITS:
        refused(merge, "limits", DEFAULT_LIMITS, inner, "limits")


def test_unset_says_so() -> None:
    assert repr(UNSET) == "UNSET"
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET is Unset.UNSET


# --- turn options

NAMES = [
    "model", "reasoning_effort", "reasoning_summary", "text_verbosity", "service_tier", "truncation",
    "prompt_cache_key", "safety_identifier", "previous_response_id",
]  # fmt: skip
BAD_OPTIONS: dict[str, list[Any]] = {
    **{name: ["", "  ", 7, b"x", True, ["x"]] for name in NAMES},
    "temperature": ["1", True, math.nan, math.inf, -math.inf, 10**400, [1]],
    "top_p": ["1", False, math.nan, math.inf, {}],
    "max_output_tokens": [-1, 1.0, True, "1", math.inf],
    "tool_choice": ["", " ", 7, True, ["auto"], {1: "x"}],
    "parallel_tool_calls": [0, 1, "true", []],
    "text_format": ["json", [], 7, {1: 2}],
    "store": [0, 1, "false"],
    "include": ["reasoning.encrypted_content", b"x", {"a": "b"}, {"a"}, 7, ["a", 7], [None]],
    "metadata": ["a=b", [("a", "b")], 7, {"a": 1}, {"a": None}, {1: "a"}],
    "context_management": [{"type": "compaction"}, "compaction", 7, ["compaction"], [None]],
    "conversation": ["", " ", 7, True, ["conv_1"], {1: "x"}],
    "warm_up": [None, 0, 1, "yes"],
    "extra": [None, "a", [("a", 1)], {1: 2}],
    "payload_hook": [7, "hook", {}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_OPTIONS.items() for value in values])
def test_bad_turn_options(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TurnOptions(**{name: value})
    assert caught.value.field.partition("[")[0] == f"options.{name}"


def test_a_request_continues_one_thing() -> None:
    refused(TurnOptions, "options.conversation", conversation="conv_1", previous_response_id="resp_1")


def test_every_turn_option_is_checked() -> None:
    assert BAD_OPTIONS.keys() == attrs.fields_dict(TurnOptions).keys()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("metadata", "options.metadata['a']", {"a": 1}),
        ("include", "options.include[1]", ["a", 7]),
        ("context_management", "options.context_management[0]", ["x"]),
        *(
            ("extra", f"options.extra[{name!r}]", {name: 1})
            for name in ("type", "stream_id", "input", "model", "previous_response_id", "stream", "generate")
        ),
    ],
)
def test_the_place_inside_an_option_is_named(name: str, field: str, value: Any) -> None:
    refused(TurnOptions, field, **{name: value})


GOOD_OPTIONS: dict[str, list[Any]] = {
    **{name: ["x", None] for name in NAMES},
    "temperature": [0, 0.0, 2, -1.0, None],
    "max_output_tokens": [0, 1, None],
    "tool_choice": ["auto", "add", {"type": "function"}, None],
    "parallel_tool_calls": [True, False, None],
    "text_format": [{"type": "text"}, MappingProxyType({}), None],
    "store": [True, False, None],
    "include": [[], ["a"], ("a",), None],
    "metadata": [{}, {"a": "b"}, MappingProxyType({"a": "b"}), None],
    "context_management": [[{"type": "compaction"}], (), None],
    "conversation": ["conv_1", {"id": "conv_1"}, None],
    "warm_up": [True, False],
    "extra": [{}, {"user": None}],
    "payload_hook": [dict, None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD_OPTIONS.items() for value in values]
)
def test_good_turn_options(name: str, value: Any) -> None:
    assert getattr(TurnOptions(**{name: value}), name) == value
