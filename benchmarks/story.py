"""The one picture that tells the story of a run: what an event costs, by contestant.

It is written by hand rather than drawn by a library, so that it is small, stays text, and brings a dark set of colours.
It has a ground of its own: whatever page it stands on, it can be read.
"""

from __future__ import annotations

from typing import Any, Final
from xml.sax.saxutils import escape

__all__ = ["STORY", "story_of"]

STORY: Final = "Processor time of one event, by client"
"""The picture's title, and its words where it is not seen."""

_ROWS: Final[dict[str, tuple[str, str]]] = {
    "engine-fast-ask": ("session-engine[fast], ask", "whole message"),
    "engine-ask": ("session-engine, ask", "whole message"),
    "engine-fast": ("session-engine[fast], iterated", "typed events and whole message"),
    "engine": ("session-engine, iterated", "typed events and whole message"),
    "websockets-asyncio": ("websockets (asyncio) + json.loads", "dictionaries"),
    "websockets-trio": ("websockets (Trio) + json.loads", "dictionaries"),
    "trio-websocket": ("trio-websocket + json.loads", "dictionaries"),
    "httpx-sse": ("httpx, HTTP + json.loads", "dictionaries"),
    "openai-connect": ("openai-python, WebSocket", "typed events"),
    "openai-http": ("openai-python, HTTP", "typed events"),
    "openai-agents": ("openai-agents, WebSocket", "typed events"),
}

_WIDTH: Final = 820
_BARS_FROM: Final = 250
_BARS: Final = 330
_ROW: Final = 25
_TOP: Final = 74
_WORDS: Final = "Microseconds to read an event of 300 bytes, and what the program gets for them; less is better."
_STYLE: Final = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .ground { fill: #ffffff; stroke: #d0d7de } .title { fill: #1f2328; font-size: 17px; font-weight: 600 }
  .words { fill: #59636e; font-size: 12px } .name { fill: #1f2328; font-size: 13px } .ours.name { font-weight: 600 }
  .bar { fill: #a9b5c0 } .ours.bar { fill: #0b6e99 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d } .title, .name { fill: #f0f6fc } .words { fill: #9198a1 }
    .bar { fill: #57606a } .ours.bar { fill: #39a9db }
  }
"""


def story_of(result: dict[str, Any]) -> str | None:
    """The picture as SVG; None where the run has nothing to tell."""
    case = _case(result)
    rows = case["rows"] if case is not None else []
    figures = {row["label"]: row["figures"].get("cpu_us_per_event") for row in rows}
    costs = sorted((figures[label]["median"], label) for label in _ROWS if figures.get(label) is not None)
    if len(costs) < 2:
        return None
    most = costs[-1][0]
    height = _TOP + len(costs) * _ROW + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(STORY)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="20" y="32">{escape(STORY)}</text>',
        f'<text class="words" x="20" y="53">{escape(_WORDS)}</text>',
    ]
    for number, (cost, label) in enumerate(costs):
        name, gives = _ROWS[label]
        y = _TOP + number * _ROW
        ours = " ours" if label.startswith("engine") else ""
        length = max(cost / most * _BARS, 2)
        parts += [
            f'<text class="name{ours}" x="{_BARS_FROM - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="bar{ours}" x="{_BARS_FROM}" y="{y + 2}" width="{length:.1f}" height="16" rx="2"/>',
            f'<text class="name{ours}" x="{_BARS_FROM + length + 7:.1f}" y="{y + 14}">{cost:.1f}</text>',
            f'<text class="words" x="{_BARS_FROM + length + 42:.1f}" y="{y + 14}">{escape(gives)}</text>',
        ]
    at = result["machine"]["at"][:10]
    rounds = case["rounds"] if case is not None else 0
    words = f"One stream over loopback, {at}. Figures are medians; rounds: {rounds}."
    parts += [f'<text class="words" x="20" y="{height - 14}">{escape(words)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _case(result: dict[str, Any]) -> dict[str, Any] | None:
    cases = (case for scenario in result["scenarios"] if scenario["name"] == "throughput" for case in scenario["cases"])
    return next((case for case in cases if case["name"] == "deltas"), None)
