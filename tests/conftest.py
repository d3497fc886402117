from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("invariants")

for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
    # The proxies of the machine that tests are not on the way to servers on it; subprocesses inherit this too.
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
