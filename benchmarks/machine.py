"""The machine and the packages that figures depend on."""

from __future__ import annotations

import functools
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

__all__ = ["machine_facts", "package_versions"]

_PACKAGES: Final = (
    "trio-session-engine",
    "trio",
    "trio-websocket",
    "wsproto",
    "httpx",
    "httpcore",
    "cattrs",
    "openai",
    "openai-agents",
    "websockets",
    "pydantic",
)


@functools.cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that take part, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, Any]:
    """The facts that figures depend on; nothing that names the machine or its user."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load_average": load,
        "clock_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        "packages": package_versions(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as facts:
            names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
