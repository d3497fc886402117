"""What callers set: where the server is, how long to wait, how much to hold, and what to ask of the model."""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from ipaddress import ip_address
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit, urlunsplit

from attrs import Attribute, field, frozen
from attrs.validators import optional

from engine.schemas.answer_format import wire_format
from engine.settings.profiles import Profile, profile_of
from engine.settings.proxies import parse_proxy
from engine.values.errors import ConfigurationError

__all__ = [
    "UNSET",
    "Endpoint",
    "Limits",
    "OnCancel",
    "Timeouts",
    "Transport",
    "TurnOptions",
    "Unset",
]


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not given: the next outer level decides (turn, then session, then engine, then the default)."""


class Transport(Enum):
    """How a turn travels."""

    AUTO = "auto"
    """WebSocket, and HTTP with server-sent events where that fails safely."""
    WEBSOCKET = "websocket"
    """WebSocket only."""
    SSE = "sse"
    """HTTP with server-sent events only."""


class OnCancel(Enum):
    """What becomes of the connection when a turn is left before its response has ended."""

    CLOSE = "close"
    """Close it and dial its replacement at once."""
    DRAIN = "drain"
    """Read the rest of the response and throw it away, within the ``drain`` budget; then as `CLOSE`."""
    NEW_LANE = "new_lane"
    """Leave it to itself and go on over a fresh lane of the same connection; as `CLOSE` where there are no lanes."""


# --- endpoint --------------------------------------------------------------------------------------------------------

ApiKey: TypeAlias = str | Callable[[], Awaitable[str]] | None

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESERVED_HEADERS = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding", "upgrade"})


def _is_token(name: object) -> bool:
    return isinstance(name, str) and name != "" and set(name) <= _TOKEN_CHARACTERS


def check_header(name: object, value: object, *, where: str) -> None:
    """Raise `ConfigurationError` unless the pair is a legal HTTP field (RFC 9110 section 5).

    A line break would let whoever supplies the value write headers of their own.
    """
    if not _is_token(name):
        raise ConfigurationError(where, "the header name holds characters that a header name may not have")
    if not isinstance(value, str):
        raise ConfigurationError(where, f"is a {type(value).__name__}, not a string")
    if any(not (character == "\t" or " " <= character <= "~") for character in value):
        raise ConfigurationError(where, "holds a line break, another control character or a character outside ASCII")
    if value != value.strip(" \t"):
        raise ConfigurationError(where, "begins or ends with white space")


def check_key(key: object) -> str:
    """Return ``key`` if it can stand in an Authorization header, else raise `ConfigurationError`."""
    if not isinstance(key, str):
        raise ConfigurationError("api_key", f"is a {type(key).__name__}, not a string")
    if not key.strip():
        raise ConfigurationError("api_key", "is empty")
    check_header("authorization", key, where="api_key")
    return key


def _check_url(instance: object, attribute: Attribute[Any], value: str) -> None:
    where = attribute.name
    if not isinstance(value, str):
        raise ConfigurationError(where, f"is a {type(value).__name__}, not a string")
    if any(character <= " " or character > "~" for character in value):
        raise ConfigurationError(where, "holds spaces, control characters or characters outside ASCII")
    try:
        parts = urlsplit(value)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ConfigurationError(where, "is not a URL with a valid host and port") from None
    if parts.scheme not in {"http", "https", "ws", "wss"}:
        raise ConfigurationError(where, "must start with http://, https://, ws:// or wss://")
    if not parts.hostname or port == 0:
        raise ConfigurationError(where, "names no host, or port 0")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(where, "holds a user name or password; credentials do not belong in a URL")
    if parts.fragment:
        raise ConfigurationError(where, "holds a fragment")


def _shown_url(url: str | None) -> str:
    """Stand in for a URL in a repr: some servers take their key in the query."""
    if url is None:
        return "None"
    path, mark, _ = url.partition("?")
    return repr(path + mark + "<hidden>" if mark else path)


def _check_proxy(instance: object, attribute: Attribute[Any], value: str | Unset | None) -> None:
    if value is not UNSET and value is not None:
        parse_proxy(value, where="proxy")


def _shown_proxy(url: str | Unset | None) -> str:
    """Stand in for a proxy's URL in a repr: credentials may be in it."""
    return repr(f"{urlsplit(url).scheme}://{parse_proxy(url, where='proxy')}") if isinstance(url, str) else repr(url)


def _check_server_name(instance: object, attribute: Attribute[Any], value: str) -> None:
    where = attribute.name
    if not isinstance(value, str):
        raise ConfigurationError(where, f"is a {type(value).__name__}, not a string")
    try:
        ip_address(value)
    except ValueError:
        if not _HOST_NAME.match(value):
            raise ConfigurationError(where, "is not the name of a host, nor an address") from None


def _own_headers(given: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise ConfigurationError("headers", f"is a {type(given).__name__}, not a mapping")
    return dict(given)


def _check_headers(instance: object, attribute: Attribute[Any], value: Mapping[str, str]) -> None:
    for name, content in value.items():
        where = f"headers[{name!r}]" if _is_token(name) else "headers"
        check_header(name, content, where=where)
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ConfigurationError(where, "is set by the library itself")


@frozen
class Endpoint:
    """A server that speaks the Responses API, and how to be let in.

    Attributes:
        base_url: Up to but not including ``/responses``, for example ``https://api.openai.com/v1``; http(s) or ws(s).
        api_key: A key, an async function that returns one (called for every new connection, within the connect
            budget), or None to send no Authorization header.
        websocket_url: The whole WebSocket URL where it is not ``base_url`` + ``/responses``.
        headers: Further headers for every handshake and request. Values never appear in reprs or errors.
        organization: Sent as ``OpenAI-Organization``.
        project: Sent as ``OpenAI-Project``.
        ssl_context: Used instead of the default one, which verifies certificates and host names; the only way to
            change how they are verified. Where other authorities or a client certificate belong.
        server_hostname: The name that is sent as the TLS handshake's SNI, and that the certificate must have, where
            it is not the URL's host. The ``Host`` header stays the URL's.
        proxy: The URL of a proxy for every connection, such as ``"http://user:password@host:3128"`` or
            ``"socks5h://host:1080"``; None for none. By default the environment decides when an engine is opened, by
            ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, unless a dialer was given to that engine.
            Credentials never appear in reprs or errors.
        profile: What kind of server it is: ``"openai"``, ``"generic"`` or a `Profile`; by the host's name if not given.

    Raises:
        ConfigurationError: a value could not be used; ``field`` names it.
    """

    base_url: str = field(default="https://api.openai.com/v1", validator=_check_url, repr=_shown_url)
    api_key: ApiKey = field(default=None, repr=lambda key: "None" if key is None else "<hidden>")
    websocket_url: str | None = field(default=None, kw_only=True, validator=optional(_check_url), repr=_shown_url)
    headers: Mapping[str, str] = field(
        factory=dict,
        kw_only=True,
        converter=_own_headers,
        validator=_check_headers,
        hash=False,  # a mapping has none, and equal endpoints have equal hashes without it
        repr=lambda headers: f"<{len(headers)}>",
    )
    organization: str | None = field(default=None, kw_only=True)
    project: str | None = field(default=None, kw_only=True)
    ssl_context: ssl.SSLContext | None = field(default=None, kw_only=True, repr=False)
    server_hostname: str | None = field(default=None, kw_only=True, validator=optional(_check_server_name))
    proxy: str | Unset | None = field(default=UNSET, kw_only=True, validator=_check_proxy, repr=_shown_proxy)
    profile: Profile | str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.api_key is not None and not callable(self.api_key):
            check_key(self.api_key)
        for name in ("organization", "project"):
            value = getattr(self, name)
            if value is not None:
                check_header("OpenAI-" + name.capitalize(), value, where=name)
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise ConfigurationError("ssl_context", f"is a {type(self.ssl_context).__name__}, not an ssl.SSLContext")
        profile_of(self.profile, "")

    @classmethod
    def from_env(cls) -> Endpoint:
        """Make an endpoint from the variables the official clients use.

        ``OPENAI_API_KEY`` is required; ``OPENAI_BASE_URL``, ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are optional.

        Raises:
            ConfigurationError: ``OPENAI_API_KEY`` is not set, or a variable cannot be used.
        """
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key:
            raise ConfigurationError("api_key", "the environment variable OPENAI_API_KEY is not set")
        return cls(
            os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
            key,
            organization=os.environ.get("OPENAI_ORG_ID") or None,
            project=os.environ.get("OPENAI_PROJECT_ID") or None,
        )

    @property
    def server(self) -> Profile:
        """What kind of server it is: the given profile, or the one that fits the host."""
        return profile_of(self.profile, self.websocket.hostname or "")

    @property
    def websocket(self) -> SplitResult:
        """The parsed URL the WebSocket handshake goes to (Responses API: the create call's own path)."""
        if self.websocket_url is not None:
            parts = urlsplit(self.websocket_url)
        else:
            base = urlsplit(self.base_url)
            parts = base._replace(path=base.path.rstrip("/") + "/responses")
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        return parts._replace(scheme=scheme, path=parts.path or "/")

    def http_url(self, path: str) -> str:
        """The URL of an HTTP request: ``path``, such as ``"/responses"``, below ``base_url``, whose query is kept."""
        base = urlsplit(self.base_url)
        scheme = {"ws": "http", "wss": "https"}.get(base.scheme, base.scheme)
        return urlunsplit(base._replace(scheme=scheme, path=base.path.rstrip("/") + path))

    def __str__(self) -> str:
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(query=""))


# --- budgets and limits ----------------------------------------------------------------------------------------------

Seconds: TypeAlias = float | Unset | None


def _seconds(instance: object, attribute: Attribute[Any], value: Seconds) -> None:
    if value is UNSET or value is None:
        return
    where = f"{type(instance).__name__.lower()}.{attribute.name}"
    seconds = _real(where, value, "a number of seconds or None")
    if math.isnan(seconds) or seconds < 0:
        raise ConfigurationError(where, "must not be negative or NaN")


def _real(where: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(where, f"is a {type(value).__name__}, not {wanted}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(where, "is too large") from None


def _some_seconds(instance: object, attribute: Attribute[Any], value: Seconds) -> None:
    _seconds(instance, attribute, value)
    if value == 0:  # a connection that is over as soon as it is open would be dialled again for ever
        raise ConfigurationError(f"limits.{attribute.name}", "must be greater than 0")


@frozen(kw_only=True)
class Timeouts:
    """How long to wait for what, in seconds; None waits for ever, and what is not given is decided further out.

    Attributes:
        queue: From queueing, right after the payload hook, until the lane is granted. Default 30.
        start: From the grant until the first event of this turn, over all attempts. Default 60.
        connect: Name resolution, TCP, proxy, TLS and upgrade together. Default 10.
        send: From handing over the frame until its last byte was passed on. Default 30.
        first_event: From then until the first event. Default 30.
        idle: Silence of this turn between two of its events. Default 300.
        turn: From entering the block until the response has ended. Default None.
        drain: Reading the rest of an abandoned response, with `OnCancel.DRAIN`. Default 5.
        close: The closing handshake; the socket is then aborted. 0 aborts at once. Default 2.
        warm_up: The exchange that prepares a connection, with `TurnOptions.warm_up`. Default 8.
    """

    queue: Seconds = field(default=UNSET, validator=_seconds)
    start: Seconds = field(default=UNSET, validator=_seconds)
    connect: Seconds = field(default=UNSET, validator=_seconds)
    send: Seconds = field(default=UNSET, validator=_seconds)
    first_event: Seconds = field(default=UNSET, validator=_seconds)
    idle: Seconds = field(default=UNSET, validator=_seconds)
    turn: Seconds = field(default=UNSET, validator=_seconds)
    drain: Seconds = field(default=UNSET, validator=_seconds)
    close: Seconds = field(default=UNSET, validator=_seconds)
    warm_up: Seconds = field(default=UNSET, validator=_seconds)

    def of(self, phase: str) -> float:
        """The budget called ``phase`` in seconds, infinite when there is none. Only for merged timeouts."""
        value = getattr(self, phase)
        return math.inf if value is None or value is UNSET else float(value)


DEFAULT_TIMEOUTS: Final = Timeouts(
    queue=30.0,
    start=60.0,
    connect=10.0,
    send=30.0,
    first_event=30.0,
    idle=300.0,
    turn=None,
    drain=5.0,
    close=2.0,
    warm_up=8.0,
)


def _count(instance: object, attribute: Attribute[Any], value: int | Unset) -> None:
    if value is UNSET:
        return
    where = f"limits.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(where, f"is a {type(value).__name__}, not a whole number")
    if value < 1:
        raise ConfigurationError(where, "must be at least 1")


@frozen(kw_only=True)
class Limits:
    """How much to hold and how long to keep it; what is not given is decided further out.

    A single turn can set ``max_request_bytes``, ``buffer_events`` and ``buffer_bytes``; the others are about the
    connection, which is the session's.

    Attributes:
        max_message_bytes: The largest message accepted from the server. Default 64 MiB.
        max_request_bytes: The largest request sent over WebSocket. Default 16 MiB, where servers were seen to refuse.
        max_outbox_bytes: Bytes waiting for a slow peer before the connection is given up. Default 64 MiB.
        buffer_events: Events a turn holds for its consumer; up to 128 more for one that is waiting for them, since some
            come together. Default 16,384.
        buffer_bytes: Bytes of text those events may hold together. Default 32 MiB.
        connection_lifetime: Seconds after which a connection takes no new turns. Default 3,300 (55 min), since the
            server ends it at 60 min.
        idle_lifetime: Seconds without a turn after which the connection is closed; the next turn opens another.
            None keeps it. Default 300.
        ping_interval: Seconds of silence before the peer is pinged; None never pings. Default 30.
        ping_timeout: Seconds to wait for any byte after a ping before the connection is given up. Default 20.
    """

    max_message_bytes: int | Unset = field(default=UNSET, validator=_count)
    max_request_bytes: int | Unset = field(default=UNSET, validator=_count)
    max_outbox_bytes: int | Unset = field(default=UNSET, validator=_count)
    buffer_events: int | Unset = field(default=UNSET, validator=_count)
    buffer_bytes: int | Unset = field(default=UNSET, validator=_count)
    connection_lifetime: Seconds = field(default=UNSET, validator=_some_seconds)
    idle_lifetime: Seconds = field(default=UNSET, validator=_some_seconds)
    ping_interval: Seconds = field(default=UNSET, validator=_some_seconds)
    ping_timeout: Seconds = field(default=UNSET, validator=_some_seconds)

    def number(self, name: str) -> int:
        """The limit called ``name``. Only for merged limits."""
        value = getattr(self, name)
        assert isinstance(value, int)
        return value

    def seconds(self, name: str) -> float:
        """The limit called ``name`` in seconds, infinite when there is none. Only for merged limits."""
        value = getattr(self, name)
        return math.inf if value is None or value is UNSET else float(value)


_MIB: Final = 1024 * 1024

DEFAULT_LIMITS: Final = Limits(
    max_message_bytes=64 * _MIB,
    max_request_bytes=16 * _MIB,
    max_outbox_bytes=64 * _MIB,
    buffer_events=16_384,
    buffer_bytes=32 * _MIB,
    connection_lifetime=3300.0,
    idle_lifetime=300.0,
    ping_interval=30.0,
    ping_timeout=20.0,
)


# --- what to ask of the model ----------------------------------------------------------------------------------------

PayloadHook: TypeAlias = Callable[[dict[str, Any]], "dict[str, Any] | Awaitable[dict[str, Any] | None] | None"]


def _number(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None:
        return
    where = f"options.{attribute.name}"
    if not math.isfinite(_real(where, value, "a number")):
        raise ConfigurationError(where, "must be finite")


def _whole(instance: object, attribute: Attribute[Any], value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigurationError(f"options.{attribute.name}", "must be a whole number, 0 or more")


def _name(instance: object, attribute: Attribute[Any], value: str | None) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigurationError(f"options.{attribute.name}", "must be a string that is not empty")


def _flag(instance: object, attribute: Attribute[Any], value: bool | None) -> None:
    if value is not None:
        _strict_flag(instance, attribute, value)


def _strict_flag(instance: object, attribute: Attribute[Any], value: bool) -> None:
    if not isinstance(value, bool):
        raise _not(attribute, value, "a bool")


def _mapping(instance: object, attribute: Attribute[Any], value: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise _not(attribute, value, "a mapping")
    if not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"options.{attribute.name}", "holds a name that is not a string")


def _string_pairs(instance: object, attribute: Attribute[Any], value: Mapping[str, str]) -> None:
    _mapping(instance, attribute, value)
    for name, content in value.items():
        if not isinstance(content, str):
            raise ConfigurationError(
                f"options.{attribute.name}[{name!r}]", f"is a {type(content).__name__}, not a string"
            )


def _list_of(kind: type, wanted: str) -> Callable[[object, Attribute[Any], Any], None]:
    def check(instance: object, attribute: Attribute[Any], value: Sequence[Any]) -> None:
        # A string is a sequence of strings, and a request with one character per entry is nobody's wish.
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise _not(attribute, value, f"a sequence of {wanted}s")
        for number, each in enumerate(value):
            if not isinstance(each, kind):
                raise ConfigurationError(
                    f"options.{attribute.name}[{number}]", f"is a {type(each).__name__}, not a {wanted}"
                )

    return check


def _tool_choice(instance: object, attribute: Attribute[Any], value: str | Mapping[str, Any] | None) -> None:
    if isinstance(value, Mapping):
        _mapping(instance, attribute, value)
    elif value is not None and not isinstance(value, str):
        raise _not(attribute, value, "a string or a mapping")
    else:
        _name(instance, attribute, value)


def _format(instance: object, attribute: Attribute[Any], value: Mapping[str, Any] | type | None) -> None:
    if isinstance(value, Mapping):
        _mapping(instance, attribute, value)
    elif value is not None:
        wire_format(value)  # what has no schema is best said before a connection is made


def _not(attribute: Attribute[Any], value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"options.{attribute.name}", f"is a {type(value).__name__}, not {wanted}")


@frozen(kw_only=True)
class TurnOptions:
    """What one request asks of the model. A field left at None is not sent at all, never as null.

    Attributes:
        model: Instead of the session's model.
        temperature: Sampling temperature.
        top_p: Nucleus sampling.
        max_output_tokens: Upper bound of the answer, reasoning included; 0 is sent as 0.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, the name of an offered function, or the wire's own object.
        parallel_tool_calls: Whether one response may hold several tool calls.
        reasoning_effort: Sent as ``reasoning.effort``.
        reasoning_summary: Sent as ``reasoning.summary``.
        text_verbosity: Sent as ``text.verbosity``.
        text_format: What the answer has to be: an attrs class, a dataclass or a TypedDict, of which `AssistantMessage`
            then holds one as ``parsed``; a JSON schema; or the wire's own ``text.format`` object.
        store: Whether the server keeps the response. Sent as false unless set; None leaves it to the server.
        include: Further parts of the response to include.
        service_tier: Which tier serves the request.
        truncation: What the server does when the input is too long.
        metadata: Up to 16 pairs of strings kept with the response.
        prompt_cache_key: Helps the server's prompt cache find its entry.
        safety_identifier: A stable, opaque id of the end user.
        context_management: The wire's own list, for example to let the server compact the context.
        warm_up: Whether a fresh connection is first told model, instructions and tools, so that the server can
            prepare. Once per connection; a failure is ignored and costs the turn `Timeouts.warm_up` at most.
        extra: Any other request field, under its wire name; passed through as given.
        payload_hook: Called once with the full request body, in the caller's task, before anything is sent; it may
            change the body or return another. May be async.
    """

    model: str | None = field(default=None, validator=_name)
    temperature: float | None = field(default=None, validator=_number)
    top_p: float | None = field(default=None, validator=_number)
    max_output_tokens: int | None = field(default=None, validator=_whole)
    tool_choice: str | Mapping[str, Any] | None = field(default=None, validator=_tool_choice, repr=False)
    parallel_tool_calls: bool | None = field(default=None, validator=_flag)
    reasoning_effort: str | None = field(default=None, validator=_name)
    reasoning_summary: str | None = field(default=None, validator=_name)
    text_verbosity: str | None = field(default=None, validator=_name)
    text_format: Mapping[str, Any] | type | None = field(default=None, validator=_format, repr=False)
    store: bool | None = field(default=False, validator=_flag)
    include: Sequence[str] | None = field(default=None, validator=optional(_list_of(str, "string")))
    service_tier: str | None = field(default=None, validator=_name)
    truncation: str | None = field(default=None, validator=_name)
    metadata: Mapping[str, str] | None = field(default=None, validator=optional(_string_pairs), repr=False)
    prompt_cache_key: str | None = field(default=None, validator=_name, repr=False)
    safety_identifier: str | None = field(default=None, validator=_name, repr=False)
    context_management: Sequence[Mapping[str, Any]] | None = field(
        default=None, validator=optional(_list_of(Mapping, "mapping")), repr=False
    )
    warm_up: bool = field(default=False, validator=_strict_flag)
    extra: Mapping[str, Any] = field(factory=dict, validator=_mapping, repr=False)
    payload_hook: PayloadHook | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.payload_hook is not None and not callable(self.payload_hook):
            raise ConfigurationError("options.payload_hook", "is not callable")
        for name in self.extra:
            if name in _OWN_FIELDS:
                raise ConfigurationError(f"options.extra[{name!r}]", "is set by the library or by another option")


_OWN_FIELDS = frozenset({"type", "stream_id", "input", "model", "previous_response_id", "stream", "generate"})
