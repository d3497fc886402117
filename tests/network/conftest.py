from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from real_proxies import RealProxy, running


@pytest.fixture(scope="session")
def proxy_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RealProxy]]:
    """Proxies by program, and by whether they want a login; each is started once."""
    directory = tmp_path_factory.mktemp("proxies")
    started: dict[tuple[str, bool], RealProxy] = {}
    blocks = []

    def get(program: str, *, login: bool = False) -> RealProxy:
        if (program, login) not in started:
            block = running(program, directory, login=login)
            started[program, login] = block.__enter__()
            blocks.append(block)
        return started[program, login]

    yield get
    for block in blocks:
        block.__exit__(None, None, None)
