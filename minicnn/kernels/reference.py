"""The same doors as plain loops over plain definitions: slow, obvious, the oracle of the tests and the lesson.

Everything follows from one sum, y[n,i,j,f] = b[f] + sum over u,v,c of x[n, SH*i+u-top, SW*j+v-left, c] * w[u,v,c,f].
A gradient re-reads it: fix one input, weight or bias, and collect every term in which it occurs.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Arrays = Sequence[np.ndarray]


def im2col(x: np.ndarray, kernel_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Lay every window of x (N, H, W, C) out as a row: cols (N*OH*OW, KH*KW*C), zeros where it meets the padding."""
    (OH, OW), (KH, KW), C = _output_size(x.shape, kernel_size, strides, pads), kernel_size, x.shape[3]
    cols = np.zeros((x.shape[0] * OH * OW, KH * KW * C), x.dtype)
    for n, i, j, u, v, h, k in _meetings(x.shape, kernel_size, strides, pads):
        for c in range(C):
            cols[(n * OH + i) * OW + j, (u * KW + v) * C + c] = x[n, h, k, c]
    return cols


def col2im(cols: np.ndarray, x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Add every row of cols (N*OH*OW, KH*KW*C) back to where im2col read it: x (N, H, W, C), im2col's transpose."""
    (OH, OW), KW, C = _output_size(x_shape, kernel_size, strides, pads), kernel_size[1], x_shape[3]
    x = np.zeros(x_shape, cols.dtype)
    for n, i, j, u, v, h, k in _meetings(x_shape, kernel_size, strides, pads):
        for c in range(C):
            x[n, h, k, c] += cols[(n * OH + i) * OW + j, (u * KW + v) * C + c]
    return x


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray, strides: Pair, pads: Pads) -> np.ndarray:
    """Correlate x (N, H, W, C) with w (KH, KW, C, F) and add b (F,): y (N, OH, OW, F)."""
    KH, KW, C, F = w.shape
    y = np.zeros((x.shape[0], *_output_size(x.shape, (KH, KW), strides, pads), F), x.dtype)
    y += b
    for n, i, j, u, v, h, k in _meetings(x.shape, (KH, KW), strides, pads):
        for c in range(C):
            for f in range(F):
                y[n, i, j, f] += x[n, h, k, c] * w[u, v, c, f]
    return y


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, strides: Pair, pads: Pads, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over all windows.

    dy (N, OH, OW, F), x and dx (N, H, W, C), w and dw (KH, KW, C, F), db (F,).
    """
    KH, KW, C, F = w.shape
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(F, x.dtype)
    for n, i, j, f in np.ndindex(dy.shape):
        db[f] += dy[n, i, j, f]
    for n, i, j, u, v, h, k in _meetings(x.shape, (KH, KW), strides, pads):
        for c in range(C):
            for f in range(F):
                dx[n, h, k, c] += w[u, v, c, f] * dy[n, i, j, f]
                dw[u, v, c, f] += x[n, h, k, c] * dy[n, i, j, f]
    return dx if input_gradient else None, dw, db


def maxpool2d(x: np.ndarray, pool_size: Pair, strides: Pair, pads: Pads) -> tuple[np.ndarray, np.ndarray]:
    """Take the maximum of each window of x (N, H, W, C): y and its place u*PW + v in the window, both (N, OH, OW, C).

    The first maximum in row-major order wins a tie, padding never wins, and the first NaN wins over every number.
    """
    y = np.zeros((x.shape[0], *_output_size(x.shape, pool_size, strides, pads), x.shape[3]), x.dtype)
    argmax = np.full(y.shape, -1, np.int32)
    for n, i, j, u, v, h, k in _meetings(x.shape, pool_size, strides, pads):
        for c in range(x.shape[3]):
            value = x[n, h, k, c]
            best = y[n, i, j, c]
            if argmax[n, i, j, c] < 0 or value > best or (math.isnan(value) and not math.isnan(best)):
                y[n, i, j, c], argmax[n, i, j, c] = value, u * pool_size[1] + v
    return y, argmax


def maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads
) -> np.ndarray:
    """Send each dy to the place of its maximum and add where windows overlap: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C); argmax (N, OH, OW, C), as `maxpool2d` gave it.
    """
    dx = np.zeros(x_shape, dy.dtype)
    for n, i, j, u, v, h, k in _meetings(x_shape, pool_size, strides, pads):
        for c in range(x_shape[3]):
            if argmax[n, i, j, c] == u * pool_size[1] + v:
                dx[n, h, k, c] += dy[n, i, j, c]
    return dx


def averagepool2d(x: np.ndarray, pool_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Take the mean of each window of x (N, H, W, C): y (N, OH, OW, C); only pixels inside the image count."""
    y = np.zeros((x.shape[0], *_output_size(x.shape, pool_size, strides, pads), x.shape[3]), x.dtype)
    count = np.zeros((*y.shape[:3], 1), x.dtype)  # pixels inside the image, window by window
    for n, i, j, _, _, h, k in _meetings(x.shape, pool_size, strides, pads):
        count[n, i, j] += 1
        for c in range(x.shape[3]):
            y[n, i, j, c] += x[n, h, k, c]
    return y / count


def averagepool2d_backward(dy: np.ndarray, x_shape: tuple, pool_size: Pair, strides: Pair, pads: Pads) -> np.ndarray:
    """Share each dy (N, OH, OW, C) equally among its window's pixels: dx (N, H, W, C), of x's shape.

    Pixels outside the image get nothing; where windows overlap, their shares add up.
    """
    dx, count = np.zeros(x_shape, dy.dtype), np.zeros(dy.shape[:3], dy.dtype)
    for n, i, j, *_ in _meetings(x_shape, pool_size, strides, pads):
        count[n, i, j] += 1
    for n, i, j, _, _, h, k in _meetings(x_shape, pool_size, strides, pads):
        for c in range(x_shape[3]):
            dx[n, h, k, c] += dy[n, i, j, c] / count[n, i, j]
    return dx


def conv2d_relu_maxpool2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convolve x (N, H, W, C), H and W even, with w (3, 3, C, F) under "same", add b (F,), apply ReLU and pool by 2.

    Returns y (N, H/2, W/2, F) and which of the four won, in the same shape: 0 to 3 in row-major order, 4 for none.
    """
    y, argmax = maxpool2d(relu(conv2d(x, w, b, (1, 1), ((1, 1), (1, 1)))), (2, 2), (2, 2), ((0, 0), (0, 0)))
    return y, np.where(y > 0, argmax, 4).astype(np.uint8)


def conv2d_relu_maxpool2d_backward(
    dy: np.ndarray, argmax: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over all windows.

    dy and argmax (N, H/2, W/2, F), x and dx (N, H, W, C), w and dw (3, 3, C, F), db (F,).
    """
    dz_shape = (*x.shape[:3], w.shape[3])
    dz = maxpool2d_backward(np.where(argmax < 4, dy, 0), argmax, dz_shape, (2, 2), (2, 2), ((0, 0), (0, 0)))
    return conv2d_backward(dz, x, w, (1, 1), ((1, 1), (1, 1)), input_gradient)


def dense(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return y (N, Out) = x (N, In) @ w (In, Out) + b (Out,)."""
    y = np.zeros((len(x), w.shape[1]), x.dtype)
    for n, o in np.ndindex(y.shape):
        y[n, o] = b[o] + sum(x[n, i] * w[i, o] for i in range(w.shape[0]))
    return y


def dense_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, input_gradient: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return dx or None, dw and db, the sums over the batch.

    dy (N, Out), x and dx (N, In), w and dw (In, Out), db (Out,).
    """
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(w.shape[1], x.dtype)
    for n, o in np.ndindex(dy.shape):
        db[o] += dy[n, o]
        for i in range(w.shape[0]):
            dx[n, i] += w[i, o] * dy[n, o]
            dw[i, o] += x[n, i] * dy[n, o]
    return dx if input_gradient else None, dw, db


def rescale(x: np.ndarray, scale: float, offset: float, dtype: str) -> np.ndarray:
    """Return x * scale + offset for x (...) of any numbers, computed in `dtype`, a float type."""
    y = np.zeros(x.shape, dtype)
    for at in np.ndindex(x.shape):
        y[at] = y.dtype.type(x[at]) * y.dtype.type(scale) + y.dtype.type(offset)
    return y


def relu(x: np.ndarray, in_place: bool = False) -> np.ndarray:
    """Return max(x, 0) for each element of x (...), which `in_place` may overwrite; a NaN stays a NaN."""
    y = x if in_place else np.zeros_like(x)
    for at in np.ndindex(x.shape):
        y[at] = 0 if x[at] < 0 else x[at]
    return y


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return dy (...) where y (...) is positive, else 0: at 0 itself the gradient is 0."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        dx[at] = dy[at] if y[at] > 0 else 0
    return dx


def leaky_relu(x: np.ndarray, negative_slope: float) -> np.ndarray:
    """Return x where x (...) is positive, else negative_slope * x."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        y[at] = x[at] if x[at] > 0 else x.dtype.type(negative_slope) * x[at]
    return y


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray, negative_slope: float) -> np.ndarray:
    """Return dy (...) where y (...) is positive, else negative_slope * dy: also at 0 itself."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        dx[at] = dy[at] if y[at] > 0 else dy.dtype.type(negative_slope) * dy[at]
    return dx


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x * P(Z < x) for each element of x (...), Z a normal variable: P(Z < x) = erfc(-x / sqrt(2)) / 2."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        value = float(x[at])
        y[at] = value * math.erfc(-value / math.sqrt(2)) / 2
    return y


def gelu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return dy * (P(Z < x) + x * p(x)) for dy and x (...), p(x) = exp(-x^2 / 2) / sqrt(2 * pi), the slope of P."""
    dx = np.zeros_like(dy)
    for at in np.ndindex(dy.shape):
        value = float(x[at])
        below, density = math.erfc(-value / math.sqrt(2)) / 2, math.exp(-value * value / 2) / math.sqrt(2 * math.pi)
        dx[at] = float(dy[at]) * (below + value * density)
    return dx


def softmax(z: np.ndarray) -> np.ndarray:
    """Return exp(z) / sum(exp(z)) over the last axis of z (..., K), shifted by the maximum: nothing overflows."""
    p = np.zeros_like(z)
    for at in np.ndindex(z.shape[:-1]):
        powers = [math.exp(value - max(z[at])) for value in z[at]]
        p[at] = [power / sum(powers) for power in powers]
    return p


def softmax_backward(dy: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return dz = p * (dy - sum(dy * p)), dy and p (..., K), over the last axis: dy times the softmax's Jacobian."""
    dz = np.zeros_like(p)
    for at in np.ndindex(p.shape[:-1]):
        for a in range(p.shape[-1]):
            for b in range(p.shape[-1]):
                dz[(*at, a)] += dy[(*at, b)] * p[(*at, b)] * ((a == b) - p[(*at, a)])
    return dz


def softmax_crossentropy(z: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses log(sum(exp(z))) - sum(t * z), (N,), and the gradient of their mean, dz (N, K), both stable.

    z (N, K) are logits, labels (N,) integers from 0 to K-1. The targets t are smoothing / K, at the label 1 - smoothing
    more: without smoothing, the losses are log(sum(exp(z))) - z[label].
    """
    N, K = z.shape
    losses, dz = np.zeros(N, z.dtype), np.zeros_like(z)
    for n in range(N):
        peak = max(z[n])
        total = sum(math.exp(value - peak) for value in z[n])
        targets = [(1 - smoothing) * (k == labels[n]) + smoothing / K for k in range(K)]
        losses[n] = math.log(total) + sum(t * (peak - value) for t, value in zip(targets, z[n], strict=True) if t)
        for k in range(K):
            dz[n, k] = (math.exp(z[n, k] - peak) / total - targets[k]) / N
    return losses, dz


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the biased variance of each channel of x (..., C), both (C,) and float64."""
    C = x.shape[-1]
    mean, variance, count = np.zeros(C), np.zeros(C), max(1, x.size // C)
    for at in np.ndindex(x.shape):
        mean[at[-1]] += float(x[at]) / count
    for at in np.ndindex(x.shape):
        variance[at[-1]] += (float(x[at]) - mean[at[-1]]) ** 2 / count
    return mean, variance


def normalize(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return y = (x - mean) * scale + shift, channel by channel: x and y (..., C); mean, scale and shift (C,)."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        c = at[-1]
        y[at] = (x[at] - mean[c]) * scale[c] + shift[c]
    return y


def normalize_sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of dy and of dy * (x - mean) over each channel, both (C,) and float64.

    dy and x (..., C), mean (C,).
    """
    first, second = np.zeros(x.shape[-1]), np.zeros(x.shape[-1])
    for at in np.ndindex(x.shape):
        c = at[-1]
        first[c] += float(dy[at])
        second[c] += float(dy[at]) * (float(x[at]) - float(mean[c]))
    return first, second


def normalize_backward(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Return dx (..., C) = dy * a + (x - mean) * b + c, channel by channel.

    dy and x (..., C); mean, a, b and c (C,).
    """
    dx = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        k = at[-1]
        dx[at] = dy[at] * a[k] + (x[at] - mean[k]) * b[k] + c[k]
    return dx


def dropout(x: np.ndarray, kept: np.ndarray, scale: float) -> np.ndarray:
    """Return x * scale where `kept`, of bools, is true, else 0; x and kept (...)."""
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        y[at] = x[at] * scale if kept[at] else 0
    return y


def gather_pixels(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return y (N, OH, OW, C), y[n,i,j] = x[n, rows[n,i], cols[n,j]], or 0 where an index is -1.

    x (N, H, W, C) of bytes or floats, rows (N, OH) and cols (N, OW) of int32.
    """
    y = np.zeros((x.shape[0], rows.shape[1], cols.shape[1], x.shape[3]), x.dtype)
    for n, i, j, c in np.ndindex(y.shape):
        if rows[n, i] != -1 and cols[n, j] != -1:
            y[n, i, j, c] = x[n, rows[n, i], cols[n, j], c]
    return y


def gather_pixels_backward(dy: np.ndarray, rows: np.ndarray, cols: np.ndarray, x_shape: tuple) -> np.ndarray:
    """Add each dy to where `gather_pixels` read it: dx (N, H, W, C), of x's shape.

    dy (N, OH, OW, C), rows (N, OH) and cols (N, OW) of int32.
    """
    dx = np.zeros(x_shape, dy.dtype)
    for n, i, j, c in np.ndindex(dy.shape):
        if rows[n, i] != -1 and cols[n, j] != -1:
            dx[n, rows[n, i], cols[n, j], c] += dy[n, i, j, c]
    return dx


def cutout(x: np.ndarray, boxes: np.ndarray, value: float) -> np.ndarray:
    """Return x with `value` in the box of each image: its rows top to bottom - 1 and columns left to right - 1.

    x (N, H, W, C) of bytes or floats, boxes (N, 4) of int32: top, bottom, left and right, inside the image.
    """
    y = np.zeros_like(x)
    for n, h, k, c in np.ndindex(x.shape):
        top, bottom, left, right = boxes[n]
        y[n, h, k, c] = value if top <= h < bottom and left <= k < right else x[n, h, k, c]
    return y


def clip_by_norm(dws: Arrays, limit: float, together: bool) -> Arrays:
    """Return dws, each scaled down to a norm (root of the sum of squares) of `limit` if its norm is larger.

    dws (...) is a sequence of arrays, which are left as they are. `together`, the norm is that of all in one.
    """
    sums = [sum(float(number) ** 2 for number in dw.flat) for dw in dws]
    norms = [math.sqrt(sum(sums) if together else own) for own in sums]
    return [dw * (limit / norm) if norm > limit else dw.copy() for dw, norm in zip(dws, norms, strict=True)]


def decay(ws: Arrays, rate: float) -> None:
    """In place: w -= rate * w.

    ws (...) is a sequence of arrays.
    """
    for w in ws:
        for at in np.ndindex(w.shape):
            w[at] -= rate * w[at]


def concatenate(xs: Arrays, axis: int) -> np.ndarray:
    """Return the arrays xs (N, ...) one behind the other along `axis` >= 1, in which alone they may differ."""
    ends = list(itertools.accumulate(x.shape[axis] for x in xs))
    shape = list(xs[0].shape)
    shape[axis] = ends[-1]
    y = np.zeros(shape, xs[0].dtype)
    for x, end in zip(xs, ends, strict=True):
        for at in np.ndindex(x.shape):
            to = list(at)
            to[axis] += end - x.shape[axis]
            y[tuple(to)] = x[at]
    return y


def sgd_step(
    ws: Arrays, dws: Arrays, velocities: Arrays, learning_rate: float, momentum: float, nesterov: bool
) -> None:
    """In place: velocity = momentum * velocity - lr * dw; w += velocity (Nesterov: momentum * velocity - lr * dw).

    ws, dws and velocities (...) are sequences of arrays; those at one place have one shape.
    """
    for w, dw, velocity in zip(ws, dws, velocities, strict=True):
        for at in np.ndindex(w.shape):
            velocity[at] = momentum * velocity[at] - learning_rate * dw[at]
            w[at] += momentum * velocity[at] - learning_rate * dw[at] if nesterov else velocity[at]


def rmsprop_step(ws: Arrays, dws: Arrays, squares: Arrays, learning_rate: float, rho: float, epsilon: float) -> None:
    """In place: square = rho * square + (1 - rho) * dw^2; w -= lr * dw / sqrt(square + epsilon).

    ws, dws and squares (...) are sequences of arrays; those at one place have one shape.
    """
    for w, dw, square in zip(ws, dws, squares, strict=True):
        for at in np.ndindex(w.shape):
            square[at] = rho * square[at] + (1 - rho) * dw[at] ** 2
            w[at] -= learning_rate * dw[at] / math.sqrt(square[at] + epsilon)


def adam_step(
    ws: Arrays, dws: Arrays, means: Arrays, squares: Arrays,
    learning_rate: float, beta_1: float, beta_2: float, epsilon: float,
) -> None:  # fmt: skip
    """In place: mean += (1 - beta_1) * (dw - mean), and square likewise; w -= lr * mean / (sqrt(square) + epsilon).

    ws, dws, means and squares (...) are sequences of arrays; those at one place have one shape. squares are the means
    of dw^2. lr is corrected, for means that began at 0, already.
    """
    for w, dw, mean, square in zip(ws, dws, means, squares, strict=True):
        for at in np.ndindex(w.shape):
            mean[at] += (1 - beta_1) * (dw[at] - mean[at])
            square[at] += (1 - beta_2) * (dw[at] ** 2 - square[at])
            w[at] -= learning_rate * mean[at] / (math.sqrt(square[at]) + epsilon)


def _output_size(x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> Pair:
    OH, OW = ((x_shape[1 + a] + sum(pads[a]) - kernel_size[a]) // strides[a] + 1 for a in (0, 1))
    return OH, OW


def _meetings(x_shape: tuple, kernel_size: Pair, strides: Pair, pads: Pads) -> Iterator[tuple[int, ...]]:
    """Give n, i, j, u, v, h, k: place (u, v) of window (i, j) lies on pixel (h, k) of image n, inside the image."""
    N, H, W, _ = x_shape
    for n, i, j, u, v in np.ndindex(N, *_output_size(x_shape, kernel_size, strides, pads), *kernel_size):
        h, k = i * strides[0] + u - pads[0][0], j * strides[1] + v - pads[1][0]
        if 0 <= h < H and 0 <= k < W:
            yield n, i, j, u, v, h, k
