"""A chat server: a line is a prompt, and hanging up cancels the answer that is under way.

python -m docs.examples.chat_server        # then, elsewhere: nc 127.0.0.1 7000
"""

from __future__ import annotations

import functools
import itertools
import math

import trio

from docs.examples.offline import MODEL, server
from engine import Engine, Session, Timeouts, TurnError, open_engine

NUMBERS = itertools.count(1)
LONGEST = 64 * 1024  # bytes of a line


async def serve(engine: Engine, stream: trio.abc.Stream) -> None:
    """Talk with one user. The session lives as long as the line does."""
    prompts, waiting = trio.open_memory_channel[str](math.inf)
    try:
        async with engine.open_session(f"user-{next(NUMBERS)}") as session, trio.open_nursery() as nursery:
            nursery.start_soon(answer, session, waiting, stream)
            rest = b""
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    prompts.send_nowait(line.decode(errors="replace"))
                if len(rest) > LONGEST:
                    break
            nursery.cancel_scope.cancel(reason="the user hung up")
    except* trio.BrokenResourceError:
        pass  # hung up without saying so
    finally:
        await trio.aclose_forcefully(stream)


async def answer(session: Session, prompts: trio.MemoryReceiveChannel[str], stream: trio.abc.Stream) -> None:
    """Answer one prompt after the other, word by word."""
    chat = session.conversation("Be brief.")
    async for prompt in prompts:
        try:
            async with chat.stream(prompt) as reply:
                async for text in reply.texts():
                    await stream.send_all(text.encode())
            await stream.send_all(b"\n")
        except TurnError as error:
            await stream.send_all(f"[{error}]\n".encode())


async def main(port: int = 7000) -> None:
    """Serve until interrupted."""
    async with (
        server() as (endpoint, dialer),
        open_engine(endpoint, model=MODEL, dialer=dialer, timeouts=Timeouts(turn=60)) as engine,
    ):
        print(f"chat with it: nc 127.0.0.1 {port}", flush=True)
        await trio.serve_tcp(functools.partial(serve, engine), port, host="127.0.0.1")


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
