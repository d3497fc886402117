"""Draws the pictures of these pages: ``python -m docs.pictures``. A test compares what it draws with what is there.

Where a picture shows something that the code has as a value, it is drawn from the code's value.
"""

from __future__ import annotations

import ast
import functools
import math
import re
import tomllib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final

from engine import OnCancel
from engine.connections.link_states import TRANSITIONS as LINK_TRANSITIONS
from engine.protocol.exchange_states import TRANSITIONS as EXCHANGE_TRANSITIONS
from engine.protocol.injections import INJECTION_TRANSITIONS
from engine.protocol.labels import LABEL_TRANSITIONS
from engine.protocol.states import Transitions
from engine.protocol.steers import STEER_TRANSITIONS
from engine.settings.timeouts import DEFAULT_TIMEOUTS
from engine.turns.states import TURN_TRANSITIONS, WORK_TRANSITIONS

PICTURES: Final = Path(__file__).with_name("pictures")

INK: Final = "#1c2b36"
FAINT: Final = "#6b7c88"
LINE: Final = "#b9c4cc"
PAPER: Final = "#fbfcfd"
FIRST: Final = "#0b6e4f"
SECOND: Final = "#c2571a"
THIRD: Final = "#2f5fb3"
GREY: Final = "#e6ebef"


class Drawing:
    """An SVG that grows by shapes, on paper of its own, so that it can be read on light and dark pages."""

    def __init__(self, width: int, height: int, title: str) -> None:
        root = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}">'
        )
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker></defs>'
        )
        self._shapes = [
            root,
            f"<title>{escape(title)}</title>",
            tip,
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str = GREY, stroke: str = "none", dash: str = ""
    ) -> None:
        """A rectangle with round corners."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.5"{dashed}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        fill: str = INK,
        size: int = 14,
        anchor: str = "start",
        code: bool = False,
    ) -> None:
        """A line of text."""
        family = ' font-family="ui-monospace, monospace"' if code else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" text-anchor="{anchor}"{family}>'
            f"{escape(text)}</text>"
        )

    def line(self, *points: tuple[float, float], stroke: str = LINE, dash: str = "", tip: bool = False) -> None:
        """A line through points."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        marker = ' marker-end="url(#tip)"' if tip else ""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.6"{dashed}{marker}/>'
        )

    def path(self, d: str, *, stroke: str = LINE, fill: str = "none", dash: str = "", tip: bool = False) -> None:
        """Any path."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        marker = ' marker-end="url(#tip)"' if tip else ""
        self._shapes.append(f'<path d="{d}" fill="{fill}" stroke="{stroke}" stroke-width="1.6"{dashed}{marker}/>')

    def svg(self) -> str:
        """The whole."""
        return "\n".join([*self._shapes, "</svg>", ""])


def story() -> str:
    """One socket, three turns, and what comes too late."""
    drawing = Drawing(760, 290, "One socket, three turns: the second is cut short, and its late events reach no turn")
    drawing.text(24, 34, "One WebSocket", size=16)
    drawing.text(736, 34, "time", fill=FAINT, anchor="end")
    drawing.line((164, 29), (690, 29), stroke=FAINT, tip=True)
    drawing.box(24, 52, 712, 44, fill=GREY)
    events = [
        (FIRST, range(40, 200, 20)),
        (SECOND, range(262, 342, 20)),
        (SECOND, range(366, 466, 20)),
        (THIRD, range(548, 708, 20)),
    ]
    for number, (colour, places) in enumerate(events):
        for x in places:
            drawing.box(x, 66, 14, 16, fill=PAPER if number == 2 else colour, stroke=colour)
    for x, width, colour, name, code in (
        (32, 172, FIRST, "turn 1", "await session.ask(…)"),
        (254, 96, SECOND, "turn 2", "move_on_after(2)"),
        (540, 176, THIRD, "turn 3", "await session.ask(…)"),
    ):
        drawing.box(x, 120, width, 34, fill=PAPER, stroke=colour, dash="5 4" if colour == SECOND else "")
        drawing.text(x + width / 2, 142, name, fill=colour, anchor="middle")
        drawing.text(x, 176, code, size=12, fill=FAINT, code=True)
    drawing.line((350, 44), (350, 160), stroke=SECOND, dash="4 4")
    drawing.text(358, 140, "left, at once", fill=SECOND, size=12)
    drawing.path("M450 98 C470 150 470 180 441 208", stroke=SECOND, dash="3 4", tip=True)
    drawing.path("M408 216 L414 262 L466 262 L472 216 z", stroke=FAINT, fill=PAPER)
    drawing.line((402, 216), (478, 216), stroke=FAINT)
    for x, y in ((420, 240), (436, 244), (450, 238)):
        drawing.box(x, y, 12, 14, fill=PAPER, stroke=SECOND)
    drawing.text(490, 240, "late events of turn 2:")
    drawing.text(490, 258, "dropped, never seen by turn 3", fill=FAINT)
    drawing.text(32, 200, "its own answer", fill=FIRST)
    drawing.text(254, 200, "what had come is kept", fill=SECOND)
    drawing.text(540, 200, "its own answer", fill=THIRD)
    return drawing.svg()


def nurseries() -> str:
    """Who owns which task."""
    drawing = Drawing(760, 340, "The tree of nurseries: engine, sessions, connections, turns")
    rows = [
        (24, 20, 330, "async with open_engine(…)", "the engine's nursery: ends with the block", FIRST),
        (64, 84, 330, "session “user-42”", "ends when it is released", FIRST),
        (104, 148, 330, "connection", "one task: dials, serves, closes its socket", SECOND),
        (144, 212, 330, "reader · pump", "bytes in, bytes out", SECOND),
        (104, 276, 330, "turn", "its scope carries its budgets, no other turn's", THIRD),
    ]
    for x, y, width, name, what, colour in rows:
        drawing.box(x, y, width, 46, fill=PAPER, stroke=colour)
        drawing.text(x + 12, y + 20, name, fill=colour, code=name.startswith("async"))
        drawing.text(x + 12, y + 37, what, size=12, fill=FAINT)
    for x, top, y in ((44, 66, 107), (84, 130, 171), (124, 194, 235), (84, 130, 299)):
        drawing.line((x, top), (x, y), (x + 20, y))
    drawing.text(470, 40, "Leaving ends all below, within")
    drawing.text(470, 60, "Timeouts.close, whatever the peer does.", fill=FAINT)
    drawing.text(510, 270, "Your task is in none of these:")
    drawing.text(510, 290, "it awaits events, and leaves", fill=FAINT)
    drawing.text(510, 308, "whenever it likes.", fill=FAINT)
    drawing.line((502, 290), (448, 298), stroke=FAINT, dash="4 4", tip=True)
    return drawing.svg()


def _seconds(name: str) -> str:
    value = getattr(DEFAULT_TIMEOUTS, name)
    limited = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{name} {value:g} s" if limited else f"{name}, no limit"


def timeline() -> str:
    """The life of a turn, and the budget that runs in each part of it."""
    drawing = Drawing(760, 250, "The life of a turn, and which budget runs when")
    moments = [(40, "enter"), (160, "granted"), (280, "open"), (390, "sent"), (530, "first event"), (690, "ended")]
    drawing.line((40, 70), (720, 70), stroke=INK, tip=True)
    for x, name in moments:
        drawing.line((x, 62), (x, 78), stroke=INK)
        drawing.text(x, 50, name, anchor="middle")
    bars = [
        (40, 160, 96, "queue", FIRST),
        (160, 280, 96, "connect", SECOND),
        (280, 390, 96, "send", SECOND),
        (390, 530, 96, "first_event", SECOND),
        (530, 690, 96, "idle", SECOND),
        (160, 530, 140, "start", THIRD),
        (40, 690, 184, "turn", THIRD),
    ]
    for start, stop, y, name, colour in bars:
        drawing.box(start + 2, y, stop - start - 4, 30, fill=PAPER, stroke=colour)
        drawing.text((start + stop) / 2, y + 20, _seconds(name), size=12, fill=colour, anchor="middle", code=True)
    drawing.text(538, 160, "start: all attempts together", size=12, fill=FAINT)
    drawing.text(538, 142, "idle: between two events", size=12, fill=FAINT)
    drawing.text(
        40,
        236,
        "Timeouts, with its defaults. The earliest that runs out names the phase of the error.",
        size=12,
        fill=FAINT,
    )
    return drawing.svg()


_POLICIES: Final = {
    OnCancel.CLOSE: ("closed at once", "over another connection"),
    OnCancel.DRAIN: ("read and dropped, within “drain”", "waits, then over the same"),
    OnCancel.NEW_LANE: ("left to itself on its lane", "at once, on a fresh lane of it"),
}


def policies() -> str:
    """What becomes of the connection of a turn that is left early."""
    drawing = Drawing(760, 92 + 84 * len(OnCancel), "What becomes of a connection whose turn is left early")
    drawing.text(24, 34, "The turn is left here", fill=SECOND)
    drawing.line((250, 44), (250, 78 + 84 * len(OnCancel)), stroke=SECOND, dash="4 4")
    drawing.text(250, 34, "▼", fill=SECOND, anchor="middle")
    for number, policy in enumerate(OnCancel):
        rest, following = _POLICIES[policy]
        y = 64 + 84 * number
        drawing.text(24, y + 22, f"OnCancel.{policy.name}", size=13, code=True)
        drawing.box(170, y, 80, 22, fill=SECOND)
        drawing.text(210, y + 16, "turn", fill=PAPER, size=12, anchor="middle")
        if policy is OnCancel.CLOSE:
            drawing.line((254, y + 3), (270, y + 19), stroke=SECOND)
            drawing.line((270, y + 3), (254, y + 19), stroke=SECOND)
            drawing.box(290, y + 28, 150, 22, fill=THIRD)
            drawing.text(365, y + 44, "next turn", fill=PAPER, size=12, anchor="middle")
        elif policy is OnCancel.DRAIN:
            drawing.box(250, y, 110, 22, fill=PAPER, stroke=SECOND, dash="4 4")
            drawing.box(362, y, 150, 22, fill=THIRD)
            drawing.text(437, y + 16, "next turn", fill=PAPER, size=12, anchor="middle")
        else:
            drawing.box(250, y, 190, 22, fill=PAPER, stroke=SECOND, dash="4 4")
            drawing.box(254, y + 28, 150, 22, fill=THIRD)
            drawing.text(329, y + 44, "next turn", fill=PAPER, size=12, anchor="middle")
        drawing.text(540, y + 16, rest, size=12, fill=SECOND)
        drawing.text(540, y + 40, following, size=12, fill=THIRD)
    return drawing.svg()


def lanes() -> str:
    """Lanes as tracks over one socket, two of them forks of the first."""
    title = (
        "Lanes as tracks over one socket: two forks continue a plan, which goes on when the server has begun with both"
    )
    drawing = Drawing(760, 330, title)
    drawing.text(24, 34, "One WebSocket, frames of three lanes", size=16)
    drawing.text(736, 34, "time", fill=FAINT, anchor="end")
    drawing.line((360, 29), (690, 29), stroke=FAINT, tip=True)
    drawing.box(24, 48, 712, 40, fill=GREY)
    plan, cost, risk = (FIRST, range(112, 216, 17)), (SECOND, range(290, 480, 38)), (THIRD, range(309, 500, 38))
    for colour, places in (plan, cost, risk, (FIRST, range(564, 700, 17))):
        for x in places:
            drawing.box(x, 60, 13, 16, fill=colour, stroke=colour)
    for y, colour, name in ((136, FIRST, "plan"), (200, SECOND, "cost"), (264, THIRD, "risk")):
        drawing.text(24, y + 5, name, fill=colour, code=True)
        drawing.line((96, y), (736, y), stroke=LINE)
    for x, y, width, colour, text in (
        (104, 136, 122, FIRST, "a plan"),
        (556, 136, 154, FIRST, "goes on"),
        (266, 200, 228, SECOND, "what does it cost?"),
        (266, 264, 246, THIRD, "what can go wrong?"),
    ):
        drawing.box(x, y - 16, width, 32, fill=PAPER, stroke=colour)
        drawing.text(x + width / 2, y + 5, text, fill=colour, size=12, anchor="middle")
    drawing.path("M230 140 C250 150 240 196 262 198", stroke=SECOND, tip=True)
    drawing.path("M230 140 C250 160 236 258 262 262", stroke=THIRD, tip=True)
    drawing.text(100, 178, 'plan.fork("cost")', size=12, fill=FAINT, code=True)
    drawing.box(266, 129, 42, 14, fill=FAINT)
    drawing.text(266, 106, "the barrier of the forks: the plan's next turn", size=12, fill=FAINT)
    drawing.text(266, 122, "waits until the server has begun with both", size=12, fill=FAINT)
    drawing.line((308, 144), (308, 280), stroke=FAINT, dash="3 4")
    drawing.path("M498 198 C530 196 520 146 552 140", stroke=FAINT, tip=True)
    drawing.path("M516 262 C540 258 524 152 552 144", stroke=FAINT, tip=True)
    drawing.text(566, 178, "the critics' answers", size=12, fill=FAINT)
    drawing.text(
        24, 312, "Each lane serves its turns one after the other, beside those of other lanes.", size=12, fill=FAINT
    )
    return drawing.svg()


def steering() -> str:
    """The life of a steer, in the three ways in which it may be applied."""
    title = (
        "The life of a steer: sent, accepted, and applied by a successor of its own accord, "
        "or by the request that brings the outputs of calls"
    )
    drawing = Drawing(760, 396, title)
    drawing.text(24, 34, "Steering: three ways in which a response takes further input", size=16)
    drawing.text(736, 34, "time", fill=FAINT, anchor="end")
    drawing.line((640, 29), (696, 29), stroke=FAINT, tip=True)
    for y, name, first, end, second in (
        (96, "it interrupts", 262, "incomplete (steered)", 340),
        (200, "it follows", 330, "completed", 408),
        (304, "it waits", 330, "completed, pending", 600),
    ):
        waits = name == "it waits"
        drawing.text(24, y + 5, name, fill=INK)
        drawing.line((120, y), (736, y), stroke=LINE)
        drawing.box(128, y - 16, first - 128, 32, fill=PAPER, stroke=FIRST)
        drawing.text(
            (128 + first) / 2, y + 5, "calls a tool" if waits else "response 1", fill=FIRST, size=12, anchor="middle"
        )
        drawing.line((180, y - 40), (180, y - 18), stroke=SECOND, tip=True)
        drawing.text(186, y - 26, "steer", fill=SECOND, size=12, code=True)
        drawing.line((232, y - 18), (232, y - 40), stroke=FAINT, tip=True)
        drawing.text(238, y - 26, "accepted", fill=FAINT, size=12)
        drawing.text(first + 4, y + 34, end, fill=FAINT, size=12, anchor="end")
        drawing.box(second, y - 16, 736 - second - 8, 32, fill=PAPER, stroke=SECOND)
        drawing.text((second + 728) / 2, y + 5, "with the input", fill=SECOND, size=12, anchor="middle")
        drawing.path(f"M{first + 2} {y} L{second - 4} {y}", stroke=FAINT, tip=True)
        if waits:
            drawing.box(372, y - 16, 92, 32, fill=PAPER, stroke=THIRD)
            drawing.text(418, y + 5, "your tool", fill=THIRD, size=12, anchor="middle")
            drawing.text(590, y + 34, "the next request has the outputs only", fill=FAINT, size=12, anchor="middle")
        else:
            drawing.text(second, y - 26, "TurnContinued", fill=SECOND, size=12, code=True)
            drawing.text(second, y + 34, "created: applied", fill=FAINT, size=12)
    drawing.text(
        24, 380, "Until the input is applied, waits or comes back, the turn is not at its end.", size=12, fill=FAINT
    )
    return drawing.svg()


def machine(title: str, transitions: Transitions[Any]) -> str:
    """The states of one object: from each, where it can go, and on what."""
    rows = sum(max(len(following), 1) for following in transitions.values())
    drawing = Drawing(760, 52 + 34 * rows, title)
    drawing.text(24, 30, title, size=16)
    y = 46
    for number, (state, following) in enumerate(transitions.items()):
        colour = FIRST if not number else SECOND if following else FAINT
        height = 34 * max(len(following), 1) - 8
        drawing.box(24, y, 170, height, fill=PAPER, stroke=colour)
        drawing.text(109, y + height / 2 + 5, state.name, fill=colour, anchor="middle", code=True)
        for place, (after, why) in enumerate(following.items()):
            middle = y + 34 * place + 13
            drawing.text(206, middle - 3, why, size=12, fill=FAINT)
            drawing.line((194, middle + 3), (576, middle + 3), stroke=FAINT, tip=True)
            drawing.box(580, middle - 13, 156, 26, fill=GREY)
            drawing.text(658, middle + 5, after.name, anchor="middle", code=True)
        y += 34 * max(len(following), 1)
    return drawing.svg()


def column() -> str:
    """The layers of the library, as the contract on its imports has them."""
    settings = tomllib.loads((PICTURES.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    drawing = Drawing(760, 60 + 32 * len(layers), "One column: imports go down only")
    drawing.text(24, 30, "imports go down only", fill=FAINT)
    for number, layer in enumerate(layers):
        y = 44 + 32 * number
        names = " · ".join(name.strip(" ()") for name in layer.split(":"))
        drawing.box(24, y, 220, 26, fill=PAPER, stroke=FIRST)
        drawing.text(134, y + 18, names, anchor="middle", code=True)
        drawing.text(260, y + 18, _told(layer.split(":")[0].strip(" ()")), size=12, fill=FAINT)
    return drawing.svg()


def _told(name: str) -> str:
    """The first words that a module, or a folder of them, says of itself."""
    place = PICTURES.parent.parent / "engine" / name
    module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    said = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    words = re.split(r"[.;] |\.$", " ".join(said.split()))[0].replace("`", "")
    return words if len(words) <= 76 else f"{words[:75].rsplit(' ', 1)[0]} …"


DRAWN: Final[dict[str, Callable[[], str]]] = {
    "column.svg": column,
    "states-turn.svg": functools.partial(machine, "Turn: its caller's block", TURN_TRANSITIONS),
    "states-work.svg": functools.partial(machine, "Turn: its work", WORK_TRANSITIONS),
    "states-link.svg": functools.partial(machine, "WebSocketLink", LINK_TRANSITIONS),
    "states-exchange.svg": functools.partial(machine, "Exchange", EXCHANGE_TRANSITIONS),
    "story.svg": story,
    "nurseries.svg": nurseries,
    "timeline.svg": timeline,
    "policies.svg": policies,
    "lanes.svg": lanes,
    "steering.svg": steering,
    "states-injection.svg": functools.partial(machine, "Injection", INJECTION_TRANSITIONS),
    "states-labels.svg": functools.partial(machine, "Labels", LABEL_TRANSITIONS),
    "states-steer.svg": functools.partial(machine, "Steer", STEER_TRANSITIONS),
}


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        (PICTURES / name).write_text(draw(), encoding="utf-8")
