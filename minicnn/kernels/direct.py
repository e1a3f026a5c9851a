"""Convolution 3x3 with stride 1 without a column matrix, for the CPU room; with ReLU and max-pooling 2x2 if wanted.

Each image is copied to a plane with a border of zeros, so that no window needs a condition. Forward computes outputs in
blocks of 2x4 from the 4x6 patch of the plane under them:

    patch  a0 a1 a2 a3 a4 a5      outputs  0 1 | 4 5     output 0 = a0*w0 + a1*w1 + a2*w2 + b0*w3 + ... + c2*w8
           b0 b1 b2 b3 b4 b5               2 3 | 6 7     output 1 = a1*w0 + a2*w1 + a3*w2 + b1*w3 + ... + c3*w8
           c0 c1 c2 c3 c4 c5                             output 2 = b0*w0 + b1*w1 + b2*w2 + c0*w3 + ... + d2*w8
           d0 d1 d2 d3 d4 d5                             output 4 = a2*w0 + ...

so 24 inputs and 9 weights make 72 products, for LANES filters at once: the 8 sums are 8 vectors that stay in registers
while c runs over the channels. The left four and the right four outputs are pooling windows, too: with `pool`, only
the maximum of each is stored, if it is positive, and which of the four it was; 4 says that ReLU held it at 0.

Backward, dx is again such a convolution: of dy, padded so that every window fits, with the kernel turned by 180 degrees
and its channels exchanged. dw keeps the 9 sums of one channel and LANES filters in registers while it runs over pixels:

    dw[u, v, c, f] = sum over i, j of plane[i + u, j + v, c] * dy[i, j, f]

C and F are constants of the compiled code. All indices are unsigned: a signed one costs a check for wrap-around.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import buffers, threads
from minicnn.kernels.compiler import LANES, jit_apart

Pads = tuple[tuple[int, int], tuple[int, int]]

DEAD = 4  # in argmax: no gradient, since the maximum was not positive
NEAR = 24_000  # bytes of the plane that backward works on at a time: with dy or dx they fit into the first cache


def conv2d(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, pads: Pads, pool: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate x (N, H, W, C), padded by 0 to 2 zeros a side, with w (3, 3, C, F) and add b (F,): y (N, OH, OW, F).

    With `pool`, OH and OW even, y is (N, OH/2, OW/2, F) after ReLU and max-pooling. Also returns which of the four won,
    in y's shape: 0 to 3 in row-major order, 4 for none; it is empty without `pool`.
    """
    N, H, W, C = x.shape
    F = w.shape[3]
    (top, bottom), (left, right) = pads
    OH, OW = H + top + bottom - 2, W + left + right - 2
    groups = -(-F // LANES)  # of filters; the last is filled up with zeros
    weights = buffers.zeros((groups, C, 9, LANES), x.dtype)
    bias = buffers.zeros((groups, LANES), x.dtype)
    for g in range(groups):
        part = w[..., g * LANES : (g + 1) * LANES]  # (3, 3, C, up to LANES)
        weights[g, :, :, : part.shape[3]] = part.reshape(9, C, -1).swapaxes(0, 1)  # (C, 9, up to LANES)
        bias[g, : part.shape[3]] = b[g * LANES : (g + 1) * LANES]
    y = buffers.empty((N, OH // 2, OW // 2, F) if pool else (N, OH, OW, F), x.dtype)
    argmax = buffers.empty(y.shape if pool else (0,), np.uint8)
    flat = [array.reshape(-1) for array in (np.ascontiguousarray(x), weights, bias, y, argmax)]  # (size,) each
    plane = (2 * -(-OH // 2) + 2, 4 * -(-OW // 4) + 2, C)  # the last block may reach beyond the image
    kernel, blocks = _forward(C, F, pool), threads.blocks(N)

    def scratch() -> tuple:
        return buffers.zeros(plane, x.dtype).reshape(-1), buffers.zeros((8 * LANES,), x.dtype)

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, *blocks[i], H, W, OH, OW, top, left, *own)

    threads.run(task, len(blocks), scratch)
    return y, argmax


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, pads: Pads, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """From dy (N, OH, OW, F): dx (N, H, W, C) or None, dw (3, 3, C, F) and db (F,), the sums over all windows."""
    N, H, W, C = x.shape
    _, OH, OW, F = dy.shape
    (top, bottom), (left, right) = pads
    groups, blocks = -(-F // LANES), threads.blocks(N)
    dws = buffers.zeros((len(blocks), groups, C, 9, LANES), x.dtype)
    dbs = buffers.zeros((len(blocks), groups, LANES), x.dtype)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in (dy, x)]  # (size,) each
    plane = (OH + 2, OW + 2, C)
    kernel = _backward_weights(C, F)

    def scratch() -> tuple:
        shapes = plane, (groups, OH * OW, LANES), (9 * LANES,)
        return tuple(buffers.zeros(shape, x.dtype).reshape(-1) for shape in shapes)

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, dws[i].reshape(-1), dbs[i].reshape(-1), *blocks[i], H, W, OH, OW, top, left, *own)

    threads.run(task, len(blocks), scratch)
    dw = dws.sum(axis=0).transpose(2, 1, 0, 3).reshape(9, C, -1)  # (groups, C, 9, LANES) -> (9, C, groups*LANES)
    dw, db = np.ascontiguousarray(dw[..., :F]).reshape(w.shape), dbs.sum(axis=0).reshape(-1)[:F]
    if not input_gradient:
        return None, dw, db
    turned = w[::-1, ::-1].swapaxes(2, 3)  # (3, 3, F, C)
    return conv2d(dy, turned, np.zeros(C, w.dtype), ((2 - top, 2 - bottom), (2 - left, 2 - right)))[0], dw, db


@functools.cache
def _forward(C: int, F: int, pool: bool) -> Callable:
    u64 = np.uint64
    TWO, THREE, FOUR, FILTERS = u64(2), u64(3), u64(4), u64(F)
    C1, C2, C3, C4, C5 = (u64(C * i) for i in range(1, 6))
    L1, L2, L3, L4, L5, L6, L7, L8, L9 = (u64(LANES * i) for i in range(1, 10))
    GROUPS, GROUP = u64(-(-F // LANES)), u64(C * 9 * LANES)

    @jit_apart
    def kernel(x, weights, bias, y, argmax, start, stop, height, width, rows, columns, top, left, plane, sums):
        zero, H, W, OH, OW = x.dtype.type(0), u64(height), u64(width), u64(rows), u64(columns)
        LINE = ((OW + THREE) // FOUR * FOUR + TWO) * C1
        for n in range(u64(start), u64(stop)):
            for h in range(H):
                at, to = (n * H + h) * W * C1, (h + u64(top)) * LINE + u64(left) * C1
                for q in range(W * C1):
                    plane[to + q] = x[at + q]
            for group in range(GROUPS):
                for i in range(u64(0), OH, TWO):
                    for j in range(u64(0), OW, FOUR):
                        for o in range(u64(8)):
                            for f in range(L1):
                                sums[o * L1 + f] = bias[group * L1 + f]
                        for c in range(C1):
                            at = i * LINE + j * C1 + c
                            a0, a1, a2 = plane[at], plane[at + C1], plane[at + C2]
                            a3, a4, a5 = plane[at + C3], plane[at + C4], plane[at + C5]
                            at += LINE
                            b0, b1, b2 = plane[at], plane[at + C1], plane[at + C2]
                            b3, b4, b5 = plane[at + C3], plane[at + C4], plane[at + C5]
                            at += LINE
                            c0, c1, c2 = plane[at], plane[at + C1], plane[at + C2]
                            c3, c4, c5 = plane[at + C3], plane[at + C4], plane[at + C5]
                            at += LINE
                            d0, d1, d2 = plane[at], plane[at + C1], plane[at + C2]
                            d3, d4, d5 = plane[at + C3], plane[at + C4], plane[at + C5]
                            for f in range(L1):
                                k = group * GROUP + c * L9 + f
                                w0, w1, w2 = weights[k], weights[k + L1], weights[k + L2]
                                w3, w4, w5 = weights[k + L3], weights[k + L4], weights[k + L5]
                                w6, w7, w8 = weights[k + L6], weights[k + L7], weights[k + L8]
                                s = sums[f] + a0 * w0 + a1 * w1 + a2 * w2
                                sums[f] = s + b0 * w3 + b1 * w4 + b2 * w5 + c0 * w6 + c1 * w7 + c2 * w8
                                s = sums[f + L1] + a1 * w0 + a2 * w1 + a3 * w2
                                sums[f + L1] = s + b1 * w3 + b2 * w4 + b3 * w5 + c1 * w6 + c2 * w7 + c3 * w8
                                s = sums[f + L2] + b0 * w0 + b1 * w1 + b2 * w2
                                sums[f + L2] = s + c0 * w3 + c1 * w4 + c2 * w5 + d0 * w6 + d1 * w7 + d2 * w8
                                s = sums[f + L3] + b1 * w0 + b2 * w1 + b3 * w2
                                sums[f + L3] = s + c1 * w3 + c2 * w4 + c3 * w5 + d1 * w6 + d2 * w7 + d3 * w8
                                s = sums[f + L4] + a2 * w0 + a3 * w1 + a4 * w2
                                sums[f + L4] = s + b2 * w3 + b3 * w4 + b4 * w5 + c2 * w6 + c3 * w7 + c4 * w8
                                s = sums[f + L5] + a3 * w0 + a4 * w1 + a5 * w2
                                sums[f + L5] = s + b3 * w3 + b4 * w4 + b5 * w5 + c3 * w6 + c4 * w7 + c5 * w8
                                s = sums[f + L6] + b2 * w0 + b3 * w1 + b4 * w2
                                sums[f + L6] = s + c2 * w3 + c3 * w4 + c4 * w5 + d2 * w6 + d3 * w7 + d4 * w8
                                s = sums[f + L7] + b3 * w0 + b4 * w1 + b5 * w2
                                sums[f + L7] = s + c3 * w3 + c4 * w4 + c5 * w5 + d3 * w6 + d4 * w7 + d5 * w8
                        filters = min(L1, FILTERS - group * L1)
                        for window in range(TWO):
                            if pool and j + TWO * window < OW:
                                to = ((n * OH + i) // TWO * OW + j) // TWO + window
                                to = to * FILTERS + group * L1
                                for f in range(filters):
                                    best, winner = sums[window * L4 + f], np.uint8(0)
                                    for o in range(1, 4):
                                        value = sums[window * L4 + u64(o) * L1 + f]
                                        wins = value > best or value != value
                                        best = value if wins else best
                                        winner = np.uint8(o) if wins else winner
                                    y[to + f] = zero if best < zero else best
                                    argmax[to + f] = winner if best > zero else np.uint8(DEAD)
                            elif not pool:
                                for o in range(FOUR):
                                    row, column = i + o // TWO, j + TWO * window + o % TWO
                                    if row < OH and column < OW:
                                        to = ((n * OH + row) * OW + column) * FILTERS + group * L1
                                        for f in range(filters):
                                            y[to + f] = sums[(FOUR * window + o) * L1 + f]

    return kernel


@functools.cache
def _backward_weights(C: int, F: int) -> Callable:
    u64 = np.uint64
    ONE, TWO, CHANNELS, FILTERS = u64(1), u64(2), u64(C), u64(F)
    L1, L2, L3, L4, L5, L6, L7, L8, L9 = (u64(LANES * i) for i in range(1, 10))
    GROUPS, GROUP = u64(-(-F // LANES)), u64(C * 9 * LANES)

    @jit_apart
    def kernel(dy, x, dw, db, start, stop, height, width, rows, columns, top, left, plane, dplane, sums):
        H, W, OH, OW = u64(height), u64(width), u64(rows), u64(columns)
        LINE = (OW + TWO) * CHANNELS
        strip = max(ONE, u64(NEAR // x.itemsize) // LINE)  # lines of dy at a time
        for n in range(u64(start), u64(stop)):
            for h in range(H):
                at, to = (n * H + h) * W * CHANNELS, (h + u64(top)) * LINE + u64(left) * CHANNELS
                for q in range(W * CHANNELS):
                    plane[to + q] = x[at + q]
            for group in range(GROUPS):
                for p in range(OH * OW):
                    at, to = (n * OH * OW + p) * FILTERS + group * L1, (group * OH * OW + p) * L1
                    for f in range(min(L1, FILTERS - group * L1)):
                        dplane[to + f] = dy[at + f]
                        db[group * L1 + f] += dy[at + f]
            for first in range(u64(0), OH, strip):
                for group in range(GROUPS):
                    for c in range(CHANNELS):
                        own = group * GROUP + c * L9
                        for k in range(L9):
                            sums[k] = dw[own + k]
                        for i in range(first, min(first + strip, OH)):
                            a, to = i * LINE + c, (group * OH + i) * OW * L1
                            b = a + LINE
                            d = b + LINE
                            for _ in range(OW):
                                for f in range(L1):
                                    g = dplane[to + f]
                                    sums[f] += plane[a] * g
                                    sums[f + L1] += plane[a + CHANNELS] * g
                                    sums[f + L2] += plane[a + CHANNELS + CHANNELS] * g
                                    sums[f + L3] += plane[b] * g
                                    sums[f + L4] += plane[b + CHANNELS] * g
                                    sums[f + L5] += plane[b + CHANNELS + CHANNELS] * g
                                    sums[f + L6] += plane[d] * g
                                    sums[f + L7] += plane[d + CHANNELS] * g
                                    sums[f + L8] += plane[d + CHANNELS + CHANNELS] * g
                                a, b, d, to = a + CHANNELS, b + CHANNELS, d + CHANNELS, to + L1
                        for k in range(L9):
                            dw[own + k] = sums[k]

    return kernel
