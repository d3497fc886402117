"""Profiles: which one a host has, and what they change on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

import engine
from engine.protocol.chain import Chain, HeldResponse, Plan
from engine.settings.profiles import AZURE, GENERIC, HTTP_ONLY, OPENAI, XAI, Profile, profile_of
from engine.simulator import Echo, Error, Quirks, Script, open_simulator
from engine.transport.credentials import Credentials, request_headers
from engine.values.problems import ConfigurationError


@pytest.mark.parametrize(
    ("url", "profile"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://API.OpenAI.com/v1", OPENAI),
        *((f"https://{region}.api.openai.com/v1", OPENAI) for region in ("us", "eu", "ae", "au", "in", "jp")),
        ("https://mine.openai.azure.com/openai/v1", AZURE),
        ("https://mine.services.ai.azure.com/openai/v1", AZURE),
        ("https://api.x.ai/v1", XAI),
        ("http://127.0.0.1:8000/v1", GENERIC),
        ("https://api.openai.com.evil.test/v1", GENERIC),
        ("https://evilapi.openai.com.test/v1", GENERIC),
        ("https://notapi.openai.com/v1", GENERIC),
        ("https://x.ai/v1", GENERIC),
    ],
)
def test_the_profile_of_a_host(url: str, profile: Profile) -> None:
    assert engine.Endpoint(url).server is profile


@pytest.mark.parametrize("name", ["openai", "azure", "xai", "generic", "http"])
def test_profiles_have_names(name: str) -> None:
    assert engine.Endpoint("http://host/v1", profile=name).server.name == name


@pytest.mark.parametrize("given", ["nobody", 3, ("openai",)])
def test_what_is_no_profile(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="profile"):
        profile_of(given, "")


def test_what_is_known_of_each() -> None:
    assert (OPENAI.multiplexing, OPENAI.max_lanes, OPENAI.max_active) == (True, 32, 16)
    assert not any(profile.multiplexing for profile in (AZURE, XAI, GENERIC, HTTP_ONLY))
    assert [profile.connection_lifetime for profile in (OPENAI, AZURE, XAI)] == [3300, 3300, 1440]
    assert [profile for profile in (OPENAI, AZURE, XAI, GENERIC, HTTP_ONLY) if not profile.websocket] == [HTTP_ONLY]


def fields(**options: Any) -> dict[str, str]:
    endpoint = engine.Endpoint("http://host/v1", **options)
    given = request_headers(endpoint, Credentials("sk-1", options.get("headers", {})))
    return {name.decode(): value.decode() for name, value in given}


def test_header_fields_of_a_profile_and_the_endpoints_own() -> None:
    beta = Profile("beta", headers={"OpenAI-Beta": "one", "X-Kind": "k"})
    sent = fields(profile=beta, headers={"openai-beta": "two"})
    assert {name: value for name, value in sent.items() if name != "User-Agent"} == {
        "X-Kind": "k",
        "openai-beta": "two",
        "Authorization": "Bearer sk-1",
    }


def test_the_field_that_carries_the_key() -> None:
    assert fields(profile=Profile("p", key_header="api-key"))["api-key"] == "sk-1"
    assert "Authorization" not in fields(profile=Profile("p", key_header="api-key"))


def test_header_values_are_not_in_the_repr() -> None:
    assert "s3cret" not in repr(Profile("p", headers={"x": "s3cret"}))


# --- continuing ------------------------------------------------------------------------------------------------------

BODY: dict[str, Any] = {"model": "m", "store": True, "input": [{"role": "user", "content": "hi"}]}


def planned(server: Profile, **fields: Any) -> Plan:
    body = {**BODY, **fields}
    chain = Chain()
    chain.arm(HeldResponse.after("resp_1", body, ()))
    return chain.plan(body, server=server)


def test_fields_that_may_not_stand_beside_an_id() -> None:
    assert planned(OPENAI, instructions="be brief").previous_response_id == "resp_1"
    assert planned(XAI, instructions="be brief") == Plan(full_because="instructions")
    assert planned(XAI).previous_response_id == "resp_1"
    assert planned(XAI, instructions=None).previous_response_id == "resp_1"


def test_servers_that_continue_only_what_they_store() -> None:
    assert planned(OPENAI, store=False).previous_response_id == "resp_1"
    assert planned(XAI, store=False) == Plan(full_because="store")


async def test_an_untyped_refusal_of_a_continuation_is_answered_with_the_whole(autojump_clock: MockClock) -> None:
    script = Script(["one", [Error(400, "previous_response_not_found")]], then=Echo())
    options = {"quirks": Quirks(errors="untyped"), "endpoint_options": {"profile": "xai"}}
    async with open_simulator(in_memory=True, brain=script, **options) as sim:  # type: ignore[arg-type]
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            stored = engine.TurnOptions(store=True)
            chat = session.conversation(options=stored)
            await chat.send("first")
            assert (await chat.send("second")).text == "second"
        assert [request.previous_response_id is not None for request in sim.requests] == [False, True, False]
        # An error that does not say what it is about may be another's, come late: nothing follows it on its connection.
        assert len(sim.connections) == 2
