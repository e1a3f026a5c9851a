"""Convolution 3x3 without strides by 16 products where the plain sum has 36, for the CPU room.

Winograd's minimal filtering F(2x2, 3x3): for each pair of a channel and a filter, a tile of 2x2 outputs follows from a
tile d of 4x4 pixels as

    y = A^T [(G w G^T) * (B^T d B)] A        where * is element by element

           1   0  -1   0           1    0    0
    B^T =  0   1   1   0      G = 1/2  1/2  1/2      A^T =  1   1   1   0
           0  -1   1   0          1/2 -1/2  1/2             0   1  -1  -1
           0   1   0  -1           0    0    1

A and B take additions alone, and d is transformed once for all filters. For each of the 16 places p of a tile, the sum
over channels is then a matrix product over many tiles:

    forward    M[p] (tiles, F) = V[p] (tiles, C) @ U[p] (C, F)       V = B^T d B, U = G w G^T, y = A^T M A
    backward   U'[p] (C, F) = V[p]^T (C, tiles) @ E[p] (tiles, F)    E = A dy A^T, dw = G^T U' G

dx is a convolution of dy: the forward again. The factors 1/2 are exact, so that the results are those of the plain sums
but for rounding, which is about as large. What this does not suit, `direct` computes: few channels, and stages with
pooling, where another rounding can move a maximum and with it the gradient.

Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016, arXiv:1509.09308.
"""

import functools
from collections.abc import Callable

import numpy as np

from minicnn.kernels import buffers, direct, threads
from minicnn.kernels.compiler import jit_apart
from minicnn.kernels.direct import lanes_of, unsigned

Pair = tuple[int, int]

FEW = 32  # channels or filters: below, transforming the tiles costs nearly what the products save
NEAR = 600_000  # bytes of transformed tiles that are worked on at a time: they fit into the second cache


def suits(w_shape: tuple, strides: Pair) -> bool:
    """Return whether a convolution with such a kernel (KH, KW, C, F) is computed here."""
    return tuple(w_shape[:2]) == (3, 3) and tuple(strides) == (1, 1) and min(w_shape[2:]) >= FEW


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray, strides: Pair, corner: Pair, size: Pair) -> np.ndarray:
    """Compute what `direct.correlate` does."""
    if not suits(w.shape, strides):
        return direct.correlate(x, w, b, strides, corner, size)[0]
    N, H, W, C = x.shape
    (OH, OW), F = size, w.shape[3]
    y = buffers.empty((N, OH, OW, F), x.dtype)
    lanes, blocks = lanes_of(F, x.dtype), threads.blocks(N)
    groups, TH, TW = -(-F // lanes), -(-OH // 2), -(-OW // 2)
    tiles = _tiles_at_once(blocks, TH * TW, 16 * (C + lanes) * x.itemsize)
    filters, bias = buffers.zeros((groups, 16, C, lanes), x.dtype), buffers.zeros((groups * lanes,), x.dtype)
    bias[:F] = b
    _transform_filters(np.ascontiguousarray(w).reshape(-1), filters.reshape(-1), *unsigned((C, F, groups, lanes)))
    flat = [np.ascontiguousarray(a).reshape(-1) for a in (x, filters, bias, y)]  # (size,) each
    sizes = unsigned((H, W, C), (OH, OW, F), corner, (TH, TW, tiles))
    kernel = _forward(lanes)

    def scratch() -> tuple:
        numbers = (2 * TH + 2) * (2 * TW + 2) * C, 16 * tiles * C, 16 * tiles * lanes, 8 * lanes
        return tuple(buffers.zeros((count,), x.dtype) for count in numbers)

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, *unsigned(blocks[i])[0], sizes, *own)

    threads.run(task, len(blocks), scratch)
    return y


def gradient_of_weights(
    dy: np.ndarray, x: np.ndarray, w_shape: tuple, strides: Pair, corner: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what `direct.gradient_of_weights` does."""
    if not suits(w_shape, strides):
        return direct.gradient_of_weights(dy, x, w_shape, strides, corner)
    (N, H, W, C), (_, OH, OW, F) = x.shape, dy.shape
    lanes, blocks = lanes_of(F, x.dtype), threads.blocks(N)
    groups, TH, TW = -(-F // lanes), -(-OH // 2), -(-OW // 2)
    wide = -(-C // 8) * 8  # filled up to whole steps of 8; what is summed there is dropped
    tiles = _tiles_at_once(blocks, TH * TW, 16 * (wide + groups * lanes) * x.itemsize)
    dws, dbs = buffers.empty((len(blocks), 9, C, F), x.dtype), buffers.zeros((len(blocks), F), x.dtype)
    flat = [np.ascontiguousarray(a).reshape(-1) for a in (dy, x)]  # (size,) each
    sizes = unsigned((H, W, C), (OH, OW, F), corner, (TH, TW, tiles))
    kernel = _backward(lanes)

    def scratch() -> tuple:
        planes = (2 * TH + 2) * (2 * TW + 2) * C, 2 * TH * 2 * TW * F
        numbers = 16 * tiles * wide, 16 * tiles * groups * lanes, groups * 16 * wide * lanes, 8 * lanes
        return tuple(buffers.zeros((count,), x.dtype) for count in (*planes, *numbers))

    def task(i: int, *own: np.ndarray) -> None:
        kernel(*flat, dws[i].reshape(-1), dbs[i], *unsigned(blocks[i])[0], sizes, *own)

    threads.run(task, len(blocks), scratch)
    return dws.sum(axis=0).reshape(w_shape), dbs.sum(axis=0)  # (9, C, F) -> (3, 3, C, F), (F,)


def gradient_of_input(dy: np.ndarray, w: np.ndarray, corner: Pair, size: Pair) -> np.ndarray:
    """From dy (N, OH, OW, F): dx (N, H, W, C) of `size` (H, W), for strides of 1 and any kernel."""
    turned = w[::-1, ::-1].swapaxes(2, 3)  # (KH, KW, F, C)
    before = w.shape[0] - 1 - corner[0], w.shape[1] - 1 - corner[1]
    return correlate(dy, turned, np.zeros(w.shape[2], w.dtype), (1, 1), before, size)


def _tiles_at_once(blocks: list[Pair], of_image: int, size: int) -> int:
    """Return how many tiles, of so many bytes each, are transformed before their products: a multiple of 8."""
    most = max((stop - start for start, stop in blocks), default=1) * of_image
    return 8 * max(1, min(-(-most // 8), NEAR // size // 8))


@jit_apart
def _transform_filters(w, filters, sizes):
    """U = G w G^T, from w (3, 3, C, F) to (groups, 16, C, lanes)."""
    C, F, groups, lanes = sizes
    half, PLACE, TO = w.dtype.type(0.5), C * F, C * lanes
    for group in range(groups):
        for c in range(C):
            at, to = c * F + group * lanes, (group * np.uint64(16) * C + c) * lanes
            for f in range(min(lanes, F - group * lanes)):
                a0, a1, a2 = w[at + f], w[at + f + np.uint64(1) * PLACE], w[at + f + np.uint64(2) * PLACE]
                b0, b1, b2 = (
                    w[at + f + np.uint64(3) * PLACE],
                    w[at + f + np.uint64(4) * PLACE],
                    w[at + f + np.uint64(5) * PLACE],
                )
                c0, c1, c2 = (
                    w[at + f + np.uint64(6) * PLACE],
                    w[at + f + np.uint64(7) * PLACE],
                    w[at + f + np.uint64(8) * PLACE],
                )
                filters[to + f] = a0
                filters[to + f + np.uint64(1) * TO] = half * (a0 + a1 + a2)
                filters[to + f + np.uint64(2) * TO] = half * (a0 - a1 + a2)
                filters[to + f + np.uint64(3) * TO] = a2
                k0, k1, k2 = half * (a0 + b0 + c0), half * (a1 + b1 + c1), half * (a2 + b2 + c2)
                filters[to + f + np.uint64(4) * TO] = k0
                filters[to + f + np.uint64(5) * TO] = half * (k0 + k1 + k2)
                filters[to + f + np.uint64(6) * TO] = half * (k0 - k1 + k2)
                filters[to + f + np.uint64(7) * TO] = k2
                k0, k1, k2 = half * (a0 - b0 + c0), half * (a1 - b1 + c1), half * (a2 - b2 + c2)
                filters[to + f + np.uint64(8) * TO] = k0
                filters[to + f + np.uint64(9) * TO] = half * (k0 + k1 + k2)
                filters[to + f + np.uint64(10) * TO] = half * (k0 - k1 + k2)
                filters[to + f + np.uint64(11) * TO] = k2
                filters[to + f + np.uint64(12) * TO] = c0
                filters[to + f + np.uint64(13) * TO] = half * (c0 + c1 + c2)
                filters[to + f + np.uint64(14) * TO] = half * (c0 - c1 + c2)
                filters[to + f + np.uint64(15) * TO] = c2


@jit_apart
def _transform_tiles(x, plane, v, start, first, count, sizes, wide):
    """V = B^T d B for the tiles `first` to `first` + `count` of the images from `start` on: v (16, tiles, wide)."""
    (H, W, C), _, (top, left), (TH, TW, tiles) = sizes
    one, two = np.uint64(1), np.uint64(2)
    LINE, OF_IMAGE, V, C2, C3 = two * (TW + one) * C, TH * TW, tiles * wide, C + C, C + C + C
    R1, R2, R3 = LINE, LINE + LINE, LINE + LINE + LINE
    for t in range(count):
        n, place = start + (first + t) // OF_IMAGE, (first + t) % OF_IMAGE
        if place == np.uint64(0) or t == np.uint64(0):  # the next image, with a border of zeros
            for h in range(min(H, two * (TH + one) - top)):
                at, to = (n * H + h) * W * C, (h + top) * LINE + left * C
                for r in range(min(W, two * (TW + one) - left) * C):
                    plane[to + r] = x[at + r]
        at, to = two * (place // TW) * LINE + two * (place % TW) * C, t * wide
        for c in range(C):
            i, o = at + c, to + c
            a0, a1, a2, a3 = plane[i], plane[i + C], plane[i + C2], plane[i + C3]
            b0, b1, b2, b3 = plane[i + R1], plane[i + R1 + C], plane[i + R1 + C2], plane[i + R1 + C3]
            c0, c1, c2, c3 = plane[i + R2], plane[i + R2 + C], plane[i + R2 + C2], plane[i + R2 + C3]
            d0, d1, d2, d3 = plane[i + R3], plane[i + R3 + C], plane[i + R3 + C2], plane[i + R3 + C3]
            k0, k1, k2, k3 = a0 - c0, a1 - c1, a2 - c2, a3 - c3
            v[o] = k0 - k2
            v[o + V] = k1 + k2
            v[o + np.uint64(2) * V] = k2 - k1
            v[o + np.uint64(3) * V] = k1 - k3
            k0, k1, k2, k3 = b0 + c0, b1 + c1, b2 + c2, b3 + c3
            v[o + np.uint64(4) * V] = k0 - k2
            v[o + np.uint64(5) * V] = k1 + k2
            v[o + np.uint64(6) * V] = k2 - k1
            v[o + np.uint64(7) * V] = k1 - k3
            k0, k1, k2, k3 = c0 - b0, c1 - b1, c2 - b2, c3 - b3
            v[o + np.uint64(8) * V] = k0 - k2
            v[o + np.uint64(9) * V] = k1 + k2
            v[o + np.uint64(10) * V] = k2 - k1
            v[o + np.uint64(11) * V] = k1 - k3
            k0, k1, k2, k3 = b0 - d0, b1 - d1, b2 - d2, b3 - d3
            v[o + np.uint64(12) * V] = k0 - k2
            v[o + np.uint64(13) * V] = k1 + k2
            v[o + np.uint64(14) * V] = k2 - k1
            v[o + np.uint64(15) * V] = k1 - k3


@functools.cache
def _forward(lanes: int) -> Callable:
    u64 = np.uint64
    ONE, TWO, FOUR, EIGHT, PLACES = u64(1), u64(2), u64(4), u64(8), u64(16)
    L1, L2, L3, L4, L5, L6, L7, L8 = (u64(lanes * i) for i in range(1, 9))
    P2, P3, P5, P6, P7, P8, P9 = (u64(i) for i in (2, 3, 5, 6, 7, 8, 9))
    P10, P11, P12, P13, P14, P15 = (u64(i) for i in range(10, 16))

    @jit_apart
    def kernel(x, filters, bias, y, start, stop, sizes, plane, v, m, sums):
        (_, _, C), (OH, OW, F), _, (TH, TW, tiles) = sizes
        zero, OF_IMAGE, V, M = x.dtype.type(0), TH * TW, tiles * C, tiles * L1
        C2, C3, C4 = C + C, C + C + C, C + C + C + C
        C5, C6, C7 = C4 + C, C4 + C2, C4 + C3
        total = (stop - start) * OF_IMAGE
        for first in range(u64(0), total, tiles):
            count = min(tiles, total - first)
            _transform_tiles(x, plane, v, start, first, count, sizes, C)
            for group in range((F + L1 - ONE) // L1):
                for p in range(PLACES):
                    for t in range(u64(0), count, EIGHT):  # 8 tiles at a time, the last ones perhaps of no image
                        for k in range(L8):
                            sums[k] = zero
                        a, k = p * V + t * C, (group * PLACES + p) * C * L1
                        for _ in range(C):
                            for f in range(L1):
                                weight = filters[k + f]
                                sums[f] += v[a] * weight
                                sums[f + L1] += v[a + C] * weight
                                sums[f + L2] += v[a + C2] * weight
                                sums[f + L3] += v[a + C3] * weight
                                sums[f + L4] += v[a + C4] * weight
                                sums[f + L5] += v[a + C5] * weight
                                sums[f + L6] += v[a + C6] * weight
                                sums[f + L7] += v[a + C7] * weight
                            a, k = a + ONE, k + L1
                        for k in range(L8):
                            m[p * M + t * L1 + k] = sums[k]
                filters_left = min(L1, F - group * L1)
                for t in range(count):
                    n, place = start + (first + t) // OF_IMAGE, (first + t) % OF_IMAGE
                    i, j = TWO * (place // TW), TWO * (place % TW)
                    for f in range(L1):
                        q, shift = t * L1 + f, bias[group * L1 + f]
                        a0 = m[q] + m[q + FOUR * M] + m[q + P8 * M]
                        a1 = m[q + M] + m[q + P5 * M] + m[q + P9 * M]
                        a2 = m[q + P2 * M] + m[q + P6 * M] + m[q + P10 * M]
                        a3 = m[q + P3 * M] + m[q + P7 * M] + m[q + P11 * M]
                        b0 = m[q + FOUR * M] - m[q + P8 * M] - m[q + P12 * M]
                        b1 = m[q + P5 * M] - m[q + P9 * M] - m[q + P13 * M]
                        b2 = m[q + P6 * M] - m[q + P10 * M] - m[q + P14 * M]
                        b3 = m[q + P7 * M] - m[q + P11 * M] - m[q + P15 * M]
                        sums[f], sums[f + L1] = a0 + a1 + a2 + shift, a1 - a2 - a3 + shift
                        sums[f + L2], sums[f + L3] = b0 + b1 + b2 + shift, b1 - b2 - b3 + shift
                    for o in range(FOUR):
                        if i + o // TWO < OH and j + o % TWO < OW:
                            to = ((n * OH + i + o // TWO) * OW + j + o % TWO) * F + group * L1
                            for f in range(filters_left):
                                y[to + f] = sums[o * L1 + f]

    return kernel


@functools.cache
def _backward(lanes: int) -> Callable:
    u64 = np.uint64
    ONE, TWO, EIGHT, PLACES = u64(1), u64(2), u64(8), u64(16)
    L1, L2, L3, L4, L5, L6, L7, L8 = (u64(lanes * i) for i in range(1, 9))
    R1, R2, R3, R4, R5, R6, R7 = (u64(i) for i in range(1, 8))

    @jit_apart
    def kernel(dy, x, dw, db, start, stop, sizes, plane, dplane, v, e, u, sums):
        (_, _, C), (OH, OW, F), _, (TH, TW, tiles) = sizes
        zero, GROUPS, WIDE = x.dtype.type(0), (F + L1 - ONE) // L1, (C + EIGHT - ONE) // EIGHT * EIGHT
        OF_IMAGE, LINE, V, E, EDGE = TH * TW, TWO * TW * F, tiles * WIDE, tiles * GROUPS * L1, GROUPS * L1
        total = (stop - start) * OF_IMAGE
        for q in range(GROUPS * PLACES * WIDE * L1):
            u[q] = zero
        for first in range(u64(0), total, tiles):
            count = min(tiles, total - first)
            _transform_tiles(x, plane, v, start, first, count, sizes, WIDE)
            for t in range(count):  # E = A dy A^T
                n, place = start + (first + t) // OF_IMAGE, (first + t) % OF_IMAGE
                if place == u64(0) or t == u64(0):  # the next image, with zeros behind an odd size
                    for h in range(OH):
                        for r in range(OW * F):
                            dplane[h * LINE + r] = dy[(n * OH + h) * OW * F + r]
                at, to = TWO * (place // TW) * LINE + TWO * (place % TW) * F, t * EDGE
                for f in range(F):
                    i, o = at + f, to + f
                    a0, a1, b0, b1 = dplane[i], dplane[i + F], dplane[i + LINE], dplane[i + LINE + F]
                    e[o] = a0
                    e[o + E] = a0 + a1
                    e[o + u64(2) * E] = a0 - a1
                    e[o + u64(3) * E] = -a1
                    k0, k1 = a0 + b0, a1 + b1
                    e[o + u64(4) * E] = k0
                    e[o + u64(5) * E] = k0 + k1
                    e[o + u64(6) * E] = k0 - k1
                    e[o + u64(7) * E] = -k1
                    k0, k1 = a0 - b0, a1 - b1
                    e[o + u64(8) * E] = k0
                    e[o + u64(9) * E] = k0 + k1
                    e[o + u64(10) * E] = k0 - k1
                    e[o + u64(11) * E] = -k1
                    e[o + u64(12) * E] = -b0
                    e[o + u64(13) * E] = -b0 - b1
                    e[o + u64(14) * E] = b1 - b0
                    e[o + u64(15) * E] = b1
                    db[f] += a0 + a1 + b0 + b1
            for p in range(PLACES):
                for group in range(GROUPS):
                    for c in range(u64(0), WIDE, EIGHT):
                        own = ((group * PLACES + p) * WIDE + c) * L1
                        for k in range(L8):
                            sums[k] = u[own + k]
                        a, to = p * V + c, p * E + group * L1
                        for _ in range(count):
                            for f in range(L1):
                                g = e[to + f]
                                sums[f] += v[a] * g
                                sums[f + L1] += v[a + R1] * g
                                sums[f + L2] += v[a + R2] * g
                                sums[f + L3] += v[a + R3] * g
                                sums[f + L4] += v[a + R4] * g
                                sums[f + L5] += v[a + R5] * g
                                sums[f + L6] += v[a + R6] * g
                                sums[f + L7] += v[a + R7] * g
                            a, to = a + WIDE, to + EDGE
                        for k in range(L8):
                            u[own + k] = sums[k]
        _transform_back(u, dw, (C, F, GROUPS, L1), WIDE)

    return kernel


@jit_apart
def _transform_back(u, dw, sizes, wide):
    """Compute dw = G^T U' G, from (groups, 16, wide, lanes) to (3, 3, C, F)."""
    C, F, groups, lanes = sizes
    half, PLACE, TO = u.dtype.type(0.5), wide * lanes, C * F
    for group in range(groups):
        for c in range(C):
            at, to = (group * np.uint64(16) * wide + c) * lanes, c * F + group * lanes
            for f in range(min(lanes, F - group * lanes)):
                q, o = at + f, to + f
                k0, k1, k2, k3 = (
                    u[q],
                    u[q + np.uint64(4) * PLACE],
                    u[q + np.uint64(8) * PLACE],
                    u[q + np.uint64(12) * PLACE],
                )
                a0, b0, c0 = k0 + half * (k1 + k2), half * (k1 - k2), half * (k1 + k2) + k3
                k0, k1, k2, k3 = (
                    u[q + PLACE],
                    u[q + np.uint64(5) * PLACE],
                    u[q + np.uint64(9) * PLACE],
                    u[q + np.uint64(13) * PLACE],
                )
                a1, b1, c1 = k0 + half * (k1 + k2), half * (k1 - k2), half * (k1 + k2) + k3
                k0, k1, k2, k3 = (
                    u[q + np.uint64(2) * PLACE],
                    u[q + np.uint64(6) * PLACE],
                    u[q + np.uint64(10) * PLACE],
                    u[q + np.uint64(14) * PLACE],
                )
                a2, b2, c2 = k0 + half * (k1 + k2), half * (k1 - k2), half * (k1 + k2) + k3
                k0, k1, k2, k3 = (
                    u[q + np.uint64(3) * PLACE],
                    u[q + np.uint64(7) * PLACE],
                    u[q + np.uint64(11) * PLACE],
                    u[q + np.uint64(15) * PLACE],
                )
                a3, b3, c3 = k0 + half * (k1 + k2), half * (k1 - k2), half * (k1 + k2) + k3
                dw[o] = a0 + half * (a1 + a2)
                dw[o + TO] = half * (a1 - a2)
                dw[o + np.uint64(2) * TO] = half * (a1 + a2) + a3
                dw[o + np.uint64(3) * TO] = b0 + half * (b1 + b2)
                dw[o + np.uint64(4) * TO] = half * (b1 - b2)
                dw[o + np.uint64(5) * TO] = half * (b1 + b2) + b3
                dw[o + np.uint64(6) * TO] = c0 + half * (c1 + c2)
                dw[o + np.uint64(7) * TO] = half * (c1 - c2)
                dw[o + np.uint64(8) * TO] = half * (c1 + c2) + c3
