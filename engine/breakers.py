"""The breakers of one engine: one for every server and credential that its sessions have gone to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import trio

from engine.options import ApiKey, Endpoint
from engine.protocol.breaker import Breaker, BreakerState
from engine.retry import RetryPolicy

__all__ = ["Breaker", "BreakerState", "Breakers"]


class Breakers(Mapping[str, Breaker]):
    """Breakers by server: its host, its port where that is not the default, and its path.

    Where one server is used with several keys, the second and later ones have a number behind them: ``… #2``.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._breakers: dict[str, Breaker] = {}
        self._names: list[tuple[str, ApiKey, str]] = []  # no dict: a function that returns keys may have no hash

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
            others = sum(1 for each in self._breakers.values() if each.server == server)
            name = server if not others else f"{server} #{others + 1}"
            self._names.append((place, key, name))
            threshold, cooldown = self._policy.number("breaker_threshold"), self._policy.breaker_cooldown
            assert isinstance(cooldown, (int, float))
            self._breakers[name] = Breaker(
                server, threshold=threshold, cooldown=float(cooldown), clock=trio.current_time
            )
        return self._breakers[name]

    def reset(self) -> None:
        """Forget everything about every server: let everybody try."""
        for breaker in self._breakers.values():
            breaker.reset()
