"""Each stage's time beside its floor: what this machine needs at least for its operations, or to move its bytes.

The floor counts dense operations and every byte once, at the rates measured here: products and sums of vectors that
stay in registers, and a copy of arrays that no cache holds. A stage may be below it: backward leaves dead windows out,
and what it reads may still be in a cache.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.processes import answer
from benchmarks.tasks import NETWORKS, Task

STEPS = 30
OPERATIONS = 2**34
COPIED = 2**28  # bytes
TIMES = 7  # of which the fastest counts


def floors(threads: int, photographs: str) -> dict[str, Any]:
    """Return the peaks of so many threads and a row for each stage and way, measured in a process of their own."""
    words = ["benchmarks.floors", threads, photographs]
    return answer("the measurement of floors", words, {"OMP_NUM_THREADS": str(threads)})


def fastest(task: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some calls."""
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _products(threads: int) -> Callable[[], object]:
    """Return what does `OPERATIONS` multiplications and additions with so many threads, on 10 vectors in registers."""
    from minicnn.kernels import buffers
    from minicnn.kernels.compiler import LANES, jit_apart

    L1, L2, L3, L4, L5, L6, L7, L8, L9 = (np.uint64(LANES * i) for i in range(1, 10))

    @jit_apart
    def kernel(sums, a, b, times):
        for _ in range(times):
            for f in range(L1):
                sums[f] = sums[f] * a + b
                sums[f + L1] = sums[f + L1] * a + b
                sums[f + L2] = sums[f + L2] * a + b
                sums[f + L3] = sums[f + L3] * a + b
                sums[f + L4] = sums[f + L4] * a + b
                sums[f + L5] = sums[f + L5] * a + b
                sums[f + L6] = sums[f + L6] * a + b
                sums[f + L7] = sums[f + L7] * a + b
                sums[f + L8] = sums[f + L8] * a + b
                sums[f + L9] = sums[f + L9] * a + b

    times = OPERATIONS // threads // (2 * 10 * LANES)
    half, sums = np.float32(0.5), [buffers.zeros((10 * LANES,), np.float32) for _ in range(threads)]
    kernel(sums[0], half, half, 1)  # compiled
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda own: kernel(own, half, half, times), sums))


def _copy(threads: int) -> Callable[[], object]:
    """Return what copies `COPIED` bytes with so many threads."""
    source = np.ones((threads, COPIED // threads), np.uint8)
    target = np.zeros_like(source)  # written once, so that it has its pages
    target[:] = source
    pool = ThreadPoolExecutor(threads)  # NumPy copies without Python's lock
    return lambda: list(pool.map(np.copyto, target, source))


def main() -> None:
    """Measure the peaks, then every stage of both networks, and print them as JSON."""
    import minicnn
    from benchmarks.images import cuts
    from benchmarks.programs import network
    from minicnn import profiler

    threads = int(sys.argv[1])
    flops = OPERATIONS / fastest(_products(threads))
    bandwidth = 2 * COPIED / fastest(_copy(threads))

    minicnn.set_num_threads(threads)
    minicnn.utils.set_random_seed(0)
    images, labels = cuts(np.load(sys.argv[2]), 64, 32)
    rows = []
    for name in NETWORKS:
        model = network(minicnn, Task("train", name))
        model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9))
        for _ in range(20):  # a network that learns has other live windows than one at its random start
            model.train_on_batch(images, labels)
        for row in profiler.profile(model, images, labels, STEPS).rows:
            for way in ("forward", "backward"):
                seconds, operations, moved = (getattr(row, way + part) for part in ("", "_flops", "_bytes"))
                if moved:
                    rows.append(
                        {"network": name, "stage": row.name, "way": way, "seconds": seconds, "live": row.live}
                        | {"flops": operations, "bytes": moved, "floor": max(operations / flops, moved / bandwidth)}
                    )
    print(json.dumps({"threads": threads, "flops": flops, "bandwidth": bandwidth, "rows": rows}))


if __name__ == "__main__":
    main()
