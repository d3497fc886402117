"""``python -m engine``: the command line, see `engine.cli`."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        # Imported here so that an interrupt during these imports ends quietly too.
        from engine.cli import main as run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    # All that is left is the interpreter's own shutdown, which would answer an interrupt with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
