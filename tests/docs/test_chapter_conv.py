"""The chapter on convolution: what its figures show and its text claims."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from minicnn import layers
from minicnn.kernels import reference
from minicnn.layers.windows import slide

DOCS = Path(__file__).parents[2] / "docs"


def test_pixel_5_is_copied_four_times_and_gets_four_gradients(figures):
    image, cols = figures.windows()
    assert image.shape == (4, 4)
    assert cols.tolist() == [
        [0, 1, 2, 4, 5, 6, 8, 9, 10],
        [1, 2, 3, 5, 6, 7, 9, 10, 11],
        [4, 5, 6, 8, 9, 10, 12, 13, 14],
        [5, 6, 7, 9, 10, 11, 13, 14, 15],
    ]
    dcols = np.zeros((4, 9))
    dcols[cols == figures.PIXEL] = [1, 10, 100, 1000]
    dx = reference.col2im(dcols, (1, 4, 4, 1), (3, 3), (1, 1), ((0, 0), (0, 0))).ravel()
    assert dx[figures.PIXEL] == 1111
    assert dx.sum() == 1111


def test_the_tables_count_the_windows_of_each_pixel(figures):
    cases = {(1, 1): [2, 3, 3, 3, 2], (1, 0): [1, 2, 3, 2, 1], (2, 0): [1, 1, 2, 1, 1]}  # along one axis
    for (stride, pads), along in cases.items():
        np.testing.assert_array_equal(figures.counts(stride, pads), np.outer(along, along))


@pytest.mark.parametrize("draw", ["draw_im2col", "draw_counts", "draw_photograph"])
def test_no_title_of_a_figure_is_cut_off(figures, draw):
    figure = getattr(figures, draw)()
    figure.draw_without_rendering()
    boxes = sorted((axes.title.get_window_extent() for axes in figure.axes), key=lambda box: box.x0)
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.x1
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_the_photographs_kernels_answer_where_it_grows_brighter():
    ramp = np.arange(5.0)[None, None, :, None] * np.ones((1, 5, 1, 1))  # (N, H, W, C), brighter to the right
    sobel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[:, :, None, None]  # (KH, KW, C, F)
    y = reference.conv2d(ramp, sobel, np.zeros(1), (1, 1), ((0, 0), (0, 0)))
    assert (y == 8).all()
    y = reference.conv2d(ramp.swapaxes(1, 2), sobel.swapaxes(0, 1), np.zeros(1), (1, 1), ((0, 0), (0, 0)))
    assert (y == 8).all()


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "k"), [(5, 3), (6, 3), (5, 2), (7, 4), (3, 5)])
def test_dx_is_a_convolution_with_the_flipped_kernel(size, k, padding):
    if padding == "valid" and k > size:
        return
    rng = np.random.default_rng(0)
    (OH, OW), pads = slide((size, size), (k, k), (1, 1), padding)
    x, w = rng.standard_normal((2, size, size, 3)), rng.standard_normal((k, k, 3, 4))  # (N, H, W, C), (KH, KW, C, F)
    dy = rng.standard_normal((2, OH, OW, 4))  # (N, OH, OW, F)
    flipped = w[::-1, ::-1].swapaxes(2, 3)  # (KH, KW, F, C)
    turned = tuple((k - 1 - before, k - 1 - after) for before, after in pads)
    dx = reference.conv2d(dy, flipped, np.zeros(3), (1, 1), turned)  # (N, H, W, C)
    np.testing.assert_allclose(dx, reference.conv2d_backward(dy, x, w, (1, 1), pads)[0], atol=1e-12)


def test_a_dy_of_ones_does_not_notice_that_it_was_shifted():
    layer = layers.Conv2D(4, 3, padding="same").build((5, 5, 2))
    layer.forward(np.random.default_rng(0).standard_normal((2, 5, 5, 2)).astype("f4"))
    dy = np.ones((2, 5, 5, 4), "f4")
    right = [layer.backward(dy), *layer.grads.values()]
    shifted = [layer.backward(np.roll(dy, 1, axis=2)), *layer.grads.values()]
    for a, b in zip(right, shifted, strict=True):
        np.testing.assert_array_equal(a, b)
