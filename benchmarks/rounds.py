"""Programs side by side: in each round each of them computes for about a third of a second, one after the other.

So a machine whose speed drifts slows all of them alike, and ratios are taken round by round.
"""

import sys
from typing import Any

import numpy as np

from benchmarks.processes import Process, ProgramError
from benchmarks.tasks import Task


def compare(
    programs: list[str], task: Task, threads: int, rounds: int, photographs: str, clock: str = ""
) -> dict[str, Any]:
    """Return quartiles of every program's seconds at one task, and those of minicnn's ratio to its peers.

    One thread is compared by the time of the processor, since others may share the core; more, by the clock on the
    wall. A peer that fails is left out, with a line that says why.
    """
    processes = []
    for program in programs:
        try:
            processes.append(Process(program, task, threads, photographs))
        except ProgramError as error:
            if program == "minicnn":
                raise
            print(f"left out: {error}", file=sys.stderr)
    figures: dict[str, list[dict[str, float]]] = {process.program: [] for process in processes}
    for number in range(rounds):
        for process in processes if number % 2 == 0 else processes[::-1]:
            figures[process.program].append(process.measure(process.repetitions))
    for process in processes:
        process.end()
    clock = clock or ("cpu" if threads == 1 else "wall")
    seconds = {program: np.array([row[clock] for row in rows]) for program, rows in figures.items()}
    peers = {
        "PyTorch": [program for program in seconds if program.startswith("torch")],
        "Keras": [program for program in seconds if program == "keras"],
    }
    ratios = {}
    for family, members in peers.items():
        if members:
            fastest = min(members, key=lambda program: np.median(seconds[program]))
            ratios[family] = {"program": fastest} | quartiles(seconds["minicnn"] / seconds[fastest])
    return {
        "title": str(task),
        "batch_size": task.batch_size,
        "threads": threads,
        "clock": clock,
        "programs": {p: quartiles(seconds[p]) | {"peak": figures[p][-1]["peak"]} for p in seconds},
        "ratios": ratios,
    }


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Return the median and the quartiles around it.

    >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    {'low': 2.0, 'median': 3.0, 'high': 4.0}
    """
    return dict(zip(("low", "median", "high"), map(float, np.percentile(values, [25, 50, 75])), strict=True))
