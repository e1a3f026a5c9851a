"""Figures of the chapter on fast kernels: one stage of Model S computed in six ways, and what each keeps in memory.

``python docs/figures/kernels.py --measure`` measures again, in two minutes, writes measured/kernels.json and prints the
chapter's tables; ``--tables`` prints them from the file.
"""

import functools
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import HUES, INK, MEASURED, MUTED, save

import minicnn

COMMAND = "python docs/figures/kernels.py --measure"
RECORD = MEASURED / "kernels.json"
STAGES = {"conv1": (32, 3, 16), "conv2": (16, 16, 32), "conv3": (8, 32, 64)}  # Model S: size, channels, filters
N, ROUNDS, SECONDS = 64, 31, 0.03  # images; rounds; of one way in one round
TRIES = 300  # calls on one and on two threads
SAME, HALVES, NOWHERE = ((1, 1), ((1, 1), (1, 1))), ((2, 2), (2, 2), ((0, 0), (0, 0))), ((0, 0), (0, 0))
WAYS = ("Python loops", "compiled loops", "filters innermost", "im2col + BLAS", "direct", "fused")
TINTS = {"x": HUES[0], "cols": HUES[1], "y": HUES[2], "pooled": HUES[3], "places": HUES[4]}


def arrays(stage: str, dtype: str = "float32") -> tuple[np.ndarray, ...]:
    """Return x, w, b and the pooled output's dy for one stage, random with seed 0."""
    size, C, F = STAGES[stage]
    rng = np.random.default_rng(0)
    shapes = (N, size, size, C), (3, 3, C, F), (F,), (N, size // 2, size // 2, F)
    return tuple(rng.standard_normal(shape).astype("float32").astype(dtype) for shape in shapes)


@functools.cache
def compiled_loops() -> Callable:
    """Return the six loops of the definition, padding "same", as Numba compiles them without any further advice."""
    import numba

    @numba.njit(nogil=True)
    def loops(x: Any, w: Any, b: Any) -> Any:
        N, H, W, C = x.shape
        F = w.shape[3]
        y = np.empty((N, H, W, F), x.dtype)
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    for f in range(F):
                        total = b[f]
                        for u in range(max(0, 1 - i), min(3, H + 1 - i)):
                            for v in range(max(0, 1 - j), min(3, W + 1 - j)):
                                for c in range(C):
                                    total += x[n, i + u - 1, j + v - 1, c] * w[u, v, c, f]
                        y[n, i, j, f] = total
        return y

    return loops


@functools.cache
def filters_innermost() -> Callable:
    """Return the same loops with the filters innermost: each sum adds the same products in the same order."""
    import numba

    @numba.njit(nogil=True)
    def loops(x: Any, w: Any, b: Any) -> Any:
        N, H, W, C = x.shape
        F = w.shape[3]
        y = np.empty((N, H, W, F), x.dtype)
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    sums = y[n, i, j]
                    sums[:] = b
                    for u in range(max(0, 1 - i), min(3, H + 1 - i)):
                        for v in range(max(0, 1 - j), min(3, W + 1 - j)):
                            for c in range(C):
                                for f in range(F):
                                    sums[f] += x[n, i + u - 1, j + v - 1, c] * w[u, v, c, f]
        return y

    return loops


def im2col_and_blas(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y of a convolution "same" as one matrix product, and cols, which backward needs."""
    from minicnn.kernels import cpu

    cols = cpu.im2col(x, (3, 3), *SAME)  # (N*H*W, 9*C)
    y = (cols @ w.reshape(-1, w.shape[3])).reshape(*x.shape[:3], -1)  # (N, H, W, F)
    y += b
    return y, cols


def im2col_and_blas_backward(
    dz: np.ndarray, cols: np.ndarray, x: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dx, dw and db as matrix products and col2im."""
    from minicnn.kernels import cpu

    rows, matrix = dz.reshape(-1, w.shape[3]), w.reshape(-1, w.shape[3])  # (N*H*W, F), (9*C, F)
    dw = (cols.T @ rows).reshape(w.shape)  # (3, 3, C, F)
    return cpu.col2im(rows @ matrix.T, x.shape, (3, 3), *SAME), dw, rows.sum(axis=0)


def forms(stage: str, dtype: str = "float32") -> dict[str, dict[str, Callable[[], Any]]]:
    """Return for each way what computes the stage forward, and forward and backward; Python loops take one image."""
    from minicnn.kernels import cpu, reference

    x, w, b, dy = arrays(stage, dtype)
    loops, innermost = compiled_loops(), filters_innermost()

    def rest(y: np.ndarray) -> tuple[np.ndarray, ...]:
        y = cpu.relu(y, in_place=True)
        return (y, *cpu.maxpool2d(y, *HALVES))

    def to_dz(y: np.ndarray, argmax: np.ndarray) -> np.ndarray:
        return cpu.relu_backward(cpu.maxpool2d_backward(dy, argmax, y.shape, *HALVES), y)

    def by_im2col() -> tuple:
        y, cols = im2col_and_blas(x, w, b)
        y, pooled, argmax = rest(y)
        return pooled, *im2col_and_blas_backward(to_dz(y, argmax), cols, x, w)

    def directly() -> tuple:
        y, pooled, argmax = rest(cpu.conv2d(x, w, b, *SAME))
        return pooled, *cpu.conv2d_backward(to_dz(y, argmax), x, w, *SAME)

    def fused() -> tuple:
        pooled, argmax = cpu.conv2d_relu_maxpool2d(x, w, b)
        return pooled, *cpu.conv2d_relu_maxpool2d_backward(dy, argmax, x, w)

    return {
        "Python loops": {"forward": lambda: reference.conv2d_relu_maxpool2d(x[:1], w, b)[0]},
        "compiled loops": {"forward": lambda: rest(loops(x, w, b))[1]},
        "filters innermost": {"forward": lambda: rest(innermost(x, w, b))[1]},
        "im2col + BLAS": {"forward": lambda: rest(im2col_and_blas(x, w, b)[0])[1], "both": by_im2col},
        "direct": {"forward": lambda: rest(cpu.conv2d(x, w, b, *SAME))[1], "both": directly},
        "fused": {"forward": lambda: cpu.conv2d_relu_maxpool2d(x, w, b)[0], "both": fused},
    }


def times(calls: dict[Any, Callable]) -> dict[Any, dict[str, float]]:
    """Return quartiles of the processor's milliseconds; in each round all take their turn, in alternating order."""
    repetitions = {}
    for name, call in calls.items():
        call()  # compiles
        start = time.process_time()
        call()
        repetitions[name] = max(1, round(SECONDS / (time.process_time() - start)))
    found: dict[Any, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS):
        for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
            start = time.process_time()
            for _ in range(repetitions[name]):
                calls[name]()
            found[name].append(1000 * (time.process_time() - start) / repetitions[name])
    return {
        name: dict(zip(("low", "median", "high"), np.percentile(values, (25, 50, 75)).tolist(), strict=True))
        for name, values in found.items()
    }


def least(call: Callable) -> dict[str, float]:
    """Return the least milliseconds by the wall's clock on one and on two threads: what others' work adds, it adds."""
    found: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(TRIES // 10):
        for count in (1, 2):
            minicnn.set_num_threads(count)
            call()
            for _ in range(10):
                start = time.perf_counter()
                call()
                found[str(count)].append(1000 * (time.perf_counter() - start))
    return {count: min(values) for count, values in found.items()}


def peak(call: Callable) -> float:
    """Return the peak of the memory, in MB, of all arrays that a call makes, its results among them."""
    from minicnn.kernels import buffers

    call()
    buffers._blocks.clear()  # else it would use those of the call before
    tracemalloc.start()
    result = call()
    found = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    del result
    return found


def measure() -> None:
    """Write times, memory and differences of all ways."""
    from minicnn.kernels import compiler, threads

    cores = minicnn.get_num_threads()
    features = sorted(name for name in ("avx2", "avx512f") if compiler._features.get(name))
    record: dict[str, Any] = {
        "command": COMMAND,
        "data": f"random, seed 0, float32, {N} images",
        "machine": {"cores": cores, "float32 lanes": compiler.LANES, "features": features},
        "method": f"ms: processor time of 1 thread, quartiles of {ROUNDS} alternating rounds of about {SECONDS} s; "
        f"threads: wall time of the fused stage's forward and backward, the least of {TRIES} alternating calls",
        "stages": {stage: {} for stage in STAGES},
    }
    calls = {
        (stage, way, part): call
        for stage in STAGES
        for way, parts in forms(stage).items()
        for part, call in parts.items()
    }
    right = {stage: forms(stage, "float64")["compiled loops"]["forward"]() for stage in STAGES}
    for (stage, way, part), call in calls.items():
        here = record["stages"][stage].setdefault(way, {}).setdefault(part, {"MB": peak(call)})
        if part == "forward":
            y = call()
            exact = right[stage][: len(y)]
            here["difference"] = float(abs(y - exact).max() / abs(exact).max())
    minicnn.set_num_threads(1)
    with threads.single_threaded_blas():
        found = times(calls)
    for (stage, way, part), quartiles in found.items():
        record["stages"][stage][way][part]["ms"] = quartiles
    for ways in record["stages"].values():  # measured on one image
        loops = ways["Python loops"]["forward"]
        loops["MB"] *= N
        loops["ms"] = {name: N * value for name, value in loops["ms"].items()}
        loops["of"] = f"1 image, times {N}"
    record["threads"] = {stage: least(calls[stage, "fused", "both"]) for stage in STAGES}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(RECORD)


def tables(record: dict) -> str:
    """Return the chapter's two tables, as Markdown."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    lines = ["| forward | " + " | ".join(f"{stage}, ms | MB" for stage in STAGES) + " | largest difference |"]
    lines.append("|---" * 8 + "|")
    for way in WAYS:
        cells, parts = [], [record["stages"][stage][way]["forward"] for stage in STAGES]
        for part in parts:
            cells += [number(part["ms"]["median"]), number(part["MB"])]
        lines.append(f"| {way} | {' | '.join(cells)} | {max(part['difference'] for part in parts):.0e} |")
    lines += ["", "| forward and backward | " + " | ".join(f"{stage}, ms | MB" for stage in STAGES) + " |"]
    lines.append("|---" * 7 + "|")
    for way in WAYS[3:]:
        cells = []
        for stage in STAGES:
            part = record["stages"][stage][way]["both"]
            cells += [number(part["ms"]["median"]), number(part["MB"])]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_rungs(record: dict) -> Figure:
    """Draw milliseconds and MB of the forward pass of each stage, a bar for each way, on logarithmic axes."""
    figure = Figure(figsize=(6.4, 4.8))
    left, right = figure.subplots(1, 2, sharey=True)
    height = 0.26
    for axes, title in ((left, "milliseconds"), (right, "MB of new arrays")):
        for k, stage in enumerate(STAGES):
            for row, way in enumerate(WAYS):
                part = record["stages"][stage][way]["forward"]
                value = part["ms"]["median"] if axes is left else part["MB"]
                axes.barh(row + (k - 1) * height, value, height * 0.9, color=HUES[k], label=None if row else stage)
                text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
                axes.text(value * 1.15, row + (k - 1) * height, text, va="center", fontsize=7.5, color=MUTED)
        axes.set(xscale="log", title=title, yticks=range(len(WAYS)), yticklabels=WAYS)
        axes.set_axisbelow(True)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    left.invert_yaxis()
    left.set_xlim(0.5, 4e5)
    right.set_xlim(0.3, 90)
    left.legend(loc="lower right", fontsize=8)
    return figure


def sizes() -> dict[str, dict[str, float]]:
    """Return the MB of the arrays of each stage, 64 images in float32; the places of the winners are bytes."""
    found = {}
    for stage, (size, C, F) in STAGES.items():
        pixels = N * size * size
        numbers = {"x": pixels * C, "cols": pixels * 9 * C, "y": pixels * F, "pooled": pixels * F / 4}
        found[stage] = {name: 4 * count / 1e6 for name, count in numbers.items()} | {"places": pixels * F / 4 / 1e6}
    return found


def draw_memory() -> Figure:
    """Draw each array of the three stages as a square whose area is its memory; cols is nine times x."""
    figure = Figure(figsize=(6.4, 4.9))
    axes = figure.subplots()
    scale, names = 1.0, {"x": "x", "cols": "cols", "y": "y", "pooled": "pooled y", "places": "places"}
    bottom, lefts = 0.0, {"x": 0.0, "cols": 1.7, "y": 5.3, "pooled": 8.2, "places": 9.9}
    for stage, arrays_ in reversed(sizes().items()):
        axes.text(-0.35, bottom + 0.5, stage, ha="right", va="center", fontsize=9, color=INK)
        for name, mega in arrays_.items():
            side = scale * mega**0.5
            axes.add_patch(Rectangle((lefts[name], bottom), side, side, facecolor=TINTS[name], alpha=0.75))
            if name == "cols":  # nine parts as large as x: where each pixel's copies are
                for part in range(1, 3):
                    for line in ([[0, side], [part * side / 3] * 2], [[part * side / 3] * 2, [0, side]]):
                        axes.plot(lefts[name] + np.array(line[0]), bottom + np.array(line[1]), color="white", lw=0.8)
            axes.text(lefts[name], bottom - 0.12, f"{mega:.2f} MB", va="top", fontsize=8, color=INK)
        bottom += arrays_["cols"] ** 0.5 + 0.75
    for name, label in names.items():
        axes.text(lefts[name], bottom - 0.35, label, fontsize=9, color=TINTS[name], weight="bold")
    axes.set(xlim=(-1.5, 11.2), ylim=(-0.5, bottom + 0.1), aspect="equal")
    axes.axis("off")
    return figure


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    if "--measure" in sys.argv or "--tables" in sys.argv:
        print(tables(json.loads(RECORD.read_text())))
    save(draw_rungs(json.loads(RECORD.read_text())), "kernels_rungs.svg")
    save(draw_memory(), "kernels_memory.svg")
