"""Convolution 3x3 "same" + bias + ReLU + max-pooling 2x2 as one stage, for the CPU room.

Forward is `direct.correlate` with pooling: neither the column matrix nor the full-size activation is ever stored.

Backward visits the winners of the pooling windows alone: everywhere else the gradient is exactly zero. With `at` the
corner of a winner's 3x3 patch in the zero-bordered plane of its image, for each filter f

    dw[f] += dy * patch(at)        three runs of 3*S numbers, one a line of the patch; the sums stay in registers
    patch(at) of dx += dy * w[f]   the same runs, the other way

    plane   . . . . . .      a winner's place o in its window moves the patch:
            . x x x . .      o = 0 left above   o = 1 one pixel (S numbers) to the right
            . x x x . .      o = 2 one line down   o = 3 both   o = 4 no gradient
            . x x x . .

Channels are taken S at a time, at most SLICE, and lines a strip at a time, so that sums fit into the registers and the
planes of x and dx into the first cache. S is a constant of the compiled code: with it LLVM knows how many vectors a
run has.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import buffers, direct, threads
from minicnn.kernels.compiler import LANES, jit_apart
from minicnn.kernels.direct import DEAD, NEAR

SLICE = 32  # channels: 3 runs of 96 float32 are 18 AVX-512 vectors, of 32 registers


def conv2d_relu_maxpool2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convolve x (N, H, W, C), H and W even, with w (3, 3, C, F) under "same", add b (F,), apply ReLU and pool by 2.

    Returns y (N, H/2, W/2, F) and which of the four won, in the same shape: 0 to 3 in row-major order, 4 for none.
    """
    return direct.correlate(x, w, b, (1, 1), (1, 1), x.shape[1:3], pool=True)


def conv2d_relu_maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over all windows.

    dy and argmax (N, H/2, W/2, F), x and dx (N, H, W, C), w and dw (3, 3, C, F), db (F,).
    """
    N, H, W, C = x.shape
    F = w.shape[3]
    slices = -(-C // SLICE)
    S = -(-C // slices)  # channels of a slice; the last one is filled up with zeros
    run = -(-3 * S // LANES) * LANES  # 3*S filled up to whole vectors; what is summed there is dropped
    blocks = threads.blocks(N)
    weights = buffers.zeros((F, 9, slices * S), x.dtype)
    weights[:, :, :C] = w.reshape(9, C, F).transpose(2, 0, 1)  # (F, 9, C)
    weights = weights.reshape(F, 9, slices, S).swapaxes(1, 2)  # (F, slices, 9, S)
    dx = buffers.empty(x.shape if input_gradient else (0,), x.dtype)
    dws, dbs = buffers.zeros((len(blocks), F, slices, 3, run), x.dtype), np.zeros((len(blocks), F), x.dtype)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in (dy, argmax, x, weights, dx)]  # (size,) each
    kernel, sizes = _backward(S, input_gradient), tuple(np.uint64(size) for size in (H, W, C, F))

    def scratch() -> tuple:
        plane = ((H + 2) * (W + 2) * S + LANES,)  # the last run may be read beyond its end
        winners = H * W // 4 + 1
        lists = np.empty(winners, np.uint64), np.empty(winners, x.dtype)
        return buffers.zeros(plane, x.dtype), buffers.zeros(plane, x.dtype), *lists

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, dws[i].reshape(-1), dbs[i], *blocks[i], sizes, *own)

    threads.run(task, len(blocks), scratch)
    dw = dws.sum(axis=0)[..., : 3 * S].reshape(F, slices, 9, S)  # (B, F, slices, 3, run) -> (F, slices, 9, S)
    dw = dw.transpose(2, 1, 3, 0).reshape(9, slices * S, F)[:, :C]  # (9, slices, S, F) -> (9, C, F)
    return dx if input_gradient else None, np.ascontiguousarray(dw).reshape(w.shape), dbs.sum(axis=0)


@functools.cache
def _backward(S: int, input_gradient: bool) -> Callable:
    u64 = np.uint64
    ONE, TWO, SIZE = u64(1), u64(2), u64(S)
    R1, R2, R3 = (u64(3 * S * i) for i in range(1, 4))
    P1, P2, P3 = (u64(-(-3 * S // LANES) * LANES * i) for i in range(1, 4))

    @jit_apart
    def kernel(dy, argmax, x, weights, dx, dw, db, start, stop, sizes, plane, dplane, corners, gradients):
        zero, (H, W, C, F) = x.dtype.type(0), sizes
        OH, OW, LINE, SLICES = H // TWO, W // TWO, (W + TWO) * SIZE, (C + SIZE - ONE) // SIZE
        strip = max(ONE, u64(NEAR // x.itemsize) // (TWO * LINE))  # lines of windows at a time
        for n in range(u64(start), u64(stop)):
            for s in range(SLICES):
                pixels, channels = (ONE, W * C) if SLICES == ONE else (W, min(SIZE, C - s * SIZE))  # copied at once
                for h in range(H):
                    for p in range(pixels):
                        at, to = ((n * H + h) * W + p) * C + s * SIZE, (h + ONE) * LINE + (p + ONE) * SIZE
                        for c in range(channels):
                            plane[to + c] = x[at + c]
                if input_gradient:
                    for q in range((H + TWO) * LINE):
                        dplane[q] = zero
                for first in range(u64(0), OH, strip):
                    last = min(first + strip, OH)
                    for f in range(F):
                        alive = u64(0)  # list the winners first, so that the sums below are free of conditions
                        k = (n * OH + first) * OW * F + f
                        for i in range(first, last):
                            for j in range(OW):
                                o = u64(argmax[k])
                                corners[alive] = (TWO * i + (o >> ONE)) * LINE + (TWO * j + (o & ONE)) * SIZE
                                gradients[alive] = dy[k]
                                alive += u64(o != u64(DEAD))
                                k += F
                        if s == u64(0):
                            for live in range(alive):
                                db[f] += gradients[live]
                        own, row = (f * SLICES + s) * P3, (f * SLICES + s) * R3
                        for live in range(alive):
                            at, g = corners[live], gradients[live]
                            for q in range(P1):
                                dw[own + q] += g * plane[at + q]
                            for q in range(P1):
                                dw[own + P1 + q] += g * plane[at + LINE + q]
                            for q in range(P1):
                                dw[own + P2 + q] += g * plane[at + LINE + LINE + q]
                        if input_gradient:
                            for live in range(alive):
                                at, g = corners[live], gradients[live]
                                for q in range(R1):
                                    dplane[at + q] += g * weights[row + q]
                                for q in range(R1):
                                    dplane[at + LINE + q] += g * weights[row + R1 + q]
                                for q in range(R1):
                                    dplane[at + LINE + LINE + q] += g * weights[row + R2 + q]
                if input_gradient:
                    for h in range(H):
                        for p in range(pixels):
                            at, to = (h + ONE) * LINE + (p + ONE) * SIZE, ((n * H + h) * W + p) * C + s * SIZE
                            for c in range(channels):
                                dx[to + c] = dplane[at + c]

    return kernel
