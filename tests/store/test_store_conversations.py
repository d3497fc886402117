"""Conversations in a store: keys, crashes, other processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from steps import Steered

from engine import (
    AssistantMessage,
    ConfigurationError,
    ConnectionLost,
    Context,
    Delivery,
    Engine,
    FunctionTool,
    RequestRejected,
    RetryPolicy,
    SteerRejected,
    Text,
    TurnDone,
    UserMessage,
    open_engine,
)
from engine.simulator import Abort, Call, Echo, Error, Say, SayDelta, Script, Simulator, open_simulator
from engine.store import (
    AeadCodec,
    InterruptedPrompt,
    LeaseLost,
    SessionHeld,
    Store,
    StoreError,
    TurnInterrupted,
    open_store,
)
from engine.store.places import connection_to

Brain = Any


@asynccontextmanager
async def simulated(brain: Brain = None, **options: Any) -> AsyncIterator[tuple[Simulator, Engine]]:
    given = {} if brain is None else {"brain": brain}
    async with (
        open_simulator(in_memory=True, **given) as sim,
        open_engine(sim.endpoint, model="gpt-5.4", dialer=sim.dialer, **options) as eng,
    ):
        yield sim, eng


def simulated_by(sim: Simulator) -> Any:
    return open_engine(sim.endpoint, model="gpt-5.4", dialer=sim.dialer)


def overdue(url: str) -> None:
    """Let the lease of every session be over, as it is when its holder has died."""
    connection = connection_to(url)
    connection.connect()
    connection.begin()
    connection.execute("UPDATE engine_sessions SET expires = 1.0")
    connection.commit()
    connection.close()


def texts(messages: tuple[Any, ...]) -> list[str]:
    found: list[str] = []
    for each in messages:
        if isinstance(each, AssistantMessage):
            found.append(each.text)
        elif isinstance(each, UserMessage):
            found += [part.text for part in each.content if isinstance(part, Text)]
    return found


def inputs(sim: Simulator) -> list[int]:
    """How many items each request carried."""
    return [len(request.body["input"]) for request in sim.requests if request.body is not None]


# --- going on --------------------------------------------------------------------------------------------------------


async def test_another_process_goes_on_with_a_conversation(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        assert (await chat.send("What is 2+2?")).text == "4"
    async with simulated() as (sim, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        assert texts(chat.messages) == ["What is 2+2?", "4"]
        assert (await chat.send("What is 3+3?")).text == "6"
    assert inputs(sim) == [3]


async def test_the_same_process_keeps_its_connection(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store:
        for number in range(3):
            async with store.open(eng, "u") as chat:
                await chat.send(f"What is {number}+1?")
    assert inputs(sim) == [1, 1, 1]  # only what is new
    assert len(sim.connections) == 1


async def test_what_another_process_added_is_read(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as one, open_store(store_url, owner="two") as two:
        async with one.open(eng, "u") as chat:
            await chat.send("What is 1+1?")
        async with simulated() as (_, other), two.open(other, "u") as chat:
            await chat.send("What is 2+2?")
        async with one.open(eng, "u") as chat:
            assert texts(chat.messages) == ["What is 1+1?", "2", "What is 2+2?", "4"]


async def test_a_session_that_was_forgotten_and_made_anew_is_read(store_url: str) -> None:
    """Its newest row has the same number as the one that this process knows, and is another one."""
    async with simulated() as (_, eng), open_store(store_url) as one, open_store(store_url, owner="two") as two:
        async with one.open(eng, "u") as chat:
            await chat.send("What is 1+1?")
        await two.forget("u")
        async with simulated() as (_, other), two.open(other, "u") as chat:
            await chat.send("What is 2+2?")
        async with one.open(eng, "u") as chat:
            assert texts(chat.messages) == ["What is 2+2?", "4"]


async def test_what_is_sent_may_be_prepared(store_url: str) -> None:
    def last_only(context: Context) -> Context:
        return Context(context.messages[-1:], instructions=context.instructions)

    async with simulated() as (sim, eng), open_store(store_url) as store:
        async with store.open(eng, "u", prepare=last_only) as chat:
            await chat.send("What is 1+1?")
            await chat.send("What is 2+2?")
            assert len(chat.messages) == 4
    assert inputs(sim) == [1, 1]


async def test_a_transcript_is_replaced(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as store:
        async with store.open(eng, "u") as chat:
            await chat.send("What is 1+1?")
            await chat.replace([UserMessage("We have counted.")])
            await chat.send("What is 2+2?")
        async with open_store(store_url, owner="two") as other, other.open(eng, "u") as chat:
            assert texts(chat.messages) == ["We have counted.", "What is 2+2?", "4"]


async def test_through_a_codec(store_url: str, tmp_path: Path) -> None:
    codec = AeadCodec({"a": b"k" * 32})
    async with simulated() as (_, eng), open_store(store_url, codec=codec) as store, store.open(eng, "u") as chat:
        await chat.send("What is 2+2, dear secret?")
    for file in await trio.Path(tmp_path).iterdir():
        assert b"secret" not in await file.read_bytes()
    async with simulated() as (_, eng), open_store(store_url, codec=codec) as store, store.open(eng, "u") as chat:
        assert texts(chat.messages) == ["What is 2+2, dear secret?", "4"]
    async with simulated() as (_, eng), open_store(store_url) as store:
        with pytest.raises(StoreError, match="codec"):
            async with store.open(eng, "u"):
                pass
        assert store is not None


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_prompt(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store:
        async with store.open(eng, "u") as chat:
            first = await chat.send("What is 2+2?", key="k")
            assert await chat.send("What is 2+2?", key="k") == first
            assert texts(chat.messages) == ["What is 2+2?", "4"]
        async with open_store(store_url, owner="two") as other, other.open(eng, "u") as chat:
            assert (await chat.send("What is 2+2?", key="k")).text == "4"
    assert len(sim.requests) == 1


async def test_a_key_belongs_to_one_prompt(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        await chat.send("What is 2+2?", key="k")
        with pytest.raises(ConfigurationError, match="another prompt"):
            await chat.send("What is 3+3?", key="k")
        with pytest.raises(ConfigurationError, match="key: is empty"):
            await chat.send("What is 3+3?", key="")
    assert len(sim.requests) == 1


async def test_without_a_key_saying_it_again_is_another_prompt(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        await chat.send("What is 2+2?")
        await chat.send("What is 2+2?")
    assert len(sim.requests) == 2


# --- crashes ---------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


def crashing_at(point: str, calls: list[str]) -> Callable[[], Any]:
    async def one() -> str:
        calls.append("one")
        if point == "in the first tool":
            raise Crash
        return "1"

    async def two() -> str:
        calls.append("two")
        if point == "in the second tool":
            raise Crash
        return "2"

    return lambda: [FunctionTool(one), FunctionTool(two)]


def tool_brain() -> Script:
    return Script([[Call("one", {}), Call("two", {})], "done"])


async def test_only_tools_without_a_stored_output_run_again(store_url: str) -> None:
    calls: list[str] = []
    async with simulated(tool_brain()) as (sim, eng):
        tools = crashing_at("in the second tool", calls)()
        with pytest.raises(Crash):
            async with open_store(store_url) as store:
                async with store.open(eng, "u", tools=tools, max_concurrent_tools=1) as chat:
                    await chat.send("go", key="k")
        assert calls == ["one", "two"]
        overdue(store_url)
        tools = crashing_at("nowhere", calls)()
        async with open_store(store_url, owner="two") as store, store.open(eng, "u", tools=tools) as chat:
            assert isinstance(chat.interrupted, InterruptedPrompt)
            assert (chat.interrupted.key, chat.interrupted.attempts) == ("k", 0)
            assert (await chat.send("go", key="k")).text == "done"
            assert chat.interrupted is None
    assert calls == ["one", "two", "two"]
    assert len(sim.requests) == 2  # the first response was not asked for again


async def test_an_interrupted_prompt_is_gone_on_with_as_the_policy_allows(store_url: str) -> None:
    for allowed in (0, 1):
        name = f"u{allowed}"
        retry = RetryPolicy(resend_ambiguous=allowed)
        async with simulated(Script([[Abort()], "late"]), retry=retry, transport="websocket") as (sim, eng):
            async with open_store(store_url) as store, store.open(eng, name) as chat:
                with pytest.raises(ConnectionLost):
                    await chat.send("go", key="k")
                interrupted = chat.interrupted
                assert interrupted is not None
                assert interrupted.attempts == 1
            async with open_store(store_url, owner="two") as store, store.open(eng, name) as chat:
                assert chat.interrupted == interrupted
                if allowed:
                    assert (await chat.send("go", key="k")).text == "late"
                else:
                    with pytest.raises(TurnInterrupted) as caught:
                        await chat.send("go", key="k")
                    assert (caught.value.key, caught.value.attempts) == ("k", 1)
            assert len(sim.requests) == 1 + allowed


async def test_another_prompt_takes_the_place_of_an_interrupted_one(store_url: str) -> None:
    async with simulated(Script([[Abort()], "other"]), transport="websocket") as (_, eng):
        async with open_store(store_url) as store, store.open(eng, "u") as chat:
            with pytest.raises(ConnectionLost):
                await chat.send("go", key="k")
            assert (await chat.send("something else", key="other")).text == "other"
            assert chat.interrupted is None
            assert texts(chat.messages) == ["something else", "other"]


async def test_what_was_refused_may_be_begun_again(store_url: str) -> None:
    retry = RetryPolicy(resend_ambiguous=0)
    async with simulated(Script([Error(400, "invalid_prompt"), "yes"]), retry=retry) as (_, eng):
        async with open_store(store_url) as store, store.open(eng, "u") as chat:
            with pytest.raises(RequestRejected):
                await chat.send("go", key="k")
            assert chat.interrupted is None
            assert (await chat.send("go", key="k")).text == "yes"


async def test_a_resend_is_counted_over_all_processes(store_url: str) -> None:
    """One request may be at work beside another: the first process sent one, the second one may send one more."""
    brain = Script([[Abort()], [Abort()], "late"])
    async with simulated(brain, retry=RetryPolicy(resend_ambiguous=1)) as (sim, eng):
        async with open_store(store_url) as store, store.open(eng, "u", transport="websocket") as chat:
            with pytest.raises(ConnectionLost):
                await chat.send("go", key="k")
        await eng.release("u")
        async with open_store(store_url, owner="two") as store, store.open(eng, "u") as chat:
            with pytest.raises(TurnInterrupted) as caught:
                await chat.send("go", key="k")  # its own resend would be the third request
            assert caught.value.attempts == 2
            assert caught.value.delivery is Delivery.AMBIGUOUS
            assert chat.interrupted is not None
            assert chat.interrupted.attempts == 2
            assert len(sim.requests) == 2
            reply = await chat.send("go", key="k", retry=RetryPolicy(resend_ambiguous=2))
            assert reply.text == "late"


async def test_refusals_on_the_way_do_not_count(store_url: str) -> None:
    brain = Script([Error(429, headers={"retry-after": "0.05"}), [Abort()], "late"])
    async with simulated(brain, retry=RetryPolicy(resend_ambiguous=1)) as (sim, eng):
        async with open_store(store_url) as store, store.open(eng, "u") as chat:
            assert (await chat.send("go", key="k")).text == "late"
    assert len(sim.requests) == 3


async def test_a_prompt_does_not_go_on_with_the_response_of_another(store_url: str) -> None:
    calls: list[str] = []
    brain = Script([[Call("one", {})], [Abort()], "other"])
    async with simulated(brain, transport="websocket") as (_, eng):
        with pytest.raises(Crash):
            async with open_store(store_url) as store:
                async with store.open(eng, "u", tools=crashing_at("in the first tool", calls)()) as chat:
                    await chat.send("go", key="k")
        overdue(store_url)
        async with open_store(store_url, owner="two") as store, store.open(eng, "u") as chat:
            with pytest.raises(ConnectionLost):
                await chat.send("something else", key="other")
        async with open_store(store_url, owner="three") as store, store.open(eng, "u") as chat:
            assert chat.interrupted is not None
            assert chat.interrupted.key == "other"
            assert (await chat.send("something else", key="other")).text == "other"
            assert texts(chat.messages) == ["something else", "other"]
    assert calls == ["one"]


async def test_a_prompt_is_gone_on_with_between_two_rounds(store_url: str) -> None:
    """It is in the transcript already, and does not join it once more."""
    calls: list[str] = []
    tools = crashing_at("nowhere", calls)()
    brain = Script([[Call("one", {})], [Abort()], "done"])
    async with simulated(brain, transport="websocket") as (sim, eng):
        async with open_store(store_url) as store, store.open(eng, "u", tools=tools) as chat:
            with pytest.raises(ConnectionLost):
                await chat.send("go", key="k")
            assert texts(chat.messages) == ["go", ""]
        async with open_store(store_url, owner="two") as store, store.open(eng, "u", tools=tools) as chat:
            assert (await chat.send("go", key="k")).text == "done"
            assert texts(chat.messages) == ["go", "", "done"]
        assert len(sim.requests) == 3
    assert calls == ["one"]


async def test_no_messages_at_all_go_on_with_what_was_interrupted(store_url: str) -> None:
    calls: list[str] = []
    tools = crashing_at("nowhere", calls)()
    brain = Script([[Call("one", {})], [Abort()], "done"])
    async with simulated(brain, transport="websocket") as (_, eng):
        async with open_store(store_url) as store, store.open(eng, "u", tools=tools) as chat:
            with pytest.raises(ConnectionLost):
                await chat.send("go", key="k")
            assert (await chat.send([])).text == "done"
            assert chat.interrupted is None
            assert (await chat.send("go", key="k")).text == "done"  # the stored answer


async def test_a_prompt_is_gone_on_with_after_another_was_begun(store_url: str) -> None:
    calls: list[str] = []
    tools = crashing_at("nowhere", calls)()
    brain = Script([[Call("one", {})], [Abort()], [Abort()], "done"])
    async with simulated(brain, transport="websocket") as (_, eng):
        async with open_store(store_url) as store, store.open(eng, "u", tools=tools) as chat:
            for key in ("k", "other"):
                with pytest.raises(ConnectionLost):
                    await chat.send(key, key=key)
            assert (await chat.send("k", key="k")).text == "done"
            assert texts(chat.messages) == ["k", "", "done"]
            with pytest.raises(ConfigurationError, match="another prompt"):
                await chat.send("something else", key="other")
    assert calls == ["one"]


async def test_a_session_whose_rows_were_damaged_is_said_to_be_so(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as store:
        for number in range(3):
            async with store.open(eng, f"u{number}") as chat:
                await chat.send("What is 1+1?")
        statements = [
            "UPDATE engine_rounds SET data = 'x' WHERE session = 'u0'",
            "DELETE FROM engine_rounds WHERE session = 'u1'",
            "UPDATE engine_sessions SET intent = 'x' WHERE id = 'u2'",
        ]
        connection = connection_to(store_url)
        connection.connect()
        connection.begin()
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        async with open_store(store_url, owner="two") as other:
            for number, word in enumerate(["row 1 of session 'u0'", "row 1 of session 'u1' is missing", "damaged"]):
                for _ in range(2):  # and the session is free again
                    with pytest.raises(StoreError, match=word) as caught:
                        async with other.open(eng, f"u{number}", wait=0):
                            pass
                    assert type(caught.value) is StoreError
            assert len(await other.sessions()) == 3
            assert await other.forget("u0")


# --- as it comes -----------------------------------------------------------------------------------------------------


async def test_an_answer_is_read_as_it_comes(store_url: str) -> None:
    calls: list[str] = []
    tools = crashing_at("nowhere", calls)()
    async with simulated(tool_brain()) as (sim, eng), open_store(store_url) as store:
        async with store.open(eng, "u", tools=tools) as chat:
            async with chat.stream("go", key="k") as reply:
                events = [event async for event in reply]
            assert not reply.known
            assert reply.message.text == "done"
            assert [event.reason for event in events if isinstance(event, TurnDone)] == ["tool_use", "stop"]
            assert sorted(calls) == ["one", "two"]
        async with open_store(store_url, owner="two") as other, other.open(eng, "u", tools=tools) as chat:
            async with chat.stream("go", key="k") as reply:
                assert reply.known
                assert "".join([text async for text in reply.texts()]) == "done"
                assert reply.message.text == reply.partial.text == "done"
    assert len(sim.requests) == 2


async def test_a_steered_answer_is_stored_whole(store_url: str) -> None:
    brain = Script([[SayDelta("one "), Steered(), SayDelta("two ")], [Say("three")]], then=Echo())
    async with simulated(brain) as (_, eng), open_store(store_url) as store:
        async with store.open(eng, "u", model="gpt-6-test") as chat:
            async with chat.stream("count", key="k") as reply:
                await anext(reply)
                await reply.steer("faster")
                async for _ in reply:
                    pass
            assert reply.message.text == "one two three"
            assert texts(chat.messages) == ["count", "one two ", "faster", "three"]
        async with open_store(store_url, owner="two") as other, other.open(eng, "u", model="gpt-6-test") as chat:
            assert texts(chat.messages) == ["count", "one two ", "faster", "three"]
            async with chat.stream("count", key="k") as reply:
                with pytest.raises(SteerRejected):
                    await reply.steer("more")
                assert "".join([text async for text in reply.texts()]) == reply.message.text == "one two three"
            assert (await chat.send("next")).text == "next"


async def test_a_reply_that_is_left_is_gone_on_with(store_url: str) -> None:
    calls: list[str] = []
    brain = Script([[Call("one", {}), Call("two", {})], "done"])
    async with simulated(brain) as (sim, eng):
        async with open_store(store_url) as store:
            async with store.open(eng, "u", tools=crashing_at("nowhere", calls)()) as chat:
                async with chat.stream("go", key="k") as reply:
                    async for event in reply:
                        if isinstance(event, TurnDone):
                            break
                assert chat.interrupted is not None
                assert chat.interrupted.key == "k"
                async with chat.stream("go", key="k") as reply:
                    assert [text async for text in reply.texts()] == ["done"]
                assert chat.interrupted is None
    assert len(sim.requests) == 2  # a response is stored when more is asked for than its last event


async def test_replies_and_prompts_stand_in_one_line(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        async with trio.open_nursery() as nursery:
            async with chat.stream("What is 1+1?") as reply:
                nursery.start_soon(chat.send, "What is 2+2?")
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert texts(chat.messages) == []
                assert [text async for text in reply.texts()] == ["2"]
        assert texts(chat.messages) == ["What is 1+1?", "2", "What is 2+2?", "4"]
        with pytest.raises(RuntimeError, match="inside its block"):
            await anext(chat.stream("What is 3+3?"))


async def test_what_was_refused_while_it_was_read_may_be_begun_again(store_url: str) -> None:
    retry = RetryPolicy(resend_ambiguous=0)
    async with simulated(Script([Error(400, "invalid_prompt"), "yes"]), retry=retry) as (_, eng):
        async with open_store(store_url) as store, store.open(eng, "u") as chat:
            async with chat.stream("go", key="k") as reply:
                for _ in range(2):
                    with pytest.raises(RequestRejected):
                        await anext(reply)
            assert chat.interrupted is None
            async with chat.stream("go", key="k") as reply:
                assert [text async for text in reply.texts()] == ["yes"]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "k" * 513, 7])
async def test_names_that_a_database_cannot_keep(store_url: str, name: Any) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store:
        with pytest.raises(ConfigurationError) as caught:
            store.open(eng, name)
        assert caught.value.field == "session id"
        async with store.open(eng, "é" * 256) as chat:
            for call in (chat.stream, chat.send):
                with pytest.raises(ConfigurationError) as caught:
                    told = call("go", key=name)
                    await told  # type: ignore[misc]
                assert caught.value.field == "key"
            assert (await chat.send("What is 1+1?", key="ü" * 256)).text == "2"
    assert len(sim.requests) == 1


async def test_keywords_are_those_of_any_prompt(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store, store.open(eng, "u") as chat:
        await chat.send("What is 1+1?", temperature=0.5)
        with pytest.raises(TypeError, match="temprature"):
            await chat.send("What is 1+1?", temprature=0.5)  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="Timeouts"):
            chat.stream("What is 1+1?", timeout=3)  # type: ignore[call-arg]
    (request,) = sim.requests
    assert request.body is not None
    assert request.body["temperature"] == 0.5


# --- others ----------------------------------------------------------------------------------------------------------


async def test_one_holds_a_session_and_others_wait(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url, owner="one") as store:
        async with store.open(eng, "u"):
            with pytest.raises(SessionHeld) as caught:
                async with store.open(eng, "u", wait=0):
                    pass
            assert caught.value.owner == "one"
            with pytest.raises(SessionHeld):
                await store.forget("u")
        async with store.open(eng, "u", wait=0):
            pass
        assert await store.forget("u")


async def test_a_session_is_free_when_its_block_is_left(store_url: str) -> None:
    entered: list[str] = []

    async def visit(store: Store, eng: Engine, name: str) -> None:
        async with store.open(eng, "u") as chat:
            await chat.send(f"What is {len(entered)}+1?")
            entered.append(name)

    async with simulated() as (_, eng), open_store(store_url) as one, open_store(store_url, owner="two") as two:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit, one, eng, "one")
            nursery.start_soon(visit, two, eng, "two")
    assert sorted(entered) == ["one", "two"]


async def test_who_lost_the_lease_sends_nothing_and_commits_nothing(store_url: str) -> None:
    async with simulated() as (sim, eng), open_store(store_url, owner="one") as one:
        with pytest.raises(LeaseLost):
            async with one.open(eng, "u") as chat:
                overdue(store_url)
                async with open_store(store_url, owner="two") as two, two.open(eng, "u") as other:
                    await other.send("What is 2+2?")
                sent = len(sim.requests)
                await chat.send("What is 3+3?")
        assert len(sim.requests) == sent
        async with one.open(eng, "u") as chat:
            assert texts(chat.messages) == ["What is 2+2?", "4"]


async def test_a_lease_that_was_not_renewed_ends_the_block(store_url: str, mock_clock: trio.testing.MockClock) -> None:
    async with simulated() as (_, eng), open_store(store_url, lease=30) as store:
        with pytest.raises(LeaseLost, match="not renewed in time"):
            async with store.open(eng, "u"):
                mock_clock.jump(29)  # as after a suspension: no renewal ran
                await trio.sleep_forever()


async def test_the_blocks_own_exception_comes_out_and_the_session_is_free(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url) as store:
        with pytest.raises(ZeroDivisionError):
            async with store.open(eng, "u"):
                _ = 1 / 0
        async with store.open(eng, "u", wait=0):
            pass


async def test_what_was_left_is_not_gone_on_with(store_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with simulated() as (sim, eng), open_store(store_url) as store:
        async with store.open(eng, "u") as chat:
            await chat.send("What is 1+1?")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="was left"):
                await chat.send("What is 2+2?")
            with pytest.raises(RuntimeError, match="was left"):
                await chat.replace([])
        assert len(sim.requests) == 1
        assert len(chat.messages) == 2
    assert "lost" not in caplog.text


@pytest.mark.parametrize("before", ["yesterday", True, datetime(2026, 1, 1)])
async def test_a_time_that_is_none(store_url: str, before: Any) -> None:
    async with open_store(store_url) as store:
        with pytest.raises(ConfigurationError) as caught:
            await store.prune(before=before)
        assert caught.value.field == "before"


async def test_a_list_and_a_retention(store_url: str) -> None:
    async with simulated() as (_, eng), open_store(store_url, owner="one") as store:
        async with store.open(eng, "kept", retain=1e6) as chat:
            await chat.send("What is 1+1?")
        async with store.open(eng, "gone", retain=0) as chat:
            await chat.send("What is 1+1?")
        assert [(each.id, each.owner, each.rows) for each in await store.sessions()] == [
            ("gone", None, 1),
            ("kept", None, 1),
        ]
        assert await store.prune() == ("gone",)
        assert [each.id for each in await store.sessions()] == ["kept"]


async def test_a_lease_that_is_lost_while_the_server_asks_to_wait_sends_nothing(store_url: str) -> None:
    """The gate is the last thing before the request leaves: whatever was waited for, the store is asked after it."""

    limited = trio.Event()

    class Brain:
        def __call__(self, asked: Any) -> Any:
            if len(sim.requests) > 1:
                return "sent by the other one" if "other" in asked.last_user_text else "sent all the same"
            overdue(store_url)
            limited.set()
            return [Error(429, headers={"retry-after": "0.3"})]

    async with simulated(Brain()) as (sim, eng), open_store(store_url, owner="one") as one:
        with pytest.raises(LeaseLost):
            async with one.open(eng, "u") as chat, trio.open_nursery() as nursery:
                nursery.start_soon(take_over, store_url, sim, limited)
                await chat.send("go")
        assert [request.body["input"][-1]["content"] for request in sim.requests if request.body] == ["go", "other"]


async def take_over(store_url: str, sim: Simulator, moment: trio.Event) -> None:
    await moment.wait()
    async with open_store(store_url, owner="two") as two, simulated_by(sim) as eng, two.open(eng, "u") as chat:
        await chat.send("other")
