"""The pytest plugin, in test runs of its own: beside every other plugin that runs async tests."""

from __future__ import annotations

import importlib.util
import json

import pytest

from engine.testing import run_simulator

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a process for each run

PLUGIN = ("-p", "engine.testing.plugin", "-p", "no:cacheprovider", "-W", "error")
ONLY_TRIO = (*PLUGIN, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:recording")


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess(*(arguments or ONLY_TRIO))


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


def test_nothing_is_imported_before_a_fixture_is_used(pytester: pytest.Pytester) -> None:
    source = """
        import sys

        def loaded():
            return sorted(name for name in sys.modules if name.split(".")[0] in {"engine", "trio", "httpx", "cattrs"})

        def test_before():
            assert loaded() == ["engine", "engine.testing", "engine.testing.plugin"]

        def test_after(responses_simulator):
            assert "engine.session" in loaded()
    """
    run(pytester, source, *ONLY_TRIO, "-p", "no:trio").assert_outcomes(passed=2)


def test_plain_tests(pytester: pytest.Pytester) -> None:
    source = """
        import json, urllib.request
        import pytest
        from engine.simulator import Call, When

        def ask(server, text):
            body = json.dumps({"model": "m", "input": text}).encode()
            fields = {"authorization": f"Bearer {server.api_key}", "content-type": "application/json"}
            request = urllib.request.Request(f"{server.base_url}/responses", body, fields)
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["output"][-1]["content"][0]["text"]

        @pytest.mark.simulator("Hello!", When(text="weather").then("rain"))
        def test_a_server(responses_server):
            assert ask(responses_server, "weather?") == "Hello!"
            assert ask(responses_server, "weather?") == "rain"
            assert len(responses_server.requests) == 2

        def test_answers_that_come_later(responses_server):
            responses_server.add("one", "two")
            assert [ask(responses_server, "x"), ask(responses_server, "x")] == ["one", "two"]

        def test_no_answers_are_a_calculator(responses_server):
            assert ask(responses_server, "What is 2+2?") == "4"

        @pytest.mark.simulator("in memory")
        def test_a_session(responses_session, responses_simulator):
            with responses_session.blocking() as session:
                assert session.ask("x").text == "in memory"
            assert [each.body["model"] for each in responses_simulator.requests] == ["gpt-5.4"]

        def test_content_is_shown(responses_simulator):
            from engine import UserMessage
            assert "hello" in repr(UserMessage("hello"))

        def test_content_is_not_shown():
            from engine import UserMessage
            assert "hello" not in repr(UserMessage("hello"))

        def test_asyncio(responses_session):
            import asyncio

            async def main():
                async with responses_session.aio() as session:
                    return (await session.ask("What is 2+2?")).text

            assert asyncio.run(main()) == "4"
    """
    run(pytester, source).assert_outcomes(passed=7)


AGENT = """
    import pytest, trio
    from engine import tool, Timeouts, TurnTimeout
    from engine.simulator import Call, Stall, When

    async def weather(city: str) -> str:
        "Say what the weather is like."
        return f"rain in {city}"

    async def agent(session, prompt):
        chat = session.conversation(tools=[weather])
        return (await chat.send(prompt)).text
"""

TRIO_TESTS = """
    @pytest.mark.simulator(Call("weather", {"city": "Bergen"}), "Take an umbrella.")
    async def test_agent(responses_session, responses_simulator):
        async with responses_session() as session:
            assert await agent(session, "Umbrella in Bergen?") == "Take an umbrella."
        assert "rain in Bergen" in str(responses_simulator.requests[-1].body)

    @pytest.mark.simulator("one", "two")
    async def test_by_hand(responses_simulator):
        from engine import open_session
        for answer in ("one", "two"):
            async with open_session(
                responses_simulator.endpoint, model="m", dialer=responses_simulator.dialer
            ) as session:
                assert (await session.ask("x")).text == answer
        assert len(responses_simulator.connections) == 2
"""


def test_under_pytest_trio(pytester: pytest.Pytester) -> None:
    source = (
        AGENT
        + TRIO_TESTS
        + """
    @pytest.mark.simulator(When(text="x").then(Stall()))
    async def test_an_hour_passes_at_once(responses_session, autojump_clock):
        async with responses_session(timeouts=Timeouts(idle=3600, first_event=3600, start=7200)) as session:
            with pytest.raises(TurnTimeout):
                await session.ask("x")
        assert trio.current_time() >= 3600
"""
    )
    pytester.makeini("[pytest]\ntrio_mode = true")
    run(pytester, source).assert_outcomes(passed=3)


def test_under_anyio_on_trio(pytester: pytest.Pytester) -> None:
    source = (
        "    pytestmark = __import__('pytest').mark.anyio\n"
        + AGENT
        + TRIO_TESTS
        + """
    @pytest.fixture(scope="module")
    def anyio_backend():
        return "trio"
"""
    )
    run(pytester, source, *PLUGIN, "-p", "no:trio", "-p", "no:asyncio", "-p", "no:recording").assert_outcomes(passed=2)


ASYNCIO_TESTS = """
    import asyncio, pytest
    from engine.simulator import Call

    @pytest.mark.simulator("one", "two")
    async def test_session(responses_session):
        async with responses_session.aio() as session:
            assert (await session.ask("x")).text == "one"
            async with session.turn("y") as turn:
                assert [event async for event in turn]
            assert turn.message.text == "two"

    @pytest.mark.simulator("served")
    async def test_server(responses_server):
        import httpx
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{responses_server.base_url}/responses",
                json={"model": "m", "input": "x"},
                headers={"authorization": f"Bearer {responses_server.api_key}"},
            )
        assert answer.json()["output"][0]["content"][0]["text"] == "served"
"""


def test_under_anyio_on_asyncio(pytester: pytest.Pytester) -> None:
    source = (
        "    pytestmark = __import__('pytest').mark.anyio\n"
        + ASYNCIO_TESTS
        + """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""
    )
    run(pytester, source, *PLUGIN, "-p", "no:trio", "-p", "no:asyncio", "-p", "no:recording").assert_outcomes(passed=2)


@installed("pytest_asyncio")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_under_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    mark = "    pytestmark = __import__('pytest').mark.asyncio\n" if mode == "strict" else ""
    arguments = (*PLUGIN, "-p", "no:trio", "-p", "no:anyio", "-p", "no:recording", f"--asyncio-mode={mode}")
    options = ("-o", "asyncio_default_fixture_loop_scope=function")
    run(pytester, mark + ASYNCIO_TESTS, *arguments, *options).assert_outcomes(passed=2)


@installed("xdist")
def test_under_xdist(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_each_has_its_own(responses_server, number):
            from engine.blocking import open_session
            responses_server.add(str(number))
            with open_session(responses_server.endpoint, model="m") as session:
                assert session.ask("x").text == str(number)
    """
    run(pytester, source, *ONLY_TRIO, "-n", "2").assert_outcomes(passed=8)


@installed("pytest_recording")
def test_beside_pytest_recording(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.vcr
        @pytest.mark.simulator("in memory")
        def test_a_session(responses_session):
            with responses_session.blocking() as session:
                assert session.ask("x").text == "in memory"
    """
    run(pytester, source, *PLUGIN, "-p", "no:trio", "-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=1)


def test_it_complains_where_the_test_itself_passed(pytester: pytest.Pytester) -> None:
    source = """
        import pytest
        from engine.simulator import Script

        @pytest.mark.simulator("used", "never used")
        def test_left_over(responses_session):
            with responses_session.blocking() as session:
                session.ask("x")

        @pytest.mark.simulator("never used")
        def test_never_dialled(responses_simulator):
            pass

        @pytest.mark.simulator("used")
        def test_too_many(responses_server):
            from engine import TurnError, blocking
            with blocking.open_session(responses_server.endpoint, model="m") as session:
                session.ask("x")
                with pytest.raises(TurnError):
                    session.ask("y", retry=__import__("engine").RetryPolicy(max_dispatches=1))

        @pytest.mark.simulator("never used")
        def test_failed_by_itself(responses_simulator):
            assert 1 == 2

        @pytest.mark.simulator("never used", strict=False)
        def test_allowed(responses_simulator):
            pass

        def test_a_brain_that_breaks(responses_server):
            from engine import TurnError, blocking
            def brain(asked):
                raise ZeroDivisionError
            responses_server.brain = brain
            with blocking.open_session(responses_server.endpoint, model="m") as session:
                with pytest.raises(TurnError):
                    session.ask("x", retry=__import__("engine").RetryPolicy(max_dispatches=1))
    """
    result = run(pytester, source)
    result.assert_outcomes(failed=5, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*the simulator complains: turns?1? was never used*",
            "*the simulator complains: turns?0? was never used*",
            "*the simulator complains: *fitted no entry of the script*",
            "*assert 1 == 2*",
            "*the simulator complains: ZeroDivisionError*",
        ]
    )


def test_options_of_the_simulator(pytester: pytest.Pytester) -> None:
    source = """
        import pytest
        from engine import AuthenticationFailed, Endpoint, blocking

        @pytest.mark.simulator(api_key="sk-right", roots=["/openai/v1"])
        def test_a_key(responses_server):
            assert responses_server.base_url.endswith("/openai/v1")
            with blocking.open_session(Endpoint(responses_server.base_url, "sk-wrong"), model="m") as session:
                with pytest.raises(AuthenticationFailed):
                    session.ask("x")
    """
    run(pytester, source).assert_outcomes(passed=1)


@pytest.mark.parametrize("fixture", ["responses_simulator", "responses_server"])
def test_a_mistake_in_the_options_is_told_before_the_test(pytester: pytest.Pytester, fixture: str) -> None:
    source = f"""
        import pytest

        @pytest.mark.simulator("one", api_kye="sk-right")
        def test_a_key({fixture}):
            pytest.fail("it has begun")
    """
    result = run(pytester, source)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*TypeError*unexpected keyword argument 'api_kye'*"])


def test_a_script_beside_the_test(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("agents")
    rules = [
        {"when": {"text": "weather"}, "reply": "rain"},
        {"name": "first", "reply": "one", "times": 1, "required": True},
    ]
    script = {"version": 1, "server": {"models": ["m"]}, "rules": rules, "otherwise": {"brain": "fail"}}
    (folder / "agent.json").write_text(json.dumps(script))
    (folder / "wrong.json").write_text('{"version": 1,\n "rules": [{"replay": "one"}]}')
    source = """
        import pytest

        @pytest.mark.simulator(script="agent.json")
        def test_answers(responses_session, responses_simulator):
            responses_simulator.add("added")
            with responses_session.blocking(model="m") as session:
                assert [session.ask(text).text for text in ("x", "weather?", "x")] == ["one", "rain", "added"]

        @pytest.mark.simulator(script="agent.json", models=["n"])
        def test_arguments_go_before_the_file(responses_session):
            with responses_session.blocking(model="n") as session:
                assert session.ask("x").text == "one"

        @pytest.mark.simulator(script="agent.json")
        def test_left_over(responses_server):
            pass

        @pytest.mark.simulator("answer", script="agent.json")
        def test_both(responses_server):
            pytest.fail("it has begun")

        @pytest.mark.simulator(script="wrong.json")
        def test_mistake(responses_simulator):
            pytest.fail("it has begun")

        @pytest.mark.simulator(script="absent.json")
        def test_absent(responses_simulator):
            pytest.fail("it has begun")
    """
    pytester.makepyfile(**{"agents/test_agent": source})
    result = pytester.runpytest_subprocess(*ONLY_TRIO, "-rfE")
    result.assert_outcomes(passed=2, failed=1, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*the simulator complains: *first was never used*",
            "*ValueError: answers are given, and a script file*",
            "*wrong.json:2:*'replay'*'reply'*",
            "*FileNotFoundError*agents*absent.json*",
        ]
    )


def test_one_simulator_serves_one_trio_run(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        def test_two(responses_session):
            with responses_session.blocking() as session:
                session.ask("x")
                with responses_session.blocking() as other:
                    with pytest.raises(Exception) as caught:
                        other.ask("y")
            error = caught.value
            assert "another Trio run" in repr(error) + repr(error.__cause__) + repr(error.__context__)
    """
    run(pytester, source).assert_outcomes(passed=1)


CASSETTE = """
    def test_talk(responses_cassette):
        with responses_cassette.session.blocking() as session:
            chat = session.conversation()
            assert chat.send("What is 2+2?").text == "4"
            assert chat.send("hello").text == "hello"
            assert session.ask("over HTTP", transport="sse").text == "over HTTP"
"""


def test_cassettes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with run_simulator() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        result = run(pytester, CASSETTE)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*OPENAI_API_KEY*is needed to record test_talk.jsonl*"])
        monkeypatch.setenv("OPENAI_API_KEY", "sk-in-no-cassette-whatever")
        run(pytester, CASSETTE).assert_outcomes(passed=1)
        requests = len(server.requests)
        run(pytester, CASSETTE).assert_outcomes(passed=1)
        assert len(server.requests) == requests
        run(pytester, CASSETTE, *ONLY_TRIO, "--simulator-record=rewrite").assert_outcomes(passed=1)
        assert len(server.requests) == 2 * requests
        longer = CASSETTE + '            assert session.ask("new", transport="sse").text == "new"\n'
        run(pytester, longer).assert_outcomes(failed=1)
        run(pytester, longer, *ONLY_TRIO, "--simulator-record=new_episodes").assert_outcomes(passed=1)
        assert len(server.requests) == 2 * requests + 1
    monkeypatch.delenv("OPENAI_API_KEY")
    (cassette,) = pytester.path.glob("cassettes/*/*.jsonl")
    assert "sk-in-no-cassette" not in cassette.read_text()
    run(pytester, longer, *ONLY_TRIO, "--simulator-record=none").assert_outcomes(passed=1)
    result = run(pytester, CASSETTE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the simulator complains: 1 exchanges of the cassette were not used*"])
    cassette.unlink()
    run(pytester, CASSETTE, *ONLY_TRIO, "--simulator-record=none").assert_outcomes(errors=1)
