"""Mistakes planted into the CUDA text: the comparison with the plain loops must find every one."""

import itertools

import numpy as np
import pytest
import stand_in
from test_kernels import UPDATES

from minicnn.kernels import on_host, reference

PLANTED = {
    "no barrier after loading": ("__syncthreads();\n        for (int d", "for (int d"),
    "no barrier after computing": ("b[d][low + 16 * c];\n        __syncthreads();", "b[d][low + 16 * c];"),
    "two pixels of a pooling window taken for each other": ("2 * four.b + m % 4 / 2", "2 * four.b + m % 2"),
    "a stride forgotten in dx": ("|| h % s.SH ||", "||"),
    "one window too many in dx": ("h / s.SH >= s.OH", "h / s.SH > s.OH"),
    "db left out": ("if (q.u == s.KH) return real(1);", "if (q.u == s.KH) return real(0);"),
    "the gradient sent to another pixel": ("argmax[q] == i % 2 * 2 + j % 2", "argmax[q] == j % 2 * 2 + i % 2"),
    "the last maximum wins": ("z > best ||", "z >= best ||"),
    "a dead window has a winner": ("best > 0 ? place : 4", "place"),
    "a part of a sum left out": ("for (int part = 0; part < count", "for (int part = 1; part < count"),
    "the bias added to every part": ("b && gridDim.z == 1 ?", "b ?"),
    "channels and filters exchanged": ("* wide(s.C) + c) * s.F + k.c]", "* wide(s.C) + k.c) * s.F + c]"),
    "a carry too late": ("if (++b == B)", "if (++b > B)"),
    "a weight updated twice": ("while (i >= g.ends[t])", "while (i > g.ends[t])"),
    "Nesterov without looking ahead": ("nesterov ? momentum * velocity - step : velocity", "velocity"),
    "channels taken for each other": ("const int c = i % C, part = i / C;", "const int c = i % C, part = (i + 1) / C;"),
    "parts of sums left out": ("double sum = 0;\n    for (int part = 0", "double sum = 0;\n    for (int part = 1"),
    "a row summed twice": ("r < rows * (part + 1) / parts", "r <= rows * (part + 1) / parts && r < rows"),
    "the mean not taken away": ("(x[i] - mean[c]) * scale[c]", "x[i] * scale[c]"),
    "a term of normalization's gradient left out": ("+ (x[i] - mean[k]) * b[k] + c[k]", "+ c[k]"),
    "what is dropped kept": ("kept[i] ? x[i] * scale : real(0)", "kept[i] ? x[i] * scale : x[i]"),
    "RMSprop's epsilon outside the root": ("sqrt(square + epsilon)", "(sqrt(square) + epsilon)"),
    "the mean of the squares forgotten": ("rho * g.first[t][at] + rest * (dw * dw)", "rest * (dw * dw)"),
    "Adam's epsilon inside the root": ("(sqrt(square) + epsilon)", "sqrt(square + epsilon)"),
    "the step along the gradient, not its mean": ("rate * mean / (", "rate * dw / ("),
    "both means of one share": ("square += rest_2", "square += rest_1"),
    "some squares left out": ("for (wide at = i; at < size; at", "for (wide at = i; at < parts; at"),
    "the squares of one weight in another's place": ("sums[i * arrays + k] = sum", "sums[k * parts + i] = sum"),
    "decay the other way": ("w -= rate * w", "w += rate * w"),
    "the label's target not smoothed": ("(k == labels[i]) * own", "(k == labels[i])"),
    "the loss of the label alone": ("losses[i] -= share * (z[k] - peak)", ""),
    "a sum over the batch instead of its mean": ("labels[i]) * own) / rows", "labels[i]) * own)"),
    "rows taken for columns": ("rows[wide(p.a) * OH + p.b], w = cols", "cols[wide(p.a) * OH + p.b], w = cols"),
    "outside the image not 0": ("h < 0 || w < 0 ? T(0) :", "h < 0 || w < 0 ? T(1) :"),
    "a pixel that is seen twice counts once": ("if (cols[v] == p.c) sum += dy", "if (cols[v] == p.c) sum = dy"),
    "another image's rows": ("rows += wide(p.a) * OH; cols", "cols"),
    "a box with its lower edge": ("p.b < box[1]", "p.b <= box[1]"),
    "all boxes the first": ("boxes + 4 * wide(p.a)", "boxes"),
    "padding counted in a mean": ("min(h + s.KH, s.H) - max(h, 0)", "s.KH"),
    "a column of a window not counted": ("min(w + s.KW, s.W) - max(w, 0)", "min(w + s.KW, s.W) - max(w + 1, 0)"),
    "a window that ends before the pixel": ("h < s.KH ? 0 : (h - s.KH) / s.SH + 1;", "0;"),
    "one window too few has the pixel": ("q < s.OW && q * s.SW <= w", "q < s.OW && q * s.SW < w"),
    "the negative part cut off": ("x[i] > 0 ? x[i] : slope * x[i]", "x[i] > 0 ? x[i] : real(0)"),
    "the gradient of leaky ReLU at 0 whole": ("y[i] > 0 ? dy[i] : slope * dy[i]", "y[i] >= 0 ? dy[i] : slope * dy[i]"),
    "a normal variable of variance 1/2": ("erfc(-real(0.70710678118654752) * x)", "erfc(-x)"),
    "the density left out of GELU's gradient": ("(below(x[i]) + x[i] * density)", "below(x[i])"),
    "rows of a concatenation over each other": ("i / width * whole + start", "i / width * width + start"),
    "all inputs of a concatenation at its beginning": ("* whole + start + i % width", "* whole + i % width"),
}  # fmt: skip


def wrong(room):
    """Return the doors that differ from the plain loops somewhere."""
    rng, found = np.random.default_rng(0), set()

    def whole(*shape):
        return rng.integers(-4, 5, shape).astype(float)

    def compare(door, *arguments):
        given = [room.on_device(a) if isinstance(a, np.ndarray) else a for a in arguments]
        mine, theirs = getattr(room, door)(*given), getattr(reference, door)(*arguments)
        mine, theirs = (value if isinstance(value, tuple) else (value,) for value in (mine, theirs))
        if not all(np.allclose(on_host(a), b, rtol=1e-12, atol=1e-12) for a, b in zip(mine, theirs, strict=True)):
            found.add(door)
        return theirs

    for strides, F in (((1, 1), 3), ((2, 3), 17)):
        x, w, where = whole(2, 7, 8, 5), whole(3, 2, 5, F), (strides, ((1, 1), (0, 1)))
        (y,) = compare("conv2d", x, w, whole(F), *where)
        compare("conv2d_backward", whole(*y.shape), x, w, *where)
    x, w = whole(2, 6, 8, 3), whole(3, 3, 3, 4)
    _, argmax = compare("conv2d_relu_maxpool2d", x, w, whole(4))
    compare("conv2d_relu_maxpool2d", np.ones((1, 6, 6, 1)), np.ones((3, 3, 1, 2)), np.zeros(2))  # ties
    compare("conv2d_relu_maxpool2d_backward", whole(*argmax.shape), argmax, x, w)
    x, w = whole(70, 300), whole(300, 3)
    compare("dense", x, w, whole(3))
    compare("dense_backward", whole(70, 3), x, w)
    compare("softmax_crossentropy", rng.standard_normal((5, 4)), rng.integers(0, 4, 5), 0.25)
    x, dy, vectors = whole(9, 8, 3), whole(9, 8, 3), [whole(3) for _ in range(4)]
    compare("moments", x)
    compare("normalize", x, *vectors[:3])
    compare("normalize_sums", dy, x, vectors[0])
    compare("normalize_backward", dy, x, *vectors)
    compare("dropout", x, rng.integers(0, 2, x.shape).astype(bool), 2.0)
    arrays = [whole(*shape) for shape in ((3, 2), (2, 700), (4,))]
    mine = [room.on_device(a) for a in arrays]
    for together in (False, True):
        pairs = zip(room.clip_by_norm(mine, 8.0, together), reference.clip_by_norm(arrays, 8.0, together), strict=True)
        if not all(np.allclose(on_host(a), b, rtol=1e-12, atol=1e-12) for a, b in pairs):
            found.add("clip_by_norm")
    room.decay(mine, 0.25)
    reference.decay(arrays, 0.25)
    if not all(np.allclose(on_host(a), b, rtol=1e-12, atol=1e-12) for a, b in zip(mine, arrays, strict=True)):
        found.add("decay")
    x, rows, cols = whole(3, 4, 5, 2), rng.integers(-1, 4, (3, 6)), rng.integers(-1, 5, (3, 7))
    compare("gather_pixels", x, rows.astype(np.int32), cols.astype(np.int32))
    compare("gather_pixels_backward", whole(3, 6, 7, 2), rows.astype(np.int32), cols.astype(np.int32), x.shape)
    compare("cutout", x, np.array([[0, 2, 1, 3], [1, 3, 2, 5], [3, 4, 0, 0]], np.int32), 9.0)
    for door, columns, numbers in UPDATES:
        arrays = [[abs(whole(*shape)) for shape in ((3, 2), (2,), (4,))] for _ in range(columns)]
        mine = [[room.on_device(a) for a in column] for column in arrays]
        getattr(room, door)(*mine, *numbers)
        getattr(reference, door)(*arrays, *numbers)
        pairs = zip(itertools.chain(*mine), itertools.chain(*arrays), strict=True)
        if not all(np.allclose(on_host(a), b, rtol=1e-12, atol=1e-12) for a, b in pairs):
            found.add(door)
    for where in (((3, 2), (2, 1), ((1, 1), (0, 1))), ((2, 2), (3, 3), ((0, 0), (0, 0)))):
        x = whole(2, 7, 8, 3)
        (y,) = compare("averagepool2d", x, *where)
        compare("averagepool2d_backward", whole(*y.shape), x.shape, *where)
    x, dy = whole(40, 9), whole(40, 9)
    (y,) = compare("leaky_relu", x, 0.25)
    compare("leaky_relu_backward", dy, y, 0.25)
    compare("gelu", x)
    compare("gelu_backward", dy, x)
    parts = [whole(5, 2, 3), whole(5, 1, 3)]
    mine = room.concatenate([room.on_device(part) for part in parts], 1)
    if not np.array_equal(on_host(mine), np.concatenate(parts, 1)):
        found.add("concatenate")
    return found


@pytest.fixture
def planting(gpu, on_card, monkeypatch):
    """Give a function that puts a mistake into the room's text."""
    if on_card:
        pytest.skip("nobody plants mistakes into a card: one may hang it")

    def forget():
        gpu._kernel.cache_clear()
        gpu._module.cache_clear()

    def plant(before, after):
        assert before in gpu.CUDA
        monkeypatch.setattr(gpu, "CUDA", gpu.CUDA.replace(before, after, 1))
        forget()
        return gpu

    yield plant
    monkeypatch.undo()
    forget()


def test_the_text_itself_is_right(gpu):
    assert wrong(gpu) == set()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(name, planting, monkeypatch):
    room, found = planting(*PLANTED[name]), set()
    for backwards in (False, True):  # without a barrier, one of the two orders is right by luck
        monkeypatch.setattr(stand_in.RawModule, "backwards", backwards)
        found |= wrong(room)
    assert found
