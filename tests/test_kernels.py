"""The fast kernels against plain loops, and the plain loops against definitions that share no code with them.

Most arrays hold small whole numbers: their sums are exact in any order, so that equality is asked for to the bit,
and windows with equal values are common.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.signal import correlate2d

from minicnn import kernels
from minicnn.errors import DtypeError
from minicnn.kernels import cpu, direct, reference, winograd
from minicnn.layers.windows import slide

ROOMS = pytest.mark.parametrize("room", [cpu, reference], ids=["cpu", "reference"])
quick = settings(deadline=None, max_examples=60)


def whole(rng, shape, dtype):
    """Random whole numbers from -4 to 4."""
    return rng.integers(-4, 5, shape).astype(dtype)


@st.composite
def windows(draw):
    """A generator, a dtype, an image shape, and a window with strides and pads, that fit together."""
    size = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    window = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = draw(st.sampled_from(["valid", "same", "any"]))
    if padding == "any":  # less than the window on each side, as many as one likes on either
        pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    else:
        assume(padding == "same" or (size[0] >= window[0] and size[1] >= window[1]))
        pads = slide(size, window, strides, padding)[1]
    assume(all(have + sum(pad) >= k for have, pad, k in zip(size, pads, window, strict=True)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x_shape = (draw(st.integers(1, 3)), *size, draw(st.sampled_from([1, 2, 3, 19])))  # 19: more than a vector register
    return rng, draw(st.sampled_from([np.float32, np.float64])), x_shape, (window, strides, pads)


def same(mine, theirs):
    """Equal to the bit, in shape and in type too."""
    np.testing.assert_array_equal(mine, theirs, strict=True)


def filters(rng, dtype, x_shape, window, F=2):
    return whole(rng, (*window, x_shape[3], F), dtype), whole(rng, F, dtype)


@quick
@given(windows())
def test_im2col_and_col2im_are_the_plain_loops_and_each_others_transpose(case):
    rng, dtype, x_shape, where = case
    x = whole(rng, x_shape, dtype)
    cols = cpu.im2col(x, *where)
    same(cols, reference.im2col(x, *where))
    c = whole(rng, cols.shape, dtype)
    back = cpu.col2im(c, x_shape, *where)
    same(back, reference.col2im(c, x_shape, *where))
    assert (cols * c).sum() == (x * back).sum()  # <im2col(x), c> = <x, col2im(c)>


@quick
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 9), st.integers(3, 7), st.integers(3, 7)),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    *[st.sampled_from([1, 8, 19, 33])] * 2,
)
def test_winograds_products_are_the_plain_sums(seed, dtype, places, pads, C, F):
    rng, few = np.random.default_rng(seed), winograd.FEW
    x, w, b = whole(rng, (*places, C), dtype), whole(rng, (3, 3, C, F), dtype), whole(rng, F, dtype)
    winograd.FEW = 1
    try:
        y = cpu.conv2d(x, w, b, (1, 1), pads)
        dy = whole(rng, y.shape, dtype)
        mine = cpu.conv2d_backward(dy, x, w, (1, 1), pads)
    finally:
        winograd.FEW = few
    corner = pads[0][0], pads[1][0]
    same(y, direct.correlate(x, w, b, (1, 1), corner, y.shape[1:3])[0])  # itself held to the plain loops, and faster
    expected = reference.conv2d_backward(dy, x, w, (1, 1), pads) if C * F < 300 else None
    dw, db = direct.gradient_of_weights(dy, x, w.shape, (1, 1), corner)
    for a, other in zip(mine, expected or (mine[0], dw, db), strict=True):
        same(a, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_winograd_rounds_about_as_the_plain_sums_do(dtype):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((4, 9, 8, 64)), rng.standard_normal((3, 3, 64, 64)) / 24, np.zeros(64)
    where = (1, 1), ((1, 1), (1, 1))
    assert winograd.suits(w.shape, (1, 1))
    y = direct.correlate(x, w, b, (1, 1), (1, 1), (9, 8))[0]
    mine = cpu.conv2d(*(a.astype(dtype) for a in (x, w, b)), *where)
    plain = direct.correlate(*(a.astype(dtype) for a in (x, w, b)), (1, 1), (1, 1), (9, 8))[0]
    assert abs(mine - y).max() <= 16 * np.finfo(dtype).eps * abs(y).max()
    assert dtype is np.float64 or abs(mine - y).max() <= 8 * abs(plain - y).max()


def test_what_winograd_leaves_to_direct():
    assert winograd.suits((3, 3, 32, 32), (1, 1))
    for w_shape, strides in [((3, 3, 31, 64), (1, 1)), ((3, 3, 64, 31), (1, 1)), ((3, 3, 64, 64), (2, 1))]:
        assert not winograd.suits(w_shape, strides)
    assert not winograd.suits((3, 5, 64, 64), (1, 1))


@quick
@given(windows(), st.sampled_from([1, 2, 17]))  # 17: one more than a vector register
def test_convolution_is_the_plain_loops(case, F):
    rng, dtype, x_shape, (window, strides, pads) = case
    x, (w, b) = whole(rng, x_shape, dtype), filters(rng, dtype, x_shape, window, F)
    y = cpu.conv2d(x, w, b, strides, pads)
    same(y, reference.conv2d(x, w, b, strides, pads))
    dy = whole(rng, y.shape, dtype)
    copies = [array.copy() for array in (dy, x, w)]
    mine = cpu.conv2d_backward(dy, x, w, strides, pads)
    for a, b_ in zip(mine, reference.conv2d_backward(dy, x, w, strides, pads), strict=True):
        same(a, b_)
    dx, dw, db = cpu.conv2d_backward(dy, x, w, strides, pads, input_gradient=False)
    assert dx is None
    same(dw, mine[1])
    same(db, mine[2])
    for array, copy in zip((dy, x, w), copies, strict=True):
        same(array, copy)  # what is given is left as it was


@quick
@given(windows())
def test_max_pooling_is_the_plain_loops(case):
    rng, dtype, x_shape, where = case
    x = whole(rng, x_shape, dtype)
    y, argmax = cpu.maxpool2d(x, *where)
    expected, places = reference.maxpool2d(x, *where)
    same(y, expected)
    same(argmax, places)
    dy = whole(rng, y.shape, dtype)
    same(cpu.maxpool2d_backward(dy, argmax, x_shape, *where), reference.maxpool2d_backward(dy, places, x_shape, *where))


@quick
@given(windows())
def test_average_pooling_is_the_plain_loops(case):
    """To the bit, though quotients are rounded: both add the same ones in the same order."""
    rng, dtype, x_shape, where = case
    x = whole(rng, x_shape, dtype)
    y = cpu.averagepool2d(x, *where)
    same(y, reference.averagepool2d(x, *where))
    dy = whole(rng, y.shape, dtype)
    same(cpu.averagepool2d_backward(dy, x_shape, *where), reference.averagepool2d_backward(dy, x_shape, *where))


SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), SHAPES, st.data())
def test_concatenation_is_the_plain_loops_and_numpys(seed, dtype, shape, data):
    rng, axis = np.random.default_rng(seed), data.draw(st.integers(1, len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    xs = [whole(rng, [*shape[:axis], size, *shape[axis + 1 :]], dtype) for size in sizes]
    xs[1] = np.asfortranarray(xs[1])
    y = cpu.concatenate(xs, axis)
    same(y, reference.concatenate(xs, axis))
    same(y, np.concatenate(xs, axis))


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), SHAPES)
def test_leaky_relu_and_gelu_are_the_plain_loops(seed, dtype, shape):
    rng = np.random.default_rng(seed)
    x, dy = whole(rng, shape, dtype), whole(rng, shape, dtype)
    for slope in (0.0, 0.3, 1.0):
        y = cpu.leaky_relu(x, slope)
        same(y, reference.leaky_relu(x, slope))
        same(cpu.leaky_relu_backward(dy, y, slope), reference.leaky_relu_backward(dy, y, slope))
    x, close = (3 * rng.standard_normal(shape)).astype(dtype), {"rtol": 0, "atol": 20 * np.finfo(dtype).eps}
    np.testing.assert_allclose(cpu.gelu(x), reference.gelu(x), **close, strict=True)
    mine, theirs = (room.gelu_backward(dy, x) for room in (cpu, reference))
    np.testing.assert_allclose(mine, theirs, **close, strict=True)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), *[st.integers(1, 6)] * 3)
def test_dense_relu_and_sgd_are_the_plain_loops(seed, dtype, N, In, Out):
    rng = np.random.default_rng(seed)
    x, w, b, dy = (whole(rng, shape, dtype) for shape in ((N, In), (In, Out), (Out,), (N, Out)))
    y = cpu.dense(x, w, b)
    same(y, reference.dense(x, w, b))
    for a, b_ in zip(cpu.dense_backward(dy, x, w), reference.dense_backward(dy, x, w), strict=True):
        same(a, b_)
    assert cpu.dense_backward(dy, x, w, input_gradient=False)[0] is None
    same(cpu.relu(y), reference.relu(y))
    same(cpu.relu(y.copy(), in_place=True), reference.relu(y.copy(), in_place=True))
    for numbers in (y, np.arange(256, dtype=np.uint8)):
        same(*(room.rescale(numbers, 1 / 255, -0.5, dtype) for room in (cpu, reference)))
    same(cpu.relu_backward(dy, y), reference.relu_backward(dy, y))
    for nesterov in (False, True):
        results = []
        for room in (cpu, reference):
            weights, velocity = w.copy(), np.ones_like(w)
            room.sgd_step([weights], [w], [velocity], 0.25, 0.5, nesterov)  # exact in binary
            results.append((weights, velocity))
        same(results[0][0], results[1][0])
        same(results[0][1], results[1][1])


UPDATES = [("sgd_step", 3, (0.5, 0.25, False)), ("sgd_step", 3, (0.5, 0.25, True)),
           ("rmsprop_step", 3, (0.5, 0.9, 1e-3)), ("adam_step", 4, (0.5, 0.9, 0.99, 1e-3))]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("door", "columns", "numbers"), UPDATES)
def test_an_update_in_parts_is_the_plain_loops(door, columns, numbers, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (4,), (0,), (50, 7), (1,)]
    given = [[np.abs(rng.standard_normal(shape)).astype(dtype) for shape in shapes] for _ in range(columns)]
    results, eps = [], 4 * np.finfo(dtype).eps  # of numbers up to about 4
    for room, size in ((reference, None), (cpu, 1 << 20), (cpu, 37), (cpu, 1)):
        monkeypatch.setattr(cpu, "UPDATES", size)  # a part ends within an array, and between two
        arrays = [[a.copy() for a in column] for column in given]
        getattr(room, door)(*arrays, *numbers)
        assert all(map(np.array_equal, arrays[1], given[1]))  # the gradients
        results.append([a for column in arrays for a in column])
    for plain, whole_, parts, single in zip(*results, strict=True):
        np.testing.assert_allclose(whole_, plain, rtol=eps, atol=eps, strict=True)
        same(parts, whole_)
        same(single, whole_)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), st.integers(1, 5), st.integers(1, 6))
def test_softmax_and_its_loss_are_the_plain_loops(seed, dtype, N, K):
    rng = np.random.default_rng(seed)
    z, dy = (10 * rng.standard_normal((2, N, K))).astype(dtype)
    labels = rng.integers(0, K, N)
    p = cpu.softmax(z)
    close = {"rtol": 0, "atol": 500 * np.finfo(dtype).eps, "strict": True}  # for values up to about 40
    np.testing.assert_allclose(p, reference.softmax(z), **close)
    np.testing.assert_allclose(cpu.softmax_backward(dy, p), reference.softmax_backward(dy, p), **close)
    for mine, theirs in zip(*(room.softmax_crossentropy(z, labels) for room in (cpu, reference)), strict=True):
        np.testing.assert_allclose(mine, theirs, **close)


@pytest.mark.parametrize(
    ("x_shape", "window", "strides", "pads"),
    [
        ((19, 25, 25, 1), (3, 2), (1, 1), ((1, 1), (0, 1))),  # more images than blocks, more windows than a tile
        ((2, 2, 700, 1), (2, 2), (1, 1), ((0, 1), (1, 0))),  # one line is longer than a tile
    ],
)
def test_arrays_larger_than_a_block_and_a_tile(x_shape, window, strides, pads):
    rng = np.random.default_rng(0)
    x, (w, b) = whole(rng, x_shape, np.float32), filters(rng, np.float32, x_shape, window)
    y = cpu.conv2d(x, w, b, strides, pads)
    same(y, reference.conv2d(x, w, b, strides, pads))
    dy = whole(rng, y.shape, np.float32)
    mine, theirs = (room.conv2d_backward(dy, x, w, strides, pads) for room in (cpu, reference))
    for a, b_ in zip(mine, theirs, strict=True):
        same(a, b_)
    same(cpu.maxpool2d(x, window, strides, pads)[1], reference.maxpool2d(x, window, strides, pads)[1])
    same(cpu.averagepool2d(x, window, strides, pads), reference.averagepool2d(x, window, strides, pads))
    same(cpu.concatenate([x, x[:, :, :2]], 2), np.concatenate([x, x[:, :, :2]], 2))


def test_elementwise_work_longer_than_a_chunk():
    x = np.random.default_rng(0).standard_normal(3 * cpu.CHUNK + 5).astype(np.float32)
    same(cpu.relu(x), np.maximum(x, 0))
    same(cpu.relu_backward(x, x), np.where(x > 0, x, np.float32(0)))
    slope = np.float32(0.3)
    same(cpu.leaky_relu(x, 0.3), np.where(x > 0, x, slope * x))
    same(cpu.leaky_relu_backward(x, x, 0.3), np.where(x > 0, x, slope * x))
    np.testing.assert_allclose(cpu.gelu(x), x * special.ndtr(x), rtol=1e-5)


@ROOMS
def test_float64_is_computed_in_float64(room):
    x, w = np.full((1, 1, 1, 1), 1 + 2.0**-40), np.ones((1, 1, 1, 1))
    one = ((1, 1), ((0, 0), (0, 0)))
    assert room.conv2d(x, w, np.zeros(1), *one).item() == 1 + 2.0**-40
    assert room.conv2d_backward(x, x, w, *one)[1].item() == (1 + 2.0**-40) ** 2
    assert room.dense(x[0, 0], w[0, 0], np.zeros(1)).item() == 1 + 2.0**-40
    assert room.averagepool2d(x, (1, 1), *one).item() == 1 + 2.0**-40
    assert room.leaky_relu(-x, 0.5).item() == -0.5 * (1 + 2.0**-40)
    assert room.gelu(x).item() == pytest.approx((1 + 2.0**-40) * special.ndtr(1 + 2.0**-40), rel=1e-15)
    weights, velocity = np.ones(1), np.zeros(1)
    room.sgd_step([weights], [np.ones(1)], [velocity], 2.0**-40, 0.9, False)
    assert weights.item() == 1 - 2.0**-40


@ROOMS
def test_arrays_that_are_not_contiguous(room):
    rng = np.random.default_rng(0)
    x, w, b = whole(rng, (6, 5, 2, 2), np.float32), whole(rng, (2, 2, 3, 2), np.float32), np.zeros(3, np.float32)
    view, kernel = x.transpose(2, 1, 0, 3), w.transpose(0, 1, 3, 2)  # (N, H, W, C), (KH, KW, C, F)
    where = ((1, 1), ((0, 0), (0, 0)))
    y = room.conv2d(view, kernel, b, *where)
    same(y, room.conv2d(view.copy(), kernel.copy(), b, *where))
    dy = whole(rng, y.shape[::-1], np.float32).T
    for a, b_ in zip(
        room.conv2d_backward(dy, view, kernel, *where),
        room.conv2d_backward(dy.copy(), view.copy(), kernel.copy(), *where),
        strict=True,
    ):
        same(a, b_)
    pool = ((2, 2), (2, 2), ((0, 0), (0, 0)))
    same(room.maxpool2d(view, *pool)[0], room.maxpool2d(view.copy(), *pool)[0])
    same(room.averagepool2d(view, *pool), room.averagepool2d(view.copy(), *pool))
    same(*(room.averagepool2d_backward(a, view.shape, (1, 1), *where) for a in (view, view.copy())))
    same(room.relu(view), room.relu(view.copy()))
    same(room.leaky_relu(view, 0.3), room.leaky_relu(view.copy(), 0.3))
    same(room.gelu(view), room.gelu(view.copy()))


# The plain loops themselves, against definitions from elsewhere.


@ROOMS
def test_convolution_worked_by_hand(room):
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    w, b = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1), np.array([100.0])
    y = room.conv2d(x, w, b, (1, 1), ((0, 0), (0, 0)))
    # 1*1 + 2*2 + 4*3 + 5*4 = 37, then one pixel to the right, and so on: the kernel is not flipped
    assert y.ravel().tolist() == [137, 147, 167, 177]
    dy = np.array([1.0, 0, 0, 10]).reshape(1, 2, 2, 1)
    dx, dw, db = room.conv2d_backward(dy, x, w, (1, 1), ((0, 0), (0, 0)))
    assert dx.reshape(3, 3).tolist() == [[1, 2, 0], [3, 4 + 10, 20], [0, 30, 40]]
    assert dw.reshape(2, 2).tolist() == [[1 + 50, 2 + 60], [4 + 80, 5 + 90]]
    assert db.tolist() == [11]


@quick
@given(windows())
def test_convolution_is_scipys_correlation(case):
    rng, dtype, x_shape, (window, strides, pads) = case
    x, (w, b) = whole(rng, x_shape, dtype), filters(rng, dtype, x_shape, window)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    y = reference.conv2d(x, w, b, strides, pads)
    for n, f in np.ndindex(len(x), w.shape[3]):
        full = sum(correlate2d(padded[n, :, :, c], w[:, :, c, f], "valid") for c in range(x_shape[3]))
        np.testing.assert_array_equal(y[n, :, :, f], full[:: strides[0], :: strides[1]] + b[f])


@ROOMS
@quick
@given(windows())
def test_gradients_of_convolution_are_its_transposes(room, case):
    """A convolution is linear in x and in w: <dy, conv(x', w)> = <dx, x'> for any x', <dy, conv(x, w')> = <dw, w'>."""
    rng, dtype, x_shape, (window, strides, pads) = case
    x, (w, b) = whole(rng, x_shape, dtype), filters(rng, dtype, x_shape, window)
    other_x, (other_w, other_b) = whole(rng, x_shape, dtype), filters(rng, dtype, x_shape, window)
    dy = whole(rng, reference.conv2d(x, w, b, strides, pads).shape, dtype)
    dx, dw, db = room.conv2d_backward(dy, x, w, strides, pads)
    assert (dy * reference.conv2d(other_x, w, 0 * b, strides, pads)).sum() == (dx * other_x).sum()
    assert (dy * reference.conv2d(x, other_w, 0 * b, strides, pads)).sum() == (dw * other_w).sum()
    assert (dy * other_b).sum() == (db * other_b).sum()


@ROOMS
@quick
@given(windows())
def test_pooling_is_the_maximum_of_each_window_padded_with_minus_infinity(room, case):
    rng, dtype, x_shape, (window, strides, pads) = case
    x = whole(rng, x_shape, dtype)
    y, argmax = room.maxpool2d(x, window, strides, pads)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    views = np.lib.stride_tricks.sliding_window_view(padded, window, (1, 2))[:, :: strides[0], :: strides[1]]
    views = views.reshape(*views.shape[:4], -1)  # (N, OH, OW, C, PH*PW)
    np.testing.assert_array_equal(y, views.max(axis=-1))
    np.testing.assert_array_equal(argmax, views.argmax(axis=-1))  # the first of equal ones
    dy = whole(rng, y.shape, dtype)
    expected = np.zeros((x_shape[0], padded.shape[1], padded.shape[2], x_shape[3]))
    for n, i, j, c in np.ndindex(y.shape):
        u, v = divmod(int(argmax[n, i, j, c]), window[1])
        expected[n, i * strides[0] + u, j * strides[1] + v, c] += dy[n, i, j, c]
    dx = room.maxpool2d_backward(dy, argmax, x_shape, window, strides, pads)
    inside = expected[:, pads[0][0] : pads[0][0] + x_shape[1], pads[1][0] : pads[1][0] + x_shape[2]]
    np.testing.assert_array_equal(dx, inside)
    assert dx.sum() == dy.sum()  # nothing is sent into the padding


@ROOMS
@quick
@given(windows())
def test_average_pooling_is_the_mean_of_what_is_inside_and_its_gradient_the_transpose(room, case):
    rng, dtype, x_shape, (window, strides, pads) = case
    x = whole(rng, x_shape, dtype)

    def summed(a):
        padded = np.pad(a, ((0, 0), *pads, (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, window, (1, 2))[:, :: strides[0], :: strides[1]]
        return views.sum(axis=(4, 5))  # (N, OH, OW, C)

    y = room.averagepool2d(x, window, strides, pads)
    count = summed(np.ones_like(x))
    same(y, summed(x) / count)
    dy = whole(rng, y.shape, dtype) * count  # whole numbers again when divided
    dx = room.averagepool2d_backward(dy, x_shape, window, strides, pads)
    assert dx.shape == x_shape
    assert (dx * x).sum() == (dy / count * summed(x)).sum()  # <dx, x> = <dy, y>
    other = whole(rng, x_shape, dtype)
    assert (dx * other).sum() == (dy / count * summed(other)).sum()


@ROOMS
def test_average_pooling_worked_by_hand(room):
    where = ((2, 2), (2, 2), ((0, 1), (0, 1)))  # 3x3 under "same"
    y = room.averagepool2d(np.arange(1.0, 10).reshape(1, 3, 3, 1), *where)
    assert y.ravel().tolist() == [(1 + 2 + 4 + 5) / 4, (3 + 6) / 2, (7 + 8) / 2, 9]  # 9 / 1, not 9 / 4
    dx = room.averagepool2d_backward(np.array([4.0, 6, 10, 3]).reshape(1, 2, 2, 1), (1, 3, 3, 1), *where)
    assert dx.reshape(3, 3).tolist() == [[1, 1, 3], [1, 1, 3], [5, 5, 3]]
    dx = room.averagepool2d_backward(
        np.array([4.0, 8]).reshape(1, 1, 2, 1), (1, 2, 3, 1), (2, 2), (1, 1), ((0, 0),) * 2
    )
    assert dx.reshape(2, 3).tolist() == [[1, 3, 2], [1, 3, 2]]  # the middle lies in both windows


@ROOMS
def test_gelu_is_x_times_the_normal_distribution(room):
    x = np.array([-40.0, -6, -1, -0.0, 0, 0.5, 1, 6, 40])
    np.testing.assert_allclose(room.gelu(x), x * special.ndtr(x), rtol=1e-13)  # in the tail too: nothing cancels there
    np.testing.assert_allclose(room.gelu(x.astype(np.float32)), x * special.ndtr(x), rtol=1e-5, atol=1e-37)
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(room.gelu_backward(0 * x + 7, x), 7 * (special.ndtr(x) + x * p), rtol=1e-13)
    known = [-0.15865525393145707, 0.8413447460685429]  # x * P(Z < x) at -1 and 1, to be found in every table
    np.testing.assert_allclose(room.gelu(np.array([-1.0, 1.0])), known, rtol=1e-15)


@ROOMS
def test_at_zero_leaky_relu_has_its_negative_slope(room):
    x = np.array([-2.0, -0.0, 0.0, 3.0, np.nan, -np.inf])
    y = room.leaky_relu(x, 0.25)
    np.testing.assert_array_equal(y, [-0.5, 0, 0, 3, np.nan, -np.inf])
    assert room.leaky_relu_backward(np.full(4, 8.0), y[:4], 0.25).tolist() == [2, 2, 2, 8]


@ROOMS
def test_padding_never_wins_over_negative_values(room):
    y, _ = room.maxpool2d(-np.arange(1.0, 17).reshape(1, 4, 4, 1), (3, 3), (2, 2), ((0, 1), (0, 1)))
    assert y.ravel().tolist() == [-1, -3, -9, -11]
    y, argmax = room.maxpool2d(np.full((1, 2, 2, 1), -np.inf), (3, 3), (1, 1), ((1, 1), (1, 1)))
    assert y.ravel().tolist() == [-np.inf] * 4
    assert argmax.ravel().tolist() == [4, 3, 1, 0]  # the first place inside the image


@ROOMS
def test_of_equal_values_the_first_one_wins(room):
    x = np.array([[7.0, 7, 1], [7, 7, 9], [0, 7, 9]]).reshape(1, 3, 3, 1)
    where = ((2, 2), (1, 1), ((0, 0), (0, 0)))
    _, argmax = room.maxpool2d(x, *where)
    assert argmax.ravel().tolist() == [0, 3, 0, 1]  # u*2 + v: row by row
    dx = room.maxpool2d_backward(np.array([1.0, 2, 4, 8]).reshape(1, 2, 2, 1), argmax, x.shape, *where)
    assert dx.reshape(3, 3).tolist() == [[1, 0, 0], [4, 0, 2 + 8], [0, 0, 0]]


@ROOMS
def test_a_nan_reaches_what_it_touches_and_nothing_else(room):
    x, w, b = np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1)), np.zeros(1)
    x[0, 1, 1] = np.nan
    where = ((1, 1), ((0, 0), (0, 0)))
    touched = [[True, True, False], [True, True, False], [False, False, False]]
    assert np.isnan(room.conv2d(x, w, b, *where)).reshape(3, 3).tolist() == touched
    y, argmax = room.maxpool2d(x, (2, 2), *where)
    assert np.isnan(y).reshape(3, 3).tolist() == touched
    assert argmax.reshape(3, 3)[:2, :2].tolist() == [[3, 2], [1, 0]]
    assert np.isnan(room.averagepool2d(x, (2, 2), *where)).reshape(3, 3).tolist() == touched
    assert np.isnan(room.gelu(np.array([np.nan, -1, 1]))).tolist() == [True, False, False]
    assert np.isnan(room.relu(np.array([np.nan, -1, 1]))).tolist() == [True, False, False]
    assert np.isnan(room.dense(np.array([[np.nan], [1]]), np.ones((1, 1)), b)).ravel().tolist() == [True, False]


@ROOMS
def test_softmax_and_its_loss_at_the_edges(room):
    z = np.array([[0.0, 100.0], [0.0, 0.0], [-1000.0, 1000.0]])
    losses, dz = room.softmax_crossentropy(z, np.array([0, 1, 1]))
    np.testing.assert_allclose(losses, [100, np.log(2), 0], rtol=1e-15)  # 100 and not 16.118: nothing is clipped
    np.testing.assert_allclose(dz * 3, [[-1, 1], [0.5, -0.5], [0, 0]], atol=1e-15)  # (p - onehot) / N
    np.testing.assert_allclose(room.softmax(z), [[0, 1], [0.5, 0.5], [0, 1]], atol=1e-15)
    p = np.array([[0.2, 0.3, 0.5]])
    jacobian = np.diag(p[0]) - np.outer(p, p)  # dp_k/dz_j, (K, K)
    for k in range(3):
        np.testing.assert_allclose(room.softmax_backward(np.eye(3)[k : k + 1], p)[0], jacobian[k], atol=1e-16)


@ROOMS
def test_sgd_by_hand(room):
    w, velocity = np.array([1.0]), np.array([0.5])
    room.sgd_step([w], [np.array([2.0])], [velocity], 0.25, 0.5, False)
    assert (velocity.item(), w.item()) == (0.5 * 0.5 - 0.25 * 2, 1 - 0.25)
    room.sgd_step([w], [np.array([2.0])], [velocity], 0.25, 0.5, True)  # velocity -0.625, step 0.5 * -0.625 - 0.5
    assert (velocity.item(), w.item()) == (-0.625, 0.75 - 0.8125)


@ROOMS
def test_rmsprop_and_adam_by_hand(room):
    w, square = np.array([1.0]), np.array([8.0])
    room.rmsprop_step([w], [np.array([2.0])], [square], 0.5, 0.25, 4.0)
    assert square.item() == 0.25 * 8 + 0.75 * 4 == 5
    assert w.item() == 1 - 0.5 * 2 / 3  # the root of 5 + 4
    w, mean, square = np.array([1.0]), np.array([6.0]), np.array([1.0])
    room.adam_step([w], [np.array([2.0])], [mean], [square], 0.5, 0.75, 0.0, 3.0)
    assert (mean.item(), square.item()) == (6 - 4 * 0.25, 2 * 2)
    assert w.item() == 1 - 0.5 * 5 / (2 + 3)  # here epsilon is outside the root


@ROOMS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_are_not_contiguous_are_updated(room, dtype):
    w, dw = np.ones((3, 2), dtype).T, np.full((2, 3), 2, dtype)
    room.sgd_step([w], [dw], [np.zeros((2, 3), dtype)], 0.25, 0.5, False)
    same(w, np.full((2, 3), 0.5, dtype))


def test_an_array_without_a_room_is_refused():
    assert kernels.room(np.zeros(1)) is cpu
    with pytest.raises(DtypeError, match=r"NumPy or CuPy array\. Received: list"):
        kernels.room([0.0])
