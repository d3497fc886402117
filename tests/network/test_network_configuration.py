"""Which proxy is meant: URLs, the environment, exemptions. What cannot be used is refused, by name and unseen."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
from invariants import said

import engine
from engine.settings.proxies import Proxy, environment_proxy, exempts, parse_proxy
from engine.values.choices import UNSET

SECRET = "word-that-nobody-may-see"


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "proxy", "shown"),
    [
        ("http://proxy.test:3128", Proxy("http", "proxy.test", 3128), "proxy.test:3128"),
        ("HTTP://Proxy.test/", Proxy("http", "proxy.test", 80), "proxy.test:80"),
        ("https://proxy.test", Proxy("https", "proxy.test", 443), "proxy.test:443"),
        ("socks5://10.0.0.1", Proxy("socks5", "10.0.0.1", 1080), "10.0.0.1:1080"),
        ("socks5h://[::1]:9050", Proxy("socks5h", "::1", 9050), "[::1]:9050"),
        ("socks4://me@proxy.test", Proxy("socks4", "proxy.test", 1080, "me"), "proxy.test:1080"),
        ("socks4a://proxy.test", Proxy("socks4a", "proxy.test", 1080), "proxy.test:1080"),
        ("http://a%40b:c%3Ad%2F@proxy.test", Proxy("http", "proxy.test", 80, "a@b", "c:d/"), "proxy.test:80"),
        ("http://a:%C3%B6@proxy.test", Proxy("http", "proxy.test", 80, "a", "\xc3\xb6"), "proxy.test:80"),
        ("http://a:@proxy.test", Proxy("http", "proxy.test", 80, "a", ""), "proxy.test:80"),
        ("http://a@proxy.test", Proxy("http", "proxy.test", 80, "a"), "proxy.test:80"),
        ("socks://proxy.test", Proxy("socks5", "proxy.test", 1080), "proxy.test:1080"),
        ("SOCKS://me:pw@proxy.test:9", Proxy("socks5", "proxy.test", 9, "me", "pw"), "proxy.test:9"),
        ("proxy.test:3128", Proxy("http", "proxy.test", 3128), "proxy.test:3128"),
        ("[::1]:3128", Proxy("http", "::1", 3128), "[::1]:3128"),
        ("me:p%40w@proxy.test:3128", Proxy("http", "proxy.test", 3128, "me", "p@w"), "proxy.test:3128"),
        (f"socks5://{255 * 'a'}:{255 * 'b'}@p", Proxy("socks5", "p", 1080, 255 * "a", 255 * "b"), "p:1080"),
    ],
)
def test_the_url_of_a_proxy(url: str, proxy: Proxy, shown: str) -> None:
    assert parse_proxy(url, where="proxy") == proxy
    assert str(proxy) == shown


UNUSABLE: list[Any] = [
    "",
    "nonsense",
    "//proxy.test:3128",
    "ftp://proxy.test",
    "proxy.test",
    "mailto:proxy",
    "http:/proxy.test:3128",
    "://proxy.test",
    f"{SECRET}://proxy.test",
    "http://",
    "http://:3128",
    f"http://u:{SECRET}@",
    "http://proxy.test:0",
    "http://proxy.test:99999",
    "http://proxy.test:port",
    "http://[::1",
    "http://a..b:3128",
    f"http://proxy.test/{SECRET}",
    f"http://proxy.test?{SECRET}",
    f"http://proxy.test#{SECRET}",
    f"http://u:{SECRET}#rest@proxy.test",
    f"http://u:{SECRET}/rest@proxy.test",
    f"http://proxy.test:3128 {SECRET}",
    f"http://u:{SECRET}\r\n@proxy.test",
    f"http://u:{SECRET}ö@proxy.test",
    f"http://:{SECRET}@proxy.test",
    "http://@proxy.test",
    f"http://u%3A:{SECRET}@proxy.test",
    f"socks5://{SECRET}@proxy.test",
    f"socks5://{SECRET}:@proxy.test",
    f"socks5://u:{SECRET}%C3%B6@proxy.test",
    f"socks5h://u:{256 * 'p'}@proxy.test",
    f"socks4://u:{SECRET}@proxy.test",
    "socks4a://u%00x@proxy.test",
]


@pytest.mark.parametrize("url", [*UNUSABLE, 3128, b"http://proxy.test", True])
def test_what_cannot_be_used_is_refused_and_not_shown(url: Any) -> None:
    with pytest.raises(engine.ConfigurationError) as caught:
        engine.Endpoint(proxy=url)
    assert caught.value.field == "proxy"
    assert SECRET not in said(caught.value)


def test_an_endpoint_shows_its_proxy_without_credentials() -> None:
    endpoint = engine.Endpoint(proxy=f"http://user-name:{SECRET}@proxy.test:3128")
    assert "proxy='http://proxy.test:3128'" in repr(endpoint)
    for shown in (repr(endpoint), str(endpoint), repr(parse_proxy(endpoint.proxy, where="proxy"))):
        assert SECRET not in shown
        assert "user-name" not in shown
    assert "proxy=UNSET" in repr(engine.Endpoint())
    assert "proxy=None" in repr(engine.Endpoint(proxy=None))
    assert engine.Endpoint().proxy is UNSET
    assert attrs.evolve(endpoint, proxy=None) == engine.Endpoint(proxy=None) != endpoint


def test_a_proxy_without_a_scheme_is_shown_with_it() -> None:
    endpoint = engine.Endpoint(proxy=f"user-name:{SECRET}@proxy.test:3128")
    assert "proxy='http://proxy.test:3128'" in repr(endpoint)
    assert "proxy='socks5://proxy.test:1080'" in repr(engine.Endpoint(proxy="socks://proxy.test"))


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("https://api.test/v1/responses", "/responses"),
        ("https://api.test/v1/responses/?api-version=1", "/responses"),
        ("wss://api.test/responses", "/responses"),
        ("https://api.test/v1/chat/completions", "/chat/completions"),
    ],
)
def test_a_base_url_that_names_a_route(url: str, route: str) -> None:
    with pytest.raises(engine.ConfigurationError) as caught:
        engine.Endpoint(url)
    assert caught.value.field == "base_url"
    assert f"ends in {route}" in str(caught.value)
    assert engine.Endpoint(websocket_url="wss://api.test/v1/responses")
    assert engine.Endpoint("https://api.test/responses/v1")


@pytest.mark.parametrize("name", ["api.test", "127.0.0.1", "::1", "a_b.test", "x", 63 * "a" + ".test"])
def test_a_name_to_verify(name: str) -> None:
    assert engine.Endpoint(server_hostname=name).server_hostname == name


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a..b", ".a", "a.", "a:1", "[::1]", "ü.test", "*.test", "a\0b", 64 * "a", 80 * "abc." + "d", 1, b"a"],
)
def test_what_cannot_be_a_name_to_verify(name: Any) -> None:
    with pytest.raises(engine.ConfigurationError) as caught:
        engine.Endpoint(server_hostname=name)
    assert caught.value.field == "server_hostname"


# --- the environment ---


def chosen(environ: dict[str, str], *, tls: bool = True, host: str = "api.test", port: int = 443) -> str | None:
    proxy = environment_proxy(environ, tls=tls, host=host, port=port)
    return None if proxy is None else f"{proxy.scheme}://{proxy}"


ALL = {name: f"http://{name.lower().removesuffix('_proxy')}.test:1" for name in ("HTTP_PROXY", "HTTPS_PROXY")}


@pytest.mark.parametrize(
    ("environ", "tls", "expected"),
    [
        ({}, True, None),
        (ALL, True, "http://https.test:1"),
        (ALL, False, "http://http.test:1"),
        ({"https_proxy": "http://p.test:1"}, True, "http://p.test:1"),
        ({"http_proxy": "http://p.test:1"}, False, "http://p.test:1"),
        ({"http_proxy": "http://p.test:1"}, True, None),
        ({"HTTPS_PROXY": "http://p.test:1"}, False, None),
        ({"https_proxy": "http://lower.test:1", "HTTPS_PROXY": "http://upper.test:1"}, True, "http://lower.test:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://upper.test:1"}, True, "http://upper.test:1"),
        ({"ALL_PROXY": "socks5h://p.test"}, True, "socks5h://p.test:1080"),
        ({"ALL_PROXY": "socks5h://p.test"}, False, "socks5h://p.test:1080"),
        ({"all_proxy": "socks5://lower.test", "ALL_PROXY": "nonsense"}, True, "socks5://lower.test:1080"),
        ({**ALL, "ALL_PROXY": "socks5h://p.test"}, True, "http://https.test:1"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "socks5h://p.test"}, True, "socks5h://p.test:1080"),
        ({"HTTPS_PROXY": "proxy.test:3128"}, True, "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "[::1]:3128"}, True, "http://[::1]:3128"),
        ({**ALL, "REQUEST_METHOD": "GET"}, False, None),
        ({**ALL, "REQUEST_METHOD": "GET"}, True, "http://https.test:1"),
        ({"http_proxy": "http://p.test:1", "REQUEST_METHOD": ""}, False, "http://p.test:1"),
        ({**ALL, "REQUEST_METHOD": "GET", "ALL_PROXY": "http://p.test:1"}, False, "http://p.test:1"),
        ({**ALL, "NO_PROXY": "api.test"}, True, None),
        ({**ALL, "NO_PROXY": "other.test"}, True, "http://https.test:1"),
        ({**ALL, "no_proxy": "other.test", "NO_PROXY": "api.test"}, True, "http://https.test:1"),
        ({**ALL, "no_proxy": "", "NO_PROXY": "api.test"}, True, None),
        ({"HTTPS_PROXY": "nonsense", "NO_PROXY": "*"}, True, None),
    ],
)
def test_the_proxy_that_the_environment_names(environ: dict[str, str], tls: bool, expected: str | None) -> None:
    assert chosen(environ, tls=tls) == expected


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("url", [url for url in UNUSABLE if url not in {"", "proxy.test:3128"}])
def test_an_unusable_variable_is_refused_by_name(name: str, url: str) -> None:
    with pytest.raises(engine.ConfigurationError) as caught:
        chosen({name: url, "HTTP_PROXY": "http://another.test"})
    assert caught.value.field == name
    assert SECRET not in said(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("", "api.test", 443, False),
        ("*", "api.test", 443, True),
        ("*", "10.0.0.1", 443, True),
        ("a.test,*", "::1", 443, True),
        ("*:80", "api.test", 443, False),
        ("api.test", "api.test", 443, True),
        ("API.Test", "api.TEST", 443, True),
        ("api.test", "sub.api.test", 443, True),
        (".api.test", "sub.api.test", 443, True),
        (".api.test", "api.test", 443, True),
        ("*.api.test", "sub.api.test", 443, True),
        ("api.test.", "api.test", 443, True),
        ("api.test", "api.test.", 443, True),
        ("api.test", "notapi.test", 443, False),
        (".api.test", "notapi.test", 443, False),
        ("i.test", "api.test", 443, False),
        ("sub.api.test", "api.test", 443, False),
        ("a*i.test", "api.test", 443, False),
        (".", "api.test", 443, False),
        ("*.", "api.test", 443, False),
        (",, ,", "api.test", 443, False),
        ("one.test, two.test", "two.test", 443, True),
        ("one.test two.test", "two.test", 443, True),
        ("one.test,\ttwo.test", "two.test", 443, True),
        ("api.test:443", "api.test", 443, True),
        ("api.test:443", "sub.api.test", 443, True),
        ("api.test:80", "api.test", 443, False),
        ("api.test:", "api.test", 443, False),
        ("api.test:x", "api.test", 443, False),
        ("localhost", "localhost", 80, True),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.2", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, True),
        ("10.0.0.1:81", "10.0.0.1", 80, False),
        ("0.0.1", "127.0.0.1", 80, False),
        (".1", "127.0.0.1", 80, False),
        ("10.0.0.0/8", "10.9.8.7", 80, True),
        ("10.0.0.1/8", "10.9.8.7", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8:80", "10.1.1.1", 80, True),
        ("10.0.0.0/99", "10.1.1.1", 80, False),
        ("10.0.0.0/8", "ten.test", 80, False),
        ("0.0.0.0/0", "::1", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:81", "::1", 80, False),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("fd00::/8", "fe80::1", 80, False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", 80, True),
        ("127.0.0.1", "localhost", 80, False),
    ],
)
def test_exemptions(no_proxy: str, host: str, port: int, expected: bool) -> None:
    assert exempts(no_proxy, host, port) is expected


# --- when it is read ---


async def test_the_environment_is_read_when_an_engine_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = engine.open_session(engine.Endpoint("https://api.test/v1"), model="m")
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://u:{SECRET}@proxy.test")
    with pytest.raises(engine.ConfigurationError) as caught:
        async with opener:
            pytest.fail("must not be entered")
    assert caught.value.field == "HTTPS_PROXY"
    assert SECRET not in said(caught.value)
    async with engine.open_engine(engine.Endpoint("http://api.test/v1"), model="m"):
        pass  # nothing of this engine's would go there
    async with engine.open_engine(engine.Endpoint("https://api.test/v1", proxy=None), model="m"):
        pass
    monkeypatch.setenv("HTTPS_PROXY", "")
    async with opener:
        pass


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy"])
async def test_the_urls_of_both_transports_count(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "ftp://proxy.test")
    endpoint = engine.Endpoint("http://api.test/v1", websocket_url="wss://api.test/socket")
    with pytest.raises(engine.ConfigurationError, match=variable):
        async with engine.open_engine(endpoint, model="m"):
            pytest.fail("must not be entered")


def test_the_tests_do_not_depend_on_the_machines_proxies() -> None:
    assert not {name for name in os.environ if name.upper().endswith("_PROXY")}
