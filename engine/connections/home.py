"""The run of Trio that an engine lives in: nothing of it can be used from anywhere else."""

from __future__ import annotations

import trio

__all__ = ["Home"]


class Home:
    """The run of Trio in which it was made.

    Raises:
        RuntimeError: Trio is not running here.
    """

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = _here()

    def check(self) -> None:
        """Refuse what comes from another run of Trio, another thread or another event loop.

        Waiting there would never end: what wakes a task is a run's own.

        Raises:
            RuntimeError: this is not that run.
        """
        if _here() is not self._token:
            raise RuntimeError(
                "this engine lives in another run of Trio: call it from there, with trio.from_thread, "
                "or use engine.blocking, which is safe from every thread"
            )


def _here() -> trio.lowlevel.TrioToken:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        pass
    raise RuntimeError(
        "an engine runs under Trio, and Trio is not running here: under asyncio use engine.aio, without a loop "
        "engine.blocking, from a thread of Trio's trio.from_thread"
    )
