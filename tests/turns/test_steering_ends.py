"""How a steered turn ends when the server refuses, gives back, falls silent or goes, and when its caller leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio
import trio.testing
from invariants import contained
from raw_peer import CREATED, DELTA, KEY, URL, Peer, ScriptFor, completed, created, event, session_over
from trio.testing import MockClock

import engine
from engine import Delivery, OnCancel, SteerRejected, Transport

STEERING: Final = engine.Endpoint("http://unused.test/v1", KEY, websocket_url=URL, profile="openai")
ITEM: Final = {"type": "message", "role": "user", "content": "more"}


def answer(kind: str, **members: Any) -> bytes:
    said = {"previous_response_id": "resp_1", "id": "steer_1"} | members.pop("steer", {})
    return event(type=f"response.steer.{kind}", steer={k: v for k, v in said.items() if v is not None}, **members)


def steered_end(number: int = 1) -> bytes:
    details = {"reason": "steered"}
    response = {"id": f"resp_{number}", "status": "incomplete", "incomplete_details": details}
    return event(type="response.incomplete", response=response)


def successor(number: int = 2) -> bytes:
    response = {"id": f"resp_{number}", "status": "in_progress", "previous_response_id": f"resp_{number - 1}"}
    return event(type="response.created", response=response)


def failed(code: str | None, *, back: bool = False) -> bytes:
    error = {"type": "invalid_request_error", "code": code, "message": "The words of the server."}
    return answer("failed", error=error, steer={"input": [ITEM]} | ({} if back else {"id": None}))


ACCEPTED: Final = answer("accepted")
DONE: Final = completed("par")
NEXT: Final = completed("next", 9)


def playing(*frames: bytes, then: Callable[[Peer], Awaitable[None]] | None = None) -> ScriptFor:
    """A server that has a response under way, gets a steer, sends this, and answers every request after it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send(CREATED + DELTA)
        steer = await peer.request()
        assert steer == {"type": "response.steer", "previous_response_id": "resp_1", "input": [ITEM]}
        for frame in frames:
            await peer.send(frame)
        if then is not None:
            await then(peer)
            return
        while True:
            await peer.request()
            await peer.send(created(9) + NEXT)

    return script


async def fresh(peer: Peer) -> None:
    """A server that answers every request."""
    await peer.accept()
    while True:
        await peer.request()
        await peer.send(created(9) + NEXT)


async def silent(peer: Peer) -> None:
    await peer.until_gone()


async def until_text(turn: engine.Turn) -> None:
    async for each in turn:
        if isinstance(each, engine.TextDelta):
            return


def items(turn: engine.Turn) -> list[Any]:
    return [dict(each) for each in turn.report.unapplied]


CODES: Final = [
    "response_not_found",
    "invalid_input",
    "steering_not_supported",
    "too_many_pending_steers",
    "response_already_completed",
    "response_not_active",
    "successor_creation_failed",
    "a_new_one",
    None,
]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("late", [False, True], ids=["before the end", "after the end"])
async def test_a_refusal_with_any_code(autojump_clock: MockClock, code: str | None, late: bool) -> None:
    frames = (DONE, failed(code)) if late else (failed(code), DONE)
    async with contained() as held, session_over(held, playing(*frames), endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            with pytest.raises(SteerRejected) as caught:
                await turn.steer("more")
            assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")
            assert caught.value.message == "The words of the server."
            assert "words" not in str(caught.value)
            assert (code or "type: invalid_request_error") in str(caught.value)
            assert caught.value.delivery is Delivery.REJECTED
            assert (await turn.wait()).text == "par"
        assert items(turn) == []
        assert turn.messages == (turn.message,)
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections_opened == 1


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("late", [False, True], ids=["before the end", "after the end"])
async def test_input_that_was_accepted_and_comes_back(autojump_clock: MockClock, code: str | None, late: bool) -> None:
    back = failed(code, back=True)
    frames = (ACCEPTED, DONE, back) if late else (ACCEPTED, back, DONE)
    async with contained() as held, session_over(held, playing(*frames), endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("more")
            assert (await turn.wait()).text == "par"
        assert items(turn) == [ITEM]
        assert turn.messages == (turn.message,)
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections_opened == 1


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_server_that_says_nothing_more_is_waited_for_as_long_as_silence_may_last(
    autojump_clock: MockClock, accepted: bool, ended: bool
) -> None:
    frames = (*([ACCEPTED] if accepted else []), *([DONE] if ended else []))
    scripts = (playing(*frames, then=silent), fresh)
    timeouts = engine.Timeouts(idle=7)
    async with contained() as held, session_over(held, *scripts, endpoint=STEERING, timeouts=timeouts) as session:
        begun = trio.current_time()
        async with session.turn("count") as turn:
            await until_text(turn)
            if accepted:
                await turn.steer("more")
            with pytest.raises(engine.TurnTimeout) as caught:
                await (turn.wait() if accepted else turn.steer("more"))
            assert caught.value.phase == "idle"
            assert trio.current_time() - begun == 7
            assert caught.value.partial is not None
            assert caught.value.partial.text == "par"
            assert caught.value.report is not None
            assert [dict(each) for each in caught.value.report.unapplied] == [ITEM]
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections_opened == 2


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("output", [False, True])
async def test_a_turn_that_was_steered_is_not_sent_again(
    autojump_clock: MockClock, accepted: bool, output: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.request()
        await peer.send(CREATED + (DELTA if output else b""))
        await peer.request()
        await peer.send(ACCEPTED if accepted else b"")
        peer.reset()

    async with (
        contained() as held,
        session_over(held, script, fresh, endpoint=STEERING, transport=Transport.AUTO) as session,
    ):
        async with session.turn("count") as turn:
            if accepted:
                await turn.steer("more")
            with pytest.raises(engine.ConnectionLost) as caught:
                await (turn.wait() if accepted else turn.steer("more"))
            assert caught.value.delivery is Delivery.ACCEPTED
        assert items(turn) == [ITEM]
        assert turn.report.attempts == 1
        assert (await session.ask("next")).text == "next"


@pytest.mark.parametrize("kind", ["error", "response.failed"])
@pytest.mark.parametrize("frames", [(), (ACCEPTED,), (ACCEPTED, DONE)], ids=["unanswered", "accepted", "ended"])
async def test_a_turn_that_fails_says_what_was_not_applied(
    autojump_clock: MockClock, kind: str, frames: tuple[bytes, ...]
) -> None:
    error = {"code": "server_error", "message": "x"}
    members: dict[str, Any] = {"error": error} if kind == "error" else {"response": {"id": "resp_1", "error": error}}
    end = event(type=kind, **members)
    scripts = (playing(*frames, end, successor(), event(type="response.output_text.delta", delta="late")), fresh)
    async with contained() as held, session_over(held, *scripts, endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            if frames:
                await turn.steer("more")
            with pytest.raises(engine.ResponseFailed) as caught:
                await (turn.wait() if frames else turn.steer("more"))
            assert caught.value.code == "server_error"
        assert items(turn) == [ITEM]
        assert (await session.ask("next")).text == "next"


async def test_a_successor_that_fails_after_the_input_was_applied(autojump_clock: MockClock) -> None:
    end = event(type="error", error={"code": "server_error", "message": "x"})
    frames = (ACCEPTED, steered_end(), successor(), end)
    async with contained() as held, session_over(held, playing(*frames), fresh, endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("more")
            with pytest.raises(engine.ResponseFailed):
                await turn.wait()
        assert items(turn) == []
        assert turn.partial.text == "par"


async def test_what_is_no_successor_is_lost_rather_than_shown(autojump_clock: MockClock) -> None:
    frames = (ACCEPTED, DONE, event(type="response.output_text.delta", output_index=0, content_index=0, delta="?"))
    async with contained() as held, session_over(held, playing(*frames), fresh, endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("more")
            with pytest.raises(engine.ConnectionLost, match="cannot be told"):
                await turn.wait()
            assert turn.partial.text == "par"
        assert items(turn) == [ITEM]
        assert (await session.ask("next")).text == "next"


STAGES: Final[dict[str, tuple[bytes, ...]]] = {
    "unanswered": (),
    "accepted": (ACCEPTED,),
    "ended": (ACCEPTED, steered_end()),
    "unanswered and ended": (steered_end(),),
}


@pytest.mark.parametrize("policy", list(OnCancel))
@pytest.mark.parametrize("stage", STAGES)
async def test_leaving_before_the_successor_gives_the_connection_up(
    autojump_clock: MockClock, policy: OnCancel, stage: str
) -> None:
    """Whatever the policy: nothing else would tell where the successor ends."""
    late = trio.Event()

    async def then(peer: Peer) -> None:
        await late.wait()
        await peer.send(
            DONE + successor() + event(type="response.output_text.delta", delta="late") + completed("late", 2)
        )
        await peer.until_gone()

    scripts = (playing(*STAGES[stage], then=then), fresh)
    async with contained() as held, session_over(held, *scripts, endpoint=STEERING, on_cancel=policy) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            with trio.move_on_after(1):
                await turn.steer("more")
            await trio.testing.wait_all_tasks_blocked()
        late.set()
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections_opened == 2
        assert items(turn) == [ITEM]
        retired = [each.retired_because for each in session.statistics().connections]
        assert None in retired


@pytest.mark.parametrize("policy", [OnCancel.DRAIN, OnCancel.NEW_LANE])
async def test_leaving_a_successor_goes_by_the_policy(autojump_clock: MockClock, policy: OnCancel) -> None:
    async def then(peer: Peer) -> None:
        await trio.sleep(1)
        await peer.send(completed("late", 2))
        while True:
            request = await peer.request()
            lane = {"stream_id": request["stream_id"]} if "stream_id" in request else {}
            response = {"id": "resp_9", "status": "completed", "output_text": "next"}
            await peer.send(event(type="response.created", response={"id": "resp_9"}, **lane))
            await peer.send(event(type="response.completed", response=response, **lane))

    script = playing(ACCEPTED, steered_end(), successor(), then=then)
    async with contained() as held, session_over(held, script, endpoint=STEERING, on_cancel=policy) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            await turn.steer("more")
            async for each in turn:
                if isinstance(each, engine.TurnContinued):
                    break
        assert (await session.ask("next")).text == "next"
        assert session.statistics().connections_opened == 1


async def test_a_steer_that_is_cancelled_before_it_was_sent_is_not_sent(autojump_clock: MockClock) -> None:
    requests: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        requests.append(await peer.request())
        await trio.sleep(5)
        await peer.send(CREATED + DELTA)
        await trio.sleep(5)
        await peer.send(DONE)
        while True:
            requests.append(await peer.request())

    async with contained() as held, session_over(held, script, endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            with trio.move_on_after(1) as scope:
                await turn.steer("more")
            assert scope.cancelled_caught
            assert (await turn.wait()).text == "par"
        assert items(turn) == []
        assert len(requests) == 1


async def test_a_steer_that_is_cancelled_after_it_was_sent_may_be_applied(autojump_clock: MockClock) -> None:
    async def then(peer: Peer) -> None:
        await trio.sleep(5)
        await peer.send(ACCEPTED + steered_end() + successor() + completed("more", 2))
        await peer.until_gone()

    async with contained() as held, session_over(held, playing(then=then), endpoint=STEERING) as session:
        async with session.turn("count") as turn:
            await until_text(turn)
            with trio.move_on_after(1) as scope:
                await turn.steer("more")
            assert scope.cancelled_caught
            assert (await turn.wait()).text == "parmore"
        assert [type(each).__name__ for each in turn.messages] == [
            "AssistantMessage",
            "UserMessage",
            "AssistantMessage",
        ]


async def test_a_block_that_is_left_ends_the_wait_of_a_steer(autojump_clock: MockClock) -> None:
    scripts = (playing(then=silent), fresh)
    async with contained() as held, session_over(held, *scripts, endpoint=STEERING) as session:
        outcome: list[engine.SteerRejected] = []

        async def steer(turn: engine.Turn) -> None:
            with pytest.raises(engine.SteerRejected) as caught:
                await turn.steer("more")
            outcome.append(caught.value)

        async with trio.open_nursery() as nursery:
            async with session.turn("count") as turn:
                await until_text(turn)
                nursery.start_soon(steer, turn)
                await trio.testing.wait_all_tasks_blocked()
        await steer(turn)
        assert [str(each) for each in outcome] == ["the turn's block was left"] * 2
        assert [each.code for each in outcome] == ["response_not_active"] * 2
        assert [each.delivery for each in outcome] == [engine.Delivery.AMBIGUOUS, engine.Delivery.NOT_SENT]


async def test_a_session_that_closes_ends_the_wait_of_a_steer(autojump_clock: MockClock) -> None:
    async with contained() as held:
        outcome: list[BaseException] = []

        async def talk(session: engine.Session) -> None:
            async with session.turn("count") as turn:
                await until_text(turn)
                try:
                    await turn.steer("more")
                except engine.SessionClosed as error:
                    outcome.append(error)

        async with trio.open_nursery() as nursery:
            async with session_over(held, playing(then=silent), endpoint=STEERING) as session:
                nursery.start_soon(talk, session)
                await trio.testing.wait_all_tasks_blocked()
        assert len(outcome) == 1


async def test_the_budget_of_a_turn_goes_on_over_its_successors(autojump_clock: MockClock) -> None:
    async def then(peer: Peer) -> None:
        for number in range(1, 4):
            await trio.sleep(4)
            await peer.send(steered_end(number) + successor(number + 1))
            await peer.request()
            await peer.send(
                answer("accepted", steer={"previous_response_id": f"resp_{number + 1}", "id": f"s{number}"})
            )
        await peer.until_gone()

    timeouts = engine.Timeouts(turn=10)
    scripts = (playing(ACCEPTED, then=then), fresh)
    async with contained() as held, session_over(held, *scripts, endpoint=STEERING, timeouts=timeouts) as session:
        begun = trio.current_time()
        async with session.turn("count") as turn:
            with pytest.raises(engine.TurnTimeout) as caught:
                await until_text(turn)
                await turn.steer("more")
                async for each in turn:
                    if isinstance(each, engine.TurnContinued):
                        await turn.steer("more")
            assert (caught.value.phase, trio.current_time() - begun) == ("turn", 10)
        assert items(turn) == [ITEM]
