"""Convolution without a column matrix, for the CPU room; with ReLU and max-pooling 2x2 behind it if wanted.

Each image is copied to a plane with a border of zeros, so that no window needs a condition. In NHWC the KW*C numbers of
a window's line are neighbours: x and w meet in KH runs. Forward computes outputs in blocks of 2x4 pixels by one
or two vectors of filters; its sums, 8 or 16 vectors, stay in registers over all runs:

    outputs  0 1 | 4 5      for each line u of the window, and each number r of its run, the weights of all
             2 3 | 6 7      filters and 8 numbers of the plane, one for each output, make 8 products:

    sums[o] += plane[line row(o)*SH + u, number column(o)*SW*C + r] * w[u, r, filters]

With `pool` the left and the right four are pooling windows. Only the maximum of each is stored, if it is positive, and
which of the four it was; 4 says that ReLU held it at 0.

Backward, dw keeps 8 numbers of a run by as many filters in registers while it runs over pixels:

    dw[u, r, filters] = sum over i, j of plane[line i*SH + u, number j*SW*C + r] * dy[i, j, filters]

Where a kernel is 3x3 and has channels enough, `winograd` computes the same with fewer products.

`lanes`, the number of filters, is a constant of the compiled code, from which LLVM knows that sums are whole vectors.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import buffers, threads
from minicnn.kernels.compiler import LANES, jit_apart

Pair = tuple[int, int]

DEAD = 4  # in argmax: no gradient, since the maximum was not positive
NEAR = 24_000  # bytes of the plane that backward works on at a time: with dy or dx they fit into the first cache


def correlate(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, strides: Pair, corner: Pair, size: Pair, pool: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Compute y (N, OH, OW, F) of `size` (OH, OW) from x (N, H, W, C) with `corner` (top, left) zeros before it.

    With `pool`, OH and OW even, y is (N, OH/2, OW/2, F) after ReLU and max-pooling. Also returns which of the four won,
    in y's shape: 0 to 3 in row-major order, 4 for none; it is empty without `pool`.
    """
    N, H, W, C = x.shape
    KH, KW, _, F = w.shape
    (OH, OW), (SH, SW) = size, strides
    y = buffers.empty((N, OH // 2, OW // 2, F) if pool else (N, OH, OW, F), x.dtype)
    argmax = buffers.empty(y.shape if pool else (0,), np.uint8)
    lanes = lanes_of(F, x.dtype)
    arrays = np.ascontiguousarray(x), _by_lanes(w.reshape(-1, F), lanes), _by_lanes(b.reshape(1, F), lanes), y, argmax
    flat = [array.reshape(-1) for array in arrays]  # (size,) each
    lines, columns = (2 * -(-OH // 2) - 1) * SH + KH, (4 * -(-OW // 4) - 1) * SW + KW  # whole blocks
    sizes = unsigned((H, W, C), (OH, OW, F), (KH, KW), strides, corner, (lines, columns))
    kernel, blocks = _forward(pool, F % lanes == 0, lanes), threads.blocks(N)

    def scratch() -> tuple:
        return buffers.zeros((lines * columns * C,), x.dtype), buffers.zeros((8 * lanes,), x.dtype)

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, *blocks[i], sizes, *own)

    threads.run(task, len(blocks), scratch)
    return y, argmax


def gradient_of_weights(
    dy: np.ndarray, x: np.ndarray, w_shape: tuple, strides: Pair, corner: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """From dy (N, OH, OW, F) and x (N, H, W, C): dw (KH, KW, C, F) and db (F,), the sums over all windows."""
    N, H, W, C = x.shape
    KH, KW, _, F = w_shape
    _, OH, OW, _ = dy.shape
    lanes, blocks = lanes_of(F, x.dtype), threads.blocks(N)
    groups = -(-F // lanes)
    run = -(-KW * C // 8) * 8  # filled up to whole steps of 8; what is summed there is dropped
    dws = buffers.zeros((len(blocks), groups, KH, run, lanes), x.dtype)
    dbs = buffers.zeros((len(blocks), groups, lanes), x.dtype)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in (dy, x)]  # (size,) each
    lines, columns = (OH - 1) * strides[0] + KH, (OW - 1) * strides[1] + KW
    sizes = unsigned((H, W, C), (OH, OW, F), (KH, KW), strides, corner, (lines, columns))
    kernel = _backward(lanes)

    def scratch() -> tuple:
        sizes = lines * columns * C + 8, groups * OH * OW * lanes, 8 * lanes  # the last run is read beyond its end
        return tuple(buffers.zeros((size,), x.dtype) for size in sizes)

    def task(i: int, *own: np.ndarray) -> None:
        parts = dws[i].reshape(-1), dbs[i].reshape(-1)  # (groups*KH*run*lanes,), (groups*lanes,)
        kernel(*flat, *parts, *blocks[i], sizes, *own)

    threads.run(task, len(blocks), scratch)
    dw = dws.sum(axis=0)[:, :, : KW * C]  # (B, groups, KH, run, lanes) -> (groups, KH, KW*C, lanes)
    dw = dw.reshape(groups, KH * KW * C, lanes)  # (groups, KH*KW*C, lanes)
    dw = dw.swapaxes(0, 1).reshape(KH * KW * C, -1)[:, :F]  # (KH*KW*C, F)
    return np.ascontiguousarray(dw).reshape(w_shape), dbs.sum(axis=0).reshape(-1)[:F]


def unsigned(*sizes: tuple[int, ...]) -> tuple:
    """Return the sizes as unsigned integers: an index of signed ones costs a check for wrap-around."""
    return tuple(tuple(np.uint64(size) for size in group) for group in sizes)


def lanes_of(F: int, dtype: np.dtype) -> int:
    """Return how many filters are computed at once: two vectors where registers suffice and no vector stays empty."""
    registers_suffice = LANES == 16 and dtype.itemsize == 4  # 16 of 32 for sums, 8 for the plane, 2 for weights
    return 2 * LANES if registers_suffice and -(-F // LANES) % 2 == 0 else LANES


def _by_lanes(matrix: np.ndarray, lanes: int) -> np.ndarray:
    """Cut a matrix (K, F) into groups of filters, (groups, K, lanes), the last filled up with zeros."""
    K, F = matrix.shape
    groups = -(-F // lanes)
    padded = buffers.zeros((K, groups * lanes), matrix.dtype)
    padded[:, :F] = matrix
    result = buffers.empty((groups, K, lanes), matrix.dtype)
    result[:] = padded.reshape(K, groups, lanes).swapaxes(0, 1)  # (groups, K, lanes)
    return result


@functools.cache
def _forward(pool: bool, whole: bool, lanes: int) -> Callable:
    u64 = np.uint64
    ONE, TWO, FOUR = u64(1), u64(2), u64(4)
    L1, L2, L3, L4, L5, L6, L7 = (u64(lanes * i) for i in range(1, 8))

    @jit_apart
    def kernel(x, w, bias, y, argmax, start, stop, sizes, plane, sums):
        (H, W, C), (OH, OW, F), (KH, KW), (SH, SW), (top, left), (lines, columns) = sizes
        zero, RUN, LINE, GROUPS = x.dtype.type(0), KW * C, columns * C, (F + L1 - ONE) // L1
        S1 = SW * C  # from pixel to pixel
        S2, S3 = S1 + S1, S1 + S1 + S1
        for n in range(u64(start), u64(stop)):
            for h in range(min(H, lines - top)):  # with strides, windows may leave the last pixels out
                at, to = (n * H + h) * W * C, (h + top) * LINE + left * C
                for r in range(min(W, columns - left) * C):
                    plane[to + r] = x[at + r]
            for group in range(GROUPS):
                for i in range(u64(0), OH, TWO):
                    for j in range(u64(0), OW, FOUR):
                        for o in range(u64(8)):
                            for f in range(L1):
                                sums[o * L1 + f] = bias[group * L1 + f]
                        for u in range(KH):
                            k = (group * KH + u) * RUN * L1
                            a = (i * SH + u) * LINE + j * S1
                            b = a + SH * LINE
                            for _ in range(RUN):
                                for f in range(L1):
                                    weight = w[k + f]
                                    sums[f] += plane[a] * weight
                                    sums[f + L1] += plane[a + S1] * weight
                                    sums[f + L2] += plane[b] * weight
                                    sums[f + L3] += plane[b + S1] * weight
                                    sums[f + L4] += plane[a + S2] * weight
                                    sums[f + L5] += plane[a + S3] * weight
                                    sums[f + L6] += plane[b + S2] * weight
                                    sums[f + L7] += plane[b + S3] * weight
                                a, b, k = a + ONE, b + ONE, k + L1
                        filters = L1 if whole else min(L1, F - group * L1)
                        if pool:
                            for window in range(min(TWO, (OW - j) // TWO)):
                                to = (((n * OH + i) * OW // TWO + j) // TWO + window) * F + group * L1
                                for f in range(filters):
                                    best, winner = sums[window * L4 + f], np.uint8(0)
                                    for o in range(1, 4):
                                        value = sums[window * L4 + u64(o) * L1 + f]
                                        wins = value > best or value != value
                                        best = value if wins else best
                                        winner = np.uint8(o) if wins else winner
                                    y[to + f] = zero if best < zero else best
                                    argmax[to + f] = winner if best > zero else np.uint8(DEAD)
                        else:
                            for o in range(u64(8)):
                                row, column = i + o // TWO % TWO, j + o // FOUR * TWO + o % TWO
                                if row < OH and column < OW:
                                    to = ((n * OH + row) * OW + column) * F + group * L1
                                    for f in range(filters):
                                        y[to + f] = sums[o * L1 + f]

    return kernel


@functools.cache
def _backward(lanes: int) -> Callable:
    u64 = np.uint64
    ONE, EIGHT = u64(1), u64(8)
    L1, L2, L3, L4, L5, L6, L7, L8 = (u64(lanes * i) for i in range(1, 9))
    R1, R2, R3, R4, R5, R6, R7 = (u64(i) for i in range(1, 8))

    @jit_apart
    def kernel(dy, x, dw, db, start, stop, sizes, plane, dplane, sums):
        (H, W, C), (OH, OW, F), (KH, KW), (SH, SW), (top, left), (lines, columns) = sizes
        RUN, STEP, LINE, GROUPS = (KW * C + EIGHT - ONE) // EIGHT * EIGHT, SW * C, columns * C, (F + L1 - ONE) // L1
        strip = max(ONE, u64(NEAR // x.itemsize) // (SH * LINE))  # lines of dy at a time
        for n in range(u64(start), u64(stop)):
            for h in range(min(H, lines - top)):  # with strides, windows may leave the last pixels out
                at, to = (n * H + h) * W * C, (h + top) * LINE + left * C
                for r in range(min(W, columns - left) * C):
                    plane[to + r] = x[at + r]
            for group in range(GROUPS):
                for p in range(OH * OW):
                    at, to = (n * OH * OW + p) * F + group * L1, (group * OH * OW + p) * L1
                    for f in range(min(L1, F - group * L1)):
                        dplane[to + f] = dy[at + f]
                        db[group * L1 + f] += dy[at + f]
            for first in range(u64(0), OH, strip):
                for group in range(GROUPS):
                    for u in range(KH):
                        for r in range(u64(0), RUN, EIGHT):
                            own = ((group * KH + u) * RUN + r) * L1
                            for k in range(L8):
                                sums[k] = dw[own + k]
                            for i in range(first, min(first + strip, OH)):
                                a, to = (i * SH + u) * LINE + r, (group * OH + i) * OW * L1
                                for _ in range(OW):
                                    for f in range(L1):
                                        g = dplane[to + f]
                                        sums[f] += plane[a] * g
                                        sums[f + L1] += plane[a + R1] * g
                                        sums[f + L2] += plane[a + R2] * g
                                        sums[f + L3] += plane[a + R3] * g
                                        sums[f + L4] += plane[a + R4] * g
                                        sums[f + L5] += plane[a + R5] * g
                                        sums[f + L6] += plane[a + R6] * g
                                        sums[f + L7] += plane[a + R7] * g
                                    a, to = a + STEP, to + L1
                            for k in range(L8):
                                dw[own + k] = sums[k]

    return kernel
