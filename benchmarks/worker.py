"""One program in a process of its own: it prepares a task, then repeats it as often as each line of its input says.

python -m benchmarks.worker PROGRAM TASK THREADS PHOTOGRAPHS, where TASK is JSON and PHOTOGRAPHS an .npy file, since the
library that carries them would count as memory of the program.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.images import cuts
from benchmarks.programs import prepare
from benchmarks.tasks import Task

WARM_UP = 20  # steps: everything is compiled, and the network is no longer at its random start


def peak_memory() -> float:
    """Return the most memory that this process has held, in MB.

    Linux starts the child's ru_maxrss at its parent's, so its own high-water mark is taken where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Prepare, say so, then answer each number of repetitions on the input with seconds for one of them, as JSON."""
    program, words, threads, photographs = sys.argv[1:]
    task = Task(*json.loads(words))
    step = prepare(program, task, *cuts(np.load(photographs), task.batch_size, task.size), int(threads))
    for _ in range(WARM_UP):
        step()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        repetitions = int(line)
        step()  # the caches were the other programs'
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repetitions):
            step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer = {"wall": wall / repetitions, "cpu": cpu / repetitions, "peak": peak_memory()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
