"""The address of a server, and the means to be let in."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit, urlunsplit

from attrs import Attribute, field, frozen
from attrs.validators import optional

from engine.settings.profiles import Profile, profile_of
from engine.settings.proxies import parse_proxy
from engine.values.checks import wrong_type
from engine.values.choices import UNSET, Unset
from engine.values.problems import ConfigurationError

__all__ = ["ApiKey", "Endpoint", "Headers", "check_endpoint", "check_header", "check_headers", "check_key"]

ApiKey: TypeAlias = str | Callable[[], str | Awaitable[str]] | None
Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESERVED_HEADERS = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding", "upgrade"})


def _is_token(name: object) -> bool:
    return isinstance(name, str) and name != "" and set(name) <= _TOKEN_CHARACTERS


def check_header(name: object, value: object, *, where: str) -> None:
    """Raise `ConfigurationError` unless the pair is a legal HTTP field (RFC 9110 section 5).

    A line break would let the value's supplier write headers of their own.
    """
    if not _is_token(name):
        raise ConfigurationError(where, "the header name holds characters that a header name may not have")
    if not isinstance(value, str):
        raise wrong_type(where, value, "a string")
    if any(not (character == "\t" or " " <= character <= "~") for character in value):
        raise ConfigurationError(where, "holds a line break, another control character or a character outside ASCII")
    if value != value.strip(" \t"):
        raise ConfigurationError(where, "begins or ends with white space")


def check_key(key: object) -> str:
    """Return ``key`` if it can stand in an Authorization header, else raise `ConfigurationError`."""
    if not isinstance(key, str):
        raise wrong_type("api_key", key, "a string")
    if not key.strip():
        raise ConfigurationError("api_key", "is empty")
    check_header("authorization", key, where="api_key")
    return key


_ROUTES = ("/responses", "/chat/completions")


def _check_url(instance: object, attribute: Attribute[Any], value: str) -> None:
    where = attribute.name
    if not isinstance(value, str):
        raise wrong_type(where, value, "a string")
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
    if where == "base_url":
        path = parts.path.rstrip("/")
        added = next((route for route in _ROUTES if path.endswith(route)), None)
        if added is not None:
            raise ConfigurationError(where, f"ends in {added}: leave that off, the route is added for each request")


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
    if not isinstance(url, str):
        return repr(url)
    proxy = parse_proxy(url, where="proxy")
    return repr(f"{proxy.scheme}://{proxy}")


def _check_server_name(instance: object, attribute: Attribute[Any], value: str) -> None:
    where = attribute.name
    if not isinstance(value, str):
        raise wrong_type(where, value, "a string")
    try:
        ip_address(value)
    except ValueError:
        if not _HOST_NAME.match(value):
            raise ConfigurationError(where, "is not the name of a host, nor an address") from None


def check_headers(given: object) -> dict[str, str]:
    """Return header fields if they can stand in a request, else raise `ConfigurationError`."""
    if not isinstance(given, Mapping):
        raise wrong_type("headers", given, "a mapping")
    for name, content in given.items():
        where = f"headers[{name!r}]" if _is_token(name) else "headers"
        check_header(name, content, where=where)
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ConfigurationError(where, "is set by the library itself")
    return dict(given)


def _own_headers(given: Headers) -> Headers:
    return given if callable(given) else check_headers(given)


@frozen
class Endpoint:
    """A server that speaks the Responses API, and how to be let in.

    Attributes:
        base_url: Up to but not including ``/responses``, for example ``https://api.openai.com/v1``; http(s) or ws(s).
        api_key: A key, or a function that returns one, or None to send no Authorization header. A function is called
            for every new connection, within the connect budget; a sync one in a worker thread.
        websocket_url: The whole WebSocket URL where it is not ``base_url`` + ``/responses``.
        headers: Further headers for every handshake and request: a mapping, or a function that returns one, called as
            that of ``api_key`` is. Values never appear in reprs or errors.
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
        profile: The kind of server: ``"openai"``, ``"generic"`` or a `Profile`; by the host's name if not given.

    Raises:
        ConfigurationError: a value could not be used; ``field`` names it.
    """

    base_url: str = field(default="https://api.openai.com/v1", validator=_check_url, repr=_shown_url)
    api_key: ApiKey = field(default=None, repr=lambda key: "None" if key is None else "<hidden>")
    websocket_url: str | None = field(default=None, kw_only=True, validator=optional(_check_url), repr=_shown_url)
    headers: Headers = field(
        factory=dict,
        kw_only=True,
        converter=_own_headers,
        hash=False,  # a mapping has none, and equal endpoints have equal hashes without it
        repr=lambda headers: "<hidden>" if callable(headers) else f"<{len(headers)}>",
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
            raise wrong_type("ssl_context", self.ssl_context, "an ssl.SSLContext")
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
        """The kind of server: the given profile, or the one that fits the host."""
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
        """The URL of an HTTP request: ``path``, such as ``"/responses"``, below ``base_url``; both may have a query."""
        base = urlsplit(self.base_url)
        scheme = {"ws": "http", "wss": "https"}.get(base.scheme, base.scheme)
        path, _, query = path.partition("?")
        query = "&".join(each for each in (base.query, query) if each)
        return urlunsplit(base._replace(scheme=scheme, path=base.path.rstrip("/") + path, query=query))

    def __str__(self) -> str:
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(query=""))


def check_endpoint(endpoint: object) -> None:
    """Raise `ConfigurationError` unless it is an endpoint."""
    if not isinstance(endpoint, Endpoint):
        raise wrong_type("endpoint", endpoint, "an Endpoint")
