"""Several web workers that share conversations: one of them is killed, and another one goes on.

pip install quart-trio
python -m docs.examples.web_workers
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import httpx
import hypercorn.config
import hypercorn.trio
import trio
from quart import Response, request
from quart_trio import QuartTrio

from engine import Endpoint, Engine, open_engine
from engine.simulator import open_simulator
from engine.store import LeaseLost, SessionHeld, Store, StoreUnavailable, TurnInterrupted, open_store

MODEL = os.environ.get("OPENAI_MODEL", "gpt-5.4")
LEASE = 3.0  # so that this program ends soon: 30 seconds, the default, suit a busy machine better


# --- a worker --------------------------------------------------------------------------------------------------------


def web(engine: Engine, store: Store) -> QuartTrio:
    """The application of one worker."""
    app = QuartTrio(__name__)

    @app.post("/chat/<session>")
    async def say(session: str) -> Response:
        prompt = str(await request.get_data(as_text=True))
        key = request.headers.get("Idempotency-Key")  # the same when the browser asks again
        try:
            async with store.open(engine, session, wait=2 * LEASE, retain=30 * 86400) as chat:
                reply = await chat.send(prompt, key=key)
                return Response(json.dumps({"text": reply.text, "said": len(chat.messages)}))
        except SessionHeld as held:
            return Response("another request of this user is being answered", 409, {"Retry-After": str(held.seconds)})
        except TurnInterrupted:
            return Response("it may have been answered; ask with another key to have it asked again", 409)
        except (LeaseLost, StoreUnavailable):
            return Response("ask again", 503, {"Retry-After": "1"})

    return app


async def serve(base_url: str, api_key: str, store_url: str) -> None:
    """Serve until killed, and say where."""
    config = hypercorn.config.Config.from_mapping(bind=["127.0.0.1:0"], errorlog=None)
    async with (
        open_engine(Endpoint(base_url=base_url, api_key=api_key), model=MODEL) as engine,
        open_store(store_url, lease=LEASE) as store,
        trio.open_nursery() as nursery,
    ):
        (url,) = await nursery.start(hypercorn.trio.serve, web(engine, store), config)
        print(url, flush=True)


# --- in front of the workers -----------------------------------------------------------------------------------------


def in_turn(session: str, urls: Sequence[str]) -> list[str]:
    """The workers in the order in which to ask them: a session's own one first, which keeps its connection.

    Each session has an order of its own (rendezvous hashing), so that the sessions of a worker that died are spread
    over the others, and no other session moves. ``hash $session consistent`` is the same in nginx.
    """
    return sorted(urls, key=lambda url: hashlib.sha256(f"{session} {url}".encode()).digest())


async def ask(client: httpx.AsyncClient, urls: Sequence[str], session: str, prompt: str, key: str) -> str:
    """Ask a session's own worker, or the next one where that is gone."""
    for url in in_turn(session, urls):
        try:
            answer = await client.post(f"{url}/chat/{session}", content=prompt, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            continue
        answer.raise_for_status()
        said = answer.json()
        return f"{said['text']} ({said['said']} messages, worker {urls.index(url)})"
    raise RuntimeError("no worker is left")


async def start(base_url: str, api_key: str, store_url: str) -> tuple[trio.Process, str]:
    """Start a worker process; returns it and its URL."""
    command = [sys.executable, "-m", __spec__.name, "--worker", base_url, store_url]
    environment = {**os.environ, "OPENAI_API_KEY": api_key}
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    url = b""
    while not url.endswith(b"\n"):
        url += await process.stdout.receive_some()
    return process, url.decode().strip()


async def main() -> None:
    """Have a conversation with three workers, and kill the one that answers."""
    with tempfile.TemporaryDirectory() as folder:
        store_url = f"sqlite:///{folder}/sessions.db"  # on several machines: postgresql://…
        async with open_simulator() as simulator, httpx.AsyncClient(timeout=30) as client:
            base_url = simulator.endpoint.base_url
            workers = [await start(base_url, "sk-simulator", store_url) for _ in range(3)]
            urls = [url for _, url in workers]
            try:
                print(await ask(client, urls, "ada", "What is 1+1?", key="r1"))
                print(await ask(client, urls, "ada", "What is 2+2?", key="r2"))
                own = urls.index(in_turn("ada", urls)[0])
                workers[own][0].kill()
                await workers[own][0].wait()
                print(await ask(client, urls, "ada", "What is 3+3?", key="r3"))
                print(await ask(client, urls, "ada", "What is 3+3?", key="r3"))  # the browser asks again
                print(len(simulator.requests), "requests")
            finally:
                for process, _ in workers:
                    process.kill()
                    await process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=2, metavar=("BASE_URL", "STORE"), help="be a worker")
    given = parser.parse_args()
    if given.worker:
        base_url, store_url = given.worker
        trio.run(serve, base_url, os.environ["OPENAI_API_KEY"], store_url)
    else:
        trio.run(main)
