"""Steering, without a connection: which response applies what, when a turn is at its end, and what it amounts to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from attrs import evolve, frozen

from engine.protocol.exchange import Exchange
from engine.protocol.exchange_states import AWAITING, TRANSITIONS, ExchangeState
from engine.protocol.failures import Failed
from engine.protocol.routing import Doubt, Router, Verdict
from engine.protocol.states import IllegalTransition
from engine.protocol.steers import STEER_TRANSITIONS, Steer, SteerState
from engine.values.blocks import Text, ToolCall
from engine.values.messages import AssistantMessage, UserMessage
from engine.values.turn_events import TextDelta, TextStarted, TurnContinued, TurnDone, TurnEvent, TurnStarted
from engine.values.usage import Usage
from engine.wire.codec import decode_object


def steer(text: str = "more") -> Steer:
    return Steer((UserMessage(text),), ({"type": "message", "role": "user", "content": text},))


class Client:
    """One request on one channel, with the real router and the real exchange."""

    def __init__(self, lane: str | None = None) -> None:
        self.router = Router()
        self.exchange = Exchange(lane)
        self.router.begin(self.exchange)
        self.exchange.dispatched()
        self.events: list[TurnEvent] = []
        self.steers: list[Steer] = []

    def steer(self, text: str) -> Steer:
        made = steer(text)
        self.exchange.steer(made)
        self.steers.append(made)
        return made

    def frame(self, kind: str, **members: Any) -> object:
        raw = {"type": kind, **members}
        if self.exchange.lane is not None:
            raw.setdefault("stream_id", self.exchange.lane)
        target = self.router.route(decode_object(raw))
        if target is self.exchange:
            self.events += self.exchange.receive(decode_object(raw))
            if self.exchange.outcome is not None:
                self.router.end(self.exchange)
        return target

    def life(self, kind: str, number: int, **members: Any) -> object:
        before = {"previous_response_id": f"r{number - 1}"} if number > 1 else {}
        return self.frame(f"response.{kind}", response={"id": f"r{number}", **before, **members})

    def say(self, text: str) -> object:
        return self.frame("response.output_text.delta", output_index=0, content_index=0, delta=text)

    def answer(self, kind: str, target: int, name: str | None, **members: Any) -> object:
        said = {"previous_response_id": f"r{target}"} | ({"id": name} if name is not None else {})
        return self.frame(f"response.steer.{kind}", steer=said | members.pop("steer", {}), **members)


USAGE: Final = {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}
CALL: Final = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}


# --- everything that a server can do


@frozen
class Story:
    """What has happened so far, as a server that keeps to the protocol knows it.

    Attributes:
        moves: What was done.
        number: The response that runs, or that ended last.
        running: Whether it runs.
        said: Whether it has said something.
        calls: Whether it has ended with a call.
        sent: Steers that were not answered: the text, and the response each is for.
        queued: Those that were accepted.
        asides: What each response was given, in order; those that the next request will add come last.
        waiting: Those among them.
        refused: How many were refused.
        returned: What was given back.
        doubt: Whether several were applied at once.
    """

    moves: tuple[tuple[str, ...], ...] = ()
    number: int = 1
    running: bool = True
    said: bool = False
    calls: bool = False
    sent: tuple[tuple[str, int], ...] = ()
    queued: tuple[tuple[str, int], ...] = ()
    asides: tuple[tuple[int, str], ...] = ()
    waiting: int = 0
    refused: int = 0
    returned: tuple[str, ...] = ()
    doubt: bool = False
    steers: int = 0

    def then(self, *move: str, **changes: Any) -> Story:
        return evolve(self, moves=(*self.moves, move), **changes)

    @property
    def over(self) -> bool:
        return not self.running and not self.sent and not self.queued


def continuations(story: Story, most: int) -> Iterator[Story]:
    """Everything that can happen next, with so many steers at most."""
    if story.running:
        if not story.said:
            yield story.then("say", said=True)
        if story.steers < most and story.number < 3:
            text = f"s{story.steers + 1}"
            yield story.then("steer", text, sent=(*story.sent, (text, story.number)), steers=story.steers + 1)
        steered = any(target == story.number for _, target in story.queued)
        yield story.then("end", "steered" if steered else "completed", running=False)
        if not story.steers or story.queued:
            yield story.then("end", "calls", running=False, calls=True)
    if story.sent:
        (text, target), rest = story.sent[0], story.sent[1:]
        yield story.then("refuse", text, str(target), sent=rest, refused=story.refused + 1)
        if target == story.number:
            yield story.then("accept", text, str(target), sent=rest, queued=(*story.queued, (text, target)))
    if story.queued and not story.running:
        (text, target), rest = story.queued[0], story.queued[1:]
        yield story.then("return", text, str(target), queued=rest, returned=(*story.returned, text))
        if story.calls:
            yield story.then(
                "wait", text, str(target),
                queued=rest, waiting=story.waiting + 1, asides=(*story.asides, (story.number + 1, text)),
            )  # fmt: skip
        elif not story.waiting:
            yield story.then(
                "begin",
                number=story.number + 1, running=True, said=False, queued=(),
                doubt=story.doubt or len(story.queued) > 1,
                asides=(*story.asides, *((story.number + 1, text) for text, _ in story.queued)),
            )  # fmt: skip


def stories(most: int, story: Story = Story()) -> Iterator[Story]:
    if story.over:
        yield story
        return
    for following in continuations(story, most):
        yield from stories(most, following)


def told(story: Story, lane: str | None) -> Client:
    """Let a story happen; everything in it is the exchange's own."""
    client = Client(lane)
    number = 1
    client.life("created", 1)
    for kind, *rest in story.moves:
        assert client.exchange.outcome is None
        match kind, *rest:
            case ("say",):
                found = client.say(f"t{number} ")
            case "steer", text:
                client.steer(text)
                continue
            case "end", "steered":
                found = client.life("incomplete", number, incomplete_details={"reason": "steered"}, usage=USAGE)
            case "end", "calls":
                found = client.life("completed", number, output=[CALL], usage=USAGE)
            case "end", _:
                found = client.life("completed", number, usage=USAGE)
            case "accept", text, target:
                found = client.answer("accepted", int(target), f"steer_{text}")
            case "refuse", text, target:
                error = {"code": "invalid_input", "message": "no", "type": "invalid_request_error"}
                found = client.answer("failed", int(target), None, error=error, steer={"input": text})
            case "return", text, target:
                found = client.answer(
                    "failed", int(target), f"steer_{text}", error={"code": "successor_creation_failed"}
                )
            case "wait", text, target:
                found = client.answer("pending", int(target), f"steer_{text}", reason="waiting_for_required_input")
            case _:
                number += 1
                found = client.life("created", number)
        assert found is client.exchange, (story, kind, found)
        if client.exchange.state in AWAITING:
            assert not any(isinstance(event, TurnDone) for event in client.events)
            assert client.exchange.steering
    return client


def test_the_stories_have_everything_in_them() -> None:
    every = list(stories(2))
    assert len(every) > 900
    assert {move[0] for story in every for move in story.moves} == {
        *("say", "steer", "end", "accept", "refuse", "return", "wait", "begin"),
    }  # fmt: skip


@pytest.mark.parametrize("most", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lane", [None, "lane-1"])
def test_whatever_a_server_does_with_steers_the_turn_is_one_answer(most: int, lane: str | None) -> None:
    for story in stories(most):
        check(story, told(story, lane))


def check(story: Story, client: Client) -> None:
    exchange = client.exchange
    assert exchange.state is (ExchangeState.AWAITING_INPUT if story.waiting else ExchangeState.ENDED), story
    message = exchange.outcome
    assert isinstance(message, AssistantMessage), story
    # Told once, in order, with indexes that count on.
    texts = [event for event in client.events if isinstance(event, TextDelta)]
    assert [event.delta for event in texts] == [block.text for block in message.content if isinstance(block, Text)]
    for event in texts:
        block = message.content[event.index]
        assert isinstance(block, Text), story
        assert block.text == event.delta, story
    begun = [event.response_id for event in client.events if isinstance(event, TurnContinued)]
    assert begun == [f"r{number}" for number in range(2, story.number + 1)], story
    assert isinstance(client.events[0], TurnStarted)
    assert client.events[0].response_id == "r1"
    assert client.events[-1] == TurnDone("tool_use" if story.calls else "stop", message)
    assert sum(isinstance(event, TurnDone) for event in client.events) == 1
    # Each response with its own id and usage, and what it was given before it.
    expected: list[tuple[str, str]] = []
    for number in range(1, story.number + 1):
        expected += [("user", text) for where, text in story.asides if where == number]
        expected.append(("assistant", f"r{number}"))
    expected += [("user", text) for where, text in story.asides if where > story.number]
    assert [summary(each) for each in message.messages] == expected, story
    parts = [each for each in message.messages if isinstance(each, AssistantMessage)]
    assert message.usage == sum((Usage(2, 1, 3) for _ in parts), Usage()), story
    assert message.response_id == f"r{story.number}"
    assert tuple(block for part in parts for block in part.content) == message.content
    assert bool(message.tool_calls) == story.calls
    # Nothing is lost, nothing is counted twice.
    states = [each.state for each in client.steers]
    assert states.count(SteerState.REFUSED) == story.refused, story
    assert states.count(SteerState.WAITING) == story.waiting == exchange.waiting, story
    assert [item["content"] for item in exchange.unapplied] == list(story.returned), story
    assert exchange.settled == (not story.doubt), story
    assert client.router.is_clean(exchange.lane) == (not story.doubt), story
    assert exchange.continuable == (not story.doubt), story


def summary(message: Any) -> tuple[str, str]:
    if isinstance(message, UserMessage):
        (block,) = message.content
        assert isinstance(block, Text)
        return "user", block.text
    return "assistant", message.response_id


# --- what is said again, and what cannot be told apart


def steered(*, accepted: bool = True) -> Client:
    """A response that has ended, and whose successor is awaited."""
    client = Client()
    client.life("created", 1)
    client.say("one ")
    client.steer("more")
    if accepted:
        client.answer("accepted", 1, "steer_1")
    client.life("incomplete", 1, incomplete_details={"reason": "steered"})
    assert client.exchange.state is (ExchangeState.AWAITING_SUCCESSOR if accepted else ExchangeState.AWAITING_ACK)
    return client


@pytest.mark.parametrize("kind", ["completed", "done", "incomplete"])
@pytest.mark.parametrize("accepted", [True, False])
def test_between_two_responses_an_end_is_the_last_one_said_again(kind: str, accepted: bool) -> None:
    client = steered(accepted=accepted)
    assert client.life(kind, 1) is Verdict.DROPPED
    assert client.life(kind, 1) is Verdict.DROPPED
    assert client.life("created", 2) is client.exchange
    client.say("two")
    if not accepted:
        client.answer("accepted", 1, "steer_1")
    client.life("completed", 2)
    assert isinstance(client.exchange.outcome, AssistantMessage)
    assert client.exchange.outcome.text == "one two"


@pytest.mark.parametrize("kind", ["created", "queued", "in_progress"])
def test_a_successor_may_begin_with_any_event_of_a_beginning(kind: str) -> None:
    client = steered()
    assert client.life(kind, 2) is client.exchange
    assert client.life("created", 2) is client.exchange
    assert [type(event) for event in client.events].count(TurnContinued) == 1


def test_a_successor_that_begins_before_the_steer_was_acknowledged() -> None:
    client = steered(accepted=False)
    client.life("created", 2)
    client.life("completed", 2)
    assert client.exchange.state is ExchangeState.AWAITING_ACK
    client.answer("accepted", 1, "steer_1")
    assert isinstance(client.exchange.outcome, AssistantMessage)
    assert not client.exchange.settled, "another successor may follow"
    assert not client.router.is_clean(None)


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("response.created", {"response": {"id": "r9", "previous_response_id": "r8"}}),
        ("response.created", {"response": {"id": "r9"}}),
        ("response.output_text.delta", {"output_index": 0, "content_index": 0, "delta": "?"}),
        ("response.output_item.added", {"output_index": 0, "item": {"type": "message"}}),
    ],
)
def test_what_is_no_successor_cannot_be_told_apart(accepted: bool, kind: str, members: dict[str, Any]) -> None:
    client = steered(accepted=accepted)
    assert client.frame(kind, **members) == Doubt(client.exchange)


def test_a_steer_that_waits_for_something_else_has_its_successor_all_the_same() -> None:
    client = steered()
    assert client.answer("pending", 1, "steer_1", reason="a_new_one", required_input=[]) is client.exchange
    assert client.exchange.state is ExchangeState.AWAITING_SUCCESSOR
    assert client.life("created", 2) is client.exchange
    client.life("completed", 2)
    assert isinstance(client.exchange.outcome, AssistantMessage)


@pytest.mark.parametrize("why", [{"reason": "waiting_for_required_input"}, {"required_input": [{"call_id": "c1"}]}])
def test_a_steer_that_waits_for_outputs_ends_the_turn(why: dict[str, Any]) -> None:
    client = steered()
    client.answer("pending", 1, "steer_1", **why)
    assert isinstance(client.exchange.outcome, AssistantMessage)
    assert client.exchange.state is ExchangeState.AWAITING_INPUT


def test_what_no_schema_has_is_passed_over() -> None:
    client = steered()
    assert client.frame("response.hologram") is Verdict.DROPPED
    assert client.exchange.state is ExchangeState.AWAITING_SUCCESSOR


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("kind", ["error", "response.failed", "response.cancelled"])
def test_a_failure_in_between_is_the_turn_s(accepted: bool, kind: str) -> None:
    client = steered(accepted=accepted)
    members: dict[str, Any] = {"error": {"code": "server_error"}}
    if kind == "response.failed":
        members = {"response": {"id": "r1", "status": "failed", "error": {"code": "server_error"}}}
    assert client.frame(kind, **members) is client.exchange
    assert isinstance(client.exchange.outcome, Failed)
    assert [item["content"] for item in client.exchange.unapplied] == ["more"]
    assert not client.router.is_clean(None)
    partial = client.exchange.partial()
    assert partial is not None
    assert partial.text == "one "


def test_a_response_that_fails_takes_its_steers_with_it() -> None:
    client = Client()
    client.life("created", 1)
    client.steer("a")
    client.steer("b")
    client.answer("accepted", 1, "steer_1")
    client.frame("error", error={"code": "server_error"})
    assert [item["content"] for item in client.exchange.unapplied] == ["a", "b"]
    assert not client.router.is_clean(None)
    assert client.answer("failed", 1, "steer_1") is Verdict.DROPPED


def test_what_has_arrived_of_an_answer_is_its_parts_so_far() -> None:
    client = steered()
    partial = client.exchange.partial()
    assert partial is not None
    assert (partial.text, partial.stop_reason, partial.parts) == ("one ", None, ())
    client.life("created", 2)
    partial = client.exchange.partial()
    assert partial is not None
    assert [summary(each) for each in partial.parts] == [("assistant", "r1"), ("user", "more")]
    client.say("two")
    partial = client.exchange.partial()
    assert partial is not None
    assert (partial.text, partial.stop_reason, len(partial.parts)) == ("one two", None, 3)


def test_the_second_of_two_responses_fails() -> None:
    client = steered()
    client.life("created", 2)
    client.say("two")
    client.frame("error", error={"code": "server_error"})
    assert isinstance(client.exchange.outcome, Failed)
    partial = client.exchange.partial()
    assert partial is not None
    assert (partial.text, partial.stop_reason, partial.response_id) == ("one two", None, "r2")
    assert client.exchange.unapplied == ()


def test_what_is_odd_about_each_response_is_counted() -> None:
    client = Client()
    client.life("created", 1)
    client.steer("more")
    client.answer("accepted", 1, "steer_1")
    client.life("incomplete", 1, output_text="one ", incomplete_details={"reason": "steered"})
    client.life("created", 2)
    assert client.exchange.oddities == {"repaired": 1}
    client.life("completed", 2, output_text="two")
    assert client.exchange.oddities == {"repaired": 2}
    assert isinstance(client.exchange.outcome, AssistantMessage)
    assert client.exchange.outcome.text == "one two"


def test_the_blocks_of_a_successor_are_counted_on() -> None:
    client = steered()
    client.life("created", 2)
    client.say("two")
    assert [event.index for event in client.events if isinstance(event, TextStarted)] == [0, 1]


def test_a_call_id_that_a_predecessor_has_is_not_given_twice() -> None:
    client = Client()
    client.life("created", 1)
    client.steer("more")
    client.answer("accepted", 1, "steer_1")
    client.life("completed", 1, output=[CALL])
    client.life("created", 2)
    client.life("completed", 2, output=[CALL | {"id": "fc_2", "name": "g"}])
    assert isinstance(client.exchange.outcome, AssistantMessage)
    first, second = client.exchange.outcome.tool_calls
    assert isinstance(first, ToolCall)
    assert first.call_id == "c1" != second.call_id
    assert not client.exchange.continuable


# --- the next request on the channel


def ended(how: str) -> Client:
    client = steered()
    match how:
        case "applied":
            client.life("created", 2)
            client.life("completed", 2)
        case "returned":
            client.answer("failed", 1, "steer_1")
        case "waits":
            client.answer("pending", 1, "steer_1", reason="waiting_for_required_input")
    assert isinstance(client.exchange.outcome, AssistantMessage)
    return client


def following(client: Client) -> Exchange:
    assert client.router.is_clean(None)
    exchange = Exchange()
    client.router.begin(exchange)
    exchange.dispatched()
    return exchange


@pytest.mark.parametrize("how", ["applied", "returned", "waits"])
def test_after_a_steered_answer_an_end_said_again_reaches_no_other(how: str) -> None:
    client = ended(how)
    exchange = following(client)
    assert client.life("done", 2 if how == "applied" else 1) is Verdict.DROPPED
    assert client.answer("failed", 1, "steer_1") is Verdict.DROPPED, "the steer of a request that is over"
    created = {"type": "response.created", "response": {"id": "r9", "previous_response_id": "r1"}}
    assert client.router.route(decode_object(created)) is exchange


def test_an_end_that_was_said_again_is_not_said_a_third_time() -> None:
    client = steered()
    client.life("done", 1)
    client.answer("failed", 1, "steer_1")
    exchange = following(client)
    assert client.life("done", 1) == Doubt(exchange)


@pytest.mark.parametrize("how", ["applied", "returned", "waits"])
def test_after_a_steered_answer_nothing_more_is_expected(how: str) -> None:
    client = ended(how)
    assert client.life("done", 2 if how == "applied" else 1) is Verdict.DROPPED
    assert client.life("created", 3) is Verdict.STRAY


def test_a_turn_that_was_left_is_followed_by_none_on_its_channel() -> None:
    client = steered()
    client.exchange.abandon()
    assert client.life("created", 2) is client.exchange
    assert client.say("late") is client.exchange
    client.life("completed", 2)
    assert client.exchange.outcome is not None
    assert client.events[-1] != TurnDone("stop", AssistantMessage())
    assert not client.router.is_clean(None)


# --- whose steer it is


def test_a_refusal_without_a_channel_s_name_finds_its_steer() -> None:
    router = Router()
    exchanges = [Exchange(lane) for lane in ("a", "b")]
    for number, exchange in enumerate(exchanges):
        router.begin(exchange)
        exchange.dispatched()
        exchange.receive(decode_object({"type": "response.created", "response": {"id": f"r{number}"}}))
        exchange.steer(steer(f"to {number}"))
    for number, exchange in enumerate(exchanges):
        refusal = {"type": "response.steer.failed", "steer": {"previous_response_id": f"r{number}", "input": []}}
        assert router.route(decode_object(refusal)) is exchange
    unknown = {"type": "response.steer.failed", "steer": {"previous_response_id": "r9", "input": []}}
    assert router.route(decode_object(unknown)) is Verdict.DROPPED


def test_where_all_responses_have_one_id_the_channel_says_whose_steer_it_is() -> None:
    router = Router()
    exchanges = [Exchange(lane) for lane in ("a", "b")]
    for exchange in exchanges:
        router.begin(exchange)
        exchange.dispatched()
        exchange.receive(decode_object({"type": "response.created", "response": {"id": "r"}}))
        exchange.steer(steer())
    for lane, exchange in zip(("a", "b"), exchanges, strict=True):
        accepted = {"type": "response.steer.accepted", "stream_id": lane, "steer": {"previous_response_id": "r"}}
        assert router.route(decode_object(accepted)) is exchange


def test_a_refusal_that_sends_the_input_back_is_that_steer_s() -> None:
    client = Client()
    client.life("created", 1)
    first, second = client.steer("a"), client.steer("b")
    client.answer("failed", 1, None, steer={"input": list(second.items)})
    assert (first.state, second.state) == (SteerState.SENT, SteerState.REFUSED)


UNKNOWN_EVENT = {"code": "unknown_event_type", "type": "invalid_request_error", "message": "What is that?"}


@pytest.mark.parametrize("error", [UNKNOWN_EVENT, {"message": "Invalid value", "param": "type"}])
@pytest.mark.parametrize("ended", [False, True])
def test_a_server_that_does_not_know_steers_refuses_them_and_goes_on(error: dict[str, Any], ended: bool) -> None:
    client = Client()
    client.life("created", 1)
    client.say("one")
    sent = client.steer("more")
    if ended:
        client.life("completed", 1)
        assert client.exchange.state is ExchangeState.AWAITING_ACK
    assert client.frame("error", status=400, error=error) is client.exchange
    assert sent.state is SteerState.REFUSED
    assert sent.refusal is not None
    assert (sent.refusal.code, sent.refusal.message) == (error.get("code"), error["message"])
    if not ended:
        client.life("completed", 1)
    assert isinstance(client.exchange.outcome, AssistantMessage)
    assert client.router.is_clean(None)


def test_an_error_about_an_event_is_the_responses_where_no_steer_is_unanswered() -> None:
    for client in (Client(), steered()):
        if client.exchange.state is ExchangeState.AMBIGUOUS:
            client.life("created", 1)
        client.frame("error", error=UNKNOWN_EVENT)
        assert isinstance(client.exchange.outcome, Failed)


def test_an_error_about_a_steer_ends_no_response_that_was_left() -> None:
    client = Client()
    client.life("created", 1)
    client.steer("more")
    client.exchange.abandon()
    assert client.frame("error", error=UNKNOWN_EVENT) is client.exchange
    assert client.exchange.outcome is None


def test_a_steer_event_says_nothing_of_a_request_that_was_not_steered() -> None:
    client = Client()
    assert client.answer("accepted", 1, "steer_1") is Verdict.DROPPED
    assert client.exchange.state is ExchangeState.AMBIGUOUS


def test_what_is_said_twice_of_a_steer_counts_once() -> None:
    client = steered()
    for kind in ("accepted", "accepted"):
        assert client.answer(kind, 1, "steer_1") is Verdict.DROPPED
    client.life("created", 2)
    assert client.answer("failed", 1, "steer_1") is Verdict.DROPPED
    assert client.answer("pending", 1, "steer_1") is Verdict.DROPPED


# --- the tables


@pytest.mark.parametrize("state", ExchangeState)
def test_only_a_response_that_runs_can_be_steered(state: ExchangeState) -> None:
    exchange = Exchange()
    exchange.response_id = "r1"
    exchange.state = state
    assert exchange.steerable == (state is ExchangeState.ACCEPTED)
    if state is not ExchangeState.ACCEPTED:
        with pytest.raises(RuntimeError, match="cannot be steered"):
            exchange.steer(steer())


def test_a_response_without_an_id_cannot_be_steered() -> None:
    exchange = Exchange()
    exchange.dispatched()
    exchange.receive(decode_object({"type": "response.output_text.delta", "delta": "x"}))
    assert not exchange.steerable


@pytest.mark.parametrize("before", SteerState)
@pytest.mark.parametrize("after", SteerState)
def test_a_steer_goes_where_its_table_says(before: SteerState, after: SteerState) -> None:
    answers = []
    made = Steer((), (), lambda: answers.append(1), state=before)
    if after in STEER_TRANSITIONS[before]:
        made.become(after)
        assert made.state is after
        assert bool(answers) == (before is SteerState.SENT)
    else:
        with pytest.raises(IllegalTransition):
            made.become(after)


def test_every_state_of_an_exchange_can_be_reached_and_left() -> None:
    reached = {to for ways in TRANSITIONS.values() for to in ways}
    assert reached | {ExchangeState.NOT_SENT} == set(ExchangeState)
    ends = {state for state, ways in TRANSITIONS.items() if not ways}
    assert ends == {ExchangeState.ENDED, ExchangeState.REJECTED, ExchangeState.AWAITING_INPUT}
