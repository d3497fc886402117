"""An agent that looks after notes, text files in the current folder. It reads as it likes; before it writes, it asks.

python -m docs.examples.agent "Plan my day."
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from docs.examples.offline import MODEL, server
from engine import TextDelta, ToolCall, ToolCallEnded, open_session, tool
from engine.simulator import Answer, Call, Script

TEXT = "buy bread, then call Ada"
SAID = Script(
    [
        [Call("read_note", {"name": "today"})],
        [Call("write_note", {"name": "today", "text": TEXT})],
        Answer("Your day is planned."),
    ]
)


class Notes:
    """Text files in a folder; their names are letters and digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        if not name.isalnum():
            raise ValueError("a note's name has letters and digits only")
        return self.folder / f"{name}.txt"

    @tool
    def read_note(self, name: str) -> str:
        """Read a note."""
        path = self._path(name)
        return path.read_text() if path.exists() else "(there is no such note)"

    @tool(timeout=5)
    def write_note(self, name: str, text: str) -> str:
        """Write a note, in place of what it held."""
        self._path(name).write_text(text)
        return "written"


async def approve(call: ToolCall) -> bool | str:
    """Ask the person at the terminal about what changes something."""
    if call.name == "read_note":
        return True
    question = f"{call.name} {call.raw_arguments} [y/N] "
    try:
        answer = await trio.to_thread.run_sync(input, question, abandon_on_cancel=True)
    except EOFError:
        return "no user is there to ask"
    return answer.strip().lower() == "y" or "the user would rather not"


async def main(prompt: str, folder: Path) -> None:
    """Do what the prompt says."""
    notes = Notes(folder)
    async with server(SAID) as (endpoint, dialer), open_session(endpoint, model=MODEL, dialer=dialer) as session:
        chat = session.conversation("You look after notes.", [notes.read_note, notes.write_note], approve=approve)
        async with chat.stream(prompt) as reply:
            async for event in reply:
                match event:
                    case TextDelta(delta=words):
                        print(words, end="", flush=True)
                    case ToolCallEnded(block=call):
                        print(f"· {call.name}")
        print()


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if sys.argv[1:] else "Plan my day.", Path.cwd())
