"""The command line. The servers, ``simulate`` and ``record``, need nothing more; the rest needs the ``[cli]`` extra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

_EXTRA: Final = frozenset({"click", "rich"})


def main(arguments: Sequence[str]) -> int:
    """Run the command line with ``arguments`` and return the exit code.

    0 means done, 1 that something failed, 2 that the arguments could not be used, 130 that it was interrupted.
    """
    match [*arguments]:
        case ["simulate", *rest]:
            from engine.cli.simulate import main as simulate

            return simulate(rest)
        case ["record", *rest]:
            from engine.cli.record import main as record

            return record(rest)
    try:
        from engine.cli.commands import invoke
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        install = "python -m pip install 'trio-session-engine[cli]'"
        print(f"The command line, but for simulate and record, needs {missing}: {install}", file=sys.stderr)
        return 1
    return invoke(list(arguments))
