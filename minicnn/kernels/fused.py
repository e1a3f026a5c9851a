"""Convolution 3x3 "same" + bias + ReLU + max-pooling 2x2 in one pass over each image, for the CPU room.

Neither the column matrix nor the full-size activation is ever stored. Forward computes two neighbouring pooling windows
at a time, each with its four outputs, from the 4x6 patch of input under them:

    patch  a0 a1 a2 a3 a4 a5      windows  0 1 | 4 5     output 0 = a0*w0 + a1*w1 + a2*w2 + b0*w3 + ... + c2*w8
           b0 b1 b2 b3 b4 b5               2 3 | 6 7     output 1 = a1*w0 + a2*w1 + a3*w2 + b1*w3 + ... + c3*w8
           c0 c1 c2 c3 c4 c5                             output 2 = b0*w0 + b1*w1 + b2*w2 + c0*w3 + ... + d2*w8
           d0 d1 d2 d3 d4 d5                             output 4 = a2*w0 + ...

so 24 inputs and 9 weights make 72 products, for LANES filters at once: the 8 sums are 8 vectors that stay in registers
while c runs over the channels. What is stored is the maximum of each window, if it is positive, and which of its four
outputs it was; 4 says that ReLU held it at 0.

Backward visits the winners alone: everywhere else the gradient is exactly zero. With `at` the corner of a winner's 3x3
patch, for each filter f

    dw[f] += dy * patch(at)        three runs of 3*C numbers, one a line of the patch; the sums stay in registers
    dx's patch(at) += dy * w[f]    the same runs, the other way

Each image is first copied to a plane with a border of zeros, so that no patch needs a condition. C and F are constants
of the compiled code: with them LLVM knows how many vectors a run has. All indices are unsigned, since a signed one
costs a check for wrap-around.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import threads
from minicnn.kernels.compiler import LANES, jit_apart

DEAD = 4  # in argmax: no gradient, since the maximum was not positive


def conv2d_relu_maxpool2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convolve x (N, H, W, C), H and W even, with w (3, 3, C, F) under "same", add b (F,), apply ReLU and pool by 2.

    Returns y (N, H/2, W/2, F) and which of the four won, in the same shape: 0 to 3 in row-major order, 4 for none.
    """
    N, H, W, C = x.shape
    F = w.shape[3]
    groups = -(-F // LANES)  # of filters; the last is filled up with zeros
    weights = threads.aligned((groups, C, 9, LANES), x.dtype)
    bias = threads.aligned((groups, LANES), x.dtype)
    for g in range(groups):
        part = w[..., g * LANES : (g + 1) * LANES]  # (3, 3, C, up to LANES)
        weights[g, :, :, : part.shape[3]] = part.reshape(9, C, -1).swapaxes(0, 1)  # (C, 9, up to LANES)
        bias[g, : part.shape[3]] = b[g * LANES : (g + 1) * LANES]
    y = np.empty((N, H // 2, W // 2, F), x.dtype)
    argmax = np.empty(y.shape, np.uint8)
    arrays = [np.ascontiguousarray(x), weights, bias, y, argmax]
    flat = [array.reshape(-1) for array in arrays]  # (size,) each
    kernel, blocks = _forward(C, F), threads.blocks(N)

    def scratch() -> tuple:
        return threads.aligned(((H + 2) * (W + 4) * C,), x.dtype), threads.aligned((8 * LANES,), x.dtype)

    def task(i: int, plane: np.ndarray, sums: np.ndarray) -> None:
        kernel(*flat, *blocks[i], H, W, plane, sums)

    threads.run(task, len(blocks), scratch)
    return y, argmax


def conv2d_relu_maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """From dy (N, H/2, W/2, F): dx (N, H, W, C) or None, dw (3, 3, C, F) and db (F,), the sums over all windows."""
    N, H, W, C = x.shape
    F = w.shape[3]
    run = -(-3 * C // LANES) * LANES  # 3*C filled up to whole vectors; what is summed there is dropped
    blocks = threads.blocks(N)
    weights = threads.aligned((F, 9 * C), x.dtype)
    weights[:] = w.reshape(9 * C, F).T  # (F, 9*C)
    dx = np.empty(x.shape if input_gradient else 0, x.dtype)
    dws, dbs = threads.aligned((len(blocks), F, 3, run), x.dtype), np.zeros((len(blocks), F), x.dtype)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in (dy, argmax, x, weights, dx)]  # (size,) each
    kernel = _backward(C, F, input_gradient)

    def scratch() -> tuple:
        plane = ((H + 2) * (W + 2) * C + LANES,)  # the last run may be read beyond its end
        winners = H * W // 4 + 1
        lists = np.empty(winners, np.uint64), np.empty(winners, x.dtype)
        return threads.aligned(plane, x.dtype), threads.aligned(plane, x.dtype), *lists

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, dws[i].reshape(-1), dbs[i], *blocks[i], H, W, *own)

    threads.run(task, len(blocks), scratch)
    dw = dws.sum(axis=0)[:, :, : 3 * C].reshape(F, 9 * C).T  # (B, F, 3, run) -> (F, 3, 3*C) -> (9*C, F)
    return dx if input_gradient else None, np.ascontiguousarray(dw).reshape(w.shape), dbs.sum(axis=0)


@functools.cache
def _forward(C: int, F: int) -> Callable:
    u64 = np.uint64
    ONE, TWO, FILTERS = u64(1), u64(2), u64(F)
    C1, C2, C3, C4, C5 = (u64(C * i) for i in range(1, 6))
    L1, L2, L3, L4, L5, L6, L7, L8, L9 = (u64(LANES * i) for i in range(1, 10))
    GROUPS, GROUP = u64(-(-F // LANES)), u64(C * 9 * LANES)

    @jit_apart
    def kernel(x, weights, bias, y, argmax, start, stop, height, width, plane, sums):
        zero, H, W = x.dtype.type(0), u64(height), u64(width)
        OH, OW, LINE = H // TWO, W // TWO, (W + TWO + TWO) * C1  # room for a second window beside the last
        for n in range(u64(start), u64(stop)):
            for h in range(H):
                at, to = (n * H + h) * W * C1, (h + ONE) * LINE + C1
                for q in range(W * C1):
                    plane[to + q] = x[at + q]
            for group in range(GROUPS):
                for i in range(OH):
                    for j in range(u64(0), OW, TWO):
                        for o in range(u64(8)):
                            for f in range(L1):
                                sums[o * L1 + f] = bias[group * L1 + f]
                        for c in range(C1):
                            q = TWO * (i * LINE + j * C1) + c
                            a0, a1, a2 = plane[q], plane[q + C1], plane[q + C2]
                            a3, a4, a5 = plane[q + C3], plane[q + C4], plane[q + C5]
                            q += LINE
                            b0, b1, b2 = plane[q], plane[q + C1], plane[q + C2]
                            b3, b4, b5 = plane[q + C3], plane[q + C4], plane[q + C5]
                            q += LINE
                            c0, c1, c2 = plane[q], plane[q + C1], plane[q + C2]
                            c3, c4, c5 = plane[q + C3], plane[q + C4], plane[q + C5]
                            q += LINE
                            d0, d1, d2 = plane[q], plane[q + C1], plane[q + C2]
                            d3, d4, d5 = plane[q + C3], plane[q + C4], plane[q + C5]
                            for f in range(L1):
                                k = group * GROUP + c * L9 + f
                                w0, w1, w2 = weights[k], weights[k + L1], weights[k + L2]
                                w3, w4, w5 = weights[k + L3], weights[k + L4], weights[k + L5]
                                w6, w7, w8 = weights[k + L6], weights[k + L7], weights[k + L8]
                                # fmt: off
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
                                # fmt: on
                        for window in range(min(TWO, OW - j)):
                            to = ((n * OH + i) * OW + j + window) * FILTERS + group * L1
                            for f in range(min(L1, FILTERS - group * L1)):
                                best, winner = sums[window * L4 + f], np.uint8(0)
                                for o in range(1, 4):
                                    value = sums[window * L4 + u64(o) * L1 + f]
                                    wins = value > best or value != value
                                    best = value if wins else best
                                    winner = np.uint8(o) if wins else winner
                                y[to + f] = zero if best < zero else best
                                argmax[to + f] = winner if best > zero else np.uint8(DEAD)

    return kernel


@functools.cache
def _backward(C: int, F: int, input_gradient: bool) -> Callable:
    u64 = np.uint64
    ONE, TWO, CHANNELS, FILTERS = u64(1), u64(2), u64(C), u64(F)
    R1, R2, R3 = (u64(3 * C * i) for i in range(1, 4))
    P1, P2, P3 = (u64(-(-3 * C // LANES) * LANES * i) for i in range(1, 4))

    @jit_apart
    def kernel(dy, argmax, x, weights, dx, dw, db, start, stop, height, width, plane, dplane, corners, gradients):
        zero, H, W = x.dtype.type(0), u64(height), u64(width)
        OH, OW, LINE = H // TWO, W // TWO, (W + TWO) * CHANNELS
        for n in range(u64(start), u64(stop)):
            for h in range(H):
                at, to = (n * H + h) * W * CHANNELS, (h + ONE) * LINE + CHANNELS
                for q in range(W * CHANNELS):
                    plane[to + q] = x[at + q]
            if input_gradient:
                for q in range((H + TWO) * LINE):
                    dplane[q] = zero
            for f in range(FILTERS):
                alive = u64(0)  # list the winners first, so that the sums below are free of conditions
                k = n * OH * OW * FILTERS + f
                for i in range(OH):
                    for j in range(OW):
                        o = u64(argmax[k])
                        corners[alive] = (TWO * i + (o >> ONE)) * LINE + (TWO * j + (o & ONE)) * CHANNELS
                        gradients[alive] = dy[k]
                        alive += u64(o != u64(DEAD))
                        k += FILTERS
                total, own, row = db[f], f * P3, f * R3
                for live in range(alive):
                    at, g = corners[live], gradients[live]
                    total += g
                    for q in range(P1):
                        dw[own + q] += g * plane[at + q]
                    for q in range(P1):
                        dw[own + P1 + q] += g * plane[at + LINE + q]
                    for q in range(P1):
                        dw[own + P2 + q] += g * plane[at + LINE + LINE + q]
                db[f] = total
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
                    at, to = (h + ONE) * LINE + CHANNELS, (n * H + h) * W * CHANNELS
                    for q in range(W * CHANNELS):
                        dx[to + q] = dplane[at + q]

    return kernel
