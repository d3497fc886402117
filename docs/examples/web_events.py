"""A web handler that streams an answer as server-sent events; a browser that goes away cancels the turn.

pip install quart-trio
python -m docs.examples.web_events         # then: curl -N 'http://127.0.0.1:8000/ask?prompt=Hello'
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import hypercorn.config
import hypercorn.trio
import trio
from quart import Response, request
from quart_trio import QuartTrio

from docs.examples.offline import MODEL, server
from engine import Engine, Timeouts, TurnError, open_engine


def web(engine: Engine) -> QuartTrio:
    """The application, over sessions that live as long as the server does."""
    app = QuartTrio(__name__)

    @app.get("/ask")
    async def ask() -> Response:
        session = await engine.session(request.args.get("user", "anyone"))
        prompt = request.args.get("prompt", "Hello")

        async def events() -> AsyncIterator[str]:
            try:
                async with session.turn(prompt) as turn:
                    async for text in turn.texts():
                        yield f"data: {json.dumps(text)}\n\n"
                yield "event: done\ndata: {}\n\n"
            except TurnError as error:
                yield f"event: failed\ndata: {json.dumps(str(error))}\n\n"

        response = Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
        response.timeout = None  # Timeouts(turn=…) says how long an answer may take
        return response

    return app


async def main(port: int = 8000) -> None:
    """Serve until interrupted."""
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    async with (
        server() as (endpoint, dialer),
        open_engine(endpoint, model=MODEL, dialer=dialer, timeouts=Timeouts(turn=60)) as engine,
    ):
        await hypercorn.trio.serve(web(engine), config)


if __name__ == "__main__":
    trio.run(main)
