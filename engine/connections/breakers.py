"""The breakers of one engine: one for every server and credential that its sessions have gone to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import trio

from engine.protocol.breaker import Breaker, BreakerState
from engine.settings.endpoint import ApiKey, Endpoint
from engine.settings.retry import ResolvedRetry

__all__ = ["Breaker", "BreakerState", "Breakers"]

_KEPT: Final = 16


class Breakers(Mapping[str, Breaker]):
    """Breakers by server: its host, its port where that is not the default, and its path.

    Where one server is used with several keys, the second and later ones have a number behind them: ``… #2``. Of those
    that an engine no longer goes to, the newest are kept.
    """

    def __init__(self, policy: ResolvedRetry) -> None:
        self._policy = policy
        self._breakers: dict[str, Breaker] = {}
        self._names: list[tuple[str, ApiKey, str]] = []  # no dict: a function that returns keys may have no hash
        self._made: Counter[str] = Counter()

    def __getitem__(self, server: str) -> Breaker:
        return self._breakers[server]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._breakers))

    def __len__(self) -> int:
        return len(self._breakers)

    def of(self, endpoint: Endpoint) -> Breaker:
        """Return the breaker of an endpoint and its key."""
        url = endpoint.websocket
        server = f"{url.netloc}{url.path}"
        place, key = f"{url.scheme}://{server}?{url.query}", endpoint.api_key
        name = next((name for where, whose, name in self._names if where == place and whose == key), None)
        if name is None:
            self._made[server] += 1
            name = server if self._made[server] == 1 else f"{server} #{self._made[server]}"
            self._names.append((place, key, name))
            for *_, oldest in self._names[:-_KEPT]:
                del self._breakers[oldest]
            del self._names[:-_KEPT]
            threshold, cooldown = self._policy.breaker_threshold, self._policy.breaker_cooldown
            assert isinstance(cooldown, (int, float))
            self._breakers[name] = Breaker(
                server, threshold=threshold, cooldown=float(cooldown), clock=trio.current_time
            )
        return self._breakers[name]

    def reset(self) -> None:
        """Forget everything about every server: let every turn try."""
        for breaker in self._breakers.values():
            breaker.reset()
