"""Steps of scripts that several tests share."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from engine.simulator import Step

__all__ = ["Steered"]


@attrs.frozen
class Steered(Step):
    """Waits until the response was steered so many times."""

    times: int = 1

    async def perform(self, stage: Any) -> None:
        while len(stage.steers) < self.times:  # noqa: ASYNC110 - the simulator tells nobody of a steer
            await trio.sleep(0.005)
