"""Convolution 3x3 "same" + bias + ReLU + max-pooling 2x2 in one pass over each image, for the CPU room.

Neither the column matrix nor the full-size activation is ever stored. Forward, one pooled output at a time: the 4x4
patch of input under a pooling window holds all that its four outputs need,

    patch  a0 a1 a2 a3      window  0 1     output 0 = a0*w0 + a1*w1 + a2*w2 + b0*w3 + ... + c2*w8
           b0 b1 b2 b3              2 3     output 1 = a1*w0 + a2*w1 + a3*w2 + b1*w3 + ... + c3*w8
           c0 c1 c2 c3                      output 2 = b0*w0 + ...
           d0 d1 d2 d3                      output 3 = b1*w0 + ...

so 16 inputs and 9 weights make 36 products, for many filters at once. What stays is the maximum, if it is positive,
and which of the four it was; 4 says that ReLU held it at 0. Backward visits the winners alone: everywhere else the
gradient is exactly zero. A winner adds dy * patch to dw and dy * w to dx, in three runs of 3*C numbers.

C and F are constants of the compiled code: only then does LLVM know that the four sums do not overlap in memory, and
computes with whole vectors of filters.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import threads
from minicnn.kernels.compiler import jit

DEAD = 4  # in argmax: no gradient, since the maximum was not positive


def conv2d_relu_maxpool2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convolve x (N, H, W, C), H and W even, with w (3, 3, C, F) under "same", add b (F,), apply ReLU and pool by 2.

    Returns y (N, H/2, W/2, F) and which of the four won, in the same shape: 0 to 3 in row-major order, 4 for none.
    """
    N, H, W, C = x.shape
    F = w.shape[3]
    x, b = np.ascontiguousarray(x), np.ascontiguousarray(b)
    weights = np.ascontiguousarray(w.reshape(9, C, F).transpose(1, 0, 2)).reshape(-1)  # (C, 9, F) -> (C*9*F,)
    y = np.empty((N, H // 2, W // 2, F), x.dtype)
    argmax = np.empty(y.shape, np.uint8)
    kernel, blocks = _forward(C, F), threads.blocks(N)

    def task(i: int) -> None:
        part = slice(*blocks[i])
        kernel(x[part], weights, b, y[part], argmax[part])

    threads.run(task, len(blocks))
    return y, argmax


def conv2d_relu_maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """From dy (N, H/2, W/2, F): dx (N, H, W, C) or None, dw (3, 3, C, F) and db (F,), the sums over all windows."""
    N, C, F = x.shape[0], x.shape[3], w.shape[3]
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    rows = np.ascontiguousarray(w.reshape(9 * C, F).T).reshape(-1)  # (F, 9*C) -> (F*9*C,)
    dx = np.empty(x.shape if input_gradient else (N, 0, 0, 0), x.dtype)
    kernel, blocks = _backward(C, F, input_gradient), threads.blocks(N)
    dws, dbs = np.zeros((len(blocks), F * 9 * C), x.dtype), np.zeros((len(blocks), F), x.dtype)

    def task(i: int) -> None:
        part = slice(*blocks[i])
        kernel(dy[part], argmax[part], x[part], rows, dx[part], dws[i], dbs[i])

    threads.run(task, len(blocks))
    dw = dws.sum(axis=0).reshape(F, 9 * C).T.reshape(w.shape)  # (B, F*9*C) -> (F, 9*C) -> (3, 3, C, F)
    return dx if input_gradient else None, np.ascontiguousarray(dw), dbs.sum(axis=0)


_jit = functools.partial(jit, fastmath={"contract"})  # a product and its sum may be one instruction


@functools.cache
def _forward(C: int, F: int) -> Callable:
    CF, NF = np.uint64(F), np.uint64(9 * F)  # unsigned: a signed index costs a check for wrap-around

    @_jit
    def kernel(x, weights, b, y, argmax):
        N, H, W, _ = x.shape
        plane = np.zeros((H + 2, (W + 2) * C), x.dtype)  # an image with a border of zeros
        sums = np.empty(4 * F, x.dtype)
        zero = x.dtype.type(0)
        for n in range(N):
            image = x[n].reshape(H, W * C)  # (H, W*C)
            for h in range(H):
                plane[h + 1, C : (W + 1) * C] = image[h]
            for i in range(H // 2):
                p0, p1, p2, p3 = plane[2 * i], plane[2 * i + 1], plane[2 * i + 2], plane[2 * i + 3]
                for j in range(W // 2):
                    for o in range(4):
                        for f in range(CF):
                            sums[f + o * F] = b[f]
                    for c in range(C):
                        q = np.uint64(2 * j * C + c)
                        a0, a1, a2, a3 = p0[q], p0[q + C], p0[q + 2 * C], p0[q + 3 * C]
                        b0, b1, b2, b3 = p1[q], p1[q + C], p1[q + 2 * C], p1[q + 3 * C]
                        c0, c1, c2, c3 = p2[q], p2[q + C], p2[q + 2 * C], p2[q + 3 * C]
                        d0, d1, d2, d3 = p3[q], p3[q + C], p3[q + 2 * C], p3[q + 3 * C]
                        at = np.uint64(c) * NF
                        for f in range(CF):
                            k = at + f
                            w0, w1, w2 = weights[k], weights[k + F], weights[k + 2 * F]
                            w3, w4, w5 = weights[k + 3 * F], weights[k + 4 * F], weights[k + 5 * F]
                            w6, w7, w8 = weights[k + 6 * F], weights[k + 7 * F], weights[k + 8 * F]
                            sums[f] += (
                                a0 * w0 + a1 * w1 + a2 * w2 + b0 * w3 + b1 * w4 + b2 * w5 + c0 * w6 + c1 * w7 + c2 * w8
                            )
                            sums[f + F] += (
                                a1 * w0 + a2 * w1 + a3 * w2 + b1 * w3 + b2 * w4 + b3 * w5 + c1 * w6 + c2 * w7 + c3 * w8
                            )
                            sums[f + 2 * F] += (
                                b0 * w0 + b1 * w1 + b2 * w2 + c0 * w3 + c1 * w4 + c2 * w5 + d0 * w6 + d1 * w7 + d2 * w8
                            )
                            sums[f + 3 * F] += (
                                b1 * w0 + b2 * w1 + b3 * w2 + c1 * w3 + c2 * w4 + c3 * w5 + d1 * w6 + d2 * w7 + d3 * w8
                            )
                    out, place = y[n, i, j], argmax[n, i, j]
                    for f in range(CF):
                        best, winner = sums[f], np.uint8(0)
                        for o in range(1, 4):
                            value = sums[f + o * F]
                            wins = value > best or value != value
                            best = value if wins else best
                            winner = np.uint8(o) if wins else winner
                        out[f] = zero if best < zero else best
                        place[f] = winner if best > zero else np.uint8(DEAD)

    return kernel


@functools.cache
def _backward(C: int, F: int, input_gradient: bool) -> Callable:
    RUN = np.uint64(3 * C)

    @_jit
    def kernel(dy, argmax, x, rows, dx, dw, db):
        N, H, W, _ = x.shape
        OH, OW = H // 2, W // 2
        PW = (W + 2) * C
        LINE = np.uint64(PW)
        plane = np.zeros((H + 2) * PW, x.dtype)
        dplane = np.zeros((H + 2) * PW, x.dtype)
        corners, gradients = np.empty(OH * OW, np.uint64), np.empty(OH * OW, x.dtype)
        for n in range(N):
            image = x[n].reshape(H * W * C)  # (H*W*C,)
            for h in range(H):
                plane[(h + 1) * PW + C : (h + 1) * PW + (W + 1) * C] = image[h * W * C : (h + 1) * W * C]
            if input_gradient:
                dplane[:] = 0
            for f in range(F):
                alive = 0  # list the winners first, so that the sums below are free of conditions
                for i in range(OH):
                    for j in range(OW):
                        k = np.int64(argmax[n, i, j, f])
                        corners[alive] = np.uint64((2 * i + k // 2) * PW + (2 * j + k % 2) * C)  # its 3x3 patch begins
                        gradients[alive] = dy[n, i, j, f]
                        alive += k != DEAD
                own, weights = dw[f * 9 * C : (f + 1) * 9 * C], rows[f * 9 * C : (f + 1) * 9 * C]
                for live in range(alive):
                    at, g = corners[live], gradients[live]
                    db[f] += g
                    for q in range(RUN):
                        own[q] += g * plane[at + q]
                        own[q + 3 * C] += g * plane[at + LINE + q]
                        own[q + 6 * C] += g * plane[at + LINE + LINE + q]
                if input_gradient:
                    for live in range(alive):
                        g = gradients[live]
                        for u in range(3):
                            at, row = corners[live] + np.uint64(u) * LINE, np.uint64(u) * RUN
                            for q in range(RUN):
                                dplane[at + q] += g * weights[row + q]
            if input_gradient:
                target = dx[n].reshape(H * W * C)  # (H*W*C,)
                for h in range(H):
                    target[h * W * C : (h + 1) * W * C] = dplane[(h + 1) * PW + C : (h + 1) * PW + (W + 1) * C]

    return kernel
