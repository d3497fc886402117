"""Credentials: keys and header fields that are given, or that functions of either kind give."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio

from engine import ConfigurationError, Endpoint, Transport, open_session
from engine.simulator import open_simulator
from engine.transport.credentials import Credentials, resolve

HERE = threading.get_ident()


class Calls:
    """Functions that note the thread they are called in."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.threads: list[int] = []

    def sync(self, *_: object) -> Any:
        self.threads.append(threading.get_ident())
        return self.result

    async def later(self, *_: object) -> Any:
        self.threads.append(threading.get_ident())
        await trio.lowlevel.checkpoint()
        return self.result

    def __call__(self) -> Any:
        return self.sync()

    def coroutine(self) -> Any:
        return self.later()


class Awaited(Calls):
    async def __call__(self) -> Any:
        return await self.later()


FORMS: list[tuple[Callable[[Any], tuple[Calls, Any]], bool]] = [
    (lambda result: (calls := Calls(result), calls.sync), True),
    (lambda result: (calls := Calls(result), calls), True),
    (lambda result: (calls := Calls(result), functools.partial(calls.sync, 1)), True),
    (lambda result: (calls := Calls(result), calls.later), False),
    (lambda result: (calls := Awaited(result), calls), False),
    (lambda result: (calls := Calls(result), functools.partial(calls.later, 1)), False),
    (lambda result: (calls := Calls(result), calls.coroutine), False),  # called in a thread, awaited here
]


@pytest.mark.parametrize(
    ("make", "in_a_thread"),
    FORMS,
    ids=["sync", "callable", "partial", "async", "async callable", "async partial", "returns a coroutine"],
)
async def test_functions_of_every_form(make: Callable[[Any], tuple[Calls, Any]], in_a_thread: bool) -> None:
    keys, key = make("sk-1")
    fields, headers = make({"X-Mine": "1"})
    found = await resolve(Endpoint("https://host/v1", key, headers=headers))
    assert found == Credentials("sk-1", {"X-Mine": "1"})
    for calls in (keys, fields):
        assert len(calls.threads) == 1
        assert (calls.threads[0] != HERE) == in_a_thread
    assert "sk-1" not in repr(found)


async def test_what_is_given_is_taken() -> None:
    assert await resolve(Endpoint("https://host/v1")) == Credentials(None, {})
    assert await resolve(Endpoint("https://host/v1", "sk-1", headers={"A": "b"})) == Credentials("sk-1", {"A": "b"})


@pytest.mark.parametrize("key", ["", " ", None, 7, "sk\n"], ids=repr)
async def test_functions_that_return_no_key(key: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await resolve(Endpoint("https://host/v1", lambda: key))
    assert caught.value.field == "api_key"


@pytest.mark.parametrize("headers", [None, "A: b", {"A": "b\n"}, {"A": 1}, {"Host": "x"}, {1: "b"}], ids=repr)
async def test_functions_that_return_no_header_fields(headers: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await resolve(Endpoint("https://host/v1", headers=lambda: headers))
    assert caught.value.field.startswith("headers")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
async def test_what_a_function_raises_comes_out(kind: type[BaseException]) -> None:
    def fail() -> str:
        raise kind("why")

    with pytest.raises(kind, match="why"):
        await resolve(Endpoint("https://host/v1", fail))


def test_functions_take_no_part_in_what_an_endpoint_shows() -> None:
    def headers() -> Mapping[str, str]:
        return {}

    endpoint = Endpoint("https://host/v1", headers=headers)
    assert "headers=<hidden>" in repr(endpoint)
    assert endpoint == Endpoint("https://host/v1", headers=headers)
    assert hash(endpoint) == hash(Endpoint("https://host/v1"))


@pytest.mark.parametrize("transport", [Transport.WEBSOCKET, Transport.SSE])
async def test_every_connection_asks_anew(transport: Transport) -> None:
    numbers = iter(range(10))
    async with open_simulator() as sim:
        endpoint = Endpoint(
            sim.base_url, lambda: sim.api_key, headers=lambda: {"X-Number": str(next(numbers))}, proxy=None
        )
        for expected in ("0", "1"):
            async with open_session(endpoint, model="m", transport=transport) as session:
                assert (await session.ask("1+1")).text == "2"
            assert sim.connections[-1].headers["x-number"] == expected
