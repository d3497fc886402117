"""Writes docs/recovery.md from the tables of the library: ``python docs/recovery_page.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from engine.protocol.faults import CLOSE_CODES, CODES, STATUSES, TYPES, Fault
from engine.protocol.recovery import TABLE, Dose, Remedy
from engine.settings.retry import DEFAULT_RETRY
from engine.values.choices import Transport

PAGE: Final = Path(__file__).with_name("recovery.md")

_Key = TypeVar("_Key", str, int)

_WORDS: Final[Mapping[Remedy, str]] = {
    Remedy.SAME_CONNECTION: "whole, same connection",
    Remedy.UNSEALED: "whole without sealed reasoning, same connection",
    Remedy.NEW_CONNECTION: "new connection",
    Remedy.BACK_OFF: "back off",
    Remedy.RETRY_AFTER: "wait as asked",
    Remedy.FRESH_KEY: "fresh key",
    Remedy.FALL_BACK: "HTTP",
}

_TEXT: Final = """\
# What is tried again

This page is made from the tables in `engine.protocol.recovery` and `engine.protocol.faults`; a test compares them.

A turn makes one attempt after the other until it has an answer, or until the table says that its failure is raised.
Three things hold whatever the table says:

- **Everything fits into `Timeouts.start`**, which runs from the lane's grant to the first event of the turn. A wait
  that would be longer than what is left of it is not begun: the last real failure is raised at once.
- **Nothing is sent again once the turn has shown output**, reasoning included. The failure is raised, with what had
  arrived as `partial`.
- **What the server may be working on is sent again in `Transport.AUTO` only**, and `RetryPolicy.resend_ambiguous` times
  at most (default {resend}). That is the case when the connection was lost, or nothing came back, after the request may
  have left. Set it to 0 and no turn can cost twice.

`RetryPolicy.max_dispatches` (default {dispatches}) bounds how often a turn's request is sent in all, over all
transports. `turn.report` tells what was done: `attempts`, `transport`, and `fallback_reason` where the turn went over
HTTP.

## The table

The first row that fits counts. Remedies are tried from left to right; each can be taken as often as it says, once where
it does not say. Where none is left, the failure is raised. `–` raises at once.

{table}

- *back off*: a random part of {waits} seconds, in this order (`RetryPolicy.back_off`, with full jitter); then a new
  connection.
- *wait as asked*: as long as the server asks, in `Retry-After` or `retry-after-ms`, or in the words of a rate limit
  ("try again in 2s"). A server that does not say is not asked again.
- *fresh key*: where `Endpoint.api_key` is a function, it is asked once more, and a new connection made with what it
  returns. Once per turn, over all transports.
- *whole, same connection*: the server refused it before it began, and the connection carries it a second time.
- *whole without sealed reasoning*: the server could not read what it is said to have encrypted, as after a change of
  key or model. The reasoning stays out, in every later turn of the session too, and what came with it goes without ids.
  `session.statistics().refused_seals` counts it. What a compaction sealed is never left out.
- *HTTP*: the turn goes on over HTTP with server-sent events, and stays there. Its request is whole, and has nothing in
  it that belongs to the socket. The caller sees one sequence of turn events.
- *anything else*: the caller left, any other budget ran out, the session was released or broke, the consumer fell
  behind, the peer broke the protocol, or the reply does not have the format that was asked for.

## A limited rate

A server that refuses one turn for its rate, and says how long to wait, would refuse the next one too. So all turns of
the engine that go to this server with this key and model wait, in every session. Then one goes; when the server has
begun with it, the others follow in short, random intervals. Waiting is no attempt and counts in `Timeouts.start`: a
turn that cannot wait so long raises `RateLimited` at once, and nothing of it was sent. A wait over a minute and a
quota that is used up concern the refused turn alone.

An upgrade that is refused with 429 holds, in the same way, all turns that need a new connection to that server with
that key, whatever their model; those that have one, or go over HTTP, go on. In `Transport.AUTO` a turn that cannot wait
so long goes over HTTP.

## The breaker

Each engine has a breaker for each server and key: `engine.breakers`. Two failures to connect in a row open it for a
minute (`RetryPolicy.breaker_threshold` and `breaker_cooldown`); while it is open, turns in `Transport.AUTO` that have
no connection go over HTTP at once. Then one turn at a time tries a connection, and its success closes the breaker. Only
a server that is not there, or not able to serve, counts: a refused connection, a time-out, an end before the upgrade
was answered, an upgrade answered with 5xx. Leaving a turn, or a budget that runs out, never does.

A server that answers the upgrade with 404, 405 or 426 has no WebSocket. That is remembered until
`engine.breakers.reset()`.

```python
import trio
from engine import open_engine
from engine.simulator import Reject, open_simulator


async def main() -> None:
    async with open_simulator(in_memory=True, handshake=Reject(426)) as server:
        async with open_engine(server.endpoint, model="gpt-5.4", dialer=server.dialer) as engine:
            session = await engine.session("user-42")
            async with session.turn("What is 2+2?") as turn:
                await turn.wait()
            assert turn.report.transport == "sse"
            assert "426" in (turn.report.fallback_reason or "")
            (breaker,) = engine.breakers.values()
            assert breaker.no_websocket
            breaker.reset()
```

## Connections that grow old

A connection takes no new turns after `Limits.connection_lifetime` (55 minutes, less where the server's profile says
so). In the last eleventh of it its replacement is dialled, and the next turn goes over; a turn that is running is not
cut. An unused connection is closed after `Limits.idle_lifetime`, and the next turn opens another. One that ends by
itself while unused is replaced by the next turn too, or at once with `RetryPolicy(eager_reconnect=True)`.

`engine.change_endpoint(...)` takes another key, other header fields or another server: turns that are running end where
they are, and the next ones open new connections.

## What errors are about

A code decides, wherever it comes: in an error event, in a failed response, in an HTTP answer. Without a code that is
known, a status decides, unless the type is about a rate limit or the credentials; without a status, the type. Where
nothing is known, it is the request's fault if the request was refused, and the server's if a response had begun.

A context that is too long has the code `context_length_exceeded` on every server that is known to say so in its own
words: vLLM, SGLang, llama.cpp, LM Studio, Ollama, Text Generation Inference, LiteLLM, OpenRouter, xAI, Mistral, Groq,
Anthropic's, Google's and Amazon's models behind a gateway, and others. `message` keeps what the server wrote.

{faults}

## Close codes

| code | name | another WebSocket may do better |
| --- | --- | --- |
{closes}
| any other | the server's own | no |
"""


def page() -> str:
    """The text of the page."""
    return _TEXT.format(
        resend=DEFAULT_RETRY.resend_ambiguous,
        dispatches=DEFAULT_RETRY.max_dispatches,
        waits=", ".join(f"{seconds:g}" for seconds in DEFAULT_RETRY.back_off),
        table="\n".join(_rows()),
        faults="\n".join(_faults()),
        closes="\n".join(
            f"| {code} | {entry.name} | {'yes' if entry.curable else 'no'} |" for code, entry in CLOSE_CODES.items()
        ),
    )


def _rows() -> Iterable[str]:
    transports = (Transport.AUTO, Transport.WEBSOCKET, Transport.SSE)
    yield "| failure | " + " | ".join(f"`{transport.name}`" for transport in transports) + " |"
    yield "| --- " * (1 + len(transports)) + "|"
    for row in TABLE:
        yield f"| {row.name} | " + " | ".join(_course(row.doses(transport)) for transport in transports) + " |"


def _course(doses: tuple[Dose, ...]) -> str:
    return ", then ".join(map(_dose, doses)) or "–"


def _dose(dose: Dose) -> str:
    if dose.times == 1:
        return _WORDS[dose.remedy]
    if dose.times is not None:
        return f"{_WORDS[dose.remedy]} ({dose.times}×)"
    bound = "`resend_ambiguous`" if dose.remedy is Remedy.NEW_CONNECTION else f"{len(DEFAULT_RETRY.back_off)}"
    return f"{_WORDS[dose.remedy]} ({bound}×)"


def _faults() -> Iterable[str]:
    yield "| about | codes | types | statuses |"
    yield "| --- | --- | --- | --- |"
    for fault in Fault:
        cells = (_named(CODES, fault), _named(TYPES, fault), ", ".join(map(str, _of(STATUSES, fault))) or "–")
        yield f"| {fault.value} | " + " | ".join(cells) + " |"


def _named(table: Mapping[str, Fault], fault: Fault) -> str:
    return ", ".join(f"`{name}`" for name in _of(table, fault)) or "–"


def _of(table: Mapping[_Key, Fault], fault: Fault) -> list[_Key]:
    return [key for key, about in table.items() if about is fault]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
