"""Many questions at once, on the lanes of one connection; and one question to three, of which the first answer counts.

python -m docs.examples.fan_out
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio

from docs.examples.offline import MODEL, server
from engine import Session, TurnError, open_session


async def answers(session: Session, prompts: Sequence[str], at_once: int = 8) -> list[str | TurnError]:
    """Ask each prompt on a lane of its own, and return what came of each, in order."""
    found: dict[int, str | TurnError] = {}
    places = trio.CapacityLimiter(at_once)

    async def ask(number: int, prompt: str) -> None:
        async with places, session.lane(f"question-{number}") as lane:
            try:
                found[number] = (await lane.ask(prompt)).text
            except TurnError as error:  # one failure leaves the others alone
                found[number] = error

    async with trio.open_nursery() as nursery:
        for number, prompt in enumerate(prompts):
            nursery.start_soon(ask, number, prompt)
    return [found[number] for number in range(len(prompts))]


async def first(session: Session, prompt: str, ways: Iterable[str]) -> str:
    """Ask in several ways at once and return the first answer. The other turns are cancelled."""
    found: list[str] = []

    async with trio.open_nursery() as nursery:

        async def ask(way: str) -> None:
            async with session.lane(way) as lane:
                found.append((await lane.ask(prompt, instructions=way)).text)
            nursery.cancel_scope.cancel(reason="there is an answer")

        for way in ways:
            nursery.start_soon(ask, way)
    return found[0]


async def main() -> None:
    """Do both."""
    async with server() as (endpoint, dialer), open_session(endpoint, model=MODEL, dialer=dialer) as session:
        for answer in await answers(session, [f"What is {number}+1?" for number in range(20)]):
            print(answer)
        print(await first(session, "What is 2+2?", ["Be brief.", "Be exact.", "Show your working."]))
        print(session.statistics().usage)


if __name__ == "__main__":
    trio.run(main)
