"""Measure training on several ranks of this machine, and model it on others: python -m benchmarks.ranks [--json FILE].

Each rank has one thread. Measured are a training step at a batch of 64 for all, on 1, 2 and 4 ranks; the Allreduce of
that step alone; and, on one rank, steps with smaller batches, from which the model takes what divides among ranks and
what does not:

    t(n) = fixed + each * N / n + 2 * (n - 1) / n * bytes / bandwidth + 2 * log2(n) * latency
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from benchmarks.tables import table
from minicnn.arguments import Parser, at_least
from minicnn.errors import plain_exit
from minicnn.files import replacing

NETWORKS = ("Model S", "Model M")
COUNTS = (1, 2, 4)
BATCH = 64


class Link(NamedTuple):
    """A network between ranks: bytes and seconds."""

    bandwidth: float
    latency: float


LINKS = {"1 Gbit/s": Link(125e6, 50e-6), "10 Gbit/s": Link(1.25e9, 20e-6), "100 Gbit/s": Link(12.5e9, 2e-6)}


def step_time(n: int, fixed: float, each: float, size: int, link: Link, batch: int = BATCH) -> float:
    """Return the seconds of a step on n ranks.

    >>> link = Link(bandwidth=1e9, latency=0.0)
    >>> step_time(1, 0.001, 0.001, 4_000_000, link, batch=64)
    0.065
    >>> round(step_time(2, 0.001, 0.001, 4_000_000, link, batch=64), 6)
    0.037
    """
    wire = 2 * (n - 1) / n * size / link.bandwidth + 2 * math.log2(n) * link.latency
    return fixed + each * -(-batch // n) + wire


def worth(fixed: float, each: float, size: int, link: Link, batch: int = BATCH) -> int:
    """Return the largest number of ranks of which at least half is used: that are n / 2 times as fast as one.

    >>> worth(0.0, 0.001, 4, Link(1e12, 0.0), batch=64)
    64
    >>> worth(0.0, 0.001, 4_000_000_000, Link(1e6, 0.0), batch=64)
    1
    """
    alone = step_time(1, fixed, each, size, link, batch)
    return max(n for n in range(1, batch + 1) if 2 * alone >= n * step_time(n, fixed, each, size, link, batch))


def main() -> None:
    """Measure, and print tables."""
    parser = Parser(prog="python -m benchmarks.ranks", description="Measure training on several ranks.")
    parser.add_argument("--steps", type=at_least(2), default=40, help="that are measured (40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--worker", nargs=2, metavar=("NETWORK", "BATCH"), help="what each rank does: for this program")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], int(arguments.worker[1]), arguments.steps)
        return
    results: dict[str, Any] = {"machine": machine(), "networks": {}}
    for name in NETWORKS:
        found = results["networks"][name] = measure(name, arguments.steps)
        print(f"\n## {name}, batch {BATCH}, one thread a rank\n\n{measured(found)}\n\n{modelled(found)}", flush=True)
        if arguments.json:
            with replacing(arguments.json) as temporary:
                temporary.write_text(json.dumps(results, indent=1) + "\n")


def measure(name: str, steps: int) -> dict[str, Any]:
    """Return the medians of a network's steps, and the line through those with smaller batches."""
    ranks = {str(n): launch(n, name, BATCH, steps) for n in COUNTS}
    small = {str(batch): launch(1, name, batch, steps)["step"] for batch in (16, 32)} | {str(BATCH): ranks["1"]["step"]}
    each, fixed = np.polyfit([int(batch) for batch in small], list(small.values()), 1).tolist()
    return {"ranks": ranks, "batches": small, "each": each, "fixed": max(fixed, 0.0), "bytes": ranks["1"]["bytes"]}


def launch(n: int, name: str, batch: int, steps: int) -> dict[str, float]:
    """Return what rank 0 of n measured."""
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun")
    if mpirun is None:
        raise SystemExit("error: there is no mpirun. Install an MPI library: pip install mpich")
    words = [mpirun, "-n", str(n), sys.executable, "-m", "benchmarks.ranks", "--steps", str(steps)]
    found = subprocess.run([*words, "--worker", name, str(batch)], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"error: {n} ranks ended: {(found.stderr.strip() or 'no error was printed').splitlines()[-1]}")
    return json.loads(found.stdout.splitlines()[-1])


def work(name: str, batch: int, steps: int) -> None:
    """Train on this rank; rank 0 prints the median seconds of a step and of its Allreduce, and the bytes of that."""
    import minicnn
    from benchmarks.images import cuts, photographs
    from benchmarks.programs import network, optimizer
    from benchmarks.tasks import Task
    from minicnn import ranks

    ranks.wait()
    minicnn.set_num_threads(1)
    minicnn.utils.set_random_seed(0)
    task = Task("train", name)
    model = network(minicnn, task)
    model.compile(optimizer(minicnn, task), metrics=["accuracy"])
    images, labels = cuts(photographs(), batch, 32)
    flat = np.zeros(sum(w.size for w in model.weights()) + 2 * batch + 1, np.float32)
    times: dict[str, list[float]] = {"step": [], "allreduce": []}
    for step in range(steps + 5):
        for what, call in (
            ("step", lambda: model.train_on_batch(images, labels)),
            ("allreduce", lambda: ranks.add(flat)),
        ):
            ranks.wait()
            started = time.perf_counter()
            call()
            if step >= 5:  # the first compile
                times[what].append(time.perf_counter() - started)
    if ranks.rank() == 0:
        print(
            json.dumps({what: statistics.median(seconds) for what, seconds in times.items()} | {"bytes": flat.nbytes})
        )


def measured(found: dict[str, Any]) -> str:
    """Return the table of the steps that were measured, as Markdown."""
    rows, alone = [], found["ranks"]["1"]["step"]
    for n, row in found["ranks"].items():
        wire = 2 * (int(n) - 1) / int(n) * found["bytes"] / 1e6
        speed = f"{alone / row['step']:.2f}"
        rows.append([n, f"{row['step'] * 1e3:.1f}", speed, f"{row['allreduce'] * 1e3:.2f}", f"{wire:.2f}"])
    return table(["ranks", "step, ms", "times as fast", "Allreduce alone, ms", "MB sent by each rank"], rows)


def modelled(found: dict[str, Any]) -> str:
    """Return the table of the model, as Markdown: the step on some numbers of ranks, and how many are worth it."""
    fixed, each, size = found["fixed"], found["each"], found["bytes"]
    counts = (2, 4, 8, 16)
    rows = []
    for name, link in LINKS.items():
        times = [step_time(n, fixed, each, size, link) for n in counts]
        n = worth(fixed, each, size, link)
        rows.append([name, *(f"{seconds * 1e3:.1f}" for seconds in times), f"{n} ranks"])
    return table(["network", *(f"{n} ranks, ms" for n in counts), "half used up to"], rows)


if __name__ == "__main__":
    with plain_exit():
        main()
