"""``store`` on the command line."""

from __future__ import annotations

import json

import pytest
import trio

from engine import open_engine
from engine.cli import main
from engine.simulator import open_simulator
from engine.store import open_store


@pytest.fixture
def filled(store_url: str) -> str:
    async def fill() -> None:
        async with (
            open_simulator(in_memory=True) as sim,
            open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng,
            open_store(store_url, owner="me") as store,
        ):
            for name in ("one", "two"):
                async with store.open(eng, name) as chat:
                    await chat.send("a secret: what is 2+2?")

    trio.run(fill)
    return store_url


def run(*arguments: str) -> int:
    return main(["store", *arguments])


def test_a_list(filled: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--url", filled, "list") == 0
    shown = capfd.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == ["session", "two", "one"]
    assert "secret" not in shown
    assert run("--url", filled, "list", "--json") == 0
    assert [json.loads(line)["id"] for line in capfd.readouterr().out.splitlines()] == ["two", "one"]


def test_one_session(filled: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--url", filled, "show", "one") == 0
    shown = capfd.readouterr().out
    assert "rows: 1" in shown
    assert "secret" not in shown
    assert run("--url", filled, "show", "three") == 1
    assert "no session 'three'" in capfd.readouterr().err


def test_what_is_removed(filled: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_STORE", filled)
    assert run("release", "one") == 0
    assert run("forget", "one") == 0
    assert run("forget", "one") == 1
    assert run("migrate") == 0
    capfd.readouterr()
    assert run("prune") == 0
    assert capfd.readouterr().out == "0 removed\n"
    assert run("prune", "--days", "0") == 0
    assert capfd.readouterr().out == "1 removed\n"
    assert run("list") == 0
    assert capfd.readouterr().out == "No sessions.\n"


def test_a_store_that_cannot_be_opened(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--url", "sqlite:////nowhere/at/all.db", "list") == 1
    assert "StoreUnavailable" in capfd.readouterr().err
    assert run("--url", "mysql://user:password@host/db", "list") == 1
    shown = capfd.readouterr().err
    assert "must begin with sqlite:/// or postgresql://" in shown
    assert "password" not in shown


def test_the_help_of_a_command_needs_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--help") == 0
    assert "what is known of one session" in capsys.readouterr().out
    assert run("list") == 2
    assert "--url" in capsys.readouterr().err
