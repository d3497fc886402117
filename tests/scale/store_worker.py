"""A worker process of the trial in `store`: answers prompts that come on standard input, until it is killed."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import trio

from engine import Endpoint, EngineError, RetryPolicy, Timeouts, open_engine
from engine.registry import Engine
from engine.store import Store, StoreError, open_store


async def main(base_url: str, store_url: str, lease: float) -> None:
    timeouts = Timeouts(start=10, turn=20, close=0.2)
    retry = RetryPolicy(resend_ambiguous=1)
    endpoint = Endpoint(base_url=base_url, api_key="sk-simulator", profile="openai")
    lines = trio.lowlevel.FdStream(os.dup(0))
    async with (
        open_engine(endpoint, model="gpt-5.4", timeouts=timeouts, retry=retry) as eng,
        open_store(store_url, lease=lease) as store,
        trio.open_nursery() as nursery,
    ):
        rest = b""
        async for chunk in lines:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                nursery.start_soon(answer, eng, store, json.loads(line))


async def answer(eng: Engine, store: Store, task: dict[str, Any]) -> None:
    """Say what became of one prompt, as a line of JSON."""
    said = {"key": task["key"], "error": "given up"}
    with trio.move_on_after(task.get("patience", math.inf)):
        try:
            async with store.open(eng, task["session"], tools=[note], wait=15) as chat:
                say({"held": task["session"], "token": chat._lease.claim.token})
                said["answer"] = (await chat.send(task["prompt"], key=task["key"])).text
        except EngineError as error:
            said["error"] = f"{type(error).__name__} of {error}" if type(error) is StoreError else type(error).__name__
    say(said)


def say(line: dict[str, Any]) -> None:
    """Tell the driver, in one write: lines of several tasks stay whole."""
    os.write(1, json.dumps(line).encode() + b"\n")


async def note(word: str) -> str:
    """Note a word."""
    await trio.sleep(0.01)
    return f"noted {word}"


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]))
