"""What the figures belong to: the machine and the versions of the programs."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import minicnn

PACKAGES = ("minicnn", "numpy", "numba", "torch", "keras", "tensorflow", "tensorflow-cpu")


def machine() -> dict[str, Any]:
    """Return processor, cores, system and Python."""
    return {
        "processor": processor(),
        "cores": minicnn.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
