"""Where a measurement was made: processor, cores, operating system, Python, compiler, date."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def processor() -> str:
    """The CPU's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_machine() -> dict[str, str]:
    """What a reader needs to judge the figures, name by name."""
    from fastmlp import core

    info = core.info()
    return {
        "processor": f"{processor()}, {os.cpu_count()} CPUs",
        "instruction set": info["isa"],
        "compiler": info["compiler"],
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
