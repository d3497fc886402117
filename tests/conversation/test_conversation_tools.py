"""The tool loop: which calls run, when, how, and what the model is told of them."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

import pytest
import trio
import trio.testing
from sessions import session_to
from talking import answers, outputs, tool
from trio.testing import MockClock

import engine
from engine.conversation.toolbox import Toolbox
from engine.simulator import (
    Answer,
    Call,
    Created,
    CustomCall,
    Error,
    Incomplete,
    Raw,
    RawItem,
    Say,
    Script,
)

LOOK = engine.Tool("look", "Look.", {"type": "object", "properties": {}})


def calls(*names: str) -> list[Any]:
    return [Call(name, {}) for name in names]


# --- running ---------------------------------------------------------------------------------------------------------


async def test_a_tool_is_run_and_its_output_answered(autojump_clock: MockClock) -> None:
    def weather(place: str) -> str:
        return f"sunny in {place}"

    brain = Script([[Call("weather", {"place": "Oslo"})], Answer("It is sunny in Oslo.")])
    async with session_to(brain) as (session, sim):
        reply = await session.run("How is the weather?", [tool(weather)])
    assert reply.text == "It is sunny in Oslo."
    assert outputs(sim) == ["sunny in Oslo"]
    assert len(sim.connections) == 1
    assert [offered["name"] for offered in sim.requests[0].body["tools"]] == ["weather"]


async def test_without_calls_there_is_one_round(autojump_clock: MockClock) -> None:
    rounds: list[engine.Round] = []
    async with session_to() as (session, sim):
        reply = await session.run("What is 2+2?", on_round=rounds.append)
    assert reply.text == "4"
    assert len(sim.requests) == 1
    assert [(each.message, each.results) for each in rounds] == [(reply, ())]
    assert rounds[0].report.response_id == reply.response_id


async def test_calls_of_a_response_run_side_by_side_and_answer_in_their_order(autojump_clock: MockClock) -> None:
    finished: list[int] = []

    async def wait(seconds: int) -> int:
        await trio.sleep(seconds)
        finished.append(seconds)
        return seconds

    brain = Script([[Call("wait", {"seconds": seconds}) for seconds in (3, 1, 2)], Answer("done")])
    async with session_to(brain) as (session, sim):
        started = trio.current_time()
        await session.run("go", [tool(wait)])
        assert trio.current_time() - started == pytest.approx(3)
    assert finished == [1, 2, 3]
    assert outputs(sim) == ["3", "1", "2"]


@pytest.mark.parametrize(("limit", "seconds"), [(1, 6), (2, 3), (4, 2), (8, 1)])
async def test_no_more_calls_run_at_once_than_allowed(limit: int, seconds: int, autojump_clock: MockClock) -> None:
    running, most = 0, 0

    async def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return "done"

    async with session_to(Script([calls(*["work"] * 6), Answer("done")])) as (session, sim):
        started = trio.current_time()
        await session.run("go", [tool(work)], max_concurrent_tools=limit)
        assert trio.current_time() - started == pytest.approx(seconds)
    assert most == min(limit, 6)
    assert outputs(sim) == ["done"] * 6


async def test_tools_run_only_when_the_response_is_complete(autojump_clock: MockClock) -> None:
    at: list[float] = []

    def work() -> str:
        at.append(trio.current_time())
        return "done"

    slow = [Created(), Call("work"), Say("and more", pause=5)]
    async with session_to(Script([slow, Answer("done")])) as (session, sim):
        await session.run("go", [tool(work)])
        finished = sim.requests[0].finished_at
    assert finished is not None
    assert at[0] >= finished


async def test_tools_run_below_the_callers_task_and_in_its_context(autojump_clock: MockClock) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    parents: list[Any] = []

    def who() -> str:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        parents.append(nursery.parent_task)
        return user.get()

    async with session_to(Script([calls("who"), Answer("done")])) as (session, sim):
        user.set("ann")
        await session.run("go", [tool(who)])
    assert parents == [trio.lowlevel.current_task()]
    assert outputs(sim) == ["ann"]


async def test_many_rounds_share_one_connection(autojump_clock: MockClock) -> None:
    rounds: list[engine.Round] = []

    def step(number: int) -> int:
        return number + 1

    brain = Script([*([Call("step", {"number": number})] for number in range(5)), Answer("done")])
    async with session_to(brain) as (session, sim):
        reply = await session.run("go", [tool(step)], on_round=rounds.append)
    assert reply.text == "done"
    assert len(sim.requests) == 6
    assert len(sim.connections) == 1
    assert [result.content for each in rounds for result in each.results] == [
        (engine.Text(str(number)),) for number in range(1, 6)
    ]
    assert [each.report.connection_reused for each in rounds] == [False, *[True] * 5]


async def test_context_tools_and_functions_are_offered_together(autojump_clock: MockClock) -> None:
    def work() -> str:
        return "done"

    context = engine.Context([engine.UserMessage("go")], instructions="Be brief.", tools=[LOOK, {"type": "web_search"}])
    async with session_to(Script([calls("work"), Answer("done")])) as (session, sim):
        await session.run(context, [tool(work)])
    for request in sim.requests:
        assert request.body["instructions"] == "Be brief."
        assert [each.get("name", each["type"]) for each in request.body["tools"]] == ["look", "web_search", "work"]


async def test_a_function_in_the_context_is_run_too(autojump_clock: MockClock) -> None:
    def work() -> str:
        return "done"

    function = tool(work)
    context = engine.Context([engine.UserMessage("go")], tools=[function])
    async with session_to(Script([calls("work"), Answer("done")])) as (session, sim):
        assert (await session.run(context, [function])).text == "done"
    assert [each["name"] for each in sim.requests[0].body["tools"]] == ["work"]
    assert outputs(sim) == ["done"]


async def test_a_function_serves_the_declaration_of_its_name(autojump_clock: MockClock) -> None:
    def shell(text: str) -> str:
        return f"ran {text}"

    context = engine.Context([engine.UserMessage("go")], tools=[{"type": "custom", "name": "shell"}])
    async with session_to(Script([[CustomCall("shell", "ls -l")], Answer("done")])) as (session, sim):
        await session.run(context, [tool(shell)])
    assert sim.requests[0].body["tools"] == [{"type": "custom", "name": "shell"}]
    (answer,) = answers(sim)
    assert (answer["type"], answer["output"]) == ("custom_tool_call_output", "ran ls -l")


async def test_a_demanded_call_is_demanded_once(autojump_clock: MockClock) -> None:
    def work() -> str:
        return "done"

    demands: list[Any] = [
        ("required", "required", "auto"),
        ("work", {"type": "function", "name": "work"}, "auto"),
        ({"type": "function", "name": "work"}, {"type": "function", "name": "work"}, "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "work"}]},
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "work"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "work"}]},
        ),
        ("auto", "auto", "auto"),
    ]
    for choice, first, second in demands:
        async with session_to(Script([calls("work"), Answer("done")])) as (session, sim):
            await session.run("go", [tool(work)], engine.TurnOptions(tool_choice=choice))
        assert [request.body["tool_choice"] for request in sim.requests] == [first, second]
    async with session_to(Script([calls("work"), Answer("done")])) as (session, sim):
        await session.run("go", [tool(work)])
    assert all("tool_choice" not in request.body for request in sim.requests)


# --- what goes wrong in a tool ---------------------------------------------------------------------------------------


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "output"),
    [
        (ValueError("no such city"), "Error: ValueError: no such city"),
        (KeyError("city"), "Error: KeyError: 'city'"),
        (RuntimeError(), "Error: RuntimeError"),
        (trio.TooSlowError(), "Error: TooSlowError"),
        (
            ExceptionGroup("both", [ValueError("a"), ExceptionGroup("", [OSError("b")])]),
            "Error: ValueError: a; OSError: b",
        ),
        (_Mute(), "Error: _Mute: (it has no text)"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_exception_becomes_an_output(error: Exception, output: str, autojump_clock: MockClock) -> None:
    async def fails() -> str:
        await trio.lowlevel.checkpoint()
        raise error

    def works() -> str:
        return "fine"

    rounds: list[engine.Round] = []
    async with session_to(Script([calls("fails", "works"), Answer("I see.")])) as (session, sim):
        reply = await session.run("go", [tool(fails), tool(works)], on_round=rounds.append)
    assert reply.text == "I see."
    assert outputs(sim) == [output, "fine"]
    assert [result.is_error for result in rounds[0].results] == [True, False]


async def test_a_long_complaint_is_cut(autojump_clock: MockClock) -> None:
    def fails() -> str:
        raise ValueError("x" * 100_000)

    async with session_to(Script([calls("fails"), Answer("I see.")])) as (session, sim):
        await session.run("go", [tool(fails)])
    assert len(outputs(sim)[0]) < 2100


async def test_an_exception_of_a_tool_is_never_logged(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    def fails() -> str:
        raise ValueError("the secret")

    caplog.set_level(logging.DEBUG, logger="engine")
    async with session_to(Script([calls("fails"), Answer("I see.")])) as (session, sim):
        await session.run("go", [tool(fails)])
    assert "the secret" in outputs(sim)[0]
    assert "the secret" not in caplog.text


LIMIT = 20_000


def sized(letter: str) -> Any:
    def give(size: int) -> str:
        return letter * size

    return engine.FunctionTool(give, name=letter)


@pytest.mark.parametrize(
    ("said", "sizes", "kept"),
    [
        (0, {"a": 30_000}, ""),  # more than a request may have
        (0, {"a": 15_000}, "a"),
        (10_000, {"a": 15_000}, ""),  # the answer has to be sent again as well
        (0, {"a": 9_000, "b": 11_000, "c": 10}, "ac"),
        (0, {"a": 6_000, "b": 7_000, "c": 8_000}, "ab"),  # the largest goes, and then there is room
        (0, {"a": 8_000, "b": 30_000, "c": 40_000, "d": 500}, "ad"),
    ],
)
async def test_outputs_that_no_request_could_carry_become_errors(
    autojump_clock: MockClock, said: int, sizes: dict[str, int], kept: str
) -> None:
    called = [Call(name, {"size": size}) for name, size in sizes.items()]
    brain = Script([[Say("x" * said), *called], Answer("I see."), Answer("Again.")])
    limits = engine.Limits(max_request_bytes=LIMIT)
    async with session_to(brain, limits=limits, transport=engine.Transport.WEBSOCKET) as (session, sim):
        chat = session.conversation(tools=[sized(name) for name in sizes])
        assert (await chat.send("Tell me.")).text == "I see."
        assert outputs(sim) == [
            name * size if name in kept else f"Error: {told}"
            for (name, size), told in zip(sizes.items(), texts(chat.rounds[0].results), strict=True)
        ]
        sim.abort()  # what was answered can be sent whole again
        await trio.sleep(1)
        assert (await chat.send("And now?")).text == "Again."
    for (name, size), result in zip(sizes.items(), chat.rounds[0].results, strict=True):
        assert result.is_error is (name not in kept)
        (told,) = texts([result])
        if result.is_error:
            counted = int(
                told.removeprefix("the output has ").partition(" bytes, and the conversation has room for ")[0]
            )
            assert size < counted < size + 200
    assert all(request.size <= LIMIT for request in sim.requests)


def texts(results: Any) -> list[str]:
    return [result.content[0].text for result in results]


async def test_small_outputs_are_left_alone_where_it_is_not_they_that_are_too_large(autojump_clock: MockClock) -> None:
    brain = Script([[Say("x" * LIMIT), Call("a", {"size": 1})], Answer("so")])
    limits = engine.Limits(max_request_bytes=LIMIT)
    async with session_to(brain, limits=limits, transport=engine.Transport.WEBSOCKET) as (session, sim):
        chat = session.conversation(tools=[sized("a")])
        await chat.send("Tell me.")  # the server holds the answer: only the output has to be sent
        sim.abort()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(engine.RequestTooLarge):
            await chat.send("And now?")
    assert texts(chat.rounds[0].results) == ["a"]


async def test_an_answer_that_json_cannot_say_again_is_told_as_such(autojump_clock: MockClock) -> None:
    # A number too large for a double is read as an infinity, which has no size, since it cannot be written.
    item = '{"type":"web_search_call","id":"ws_1","status":"completed","action":{"score":1e999}}'
    done = f'{{"type":"response.output_item.done","output_index":7,"item":{item}}}'
    async with session_to(Script([[Created(), Raw(done), Call("a", {"size": 1})]])) as (session, sim):
        with pytest.raises(engine.ConfigurationError, match="not finite"):
            await session.run("Tell me.", [sized("a")])
    assert len(sim.requests) == 1


async def test_each_call_has_its_own_time(autojump_clock: MockClock) -> None:
    stopped: list[str] = []

    async def patient() -> str:
        await trio.sleep(30)
        return "done"

    async def hasty() -> str:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append("hasty")

    async def other() -> str:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append("other")

    tools = [tool(patient, timeout=60), tool(hasty, timeout=1.5), tool(other)]
    async with session_to(Script([calls("patient", "hasty", "other"), Answer("done")])) as (session, sim):
        started = trio.current_time()
        await session.run("go", tools, tool_timeout=5)
        assert trio.current_time() - started == pytest.approx(30)
    assert stopped == ["hasty", "other"]
    assert outputs(sim) == [
        "done",
        "Error: TimeoutError: the tool took longer than 1.5 s",
        "Error: TimeoutError: the tool took longer than 5 s",
    ]


async def test_a_calls_time_begins_when_it_runs(autojump_clock: MockClock) -> None:
    async def work() -> str:
        await trio.sleep(1)
        return "done"

    async with session_to(Script([calls("work", "work", "work"), Answer("done")])) as (session, sim):
        await session.run("go", [tool(work)], tool_timeout=1.5, max_concurrent_tools=1)
    assert outputs(sim) == ["done"] * 3


async def test_a_tools_own_scopes_are_its_own(autojump_clock: MockClock) -> None:
    async def work() -> str:
        with trio.move_on_after(1) as scope:
            await trio.sleep_forever()
        return f"gave up: {scope.cancelled_caught}"

    async with session_to(Script([calls("work"), Answer("done")])) as (session, sim):
        await session.run("go", [tool(work)], tool_timeout=5)
    assert outputs(sim) == ["gave up: True"]


async def test_what_cannot_be_called_is_told_to_the_model(autojump_clock: MockClock) -> None:
    def look(place: str) -> str:
        return f"nothing in {place}"

    brain = Script([[Call("loook"), Call("look", {"plaice": "x"}), CustomCall("nook", "text")], Answer("I see.")])
    async with session_to(brain) as (session, sim):
        assert (await session.run("go", [tool(look)])).text == "I see."
    unknown, misfit, custom = answers(sim)
    assert unknown["output"] == "Error: there is no tool called 'loook'"
    assert misfit["output"].startswith("Error: ")
    assert "plaice" in misfit["output"]
    assert (custom["type"], custom["output"]) == (
        "custom_tool_call_output",
        "Error: there is no tool called 'nook'",
    )


async def test_what_is_no_content_is_told_to_the_model(autojump_clock: MockClock) -> None:
    class Odd(engine.FunctionTool):
        async def call(self, call: engine.ToolCall) -> Any:
            await trio.lowlevel.checkpoint()
            return (1, 2)

    def odd() -> None: ...

    async with session_to(Script([calls("odd"), Answer("I see.")])) as (session, sim):
        await session.run("go", [Odd(odd)])
    assert outputs(sim)[0].startswith("Error: ConfigurationError: tool result content[0]")


# --- whose call it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", [LOOK, {"type": "function", "name": "look", "parameters": {"type": "object"}}])
async def test_a_call_without_a_function_is_the_callers(theirs: Any, autojump_clock: MockClock) -> None:
    ran: list[str] = []

    def work() -> str:
        ran.append("work")
        return "done"

    rounds: list[engine.Round] = []
    context = engine.Context([engine.UserMessage("go")], tools=[theirs])
    brain = Script([calls("work"), calls("work", "look"), Answer("not asked for")])
    async with session_to(brain) as (session, sim):
        reply = await session.run(context, [tool(work)], on_round=rounds.append)
    assert [call.name for call in reply.tool_calls] == ["work", "look"]
    assert reply.stop_reason == "tool_use"
    assert ran == ["work"]
    assert len(sim.requests) == 2
    assert [len(each.results) for each in rounds] == [1, 0]


def test_what_only_describes_a_tool_is_the_callers() -> None:
    class Described:
        tool = LOOK

    toolbox = Toolbox((), [Described()])
    assert toolbox.offered == (LOOK,)
    assert toolbox.is_callers(engine.ToolCall("c", "look"))


def test_a_call_into_a_namespace_is_the_callers() -> None:
    toolbox = Toolbox([{"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "look"}, 3]}], ())
    assert toolbox.is_callers(engine.ToolCall("c", "look"))
    assert not toolbox.is_callers(engine.ToolCall("c", "crm"))


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
async def test_a_call_whose_output_the_response_holds_is_not_run(autojump_clock: MockClock, kind: str) -> None:
    ran: list[str] = []

    def look(text: str = "") -> str:
        ran.append(text)
        return "seen"

    arguments = {"function_call": {"arguments": "{}"}, "custom_tool_call": {"input": "x"}}[kind]
    served = [
        RawItem({"type": kind, "call_id": "call_1", "name": "theirs", **arguments}),
        RawItem({"type": f"{kind}_output", "id": "o_1", "call_id": "call_1", "output": "3", "status": "completed"}),
    ]
    brain = Script([[*served, Call("look", {"text": "mine"})], [*served, Say("Three.")], Answer("Yes.")])
    async with session_to(brain) as (session, sim):
        chat = session.conversation(tools=[tool(look), engine.Tool("theirs")])
        reply = await chat.send("Look.")
        assert (reply.text, reply.stop_reason) == ("Three.", "stop")
        assert (len(reply.tool_calls), reply.unanswered, chat.unanswered) == (1, (), ())
        assert ran == ["mine"]
        assert [len(each.results) for each in chat.rounds] == [1, 0]
        assert len(chat.messages) == 4
        assert (await chat.send("Sure?")).text == "Yes."
    assert [item["type"] for item in sim.requests[2].input] == ["message"]


async def test_calls_of_a_response_that_was_cut_are_not_run(autojump_clock: MockClock) -> None:
    def work() -> str:
        raise AssertionError

    brain = Script([[Created(), Call("work"), Incomplete()]])
    async with session_to(brain) as (session, sim):
        reply = await session.run("go", [tool(work)])
    assert reply.stop_reason == "length"
    assert len(sim.requests) == 1


# --- approval --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
async def test_calls_are_approved_one_by_one_before_any_runs(is_async: bool, autojump_clock: MockClock) -> None:
    log: list[str] = []
    verdicts: dict[str, bool | str] = {"a": True, "b": False, "c": "not on a Sunday", "d": True}

    def verdict(call: engine.ToolCall) -> bool | str:
        log.append(f"asked for {call.arguments['name']}")
        return verdicts[call.arguments["name"]]

    async def later(call: engine.ToolCall) -> bool | str:
        await trio.sleep(1)
        return verdict(call)

    def work(name: str) -> str:
        log.append(f"ran {name}")
        return name

    brain = Script([[Call("work", {"name": name}) for name in "abcd"] + [Call("other")], Answer("done")])
    async with session_to(brain) as (session, sim):
        await session.run("go", [tool(work)], approve=later if is_async else verdict)
    assert log[:4] == [f"asked for {name}" for name in "abcd"]
    assert sorted(log[4:]) == ["ran a", "ran d"]
    assert outputs(sim) == [
        "a",
        "Error: the call was refused",
        "Error: the call was refused: not on a Sunday",
        "d",
        "Error: there is no tool called 'other'",
    ]


async def test_an_approval_that_says_nothing_runs_nothing(autojump_clock: MockClock) -> None:
    def work() -> str:
        raise AssertionError

    async with session_to(Script([calls("work")])) as (session, _):
        with pytest.raises(engine.ConfigurationError, match="returned None, not") as caught:
            await session.run("go", [tool(work)], approve=lambda call: None)  # type: ignore[arg-type, return-value]
    assert caught.value.field == "approve"


@pytest.mark.parametrize("where", ["approve", "on_round", "on_round later"])
async def test_the_callers_own_exceptions_pass_untouched(where: str, autojump_clock: MockClock) -> None:
    mine = ExceptionGroup("mine", [ValueError("a")])

    def fail(_: object) -> Any:
        raise mine

    async def fail_later(_: object) -> Any:
        await trio.lowlevel.checkpoint()
        raise mine

    def work() -> str:
        return "done"

    hook = {where.partition(" ")[0]: fail_later if "later" in where else fail}
    async with session_to(Script([calls("work")])) as (session, _):
        with pytest.raises(ExceptionGroup) as caught:
            await session.run("go", [tool(work)], **hook)  # type: ignore[arg-type]
        assert caught.value is mine
        assert (await session.ask("What is 2+2?")).text == "4"


# --- how a loop ends early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [1, 3])
async def test_there_is_an_end_to_rounds(allowed: int, autojump_clock: MockClock) -> None:
    ran = 0
    rounds: list[engine.Round] = []

    def work() -> str:
        nonlocal ran
        ran += 1
        return "again"

    async with session_to(lambda asked: [Call("work")]) as (session, sim):
        with pytest.raises(engine.ResponseFailed) as caught:
            await session.run("go", [tool(work)], max_rounds=allowed, on_round=rounds.append)
        assert caught.value.code == "max_rounds"
        assert caught.value.partial is not None
        assert caught.value.partial.response_id == caught.value.response_id == sim.requests[-1].response_id
        assert [call.name for call in caught.value.partial.tool_calls] == ["work"]
        assert caught.value.report is not None
        assert caught.value.delivery is engine.Delivery.ACCEPTED
        assert len(sim.requests) == allowed
    assert ran == len(rounds) == allowed - 1


async def test_the_last_round_may_answer(autojump_clock: MockClock) -> None:
    def work() -> str:
        return "done"

    async with session_to(Script([calls("work"), Answer("done")])) as (session, _):
        assert (await session.run("go", [tool(work)], max_rounds=2)).text == "done"


async def test_a_failing_round_fails_the_loop_with_its_own_error(autojump_clock: MockClock) -> None:
    def work() -> str:
        return "done"

    async with session_to(Script([calls("work"), Error(400, "bad", type="invalid_request_error")])) as (session, sim):
        with pytest.raises(engine.RequestRejected):
            await session.run("go", [tool(work)])
        assert len(sim.requests) == 2


async def test_cancelling_the_loop_cancels_the_tools(autojump_clock: MockClock) -> None:
    log: list[str] = []

    async def work() -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            log.append("cleaned up")
        return ""

    async with session_to(Script([calls("work", "work"), Answer("unseen")])) as (session, sim):
        started = trio.current_time()
        with trio.move_on_after(5) as scope:
            try:
                await session.run("go", [tool(work)])
            except trio.Cancelled:  # bare, as it came
                log.append("cancelled")
                raise
        assert scope.cancelled_caught
        assert log == ["cleaned up", "cleaned up", "cancelled"]
        assert trio.current_time() - started == pytest.approx(6)
        assert len(sim.requests) == 1
        assert (await session.ask("Who are you?")).text == "unseen"
        assert len(sim.connections) == 1


async def test_a_tool_that_makes_something_else_of_cancellation_does_not_hide_it(autojump_clock: MockClock) -> None:
    rounds: list[engine.Round] = []

    async def work() -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("clumsy")

    async with session_to(Script([calls("work"), Answer("unseen")])) as (session, sim):
        with trio.move_on_after(5) as scope:
            await session.run("go", [tool(work)], on_round=rounds.append)
        assert scope.cancelled_caught
        assert rounds == []
        assert len(sim.requests) == 1


@pytest.mark.parametrize("fatal", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("nested", [False, True])
async def test_what_is_no_exception_passes_and_is_bare(
    fatal: BaseException, nested: bool, autojump_clock: MockClock
) -> None:
    stopped: list[str] = []

    async def fails() -> str:
        await trio.sleep(1)
        if nested:
            raise BaseExceptionGroup("", [ValueError("too"), BaseExceptionGroup("", [fatal])])
        raise fatal

    async def sleeps() -> str:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append("sleeps")

    async with session_to(Script([calls("fails", "sleeps"), Answer("next")])) as (session, _):
        with pytest.raises(type(fatal)) as caught:
            await session.run("go", [tool(fails), tool(sleeps)])
        assert caught.value is fatal
        assert stopped == ["sleeps"]
        assert (await session.ask("go on")).text == "next"


async def test_an_exception_amid_a_cancellation_does_not_escape(autojump_clock: MockClock) -> None:
    async def fails() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("clumsy")

    async with session_to(Script([calls("fails")])) as (session, _):
        with trio.move_on_after(5) as scope:
            await session.run("go", [tool(fails)])
        assert scope.cancelled_caught


async def test_an_interrupt_comes_before_an_exit(autojump_clock: MockClock) -> None:
    async def leave() -> str:
        await trio.sleep(1)
        raise SystemExit

    async def interrupt() -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    async with session_to(Script([calls("leave", "interrupt")])) as (session, _):
        with pytest.raises(KeyboardInterrupt):
            await session.run("go", [tool(leave), tool(interrupt)])


async def test_a_resent_request_runs_no_tool_again(autojump_clock: MockClock) -> None:
    ran: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        return number

    gone = Error(400, "previous_response_not_found", type="invalid_request_error", param="previous_response_id")
    brain = Script([[Call("work", {"number": 1})], gone, [Call("work", {"number": 2})], Answer("done")])
    rounds: list[engine.Round] = []
    async with session_to(brain) as (session, sim):
        reply = await session.run("go", [tool(work)], on_round=rounds.append)
        assert reply.text == "done"
    assert ran == [1, 2]
    assert len(sim.requests) == 4
    assert [each.report.attempts for each in rounds] == [1, 2, 1]


async def test_the_sessions_nursery_gets_no_group(autojump_clock: MockClock) -> None:
    async def fails() -> str:
        raise ValueError("a")

    async def run(session: engine.Session) -> None:
        with trio.fail_after(3):
            await session.run("go", [tool(fails)], approve=lambda call: False)

    async with session_to(lambda asked: [Call("fails")]) as (session, _):
        with pytest.RaisesGroup(engine.ResponseFailed):  # the one that this nursery makes
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, session)


# --- what is given ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"max_rounds": 0}, "max_rounds"),
        ({"max_rounds": True}, "max_rounds"),
        ({"max_rounds": 1.5}, "max_rounds"),
        ({"max_concurrent_tools": 0}, "max_concurrent_tools"),
        ({"tool_timeout": 0}, "tool_timeout"),
        ({"tool_timeout": "5"}, "tool_timeout"),
        ({"tool_timeout": float("inf")}, "tool_timeout"),
        ({"approve": True}, "approve"),
        ({"on_round": 3}, "on_round"),
        ({"options": {}}, "options"),
        ({"timeouts": 3}, "timeouts"),
        ({"limits": 3}, "limits"),
        ({"on_cancel": "shut"}, "on_cancel"),
        ({"transport": "http"}, "transport"),
        ({"tools": "look"}, "tools"),
        ({"tools": LOOK}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [print]}, "print.args"),
    ],
)
async def test_what_is_wrong_is_told_by_name_and_sends_nothing(
    options: dict[str, Any], wrong: str, autojump_clock: MockClock
) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.ConfigurationError) as caught:
            await session.run("go", **options)
        assert caught.value.field == wrong
        with pytest.raises(engine.ConfigurationError) as caught:
            session.conversation(**options)
        assert caught.value.field == wrong
    assert sim.requests == []


async def test_two_functions_of_one_name_are_refused(autojump_clock: MockClock) -> None:
    def look() -> str:
        return ""

    def other() -> str:
        return ""

    async with session_to() as (session, _):
        with pytest.raises(engine.ConfigurationError, match="look") as caught:
            await session.run("go", [look, engine.FunctionTool(other, name="look")])
    assert caught.value.field == "tools[1]"
