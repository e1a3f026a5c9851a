"""The CPU room: Numba loops and BLAS matrix products, parallel over images.

Arrays are NHWC and contiguous. `strides` is (SH, SW); `pads` is ((top, bottom), (left, right)), each smaller than the
kernel. A convolution turns every window of its input into a row of `cols` (im2col) and is then one matrix product:

    y (N*OH*OW, F) = cols (N*OH*OW, KH*KW*C) @ w (KH*KW*C, F) + b (F,)

`cols` would be KH*KW times as large as x, so `direct` computes the same sums straight from the image, and `fused` adds
ReLU and pooling. Only dx with strides is made from a gradient of `cols`: in tiles of a few output lines that stay in
cache, added to dx by im2col's transpose.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minicnn.kernels import buffers, compiler, threads, winograd
from minicnn.kernels.fused import conv2d_relu_maxpool2d, conv2d_relu_maxpool2d_backward  # noqa: F401 - doors too

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Arrays = Sequence[np.ndarray]

TILE_ROWS = 512  # rows of cols in one matrix product: at 288 columns of float32, 590 KB
PRODUCTS = 1 << 21  # of a part of a dense layer: about 50 microseconds
CHUNK = 1 << 18  # elements of an element-wise operation that one task takes
LANES = 32  # sums that a sum of squares is made of: so many, side by side, a processor adds at once
UPDATES = 1 << 20  # weights that one task updates at most: fewer are done before a second thread has begun


def run_step(step: Callable[..., Any], owner: Any, describe: Callable[[], Any], *arrays: np.ndarray) -> Any:
    """Return ``step(*arrays)``, BLAS held to one thread once for all of it, and not once for each kernel."""
    with threads.single_threaded_blas():
        return step(*arrays)


def ahead(batches: Iterator) -> Iterator:
    """Give the batches: they are where they are computed with."""
    return batches


def im2col(x: np.ndarray, kernel_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Lay every window of x (N, H, W, C) out as a row: cols (N*OH*OW, KH*KW*C), zeros where it meets the padding."""
    OH, OW = _output_size(x.shape, kernel_size, strides, pads)
    cols = buffers.empty((x.shape[0] * OH * OW, kernel_size[0] * kernel_size[1] * x.shape[3]), x.dtype)
    _im2col(x, cols, 0, x.shape[0] * OH, OH, OW, kernel_size, strides, pads)
    return cols  # (N*OH*OW, KH*KW*C)


def col2im(cols: np.ndarray, x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Add every row of cols (N*OH*OW, KH*KW*C) back to where im2col read it: x (N, H, W, C), im2col's transpose."""
    OH, OW = _output_size(x_shape, kernel_size, strides, pads)
    x = buffers.zeros(x_shape, cols.dtype)
    _col2im(cols, x, 0, x_shape[0] * OH, OH, OW, kernel_size, strides, pads)
    return x  # (N, H, W, C)


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray, strides: Pair, pads: Pads) -> np.ndarray:
    """Correlate x (N, H, W, C) with w (KH, KW, C, F) and add b (F,): y (N, OH, OW, F)."""
    size = _output_size(x.shape, w.shape[:2], strides, pads)
    return winograd.correlate(x, w, b, strides, (pads[0][0], pads[1][0]), size)


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, strides: Pair, pads: Pads, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over all windows.

    dy (N, OH, OW, F), x and dx (N, H, W, C), w and dw (KH, KW, C, F), db (F,).
    """
    corner = pads[0][0], pads[1][0]
    dw, db = winograd.gradient_of_weights(dy, x, w.shape, strides, corner)
    if not input_gradient:
        return None, dw, db
    if tuple(strides) == (1, 1):
        return winograd.gradient_of_input(dy, w, corner, x.shape[1:3]), dw, db
    return _strided_gradient_of_input(dy, x.shape, w, strides, pads), dw, db


def _strided_gradient_of_input(dy: np.ndarray, x_shape: tuple, w: np.ndarray, strides: Pair, pads: Pads) -> np.ndarray:
    KH, KW, C, F = w.shape
    dy, matrix = np.ascontiguousarray(dy), w.reshape(KH * KW * C, F)  # (KH*KW*C, F)
    dx = buffers.zeros(x_shape, dy.dtype)
    blocks = threads.blocks(x_shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        _conv2d_backward_input(dy[start:stop], matrix, dx[start:stop], (KH, KW), strides, pads)

    threads.run(task, len(blocks))
    return dx


def maxpool2d(x: np.ndarray, pool_size: Pair, strides: Pair, pads: Pads) -> tuple[np.ndarray, np.ndarray]:
    """Take the maximum of each window of x (N, H, W, C): y and its place u*PW + v in the window, both (N, OH, OW, C).

    The first maximum in row-major order wins a tie, padding never wins, and the first NaN wins over every number.
    """
    OH, OW = _output_size(x.shape, pool_size, strides, pads)
    x = np.ascontiguousarray(x)
    y = buffers.empty((x.shape[0], OH, OW, x.shape[3]), x.dtype)
    argmax = buffers.empty(y.shape, np.int32)
    blocks = threads.blocks(x.shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        _maxpool2d(x[start:stop], y[start:stop], argmax[start:stop], pool_size, strides, pads)

    threads.run(task, len(blocks))
    return y, argmax


def maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads
) -> np.ndarray:
    """Send each dy to the place of its maximum and add where windows overlap: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C); argmax (N, OH, OW, C), as `maxpool2d` gave it.
    """
    dy = np.ascontiguousarray(dy)
    dx = buffers.zeros(x_shape, dy.dtype)
    blocks = threads.blocks(dy.shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        _maxpool2d_backward(dy[start:stop], argmax[start:stop], dx[start:stop], pool_size, strides, pads)

    threads.run(task, len(blocks))
    return dx  # (N, H, W, C)


def averagepool2d(x: np.ndarray, pool_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Take the mean of each window of x (N, H, W, C): y (N, OH, OW, C); only pixels inside the image count."""
    OH, OW = _output_size(x.shape, pool_size, strides, pads)
    x = np.ascontiguousarray(x)
    y = buffers.zeros((x.shape[0], OH, OW, x.shape[3]), x.dtype)
    blocks = threads.blocks(x.shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        _averagepool2d(x[start:stop], y[start:stop], pool_size, strides, pads)

    threads.run(task, len(blocks))
    return y


def averagepool2d_backward(dy: np.ndarray, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Share each dy (N, OH, OW, C) equally among its window's pixels: dx (N, H, W, C), of x's shape.

    Pixels outside the image get nothing; where windows overlap, their shares add up.
    """
    dy = np.ascontiguousarray(dy)
    dx = buffers.zeros(x_shape, dy.dtype)
    blocks = threads.blocks(dy.shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        _averagepool2d_backward(dy[start:stop], dx[start:stop], pool_size, strides, pads)

    threads.run(task, len(blocks))
    return dx  # (N, H, W, C)


def dense(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return y (N, Out) = x (N, In) @ w (In, Out) + b (Out,)."""
    y = buffers.empty((len(x), w.shape[1]), x.dtype)
    columns = _parts(w.shape[1], x.size)

    def task(i: int) -> None:
        part = columns[i]
        np.matmul(x, w[:, part], out=y[:, part])  # (N, In) @ (In, part) -> (N, part)
        y[:, part] += b[part]

    threads.run(task, len(columns))
    return y


def dense_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over the batch.

    dy (N, Out), x and dx (N, In), w and dw (In, Out), db (Out,).
    """
    dw, dx = buffers.empty(w.shape, w.dtype), buffers.empty(x.shape if input_gradient else (0, 0), x.dtype)
    rows = _parts(w.shape[0], dy.size)

    def task(i: int) -> None:
        part = rows[i]
        np.matmul(x[:, part].T, dy, out=dw[part])  # (part, N) @ (N, Out) -> (part, Out)
        if input_gradient:
            np.matmul(dy, w[part].T, out=dx[:, part])  # (N, Out) @ (Out, part) -> (N, part)

    threads.run(task, len(rows))
    return dx if input_gradient else None, dw, dy.sum(axis=0)


def rescale(x: np.ndarray, scale: float, offset: float, dtype: str) -> np.ndarray:
    """Return x * scale + offset for x (...) of any numbers, computed in `dtype`, a float type."""
    y = buffers.empty(x.shape, dtype)
    _elementwise(_rescale, x, y, y.dtype.type(scale), y.dtype.type(offset))
    return y


def relu(x: np.ndarray, in_place: bool = False) -> np.ndarray:
    """Return max(x, 0) for each element of x (...), which `in_place` may overwrite; a NaN stays a NaN."""
    y = x if in_place and x.flags.c_contiguous else buffers.empty(x.shape, x.dtype)
    _elementwise(_relu, x, y)
    return y


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return dy (...) where y (...) is positive, else 0: at 0 itself the gradient is 0."""
    dx = buffers.empty(dy.shape, dy.dtype)
    _elementwise(_relu_backward, dy, y, dx)
    return dx


def leaky_relu(x: np.ndarray, negative_slope: float) -> np.ndarray:
    """Return x where x (...) is positive, else negative_slope * x."""
    y = buffers.empty(x.shape, x.dtype)
    _elementwise(_leaky_relu, x, y, x.dtype.type(negative_slope))
    return y


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray, negative_slope: float) -> np.ndarray:
    """Return dy (...) where y (...) is positive, else negative_slope * dy: also at 0 itself."""
    dx = buffers.empty(dy.shape, dy.dtype)
    _elementwise(_leaky_relu_backward, dy, y, dx, dy.dtype.type(negative_slope))
    return dx


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x * P(Z < x) for each element of x (...), Z a normal variable: P(Z < x) = erfc(-x / sqrt(2)) / 2."""
    y = buffers.empty(x.shape, x.dtype)
    _elementwise(_gelu, x, y)
    return y


def gelu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return dy * (P(Z < x) + x * p(x)) for dy and x (...), p(x) = exp(-x^2 / 2) / sqrt(2 * pi), the slope of P."""
    dx = buffers.empty(dy.shape, dy.dtype)
    _elementwise(_gelu_backward, dy, x, dx)
    return dx


def softmax(z: np.ndarray) -> np.ndarray:
    """Return exp(z) / sum(exp(z)) over the last axis of z (..., K), shifted by the maximum: nothing overflows."""
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def softmax_backward(dy: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return dz = p * (dy - sum(dy * p)), dy and p (..., K), over the last axis: dy times the softmax's Jacobian."""
    return p * (dy - (dy * p).sum(axis=-1, keepdims=True))


def softmax_crossentropy(z: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses log(sum(exp(z))) - sum(t * z), (N,), and the gradient of their mean, dz (N, K), both stable.

    z (N, K) are logits, labels (N,) integers from 0 to K-1. The targets t are smoothing / K, at the label 1 - smoothing
    more: without smoothing, the losses are log(sum(exp(z))) - z[label].
    """
    rows = np.arange(len(z))
    shifted = z - z.max(axis=1, keepdims=True)  # (N, K)
    dz = np.exp(shifted)
    total = dz.sum(axis=1)  # (N,)
    losses = np.log(total) - (1 - smoothing) * shifted[rows, labels]  # (N,)
    dz /= total[:, None]
    dz[rows, labels] -= 1 - smoothing
    if smoothing:
        losses -= smoothing / z.shape[1] * shifted.sum(axis=1)
        dz -= smoothing / z.shape[1]
    dz /= len(z)
    return losses, dz


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the biased variance of each channel of x (..., C), both (C,) and float64."""
    rows, C = _by_places(x), x.shape[-1]
    origin = rows[0, 0].astype(np.float64) if x.size else np.zeros(C)  # near the mean: the squares do not cancel
    sums = _channel_sums(_moments, C, rows, origin=origin)
    first, second = sums / max(1, x.size // C)  # (C,) each
    return origin + first, second - first * first


def normalize(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return y = (x - mean) * scale + shift, channel by channel: x and y (..., C); mean, scale and shift (C,)."""
    y = buffers.empty(x.shape, x.dtype)
    vectors = [vector.astype(x.dtype) for vector in (mean, scale, shift)]
    _by_images(_normalize, x.shape, (x, y), vectors)
    return y


def normalize_sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of dy and of dy * (x - mean) over each channel, both (C,) and float64.

    dy and x (..., C), mean (C,).
    """
    sums = _channel_sums(_normalize_sums, x.shape[-1], _by_places(dy), _by_places(x), origin=mean.astype(np.float64))
    first, second = sums  # (C,) each
    return first, second


def normalize_backward(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Return dx (..., C) = dy * a + (x - mean) * b + c, channel by channel.

    dy and x (..., C); mean, a, b and c (C,).
    """
    dx = buffers.empty(x.shape, x.dtype)
    vectors = [vector.astype(x.dtype) for vector in (mean, a, b, c)]
    _by_images(_normalize_backward, x.shape, (dy, x, dx), vectors)
    return dx


def dropout(x: np.ndarray, kept: np.ndarray, scale: float) -> np.ndarray:
    """Return x * scale where `kept`, of bools, is true, else 0; x and kept (...)."""
    y = buffers.empty(x.shape, x.dtype)
    _elementwise(_dropout, x, kept, y, x.dtype.type(scale))
    return y


def gather_pixels(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return y (N, OH, OW, C), y[n,i,j] = x[n, rows[n,i], cols[n,j]], or 0 where an index is -1.

    x (N, H, W, C) of bytes or floats, rows (N, OH) and cols (N, OW) of int32.
    """
    y = buffers.empty((x.shape[0], rows.shape[1], cols.shape[1], x.shape[3]), x.dtype)
    _each_image(_gather_pixels, x, rows, cols, y)
    return y


def gather_pixels_backward(dy: np.ndarray, rows: np.ndarray, cols: np.ndarray, x_shape: tuple) -> np.ndarray:
    """Add each dy to where `gather_pixels` read it: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C), rows (N, OH) and cols (N, OW) of int32.
    """
    dx = buffers.zeros(x_shape, dy.dtype)
    _each_image(_gather_pixels_backward, dy, rows, cols, dx)
    return dx


def cutout(x: np.ndarray, boxes: np.ndarray, value: float) -> np.ndarray:
    """Return x with `value` in the box of each image: its rows top to bottom - 1 and columns left to right - 1.

    x (N, H, W, C) of bytes or floats, boxes (N, 4) of int32: top, bottom, left and right, inside the image.
    """
    y = buffers.empty(x.shape, x.dtype)
    np.copyto(y, x)
    for image, (top, bottom, left, right) in zip(y, boxes.tolist(), strict=True):
        image[top:bottom, left:right] = value
    return y


def clip_by_norm(dws: Arrays, limit: float, together: bool) -> Arrays:
    """Return dws, each scaled down to a norm (root of the sum of squares) of `limit` if its norm is larger.

    dws (...) is a sequence of arrays, which are left as they are. `together`, the norm is that of all in one.
    """
    totals = _square_sums_of(dws)
    norms = np.sqrt(totals.sum() if together else totals) + np.zeros(len(dws))  # (arrays,)
    return [_scaled(dw, limit / max(norm, limit)) for dw, norm in zip(dws, norms.tolist(), strict=True)]


def decay(ws: Arrays, rate: float) -> None:
    """In place: w -= rate * w.

    ws (...) is a sequence of arrays.
    """
    _update(_decay, (ws,), rate)


def concatenate(xs: Arrays, axis: int) -> np.ndarray:
    """Return the arrays xs (N, ...) one behind the other along `axis` >= 1, in which alone they may differ."""
    ends = list(itertools.accumulate(x.shape[axis] for x in xs))
    shape = list(xs[0].shape)
    shape[axis] = ends[-1]
    y = buffers.empty(tuple(shape), xs[0].dtype)
    before = (slice(None),) * (axis - 1)  # the axes between the first and this one
    blocks = threads.blocks(shape[0])

    def task(i: int) -> None:
        images = slice(*blocks[i])
        for x, end in zip(xs, ends, strict=True):
            y[images, *before, end - x.shape[axis] : end] = x[images]

    threads.run(task, len(blocks))
    return y


def sgd_step(
    ws: Arrays, dws: Arrays, velocities: Arrays, learning_rate: float, momentum: float, nesterov: bool
) -> None:
    """In place: velocity = momentum * velocity - lr * dw; w += velocity (Nesterov: momentum * velocity - lr * dw).

    ws, dws and velocities (...) are sequences of arrays; those at one place have one shape.
    """
    _update(_sgd_step, (ws, dws, velocities), learning_rate, momentum, nesterov)


def rmsprop_step(ws: Arrays, dws: Arrays, squares: Arrays, learning_rate: float, rho: float, epsilon: float) -> None:
    """In place: square = rho * square + (1 - rho) * dw^2; w -= lr * dw / sqrt(square + epsilon).

    ws, dws and squares (...) are sequences of arrays; those at one place have one shape.
    """
    _update(_rmsprop_step, (ws, dws, squares), learning_rate, rho, 1 - rho, epsilon)


def adam_step(
    ws: Arrays, dws: Arrays, means: Arrays, squares: Arrays,
    learning_rate: float, beta_1: float, beta_2: float, epsilon: float,
) -> None:  # fmt: skip
    """In place: mean += (1 - beta_1) * (dw - mean), and square likewise; w -= lr * mean / (sqrt(square) + epsilon).

    ws, dws, means and squares (...) are sequences of arrays; those at one place have one shape. squares are the means
    of dw^2. lr is corrected, for means that began at 0, already.
    """
    _update(_adam_step, (ws, dws, means, squares), learning_rate, 1 - beta_1, 1 - beta_2, epsilon)


def _square_sums_of(dws: Arrays) -> np.ndarray:
    """Return the sum of the squares of each array, (arrays,) of float64: of parts that do not depend on the threads."""
    parts = [(k, dw.ravel()[at : at + CHUNK]) for k, dw in enumerate(dws) for at in range(0, dw.size, CHUNK)]
    sums, totals = np.zeros((len(parts), LANES)), np.zeros(len(dws))
    threads.run(lambda i: _square_sums(parts[i][1], sums[i]), len(parts))
    for (k, _), own in zip(parts, sums, strict=True):
        totals[k] += own.sum()
    return totals


def _scaled(dw: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return dw
    y = buffers.empty(dw.shape, dw.dtype)
    _elementwise(_scale, dw, y, dw.dtype.type(factor))
    return y


def _update(kernel, columns: Sequence[Arrays], *numbers: float) -> None:
    """Call the kernel on weights, the first column, and on what belongs to each of them."""
    ws = columns[0]
    own = [w.ravel() for w in ws]  # w itself, unless somebody put it into the layer in another order
    for number in {w.dtype.type for w in ws}:  # in the weights' own precision, which is one, as a rule
        alike = [w.dtype == number for w in ws]
        flat = [tuple(a.ravel() for a in itertools.compress(column, alike)) for column in (own, *columns[1:])]
        _in_parts(kernel, flat, [number(value) for value in numbers])
    for w, copy in zip(ws, own, strict=True):
        if not w.flags.c_contiguous:
            w[...] = copy.reshape(w.shape)


def _in_parts(kernel, columns: Sequence[tuple[np.ndarray, ...]], numbers: Sequence[float]) -> None:
    """Call the kernel on even parts of all the weights, as if they lay one behind the other."""
    size = sum(w.size for w in columns[0])
    count = -(-size // UPDATES)

    def task(i: int) -> None:
        kernel(*columns, i * size // count, (i + 1) * size // count, *numbers)

    threads.run(task, count)


def _parts(size: int, products: int) -> list[slice]:
    """Cut an axis, each of whose elements takes so many products, for threads: at most 8 parts, each worth a thread."""
    count = min(8, max(1, size * products // PRODUCTS))
    return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]


def _output_size(x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> Pair:
    OH, OW = ((x_shape[1 + a] + sum(pads[a]) - kernel_size[a]) // strides[a] + 1 for a in (0, 1))
    return OH, OW


def _by_places(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])  # (N, places, C)


def _channel_sums(kernel, C: int, *arrays: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return the two sums (2, C) that a kernel makes over images and places of arrays (N, places, C)."""
    blocks = threads.blocks(len(arrays[0]))
    sums = np.zeros((len(blocks), 2, C))

    def task(i: int) -> None:
        start, stop = blocks[i]
        kernel(*(a[start:stop].reshape(-1, C) for a in arrays), origin, sums[i])  # (rows, C) each

    threads.run(task, len(blocks))
    return sums.sum(axis=0)


def _by_images(kernel, shape: tuple, arrays: Sequence[np.ndarray], vectors: Sequence[np.ndarray]) -> None:
    """Call the kernel on the images of each block, as rows of channels, and on the vectors (C,)."""
    rows = [_by_places(a) for a in arrays]  # (N, places, C) each
    blocks = threads.blocks(shape[0])

    def task(i: int) -> None:
        start, stop = blocks[i]
        kernel(*(a[start:stop].reshape(-1, shape[-1]) for a in rows), *vectors)  # (rows, C) each

    threads.run(task, len(blocks))


def _each_image(kernel, *arrays: np.ndarray) -> None:
    """Call the kernel on the images of parts of the arrays (N, ...), each part worth a task."""
    whole = [np.ascontiguousarray(a) for a in arrays]
    N, count = len(whole[0]), -(-whole[0].size // CHUNK)

    def task(i: int) -> None:
        kernel(*(a[i * N // count : (i + 1) * N // count] for a in whole))

    threads.run(task, count)


def _elementwise(kernel, x: np.ndarray, *others) -> None:
    """Call the kernel on parts of x and of other arrays of its shape; numbers among them are passed as they are."""
    arguments = [np.ascontiguousarray(a).reshape(-1) if isinstance(a, np.ndarray) else a for a in (x, *others)]

    def task(i: int) -> None:
        part = slice(i * CHUNK, (i + 1) * CHUNK)
        kernel(*[a[part] if isinstance(a, np.ndarray) else a for a in arguments])

    threads.run(task, -(-x.size // CHUNK))


@compiler.jit
def _im2col(x, cols, start, stop, OH, OW, kernel_size, strides, pads):
    """Fill cols with the windows of the output lines start..stop, line l being row l % OH of image l // OH."""
    (KH, KW), (SH, SW), top, left = kernel_size, strides, pads[0][0], pads[1][0]
    _, H, W, C = x.shape
    source, target = x.reshape(x.size), cols.reshape(cols.size)  # (N*H*W*C,), (rows*KH*KW*C,)
    run = np.uint64(KW * C)  # neighbours in x are neighbours in cols: a line of a window is one run
    for line in range(start, stop):
        n, i = line // OH, line % OH
        for u in range(KH):
            h = i * SH + u - top
            for j in range(OW):
                k = j * SW - left  # the column of x under the window's left edge
                at, to = ((n * H + h) * W + k) * C, (((line - start) * OW + j) * KH + u) * KW * C
                if 0 <= h < H and k >= 0 and k + KW <= W:
                    at_, to_ = np.uint64(at), np.uint64(to)  # unsigned: a signed index costs a check for wrap-around
                    for q in range(run):
                        target[to_ + q] = source[at_ + q]
                else:
                    for v in range(KW):
                        inside = 0 <= h < H and 0 <= k + v < W
                        for q in range(v * C, (v + 1) * C):
                            target[to + q] = source[at + q] if inside else 0


@compiler.jit
def _col2im(cols, x, start, stop, OH, OW, kernel_size, strides, pads):
    """Add the rows of the output lines start..stop to x: the loops of _im2col with source and target exchanged."""
    (KH, KW), (SH, SW), top, left = kernel_size, strides, pads[0][0], pads[1][0]
    _, H, W, C = x.shape
    source, target = cols.reshape(cols.size), x.reshape(x.size)  # (rows*KH*KW*C,), (N*H*W*C,)
    run = np.uint64(KW * C)
    for line in range(start, stop):
        n, i = line // OH, line % OH
        for u in range(max(0, top - i * SH), min(KH, H + top - i * SH)):
            h = i * SH + u - top
            for j in range(OW):
                k = j * SW - left
                at, to = (((line - start) * OW + j) * KH + u) * KW * C, ((n * H + h) * W + k) * C
                if k >= 0 and k + KW <= W:
                    at_, to_ = np.uint64(at), np.uint64(to)
                    for q in range(run):
                        target[to_ + q] += source[at_ + q]
                else:
                    for q in range(max(0, -k) * C, min(KW, W - k) * C):
                        target[to + q] += source[at + q]


@compiler.jit
def _conv2d_backward_input(dy, matrix, dx, kernel_size, strides, pads):
    N, OH, OW, F = dy.shape
    lines = max(1, TILE_ROWS // OW)
    dcols = np.empty((lines * OW, matrix.shape[0]), dy.dtype)
    rows = dy.reshape(N * OH * OW, F)  # (N*OH*OW, F)
    for start in range(0, N * OH, lines):
        stop = min(start + lines, N * OH)
        tile = dcols[: (stop - start) * OW]
        np.dot(rows[start * OW : stop * OW], matrix.T, tile)  # (rows, F) @ (F, KH*KW*C) -> (rows, KH*KW*C)
        _col2im(tile, dx, start, stop, OH, OW, kernel_size, strides, pads)


@compiler.jit
def _maxpool2d(x, y, argmax, pool_size, strides, pads):
    (PH, PW), (SH, SW), top, left = pool_size, strides, pads[0][0], pads[1][0]
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for n in range(N):
        for i in range(OH):
            u0, u1 = max(0, top - i * SH), min(PH, H + top - i * SH)
            for j in range(OW):
                v0, v1 = max(0, left - j * SW), min(PW, W + left - j * SW)
                best, place = y[n, i, j], argmax[n, i, j]
                best[:] = x[n, i * SH + u0 - top, j * SW + v0 - left]
                place[:] = u0 * PW + v0
                for u in range(u0, u1):
                    for v in range(v0, v1):
                        values = x[n, i * SH + u - top, j * SW + v - left]
                        here = np.int32(u * PW + v)
                        for c in range(C):  # both always stored: LLVM then does many channels at once
                            wins = values[c] > best[c] or (values[c] != values[c] and best[c] == best[c])
                            best[c] = values[c] if wins else best[c]
                            place[c] = here if wins else place[c]


@compiler.jit
def _maxpool2d_backward(dy, argmax, dx, pool_size, strides, pads):
    (PH, PW), (SH, SW), top, left = pool_size, strides, pads[0][0], pads[1][0]
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1], dx.shape[2]
    zero = dy.dtype.type(0)
    for n in range(N):
        for i in range(OH):
            for j in range(OW):
                part, place = dy[n, i, j], argmax[n, i, j]
                for u in range(max(0, top - i * SH), min(PH, H + top - i * SH)):
                    for v in range(max(0, left - j * SW), min(PW, W + left - j * SW)):
                        target = dx[n, i * SH + u - top, j * SW + v - left]
                        here = np.int32(u * PW + v)
                        for c in range(C):
                            target[c] += part[c] if place[c] == here else zero


@compiler.jit
def _averagepool2d(x, y, pool_size, strides, pads):
    (PH, PW), (SH, SW), top, left = pool_size, strides, pads[0][0], pads[1][0]
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for n in range(N):
        for i in range(OH):
            u0, u1 = max(0, top - i * SH), min(PH, H + top - i * SH)
            for j in range(OW):
                v0, v1 = max(0, left - j * SW), min(PW, W + left - j * SW)
                mean = y[n, i, j]
                for u in range(u0, u1):
                    for v in range(v0, v1):
                        values = x[n, i * SH + u - top, j * SW + v - left]
                        for c in range(C):
                            mean[c] += values[c]
                count = y.dtype.type((u1 - u0) * (v1 - v0))
                for c in range(C):
                    mean[c] /= count


@compiler.jit
def _averagepool2d_backward(dy, dx, pool_size, strides, pads):
    (PH, PW), (SH, SW), top, left = pool_size, strides, pads[0][0], pads[1][0]
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1], dx.shape[2]
    share = np.empty(C, dy.dtype)
    for n in range(N):
        for i in range(OH):
            u0, u1 = max(0, top - i * SH), min(PH, H + top - i * SH)
            for j in range(OW):
                v0, v1 = max(0, left - j * SW), min(PW, W + left - j * SW)
                count = dy.dtype.type((u1 - u0) * (v1 - v0))
                for c in range(C):
                    share[c] = dy[n, i, j, c] / count
                for u in range(u0, u1):
                    for v in range(v0, v1):
                        target = dx[n, i * SH + u - top, j * SW + v - left]
                        for c in range(C):
                            target[c] += share[c]


@compiler.jit
def _rescale(x, y, scale, offset):
    for i in range(x.size):
        y[i] = y.dtype.type(x[i]) * scale + offset


@compiler.jit
def _relu(x, y):
    zero = x.dtype.type(0)  # a plain 0 would make every element a float64
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]


@compiler.jit
def _relu_backward(dy, y, dx):
    zero = dy.dtype.type(0)
    for i in range(dy.size):
        dx[i] = dy[i] if y[i] > zero else zero


@compiler.jit
def _leaky_relu(x, y, negative_slope):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] if x[i] > zero else negative_slope * x[i]


@compiler.jit
def _leaky_relu_backward(dy, y, dx, negative_slope):
    zero = dy.dtype.type(0)
    for i in range(dy.size):
        dx[i] = dy[i] if y[i] > zero else negative_slope * dy[i]


@compiler.jit
def _gelu(x, y):
    half, root = x.dtype.type(0.5), x.dtype.type(math.sqrt(0.5))
    for i in range(x.size):
        y[i] = half * x[i] * math.erfc(-root * x[i])


@compiler.jit
def _gelu_backward(dy, x, dx):
    half, root, peak = x.dtype.type(0.5), x.dtype.type(math.sqrt(0.5)), x.dtype.type(1 / math.sqrt(2 * math.pi))
    for i in range(dy.size):
        below, density = half * math.erfc(-root * x[i]), peak * math.exp(-half * x[i] * x[i])
        dx[i] = dy[i] * (below + x[i] * density)


@compiler.jit_apart
def _moments(x, origin, sums):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            d = np.float64(x[r, c]) - origin[c]
            sums[0, c] += d
            sums[1, c] += d * d


@compiler.jit_apart
def _normalize(x, y, mean, scale, shift):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[r, c] = (x[r, c] - mean[c]) * scale[c] + shift[c]


@compiler.jit_apart
def _normalize_sums(dy, x, origin, sums):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            sums[0, c] += np.float64(dy[r, c])
            sums[1, c] += np.float64(dy[r, c]) * (np.float64(x[r, c]) - origin[c])


@compiler.jit_apart
def _normalize_backward(dy, x, dx, mean, a, b, c):
    for r in range(x.shape[0]):
        for k in range(x.shape[1]):
            dx[r, k] = dy[r, k] * a[k] + (x[r, k] - mean[k]) * b[k] + c[k]


@compiler.jit
def _dropout(x, kept, y, scale):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] * scale if kept[i] else zero


@compiler.jit
def _gather_pixels(x, rows, cols, y):
    N, OH, OW, C = y.shape
    zero = x.dtype.type(0)
    for n in range(N):
        for i in range(OH):
            h = rows[n, i]
            for c in range(C):  # outside: channels are few, and the inner loop should be long
                for j in range(OW):
                    k = cols[n, j]
                    y[n, i, j, c] = x[n, h, k, c] if h >= 0 and k >= 0 else zero


@compiler.jit
def _gather_pixels_backward(dy, rows, cols, dx):
    N, OH, OW, C = dy.shape
    for n in range(N):
        for i in range(OH):
            for j in range(OW):
                h, k = rows[n, i], cols[n, j]
                if h >= 0 and k >= 0:
                    for c in range(C):
                        dx[n, h, k, c] += dy[n, i, j, c]


@compiler.jit_apart
def _square_sums(x, sums):
    rows = x.size // LANES
    for r in range(rows):
        for c in range(LANES):
            sums[c] += np.float64(x[r * LANES + c]) * np.float64(x[r * LANES + c])
    for i in range(rows * LANES, x.size):
        sums[0] += np.float64(x[i]) * np.float64(x[i])


@compiler.jit
def _scale(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor


# The updates below are of the elements start..stop of all weights, one array behind the other.


@compiler.jit
def _decay(ws, start, stop, rate):
    for k in range(len(ws)):
        w = ws[k][max(start, 0) : max(stop, 0)]
        for i in range(w.size):
            w[i] -= rate * w[i]
        start, stop = start - ws[k].size, stop - ws[k].size


@compiler.jit
def _sgd_step(ws, dws, velocities, start, stop, learning_rate, momentum, nesterov):
    for k in range(len(ws)):
        part = slice(max(start, 0), max(stop, 0))
        w, dw, velocity = ws[k][part], dws[k][part], velocities[k][part]
        for i in range(w.size):
            step = learning_rate * dw[i]
            new = momentum * velocity[i] - step
            velocity[i] = new
            w[i] += momentum * new - step if nesterov else new
        start, stop = start - ws[k].size, stop - ws[k].size


@compiler.jit_dividing
def _rmsprop_step(ws, dws, squares, start, stop, learning_rate, rho, rest, epsilon):
    for k in range(len(ws)):
        part = slice(max(start, 0), max(stop, 0))
        w, dw, square = ws[k][part], dws[k][part], squares[k][part]
        for i in range(w.size):
            new = rho * square[i] + rest * (dw[i] * dw[i])
            square[i] = new
            w[i] -= learning_rate * dw[i] / np.sqrt(new + epsilon)
        start, stop = start - ws[k].size, stop - ws[k].size


@compiler.jit_dividing
def _adam_step(ws, dws, means, squares, start, stop, learning_rate, rest_1, rest_2, epsilon):
    for k in range(len(ws)):
        part = slice(max(start, 0), max(stop, 0))
        w, dw, mean, square = ws[k][part], dws[k][part], means[k][part], squares[k][part]
        for i in range(w.size):
            new, power = mean[i] + rest_1 * (dw[i] - mean[i]), square[i] + rest_2 * (dw[i] * dw[i] - square[i])
            mean[i], square[i] = new, power
            w[i] -= learning_rate * new / (np.sqrt(power) + epsilon)
        start, stop = start - ws[k].size, stop - ws[k].size
