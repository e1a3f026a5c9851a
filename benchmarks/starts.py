"""How long a person waits for the first training step of Model S, from the import on, in a fresh process.

minicnn is started with no compiled kernels on disk and with all of them; PyTorch and Keras as they are installed.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import answer
from benchmarks.tasks import Task

TIMES = 3
IMPORTS = {"minicnn": "minicnn", "torch": "torch", "keras": "keras"}


def starts(programs: list[str], threads: int, photographs: str) -> list[dict[str, Any]]:
    """Return medians of the seconds of the import, and of the import and the first step."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cold = [_start("minicnn", threads, photographs, Path(folder) / str(i)) for i in range(TIMES)]
        rows.append({"program": "minicnn, no compiled kernels"} | _medians(cold))
        for program in programs:
            if program in IMPORTS:  # the first start, which reads the libraries from the disk, is not counted
                runs = [_start(program, threads, photographs, Path(folder) / "0") for _ in range(1 + TIMES)]
                rows.append({"program": program} | _medians(runs[1:]))
    return rows


def _start(program: str, threads: int, photographs: str, cache: Path) -> dict[str, float]:
    folders = {"MINICNN_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": str(cache)}
    return answer(program, ["benchmarks.starts", program, threads, photographs], folders)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in ("import", "step")}


def main() -> None:
    """Import the program and do one training step; print the seconds until then."""
    program, threads, photographs = sys.argv[1:]
    started = time.perf_counter()
    __import__(IMPORTS[program])
    imported = time.perf_counter() - started

    import numpy as np

    from benchmarks.images import cuts
    from benchmarks.programs import prepare

    prepare(program, Task("train", "Model S"), *cuts(np.load(photographs), 64, 32), int(threads))()
    print(json.dumps({"import": imported, "step": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
