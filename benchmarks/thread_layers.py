"""Which threads? The forward pass of Model S's stages with Numba's layers and with this package's own threads.

python -m benchmarks.thread_layers [--rounds 15]

Each runs the very same compiled kernel over the same blocks of a batch of 64 images, in a process of its own, on all
cores: once alone, and once while another process keeps one core busy. Compilation is that of a new installation.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.processes import answer
from minicnn.arguments import Parser, at_least

LAYERS = ("own threads", "omp", "workqueue")
STAGES = ((32, 3, 16), (16, 16, 32), (8, 32, 64))  # height and width, channels, filters
BATCH_SIZE = 64


def main() -> None:
    """Measure every layer in turn, round by round, and print a table."""
    parser = Parser(prog="python -m benchmarks.thread_layers", description="Compare ways to run kernels on threads.")
    parser.add_argument("--rounds", type=at_least(1), default=15, help="times that each way is measured (15)")
    parser.add_argument("--one", choices=LAYERS, help=argparse.SUPPRESS)  # what this command calls itself for
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    alone: dict[str, list] = {layer: [] for layer in LAYERS}
    crowded: dict[str, list] = {layer: [] for layer in LAYERS}
    compilation = {}
    with tempfile.TemporaryDirectory() as folder:
        for layer in LAYERS:
            compilation[layer] = _start(layer, f"{folder}/{layer}")["compilation"]
        for _ in range(arguments.rounds):
            for layer in LAYERS:
                alone[layer].append(_start(layer, f"{folder}/{layer}")["milliseconds"])
                with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                    crowded[layer].append(_start(layer, f"{folder}/{layer}")["milliseconds"])
                    other.kill()
    print("| threads | compilation, s | three stages, ms | beside a busy process, ms |\n|---|---|---|---|")
    for layer in LAYERS:
        times = (statistics.median(alone[layer]), statistics.median(crowded[layer]))
        print(f"| {layer} | {compilation[layer]:.1f} | {times[0]:.2f} | {times[1]:.2f} |")


def _start(layer: str, folder: str) -> dict[str, float]:
    environment = {"MINICNN_CACHE_DIR": folder, "NUMBA_CACHE_DIR": folder}
    if layer != "own threads":
        environment["NUMBA_THREADING_LAYER"] = layer
    return answer(layer, ["benchmarks.thread_layers", "--one", layer], environment)


def measure(layer: str) -> dict[str, float]:
    """Return the seconds of the first pass over all stages, and the median milliseconds of the later ones."""
    started = time.perf_counter()
    stages = [stage(layer, *sizes) for sizes in STAGES]

    def step() -> float:
        begun = time.perf_counter()
        for run in stages:
            run()
        return time.perf_counter() - begun

    step()
    compilation = time.perf_counter() - started
    return {"compilation": compilation, "milliseconds": statistics.median(step() for _ in range(60)) * 1e3}


def stage(layer: str, size: int, C: int, F: int) -> Callable[[], object]:
    """Return what computes one stage: the kernel of `direct.correlate`, on arrays that are laid out before."""
    import numba

    from minicnn.kernels import buffers, direct, threads

    lanes, blocks = direct._lanes(F, np.dtype(np.float32)), threads.blocks(BATCH_SIZE)
    kernel = direct._forward(True, F % lanes == 0, lanes)
    numbers = [BATCH_SIZE * size * size * C, F * 9 * C, F, BATCH_SIZE * size * size // 4 * F]  # of x, w, b, y
    arrays = [buffers.zeros((number,), np.float32) for number in numbers]
    arrays.append(buffers.empty((numbers[3],), np.uint8))
    lengths = direct._unsigned((size, size, C), (size, size, F), (3, 3), (1, 1), (1, 1), (size + 2, size + 2))

    def scratch() -> tuple:
        return buffers.zeros(((size + 2) ** 2 * C,), np.float32), buffers.zeros((8 * lanes,), np.float32)

    if layer == "own threads":
        return lambda: threads.run(lambda i, *own: kernel(*arrays, *blocks[i], lengths, *own), len(blocks), scratch)

    @numba.njit(parallel=True, cache=True)
    def passes(x, weights, bias, y, argmax, starts, stops, s, planes, sums):
        for i in numba.prange(len(starts)):  # its body takes arrays and numbers only
            lengths = (s[0], s[1], s[2]), (s[3], s[4], s[5]), (s[6], s[7]), (s[8], s[9]), (s[10], s[11]), (s[12], s[13])
            kernel(x, weights, bias, y, argmax, starts[i], stops[i], lengths, planes[i], sums[i])

    starts, stops = np.array(blocks).T.copy()
    planes, sums = (np.stack(parts) for parts in zip(*[scratch() for _ in blocks], strict=True))
    flat = np.array([length for group in lengths for length in group])
    return lambda: passes(*arrays, starts, stops, flat, planes, sums)


if __name__ == "__main__":
    main()
